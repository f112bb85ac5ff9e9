# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   labkit:
#     minutes: 1
# ---

# %% [markdown]
# # Where to spend the noise
#
# **Question.** A denoiser is trained at many levels of noise. How often should each one come up,
# and why is the answer another one for large pictures than for small ones?
#
# ![One photograph at 8, 16, 32 and 64 pixels with the same noise: the larger it is, the more shows.
# Scaled by 1, 1/2, 1/4 and 1/8, all four show as much. Beside it, curves of what is lost against
# the noise, each at twice the noise of the one before](03_where_to_spend_the_noise.png)
#
# **Reading** 15 minutes. **Running** under a minute on two CPU cores, under 1 GB of memory.
#
# **Papers** `noise-schedule-input-scaling`: T. Chen, *On the importance of noise scheduling for
# diffusion models*, 2023, [arXiv:2301.10972](https://arxiv.org/abs/2301.10972).
# `laplace-logsnr-schedule`: T. Hang, S. Gu, X. Geng and B. Guo, *Improved noise schedule for
# diffusion training*, ICCV 2025, [arXiv:2407.03297](https://arxiv.org/abs/2407.03297).
#
# You need to know what a denoiser is, and that sampling is denoising in small steps. Numbers in the
# text are measured below, unless other runs are named; the green cards say which statement was held
# against which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
n_levels: int = 100_000  # noise levels drawn from every family in section 1
n_crops: int = 3600  # of the photographs, 64 pixels a side; a sixth of them is held out
scales: list[float] = [0.3, 0.5, 0.7, 1.0, 1.4, 2.0]  # input scales b, models of patches
laplace_scales: list[float] = [0.25, 0.5, 1.0, 2.0]  # scales b of the Laplace density, section 6
n_seeds: int = 3  # networks per setting, each with weights, examples and noise of its own
width: int = 128  # of the networks
patch_steps: int = 180  # of training on patches
digit_steps: int = 220  # of training on digits
batch_size: int = 48  # examples per step
learning_rate: float = 5e-3  # of Adam, at its highest
sampler_steps: int = 32  # evaluations of the denoiser per sample

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from ipywidgets import FloatLogSlider, interact
from scipy.optimize import brentq
from scipy.stats import kstest

from labkit import claim, diffusion, metric
from labkit.checks import check_ranges
from labkit.claims import summary
from labkit.data import natural_images
from labkit.data.patches import sample_patches
from labkit.exercises import check
from labkit.plots import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, house_style
from labkit.seeding import streams

SCALING, LAPLACE = "noise-schedule-input-scaling", "laplace-logsnr-schedule"
SIDES = (8, 16, 32)  # pixels, of patches; the smallest is what all of them show

if n_levels < 1000 or n_crops < 1200 or not 0 < learning_rate < 1:
    raise ValueError(
        "need n_levels >= 1000, n_crops >= 1200 and learning_rate between 0 and 1, not "
        f"{n_levels}, {n_crops} and {learning_rate}"
    )
for name, values in (("scales", scales), ("laplace_scales", laplace_scales)):
    if len(values) < 2 or sorted(set(values)) != values or not 0.01 <= values[0] <= values[-1] <= 9:
        raise ValueError(f"{name}: two or more from 0.01 to 9, in rising order, not {values}")
if scales[0] >= 1 or 1.0 not in scales or 0.5 not in laplace_scales or len(laplace_scales) > 6:
    raise ValueError(
        "scales must hold 1 and one below, and laplace_scales be at most six and hold 0.5, not "
        f"{scales} and {laplace_scales}"
    )
if min(width, patch_steps, digit_steps, batch_size, sampler_steps) < 2:
    raise ValueError(
        "width, patch_steps, digit_steps, batch_size and sampler_steps must be at least 2, not "
        f"{width}, {patch_steps}, {digit_steps}, {batch_size} and {sampler_steps}"
    )
check_ranges(globals(), n_seeds=(2, 10))  # with more, streams of draws would run out
torch.set_num_threads(1)  # layers are small: a second thread costs about what it saves
house_style()

draws = streams(seed)  # a generator of its own for each use: no experiment shifts another's draws


