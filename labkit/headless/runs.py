"""Runs of a sweep as folders: what names one, what it holds, whether it is finished.

    <out>/runs/<id>/<notebook>.ipynb     the executed notebook
    <out>/runs/<id>/result.json          its parameters, claims, metrics, status: written last

The id is a hash of what the result depends on: the notebook, every parameter, labkit itself.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import labkit
from labkit.headless import parameters
from labkit.headless.execute import RunResult
from labkit.headless.files import write_atomic
from labkit.headless.grid import Row
from labkit.headless.notebooks import Notebook, load, source_of, tags_of

FINISHED = ("ok", "claims-failed")  # run to the end; anything else is run again


@dataclass(frozen=True)
class Run:
    """One notebook with one value for each of its parameters, and the folder it is kept in."""

    notebook: Notebook = field(hash=False)
    parameters: dict[str, Any] = field(hash=False)
    asked: Row = field(hash=False)  # those of its parameters that the sweep sets
    folder: Path  # tells all the rest, by its name

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def out(self) -> Path:
        """The folder of its sweep, with the tables."""
        return self.folder.parents[1]

    @property
    def output(self) -> Path:
        """The executed notebook."""
        return self.folder / f"{Path(self.notebook.name).name}.ipynb"

    @property
    def record(self) -> Path:
        """The file whose presence says that the run came to an end."""
        return self.folder / "result.json"

    def __str__(self) -> str:
        words = " ".join(f"{name}={value}" for name, value in self.asked.items())
        return f"{self.notebook.name} {words or 'with its defaults'}"


def plan(notebook: Notebook, rows: Iterable[Row], out: Path | str | None = None) -> list[Run]:
    """The runs of a notebook in a folder, `sweeps/<name>` if None, in the order of the rows.

    Rows that mean the same run count once.

    Raises
    ------
    UsageError
        for an unknown parameter or a value of another type.
    """
    out = Path("sweeps") / notebook.name if out is None else Path(out)
    content = digest(notebook)
    runs: dict[str, Run] = {}
    for row in rows:
        values = notebook.defaults | parameters.check(notebook.parameters, row)
        # Not JSON, which cannot tell a key 1 from a key "1".
        depends_on = repr([content, sorted(values.items()), labkit_identity()])
        name = hashlib.sha256(depends_on.encode()).hexdigest()[:16]
        runs.setdefault(name, Run(notebook, values, row, out / "runs" / name))
    return list(runs.values())


def is_current(run: Run) -> bool:
    """Whether the notebook's file and labkit's own still are what the run was planned for."""
    labkit_identity.cache_clear()  # each run imports labkit anew; it may have changed meanwhile
    return plan(run.notebook, [run.asked], run.out) == [run]


def digest(notebook: Notebook) -> str:
    """A hash of a notebook's name, papers and cells, not of their outputs."""
    cells = [
        (cell["cell_type"], source_of(cell), sorted(tags_of(cell)))
        for cell in load(notebook.path)["cells"]
    ]
    return hashlib.sha256(json.dumps([notebook.name, notebook.papers, cells]).encode()).hexdigest()


@cache
def labkit_identity() -> str:
    """The version of labkit with a hash of its source: a checkout changes, its version does not."""
    package = Path(labkit.__file__).parent
    source = hashlib.sha256()
    # An installed copy carries the notebooks within the package; those are hashed on their own.
    files = (p.relative_to(package) for p in package.rglob("*.py"))
    for path in sorted(path for path in files if path.parts[0] != "notebooks"):
        source.update(f"{path.as_posix()}\0".encode() + (package / path).read_bytes() + b"\0")
    return f"{labkit.__version__}+{source.hexdigest()[:16]}"


def stored(run: Run) -> RunResult | None:
    """The result of a run that came to an end here, whatever its status."""
    try:
        data = json.loads(run.record.read_text(encoding="utf-8"))
        return replace(RunResult.from_dict(data), output=run.output)  # the folder may have moved
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None  # none yet; or a crash of the machine emptied the renamed file


def store(run: Run, executed: str | None, result: RunResult) -> None:
    """Keep a run: its notebook if there is one, then the record that makes it count."""
    run.folder.mkdir(parents=True, exist_ok=True)
    run.record.unlink(missing_ok=True)  # of an earlier try: it must not vouch for the new notebook
    for left in run.folder.glob(".*.part"):  # of a sweep that was killed while it wrote
        left.unlink()
    if executed is None:
        run.output.unlink(missing_ok=True)  # nor must an older notebook be taken for this run's
    else:
        write_atomic(run.output, executed)
    record = result.as_dict() | {"labkit": labkit_identity()}
    write_atomic(run.record, json.dumps(record, indent=2) + "\n")
