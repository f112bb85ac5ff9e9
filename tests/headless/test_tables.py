"""Tables of a sweep, what is drawn from them, and the summary notebook."""

import csv
import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.markers import TICKDOWN, TICKUP
from scipy.stats import binomtest

from labkit import headless
from labkit.claims import Claim
from labkit.headless import summary, tables
from labkit.headless.evidence import Failure
from labkit.headless.usage import UsageError

matplotlib.use("Agg")  # before pyplot is imported

import matplotlib.pyplot as plt

from labkit.headless import report

PARAMETERS = """\
n: int = 3
mode: str = "a"
sizes: list[int] = [1]
most: float | None = None
seed: int = 0"""


def claim(statement: str = "s", value: float = 1.0, **changes) -> Claim:
    fields = {"at_least": None, "at_most": 2.0, "unit": "mV", "paper": "paper-a"}
    fields |= changes
    low, high = fields["at_least"], fields["at_most"]
    holds = (low is None or value >= low) and (high is None or value <= high)
    return Claim(statement=statement, value=value, holds=holds, **fields)


def result_of(run: headless.Run, *claims: Claim, **changes) -> headless.RunResult:
    fields = {
        "notebook": run.notebook.name,
        "parameters": run.parameters,
        "status": "ok" if all(c.holds for c in claims) else "claims-failed",
        "seconds": 1.5,
        "output": run.output,
        "claims": list(claims),
        "metrics": {},
        "missing": [],
        "error": None,
        "peak_memory_mb": 61.5,
    }
    return headless.RunResult(**fields | changes)


@pytest.fixture
def notebook(tmp_path, write_notebook) -> headless.Notebook:
    path = write_notebook(tmp_path / "mine.ipynb", (PARAMETERS, "parameters"))
    return headless.find(str(path))


@pytest.fixture
def planned(notebook, tmp_path):
    """Runs for rows, in one folder."""
    return lambda *rows: headless.plan(notebook, rows, tmp_path / "out")


@pytest.fixture
def written(tmp_path):
    """Write the tables; return the rows of both as texts."""

    def written(results: dict) -> tuple[list[dict], list[dict]]:
        tables.write(results, tmp_path)
        return tuple(read_csv(tmp_path / name) for name in tables.TABLES)

    return written