# %% [markdown]
# ## 1. A schedule is a density
#
# Noisy data are $x_t = \alpha\, x_0 + \sigma\, \epsilon$ with $\alpha^2 + \sigma^2 = 1$. The one
# number that matters is the logarithm of the signal-to-noise ratio,
#
# $$\lambda = \log \frac{\alpha^2}{\sigma^2}, \qquad \alpha^2 = \mathrm{sigmoid}(\lambda) .$$
#
# A schedule is a falling curve $\lambda(t)$, and training draws $t$ evenly from $(0, 1)$. So it
# draws $\lambda$ from the density $p(\lambda) = -dt/d\lambda$. And any density has a schedule:
# with $F$ its distribution function, $\lambda(t) = F^{-1}(1 - t)$. Nothing else about a schedule
# reaches the training. Hang et al. write the usual curves in this way and propose the Laplace
# density, which spends nearly all levels around $\lambda = 0$, where signal and noise are equal:
#
# $$\lambda(t) = \mu - b\, \mathrm{sgn}(\tfrac12 - t)\, \log(1 - 2\,|t - \tfrac12|), \qquad
#   p(\lambda) = \frac{1}{2b}\, e^{-|\lambda - \mu| / b}, \qquad \mu = 0,\ b = 0.5 .$$
#
# **A trap**: at $t = 0$ and $1$ the logarithm is infinite. We keep $t$ away from the ends.


# %%
def log_cot(t):
    return -(math.pi / 2 * t).tan().log()


