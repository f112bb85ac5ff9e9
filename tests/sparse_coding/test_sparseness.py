"""Measures of sparseness against cases whose value is known."""

import math

import pytest
import torch
from scipy.stats import kurtosis

from labkit.sparse_coding.sparseness import excess_kurtosis, hoyer, treves_rolls, usage_entropy

BOTH = pytest.mark.parametrize("measure", [treves_rolls, hoyer])


@BOTH
def test_one_active_unit_is_one_and_equal_activities_are_zero(measure):
    single = torch.eye(7, dtype=torch.float64)[:1]
    torch.testing.assert_close(measure(single), torch.ones(1, dtype=torch.float64))
    assert measure(torch.full((1, 7), 0.3)).abs() < 1e-6


def test_half_of_the_units_alike():
    r = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    assert float(treves_rolls(r)) == pytest.approx((1 - 0.25 / 0.5) / (1 - 1 / 4))
    assert float(hoyer(r)) == pytest.approx((2 - 2 / math.sqrt(2)) / (2 - 1))


@BOTH
@pytest.mark.parametrize("factor", [-3.0, 1e-30, 1e30])
def test_scale_and_sign_do_not_count(measure, factor):
    r = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(measure(factor * r), measure(r))


def test_lifetime_and_population_sparseness_differ():
    # One neuron does all the work: sparse over neurons, not at all over stimuli.
    r = torch.full((6, 10), 1e-3)
    r[:, 0] = 1
    assert treves_rolls(r, dim=1).min() > 0.95
    assert treves_rolls(r, dim=0).max() < 1e-3


def test_kurtosis_is_that_of_scipy_and_none_for_a_normal_distribution():
    r = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(excess_kurtosis(r), torch.from_numpy(kurtosis(r.numpy(), axis=1)))
    assert excess_kurtosis(r).abs().max() < 0.06


def test_entropy_of_usage():
    assert float(usage_entropy(torch.eye(8))) == pytest.approx(1)
    assert float(usage_entropy(torch.eye(8)[:4])) == pytest.approx(math.log(4) / math.log(8))
    assert float(usage_entropy(torch.eye(8)[:1])) == pytest.approx(0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: treves_rolls(torch.arange(3)), TypeError, "int64"),
        (lambda: treves_rolls(torch.ones(3, 1)), ValueError, "two or more activities"),
        (lambda: hoyer(torch.zeros(2, 3)), ValueError, "all zero"),
        (lambda: hoyer(torch.tensor([1.0, math.nan])), ValueError, "NaN"),
        (lambda: excess_kurtosis(torch.ones(4)), ValueError, "all equal"),
        (lambda: usage_entropy(torch.zeros(2, 3)), ValueError, "active"),
        (lambda: usage_entropy(torch.ones(3)), ValueError, r"\(B, K\)"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
