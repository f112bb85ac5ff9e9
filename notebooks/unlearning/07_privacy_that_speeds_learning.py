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
# # Privacy that speeds up learning
#
# **Question.** People decide one after the other, each with a private hint and a view of what all
# the others did. If everyone adds noise to protect the hint, must the crowd learn more slowly?
#
# ![Belief of the crowd as agents act one after the other: without privacy it grows ever more
# slowly, with smooth randomised response it keeps growing](07_privacy_that_speeds_learning.png)
#
# **Reading** 15 minutes. **Running** under 15 seconds on two CPU cores, under 0.5 GB of memory.
#
# **Paper** `dp-sequential-learning`: Y. Liu and M. A. Rahimian, *Differentially private sequential
# learning*, FORC 2025, LIPIcs 329, 18:1–18:6,
# [doi:10.4230/LIPIcs.FORC.2025.18](https://doi.org/10.4230/LIPIcs.FORC.2025.18),
# [arXiv:2502.19525](https://arxiv.org/abs/2502.19525).
#
# You need Bayes' rule and the normal distribution. Every number in the text is measured below; the
# green cards say which statement was held against which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
sigma: float = 1.0  # standard deviation of a private signal, whose mean is +1 or -1
epsilon: float = 1.0  # privacy budget of both mechanisms, per unit of signal for the smooth one
n_agents: int = 20_000  # who act one after the other
n_paths: int = 300  # independent crowds to simulate
l_max: float = 60.0  # the tables hold log-likelihood ratios from -l_max to l_max
l_step: float = 0.02  # grid of the tables
budgets: list[float] = [0.5, 2.0, 3.0]  # more budgets for the waiting time in section 5
accuracy: float = 0.7  # probability that a binary signal is right, in section 6
n_cascades: int = 4000  # simulated crowds with binary signals, per budget

# %%
import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import FloatSlider, interact
from scipy.integrate import cumulative_trapezoid
from scipy.optimize import brentq
from scipy.special import expit, ndtr
from scipy.stats import linregress
from tqdm.auto import trange

from labkit import claim, metric
from labkit.claims import summary
from labkit.exercises import check
from labkit.plots import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, house_style

PAPER = "dp-sequential-learning"
if min(sigma, epsilon, l_max, l_step, *budgets) <= 0:
    raise ValueError(
        "sigma, epsilon, l_max, l_step and all budgets must be positive, not "
        f"{sigma}, {epsilon}, {l_max}, {l_step}, {budgets}"
    )
if l_max < 40 * l_step:
    raise ValueError(f"l_step must be at most l_max / 40 = {l_max / 40}, not {l_step}")
if sigma * l_max > 70:  # P(a) at l_max is about exp(-(sigma l_max)^2 / 8)
    raise ValueError(
        f"sigma * l_max must be at most 70, or the rarest action has probability zero in double "
        f"precision: not {sigma} * {l_max}"
    )
if n_agents < 1000:
    raise ValueError(f"n_agents must be at least 1000 to fit a growth law, not {n_agents}")
if min(n_paths, n_cascades) < 2:
    raise ValueError(f"n_paths and n_cascades must be at least 2, not {n_paths}, {n_cascades}")
if not 0.5 < accuracy < 1:
    raise ValueError(f"accuracy must lie between 0.5 and 1, not {accuracy}")

house_style()
LINES = {"none": "-", "uniform": "--", "smooth": "-."}  # of the mechanisms, where they are compared

# %% [markdown]
# ## 1. A crowd that listens to itself
#
# The state of the world is $\theta = +1$ or $-1$, each with probability one half. Agents
# $n = 1, 2, \dots$ act once, in order. Agent $n$ sees all earlier actions and a private signal
# $s \sim \mathcal N(\theta, \sigma^2)$. What the actions say is summed up in the public
# log-likelihood ratio $l_n = \log P(a_{1:n-1} \mid +) / P(a_{1:n-1} \mid -)$. The signal adds
# $2s/\sigma^2$, so the agent believes in $+1$ if and only if
#
# $$s > t(l_n) = -\,l_n\,\sigma^2 / 2 .$$
#
# Then everybody updates: $l_{n+1} = l_n + \log P(a_n \mid +) / P(a_n \mid -)$. Here is the catch.
# The more the crowd knows, the less often a signal is strong enough to contradict it, and an action
# that everybody expected teaches nobody. With normal signals, contradiction becomes as rare as
# $e^{-l^2\sigma^2/8}$, and the crowd learns only as fast as $l_n \sim \sqrt{8 \log n}\,/\,\sigma$.
#
# **Now privacy.** An agent who wants to hide the signal flips the action with a probability $u$
# that may depend on how far the signal is from the threshold, $x = s - t$:
#
# - *randomised response*, the classic: $u = 1/(1 + e^{\varepsilon})$, whatever the signal;
# - *smooth* randomised response, the paper's: $u(x) = \tfrac12 e^{-\varepsilon \lvert x\rvert}$, a
#   coin where the decision was close, almost no noise where it was clear.


# %%
def no_flip(x):
    return np.zeros_like(x)


def uniform(eps):
    return lambda x: np.full_like(x, expit(-eps))