FAMILIES = {  # lambda(t) as in table 1 of Hang et al., and the density in the library
    "cosine": (lambda t: 2 * log_cot(t), diffusion.cosine_density()),
    "cosine, shifted by −2": (lambda t: -2 + 2 * log_cot(t), diffusion.cosine_density(shift=-2)),
    "cosine, scaled by 2": (lambda t: 2 / 2 * log_cot(t), diffusion.cosine_density(scale=2)),
    "Cauchy, γ = 1": (lambda t: 1 * (math.pi / 2 * (1 - 2 * t)).tan(), diffusion.cauchy_density()),
    "Laplace, b = 0.5": (
        lambda t: -0.5 * (0.5 - t).sign() * (1 - 2 * (t - 0.5).abs()).log(),
        diffusion.laplace_density(),
    ),
}
chance = draws(1)
inside = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
apart, mass = {}, {}
print("family                  KS distance   |λ| < 2")
for name, (logsnr, density) in FAMILIES.items():
    torch.testing.assert_close(density.logsnr(inside), logsnr(inside))
    t = torch.rand(n_levels, generator=chance, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    apart[name] = kstest(density.cdf(logsnr(t)).numpy(), "uniform", method="asymp").statistic
    mass[name] = float((logsnr(t).abs() < 2).double().mean())
    print(f"{name:22}  {apart[name]:.4f}        {mass[name]:.3f}")
print("the library and the equations agree")

claim(
    LAPLACE, "drawn levels against the closed distribution function: Kolmogorov–Smirnov distance, "
    "worst of five families", max(apart.values()), at_most=0.01
)  # fmt: skip
for name, share in (("Laplace, b = 0.5", 0.98), ("cosine", 0.55)):
    claim(
        LAPLACE, f"share of training levels with |λ| < 2, {name}", mass[name],
        at_least=share - 0.01, at_most=share + 0.01
    )  # fmt: skip

# %% [markdown]
# Chen writes schedules as $\gamma = \alpha^2$. Two families have a start $s$, an end $e$ and a
# temperature $\tau$, with $u = s + t\,(e - s)$,
#
# $$\gamma(t) = \frac{f(t) - f(1)}{f(0) - f(1)}, \qquad
#   f(t) = \cos\left(\tfrac{\pi}{2} u\right)^{2\tau} \quad\text{or}\quad
#   f(t) = -\mathrm{sigmoid}(u / \tau) ,$$
#
# and the third is the simplest of all, $\gamma(t) = 1 - t$. On the left are curves, on the right
# the same as densities. The straight line is a *logistic* density, $e^{-\lambda} / (1 +
# e^{-\lambda})^2$: simple indeed.


# %%
def gamma_of(f, start, end, t):
    f_t, f_0, f_1 = (f(start + t_ * (end - start)) for t_ in (t, 0 * t, 0 * t + 1))
    return (f_t - f_1) / (f_0 - f_1)


linear = diffusion.linear_gamma()
CHEN = {  # the schedule in the library, its f, s and e, and a colour
    "γ = 1 − t": (linear, lambda u: -u, 0, 1, BLACK),
    "sigmoid γ, τ = 0.9": (
        diffusion.sigmoid_gamma(-3, 3, 0.9), lambda u: -(u / 0.9).sigmoid(), -3, 3, GREEN
    ),
    "cosine γ, s = 0.2, τ = 2": (
        diffusion.cosine_gamma(0.2, 1, 2), lambda u: (math.pi / 2 * u).cos() ** 4, 0.2, 1, AMBER
    ),
}  # fmt: skip
grid = torch.linspace(-12, 12, 1201, dtype=torch.float64)
t_line = torch.linspace(1e-4, 1 - 1e-4, 4001, dtype=torch.float64)
for schedule, f, start, end, _ in CHEN.values():
    gamma = gamma_of(f, start, end, t_line).clamp(1e-9, 1)
    torch.testing.assert_close(schedule(t_line)[0] ** 2, gamma)


def density_of(schedule):
    """p(lambda) = -dt / d lambda on the grid, by differences."""
    logsnr = schedule.logsnr(t_line).flip(0).numpy()
    return -np.gradient(np.interp(grid, logsnr, t_line.flip(0), left=1, right=0), grid)


logistic = (grid.sigmoid() * (-grid).sigmoid()).numpy()
inner = np.abs(grid.numpy()) < 8
np.testing.assert_allclose(density_of(linear)[inner], logistic[inner], atol=1e-3)
print("the library and the equations agree")

fig, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
shown = ("cosine", "cosine, shifted by −2", "Cauchy, γ = 1", "Laplace, b = 0.5")
for name, colour, dashes in zip(shown, (BLUE, SKY, PINK, ORANGE), ("-", "-.", ":", "-")):
    logsnr, density = FAMILIES[name]
    axes[0].plot(t_line, logsnr(t_line), dashes, color=colour)
    axes[1].plot(grid, density.pdf(grid), dashes, color=colour, label=name)
for name, (schedule, *_, colour) in CHEN.items():
    axes[0].plot(t_line, schedule.logsnr(t_line), "--", lw=1.2, color=colour)
    axes[1].plot(grid, density_of(schedule), "--", lw=1.2, color=colour, label=name)
axes[0].set(xlabel="$t$", ylabel="$λ(t)$", ylim=(-12, 12), title="as curves")
axes[1].set(xlabel="$λ$", ylabel="$p(λ)$", ylim=(0, 1.05), title="as densities of levels")
axes[1].legend(fontsize=9, loc="upper right")
for axis in axes:
    axis.locator_params(nbins=7)
plt.show()

# %% [markdown]
# ## 2. The same noise, larger pictures
#
# Take one photograph at 8, 16, 32 and 64 pixels a side and add the same noise to each pixel. In
# the large picture many pixels show the same thing, and the eye averages their noise away. Mean
# of $2 \times 2$ pixels: the noise halves, the content stays. So what a level *means* depends on
# the size. Chen's remedy is to keep the schedule and scale the picture by $b < 1$,
#
# $$x_t = \sqrt{\gamma(t)}\, b\, x_0 + \sqrt{1 - \gamma(t)}\, \epsilon .$$
#
# Its signal-to-noise ratio is $\gamma b^2 / (1 - \gamma)$: the schedule shifts by $2 \log b$. The
# 2 is easily lost; $b$ scales an amplitude, and $\lambda$ compares powers. **Another trap**: $x_t$
# no longer has variance one, and a network wants that. Divided by its standard deviation
# $\sqrt{\gamma b^2 + 1 - \gamma}$, it *is* the usual process with $\lambda + 2 \log b$. Picture and
# noise, the targets, are not divided.
#
# How much noise can a content take? The ideal *linear* denoiser of data with covariance $C$ is
# Wiener's, $\hat x_0 = C\,(C + \sigma^2 I)^{-1} x$. We cut patches of 64 pixels from photographs
# and pool them to 8, 16 and 32. At each size the estimate is pooled to the 8 × 8 pixels that all
# sizes share, and we look for the noise at which **half of the energy of that common content is
# lost**. $C$ comes from five sixths of the patches, the loss from the others.


# %%
def pool(images, side):
    """Images (..., s, s) as means over blocks, (..., side, side)."""
    return F.avg_pool2d(images, images.shape[-1] // side)


crops = sample_patches(natural_images(), 64, n_crops, np.random.default_rng(seed))
crops = torch.from_numpy(crops).view(-1, 1, 64, 64)
centre, unit = pool(crops, 8).mean(), pool(crops, 8).std()  # one scale for all sizes
patches = {side: ((pool(crops, side) - centre) / unit).flatten(1) for side in SIDES}
n_known = n_crops * 5 // 6
known = {side: x[:n_known] for side, x in patches.items()}
held_out = {side: x[n_known:] for side, x in patches.items()}


def common(x, side):
    """What patches (n, side * side) show at the smallest size, (n, 64)."""
    return pool(x.reshape(-1, 1, side, side), SIDES[0]).flatten(1)


axes_of = {}  # variances w (D,), principal axes (D, D), and what these show in common (D, 64)
on_axes = {}  # held-out patches, (n, D)
for side, x in known.items():
    w, U = torch.linalg.eigh(x.double().T.cov())
    axes_of[side] = w.clamp(min=0), U, common(U.T, side)
    on_axes[side] = (held_out[side] - x.mean(0)).double() @ U


def lost(std, side, b=1.0):
    """Share of the common content's energy that Wiener's estimate loses.

    Of held-out patches scaled by b, in noise of standard deviation std, exact mean over the noise.
    """
    w, _, shows = axes_of[side]
    gain = b**2 * w / (b**2 * w + std**2)  # of Wiener's estimate, on each axis
    x0 = b * on_axes[side]
    missing = (((1 - gain) * x0) @ shows).square().sum(dim=1).mean()
    added = std**2 * (gain**2 * shows.square().sum(dim=1)).sum()  # noise that passes
    return float((missing + added) / (x0 @ shows).square().sum(dim=1).mean())


def crossing(side, b=1.0):
    """Standard deviation of the noise at which half is lost."""
    return math.exp(brentq(lambda x: lost(math.exp(x), side, b) - 0.5, -3, 7, xtol=1e-4))


half = {side: crossing(side) for side in SIDES}
scaled = {side: crossing(side, b=SIDES[0] / side) for side in SIDES}
for side in SIDES:
    print(f"{side:2} px: half is lost at {half[side]:5.2f}, b = 8/{side} at {scaled[side]:.2f}")
for small, large in ((8, 16), (16, 32)):
    claim(
        SCALING, "noise at which half of the common 8 × 8 content is lost: "
        f"{large} px relative to {small} px", half[large] / half[small], at_least=1.85, at_most=2.15
    )  # fmt: skip
claim(
    SCALING, "input scale 1/2 at 16 px and 1/4 at 32 px: this noise relative to that of 8 px, "
    "worst deviation from 1", max(abs(scaled[side] / half[8] - 1) for side in SIDES), at_most=0.05
)  # fmt: skip

# %% tags=["cover"]
photograph = torch.from_numpy(natural_images(["astronaut"])[0][:256, 96:352])[None, None]
photograph = (photograph - photograph.mean()) / photograph.std()


def noisy_pictures(b_of, axes):
    """The photograph at four sizes, scaled by b_of(side), with noise, at unit variance."""
    for axis, side in zip(axes, (8, 16, 32, 64)):
        x0, b = pool(photograph, side)[0, 0], b_of(side)
        x = b * x0 + torch.randn(x0.shape, generator=draws(30 + side))
        axis.imshow(x / (b**2 + 1) ** 0.5, cmap="gray", vmin=-2.2, vmax=2.2)
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{side} px, $b$ = {b:.3g}", fontsize=10)


MARKS = dict(zip(SIDES, "os^"))
fig = plt.figure(figsize=(11.5, 4.3), layout="constrained", dpi=80)
left, right = fig.subfigures(1, 2, width_ratios=(1.75, 1))
panels = left.subplots(2, 4)
noisy_pictures(lambda side: 1.0, panels[0])
noisy_pictures(lambda side: 8 / side, panels[1])
axis = right.subplots()
noises = np.geomspace(0.3, 100, 60)
for side, colour, mark in zip(SIDES, (BLUE, GREEN, ORANGE), MARKS.values()):
    axis.semilogx(noises, [lost(v, side) for v in noises], color=colour)
    axis.plot([half[side]] * 2, [0, 0.5], ":", color=colour)
    axis.plot(half[side], 0.5, mark + "-", color=colour, label=f"{side} px")
axis.axhline(0.5, color=GREY, lw=0.8)
axis.set(xlabel="noise $σ$ (std of 8 px pixels)", ylabel="common content lost", ylim=(0, 1))
axis.legend(loc="upper left")
plt.show()

# %% [markdown]
# Upper row: the same noise, as strong as the signal, and the larger the picture, the more of it
# shows. Lower row: with $b$ halved at each doubling, all four show as little. On the
# right, each doubling of the side doubles the noise that can be borne. (By a trace more than 2, for
# fine detail betrays a little of the coarse content.)
#
# Below all four have the $b$ that suits 64 pixels. Move the slider: which one suits 16?


# %%
def explore(b=1 / 8):
    _, axes = plt.subplots(1, 4, figsize=(9, 2.5), layout="constrained")
    noisy_pictures(lambda side: b, axes)
    plt.show()


explore()
_ = interact(explore, b=FloatLogSlider(1 / 8, min=-1, max=0.5, step=0.1, continuous_update=False))

# %% [markdown]
# ## 3. The best input scale, with nothing to learn
#
# Suppose the denoiser were perfect. Would $b$ still matter? With infinitely many steps it would
# not: any schedule leads to the data. With 32 steps it says where the steps are spent. For Gaussian
# patches everything is exact: the denoiser is Wiener's, DDIM is a linear map, and along each
# principal axis it multiplies the initial noise by a gain $g_k$. The samples are Gaussian, and
# their Wasserstein distance to the data is $W_2^2 = \sum_k (\sqrt{w_k} - g_k)^2$.


# %%
def gains(w, b, levels):
    """g (K,) of DDIM on scaled data, x_t = alpha b x0 + sigma eps, of variances b^2 w (K,)."""

    def denoise(x, alpha, sigma):  # Wiener's estimate of b x0, on the principal axes
        return alpha * b**2 * w / (alpha**2 * b**2 * w + sigma**2) * x

    return diffusion.generate(denoise, torch.ones(1, len(w), dtype=torch.float64), levels)[0] / b


def distance_of(b, side, n_steps):
    """W2 of DDIM with the exact denoiser to the Gaussian data, relative to the data's energy."""
    w = axes_of[side][0]
    gain = gains(w, b, linear.steps(n_steps))
    return float(((w.sqrt() - gain).square().sum() / w.sum()).sqrt())


as_shift = diffusion.shifted(linear, 2 * math.log(0.3)).steps(sampler_steps)
torch.testing.assert_close(
    gains(axes_of[8][0], 0.3, linear.steps(sampler_steps)),
    gains(axes_of[8][0], 1.0, as_shift),
)
print("scaling by b and shifting λ by 2 log b agree")
b_grid = 2.0 ** np.arange(-5, 1.01, 0.125)
curves = {side: np.array([distance_of(b, side, sampler_steps) for b in b_grid]) for side in SIDES}
best_exact = {side: b_grid[curve.argmin()] for side, curve in curves.items()}
for side, curve in curves.items():
    at_one = curve[b_grid == 1].item()
    print(f"{side:2} px: W2 {curve.min():.3f} at b = {best_exact[side]:.3f}, {at_one:.3f} at b = 1")
claim(
    SCALING, "exact denoiser: factor by which the best input scale changes per doubling of the "
    "side, 8 to 32 px", (best_exact[32] / best_exact[8]) ** 0.5, at_least=0.4, at_most=0.7
)  # fmt: skip

# %% [markdown]
# So part of the benefit of scaling has nothing to do with training. Chen tunes $b$ for both at
# once, as the sampler uses the schedule of the training.
#
# ## 4. The best input scale, learned
#
# Now the paper's experiment in small: for each $b$ networks learn patches of 8 or of 16 pixels
# under $\gamma = 1 - t$ and draw samples with their own schedule, 32 steps of DDIM. As the scale is
# a shift, in sampling too, the library's training loop needs nothing new. All else is equal: first
# weights, training steps, examples, noise, evaluations. Per size we compare six $b$ with three
# seeds each. The network sees $x_t$ at variance one and predicts $v = \alpha \epsilon - \sigma
# x_0$. Samples of 16 pixels are pooled to 8 before they are judged, so that both sizes are judged
# by what they have in common.


# %%
def learned(data, levels, steps, stream, weighting=None):
    """A denoiser after training; one stream gives all schedules the same weights and examples."""
    chance = draws(stream)
    network = diffusion.Mlp(data.shape[1], width, 1, generator=chance)
    denoiser = diffusion.NetworkDenoiser(network, "v")
    diffusion.train(
        denoiser, data, steps=steps, levels=levels, batch_size=batch_size, lr=learning_rate,
        weighting=weighting, generator=chance, progress=False,
    )  # fmt: skip
    return denoiser


def distance(x, y):
    return diffusion.sliced_wasserstein(x, y, generator=draws(70))


band = diffusion.null_band(patches[8], distance, len(held_out[8]), 20, generator=draws(71))
distances = {side: np.empty((len(scales), n_seeds, 2)) for side in SIDES[:2]}
for side, found in distances.items():
    for i, b in enumerate(scales):
        schedule = diffusion.shifted(linear, 2 * math.log(b))
        for k in range(n_seeds):
            model = learned(known[side], schedule, patch_steps, 100 * k + side)
            noise = torch.randn(held_out[side].shape, generator=draws(100 * k + 50 + side))
            x = diffusion.generate(model, noise, schedule.steps(sampler_steps))
            found[i, k] = distance(common(x, side), held_out[8]), distance(x, held_out[side])

print("sliced W2, mean over seeds       b =" + "".join(f"{b:8g}" for b in scales))
for side, found in distances.items():
    for what, values in zip(("common content", "all pixels"), found.mean(axis=1).T):
        print(f"{side:2} px, {what:28}" + "".join(f"{v:8.3f}" for v in values))
print(f"real against real, common content: {band.low:.3f} to {band.high:.3f}")

curve_of = {side: found[..., 0].mean(axis=1) for side, found in distances.items()}
best = {side: scales[curve.argmin()] for side, curve in curve_of.items()}
price = {side: curve[0] / curve[scales.index(1.0)] for side, curve in curve_of.items()}
claim(
    SCALING, "trained networks: best input scale at 16 px relative to 8 px, by sliced Wasserstein "
    "distance of the content common to both", best[16] / best[8], at_most=1.0
)  # fmt: skip
claim(
    SCALING, f"trained networks: distance at b = {scales[0]:g} relative to b = 1, at 16 px divided "
    "by the same at 8 px", price[16] / price[8], at_most=1.0
)  # fmt: skip

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 3.5), layout="constrained")
colours = dict(zip(SIDES, (BLUE, GREEN, ORANGE)))
for side, curve in curves.items():
    axes[0].plot(b_grid, curve, color=colours[side])
    axes[0].plot(
        best_exact[side], curve.min(), MARKS[side] + "-", color=colours[side], label=f"{side} px"
    )
