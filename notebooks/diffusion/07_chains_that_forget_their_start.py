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
# # Chains that forget their start
#
# **Question.** A story is told, misheard and told again, many times over. A diffusion model makes
# pictures in the same way. What is left in the end, why does the kind of noise hardly matter, and
# how closely does such a chain follow a differential equation?
#
# ![The law of a reproduced number over thirty reproductions: with little noise it stays where it
# started, with much noise it becomes one blob, with falling noise it finds both peaks of the
# prior](07_chains_that_forget_their_start.png)
#
# **Reading** 20 minutes. **Running** under half a minute on two CPU cores, under 1 GB of memory.
#
# **Papers** `diffusion-serial-reproduction`: R. Marjieh, I. Sucholutsky, T. A. Langlois, N. Jacoby
# and T. L. Griffiths, *Analyzing diffusion as serial reproduction*, ICML 2023, PMLR
# 202:24005–24019, [arXiv:2209.14821](https://arxiv.org/abs/2209.14821).
# `ito-chains`: A. Ustimenko and A. Beznosikov, *Ito diffusion approximation of universal Ito chains
# for sampling, optimization and boosting*, ICLR 2024,
# [arXiv:2310.06081](https://arxiv.org/abs/2310.06081).
#
# You need Bayes' rule, matrices, and a first idea of a stochastic differential equation. Numbers
# in the text are measured below, unless other runs are named; the green cards say which statement
# was held against which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
n_grid: int = 801  # points of the line on which priors and posteriors are exact
noise: float = 0.8  # standard deviation of what a listener mishears, sections 1 to 3 and 5
n_reproductions: int = 60  # length of the chains with constant noise
noise_first: float = 3.0  # standard deviation at the start of the falling schedule
noise_last: float = 0.15  # and at its end
schedule_steps: int = 30  # reproductions in a schedule
train_steps: int = 600  # of the network that learns posteriors in the plane
n_plane: int = 1200  # chains in the plane
n_chains: int = 400_000  # chains on the line, section 7
step_sizes: list[float] = [0.4, 0.2, 0.1, 0.05]  # eta in section 7
n_runs: int = 5000  # runs of each algorithm in section 8, four times as many of SGLD
eta: float = 0.1  # step size of the three algorithms
finer: int = 8  # steps of the reference SDE per step of an algorithm
batch: int = 4  # patients in a mini-batch

# %%
from functools import lru_cache

import matplotlib.pyplot as plt
import numpy as np
import torch
from ipywidgets import FloatSlider, interact
from numpy.lib.stride_tricks import sliding_window_view
from scipy import stats
from scipy.ndimage import uniform_filter1d
from scipy.special import ndtri
from sklearn.datasets import load_breast_cancer
from torch import nn
from tqdm.auto import tqdm

from labkit import claim, metric
from labkit.claims import summary
from labkit.diffusion import GaussianMixture, energy_distance, sliced_wasserstein
from labkit.diffusion.training import descend
from labkit.exercises import check
from labkit.plots import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, house_style
from labkit.seeding import seeded

SERIAL, ITO = "diffusion-serial-reproduction", "ito-chains"
if n_grid < 201:
    raise ValueError(f"n_grid must be at least 201 to resolve the prior, not {n_grid}")
if not 0 < noise_last < noise_first:
    raise ValueError(f"need 0 < noise_last < noise_first, not {noise_last} and {noise_first}")
if not 0.3 <= noise <= 3:
    raise ValueError(f"noise must lie between 0.3 and 3, not {noise}")
if min(n_reproductions, schedule_steps, train_steps) < 20:
    raise ValueError(
        "n_reproductions, schedule_steps and train_steps must be at least 20, not "
        f"{n_reproductions}, {schedule_steps}, {train_steps}"
    )
if min(n_plane, n_chains, n_runs) < 100:
    raise ValueError(
        f"n_plane, n_chains and n_runs must be at least 100, not {n_plane}, {n_chains}, {n_runs}"
    )
if len(step_sizes) < 2 or not all(0 < size < 1 for size in (*step_sizes, eta)):
    raise ValueError(
        f"need two or more step_sizes, these and eta between 0 and 1, not {step_sizes} and {eta}"
    )
if min(finer, batch) < 1:
    raise ValueError(f"finer and batch must be at least 1, not {finer} and {batch}")

rng = np.random.default_rng(seed)
generator = torch.Generator().manual_seed(seed)
house_style()

# %% [markdown]
# ## 1. A game of telephone
#
# Somebody is shown a number $x_t$ and perceives it with noise, $y \sim p(y \mid x_t)$. Asked to
# reproduce it, the person answers with what they believe they have seen: a sample from the
# posterior $p(x \mid y) \propto \pi(x)\,p(y \mid x)$ under their prior $\pi$. The answer
# $x_{t+1}$ is shown to the next person, who shares the prior. Psychologists call this *serial
# reproduction*. One step has the kernel
#
# $$K(x' \mid x) = \sum_y p(x' \mid y)\, p(y \mid x) .$$
#
# **What does it converge to?** Write the flow from $x$ to $x'$ and use Bayes' rule once:
#
# $$\pi(x)\,K(x' \mid x) = \sum_y p(y)\; p(x \mid y)\; p(x' \mid y) .$$
#
# The right side does not change when $x$ and $x'$ trade places. This is *detailed balance*: $\pi$
# is stationary, **whatever the noise**, as long as it connects the places where $\pi$ lives. Nobody
# in the chain has to know how far it has come.
#
# A diffusion sampler plays the same game. It adds noise to a picture, and a network that has
# learned the prior from examples restores it.
#
# We start on a line, where nothing needs to be learned. Prior and posterior stand on a grid, and a
# kernel is a matrix. **A trap** lies at the ends of the line: if what is *perceived* were cut off
# there, and not normalised again, the chain would drift. So the grid of $y$ reaches farther than
# that of $x$.

# %%
x = np.linspace(-5, 5, n_grid)
cell = x[1] - x[0]
pi = 0.35 * stats.norm.pdf(x, -1.6, 0.45) + 0.65 * stats.norm.pdf(x, 1.2, 0.6)
pi /= pi.sum()

PEAK = 0.9  # of bimodal noise: peaks at ±0.9 standard deviations, narrow enough to fit
CDFS = {  # of noise of mean 0 and variance 1
    "Gaussian": stats.norm.cdf,
    "Laplace": stats.laplace(scale=0.5**0.5).cdf,
    "uniform": stats.uniform(-(3**0.5), 2 * 3**0.5).cdf,
    "bimodal": lambda z: sum(stats.norm.cdf(z, m, (1 - PEAK**2) ** 0.5) for m in (-PEAK, PEAK)) / 2,
}
COLOURS = dict(zip(CDFS, (BLUE, ORANGE, GREEN, PINK)))
MARKS = dict(zip(CDFS, "os^D"))


def noise_on_grid(family, std):
    """Offsets u (2R + 1,) and the probability of each, for noise of a standard deviation."""
    u = cell * np.arange(-round(8 * std / cell), round(8 * std / cell) + 1)
    tail = -np.abs(u)  # all families are symmetric, and on the left no digit is lost
    p = CDFS[family]((tail + cell / 2) / std) - CDFS[family]((tail - cell / 2) / std)
    return u, p / p.sum()