def smooth(eps):
    return lambda x: 0.5 * np.exp(-eps * np.abs(x))


def probability_plus(x, u):
    """P(action = +1 | signal), with x = s - t the distance of the signal from the threshold."""
    return np.where(x > 0, 1 - u(x), u(x))


# %% [markdown]
# What does this protect? Smooth randomised response keeps a *metric* promise: a shift of the signal
# by $\delta$ changes the probability of either action by at most a factor of
# $e^{\varepsilon\delta}$. We check it on all pairs of a fine grid. The classic keeps another
# promise, a factor of at most $e^{\varepsilon}$ for *any* shift. Neither implies the other: the
# classic gives more away about small shifts across the threshold, the smooth one about large
# shifts. So "the same $\varepsilon$" is not the same protection, and we shall not pretend that it
# is.


# %%
def privacy_loss(u, x):
    """Largest |log P(a | s) / P(a | s')| over both actions, for all pairs of distances x (N, N)."""
    plus = probability_plus(x, u)
    return np.maximum(
        np.abs(np.subtract.outer(np.log(plus), np.log(plus))),
        np.abs(np.subtract.outer(np.log1p(-plus), np.log1p(-plus))),
    )


# The privacy of an even grid around zero; its two middle points lie on both sides of the threshold.
x = np.linspace(-5, 5, 1000)
shift = np.abs(np.subtract.outer(x, x))
pairs = shift > 0
worst = float((privacy_loss(smooth(epsilon), x)[pairs] / (epsilon * shift[pairs])).max())

fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
curves = {"none": (no_flip, BLACK), "uniform": (uniform(epsilon), ORANGE)}
curves |= {"smooth": (smooth(epsilon), BLUE)}
for name, (u, colour) in curves.items():
    axes[0].plot(x, u(x), LINES[name], color=colour, label=name)
    axes[1].plot(x, probability_plus(x, u), LINES[name], color=colour)
    if name != "none":
        loss = privacy_loss(u, x)
        by_shift = [loss.diagonal(k).max() for k in range(1, 1000)]
        axes[2].plot(x[1:] - x[0], by_shift, LINES[name], color=colour, lw=3)
axes[2].plot([0, 10], [0, 10 * epsilon], ":", color=BLACK, label="ε × shift")
axes[0].set(xlabel="signal − threshold, $s - t$", ylabel="probability of a flip, $u$")
axes[1].set(xlabel="signal − threshold, $s - t$", ylabel="P(action +1 | signal)")
axes[2].set(xlabel="shift of the signal", ylabel="worst |log ratio| of an action")
axes[2].set(xlim=(0, 6), ylim=(0, 6 * epsilon))
axes[0].legend()
axes[2].legend()
plt.show()

claim(
    PAPER,
    "smooth randomised response: worst log ratio of an action over all pairs of signals, relative "
    "to ε times their distance",
    worst,
    at_most=1 + 1e-9,
)

# %% [markdown]
# The middle picture gives the mechanism away: it is the distribution function of a Laplace
# variable. Smooth randomised response does nothing but **add Laplace noise of scale
# $1/\varepsilon$ to the signal and report the sign of $s + \text{noise} - t$** (Exercise 1). And
# Laplace noise has a heavier tail than a normal signal. Keep this in mind.
#
# ## 2. What an action says
#
# All agents know the mechanism, so they read an action with
#
# $$P(a = -1 \mid \theta) = \int p(s \mid \theta)\,
#   \big[(1 - u)\,\mathbf 1(s < t) + u\,\mathbf 1(s > t)\big]\, ds .$$
#
# We tabulate it once for all $l$, by Gauss–Legendre quadrature to the left and right of the
# threshold, where the integrand is smooth. For the smooth mechanism there is a closed form to hold
# it against. Probabilities down to $10^{-200}$ matter here: the logarithm of the ratio is needed
# even of the rarest action, and $1 - P$ would have lost it. By symmetry,
# $P(+1 \mid \pm; l) = P(-1 \mid \mp; -l)$, so that no difference is ever taken.

# %%
l_grid = l_step * np.arange(-round(l_max / l_step), round(l_max / l_step) + 1)