axes[0].set(ylabel="$W_2$ to the data, relative", ylim=(0, 1), title="exact denoiser")
for side, curve in curve_of.items():
    dots = {"color": colours[side], "marker": MARKS[side], "ms": 4}
    axes[1].plot(scales, curve, markevery=[], label=f"{side} px", **dots)
    axes[1].plot(scales, distances[side][..., 0], ls="", alpha=0.6, **dots)
axes[1].axhspan(band.low, band.high, color=GREY, alpha=0.25, lw=0, label="data against data")
axes[1].set(ylabel="sliced $W_2$, common content", ylim=(0, None))
axes[1].set_title(f"learned in {patch_steps} steps, {n_seeds} seeds")
for axis, ticks in zip(axes, ((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2), scales)):
    axis.set(xscale="log", xlabel="input scale $b$")
    axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()
    axis.legend(fontsize=9, loc="best")
plt.show()

# %% [markdown]
# On the left nothing was learned: the best $b$ (large dots) nearly halves with each doubling of the
# side. On the right, learning is added, the curves are rougher, and they turn in the same
# direction: what suits 8 pixels is too little noise for 16.
#
# ## 5. A density is a weight, but not for free
#
# Back to levels at one size. Let $\ell(\lambda)$ be the loss of a denoiser at a level. Training
# minimises $\mathbb{E}_{\lambda \sim p}\,[w(\lambda)\, \ell(\lambda)]$, where only the product
# $w\,p$ counts. So cosine levels weighted by $p_\mathrm{L} / p_\mathrm{C}$ and Laplace levels
# without a weight have the *same* expected loss. We check it with a fixed denoiser, the exact one
# of three Gaussians in the plane. (In many runs a difference beyond 3 standard errors is no
# surprise; we allow 4.)
#
# The mean is the same, the noise of a mini-batch is not. Of $n$ weighted draws, as many are left in
# effect as $(\sum w)^2 / \sum w^2$ says (Kish 1965).