def perceive(family, std):
    """p(y | x), (n_grid, n_y); y is on the same grid, which goes on to both sides."""
    _, p = noise_on_grid(family, std)
    padded = np.pad(p, n_grid - 1)
    return sliding_window_view(padded, len(p) + n_grid - 1)[::-1]


def posterior(likelihood):
    """p(x | y), (n_y, n_grid), under the prior pi."""
    joint = (pi[:, None] * likelihood).T
    p_y = joint.sum(axis=1, keepdims=True)
    return np.divide(joint, p_y, out=np.zeros_like(joint), where=p_y > 0)


def total_variation(p, q):
    return 0.5 * np.abs(p - q).sum()


def run(K, steps, start):
    """Laws (steps + 1, n_grid) of the chain from the law `start`."""
    laws = [start]
    for _ in range(steps):
        laws.append(laws[-1] @ K)
    return np.stack(laws)


likelihoods = {family: perceive(family, noise) for family in CDFS}
kernels = {family: like @ posterior(like) for family, like in likelihoods.items()}
flows = {family: pi[:, None] * K for family, K in kernels.items()}
imbalance = max(np.abs(flow - flow.T).max() / flow.max() for flow in flows.values())
variances = [np.sum(p * u**2) for u, p in (noise_on_grid(family, noise) for family in CDFS)]

claim(
    SERIAL,
    "detailed balance: largest flow x→x′ less flow x′→x, relative to the largest flow, worst of "
    "four noise families",
    imbalance,
    at_most=1e-10,
)
claim(
    SERIAL,
    "the four noise families have one variance: largest relative to smallest",
    max(variances) / min(variances),
    at_most=1.005,
)

# %% [markdown]
# ## 2. The second eigenvalue
#
# Detailed balance does more. In the scalar product weighted by $\pi$ the kernel is symmetric, so
# its eigenvalues are real, $1 = \lambda_1 > \lambda_2 \ge \dots$, and here none is negative
# ($K$ is a perception followed by its own adjoint). From any start the distance to $\pi$ shrinks by
# $\lambda_2$ per reproduction in the end. We compute $\lambda_2$ from the matrix and compare with
# the total variation distance of a chain that starts from the uniform law.
#
# The four families have **equal variance**. Without that care one compares scales and calls it
# families: halving the standard deviation changes the speed far more than any change of shape.


# %%
def symmetric(K):
    """K in the scalar product of pi: symmetric for a chain in detailed balance."""
    S = np.sqrt(pi)[:, None] * K / np.sqrt(pi)
    return (S + S.T) / 2


def second_eigenvalue(K):
    return np.linalg.eigvalsh(symmetric(K))[-2]


uniform = np.full(n_grid, 1 / n_grid)
laws = {family: run(K, n_reproductions, uniform) for family, K in kernels.items()}
distance = {family: np.array([total_variation(p, pi) for p in law]) for family, law in laws.items()}
lam = {family: second_eigenvalue(K) for family, K in kernels.items()}
window = slice(10, 31) if n_reproductions >= 30 else slice(5, n_reproductions + 1)
rate = {}
for family, tv in distance.items():
    above_rounding = tv[window][tv[window] > 1e-10]
    rate[family] = np.exp(np.polyfit(np.arange(len(above_rounding)), np.log(above_rounding), 1)[0])

half_like = perceive("Gaussian", noise / 2)
half_gap = 1 - second_eigenvalue(half_like @ posterior(half_like))
gaps = 1 - np.array(list(lam.values()))
by_shape, by_scale = gaps.max() / gaps.min(), (1 - lam["Gaussian"]) / half_gap

fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.3), layout="constrained")
for family, colour in COLOURS.items():
    u, p = noise_on_grid(family, noise)
    axes[0].plot(u, p / cell, color=colour, label=family)
    axes[1].plot(x, laws[family][-1] / cell, color=colour)
    dots = {"marker": MARKS[family], "ms": 5, "markevery": (10, 10)}
    axes[2].semilogy(distance[family], color=colour, label=family, **dots)
    axes[2].semilogy(distance[family][10] * lam[family] ** np.arange(-10.0, 31), ":", color=colour)
axes[1].plot(x, pi / cell, "--", color=BLACK, lw=1, label="prior π")
axes[1].plot(x, uniform / cell, color=GREY, lw=1, label="start")
axes[2].plot([], [], ":", color=GREY, label="$λ_2^t$")
axes[0].set(xlim=(-3, 3), xlabel="noise, $y - x$", ylabel="density", title="equal variance")
axes[1].set(xlabel="$x$", ylabel="density", title=f"after {n_reproductions} reproductions")
axes[2].set(xlabel="reproduction $t$", ylabel="total variation to π", title="how fast")
for axis in axes:
    axis.legend(fontsize=8)
axes[0].set_ylim(0, 1.25 * axes[0].get_ylim()[1])
plt.show()
print("family      λ₂       measured rate   TV at the end")
for family in CDFS:
    print(f"{family:10} {lam[family]:.4f}   {rate[family]:.4f}          {distance[family][-1]:.1e}")

claim(
    SERIAL,
    "total variation distance to the prior after the last reproduction, worst of four families",
    max(tv[-1] for tv in distance.values()),
    at_most=0.005,
)
claim(
    SERIAL,
    "rate at which the distance shrinks, deviation relative to the second eigenvalue, worst family",
    max(abs(rate[family] / lam[family] - 1) for family in CDFS),
    at_most=0.05,
)
claim(
    SERIAL,
    "spectral gap 1 − λ₂ at one variance, largest family relative to smallest; at most half the "
    "factor that doubling the standard deviation brings",
    by_shape,
    at_most=by_scale / 2,
)

# %% [markdown]
# ## 3. Sample or mean?
#
# Most networks are trained to return the *mean* of the posterior: it has the smallest squared
# error. Suppose that everybody answered with the mean. Each answer is better, and the chain is
# worse, as its limit is no longer $\pi$. (The mean falls between two grid points; it is shared
# among them so that it stays exact.)


# %%
def mean_answer(exact):
    """p(x' | y), (n_y, n_grid), of someone who answers E[x | y], from the exact posterior."""
    position = (exact @ x - x[0]) / cell
    below = np.clip(position.astype(int), 0, n_grid - 2)
    row = np.arange(len(position))
    answer = np.zeros((len(position), n_grid))
    answer[row, below] = below + 1 - position
    answer[row, below + 1] = position - below
    return answer


def stationary(K):
    """The law (n_grid,) with p K = p."""
    A = K.T - np.eye(n_grid)
    A[-1] = 1  # one equation of the system is redundant; the sum is one instead
    return np.linalg.solve(A, np.eye(n_grid)[-1])


limits = {
    family: stationary(like @ mean_answer(posterior(like))) for family, like in likelihoods.items()
}
bias = {family: total_variation(p, pi) for family, p in limits.items()}

claim(
    SERIAL,
    "answering with the posterior mean: total variation of the limit to the prior, least biased of "
    "four families",
    min(bias.values()),
    at_least=0.2,
)

