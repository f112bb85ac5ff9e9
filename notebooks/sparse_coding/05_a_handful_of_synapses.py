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
# # A handful of synapses
#
# **Question.** A cortical neuron listens to thousands of others, and a spike in one of its
# dendrites takes about a dozen of them. How can so few synapses tell one pattern from all the
# rest, in spite of noise, and even keep several patterns apart?
#
# ![A pattern that a dendrite has stored, the same pattern damaged, and another one; and how the
# risk of a mistake falls with the number of cells](05_a_handful_of_synapses.png)
#
# **Reading** 15 minutes. **Running** under 15 seconds on two CPU cores, under 1 GB of memory.
#
# **Paper** `sdr-active-dendrites-theory`: S. Ahmad and J. Hawkins, *How do neurons operate on
# sparse distributed representations? A mathematical theory of sparsity, neurons and active
# dendrites*, 2016, [arXiv:1601.00720](https://arxiv.org/abs/1601.00720).
#
# You need binomial coefficients and nothing about neurons. Every number in the text is measured
# below; the green cards say which statement was held against which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
n_draws: int = 40_000  # random patterns per setting, to count mistakes
n: int = 2000  # cells in the population
a: int = 64  # cells active in each pattern
s: int = 20  # synapses of a segment
theta: int = 10  # active synapses that make it fire
corrupted: float = 0.4  # share of a pattern's active cells that noise moves elsewhere
n_union: int = 10_000  # cells where one segment stores several patterns
s_union: int = 24  # synapses per stored pattern there
theta_union: int = 12  # threshold there
n_unions: int = 200  # random unions per number of patterns
n_segments: int = 500  # of a neuron

# %%
from fractions import Fraction
from math import comb

import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import IntSlider, interact
from matplotlib.colors import ListedColormap
from scipy.special import gammaln, logsumexp
from scipy.stats import binom, hypergeom

from labkit import claim, metric
from labkit.checks import check_count, check_ranges
from labkit.claims import summary
from labkit.data import natural_images
from labkit.data.patches import whitened_patches
from labkit.exercises import check
from labkit.plots import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK, house_style

PAPER = "sdr-active-dendrites-theory"
check_ranges(globals(), n=(400, 20_000), n_union=(400, 100_000), corrupted=(0, 0.99))
check_count(100, n_draws=n_draws, n_unions=n_unions)
check_count(n_segments=n_segments)
if not 1 <= theta <= s <= a <= n // 4:
    raise ValueError(f"need 1 <= theta <= s <= a <= n / 4, not {theta}, {s}, {a}, {n}")
if not 1 <= theta_union <= s_union <= a <= n_union // 10:
    raise ValueError(
        f"need 1 <= theta_union <= s_union <= a <= n_union / 10, not {theta_union}, {s_union}, "
        f"{a}, {n_union}"
    )

house_style()
rng = np.random.default_rng(seed)

# %% [markdown]
# ## 1. A segment, and two ways to be wrong
#
# A population has $n$ cells, of which $a$ are active at a time: a **sparse distributed
# representation** (SDR). A stretch of dendrite, a *segment*, has formed $s$ synapses onto active
# cells of one pattern, close enough together to start an NMDA spike: it fires if at least $\theta$
# of them are active at once. So it stores a *sample* of the pattern, not all of it.
#
# It is wrong in two ways. It may fire for a pattern that it never stored (**false match**), and may
# stay silent when its own comes back damaged (**miss**).


# %%
def random_patterns(count, n, a):
    """Patterns (count, n) bool with exactly a active cells each, uniformly at random."""
    keys = rng.random((count, n))
    return keys <= np.partition(keys, a - 1, axis=1)[:, a - 1 : a]


def damaged(pattern, share):
    """The pattern (n,) with that share of its active cells silenced and as many others active."""
    moved = round(share * pattern.sum())
    lost = rng.choice(np.flatnonzero(pattern), moved, replace=False)
    gained = rng.choice(np.flatnonzero(~pattern), moved, replace=False)
    noisy = pattern.copy()
    noisy[lost], noisy[gained] = False, True
    return noisy


stored = random_patterns(1, n, a)[0]
segment = rng.choice(np.flatnonzero(stored), s, replace=False)  # indices of s of its active cells
shown = {
    "the pattern it stored": stored,
    f"the same, {corrupted:.0%} moved": damaged(stored, corrupted),
    "another pattern": random_patterns(1, n, a)[0],
}
for title, pattern in shown.items():
    hit = int(pattern[segment].sum())
    print(f"{title:24} {hit:3} of {s} synapses active: {'spike' if hit >= theta else 'silence'}")

