"""Classifier-free guidance: the formula, its rescaling, what is refused."""

import math

import pytest
import torch

from labkit.diffusion import (
    GaussianMixture,
    edm,
    from_x0,
    generate,
    guided,
    levels_of,
    to_x0,
)

ALPHA, SIGMA = (float(a) for a in levels_of(torch.tensor(-0.4, dtype=torch.float64)))


def fixed(seed):
    """A denoiser that gives the same estimates for any x."""
    x0 = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(seed)).double()
    return lambda x, alpha, sigma: x0 + 0.1 * x


def draw(seed=9):
    return torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.5])
def test_the_formula(weight):
    c, u, x = fixed(0), fixed(1), draw()
    levels = x, ALPHA, SIGMA
    expected = u(*levels) + weight * (c(*levels) - u(*levels))
    torch.testing.assert_close(guided(c, u, weight)(*levels), expected)


@pytest.mark.parametrize("kind", ["x0", "eps", "v", "score", "velocity"])
def test_guidance_is_the_same_for_every_kind_and_rescaling_is_not(kind):
    """Equations 15 and 16 of Lin et al. 2024, written for predictions of that kind."""
    c, u, x, w, phi = fixed(0), fixed(1), draw(), 7.5, 0.7
    pos, neg = (from_x0(kind, d(x, ALPHA, SIGMA), x, ALPHA, SIGMA) for d in (c, u))
    cfg = neg + w * (pos - neg)
    plain = to_x0(kind, cfg, x, ALPHA, SIGMA)
    torch.testing.assert_close(guided(c, u, w)(x, ALPHA, SIGMA), plain)

    rescaled = cfg * pos.std([1, 2, 3], keepdim=True) / cfg.std([1, 2, 3], keepdim=True)
    expected = to_x0(kind, phi * rescaled + (1 - phi) * cfg, x, ALPHA, SIGMA)
    found = guided(c, u, w, phi, prediction=kind)(x, ALPHA, SIGMA)
    torch.testing.assert_close(found, expected)
    if kind != "v":
        assert (found - guided(c, u, w, phi)(x, ALPHA, SIGMA)).abs().max() > 0.1


def test_full_rescaling_gives_back_the_standard_deviation_of_each_sample():
    c, u, x = fixed(0), fixed(1), draw()
    found = from_x0("v", guided(c, u, 7.5, 1.0)(x, ALPHA, SIGMA), x, ALPHA, SIGMA)
    pos = from_x0("v", c(x, ALPHA, SIGMA), x, ALPHA, SIGMA)
    torch.testing.assert_close(
        found.flatten(1).std(dim=1), pos.flatten(1).std(dim=1), rtol=1e-6, atol=0
    )
    # The trap: over the batch too, samples would keep only their common spread.
    naive = 7.5 * (pos - pos.mean()) / pos.std()
    assert naive.flatten(1).std(dim=1).var() > 1e-4


def test_guidance_works_at_zero_terminal_snr():
    found = guided(fixed(0), fixed(1), 3.0, 0.7)(draw(), 0.0, 1.0)
    assert found.isfinite().all()


def test_guidance_of_two_gaussians_is_the_gaussian_of_their_product():
    """At sigma the guided score is w s_c + (1 - w) s_u; of N(m_c, s^2) and N(m_u, s^2), one law of
    mean m_u + w (m_c - m_u), and so are the samples.
    """
    c, u = (
        GaussianMixture(torch.ones(1), torch.tensor([[m]]), stds=torch.tensor([0.5]))
        for m in (1.0, -0.5)
    )
    both = guided(c.denoise, u.denoise, 3.0)
    x = 80 * torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64) + 4.0
    found = generate(both, x, edm().steps(200), "heun")[:, 0]
    expected = 4 + 0.5 * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"unconditional": None}, TypeError, "unconditional one is None"),
        ({"conditional": torch.zeros(3)}, TypeError, "conditional one is tensor"),
        ({"rescale": 1.5}, ValueError, "rescale.*1.5"),
        ({"rescale": math.nan}, ValueError, "rescale.*nan"),
        ({"weight": math.inf}, ValueError, "weight.*inf"),
        ({"prediction": "w"}, ValueError, "prediction.*'w'"),
    ],
)
def test_bad_input_is_named(change, error, message):
    good = {"conditional": fixed(0), "unconditional": fixed(1), "weight": 2.0}
    with pytest.raises(error, match=message):
        guided(**good | change)


def test_rescaling_single_values_is_refused():
    single = guided(lambda x, a, s: x, lambda x, a, s: 2 * x, 2.0, 0.5)
    with pytest.raises(ValueError, match=r"two or more values, not \(4, 1\)"):
        single(torch.randn(4, 1), ALPHA, SIGMA)


def test_rescaling_what_has_no_spread_is_refused():
    # Nothing but noise at alpha = 0: v is minus the mean of the data, here the same in each pixel.
    flat = guided(lambda x, a, s: 0 * x + 0.5, lambda x, a, s: 0 * x + 0.25, 2.0, 0.7)
    with pytest.raises(ValueError, match="standard deviation of the guided v, which is 0 at alpha"):
        flat(torch.randn(3, 1, 4, 4), 0.0, 1.0)