# %% [markdown]
# ## 4. Small noise: the chain becomes a diffusion
#
# What is this wrong limit? For small noise of variance $s^2$ both chains can be read as one step of
# a differential equation. To first order the posterior of any narrow symmetric noise has the mean
# $y + s^2\,(\log \pi)'(y)$ and the shape of the noise around it. Hence
#
# $$\text{sample:}\quad x' \approx x + s^2 (\log\pi)'(x) + \sqrt 2\, s\, e, \qquad
#   \text{mean:}\quad x' \approx x + s^2 (\log\pi)'(x) + s\, e ,$$
#
# where $e$ has variance one. With $\eta = s^2$ the first is a step of Langevin dynamics,
# $dZ = (\log\pi)'\,dt + \sqrt2\,dW$, whose limit is $\pi$. **Only the variance of the noise is left
# of its family.** The second has half the variance, half the temperature, and its limit is
# $\propto \pi^2$: peaks too high, rare things too rare. Two predictions without a free parameter:
#
# - $(1 - \lambda_2)/s^2$ tends to the spectral gap of Langevin dynamics, for every family;
# - the limit of the posterior mean tends to $\pi^2/\!\sum\pi^2$, for every family.


# %%
def langevin_gap():
    """Smallest nonzero eigenvalue of -L, L f = f'' + (log pi)' f', on the grid."""
    conductance = np.sqrt(pi[1:] * pi[:-1]) / cell**2  # reversible jumps between neighbours
    up = conductance / np.sqrt(pi[1:] * pi[:-1])
    out = np.zeros(n_grid)
    out[:-1] += conductance / pi[:-1]
    out[1:] += conductance / pi[1:]
    generator_matrix = np.diag(up, 1) + np.diag(up, -1) - np.diag(out)
    return -np.linalg.eigvalsh(generator_matrix)[-2]


def small_noise(family, std):
    """Scaled gap of the sampling chain; TV of the limit of the mean to pi and to pi squared."""
    like = perceive(family, std)
    exact = posterior(like)
    gap = (1 - second_eigenvalue(like @ exact)) / std**2
    limit = stationary(like @ mean_answer(exact))
    return gap, total_variation(limit, pi), total_variation(limit, pi_squared)


pi_squared = pi**2 / np.sum(pi**2)
SMALL = [0.2, 0.1, 0.05]
langevin = langevin_gap()
table = {
    family: np.array([small_noise(family, std) for std in SMALL])
    for family in tqdm(CDFS, leave=False)
}

fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.3), layout="constrained")
for family, colour in COLOURS.items():
    smoothed = uniform_filter1d(limits[family] / cell, 15, mode="constant")  # for the eye
    axes[0].plot(x, smoothed, color=colour, label=family)
    mark = MARKS[family]
    axes[1].semilogx(SMALL, table[family][:, 0], mark + "-", color=colour, label=family)
    axes[2].loglog(SMALL, table[family][:, 2], mark + "-", color=colour)
    axes[2].loglog(SMALL, table[family][:, 1], mark + "--", color=colour, lw=0.8, ms=3)
axes[0].plot(x, pi / cell, "--", color=BLACK, lw=1, label="prior π")
axes[0].plot(x, pi_squared / cell, ":", color=BLACK, lw=1.4, label="∝ π²")
axes[1].axhline(langevin, color=BLACK, ls=":", label="Langevin")
axes[2].plot([], [], "-", color=GREY, label="to ∝ π²")
axes[2].plot([], [], "--", color=GREY, lw=0.8, label="to π")
axes[0].set(xlabel="$x$", ylabel="density", title=f"means: limits at $s = {noise:g}$")
axes[1].set(ylabel="$(1 - λ_2)/s^2$", title="samples: speed")
axes[2].set(ylabel="total variation", title="means: distance of the limit")
for axis in axes[1:]:
    axis.set_xlabel("noise standard deviation $s$")
    axis.set_xticks(SMALL, [f"{std:g}" for std in SMALL])
    axis.minorticks_off()
for axis in axes:
    axis.legend(fontsize=8)
plt.show()

claim(
    SERIAL,
    "smallest noise: spectral gap over variance, relative deviation from Langevin dynamics, worst "
    "of four families",
    max(abs(rows[-1, 0] / langevin - 1) for rows in table.values()),
    at_most=0.05,
)
claim(
    SERIAL,
    "smallest noise, posterior mean: total variation of the limit to π², worst of four families, "
    "against its distance to π",
    max(rows[-1, 2] for rows in table.values()),
    at_most=min(rows[-1, 1] for rows in table.values()) / 10,
)

# %% [markdown]
# Both hold, to three percent at the smallest noise. (The spikes on the left, smoothed a little, sit
# where the mean hardly moves with $y$: many things heard, one answer.) So "weak sensitivity to the
# noise family" has two sources: the limit is the same at *any* noise, by detailed balance; and with
# small noise the way there is the same too.
#
# ## 5. Why a schedule?
#
# The paper says that a good schedule starts with much noise, to forget the start, ends with little,
# to reproduce faithfully, and has enough steps between. Take thirty reproductions from a point and
# Gaussian noise: much of it all the time, little of it all the time, or falling from one to the
# other.
#
# With **exact** posteriors much noise is best, in fact perfect: someone who has heard nothing draws
# from the prior, and one step is enough. The need for small noise comes in with *imperfect*
# listeners. A diffusion model draws from a **Gaussian** with the mean and variance of the
# posterior, and this is a good picture of a posterior only where the noise is small. So we also
# send the message through such listeners, and through those who answer with the mean.


# %%
def gaussian_answer(exact):
    """p(x' | y), (n_y, n_grid), a Gaussian with the mean and variance of the exact posterior."""
    mean = exact @ x
    variance = np.maximum(exact @ x**2 - mean**2, cell**2)
    answer = np.exp(-((x - mean[:, None]) ** 2) / (2 * variance[:, None]))
    return answer / answer.sum(axis=1, keepdims=True)


LISTENERS = {"exact": lambda exact: exact, "Gaussian": gaussian_answer, "mean": mean_answer}
SCHEDULES = {
    "little": np.full(schedule_steps, noise_last),
    "much": np.full(schedule_steps, noise_first),
    "falling": np.geomspace(noise_first, noise_last, schedule_steps),
    "falling, in 5": np.geomspace(noise_first, noise_last, 5),
}
at_one = np.zeros(n_grid)
at_one[np.abs(x - 1.2).argmin()] = 1


@lru_cache(maxsize=1)  # a constant schedule asks again and again
def perceive_and_answer(std):
    """p(y | x) of Gaussian noise, and p(x' | y) of every listener."""
    like = perceive("Gaussian", std)
    exact = posterior(like)
    return like, [answer(exact) for answer in LISTENERS.values()]


def told(laws, std):
    """Laws (listeners, n_grid) after one more reproduction, each by its own listener."""
    like, answers = perceive_and_answer(std)
    return np.stack([(p @ like) @ answer for p, answer in zip(laws, answers)])


histories = {}
for name, stds in SCHEDULES.items():
    history = [np.stack([at_one] * len(LISTENERS))]
    for std in stds:
        history.append(told(history[-1], std))
    histories[name] = np.stack(history)  # (steps + 1, listeners, n_grid)
missed = {
    name: {who: total_variation(p, pi) for who, p in zip(LISTENERS, history[-1])}
    for name, history in histories.items()
}
print("total variation to π at the end\nnoise          " + "".join(f"{w:>10}" for w in LISTENERS))
for name, row in missed.items():
    print(f"{name:15}" + "".join(f"{tv:10.4f}" for tv in row.values()))

