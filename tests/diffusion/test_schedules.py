"""Schedules: closed forms, ends, steps, what transforms keep, densities of lambda."""

import math

import pytest
import torch
from scipy import stats

from labkit.diffusion import (
    GaussianMixture,
    Schedule,
    cauchy,
    cauchy_density,
    cosine,
    cosine_beta,
    cosine_density,
    cosine_gamma,
    edm,
    edm_density,
    flow,
    from_betas,
    from_table,
    generate,
    laplace,
    laplace_density,
    levels_of,
    linear_beta,
    linear_gamma,
    shifted,
    sigmoid_gamma,
    stable_diffusion,
    timesteps,
    zero_terminal,
)

T_INSIDE = torch.linspace(0.01, 0.99, 98, dtype=torch.float64)
DISCRETE = [linear_beta(), stable_diffusion(), cosine_beta(), zero_terminal(stable_diffusion())]
CONTINUOUS = [
    cosine(),
    cosine(shift=-2.0, scale=0.5),
    laplace(),
    cauchy(),
    edm(),
    flow(),
    linear_gamma(),
    cosine_gamma(),
    cosine_gamma(0.2, 1, 2.0),
    sigmoid_gamma(),
    sigmoid_gamma(tau=0.3),
    shifted(flow(), -1.0),
]


def names(schedules):
    return [schedule.name for schedule in schedules]


# ------------------------------------------------------------------ alpha and sigma


@pytest.mark.parametrize("process", ["vp", "ve", "flow"])
def test_levels_keep_their_sum_and_their_ratio(process):
    logsnr = torch.linspace(-60, 60, 241, dtype=torch.float64)
    alpha, sigma = levels_of(logsnr, process)
    torch.testing.assert_close(2 * (alpha.log() - sigma.log()), logsnr, rtol=1e-12, atol=1e-12)
    total = {"vp": alpha**2 + sigma**2, "ve": alpha, "flow": alpha + sigma}[process]
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-15, atol=0)


@pytest.mark.parametrize("process", ["vp", "flow"])
def test_infinite_ratios_are_clean_and_pure_noise(process):
    alpha, sigma = levels_of(torch.tensor([math.inf, -math.inf], dtype=torch.float64), process)
    assert alpha.tolist() == [1, 0] and sigma.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("schedule", "alpha_squared"),
    [
        (cosine(), lambda t: (math.pi / 2 * t).cos() ** 2),
        (linear_gamma(), lambda t: 1 - t),
        (cosine_gamma(), lambda t: (math.pi / 2 * t).cos() ** 2),
        (sigmoid_gamma(-3, 3, 0.9), lambda t: chen_sigmoid(t, -3, 3, 0.9)),
        (cosine_gamma(0.2, 1, 2), lambda t: chen_cosine(t, 0.2, 1, 2)),
        (flow(), lambda t: (1 - t) ** 2),
    ],
)
def test_closed_forms(schedule, alpha_squared):
    alpha, sigma = schedule(T_INSIDE)
    torch.testing.assert_close(alpha**2, alpha_squared(T_INSIDE), rtol=1e-10, atol=1e-12)
    if schedule.process == "flow":
        torch.testing.assert_close(sigma, T_INSIDE)


def chen_cosine(t, start, end, tau):
    """Chen 2023, algorithm 1."""
    v_start = math.cos(start * math.pi / 2) ** (2 * tau)
    v_end = math.cos(end * math.pi / 2) ** (2 * tau)
    output = ((t * (end - start) + start) * math.pi / 2).cos() ** (2 * tau)
    return ((v_end - output) / (v_end - v_start)).clamp(1e-9, 1)


def chen_sigmoid(t, start, end, tau):
    v_start, v_end = (1 / (1 + math.exp(-v / tau)) for v in (start, end))
    output = ((t * (end - start) + start) / tau).sigmoid()
    return ((v_end - output) / (v_end - v_start)).clamp(1e-9, 1)


def test_chen_schedules_stop_at_their_floor():
    for schedule in (linear_gamma(), cosine_gamma(), sigmoid_gamma()):
        alpha, sigma = schedule(torch.tensor([0.0, 1.0]))
        torch.testing.assert_close(alpha**2, torch.tensor([1, 1e-9], dtype=torch.float64))
        assert sigma[0] == 0