# %% [markdown]
# ## 2. The chance of a false match
#
# How many of the $s$ synapses does a random pattern hit? Of all $\binom{n}{a}$ patterns,
# $\binom{s}{b}\binom{n-s}{a-b}$ have exactly $b$ of their cells among the $s$: choose these $b$,
# and the other $a - b$ elsewhere. So the overlap is *hypergeometric*, and
#
# $$P_\text{fp} = \sum_{b=\theta}^{s} \binom{s}{b}\binom{n-s}{a-b} \Big/ \binom{n}{a}.$$
#
# The binomials have hundreds of digits, so we add them as logarithms of Gamma functions. Two checks
# of this: exact fractions of whole numbers, and counting mistakes of simulated segments.


# %%
def log_binomial(n, k):
    """log of n choose k; minus infinity where there is no such choice."""
    n, k = np.broadcast_arrays(np.asarray(n, float), np.asarray(k, float))
    possible = (k >= 0) & (k <= n)
    k = np.where(possible, k, 0)
    value = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.where(possible, value, -np.inf)


def tail(n, a, s, theta):
    """P(overlap >= theta) of s given cells with a random active ones among n."""
    b = np.arange(theta, s + 1)
    terms = log_binomial(s, b) + log_binomial(n - s, a - b) - log_binomial(n, a)
    return float(np.exp(logsumexp(terms)))


def exact_tail(n, a, s, theta):
    """The same in whole numbers."""
    ways = sum(comb(s, b) * comb(n - s, a - b) for b in range(theta, min(s, a) + 1))
    return float(Fraction(ways, comb(n, a)))


sparse = tail(n, a, s, theta)
dense = tail(10_000, 5000, 20, 10)
rounding = max(
    abs(tail(*setting) / exact_tail(*setting) - 1)
    for setting in ((n, a, s, theta), (10_000, 5000, 20, 10), (500, 25, 15, 4))
)
print(f"n = {n}, a = {a}, s = {s}, θ = {theta}: P_fp = {sparse:.2e}")
print(f"n = 10000, a = 5000, s = 20, θ = 10: P_fp = {dense:.3f}")

SETTINGS = {  # n, a, s, theta
    (500, 25, 15, 4): None,
    (500, 50, 20, 6): None,
    (300, 30, 12, 4): None,
    (1000, 40, 20, 4): None,
    (1000, 100, 15, 5): None,
    (800, 160, 20, 9): None,
    (400, 100, 16, 8): None,
}


