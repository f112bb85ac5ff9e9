"""A suite of tiny notebooks in a temporary folder, and the command run on it."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ATLAS = """
papers:
- {id: paper-one, title: One, topic: apples, notebook: apples/01_good}
- {id: paper-two, title: Two, topic: apples, notebook: apples/02_poor}
- {id: paper-silent, title: Silent, topic: apples, notebook: apples/02_poor}
- {id: paper-three, title: Three, topic: pears, notebook: null}
"""

PARAMETERS = """\
from typing import Literal
n: int = 3  # how many
lam: float = 0.1  # penalty # twice = strong
mode: str = "a#b"
flag: bool = True
sizes: list[int] = [1, 2]
most: float | None = None
rule: Literal["soft", "hard"] = "soft"
seed: int = 0"""

GOOD = """\
# measure
import os, sys
from labkit import claim, metric
claim("paper-one", "n is small", n, at_most=5, unit="mV")
metric("twice", 2 * n)
print(repr([n, lam, mode, flag, sizes, most, rule, seed]))
print(sys.executable, os.getcwd())
os.system("echo from a shell")"""


def write(path: Path, *cells: str | tuple, metadata: dict | None = None) -> Path:
    """A notebook; a cell that starts with ``# #`` is markdown, a pair is (source, tag)."""
    made = []
    for cell in cells:
        source, tags = cell if isinstance(cell, tuple) else (cell, None)
        if source.startswith("# #"):
            made.append(new_markdown_cell(source[2:]))
        else:
            made.append(new_code_cell(source, metadata={"tags": [tags]} if tags else {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=made, metadata=metadata or {}), path)
    return path


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "atlas.yaml").write_text(ATLAS)
    tagged = (PARAMETERS, "parameters")
    write(
        folder / "apples/01_good.ipynb",
        "# # Good [title]\n\ntext",
        tagged,
        GOOD,
        metadata={"labkit": {"minutes": 0.5}},
    )
    write(
        folder / "apples/02_poor.ipynb",
        "# # Poor",
        tagged,
        "from labkit import claim\nclaim('paper-two', 'n is large', n, at_least=4)",
    )
    write(
        folder / "pears/03_errs.ipynb", "# # Errs", "print('ran')", "# divide\n1 / 0", "print('no')"
    )
    write(folder / "index.ipynb", "# # Index")
    write(folder / ".ipynb_checkpoints/01_old.ipynb", "# # Old")
    write(folder / "apples/.ipynb_checkpoints/01_good-checkpoint.ipynb", "# # Old")
    return folder


@pytest.fixture(autouse=True, scope="module")  # not session: tests elsewhere need the real suite
def _use_suite(suite: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_NOTEBOOKS", str(suite))
        yield


@pytest.fixture(scope="session")
def write_notebook():
    return write


@pytest.fixture(scope="session")
def start(suite: Path):
    """Start the command as its own process group; its kernel inherits the suite."""

    def start(*arguments: str, cwd: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "labkit", *arguments],
            cwd=cwd,
            env=os.environ | {"LABKIT_NOTEBOOKS": str(suite)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start
