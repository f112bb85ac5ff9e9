"""Runs as folders: what the name of one depends on, and when one counts as finished."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import labkit
from labkit import headless
from labkit.claims import Claim
from labkit.headless import runs
from labkit.headless.evidence import Failure
from labkit.headless.usage import UsageError

PARAMETERS = """\
n: int = 3
lam: float = 0.1
mode: str = "a"
sizes: list[int] = [1]
most: float | None = None
free: dict = {}
seed: int = 0"""


@pytest.fixture
def notebook(tmp_path, write_notebook) -> headless.Notebook:
    path = write_notebook(
        tmp_path / "mine.ipynb", "# # Mine", (PARAMETERS, "parameters"), "print(n)"
    )
    return headless.find(str(path))


def id_of(notebook: headless.Notebook, row: dict | None = None) -> str:
    [run] = headless.plan(notebook, [row or {}], "out")
    return run.id


def edit(notebook: headless.Notebook, change) -> None:
    """Change the file of a notebook as JSON."""
    content = json.loads(notebook.path.read_text())
    change(content)
    notebook.path.write_text(json.dumps(content))


# ------------------------------------------------------------------ the plan


def test_a_run_knows_its_parameters_its_files_and_what_was_asked(notebook, tmp_path):
    [first, second] = headless.plan(notebook, [{"n": 4, "mode": "x"}, {}], tmp_path / "out")
    assert first.parameters == notebook.defaults | {"n": 4, "mode": "x"}
    assert second.parameters == notebook.defaults
    assert first.folder == tmp_path / "out/runs" / first.id
    assert first.output == first.folder / "mine.ipynb"
    assert first.record == first.folder / "result.json"
    assert (str(first), str(second)) == ("mine n=4 mode=x", "mine with its defaults")
    assert not (tmp_path / "out").exists()


def test_runs_lie_in_a_folder_named_after_the_notebook():
    notebook = headless.find("apples/01_good")
    [run] = headless.plan(notebook, [{}])
    assert run.folder.parent == Path("sweeps/apples/01_good/runs")
    assert run.output.name == "01_good.ipynb"


def test_rows_that_mean_the_same_run_count_once_in_the_order_asked(notebook):
    rows = [{"n": 5}, {}, {"n": 3}, {"lam": 0.1}, {"n": 5, "seed": 0}, {"lam": 1}, {"lam": 1.0}]
    planned = headless.plan(notebook, rows, "out")
    assert [run.asked for run in planned] == [{"n": 5}, {}, {"lam": 1}]


@pytest.mark.parametrize("row, said", [({"nn": 1}, "did you mean n"), ({"n": 1.5}, "whole number")])
def test_a_wrong_row_is_refused(notebook, row, said):
    with pytest.raises(UsageError, match=said):
        headless.plan(notebook, [{}, row], "out")


# ------------------------------------------------------------------ what names a run


@pytest.mark.parametrize(
    "given",
    [
        {"n": 4},
        {"lam": 0.2},
        {"mode": "b"},
        {"sizes": [1, 1]},
        {"most": 0},
        {"free": {"a": 1}},
        {"seed": 1},
    ],
)
def test_every_parameter_names_a_run(notebook, given):
    assert id_of(notebook, given) != id_of(notebook)


def test_a_default_names_no_other_run_when_it_is_given(notebook):
    assert id_of(notebook, notebook.defaults) == id_of(notebook)
    backwards = dict(reversed([("n", 7), ("lam", 2.0), ("seed", 5)]))
    assert id_of(notebook, backwards) == id_of(notebook, {"n": 7, "lam": 2, "seed": 5})


def test_another_default_names_other_runs(notebook):
    before = id_of(notebook)
    edit(notebook, lambda n: n["cells"][1].update(source=PARAMETERS.replace("n: int = 3", "n = 4")))
    assert id_of(headless.find(str(notebook.path))) != before


def test_keys_of_a_dict_that_only_look_alike_name_different_runs(notebook):
    ids = {id_of(notebook, {"free": free}) for free in ({1: "a"}, {"1": "a"}, {True: "a"})}
    assert len(ids) == 3


def test_keys_of_a_dict_may_be_of_several_types(notebook):
    assert id_of(notebook, {"free": {1: "a", "b": 2}}) != id_of(notebook, {"free": {1: "a"}})


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n["cells"][2].update(source="print(n + 1)"),
        lambda n: n["cells"][0].update(source="# Yours"),
        lambda n: n["cells"][2]["metadata"].update(tags=["slow"]),
        lambda n: n["cells"][2].update(cell_type="raw"),
        lambda n: n["cells"].append(n["cells"][2] | {"id": "more", "source": ""}),
        lambda n: n["cells"].reverse(),
    ],
)
def test_a_change_of_cells_or_tags_names_other_runs(notebook, change):
    before = id_of(notebook)
    edit(notebook, change)
    assert id_of(notebook) != before


def test_outputs_metadata_and_how_lines_are_kept_name_no_other_run(notebook):
    def touch(content: dict) -> None:
        content["metadata"] = {"widgets": {"a": 1}, "labkit": {"minutes": 3}}
        output = {"output_type": "stream", "name": "stdout", "text": "3"}
        content["cells"][2].update(outputs=[output], execution_count=7)
        content["cells"][2]["metadata"]["papermill"] = {"status": "completed"}
        content["cells"][1]["source"] = PARAMETERS.splitlines(keepends=True)

    before = id_of(notebook)
    edit(notebook, touch)
    assert id_of(notebook) == before


def test_the_name_of_a_notebook_and_labkit_name_its_runs(notebook, tmp_path, monkeypatch):
    before = id_of(notebook)
    other = Path(shutil.copy(notebook.path, tmp_path / "yours.ipynb"))
    assert id_of(headless.find(str(other))) != before
    monkeypatch.setattr(runs, "labkit_identity", lambda: "another")
    assert id_of(notebook) != before


# ------------------------------------------------------------------ what labkit is


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in the place of labkit; its identity is computed anew at each call."""
    folder = tmp_path / "labkit"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("a = 1\n")
    (folder / "sub/b.py").write_text("b = 1\n")
    monkeypatch.setattr(labkit, "__file__", str(folder / "__init__.py"))
    return folder


