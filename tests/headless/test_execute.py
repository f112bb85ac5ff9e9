"""Runs that start a kernel: as few as possible, each looked at from several sides."""

import asyncio
import json
import logging
import os
import sys
import threading
from pathlib import Path

import pytest

from labkit import headless

GIVEN = {"n": 4, "mode": "q\"u'\\n\n é", "sizes": [7], "most": 2, "rule": "hard", "flag": False}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One run with parameters; the cells announced; its output as JSON; the folder before it."""
    out = tmp_path_factory.mktemp("out {odd}")
    calls = []
    here = Path.cwd()
    handler, logged = logging.Handler(), []
    handler.emit = logged.append
    logging.getLogger().addHandler(handler)
    result = headless.run(
        "apples/01_good", GIVEN, out=out, on_cell=lambda *announced: calls.append(announced)
    )
    logging.getLogger().removeHandler(handler)
    assert Path.cwd() == here
    assert [record.getMessage() for record in logged if record.levelno >= logging.WARNING] == []
    return result, calls, json.loads(result.output.read_text())


def printed(notebook):
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")


def test_parameters_arrive_as_they_were_given(good):
    result, _, notebook = good
    values = [4, 0.1, GIVEN["mode"], False, [7], 2.0, "hard", 0]
    assert repr(values) in printed(notebook)
    assert list(result.parameters.values()) == values


def test_the_kernel_is_this_interpreter_in_the_notebooks_folder(good, suite):
    _, _, notebook = good
    assert f"{sys.executable} {suite / 'apples'}" in printed(notebook)


def test_the_result_carries_claims_and_metrics(good):
    result, _, _ = good
    assert result.status == "ok" and result.error is None and result.missing == []
    assert [(c.paper, c.value, c.at_most, c.holds) for c in result.claims] == [
        ("paper-one", 4.0, 5.0, True)
    ]
    assert result.metrics == {"twice": 8.0}
    assert 0 < result.seconds < 60


def test_each_cell_is_announced_by_its_first_words(good):
    _, calls, _ = good
    assert [number for number, _, _ in calls] == [1, 2, 3, 4]
    assert {total for _, total, _ in calls} == {4}
    assert (calls[0][2], calls[-1][2]) == ("Good [title]", "measure")


def test_the_output_stands_where_it_should_and_names_no_path(good):
    result, _, notebook = good
    assert result.output.parts[-2:] == ("apples", "01_good.ipynb")
    assert [p.name for p in result.output.parent.iterdir()] == ["01_good.ipynb"]
    for path in (
        Path.home(),
        Path.cwd(),
        result.output.parent,
        headless.find("apples/01_good").path,
    ):
        assert f'"{path}' not in json.dumps(notebook["metadata"])
    assert notebook["metadata"]["labkit"]["run"]["status"] == "ok"
    assert notebook["metadata"]["labkit"]["minutes"] == 0.5


def test_a_run_of_an_executed_notebook_forgets_its_earlier_parameters(good, tmp_path):
    first, _, _ = good
    again = headless.run(str(first.output), {"lam": 0.5}, out=tmp_path)
    text = printed(json.loads(again.output.read_text()))
    assert repr([3, 0.5, "a#b", True, [1, 2], None, "soft", 0]) in text
    assert again.output == tmp_path / "01_good.ipynb"


def test_a_full_disk_at_the_end_does_not_lose_the_result(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labkit.headless.execute.write_atomic", full)
    with pytest.raises(headless.NotWrittenError, match="cannot be written: No space") as raised:
        headless.run("apples/01_good", out=tmp_path)
    assert raised.value.result.status == "ok" and len(raised.value.result.claims) == 1


def test_a_claim_that_fails_and_a_paper_without_one_fail_the_run(tmp_path):
    result = headless.run("apples/02_poor", out=tmp_path)
    assert result.status == "claims-failed"
    assert [c.holds for c in result.claims] == [False] and result.missing == ["paper-silent"]
    assert "error" not in result.as_dict()


def test_an_error_keeps_what_ran_and_replaces_an_earlier_run(tmp_path):
    earlier = tmp_path / "pears/03_errs.ipynb"
    earlier.parent.mkdir()
    earlier.write_text("an earlier run")
    result = headless.run("pears/03_errs", out=tmp_path)
    assert result.status == "error" and result.output == earlier
    error = result.error
    assert (error.cell, error.line, error.name) == (3, "divide", "ZeroDivisionError")
    assert "division by zero" in error.message and any("1 / 0" in t for t in error.traceback)
    notebook = json.loads(earlier.read_text())
    assert "ran" in printed(notebook) and '"no"' not in printed(notebook)
    states = [
        c["metadata"]["papermill"]["status"]
        for c in notebook["cells"]
        if "papermill" in c["metadata"]
    ]
    assert states[-2:] == ["failed", "pending"]
    assert [p.name for p in earlier.parent.iterdir()] == ["03_errs.ipynb"]


def test_a_dead_kernel_is_an_error_and_no_hang(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "dies.ipynb", "print('ran')", "import os\nos._exit(3)")
    result = headless.run(str(path), out=tmp_path / "out")
    assert result.status == "error"
    assert (result.error.cell, result.error.name) == (2, "DeadKernelError")
    assert "died" in result.error.message
    assert "ran" in printed(json.loads(result.output.read_text()))


def test_a_crash_in_native_code_tells_where_it_was(tmp_path, write_notebook, capfd):
    path = write_notebook(tmp_path / "crashes.ipynb", "import ctypes\nctypes.string_at(0)")
    result = headless.run(str(path), out=tmp_path / "out")
    assert result.error.name == "DeadKernelError"
    assert "Segmentation fault" in "\n".join(result.error.traceback)
    assert capfd.readouterr() == ("", "")  # a JSON document may be all that is to stand there


def test_a_cell_over_its_time_is_named_and_tells_where_it_was(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "slow.ipynb", "import time\ntime.sleep(100)", "print('no')")
    result = headless.run(str(path), out=tmp_path / "out", timeout=1)
    assert (result.status, result.error.cell) == ("error", 1)
    assert result.error.name == "CellTimeoutError" and "over 1 s" in result.error.message
    assert any("time.sleep(100)" in part for part in result.error.traceback)


def test_an_error_that_interact_hides_fails_the_run(tmp_path, write_notebook):
    cell = "import ipywidgets\nipywidgets.interact(lambda k: print(k / 0), k=(0, 3));"
    path = write_notebook(tmp_path / "widget.ipynb", cell)
    result = headless.run(str(path), out=tmp_path / "out", timeout=60)
    assert result.status == "error" and result.error.cell is None
    assert result.error.name == "ZeroDivisionError"


def test_a_request_to_stop_ends_even_a_cell_that_swallows_it(tmp_path, write_notebook, monkeypatch):
    from labkit.headless import engine

    monkeypatch.setattr(engine, "PATIENCE", 1)
    deaf = "import time\nwhile True:\n    try: time.sleep(1)\n    except KeyboardInterrupt: pass"
    path = write_notebook(tmp_path / "deaf.ipynb", "print('ran')", deaf)
    stop = threading.Event()

    def on_cell(number: int, *_):
        if number == 2:
            stop.set()

    result = headless.run(str(path), out=tmp_path / "out", on_cell=on_cell, stop=stop)
    assert (result.status, result.error.cell) == ("interrupted", 2)
    assert "ran" in printed(json.loads(result.output.read_text()))


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        headless.run("pears/03_errs", out=tmp_path, stop=stop)
    assert not list(tmp_path.rglob("*.ipynb"))


def test_no_event_loop_is_left_to_the_garbage_collector(tmp_path, write_notebook, monkeypatch):
    # Python prints a traceback when it collects the socket of an open loop before the loop.
    made = []
    new_event_loop = asyncio.new_event_loop
    monkeypatch.setattr(
        asyncio, "new_event_loop", lambda: made.append(new_event_loop()) or made[-1]
    )
    path = str(write_notebook(tmp_path / "a.ipynb", "1"))
    runs = threading.Thread(target=headless.run, args=(path,), kwargs={"out": tmp_path / "out"})
    runs.start()
    runs.join()
    for thread in threading.enumerate():
        if thread.name == "end of a kernel":
            thread.join()
    assert made and all(loop.is_closed() for loop in made)


def test_another_python3_that_the_user_registered_does_not_win(tmp_path, monkeypatch):
    from labkit.headless.engine import this_interpreter_kernel

    spec = tmp_path / "kernels/python3"
    spec.mkdir(parents=True)
    foreign = {"argv": ["/nowhere/python", "{connection_file}"], "display_name": "", "language": ""}
    (spec / "kernel.json").write_text(json.dumps(foreign))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with this_interpreter_kernel() as manager:
        assert manager.kernel_spec.argv[0] == sys.executable


# ------------------------------------------------------------------ found before any kernel


@pytest.fixture
def no_kernel(monkeypatch):
    monkeypatch.setitem(sys.modules, "labkit.headless.engine", None)  # importing it would fail


@pytest.mark.parametrize(
    "given, said",
    [
        ({"nn": 1}, "did you mean n"),
        ({"n": 1.5}, "whole number"),
        ({"lam": float("inf")}, "finite"),
    ],
)
def test_wrong_parameters_start_nothing(no_kernel, tmp_path, given, said):
    with pytest.raises(headless.UsageError, match=said):
        headless.run("apples/01_good", given, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_one_starts_nothing(no_kernel, tmp_path, suite):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken/apples/01_good.ipynb").mkdir(parents=True)
    for out in (tmp_path / "file", tmp_path / "file/below", tmp_path / "taken"):
        with pytest.raises(headless.UsageError, match="--out"):
            headless.run("apples/01_good", out=out)
    with pytest.raises(headless.UsageError, match="overwrite the notebook itself"):
        headless.run("apples/01_good", out=suite)


def test_the_notebook_is_not_overwritten_under_another_name(no_kernel, tmp_path, suite):
    # A second link is what a disk that takes capitals for small letters shows: two paths, one file.
    (tmp_path / "apples").mkdir()
    os.link(suite / "apples/01_good.ipynb", tmp_path / "apples/01_good.ipynb")
    with pytest.raises(headless.UsageError, match="overwrite the notebook itself"):
        headless.run("apples/01_good", out=tmp_path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_without_permission_starts_nothing(no_kernel, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(headless.UsageError, match="Permission denied"):
        headless.run("apples/01_good", out=tmp_path / "below")
