"""For authors: make each ``.ipynb`` from its ``.py``, executed, and see that the pairs agree.

The ``.py`` is the source. Pairs are compared by content, never by modification time: a git checkout
leaves arbitrary ones.
"""

import re
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit import atlas
from labkit.headless import evidence
from labkit.headless.files import write_atomic
from labkit.headless.notebooks import load, source_of, tags_of
from labkit.headless.usage import UsageError, nearest

WIDGET_LIMIT = 100_000  # bytes; a reader without a kernel still sees the slider
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_BASE64 = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s\\]+")


class BuildError(Exception):
    """A notebook that must not be stored; the message says why."""


def sources(names: list[str]) -> list[Path]:
    """The ``.py`` files of these notebooks (``<topic>/<nn>_<story>`` or ``index``), or all of them.

    Raises
    ------
    UsageError
        for an unknown name.
    """
    folder = atlas.notebooks_dir()
    known = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.py"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    for name in names:
        if name not in known:
            hint = nearest(name, known) or f"known are {', '.join(known) or 'none'}"
            raise UsageError(f"no source {name}.py in {folder}: {hint}")
    return [known[name] for name in names or known]


def build(source: Path) -> Path:
    """Execute a source and store it with its outputs beside it.

    Raises
    ------
    BuildError
        if a cell errs, a claim does not hold or is missing, or an output names a path of this
        machine; what was stored before then stays.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    from labkit.headless.engine import own_event_loop, record_widgets, this_interpreter_kernel

    notebook = from_source(source)
    with own_event_loop(), this_interpreter_kernel() as kernel:
        client = NotebookClient(
            notebook,
            km=kernel,
            resources={"metadata": {"path": str(source.parent)}},
            record_timing=False,
            coalesce_streams=True,
        )
        record_widgets(client)
        try:
            client.execute(cleanup_kc=True)
        except (CellControlSignal, DeadKernelError) as error:
            raise BuildError(f"{source}: a cell errs\n{error}") from None
    notebook.metadata.get("language_info", {}).pop("version", None)
    _drop_large_widgets(notebook)
    _drop_progress_bars(notebook)
    complaints = [*_unproven(notebook, source), *_machine_paths(notebook)]
    if complaints:
        raise BuildError(f"{source}: " + "\n  ".join(["not stored", *complaints]))
    nbformat.validate(notebook)
    target = source.with_suffix(".ipynb")
    if picture := cover(notebook):
        write_atomic(source.with_suffix(".png"), picture)
    write_atomic(target, nbformat.writes(notebook) + "\n")
    return target


def cover(notebook: dict[str, Any]) -> bytes | None:
    """The first picture of the cell tagged ``cover``, which its title and the start page show."""
    for cell in notebook["cells"]:
        if "cover" in tags_of(cell):
            for output in cell["outputs"]:
                if "image/png" in output.get("data", {}):
                    return b64decode("".join(output["data"]["image/png"]))
    return None


def from_source(source: Path) -> Any:
    """The notebook of a ``.py``, without outputs, the same on every machine.

    Raises
    ------
    BuildError
        if its header makes no valid notebook.
    """
    import jupytext
    import nbformat

    try:
        notebook = jupytext.read(source, fmt="py:percent")
    except nbformat.ValidationError as error:
        raise BuildError(f"{source}: its header makes no notebook: {error.message}") from None
    kept = {key: value for key, value in notebook.metadata.items() if key != "jupytext"}
    notebook.metadata.clear()
    notebook.metadata.update(kept)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5  # the first with cell ids
    for number, cell in enumerate(notebook.cells):
        cell.id = f"c{number:02d}"
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's note on the layout of the .py
    return notebook


def pair_differences(source: Path) -> list[str]:
    """How a ``.py`` and the ``.ipynb`` beside it differ in cells, sources and tags; empty if not.

    Raises
    ------
    UsageError, BuildError
        if one of them is no notebook.
    """
    target = source.with_suffix(".ipynb")
    if not target.is_file():
        return [f"{target.name} is missing"]
    written, stored = from_source(source), load(target)
    differences = []
    if len(written.cells) != len(stored["cells"]):
        differences.append(f"{len(written.cells)} cells in .py, {len(stored['cells'])} in .ipynb")
    for number, (mine, theirs) in enumerate(zip(written.cells, stored["cells"], strict=False), 1):
        for what, left, right in (
            ("type", mine["cell_type"], theirs["cell_type"]),
            ("source", source_of(mine), source_of(theirs)),
            ("tags", sorted(tags_of(mine)), sorted(tags_of(theirs))),
        ):
            if left != right:
                where = evidence.first_line(source_of(mine))
                differences.append(f"cell {number} ({where}): {what} differs")
    if written.metadata.get("labkit", {}) != stored["metadata"].get("labkit", {}):
        differences.append("notebook metadata `labkit` differs")
    picture = source.with_suffix(".png")
    stored_cover = cover(stored)
    if stored_cover and not (picture.is_file() and picture.read_bytes() == stored_cover):
        differences.append(f"{picture.name} is not the picture of the cell tagged `cover`")
    return differences


def _unproven(notebook: Any, source: Path) -> Iterator[str]:
    hidden = evidence.failure(notebook)  # one within a widget stopped nothing
    if hidden is not None:
        yield f"{hidden.where} raised {hidden.name}: {hidden.message}"
    made = evidence.claims(notebook)
    for claim in made:
        if not claim.holds:
            yield str(claim)
    name = source.relative_to(atlas.notebooks_dir()).with_suffix("").as_posix()
    for paper in evidence.missing(atlas.papers_of(name), made):
        yield f"no claim of paper {paper}"


def _drop_large_widgets(notebook: Any) -> None:
    """Keep the controls of a large figure but not the figure: it is drawn when the reader runs."""
    state = notebook.metadata.get("widgets", {}).get(evidence.WIDGET_STATE)
    if state is not None and len(str(state)) > WIDGET_LIMIT:
        for model in state["state"].values():
            if model["model_name"] == "OutputModel":
                model["state"]["outputs"] = []


def _drop_progress_bars(notebook: Any) -> None:
    """Drop the empty place that a closed progress bar leaves: its widget is gone from the kernel,
    and a reader who opens the notebook would see an error there.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if not _is_progress_bar(out)]


