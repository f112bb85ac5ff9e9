"""Which runs are asked for: lists, ranges, files of rows. Nothing is executed here."""

import time

import pytest

from labkit.headless import grid, parameters
from labkit.headless.usage import UsageError

CELL = """
from typing import Literal, Optional
n: int = 3
lam: float = 0.1
mode: str = "a"
flag: bool = False
sizes: list[int] = [1]
table: dict[str, float] = {}
most: float | None = None
perhaps: Optional[int] = None
rule: Literal["soft", "hard"] = "soft"
mixed: int | str = 1
"""
KNOWN = parameters.declared(CELL)


def values(pair: str) -> list:
    """What one -p lists."""
    name = pair.partition("=")[0]
    return [row[name] for row in grid.from_options(KNOWN, [pair])]


def refused(*pairs: str) -> str:
    """The message with which -p is refused."""
    with pytest.raises(UsageError) as caught:
        grid.from_options(KNOWN, pairs)
    return str(caught.value)


# ------------------------------------------------------------------ lists


@pytest.mark.parametrize(
    "pair, expected",
    [
        ("n=4", [4]),
        ("n=3,-1,3", [3, -1, 3]),
        ("n=1, 2", [1, 2]),
        ("lam=0.1,1e-3,2", [0.1, 1e-3, 2.0]),
        ("mode=a,b c", ["a", "b c"]),
        ("mode='a,b',c", ["a,b", "c"]),
        ('mode="it\'s, so",b', ["it's, so", "b"]),
        ("mode=it's,that's", ["it's", "that's"]),
        ("mode='',x", ["", "x"]),
        ("mode=a=b,c", ["a=b", "c"]),
        ("flag=true,False", [True, False]),
        ("sizes=[1,2],[3],[]", [[1, 2], [3], []]),
        ("sizes=[1, 2], [3]", [[1, 2], [3]]),
        ("table={'a,b': 1, 'c': 2},{}", [{"a,b": 1.0, "c": 2.0}, {}]),
        ("most=None,1,none", [None, 1.0, None]),
        ("rule=hard,soft", ["hard", "soft"]),
        ("rule='hard'", ["hard"]),
        ("mixed=1,one", [1, "one"]),
    ],
)
def test_a_list_holds_values_of_the_declared_type(pair, expected):
    got = values(pair)
    assert got == expected and [type(v) for v in got] == [type(v) for v in expected]


@pytest.mark.parametrize(
    "pair, expected",
    [
        ("n=0:4", [0, 1, 2, 3]),
        ("n=-2:1", [-2, -1, 0]),
        ("n=0:7:3", [0, 3, 6]),
        ("n=5:0:-2", [5, 3, 1]),
        ("n=0:2,7,9:11", [0, 1, 7, 9, 10]),
        ("lam=0:3", [0.0, 1.0, 2.0]),
        ("most=None,0:2", [None, 0.0, 1.0]),
        ("perhaps=0:2", [0, 1]),
        ("mixed=0:2", [0, 1]),
        ("mixed='0:2'", ["0:2"]),
        ("mode=0:2", ["0:2"]),
    ],
)
def test_a_range_counts_as_python_does_and_only_for_numbers(pair, expected):
    got = values(pair)
    assert got == expected and [type(v) for v in got] == [type(v) for v in expected]


def test_the_last_parameter_varies_fastest():
    rows = grid.from_options(KNOWN, ["rule=soft,hard", "n=0:2", "lam=1"])
    assert rows == [
        {"rule": "soft", "n": 0, "lam": 1.0},
        {"rule": "soft", "n": 1, "lam": 1.0},
        {"rule": "hard", "n": 0, "lam": 1.0},
        {"rule": "hard", "n": 1, "lam": 1.0},
    ]


def test_no_options_are_one_run_with_the_defaults():
    assert grid.from_options(KNOWN, []) == [{}]


# ------------------------------------------------------------------ wrong lists