# %% tags=["cover"]
fig, axes = plt.subplots(1, 4, figsize=(11.5, 3.2), layout="constrained", sharey=True)
for axis, name in zip(axes, ("little", "much", "falling")):
    law = histories[name][:, list(LISTENERS).index("Gaussian")]
    image = axis.imshow(
        law.T / cell, origin="lower", aspect="auto", cmap="Blues",
        vmin=0, vmax=0.7,
        extent=(-0.5, schedule_steps + 0.5, x[0] - cell / 2, x[-1] + cell / 2),
    )  # fmt: skip
    axis.set(xlabel="reproduction $t$", title=f"{name} noise", ylim=(-4, 4))
fig.colorbar(image, ax=axes[2], label="density", pad=0.02)
axes[0].set_ylabel("$x$")
for name, colour in {"little": GREY, "much": ORANGE, "falling": BLUE}.items():
    axes[3].plot(histories[name][-1, 1] / cell, x, color=colour, label=f"{name} noise")
axes[3].plot(pi / cell, x, "--", color=BLACK, lw=1.2, label="prior π")
axes[3].set(xlim=(0, 1.6 * pi.max() / cell), xlabel="density", title="at the end")
axes[3].legend(fontsize=8, loc="lower right")
plt.show()

# %%
claim(
    SERIAL,
    "falling noise, Gaussian listeners: total variation to the prior after the schedule",
    missed["falling"]["Gaussian"],
    at_most=0.02,
)
claim(
    SERIAL,
    "falling noise, exact listeners: total variation to the prior after the schedule",
    missed["falling"]["exact"],
    at_most=0.02,
)
claim(
    SERIAL,
    "constant small noise, exact listeners: total variation to the prior after as many steps",
    missed["little"]["exact"],
    at_least=0.3,
)
claim(
    SERIAL,
    "constant large noise, Gaussian listeners: total variation to the prior after as many steps",
    missed["much"]["Gaussian"],
    at_least=0.3,
)
claim(
    SERIAL,
    "enough steps: Gaussian listeners, the same falling noise in five steps, total variation to "
    "the prior relative to the whole schedule",
    missed["falling, in 5"]["Gaussian"] / missed["falling"]["Gaussian"],
    at_least=3,
)

# %% [markdown]
# Read the table by columns. Exact listeners need only *some* large noise. For Gaussian ones, which
# the picture shows, every part of the paper's advice counts: little noise leaves the message in the
# peak where it started, much noise ends in one broad blob, and five steps are too few. Means never
# get there.
#
# ## 6. Learned posteriors in the plane
#
# Now nobody is told the prior. A small network sees pairs of a clean point $x$ and a noisy $y$, at
# all levels of noise and with the four families (it is told which), and learns $p(x \mid y)$ by
# maximum likelihood, as a mixture of eight Gaussians. Samples and means come from the same network.
# Its output is scaled with the noise so that at small noise the answer is close to $y$.

# %%
angle = np.deg2rad([90.0, 210.0, 330.0])
prior_2d = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2]),
    1.4 * torch.tensor(np.stack([np.cos(angle), np.sin(angle)], axis=1)),
    stds=torch.tensor([0.35, 0.25, 0.3]),
)
FAMILIES = list(CDFS)


def unit_noise(family, shape):
    """Independent noise of mean 0 and variance 1 of a family."""
    z = {
        "Gaussian": lambda: rng.standard_normal(shape),
        "Laplace": lambda: rng.laplace(scale=0.5**0.5, size=shape),
        "uniform": lambda: rng.uniform(-(3**0.5), 3**0.5, shape),
        "bimodal": lambda: (
            PEAK * rng.choice([-1, 1], shape) + (1 - PEAK**2) ** 0.5 * rng.standard_normal(shape)
        ),
    }[family]()
    return torch.from_numpy(z).float()


class MixturePosterior(nn.Module):
    """p(x | y) as a mixture: y (B, 2), std (B, 1), family (B, 4) -> log weights, means, stds."""

    def __init__(self, width=64, parts=8):
        super().__init__()
        layers = []
        for size in (7, width, width):
            layers += [nn.Linear(size, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 5 * parts))

    def forward(self, y, std, family):
        spread = (1 + std**2).sqrt()  # of y, for a prior of variance one
        out = self.layers(torch.cat([y / spread, std.log(), family], dim=1)).unflatten(1, (-1, 5))
        wide = (std / spread)[:, None]
        mean = (y / spread**2)[:, None] + wide * out[..., :2]
        return out[..., 4].log_softmax(dim=1), mean, wide * (out[..., 2:4] - 1).clamp(-5, 3).exp()


def negative_log_likelihood(parts, x):
    log_weight, mean, std = parts
    z = (x[:, None] - mean) / std
    return -(log_weight - z.square().sum(-1) / 2 - std.log().sum(-1)).logsumexp(dim=1).mean()


pairs = 10_000  # of each family
clean = prior_2d.sample(4 * pairs, generator).float()
levels = torch.exp(torch.from_numpy(rng.uniform(np.log(0.1), np.log(6), (4 * pairs, 1)))).float()
noisy = clean + levels * torch.cat([unit_noise(family, (pairs, 2)) for family in FAMILIES])
which = torch.eye(4).repeat_interleave(pairs, dim=0)
with seeded(generator):
    listener = MixturePosterior()


def loss(i):
    return negative_log_likelihood(listener(noisy[i], levels[i], which[i]), clean[i])


_ = descend(
    listener, loss, len(clean), steps=train_steps, batch_size=256, lr=5e-3, generator=generator
)

# %%
real = prior_2d.sample(n_plane, generator).float()
start = prior_2d.means[1].float().expand(n_plane, 2)


@torch.no_grad()
def retell(family, stds, answer="sample"):
    """Points (n_plane, 2) after a chain of learned reproductions from the middle of one mode."""
    x, row = start, torch.arange(n_plane)
    one_hot = torch.eye(4)[FAMILIES.index(family)].expand(n_plane, 4)
    for std in stds:
        y = x + float(std) * unit_noise(family, x.shape)
        log_weight, mean, spread = listener(y, torch.full((n_plane, 1), float(std)), one_hot)
        if answer == "mean":
            x = (log_weight.exp()[..., None] * mean).sum(dim=1)
        else:
            k = torch.multinomial(log_weight.exp(), 1, generator=generator)[:, 0]
            x = mean[row, k] + spread[row, k] * torch.randn(x.shape, generator=generator)
    return x


constant = np.full(schedule_steps, noise)
CHAINS = {
    "falling": (SCHEDULES["falling"], "sample"),
    "little": (SCHEDULES["little"], "sample"),
    "sample": (constant, "sample"),
    "mean": (constant, "mean"),
}
ends = {family: {name: retell(family, *how) for name, how in CHAINS.items()} for family in FAMILIES}
energy = {
    family: {name: energy_distance(points, real) for name, points in row.items()}
    for family, row in ends.items()
}
null = energy_distance(prior_2d.sample(n_plane, generator).float(), real)
print(f"energy distance to the prior; {null:.4f} for as many points from the prior itself")
print(f"{'':10}" + "".join(f"{name:>10}" for name in CHAINS))
for family, row in energy.items():
    print(f"{family:10}" + "".join(f"{value:10.4f}" for value in row.values()))