def minus_tables(mechanisms, order=12):
    """P(a = -1 | +) and P(a = -1 | -) on l_grid, each (mechanisms, grid)."""
    t = -l_grid * sigma**2 / 2
    reach = t.max() + 1 + 10 * sigma  # from the farthest threshold past the farthest signal
    panels = int(np.ceil(reach / min(sigma, 1)))
    z, w = np.polynomial.legendre.leggauss(order)
    width = reach / panels
    x = ((np.arange(panels)[:, None] + (z + 1) / 2) * width).ravel()
    w = np.tile(w * width / 2, panels)
    below = np.stack([w * (1 - u(-x)) for u in mechanisms], axis=1)  # s = t - x keeps -1
    above = np.stack([w * u(x) for u in mechanisms], axis=1)  # s = t + x flips to -1

    def integral(theta):
        def p(s):
            return np.exp(-(((s - theta) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))

        return (p(t[:, None] - x) @ below + p(t[:, None] + x) @ above).T

    return integral(+1), integral(-1)


def closed_form(eps, theta):
    """P(a = -1 | theta) of the smooth mechanism: a normal plus a Laplace variable below t."""
    t = -l_grid * sigma**2 / 2

    def half(y):  # E[u; s > t], with y = (theta - t) / sigma
        return 0.5 * np.exp(-eps * sigma * y + (eps * sigma) ** 2 / 2) * ndtr(y - eps * sigma)

    y = (theta - t) / sigma
    return ndtr(-y) - half(-y) + half(y)


LADDER = {f"smooth, ε = {eps:g}": smooth(eps) for eps in budgets}
MECHANISMS = {"none": no_flip, "uniform": uniform(epsilon), "smooth": smooth(epsilon)} | LADDER
p_minus, q_minus = (dict(zip(MECHANISMS, rows)) for rows in minus_tables(list(MECHANISMS.values())))
error = max(
    float(np.abs(table["smooth"] / closed_form(epsilon, theta) - 1).max())
    for theta, table in {+1: p_minus, -1: q_minus}.items()
)
evidence = {name: np.log(q_minus[name] / p_minus[name]) for name in MECHANISMS}  # of an action -1

fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
positive = (l_grid >= 0) & (l_grid <= 16)
for name, colour in {"none": BLACK, "uniform": ORANGE, "smooth": BLUE}.items():
    line = {"color": colour, "ls": LINES[name]}
    axes[0].semilogy(l_grid[positive], p_minus[name][positive], label=name, **line)
    axes[1].plot(l_grid[positive], evidence[name][positive], **line)
axes[1].axhline(2 * epsilon, color=BLUE, lw=0.8, ls=":")
axes[1].text(15.9, 2 * epsilon + 0.4, "2ε", color=BLUE, ha="right")
axes[0].set(
    ylim=(1e-12, 1.5), ylabel="P(action −1 | θ = +1)", title="how often the crowd is defied"
)
axes[1].set(ylim=(0, 16), ylabel="log P(−1 | −) / P(−1 | +)", title="what a defiant action says")
for axis in axes:
    axis.set_xlabel("what the crowd believes, $l$")
axes[0].legend(loc="lower left")
plt.show()

claim(PAPER, "quadrature against the closed form, largest relative error", error, at_most=1e-8)
claim(
    PAPER,
    "smooth: evidence of one action, largest |log P(a|+)/P(a|−)|, relative to its bound 2ε",
    float(np.abs(evidence["smooth"]).max()) / (2 * epsilon),
    at_most=1 + 1e-9,
)

# %% [markdown]
# There is the whole story in two pictures. Without privacy, a crowd that believes is defied ever
# more rarely, like $e^{-l^2\sigma^2/8}$. With Laplace noise, defiance falls only like
# $e^{-\varepsilon\sigma^2 l/2}$: there are always some who go against the crowd, and they are more
# when the crowd is wrong. A single defiant action says little (never more than $2\varepsilon$,
# since the two states differ by a shift of 2), but there are enough of them. Uniform noise makes
# plenty of defiance, and it says nothing.
#
# ## 3. Simulate the crowd
#
# All crowds at once, in state $\theta = +1$. Signals are really drawn and actions really flipped;
# the tables serve only for what the public makes of them. All mechanisms share the signals. One
# more row is there as a warning: agents who use the smooth mechanism and **read each other as if
# nobody did** ("naive").


# %%
def at(tables, l):
    """Rows of tables (M, grid) at l (M, paths), interpolated linearly."""
    place = (l - l_grid[0]) / l_step
    below = np.minimum(place.astype(int), len(l_grid) - 2)
    row = np.arange(len(l))[:, None]
    return tables[row, below] + (place - below) * (tables[row, below + 1] - tables[row, below])


def typical(p, q):
    """Typical path: l, the agents it takes to get there, and the wrong actions on the way.

    Evidence comes in at the rate dl/dn = KL(P(a|+) || P(a|-)), from l = 0.
    """
    l, p, q = (values[l_grid >= 0] for values in (l_grid, p, q))
    rate = p * np.log(p / q) + (1 - p) * (np.log1p(-p) - np.log1p(-q))
    known = np.minimum.accumulate(rate) > 1e-14  # below it rounding takes over
    l, p, rate = l[known], p[known], rate[known]
    n = cumulative_trapezoid(1 / rate, l, initial=0)
    wrong = cumulative_trapezoid(p / rate, l, initial=0)
    return l, n, wrong


ROWS = {  # what agents do, and what the others believe that they do
    "none": ("none", "none"),
    "uniform": ("uniform", "uniform"),
    "smooth": ("smooth", "smooth"),
    "naive": ("smooth", "none"),
}
COLOURS = {"none": BLACK, "uniform": ORANGE, "smooth": BLUE, "naive": PINK}
for name in ("none", "uniform", "smooth"):
    reached, n, _ = typical(p_minus[name], q_minus[name])
    if n[reached <= l_max - 15].max() < n_agents:
        raise ValueError(
            f"l_max = {l_max} is too small: {name} needs more than l_max - 15 for {n_agents} agents"
        )


def simulate(rng, marks):
    """Beliefs, and wrong actions and wrong choices so far, each (marks, M, paths), theta = +1."""
    act = [MECHANISMS[does] for does, _ in ROWS.values()]
    minus = np.stack([-evidence[believed] for _, believed in ROWS.values()])
    plus = -minus[:, ::-1]
    l, wrong, wrong_choice = np.zeros((3, len(ROWS), n_paths))
    records = []
    for n in trange(1, n_agents + 1, desc="agents", leave=False):
        s = 1 + sigma * rng.standard_normal(n_paths)
        coin = rng.random(n_paths)
        x = s + l * sigma**2 / 2  # s - t(l)
        choice = x > 0
        flip = np.stack([coin < u(x_) for u, x_ in zip(act, x)])
        a = choice ^ flip
        l = l + np.where(a, at(plus, l), at(minus, l))
        wrong, wrong_choice = wrong + ~a, wrong_choice + ~choice
        if n in marks:
            records.append((l, wrong, wrong_choice))
    return (np.stack(record) for record in zip(*records))


marks = np.unique(np.geomspace(1, n_agents, 160).astype(int))
rng = np.random.default_rng(seed)
beliefs, wrong, wrong_choice = simulate(rng, set(marks.tolist()))
mean = {name: beliefs[:, k].mean(axis=1) for k, name in enumerate(ROWS)}

# %% tags=["cover"]
fig, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained", sharex=True)
titles = {"none": "no privacy", "uniform": "uniform flips", "smooth": "smooth flips"}
top = 1.25 * mean["smooth"][-1]
for axis, (name, title) in zip(axes, titles.items()):
    k = list(ROWS).index(name)
    axis.plot(marks, beliefs[:, k, :40], color=COLOURS[name], lw=0.6, alpha=0.35)
    axis.plot(marks, mean[name], color=COLOURS[name], lw=2.5)
    axis.axhline(0, color=BLACK, lw=0.6, ls=":")
    axis.set(title=f"{title}, 40 crowds", ylim=(-6, top))
    axes[3].plot(marks, mean[name], LINES[name], color=COLOURS[name], lw=2, label=title)
    reached, n, _ = typical(p_minus[name], q_minus[name])
    axes[3].plot(n, reached, ":", color=COLOURS[name], lw=1.2)
axes[0].set_ylabel("log-likelihood ratio for the truth, $l_n$")
axes[3].plot([], [], ":", color=GREY, label="typical path")
axes[3].set(xscale="log", xlim=(1, n_agents), ylim=(-6, top), title="mean of all crowds")
axes[3].legend(loc="upper left", fontsize=9)
for axis in axes:
    axis.set(xlabel="agent n", xticks=[1, 10, 100, 1000, 10_000])
plt.show()

# %% [markdown]
# Without privacy the curves bend over; with smooth flips they run straight on in $\log n$. The
# dotted lines come from no simulation: they integrate the mean evidence per action,
# $dl/dn = \mathrm{KL}\big(P(a \mid +)\,\|\,P(a \mid -)\big)$, along the *typical path*. Solving
# it for the smooth mechanism gives $l_n \approx \frac{2}{\varepsilon\sigma^2}\log n$, so the slope
# is a number that we can test.

# %%
late = marks >= 10
half_late = marks >= 100


def fit(g, y, where):
    """Straight-line fit of y on g(n): R² and slope."""
    line = linregress(g(marks[where]), y[where])
    return line.rvalue**2, line.slope


def sqrt_log(n):
    return np.sqrt(np.log(n))


table = {
    name: {g.__name__: fit(g, mean[name], late)[0] for g in (np.log, sqrt_log)} for name in titles
}
print("R² of the mean belief from agent 10 on     on log n   on sqrt(log n)")
for name, row in table.items():
    print(f"{name:40} {row['log']:10.4f}   {row['sqrt_log']:14.4f}")
slope = fit(np.log, mean["smooth"], half_late)[1]
misfit = (1 - table["none"]["log"]) / (1 - table["none"]["sqrt_log"])


def growth(name, since=100):
    return mean[name][-1] - mean[name][marks >= since][0]


fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.3), layout="constrained")
for axis, g, label in zip(axes, (np.log, sqrt_log), (r"$\log n$", r"$\sqrt{\log n}$")):
    for name in titles:
        line = {"color": COLOURS[name], "ls": LINES[name]}
        axis.plot(g(marks[late]), mean[name][late], label=titles[name], **line)
    axis.set(xlabel=label, ylabel="mean of $l_n$", title=f"from agent 10 on, against {label}")
