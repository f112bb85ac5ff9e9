"""`labkit new`: what it makes passes the suite's tests; what it refuses leaves all as it was."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from labkit import atlas
from labkit.cli import app
from labkit.headless import build
from labkit.headless import new as module
from labkit.headless.new import new
from labkit.headless.usage import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An atlas of its own, the real one, without notebooks."""
    monkeypatch.setenv("LABKIT_NOTEBOOKS", str(tmp_path))
    shutil.copy(ROOT / "notebooks" / "atlas.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def paper(folder):
    return [paper for paper in atlas.papers().values() if paper.notebook is None][-1]


def test_the_template_passes_the_tests_of_the_suite(folder, paper):
    from typer.testing import CliRunner

    before = (folder / "atlas.yaml").read_text().splitlines()
    name = f"{paper.topic}/97_from_a_template"
    done = CliRunner().invoke(app, ["new", name, "--paper", paper.id])
    assert done.exit_code == 0, done.output
    steps = r"labkit build \S+|labkit verify|\S+\.bib|index\.py|README|ruff.*from_\S+"
    told = re.findall(steps, done.output)
    assert told == [
        *(f"labkit build {name}", "labkit verify", "notebooks/references.bib", "README"),
        *("index.py", "labkit build index"),
        "ruff check . && ruff format . && pytest -k 97_from_a_template",
    ]
    after = (folder / "atlas.yaml").read_text().splitlines()
    assert [new for old, new in zip(before, after, strict=True) if new != old] == [
        f"  notebook: {name}"
    ]
    assert atlas.papers_of(name) == [paper.id]
    tests = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", name),
            ROOT / "tests" / "notebooks" / "test_every_notebook.py",
        ],
        cwd=ROOT,
        env=os.environ | {"LABKIT_NOTEBOOKS": str(folder)},
        capture_output=True,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout[-4000:]
    assert "passed" in tests.stdout and "skipped" not in tests.stdout
    checked = subprocess.run(
        # As if it lay in the checkout, whose settings go by folder.
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", f"notebooks/{name}.py", "-"],
        cwd=ROOT,
        input=(folder / f"{name}.py").read_text(),
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "name, of, said",
    [
        ("{topic}/first_steps", None, "no name of a notebook: topic/nn_story"),
        ("{topic}/01_First", None, "no name of a notebook"),
        ("../01_first", None, "no name of a notebook"),
        ("fruit/01_first", None, "unknown topic 'fruit'"),
        ("{topic}/07_other", None, "has a notebook 07_taken already"),
        ("{topic}/01_first", "no-such-paper", "unknown paper id 'no-such-paper'"),
        ("sparse_coding/01_first", None, "not sparse_coding"),
        ("delays/01_first", "wave-rnn", "has a notebook: delays/05_travelling_waves"),
    ],
)
def test_wrong_use_is_told_and_changes_nothing(folder, paper, name, of, said):
    (folder / paper.topic).mkdir()
    (folder / paper.topic / "07_taken.py").touch()
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.raises(UsageError, match=said):
        new(name.format(topic=paper.topic), of or paper.id)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_a_notebook_that_cannot_be_built_is_written_and_said_so(folder, paper, monkeypatch):
    from typer.testing import CliRunner

    def refuse(source):
        raise build.BuildError(f"{source}: a cell errs")

    monkeypatch.setattr(build, "build", refuse)
    name = f"{paper.topic}/01_first"
    done = CliRunner().invoke(app, ["new", name, "--paper", paper.id])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert "a cell errs" in done.output and f"not built: `labkit build {name}`" in done.output
    assert (folder / f"{name}.py").is_file() and atlas.papers_of(name) == [paper.id]


def test_an_installed_copy_is_left_alone(folder, paper, monkeypatch):
    monkeypatch.setattr(module.atlas, "installed_notebooks", lambda: folder)
    with pytest.raises(UsageError, match="not to its wheel"):
        new(f"{paper.topic}/01_first", paper.id)


def test_only_the_one_line_of_the_atlas_changes(folder, paper):
    new(f"{paper.topic}/01_first", paper.id)
    entries = yaml.safe_load((folder / "atlas.yaml").read_text())["papers"]
    assert [e["notebook"] for e in entries if e["id"] == paper.id] == [f"{paper.topic}/01_first"]
    with pytest.raises(UsageError, match="has a notebook"):
        new(f"{paper.topic}/02_second", paper.id)
