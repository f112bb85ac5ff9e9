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
# # Turning the gain
#
# **Question.** What we see changes from one second to the next, and the cortex adapts within
# seconds; synapses take longer to rewire. How far does a circuit get that keeps every synapse as
# it is, and only turns single neurons up or down?
#
# ![A photograph, the response of a circuit of adaptive gains, and correlations and spectra of
# both](02_turning_the_gain.png)
#
# **Reading** 20 minutes. **Running** under half a minute on two CPU cores, under 1 GB of memory.
#
# **Papers**
#
# - `adaptive-whitening-gain-interneurons`: L. R. Duong, D. Lipshutz, D. J. Heeger,
#   D. B. Chklovskii and E. P. Simoncelli, *Adaptive whitening in neural populations with
#   gain-modulating interneurons*, ICML 2023, [arXiv:2301.11955](https://arxiv.org/abs/2301.11955).
# - `gain-adaptive-recurrent-v1`: L. R. Duong, C. Bredenberg, D. J. Heeger and E. P. Simoncelli,
#   *Adaptive coding efficiency in recurrent cortical circuits via gain control*, 2023,
#   [arXiv:2305.19869](https://arxiv.org/abs/2305.19869).
#
# You need matrices, eigenvalues and covariance. Every number in the text is measured below; the
# green cards say which statement was held against which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
spacing: int = 4  # pixels between the neighbours that the small circuits see
batch: int = 64  # samples that are averaged before gains move
eta_online: float = 0.005  # step of the gains, per batch
n_batches: int = 6000  # batches in front of each scene
n_patches: int = 8000  # patches of photographs, for learning and again for testing
contrast: float = 5.0  # standard deviation of a pixel in these patches
n_gratings: int = 4000  # gratings shown to the ring of orientation-tuned neurons
adapter_share: float = 0.3  # share of them that show the adapter
recurrence: float = 0.8  # spectral radius of the ring's recurrent weights
alpha: float = 3.0  # price of activity in the ring

# %%
import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import FloatSlider, interact
from scipy.optimize import minimize

from labkit import claim
from labkit.checks import check_ranges
from labkit.claims import summary
from labkit.data import PHOTOGRAPHS, natural_images, sample_patches
from labkit.exercises import check
from labkit.plots import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, house_style

WHITENING = "adaptive-whitening-gain-interneurons"
RING = "gain-adaptive-recurrent-v1"
check_ranges(globals(), spacing=(1, 50), batch=(1, 1024), eta_online=(1e-5, 0.05))
check_ranges(globals(), n_batches=(2000, 20_000), n_patches=(1000, 100_000), contrast=(0.1, 100))
check_ranges(globals(), n_gratings=(500, 10**6), adapter_share=(0.01, 0.99), recurrence=(0, 0.95))
check_ranges(globals(), alpha=(0.01, 100))

house_style()
rng = np.random.default_rng(seed)
PHOTO = dict(zip(PHOTOGRAPHS, natural_images()))

# %% [markdown]
# ## 1. Two pixels, three interneurons
#
# Neighbouring pixels of a photograph are nearly the same, so two neurons that report one pixel each
# say almost everything twice. **Whitening** removes this: responses $y$ with covariance
# $\langle yy^\top\rangle = I$, every neuron equally busy and none predictable from another.
#
# The circuit of Duong et al. has $N$ primary neurons and $K$ interneurons. Interneuron $i$ listens
# through fixed synapses $w_i$ (a vector of length one), and feeds back through the same, with gain
# $g_i$:
#
# $$\tau\,\frac{dy}{dt} = x - y - \sum_i g_i z_i w_i, \qquad z_i = w_i^\top y .$$
#
# With the $w_i$ as columns of $W$, it settles where the right-hand side vanishes:
#
# $$y = M^{-1} x, \qquad M = I + W \operatorname{diag}(g)\, W^\top .$$
#
# Then, much more slowly, each gain looks at its *own* neuron and at nothing else:
#
# $$g_i \leftarrow g_i + \eta\,\big(\langle z_i^2\rangle - 1\big).$$
#
# Too much variance along $w_i$: turn up the inhibition; too little: turn it down. Why should that
# whiten? The neurons descend, and the gains climb, one landscape:
#
# $$\min_y \max_g \Big\langle \tfrac12\lVert x - y\rVert^2
# + \tfrac12 \sum_i g_i \big((w_i^\top y)^2 - 1\big)\Big\rangle .$$
#
# The gains are Lagrange multipliers: among all responses with unit variance along every
# $w_i$, the circuit looks for those closest to the input.


# %%
def circuit(W, g):
    """M = I + W diag(g) W' for gains (..., K) and synapses (N, K)."""
    return np.eye(len(W)) + (W * g[..., None, :]) @ W.T


def settle(x, W, g, dt=0.02, steps=1000):
    """Euler steps of the differential equation, in units of τ; the path (steps, N) from zero."""
    y, path = np.zeros(len(x)), []
    for _ in range(steps):
        z = W.T @ y
        y = y + dt * (x - y - W @ (g * z))
        path.append(y)
    return np.array(path)