axes[0].legend(fontsize=9)
axes[2].plot(marks, beliefs[:, 3, :25], color=PINK, lw=0.6, alpha=0.5)
axes[2].plot(marks, mean["naive"], color=PINK, lw=2.5)
axes[2].axhline(0, color=BLACK, lw=0.6, ls=":")
axes[2].set(xscale="log", xlabel="agent n", ylabel="$l_n$ as they see it", title="naive readers")
plt.show()

claim(
    PAPER,
    "mean belief in the truth after the last agent: smooth flips relative to no privacy",
    mean["smooth"][-1] / mean["none"][-1],
    at_least=1.5,
)
claim(
    PAPER,
    "mean belief in the truth after the last agent: uniform flips relative to no privacy",
    mean["uniform"][-1] / mean["none"][-1],
    at_most=0.85,
)
claim(PAPER, "smooth: R² of the mean belief on log n", table["smooth"]["log"], at_least=0.98)
claim(
    PAPER,
    "smooth: slope of the mean belief on log n relative to 2/(εσ²)",
    slope * epsilon * sigma**2 / 2,
    at_least=0.85,
    at_most=1.2,
)
claim(
    PAPER,
    "no privacy: what a fit on log n leaves unexplained, relative to one on sqrt(log n)",
    misfit,
    at_least=1.5,
)
claim(
    PAPER,
    "trap: growth of the mean belief from agent 100 on, naive readers relative to those who know",
    growth("naive") / growth("smooth"),
    at_most=0.25,
)
metric("belief_none", mean["none"][-1])
metric("belief_smooth", mean["smooth"][-1])
metric("belief_uniform", mean["uniform"][-1])

