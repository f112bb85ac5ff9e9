"""What a sweep survives: SIGKILL of any of its processes, a full disk, a cluster that goes away."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager

import psutil
import pytest

from labkit import headless

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

KILLS = 20
VICTIMS = ("kernel", "worker", "kernel", "worker", "sweep")  # in turn
SHORT = (
    ("seed: int = 0", "parameters"),
    "import time\ntime.sleep(0.3)",
    "from labkit import claim, metric\n"
    "metric('drawn', seed)\n"
    "claim('paper-one', 'is no negative number', seed, at_least=0)",
)


@pytest.fixture
def folder(tmp_path, write_notebook):
    write_notebook(tmp_path / "short.ipynb", "# # Short", *SHORT)
    return tmp_path


def sweep(folder, *arguments, runs=8, out="out", **options):
    """Start the command; its processes are known by a variable of their environment."""
    command = [sys.executable, "-m", "labkit", "sweep", "short.ipynb", "-p", f"seed=0:{runs}"]
    return subprocess.Popen(
        [*command, "--out", out, *arguments],
        cwd=folder,
        env=os.environ | options,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process, seconds=120):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def rows(folder):
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def eventually(condition, seconds=120):  # a busy machine takes long to start a cluster
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ------------------------------------------------------------------ SIGKILL


def processes_with(mark):
    """Living processes that were started, however indirectly, with that variable."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ().values() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # it ended meanwhile, or belongs to somebody else
    return found


def kind(process):
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return "gone"
    words = {"jupyter_kernel": "kernel", "spawn_main": "worker", "labkit sweep": "sweep"}
    return next((kind for word, kind in words.items() if word in command), "other")


def finished_runs(out):
    """Run -> what tells one writing of its record from another. Half a record would not parse."""
    found = {}
    for record in out.glob("runs/*/result.json"):
        if json.loads(record.read_text())["status"] in ("ok", "claims-failed"):
            assert json.loads((record.parent / "short.ipynb").read_text())["cells"]
            found[record.parent.name] = (record.stat().st_mtime_ns, record.stat().st_ino)
    return found


def test_killing_workers_kernels_and_sweeps_loses_nothing_and_repeats_nothing(folder):
    rng = random.Random(0)  # the moments differ anyway
    out, mark = folder / "out", uuid.uuid4().hex
    known, kills = {}, []
    while len(kills) < KILLS:
        if len(known) == 8:  # all done: from the start
            shutil.rmtree(out)
            known = {}
        process = sweep(folder, "--workers", "2", LABKIT_TEST=mark)
        while process.poll() is None and len(kills) < KILLS:
            time.sleep(rng.uniform(0.2, 2.0))
            wanted = rng.choice(VICTIMS)
            victims = [p for p in processes_with(mark) if kind(p) == wanted]
            if victims:
                victim = rng.choice(victims)
                kills.append(kind(victim))
                victim.kill()
            now = finished_runs(out)
            assert {run: now.get(run) for run in known} == known
            known = now
        code, _, err = finish(process)
        assert code in (0, 1, -9), err
        assert "Traceback" not in err
        eventually(lambda: not processes_with(mark), seconds=30)
        now = finished_runs(out)
        assert {run: now.get(run) for run in known} == known
        known = now
    code, _, err = finish(sweep(folder, "--workers", "2"))
    assert code == 0, err
    assert [(row["seed"], row["status"]) for row in rows(out)] == [(str(i), "ok") for i in range(8)]
    assert {run: finished_runs(out)[run] for run in known} == known
    assert list(out.rglob("*.part")) == []