def adapt(W, moments, eta, steps, g, floor=-1e9):
    """Gains over time (steps + 1, ..., K), kept within floor and 1e9.

    moments: <xx'> of the input, one per step for batches (online), or one for good (offline).
    """
    history = [g]
    per_step = moments.ndim == g.ndim + 2
    for t in range(steps):
        S = moments[t] if per_step else moments
        B = np.linalg.solve(circuit(W, g), W)  # column i is M^-1 w_i, so that z_i = B_i' x
        g = np.clip(g + eta * ((B * (S @ B)).sum(-2) - 1), floor, 1e9)
        history.append(g)
    return np.array(history)


def output_covariance(W, g, C):
    """Covariance M^-1 C M^-1 of the responses, for one or many settings of the gains."""
    inverse = np.linalg.inv(circuit(W, g))
    return inverse @ C @ inverse


def distance(Y, norm="fro"):
    """How far covariances (..., N, N) are from the identity: Frobenius / N, or largest |λ - 1|."""
    excess = np.abs(np.linalg.eigvalsh(Y) - 1)
    return excess.max(-1) if norm == "operator" else np.linalg.norm(excess, axis=-1) / Y.shape[-1]


def neighbours(image, offsets, std=1.0):
    """Every place (P, N) of a photograph at which pixels at these offsets exist; zero mean."""
    rows, columns = image.shape
    down, right = np.max(offsets, axis=0)
    x = [image[r : rows - down + r, c : columns - right + c].ravel() for r, c in offsets]
    x = np.stack(x, axis=1).astype(float)
    x -= x.mean()
    return x * (std / x.std())


def square_root(C):
    values, vectors = np.linalg.eigh(C)
    return (vectors * np.sqrt(values)) @ vectors.T


def batch_moments(x, count):
    """Second moments (count, N, N) of `count` random batches."""
    chosen = x[rng.integers(len(x), size=(count, batch))]
    return chosen.swapaxes(1, 2) @ chosen / batch


angles = np.pi * np.arange(3) / 3 + np.pi / 30
three = np.stack([np.cos(angles), np.sin(angles)])  # (2, 3): like the star of Mercedes
pairs = neighbours(PHOTO["astronaut"], [(0, 0), (0, spacing)], std=2.0)
C_pairs = pairs.T @ pairs / len(pairs)
history = adapt(three, batch_moments(pairs, 2000), eta_online, 2000, np.zeros(3))
g_three = history[-500:].mean(0)
whitened = pairs @ np.linalg.inv(circuit(three, g_three))

fig, axes = plt.subplots(1, 4, figsize=(12, 3.1), layout="constrained")
for x, colour in zip(pairs[rng.integers(len(pairs), size=3)], (BLUE, ORANGE, GREEN)):
    path = settle(x, three, g_three)
    rest = np.linalg.solve(circuit(three, g_three), x)
    axes[0].plot(0.02 * np.arange(1, 1001), path[:, 0], color=colour)
    axes[0].axhline(rest[0], color=colour, ls=":", lw=1)
    print(f"after 20 τ the neurons are within {np.abs(path[-1] - rest).max():.0e} of M⁻¹x")
looks = [{"color": c, "ls": style} for c, style in ((PINK, "-"), (AMBER, "--"), (SKY, "-."))]
for i, look in enumerate(looks):
    axes[1].plot(history[:, i], **look)
axes[0].set(xlabel="time (τ)", ylabel="response $y_1$", title="fast: neurons settle")
axes[1].set(xlabel="batches", ylabel="gain", title="slow: gains turn")
some = rng.integers(len(pairs), size=1500)
turn = np.linspace(0, 2 * np.pi, 200)
circle = np.stack([np.cos(turn), np.sin(turn)])
for axis, cloud, title in ((axes[2], pairs, "pixels $x$"), (axes[3], whitened, "responses $y$")):
    axis.plot(*cloud[some].T, ".", ms=2, color=GREY, alpha=0.6)
    axis.plot(*square_root(np.cov(cloud.T)) @ circle, color=BLACK)
    axis.set(title=title, aspect="equal", xlim=(-5, 5), ylim=(-5, 5), xlabel="first")
    axis.set_ylabel("second")
for w, look in zip(three.T, looks):
    axes[3].plot([-3 * w[0], 3 * w[0]], [-3 * w[1], 3 * w[1]], lw=2, **look)
plt.show()
print("gains:", g_three.round(2))

# %% [markdown]
# Left, the response to three inputs, and dotted where $M^{-1}x$ says that it settles. Then pairs of
# pixels from the astronaut; the black ellipse is one standard deviation, and the coloured lines on
# the right are the three directions $w_i$. Unit variance along three directions leaves no ellipse
# but the circle. Try to find the three gains yourself:


# %%
def by_hand(first=1.5, second=0.5, third=0.5):
    """The ellipse of the responses at three gains."""
    M = circuit(three, np.array([first, second, third]))
    if np.linalg.eigvalsh(M)[0] < 0.05:
        return print("too little inhibition: the feedback is about to run away")
    Y = np.linalg.inv(M) @ C_pairs @ np.linalg.inv(M)
    _, axis = plt.subplots(figsize=(3.4, 3.2), layout="constrained")
    axis.plot(*circle, ":", color=GREY)
    axis.plot(*square_root(Y) @ circle, color=BLACK)
    axis.set(aspect="equal", xlim=(-3, 3), ylim=(-3, 3), xlabel="$y_1$", ylabel="$y_2$")
    variances = ", ".join(f"{v:.2f}" for v in (three * (Y @ three)).sum(0))
    axis.set_title(f"variances: {variances}", fontsize=10)
    plt.show()


