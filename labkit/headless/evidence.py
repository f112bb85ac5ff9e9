"""What an executed notebook says of itself: its claims, its metrics, the error that stopped it.

And what the stored ones, taken together, say of the papers in the atlas.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labkit import atlas
from labkit.claims import CLAIM_MIME, METRIC_MIME, Claim
from labkit.headless.notebooks import load, source_of, tags_of

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Cells that papermill adds; they are no cells of the notebook that a reader knows.
_ADDED = {"injected-parameters", "papermill-error-cell-tag"}


@dataclass(frozen=True)
class Failure:
    """An error in a notebook, and the cell it arose in, counted from 1 as the author wrote them.

    `cell` is None for an error within a widget: Jupyter shows it there and lets the notebook go on.
    Where no notebook came back at all, `line` says what failed instead.
    """

    cell: int | None
    line: str
    name: str
    message: str
    traceback: list[str]

    @property
    def where(self) -> str:
        """The place in words."""
        return (self.line or "a widget") if self.cell is None else f"cell {self.cell} ({self.line})"

    def __str__(self) -> str:
        return f"{self.where} raised {self.name}: {self.message}"


def claims(notebook: dict[str, Any]) -> list[Claim]:
    """All claims, in the order of the cells; one that is merely shown again counts once.

    Two claims that share a statement and differ in value both stay, so that a later one that holds
    never hides an earlier one that does not.
    """
    return list(dict.fromkeys(Claim(**data) for data in _shown(notebook, CLAIM_MIME)))


def metrics(notebook: dict[str, Any]) -> dict[str, float]:
    """All metrics by name, the last value of each."""
    return {data["name"]: data["value"] for data in _shown(notebook, METRIC_MIME)}


def missing(papers: Iterable[str], made: Iterable[Claim]) -> list[str]:
    """Papers of a notebook of which no claim ran."""
    seen = {claim.paper for claim in made}
    return [paper for paper in papers if paper not in seen]


def sections(notebook: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The cell that heads the section of each paper's first claim, by the paper's id."""
    found: dict[str, dict[str, Any]] = {}
    heading = None
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and re.search(r"^## ", source_of(cell), re.MULTILINE):
            heading = cell
        for data in _shown({"cells": [cell]}, CLAIM_MIME):
            if heading is not None:
                found.setdefault(data["paper"], heading)
    return found


def failure(notebook: dict[str, Any]) -> Failure | None:
    """The first error in the cells, else in the widgets; like papermill, not ``sys.exit(0)``.

    What `interact` calls may raise without stopping the notebook, which every other headless runner
    takes for success.
    """
    own = [cell for cell in notebook["cells"] if not _ADDED.intersection(tags_of(cell))]
    for number, cell in enumerate(own, 1):
        for error in _errors(cell.get("outputs", [])):
            return _failure(number, first_line(source_of(cell)), error)
    widgets = notebook["metadata"].get("widgets", {}).get(WIDGET_STATE, {})
    for widget in widgets.get("state", {}).values():
        for error in _errors(widget["state"].get("outputs", [])):
            return _failure(None, "", error)
    return None


def _errors(outputs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for output in outputs:
        left = output.get("ename") == "SystemExit" and output["evalue"] in ("", "0")
        if output["output_type"] == "error" and not left:
            yield output


def _failure(cell: int | None, line: str, error: dict[str, Any]) -> Failure:
    traceback = [_ANSI.sub("", part) for part in error["traceback"]]
    return Failure(cell, line, error["ename"], error["evalue"], traceback)


def pages() -> dict[str, dict[str, Any]]:
    """The stored notebooks of the papers that are done, as JSON, by name."""
    folder = atlas.notebooks_dir()
    names = {name for paper in atlas.papers().values() for name in paper.notebooks}
    paths = {name: folder / f"{name}.ipynb" for name in sorted(names)}
    return {name: load(path) for name, path in paths.items() if path.is_file()}


def survey(stored_pages: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every paper of the atlas with the status of its claims in these stored notebooks.

    The status is "planned" without a notebook, "no claims" where none is made for the paper, else
    "holds" or "fails".
    """
    stored = {name: claims(page) for name, page in stored_pages.items()}
    rows = []
    for paper in atlas.papers().values():
        made = [claim for name in paper.notebooks for claim in stored.get(name, [])]
        holds = [claim.holds for claim in made if claim.paper == paper.id]
        if paper.notebook not in stored:
            status = "planned"
        else:
            status = "no claims" if not holds else "holds" if all(holds) else "fails"
        about = {"id": paper.id, "title": paper.title, "topic": paper.topic}
        rows.append(about | {"notebook": paper.notebook, "status": status})
    return rows


def first_line(source: str) -> str:
    """What names a cell: its heading, its leading comment or its first line, without the hashes."""
    lines = (line.strip("#% \t") for line in source.splitlines())
    return next((line for line in lines if line), "")


def _shown(notebook: dict[str, Any], mime: str) -> Iterator[dict[str, Any]]:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if mime in output.get("data", {}):
                yield output["data"][mime]