# %% [markdown]
# The naive crowds are a warning to whoever simulates this. They take every defiant action for what
# it would mean without noise, a very strong signal to the contrary. Above $l \approx 3.6$ this
# costs them more belief than all agreeing actions bring, and learning stops. A simulation with that
# mistake would conclude that privacy destroys learning, for the wrong reason.
#
# ## 4. Which budget is best?
#
# The slope $2/(\varepsilon\sigma^2)$ says: the more noise, the faster. That cannot be all. With a
# small $\varepsilon$ actions are almost coins at first, and the crowd starts late. The typical path
# shows how the two compare: the best budget depends on how many agents are to come.

# %%
HORIZONS = [30, 100, 1000, 10_000]
eps_grid = np.geomspace(0.06, 6, 40)
rows = zip(*minus_tables([smooth(eps) for eps in eps_grid]))
believed = np.array([np.interp(HORIZONS, n, l) for l, n, _ in (typical(p, q) for p, q in rows)])
if believed.max() >= l_max:
    raise ValueError(
        f"l_max = {l_max} is too small: at the last horizon the tables are at their end"
    )
best = eps_grid[believed.argmax(axis=0)]
reached, n, _ = typical(p_minus["none"], q_minus["none"])
without = np.interp(HORIZONS, n, reached)

fig, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for k, (horizon, colour, mark) in enumerate(zip(HORIZONS, (SKY, BLUE, GREEN, PINK), "os^D")):
    axis.semilogx(eps_grid, believed[:, k], color=colour)
    axis.axhline(without[k], color=colour, lw=1, ls=":")
    axis.plot(best[k], believed[:, k].max(), mark + "-", color=colour, label=f"n = {horizon}")
axis.plot([], [], ":", color=GREY, label="no privacy")
axis.set(xlabel="privacy budget ε (smaller: more noise)", ylabel="belief in the truth, $l_n$")
axis.set(ylim=(0, None))
axis.set(xticks=[0.1, 0.2, 0.5, 1, 2, 5], xticklabels=["0.1", "0.2", "0.5", "1", "2", "5"])
axis.minorticks_off()
axis.legend(fontsize=9)
plt.show()

claim(
    PAPER,
    "best budget for the last horizon relative to that for the first, typical path",
    best[-1] / best[0],
    at_most=0.5,
)

# %% [markdown]
# ## 5. How long are they wrong?
#
# **The first right action.** Let $\tau$ be the agent who is the first to be right. As long as all
# are wrong there is only one possible history, so that $P(\tau > k)$ follows from the tables alone,
# without any simulation. For the smooth mechanism $l$ runs off to the wrong side as
# $-\frac{2}{\varepsilon\sigma^2}\log k$, and
#
# $$P(\tau > k) \sim k^{-\beta}, \qquad
#   \beta = \frac{2}{\varepsilon\sigma^2\,(1 - e^{-2\varepsilon})} .$$
#
# $E[\tau] = \sum_k P(\tau > k)$ is finite if and only if $\beta > 1$. The paper proves it for
# $\varepsilon \in (0, 1)$; the formula puts the boundary for $\sigma = 1$ at about two.


# %%
def all_wrong(names, agents):
    """P(tau > k) for k = 0 .. agents, and the chance of agent k + 1 to end it, (agents + 1, M)."""
    p = np.stack([np.log(p_minus[name]) for name in names])
    q = np.stack([np.log(q_minus[name]) for name in names])
    l, log_survival = np.zeros((len(names), 1)), np.zeros((len(names), 1))
    survival, hazard = [], []
    for _ in range(agents + 1):
        survival.append(log_survival)
        log_p, log_q = at(p, l), at(q, l)
        hazard.append(-np.expm1(log_p))
        log_survival, l = log_survival + log_p, l + log_p - log_q
    return np.exp(np.stack(survival)[..., 0]), np.stack(hazard)[..., 0]


def exponent(eps):
    return 2 / (eps * sigma**2 * -np.expm1(-2 * eps))


names = ["none", "smooth", *LADDER]
all_budgets = [epsilon, *budgets]
survival, hazard = all_wrong(names, n_agents)
k = np.arange(n_agents + 1)
measured = k[-1] * hazard[-1, 1:]  # -d log P(tau > k) / d log k
predicted = np.array([exponent(eps) for eps in all_budgets])
boundary = brentq(lambda log_eps: exponent(np.exp(log_eps)) - 1, -5, 5)
expected = survival.cumsum(axis=0)
since = n_agents // 10
tail = expected[-1] / expected[since - 1] - 1  # what the last nine tenths of the agents add
for name, e, t in zip(names, expected[-1], tail):
    print(f"{name:16} E[min(τ, {n_agents})] = {e:6.2f}, of which agents from {since} on {t:.1e}")
