"""The benchmark itself: its gate, its clock, and the command as a user meets it."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from labkit.bench import Case, Disagreement, Trial, measure, peak_memory
from labkit.bench.cases import CASES
from labkit.bench.measure import most_held

CONTRACT = {"kernel", "case", "threads", "device", "ours_ms", "peers", "floor_ms"}


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "labkit", "bench", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    return done.returncode, done.stdout, done.stderr


def case(ours=lambda: None, check=lambda: None, **peers):
    return Case("kernel", "case", "floor", lambda device: Trial(ours, check, lambda: None, peers))


@pytest.mark.parametrize(
    "case", [c for c in CASES if "cpu" in c.devices], ids=lambda case: f"{case.kernel} {case.name}"
)
def test_every_case_passes_its_gate(case):
    if case.kernel == "fuse":
        pytest.importorskip("snntorch")
    case.build("cpu").check()


def test_the_clock_tells_a_slow_peer_from_a_fast_one():
    row = measure(case(lambda: time.sleep(0.002), slow=lambda: time.sleep(0.1)), "cpu", 1)
    assert row.ours_ms >= 2 and row.peers["slow"] >= 100  # sleep may last longer, never shorter
    assert row.peers["slow"] > row.ours_ms
    assert row.floor_ms < row.ours_ms


def test_what_is_wrong_is_not_timed():
    def check():
        raise Disagreement("differs")

    def ours():
        raise AssertionError("was timed")

    row = measure(case(ours, check), "cpu", 1)
    assert row.error == "differs" and row.ours_ms is None and row.floor_ms is None
    assert row.peers == {}


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_asked_for_and_set_back(threads):
    before, seen = torch.get_num_threads(), []
    measure(case(lambda: seen.append(torch.get_num_threads())), "cpu", threads)
    assert set(seen) == {threads} and torch.get_num_threads() == before


def test_peak_memory_counts_what_is_held_at_once():
    def call():
        a = torch.zeros(1_000_000)
        b = a + 1
        del a
        return b * 2

    assert 8_000_000 <= peak_memory(call) < 8_100_000


def test_peak_memory_does_not_count_what_is_freed_of_earlier_calls():
    # The profiler reports such a block's size, or none, by which addresses it happens to know.
    old, new, newer = 16, 32, 48
    held_at_once = most_held([(3, new, -8), (1, old, -8), (2, new, 8), (4, newer, 4), (5, old, 4)])
    assert held_at_once == 8


def test_json_holds_one_document_with_the_keys_of_the_contract():
    code, out, err = command("hadamard_transform", "--threads", "1", "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert len(rows) == 3
    for row in rows:
        assert row.keys() >= CONTRACT
        assert row["kernel"] == "hadamard_transform" and row["threads"] == 1
        assert row["ours_ms"] > 0 and row["floor_ms"] > 0
        assert all(ms > 0 for ms in row["peers"].values())
        assert "cores" in row["machine"] and row["date"]
    assert "hadamard_transform" in err  # how far it is


def test_the_table_names_peers_and_the_floor():
    code, out, err = command("hadamard_transform", "--threads", "1")
    assert code == 0
    assert "PyTorch, eager" in " ".join(out.split()) and "bytes" in out
    assert "labkit bench on" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lif"], "no kernel 'lif'; expected one of lif_scan"),
        (["--threads", "0"], "--threads 0: expected whole numbers from 1 on"),
        (["--threads", "two"], "--threads two"),
        (["--device", "tpu"], "--device tpu: expected cpu or cuda"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(arguments, said):
    code, out, err = command(*arguments)
    assert code == 2 and said in err and "Traceback" not in err and out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_missing_gpu_is_told():
    code, _, err = command("--device", "cuda")
    assert code == 2 and "no NVIDIA GPU" in err
