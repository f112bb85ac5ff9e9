"""Run one notebook: check what is asked, execute it, keep its outputs, read its claims."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from time import monotonic
from typing import Any

from labkit.claims import Claim
from labkit.headless import evidence, parameters
from labkit.headless.evidence import Failure
from labkit.headless.files import write_atomic
from labkit.headless.imports import quick_jsonschema
from labkit.headless.notebooks import Notebook, find
from labkit.headless.usage import UsageError


@dataclass(frozen=True)
class RunResult:
    """What a run found. `status` is "ok", "claims-failed", "error" or "interrupted".

    `parameters` holds every declared parameter, given or default; `missing` the papers of the
    notebook of which no claim ran, which counts as "claims-failed".
    """

    notebook: str
    parameters: dict[str, Any]
    status: str
    seconds: float
    output: Path
    claims: list[Claim]
    metrics: dict[str, float]
    missing: list[str]
    error: Failure | None
    peak_memory_mb: float | None  # the kernel's largest resident memory, without its children's

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data; `error` is left out where there is none."""
        data = asdict(self) | {"output": self.output.as_posix()}
        if self.error is None:
            del data["error"]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RunResult":
        """What `as_dict` made."""
        plain = {field.name: data[field.name] for field in fields(cls) if field.name != "error"}
        claims = [Claim(**claim) for claim in data["claims"]]
        error = Failure(**data["error"]) if "error" in data else None
        return cls(**plain | {"output": Path(data["output"]), "claims": claims, "error": error})


class NotWrittenError(RuntimeError):
    """A run came to its end and its notebook could not be kept; `result` says what it found."""

    def __init__(self, message: str, result: RunResult) -> None:
        super().__init__(message)
        self.result = result


def run(
    name: str,
    given: Mapping[str, Any] | None = None,
    *,
    out: Path | str = "runs",
    on_cell: Callable[[int, int, str], None] | None = None,
    timeout: int | None = None,
    stop: Event | None = None,
) -> RunResult:
    """Execute one notebook headless; it prints nothing and does not depend on a terminal.

    The executed notebook is written to ``<out>/<name>.ipynb`` when the run ends, whole or not at
    all, and replaces that of an earlier run whatever the status, which stands in its metadata
    (``labkit.run``). A notebook that errs, and one that was interrupted, keeps what ran and the
    error.

    Parameters
    ----------
    name :
        as `labkit list` shows it, or the path of an ``.ipynb`` file
    given :
        parameters that differ from their defaults
    out :
        folder for the executed notebook, made if needed
    on_cell :
        called as each cell starts, with its number, the number of cells and a few words of it
    timeout :
        seconds that one cell may take; None for no limit
    stop :
        set it, from a signal handler or another thread, to end the run: the cell in work is
        interrupted, and killed if it does not heed that for some seconds

    Raises
    ------
    UsageError
        before any kernel starts: unknown notebook or parameter, a value of the wrong type, a folder
        that cannot be written to.
    KeyboardInterrupt
        if it was stopped before the first cell; nothing is written then.
    NotWrittenError
        if the executed notebook cannot be written, with the result.
    """
    notebook = find(name)
    values = parameters.check(notebook.parameters, given or {})
    output = _prepare(notebook, Path(out))
    content = notebook.path.read_text(encoding="utf-8")
    executed, result = execute(
        notebook, content, values, output, on_cell=on_cell, timeout=timeout, stop=stop
    )
    try:
        write_atomic(output, executed)
    except OSError as error:
        raise NotWrittenError(f"{output} cannot be written: {error.strerror}", result) from error
    return result


def execute(
    notebook: Notebook,
    content: str,
    values: Mapping[str, Any],
    output: Path,
    *,
    on_cell: Callable[[int, int, str], None] | None = None,
    timeout: int | None = None,
    stop: Event | None = None,
) -> tuple[str, RunResult]:
    """Execute the content of a notebook with checked values: the executed notebook and its result.

    It writes no file; `output` is where the caller is going to keep the notebook. The other
    arguments are those of `run`, and so is the KeyboardInterrupt.
    """
    quick_jsonschema()
    import nbformat  # slow to import: not before the checks

    from labkit.headless import engine

    session = engine.Session(notebook.path.parent, on_cell, timeout, stop or Event())
    if session.stop.is_set():
        raise KeyboardInterrupt
    started = monotonic()
    source = nbformat.reads(content, as_version=4)
    executed = engine.execute(source, dict(values), session, notebook.name)
    if session.interrupted and session.cell is None:
        raise KeyboardInterrupt
    seconds = round(monotonic() - started, 3)

    made = evidence.claims(executed)
    missing = evidence.missing(notebook.papers, made)
    error = evidence.failure(executed)
    peak = session.peak_memory
    result = RunResult(
        notebook=notebook.name,
        parameters=notebook.defaults | dict(values),
        status=_status(session.interrupted, error, made, missing),
        seconds=seconds,
        output=output,
        claims=made,
        metrics=evidence.metrics(executed),
        missing=missing,
        error=error,
        peak_memory_mb=None if peak is None else round(peak / 1e6, 1),
    )
    told = {key: result.as_dict()[key] for key in ("notebook", "parameters", "status", "seconds")}
    executed.metadata.setdefault("labkit", {})["run"] = told
    return nbformat.writes(executed) + "\n", result


def _status(interrupted: bool, error: Failure | None, made: list[Claim], missing: list[str]) -> str:
    if interrupted:
        return "interrupted"
    if error is not None:
        return "error"
    return "claims-failed" if missing or not all(claim.holds for claim in made) else "ok"


def _prepare(notebook: Notebook, out: Path) -> Path:
    """The path of the output, once it is known that it can be written.

    Raises
    ------
    UsageError
        if it cannot, or if it is the notebook itself.
    """
    output = out / f"{notebook.name}.ipynb"
    try:
        if output.is_dir():
            raise UsageError(f"--out {out}: {output} is a folder; choose another")
        # Not by their names: on some disks Notebooks/ is notebooks/.
        if output.exists() and output.samefile(notebook.path):
            raise UsageError(f"--out {out} would overwrite the notebook itself; choose another")
        output.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise UsageError(
            f"--out {out} is no folder that can be written to: {error.strerror}"
        ) from None
    return output