turn = {"min": -1, "max": 4, "step": 0.1, "continuous_update": False}
_ = interact(by_hand, **{k: FloatSlider(0, **turn) for k in ("first", "second", "third")})

# %%
by_hand()  # the same without sliders, for those who read this on paper

# %% [markdown]
# ## 2. How many interneurons?
#
# A symmetric $N \times N$ matrix has $N(N+1)/2$ free numbers, and unit variance along a direction,
# $w_i^\top C_{yy} w_i = 1$, is one linear equation for $C_{yy}$. With $K = N(N+1)/2$ directions in
# general position the only solution is $C_{yy} = I$; with fewer, correlations can hide between
# them. At the optimum $M = C_{xx}^{1/2}$, so $W \operatorname{diag}(g) W^\top = C_{xx}^{1/2} - I$,
# and multiplying by $w_i^\top$ and $w_i$ from both sides gives the gains in closed form:
#
# $$g^\ast = \big[(W^\top W)^{\circ 2}\big]^{-1}
# \operatorname{diag}\!\big(W^\top (C_{xx}^{1/2} - I)\, W\big),$$
#
# with $\circ 2$ for the square of each entry. This formula looks into the eigenvalues of $C_{xx}$;
# the circuit never does. It serves as the judge. (How far from white? We count eigenvalues of
# $\operatorname{Cov}(y)$ above one *and* below. The largest one minus one, an error measure that
# one meets in published code, would call variances of 1 and 0.2 white.)
#
# Not any $W$ will do in practice: nearly parallel directions make the matrix in brackets singular
# to working precision, and the rule very slow. We spread the $w_i$ by minimising
# $\sum_{i \ne j} (w_i^\top w_j)^4$. For $N = 3$, $K = 6$ this finds the six axes through the
# corners of an icosahedron.


# %%
def spread_frame(N, K, steps=3000, rate=0.2):
    """Unit vectors (N, K), as far from one another as gradient descent brings them."""
    W = rng.standard_normal((N, K))
    W /= np.linalg.norm(W, axis=0)
    for _ in range(steps):
        overlap = W.T @ W
        np.fill_diagonal(overlap, 0)
        W = W - rate / K * 6 * W @ overlap**3
        W /= np.linalg.norm(W, axis=0)
    return W


def closed_form(W, C):
    right = ((square_root(C) - np.eye(len(C))) @ W * W).sum(0)
    return np.linalg.solve((W.T @ W) ** 2, right)


Q = np.linalg.qr(rng.standard_normal((10, 3, 3)))[0]
covariances = (Q * np.array([1.5, 3, 6])) @ Q.swapaxes(1, 2)  # ten inputs, turned at random
frames = {K: spread_frame(3, K) for K in range(1, 9)}
frames["right angles"] = np.linalg.qr(rng.standard_normal((3, 3)))[0]  # K = N = 3
ends = {}
for K, W in frames.items():
    g = adapt(W, covariances, 0.1, 5000, np.ones((10, W.shape[1])))[-1]
    ends[K] = g, output_covariance(W, g, covariances)

fig, axis = plt.subplots(figsize=(6.5, 3), layout="constrained")
for K in range(1, 9):
    for norm, colour, nudge in (("fro", BLUE, 0), ("operator", ORANGE, 0.15)):
        axis.semilogy(np.full(10, K + nudge), distance(ends[K][1], norm), ".", color=colour)
axis.axvline(5.5, color=GREY, ls=":")
axis.text(5.6, 3, "N(N + 1)/2 = 6")
axis.set(xlabel="interneurons K", ylabel="distance of Cov(y) from I", ylim=(1e-17, 30))
axis.legend(axis.lines[:2], ["Frobenius / N", "largest |λ − 1|"], title="3 neurons, 10 inputs")
plt.show()
W, Y = frames["right angles"], ends["right angles"][1]
first = (W.T @ Y[0] @ W).round(3)  # seen along the three directions
print("right angles: variances", np.diagonal(first), "covariances", first[[0, 0, 1], [1, 2, 2]])

worst, half = distance(ends[6][1]).max(), np.median(distance(Y))
exact = max(np.abs(g - closed_form(frames[6], C)).max() for g, C in zip(ends[6][0], covariances))
claim(WHITENING, "six interneurons, ten inputs: worst ‖Cov(y) − I‖ / N", worst, at_most=1e-8)
claim(WHITENING, "six interneurons: gains against the closed form", exact, at_most=1e-6)
claim(WHITENING, "three interneurons at right angles: median ‖Cov(y) − I‖ / N", half, at_least=0.1)

# %% [markdown]
# At six the error drops to rounding. Three interneurons at right angles reach their target, unit
# variance each, and are blind to the correlations between them.
#
# ## 3. Tilting the head
#
# Now the input changes. The circuit sees triples of pixels from a brick wall: a pixel, its right
# and its lower neighbour, in batches of a few dozen. Then we tilt the head by 90 degrees, and later
# back. As baseline, the synaptic alternative: an anti-Hebbian rule that rewires the feedback,
# $M \leftarrow M + \eta\,(\langle yy^\top\rangle - I)$. It has as many free numbers as our six
# gains. What to expect? With $A = \langle yy^\top\rangle - I$, the gains move $M$ by
# $\eta \sum_i (w_i^\top A w_i)\, w_i w_i^\top$, and for the six axes of an icosahedron this sum is
# exactly $\tfrac45 A + \tfrac25 \operatorname{tr}(A)\, I$.


