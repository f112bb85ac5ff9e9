"""Kinds of prediction: definitions, round trips, levels of every shape, what alpha = 0 leaves."""

import pytest
import torch

from labkit.diffusion import PREDICTIONS, expand, from_x0, levels_of, target, to_x0

B = 7


def noisy(alpha, sigma, seed=0):
    x0, eps = torch.randn(2, B, 3, 4, generator=torch.Generator().manual_seed(seed)).double()
    return x0, eps, expand(alpha, x0) * x0 + expand(sigma, x0) * eps


LEVELS = {
    "vp": levels_of(torch.tensor(0.7, dtype=torch.float64)),
    "ve": (1.0, 5.0),
    "flow": (0.3, 0.7),
    "one a sample": levels_of(torch.linspace(-5, 5, B, dtype=torch.float64)),
    "any": (2.0, torch.linspace(0.1, 3, B)),
}


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_target_is_worth_x0(kind, levels):
    x0, eps, x = noisy(*levels)
    output = target(kind, x0, eps, *levels)
    torch.testing.assert_close(to_x0(kind, output, x, *levels), x0, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(from_x0(kind, x0, x, *levels), output, rtol=1e-10, atol=1e-10)


def test_definitions():
    alpha, sigma = 0.6, 0.8
    x0, eps, x = noisy(alpha, sigma)
    expected = {
        "x0": x0,
        "eps": eps,
        "v": alpha * eps - sigma * x0,
        "score": -(x - alpha * x0) / sigma**2,  # gradient of log N(x; alpha x0, sigma^2)
        "velocity": eps - x0,
    }
    for kind in PREDICTIONS:
        torch.testing.assert_close(target(kind, x0, eps, alpha, sigma), expected[kind])
    # The inverse of v as Lin et al. 2024 write it, with sqrt(alpha_bar) and sqrt(1 - alpha_bar).
    v = expected["v"]
    torch.testing.assert_close(to_x0("v", v, x, alpha, sigma), alpha * x - sigma * v)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_kinds_keep_the_dtype(kind):
    x0, eps, x = (value.float() for value in noisy(0.6, 0.8))
    levels = levels_of(torch.linspace(-5, 5, B, dtype=torch.float64))
    assert to_x0(kind, eps, x, *levels).dtype == torch.float32
    assert from_x0(kind, x0, x, *levels).dtype == torch.float32
    assert target(kind, x0, eps, *levels).dtype == torch.float32


@pytest.mark.parametrize("kind", ["eps", "score"])
@pytest.mark.parametrize("alpha", [0.0, torch.linspace(0, 1, B)], ids=["all", "one of them"])
def test_no_signal_left(kind, alpha):
    """The trap: with zero terminal SNR, x0 = (x - sigma eps)/alpha is 0/0, NaN or infinity."""
    x0, eps, x = noisy(alpha, 1.0)
    naive = (x - eps) / expand(alpha, x)
    assert not naive.isfinite().all()
    with pytest.raises(ValueError, match=rf"{kind!r} at alpha = 0.*'v' or 'x0'"):
        to_x0(kind, eps, x, alpha, 1.0)
    for other in ("v", "x0", "velocity"):
        output = target(other, x0, eps, alpha, 1.0)
        torch.testing.assert_close(to_x0(other, output, x, alpha, 1.0), x0)


def test_no_noise_left():
    x0, eps, x = noisy(1.0, 0.0)
    for kind in ("eps", "v", "score", "velocity"):
        with pytest.raises(ValueError, match=f"{kind!r}.*sigma = 0"):
            from_x0(kind, x0, x, 1.0, 0.0)
    assert from_x0("x0", x0, x, 1.0, 0.0).equal(x0)
    with pytest.raises(ValueError, match=r"score.+sigma = 0"):
        target("score", x0, eps, 1.0, 0.0)
    for kind in ("eps", "v", "velocity"):
        torch.testing.assert_close(to_x0(kind, target(kind, x0, eps, 1.0, 0.0), x, 1.0, 0.0), x0)


def test_expand():
    x = torch.zeros(B, 3, 4)
    assert expand(0.5, x).shape == () and expand(torch.tensor(1), x).dtype == torch.float32
    assert expand(torch.ones(B).double(), x).shape == (B, 1, 1)
    assert expand(torch.ones(B), torch.zeros(B)).shape == (B,)


@pytest.mark.parametrize("a", [torch.ones(B + 1), torch.ones(B, 1), torch.ones(3, 4)])
def test_levels_of_another_shape_are_refused(a):
    """(3, 4) would broadcast over x (B, 3, 4), one level a pixel."""
    with pytest.raises(ValueError, match=r"\(B,\) = \(7,\)"):
        expand(a, torch.zeros(B, 3, 4))


@pytest.mark.parametrize("kind", ["epsilon", "X0", None])
def test_unknown_kinds_are_refused(kind):
    x = torch.zeros(B, 2)
    for call in (to_x0, from_x0, target):
        with pytest.raises(ValueError, match=f"x0, eps, v, score, velocity, not {kind!r}"):
            call(kind, x, x, 0.5, 0.5)
    with pytest.raises(ValueError, match="did you mean 'velocity'"):
        to_x0("velocty", x, x, 0.5, 0.5)
