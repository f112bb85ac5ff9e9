"""Sweeps that execute notebooks. Clusters, kernels and summaries take seconds: few, shared, tiny.

What needs the machine's own workers runs as the real command. The rest is sent to one cluster of
this file, as with `--scheduler`, whose workers are warm after the first run.
"""

import csv
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from contextlib import nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import psutil
import pytest
from dask.system import CPU_COUNT

from labkit import atlas, cli, headless
from labkit.headless import cluster, measured, summary, sweeps, tables
from labkit.headless.usage import UsageError

POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
PATIENCE = 120  # seconds that anything here may take on a loaded machine

# Each execution leaves a line beside the notebook.
LOG = "with open('log', 'a') as log: print({}, file=log)\n"


def executions(notebook: Path) -> list[str]:
    """What the runs of a notebook wrote into its log, sorted: workers take turns as they like."""
    log = notebook.with_name("log")
    return sorted(log.read_text().split()) if log.exists() else []


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def wait_for(condition, process: subprocess.Popen) -> None:
    """Poll until something is so, as long as the process lives."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def labkit(monkeypatch, capsys):
    """Run the command in this process: (exit code, standard output, standard error)."""

    def labkit(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["labkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err

    return labkit


@pytest.fixture(scope="module")
def scheduler(_use_suite):
    """The address of a cluster with two workers."""
    with cluster.local(2) as client:
        yield client.scheduler.address


@pytest.fixture
def no_summary(monkeypatch):
    """Leave the summary out, where it is not what is tested: each takes seconds."""
    monkeypatch.setattr(summary, "write", lambda folder, name: None)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """The current folder, empty: what is written by default would show."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# ------------------------------------------------------------------ the real command, all well

MEASURE = (
    "import os\nfrom labkit import claim, metric\n"
    + LOG.format("seed")
    + "metric('threads', int(os.environ['OMP_NUM_THREADS']))\n"
    + "claim('paper-one', 'seed is small', seed, at_most=5)\n"
    + "filled = bytearray(b'x') * (300_000_000 if seed == 0 else 1)"
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, write_notebook, suite):
    """A sweep of the real command with two workers, its output in a pipe."""
    folder = tmp_path_factory.mktemp("a sweep")
    notebook = write_notebook(
        folder / "mine.ipynb", ("seed: int = 7\nn: int = 1", "parameters"), MEASURE
    )
    command = ["sweep", "mine.ipynb", "-p", "seed=2,0:2", "--workers", "2"]
    environ = {key: text for key, text in os.environ.items() if key not in cluster.THREADS}
    with socket.socket() as taken:
        with suppress(OSError):
            taken.bind(("127.0.0.1", 8787))  # where another user of Dask has a dashboard
            taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "labkit", *command],
            cwd=folder,
            env=environ | {"LABKIT_NOTEBOOKS": str(suite)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    return notebook, folder / "sweeps/mine", command, done


def test_a_sweep_in_a_pipe_prints_what_came_out_and_nothing_else(swept):
    notebook, _, _, done = swept
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "mine: 3 runs, 3 ok",
        "  holds 3 of 3  paper-one: seed is small: 0 to 2 (claimed ≤ 5)",
        "  sweeps/mine/results.csv, claims.csv, summary.ipynb",
    ]
    assert executions(notebook) == ["0", "1", "2"]


def test_the_tables_hold_the_runs_in_the_order_asked(swept):
    _, out, _, _ = swept
    rows = rows_of(out / "results.csv")
    assert [row["seed"] for row in rows] == ["2", "0", "1"]
    assert {row["status"] for row in rows} == {"ok"} and {row["n"] for row in rows} == {"1"}
    assert [row["claim: paper-one: seed is small"] for row in rows] == ["2.0", "0.0", "1.0"]
    assert [row["value"] for row in rows_of(out / "claims.csv")] == ["2.0", "0.0", "1.0"]