# %%
def rewire(moments, eta, M):
    """The synaptic rule: feedback matrices (steps + 1, N, N) over time."""
    history = [M]
    for S in moments:
        inverse = np.linalg.inv(M)
        M = np.clip(M + eta * (inverse @ S @ inverse - np.eye(len(M))), -1e9, 1e9)
        history.append(M)
    return np.array(history)


W, wall = frames[6], PHOTO["brick"]
scenes = [
    neighbours(view, [(0, 0), (0, spacing), (spacing, 0)], std=3**0.5)
    for view in (wall, np.rot90(wall), wall)
]
g, M, visits = np.ones(6), circuit(W, np.ones(6)), []
errors = {"adaptive gains": [], "adaptive synapses": []}
for x in scenes:
    C, seen = x.T @ x / len(x), batch_moments(x, n_batches)
    gains, rewired = adapt(W, seen, eta_online, n_batches, g), rewire(seen, eta_online, M)
    inverse = np.linalg.inv(rewired)
    errors["adaptive gains"].append(distance(output_covariance(W, gains, C)))
    errors["adaptive synapses"].append(distance(inverse @ C @ inverse))
    g, M = gains[-1], rewired[-1]
    visits.append(gains)
likeness = np.corrcoef([v[-1000:].mean(0) for v in visits])  # of the gains in the three scenes
frozen = errors["adaptive gains"][1][0]
tail = max(run[-1000:].mean() for run in errors["adaptive gains"][1:])
until = {k: 1 + int(np.argmax(np.append(v[1] < 0.05, True))) for k, v in errors.items()}

fig, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained", width_ratios=[1, 2, 2])
views = [np.pad(v[:160, :160], 4, constant_values=1) for v in (wall, np.rot90(wall))]
axes[0].imshow(np.vstack(views), cmap="gray")
axes[0].set_axis_off()
for (label, runs), colour in zip(errors.items(), (BLUE, ORANGE)):
    axes[1].semilogy(np.concatenate(runs), color=colour, lw=1, label=label)
axes[1].plot([n_batches, 2 * n_batches], [frozen, frozen], color=GREY, label="frozen")
axes[1].set(xlabel="batches", ylabel="distance of Cov(y) from I", ylim=(1e-3, 20))
axes[1].legend(ncols=2, loc="upper center")
axes[2].plot(np.concatenate(visits), lw=1)
axes[2].set(xlabel="batches", ylabel="the six gains")
plt.show()
print("batches until the distance falls below 0.05 after the tilt:", until)
print(f"correlation of the gains: two scenes {likeness[0, 1]:.2f}, two visits {likeness[0, 2]:.4f}")

claim(WHITENING, "tilted head: ‖Cov(y) − I‖ / N with the old gains", frozen, at_least=0.2)
claim(WHITENING, "adapted online, last 1000 batches: mean ‖Cov(y) − I‖ / N", tail, at_most=0.04)
slowness, again = until["adaptive gains"] / until["adaptive synapses"], likeness[0, 2]
claim(WHITENING, "second visit: correlation of the gains with the first", again, at_least=0.98)
claim(WHITENING, "batches to a distance of 0.05: gains relative to synapses", slowness, at_most=2)

# %% [markdown]
# A few hundred batches after the tilt the responses are white again, and back in the first scene
# the gains return to where they were. Mind what this does *not* show: six gains take about as many
# batches as synapses with the same step, as the formula predicts. That gains change within a second
# and synapses do not is physiology, an assumption of the paper and no result of it.
#
# ## 4. Gains that never turn negative
#
# To whiten means to *raise* variances that are below one, which takes negative gains: feedback that
# excites. If $M$ loses its smallest eigenvalue on the way, the circuit runs away. The paper's
# remedy is to clamp, $g_i \ge 0$. Then $M \ge I$ whatever happens, and the circuit only ever
# shrinks variances: one-sided whitening.
#
# The test is six adjacent pixels of the flower, so alike that their covariance has a condition
# number of about a thousand, with $K = 4N^2 = 144$ random directions and many step sizes.

# %%
flower = neighbours(PHOTO["flower"], [(r, c) for r in range(2) for c in range(3)])
flower *= np.sqrt(10 / np.linalg.eigvalsh(np.cov(flower.T))[-1])  # largest eigenvalue 10
C = flower.T @ flower / len(flower)
many = rng.standard_normal((6, 144))
many /= np.linalg.norm(many, axis=0)
etas = np.array([0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005])
inputs = {"offline": C, "online": batch_moments(flower, 5000)[:, None]}
lowest, highest, final = {}, {}, {}
fig, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
for kind, floor, colour in (("free", -1e9, ORANGE), ("clamped", 0.0, BLUE)):
    for mode, style in (("offline", "o-"), ("online", "s:")):
        start = np.ones((len(etas), 144))
        history = adapt(many, inputs[mode], etas[:, None], 5000, start, floor)
        Y = output_covariance(many, history, C)
        largest = np.linalg.eigvalsh(Y)[..., -1]
        lowest[kind, mode] = np.linalg.eigvalsh(circuit(many, history))[..., 0].min(0)
        highest[kind, mode] = largest.max(0)
        final[kind, mode] = distance(Y[-500:], "operator").mean(0)
        look = {"ms": 5, "color": colour, "label": f"{kind}, {mode}"}
        axes[1].loglog(etas, highest[kind, mode], style, **look)
        axes[2].loglog(etas, np.maximum(final[kind, mode], 1e-12), style, **look)
    axes[0].semilogy(largest[:600, 0], color=colour, lw=1, label=kind)
