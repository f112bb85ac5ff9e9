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
# # What the retina takes out
#
# **Question.** Neighbouring points of the world look alike, so neighbouring cells of the eye are
# told nearly the same. How much of this likeness is left in their spikes, and which part of the
# retina took the rest out?
#
# ![A photograph under a mosaic of cells, their spikes, and how alike pairs of cells are before and
# after the retina](03_what_the_retina_takes_out.png)
#
# **Reading** 20 minutes. **Running** under half a minute on two CPU cores, under 1.5 GB of memory.
#
# **Paper** `retina-correlation-transform`: K. D. Simmons, J. S. Prentice, G. Tkačik, J. Homann,
# H. K. Yee, S. E. Palmer, P. C. Nelson and V. Balasubramanian, *Transformation of stimulus
# correlations by the retina*, PLoS Computational Biology 9(12), 2013,
# [doi:10.1371/journal.pcbi.1003344](https://doi.org/10.1371/journal.pcbi.1003344).
#
# The paper records from real retinas; this notebook from a simulated one, built of the parts that
# the paper found to matter, each of which can be switched off. You need convolutions, covariance
# and Poisson counts. Every number in the text is measured below; the green cards say which
# statement was held against which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
frames: int = 12_000  # of each stimulus, 30 per second
clip: int = 600  # frames that the eye spends on one photograph
jitter: float = 0.5  # random step of the eye per frame, in pixels
reach: float = 4.0  # pixels over which the correlation of the noises falls by e
persistence: float = 4.0  # frames over which that of the slow noise does
rate: float = 8.0  # mean spikes per second of every cell under every condition
theta: float = 1.5  # threshold, in standard deviations of the drive
softness: float = 0.3  # of the threshold, in the same unit
surround: float = 0.6  # weight of the surround
surround_adapted: float = 0.9  # the same after adaptation to correlated movies
speed_adapted: float = 1.4  # how many times faster the temporal kernel becomes then
gain_seconds: float = 1.0  # over which the gain control averages

# %%
import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import FloatSlider, interact
from scipy.optimize import curve_fit
from scipy.signal import lfilter
from skimage.transform import resize_local_mean

from labkit import claim
from labkit.checks import check_ranges
from labkit.claims import summary
from labkit.data import natural_images
from labkit.exercises import check
from labkit.plots import AMBER, BLACK, BLUE, GREY, ORANGE, PINK, house_style

PAPER = "retina-correlation-transform"
check_ranges(globals(), frames=(3000, 100_000), clip=(150, 3000), jitter=(0.05, 3), reach=(0.5, 8))
check_ranges(globals(), persistence=(0.5, 30), rate=(1, 60), theta=(0, 3), softness=(0.05, 1))
check_ranges(globals(), surround=(0, 1), surround_adapted=(0, 1), speed_adapted=(0.8, 2))
check_ranges(globals(), gain_seconds=(0.1, 10))

house_style()
rng = np.random.default_rng(seed)
FPS, SIDE = 30, 30  # frames per second; pixels of a side

# %% [markdown]
# ## 1. Four worlds
#
# The stimuli are movies of $30 \times 30$ pixels, all with the same mean and standard deviation of
# a pixel, as on a screen with fixed contrast. They differ in what one pixel tells about another:
#
# - **white**: a checkerboard, every check black or white at random in every frame;
# - **spatial**: Gaussian noise with correlation $e^{-d/\ell}$ between pixels at distance $d$, drawn
#   anew in every frame;
# - **slow**: the same, but with correlation $e^{-|\Delta t|/\tau}$ between frames too;
# - **photographs**: real photographs, at half resolution, in front of an eye that never rests. This
#   is a *simulated* movie, for nothing in it moves but the eye: each clip shows one photograph, and
#   the gaze wanders in random steps of half a pixel. To leave out the jump between clips, the first
#   two seconds of each are not measured, for all stimuli alike.
#
# Only the whole movie is scaled to unit standard deviation. To whiten a stimulus, or to scale every
# patch of it, would remove the very thing that the experiment varies.


# %%
def spatial_noise():
    """Gaussian frames (frames, pixels) with correlation exp(-d / reach)."""
    n = 48  # a torus, large enough that its far side does not matter
    d = np.minimum(np.arange(n), n - np.arange(n))
    power = np.fft.rfft2(np.exp(-np.hypot(d[:, None], d) / reach)).real
    amplitude = np.sqrt(np.maximum(power, 0)).astype(np.float32)
    parts = []
    for size in np.diff(np.r_[0:frames:500, frames]):
        z = rng.standard_normal((size, n, n), dtype=np.float32)
        parts.append(np.fft.irfft2(np.fft.rfft2(z) * amplitude, s=(n, n))[:, :SIDE, :SIDE])
    return np.concatenate(parts).reshape(frames, -1).astype(np.float32)