def read_csv(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


# ------------------------------------------------------------------ the files


def test_results_hold_a_row_a_run_with_costs_last(planned, written):
    first, second = planned({"n": 1}, {"n": 2})
    made = result_of(first, claim(), metrics={"weight": 2.5})
    wide, _ = written({first: made, second: result_of(second, claim(value=3.0))})
    assert list(wide[0]) == [
        *("run", "status", "n", "mode", "sizes", "most", "seed"),
        *("claim: paper-a: s", "holds: paper-a: s", "metric: weight"),
        *("seconds", "peak_memory_mb", "missing", "error", "notebook"),
    ]
    assert wide[0] == {
        "run": first.id,
        "status": "ok",
        "n": "1",
        "mode": "a",
        "sizes": "[1]",
        "most": "",
        "seed": "0",
        "claim: paper-a: s": "1.0",
        "holds: paper-a: s": "True",
        "metric: weight": "2.5",
        "seconds": "1.5",
        "peak_memory_mb": "61.5",
        "missing": "",
        "error": "",
        "notebook": first.output.as_posix(),
    }
    assert (wide[1]["status"], wide[1]["holds: paper-a: s"]) == ("claims-failed", "False")
    assert (wide[1]["claim: paper-a: s"], wide[1]["metric: weight"]) == ("3.0", "")


def test_claims_hold_a_row_a_run_and_claim_with_its_bound(planned, written):
    first, second = planned({"n": 1}, {"n": 2})
    two_sided = claim("t", 0.5, at_least=0.0, at_most=1.0, unit="", paper="paper-b")
    _, long = written({first: result_of(first, claim(), two_sided), second: result_of(second)})
    about = ["run", "status", "paper", "statement", "value", "at_least", "at_most", "unit", "holds"]
    assert list(long[0]) == [*about, "n", "mode", "sizes", "most", "seed"]
    assert [(row["run"], row["statement"]) for row in long] == [(first.id, "s"), (first.id, "t")]
    assert [long[0][key] for key in about[2:]] == ["paper-a", "s", "1.0", "", "2.0", "mV", "True"]
    assert [long[1][key] for key in about[4:]] == ["0.5", "0.0", "1.0", "", "True"]


def test_a_run_without_a_result_says_so(planned, written):
    first, second = planned({"n": 1}, {"n": 2})
    wide, long = written({first: None, second: result_of(second, claim())})
    assert [row["status"] for row in wide] == ["not run", "ok"]
    assert (wide[0]["n"], wide[0]["run"], wide[0]["seconds"]) == ("1", first.id, "")
    assert wide[0]["claim: paper-a: s"] == wide[0]["notebook"] == ""
    assert [row["run"] for row in long] == [second.id]


def test_tables_of_runs_that_never_ran_have_their_headings(planned, tmp_path):
    tables.write(dict.fromkeys(planned({"n": 1})), tmp_path)
    assert len(read_csv(tmp_path / "results.csv")) == 1
    claims = (tmp_path / "claims.csv").read_text()
    assert claims == "run,status,paper,statement,value,at_least,at_most,unit,holds\n"


def test_columns_are_the_union_of_what_runs_claimed(planned, written):
    first, second = planned({"n": 1}, {"n": 2})
    results = {
        first: result_of(first, claim("s"), metrics={"a": 1.0}),
        second: result_of(second, claim("t"), claim("s", paper="paper-b"), metrics={"b": 2.0}),
    }
    wide, _ = written(results)
    for name in ("paper-a: s", "paper-a: t", "paper-b: s"):
        assert f"claim: {name}" in wide[0] and f"holds: {name}" in wide[0]
    assert [row["claim: paper-a: s"] for row in wide] == ["1.0", ""]
    assert [row["claim: paper-b: s"] for row in wide] == ["", "1.0"]
    assert [(row["metric: a"], row["metric: b"]) for row in wide] == [("1.0", ""), ("", "2.0")]
    assert list(wide[0])[-5:] == ["seconds", "peak_memory_mb", "missing", "error", "notebook"]


def test_a_statement_made_twice_keeps_both_values(planned, written):
    [run] = planned({})
    made = [claim("s", 1.0), claim("s", 3.0), claim("s", 1.5)]
    [row], long = written({run: result_of(run, *made)})
    names = ("paper-a: s", "paper-a: s (2)", "paper-a: s (3)")
    assert [row[f"claim: {name}"] for name in names] == ["1.0", "3.0", "1.5"]
    assert [row[f"holds: {name}"] for name in names] == ["True", "False", "True"]
    assert [line["value"] for line in long] == ["1.0", "3.0", "1.5"]


def test_texts_with_commas_quotes_and_newlines_survive(planned, written):
    odd = 'a, "b"\nc; é'
    [run] = planned({"mode": odd, "sizes": [1, 2]})
    error = Failure(3, "divide, by", "ValueError", odd, ["line"])
    made = result_of(run, claim(odd), status="error", error=error, missing=["paper-b", "paper-c"])
    [row], [line] = written({run: made})
    assert row["mode"] == line["mode"] == line["statement"] == odd
    assert row[f"claim: paper-a: {odd}"] == "1.0"
    assert row["error"] == f"cell 3 (divide, by) raised ValueError: {odd}"
    assert row["missing"] == "paper-b paper-c"
    assert json.loads(row["sizes"]) == json.loads(line["sizes"]) == [1, 2]


def test_a_table_is_replaced_whole_or_not_at_all(planned, written, tmp_path, monkeypatch):
    [run] = planned({})
    written({run: result_of(run, claim())})
    before = (tmp_path / "results.csv").read_text()

    def replace(self, target):
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="disk is full"):
        tables.write({run: None}, tmp_path)
    assert (tmp_path / "results.csv").read_text() == before
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("name", ["run", "status", "seconds", "error", "value", "holds", "unit"])
def test_a_parameter_called_as_a_column_is_refused(tmp_path, write_notebook, name):
    path = write_notebook(tmp_path / "odd.ipynb", (f"n: int = 1\n{name}: int = 1", "parameters"))
    odd = headless.plan(headless.find(str(path)), [{}], tmp_path)
    with pytest.raises(UsageError, match=f"odd has a parameter named {name}, .*rename it"):
        tables.refuse_ambiguous(odd)


def test_other_parameters_are_accepted(planned):
    tables.refuse_ambiguous(planned({}, {"n": 1}))


# ------------------------------------------------------------------ read back