@pytest.mark.parametrize(
    "pair, said",
    [
        ("n=", "the list is empty"),
        ("mode= ", "the list is empty"),
        ("n=1,,2", "empty"),
        ("n=1,", "empty"),
        ("n=,1", "empty"),
        ("mode=a,", "'' in quotes is the empty text"),
        ("n=3:1", "counts up from 3 to before 1"),
        ("n=1:3:-1", "counts down from 1 to before 3"),
        ("n=2:2", "the range is empty"),
        ("n=0:3:0", "its step is 0"),
        ("lam=0:1:0.1", "whole numbers"),
        ("lam=0.5:2", "whole numbers"),
        ("n=0:", "whole numbers"),
        ("n=0:1:1:1", "whole numbers"),
        ("n=1,x", "expected a whole number"),
        ("n='0:3'", "expected a whole number"),
        ("n=0-9", "n=0-9 is refused: a range is 0:10"),
        ("n=5,0..9", "n=0..9 is refused: a range is 0:10"),
        ("lam=1,nan", "not a finite number"),
        ("flag=true,1", "true or false"),
        ("rule=soft,half", "'soft', 'hard'"),
        ("sizes=[1],2", "a list"),
        ("sizes=[1],['a']", "element 1"),
        ("mode='a,b", "' is missing"),
        ('mode="a', '" is missing'),
        ("sizes=[1,2", "] is missing"),
        ("table={'a': 1", "} is missing"),
    ],
)
def test_a_wrong_list_is_refused_with_the_reason_and_the_declaration(pair, said):
    message = refused(pair)
    parameter = next(p for p in KNOWN if p.name == pair.partition("=")[0])
    assert said in message
    assert f"parameter {parameter.name}=" in message
    assert f"{parameter.name}: {parameter.type} = {parameter.default!r}" in message
    assert "\n" not in message


@pytest.mark.parametrize("pair", ["n", "=1", "", "="])
def test_a_malformed_pair_is_named(pair):
    message = refused(pair)
    assert repr(pair) in message and "no pair" in message and "NAME=V1,V2" in message


def test_an_unknown_name_brings_the_nearest_and_all_known():
    message = refused("lamb=1")
    assert "unknown parameter 'lamb'" in message and "did you mean lam?" in message
    assert all(f"{p.name}: {p.type}" in message for p in KNOWN)


def test_a_repeated_name_is_refused():
    message = refused("n=1", "lam=1", "n=2")
    assert "n is given twice" in message and "after one -p" in message


@pytest.mark.parametrize(
    "pairs, count",
    [
        (["n=0:1000000000"], "1000000000"),
        (["n=0:1000", "lam=0:1000", "mode=a"], "1000000"),
        (["n=0:100000000000000000000"], "100000000000000000000"),  # no C integer holds it
    ],
)
def test_too_many_runs_are_refused_at_once(pairs, count):
    started = time.monotonic()
    message = refused(*pairs)
    assert time.monotonic() - started < 2
    assert f"{count} runs are too many" in message and f"at most {grid.MOST}" in message


def test_the_limit_itself_is_accepted_and_one_more_refused(monkeypatch):
    monkeypatch.setattr(grid, "MOST", 50)
    assert len(values("n=0:50")) == 50
    assert len(grid.from_options(KNOWN, ["n=0:10", "lam=0:5"])) == 50
    for pairs in (["n=0:51"], ["n=0:50,0"], ["n=0:17", "lam=0:3"]):
        assert "51 runs are too many" in refused(*pairs)


# ------------------------------------------------------------------ CSV


@pytest.fixture
def rows_of(tmp_path):
    """The rows read from a file with that content."""

    def rows_of(content: str | bytes, name: str = "rows.csv") -> list[grid.Row]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return grid.from_file(KNOWN, path)

    return rows_of


@pytest.fixture
def complaint(rows_of, tmp_path):
    """The message with which a file is refused; it names the file."""

    def complaint(content: str | bytes, name: str = "rows.csv") -> str:
        with pytest.raises(UsageError) as caught:
            rows_of(content, name)
        assert f"--params {tmp_path / name}" in str(caught.value)
        return str(caught.value)

    return complaint


@pytest.mark.parametrize(
    "content, expected",
    [
        ("n,mode\n1,x\n2,y\n", [{"n": 1, "mode": "x"}, {"n": 2, "mode": "y"}]),
        ("n,mode\r\n1,x\r\n", [{"n": 1, "mode": "x"}]),
        (b"\xef\xbb\xbfn,lam\n1,2\n", [{"n": 1, "lam": 2.0}]),  # Excel starts with such a mark
        ("n,lam\n1,\n,0.5\n", [{"n": 1}, {"lam": 0.5}]),
        ("n, lam\n1,2\n", [{"n": 1, "lam": 2.0}]),
        ('mode,sizes\n"a ""b"", c","[1, 2]"\n', [{"mode": 'a "b", c', "sizes": [1, 2]}]),
        ('mode\n"two\nlines"\n', [{"mode": "two\nlines"}]),
        ("mode\né\n", [{"mode": "é"}]),
        ("most,flag\nNone,true\n", [{"most": None, "flag": True}]),
        ("n\n1\n\n2\n", [{"n": 1}, {"n": 2}]),
    ],
)
def test_csv_rows_hold_values_and_leave_out_empty_fields(rows_of, content, expected):
    assert rows_of(content) == expected