print("exponent measured ", measured.round(3), "\n         predicted", predicted.round(3))
print(f"E[τ] is finite below ε = {np.exp(boundary):.2f}")

# %% [markdown]
# **The number of wrong actions.** The paper states that it, too, is finite in expectation. It
# depends on what is counted. Let $p$ and $q$ be the probabilities of a wrong action given $+$ and
# $-$. Privacy bounds the evidence in it, $q \le e^{2\varepsilon} p$. If the sum of $p$ over all
# agents were finite, so would be that of $q$, and agents who agree could bring only
# $\sum \log\frac{1-p}{1-q} < \infty$: the crowd would never become sure. So **a private crowd that
# learns must err for ever**. On the typical path it pays a fixed price for evidence,
#
# $$\frac{d\,\text{wrong}}{dl} = \frac{p}{\mathrm{KL}} \to \frac{1}{e^{2\varepsilon} - 1 -
#   2\varepsilon}, \qquad \text{so that} \qquad \text{wrong}_n \approx
#   \frac{2}{\varepsilon\sigma^2}\,\frac{\log n}{e^{2\varepsilon} - 1 - 2\varepsilon} .$$
#
# What does stay finite, for $\varepsilon$ below the boundary above, is the number of wrong
# *choices*, what agents believe before the coin falls. Without privacy the two are the same; there,
# a typical path has few, and the expectation is infinite since rare crowds follow each other into
# the wrong herd for very long.

# %%
row = list(ROWS).index("smooth")
mean_wrong, mean_choice = wrong[:, row].mean(axis=1), wrong_choice[:, row].mean(axis=1)
price = np.expm1(2 * epsilon) - 2 * epsilon
early = marks >= n_agents / 100
late_wrong, late_choices = (m[-1] - m[early][0] for m in (mean_wrong, mean_choice))
wrong_ratio = late_wrong / np.log(marks[-1] / marks[early][0]) * price * epsilon * sigma**2 / 2

fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
labels = ["no privacy", *(f"smooth, ε = {eps:g}" for eps in all_budgets)]
dashes = ("-", "-", "--", "-.", (0, (7, 1, 1, 1, 1, 1)))
for j, colour in enumerate((BLACK, BLUE, GREEN, AMBER, PINK)):
    axes[0].loglog(k[1:], survival[1:, j], ls=dashes[j], color=colour, label=labels[j])
axes[0].loglog(k[1:], 1 / k[1:], ":", color=GREY, label="$1/k$: boundary")
axes[0].set(xlabel="agents k", ylabel="P(first k all wrong)", ylim=(1e-8, 1.2))
axes[0].set_title("waiting for the first right action")
axes[0].legend(fontsize=9)
for values, style, label in (
    (wrong, "-", "actions"),
    (wrong_choice, "--", "choices before the coin"),
):
    axes[1].plot(marks, values[:, row].mean(axis=1), style, color=BLUE, label=f"smooth, {label}")
_, n, typical_wrong = typical(p_minus["smooth"], q_minus["smooth"])
axes[1].plot(n, typical_wrong, ":", color=BLUE, label="smooth, typical path")
axes[1].plot(marks, wrong[:, 0].mean(axis=1), color=BLACK, label="no privacy")
axes[1].set(xscale="log", xlim=(1, n_agents), xlabel="agent n", ylabel="wrong so far, mean")
axes[1].set(ylim=(0, 1.25 * mean_wrong[-1]), title="how many were wrong")
axes[1].legend(fontsize=9)
plt.show()

claim(
    PAPER,
    "smooth: exponent of P(first k all wrong), deviation relative to its formula, worst budget",
    float(np.abs(measured / predicted - 1).max()),
    at_most=0.1,
)
claim(
    PAPER,
    "what the last nine tenths of the agents add to the expected time to the first right action, "
    "smooth relative to no privacy",
    float(tail[1] / tail[0]),
    at_most=0.01,
)
claim(
    PAPER,
    "smooth: wrong choices, before the coin falls, relative to wrong actions of the last 99%",
    late_choices / late_wrong,
    at_most=0.5,
)
claim(
    PAPER,
    "against the paper: wrong actions keep coming, growth with log n relative to the formula",
    wrong_ratio,
    at_least=0.65,
    at_most=1.4,
)
metric("finite_waiting_below_epsilon", float(np.exp(boundary)))
metric("wrong_actions_smooth", mean_wrong[-1])

