"""Checks of arguments: the value, why, and what is accepted."""

import re
from math import nan

import pytest
import torch

from labkit.checks import (
    check_broadcasts,
    check_choice,
    check_count,
    check_positive,
    check_ranges,
)


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


@pytest.mark.parametrize("value", ["apple", None])
def test_a_choice_is_one_of_the_known(value):
    check_choice("fruit", value, ("apple", "pear", None))


@pytest.mark.parametrize(
    "value, said",
    [
        ("aple", "'aple'; did you mean 'apple'?"),
        ("zzz", "'zzz'"),
        (3, "3"),
        (["apple"], "['apple']; did you mean 'apple'?"),
    ],
)
def test_another_choice_is_named_with_the_known_and_the_nearest(value, said):
    known = {"apple": 1, "pear": 2}  # no list is a key of it, which must not matter
    message = re.escape(f"fruit must be one of apple, pear, not {said}")
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_choice("fruit", value, known)


@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (4, 1), (3,), ()])
def test_a_shape_that_broadcasts(shape):
    check_broadcasts("mask", torch.ones(shape), "x", (4, 3))


@pytest.mark.parametrize("shape", [(3, 4), (2,), (0,), (1, 4, 3), (2, 4, 3)])
def test_a_shape_that_does_not_broadcast_or_adds_an_axis(shape):
    message = re.escape(f"mask must broadcast to x (4, 3), not {shape}")
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_broadcasts("mask", torch.ones(shape), "x", (4, 3))