fig, axes = plt.subplots(1, 4, figsize=(11.5, 3.1), layout="constrained", sharex=True, sharey=True)
shown = {
    "data": real,
    "falling noise, samples": ends["bimodal"]["falling"],
    "constant noise, means": ends["bimodal"]["mean"],
    "little noise, samples": ends["bimodal"]["little"],
}
for axis, (title, points), colour in zip(axes, shown.items(), (GREY, BLUE, ORANGE, PINK)):
    axis.plot(*points.T, ".", ms=2, color=colour, alpha=0.6)
    axis.set(title=title, xlabel="$x_1$", xlim=(-3, 3), ylim=(-2.4, 3), aspect="equal")
axes[0].set_ylabel("$x_2$")
fig.suptitle("learned listeners, bimodal noise", fontsize=10)
plt.show()

claim(
    SERIAL,
    "learned listeners: energy distance to the prior, samples relative to means at one constant "
    "noise, worst of four families",
    max(row["sample"] / row["mean"] for row in energy.values()),
    at_most=0.5,
)
claim(
    SERIAL,
    "learned listeners: energy distance to the prior, falling noise relative to constant small "
    "noise, worst of four families",
    max(row["falling"] / row["little"] for row in energy.values()),
    at_most=0.05,
)
metric("energy_falling_worst", max(row["falling"] for row in energy.values()))

# %% [markdown]
# The ordering of the line returns in the plane. What is left of the distance for samples is the
# network's error, and a chain repeats it at every step.
#
# ## 7. Any noise: universal Ito chains
#
# Section 4 turned a chain into a differential equation by hand. The second paper does it for a wide
# class at once. A *universal Ito chain* makes steps
#
# $$X_{k+1} = X_k + \eta\,\big(b(X_k) + g_k\big) + \eta^{(1+\gamma)/2}\,\big(\sigma(X_k) + f_k\big)
#   \,e_k(X_k) ,$$
#
# where the noise $e_k$ may be **non-Gaussian** and depend on the state, with mean zero and
# covariance $I + O(\eta^\beta)$, and $g$, $f$ are errors of order $\eta^\alpha$. Its partner is
#
# $$dZ = b(Z)\,dt + \eta^{\gamma/2}\,\sigma(Z)\,dW .$$
#
# The power $\gamma$ tells the algorithms apart. Langevin sampling adds noise of its own size,
# $\sqrt\eta$: $\gamma = 0$. Stochastic gradient descent multiplies the noise by the step, $\eta$:
# $\gamma = 1$, and so does boosting with random learners. Without asking for convexity the
# theorem bounds the Wasserstein distance of the *laws*,
#
# $$W_2\big(\mathcal L(X_k), \mathcal L(Z_{k\eta})\big) = O\big((1 + \sqrt{k\eta})\,e^{O(k\eta)}\,
#   \eta^\theta + (k\eta)^{1/4} e^{O(k\eta)}\,\eta^{\theta/2 + \gamma/4}\big),$$
#
# with $\theta = \min\{\alpha, \frac{(\gamma+1)(1+\chi_0) + (\gamma+\beta)(1-\chi_0)}{4}\}$ and
# $\chi_0 = 1$ for Gaussian noise, else 0. At a fixed time $k\eta$ this is a power of $\eta$. With
# no errors and the right covariance ($\beta = 1$) it is $1/4$ for $\gamma = 0$ and $3/4$ for
# $\gamma = 1$, Gaussian or not.
#
# **What can a measurement say?** A bound promises *at least* this rate, for the worst chain it
# covers. We measure simple ones, where the law of $Z$ is known: the Ornstein–Uhlenbeck process
# $b = -x$, $\sigma = \sqrt 2$, from $x_0 = 2$ to time 2. In one dimension $W_2$ needs no search:
# sort the samples and compare quantiles. Three noises of variance one: Gaussian, a coin ±1
# (Rademacher), and a skewed one, exponential less its mean. The last row takes the drift away.

# %%
TIME, X0 = 2.0, 2.0
NOISES = {
    "Gaussian": lambda n: rng.standard_normal(n, dtype=np.float32),
    "Rademacher": lambda n: 2 * rng.integers(0, 2, n, dtype=np.int8).astype(np.float32) - 1,
    "skewed": lambda n: rng.standard_exponential(n, dtype=np.float32) - 1,
}


def ito_chain(X, b, noise, eta, gamma, steps):
    """Law of the chain after some steps; noise(X) draws sigma(X) e(X), shaped like X."""
    for _ in range(steps):
        X = X + eta * b(X) + eta ** ((1 + gamma) / 2) * noise(X)
    return X


def w2_to_normal(samples, mean, std):
    """W2 between samples (n,) and a normal law: both quantile functions, side by side."""
    z = ndtri((np.arange(len(samples)) + 0.5) / len(samples))
    return float(np.sqrt(np.mean((np.sort(samples) - mean - std * z) ** 2)))


def measured_w2(kind, eta, gamma, drift):
    """W2 at time TIME between the chain and its SDE, dZ = -drift Z dt + eta^(gamma/2) √2 dW."""
    X = np.full(n_chains, X0, np.float32)
    X = ito_chain(
        X, lambda X: -drift * X, lambda X: np.float32(2**0.5) * NOISES[kind](len(X)), eta, gamma,
        round(TIME / eta),
    )  # fmt: skip
    variance = 1 - np.exp(-2 * TIME) if drift else 2 * TIME
    return w2_to_normal(X, X0 * np.exp(-drift * TIME), (eta**gamma * variance) ** 0.5)


def guaranteed(gamma, gaussian, alpha=np.inf, beta=1.0):
    """Power of eta in the theorem at a fixed time."""
    chi0 = float(gaussian)
    theta = min(alpha, ((gamma + 1) * (1 + chi0) + (gamma + beta) * (1 - chi0)) / 4)
    return min(theta, theta / 2 + gamma / 4)


if any(abs(TIME / size - round(TIME / size)) > 1e-6 for size in step_sizes):
    raise ValueError(f"step_sizes must divide {TIME:g}, not {step_sizes}")
cases = [(kind, gamma, 1) for gamma in (0, 1) for kind in NOISES] + [("Rademacher", 0, 0)]
w2 = {
    case: np.array([measured_w2(case[0], size, *case[1:]) for size in step_sizes])
    for case in tqdm(cases, leave=False)
}
slope = {case: np.polyfit(np.log(step_sizes), np.log(values), 1)[0] for case, values in w2.items()}
floor = w2_to_normal(rng.standard_normal(n_chains), 0, 1)
print(f"Monte Carlo floor of W2, samples from the law itself: {floor:.4f}")
print("noise        γ   drift   slope   guaranteed")
for (kind, gamma, drift), measured in slope.items():
    promise = guaranteed(gamma, kind == "Gaussian")
    print(f"{kind:12} {gamma}   {'-x' if drift else ' 0'}      {measured:.2f}    {promise:.2f}")

# %% [markdown]
# **A trap.** Pathwise error is the wrong ruler. Let chain and diffusion share their randomness as
# well as they can: the coin is the sign of the Gaussian. The two paths stay apart by the same
# amount however small the step, while the laws come together.


