"""Samplers against the exact flow: errors, orders, laws, and input that is refused."""

import math
from itertools import pairwise

import pytest
import torch

from labkit.diffusion import (
    METHODS,
    FiniteData,
    GaussianField,
    GaussianMixture,
    cosine,
    edm,
    flow,
    generate,
    linear_beta,
    sample,
    stable_diffusion,
    zero_terminal,
)

DETERMINISTIC = ("ddim", "euler", "heun", "midpoint", "dpmpp_2m")


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=draw(seed), dtype=torch.float64)


def normal_quantiles(n):
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)


# ------------------------------------------------------------------ errors and orders

DATA = GaussianMixture([0.3, 0.7], [[-1.0], [0.8]], stds=[0.2, 0.1])
STEPS = (16, 32, 64, 128, 256)


def quantile_errors(schedule, method, n_samples=2000):
    """Mean |x - F^{-1}(Phi(z))| for every number of steps, from the exact law of the start."""
    z = normal_quantiles(n_samples)
    exact = DATA.quantile_map(z)
    errors = []
    for n in STEPS:
        alphas, sigmas = schedule.steps(n)
        x = DATA.quantile_map(z, float(alphas[0]), float(sigmas[0]))[:, None]
        found = generate(DATA.denoise, x, (alphas, sigmas), method)[:, 0]
        errors.append(float((found - exact).abs().mean()))
    return errors


def order(errors):
    """Slope of log error against log steps, from 32 steps on."""
    x = torch.tensor(STEPS[1:]).double().log()
    y = torch.tensor(errors[1:]).double().log()
    return -float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@pytest.mark.parametrize(
    ("schedule", "method", "expected", "orders"),
    [
        (edm(), "euler", (0.0622, 0.0298, 0.0146, 0.0072, 0.0036), (0.85, 1.15)),
        (edm(), "heun", (0.0236, 0.0046, 0.0009, 0.00021, 4.9e-5), (1.8, 2.4)),
        (edm(), "midpoint", None, (1.8, 2.4)),
        (edm(), "dpmpp_2m", None, (1.8, 2.4)),
        (flow(), "euler", (0.0309, 0.0159, 0.0081, 0.0041, 0.0022), (0.85, 1.15)),
        (flow(), "midpoint", (8.0e-4, 2.4e-4, 6.9e-5, 1.9e-5, 5e-6), (1.8, 2.4)),
        (flow(), "heun", None, (1.8, 2.4)),
        (flow(), "dpmpp_2m", None, (0.9, 1.5)),  # its steps in log(alpha/sigma) do not shrink
        (cosine(), "euler", None, (0.85, 1.15)),
        (cosine(), "heun", None, (1.8, 2.4)),
    ],
)
def test_samplers_converge_to_the_quantile_map(schedule, method, expected, orders):
    """expected: an independent implementation in NumPy, to the digits that it was noted with."""
    errors = quantile_errors(schedule, method)
    if expected is not None:
        for found, reference in zip(errors, expected, strict=True):
            assert found == pytest.approx(reference, rel=0.05), (errors, expected)
    assert orders[0] < order(errors) < orders[1], errors


@pytest.mark.parametrize("method", DETERMINISTIC)
@pytest.mark.parametrize(
    "schedule", [edm(), flow(), cosine(), zero_terminal(stable_diffusion())], ids=lambda s: s.name
)
def test_every_method_on_every_process_leads_to_the_same_map(schedule, method):
    """One flow: alpha and sigma only say at which pace and scale it is walked."""
    z = normal_quantiles(100)
    levels = schedule.steps(200)
    x = DATA.quantile_map(z, float(levels[0][0]), float(levels[1][0]))[:, None]
    found = generate(DATA.denoise, x, levels, method)[:, 0]
    assert (found - DATA.quantile_map(z)).abs().mean() < 0.02


@pytest.mark.parametrize("method", [*DETERMINISTIC, "ancestral"])
@pytest.mark.parametrize(
    "levels",
    [edm().steps(40), flow().steps(40), cosine().steps(40), linear_beta().steps(40, "linspace")],
    ids=["EDM", "flow", "cosine", "linear beta"],
)
def test_finite_data_come_back(levels, method):
    """The denoiser that knows only training points returns them: memorisation.

    Of the discrete schedule to its first step, sigma = 0.01. The last of 40 trailing steps starts
    at sigma = 0.1, where the estimate is still a mean of points that lie so near each other.
    """
    points = randn(6, 2, seed=1)
    x = float(levels[1][0]) * randn(50, 2)
    found = generate(FiniteData(points).denoise, x, levels, method, generator=draw())
    nearest = torch.cdist(found, points)
    assert nearest.amin(dim=1).max() < 1e-6
    assert len(nearest.argmin(dim=1).unique()) == len(points)


