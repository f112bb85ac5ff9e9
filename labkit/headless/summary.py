"""`summary.ipynb`: the page that a sweep ends in, executed, for the reader to go on from."""

import csv
import hashlib
import json
from pathlib import Path

from labkit.headless.execute import execute
from labkit.headless.files import write_atomic
from labkit.headless.imports import quick_jsonschema
from labkit.headless.notebooks import Notebook
from labkit.headless.tables import TABLES

SUMMARY = "summary.ipynb"
_INTRODUCTION = """\
# {name}: {runs}

`results.csv` has one row a run, `claims.csv` one row a run and claim; the executed notebooks lie in
`runs/`. This page reads the tables. Copy it before you change it: the next sweep that adds a run
makes it anew."""
_CELLS = (
    """\
from labkit.headless import report

results, claims = report.read()
results["status"].value_counts().to_frame("runs")""",
    """\
# What did not end well
bad = results[results["status"] != "ok"]
bad[["run", *report.parameters(results), "status", "missing", "error", "notebook"]]""",
    """\
# Pass rates, with what was measured
rates = report.pass_rates(claims)
rates.round(3)""",
    """\
report.draw_verdicts(claims);""",
    """\
# Measured values beside what is claimed
report.draw_values(claims);""",
    """\
# Metrics, time and memory
numbers = results.filter(regex="^metric: |^seconds$|^peak_memory_mb$")
numbers.describe().T.round(3)""",
)
_OF_CLAIMS = range(2, 5)  # cells that need at least one claim


def write(folder: Path, name: str) -> None:
    """Make `summary.ipynb` from the tables of a folder and execute it; nothing if it is current.

    Raises
    ------
    OSError
        if it cannot be written.
    RuntimeError
        if one of its cells fails.
    """
    path, content = folder / SUMMARY, _content(folder)
    if _made_from(path) == content:
        return
    quick_jsonschema()
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    runs, claims = (_count_rows(folder / table) for table in TABLES)
    count = "1 run" if runs == 1 else f"{runs} runs"
    cells = [cell for i, cell in enumerate(_CELLS) if claims or i not in _OF_CLAIMS]
    made = new_notebook(
        cells=[new_markdown_cell(_INTRODUCTION.format(name=name, runs=count))]
        + [new_code_cell(cell) for cell in cells],
        metadata={"labkit": {"made_from": content}},
    )
    notebook = Notebook("summary", path.absolute(), name, [], None, [])
    executed, result = execute(notebook, nbformat.writes(made), {}, path)
    if result.error is not None:
        raise RuntimeError(str(result.error))
    write_atomic(path, executed)


def _count_rows(table: Path) -> int:
    with table.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def _content(folder: Path) -> str:
    tables = [(folder / name).read_bytes() for name in TABLES]
    return hashlib.sha256(b"\0".join(tables)).hexdigest()


def _made_from(path: Path) -> str | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["labkit"]["made_from"]
    except (OSError, ValueError, KeyError, TypeError):  # absent, or no notebook of ours
        return None