# %%
def pathwise_error(eta, n=50_000):
    """Root mean square distance of a Rademacher chain from a Gaussian one of the same signs."""
    coin, gaussian = np.full((2, n), X0)
    for _ in range(round(TIME / eta)):
        xi = rng.standard_normal(n)
        gaussian = gaussian - eta * gaussian + (2 * eta) ** 0.5 * xi
        coin = coin - eta * coin + (2 * eta) ** 0.5 * np.sign(xi)
    return float(np.sqrt(np.mean((coin - gaussian) ** 2)))


paths = np.array([pathwise_error(size) for size in step_sizes])

fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.4), layout="constrained", sharey=True)
marks = dict(zip(NOISES, ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"))))
for axis, gamma in zip(axes, (0, 1)):
    for kind, (colour, mark) in marks.items():
        case = (kind, gamma, 1)
        label = f"{kind}: {slope[case]:.2f}"
        axis.loglog(step_sizes, w2[case], mark + "-", color=colour, label=label)
    power = guaranteed(gamma, gaussian=False)
    anchor = 1.6 * w2["skewed", gamma, 1][0] * (np.array(step_sizes) / step_sizes[0]) ** power
    axis.loglog(step_sizes, anchor, ":", color=BLACK, label=f"guaranteed: {power:.2f}")
    axis.set_title(f"drift $-x$, γ = {gamma}")
case = ("Rademacher", 0, 0)
axes[2].loglog(step_sizes, paths, "d--", color=GREY, label="drift $-x$, paths (rms)")
axes[2].loglog(step_sizes, w2[case], "s-", color=PINK, label=f"no drift, laws: {slope[case]:.2f}")
axes[2].loglog(step_sizes, w2["Rademacher", 0, 1], "s-", color=ORANGE, label="drift $-x$, laws")
axes[2].set_title("Rademacher noise, γ = 0")
for axis in axes:
    axis.axhline(floor, color=GREY, lw=0.8)
    axis.set(xlabel="step size η", ylim=(0.6 * floor, 6))
    axis.set_xticks(step_sizes, [f"{size:g}" for size in step_sizes])
    axis.minorticks_off()
    axis.legend(fontsize=8, loc="upper left")
axes[0].set_ylabel("$W_2$ to the SDE; thin grey: floor")
plt.show()

claim(
    ITO,
    "Ornstein–Uhlenbeck, γ = 0, Gaussian noise: slope of log W₂ on log step size",
    slope["Gaussian", 0, 1],
    at_least=0.85,
    at_most=1.3,
)
claim(
    ITO,
    "Ornstein–Uhlenbeck, γ = 0, Rademacher noise: slope of log W₂ on log step size",
    slope["Rademacher", 0, 1],
    at_least=0.85,
    at_most=1.35,
)
claim(
    ITO,
    "slope of log W₂ less the power that the theorem guarantees, worst of seven chains",
    min(s - guaranteed(case[1], case[0] == "Gaussian") for case, s in slope.items()),
    at_least=0.1,
)
claim(
    ITO,
    "against a hasty reading: skewed noise is not as good as Gaussian, its slope at γ = 0",
    slope["skewed", 0, 1],
    at_most=0.75,
)
claim(
    ITO,
    "against a hasty reading: nor is Rademacher noise without drift, its slope at γ = 0",
    slope["Rademacher", 0, 0],
    at_least=0.4,
    at_most=0.65,
)
claim(
    ITO,
    "trap: pathwise error of Rademacher noise, smallest step relative to largest; at least three "
    "times the same ratio for W₂ of the laws",
    paths[-1] / paths[0],
    at_least=3 * float(w2["Rademacher", 0, 1][-1] / w2["Rademacher", 0, 1][0]),
)

# %% [markdown]
# Every chain is at least as good as promised, none as bad. With a pulling drift, a fair coin is as
# good as a Gaussian: slope one. But **this is no law of nature.** A sum of $k \sim 1/\eta$ skewed
# terms differs from a Gaussian by $1/\sqrt k$, and the slope falls to one half. And without a drift
# the coin's chain lives on a lattice of spacing $2\sqrt{2\eta}$; smoothing it out costs the
# spacing divided by $\sqrt{12}$, one half again. A fair coin is good because it has no third moment
# *and* because the contraction scrambles the lattice. For $\gamma = 0$ we found no chain slower
# than one half, and the theorem proves one quarter: our measurement is consistent with it, and can
# neither confirm nor refute that power.
#
# ## 8. Three algorithms, one code path
#
# Now the noise is not ours to choose. Each algorithm is a drift $b$ and a noise that it *really*
# makes; its SDE is the same function, with Gaussian noise of the same covariance and eight times
# finer steps.
#
# - **SGLD** ($\gamma = 0$) draws from the two-peaked prior of section 1, and its gradient is wrong
#   by a random ±2, as if from a small sample. Covariance $2 + 4\eta$: the theorem's $\beta = 1$.
# - **Mini-batch SGD** ($\gamma = 1$) fits a linear regression to the breast cancer data, malignant
#   against benign, on four whitened principal components, four patients at a time. The noise is the
#   sampling of patients; its covariance depends on the state.
# - **Stochastic boosting** ($\gamma = 1$) fits the share of malignant tumours by mean radius, in
#   sixteen bins of equally many patients. Each round draws a random threshold, fits a *stump* to
#   the residuals $r$ (the mean on either side), and adds it with shrinkage $\eta$. Averaged over
#   thresholds this is the drift $b = Kr$.
#
# As a baseline, each chain is also held against SDEs of the **wrong noise power**, $\gamma - 1$ and
# $\gamma + 1$, and the better of the two counts. In the picture $\gamma + 1$ is so narrow that it
# runs out at the top; the right panel leaves it out.

# %%
table_of_patients = load_breast_cancer()
malignant = 1.0 - table_of_patients.target
features = stats.zscore(table_of_patients.data)
U, _, _ = np.linalg.svd(features, full_matrices=False)
A = U[:, :4] * np.sqrt(len(U))  # whitened: A'A / N = I
target = 2 * malignant - 1 - (2 * malignant - 1).mean()
optimum = A.T @ target / len(A)
data = np.column_stack([A, target])
# Second moments of one patient's gradient a (a.w - y) are quadratic in (w, -1).
fourth = np.einsum("ij,ik,il,im->lmjk", A, A, data, data).reshape(25, 4, 4) / len(A)


def sgld_drift(X):
    near = 0.35 / 0.45 * np.exp(-(((X + 1.6) / 0.45) ** 2) / 2)
    far = 0.65 / 0.6 * np.exp(-(((X - 1.2) / 0.6) ** 2) / 2)
    return -(near * (X + 1.6) / 0.45**2 + far * (X - 1.2) / 0.6**2) / (near + far)


def sgld_noise(X):
    wrong_by = 2 * rng.choice([-1, 1], X.shape)  # of the gradient, times sqrt(eta) here
    return 2**0.5 * rng.standard_normal(X.shape) + eta**0.5 * wrong_by


def sgld_gaussian(X):
    return 2**0.5 * rng.standard_normal(X.shape)


def sgd_drift(w):
    return optimum - w


def sgd_noise(w):
    """What a mini-batch adds to the full gradient step."""
    drawn = data[rng.integers(len(A), size=(len(w), batch))]  # (runs, batch, 5)
    residual = np.einsum("nbj,nj->nb", drawn[..., :4], w) - drawn[..., 4]
    return -np.einsum("nb,nbj->nj", residual, drawn[..., :4]) / batch - sgd_drift(w)


def sgd_gaussian(w):
    """Gaussian noise of the covariance of a mini-batch gradient at w."""
    v = np.column_stack([w, np.full(len(w), -1.0)])
    gradient = -sgd_drift(w)
    C = np.tensordot(np.einsum("nl,nm->nlm", v, v).reshape(-1, 25), fourth, axes=1)
    C = (C - gradient[:, :, None] * gradient[:, None, :]) / batch
    return np.einsum("njk,nk->nj", np.linalg.cholesky(C), rng.standard_normal(w.shape))


n_bins = 16
radius = table_of_patients.data[:, 0]
bins = np.array_split(np.argsort(radius, kind="stable"), n_bins)
share = np.array([malignant[members].mean() for members in bins])
centre = np.array([radius[members].mean() for members in bins])


left = np.tri(n_bins, dtype=bool)[:-1]  # (stumps, bins): the bins left of each threshold


def leaves(r):
    """Means (runs, stumps) of residuals r (runs, bins) left and right of every threshold."""
    return r @ (left / left.sum(axis=1, keepdims=True)).T, r @ (
        ~left / (~left).sum(1, keepdims=True)
    ).T


def boosting_drift(F):
    """K r, the mean fit of all stumps."""
    below, above = leaves(share - F)
    return (below @ left + above @ ~left) / len(left)


def boosting_noise(F):
    """What a random stump adds to the mean of all."""
    m, row = rng.integers(len(left), size=len(F)), np.arange(len(F))
    below, above = (means[row, m, None] for means in leaves(share - F))
    return np.where(left[m], below, above) - boosting_drift(F)


def boosting_gaussian(F):
    """Gaussian noise with the covariance of a random stump's fit: one weight per stump."""
    zeta = rng.standard_normal((len(F), len(left))) / np.sqrt(len(left))
    below, above = leaves(share - F)
    weighted = (zeta * below) @ left + (zeta * above) @ ~left
    return weighted - zeta.sum(axis=1, keepdims=True) * boosting_drift(F)


ALGORITHMS = {  # start, drift, real noise, Gaussian noise, gamma, time
    "SGLD": (np.full((4 * n_runs, 1), -0.3), sgld_drift, sgld_noise, sgld_gaussian, 0, 2.0),
    "SGD": (np.zeros((n_runs, 4)), sgd_drift, sgd_noise, sgd_gaussian, 1, 2.0),
    "boosting": (
        np.full((n_runs, n_bins), share.mean()),
        boosting_drift,
        boosting_noise,
        boosting_gaussian,
        1,
        2.0,
    ),
}


def sde(start, b, gaussian, gamma, time):
    """dZ = b dt + eta^(gamma/2) sigma dW by Euler–Maruyama: an Ito chain of finer steps."""

    def scaled(Z):
        return eta ** (gamma / 2) * gaussian(Z)

    h = eta / finer
    return ito_chain(start, b, scaled, h, 0, round(time / h))


laws_of = {}
for name, (first, b, real_noise, gaussian, gamma, time) in tqdm(ALGORITHMS.items(), leave=False):
    laws_of[name] = {"algorithm": ito_chain(first, b, real_noise, eta, gamma, round(time / eta))}
    for label, power in (("its SDE", gamma), ("γ − 1", gamma - 1), ("γ + 1", gamma + 1)):
        laws_of[name][label] = sde(first, b, gaussian, power, time)


# %%
def distance_in_law(X, Z):
    """W2 on the line, and its mean over directions (sliced W2) in more dimensions."""
    X, Z = torch.from_numpy(X), torch.from_numpy(Z)
    directions = 64 if X.shape[1] > 1 else 1
    return sliced_wasserstein(X, Z, directions, generator=torch.Generator().manual_seed(seed))


apart = {
    name: {
        label: distance_in_law(of["algorithm"], of[label])
        for label in ("its SDE", "γ − 1", "γ + 1")
    }
    for name, of in laws_of.items()
}
for name, of in laws_of.items():
    half = len(of["its SDE"]) // 2
    apart[name]["floor"] = distance_in_law(of["its SDE"][:half], of["its SDE"][half : 2 * half])
ratio = {name: row["its SDE"] / min(row["γ − 1"], row["γ + 1"]) for name, row in apart.items()}
print("W2 (sliced) from the algorithm to an SDE; floor: one half of the SDE's runs to the other")
print(f"{'':10}" + "".join(f"{label:>14}" for label in apart["SGLD"]) + "   right / best wrong")
for name, row in apart.items():
    print(f"{name:10}" + "".join(f"{v:14.4f}" for v in row.values()) + f"{ratio[name]:14.2f}")

fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.4), layout="constrained")
LINES = {"algorithm": BLACK, "its SDE": BLUE, "γ − 1": ORANGE, "γ + 1": AMBER}
for axis, (name, unit) in zip(axes, (("SGLD", "$x$"), ("SGD", "first weight $w_1$"))):
    shown = {label: laws_of[name][label][:, 0] for label in LINES}
    low, high = np.quantile(shown["γ − 1"], [0.04, 0.96])
    edges = np.linspace(low, high, 50)
    for label, colour in LINES.items():
        filled = {"histtype": "stepfilled", "alpha": 0.2} if label == "algorithm" else {"lw": 1.6}
        axis.hist(shown[label], edges, density=True, color=colour, label=label,
                  **{"histtype": "step", **filled})  # fmt: skip
    heights = [np.histogram(shown[label], edges, density=True)[0].max() for label in LINES]
    axis.set(xlabel=unit, ylabel="density", ylim=(0, 1.6 * max(heights[:2])))
    axis.legend(fontsize=8)