def test_what_was_written_is_read_back(planned, tmp_path):
    first, second, third = planned({"n": 1, "most": 0.5}, {"n": 2, "sizes": [1, 2]}, {"n": 4})
    made = result_of(first, claim(unit=""), claim("t", 0.1 + 0.2), metrics={"w": 1e-300})
    tables.write({first: made, second: result_of(second, claim()), third: None}, tmp_path)
    results, claims = report.read(tmp_path)
    assert list(results["run"]) == [first.id, second.id, third.id]
    assert list(results["n"]) == [1, 2, 4] and list(results["sizes"]) == ["[1]", "[1, 2]", "[1]"]
    assert list(results["status"]) == ["ok", "ok", "not run"]
    assert results["metric: w"][0] == 1e-300 and np.isnan(results["seconds"][2])
    assert results["most"][0] == 0.5 and np.isnan(results["most"][1])
    assert list(claims["value"]) == [1.0, 0.1 + 0.2, 1.0]
    assert list(claims["unit"]) == ["", "mV", "mV"]
    assert claims["holds"].tolist() == [True, True, True] and claims["holds"].dtype == bool


@pytest.mark.parametrize("text", ["None", "null", "NA", "nan"])
def test_words_stay_words_when_read_back(planned, tmp_path, text):
    [run] = planned({"mode": text})
    tables.write({run: result_of(run, claim(text))}, tmp_path)
    results, claims = report.read(tmp_path)
    assert results["mode"].tolist() == claims["mode"].tolist() == [text]
    assert claims["statement"].tolist() == [text]
    assert len(report.pass_rates(claims)) == 1


def test_an_id_that_looks_like_a_number_stays_text(tmp_path):
    rows_of(tmp_path, [{"run": "0012345678901234"}, {"run": "12345678901234e5"}])
    results, claims = report.read(tmp_path)
    assert list(results["run"]) == list(claims["run"]) == ["0012345678901234", "12345678901234e5"]


def test_the_parameters_of_a_table_are_those_that_vary_the_seed_last(planned, tmp_path):
    runs = planned(*({"seed": s, "n": n, "sizes": [n]} for n in (1, 2) for s in (0, 1)))
    tables.write({run: result_of(run, claim(), metrics={"n": 1.0}) for run in runs}, tmp_path)
    for table in report.read(tmp_path):
        assert report.parameters(table) == ["n", "sizes", "seed"]
        assert report.parameters(table[:1]) == []


# ------------------------------------------------------------------ pass rates


@pytest.mark.parametrize("of", [1, 2, 3, 10, 57, 1000])
def test_the_interval_is_that_of_wilson(of):
    for holds in {0, 1, of // 3, of // 2, of - 1, of}:
        expected = binomtest(holds, of).proportion_ci(0.95, method="wilson")
        assert report.wilson(holds, of) == pytest.approx(tuple(expected), abs=1e-6)


def rows_of(folder: Path, rows: list[dict]) -> pd.DataFrame:
    """Claims with these values, written and read as a sweep's are."""
    usual = {"status": "ok", "paper": "p", "statement": "s", "value": 1.0}
    usual |= {"at_least": None, "at_most": 2.0, "unit": "", "holds": True}
    made = pd.DataFrame([usual | row for row in rows])
    made.to_csv(folder / "claims.csv", index=False)
    made.to_csv(folder / "results.csv", index=False)
    return report.read(folder)[1]


def test_pass_rates_hold_one_row_a_claim(tmp_path):
    rows = [{"run": str(i), "value": float(i), "holds": i < 3} for i in range(5)]
    other = {"statement": "t", "at_least": 0.0, "at_most": None, "value": 9.0}
    claims = rows_of(tmp_path, [*rows, {"run": "0"} | other, {"run": "1", "paper": "q"}])
    rates = report.pass_rates(claims)
    assert list(zip(rates["paper"], rates["statement"], strict=True)) == [
        ("p", "s"),
        ("p", "t"),
        ("q", "s"),
    ]
    first = rates.iloc[0]
    assert (first["holds"], first["of"], first["rate"]) == (3, 5, 0.6)
    assert (first["low"], first["high"]) == report.wilson(3, 5)
    assert (first["smallest"], first["median"], first["largest"]) == (0.0, 2.0, 4.0)
    assert first["at most"] == 2.0 and np.isnan(first["at least"])
    assert rates.iloc[1]["at least"] == 0.0 and np.isnan(rates.iloc[1]["at most"])
    assert list(rates["of"]) == [5, 1, 1]


def test_a_run_counts_once_in_a_pass_rate_and_only_if_all_it_measured_holds(tmp_path):
    twice = [{"run": "a"}, {"run": "a", "value": 3.0, "holds": False}, {"run": "b"}]
    rates = report.pass_rates(rows_of(tmp_path, twice))
    assert (rates["holds"][0], rates["of"][0]) == (1, 2)  # holds in run b
    assert rates["largest"][0] == 3.0


# ------------------------------------------------------------------ verdicts


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def colours_of(axis) -> list[list[str]]:
    [image] = axis.images
    return [[to_hex(colour) for colour in row] for row in image.to_rgba(image.get_array())]


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_xticklabels()]