def _is_progress_bar(output: Any) -> bool:
    data = output.get("data", {})
    return WIDGET_VIEW in data and "%|" in data.get("text/plain", "")


def _machine_paths(notebook: Any) -> Iterator[str]:
    """Say which outputs name a folder of this machine, such as a warning's file name."""
    folders = {Path.home(), Path.cwd(), Path(sys.prefix), Path(tempfile.gettempdir())}
    folders |= {atlas.notebooks_dir()}
    folders |= {folder.resolve() for folder in folders}
    paths = sorted((str(f) for f in folders if f != f.parent), key=len, reverse=True)
    # "/tmp" must not be found in "/tmpfile" or "a/tmp".
    named = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, paths))})(?![\w-])")
    for number, cell in enumerate(notebook.cells, 1):
        for text in _texts(cell.get("outputs", [])):
            if match := named.search(_BASE64.sub("", text)):
                yield f"cell {number} names a path of this machine: {_line_of(text, match[0])}"
    for text in _texts(notebook.metadata.get("widgets", {})):
        if match := named.search(_BASE64.sub("", text)):
            yield f"a widget names a path of this machine: {_line_of(text, match[0])}"


def _texts(node: Any) -> Iterator[str]:
    """All texts of nested outputs but the pictures, whose base64 may spell anything."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            if not (key.startswith(("image/", "application/pdf")) and key != "image/svg+xml"):
                yield from _texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value)


def _line_of(text: str, part: str) -> str:
    return next(line for line in text.splitlines() if part in line).strip()[:120]