def test_a_kernel_that_is_killed_is_tried_again_and_then_reported(folder, write_notebook):
    deadly = (
        "import os, signal\nopen('tries', 'a').write('x')\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    notebook = headless.find(str(write_notebook(folder / "deadly.ipynb", deadly)))
    runs = headless.plan(notebook, [{}], folder / "out")
    result = headless.sweep(runs, workers=1, retries=2)[runs[0]]
    assert (folder / "tries").read_text() == "xxx"
    assert result.status == "error" and "died" in result.error.message
    assert "died" in rows(folder / "out")[0]["error"]


def test_a_run_that_kills_its_workers_is_given_up_and_the_others_finish(folder, write_notebook):
    # The worker is the parent of the kernel: what a scheduler of memory does to the larger of both.
    code = "import os, signal\nif seed == 1: os.kill(os.getppid(), signal.SIGKILL)"
    write_notebook(folder / "short.ipynb", ("seed: int = 0", "parameters"), code)
    impatient = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}  # the default is 3
    code, _, err = finish(sweep(folder, "--workers", "1", runs=3, **impatient))
    assert code == 1
    assert "a worker raised KilledWorker" in err
    assert "seed=1" in err and "workers died" in err and "Traceback" not in err
    assert [row["status"] for row in rows(folder / "out")] == ["ok", "error", "ok"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl")
def test_a_kernel_dies_with_its_parent_also_within_native_code(folder, start, write_notebook):
    # PyDLL keeps the interpreter's lock: no thread of the kernel can look whether its parent lives.
    native = "open('begun', 'w').close()\nimport ctypes\nctypes.PyDLL(None).sleep(600)"
    write_notebook(folder / "native.ipynb", native)
    process = start("run", "native.ipynb", cwd=folder)
    eventually((folder / "begun").exists)
    kernels = [p for p in psutil.Process(process.pid).children() if kind(p) == "kernel"]
    assert kernels
    process.kill()
    process.communicate()
    assert psutil.wait_procs(kernels, timeout=30)[1] == []


# ------------------------------------------------------------------ a full disk


@contextmanager
def small_disk(path, size):
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tmpfs")
def test_a_full_disk_stops_the_sweep_cleanly_and_room_lets_it_finish(folder):
    disk = folder / "disk"
    with small_disk(disk, "64k"):
        code, _, err = finish(sweep(folder, "--workers", "1", out=str(disk / "out")))
        assert code == 1
        assert "No space left on device" in err and "kept" in err and "Traceback" not in err
        kept = finished_runs(disk / "out")
        assert 0 < len(kept) < 8
        subprocess.run(["mount", "-o", "remount,size=32m", disk], check=True)
        code, _, err = finish(sweep(folder, "--workers", "1", out=str(disk / "out")))
        assert code == 0, err
        assert [row["status"] for row in rows(disk / "out")] == ["ok"] * 8
        assert finished_runs(disk / "out").items() >= kept.items()


# ------------------------------------------------------------------ a cluster that runs already


@pytest.fixture
def cluster(folder):
    """A scheduler and two workers as a user starts them; their processes and the address."""
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    address_file = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen([*dask, *options, "--scheduler-file", address_file], **quiet)
    workers = []
    try:
        eventually(lambda: address_file.exists() and address_file.stat().st_size)
        address = json.loads(address_file.read_text())["address"]
        dask = [sys.executable, "-m", "distributed.cli.dask_worker", address]
        workers = [
            subprocess.Popen([*dask, "--nthreads", "1", "--no-dashboard"], **quiet)
            for _ in range(2)
        ]
        yield scheduler, workers, address
    finally:
        for process in [*workers, scheduler]:
            process.terminate()
        for process in [*workers, scheduler]:
            process.wait(30)


def comparable(folder):
    costs = ("seconds", "peak_memory_mb", "notebook")
    return [{k: v for k, v in row.items() if k not in costs} for row in rows(folder)]


def kernels_below(processes):
    children = [c for p in processes for c in psutil.Process(p.pid).children(recursive=True)]
    return [child for child in children if kind(child) == "kernel"]


def test_a_running_cluster_makes_the_same_table_and_stops_when_asked(
    cluster, folder, write_notebook
):
    _, workers, address = cluster
    code, _, err = finish(sweep(folder, "--scheduler", address, runs=4, out="theirs"))
    assert code == 0, err
    code, _, err = finish(sweep(folder, "--workers", "2", runs=4, out="ours"))
    assert code == 0, err
    assert comparable(folder / "theirs") == comparable(folder / "ours")

    # Dask lets a running task run, whatever becomes of the client; our kernels must not.
    long = "import time\ntime.sleep(600)"
    write_notebook(folder / "short.ipynb", ("seed: int = 0", "parameters"), long)
    for stop, code in (("terminate", 143), ("kill", -9)):
        process = sweep(folder, "--scheduler", address, runs=2, out=stop)
        eventually(lambda: len(kernels_below(workers)) == 2)
        getattr(process, stop)()
        assert finish(process)[0] == code
        eventually(lambda: not kernels_below(workers), seconds=15)


def test_a_worker_that_is_told_to_leave_hands_its_run_to_another(cluster, folder, write_notebook):
    # What a batch system does to a job at its time limit.
    _, workers, address = cluster
    write_notebook(
        folder / "short.ipynb", ("seed: int = 0", "parameters"), "import time\ntime.sleep(4)"
    )
    process = sweep(folder, "--scheduler", address, runs=3)
    eventually(lambda: len(kernels_below(workers)) == 2)
    workers[0].terminate()
    code, _, err = finish(process)
    assert code == 0, err
    assert [row["status"] for row in rows(folder / "out")] == ["ok"] * 3


def test_a_scheduler_that_dies_ends_the_sweep_with_a_word_and_keeps_what_is_done(cluster, folder):
    scheduler, _, address = cluster
    process = sweep(folder, "--scheduler", address, runs=30)
    eventually(lambda: len(finished_runs(folder / "out")) >= 2)
    scheduler.kill()
    code, _, err = finish(process, seconds=60)
    assert code == 1
    assert "scheduler is gone" in err and "Traceback" not in err
    kept = finished_runs(folder / "out")
    code, _, err = finish(sweep(folder, "--workers", "2", runs=4))
    assert code == 0, err
    assert finished_runs(folder / "out").items() >= kept.items()