axes[0].set_title("SGLD on two peaks, γ = 0")
axes[1].set_title("SGD, breast cancer data, γ = 1")
BANDS = {"γ − 1": {"color": ORANGE, "alpha": 0.35}, "its SDE": {"color": SKY}, "algorithm": {}}
for label, look in BANDS.items():
    low, high = np.quantile(laws_of["boosting"][label], [0.05, 0.95], axis=0)
    if label == "algorithm":
        axes[2].plot(centre, low, "--", centre, high, "--", color=BLACK, lw=1.2)
        axes[2].plot([], [], "--", color=BLACK, label=label)
    else:
        axes[2].fill_between(centre, low, high, lw=0, label=label, **look)
axes[2].plot(centre, share, "o", color=GREY, ms=4, label="patients")
axes[2].set(xlabel="mean radius of the tumour's cells", ylabel="share malignant", ylim=(-0.15, 1.4))
axes[2].set_title("boosting, 5 to 95 % of runs, γ = 1")
axes[2].legend(fontsize=8, loc="upper left")
plt.show()

for name, what in {"SGLD": "SGLD on a double well", "SGD": "mini-batch SGD on breast cancer data",
                   "boosting": "boosting with random stumps"}.items():  # fmt: skip
    claim(
        ITO,
        f"{what}: W₂ to its SDE relative to the better SDE of a wrong noise power",
        ratio[name],
        at_most=0.5,
    )

