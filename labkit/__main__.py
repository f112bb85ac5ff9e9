"""``python -m labkit``: the command where no console script is on the path."""

from labkit.cli import main

main()
