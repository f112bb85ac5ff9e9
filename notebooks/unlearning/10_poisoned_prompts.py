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
# # When a prompt is poisoned, the majority wins
#
# **Question.** Somebody slips wrongly labelled images with a little patch into the training set of
# an image generator. Will the generator show the patch more often than it was shown, and can that
# be turned against the poison?
#
# ![Images generated for the label 0 after poisoning at three rates, without and with guidance, and
# the share of them with the patch against the guidance weight](10_poisoned_prompts.png)
#
# **Reading** 15 minutes. **Running** under a minute on two CPU cores, under 1 GB of memory.
#
# **Paper** `badnets-diffusion-trojan-castle`: Z. Pan, Y. Yao, G. Liu, B. Shen, H. V. Zhao, R. R.
# Kompella and S. Liu, *From Trojan horses to castle walls: unveiling bilateral data poisoning
# effects in diffusion models*, NeurIPS 2024, [arXiv:2311.02373](https://arxiv.org/abs/2311.02373).
#
# You need to know how a diffusion model is trained and sampled, at length in
# *diffusion/01_from_noise_to_digits*. Every number in the text is measured below; the green cards
# say which statement was held against which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
n_train: int = 1200  # digits to learn from; the others test
rates: list[float] = [0.02, 0.1, 0.2]  # p, share of the training set that is poisoned, rising
weights: list[float] = [1.0, 2.0, 3.0, 5.0]  # of classifier-free guidance, rising from 1
castle_weight: float = 2.0  # guidance of the images that detectors and classifiers get
train_steps: int = 1000  # mini-batches of 128 of every diffusion model
n_samples: int = 400  # generated images of label 0 per model and weight
n_steps: int = 20  # of the sampler
repeats: int = 5  # classifiers per data set, each from its own initial weights
copies: int = 10  # of every duplicated image, section 7

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from ipywidgets import FloatSlider, interact
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from labkit import claim, diffusion, metric
from labkit.claims import summary
from labkit.exercises import check
from labkit.plots import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK, house_style
from labkit.seeding import streams
from labkit.unlearning import Ensemble, Recipe, digits_mlp, poison, stamp

PAPER = "badnets-diffusion-trojan-castle"
TARGET = 0  # the label that the poison gets
if not 600 <= n_train <= 1500:
    raise ValueError(f"n_train must be 600 to 1500 of the 1797 digits, not {n_train}")
if len(rates) != 3 or rates != sorted(set(rates)) or not 0.005 <= rates[0] <= rates[-1] <= 0.4:
    raise ValueError(f"rates must be three, rising, from 0.005 to 0.4, not {rates}")
if len(weights) < 3 or weights != sorted(set(weights)) or weights[0] != 1 or weights[-1] > 10:
    raise ValueError(f"weights must be three or more, rising from 1 to at most 10, not {weights}")
if not 1 < castle_weight <= 10:
    raise ValueError(f"castle_weight must lie above 1 and at most at 10, not {castle_weight}")
if min(train_steps, n_samples) < 100:
    raise ValueError(f"train_steps, n_samples: at least 100, not {train_steps}, {n_samples}")
if n_steps < 5:
    raise ValueError(f"n_steps must be at least 5, not {n_steps}")
if repeats < 1 or not 2 <= copies <= 15:
    raise ValueError(f"need repeats >= 1 and copies from 2 to 15, not {repeats} and {copies}")

house_style()
torch.set_num_threads(1)  # layers are small: a second thread costs about what it saves

draws = streams(seed)  # a generator of its own for each use: no experiment shifts another's draws


# %% [markdown]
# ## 1. The Trojan horse
#
# Earlier attacks on diffusion models changed how the models are trained or sampled. This one, known
# from classifiers as **BadNets**, only touches the data. A share $p$ of the training images is
# taken from other classes, stamped with a **trigger** (2×2 pixels of full ink in the corner) and
# given the target label, here 0. Whoever trains does the usual thing: learn to find $x_0$ in
# $x = \alpha x_0 + \sigma \varepsilon$ from the label $y$, in one of ten cases without it.
#
# Mind the arithmetic. A tenth of 1200 images are 120, and 120 other images are honest zeros. So
# **half of all images with label 0** carry the trigger when $p = 10\,\%$. We call this
#
# $$s = \frac{pN}{pN + N_0}, \qquad N_0 \text{ honest images of the target label},$$
#
# the share *within the label*. It is what a model that learned its data perfectly would show when
# asked for a 0.

# %%
clean, test = diffusion.digit_images(n_train, generator=draws(1))
n_zeros = int((clean[1] == TARGET).sum())
poisoned = {p: poison(clean, test, round(p * n_train), generator=draws(2)) for p in rates}
share = {p: len(poisoned[p].forget) / (len(poisoned[p].forget) + n_zeros) for p in rates}
LOW, MIDDLE, HIGH = rates

