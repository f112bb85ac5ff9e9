"""What a sweep found, as two CSV files that any tool reads.

`results.csv` has one row a run: parameters, each claim's value and verdict, metrics, time, memory,
status. `claims.csv` has one row a run and claim, with the bound: the form that plots want.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from labkit.claims import Claim
from labkit.headless.execute import RunResult
from labkit.headless.files import write_atomic
from labkit.headless.runs import Run
from labkit.headless.usage import UsageError

TABLES = ("results.csv", "claims.csv")
NOT_RUN = "not run"
ABOUT = ("run", "status")
COST = ("seconds", "peak_memory_mb", "missing", "error", "notebook")
CLAIM = ("paper", "statement", "value", "at_least", "at_most", "unit", "holds")


def refuse_ambiguous(runs: Iterable[Run]) -> None:
    """Raise a UsageError for a parameter that is called as a column of the tables is."""
    ours = {*ABOUT, *COST, *CLAIM}
    for run in runs:
        for name in ours.intersection(run.parameters):
            raise UsageError(
                f"{run.notebook.name} has a parameter named {name}, as a column of the tables is; "
                f"rename it to anything but {', '.join(sorted(ours))}"
            )


def write(results: Mapping[Run, RunResult | None], folder: Path) -> None:
    """Write both tables into a folder, each whole or not at all."""
    wide = [_row(run, result) for run, result in results.items()]
    long = [
        _about(run, result) | {key: getattr(claim, key) for key in CLAIM}
        for run, result in results.items()
        if result is not None
        for claim in result.claims
    ]
    texts = _csv(wide), _csv(long, first=(*ABOUT, *CLAIM))
    for name, text in zip(TABLES, texts, strict=True):
        write_atomic(folder / name, text)


def _about(run: Run, result: RunResult | None) -> dict[str, Any]:
    status = NOT_RUN if result is None else result.status
    return {"run": run.id, "status": status} | {k: _cell(v) for k, v in run.parameters.items()}


def _row(run: Run, result: RunResult | None) -> dict[str, Any]:
    row = _about(run, result)
    if result is None:
        return row | dict.fromkeys(COST)
    for name, claim in _named(result.claims):
        row |= {f"claim: {name}": claim.value, f"holds: {name}": claim.holds}
    row |= {f"metric: {name}": value for name, value in result.metrics.items()}
    return row | {
        "seconds": result.seconds,
        "peak_memory_mb": result.peak_memory_mb,
        "missing": " ".join(result.missing),
        "error": result.error and str(result.error),
        "notebook": result.output.as_posix(),
    }


def _named(claims: Iterable[Claim]) -> list[tuple[str, Claim]]:
    """Claims with names that tell them apart, also where a cell made the same statement twice."""
    named: dict[str, Claim] = {}
    for claim in claims:
        name, again = f"{claim.paper}: {claim.statement}", 1
        while name in named:
            again += 1
            name = f"{claim.paper}: {claim.statement} ({again})"
        named[name] = claim
    return list(named.items())


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _csv(rows: list[dict[str, Any]], first: Iterable[str] = ()) -> str:
    """Rows as CSV; a column for every name that any of them has, costs last."""
    names = dict.fromkeys([*first, *(name for row in rows for name in row)])
    ordered = [name for name in names if name not in COST]
    ordered += [name for name in COST if name in names]
    text = io.StringIO()
    table = csv.DictWriter(text, ordered, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