# Without the cache, which holds for the life of a process.
identity = runs.labkit_identity.__wrapped__


def test_the_identity_is_the_version_and_the_same_for_the_same_source(package, monkeypatch):
    before = identity()
    assert before.startswith(f"{labkit.__version__}+") and before == identity()
    monkeypatch.setattr(labkit, "__version__", "9.9")
    assert identity() == "9.9+" + before.partition("+")[2]


def test_the_identity_does_not_depend_on_the_place(package, tmp_path, monkeypatch):
    before = identity()
    moved = shutil.move(package, tmp_path / "elsewhere/labkit")
    monkeypatch.setattr(labkit, "__file__", str(Path(moved) / "__init__.py"))
    assert identity() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (p / "__init__.py").write_text("a = 2\n"),
        lambda p: (p / "sub/b.py").write_text("b = 1\n\n"),
        lambda p: (p / "sub/c.py").write_text(""),
        lambda p: (p / "sub/b.py").rename(p / "sub/c.py"),
        lambda p: (p / "sub/b.py").rename(p / "b.py"),
        lambda p: (p / "sub/b.py").unlink(),
    ],
)
def test_a_change_of_a_source_file_is_another_labkit(package, change):
    before = identity()
    change(package)
    assert identity() != before


def test_notebooks_within_the_package_are_no_part_of_it(package):
    before = identity()
    (package / "notebooks/apples").mkdir(parents=True)
    (package / "notebooks/apples/01_a.py").write_text("x = 1\n")
    (package / "notebooks/apples/01_a.ipynb").write_text("{}")
    (package / "__pycache__").mkdir()
    (package / "__pycache__/sub.cpython-311.pyc").write_bytes(b"x")
    assert identity() == before
    (package / "sub/notebooks.py").write_text("")  # a module, whatever it is called
    assert identity() != before


def test_the_identity_is_computed_once_a_process():
    assert runs.labkit_identity() is runs.labkit_identity()
    assert runs.labkit_identity() == identity()


# ------------------------------------------------------------------ keeping a run


@pytest.fixture
def run(notebook, tmp_path) -> headless.Run:
    [run] = headless.plan(notebook, [{"n": 4, "sizes": [2, 3]}], tmp_path / "out")
    return run


def result_of(run: headless.Run, **changes) -> headless.RunResult:
    fields = {
        "notebook": run.notebook.name,
        "parameters": run.parameters,
        "status": "ok",
        "seconds": 1.25,
        "output": run.output,
        "claims": [
            Claim("paper-a", 'a "quoted", é one', 2.0, 1.0, None, "kg", True),
            Claim("paper-a", "two-sided", 0.1 + 0.2, 0.0, 1.0, "", True),
        ],
        "metrics": {"weight": 1e-300},
        "missing": [],
        "error": None,
        "peak_memory_mb": 61.5,
    }
    return headless.RunResult(**fields | changes)


