"""Metrics: zero where they should be, and right where the answer is known."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from labkit.diffusion.metrics import (
    DigitFeatures,
    energy_distance,
    frechet_distance,
    frechet_gaussians,
    kid,
    memorisation,
    mode_recall,
    null_band,
    radial_spectrum,
    sliced_wasserstein,
)
from labkit.diffusion.training import digit_images


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, d=4, seed=0, shift=0.0, scale=1.0):
    return shift + scale * torch.randn(n, d, generator=draw(seed), dtype=torch.float64)


def sliced(x, y):
    return sliced_wasserstein(x, y, 32, generator=draw(7))


METRICS = {"energy": energy_distance, "sliced": sliced, "kid": kid, "frechet": frechet_distance}


# ------------------------------------------------------------------ distances


@pytest.mark.parametrize("metric", [energy_distance, kid])
def test_unbiased_distances_of_equal_laws_average_to_zero(metric):
    g = draw()
    values = torch.tensor(
        [
            metric(torch.randn(20, 3, generator=g), torch.randn(30, 3, generator=g))
            for _ in range(400)
        ]
    )
    assert abs(values.mean()) < 4 * values.std() / 20
    assert 0.2 < (values < 0).float().mean() < 0.8


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    "samples",
    [
        normal(200, seed=1, shift=0.4),
        normal(200, seed=1, scale=0.6),
        normal(200, seed=1, scale=1.6),
    ],
    ids=["shift", "too narrow", "too wide"],
)
def test_a_shift_and_a_wrong_spread_leave_the_null_band(metric, samples):
    band = null_band(normal(1000), metric, 200, 30, generator=draw())
    assert metric(samples, normal(200, seed=2)) > band.high
    assert metric(normal(200, seed=3), normal(200, seed=2)) < 2 * band.high


def test_energy_distance_is_that_of_a_loop():
    x, y = normal(5, 2), normal(4, 2, seed=1)

    def mean(a, b, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return np.mean([(a[i] - b[j]).norm().item() for i, j in pairs])

    wanted = 2 * mean(x, y, False) - mean(x, x, True) - mean(y, y, True)
    assert energy_distance(x, y) == pytest.approx(wanted)
    assert energy_distance(y, x) == pytest.approx(wanted)


def test_kid_is_that_of_a_loop():
    x, y = normal(5, 2), normal(4, 2, seed=1)

    def mean(a, b, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return np.mean([((a[i] @ b[j]).item() / 2 + 1) ** 3 for i, j in pairs])

    wanted = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert kid(x, y) == pytest.approx(wanted)


def test_sliced_wasserstein_in_one_dimension_is_wasserstein():
    x, y = normal(50, 1), normal(50, 1, seed=1, shift=2)
    found = sliced_wasserstein(x, y, generator=draw(), p=1)
    assert found == pytest.approx(wasserstein_distance(x.flatten(), y.flatten()))


def test_sliced_wasserstein_of_a_shift_is_known():
    """E (u . m)^2 = |m|^2 / d over directions u."""
    x = normal(100)
    m = torch.tensor([3.0, 0.0, 0.0, 4.0], dtype=torch.float64)
    found = sliced_wasserstein(x, x + m, 20_000, generator=draw())
    assert found == pytest.approx(5 / 2, rel=0.02)


def test_frechet_distance_of_gaussians_is_closed_form():
    a, b, m = torch.tensor([[1, 4, 0], [9, 4, 1], [2, 0, 1]]).double()  # variances; a is singular
    zero = torch.zeros(3)
    wanted = 5 + (a.sqrt() - b.sqrt()).square().sum().item()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=draw()).double()).Q
    turned = [turn @ torch.diag(v) @ turn.T for v in (a, b)]
    assert frechet_gaussians(zero, torch.diag(a), m, torch.diag(b)) == pytest.approx(wanted)
    assert frechet_gaussians(zero, turned[0], m, turned[1]) == pytest.approx(wanted, rel=1e-5)
    assert frechet_gaussians(m, turned[0], m, turned[0]) == pytest.approx(0, abs=1e-5)


def test_frechet_gaussians_where_covariances_do_not_commute():
    from scipy.linalg import sqrtm

    A, B = (normal(9, 3, seed=s).T.cov() for s in (0, 1))
    wanted = (A.trace() + B.trace() - 2 * np.trace(sqrtm((A @ B).numpy()).real)).item()
    zero = torch.zeros(3)
    assert frechet_gaussians(zero, A, zero, B) == pytest.approx(wanted)


def test_frechet_distance_takes_moments_and_falls_with_n():
    small, large = (frechet_distance(normal(n, seed=1), normal(n, seed=2)) for n in (50, 5000))
    assert 0 < large < small / 20


# ------------------------------------------------------------------ modes and copies


def test_mode_recall_counts_modes_that_were_reached():
    means = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    samples = torch.tensor([[0.05, 0.0], [1.0, 0.05], [1.0, -0.05], [0.5, 0.5]])
    assert mode_recall(samples, means, 0.1) == 0.5
    assert mode_recall(samples, means, 0.1, at_least=2) == 0.25
    assert mode_recall(samples, means, 10.0) == 1


def test_memorisation_flags_copies_and_passes_fresh_draws():
    train, held_out, fresh = (normal(400, seed=s) for s in range(3))
    passed = memorisation(fresh, train, held_out)
    assert passed.ratio == pytest.approx(1, abs=0.06)
    assert passed.nearer == pytest.approx(0.5, abs=0.09) and passed.copied < 0.1
    flagged = memorisation(train[:100] + 0.01 * fresh[:100], train, held_out)
    assert flagged.ratio < 0.05 and flagged.nearer > 0.98 and flagged.copied > 0.95
    half = memorisation(torch.cat([train[:200], fresh[:200]]), train, held_out)
    assert half.nearer == pytest.approx(0.75, abs=0.06) and half.copied > 0.5
    assert memorisation(train, train, held_out)[:2] == (0, 1)
    assert memorisation(train, train, train)[:2] == (1, 0.5)


# ------------------------------------------------------------------ null band


def test_the_null_band_holds_what_it_says_and_is_seeded():
    real = normal(2000, 2)
    band = null_band(real, energy_distance, 100, 100, generator=draw(1), level=0.8)
    assert (band.values.ge(band.low) & band.values.le(band.high)).double().mean() == 0.8
    fresh = [
        energy_distance(normal(100, 2, seed=s), normal(100, 2, seed=s + 1))
        for s in range(100, 300, 2)
    ]
    assert 0.65 < np.mean([value in band for value in fresh]) < 0.93
    again = null_band(real, energy_distance, 100, 100, generator=draw(1), level=0.8)
    assert band.values.equal(again.values)


def test_sets_of_a_draw_share_nothing():
    def metric(x, y):
        return len(np.intersect1d(x, y)) + len(x) / 1000

    band = null_band(torch.arange(20.0)[:, None], metric, 10, 5, generator=draw())
    assert band.values.tolist() == [0.01] * 5


# ------------------------------------------------------------------ spectra


def test_white_noise_has_a_flat_spectrum_of_its_variance():
    f, power = radial_spectrum(2 * torch.randn(500, 1, 16, 16, generator=draw()))
    assert f.tolist() == list(range(9))
    torch.testing.assert_close(power, torch.full((9,), 4.0).double(), rtol=0.1, atol=0)


def test_a_wave_stands_at_its_frequency():
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(16) / 16).expand(1, 16, 16)
    for image in (wave, wave.mT):
        _, power = radial_spectrum(image)
        assert power.argmax() == 3 and power[[0, 1, 2, 4, 5, 6, 7, 8]].max() < 1e-9 * power[3]


# ------------------------------------------------------------------ digits


def test_digit_features_read_digits_they_have_not_seen():
    (x, y), (x_, y_) = digit_images(1200, generator=draw())
    judge = DigitFeatures(x, y, generator=draw(1), steps=400)
    assert judge.accuracy(x_, y_) > 0.94
    assert judge(x_).shape == (597, 16) and judge(x_).abs().max() <= 1
    torch.testing.assert_close(judge.probabilities(x_).sum(dim=1), torch.ones(597))
    assert judge(x_).equal(judge(x_[:, 0]))
    assert judge.accuracy(torch.randn(500, 1, 8, 8), torch.arange(500) % 10) < 0.25
    band = null_band(judge(torch.cat([x, x_])), kid, 250, 20, generator=draw())
    one_class = x[y == 3][:250]
    assert kid(judge(one_class), judge(x_[:250])) > 10 * band.high


def test_digit_features_follow_from_the_generator():
    (x, y), _ = digit_images(200, generator=draw())
    state = torch.random.get_rng_state()
    one, same, other = (DigitFeatures(x, y, generator=draw(s), steps=3)(x) for s in (0, 0, 1))
    assert one.equal(same) and not one.equal(other)
    assert torch.random.get_rng_state().equal(state)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(0, 4), ValueError, r"x must be.*\(0, 4\)"),
        (torch.zeros(1, 4), ValueError, r"n >= 2.*\(1, 4\)"),
        (torch.full((9, 4), torch.nan), ValueError, "x must be finite"),
        (torch.zeros(9, 3), ValueError, r"one size.*\(9, 3\).*\(9, 4\)"),
        (torch.zeros(9, 4).long(), TypeError, "floating.*int64"),
        (np.zeros((9, 4)), TypeError, "ndarray"),
    ],
)
def test_bad_sets(metric, bad, error, message):
    with pytest.raises(error, match=message):
        metric(bad, normal(9))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(normal(4), normal(9)), "4 dimensions.*4 and 9"),
        (lambda: frechet_gaussians(*map(torch.zeros, (2, 3, 2, 3))), r"\(d, d\)"),
        (lambda: sliced(normal(9), normal(8)), "equally many.*9 and 8"),
        (lambda: sliced_wasserstein(normal(9), normal(9), 0, generator=draw()), "projections.*0"),
        (lambda: sliced_wasserstein(normal(9), normal(9), generator=draw(), p=3), "p must be.*3"),
        (lambda: memorisation(normal(5), normal(9), normal(8)), "train and held_out.*9 and 8"),
        (lambda: mode_recall(normal(5), normal(3), -1.0), "radius.*-1"),
        (lambda: mode_recall(normal(5), normal(3), 1.0, at_least=0), "at_least.*0"),
        (lambda: null_band(normal(9), kid, 5, generator=draw()), "at most 4.*9.*not 5"),
        (lambda: null_band(normal(9), kid, 4, 1, generator=draw()), "draws.*1"),
        (lambda: null_band(normal(9), kid, 4, level=1.0, generator=draw()), "level.*1"),
        (lambda: radial_spectrum(torch.zeros(3, 4, 5)), r"side, side.*\(3, 4, 5\)"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (torch.zeros(0, 64), torch.zeros(0).long(), ValueError, "N >= 1"),
        (torch.zeros(5, 1, 4, 4), torch.zeros(5).long(), ValueError, r"\(5, 1, 4, 4\)"),
        (torch.zeros(5, 64), torch.zeros(4).long(), ValueError, r"\(5,\).*\(4,\)"),
        (torch.zeros(5, 64), torch.full((5,), 10), ValueError, "0 to 9.*10"),
        (torch.zeros(5, 64), torch.zeros(5), TypeError, "int64.*float32"),
        (torch.full((5, 64), torch.nan), torch.zeros(5).long(), ValueError, "finite"),
    ],
)
def test_bad_digits(images, labels, error, message):
    with pytest.raises(error, match=message):
        partial(DigitFeatures, generator=draw())(images, labels)
