import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from labkit import claim, claims, metric

PAPER = "beyond-l1-sparse-coding-v1"


@pytest.fixture
def shown(monkeypatch):
    """What a claim displays, without a kernel; and a clean slate for the closing summary."""
    things = []
    monkeypatch.setattr(claims, "_show", things.append)
    monkeypatch.setattr(claims, "_made", {})
    return things


def bundle(thing):
    return thing._repr_mimebundle_()


@pytest.mark.parametrize(
    "value, bounds, holds",
    [
        (1, {"at_most": 1}, True),
        (1.0000001, {"at_most": 1}, False),
        (1, {"at_least": 1}, True),
        (0.5, {"at_least": 1}, False),
        (2, {"at_least": 1, "at_most": 3}, True),
        (4, {"at_least": 1, "at_most": 3}, False),
        (0, {"at_least": 1, "at_most": 3}, False),
        (2, {"at_least": 2, "at_most": 2}, True),
    ],
)
def test_a_claim_records_whether_it_holds_and_never_raises(shown, value, bounds, holds):
    assert claim(PAPER, "a statement", value, **bounds, unit="dB") is None
    [made] = shown
    data = bundle(made)[claims.CLAIM_MIME]
    assert list(data) == ["paper", "statement", "value", "at_least", "at_most", "unit", "holds"]
    assert data == {
        "paper": PAPER,
        "statement": "a statement",
        "value": value,
        "at_least": bounds.get("at_least"),
        "at_most": bounds.get("at_most"),
        "unit": "dB",
        "holds": holds,
    }
    assert ("DOES NOT HOLD" in str(made)) is not holds
    assert f'data-holds="{str(holds).lower()}"' in bundle(made)["text/html"]


@pytest.mark.parametrize(
    "value", [np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5), 0.5]
)
def test_any_real_scalar_is_a_value_and_a_bound(shown, value):
    claim(PAPER, "s", value, at_least=value, at_most=value)
    data = asdict(shown[0])
    assert data["holds"] is True
    assert all(type(data[key]) is float for key in ("value", "at_least", "at_most"))


def test_integers_of_numpy_and_torch_are_values(shown):
    for value in (np.int64(3), torch.tensor(3), np.array(3), 3):
        claim(PAPER, "s", value, at_least=3)
    assert [c.value for c in shown] == [3.0] * 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
@pytest.mark.parametrize("place", ["value", "at_least", "at_most"])
def test_nothing_infinite_or_undefined_passes(shown, bad, place):
    given = {"value": 1.0, "at_least": 0.0, "at_most": 2.0} | {place: bad}
    with pytest.raises(ValueError, match=f"{place} must be finite"):
        claim(PAPER, "s", **given)
    assert shown == []


@pytest.mark.parametrize(
    "bad",
    [True, np.bool_(True), torch.tensor(True), "1", None, 1j, [1.0], np.ones(1), torch.ones(2)],
)
def test_a_verdict_or_an_array_is_no_measurement(shown, bad):
    with pytest.raises(TypeError, match="value must be a real number"):
        claim(PAPER, "s", bad, at_most=1)
    assert shown == []


@pytest.mark.parametrize(
    "paper, statement, bounds, said",
    [
        (PAPER, "s", {}, "needs a bound"),
        (PAPER, "s", {"at_least": 2, "at_most": 1}, "exceeds"),
        (PAPER, "  ", {"at_most": 1}, "needs a statement"),
        ("beyond-l1-sparse-coding", "s", {"at_most": 1}, f"did you mean {PAPER}"),
        ("zzz", "s", {"at_most": 1}, "labkit atlas"),
        ("", "s", {"at_most": 1}, "unknown paper"),
    ],
)
def test_an_author_is_told_what_is_wrong(shown, paper, statement, bounds, said):
    with pytest.raises(ValueError, match=said):
        claim(paper, statement, 1.0, **bounds)
    assert shown == []


def test_a_card_shows_text_as_text(shown):
    claim(PAPER, "a < b & <script>", 1, at_most=2, unit="<b>")
    html = bundle(shown[0])["text/html"]
    assert (
        "<script>" not in html
        and "a &lt; b &amp; &lt;script&gt;" in html
        and "<b>1</b>" not in html
    )


def test_the_summary_counts_each_statement_once_by_its_last_value(shown, capsys):
    claim(PAPER, "first", 1, at_most=2)
    claim(PAPER, "second", 1, at_most=2)
    claim(PAPER, "second", 3, at_most=2)
    claims.summary()
    assert capsys.readouterr().out == "1 of 2 claims hold\n  does not hold: second\n"


def test_a_metric_is_a_finite_number_with_a_name(shown):
    metric("speed", np.float32(2))
    assert bundle(shown[0])[claims.METRIC_MIME] == {"name": "speed", "value": 2.0}
    for name, value, error in (
        ("", 1, ValueError),
        ("a", math.nan, ValueError),
        ("a", True, TypeError),
    ):
        with pytest.raises(error):
            metric(name, value)


def test_outside_a_notebook_a_claim_is_a_line_of_text(capsys, monkeypatch):
    monkeypatch.setattr(claims, "_made", {})
    claim(PAPER, "speed", 0.5, at_most=1, unit="s")
    assert capsys.readouterr().out == "[holds] speed: 0.5 s (claimed ≤ 1 s)\n"