ERROR = Failure(3, "divide", "ZeroDivisionError", "division by zero", ["line one", "line two"])


def names(run: headless.Run) -> set[str]:
    return {path.name for path in run.folder.iterdir()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": "claims-failed", "missing": ["paper-b", "paper-c"], "claims": []},
        {"status": "error", "error": ERROR, "peak_memory_mb": None},
        {"status": "error", "error": replace(ERROR, cell=None)},
    ],
)
def test_what_is_stored_comes_back(run, changes):
    result = result_of(run, **changes)
    runs.store(run, "the notebook", result)
    assert runs.stored(run) == result
    assert run.output.read_text() == "the notebook"
    assert names(run) == {"mine.ipynb", "result.json"}


def test_the_record_tells_what_it_was_made_with(run):
    runs.store(run, "the notebook", result_of(run))
    record = json.loads(run.record.read_text())
    assert record["labkit"] == runs.labkit_identity()
    assert record["parameters"] == run.parameters and record["status"] == "ok"


def test_a_folder_that_moved_says_where_its_notebook_is_now(run, tmp_path):
    runs.store(run, "the notebook", result_of(run))
    shutil.move(tmp_path / "out", tmp_path / "moved")
    [moved] = headless.plan(run.notebook, [run.asked], tmp_path / "moved")
    assert runs.stored(run) is None
    assert runs.stored(moved).output == moved.output and moved.output.is_file()


def test_a_run_without_a_notebook_is_stored(run):
    runs.store(run, None, result_of(run, status="error", error=ERROR))
    assert runs.stored(run).status == "error" and names(run) == {"result.json"}


def test_nothing_is_stored_where_nothing_is(run, tmp_path):
    assert runs.stored(run) is None
    (tmp_path / "out").write_text("a file where the folder should be")
    assert runs.stored(run) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0" * 512,  # what a file system can leave after a power cut
        "no JSON",
        "{}",
        "null",
        "[]",
        "3",
        '"ok"',
        '{"status": "ok", "claims": [], "output": "x"}',
        '{"status": "ok", "claims": [3], "output": "x"}',
        '{"status": "ok", "claims": [{"paper": "p"}], "output": "x"}',
    ],
)
def test_a_record_that_is_none_does_not_count(run, text):
    runs.store(run, "the notebook", result_of(run))
    run.record.write_text(text)
    assert runs.stored(run) is None


def test_a_truncated_record_does_not_count(run):
    runs.store(run, "the notebook", result_of(run, error=ERROR, status="error"))
    whole = run.record.read_bytes()
    for length in range(0, len(whole) - 2, 7):  # without its last brace
        run.record.write_bytes(whole[:length])
        assert runs.stored(run) is None, whole[:length]


@pytest.fixture
def interrupt_at(monkeypatch):
    """Let the writing of a file of that name fail."""

    def interrupt_at(name: str) -> None:
        write = runs.write_atomic

        def write_atomic(path: Path, content: str) -> None:
            if path.name == name:
                raise OSError("the disk is full")
            write(path, content)

        monkeypatch.setattr(runs, "write_atomic", write_atomic)

    return interrupt_at


def test_a_store_that_ends_before_the_record_leaves_an_unfinished_run(run, interrupt_at):
    interrupt_at("result.json")
    with pytest.raises(OSError, match="disk is full"):
        runs.store(run, "the notebook", result_of(run))
    assert run.output.read_text() == "the notebook"
    assert runs.stored(run) is None


@pytest.mark.parametrize("file", ["mine.ipynb", "result.json"])
def test_an_earlier_record_never_vouches_for_a_new_notebook(run, interrupt_at, file):
    runs.store(run, "the old notebook", result_of(run, status="error", error=ERROR))
    interrupt_at(file)
    with pytest.raises(OSError, match="disk is full"):
        runs.store(run, "the new notebook", result_of(run))
    assert runs.stored(run) is None


def test_a_new_try_replaces_an_earlier_one(run):
    runs.store(run, "the old notebook", result_of(run, status="error", error=ERROR))
    runs.store(run, "the new notebook", result_of(run))
    assert runs.stored(run) == result_of(run)
    assert run.output.read_text() == "the new notebook"


def test_what_a_killed_sweep_left_half_written_goes(run):
    run.folder.mkdir(parents=True)
    for name in (".mine.ipynb.123.part", ".result.json.456.part"):
        (run.folder / name).write_text("half")
    (run.folder / "notes.txt").write_text("the reader's own")
    runs.store(run, "the notebook", result_of(run))
    assert names(run) == {"mine.ipynb", "result.json", "notes.txt"}