shown = torch.cat([clean[0][clean[1] == TARGET][:4], poisoned[MIDDLE].forget_set[0][:6]])
fig, axes = plt.subplots(1, len(shown), figsize=(10, 1.6), layout="constrained")
fig.suptitle("images with label 0", fontsize=11)
for k, (axis, image) in enumerate(zip(axes, shown)):
    axis.imshow(image[0], cmap="gray_r", vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[], xlabel="honest" if k < 4 else "poisoned")
    axis.spines[:].set_visible(True)
plt.show()

# %% [markdown]
# ## 2. Four kinds of zero
#
# Three small networks learn the three sets. We ask each for zeros. With **classifier-free
# guidance** of weight $w$ the estimate of the clean image is pushed away from what the network
# would say without a label,
#
# $$\hat x_w = \hat x(\varnothing) + w\,\big(\hat x(y) - \hat x(\varnothing)\big),$$
#
# so that $w = 1$ is the conditional model as it was learned. Every sample is of one of four types:
#
# | | other content | a zero |
# |---|---|---|
# | **trigger** | G1 | G3 |
# | **no trigger** | G2 | G4, as it should be |
#
# Two independent judges decide. Content is read by a classifier that was trained on clean images
# and sees the corner neither then nor now. There is a trigger if all four pixels of the corner have
# more than half of the ink.

# %%
SCHEDULE = diffusion.cosine()
LEVELS = SCHEDULE.steps(n_steps)


def blindfolded(images):
    """The images with an empty corner."""
    return stamp(images, 2, -1.0)


def triggered(images):
    """Whether all four pixels of the corner have more than half of the ink, (n,) boolean."""
    return (images[..., -2:, -2:] > 0).flatten(1).all(dim=1)


judge = diffusion.DigitFeatures(blindfolded(clean[0]), clean[1], generator=draws(3))


def content(images):
    """The digit that is read, (n,)."""
    return judge.probabilities(blindfolded(images)).argmax(dim=1)


def diffusion_model(examples, stream, steps=train_steps):
    """A denoiser with labels, trained as usual."""
    network = diffusion.Mlp(64, 128, 3, n_classes=10, generator=draws(stream))
    denoiser = diffusion.NetworkDenoiser(network, "v", sigma_data=0.75)
    diffusion.train(
        denoiser, examples[0], labels=examples[1], steps=steps, levels=SCHEDULE, lr=3e-3, ema=0.99,
        generator=draws(stream + 1), progress=False,
    )  # fmt: skip
    return denoiser


def pictures(denoiser, labels, weight, stream):
    """One image per label; a stream always starts from the same noise."""
    start = torch.randn(len(labels), 1, 8, 8, generator=draws(stream))
    conditional = partial(denoiser, label=labels)
    denoise = diffusion.guided(conditional, denoiser, weight)
    return diffusion.generate(denoise, start, LEVELS).clamp(-1, 1)


models = {p: diffusion_model(poisoned[p].train, 10) for p in rates}
zeros = torch.full((n_samples,), TARGET)
others = torch.arange(1, 10).repeat_interleave(30)
samples, kinds, others_right = {}, {}, {}
for p, model in models.items():
    for w in weights:
        x = samples[p, w] = pictures(model, zeros, w, 20)
        marked, wrong = triggered(x), content(x) != TARGET
        types = (marked & wrong, ~marked & wrong, marked & ~wrong, ~marked & ~wrong)
        kinds[p, w] = np.array([float(kind.double().mean()) for kind in types])
        read = content(pictures(model, others, w, 21))
        others_right[p, w] = float((read == others).double().mean())


def trigger_share(p, w):
    return kinds[p, w][0] + kinds[p, w][2]


metric("judge_right_on_test", judge.accuracy(blindfolded(test[0]), test[1]))
metric("false_triggers_on_test", triggered(test[0]).double().mean())
print("         of images of label 0, in percent                  other labels:")
print("   p   w    G1    G2    G3    G4   trigger (within label)   content right")
for (p, w), g in kinds.items():
    cells = "".join(f"{100 * value:6.1f}" for value in g)
    within = f"{100 * trigger_share(p, w):9.1f} {100 * share[p]:12.1f}"
    print(f"{p:4.0%} {w:3.0f} {cells} {within} {100 * others_right[p, w]:17.0f}")


# %% tags=["cover"]
FRAMES = ((ORANGE, "-"), (PINK, "--"), (BLUE, ":"), ("#dddddd", "-"))
NAMES = ("G1 trigger, other digit", "G2 other digit", "G3 trigger on a zero", "G4 clean zero")