# %% [markdown]
# ## 9. Choose the noise
#
# The dashed line is the prior, the filled one the limit of a chain that answers with the mean. Add
# noise and watch samples forget faster while means lose first the smaller peak, then their spread.


# %%
def explore(std=0.8, family="bimodal"):
    """Speed of the sampling chain and limit of the mean at one noise."""
    like = perceive(family, std)
    exact = posterior(like)
    K = like @ exact
    laws = run(K, 30, at_one)
    tv = [total_variation(p, pi) for p in laws]
    limit = stationary(like @ mean_answer(exact))
    _, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    axes[0].fill_between(x, limit / cell, color=ORANGE, alpha=0.5, lw=0, label="limit of means")
    axes[0].plot(x, laws[-1] / cell, color=BLUE, label="samples, 30 steps")
    axes[0].plot(x, pi / cell, "--", color=BLACK, label="prior π")
    axes[1].semilogy(np.maximum(tv, 1e-12), "o-", ms=3, color=BLUE)
    axes[0].set(xlabel="$x$", ylabel="density", ylim=(0, 1.5), title=f"{family} noise, std {std:g}")
    axes[1].set(xlabel="reproduction $t$", ylabel="total variation to π", ylim=(1e-8, 1.2))
    axes[1].set_title(f"samples, $λ_2$ = {second_eigenvalue(K):.3f}")
    axes[0].legend(fontsize=8)
    plt.show()


_ = interact(
    explore,
    std=FloatSlider(0.8, min=0.2, max=3, step=0.1, description="noise", continuous_update=False),
    family=list(CDFS),
)

# %%
explore(1.5)  # the same without the slider, for those who read this on paper

# %% [markdown]
# ## 10. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: a chain for any prior
#
# Given a prior of shape `(n,)` and a likelihood $p(y \mid x)$ of shape `(n, m)`, return the kernel
# of serial reproduction, `(n, n)`, whose row $x$ holds $K(\cdot \mid x)$.
#
# <details><summary>Hint</summary>
#
# The posterior, (m, n), is the transposed joint probability, divided by its sums over $x$.
#
# </details>


# %% tags=["exercise"]
def reproduction_kernel(prior, likelihood):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def reproduction_kernel_solution(prior, likelihood):
    joint = prior[:, None] * likelihood
    return likelihood @ (joint / joint.sum(axis=0)).T


# %% tags=["check"]
check(
    reproduction_kernel,
    reproduction_kernel_solution,
    lambda rng: (rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(9), size=6)),
)

# %% [markdown]
# ### Exercise 2: the slope without a simulation
#
# For Gaussian noise the Ornstein–Uhlenbeck chain of section 7 is Gaussian at every step. Return
# $W_2$ between $X_k$ and $Z_{k\eta}$ from `x0`, exactly.
#
# <details><summary>Hint</summary>
#
# Mean $x_0 (1-\eta)^k$; the variance is a geometric sum of $2\eta^{1+\gamma}(1-\eta)^{2i}$. Between
# normal laws on a line, $W_2^2$ is the squared difference of means plus that of standard
# deviations.
#
# </details>


# %% tags=["exercise"]
def exact_w2(x0, eta, gamma, k):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def exact_w2_solution(x0, eta, gamma, k):
    shrink = (1 - eta) ** (2 * np.arange(k))
    std_chain = np.sqrt(2 * eta ** (1 + gamma) * shrink.sum())
    std_sde = np.sqrt(eta**gamma * (1 - np.exp(-2 * k * eta)))
    mean_gap = x0 * ((1 - eta) ** k - np.exp(-k * eta))
    return np.hypot(mean_gap, std_chain - std_sde)


# %% tags=["check"]
check(
    exact_w2,
    exact_w2_solution,
    lambda rng: (
        float(rng.normal()), float(rng.uniform(0.01, 0.5)), int(rng.integers(0, 2)),
        int(rng.integers(1, 40)),
    ),
)  # fmt: skip

# %% [markdown]
# ### Exercise 3: what a random stump learns on average
#
# Given residuals `r` of shape `(n,)` in the order of the feature, return the mean over all
# $n - 1$ thresholds of the fitted stump, `(n,)`: the drift of boosting.
#
# <details><summary>Hint</summary>
#
# For threshold $m$ the fit is `r[:m].mean()` on the left and `r[m:].mean()` on the right.
#
# </details>


# %% tags=["exercise"]
def mean_stump(r):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def mean_stump_solution(r):
    fits = np.zeros((len(r) - 1, len(r)))
    for m in range(1, len(r)):
        fits[m - 1, :m] = r[:m].mean()
        fits[m - 1, m:] = r[m:].mean()
    return fits.mean(axis=0)


# %% tags=["check"]
check(mean_stump, mean_stump_solution, lambda rng: (rng.standard_normal(7),))

# %% [markdown]
# ## 11. What did not reproduce, and what to keep in mind
#
# The first paper's picture holds throughout: detailed balance to the last digit, one limit for four
# families of noise, the second eigenvalue as the clock, and a schedule that is loud first and quiet
# last. Three remarks.
#
# - **The schedule is for imperfect listeners.** With exact posteriors the best schedule is noise
#   that drowns everything, once. That quiet steps and many steps are needed follows not from
#   detailed balance but from what the reproducer cannot do; we added the Gaussian listener to see
#   it.
# - **Insensitive are samples, not means.** At one variance the limit of the posterior mean differs
#   widely between families (left picture of section 4), and only for small noise becomes $\pi^2$,
#   whatever the family. This limit is our remark, not the paper's.
# - **A diffusion model is a cousin of this chain.** It keeps part of the old noise from step to
#   step, where we add fresh noise to every answer. The laws of the noisy points are the same.
#
# For the second paper, all that we measured respects the bound, and none of it comes near.
#
# - **"Non-Gaussian noise is as good"** is true of the theorem's powers, and of a fair coin with a
#   drift. It is not true of measured rates: skewness or a lattice cost half a power.
# - **The factors $e^{O(k\eta)}$ and the errors $f$, $g$ are not tested**: time was fixed at 2, and
#   our chains have exact drifts. The window coupling of the proof is not re-enacted.
# - **The wrong power is an easy opponent.** With $\gamma + 1$ the SDE is almost noiseless, with
#   $\gamma - 1$ far too loud. That the right one leaves a tenth to a quarter of the error shows
#   that the noise was understood, no more. What is left for SGLD is the discretisation: at
#   $\eta = 0.1$ a step in the narrow peak undoes half of the displacement.
# - In four and sixteen dimensions we measure $W_2$ along random directions (*sliced*), which is
#   never larger than $W_2$.
#
# Smaller than in the papers: numbers and points in the plane instead of images; the second paper
# has no experiments. Claims were tried at seeds 0 to 9.
#
# **Next.** Xu and Griffiths (2010) for serial reproduction as a Markov chain; Bartlett (1932) for
# the original game; Welling and Teh (2011) for SGLD; Li, Tai and E (2017) for SGD as a
# differential equation; Ustimenko and Prokhorenkova (2021) for Langevin boosting.

# %%
# NBVAL_CHECK_OUTPUT
summary()