def test_betas():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(linear_beta().alpha_bar, (1 - betas).cumprod(0), rtol=1e-12, atol=0)
    # The signal-to-noise ratios that Lin et al. list in table 1.
    last = {"SD": stable_diffusion(), "linear": linear_beta(), "cosine": cosine_beta()}
    ratios = {name: float(s.table[-1].exp()) for name, s in last.items()}
    assert ratios["SD"] == pytest.approx(0.004682, rel=1e-3)
    assert ratios["linear"] == pytest.approx(4.04e-5, rel=1e-2)
    assert ratios["cosine"] == pytest.approx(2.43e-9, rel=1e-2)


@pytest.mark.parametrize("schedule", DISCRETE + CONTINUOUS, ids=names(DISCRETE + CONTINUOUS))
def test_noise_grows(schedule):
    logsnr = schedule.logsnr(torch.linspace(0, 1, 501, dtype=torch.float64))
    assert not logsnr.isnan().any()
    assert (logsnr.diff()[1:-1] <= 0).all()
    alpha, sigma = schedule(0.5)
    assert alpha.dtype == sigma.dtype == torch.float64 and alpha.shape == ()


def test_uniform_t_draws_every_discrete_step_equally():
    schedule = linear_beta(T=10)
    t = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    _, counts = schedule.logsnr(t).unique(return_counts=True)
    assert counts.tolist() == [100] * 10
    i = torch.arange(1, 11, dtype=torch.float64)
    assert schedule.logsnr(i / 10).equal(schedule.table)
    assert schedule(0.0)[1] == 0


# ------------------------------------------------------------------ steps


@pytest.mark.parametrize("n", [1, 2, 17])
@pytest.mark.parametrize("schedule", DISCRETE + CONTINUOUS, ids=names(DISCRETE + CONTINUOUS))
def test_steps_run_from_the_noisiest_level_to_the_clean_one(schedule, n):
    alphas, sigmas = schedule.steps(n)
    assert alphas.shape == sigmas.shape == (n + 1,)
    assert alphas.dtype == sigmas.dtype == torch.float64
    assert (alphas[-1], sigmas[-1]) == (1, 0)
    first = schedule(1.0)
    torch.testing.assert_close(alphas[0], first[0])
    torch.testing.assert_close(sigmas[0], first[1])
    assert (alphas[1:] * sigmas[:-1] > alphas[:-1] * sigmas[1:]).all()


def test_karras_steps():
    """Karras et al. 2022, equation 5."""
    n, low, high = 18, 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = [(high + i / (n - 1) * (low - high)) ** 7 for i in range(n)] + [0]
    assert edm().steps(n)[1].tolist() == pytest.approx(expected, rel=1e-12)


def test_flow_steps_are_equal():
    alphas, sigmas = flow().steps(8)
    torch.testing.assert_close(sigmas, torch.linspace(1, 0, 9, dtype=torch.float64))
    torch.testing.assert_close(alphas, 1 - sigmas)


def test_spacings():
    """The table of Lin et al. 2024 for T = 1000 and 10 steps, counted from 0."""
    assert timesteps(1000, 10, "trailing").tolist() == list(range(999, 0, -100))
    assert timesteps(1000, 10, "leading", offset=1).tolist() == list(range(901, 0, -100))
    assert timesteps(1000, 10, "linspace").tolist() == [
        999, 888, 777, 666, 555, 444, 333, 222, 111, 0
    ]  # fmt: skip
    for n in range(1, 101):  # every n, also where 100 / n has no exact number
        chosen = timesteps(100, n, "trailing")
        assert len(chosen.unique()) == n and chosen[0] == 99 and chosen.min() >= 0


def test_only_trailing_and_linspace_start_at_the_last_step():
    """The trap: after rescaling to zero terminal SNR, "leading" still starts with signal left."""
    schedule = zero_terminal(stable_diffusion())
    starts = {s: float(schedule.steps(25, s)[0][0]) for s in ("trailing", "linspace", "leading")}
    assert starts["trailing"] == starts["linspace"] == 0 and starts["leading"] > 0.01


# ------------------------------------------------------------------ transforms