def drawn(figure):
    """The visible axes of a figure, once it is laid out."""
    figure.canvas.draw()
    return [axis for axis in figure.axes if axis.get_visible()]


def test_verdicts_of_one_run_are_one_tile(tmp_path):
    left, right = drawn(report.draw_verdicts(rows_of(tmp_path, [{"run": "a", "seed": 0}])))
    assert colours_of(left) == [[report.HOLDS]]
    assert left.get_xlabel() == "run" and labels(left) == [""]
    assert [text.get_text() for text in right.texts] == ["1 of 1"]


def test_verdicts_show_what_holds_what_fails_and_what_is_absent(tmp_path):
    rows = [
        {"run": "a", "lam": 0.1, "seed": 0},
        {"run": "a", "lam": 0.1, "seed": 0, "statement": "t", "holds": False},
        {"run": "b", "lam": 0.1, "seed": 1},
        {"run": "c", "lam": 0.2, "seed": 0, "holds": False},
        {"run": "c", "lam": 0.2, "seed": 0, "statement": "t"},
    ]
    figure = report.draw_verdicts(rows_of(tmp_path, rows))
    left, right = drawn(figure)
    assert colours_of(left) == [
        [report.HOLDS, report.HOLDS, report.FAILS],
        [report.FAILS, report.ABSENT, report.HOLDS],
    ]
    assert labels(left) == ["0.1, 0", "0.1, 1", "0.2, 0"] and left.get_xlabel() == "lam, seed"
    assert [label.get_text() for label in left.get_yticklabels()] == ["s", "t"]
    assert [text.get_text() for text in right.texts] == ["2 of 3", "1 of 2"]
    [legend] = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["holds", "does not hold", "not measured"]


def test_a_statement_made_twice_fails_where_one_fails(tmp_path):
    twice = [{"run": "a"}, {"run": "a", "holds": False}, {"run": "b"}, {"run": "b"}]
    left, _ = drawn(report.draw_verdicts(rows_of(tmp_path, twice)))
    assert colours_of(left) == [[report.FAILS, report.HOLDS]]


def test_pass_rates_are_drawn_with_their_intervals(tmp_path):
    rows = [{"run": str(i), "seed": i, "holds": i < 3} for i in range(4)]
    _, right = drawn(report.draw_verdicts(rows_of(tmp_path, rows)))
    [bars] = right.containers
    [segment] = bars.lines[2][0].get_segments()
    assert bars.lines[0].get_xdata().tolist() == [0.75]
    assert segment[:, 0] == pytest.approx(report.wilson(3, 4))


def test_hundreds_of_runs_are_all_drawn_and_some_named(tmp_path):
    claims = rows_of(
        tmp_path, [{"run": f"{i:x}", "seed": i, "holds": i % 2 > 0} for i in range(300)]
    )
    left, right = drawn(report.draw_verdicts(claims))
    assert colours_of(left) == [[report.FAILS, report.HOLDS] * 150]
    named = labels(left)
    assert named[0] == "0" and 10 < len(named) <= report.MOST_LABELS
    assert [int(name) for name in named] == left.get_xticks().tolist()
    assert [text.get_text() for text in right.texts] == ["150 of 300"]
    [axis] = drawn(report.draw_values(claims))
    assert len(points(axis, report.HOLDS)) == len(points(axis, report.FAILS)) == 150
    assert sorted(points(axis, report.HOLDS)[:, 0]) == list(range(1, 300, 2))
    assert all(re.fullmatch(r"−?\d+", label) for label in labels(axis))  # seeds are whole


@pytest.mark.parametrize(
    "name, given, shown",
    [
        ("mode", ["b", "a"], ["b", "a"]),
        ("flag", [True, False], ["True", "False"]),
        ("sizes", ["[1]", "[1, 2]"], ["[1]", "[1, 2]"]),
        ("n", [10, 2], ["10", "2"]),
    ],
)
def test_words_and_truths_name_the_runs(tmp_path, name, given, shown):
    rows = [{"run": str(i), name: value} for i, value in enumerate(given)]
    left, _ = drawn(report.draw_verdicts(rows_of(tmp_path, rows)))
    assert labels(left) == shown and left.get_xlabel() == name


