"""The published table `measured.csv`: what each notebook costs, and how often its claims hold.

`labkit verify --publish` writes it, the start page shows it. A row counts as long as the code in
its notebook is what was run. Text may change, and so may labkit: the tests run all notebooks anew.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from labkit import atlas
from labkit.headless.execute import RunResult
from labkit.headless.files import write_atomic
from labkit.headless.notebooks import Notebook, find_all, load, source_of
from labkit.headless.runs import FINISHED, Run, is_current

COLUMNS = ("notebook", "code", "runs", "ok", "seconds", "peak_memory_mb", "cores", "date")


def table() -> Path:
    """Where the table lies."""
    return atlas.notebooks_dir() / "measured.csv"


def read() -> dict[str, dict[str, str]]:
    """Rows by notebook; none where nothing was published yet."""
    if not table().is_file():
        return {}
    with table().open(encoding="utf-8", newline="") as file:
        return {row["notebook"]: row for row in csv.DictReader(file)}


def seconds_of(notebook: Notebook, rows: Mapping[str, Mapping[str, str]]) -> float | None:
    """What it takes with its defaults: by its row, else as its author states; None if neither."""
    published = rows.get(notebook.name, {}).get("seconds")
    if published:
        return float(published)
    return None if notebook.minutes is None else 60 * notebook.minutes


def publish(results: Mapping[Run, RunResult | None]) -> list[str]:
    """Put the notebooks of these results into the table; return their names.

    A notebook of which a run is missing or did not come to its end keeps the row that it had, and
    so does one that was edited, or labkit with it, while it ran. Seconds are the median, memory is
    the largest, of the notebook's own kernel alone, without processes that it starts. Rows of
    notebooks that are gone are dropped.
    """
    made: dict[str, list[Run]] = {}
    for run in results:
        made.setdefault(run.notebook.name, []).append(run)
    notebooks = {notebook.name: notebook for notebook in find_all()}
    rows: dict[str, dict[str, Any]] = {n: row for n, row in read().items() if n in notebooks}
    published = []
    for name, mine in made.items():
        found = [results[run] for run in mine]
        ended = [result for result in found if result is not None and result.status in FINISHED]
        # Planned together, all runs of a notebook are of one file: the first speaks for them.
        if name in notebooks and len(ended) == len(mine) and is_current(mine[0]):
            rows[name] = _row(notebooks[name], ended)
            published.append(name)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[name] for name in sorted(rows))
    write_atomic(table(), text.getvalue())
    return published


def stale() -> list[str]:
    """Notebooks without a row, and those whose code has changed since."""
    rows = read()
    return [n.name for n in find_all() if rows.get(n.name, {}).get("code") != code_digest(n)]


def code_digest(notebook: Notebook) -> str:
    """A hash of a notebook's code cells."""
    code = [source_of(c) for c in load(notebook.path)["cells"] if c["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:12]


def _row(notebook: Notebook, results: list[RunResult]) -> dict[str, Any]:
    memory = [result.peak_memory_mb for result in results if result.peak_memory_mb is not None]
    return {
        "notebook": notebook.name,
        "code": code_digest(notebook),
        "runs": len(results),
        "ok": sum(result.status == "ok" for result in results),
        "seconds": round(median(result.seconds for result in results)),
        "peak_memory_mb": round(max(memory)) if memory else "",
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
    }