def test_each_run_keeps_its_notebook_and_its_record(swept):
    _, out, _, _ = swept
    assert {path.name for path in out.iterdir()} - {".lock"} == {
        *("results.csv", "claims.csv", "summary.ipynb", "runs")
    }
    rows = rows_of(out / "results.csv")
    assert {path.name for path in (out / "runs").iterdir()} == {row["run"] for row in rows}
    for row in rows:
        folder = out / "runs" / row["run"]
        assert {path.name for path in folder.iterdir()} == {"mine.ipynb", "result.json"}
        record = json.loads((folder / "result.json").read_text())
        executed = json.loads((folder / "mine.ipynb").read_text())["metadata"]["labkit"]["run"]
        for told in (record, executed):
            assert told["status"] == "ok"
            assert told["parameters"] == {"seed": int(row["seed"]), "n": 1}
        assert row["notebook"] == f"sweeps/mine/runs/{row['run']}/mine.ipynb"


def test_the_summary_is_executed_and_shows_pictures(swept):
    _, out, _, _ = swept
    notebook = json.loads((out / "summary.ipynb").read_text())
    assert "# mine: 3 runs" in "".join(notebook["cells"][0]["source"])
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not [output for output in outputs if output["output_type"] == "error"]


def test_the_peak_memory_is_that_of_the_kernel(swept):
    _, out, _, _ = swept
    rows = rows_of(out / "results.csv")
    peaks = {row["seed"]: float(row["peak_memory_mb"]) for row in rows}
    assert 300 < peaks["0"] < 700
    assert 20 < peaks["1"] < 250  # a bare kernel