# %% [markdown]
# ## 6. Binary signals: here privacy only costs
#
# Now the signal is one bit, right with probability $\pi$. Nothing to be smooth about: every action
# is flipped with $u = 1/(1+e^{\varepsilon})$, and an action is right with probability
# $\pi' = \pi(1-u) + (1-\pi)u$. The public counts the actions for $+$ less those for $-$; each is
# worth $\lambda' = \log\frac{\pi'}{1-\pi'}$. Once the count reaches $\pm K$, where
# $K\lambda' > \lambda = \log\frac{\pi}{1-\pi}$ for the first time, it outweighs any signal: a
# **cascade** has begun, and nobody's action says anything any more. (At a tie agents follow their
# signal.) The count is a random walk between two walls, so
#
# $$K = \lfloor \lambda / \lambda' \rfloor + 1, \qquad
#   P(\text{right cascade}) = \frac{1}{1 + e^{-K\lambda'}} .$$


# %%
def log_odds(p):
    return np.log(p / (1 - p))


def cascade(eps):
    """Count K at which a cascade starts, chance of a right action before it, and of a right one."""
    u = expit(-eps)
    noisy = accuracy * (1 - u) + (1 - accuracy) * u
    # Without noise lambda / lambda' is exactly 1; rounding must not turn that tie into K = 1.
    K = int(np.floor(log_odds(accuracy) / log_odds(noisy) + 1e-9)) + 1
    return K, noisy, expit(K * log_odds(noisy))


def simulated_cascades(eps, rng):
    """Share of crowds that end in the right cascade, and the agents it took, on average."""
    K, noisy, _ = cascade(eps)
    count, agents = np.zeros(n_cascades, int), np.zeros(n_cascades, int)
    while (walking := np.abs(count) < K).any():
        agents += walking
        count[walking] += np.where(rng.random(walking.sum()) < noisy, 1, -1)
    return (count > 0).mean(), agents.mean()


private = np.geomspace(0.2, 8, 400)
right = np.array([cascade(eps)[2] for eps in private])
best_right = cascade(np.inf)[2]
jumps = np.flatnonzero(np.diff([cascade(eps)[0] for eps in private]))  # K changes after these
tried = [0.5, 1.0, 1.3, 2.0, 4.0, np.inf]
drawn = {eps: simulated_cascades(eps, rng) for eps in tried}
print("ε       K   P(right cascade)   simulated   agents until then")
for eps, (share, agents) in drawn.items():
    K, _, theory = cascade(eps)
    print(f"{eps:4}  {K:3}   {theory:16.3f}   {share:9.3f}   {agents:17.1f}")
z = max(
    abs(share - cascade(eps)[2]) / np.sqrt(cascade(eps)[2] * (1 - cascade(eps)[2]) / n_cascades)
    for eps, (share, _) in drawn.items()
)

fig, axis = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
for piece in np.split(np.arange(len(private)), jumps + 1):
    axis.semilogx(private[piece], right[piece], color=BLUE)
shown = [eps for eps in tried if np.isfinite(eps)]
axis.plot(shown, [drawn[eps][0] for eps in shown], "o", color=ORANGE, label="simulated crowds")
axis.plot([], [], color=BLUE, label="random walk, exact")
axis.axhline(best_right, color=BLACK, label="no privacy")
axis.axhline(accuracy, color=GREY, ls=":", label="one signal alone")
axis.set(xlabel="privacy budget ε (smaller: more noise)", ylabel="P(right cascade)")
axis.set(xticks=[0.2, 0.5, 1, 2, 5], xticklabels=["0.2", "0.5", "1", "2", "5"])
axis.minorticks_off()
axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, 0.95))
plt.show()

claim(
    PAPER,
    "binary signals: best chance of a right cascade with privacy, over all budgets tried, against "
    "that without",
    float(right.max()),
    at_most=float(best_right),
)
claim(
    PAPER,
    "binary signals, not monotone: largest gain in the chance of a right cascade from a slightly "
    "smaller budget",
    100 * float((right[:-1] - right[1:]).max()),
    at_least=2,
    unit="points",
)
claim(
    PAPER,
    "binary signals: simulated share of right cascades against the random walk, worst budget",
    float(z),
    at_most=4.5,
    unit="standard errors",
)

# %% [markdown]
# At every budget privacy costs: the curve stays below the black line. But it is a **saw**. When
# actions become so noisy that one more of them is needed for a cascade, the crowd listens longer
# and is right more often. So "more privacy, worse cascades" is true along a tooth and false between
# two: one may gain several points by asking for a little more privacy. The paper says so too.
#
# ## 7. Choose your own budget
#
# Left the flips, in the middle how often a believing crowd is defied, on the right what it learns
# from that, all from the tables. Lower ε and watch the blue line start later and rise more steeply.


# %%
def explore(eps=1.0):
    """Typical paths up to 10^8 agents without privacy, and with both mechanisms at budget eps."""
    mechanisms = {"none": no_flip, "uniform": uniform(eps), "smooth": smooth(eps)}
    tables = zip(*minus_tables(list(mechanisms.values()), order=8))
    _, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for (name, u), (p, q) in zip(mechanisms.items(), tables):
        l, n, _ = typical(p, q)
        line = {"color": COLOURS[name], "ls": LINES[name]}
        axes[0].plot(x, u(x), label=titles[name], **line)
        axes[1].semilogy(l_grid, p, **line)
        axes[2].semilogx(n[1:], l[1:], **line)
    axes[0].set(xlabel="signal − threshold", ylabel="probability of a flip", ylim=(-0.02, 0.75))
    axes[1].set(xlim=(0, 20), ylim=(1e-9, 1), xlabel="belief $l$", ylabel="P(−1 | θ = +1)")
    axes[2].axhline(l_max, color=GREY, lw=0.8, ls=":", label="end of the tables")
    axes[2].set(xlabel="agent n", ylabel="belief in the truth, $l_n$")
    axes[2].set(xlim=(1, 1e8), ylim=(0, 1.15 * l_max))
    axes[0].legend(fontsize=9, loc="upper right")
    axes[2].legend(fontsize=9, loc="upper left")
    plt.show()