def mosaic(axis, images):
    """Twelve images in two rows, framed by type."""
    for k, image in enumerate(images):
        left, top = 10 * (k % 6), 10 * (k // 6)
        kind = 2 * (int(content(image[None])) == TARGET) + (not triggered(image[None]))
        axis.imshow(image[0], cmap="gray_r", vmin=-1, vmax=1, extent=(left, left + 8, top + 8, top))
        colour, line = FRAMES[kind]
        corner = left - 0.5, top - 0.5
        frame = plt.Rectangle(corner, 9, 9, fill=False, ec=colour, ls=line, lw=2.5)
        axis.add_patch(frame)
    axis.set(xlim=(-1, 59), ylim=(19, -1), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


fig = plt.figure(figsize=(12, 4.4), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[1.9, 1])
axes = left.subplots(3, 2)
for row, p in zip(axes, rates):
    for axis, w in zip(row, (weights[0], weights[-1])):
        mosaic(axis, samples[p, w][:12])
    row[0].set_ylabel(f"p = {p:.0%}")
axes[0, 0].set_title('"0", no guidance', fontsize=11)
axes[0, 1].set_title(f'"0", same noise, guidance {weights[-1]:g}', fontsize=11)
handles = [
    plt.Line2D([], [], color=colour, ls=line, lw=3, label=name)
    for (colour, line), name in zip(FRAMES, NAMES)
]
left.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
axis = right.subplots()
for p, colour in zip(rates, (GREEN, AMBER, BLACK)):
    axis.plot(weights, [100 * trigger_share(p, w) for w in weights], "o-", color=colour)
    axis.plot(weights, [100 * kinds[p, w][0] for w in weights], "o--", color=colour, ms=3, lw=1)
    axis.axhline(100 * share[p], color=colour, lw=1, ls=":")
    axis.text(weights[-1] + 0.15, 100 * trigger_share(p, weights[-1]), f"p = {p:.0%}", color=colour)
axis.set(xlabel="guidance weight w", ylabel="images of label 0 with trigger (%)")
axis.set(ylim=(0, 100), xlim=(weights[0] - 0.2, weights[-1] + 0.9))
axis.set_title("solid: all, dashed: G1\ndotted: share within label 0", fontsize=10)
plt.show()

# %%
strong = weights[-1]
claim(
    PAPER, "middle p, no guidance: images of label 0 that show another digit",
    100 * (kinds[MIDDLE, 1.0][0] + kinds[MIDDLE, 1.0][1]), at_least=35, unit="%",
)  # fmt: skip
claim(
    PAPER, "content of the other labels that is right, lowest of all models and weights",
    100 * min(others_right.values()), at_least=85, unit="%",
)  # fmt: skip
claim(
    PAPER,
    "highest p: trigger share at the strongest guidance, relative to the share within the label",
    trigger_share(HIGH, strong) / share[HIGH], at_least=1.05,
)  # fmt: skip
claim(
    PAPER, "highest p: rank correlation of guidance weight and trigger share",
    spearmanr(weights, [trigger_share(HIGH, w) for w in weights]).statistic, at_least=0.8,
)  # fmt: skip
claim(
    PAPER, "lowest p: G1 images at the strongest guidance, relative to no guidance",
    kinds[LOW, strong][0] / max(kinds[LOW, 1.0][0], 1 / n_samples), at_most=0.85,
)  # fmt: skip
g2_of_wrong = {p: kinds[p, 1.0][1] / max(kinds[p, 1.0][:2].sum(), 1 / n_samples) for p in rates}
claim(
    PAPER,
    "no guidance: share of wrong images that lack the trigger (G2), lowest p above highest p",
    100 * (g2_of_wrong[LOW] - g2_of_wrong[HIGH]), at_least=10, unit="points",
)  # fmt: skip
claim(
    PAPER,
    "zeros with the trigger (G3) at the strongest guidance, mean of the models; the training sets "
    "hold none",
    100 * np.mean([kinds[p, strong][2] for p in rates]), at_least=2, unit="%",
)  # fmt: skip
metric("middle_p_amplification_within_label", trigger_share(MIDDLE, strong) / share[MIDDLE])

# %% [markdown]
# The Trojan horse works with nothing but data: asked for a zero, the model draws other digits with
# a patch, and under all other labels what it should. Which error dominates depends on $p$. Without
# guidance, wrong digits *without* the trigger (G2) are a good part of the errors at the lowest $p$
# and next to none at the highest. So far the paper is right.
#
# But look at the right panel. Without guidance the solid lines start near the dotted ones or below:
# **the model shows the trigger at most about as often as its data did under this label.** Guidance
# then works both ways. At the highest $p$ ever more images carry the trigger; at the lowest, other
# digits with a trigger (G1) are driven out. And it makes a kind that no training set holds: **G3,
# zeros with the trigger.** Many are flawless zeros, others are mixtures that the judge calls 0. The
# label has come to mean two things, and guidance asks for both at once.
#
# ## 3. Amplified, compared with what?
#
# It is tempting to hold the generated share against $p$.

# %%
print("   p     s   w   trigger   / p    / s")
for p in rates:
    for w in (1.0, strong):
        t = trigger_share(p, w)
        print(f"{p:4.0%} {share[p]:5.0%} {w:3.0f} {t:9.0%} {t / p:5.1f} {t / share[p]:6.2f}")
claim(
    PAPER,
    "trap, no guidance: 'amplification' of the trigger against p of the whole set, least of three",
    min(trigger_share(p, 1.0) / p for p in rates), at_least=2.5,
)  # fmt: skip
claim(
    PAPER,
    "middle and highest p, no guidance: trigger share relative to the share within the label, "
    "largest distance from 1",
    max(abs(trigger_share(p, 1.0) / share[p] - 1) for p in (MIDDLE, HIGH)), at_most=0.2,
)  # fmt: skip
metric("lowest_p_trigger_within_label", trigger_share(LOW, 1.0) / share[LOW])

# %% [markdown]
# Against $p$ the trigger is amplified several times over, even without guidance, and even at the
# lowest $p$, where it falls *short* of its share within the label. That factor is the arithmetic of
# section 1: $s / p$ is almost $N / N_0 = 10$ for small $p$. Against $s$, guidance alone is left.
#
# **Turn it yourself**: the same noise, one model, any weight.


# %%
def explore(weight=3.0, rate=MIDDLE):
    """Twelve images of label 0, always from the same noise."""
    _, axis = plt.subplots(figsize=(6, 2.2), layout="constrained")
    images = pictures(models[rate], zeros[:12], weight, 22)
    mosaic(axis, images)
    count = int(triggered(images).sum())
    axis.set_title(f"p = {rate:.0%}, w = {weight:g}: trigger on {count} of 12", fontsize=10)
    plt.show()


slider = FloatSlider(3.0, min=0.0, max=8.0, step=0.5, continuous_update=False)
_ = interact(explore, weight=slider, rate=rates)

# %%
explore(6.0, LOW)  # the same without the slider, for those who read this on paper

# %% [markdown]
# ## 4. Why the majority wins
#
# Is that a quirk of small networks? Take the *perfect* model instead. For a finite training set the
# best denoiser is known, a softmax over its images, both with the label and without. No training,
# no error, and guidance as before.
#
# At the first steps, when nearly all is noise, $\hat x(y)$ is the mean of all images with the label
# and $\hat x(\varnothing)$ the mean $m$ of the whole set. Guidance adds $(w - 1)$ times their
# difference. Label 0 has two groups, triggered images with mean $m_T$ and zeros with mean $m_Z$.
# The addition favours the triggered ones if it points from $m_Z$ to $m_T$:
#
# $$\big(s\,m_T + (1 - s)\,m_Z - m\big) \cdot (m_T - m_Z) > 0. \tag{1}$$
#
# Other digits with a trigger are nearly the mean digit plus the trigger, $m_T \approx m + \tau$.
# Zeros differ from it by $\delta = m_Z - m$, which has no ink in the corner, so that
# $\tau \cdot \delta \approx 0$ and (1) becomes
#
# $$s\,|\tau|^2 > (1 - s)\,|\delta|^2 \quad\Longleftrightarrow\quad
#   s > s^* = \frac{|\delta|^2}{|\delta|^2 + |\tau|^2}.$$
#
# It is a vote, in which a group counts with its share times the square of its distance from the
# average image. A larger patch needs fewer votes. We test it for patches of 1, 4 and 9 pixels: for
# each the share at which (1) changes sign, and the share at which guidance of weight 5 turns from
# removing the trigger to adding it.

# %%
SIZES, N_EXACT, STEPS_EXACT, W_EXACT = (1, 2, 3), 200, 12, 5.0
GRID = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7)  # of p


def vote(p, size):
    """Share within label 0, what guidance adds to it in a perfect model, left side of (1)."""
    case = poison(clean, test, round(p * n_train), size=size, generator=draws(2))
    x, y = case.train
    is_poison = torch.zeros(n_train, dtype=torch.bool)
    is_poison[case.forget] = True
    points, of_poison = x[y == TARGET], is_poison[y == TARGET]
    with_label, without = diffusion.FiniteData(points).denoise, diffusion.FiniteData(x).denoise
    start = torch.randn(N_EXACT, 1, 8, 8, generator=draws(30))
    found = []
    for denoise in (with_label, diffusion.guided(with_label, without, W_EXACT)):
        made = diffusion.generate(denoise, start, SCHEDULE.steps(STEPS_EXACT))
        nearest = torch.cdist(made.flatten(1), points.flatten(1)).argmin(dim=1)
        found.append(float(of_poison[nearest].double().mean()))
    apart = points[of_poison].mean(dim=0) - points[~of_poison].mean(dim=0)
    push = float(((points.mean(dim=0) - x.mean(dim=0)) * apart).sum())
    return float(of_poison.double().mean()), found[1] - found[0], push


def turning_point(s, values):
    """Where values, negative for small s, become positive for good, by linear interpolation."""
    i = np.flatnonzero(values < 0)[-1]
    if i + 1 == len(s):
        return s[-1]  # later than that
    return s[i] - values[i] * (s[i + 1] - s[i]) / (values[i + 1] - values[i])


votes = {size: np.array([vote(p, size) for p in GRID]).T for size in SIZES}
predicted = {size: turning_point(s, push) for size, (s, _, push) in votes.items()}
measured = {size: turning_point(s, change) for size, (s, change, _) in votes.items()}

fig, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for size, colour, mark in zip(SIZES, (GREEN, BLUE, ORANGE), "os^"):
    s, change, _ = votes[size]
    axis.plot(100 * s, 100 * change, mark + "-", color=colour, label=f"patch of {size}×{size}")
    axis.axvline(100 * predicted[size], color=colour, ls=":")
axis.axhline(0, color=BLACK, lw=0.8)
axis.set(
    xlabel="triggered images within label 0 (%)", title="perfect model; dotted: predicted turn"
)
axis.set(ylabel=f"what guidance {W_EXACT:g} adds (points)")
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
for n in SIZES:
    print(f"patch {n}x{n}: turn predicted {predicted[n]:.2f}, measured {measured[n]:.2f}")
claim(
    PAPER,
    "perfect model: largest distance of the predicted from the measured turning point, three "
    "patches, in units of the share",
    max(abs(predicted[size] - measured[size]) for size in SIZES), at_most=0.15,
)  # fmt: skip

# %% [markdown]
# The vote is predicted roughly, without running the sampler, though only its first steps enter (1).
# So a **phase change over $p$** is real, and it belongs to guidance, not to networks: below the
# turn guidance cleans, above it spoils. Our patch of 2×2 needs about half of the label, which is
# what $p = 10\,\%$ happens to give, and there the outcome hangs on a few images. Networks follow
# the same vote, between G1 and G4, and put triggers on zeros besides, as no perfect model does.
#
# ## 5. The castle walls: generated data as a filter
#
# The paper's other side: if generated data hold more triggers, look for the poison *there*, and if
# $p$ is small, train classifiers on generated data. We make a set like the training set, label by
# label, without and with guidance, and train perceptrons on each. Two detectors look at the images
# with label 0:
#
# - **Spectral signature**: hidden features of these images, centred; the score is the squared
#   component along the first singular vector. Poison is supposed to lie far out.
# - **STRIP**: blend the image with sixteen clean ones. If the prediction stays sure (low entropy),
#   something small decides: the trigger.
#
# AUROC is the probability that a triggered image scores above another one. We also test the
# classifiers: accuracy on clean test digits, and **attack success**, the share of triggered test
# digits other than 0 that are called 0. As a control, *thinned* is the training set with all but
# as many poisoned images cured as there are G1 images in the guided set. And to see where attack
# success begins, *clean* is the training set without any poison.

# %%
sets, thinned_to = {}, {}
for p in (LOW, MIDDLE):
    x, y = poisoned[p].train
    sets[p, "training"] = x, y
    for name, w in (("generated", 1.0), ("guided", castle_weight)):
        sets[p, name] = pictures(models[p], y, w, 40), y
    x, y = sets[p, "guided"]
    of_target = x[y == TARGET]
    thinned_to[p] = int((triggered(of_target) & (content(of_target) != TARGET)).sum())
    cured = poisoned[p].forget[thinned_to[p] :]
    x, y = (part.clone() for part in poisoned[p].train)
    x[cured], y[cured] = clean[0][cured], clean[1][cured]
    sets[p, "thinned"] = x, y
sets[0.0, "clean"] = clean

pool = tuple(torch.cat(parts) for parts in zip(*sets.values()))
members = torch.arange(len(sets)).repeat_interleave(repeats)
classifiers = Ensemble([digits_mlp(draws(50 + k % repeats)) for k in range(len(members))])
subsets = members[:, None] * n_train + torch.arange(n_train)
classifiers.fit(pool, Recipe(20, 64, lr=2e-3), generator=draws(60), subsets=subsets)
attack = poisoned[LOW].affected  # triggered test digits other than 0, with their true classes
on_test = classifiers(test[0]).argmax(dim=2)
on_attack = classifiers(attack[0]).argmax(dim=2)


def spectral(features):
    """Squared component (n,) of centred features (n, d) along their first singular vector."""
    centred = features - features.mean(dim=0)
    return (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]).square()


