"""For authors: begin a notebook, as a pair that runs and passes the suite's tests as it is."""

import re
import textwrap
from pathlib import Path

from labkit import atlas
from labkit.headless.files import write_atomic
from labkit.headless.notebooks import require_checkout
from labkit.headless.usage import UsageError, nearest

TEMPLATE = Path(__file__).with_name("template.py.txt")
NAME = re.compile(r"(?P<topic>[a-z0-9_]+)/(?P<stem>\d\d_[a-z0-9_]+)")


def new(name: str, paper_id: str) -> Path:
    """Write ``<name>.py`` from the template and enter it into the atlas; return its path.

    Raises
    ------
    UsageError
        for a name that is not ``<topic>/<nn>_<story>`` with a topic of the atlas, a number or a
        notebook that is taken, a paper that is unknown, of another topic or done already, and in
        an installed copy, where the next upgrade would delete the notebook.
    """
    folder = atlas.notebooks_dir()
    require_checkout("notebooks")
    match = NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"{name!r} is no name of a notebook: topic/nn_story in small letters, digits and "
            "underscores, such as sparse_coding/12_whitening"
        )
    topic, stem = match["topic"], match["stem"]
    if topic not in atlas.topics():
        hint = nearest(topic, atlas.topics()) or f"known are {', '.join(atlas.topics())}"
        raise UsageError(f"unknown topic {topic!r}: {hint}")
    taken = sorted(path.stem for path in (folder / topic).glob(f"{stem[:2]}_*.*"))
    if taken:
        raise UsageError(f"{topic} has a notebook {taken[0]} already; choose another number")
    try:
        paper = atlas.paper(paper_id)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if paper.topic != topic:
        raise UsageError(f"paper {paper_id} is of the topic {paper.topic}, not {topic}")
    if paper.notebook is not None:
        raise UsageError(f"paper {paper_id} has a notebook: {paper.notebook}")

    source = folder / f"{name}.py"
    fields = {
        "title": stem[3:].replace("_", " ").capitalize(),
        "stem": stem,
        "paper": paper_id,
        "citation": _citation(paper),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for key, value in fields.items():
        text = text.replace("{{" + key + "}}", value)
    listed = _enter(folder / "atlas.yaml", paper_id, name)
    source.parent.mkdir(exist_ok=True)
    write_atomic(source, text)
    write_atomic(folder / "atlas.yaml", listed)
    return source


def _citation(paper: atlas.Paper) -> str:
    line = f"**Paper** `{paper.id}`: authors, *{paper.title}*, venue, year, link."
    return textwrap.fill(line, 98, subsequent_indent="# ", break_on_hyphens=False)


def _enter(path: Path, paper_id: str, name: str) -> str:
    """The atlas with the notebook of one paper; every other line stays as it is."""
    text = path.read_text(encoding="utf-8")
    key = re.escape(paper_id)
    entry = re.compile(rf"^(- id: {key}\n(?:  .*\n)*?  notebook: )null$", re.MULTILINE)
    changed, count = entry.subn(rf"\g<1>{name}", text)
    if count != 1:
        raise UsageError(f"{path} has no line `notebook: null` below `- id: {paper_id}`")
    return changed