# %%
cosine_p, laplace_p = diffusion.cosine_density(), diffusion.laplace_density()


def laplace_over_cosine(logsnr):
    return laplace_p.pdf(logsnr) / cosine_p.pdf(logsnr)


mixture = diffusion.GaussianMixture(
    [0.5, 0.3, 0.2], [[1.0, 0.0], [-1.0, 0.8], [0.0, -1.2]], stds=[0.2] * 3
)


def losses_at(logsnr, chance):
    """||v_hat - v||^2 = ||x0_hat - x0||^2 / sigma^2 of the exact denoiser, (n,)."""
    alpha, sigma = diffusion.levels_of(logsnr)
    x0 = mixture.sample(len(logsnr), chance)
    x = alpha[:, None] * x0 + sigma[:, None] * torch.randn(x0.shape, generator=chance).double()
    return (mixture.denoise(x, alpha, sigma) - x0).square().sum(dim=1) / sigma**2


chance = draws(80)
from_cosine = cosine_p.sample(n_levels, chance)
weight = laplace_over_cosine(from_cosine)
plain = losses_at(from_cosine, chance)
weighted = weight * plain
unweighted = losses_at(laplace_p.sample(n_levels, chance), chance)
standard_error = ((weighted.var() + unweighted.var()) / n_levels).sqrt()
print(f"mean loss, cosine levels: {plain.mean():.4f}, the same weighted: {weighted.mean():.4f}, "
      f"Laplace levels: {unweighted.mean():.4f}")  # fmt: skip