PHOTOS = [resize_local_mean(p, (p.shape[0] // 2, p.shape[1] // 2)) for p in natural_images()]


def gaze(photo, saccades):
    """A walk (clip, 2) over a photograph, reflected where the window meets its border."""
    room = np.array(photo.shape) - SIDE - 1.001
    walk = rng.uniform(0, room) + np.cumsum(rng.normal(0, jitter, (clip, 2)), axis=0)
    if saccades:  # to another place, twice a second on average
        walk += rng.uniform(0, room, (clip + 1, 2))[np.cumsum(rng.random(clip) < 2 / FPS)]
    return room - np.abs(room - walk % (2 * room))


def movie(saccades=False):
    """Views of photographs (frames, pixels), a clip each, and the path of the eye (frames, 2)."""
    views, walks, order = [], [], []
    while len(views) < frames:
        order = order or list(rng.permutation(len(PHOTOS)))  # each photograph equally often
        photo = PHOTOS[order.pop()]
        walks.append(gaze(photo, saccades))
        for place in walks[-1]:
            (i, j), (a, b) = place.astype(int), place % 1
            rows = (1 - a) * photo[i : i + SIDE, j : j + SIDE + 1]
            rows += a * photo[i + 1 : i + SIDE + 1, j : j + SIDE + 1]
            views.append((1 - b) * rows[:, :-1] + b * rows[:, 1:])
    x = np.array(views, dtype=np.float32)[:frames].reshape(frames, -1)
    return (x - x.mean()) / x.std(), np.concatenate(walks)[:frames]


STIMULI = {"white": GREY, "spatial": ORANGE, "slow": PINK, "photographs": BLUE}
MARKS = dict(zip(STIMULI, "os^D"))
a = np.exp(-1 / persistence)
MOVIES = {
    "white": rng.choice(np.array([-1, 1], np.float32), (frames, SIDE * SIDE)),
    "spatial": spatial_noise(),
    "slow": lfilter([np.sqrt(1 - a * a)], [1, -a], spatial_noise(), axis=0).astype(np.float32),
}
MOVIES["photographs"], path = movie()
KEPT = np.arange(frames) % clip >= 2 * FPS  # frames that are measured

fig, axes = plt.subplots(2, 4, figsize=(10, 5.2), layout="constrained")
for column, (name, x) in zip(axes.T, MOVIES.items()):
    look = {"cmap": "gray", "vmin": -2.5, "vmax": 2.5}
    column[0].imshow(x[100].reshape(SIDE, SIDE), **look)
    column[1].imshow(x[100:130].reshape(30, SIDE, SIDE)[:, 15], **look)
    column[0].set_title(f"{name}\nstd {x.std():.2f}", fontsize=10)
    column[0].set(xticks=[], yticks=[])
    column[1].set(xticks=[], yticks=[0, 29], yticklabels=["0", "1 s"], xlabel="one row of pixels")
axes[0, 0].set_ylabel("one frame")
axes[1, 0].set_ylabel("time")
plt.show()

# %% [markdown]
# ## 2. A retina in five parts
#
# Ganglion cells sit on a hexagonal mosaic, two pixels apart. Cell $i$ at $p_i$ takes the stimulus
# $x$ through a narrow and a broad Gaussian (standard deviations 1 and 3 pixels), the **centre** and
# the **surround**, and through a biphasic **temporal kernel** $k$ that compares now with a moment
# ago. With $G_\sigma(p)$ a Gaussian window that sums to one,
#
# $$d_i(t) = \sum_{u} k(u) \sum_q \big[G_1(q - p_i) - w_s\, G_3(q - p_i)\big]\, x(q, t - u).$$
#
# **Gain control** divides this drive by its own running standard deviation, and a **threshold**
# turns it into a rate, from which spikes are drawn:
#
# $$g_i(t) = \frac{d_i(t)}{\sqrt{\overline{d_i^2}(t)}}, \qquad
# r_i(t) = r_0 \log\!\big(1 + e^{(g_i(t) - \theta)/s}\big), \qquad
# n_i(t) \sim \operatorname{Poisson}(r_i(t)\,\Delta t).$$
#
# The fifth part is slow **adaptation**. In front of stimuli that are correlated in space *and*
# time (slow noise, photographs) the paper found faster kernels and, as a tendency, stronger
# surrounds. We put both in by hand: how a retina finds out is not asked here, only what it gains.
#
# | switched off | what stands in its place |
# |---|---|
# | surround | $w_s = 0$ |
# | gain control | division by one number, the drive's standard deviation under white noise |
# | threshold | $r = r_0 \max(0, 1 + g/3\sigma_g)$, nearly linear |
# | adaptation | kernel and surround as for white noise |


# %%
rows = [(row * np.sqrt(3), 2 * k + row % 2) for row in range(-4, 5) for k in range(-4, 5)]
places = np.array([p for p in rows if np.hypot(*p) < 7.5]) + (SIDE - 1) / 2  # (cells, 2)
CELLS = len(places)
pixels = np.stack(np.divmod(np.arange(SIDE**2), SIDE), axis=1)
pair_i, pair_j = np.triu_indices(CELLS, 1)
apart = np.linalg.norm(places[pair_i] - places[pair_j], axis=1)


def windows(sigma):
    """Gaussians (pixels, cells) that sum to one."""
    w = np.exp(-((pixels[:, None] - places) ** 2).sum(-1) / (2 * sigma**2))
    return (w / w.sum(0)).astype(np.float32)


def kernel(speed=1.0, lags=14):
    """Biphasic temporal kernel by frames into the past; sums to zero, of unit norm."""
    t = (np.arange(lags) + 0.5) / FPS * speed  # seconds
    early, late = (np.exp(n * (np.log(t / peak) - t / peak)) for peak, n in ((0.07, 4), (0.14, 6)))
    k = early / early.sum() - late / late.sum()
    return k / np.linalg.norm(k)


ALL = ("surround", "gain", "threshold", "speed", "strength")
CENTRE, BROAD = windows(1.0), windows(3.0)
LIGHT = {name: (x @ CENTRE, x @ BROAD) for name, x in MOVIES.items()}  # each (frames, cells)


def drive(light, weight, speed=1.0):
    return lfilter(kernel(speed), [1.0], light[0] - weight * light[1], axis=0)


def rates(d, gain=None, threshold=True, at=theta):
    """Spikes per frame (kept frames, cells); gain: a number, or None for gain control."""
    if gain is None:  # running standard deviation, causal
        b = np.exp(-1 / (FPS * gain_seconds))
        first = b * (d**2).mean(0, keepdims=True)  # as if it had always been average
        gain = np.sqrt(lfilter([1 - b], [1, -b], d**2, axis=0, zi=first)[0]) + 1e-3
    g = (d / gain)[KEPT]
    r = np.logaddexp(0, (g - at) / softness) if threshold else np.maximum(0, 1 + g / g.std(0) / 3)
    return r * (rate / FPS / r.mean(0))


def retina(light, correlated, parts=ALL):
    """Drive (frames, cells) and rates with these parts; speed and strength are adaptation."""
    stronger = correlated and "strength" in parts
    weight = (surround_adapted if stronger else surround) * ("surround" in parts)
    d = drive(light, weight, speed_adapted if correlated and "speed" in parts else 1.0)
    usual = drive(LIGHT["white"], surround if "surround" in parts else 0.0)
    gain = None if "gain" in parts else usual[KEPT].std()
    return d, rates(d, gain, "threshold" in parts)


CORRELATED = {name: name in ("slow", "photographs") for name in STIMULI}
FULL = {name: retina(LIGHT[name], CORRELATED[name]) for name in STIMULI}

fig, axes = plt.subplots(1, 2, figsize=(8, 2.7), layout="constrained")
at, past = np.linspace(-8, 8, 161), 1000 * (np.arange(14) + 0.5) / FPS
window = [np.exp(-(at**2) / (2 * v)) / (2 * np.pi * v) for v in (1, 9)]
for w, speed, colour in ((surround, 1.0, GREY), (surround_adapted, speed_adapted, BLUE)):
    axes[0].plot(at, window[0] - w * window[1], color=colour)
    axes[1].plot(past, kernel(speed), "o-", ms=3, color=colour)
axes[0].set(xlabel="distance from the cell (pixels)", ylabel="weight of light")
axes[1].set(xlabel="time before now (ms)", ylabel="temporal kernel")
axes[1].legend(["usual", "adapted"])
plt.show()
print(f"{CELLS} cells, {len(apart)} pairs, {KEPT.sum()} frames measured")

# %% [markdown]
# ## 3. Three ways to be wrong about a correlation
#
# **Input correlation** of two cells: that of the drives of cells with centre and kernel only, a
# linear eye without surround. **Output correlation**: that of spike counts per frame. Between these
# definitions lie three traps.
#
# **Which shuffle?** A recording of finite length has chance correlations; shifting each cell's
# spikes by a random time of its own destroys everything else, and what it leaves is subtracted:
# the *excess* correlation. Another shuffle pairs one cell's spikes with the other's in *another
# repeat*. It keeps what the stimulus causes. Subtract this one, and what is left is noise that
# cells share; ours share none. This shuffle tests the simulation, and cannot answer our question.
#
# **How many spikes?** Poisson noise adds to the variance of counts, and nothing to the covariance.
# With $m$ spikes per bin on average, and rates of coefficient of variation $c$,
#
# $$\rho_\text{count} = \rho_\text{rate} \cdot \frac{c^2 m}{1 + c^2 m}.$$
#
# Few spikes bias correlations towards zero. Hence $r_0$ is set such that every cell has the same
# mean rate under every stimulus and condition.
#
# **Is the mean enough?** No: $c$ stands there as well. A cell with a threshold is silent most of
# the time and then bursts; one without hums along, and noise drowns it. To compare the two we use
# $\rho_\text{rate}$, which divides the noise out. An experimenter gets it from repeats: the
# covariance of a cell with *itself* in another repeat is the variance of its rate.


# %%
def correlation(a):
    """Pearson correlation of all pairs of columns."""
    return np.corrcoef(a.T)[pair_i, pair_j]


def excess(counts):
    """Correlation of counts less that of counts shifted in time, each cell by its own amount."""
    rows = np.arange(len(counts))[:, None] + rng.integers(len(counts), size=CELLS)
    shifted = np.take_along_axis(counts, rows % len(counts), axis=0)
    return correlation(counts) - correlation(shifted)


repeats = [rng.poisson(FULL["spatial"][1]) for _ in range(6)]
centred = [n - n.mean(0) for n in repeats]
between = np.mean([a.T @ b / len(a) for a, b in zip(centred, centred[1:] + centred[:1])], 0)
stds, own = np.mean([n.std(0) for n in repeats], 0), np.sqrt(np.diag(between))
near = apart < 2.1
total = np.mean([correlation(n) for n in repeats], 0)[near].mean()
shared = total - (between / np.outer(stds, stds))[pair_i, pair_j][near].mean()
divided = (between / np.outer(own, own))[pair_i, pair_j][near].mean()
true = correlation(FULL["spatial"][1])[near].mean()
print(f"spatial noise, {near.sum()} pairs of neighbours: correlation of counts {total:.3f}")
print(f"less shuffled repeats {shared:.3f}; noise divided out {divided:.3f} (truth {true:.3f})")

m, worst = rate / FPS, 0.0
print("\nneighbours          rates   counts   by the formula")
for label, parts in {"whole retina": ALL, "no threshold": set(ALL) - {"threshold"}}.items():
    r = retina(LIGHT["spatial"], False, parts)[1]
    c2 = r.var(0) / r.mean(0) ** 2
    damping = np.sqrt(c2 * m / (1 + c2 * m))
    expected = (correlation(r) * damping[pair_i] * damping[pair_j])[near].mean()
    counted = excess(rng.poisson(r))[near].mean()
    worst = max(worst, abs(counted - expected))
    print(f"{label:17} {correlation(r)[near].mean():8.3f} {counted:8.3f} {expected:10.3f}")

miss = abs(divided - true)
claim(PAPER, "neighbours: correlation by shared noise", abs(shared), at_most=0.01)
claim(PAPER, "neighbours: rates' correlation from repeats against the truth", miss, at_most=0.03)
claim(PAPER, "Poisson noise: counted correlation against the formula", worst, at_most=0.01)

# %% [markdown]
# Judged by counts, the threshold would seem to *create* correlation. It does the opposite, and
# makes spikes less wasteful. From here on, both are shown.
#
# ## 4. The whole retina
#
# Each dot below is a pair of cells under one stimulus; a large symbol is their mean. Linear cells
# with a centre only would lie on the dotted line.

# %%
INPUT = {name: correlation(drive(light, 0.0)[KEPT]) for name, light in LIGHT.items()}
SPIKES = {name: rng.poisson(r) for name, (_, r) in FULL.items()}
OUTPUT = {name: correlation(r) for name, (_, r) in FULL.items()}
COUNTED = {name: excess(n) for name, n in SPIKES.items()}


def slope(output, given=INPUT):
    """Least-squares slope of output on input correlation, all pairs and stimuli together."""
    x, y = (np.concatenate(list(v.values())) for v in (given, output))
    return np.polyfit(x, y, 1)[0]


steep = slope({name: correlation(retina(LIGHT[name], False, ())[1]) for name in STIMULI})
steep_rates, steep_counts = slope(OUTPUT), slope(COUNTED)
print("mean correlation    light   input   rates  counts")
for name in STIMULI:
    lit = correlation(LIGHT[name][0][KEPT])
    row = (v.mean() for v in (lit, INPUT[name], OUTPUT[name], COUNTED[name]))
    print(f"{name:16}" + "".join(f"{v:9.3f}" for v in row))
print(f"slope on input: linear {steep:.2f}, rates {steep_rates:.2f}, counts {steep_counts:.2f}")

# %% tags=["cover"]
fig, axes = plt.subplots(1, 3, figsize=(12, 3.7), layout="constrained", width_ratios=[4, 5, 5])
moment = 4 * clip + 5 * FPS if frames > 5 * clip else clip - FPS
axes[0].imshow(MOVIES["photographs"][moment].reshape(SIDE, SIDE), cmap="gray")
for y, x in places:
    axes[0].add_patch(plt.Circle((x, y), 1.0, fill=False, ec=ORANGE, lw=1))
axes[0].set(xticks=[], yticks=[], title="the eye on a photograph")
shown = slice(KEPT[:moment].sum(), KEPT[:moment].sum() + 4 * FPS)  # four seconds
frame, cell = np.nonzero(SPIKES["photographs"][shown])
axes[1].plot(frame / FPS, cell, "|", ms=4, color=BLACK)
axes[1].set(xlabel="time (s)", ylabel="cell", title="spikes", xlim=(0, 4))
for name, colour in STIMULI.items():
    few = rng.choice(len(apart), 300, replace=False)
    axes[2].plot(INPUT[name][few], OUTPUT[name][few], ".", ms=3, color=colour, alpha=0.5)
    mean = INPUT[name].mean(), OUTPUT[name].mean()
    axes[2].plot(*mean, MARKS[name], ms=9, mec=BLACK, color=colour, label=name)
axes[2].plot([-0.15, 1], [-0.15, 1], ":", color=BLACK, lw=1)
axes[2].set(xlabel="correlation of linear centres", ylabel="correlation of the retina's rates")
axes[2].set(xlim=(-0.15, 1), ylim=(-0.15, 1), title="pairs of cells")
axes[2].legend(loc="upper left")
plt.show()

# %%
mean_in, mean_out = ({k: v.mean() for k, v in w.items()} for w in (INPUT, OUTPUT))
factor = max(mean_in.values()) / min(mean_in.values())
spread = np.ptp(list(mean_out.values())) / np.ptp(list(mean_in.values()))
up, ratio = mean_out["spatial"] - mean_out["white"], mean_out["slow"] / mean_out["spatial"]
claim(PAPER, "mean input correlation: most correlated stimulus / least", factor, at_least=3)
claim(PAPER, "slope on input: rates / linear centres", steep_rates / steep, at_most=0.5)
claim(PAPER, "spread of means over stimuli: rates / input", spread, at_most=0.7)
claim(PAPER, "mean correlation of rates: spatial noise less white", up, at_least=0.05)
claim(PAPER, "mean correlation of rates: slow noise / spatial noise", ratio, at_most=0.6)

# %% [markdown]
# Inputs differ almost tenfold; outputs all lie near the bottom. Spatial and slow noise have the
# same input correlation, and yet leave the retina differently, for the retina has adapted to one of
# them only. Purely spatial correlation gets through in part, as in the paper.
#
# Photographs are peculiar. The *light* on the centres is more correlated than in any noise. Moving
# eye and kernel turn it into change, hardly correlated. The retina *adds* some; section 7 says why.
#
# ## 5. Which part does it?
#
# Now one part at a time is taken out, with mean rates as before. The last row has neither gain
# control nor adaptation: a retina that does not change in any way.

# %%
names = ["surround", "threshold", "gain control", "faster kernel", "stronger surround"]
SWITCHES = {"whole retina": ALL}
for label, part in zip(names, ("surround", "threshold", "gain", "speed", "strength")):
    SWITCHES[f"no {label}"] = tuple(p for p in ALL if p != part)
SWITCHES["no adaptation at all"] = ("surround", "threshold")

TABLE = {}
print(f"{'mean, rates':22}" + "".join(f"{n:>12}" for n in STIMULI) + "  slope (counts)")
for label, parts in SWITCHES.items():
    r = {n: retina(LIGHT[n], CORRELATED[n], parts)[1] for n in STIMULI}
    of_rates = {n: correlation(v) for n, v in r.items()}
    of_counts = {n: excess(rng.poisson(v)) for n, v in r.items()}
    TABLE[label] = {n: v.mean() for n, v in of_rates.items()}
    TABLE[label] |= {"slope": slope(of_rates), "counts": slope(of_counts)}
    row = "".join(f"{TABLE[label][n]:12.3f}" for n in STIMULI)
    print(f"{label:22}{row} {TABLE[label]['slope']:7.3f} ({TABLE[label]['counts']:.3f})")

fig, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
for y, row in enumerate([mean_in, *TABLE.values()]):
    axis.plot([row[n] for n in STIMULI], [y] * 4, color=GREY, lw=0.8, zorder=0)
    for n, colour in STIMULI.items():
        look = {"color": colour, "ms": 8, "mfc": "none", "mew": 2, "label": None if y else n}
        axis.plot(row[n], y, MARKS[n], **look)
axis.set_yticks(range(len(TABLE) + 1), ["input", *TABLE])
axis.invert_yaxis()
axis.set(xlabel="mean correlation of pairs (rates)", xlim=(-0.02, None))
axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

whole = TABLE["whole retina"]
for label in ("no surround", "no threshold"):
    ratio = TABLE[label]["slope"] / whole["slope"]
    claim(PAPER, f"slope of rates: {label} / whole retina", ratio, at_least=1.2)
trap = TABLE["no threshold"]["counts"] / whole["counts"]
weaker = TABLE["no stronger surround"]["slow"] / whole["slow"]
slower = abs(TABLE["no faster kernel"]["slow"] - whole["slow"])
claim(PAPER, "trap, slope of counts: no threshold / whole retina", trap, at_most=0.3)
claim(PAPER, "slow noise: no stronger surround / whole retina", weaker, at_least=1.5)
claim(PAPER, "slow noise: change without the faster kernel", slower, at_most=0.01)

# %% [markdown]
# The surround does most. In slow noise its growth is what sets it apart from spatial noise. The
# faster kernel does nothing there, and cannot: where space and time separate, the kernel scales all
# drives alike, and a correlation coefficient does not see scale. Under a moving eye space and time
# do not separate, and it could matter; in our photographs it hardly does.
#
# Gain control helps in spatial noise: without it the larger drive stands high above a threshold
# that was set for white noise, and the cell works in its nearly linear range. In photographs,
# against expectation, it tends to make cells *more* alike.
#
# ### What a threshold does to Gaussians
#
# Expand the rate in normalised Hermite polynomials, $f(g) = \sum_k a_k h_k(g)$. For two Gaussian
# drives of correlation $\rho$, $\langle h_k(g_1)\,h_l(g_2)\rangle = \rho^k$ if $k = l$ and zero
# otherwise, so
#
# $$\rho_\text{rate} = \frac{\sum_{k \ge 1} a_k^2\, \rho^k}{\sum_{k \ge 1} a_k^2} \;\le\; \rho
# \qquad\text{for } \rho \ge 0 .$$
#
# Whatever the nonlinearity, it cannot make positively correlated Gaussians more alike. It can for
# drives that are not Gaussian.


# %%
def transfer(rho, at=theta, orders=60):
    """Correlation of rates for Gaussian drives of correlation rho, by Hermite polynomials."""
    g = np.linspace(-8, 8, 4001)
    density = np.exp(-(g**2) / 2) / np.sqrt(2 * np.pi) * (g[1] - g[0])
    f = np.logaddexp(0, (g - at) / softness)
    h = [np.ones_like(g), g]  # normalised: h_k = He_k / sqrt(k!)
    for k in range(1, orders):
        h.append((g * h[k] - np.sqrt(k) * h[k - 1]) / np.sqrt(k + 1))
    a2 = (np.array(h[1:]) @ (f * density)) ** 2
    return (np.asarray(rho)[..., None] ** np.arange(1, orders + 1)) @ a2 / a2.sum()


def threshold_panel(at=1.5):
    """Rate against drive correlation of all pairs at a threshold."""
    _, axis = plt.subplots(figsize=(4.6, 4), layout="constrained")
    for name in ("spatial", "slow", "photographs"):
        d = FULL[name][0]
        y = correlation(rates(d, at=at))
        axis.plot(correlation(d[KEPT]), y, ".", ms=3, alpha=0.5, color=STIMULI[name])
        axis.plot([], [], "o", color=STIMULI[name], label=name)
    rho = np.linspace(-0.4, 1, 100)
    axis.plot(rho, transfer(rho, at), color=BLACK, label="formula")
    axis.plot(rho, rho, ":", color=BLACK, lw=1)
    axis.set(xlabel="correlation of drives", ylabel="correlation of rates", title=f"θ = {at:.1f}")
    axis.legend(fontsize=9, loc="upper left")
    plt.show()


threshold_panel(theta)
above = {n: (OUTPUT[n] - transfer(correlation(FULL[n][0][KEPT]))).mean() for n in STIMULI}
off = max(abs(above["spatial"]), abs(above["slow"]))
claim(PAPER, "Gaussian stimuli: mean distance of pairs from the formula", off, at_most=0.02)
claim(PAPER, "photographs: mean height above it", above["photographs"], at_least=0.05)

# %% [markdown]
# The noises follow the curve. The photographs lie above it, many even above the diagonal: pairs
# whose drives are hardly correlated, or negatively, still fire together. Their drives may become
# *large* together, some up, some down; a threshold turns shared size into shared spikes. Turn it:


# %%
_ = interact(threshold_panel, at=FloatSlider(theta, min=0, max=3, continuous_update=False))

# %%
threshold_panel(0.5)  # the same without the slider, for those who read this on paper

# %% [markdown]
# ## 6. From spikes back to the retina
#
# The paper could not look inside. It averaged the stimulus before each spike. For white noise this
# **spike-triggered average** (STA) is proportional to the cell's filter. Correlated noise blurs it
# by the stimulus's covariance, to be divided out: $\hat w = C_{xx}^{-1} \langle x\,n\rangle$. We
# do both: the plain average over all pixels for white noise; and a regression of counts on the
# recent light in centre and surround, pooled over cells. From its two kernels come the surround's
# weight, and the speed at which our family of kernels fits best.

# %%
kept = np.flatnonzero(KEPT)
counts = SPIKES["white"].astype(np.float32)
STA = np.stack([MOVIES["white"][kept - lag].T @ counts for lag in range(14)]) / counts.sum(0)
space = CENTRE - surround * BROAD
likeness = {"as it is": [], "separable": []}
for c in range(CELLS):
    near_cell = np.abs(pixels - places[c]).max(1) <= 7
    truth = np.outer(kernel(), space[near_cell, c]).ravel()
    one = STA[:, near_cell, c]
    u, s, v = np.linalg.svd(one, full_matrices=False)
    likeness["as it is"].append(np.corrcoef(one.ravel(), truth)[0, 1])
    likeness["separable"].append(np.corrcoef(np.outer(u[:, 0], v[0]).ravel(), truth)[0, 1])


def refit(name):
    """Kernels (2, lags) of centre and surround by regression; surround's weight; speed."""
    n = SPIKES[name] - SPIKES[name].mean(0)
    moments, product = np.zeros((28, 28)), np.zeros(28)
    for c in range(CELLS):
        x = np.stack([part[kept - lag, c] for part in LIGHT[name] for lag in range(14)])
        x = (x - x.mean(1, keepdims=True)).astype(float)
        moments += x @ x.T
        product += x @ n[:, c]
    w = np.linalg.solve(moments, product).reshape(2, 14)
    speeds = np.arange(0.6, 2.4, 0.02)
    fits = [np.corrcoef(w[0], kernel(speed))[0, 1] for speed in speeds]
    return w / np.linalg.norm(w[0]), -(w[1] @ w[0]) / (w[0] @ w[0]), speeds[np.argmax(fits)]


REFIT = {name: refit(name) for name in ("white", "spatial", "slow")}
raw, separable = (np.median(values) for values in likeness.values())
print(f"STA of single cells against the filter: {raw:.3f}, if separable {separable:.3f}")
for name, (_, weight, speed) in REFIT.items():
    print(f"{name:8} surround {weight:.2f}, speed {speed:.2f}")

# %% [markdown]
# Now the paper's question: what would a retina do that does not adapt? Take the kernels fitted to
# white noise and the nonlinearity fitted to white noise, and let this fixed linear-nonlinear model
# predict the correlations under the other stimuli, at equal mean rates. The difference from what
# the retina did is the work of adaptation.


# %%
def softplus(x, height, middle, width):
    return height * np.logaddexp(0, (x - middle) / width)


FILTERED = {
    name: sum(lfilter(k, [1.0], x, axis=0) for k, x in zip(REFIT["white"][0], light))[KEPT]
    for name, light in LIGHT.items()
}
unit = FILTERED["white"].std()
bins = np.clip(((FILTERED["white"] / unit + 5) * 20).astype(int), 0, 199).ravel()
often, hits = np.bincount(bins, minlength=200), np.bincount(bins, counts.ravel(), minlength=200)
some = often > 200  # bins of a twentieth of a standard deviation, those visited often
x_bin, r_bin = (np.flatnonzero(some) + 0.5) / 20 - 5, hits[some] / often[some]
fitted = curve_fit(softplus, x_bin, r_bin, (1, 1, 0.5), bounds=((0, -5, 0.05), (99, 5, 5)))[0]
PREDICTED = {}
for name in STIMULI:
    r = softplus(FILTERED[name] / unit, *fitted)
    PREDICTED[name] = excess(rng.poisson(r * (rate / FPS / r.mean(0))))

fig, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained")
image = STA[1:3, :, CELLS // 2].mean(0).reshape(SIDE, SIDE)
axes[0].imshow(image, cmap="RdBu_r", vmin=-np.abs(image).max(), vmax=np.abs(image).max())
axes[0].set(xticks=[], yticks=[], title="STA, 50 to 80 ms\nbefore a spike")
for name in ("white", "slow"):
    axes[1].plot(past, REFIT[name][0][0], MARKS[name] + "-", ms=4, color=STIMULI[name], label=name)
axes[1].set(xlabel="time before spike (ms)", ylabel="kernel of the centre")
axes[1].legend()
axes[2].plot(x_bin, FPS * r_bin, ".", color=GREY)
axes[2].plot(x_bin, FPS * softplus(x_bin, *fitted), color=BLACK)
axes[2].set(xlabel="filtered white noise (std)", ylabel="spikes per second")
both = {"no adaptation (fit)": (PREDICTED, AMBER, -0.2), "retina": (COUNTED, BLUE, 0.2)}
for label, (values, colour, nudge) in both.items():
    bars = [values[n].mean() for n in STIMULI]
    axes[3].bar(np.arange(4) + nudge, bars, 0.4, color=colour, label=label)
axes[3].set_xticks(range(4), ["white", "spatial", "slow", "photos"])
axes[3].set(ylabel="excess correlation of counts")
axes[3].legend(fontsize=9, loc="upper left")
axes[3].margins(y=0.3)
plt.show()

same, high, photos = (PREDICTED[n].mean() / COUNTED[n].mean() for n in list(STIMULI)[1:])
print(f"no adaptation / retina: spatial {same:.2f}, slow {high:.2f}, photographs {photos:.2f}")
(_, weight, speed), (_, weight_slow, speed_slow) = REFIT["white"], REFIT["slow"]
stronger, faster = weight_slow - weight, speed_slow / speed
claim(PAPER, "separable STA against the filter: median", separable, at_least=0.9)
claim(PAPER, "fitted surround: slow noise less white noise", stronger, at_least=0.15)
claim(PAPER, "fitted speed of the kernel: slow noise / white noise", faster, at_least=1.2)
claim(PAPER, "slow noise, counts: no adaptation / retina", high, at_least=2)
claim(PAPER, "spatial noise, counts: no adaptation / retina", same, at_least=0.8, at_most=1.25)

# %% [markdown]
# (Left, red: brighter than average before a spike; blue: darker.) The STA of one cell is noisy, for
# a few minutes hold few spikes and these come in bursts. The best separable approximation, by
# singular values, drops most of the noise.
#
# For spatial noise, the model without adaptation is right, as in the paper, though gains have
# changed. For slow noise it predicts more than twice the correlation that there is. For photographs
# it predicts about what the retina does. Here we differ from the paper, whose retinas were far less
# correlated under natural movies than such a model. In ours gain control takes back what adaptation
# gains (section 5).
#
# ## 7. The eye moves all cells at once
#
# Why are photographs peculiar? Suspect the eye: a large movement is large for every cell. Filter
# the path of the gaze by the cells' temporal kernel; the length of the result is the *size* $z(t)$
# of recent movement. By the law of total covariance,
#
# $$\operatorname{cov}(r_i, r_j) = \operatorname{cov}\big(\langle r_i | z\rangle,
# \langle r_j | z\rangle\big) + \big\langle \operatorname{cov}(r_i, r_j | z)\big\rangle .$$
#
# The first part is what two cells share just because they move together. We take the averages in
# twenty bins of $z$. As control, the same sizes in random order.

# %%
size = np.linalg.norm(lfilter(kernel(speed_adapted), [1.0], path, axis=0)[KEPT], axis=1)
by_size = np.searchsorted(np.quantile(size, np.arange(1, 20) / 20), size)
r = FULL["photographs"][1]


def explained(labels):
    """Mean rates per bin (20, cells); share of the covariance of pairs between the bins."""
    means = np.array([r[labels == b].mean(0) for b in range(20)])
    total = np.cov(r.T)[pair_i, pair_j].mean()
    return means, np.cov(means[labels].T)[pair_i, pair_j].mean() / total


(curves, share), (_, control) = explained(by_size), explained(rng.permutation(by_size))
print(f"share of the covariance: {share:.2f}; with sizes in random order: {control:.3f}")
claim(PAPER, "photographs: covariance that goes with size of movement", share, at_least=0.25)
claim(PAPER, "the same with sizes in random order", control, at_most=0.02)

# %% [markdown]
# So much for jitter. Real eyes also jump. In a second movie the gaze leaps to another place of the
# photograph twice a second, and jitters in between.

# %%
x = movie(saccades=True)[0]
LIGHT["saccades"] = x @ CENTRE, x @ BROAD
jump = {"light": LIGHT["saccades"][0][KEPT], "input": drive(LIGHT["saccades"], 0.0)[KEPT]}
for label in ("whole retina", *(f"no {n}" for n in (*names[:3], "adaptation at all"))):
    jump[label] = retina(LIGHT["saccades"], True, SWITCHES[label])[1]
saccadic, jump = jump["whole retina"], {label: correlation(v) for label, v in jump.items()}
print(", ".join(f"{label} {v.mean():.2f}" for label, v in jump.items()))

fig, axes = plt.subplots(1, 3, figsize=(12, 3), layout="constrained", width_ratios=[1, 1.3, 1.5])
middle = [size[by_size == b].mean() for b in range(20)]
axes[0].plot(middle, FPS * curves, color=GREY, lw=0.5)
axes[0].plot(middle, FPS * curves.mean(1), "o-", ms=4, color=BLUE)
axes[0].set(xlabel="size of movement (pixels)", ylabel="spikes per second")
axes[0].set_title("cells (grey), mean (blue)", fontsize=10)
grey = {"aspect": "auto", "cmap": "Greys", "vmin": 0, "vmax": 80, "extent": (0, 4, 0, CELLS)}
grey |= {"origin": "lower", "interpolation": "nearest"}
for axis, label, v in zip(axes[1:], ("photographs", "with saccades"), (r, saccadic)):
    image = axis.imshow(FPS * v[shown].T, **grey)
    axis.set(xlabel="time (s)", ylabel="cell")
    axis.set_title(label, fontsize=10)
fig.colorbar(image, ax=axes[2], label="spikes per second", extend="max")
plt.show()

slopes, given = {}, {**INPUT, "photographs": jump["input"]}
for label in ("whole retina", "no surround", "no threshold"):
    v = {n: retina(LIGHT[n], CORRELATED[n], SWITCHES[label])[1] for n in list(STIMULI)[:3]}
    output = {n: correlation(noise) for n, noise in v.items()} | {"photographs": jump[label]}
    slopes[label] = slope(output, given)
print("slopes with saccades:", {label: round(float(v), 2) for label, v in slopes.items()})
jump = {label: v.mean() for label, v in jump.items()}
adapted = jump["no adaptation at all"] / jump["whole retina"]
passed = jump["whole retina"] / jump["input"]
kept_rare = jump["whole retina"] - jump["no threshold"]
more = jump["whole retina"] - jump["no gain control"]
claim(PAPER, "saccades: rates without adaptation / whole retina", adapted, at_least=1.4)
claim(PAPER, "saccades: rates / linear centres", passed, at_most=0.6)
claim(PAPER, "saccades, against expectation: more with threshold", kept_rare, at_least=0.05)
claim(PAPER, "saccades, against expectation: more with gain control", more, at_least=0)
passing, needed = slopes["whole retina"] / steep, slopes["no surround"] / slopes["whole retina"]
claim(PAPER, "slope with saccades: rates / linear centres", passing, at_most=0.65)
claim(PAPER, "slope with saccades: no surround / whole retina", needed, at_least=1.2)

# %% [markdown]
# More than a third of what cells share under jitter goes with the size of movement alone. Their
# drives are hardly correlated; what reaches the spikes is *when* the drives are large.
#
# With saccades the input is highly correlated, for a jump changes the light everywhere. Here the
# paper's picture of natural movies returns: less than half of it is passed on, and without
# adaptation about twice as much would be. But threshold and gain control, which decorrelate noise,
# *add* correlation: a saccade is a rare event that all cells see, and a threshold keeps those. With
# this movie among the four, the slope is still about half that of linear cells, the surround is
# needed as before, and the threshold does not help.
#
# ## 8. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: two cells in white noise
#
# Return the correlation of the drives of two cells at distance `d` in white noise, with centre of
# standard deviation 1, surround of 3 and surround weight `w`. Treat pixels as a continuum.
#
# <details><summary>Hint</summary>
#
# The covariance is the overlap $\int f_1 f_2$ of the two filters. The overlap of Gaussian windows
# with variances $a$ and $b$ at distance $d$ is a Gaussian of variance $v = a + b$, taken at $d$:
# $e^{-d^2/2v} / 2\pi v$.
#
# </details>


# %% tags=["exercise"]
def white_noise_correlation(d, w):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def white_noise_correlation_solution(d, w):
    v = np.array([2, 10, 18])
    weights = np.array([1, -2 * w, w**2]) / (2 * np.pi * v)
    return weights @ np.exp(-(d**2) / (2 * v)) / weights.sum()


# %% tags=["check"]
check(
    white_noise_correlation,
    white_noise_correlation_solution,
    lambda rng: (rng.uniform(0.5, 8), rng.uniform(0, 1)),
)

# %% [markdown]
# ### Exercise 2: all or nothing
#
# Two cells are active whenever their Gaussian drives, of correlation `rho`, are positive, and
# silent otherwise. Return the correlation of their activity.
#
# <details><summary>Hint</summary>
#
# Write the two drives as projections of a point in the plane on two directions whose angle has
# cosine $\rho$. Both are positive in a wedge; how wide is it?
#
# </details>


# %% tags=["exercise"]
def all_or_nothing(rho):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def all_or_nothing_solution(rho):
    both = (np.pi - np.arccos(rho)) / (2 * np.pi)  # probability of the wedge
    return (both - 1 / 4) / (1 / 4)


# %% tags=["check"]
check(all_or_nothing, all_or_nothing_solution, lambda rng: (rng.uniform(-0.95, 0.95),))

# %% [markdown]
# ## 9. What did not reproduce, what was scaled down, and what to read next
#
# - **Adaptation was put in, not found.** That kernels get faster and surrounds stronger is the
#   paper's finding. Ours is what follows, which for the kernels is next to nothing.
# - **Similar** means within about a tenth. In ratio, outputs differ more than inputs, since hardly
#   any correlation is left under white noise.
# - **Natural movies.** Only with saccades are our photographs passed on with far less correlation
#   than without adaptation. Neither movie is natural, for nothing in them moves by itself.
# - **Gain control** decorrelates in spatial noise and does the opposite in photographs. Ours
#   divides by the cell's own past; real gain control also listens to neighbours.
# - **Threshold.** It decorrelates noise (which counts hide); under saccades it adds correlation.
# - **STA.** Without separability a cell's average stays well below our bound.
# - **Scaled down.** Some fifty cells of one kind on a perfect lattice, minutes of each stimulus,
#   Poisson spikes without refractory period or shared noise.
#
# **Next.** Pitkow and Meister, [*Decorrelation and efficient coding by retinal ganglion
# cells*](https://doi.org/10.1038/nn.3064) (2012), who credit the threshold; Rucci and Victor,
# [*The unsteady eye*](https://doi.org/10.1016/j.tins.2015.01.005) (2015), on jitter; Atick and
# Redlich, *What does the retina know about natural scenes?* (1992), where the idea was worked out;
# [*Turning the gain*](02_turning_the_gain.ipynb) for gains that act between cells.

# %%
# NBVAL_CHECK_OUTPUT
summary()