axes[0].set(xlabel="batches (online, η = 0.05)", ylabel="largest eigenvalue of Cov(y)")
axes[0].legend(loc="lower right")
axes[1].axhline(10, color=GREY, ls=":", lw=1)
axes[1].set(xlabel="step size η", ylabel="largest eigenvalue on the way")
fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower right", ncols=4)
axes[2].set(xlabel="step size η", ylabel="largest |λ − 1| in the end")
plt.show()
print("eigenvalues of the six pixels:", np.linalg.eigvalsh(C).round(3), "\nstep sizes:", etas)
for key in lowest:
    print(*key, "\n  largest eigenvalue of Cov(y) on the way:", *(f"{v:.3g}" for v in highest[key]))
    print("  largest |λ − 1| in the end:", *(f"{v:.1e}" for v in final[key]))
best = final["free", "offline"][3] / final["clamped", "offline"][3]
late = largest[-500:, 0].mean()  # clamped, online, step 0.05
least, most = lowest["free", "online"][0], highest["free", "online"][0]
claim(WHITENING, "free gains, step 0.05: smallest eigenvalue of M on the way", least, at_most=0)
claim(WHITENING, "free gains, step 0.05: largest eigenvalue of Cov(y)", most, at_least=100)
claim(WHITENING, "clamped gains, step 0.05: largest eigenvalue of Cov(y), late", late, at_most=2)
claim(WHITENING, "limit, offline, step 0.005: |λ − 1|, free / clamped gains", best, at_most=0.05)

# %% [markdown]
# At large steps free gains are thrown out of the stable region (thin grey line in the middle: the
# input's own largest eigenvalue), while clamped ones hardly notice. With a step ten times smaller
# and the true covariance, free gains whiten to rounding, where clamped ones by design leave small
# variances small. But the circuit never gets to see the true covariance. Online, with batches of a
# few dozen samples, free gains run away at all but the smallest steps.
#
# ## 5. A photograph
#
# For a picture, unit variance along $K = N(N+1)/2$ directions of *all* pixels is out of the
# question: a patch of $12 \times 12$ pixels would need ten thousand interneurons. The paper's way
# out is to repeat a small frame at every place $p$, with one gain for all copies of an interneuron.
# Ours whitens $3 \times 3$ pixels ($N = 9$, $K = 45$):
#
# $$M = I + \sum_p P_p^\top\, W \operatorname{diag}(g)\, W^\top P_p, \qquad
# g_i \leftarrow \max\!\big(0,\; g_i + \eta\,(\langle z_{ip}^2 \rangle - 1)\big),$$
#
# where $P_p$ cuts out the nine pixels at $p$ and the mean runs over places too. Gains are learned
# on patches of seven photographs, mean removed; everything is measured on three others. Since
# clamped gains only shrink variances above one, the scale of the input matters (the parameter
# `contrast`, a pixel's standard deviation).

# %%
HELD_OUT, SIDE = ["camera", "china", "coffee"], 12
grid = np.arange(SIDE**2).reshape(SIDE, SIDE)
corners = [(r, c) for r in range(SIDE - 2) for c in range(SIDE - 2)]
places = np.array([grid[r : r + 3, c : c + 3].ravel() for r, c in corners])
small = spread_frame(9, 45, steps=1000)


def patches(names):
    x = sample_patches([PHOTO[n] for n in names], SIDE, n_patches, rng).astype(float)
    return x - x.mean(axis=1, keepdims=True)


def sheet(g):
    """M of the same small circuit at every place of a patch."""
    A, M = (small * g) @ small.T, np.eye(SIDE**2)
    for p in places:
        M[np.ix_(p, p)] += A
    return M


def correlations(C):
    deviation = np.sqrt(np.diagonal(C))
    return C / np.outer(deviation, deviation)


def dependence(C):
    """Mean absolute correlation of two different pixels."""
    return np.abs(correlations(C))[~np.eye(len(C), dtype=bool)].mean()


def spectrum(C):
    """Power of patches with covariance C at the SIDE x SIDE spatial frequencies but zero."""
    F = np.fft.fft2(np.eye(SIDE**2).reshape(-1, SIDE, SIDE)).reshape(SIDE**2, -1) / SIDE
    return np.real((F.conj() * (C @ F)).sum(0))[1:]


x = patches([n for n in PHOTOGRAPHS if n not in HELD_OUT])
scale = contrast / x.std()
C_learn = np.cov(x.T) * scale**2
g_sheet = np.zeros(45)
for _ in range(150):
    inverse = np.linalg.inv(sheet(g_sheet))
    Y = inverse @ C_learn @ inverse
    nine = Y[places[:, :, None], places[:, None, :]].mean(0)  # mean covariance of nine pixels
    g_sheet = np.maximum(g_sheet + 0.02 * ((small * (nine @ small)).sum(0) - 1), 0)