# ------------------------------------------------------------------ values


def points(axis, colour: str) -> np.ndarray:
    """The points of a colour, one a row."""
    found = [line.get_xydata() for line in axis.lines if to_hex(line.get_color()) == colour]
    return np.concatenate(found)


def bounds(axis) -> dict[str, list]:
    """The points of each bound: its tick points to the side that is claimed."""
    sides = {"at least": TICKUP, "at most": TICKDOWN}
    lines = {
        side: [x for x in axis.lines if x.get_marker() == tick] for side, tick in sides.items()
    }
    found = {side: [p for x in lines[side] for p in x.get_xydata().tolist()] for side in sides}
    return {side: [(x, y) for x, y in found[side] if not np.isnan(y)] for side in sides}


def test_values_stand_beside_their_bound_in_the_colour_of_the_verdict(tmp_path):
    rows = [
        {"run": str(i), "seed": i, "value": float(i), "at_most": 1.5, "holds": i < 2, "unit": "mV"}
        for i in range(3)
    ]
    [axis] = drawn(report.draw_values(rows_of(tmp_path, rows)))
    assert points(axis, report.HOLDS).tolist() == [[0, 0], [1, 1]]
    assert points(axis, report.FAILS).tolist() == [[2, 2]]
    assert bounds(axis) == {"at least": [], "at most": [(0, 1.5), (1, 1.5), (2, 1.5)]}
    assert labels(axis) == ["0", "1", "2"]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title("left")) == ("seed", "mV", "s")


def test_both_bounds_are_drawn_and_each_claim_has_its_own(tmp_path):
    sides = [(0.0, 2.0), (0.0, None), (None, 2.0)]
    rows = [
        {"run": r, "seed": int(r), "statement": f"s{i}", "at_least": low, "at_most": high}
        for r in "01"
        for i, (low, high) in enumerate(sides)
    ]
    figure = report.draw_values(rows_of(tmp_path, rows), columns=2)
    low, high = [(0, 0.0), (1, 0.0)], [(0, 2.0), (1, 2.0)]
    assert [bounds(axis) for axis in drawn(figure)] == [
        {"at least": low, "at most": high},
        {"at least": low, "at most": []},
        {"at least": [], "at most": high},
    ]
    [legend] = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["claimed at least", "claimed at most", "holds", "does not hold"]


def test_runs_that_share_a_place_stand_side_by_side(tmp_path):
    rows = [
        {"run": f"{i}{j}", "lam": lam, "seed": j, "value": float(j)}
        for i, lam in enumerate((0.1, 0.5))
        for j in range(3)
    ]
    [axis] = drawn(report.draw_values(rows_of(tmp_path, rows)))
    assert labels(axis) == ["0.1", "0.5"] and axis.get_xlabel() == "lam"
    x = points(axis, report.HOLDS)[:, 0]
    assert x == pytest.approx([-0.25, 0, 0.25, 0.75, 1, 1.25])
    [axis] = drawn(report.draw_values(report.read(tmp_path)[1], by="seed"))
    assert labels(axis) == ["0", "1", "2"] and axis.get_xlabel() == "seed"


def test_many_numbers_stand_to_scale_and_few_side_by_side_in_order(tmp_path):
    many = [{"run": str(i), "lam": 10.0 ** (i - 6)} for i in range(12)]
    [axis] = drawn(report.draw_values(rows_of(tmp_path, many)))
    assert points(axis, report.HOLDS)[:, 0] == pytest.approx([10.0 ** (i - 6) for i in range(12)])
    few = [{"run": str(i), "lam": lam} for i, lam in enumerate((100.0, 0.1, 1.0))]
    [axis] = drawn(report.draw_values(rows_of(tmp_path, few)))
    assert labels(axis) == ["0.1", "1.0", "100.0"]
    assert points(axis, report.HOLDS)[:, 0].tolist() == [2, 0, 1]


@pytest.mark.parametrize("name, given", [("mode", ["b", "a", "b"]), ("flag", [True, False, True])])
def test_words_and_truths_are_places_of_their_own(tmp_path, name, given):
    rows = [{"run": str(i), name: value, "seed": i} for i, value in enumerate(given)]
    [axis] = drawn(report.draw_values(rows_of(tmp_path, rows)))
    assert labels(axis) == [str(given[0]), str(given[1])]
    assert points(axis, report.HOLDS)[:, 0] == pytest.approx([-0.25, 1 - 0.25, 0.25])