def test_zero_terminal_snr():
    before, after = stable_diffusion(), zero_terminal(stable_diffusion())
    assert after.alpha_bar[-1] == 0
    torch.testing.assert_close(after.alpha_bar[0], before.alpha_bar[0], rtol=1e-12, atol=0)
    # Algorithm 1 of the paper, written with sqrt(alpha_bar) and betas.
    root = before.alpha_bar.sqrt()
    root_1, root_T = root[0].clone(), root[-1].clone()
    alpha_bar = ((root - root_T) * root_1 / (root_1 - root_T)) ** 2
    betas = 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
    assert betas[-1] == 1
    torch.testing.assert_close(after.alpha_bar, alpha_bar, rtol=1e-11, atol=0)
    torch.testing.assert_close(from_betas("", betas).alpha_bar, alpha_bar, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("schedule", "root"),
    [(stable_diffusion(), 0.06826), (linear_beta(), 0.00635), (cosine_beta(), 4.9e-5)],
    ids=["Stable Diffusion", "linear", "cosine"],
)
def test_bias_of_signal_left_at_the_end(schedule, root):
    """Of data N(mu, s^2), samples that start from N(0, 1) have the mean off by
    -mu s a / sqrt(a^2 s^2 + 1 - a^2), a = sqrt(alpha_bar_T). The flow carries the start linearly.
    """
    a = float(schedule.alpha_bar[-1].sqrt())
    assert a == pytest.approx(root, rel=0.01)
    mu, s = 3.0, 1.0
    data = GaussianMixture(torch.ones(1), torch.tensor([[mu]]), stds=torch.tensor([s]))
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)  # mean and one deviation of the start
    start, up = generate(data.denoise, x, schedule.steps(300, "linspace"), "heun")[:, 0].tolist()
    bias = -mu * s * a / math.sqrt(a**2 * s**2 + 1 - a**2)
    assert start - mu == pytest.approx(bias, rel=1e-3, abs=2e-5)
    assert up - start == pytest.approx(s / math.sqrt(a**2 * s**2 + 1 - a**2), rel=1e-3)


def test_zero_terminal_snr_removes_the_bias():
    mu, schedule = 3.0, zero_terminal(stable_diffusion())
    data = GaussianMixture(torch.ones(1), torch.tensor([[mu]]), stds=torch.ones(1))
    found = generate(
        data.denoise, torch.zeros(1, 1).double(), schedule.steps(300, "linspace"), "heun"
    )
    assert found.item() == pytest.approx(mu, abs=1e-4)


def test_a_shift_is_that_of_the_input_scale():
    """Data times b, renormalised: lambda + 2 log b. With log b, the ratio would be off by b."""
    b, schedule = 0.25, linear_gamma()
    alpha, sigma = schedule(T_INSIDE)
    scaled = torch.stack([b * alpha, sigma]) / (b**2 * alpha**2 + sigma**2).sqrt()
    found = torch.stack(shifted(schedule, 2 * math.log(b))(T_INSIDE))
    torch.testing.assert_close(found, scaled, rtol=1e-12, atol=0)
    naive = torch.stack(shifted(schedule, math.log(b))(T_INSIDE))
    assert (naive - scaled).abs().max() > 0.1


def test_pooled_images_see_the_shifted_schedule():
    """Twice the side: 2 x 2 pixels of one value, pooled, have lambda + 2 log 2. So the large image
    takes the schedule shifted by 2 log(1/2).
    """
    large = shifted(cosine(), 2 * math.log(1 / 2))
    alpha, sigma = large(T_INSIDE)
    pooled = 2 * (alpha.log() - (sigma / 2).log())  # the mean of four noises: sigma / 2
    torch.testing.assert_close(pooled, cosine().logsnr(T_INSIDE))


def test_shifts_of_tables_and_sigmas():
    moved = shifted(stable_diffusion(), 1.5)
    torch.testing.assert_close(moved.table, stable_diffusion().table + 1.5)
    torch.testing.assert_close(moved.steps(10)[0][:-1] ** 2, moved.alpha_bar[timesteps(1000, 10)])
    torch.testing.assert_close(shifted(edm(), 2 * math.log(4))(0.3)[1], edm()(0.3)[1] / 4)


# ------------------------------------------------------------------ densities of lambda

DENSITIES = [
    (cosine_density(), cosine()),
    (cosine_density(1.5, 0.7), cosine(1.5, 0.7)),
    (laplace_density(), laplace()),
    (laplace_density(-1.0, 2.0), laplace(-1.0, 2.0)),
    (cauchy_density(0.5, 2.0), cauchy(0.5, 2.0)),
    (edm_density(), None),
]
DENSITY_IDS = ["cosine", "cosine moved", "Laplace", "Laplace moved", "Cauchy", "EDM"]