@pytest.mark.parametrize(
    "content, said",
    [
        ("", "holds no rows"),
        ("n,lam\n", "holds no rows"),
        ("n,lam\n1,2\n1,2,3\n", "row 2 has more or fewer fields"),
        ("n,lam\n1\n", "row 1 has more or fewer fields"),
        ("n,lamb\n1,2\n", "row 1: unknown parameter 'lamb': did you mean lam?"),
        ("n\n1\nx\n", "row 2: parameter n=x is refused: expected a whole number"),
        ("n\n1\n0:3\n", "row 2: parameter n=0:3"),
        ("n;lam\n1;2\n", "unknown parameter 'n;lam'"),
        ('mode\n"no end\n', "cannot be read"),
        (b"mode\n\xe9\n", "cannot be read"),
        ("n,lam,n\n1,2,3\n", "twice"),  # the last must not win in silence
    ],
)
def test_a_wrong_csv_file_is_refused_with_the_row(complaint, content, said):
    assert said in complaint(content)


def test_too_many_rows_of_a_file_are_refused(rows_of, monkeypatch):
    monkeypatch.setattr(grid, "MOST", 50)
    assert len(rows_of("n\n" + "1\n" * 50)) == 50
    with pytest.raises(UsageError, match="51 runs are too many"):
        rows_of("n\n" + "1\n" * 51)


def test_a_file_that_cannot_be_read_is_named(complaint, tmp_path):
    assert ".csv, .yaml or .yml" in complaint("n\n1\n", "rows.txt")
    (tmp_path / "folder.csv").mkdir()
    for name in ("absent.csv", "folder.csv", "absent.yaml"):
        with pytest.raises(UsageError, match="cannot be read") as caught:
            grid.from_file(KNOWN, tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_the_suffix_may_be_in_capitals(rows_of):
    assert rows_of("n\n1\n", "ROWS.CSV") == [{"n": 1}]


# ------------------------------------------------------------------ YAML


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_yaml_rows_are_mappings(rows_of, suffix):
    text = "- {n: 1, lam: 1e-3}\n- {sizes: [1, 2], flag: yes, most: null}\n- {lam: 2}\n- {}\n"
    assert rows_of(text, f"rows.{suffix}") == [
        {"n": 1, "lam": 0.001},  # YAML reads 1e-3 as text
        {"sizes": [1, 2], "flag": True, "most": None},
        {"lam": 2.0},
        {},
    ]


@pytest.mark.parametrize(
    "content, said",
    [
        ("", "holds no rows"),
        ("[]", "holds no rows"),
        ("n: 1\n", "expected a list of mappings"),
        ("- 1\n- 2\n", "expected a list of mappings"),
        ("text", "expected a list of mappings"),
        ("- {n: [\n", "cannot be read"),
        ("- {[1]: 2}\n", "cannot be read"),
        ("- {mode: !!python/name:os.system x}", "cannot be read"),
        (b"- {mode: \xff}", "cannot be read"),
        ("- {mode: 2024-13-45}", "cannot be read"),  # no day of any month
        ("- {n: 1}\n- {nn: 1}\n", "row 2: unknown parameter 'nn': did you mean n?"),
        ("- {n: 1.0}\n", "row 1: parameter n=1.0 is refused: expected a whole number"),
        ("- {mode: 3}\n", "row 1: parameter mode=3 is refused: expected text"),
        ("- {lam: .inf}\n", "row 1: parameter lam=inf is refused"),
        ("- {1: 2}\n", "row 1: unknown parameter '1'"),
    ],
)
def test_a_wrong_yaml_file_is_refused_with_the_row(complaint, content, said):
    assert said in complaint(content, "rows.yaml")


# ------------------------------------------------------------------ both


def test_every_row_is_combined_with_every_point_of_the_grid():
    rows, points = [{"n": 1}, {}], [{"lam": 0.1}, {"lam": 0.2}]
    assert grid.combine(rows, points) == [
        {"n": 1, "lam": 0.1},
        {"n": 1, "lam": 0.2},
        {"lam": 0.1},
        {"lam": 0.2},
    ]
    assert grid.combine(rows, grid.from_options(KNOWN, [])) == rows


def test_a_parameter_of_both_is_refused():
    with pytest.raises(UsageError, match=r"^n: given by -p and by --params; keep one$"):
        grid.combine([{}, {"n": 1}], [{"n": 2, "lam": 0.1}])


def test_too_many_combinations_are_refused():
    with pytest.raises(UsageError, match="1000000 runs are too many"):
        grid.combine([{"n": 1}] * 1000, [{"lam": 0.1}] * 1000)
