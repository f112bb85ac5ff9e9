"""``python -m labkit``: the command where no console script is on the path."""

from labkit.cli import main

if __name__ == "__main__":  # a sweep's worker processes import this module
    main()