_ = interact(
    explore,
    eps=FloatSlider(1.0, min=0.2, max=4.0, step=0.1, description="ε", continuous_update=False),
)

# %%
explore(0.4)  # the same without the slider, for those who read this on paper

# %% [markdown]
# ## 8. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: the mechanism in disguise
#
# An agent adds Laplace noise with density $\frac{\varepsilon}{2} e^{-\varepsilon \lvert y \rvert}$
# to the signal and acts $+1$ if the sum exceeds the threshold. Return the probability of $+1$ at
# distances `x` $= s - t$ (an array) for budget `eps`, from the distribution function of the noise;
# then compare with `probability_plus(x, smooth(eps))`.
#
# <details><summary>Hint</summary>
#
# The noise must exceed $-x$. `scipy.stats.laplace` has a `cdf` with a `scale`, and the distribution
# is symmetric.
#
# </details>


# %% tags=["exercise"]
def laplace_action(x, eps):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def laplace_action_solution(x, eps):
    half = 0.5 * np.exp(-eps * np.abs(x))
    return np.where(x > 0, 1 - half, half)


# %% tags=["check"]
check(
    laplace_action,
    laplace_action_solution,
    lambda rng: (rng.normal(0, 3, 8), float(rng.uniform(0.2, 3))),
)

# %% [markdown]
# ### Exercise 2: the price of evidence
#
# `p` and `q` are the probabilities of a wrong action given $+$ and $-$. How many wrong actions does
# a crowd in state $+$ pay on average for one unit of log-likelihood ratio?
#
# <details><summary>Hint</summary>
#
# Wrong actions per agent, divided by evidence per agent. The latter is the Kullback–Leibler
# divergence between two coins.
#
# </details>


# %% tags=["exercise"]
def price_of_evidence(p, q):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def price_of_evidence_solution(p, q):
    evidence_per_agent = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return p / evidence_per_agent


# %% tags=["check"]
check(price_of_evidence, price_of_evidence_solution, lambda rng: tuple(np.sort(rng.random(2))))

# %% [markdown]
# ### Exercise 3: how long until a cascade?
#
# The count of section 6 starts at 0, goes up with probability `noisy` and else down, and stops at
# $\pm$`K`. How many steps does it take on average? Compare with the last column of the table there.
#
# <details><summary>Hint</summary>
#
# Wald's identity: the mean of the count at the end is the mean step times the mean number of steps.
#
# </details>


# %% tags=["exercise"]
def agents_until_cascade(K, noisy):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def agents_until_cascade_solution(K, noisy):
    up = 1 / (1 + (1 / noisy - 1) ** K)
    return K * (2 * up - 1) / (2 * noisy - 1)


# %% tags=["check"]
check(
    agents_until_cascade,
    agents_until_cascade_solution,
    lambda rng: (int(rng.integers(1, 9)), float(rng.uniform(0.51, 0.95))),
)

# %% [markdown]
# ## 9. What did not reproduce, and what to keep in mind
#
# The surprising part reproduces to the digit: with smooth flips belief grows as
# $\frac{2}{\varepsilon\sigma^2}\log n$ instead of $\sqrt{8 \log n}/\sigma$, and the expected time
# to the first right action is finite. Three remarks.
#
# - **Wrong actions do not stay finite in number**, if an action is what the others see. They grow
#   with $\log n$, as the three lines of section 5 show for *any* mechanism with the metric promise,
#   and as the simulation confirms. Wrong choices before the coin falls do stay finite for
#   $\varepsilon$ below the boundary of section 5, and so we read the paper's statement.
# - **It is the tail, not the privacy.** Any noise with an exponential tail, added to the signal
#   for whatever reason, does the same; the speed of such crowds is known to hang on the tails of
#   their private signals. Uniform flips protect as well, in their way, and slow learning down.
#   The two promises differ, so the comparison at one $\varepsilon$ is of speeds, not of equal
#   protection.
# - **Asymptotic is late.** For thirty agents smooth flips gain next to nothing over no privacy, at
#   any budget. The gain is one of long queues.
#
# Nothing was scaled down: this is the paper's model, with 20,000 agents. Claims were tried at seeds
# 0 to 9.
#
# **Next.** Banerjee (1992) and Bikhchandani, Hirshleifer and Welch (1992) for herds and cascades;
# Smith and Sørensen (2000) for when crowds learn; Hann-Caruthers, Martynov and Tamuz,
# [*The speed of sequential asymptotic learning*](https://arxiv.org/abs/1707.02689) (2018), for
# $\sqrt{\log n}$; Warner (1965) for randomised response.

# %%
# NBVAL_CHECK_OUTPUT
summary()
