"""What the commands share: how they print, and what they do about signals."""

import _thread
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Timeout = Annotated[int | None, typer.Option(min=1, help="Seconds that one cell may take.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Parameters that the notebook's author has set together; -p goes before them.",
        metavar="NAME",
    ),
]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def quoted(path: Path) -> str:
    """A path as one word of a command line, for the shell that this system has."""
    return subprocess.list2cmdline([path]) if os.name == "nt" else shlex.quote(str(path))


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, allow_nan=False))


def print_table(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows as a table; those of several lines get a rule between them.

    However narrow the terminal, nothing is cut off, and the first column, which is what one copies,
    stays on one line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    ruled = any("\n" in text for row in rows for text in row)
    table = Table(title=title, title_justify="left", show_lines=ruled)
    widest = max((len(row[0]) for row in rows), default=0)
    table.add_column(headings[0], min_width=widest, no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: the type list[int] is no markup
    Console().print(table)


def print_items(items: Sequence[str]) -> None:
    """Print an indented list, broken between items alone."""
    width = min(100, shutil.get_terminal_size().columns) - 4
    text = ", ".join(item.replace(" ", "\0") for item in items)
    for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
        print("    " + line.replace("\0", " "))


class Stop:
    """Remembers the signal that asked a run to stop."""

    def __init__(self) -> None:
        self.asked = Event()
        self.told = False
        self.exit_code = 130

    def __call__(self, number: int, _: FrameType | None) -> None:
        if not self.told:
            self.told = True
            self.exit_code = 128 + number
            say("stopping; what ran is kept")
            # From a thread of its own: the signal may have come while this one was within
            # `asked.wait`, and held the lock that `set` waits for.
            _thread.start_new_thread(self.asked.set, ())


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a request to stop.

    An exception raised from the handler would surface anywhere, also within the very clean-up that
    takes the kernel down.
    """
    stop = Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # Once stopped this process is about to end: impatient signals change nothing.
            signal.signal(number, signal.SIG_IGN if stop.told else handler)