def test_one_euler_step_has_three_names():
    """DDIM as published, EDM's Euler, and deblending: x' = alpha' x0 + sigma' eps."""
    x = randn(5, 1)
    levels = cosine().steps(10)
    ddim = generate(DATA.denoise, x, levels)
    y = x
    for (a, s), (a_, s_) in pairwise(zip(*levels, strict=True)):
        x0 = DATA.denoise(y, a, s)
        y = a_ * x0 + s_ * (y - a * x0) / s
    torch.testing.assert_close(ddim, y)

    y = 80 * x
    for s, s_ in pairwise(edm().steps(10)[1]):
        y = y + (s_ - s) * (y - DATA.denoise(y, 1.0, s)) / s
    torch.testing.assert_close(generate(DATA.denoise, 80 * x, edm().steps(10), "euler"), y)

    y = x  # alpha of the paper is 1 - t; its D is E[x1 - x0], from noise x0 to data x1
    for t, t_ in pairwise(torch.linspace(1, 0, 11, dtype=torch.float64)):
        data = DATA.denoise(y, 1 - t, t)
        y = y + (t - t_) * (data - (y - (1 - t) * data) / t)
    torch.testing.assert_close(generate(DATA.denoise, x, flow().steps(10)), y)


@pytest.mark.parametrize(("method", "calls"), [
    ("ddim", 8), ("ancestral", 8), ("dpmpp_2m", 8), ("heun", 15), ("midpoint", 16)
])  # fmt: skip
def test_calls_of_the_denoiser(method, calls):
    seen = []

    def denoise(x, alpha, sigma):
        assert isinstance(alpha, float) and isinstance(sigma, float) and sigma > 0
        assert not torch.is_grad_enabled()
        seen.append(sigma)
        return DATA.denoise(x, alpha, sigma)

    generate(denoise, randn(3, 1), cosine().steps(8), method, generator=draw())
    assert len(seen) == calls


# ------------------------------------------------------------------ noise on the way


@pytest.mark.parametrize("schedule", [edm(), flow(), cosine()], ids=lambda s: s.name)
def test_ancestral_sampling_of_a_gaussian_has_its_law(schedule):
    """The mean and the variance of x obey two recursions; the law is that of the data in the limit
    of many steps. Checked on the recursions, without draws.
    """
    mu, s = 1.5, 0.6
    data = GaussianMixture([1.0], [[mu]], stds=[s])
    errors = []
    for n in (100, 400):
        alphas, sigmas = (v.tolist() for v in schedule.steps(n))
        mean, variance = alphas[0] * mu, (alphas[0] * s) ** 2 + sigmas[0] ** 2
        for i in range(n):
            levels = alphas[i : i + 2], sigmas[i : i + 2]
            mean, slope, noise = affine_step(data, levels, mean)
            variance = slope**2 * variance + noise**2
        assert mean == pytest.approx(mu, abs=1e-6)
        errors.append(abs(variance - s**2) / s**2)
    assert errors[1] < 0.05 and errors[1] < 0.4 * errors[0]


def affine_step(data, levels, mean):
    """Where one ancestral step leads from `mean`; its slope; the deviation of its noise."""
    (alpha, alpha_), (sigma, sigma_) = levels
    x = torch.tensor([[mean], [mean + 1]], dtype=torch.float64)
    (d, d1) = data.denoise(x, alpha, sigma)[:, 0].tolist()
    variance = (sigma_ / sigma) ** 2 * (sigma**2 - (alpha / alpha_ * sigma_) ** 2)
    kept = math.sqrt(max(0.0, sigma_**2 - variance))
    slope = alpha_ * (d1 - d) + kept / sigma * (1 - alpha * (d1 - d))
    return alpha_ * d + kept / sigma * (mean - alpha * d), slope, math.sqrt(max(0.0, variance))