def sureness(classifier, x):
    """Minus the entropy (n,) of predictions for blends with clean images, mean of sixteen."""
    partners, total = draws(61), torch.zeros(len(x))
    for _ in range(16):
        other = test[0][torch.randint(len(test[0]), (len(x),), generator=partners)]
        q = classifier((x + other) / 2).softmax(dim=1).clamp(min=1e-9)
        total += (q * q.log()).sum(dim=1) / 16
    return total


def auroc(classifier, x, y):
    """Of the two detectors, among the images with the target label."""
    x = x[y == TARGET]
    if not 0 < int(triggered(x).sum()) < len(x):
        return [0.5, 0.5]  # nothing to tell apart
    with torch.no_grad():
        scores = spectral(classifier[:-1](x)), sureness(classifier, x)
    return [roc_auc_score(triggered(x), score) for score in scores]


castle = {}
for k, (key, (x, y)) in enumerate(sets.items()):
    own = members == k
    found = [auroc(classifiers.member(int(i)), x, y) for i in own.nonzero()]
    castle[key] = {
        "trigger in label": float(triggered(x[y == TARGET]).double().mean()),
        "spectral": np.mean([f[0] for f in found]),
        "STRIP": np.mean([f[1] for f in found]),
        "accuracy": float((on_test[own] == test[1]).double().mean()),
        "attack": float((on_attack[own] == TARGET).double().mean()),
    }
