"""The same timesteps, coefficients and trajectories as the schedulers of diffusers.

Where a scheduler looks levels up in its table of alpha_bar, it gets ours in float64, and both agree
to rounding. The tables themselves are float32 there. Schedulers in sigma compute in float32: they
are compared with our float64 at the same levels, to twice what 20 steps of some four operations
leave, 20 * 4 * 6e-8 = 5e-6 of the largest value. Another method differs by a hundred times that.
"""

import pytest
import torch

from labkit.diffusion import (
    cosine_beta,
    edm,
    generate,
    levels_of,
    linear_beta,
    sample,
    stable_diffusion,
    timesteps,
    to_x0,
    zero_terminal,
)

schedulers = pytest.importorskip("diffusers.schedulers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def model(x, alpha, sigma):
    """A prediction of any kind: smooth, not linear, different at every level."""
    return torch.tanh(0.7 * x + sigma) - 0.3 * x * alpha


def denoiser(kind):
    return lambda x, alpha, sigma: to_x0(kind, model(x, alpha, sigma), x, alpha, sigma)


def assert_same_in_float32(found, expected, other):
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 1e-5 * scale
    assert (found - other).abs().max() > 1e-3 * scale


def noise(seed=0):
    return torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed)).double()


def theirs(scheduler, x, n, **options):
    """Their loop, with the levels of the table."""
    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        alpha_bar = scheduler.alphas_cumprod[t]
        output = model(x, alpha_bar.sqrt(), (1 - alpha_bar).sqrt())
        x = scheduler.step(output, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize(
    ("ours", "options"),
    [
        (linear_beta(), {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        (stable_diffusion(), SD),
        (cosine_beta(), {"beta_schedule": "squaredcos_cap_v2"}),
        (zero_terminal(stable_diffusion()), {**SD, "rescale_betas_zero_snr": True}),
    ],
    ids=["linear", "Stable Diffusion", "cosine", "zero terminal"],
)
def test_tables(ours, options):
    found = schedulers.DDIMScheduler(num_train_timesteps=1000, **options).alphas_cumprod
    # A cumulative product of 1000 float32 numbers: 1000 * 6e-8 relative, at worst.
    torch.testing.assert_close(ours.alpha_bar, found.double(), rtol=6e-5, atol=1e-7)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [2, 7, 30, 50, 333, 1000])
def test_timesteps(spacing, n):
    offset = int(spacing == "leading" and n < 1000)
    scheduler = schedulers.DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(n)
    ours = timesteps(1000, n, spacing, offset=offset)
    assert ours.tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize(
    ("kind", "rescaled", "spacing", "eta"),
    [
        ("eps", False, "leading", 0.0),
        ("eps", False, "trailing", 0.0),
        ("eps", False, "leading", 0.5),
        ("v", True, "trailing", 0.0),
        ("v", True, "trailing", 1.0),
        ("x0", True, "trailing", 0.3),
    ],
)
def test_ddim(kind, rescaled, spacing, eta):
    ours = zero_terminal(stable_diffusion()) if rescaled else stable_diffusion()
    names = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
    scheduler = schedulers.DDIMScheduler(
        **SD, clip_sample=False, timestep_spacing=spacing, prediction_type=names[kind]
    )
    scheduler.alphas_cumprod = ours.alpha_bar
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    expected = theirs(scheduler, noise(), 20, eta=eta, generator=draws[0])
    found = generate(denoiser(kind), noise(), ours.steps(20, spacing), "ddim", eta, draws[1])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_ddim_linspace():
    """From t, diffusers steps to t - T // n and not to the next of its timesteps. The two are one
    for linspace only if all steps are taken.
    """
    T = 25
    ours = linear_beta(T=T)
    scheduler = schedulers.DDIMScheduler(T, clip_sample=False, timestep_spacing="linspace")
    scheduler.alphas_cumprod = ours.alpha_bar
    found = generate(denoiser("eps"), noise(), ours.steps(T, "linspace"))
    torch.testing.assert_close(found, theirs(scheduler, noise(), T), rtol=1e-9, atol=1e-9)


def test_ddpm():
    ours = linear_beta()
    scheduler = schedulers.DDPMScheduler(clip_sample=False, timestep_spacing="leading")
    scheduler.alphas_cumprod = ours.alpha_bar
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    expected = theirs(scheduler, noise(), 20, generator=draws[0])
    levels = ours.steps(20, "leading")
    found = generate(denoiser("eps"), noise(), levels, "ancestral", generator=draws[1])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_one_ddpm_step_with_betas():
    """Their form: a mean of beta_t and alpha_t, variance beta_t (1 - abar_s)/(1 - abar_t)."""
    schedule, t = stable_diffusion(), 400
    scheduler = schedulers.DDPMScheduler(**SD, clip_sample=False)
    scheduler.alphas_cumprod = schedule.alpha_bar
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    alphas, sigmas = levels_of(torch.cat([schedule.table[[t, t - 1]], torch.tensor([torch.inf])]))
    states = sample(denoiser("eps"), noise(), (alphas, sigmas), "ancestral", generator=draws[0])
    found = [state.x for state in states][1]
    output = model(noise(), alphas[0], sigmas[0])
    expected = scheduler.step(output, t, noise(), generator=draws[1]).prev_sample
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------ schedulers in sigma, float32


def theirs_in_sigma(scheduler, x):
    x = x.float()
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)  # our model takes x as it is; this counts the steps
        sigma = scheduler.sigmas[scheduler.step_index]
        x = scheduler.step(model(x, 1.0, sigma), t, x).prev_sample
    return x.double()


@pytest.mark.parametrize(
    ("name", "method"), [("EulerDiscreteScheduler", "euler"), ("HeunDiscreteScheduler", "heun")]
)
def test_karras_euler_and_heun(name, method):
    n = 20
    scheduler = getattr(schedulers, name)(**SD, use_karras_sigmas=True)
    scheduler.set_timesteps(n)
    sigmas = scheduler.sigmas.double().unique_consecutive()  # Heun lists all but the ends twice
    assert len(sigmas) == n + 1
    rule = edm(float(sigmas[-2]), float(sigmas[0])).steps(n)
    torch.testing.assert_close(rule[1], sigmas, rtol=1e-5, atol=0)

    x = sigmas[0] * noise()
    levels = torch.ones(n + 1), sigmas
    found, other = (generate(denoiser("eps"), x, levels, m) for m in (method, "midpoint"))
    assert_same_in_float32(found, theirs_in_sigma(scheduler, x), other)


def test_flow_matching():
    n = 20
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(n)
    sigmas = scheduler.sigmas.double()
    levels = 1 - sigmas, sigmas
    found, other = (generate(denoiser("velocity"), noise(), levels, m) for m in ("euler", "heun"))

    x = noise().float()
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        x = scheduler.step(model(x, 1 - sigma, sigma), t, x).prev_sample
    assert_same_in_float32(found, x.double(), other)


@pytest.mark.parametrize("n", [8, 20])
@pytest.mark.parametrize("karras", [False, True])
def test_dpm_solver(n, karras):
    scheduler = schedulers.DPMSolverMultistepScheduler(**SD, use_karras_sigmas=karras)
    scheduler.set_timesteps(n)
    ratio = scheduler.sigmas.double()
    alphas = 1 / (1 + ratio**2).sqrt()
    levels = alphas, ratio * alphas
    found, other = (generate(denoiser("eps"), noise(), levels, m) for m in ("dpmpp_2m", "euler"))

    x = noise().float()
    for t, alpha, sigma in zip(scheduler.timesteps, *(a[:-1].float() for a in levels), strict=True):
        x = scheduler.step(model(x, alpha, sigma), t, x).prev_sample
    assert_same_in_float32(found, x.double(), other)