@pytest.mark.parametrize(("density", "schedule"), DENSITIES, ids=DENSITY_IDS)
def test_density_distribution_and_schedule_agree(density, schedule):
    logsnr = density.logsnr(T_INSIDE)
    torch.testing.assert_close(density.cdf(logsnr), 1 - T_INSIDE, rtol=1e-10, atol=1e-12)
    x = logsnr.clone().requires_grad_()
    (slope,) = torch.autograd.grad(density.cdf(x).sum(), x)
    torch.testing.assert_close(density.pdf(logsnr), slope, rtol=1e-9, atol=1e-12)
    if schedule is not None:
        assert schedule.logsnr(T_INSIDE).equal(logsnr) and schedule.process == density.process


@pytest.mark.parametrize(("density", "schedule"), DENSITIES, ids=DENSITY_IDS)
def test_draws_follow_the_distribution(density, schedule):
    logsnr = density.sample(20_000, torch.Generator().manual_seed(0))
    assert logsnr.dtype == torch.float64 and logsnr.isfinite().all()
    again = density.sample(20_000, torch.Generator().manual_seed(0))
    assert again.equal(logsnr)
    assert (
        stats.kstest(logsnr.numpy(), lambda v: density.cdf(torch.tensor(v)).numpy()).pvalue > 1e-3
    )


def test_mass_near_equal_signal_and_noise():
    """Hang et al. 2024: what the Laplace density is for. By cdf: 0.55 and 0.98 of |lambda| < 2."""
    ends = torch.tensor([-2.0, 2.0], dtype=torch.float64)
    mass = {d.name: float(d.cdf(ends).diff()) for d in (cosine_density(), laplace_density())}
    assert mass["cosine"] == pytest.approx(0.55, abs=0.01)
    assert mass["Laplace"] == pytest.approx(0.98, abs=0.01)


def test_draws_stay_finite_where_rand_is_zero(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda n, **options: torch.zeros(n, dtype=torch.float64))
    for density, _ in DENSITIES:
        assert density.sample(3, torch.Generator()).isfinite().all()
    assert laplace().logsnr(torch.zeros(1)).isinf().all()  # what a draw of exactly 0 would give


def test_edm_density_is_that_of_sigma():
    sigma = (-edm_density(-1.2, 1.2).logsnr(T_INSIDE) / 2).exp()
    expected = stats.lognorm(s=1.2, scale=math.exp(-1.2)).ppf(T_INSIDE.numpy())
    torch.testing.assert_close(sigma, torch.tensor(expected), rtol=1e-9, atol=0)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cosine()(1.5), r"t must lie in \[0, 1\].*1\.5"),
        (lambda: cosine()(torch.tensor([0.1, math.nan])), "nan"),
        (lambda: cosine().steps(0), "n must be.*0"),
        (lambda: cosine().steps(2.5), "n must be.*2.5"),
        (lambda: cosine().steps(10, "trailing"), "continuous.*'trailing'"),
        (lambda: linear_beta().steps(1001), "at most T = 1000, not 1001"),
        (lambda: linear_beta().steps(10, "trailling"), "did you mean 'trailing'"),
        (lambda: linear_beta().steps(10, "trailing", offset=1), "offset goes with.*'leading'"),
        (lambda: linear_beta().steps(1000, "leading", offset=1), "offset 1.*1000"),
        (lambda: cosine().alpha_bar, "continuous"),
        (lambda: zero_terminal(cosine()), "cosine"),
        (lambda: zero_terminal(from_table("x", torch.tensor([2.0, 1.0]), "flow")), "'x' is not"),
        (lambda: shifted(cosine(), math.inf), "by.*inf"),
        (lambda: linear_beta(T=0), "T must be.*0"),
        (lambda: linear_beta(0.0, 0.02), r"betas.*\[0, 0.02\]"),
        (lambda: from_betas("x", torch.tensor([0.1, 1.0, 0.1])), "betas"),
        (lambda: edm(0.0, 80.0), "sigma_min.*0.0"),
        (lambda: edm(rho=0), "rho.*0"),
        (lambda: laplace(b=-1), "b must be.*-1"),
        (lambda: cauchy(gamma=0), "gamma.*0"),
        (lambda: cosine(scale=math.nan), "scale.*nan"),
        (lambda: edm_density(std=0), "std.*0"),
        (lambda: sigmoid_gamma(3, -3), "start.*3 and -3"),
        (lambda: sigmoid_gamma(tau=0), "tau.*0"),
        (lambda: cosine_gamma(end=1.5), "end.*1.5"),
        (lambda: Schedule("x", torch.neg, "vpp"), "process.*'vpp'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