claim(
    LAPLACE, "expected loss, weighted cosine levels against Laplace levels: difference in standard "
    "errors", float((weighted.mean() - unweighted.mean()).abs() / standard_error), at_most=4.0
)  # fmt: skip
claim(
    LAPLACE, "variance of one example's loss: weighted cosine levels relative to Laplace levels",
    float(weighted.var() / unweighted.var()), at_least=2.0
)  # fmt: skip
left = float(weight.sum() ** 2 / (weight.square().sum() * n_levels))
print(f"share of a weighted mini-batch left in effect: {left:.0%}")
metric("share_of_a_batch_left", left)

# %% [markdown]
# Less than a third of the batch is left, and the loss scatters several times as much. To weigh the
# loss is to pay for examples and to throw them away.
#
# ## 6. Digits: the same budget, spent elsewhere
#
# Six ways to train the same network on digits: cosine levels, Laplace levels of four widths, and
# cosine levels with the weight above. Steps, examples, noise and starting weights are equal.
# **A trap**: a training loss contains its own density. We compare the loss of $v$ on fixed levels,
# with fixed noise, on held-out digits, unweighted. (A squared error of $\hat x_0$, divided by
# $\sigma^2$, is one of $v$.) And all draw samples in the same way, with cosine steps: only training
# differs. The classifier whose features judge the samples learns from the held-out digits alone, so
# that it has nothing in common with the denoisers, and the Fréchet distance is to as many digits
# that it has not seen.

