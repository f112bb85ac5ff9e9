"""Find the notebooks, and read from each file what a reader wants to know before running it.

The files are read as JSON: nbformat takes half a second to import, `labkit list` far less.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labkit import atlas
from labkit.headless.parameters import Parameter, check, declared
from labkit.headless.usage import UsageError, nearest


@dataclass(frozen=True)
class Notebook:
    """A notebook as a reader chooses it; `minutes` is None where the author states none.

    `presets` are named sets of parameters, such as "full" for the size of the paper.
    """

    name: str
    path: Path
    title: str
    papers: list[str]
    minutes: float | None
    parameters: list[Parameter]
    question: str = ""  # the one it asks, on its first page
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        """The folder that it lies in."""
        return self.name.partition("/")[0]

    @property
    def cover(self) -> Path | None:
        """Its best figure, which `labkit build` takes from the cell tagged ``cover``."""
        picture = self.path.with_suffix(".png")
        return picture if picture.is_file() else None

    @property
    def defaults(self) -> dict[str, Any]:
        """Every declared parameter with its default."""
        return {parameter.name: parameter.default for parameter in self.parameters}

    def preset(self, name: str | None) -> dict[str, Any]:
        """The parameters of a preset; none without a name.

        Raises
        ------
        UsageError
            if there is no such preset.
        """
        if name is None:
            return {}
        if name in self.presets:
            return self.presets[name]
        known = ", ".join(self.presets)
        there = f"{self.name} has {known}" if known else f"{self.name} has no presets"
        raise UsageError(f"unknown preset {name!r}: {nearest(name, self.presets) or there}")

    def summary(self) -> dict[str, Any]:
        """What `labkit list --json` says of it."""
        about = asdict(self)
        return {key: about[key] for key in ("name", "title", "papers", "minutes", "parameters")}


def find_all() -> list[Notebook]:
    """Every notebook ``<topic>/<nn>_<story>``, by name.

    Raises
    ------
    UsageError
        for a file that is no notebook or breaks the conventions of the parameters cell.
    """
    return [_describe(name, path) for name, path in _paths().items()]


def find(name: str) -> Notebook:
    """The notebook of that name, or at that path where the name ends in ``.ipynb``.

    Raises
    ------
    UsageError
        for an unknown name, with the nearest ones, and as `find_all`.
    """
    paths = _paths()
    if name in paths:
        return _describe(name, paths[name])
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        for known, own in paths.items():  # a path that the shell completed
            if path.samefile(own):
                return _describe(known, own)
        return _describe(path.stem, path.absolute())
    hint = nearest(name.removesuffix(".ipynb"), paths) or "`labkit list` names them all"
    raise UsageError(f"unknown notebook {name!r}: {hint}")


def load(path: Path) -> dict[str, Any]:
    """Read a notebook file as JSON.

    Raises
    ------
    UsageError
        if it is no notebook of format 4.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a notebook: {error}") from None
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4 or "cells" not in notebook:
        raise UsageError(f"{path} is no notebook of format 4")
    return notebook


def require_checkout(what: str) -> None:
    """Raise a UsageError in an installed copy, of which the next upgrade would delete additions."""
    if atlas.notebooks_dir() == atlas.installed_notebooks():
        raise UsageError(f"{what} are added to a checkout of the repository, not to its wheel")


def source_of(cell: dict[str, Any]) -> str:
    """A cell's source; files hold it as one string or as a list of lines."""
    return "".join(cell["source"])


def tags_of(cell: dict[str, Any]) -> list[str]:
    """A cell's tags."""
    return cell["metadata"].get("tags", [])


def _paths() -> dict[str, Path]:
    folder = atlas.notebooks_dir()
    # Topic folders only: JupyterLab leaves copies in .ipynb_checkpoints at any level.
    found = [p for p in folder.glob("*/[0-9][0-9]_*.ipynb") if not p.parent.name.startswith(".")]
    return {p.relative_to(folder).with_suffix("").as_posix(): p for p in sorted(found)}


def _describe(name: str, path: Path) -> Notebook:
    notebook = load(path)
    about = notebook["metadata"].get("labkit", {})
    try:
        parameters = _parameters(notebook)
    except UsageError as error:
        raise UsageError(f"{path}, parameters cell: {error}") from None
    try:
        presets = {k: check(parameters, v) for k, v in about.get("presets", {}).items()}
    except UsageError as error:
        raise UsageError(f"{path}, presets: {error}") from None
    front = next((source_of(c) for c in notebook["cells"] if c["cell_type"] == "markdown"), "")
    title = re.search(r"^# (.+)", front, re.MULTILINE)
    question = re.search(r"^\*\*Question\.\*\* (.+?)(?:\n\n|\Z)", front, re.MULTILINE | re.DOTALL)
    return Notebook(
        name=name,
        path=path,
        title=title[1].strip() if title else name,
        question=" ".join(question[1].split()) if question else "",
        papers=atlas.papers_of(name),
        minutes=about.get("minutes"),
        parameters=parameters,
        presets=presets,
    )


def _parameters(notebook: dict[str, Any]) -> list[Parameter]:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and "parameters" in tags_of(cell):
            return declared(source_of(cell))  # papermill, too, heeds only the first such cell
    return []
