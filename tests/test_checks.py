"""Checks of arguments: the value, why, and what is accepted."""

from math import nan

import pytest

from labkit.checks import check_count, check_positive, check_ranges


def test_ranges_include_their_ends():
    check_ranges({"steps": 20, "share": 0.5, "other": -1}, steps=(20, 30), share=(0, 0.5))


@pytest.mark.parametrize("value", [19, 31, nan])
def test_a_value_outside_its_range_is_named_with_the_range(value):
    with pytest.raises(ValueError, match=f"^steps must lie from 20 to 30, not {value}$"):
        check_ranges({"steps": value}, steps=(20, 30))


def test_a_range_of_an_unknown_parameter_is_the_authors_mistake():
    with pytest.raises(KeyError, match="step"):
        check_ranges({"steps": 20}, step=(20, 30))


@pytest.mark.parametrize("value", [0, 1.0, True, "1"])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(ValueError, match=r"^n must be a whole number of at least 1, not "):
        check_count(n=value)


@pytest.mark.parametrize("value", [0, -1.0, nan, float("inf")])
def test_positive_is_finite_too(value):
    with pytest.raises(ValueError, match=r"^rate must be positive and finite, not "):
        check_positive(rate=value)