# %%
(digits, _), (digits_held_out, labels_held_out) = diffusion.digit_images(generator=draws(90))
digit_mean, digit_std = digits.mean(), digits.std()


def standardised(images):
    return ((images - digit_mean) / digit_std).flatten(1)


arms = {"cosine": (cosine_p, None)}
arms |= {f"Laplace {b:g}": (diffusion.laplace_density(b=b), None) for b in laplace_scales}
arms["cosine, weighted"] = (cosine_p, laplace_over_cosine)
fresh = standardised(digits_held_out)
judge = diffusion.DigitFeatures(digits_held_out, labels_held_out, generator=draws(94), steps=400)
real = judge(digits)
check_levels = torch.arange(-8.0, 8.1, dtype=torch.float64)
v_loss, frechet = {}, {}
for name, (density, weighting) in arms.items():
    of_seed, frechet[name] = [], []
    for k in range(n_seeds):
        model = learned(standardised(digits), density, digit_steps, 100 * k + 91, weighting)
        levels = diffusion.levels_of(check_levels)
        x0_loss = diffusion.denoising_loss(model, fresh, levels, generator=draws(100 * k + 92))
        of_seed.append(x0_loss / levels[1] ** 2)
        noise = torch.randn(fresh.shape, generator=draws(100 * k + 93))
        x = diffusion.generate(model, noise, diffusion.cosine().steps(sampler_steps))
        x = (x * digit_std + digit_mean).view(-1, 1, 8, 8)
        frechet[name].append(diffusion.frechet_distance(judge(x), real[: len(fresh)]))
    v_loss[name] = torch.stack(of_seed).mean(dim=0)
digit_band = diffusion.null_band(
    real, diffusion.frechet_distance, len(fresh), 50, generator=draws(95)
)

in_middle = {name: float(loss[check_levels.abs() <= 2].mean()) for name, loss in v_loss.items()}
outside = {name: float(loss[check_levels.abs() > 4].mean()) for name, loss in v_loss.items()}
print(f"{'':18}loss |λ| ≤ 2   loss |λ| > 4   Fréchet distance (mean of {n_seeds} seeds)")
for name in arms:
    print(f"{name:18}{in_middle[name]:9.4f} {outside[name]:14.4f} {np.mean(frechet[name]):13.3f}")
    metric(f"frechet_{name.replace(', ', '_').replace(' ', '_')}", np.mean(frechet[name]))
print(f"digits against digits, Fréchet distance: {digit_band.low:.3f} to {digit_band.high:.3f}")

TRAINED = "trained on Laplace levels relative to cosine levels"
laplace_half = in_middle["Laplace 0.5"]
claim(
    LAPLACE, f"held-out loss, |λ| ≤ 2: {TRAINED}", laplace_half / in_middle["cosine"], at_most=0.98
)
claim(
    LAPLACE, f"held-out loss, |λ| > 4: {TRAINED}", outside["Laplace 0.5"] / outside["cosine"],
    at_least=1.1
)  # fmt: skip
claim(
    LAPLACE, f"Fréchet distance of samples: {TRAINED}",
    np.mean(frechet["Laplace 0.5"]) / np.mean(frechet["cosine"]), at_most=0.9
)  # fmt: skip
claim(
    LAPLACE, f"held-out loss, |λ| ≤ 2: {TRAINED} with the same expected loss by weights",
    laplace_half / in_middle["cosine, weighted"], at_most=0.96
)  # fmt: skip

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
tints = dict(zip(arms, (BLUE, PINK, ORANGE, AMBER, GREEN, SKY, BLACK, GREY)))
tints["cosine, weighted"] = GREY
marks = dict(zip(arms, "os^Dv*Xp"))
for name, loss in v_loss.items():
    style = {"color": tints[name], "marker": marks[name], "ms": 5}
    axes[0].plot(check_levels, loss / v_loss["cosine"], label=name, **style)
axes[0].axvspan(-2, 2, color=GREY, alpha=0.15, lw=0)
axes[0].set(xlabel="$λ$", ylabel="held-out loss relative to cosine", title="what was learned where")
axes[0].set_ylim(0.85, 2)
axes[0].legend(fontsize=9, loc="upper right")
for k, name in enumerate(arms):
    axes[1].plot(frechet[name], [k] * n_seeds, marks[name], color=tints[name])
