"""Stored results of `labkit bench` are those of today's cases."""

import json
from datetime import date
from pathlib import Path

from labkit.bench.cases import CASES

FOLDER = Path(__file__).parents[1] / "benchmarks"
# The first column of the README's table: what was measured, with two threads.
README = {
    "spiking layer, training": ("lif_scan", "training, T 100, B 64, N 512"),
    "synaptic delays, training": (
        "delayed_linear",
        "training, 140 to 256, 25 delays, B 256, T 100, 5 % spikes",
    ),
    "ℓ₁ codes of 1024 patches": (
        "sparse_code",
        "l1 to a gap of 0.001, 1024 patches of 16 x 16, 512 atoms, lam 1.0",
    ),
    "long linear recurrence, 8 lanes": ("linear_scan", "T 65536, 8 lanes"),
}


def stored():
    files = sorted(FOLDER.glob("*.json"))
    return [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]


def milliseconds(value):
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def test_the_readme_tells_the_stored_times_beside_the_best_peer():
    text = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    head = "| | labkit | best peer | |\n|---|---|---|---|\n"
    table = text.partition(head)[2].partition("\n\n")[0].splitlines()
    told = {label: cells for label, *cells in (line.strip("| ").split(" | ") for line in table)}
    assert told.keys() == README.keys()
    for label, case in README.items():
        (row,) = (r for r in stored() if (r["kernel"], r["case"], r["threads"]) == (*case, 2))
        best, peer = min((ms, name) for name, ms in row["peers"].items())
        ours, theirs, name = told[label]
        assert (ours, theirs) == (milliseconds(row["ours_ms"]), milliseconds(best)), label
        assert peer.startswith(name), label


def test_every_case_has_a_stored_result_with_machine_and_date():
    rows = stored()
    assert all(row["machine"] and date.fromisoformat(row["date"]) for row in rows)
    assert all(row["ours_ms"] and row["floor_ms"] and not row["error"] for row in rows)
    here = {(row["kernel"], row["case"], row["threads"]) for row in rows if row["device"] == "cpu"}
    wanted = {
        (case.kernel, case.name, threads)
        for case in CASES
        for threads in (1, 2)
        if "cpu" in case.devices
    }
    assert here == wanted, "run `labkit bench --json` again and store what it prints"