def test_a_parameter_that_may_be_none_is_named_as_its_author_writes_it(planned, tmp_path):
    runs = planned({"most": None}, {"most": 1.0})
    tables.write({run: result_of(run, claim()) for run in runs}, tmp_path)
    claims = report.read(tmp_path)[1]
    left, _ = drawn(report.draw_verdicts(claims))
    assert labels(left) == ["None", "1.0"]
    [axis] = drawn(report.draw_values(claims))
    assert sorted(labels(axis)) == ["1.0", "None"]
    assert len(points(axis, report.HOLDS)) == 2


def test_a_claim_that_some_runs_lack_is_drawn_where_it_is(tmp_path):
    rows = [
        {"run": "a", "seed": 0},
        {"run": "b", "seed": 1},
        {"run": "b", "seed": 1, "statement": "t", "value": 7.0},
    ]
    _, axis = drawn(report.draw_values(rows_of(tmp_path, rows)))
    assert points(axis, report.HOLDS).tolist() == [[0, 7]] and labels(axis) == ["1"]


# ------------------------------------------------------------------ the summary


def cells_of(path: Path) -> list[dict]:
    notebook = json.loads(path.read_text())
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(cells: list[dict]) -> list[str]:
    return [kind for cell in cells for output in cell["outputs"] for kind in output.get("data", {})]


def text_of(path: Path) -> str:
    """Sources and outputs, as a reader sees them."""
    return path.read_text()


def test_the_summary_is_made_kept_and_made_again_when_a_table_changes(planned, tmp_path):
    runs = planned(*({"seed": seed} for seed in range(3)))
    tables.write(
        {run: result_of(run, claim(value=float(i))) for i, run in enumerate(runs)}, tmp_path
    )
    path = tmp_path / "summary.ipynb"
    summary.write(tmp_path, "apples/01_good")
    cells = cells_of(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert kinds(cells).count("image/png") == 2
    assert "# apples/01_good: 3 runs" in text_of(path)
    assert not list(tmp_path.glob(".*.part"))

    before = path.stat()
    summary.write(tmp_path, "apples/01_good")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)

    # Now a run that made no claim: what counts and draws them is left out.
    failed = result_of(runs[0], status="error", error=Failure(1, "x", "ValueError", "bad", []))
    tables.write({runs[0]: failed}, tmp_path)
    summary.write(tmp_path, "apples/01_good")
    again = cells_of(path)
    assert len(again) == len(cells) - 3 and "image/png" not in kinds(again)
    assert "# apples/01_good: 1 run\\n" in text_of(path)
    assert "cell 1 (x) raised ValueError: bad" in text_of(path)


@pytest.mark.parametrize("text", ["", "[]", "no JSON", '{"metadata": []}', "{}"])
def test_a_summary_that_is_none_is_made_anew(tmp_path, monkeypatch, text):
    (tmp_path / "results.csv").write_text("run,status\n")
    (tmp_path / "claims.csv").write_text("run,status\n")
    (tmp_path / "summary.ipynb").write_text(text)
    made = []

    def execute(notebook, content, values, output):
        made.append(output)
        return "made", headless.RunResult(notebook.name, {}, "ok", 1, output, [], {}, [], None, 1.0)

    monkeypatch.setattr(summary, "execute", execute)
    summary.write(tmp_path, "mine")
    assert made == [tmp_path / "summary.ipynb"]
    assert (tmp_path / "summary.ipynb").read_text() == "made"


def test_a_summary_that_errs_is_told_and_replaces_nothing(tmp_path, monkeypatch):
    (tmp_path / "results.csv").write_text("run,status\n")
    (tmp_path / "claims.csv").write_text("run,status\n")
    error = Failure(2, "draw", "ModuleNotFoundError", "No module named 'pandas'", [])

    def execute(notebook, content, values, output):
        fields = (notebook.name, {}, "error", 1, output, [], {}, [], error, 1.0)
        return "half", headless.RunResult(*fields)

    monkeypatch.setattr(summary, "execute", execute)
    with pytest.raises(RuntimeError, match=r"cell 2 \(draw\) raised ModuleNotFoundError"):
        summary.write(tmp_path, "mine")
    assert not (tmp_path / "summary.ipynb").exists()
