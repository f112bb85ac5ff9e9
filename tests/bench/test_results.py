"""Stored results of `labkit bench` are those of today's cases."""

import json
from datetime import date
from pathlib import Path

from labkit.bench.cases import CASES

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_every_case_has_a_stored_result_with_machine_and_date():
    files = sorted(FOLDER.glob("*.json"))
    rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
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