@pytest.mark.parametrize("schedule", [edm(), flow(), cosine()], ids=lambda s: s.name)
def test_draws_of_ancestral_sampling_have_the_law_of_the_data(schedule):
    n, mu, s = 10_000, 1.5, 0.6
    data = GaussianMixture([1.0], [[mu]], stds=[s])
    levels = schedule.steps(200)
    alpha, sigma = float(levels[0][0]), float(levels[1][0])
    x = alpha * mu + math.sqrt(alpha**2 * s**2 + sigma**2) * randn(n, 1)
    found = generate(data.denoise, x, levels, "ancestral", generator=draw(1))
    assert found.mean().item() == pytest.approx(mu, abs=5 * s / n**0.5)
    assert found.std().item() == pytest.approx(s, rel=0.06)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(
    "levels",
    [((0.6, 0.8, 1.0), (0.8, 0.6, 0.0)), ((1, 1, 1), (3, 2, 0)), ((0.0, 0.6, 1), (1.0, 0.8, 0))],
    ids=["vp", "ve", "from no signal"],
)
def test_noise_of_ddim(eta, levels):
    """Variance eta^2 var, var = sigma'^2/sigma^2 (sigma^2 - (alpha/alpha')^2 sigma'^2).

    The traps, both in released code: eta var, and noise times the variance instead of its root.
    """
    (alpha, alpha_, _), (sigma, sigma_, _) = levels
    x, x0, n = 0.7, 0.2, 200_000
    states = sample(
        lambda x, a, s: torch.full_like(x, x0),
        torch.full((n, 1), x, dtype=torch.float64),
        levels,
        eta=eta,
        generator=draw(),
    )
    found = [state.x for state in states][1]
    posterior = (sigma_ / sigma) ** 2 * (sigma**2 - (alpha / alpha_ * sigma_) ** 2)
    variance = eta**2 * posterior
    eps = (x - alpha * x0) / sigma
    mean = alpha_ * x0 + math.sqrt(sigma_**2 - variance) * eps
    assert found.mean().item() == pytest.approx(mean, abs=5 * sigma_ / n**0.5)
    assert found.var().item() == pytest.approx(variance, rel=0.02, abs=1e-12)
    if 0 < eta < 1:
        assert found.var().item() != pytest.approx(eta * posterior, rel=0.05)
        assert found.var().item() != pytest.approx(variance**2, rel=0.05)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_noise_keeps_the_marginal_whatever_eta(eta):
    """Song et al. 2021: with the true x0 in place of its estimate, x stays alpha x0 + sigma eps."""
    n = 100_000
    levels = cosine().steps(5)
    x0 = torch.full((n, 1), 0.4, dtype=torch.float64)
    states = sample(lambda x, a, s: x0, randn(n, 1), levels, eta=eta, generator=draw(1))
    for state in list(states)[1:-1]:
        residual = (state.x - state.alpha * x0) / state.sigma
        assert residual.mean().item() == pytest.approx(0, abs=0.016)
        assert residual.var().item() == pytest.approx(1, abs=0.023)


def test_draws_follow_the_generator():
    run = [
        generate(DATA.denoise, randn(9, 1), cosine().steps(9), "ddim", 0.5, draw(seed))
        for seed in (0, 0, 1)
    ]
    assert run[0].equal(run[1]) and not run[0].equal(run[2])


def test_brightness_of_images_from_signal_left_at_the_end():
    """Lin et al. 2024: what Stable Diffusion's schedule does to the brightness of large images. The
    sampler is linear: its gain at frequency 0 is read from two images.
    """
    side, gains = 64, []
    spectrum = torch.ones(side, side, dtype=torch.float64)
    S = side * 0.5
    spectrum[0, 0] = S**2
    data = GaussianField(spectrum)
    x = torch.stack([torch.zeros(side, side), torch.ones(side, side) / side]).double()
    for schedule in (stable_diffusion(), zero_terminal(stable_diffusion())):
        found = generate(data.denoise, x, schedule.steps(200))
        gains.append(float((found[1] - found[0]).sum()) / side / S)
    abar = float(stable_diffusion().alpha_bar[-1])
    assert gains[0] == pytest.approx(1 / math.sqrt(abar * S**2 + 1 - abar), abs=0.005)
    assert gains[0] == pytest.approx(0.416, abs=0.005) and gains[1] == pytest.approx(
        0.968, abs=0.01
    )


# ------------------------------------------------------------------ states


@pytest.mark.parametrize("method", METHODS)
def test_states(method):
    levels = cosine().steps(6)
    x = randn(4, 1)
    states = list(sample(DATA.denoise, x, levels, method, generator=draw()))
    assert [state.step for state in states] == list(range(7))
    assert {state.n_steps for state in states} == {6}
    assert [state.alpha for state in states] == levels[0].tolist()
    assert [state.sigma for state in states] == levels[1].tolist()
    assert states[0].x is x and states[-1].x0 is states[-1].x
    for state in states[:-1]:
        assert state.x0.equal(DATA.denoise(state.x, state.alpha, state.sigma))
    assert generate(DATA.denoise, x, levels, method, generator=draw()).equal(states[-1].x)


def test_gradients_of_the_reader_stay_on():
    for _ in sample(DATA.denoise, randn(4, 1), cosine().steps(3)):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("method", METHODS)