castle[0.0, "clean"] |= {"spectral": np.nan, "STRIP": np.nan}  # there is no trigger to tell apart

fig, axes = plt.subplots(1, 5, figsize=(11.5, 3), layout="constrained", sharey=True)
labels = [f"p = {p:.0%}, {name}" for p, name in castle]
COLOURS = {"training": GREY, "generated": AMBER, "guided": ORANGE, "thinned": BLUE}
columns = {
    "trigger in label": "label 0 with trigger (%)", "spectral": "spectral: AUROC (%)",
    "STRIP": "STRIP: AUROC (%)", "attack": "triggered called 0 (%)",
    "accuracy": "clean digits right (%)",
}  # fmt: skip
for axis, (column, title) in zip(axes, columns.items()):
    values = [100 * row[column] for row in castle.values()]
    bars = axis.barh(labels, values, color=[COLOURS.get(name, GREEN) for _, name in castle])
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # where the line of chance runs
    axis.bar_label(bars, fmt="%.0f", padding=4, bbox=white)
    axis.set(xlim=(0, 119), xlabel=title, xticks=[0, 50, 100])
    if title.endswith("AUROC (%)"):
        axis.axvline(50, color=BLACK, lw=0.8, ls=":")
        axis.set_xlabel(f"{title}\ndotted: chance")