def simulated_rate(n, a, s, theta):
    """Share of n_draws random patterns that a segment takes for its own."""
    segment = rng.choice(n, s, replace=False)
    chunks = np.array_split(np.arange(n_draws), -(-n_draws * n // 4_000_000))
    fired = [(random_patterns(len(c), n, a)[:, segment].sum(1) >= theta).sum() for c in chunks]
    return sum(fired) / n_draws


SETTINGS = {setting: simulated_rate(*setting) for setting in SETTINGS}
# Dense patterns are costly to draw, and by symmetry the segment may be drawn instead.
synapses = rng.integers(10_000, size=(n_draws, 20))
distinct = np.array([len(set(row)) == 20 for row in synapses.tolist()])
dense_rate = float(((synapses[distinct] < 5000).sum(1) >= 10).mean())

worst = 0.0
print("\n   n     a    s   θ     formula    counted   standard errors apart")
for setting, rate in SETTINGS.items():
    p = tail(*setting)
    z = (rate - p) / np.sqrt(p * (1 - p) / n_draws)
    worst = max(worst, abs(z))
    print("{:5} {:5} {:4} {:3}".format(*setting), f"  {p:9.5f}  {rate:9.5f}   {z:6.2f}")

claim(
    PAPER,
    "false matches of seven kinds of segment, counted against the formula: largest difference",
    worst,
    at_most=4.5,
    unit="standard errors",
)
claim(
    PAPER,
    "log-Gamma formula against exact whole numbers: largest relative difference",
    rounding,
    at_most=1e-6,
)
claim(
    PAPER,
    "dense patterns (half of 10,000 cells, threshold half of 20 synapses): counted false matches",
    dense_rate,
    at_least=0.57,
    at_most=0.605,
)
claim(
    PAPER,
    "false matches: sparse patterns (formula) relative to dense ones (counted)",
    sparse / dense_rate,
    at_most=1e-6,
)

# %% tags=["cover"]
fig = plt.figure(figsize=(11, 3.9), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[1.35, 1])
axes = left.subplots(1, 3)
rows, columns = 25, 16  # a part of the population that holds the segment
others = rng.choice(np.setdiff1d(np.arange(n), segment), rows * columns - s, replace=False)
part = rng.permutation(np.concatenate([segment, others]))
y, x = np.divmod(np.flatnonzero(np.isin(part, segment)), columns)
for axis, (title, pattern) in zip(axes, shown.items()):
    on = pattern[part].reshape(rows, columns)
    axis.imshow(on, cmap=ListedColormap(["#f2f2f2", GREY]), vmin=0, vmax=1)
    active = on[y, x]
    axis.scatter(x[active], y[active], s=42, c=ORANGE, marker="s")
    axis.scatter(x[~active], y[~active], s=42, fc="none", ec=BLUE, marker="s", lw=1.3)
    axis.set(xticks=[], yticks=[], xlabel=f"{active.sum()} of {s} synapses active")
    axis.set_title(title, fontsize=10)
    axis.spines[:].set_visible(False)
axis = right.subplots()
cells = np.unique(np.geomspace(300, 10_000, 30).astype(int))
for active, colour in ((32, GREEN), (64, BLUE), (128, PINK)):
    axis.semilogy(cells, [tail(m, active, s, theta) for m in cells], color=colour)
    axis.text(10_400, tail(10_000, active, s, theta), f"a = {active}", color=colour, va="center")
half = [tail(m, m // 2, s, theta) for m in cells]
axis.semilogy(cells, half, color=BLACK)
axis.text(10_400, half[-1], "a = n/2", va="center")
axis.set(xlabel="cells n", ylabel="chance of a false match", ylim=(1e-22, 10), xlim=(0, 12_600))
axis.set_xticks([0, 2500, 5000, 7500, 10_000])
axis.set_title(f"{s} synapses, threshold {theta}", fontsize=10)
plt.show()

# %% [markdown]
# Left, a part of the population (grey: active cells; orange: active synapses; blue: silent ones).
# Right, what sparseness buys. With the number of active cells fixed, each tenfold increase of the
# population makes a mistake ten billion times rarer, for ten synapses must coincide. Where half of
# the cells are active, no number of cells helps.
#
# ### The binomial trap
#
# It is tempting to say that each synapse is active with probability $a/n$, and to take a binomial
# tail. But cells compete: whoever is active leaves one place less for the others. In a large and
# sparse population this hardly matters. In a small one the tails are off by orders of magnitude.

# %%
TRAP = {(n, a, s): BLUE, (400, 80, 40): PINK, (100, 40, 40): ORANGE}
fig, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for ((cells_, active, synapses_), colour), marker in zip(TRAP.items(), "os^"):
    # beyond 1e-25 nobody will ever wait for the mistake
    thresholds = [t for t in range(synapses_ + 1) if tail(cells_, active, synapses_, t) > 1e-25]
    right_tail = np.array([tail(cells_, active, synapses_, t) for t in thresholds])
    ratio = binom.sf(np.array(thresholds) - 1, synapses_, active / cells_) / right_tail
    label = f"n = {cells_}, a = {active}, s = {synapses_}"
    axis.semilogy(right_tail, ratio, marker + "-", ms=4, color=colour, label=label)
axis.set_xscale("log")
axis.set(xlabel="true chance of a false match", ylabel="binomial / true")
axis.invert_xaxis()
axis.legend(loc="upper left")
plt.show()

for cells_, active, synapses_ in TRAP:
    tails = (tail(cells_, active, synapses_, t) for t in range(synapses_ + 1))
    rare = next((t for t, p in enumerate(tails) if p < 1e-9), synapses_)
    times = binom.sf(rare - 1, synapses_, active / cells_) / tail(cells_, active, synapses_, rare)
    print(f"n = {cells_}, a = {active}, s = {synapses_}, θ = {rare}: {times:.3g} times the truth")
metric("trap_binomial_over_true", times)  # of the smallest population

# %% [markdown]
# ## 3. Damaged patterns
#
# Now the stored pattern comes back, but of its $a$ active cells a share $\eta$ is silent, and as
# many others are active in their place. The segment sampled $s$ of the $a$; how many of its
# synapses are among the $a(1-\eta)$ survivors? This is hypergeometric again, with the pattern as
# population:
#
# $$P_\text{miss} = P\big(\text{Hypergeom}(a,\; a(1-\eta),\; s) < \theta\big).$$


# %%
def survivors(share):
    return a - round(share * a)


def recognised(share, theta):
    """1 - P_miss, by the formula."""
    return tail(a, survivors(share), s, theta)


def simulated_recognition(share, theta, count=10_000):
    """Of `count` segments, each with a pattern of its own, how many still recognise it."""
    cells = np.argsort(rng.random((count, a)), axis=1)  # order of the active cells, each row
    lost = np.argsort(rng.random((count, a)), axis=1) < round(share * a)
    left_over = (~np.take_along_axis(lost, cells[:, :s], axis=1)).sum(1)
    return float((left_over >= theta).mean())


shares = np.linspace(0, 0.8, 9)
THETAS = {max(1, theta - 4): GREEN, theta: BLUE, min(s, theta + 4): PINK}
counted = {t: [simulated_recognition(share, t) for share in shares] for t in THETAS}
fig, axes = plt.subplots(1, 2, figsize=(10.5, 3.4), layout="constrained")
for (t, colour), marker in zip(THETAS.items(), "os^"):
    axes[0].plot(100 * shares, counted[t], marker, ms=5, color=colour)
    fine = np.linspace(0, 0.8, 60)
    axes[0].plot(100 * fine, [recognised(share, t) for share in fine], color=colour)
    axes[0].plot(
        [], [], marker + "-", color=colour, label=f"θ = {t}, $P_{{fp}}$ = {tail(n, a, s, t):.0e}"
    )
axes[0].set(xlabel="active cells moved by noise (%)", ylabel="patterns recognised")
axes[0].set_title("lines: formula; symbols: simulated", fontsize=10)
axes[0].legend(fontsize=9, loc="lower left")
every = range(1, s + 1)
axes[1].semilogy(every, [tail(n, a, s, t) for t in every], color=BLACK, label="false match")
for share, colour, style in ((0.2, AMBER, ":"), (corrupted, ORANGE, "--"), (0.6, PINK, "-.")):
    missed = [max(1 - recognised(share, t), 1e-16) for t in every]
    axes[1].semilogy(every, missed, style, color=colour, label=f"miss, {share:.0%} moved")
axes[1].set(xlabel="threshold θ", ylabel="chance of the mistake", ylim=(1e-15, 3))
axes[1].set(xticks=range(2, s + 1, 2))
axes[1].legend(fontsize=9, loc="lower right")
plt.show()

simulated_share = simulated_recognition(corrupted, theta, 20_000)
print(f"recognised: simulated {simulated_share:.3f}, formula {recognised(corrupted, theta):.3f}")
claim(
    PAPER,
    "damaged patterns: share recognised, simulation against formula, difference",
    abs(simulated_share - recognised(corrupted, theta)),
    at_most=0.02,
)
claim(
    PAPER,
    "chance that the segment fires: for a random pattern relative to its own, damaged",
    sparse / max(simulated_share, 1e-9),
    at_most=1e-6,
)
metric("recognised", simulated_share)

# %% [markdown]
# With four cells in ten replaced, nine patterns in ten are still recognised, although a random one
# passes with a chance below one in ten billion. The right picture shows why a dozen is a good
# number: the black line falls by an order of magnitude or more with every synapse asked for beyond
# the fourth, the coloured ones rise slowly from far below. Between the two there is room, unless
# most of the pattern is lost.
#
# ## 4. Several patterns on one segment
#
# Synapses for $M$ patterns may lie on the same segment, which then fires for any of them: their
# **union**. After $M$ independent samples a cell has a synapse with probability
# $p = 1 - (1 - s/n)^M$, and
#
# $$P_\text{fp}^{\cup} = P\big(\text{Hypergeom}(n,\; n p,\; a) \ge \theta\big).$$
#
# How many patterns until a mistake is more likely than one in ten thousand? We also draw unions at
# random and average over their true sizes, which scatter.


# %%
def union_tail(n, s, theta, M):
    """Formula: the union has its expected size."""
    return float(hypergeom.sf(theta - 1, n, round(n * (1 - (1 - s / n) ** M)), a))


def simulated_unions(n, s, theta, most):
    """P_fp for M = 1 ... most, averaged over n_unions random unions of M segments."""
    total = np.zeros(most)
    for _ in range(n_unions):
        connected = np.zeros(n, bool)
        sizes = []
        for _ in range(most):
            connected[rng.choice(n, s, replace=False)] = True
            sizes.append(connected.sum())
        total += hypergeom.sf(theta - 1, n, sizes, a)
    return total / n_unions


def capacity(rates):
    """Most patterns with P_fp below 1e-4."""
    return int((np.asarray(rates) < 1e-4).sum())


most = 40
UNIONS = {n_union: BLUE, 2 * n_union // 5: PINK}
by_formula = {m: [union_tail(m, s_union, theta_union, M + 1) for M in range(most)] for m in UNIONS}
by_drawing = {m: simulated_unions(m, s_union, theta_union, most) for m in UNIONS}
fig, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for m, colour in UNIONS.items():
    axis.semilogy(range(1, most + 1), by_formula[m], color=colour, label=f"n = {m}")
    axis.semilogy(range(1, most + 1), by_drawing[m], "o", ms=4, color=colour)
    limit = capacity(by_drawing[m])
    axis.vlines(limit, 1e-11, 1e-4, color=colour, ls=":")
    axis.text(limit + 0.5, 2e-11, f"{limit} patterns", color=colour)
axis.axhline(1e-4, color=GREY, lw=1)
axis.set(xlabel="patterns M on one segment", ylabel="chance of a false match", ylim=(1e-11, 2))
axis.set_title("lines: formula; dots: random unions", fontsize=10)
axis.legend(loc="lower right")
plt.show()
print({m: (capacity(by_formula[m]), capacity(by_drawing[m])) for m in UNIONS})

claim(
    PAPER,
    "patterns on one segment before a mistake is likelier than 1e-4, random unions against formula",
    abs(capacity(by_drawing[n_union]) - capacity(by_formula[n_union])),
    at_most=1,
)
claim(
    PAPER,
    "patterns on one segment: in a population of two fifths of the cells, relative to the whole",
    capacity(by_drawing[2 * n_union // 5]) / capacity(by_drawing[n_union]),
    at_most=0.6,
)
metric("patterns_on_a_segment", capacity(by_drawing[n_union]))

# %% [markdown]
# ## 5. Which threshold?
#
# Ask for one mistake in a billion. That fixes the lowest threshold for each number of synapses, and
# with it how much noise can be borne. Measurements put the number of coincident synapses that start
# an NMDA spike at about 8 to 20 (the grey band; the paper collects them).

# %%
POPULATIONS = {(n, a): BLUE, (10_000, 64): GREEN, (10_000, 200): PINK, (1000, 200): ORANGE}
SPARSE = list(POPULATIONS)[:-1]
numbers = np.arange(12, 41)


def lowest_threshold(n, a, s, risk=1e-9):
    """The smallest threshold with P_fp below the risk; NaN if no threshold is enough."""
    return next((t for t in range(1, s + 1) if tail(n, a, s, t) < risk), np.nan)


fig, axes = plt.subplots(1, 2, figsize=(10.5, 3.4), layout="constrained")
axes[0].axhspan(8, 20, color=GREY, alpha=0.25, lw=0)
for ((m, active), colour), style in zip(POPULATIONS.items(), ("-", "--", "-.", ":")):
    lowest = np.array([lowest_threshold(m, active, k) for k in numbers])
    axes[0].plot(
        numbers, lowest, style, color=colour, label=f"n = {m}, a = {active} ({active / m:.1%})"
    )
    axes[1].plot(numbers, 100 * (1 - lowest / numbers), style, color=colour)
axes[0].set(xlabel="synapses s", ylabel="lowest threshold θ", ylim=(0, 34))
axes[0].legend(fontsize=9, loc="upper left")
axes[1].set(xlabel="synapses s", ylabel="synapses that may be missing (%)", ylim=(0, 100))
plt.show()

thresholds = {of: [lowest_threshold(*of, k) for k in range(20, 31)] for of in SPARSE}
lowest, highest = min(map(min, thresholds.values())), max(map(max, thresholds.values()))
of_neuron = 1 - (1 - tail(n, a, s, theta)) ** n_segments
for (m, active), needed in thresholds.items():
    print(f"n = {m}, a = {active}, 20 to 30 synapses: thresholds {needed[0]} to {needed[-1]}")
print(f"a neuron of {n_segments} segments: a false match with chance {of_neuron:.1e}")
claim(
    PAPER,
    "three sparse populations, 20 to 30 synapses, one mistake in 1e9: highest threshold needed, "
    "against the most synapses that measurements find (20)",
    highest,
    at_most=20,
    unit="synapses",
)
metric("lowest_threshold_needed", lowest)
metric("false_match_of_a_neuron", of_neuron)

# %% [markdown]
# For the three sparse populations and 20 to 30 synapses, thresholds of seven to eleven do, and half
# of the synapses and more may be missing. Two of the three lie in the band where physiology finds
# its thresholds, the sparsest just below it. This is no proof: the risk of $10^{-9}$ is our choice,
# though thresholds depend on its logarithm alone. A population with a fifth of its cells active
# would need twice as many. Turn the numbers yourself:


# %%
def explore(cells=2000, active=64, synapses=20, threshold=10):
    """Both mistakes of one segment, and the distribution of overlaps behind them."""
    if not threshold <= synapses <= active < cells:
        print("need threshold ≤ synapses ≤ active < cells")
        return
    b = np.arange(synapses + 1)
    _, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
    axis.bar(b - 0.2, hypergeom.pmf(b, cells, active, synapses), 0.4, label="other patterns")
    left_over = active - round(corrupted * active)
    own = hypergeom.pmf(b, active, left_over, synapses)
    axis.bar(b + 0.2, own, 0.4, label=f"own pattern, {corrupted:.0%} moved")
    axis.axvline(threshold - 0.5, color=BLACK, ls="--", lw=1)
    axis.set(xlabel="active synapses", ylabel="probability")
    miss = 1 - tail(active, left_over, synapses, threshold)
    wrong = tail(cells, active, synapses, threshold)
    axis.set_title(f"false match {wrong:.1e}, miss {miss:.1e}", fontsize=10)
    axis.margins(y=0.45)  # room for the legend
    axis.legend(loc="upper right")
    plt.show()


_ = interact(
    explore,
    cells=IntSlider(2000, 200, 10_000, 100, continuous_update=False),
    active=IntSlider(64, 20, 400, continuous_update=False),
    synapses=IntSlider(20, 4, 60, continuous_update=False),
    threshold=IntSlider(10, 1, 40, continuous_update=False),
)

# %%
explore(500, 100, 20, 10)  # the same without the slider, for those who read this on paper

# %% [markdown]
# ## 6. Patterns are not random
#
# The theory draws patterns uniformly. A brain's patterns come from the world. Let us give the
# segment such patterns: patches of photographs, each coded by the $a$ of $n$ random patches that
# resemble it most, in absolute value. This code is as sparse as before. (Its features are not
# learned, and no competition spreads them.) Now the segment stores one patch; how often does a
# *different* patch, from another photograph, make it fire?

# %%
names = ["astronaut", "coffee", "chelsea", "china", "rocket", "camera"]
half_of_them = len(names) // 2
features = whitened_patches(natural_images(names), 8, n, rng)
features /= np.linalg.norm(features, axis=1, keepdims=True)


def sdr(patches):
    """Patterns (B, n) bool: the a features that resemble a patch most."""
    likeness = np.abs(patches @ features.T)
    return likeness >= np.partition(likeness, -a, axis=1)[:, -a, None]


ours = sdr(whitened_patches(natural_images(names[:half_of_them]), 8, 400, rng))
theirs = sdr(whitened_patches(natural_images(names[half_of_them:]), 8, 4000, rng))
overlaps = []
for pattern in ours:
    segment = rng.choice(np.flatnonzero(pattern), s, replace=False)
    overlaps.append(theirs[:, segment].sum(1))
overlaps = np.array(overlaps)
b = np.arange(s + 1)
real_tail = np.array([(overlaps >= t).mean() for t in b])
theory = np.array([tail(n, a, s, t) for t in b])
likely = theory > 1e-12

fig, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
axis.semilogy(b[likely], theory[likely], color=BLUE, label="random patterns (formula)")
axis.semilogy(b[real_tail > 0], real_tail[real_tail > 0], "o-", color=ORANGE, label="photographs")
axis.set(xlabel="threshold θ", ylabel="chance of a false match", ylim=(1e-12, 2))
axis.set(xticks=range(0, s + 1, 2))
axis.legend(loc="lower right")
plt.show()

real, ideal = real_tail[theta], theory[theta]
print(f"θ = {theta}: {real:.2e} for photographs, {ideal:.1e} for random patterns")
claim(
    PAPER,
    "limit of the theory, patterns from photographs: false matches relative to the formula for "
    "random patterns",
    real / ideal,
    at_least=1000,
)
metric("false_match_photographs", real)

# %% [markdown]
# Millions of times more often. Two patches with an edge in the same place *are* alike, and a
# segment that fires for both has generalised rather than erred; but the vanishing numbers of
# sections 2 to 5 hold for patterns without structure. What a cortex would need to earn them is a
# code whose cells are close to independent, which is what the other notebooks of this topic are
# about.
#
# ## 7. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: connected cells
#
# $M$ patterns, each sampled by $s$ synapses of a population of $n$ cells, lie on one segment.
# Return the expected number of cells that the segment is connected to.
#
# <details><summary>Hint</summary>
#
# A cell is *not* connected if each of the $M$ samples passed it over, each with probability
# $1 - s/n$.
#
# </details>


# %% tags=["exercise"]
def connected(n, s, M):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def connected_solution(n, s, M):
    return n * (1 - (1 - s / n) ** M)


# %% tags=["check"]
check(
    connected,
    connected_solution,
    lambda rng: (int(rng.integers(500, 5000)), int(rng.integers(5, 40)), int(rng.integers(1, 50))),
)

# %% [markdown]
# ### Exercise 2: how much noise?
#
# A pattern of `a` active cells, of which the segment sampled `s`. Return the largest number of
# cells that noise may silence such that the segment recognises *every* such pattern, for certain,
# at threshold `theta`.
#
# <details><summary>Hint</summary>
#
# Noise is unlucky: it silences sampled cells first.
#
# </details>


# %% tags=["exercise"]
def safe_damage(a, s, theta):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def safe_damage_solution(a, s, theta):
    return s - theta


# %% tags=["check"]
check(
    safe_damage,
    safe_damage_solution,
    lambda rng: (64, int(rng.integers(15, 30)), int(rng.integers(5, 15))),
)

# %% [markdown]
# ### Exercise 3: a whole neuron
#
# A neuron has `m` segments, each of which makes a false match with probability `p`, independently.
# Return the number of segments at which the neuron as a whole first errs with probability above
# `risk`.
#
# <details><summary>Hint</summary>
#
# Solve $1 - (1-p)^m > r$ for $m$. For small $p$, `np.log1p(-p)` keeps the digits.
#
# </details>


# %% tags=["exercise"]
def too_many_segments(p, risk):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def too_many_segments_solution(p, risk):
    return int(np.floor(np.log1p(-risk) / np.log1p(-p))) + 1


# %% tags=["check"]
check(
    too_many_segments,
    too_many_segments_solution,
    lambda rng: (10 ** rng.uniform(-6, -3), rng.uniform(0.01, 0.5)),
)

# %% [markdown]
# ## 8. What did not reproduce, and what to keep in mind
#
# The formulas hold, to what counting can tell, and the numbers are as astonishing as the paper says
# they are. Three remarks.
#
# - **Random is a strong word.** With patterns from photographs false matches are far more frequent
#   (section 6). The paper says that its patterns are random; conclusions about cortex lean on it.
# - **The union's formula takes its expected size.** Sizes scatter, and because the tail is steep
#   the average over them is a little higher. Here this does not move the limit by more than one
#   pattern.
# - **A rate of $8\cdot10^{-11}$ cannot be counted.** We counted rates above $10^{-4}$, and lean on
#   the formula beyond.
#
# Nothing was scaled down. Not treated are the paper's inference across a population of neurons and
# its survey of measurements, of which we took the one band.
#
# **Next.** Kanerva, *Sparse Distributed Memory* (MIT Press, 1988), where it began; Hawkins and
# Ahmad, [*Why neurons have thousands of
# synapses*](https://doi.org/10.3389/fncir.2016.00023) (2016), for sequences built of such segments;
# Major, Larkum and Schiller (2013) for NMDA spikes.

# %%
# NBVAL_CHECK_OUTPUT
summary()