axes[1].axvspan(*digit_band[:2], color=GREY, alpha=0.25, lw=0, label="digits against digits")
axes[1].legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
axes[1].set(xlabel="Fréchet distance to real digits", xlim=(0, None), title="samples")
axes[1].set_yticks(range(len(arms)), arms)
axes[1].invert_yaxis()
plt.show()

# %% [markdown]
# Left: more practice near $\lambda = 0$, less loss there, and more at both ends. The authors call
# the middle the critical transition, from a picture in which noise rules to one in which the signal
# does. The grey network has the same expected loss as the orange one and does worse in the middle:
# the price of section 5.
#
# Right: Laplace levels give better samples. But is it *because* of less loss in the middle? The
# grey network has larger losses than the blue one, and its samples are better too. A loss per level
# does not tell how errors at different levels add up along a path.
#
# ## 7. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: what an input scale does
#
# Data of variance one are scaled by `b` under $\gamma(t) = 1 - t$, and $x_t$ is divided by its
# standard deviation. Return the $\gamma$ that the network sees, for `t` of shape `(n,)`.
#
# <details><summary>Hint</summary>
#
# The share of the variance of $x_t$ that is signal.
#
# </details>


# %% tags=["exercise"]
def effective_gamma(t, b):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def effective_gamma_solution(t, b):
    signal = (1 - t) * b**2
    return signal / (signal + t)


# %% tags=["check"]
check(
    effective_gamma,
    effective_gamma_solution,
    lambda rng: (rng.uniform(0, 1, 5), float(rng.uniform(0.1, 2))),
)

# %% [markdown]
# ### Exercise 2: a schedule from any density
#
# Given a rising grid of levels `logsnr` `(m,)` and a density on it `p` `(m,)`, not normalised,
# return $\lambda(t) = F^{-1}(1 - t)$ for `t` of shape `(n,)`. Use trapezia and straight lines
# between grid points.
#
# <details><summary>Hint</summary>
#
# Accumulate the areas of the trapezia, starting with 0, divide by the last, and look up $1 - t$
# with `np.interp`, the arguments exchanged.
#
# </details>


# %% tags=["exercise"]
def schedule_of(logsnr, p, t):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def schedule_of_solution(logsnr, p, t):
    areas = (p[1:] + p[:-1]) / 2 * np.diff(logsnr)
    below = np.concatenate([[0], np.cumsum(areas)])
    return np.interp(1 - t, below / below[-1], logsnr)


# %% tags=["check"]
check(
    schedule_of,
    schedule_of_solution,
    lambda rng: (np.linspace(-8, 8, 60), rng.uniform(0.1, 1, 60), rng.uniform(0, 1, 7)),
)

# %% [markdown]
# ## 8. What did not reproduce, and what to keep in mind
#
# Both papers' statements hold here, and they are one: choose a density of $\lambda$, centred where
# the picture is decided. Chen's $b$ moves the centre, by $2 \log b$; Hang et al. choose the width.
# Their $\mu = 0$ belongs to their pictures and their size, and would move with it.
#
# - **The factor is 2 for the noise, not quite for the best $b$.** With the exact denoiser the best
#   $b$ falls to a little more than half per doubling. Learned, it moves on a grid of six values and
#   the curves are rough. It is 1 at 8 pixels and 0.5 at 16, over twice that of the exact denoiser;
#   only the direction is claimed.
# - **All pixels or common content?** A perceptron of width 128 cannot pass on the noise of 256
#   pixels, and leaves some of it in its samples, whatever $b$. Judged by all pixels, and
#   among the four $b$ up to 1, the smallest was best for 16 pixels at five of six seeds; at the
#   sixth all four were alike.
# - **The gain is one of practice.** All claims held at seed 0 with half and with twice the learning
#   rate, and when patches had 700 steps and digits 1000 (in runs with the four $b$ up to 1 and a
#   judge trained on the training digits): no sign yet that it vanishes. A network with time and
#   room for all levels would have nothing to choose.
# - **The best width is not settled here.** The Fréchet distance prefers 0.25 or 0.5, by seed; three
#   networks and some 600 samples do not separate them.
#
# Smaller than in the papers: patches of 16 instead of images of 1024 pixels, digits instead of
# ImageNet, perceptrons of one block instead of U-Nets, RIN and transformers, DDIM alone, and only
# the target $v$. Patches held out come from the same photographs and overlap with others.
#
# **Next.** Kingma et al. (2021) for why only the end points of a schedule matter to the likelihood;
# Hoogeboom, Heek and Salimans (2023) for the same shift in large diffusion models; Karras et al.
# (2022) for the log-normal density of EDM; Kish (1965) for the size of a weighted sample.

# %%
# NBVAL_CHECK_OUTPUT
summary()