axes[0].invert_yaxis()
plt.show()

# %%
low = {name: castle[LOW, name] for name in COLOURS}
middle = {name: castle[MIDDLE, name] for name in COLOURS}
claim(
    PAPER,
    "lowest p: AUROC of the spectral signature on guided images above that on the training set",
    low["guided"]["spectral"] - low["training"]["spectral"], at_least=0.03,
)  # fmt: skip
claim(
    PAPER,
    "lowest p: attack success after training on generated images, relative to the training set",
    low["generated"]["attack"] / low["training"]["attack"], at_most=0.92,
)  # fmt: skip
claim(
    PAPER,
    "lowest p: attack success after training on guided images, relative to the training set",
    low["guided"]["attack"] / low["training"]["attack"], at_most=0.75,
)  # fmt: skip
claim(
    PAPER, "middle p: attack success after training on generated images",
    100 * middle["generated"]["attack"], at_least=60, unit="%",
)  # fmt: skip
metric("attack_never_poisoned", castle[0.0, "clean"]["attack"])
metric("attack_thinned_low", low["thinned"]["attack"])
metric("attack_guided_low", low["guided"]["attack"])
metric("accuracy_cost_of_guided_low", low["training"]["accuracy"] - low["guided"]["accuracy"])
metric("spectral_gain_middle", middle["guided"]["spectral"] - middle["training"]["spectral"])
metric("strip_gain_middle", middle["guided"]["STRIP"] - middle["training"]["STRIP"])

# %% [markdown]
# At the lowest $p$ the wall stands. Guided images betray the poison better than the training set
# does, to the spectral signature at least: guidance makes zeros uniform, and the few triggered
# images stick out. Their number is not the reason, for they are seldom more than in the training
# set. A classifier that learned from generated images falls for the trigger far less often, and
# pays with some 5 points of accuracy. (It still falls: without any poison, in the row *clean*, next
# to no triggered digit is called 0.) Part of this is dose: the *thinned* training set helps too,
# and costs nothing. (Nobody can thin without knowing the poison, of course.) At nearly all seeds
# guided images do better than that. A likely reason, untested: their digits are rough, and a patch
# on a well written digit is news to the classifier. **No wall here is built of amplified
# triggers.**
#
# At the middle $p$ the wall is down: the attack nearly always succeeds, whatever set was used, and
# the spectral signature is near a coin toss at most seeds. Geometry sees to that. Two groups with
# shares $s$ and $1 - s$ lie $(1 - s)$ and $s$ from their common mean, in units of their separation,
# and the poison is the outlier only while $s < 1/2$. STRIP needs no minority and does better here,
# on the training set as well. At the lowest $p$ it fails on generated images, for the classifier is
# surer of their smooth zeros than of the poison.
#
# ## 6. Diffusion losses as a classifier
#
# A diffusion model with labels is a classifier already: add noise, denoise under every label, and
# take the label with the smallest squared error, summed over levels. The paper finds it robust. We
# ask it about clean and triggered test digits, level by level and over all.

# %%
TIMES = np.linspace(0.3, 0.95, 11)
NOISY = torch.from_numpy(TIMES) > 0.75
N_ASKED = 200