def test_x_keeps_its_dtype_and_its_values(method):
    x = randn(4, 1).float()
    before = x.clone()
    found = generate(DATA.denoise, x, cosine().steps(6), method, generator=draw())
    assert found.dtype == torch.float32 and x.equal(before)
    half = generate(DATA.denoise, x.bfloat16(), cosine().steps(6), method, generator=draw())
    assert half.dtype == torch.bfloat16


def test_batches_do_not_matter():
    x = randn(7, 1)
    together = generate(DATA.denoise, x, edm().steps(9), "dpmpp_2m")
    alone = [generate(DATA.denoise, x_, edm().steps(9), "dpmpp_2m") for x_ in x.split(1)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert generate(DATA.denoise, x[:0], edm().steps(9)).shape == (0, 1)


def test_progress(capfd):
    generate(DATA.denoise, randn(2, 1), cosine().steps(3), progress=True)
    assert "ddim" in capfd.readouterr().err
    generate(DATA.denoise, randn(2, 1), cosine().steps(3))
    assert not capfd.readouterr().err


# ------------------------------------------------------------------ bad input

LEVELS = ((0.0, 0.6, 1.0), (1.0, 0.8, 0.0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "heum"}, ValueError, "'heum'; did you mean 'heun'"),
        ({"method": "rk45"}, ValueError, "ddim, euler, ancestral, heun, midpoint, dpmpp_2m"),
        ({"method": None}, ValueError, "not None"),
        ({"eta": 1.5}, ValueError, "eta.*1.5"),
        ({"eta": math.nan}, ValueError, "eta.*nan"),
        ({"eta": 0.5, "method": "heun"}, ValueError, "'heun' adds no noise.*0.5"),
        ({"eta": 0.5}, ValueError, "needs a generator"),
        ({"method": "ancestral"}, ValueError, "'ancestral'.*needs a generator"),
        ({"denoise": None}, TypeError, "denoise.*NoneType"),
        ({"x": torch.zeros(4, 1).long()}, TypeError, "x must be a floating tensor.*int64"),
        ({"x": [[0.0]]}, TypeError, "x must be.*list"),
        ({"x": torch.tensor([[0.0], [math.nan]])}, ValueError, "x must be finite.*nan"),
        ({"levels": ((1.0,), (0.0,))}, ValueError, r"n >= 1.*\(1,\)"),
        ({"levels": ((), ())}, ValueError, r"n >= 1.*\(0,\)"),
        ({"levels": ((0.0, 1.0), (1.0, 0.5, 0.0))}, ValueError, r"\(2,\) and \(3,\)"),
        ({"levels": torch.ones(3)}, TypeError, "levels must be a pair"),
        ({"levels": 50}, TypeError, "levels must be a pair"),
        ({"levels": (("a", "b"), (1.0, 0.0))}, TypeError, "levels must be a pair"),
        ({"levels": ((0.0, math.nan, 1), (1.0, 0.5, 0.0))}, ValueError, "level 1 is nan"),
        ({"levels": ((1, 1), (math.inf, 0))}, ValueError, "level 0 is 1.0, inf"),
        ({"levels": ((-0.1, 1), (1, 0))}, ValueError, "not negative; level 0 is -0.1"),
        ({"levels": ((1, 1, 1), (2, 2, 0))}, ValueError, "must decrease.*0 to 1.*2/1 to 2/1"),
        ({"levels": ((1, 0.6, 0), (0, 0.8, 1))}, ValueError, "must decrease.*0 to 1"),
        ({"levels": ((1, 1), (2, 0.5))}, ValueError, "last level must be clean.*0.5"),
        ({"levels": ((0.0, 0.5), (1, 0))}, ValueError, "last level must be clean.*0.5"),
    ],
)  # fmt: skip
def test_bad_input_is_named_before_anything_runs(change, error, message):
    good = {"denoise": lambda x, a, s: 1 / 0, "x": torch.zeros(4, 1), "levels": LEVELS}
    with pytest.raises(error, match=message):
        sample(**good | change)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_estimates_that_are_not_finite_are_named(method, bad):
    def denoise(x, alpha, sigma):
        return torch.where(torch.tensor(sigma > 0.9), x, bad)

    with pytest.raises(
        ValueError, match=r"estimate of denoise at alpha = 0\.\d+, sigma = .*finite"
    ):
        generate(denoise, torch.ones(4, 1), cosine().steps(8), method, generator=draw())


def test_estimates_of_another_shape_or_kind_are_named():
    with pytest.raises(ValueError, match=r"estimates \(4, 1\) as x is, not \(4,\)"):
        generate(lambda x, a, s: x[:, 0], torch.ones(4, 1), LEVELS)
    with pytest.raises(TypeError, match="must return a tensor, not tuple"):
        generate(lambda x, a, s: (x, x), torch.ones(4, 1), LEVELS)