def test_workers_share_the_cores(swept):
    _, out, _, _ = swept
    rows = rows_of(out / "results.csv")
    assert {float(row["metric: threads"]) for row in rows} == {max(1, CPU_COUNT // 2)}


def test_the_same_command_again_executes_nothing(swept, start):
    notebook, out, command, first = swept
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.ipynb")}
    again = start(*command, cwd=notebook.parent)
    assert again.communicate(timeout=PATIENCE) == (first.stdout, "")
    assert again.returncode == 0
    assert executions(notebook) == ["0", "1", "2"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.ipynb")} == before


def test_a_wider_grid_runs_what_is_new_and_a_changed_notebook_all(
    tmp_path, write_notebook, scheduler, no_summary
):
    parameters = ("seed: int = 7\nlam: float = 0.5", "parameters")
    path = write_notebook(tmp_path / "mine.ipynb", parameters, LOG.format("seed"))
    out = tmp_path / "out"
    ended, stages = [], []

    def sweep(*rows: dict) -> list[headless.RunResult]:
        planned = headless.plan(headless.find(str(path)), rows, out)
        results = headless.sweep(
            planned,
            scheduler=scheduler,
            on_progress=stages.append,
            on_end=lambda run, result: ended.append((run.asked["seed"], result.status)),
        )
        assert list(results) == planned
        return list(results.values())

    [first] = sweep({"seed": 1})
    assert (first.status, first.parameters) == ("ok", {"seed": 1, "lam": 0.5})
    assert ended == [(1, "ok")] and executions(path) == ["1"]

    wider = sweep({"seed": 2}, {"seed": 1}, {"seed": 1, "lam": 0.5})
    assert [result.parameters["seed"] for result in wider] == [2, 1]
    assert wider[1] == first  # read, not run
    assert ended == [(1, "ok"), (2, "ok")] and executions(path) == ["1", "2"]
    last = stages[-1]
    assert (last.total, last.done, last.failed, last.running) == (2, 2, 0, 0)
    assert {stage.total for stage in stages} == {1, 2}  # those of this sweep only
    assert [row["seed"] for row in rows_of(out / "results.csv")] == ["2", "1"]

    write_notebook(path, parameters, LOG.format("seed") + "# changed")
    sweep({"seed": 1})
    assert executions(path) == ["1", "1", "2"]
    assert len(list((out / "runs").iterdir())) == 3  # the earlier runs stay
    assert len(rows_of(out / "results.csv")) == 1  # the table tells of those asked for


# ------------------------------------------------------------------ runs that go wrong

TROUBLE = (
    "import os, time\nfrom labkit import claim\nprint('begun')\n"
    + LOG.format("kind")
    + "claim('paper-one', 'all is well', float(kind != 'poor'), at_least=1)"
)
MORE = (
    "# trouble\n"
    "if kind == 'errs': raise ValueError('that\\'s \"bad\", really')\n"
    "if kind == 'slow': time.sleep(100)\n"
    "if kind == 'dies': os._exit(1)"
)
KINDS = 'from typing import Literal\nkind: Literal["fine", "poor", "errs", "slow", "dies"] = "fine"'


@pytest.fixture(scope="module")
def troubled(tmp_path_factory, write_notebook, scheduler):
    """A sweep of which some runs fail, each in its way."""
    folder = tmp_path_factory.mktemp("troubled")
    notebook = write_notebook(folder / "odd.ipynb", (KINDS, "parameters"), TROUBLE, MORE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        planned = ["sweep", "odd.ipynb", "--out", "out", "--scheduler", scheduler]
        asked = ["-p", "kind=fine,poor,errs,slow,dies", "--timeout", "6", "--retries", "1"]
        patch.setattr(sys, "argv", ["labkit", *planned, *asked])
        yield notebook, folder / "out", planned


@pytest.fixture(scope="module")
def trouble(troubled):
    """What the command printed, beside the notebook and the folder."""
    notebook, out, _ = troubled
    with (
        redirect_stdout(StringIO()) as printed,
        redirect_stderr(StringIO()) as said,
        pytest.raises(SystemExit) as left,
    ):
        cli.main()
    counts = Counter(executions(notebook))
    return (
        left.value.code,
        printed.getvalue(),
        said.getvalue(),
        counts,
        rows_of(out / "results.csv"),
    )


def test_a_sweep_with_failures_exits_with_one_and_counts_them(trouble):
    code, out, _, _, _ = trouble
    assert code == 1
    assert "odd: 5 runs, 1 ok, 1 claims-failed, 3 error" in out
    assert "FAILS 4 of 5  paper-one: all is well: 0 to 1 (claimed ≥ 1)" in out


def test_each_failure_is_told_with_its_run_and_its_reason(trouble):
    _, _, err, _, _ = trouble
    lines = err.splitlines()
    assert "odd kind=poor: does not hold: all is well" in lines
    assert 'odd kind=errs: cell 3 (trouble) raised ValueError: that\'s "bad", really' in lines
    assert (
        "odd kind=slow: cell 3 (trouble) raised CellTimeoutError: the cell took over 6 s" in lines
    )
    assert any(
        line.startswith("odd kind=dies: cell 3 (trouble) raised DeadKernelError") for line in lines
    )
    assert "kind=fine" not in err and "Traceback" not in err


def test_what_errs_is_tried_again_and_what_fails_its_claims_is_not(trouble):
    *_, counts, _ = trouble
    assert counts == {"fine": 1, "poor": 1, "errs": 2, "slow": 2, "dies": 2}


def test_a_failed_run_is_kept_with_what_it_got_to(trouble, troubled):
    *_, rows = trouble
    _, out, _ = troubled
    statuses = {row["kind"]: row["status"] for row in rows}
    assert statuses == {
        **{"fine": "ok", "poor": "claims-failed"},
        **dict.fromkeys(("errs", "slow", "dies"), "error"),
    }
    for row in rows:
        folder = out / "runs" / row["run"]
        record = json.loads((folder / "result.json").read_text())
        assert record["status"] == row["status"]
        assert ("error" in record) == bool(row["error"]) == (row["status"] == "error")
        assert row["claim: paper-one: all is well"] == ("0.0" if row["kind"] == "poor" else "1.0")
        assert "begun" in (folder / "odd.ipynb").read_text()
        assert float(row["peak_memory_mb"]) > 20
    assert "ValueError" in next(row["error"] for row in rows if row["kind"] == "errs")
    assert (out / "summary.ipynb").is_file()


def test_the_same_command_runs_again_what_erred_but_not_what_failed_its_claims(
    trouble, troubled, labkit, no_summary
):
    notebook, _, planned = troubled
    code, out, err = labkit(*planned, "-p", "kind=poor,errs", "--retries", "0")
    assert code == 1
    counts = Counter(executions(notebook))
    assert (counts["poor"], counts["errs"]) == (1, 3)
    assert "odd: 2 runs, 1 claims-failed, 1 error" in out
    assert err.count("odd kind=errs: ") == 1


# ------------------------------------------------------------------ verify


def test_verify_holds_every_notebook_with_a_seed_against_seeds(
    labkit, elsewhere, scheduler, no_summary
):
    code, out, err = labkit("verify", "--seeds", "0:2", "--scheduler", scheduler)
    assert code == 1  # those of 02_poor
    lines = out.splitlines()
    assert "apples/01_good: 2 runs, 2 ok" in lines
    assert "  holds 2 of 2  paper-one: n is small: 3 to 3 (claimed ≤ 5 mV)" in lines
    assert "apples/02_poor: 2 runs, 2 claims-failed" in lines
    assert "  FAILS 0 of 2  paper-two: n is large: 3 to 3 (claimed ≥ 4)" in lines
    assert "pears/03_errs is passed over: it has no parameter named seed" in err.splitlines()
    for seed in range(2):
        said = (
            f"apples/02_poor seed={seed}: does not hold: n is large; no claim of paper-silent ran"
        )
        assert said in err.splitlines()
    for name in ("apples/01_good", "apples/02_poor"):
        rows = rows_of(elsewhere / "verify" / name / "results.csv")
        assert [row["seed"] for row in rows] == ["0", "1"]


def test_verify_refuses_a_named_notebook_without_a_seed(labkit, elsewhere):
    code, out, err = labkit("verify", "apples/01_good", "pears/03_errs")
    assert (code, out) == (2, "") and "pears/03_errs has no parameter named seed" in err
    assert not list(elsewhere.iterdir())


def test_verify_takes_a_topic_as_list_does(labkit, elsewhere, wide):
    code, out, err = labkit("verify", "apples", "--seeds", "0:2", "--dry-run")
    assert (code, err) == (0, "")
    assert sorted(table(out)) == [
        f"apples/{name} seed={seed}" for name in ("01_good", "02_poor") for seed in range(2)
    ]
    code, out, _ = labkit("verify", "apples", "apples/01_good", "--seeds", "0", "--dry-run")
    assert code == 0 and "2 runs: " in out
    code, out, err = labkit("verify", "pears", "--dry-run")
    assert (code, out) == (2, "") and "none of the notebooks has a parameter named seed" in err
    code, _, err = labkit("verify", "appels")
    assert code == 2 and "unknown notebook 'appels'" in err


def test_verify_publishes_into_no_wheel_and_says_so_before_it_runs(
    labkit, elsewhere, suite, monkeypatch
):
    monkeypatch.setattr(atlas, "installed_notebooks", lambda: suite)
    code, out, err = labkit("verify", "apples/01_good", "--publish", "--dry-run")
    assert (code, out) == (2, "") and "not to its wheel" in err
    assert labkit("verify", "apples/01_good", "--dry-run")[0] == 0
    assert not list(elsewhere.iterdir())


def test_a_table_that_cannot_be_published_is_told_in_one_line(labkit, elsewhere, monkeypatch):
    def refuse(path, content):
        raise PermissionError(errno.EACCES, "Permission denied")

    def ran(runs, **_):
        return {run: finished_after(run, 1.0) for run in runs}

    monkeypatch.setattr(headless, "sweep", ran)
    monkeypatch.setattr(cli.sweeps, "_print_results", lambda results: None)
    monkeypatch.setattr(measured, "write_atomic", refuse)
    code, out, err = labkit("verify", "apples/01_good", "--seeds", "0:1", "--publish")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "measured.csv cannot be written: Permission denied" in err


def test_verify_takes_a_repeated_name_once_and_refuses_two_notebooks_of_one_name(
    labkit, elsewhere, write_notebook
):
    for folder in "ab":
        write_notebook(elsewhere / folder / "same.ipynb", ("seed: int = 0", "parameters"))
    code, out, _ = labkit("verify", "a/same.ipynb", "a/same.ipynb", "--seeds", "0:3", "--dry-run")
    assert code == 0 and "3 runs" in out
    code, out, err = labkit("verify", "a/same.ipynb", "b/same.ipynb")
    assert (code, out) == (2, "") and "2 of the notebooks are called same" in err


def test_verify_reads_seeds_as_a_sweep_does(labkit, elsewhere):
    code, out, _ = labkit("verify", "apples/01_good", "--seeds", "5,7:9", "--dry-run")
    assert code == 0 and re.findall(r"seed=(\d+)", out) == ["5", "7", "8"]
    code, _, err = labkit("verify", "apples/01_good", "--seeds", "3:1")
    assert code == 2 and "the range is empty" in err
    assert not list(elsewhere.iterdir())


def test_notebooks_that_share_a_name_are_each_executed(
    tmp_path, write_notebook, scheduler, no_summary
):
    paths = [tmp_path / folder / "same.ipynb" for folder in "ab"]
    planned = []
    for path in paths:
        write_notebook(path, ("seed: int = 0", "parameters"), f"word = '{path.parent.name}'")
        planned += headless.plan(headless.find(str(path)), [{}], path.parent / "out")
    headless.sweep(planned, scheduler=scheduler)
    assert len({run.folder for run in planned}) == 2
    for run, word in zip(planned, "ab", strict=True):
        assert f"word = '{word}'" in run.output.read_text()


# ------------------------------------------------------------------ files of parameters, dry runs


def table(out: str) -> list[str]:
    """The third column of the printed plan."""
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    return [row[3].strip() for row in rows]


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_a_dry_run_lists_the_runs_and_writes_nothing(labkit, elsewhere, wide):
    asked = ["-p", "rule=soft,hard", "-p", "seed=0:2", "--workers", "2", "--dry-run"]
    code, out, err = labkit("sweep", "apples/01_good", *asked)
    assert (code, err) == (0, "")
    assert table(out) == [
        f"apples/01_good rule={rule} seed={seed}" for rule in ("soft", "hard") for seed in (0, 1)
    ]
    assert out.splitlines()[-1] == (
        "4 runs: 0 finished, 4 to run; about 60 s with 2 workers"  # half a minute each, as stated
        ", if they take as long as with the default parameters"
    )
    assert not list(elsewhere.iterdir())


def test_a_dry_run_without_a_stated_time_says_so(labkit, elsewhere):
    code, out, _ = labkit("sweep", "apples/02_poor", "--dry-run")
    assert code == 0 and "0 finished, 1 to run; no estimate" in out


def test_a_dry_run_counts_what_is_finished_and_measures_by_it(swept, labkit, monkeypatch):
    notebook, out, _, _ = swept
    monkeypatch.chdir(notebook.parent)
    code, printed, _ = labkit(
        "sweep", "mine.ipynb", "-p", "seed=0:5", "--workers", "1", "--dry-run"
    )
    assert code == 0
    assert "5 runs: 3 finished, 2 to run; about" in printed and "with 1 worker\n" in printed
    took = sorted(float(row["seconds"]) for row in rows_of(out / "results.csv"))[1]
    estimate = int(re.search(r"about (\d+) s", printed)[1])
    assert abs(estimate - 2 * took) <= 1
    assert printed.count("finished │") == 3 and printed.count("to run ") >= 2


@pytest.mark.parametrize(
    "name, content",
    [
        ("rows.csv", 'lam,mode\n1e-3,x\n,"y, z"\n'),
        ("rows.yaml", "- {lam: 1e-3, mode: x}\n- {mode: 'y, z'}\n"),
    ],
)
def test_rows_of_a_file_are_combined_with_a_grid(labkit, elsewhere, wide, tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    asked = ["--params", path, "-p", "seed=0:2", "--dry-run"]
    code, out, err = labkit("sweep", "apples/01_good", *asked)
    assert (code, err) == (0, "")
    assert table(out) == [
        *(f"apples/01_good lam=0.001 mode=x seed={seed}" for seed in (0, 1)),
        *(f"apples/01_good mode=y, z seed={seed}" for seed in (0, 1)),
    ]
    code, _, err = labkit("sweep", "apples/01_good", "--params", path, "-p", "mode=x")
    assert code == 2 and "mode: given by -p and by --params" in err
    assert not list(elsewhere.iterdir())


def test_runs_that_are_the_same_are_mentioned_once(labkit, elsewhere):
    code, out, err = labkit("sweep", "apples/01_good", "-p", "seed=0,0,1", "--dry-run")
    assert code == 0 and "2 runs: " in out
    assert err == "1 of the runs asked for are the same as others; each runs once\n"


# ------------------------------------------------------------------ how long it will take


def test_an_estimate_is_measured_else_stated_else_none(tmp_path):
    notebook = headless.find("apples/01_good")  # states half a minute
    planned = headless.plan(notebook, [{"seed": seed} for seed in range(4)], tmp_path)
    results = dict.fromkeys(planned)
    assert sweeps.estimate(results) == 4 * 30
    for run, seconds in zip(planned, (2.0, 4.0), strict=False):
        results[run] = finished_after(run, seconds)
    assert sweeps.estimate(results) == 2 * 3
    results[planned[2]] = replace(finished_after(planned[2], 500.0), status="error")
    assert sweeps.estimate(results) == 2 * 3  # it is to be run again, and says nothing
    [silent] = headless.plan(headless.find("apples/02_poor"), [{}], tmp_path / "silent")
    assert sweeps.estimate(results | {silent: None}) is None
    assert sweeps.estimate({silent: finished_after(silent, 9.0)}) == 0


def finished_after(run: headless.Run, seconds: float) -> headless.RunResult:
    fields = (run.notebook.name, run.parameters, "ok", seconds, run.output, [], {}, [], None, 1.0)
    return headless.RunResult(*fields)


# ------------------------------------------------------------------ files that are in use


def test_a_folder_that_cannot_be_removed_takes_nothing_from_a_run_on_another_machine(
    tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    [run] = headless.plan(headless.find("apples/01_good"), [{}], tmp_path / "out")
    away = replace(run, notebook=replace(run.notebook, path=tmp_path / "not here/01_good.ipynb"))
    monkeypatch.setattr(cluster, "execute", lambda *_, **__: ("{}", finished_after(away, 1.0)))
    monkeypatch.setattr(cluster, "_stop_if_unwanted", lambda *_: nullcontext(Event()))
    worker = SimpleNamespace(get_current_task=lambda: None)
    monkeypatch.setattr("distributed.get_worker", lambda: worker)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "rmdir", refuse)
    content = zlib.compress(b"{}")
    _, result = cluster._execute(away, content, None, 1, cluster.labkit_identity())
    monkeypatch.undo()
    assert result.status == "ok"


@pytest.mark.parametrize("closed_again", [True, False])
def test_a_table_that_is_open_elsewhere_is_left_for_the_last_writing(
    tmp_path, monkeypatch, no_summary, closed_again
):
    # Excel on Windows locks the file that it shows.
    seeds = [{"seed": seed} for seed in range(2)]
    planned = headless.plan(headless.find("apples/01_good"), seeds, tmp_path)
    tried, write = [], tables.write

    def locked(results, folder):
        tried.append(sum(result is not None for result in results.values()))
        if len(tried) < 3 or not closed_again:
            raise PermissionError(errno.EACCES, "Permission denied")
        write(results, folder)

    def outcomes(client, runs, **_):
        yield from ((run, (None, finished_after(run, 1.0))) for run in runs)

    client = SimpleNamespace(nthreads=lambda: {"worker": 1}, dashboard_link="")
    monkeypatch.setattr(sweeps, "TABLE_SECONDS", -1)
    monkeypatch.setattr(tables, "write", locked)
    monkeypatch.setattr(cluster, "local", lambda workers: nullcontext(client))
    monkeypatch.setattr(cluster, "outcomes", outcomes)
    if closed_again:
        headless.sweep(planned, workers=1)
        assert len(rows_of(tmp_path / "results.csv")) == 2
    else:
        with pytest.raises(headless.SweepError, match="Permission denied"):
            headless.sweep(planned, workers=1)
    assert tried == [1, 2, 2] and all(run.record.exists() for run in planned)


# ------------------------------------------------------------------ wrong use


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["apples/01_god"], "did you mean apples/01_good"),
        (["apples/01_good", "-p", "sed=1"], "did you mean seed?"),
        (["apples/01_good", "-p", "seed="], "the list is empty"),
        (["apples/01_good", "-p", "seed=5:0"], "the range is empty"),
        (["apples/01_good", "-p", "seed=0:1000000000"], "1000000000 runs are too many"),
        (["apples/01_good", "--params", "absent.csv"], "absent.csv cannot be read"),
        (["apples/01_good", "--out", "../file/below"], "file is no folder"),
        (["apples/01_good", "--out", "../file"], "file is no folder"),
        (["apples/01_good", "--scheduler", "nonsense://x"], "--scheduler nonsense://x"),
        (["apples/01_good", "--scheduler", "tcp://a:b:c"], "--scheduler tcp://a:b:c"),
        (["apples/01_good", "--scheduler", ""], "--scheduler"),
        (["apples/01_good", "--workers", "2", "--scheduler", "tcp://h:1"], "leave it out"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(labkit, elsewhere, tmp_path, arguments, said):
    (tmp_path / "file").write_text("")
    code, out, err = labkit("sweep", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("labkit: ") and err.count("\n") == 1 and said in err
    assert not list(elsewhere.iterdir()) and (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["-p", "sed=1"], "did you mean seed?"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers there"),
    ],
)
def test_the_real_command_refuses_wrong_use_soon(start, elsewhere, arguments, said):
    took = []
    while not took or (took[-1] >= 5 and len(took) < 3):  # the machine may be at other work
        started = time.monotonic()
        process = start("sweep", "apples/01_good", *arguments, cwd=elsewhere)
        out, err = process.communicate(timeout=PATIENCE)
        took.append(time.monotonic() - started)
        assert (process.returncode, out) == (2, "")
        assert err.startswith("labkit: ") and err.count("\n") == 1 and said in err
    assert min(took) < 5
    assert not list(elsewhere.iterdir())


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_without_permission_starts_nothing(labkit, elsewhere):
    elsewhere.chmod(0o500)
    code, _, err = labkit("sweep", "apples/01_good", "--out", "below")
    assert code == 2 and "no permission" in err and not list(elsewhere.iterdir())


@pytest.mark.parametrize("option", ["--workers=0", "--retries=-1", "--timeout=0", "--bad"])
@pytest.mark.parametrize("command", ["sweep", "verify"])
def test_a_malformed_option_is_wrong_use(labkit, elsewhere, command, option):
    code, out, err = labkit(command, "apples/01_good", option)
    assert (code, out) == (2, "") and "Traceback" not in err
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("more", [[], ["--scheduler", "tcp://127.0.0.1:1"]])
def test_without_dask_it_says_which_extra(labkit, elsewhere, monkeypatch, more):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    code, out, err = labkit("sweep", "apples/01_good", *more)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert '-m pip install "labkit-notebooks[sweep]"' in err
    assert not list(elsewhere.iterdir())


def test_a_parameter_called_as_a_column_is_refused(labkit, elsewhere, tmp_path, write_notebook):
    path = write_notebook(tmp_path / "odd.ipynb", ("seconds: int = 1", "parameters"))
    code, _, err = labkit("sweep", path)
    assert code == 2 and "odd has a parameter named seconds" in err
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("command", ["sweep", "verify"])
def test_every_help_teaches_with_an_example(labkit, command):
    code, out, _ = labkit(command, "--help")
    assert code == 0 and f"Example: labkit {command}" in out and "130 interrupted" in out


def test_a_sweep_of_no_runs_is_nothing():
    assert headless.sweep([]) == {}


def test_the_workers_of_this_machine_fit_its_cores_and_memory(monkeypatch):
    from distributed import system

    monkeypatch.setattr("dask.system.CPU_COUNT", 8)
    monkeypatch.setattr(system, "MEMORY_LIMIT", 64 * 2**30)
    assert [cluster.default_workers(runs) for runs in (1, 5, 100)] == [1, 5, 8]
    monkeypatch.setattr(system, "MEMORY_LIMIT", 7 * 2**30)
    assert cluster.default_workers(100) == 3
    monkeypatch.setattr(system, "MEMORY_LIMIT", 2**30)
    assert cluster.default_workers(100) == 1


# ------------------------------------------------------------------ Ctrl-C and SIGTERM

# Seed 0 ends at once; the others are long until the gate opens.
GATE = (
    "import os, time\nfrom pathlib import Path\nfrom labkit import metric\n"
    + LOG.format("seed")
    + "metric('threads', int(os.environ['OMP_NUM_THREADS']))\n"
    + "while seed and not Path('gate').exists(): time.sleep(0.1)"
)


def gated(folder: Path, write_notebook) -> Path:
    return write_notebook(folder / "long.ipynb", ("seed: int = 0", "parameters"), GATE)


@POSIX
@pytest.mark.parametrize(
    "number, to_group, code", [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)]
)
def test_a_signal_stops_a_sweep_and_the_same_command_finishes_it(
    number, to_group, code, start, tmp_path, write_notebook, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the user's own wins over a share of the cores
    notebook = gated(tmp_path, write_notebook)
    command = ["sweep", "long.ipynb", "-p", "seed=0:4", "--workers", "2", "--out", "out"]
    process = start(*command, cwd=tmp_path)
    runs = tmp_path / "out/runs"
    # One run is kept, two are at work, the last one waits.
    wait_for(
        lambda: len(list(runs.glob("*/result.json"))) == 1 and len(executions(notebook)) == 3,
        process,
    )
    family = psutil.Process(process.pid).children(recursive=True)
    assert len([p for p in family if "jupyter_kernel" in " ".join(p.cmdline())]) >= 2

    started = time.monotonic()
    (os.killpg if to_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - started < 20
    assert process.returncode == code, err
    assert "Traceback" not in err and "same command goes on from there" in err
    assert "long: 4 runs, 1 ok, 3 not run" in out
    assert not psutil.wait_procs(family, timeout=3)[1]
    rows = rows_of(tmp_path / "out/results.csv")
    assert [(row["seed"], row["status"]) for row in rows] == [
        *[("0", "ok"), ("1", "not run"), ("2", "not run"), ("3", "not run")]
    ]
    assert rows[0]["metric: threads"] == "3.0"
    assert not list((tmp_path / "out").rglob("*.part"))
    if number != signal.SIGINT:
        return

    (tmp_path / "gate").touch()
    process = start(*command, cwd=tmp_path)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "") and "long: 4 runs, 4 ok" in out
    assert executions(notebook) == ["0", "1", "1", "2", "2", "3"]
    assert {row["status"] for row in rows_of(tmp_path / "out/results.csv")} == {"ok"}


@POSIX
def test_two_sweeps_at_once_take_turns(start, tmp_path, write_notebook, scheduler):
    notebook = gated(tmp_path, write_notebook)
    command = ["sweep", "long.ipynb", "-p", "seed=1:3", "--scheduler", scheduler]
    first = start(*command, cwd=tmp_path)
    try:
        wait_for(lambda: executions(notebook), first)
        second = start(*command, cwd=tmp_path)
        said = second.stderr.readline()  # the first cannot end before: its gate is shut
    finally:
        (tmp_path / "gate").touch()
    outputs = [process.communicate(timeout=PATIENCE) for process in (first, second)]
    assert said == "another sweep is at work in sweeps/long; this one waits for it to end\n"
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert [err for _, err in outputs] == ["", ""]
    assert all("long: 2 runs, 2 ok" in out for out, _ in outputs)
    assert executions(notebook) == ["1", "2"]


@POSIX
def test_a_sweep_that_waits_for_another_can_be_stopped(start, tmp_path):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"):
        process = start("sweep", "apples/01_good", "--out", "out", cwd=tmp_path)
        assert "another sweep is at work in out" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (143, "") and "Traceback" not in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_locked_is_wrong_use(tmp_path):
    (tmp_path / "out/.lock").mkdir(parents=True)
    planned = headless.plan(headless.find("apples/01_good"), [{}], tmp_path / "out")
    with pytest.raises(UsageError, match="--out"):
        headless.sweep(planned)