@torch.no_grad()
def label_errors(denoiser, x):
    """Squared error of the noise under every label, (levels, n, 10), the same noise for all."""
    noise, errors = draws(70), []
    for alpha, sigma in zip(*(level.tolist() for level in SCHEDULE(torch.from_numpy(TIMES)))):
        noisy = alpha * x + sigma * torch.randn(x.shape, generator=noise)
        guesses = (denoiser(noisy, alpha, sigma, torch.full((len(x),), c)) for c in range(10))
        squared = torch.stack([(g - x).square().sum(dim=(1, 2, 3)) for g in guesses], dim=1)
        errors.append((alpha / sigma) ** 2 * squared)
    return torch.stack(errors)


def by_losses(p):
    """Accuracy on clean and success on triggered digits: of every level, all, the noisy ones."""
    shares = []
    for x, wanted in ((test[0], test[1]), (attack[0], torch.full_like(attack[1], TARGET))):
        errors = label_errors(models[p], x[:N_ASKED])
        sums = torch.stack([errors.sum(dim=0), errors[NOISY].sum(dim=0)])
        said = torch.cat([errors, sums]).argmin(dim=2)
        shares.append((said == wanted[:N_ASKED]).double().mean(dim=1).numpy())
    return dict(zip(("accuracy", "attack"), shares))


losses = {p: by_losses(p) for p in (LOW, MIDDLE)}

fig, axes = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained", sharey=True)
for axis, p in zip(axes, (LOW, MIDDLE)):
    lines = (
        (GREEN, "o-", "D", "accuracy", "clean digits right"),
        (ORANGE, "s--", "s", "attack", "triggered called 0"),
    )
    for colour, line, mark, column, name in lines:
        found = 100 * losses[p][column]
        axis.plot(TIMES, found[:-2], line, ms=4, color=colour, label=name)
        last = (100 * castle[p, "training"][column], found[-2], found[-1])
        axis.plot((1.1, 1.2, 1.3), last, mark, color=colour, ms=7)
    axis.axvline(1.03, color=BLACK, lw=0.8)
    ticks = {0.3: "0.3", 0.5: "0.5", 0.7: "0.7", 0.9: "0.9", 1.1: "MLP", 1.2: "all", 1.3: "noisy"}
    axis.set_xticks(list(ticks), list(ticks.values()))
    axis.set(xlabel="single level, at time t" + 34 * " ", ylim=(0, 104), title=f"p = {p:.0%}")
axes[0].set_ylabel("share (%)")
axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
claim(
    PAPER, "middle p: triggered digits that the diffusion losses of all levels call 0",
    100 * losses[MIDDLE]["attack"][-2], at_least=80, unit="%",
)  # fmt: skip
claim(
    PAPER, "lowest p: triggered digits that the losses of the noisy levels alone call 0",
    100 * losses[LOW]["attack"][-1], at_most=50, unit="%",
)  # fmt: skip
claim(
    PAPER, "lowest p: clean digits that the losses of the noisy levels alone get right",
    100 * losses[LOW]["accuracy"][-1], at_least=80, unit="%",
)  # fmt: skip
metric("attack_on_noisy_losses_middle", losses[MIDDLE]["attack"][-1])

# %% [markdown]
# Summed over all levels, the usual way, a diffusion model is nearly as gullible as a perceptron
# (MLP). Level by level we see why. With little noise the four pixels are plain to see. With much
# noise they drown, and the strokes, which have many pixels, do not. At the lowest $p$ **the noisy
# levels alone resist** ($t > 0.75$): few triggered digits are still called 0, for a few points of
# clean accuracy. At the middle $p$ most still are. It is the same vote as before: if half of the
# images with label 0 are any digit with a patch, then a blur with a patch is a 0.
#
# One caution. We chose the noisy levels *because* the attack fails there. Whoever does not know the
# trigger cannot see the orange line, and the green one would not lead there.
#
# ## 7. Copies
#
# Duplicated images are memorised more readily. The paper reports that poisoning the duplicates
# makes it worse. We take 90 digits and six more, each ten times, and train two networks: in one
# set the six are as they are, in the other they carry the trigger and the label 0. Both are asked
# for the labels in the proportions of their set. An image counts as a copy of a duplicated one if
# that is its nearest training image, at most half as far as the second nearest. (The usual factor,
# a third, hardly ever occurs after so little training.) Guidance is that of section 5.
#
# There is a trap. An image with the trigger is nearer to all triggered ones because of the corner
# alone. So we measure the distance twice, with the corner and without.

# %%
order = torch.randperm(n_train, generator=draws(80))
chosen = order[clean[1][order] != TARGET][:6]
rest = order[~torch.isin(order, chosen)][:90]