C_in = np.cov(patches(HELD_OUT).T) * scale**2
inverse = np.linalg.inv(sheet(g_sheet))
C_out = inverse @ C_in @ inverse
flatness = [np.exp(np.log(p).mean()) / p.mean() for p in (spectrum(C_in), spectrum(C_out))]
print(f"{(g_sheet > 0).sum()} of {len(g_sheet)} interneurons keep a gain above zero")
print(f"held out, mean |correlation|: {dependence(C_in):.3f} -> {dependence(C_out):.3f}")
print(f"held out, flatness of the spectrum (1: flat): {flatness[0]:.3f} -> {flatness[1]:.3f}")

# %% [markdown]
# On a sheet without borders the repeated circuit is a convolution,
# $\hat y(f) = \hat x(f) \big/ \big(1 + \sum_i g_i\, |\hat w_i(f)|^2\big)$ with $\hat w_i$ the
# Fourier transform of $w_i$ as a $3 \times 3$ picture. So gains can be applied to photographs.

# %% tags=["cover"]
photograph = (PHOTO["camera"] - PHOTO["camera"].mean()) * scale
power = np.abs(np.fft.fft2(small.T.reshape(-1, 3, 3), s=photograph.shape)) ** 2
response = np.fft.ifft2(np.fft.fft2(photograph) / (1 + np.tensordot(g_sheet, power, 1))).real
fig, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
for axis, picture, title in zip(axes, (photograph, response), ("a photograph", "its response")):
    crop = picture[75:215, 165:305]
    grey = {"cmap": plt.get_cmap("gray", 32), "interpolation": "nearest"}
    axis.imshow(crop, vmin=np.quantile(crop, 0.005), vmax=np.quantile(crop, 0.995), **grey)
    axis.set_axis_off()
    axis.set_title(title, fontsize=10)
f = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE))).ravel()[1:]
for C, label, colour in ((C_in, "photographs", GREY), (C_out, "responses", BLUE)):
    R = correlations(C).reshape((SIDE,) * 4)
    rows = [np.einsum("rcrd->rcd", R).mean(0).diagonal(d).mean() for d in range(SIDE - 1)]
    axes[2].plot(rows, "o-", ms=4, color=colour, label=label)
    axes[3].semilogy(f, spectrum(C), ".", color=colour, label=label)
axes[2].axhline(0, color=BLACK, lw=0.8)
axes[2].set(xlabel="pixels apart", ylabel="correlation")
axes[3].set(xlabel="spatial frequency (cycles/pixel)", ylabel="power")
axes[2].legend()
plt.show()

# %%
ratios = dependence(C_out) / dependence(C_in), flatness[1] / flatness[0]
claim(WHITENING, "held-out photographs, |correlation|: after / before", ratios[0], at_most=0.5)
claim(WHITENING, "held-out photographs, flatness: after / before", ratios[1], at_least=1.5)

# %% [markdown]
# What neighbours have in common is turned down, and fine structure stands out. Some correlation is
# left, of either sign, between pixels two to four apart: a frame of three by three pixels cannot
# see those three or four apart together. Most interneurons end at zero; those that stay suppress
# smooth patterns.
#
# ## 6. A ring of orientations
#
# The second paper puts the gains on the primary neurons themselves. In primary visual cortex (V1)
# each neuron prefers an orientation $\theta_i$. Show gratings of random orientation, one of them,
# the *adapter*, far too often, and the tuning curves change: neurons near the adapter respond less,
# and the others' preference moves *away* from it. A gain can scale a tuning curve but not move it.
# So must synapses have changed? Connect the neurons:
#
# $$\tau\,\frac{dr}{dt} = -r + g \circ (f(s) + W r) \quad\Rightarrow\quad
# r = (I - GW)^{-1} G f(s), \qquad G = \operatorname{diag}(g).$$
#
# $f_i(s)$ is the drive by orientation $s$, $W$ a fixed Gaussian in the difference of preferred
# orientations, with spectral radius below one: with gains of at most one the ring is stable. A gain
# that falls at the adapter also withdraws input from its neighbours, more so on their near side.
#
# The gains are set by a trade. With $z = f + Wr$ the input of a neuron and $r = g \circ z$,
#
# $$L(g) = \Big\langle \lVert z - r\rVert^2 + \alpha \lVert r \rVert^2 \Big\rangle_{p(s)}
# + \gamma \lVert g - 1 \rVert^2 :$$
#
# report the input, spare activity, stay near gain one. If a neuron takes its input for given, $L$
# falls apart into single neurons, and setting the derivative to zero gives
#
# $$g_i = \frac{\langle z_i^2\rangle + \gamma}{(1 + \alpha)\langle z_i^2\rangle + \gamma} .$$
#
# As gains change so does the input, so we iterate this to a fixed point. The *control* is the same
# ring, adapted to gratings of all orientations alike.


# %%
theta, orientations, ADAPTER = 2.0 * np.arange(90), np.arange(180.0), 90.0  # degrees


def off(a, b=ADAPTER):
    """Signed difference of orientations, -90 to 90 degrees."""
    return (a - b + 90) % 180 - 90


drive = np.exp(2 * (np.cos(np.deg2rad(2 * (orientations - theta[:, None]))) - 1))  # (90, 180)
bell = np.exp(-0.5 * (off(theta[:, None], theta) / 20) ** 2)
bell /= np.abs(np.linalg.eigvalsh(bell)).max()  # weights of spectral radius one


