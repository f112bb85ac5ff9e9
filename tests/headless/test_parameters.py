import numpy as np
import pytest

from labkit.headless import parameters
from labkit.headless.usage import UsageError

CELL = """
from typing import Literal
n: int = 3  # how many
lam: float = 1  # penalty # twice
mode: str = "a # b"  # text
flag: bool = False
sizes: list[int] = [
    8,
    -12,
]  # patch sizes
grid: list[float] = [0.1]
table: dict[str, float] = {"a": 1}
free: dict = {}
most: float | None = None
rule: Literal["soft", "hard"] = "soft"
mixed: int | str = 1
plain = 0.5
"""
KNOWN = parameters.declared(CELL)


def value(pair: str):
    [(_, got)] = parameters.from_text(KNOWN, [pair]).items()
    return got


def test_declared_reads_types_defaults_and_help():
    by_name = {p.name: p for p in KNOWN}
    assert list(by_name)[:3] == ["n", "lam", "mode"]
    assert (by_name["n"].type, by_name["n"].default, by_name["n"].help) == ("int", 3, "how many")
    assert by_name["lam"].help == "penalty # twice"
    assert by_name["lam"].default == 1.0 and isinstance(by_name["lam"].default, float)
    assert (by_name["mode"].default, by_name["mode"].help) == ("a # b", "text")
    assert (by_name["sizes"].default, by_name["sizes"].help) == ([8, -12], "patch sizes")
    assert (by_name["plain"].type, by_name["flag"].help) == ("float", "")


@pytest.mark.parametrize(
    "cell, said",
    [
        ("n: int = 2 * 3", "n is computed"),
        ("n: int = 2\nm = n", "m is computed"),
        ("n: int", "no assignment"),
        ("n: int = 'x'", "no int"),
        ("n: int = True", "no int"),
        ("lam: float = 1e999", "not a finite"),
        ("n: tuple[int, int] = (1, 2)", "not supported"),
        ("x = None", "not supported"),
        ("%matplotlib inline", "not plain Python"),
        ("print(1)", "no assignment"),
    ],
)
def test_declared_refuses_what_papermill_would_get_wrong(cell, said):
    with pytest.raises(UsageError, match=said):
        parameters.declared(cell)


@pytest.mark.parametrize(
    "pair, expected",
    [
        ("n=-7", -7),
        ("lam=2", 2.0),
        ("lam=-1e-3", -1e-3),
        ("mode=", ""),
        ("mode=x=y # z", "x=y # z"),
        ("mode=None", "None"),
        ("flag=True", True),
        ("flag=false", False),
        ("sizes=[1, 2]", [1, 2]),
        ("sizes=[]", []),
        ("grid=[1, 2.5]", [1.0, 2.5]),
        ("table={'x': 2}", {"x": 2.0}),
        ("free={1: [None, 'x']}", {1: [None, "x"]}),
        ("most=None", None),
        ("most=3", 3.0),
        ("rule=hard", "hard"),
        ("mixed=4", 4),
        ("mixed=four", "four"),
    ],
)
def test_texts_become_plain_values_of_the_declared_type(pair, expected):
    got = value(pair)
    assert got == expected and type(got) is type(expected)
    if isinstance(got, list):
        assert [type(x) for x in got] == [type(x) for x in expected]


@pytest.mark.parametrize(
    "pair, said",
    [
        ("n=3.0", "whole number"),
        ("n=true", "whole number"),
        ("n=0:3", "; several values: `labkit sweep`"),
        ("lam=0.1,0.2", "; several values: `labkit sweep`"),
        ("n=", "whole number"),
        ("lam=nan", "not a finite number"),
        ("lam=-inf", "not a finite number"),
        ("lam=1e999", "not a finite number"),
        ("lam=x", "finite number"),
        ("flag=1", "true or false"),
        ("sizes=3", "a list"),
        ("sizes=[1, 2.5]", "element 2: expected a whole number"),
        ("sizes=[True]", "element 1"),
        ("sizes=(1, 2)", "a list"),
        ("sizes=[1", "a list"),
        ("grid=[1e999]", "element 1: inf"),
        ("table={'a': 'b'}", "the value of 'a'"),
        ("table={1: 2}", "a key"),
        ("free={'a': {1, 2}}", "expected"),
        ("most=x", "a finite number or None"),
        ("rule=half", "'soft', 'hard'"),
    ],
)
def test_a_wrong_value_is_refused_with_the_reason_and_the_declaration(pair, said):
    name, _, text = pair.partition("=")
    with pytest.raises(UsageError) as caught:
        parameters.from_text(KNOWN, [pair])
    message = str(caught.value)
    declared = next(p for p in KNOWN if p.name == name)
    assert said in message and f"{name}={text}" in message
    assert f"{name}: {declared.type} = {declared.default!r}" in message


@pytest.mark.parametrize("pair", ["lam", "=3", "", "="])
def test_a_malformed_pair_is_named(pair):
    with pytest.raises(UsageError, match="no pair") as caught:
        parameters.from_text(KNOWN, [pair])
    assert repr(pair) in str(caught.value) and "n: int = 3" in str(caught.value)


def test_an_unknown_name_brings_the_nearest_and_all_known():
    with pytest.raises(UsageError, match="did you mean lam") as caught:
        parameters.from_text(KNOWN, ["lamb=3"])
    assert all(f"{p.name}: " in str(caught.value) for p in KNOWN)
    with pytest.raises(UsageError, match="declares no parameters"):
        parameters.from_text([], ["n=3"])


def test_a_repeated_name_is_refused():
    with pytest.raises(UsageError, match="n is given twice"):
        parameters.from_text(KNOWN, ["n=3", "n=3"])


def test_check_turns_numpy_scalars_plain_and_refuses_other_types():
    given = {
        "n": np.int64(4),
        "lam": np.float32(0.5),
        "sizes": [np.int8(1)],
        "flag": np.bool_(True),
    }
    got = parameters.check(KNOWN, given)
    assert got == {"n": 4, "lam": 0.5, "sizes": [1], "flag": True}
    assert [type(v) for v in got.values()] == [int, float, list, bool]
    assert type(got["sizes"][0]) is int
    for wrong in ({"n": 4.0}, {"n": True}, {"lam": float("nan")}, {"sizes": (1,)}, {"lambda_": 1}):
        with pytest.raises(UsageError):
            parameters.check(KNOWN, wrong)