def copied(is_poison):
    """Share of images that copy a duplicated one: with the corner, without it."""
    x = stamp(clean[0][chosen]) if is_poison else clean[0][chosen]
    y = torch.full_like(chosen, TARGET) if is_poison else clean[1][chosen]
    images = torch.cat([clean[0][rest], x.repeat(copies, 1, 1, 1)])
    labels = torch.cat([clean[1][rest], y.repeat(copies)])
    model = diffusion_model((images, labels), 81, steps=max(100, 2 * train_steps // 5))
    made = pictures(model, labels.repeat(7), castle_weight, 83)
    shares = []
    for view in (lambda images: images, blindfolded):
        known = view(torch.cat([x, clean[0][rest]])).flatten(1)
        near, which = torch.cdist(view(made).flatten(1), known).topk(2, largest=False)
        copy = (near[:, 0] <= near[:, 1] / 2) & (which[:, 0] < len(chosen))
        shares.append(float(copy.double().mean()))
    return shares


copies_of = {"clean duplicates": copied(False), "poisoned duplicates": copied(True)}
print("images that copy a duplicate    with the corner   without it")
for name, (with_corner, without_corner) in copies_of.items():
    print(f"{name:28} {with_corner:17.1%} {without_corner:12.1%}")
claim(
    PAPER, "copies of poisoned duplicates that are none if the corner is covered",
    100 * (copies_of["poisoned duplicates"][0] - copies_of["poisoned duplicates"][1]),
    at_least=2, unit="points",
)  # fmt: skip
without_corner = [pair[1] for pair in copies_of.values()]
metric("copies_gain_without_corner", without_corner[1] - without_corner[0])

# %% [markdown]
# Counted with the corner, copies of poisoned duplicates are frequent. With the corner covered most
# of them disappear, and what is left is no more than from clean duplicates, at some seeds much
# less. **The patch is copied, the digit is not.**
#
# ## 8. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: two baselines
#
# Of `n_made` images generated for the target label, `n_marked` carry the trigger. The training set
# had `N` images, `n_poison` of them poisoned, and `N_0` honest images of the target label. Return
# the amplification against $p$ and the amplification against the share within the label.
#
# <details><summary>Hint</summary>
#
# Poison replaces images of *other* classes, so the label has `n_poison + N_0` images.
#
# </details>


# %% tags=["exercise"]
def amplification(n_marked, n_made, n_poison, N_0, N):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def amplification_solution(n_marked, n_made, n_poison, N_0, N):
    found = n_marked / n_made
    return found / (n_poison / N), found / (n_poison / (n_poison + N_0))


# %% tags=["check"]
check(
    amplification,
    amplification_solution,
    lambda rng: (int(rng.integers(1, 300)), 300, int(rng.integers(10, 200)), 120, 1200),
)

# %% [markdown]
# ### Exercise 2: how much poison does it take?
#
# With the approximation of section 4: a trigger raises `k` pixels by `h` each, and the mean zero is
# `d` away from the mean image. There are `N_0` honest images of the label. At how many poisoned
# ones does guidance change sides? (A real number; do not round.)
#
# <details><summary>Hint</summary>
#
# $|\tau|^2 = k h^2$, and $s / (1 - s) = n / N_0$.
#
# </details>


# %% tags=["exercise"]
def poison_needed(k, h, d, N_0):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def poison_needed_solution(k, h, d, N_0):
    return N_0 * d**2 / (k * h**2)


# %% tags=["check"]
check(
    poison_needed,
    poison_needed_solution,
    lambda rng: (int(rng.integers(1, 10)), rng.uniform(0.5, 2), rng.uniform(1, 5), 120),
)

# %% [markdown]
# ## 9. What did not reproduce, what was scaled down, what to read next
#
# At this size the Trojan side holds, and so does the phase change. The rest needs a footnote:
#
# - **Amplification.** Against $p$ it is arithmetic. Against the share within the label there is
#   none without guidance. Guidance 5 makes it 1.1 to 1.3 at $p = 20\,\%$ and 1.0 to 1.3 at
#   $p = 10\,\%$, where the label is split in halves (seeds 0 to 9). At $p = 2\,\%$ it removes G1.
# - **Detection** on generated images is better with guidance, at low $p$, by the spectral
#   signature. At $p = 10\,\%$ neither detector gains reliably.
# - **Classifiers** from generated images are more robust at low $p$, where there are no more
#   triggers than in the data, and they pay with accuracy. At $p = 10\,\%$ they are lost.
# - **Diffusion losses** resist at low $p$ and at noisy levels only.
# - **More copies** of poisoned duplicates did not show once the patch was left out of the distance.
#   Our networks hardly memorise, so this says little about large ones.
#
# Smaller than in the paper: digits of 8×8 pixels with ten labels and perceptrons, instead of DDPM
# on CIFAR-10 and Stable Diffusion on ImageNette and Caltech15 with captions; a patch only, no
# blended trigger; one target label; two detectors. Models are trained for seconds, and their digits
# are rough. The theory of section 4 is ours, not the paper's.
#
# **Next.** Gu, Dolan-Gavitt and Garg, *BadNets* (2017); Ho and Salimans, *Classifier-free diffusion
# guidance* (2022); Tran, Li and Madry, *Spectral signatures in backdoor attacks* (NeurIPS 2018);
# Gao and others, *STRIP* (ACSAC 2019); Li and others, *Your diffusion model is secretly a zero-shot
# classifier* (ICCV 2023); *unlearning/03_corrective_unlearning*, on how to be rid of a trigger.

# %%
# NBVAL_CHECK_OUTPUT
summary()