def ring(g, W):
    """Steady responses (90, 180) of all neurons to all orientations."""
    root = np.sqrt(g)[:, None]  # GW has the eigenvalues of the symmetric matrix tested here
    if np.abs(np.linalg.eigvalsh(root * W * root.T)).max() >= 1:
        raise ValueError("the ring is unstable: the spectral radius of GW reaches 1")
    return np.linalg.solve(np.eye(90) - g[:, None] * W, g[:, None] * drive)


def gamma(W):
    """The price of gains away from one: the mean squared input at gain one."""
    return np.mean((drive + W @ ring(np.ones(90), W)) ** 2)


def gains_local(p, W, sweeps=60):
    """Fixed point of the closed form; p (180,) is how often each orientation was shown."""
    g, price = np.ones(90), gamma(W)
    for _ in range(sweeps):
        z2 = (drive + W @ ring(g, W)) ** 2 @ p
        g = 0.5 * g + 0.5 * (z2 + price) / ((1 + alpha) * z2 + price)
    return g


def preferred(r):
    """Vector average of tuning curves (90, 180), degrees."""
    return np.rad2deg(np.angle(r @ np.exp(2j * np.deg2rad(orientations)))) / 2 % 180


def participation(r, p):
    """(sum λ)^2 / sum λ^2 of the covariance of responses: its effective dimension."""
    deviation = r - (r @ p)[:, None]
    values = np.linalg.eigvalsh(deviation * p @ deviation.T)
    return values.sum() ** 2 / (values**2).sum()


def effects(control, adapted, p):
    """Four effects of adaptation: peaks, shift (degrees), unevenness, dimension."""
    away, peaks = np.abs(off(theta)), adapted.max(1) / control.max(1)
    shift = off(preferred(adapted), preferred(control)) * np.sign(off(theta))
    uneven, uneven_before = ((r @ p).std() / (r @ p).mean() for r in (adapted, control))
    return np.array([
        peaks[away <= 10].mean() / peaks[away > 70].mean(),
        shift[(away >= 8) & (away <= 45)].mean(),
        uneven / uneven_before,
        participation(adapted, p) / participation(control, p),
    ])  # fmt: skip


shown = rng.integers(180, size=n_gratings)
biased = np.where(rng.random(n_gratings) < adapter_share, int(ADAPTER), shown)
p_control, p_biased = (np.bincount(s, minlength=180) / n_gratings for s in (shown, biased))
W = recurrence * bell
g_pair = gains_local(p_control, W), gains_local(p_biased, W)
control, adapted = (ring(g, W) for g in g_pair)
alone = [ring(gains_local(p, 0 * W), 0 * W) for p in (p_control, p_biased)]
alike = ring(g_pair[0] * g_pair[1].mean() / g_pair[0].mean(), W)

# %% [markdown]
# How much of this hangs on our reading of the objective? The paper weighs the fidelity of the
# representation against the cost of activity; how the two are written down is our choice above. So
# we try two more readings. In the second, the gains minimise $L$ over the whole network, including
# what one neuron's gain does to another's input. In the third, gains act on the drive alone,
# $r = R\,(g \circ f)$ with $R = (I - W)^{-1}$, and fidelity is to the responses at gain one; then
# $\big((1 + \alpha) H + \gamma I\big) g = (H + \gamma I) \mathbf 1$ with
# $H = (R^\top R) \circ \langle ff^\top\rangle$.


# %%
def loss(g, p, W, price):
    """L(g) of the whole network and its gradient."""
    solve = np.linalg.inv(np.eye(90) - g[:, None] * W)
    r = solve @ (g[:, None] * drive)
    z = drive + W @ r
    value = ((z - r) ** 2 + alpha * r**2).sum(0) @ p + price * ((g - 1) ** 2).sum()
    d_r = 2 * ((W - np.eye(90)).T @ (z - r) + alpha * r)
    return value, (z * (solve.T @ d_r)) @ p + 2 * price * (g - 1)


def gains_global(p, start):
    more = {"args": (p, W, gamma(W)), "bounds": [(0, 1)] * 90, "options": {"maxiter": 150}}
    return minimize(loss, start, jac=True, method="L-BFGS-B", **more).x


def gains_on_drive(p):
    H, price = (R.T @ R) * (drive * p @ drive.T), np.mean((R @ drive) ** 2) * np.eye(90)
    return np.linalg.solve((1 + alpha) * H + price, (H + price) @ np.ones(90))


R = np.linalg.inv(np.eye(90) - W)
best = gains_global(p_control, g_pair[0]), gains_global(p_biased, g_pair[1])
on_drive = [R @ (gains_on_drive(p)[:, None] * drive) for p in (p_control, p_biased)]
table = {
    "recurrent ring": effects(control, adapted, p_biased),
    "minimum of L": effects(ring(best[0], W), ring(best[1], W), p_biased),
    "gains on the drive": effects(*on_drive, p_biased),
    "no recurrence": effects(*alone, p_biased),
    "all gains down alike": effects(control, alike, p_biased),
}
print(f"{'adapted / control':22}  peak near/far  shift (deg)   unevenness    dimension")
for label, row in table.items():
    print(f"{label:22}" + "".join(f"{v:13.3f}" for v in row))

fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for i, colour in ((34, BLUE), (40, GREEN), (45, ORANGE), (50, PINK), (56, SKY)):
    axes[0].plot(orientations, control[i], ":", color=colour, lw=1.2)
    axes[0].plot(orientations, adapted[i], color=colour)
axes[0].axvline(ADAPTER, color=GREY, lw=0.8)
axes[0].set(xlabel="orientation (deg)", ylabel="response", xlim=(30, 150))
axes[0].set_title("dotted: control; lines: adapted", fontsize=10)
order = np.argsort(off(theta))
for before, after, label in ((control, adapted, "recurrent ring"), (*alone, "no recurrence")):
    shift = off(preferred(after), preferred(before))
    axes[1].plot(off(theta)[order], shift[order], label=label)
axes[1].set(xlabel="preference from adapter (deg)", ylabel="shift of tuning (deg)")
axes[1].legend(fontsize=9, loc="lower right")
for r, label, colour in ((control, "control", GREY), (adapted, "adapted", BLUE)):
    axes[2].plot(theta, r @ p_biased, color=colour, label=label)
axes[2].set(xlabel="preferred orientation (deg)", ylabel="mean response", ylim=(0, None))
axes[2].legend(fontsize=9, loc="lower right")
plt.show()

peak, shift, uneven, dimension = table["recurrent ring"]
least = min(row[1] for row in list(table.values())[:3])
claim(RING, "peaks, adapted / control: near the adapter relative to far", peak, at_most=0.85)
claim(RING, "shift of tuning away from the adapter", shift, at_least=0.5, unit="deg")
claim(RING, "the same without recurrence", abs(table["no recurrence"][1]), at_most=0.01, unit="deg")
claim(RING, "three readings of the objective, smallest shift", least, at_least=0.5, unit="deg")
claim(RING, "unevenness of mean responses: adapted / control", uneven, at_most=0.7)
claim(RING, "effective dimension of responses: adapted / control", dimension, at_least=1.01)

# %% [markdown]
# All four effects appear, with every weight as it was. The table also says which of them need the
# ring: only the shift. Lower peaks near the adapter, evened-out activity and a higher dimension
# come about in unconnected neurons too. Turning all gains down alike brings none of them.
#
# ## 7. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: synapses that know the input
#
# $N(N+1)/2$ interneurons whiten *every* input. For *one* input with covariance $C$, $N$ are enough,
# if their synapses are the eigenvectors of $C$. Return their gains, in increasing order.
#
# <details><summary>Hint</summary>
#
# $M$ has to equal $C^{1/2}$, and both have these eigenvectors.
#
# </details>


# %% tags=["exercise"]
def gains_of_eigenvectors(C):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def gains_of_eigenvectors_solution(C):
    return np.sqrt(np.linalg.eigvalsh(C)) - 1


# %% tags=["check"]
check(
    gains_of_eigenvectors,
    gains_of_eigenvectors_solution,
    lambda rng: (np.cov(rng.standard_normal((4, 20))),),
)

# %% [markdown]
# ### Exercise 2: a leak
#
# Let the primary neurons leak with strength $a$ instead of one,
# $\tau\,dy/dt = x - a\,y - \sum_i g_i z_i w_i$. Return the whitening gains for synapses $W$
# ($N \times K$) and input covariance $C$.
#
# <details><summary>Hint</summary>
#
# Only $M$ changes, to $aI + W\operatorname{diag}(g)W^\top$. Follow section 2.
#
# </details>


# %% tags=["exercise"]
def gains_with_leak(W, C, a):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def gains_with_leak_solution(W, C, a):
    values, vectors = np.linalg.eigh(C)
    missing = (vectors * np.sqrt(values)) @ vectors.T - a * np.eye(len(C))
    return np.linalg.solve((W.T @ W) ** 2, np.diagonal(W.T @ missing @ W))


# %% tags=["check"]
frame = np.array([[1, 0.6, 0], [0, 0.8, 1]])
check(
    gains_with_leak,
    gains_with_leak_solution,
    lambda rng: (frame, np.cov(rng.standard_normal((2, 20))), rng.uniform(0.5, 2)),
)

# %% [markdown]
# ## 8. What did not reproduce, and what to read next
#
# - **Clamped gains are safer, not better** (section 4). Given the true covariance and a suitable
#   step, free gains whiten to rounding; clamped ones must leave every variance below one as it is.
# - **Fast is an assumption** (section 3). At equal steps, six gains need about as many batches as
#   rewired synapses.
# - **Three of four effects need no recurrence** (section 6). The shift does, and there the paper's
#   point stands. The objective is our reading, but two others lead to the same effects.
# - **Scaled down.** The second paper compares itself with recordings from V1; our tuning curves
#   are made up, so sizes of effects mean little. Of the first paper's settings we show a few; the
#   bound on the noise of section 3 leaves room for pixels, whose tails are not Gaussian.
#
# **Next.** Benucci, Saleem and Carandini, [*Adaptation maintains population homeostasis in primary
# visual cortex*](https://doi.org/10.1038/nn.3382) (2013), the experiment behind section 6; Duong,
# Simoncelli, Chklovskii and Lipshutz, [*Adaptive whitening with fast gain modulation and slow
# synaptic plasticity*](https://arxiv.org/abs/2308.13633) (2023), where synapses learn the axes of
# exercise 1; Atick and Redlich (1992) for what whitening does in the retina.

# %%
# NBVAL_CHECK_OUTPUT
summary()
