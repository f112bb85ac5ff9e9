"""The published table: rows of what was measured, stale once the code changes."""

import shutil
from dataclasses import replace

import pytest

import labkit
from labkit import headless
from labkit.headless import RunResult, measured, runs


@pytest.fixture
def own_suite(suite, tmp_path, monkeypatch):
    folder = shutil.copytree(suite, tmp_path / "notebooks")
    monkeypatch.setenv("LABKIT_NOTEBOOKS", str(folder))
    return folder


@pytest.fixture
def fresh_identity():
    """What labkit is, is read anew in this test and after it."""
    runs.labkit_identity.cache_clear()
    yield
    runs.labkit_identity.cache_clear()


def results_of(name, *runs):
    """A result for each (status, seconds, megabytes), or None."""
    notebook = headless.find(name)
    planned = headless.plan(notebook, [{"seed": seed} for seed in range(len(runs))], "out")
    return {
        run: made
        and RunResult(name, run.parameters, made[0], made[1], run.output, [], {}, [], None, made[2])
        for run, made in zip(planned, runs, strict=True)
    }


def test_a_notebook_is_published_with_its_median_time_and_largest_memory(own_suite):
    assert measured.read() == {} and "apples/01_good" in measured.stale()
    runs = ("ok", 3.2, 100.4), ("claims-failed", 8.0, 210.6), ("ok", 4.4, None)
    assert measured.publish(results_of("apples/01_good", *runs)) == ["apples/01_good"]
    row = measured.read()["apples/01_good"]
    assert (row["runs"], row["ok"], row["seconds"]) == ("3", "2", "4")
    assert row["peak_memory_mb"] == "211"
    assert "apples/01_good" not in measured.stale() and "apples/02_poor" in measured.stale()


def test_what_a_run_takes_is_published_else_stated_else_unknown(own_suite):
    good, poor = (headless.find(f"apples/{name}") for name in ("01_good", "02_poor"))
    assert [measured.seconds_of(each, measured.read()) for each in (good, poor)] == [30, None]
    measured.publish(results_of("apples/01_good", ("ok", 7.0, 100.0)))
    assert measured.seconds_of(good, measured.read()) == 7


def test_runs_that_did_not_end_publish_nothing(own_suite):
    measured.publish(results_of("apples/01_good", ("ok", 3.0, 100.0)))
    before = measured.read()
    assert measured.publish(results_of("apples/01_good", ("ok", 9.0, 1.0), None)) == []
    assert measured.publish(results_of("apples/01_good", ("error", 9.0, 1.0))) == []
    assert measured.read() == before


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_notebook_that_changed_while_it_ran_keeps_its_row(own_suite, change):
    measured.publish(results_of("apples/01_good", ("ok", 3.0, 100.0)))
    before = measured.read()["apples/01_good"]
    results = results_of("apples/01_good", ("ok", 9.0, 1.0))
    path = own_suite / "apples" / "01_good.ipynb"
    if change == "edited":
        path.write_text(path.read_text().replace("Good", "Better"))
    else:
        path.unlink()
    assert measured.publish(results) == []
    assert measured.read().get("apples/01_good") == (before if change == "edited" else None)


def test_a_labkit_that_changed_while_notebooks_ran_leaves_their_rows(
    own_suite, tmp_path, monkeypatch, fresh_identity
):
    source = tmp_path / "labkit" / "__init__.py"
    source.parent.mkdir()
    source.write_text("a = 1\n")
    monkeypatch.setattr(labkit, "__file__", str(source))
    measured.publish(results_of("apples/01_good", ("ok", 3.0, 100.0)))
    before = measured.read()["apples/01_good"]
    results = results_of("apples/01_good", ("ok", 9.0, 1.0))
    source.write_text("a = 2\n")
    assert measured.publish(results) == []
    assert measured.read()["apples/01_good"] == before


def test_rows_of_others_stay_and_those_of_notebooks_that_are_gone_go(own_suite):
    measured.publish(results_of("apples/01_good", ("ok", 3.0, 100.0)))
    measured.publish(results_of("apples/02_poor", ("ok", 5.0, 100.0)))
    assert list(measured.read()) == ["apples/01_good", "apples/02_poor"]
    (own_suite / "apples" / "01_good.ipynb").unlink()
    measured.publish(results_of("apples/02_poor", ("ok", 6.0, 100.0)))
    assert list(measured.read()) == ["apples/02_poor"]


def test_changed_code_is_stale_and_changed_text_is_not(own_suite):
    measured.publish(results_of("apples/01_good", ("ok", 3.0, 100.0)))
    path = own_suite / "apples" / "01_good.ipynb"
    text = path.read_text()
    path.write_text(text.replace("Good [title]", "Better"))
    assert headless.find("apples/01_good").title == "Better"
    assert "apples/01_good" not in measured.stale()
    path.write_text(text.replace("at_most=5", "at_most=6"))
    assert "apples/01_good" in measured.stale()


def test_a_notebook_outside_the_suite_is_not_published(own_suite, tmp_path, write_notebook):
    write_notebook(tmp_path / "mine.ipynb", ("seed: int = 0", "parameters"))
    (run,) = headless.plan(headless.find(str(tmp_path / "mine.ipynb")), [{}], "out")
    made = next(iter(results_of("apples/01_good", ("ok", 1.0, 1.0)).values()))
    assert measured.publish({run: replace(made, notebook="mine")}) == []
