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
# # Pictures that nothing can be learned from
#
# **Question.** Unlearning takes knowledge out of a network. Can the owner of the pictures see to it
# that it never gets in, by changing each picture a little before it is published?
#
# ![Patches of photographs, the noise of their class, and the protected patches; beside them the
# accuracy of networks that learned from such patches](05_unlearnable_examples.png)
#
# **Reading** 15 minutes. **Running** under a minute on two CPU cores, under 1 GB of memory.
#
# **Paper** `unlearnable-examples`: H. Huang, X. Ma, S. M. Erfani, J. Bailey and Y. Wang,
# *Unlearnable examples: making personal data unexploitable*, ICLR 2021,
# [arXiv:2101.04898](https://arxiv.org/abs/2101.04898).
#
# You need to know how a network is trained by gradient descent. Numbers in the text are
# measured below, unless other runs are named; the green cards say which statement was held against
# which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
photographs: list[str] = [
    "brick",
    "grass",
    "gravel",
    "chelsea",
    "flower",
    "coffee",
]  # one class each
side: int = 16  # of a patch, in pixels
n_train: int = 100  # patches per class to publish
n_test: int = 200  # patches per class to measure on
eps: float = 0.1  # bound of the noise on patches, in units of the range 0 to 1
epochs: int = 12  # passes of every victim over its training set
class_share: float = 0.2  # share of the patches that the class-wise noise is made from
class_rounds: int = 40  # rounds of the class-wise method
attack_steps: int = 3  # of the adversary in adversarial training
jpeg_quality: int = 10  # of the JPEG countermeasure, 1 to 95
digit_eps: list[float] = [0.03, 0.15, 0.3]  # bounds of the noise on digits; 0.03 is about 8/255

# %%
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from ipywidgets import FloatSlider, interact
from PIL import Image
from torch import nn
from tqdm.auto import tqdm

from labkit import claim, metric
from labkit.checks import check_ranges
from labkit.claims import summary
from labkit.data import PHOTOGRAPHS, chessboard, natural_images
from labkit.exercises import check
from labkit.plots import BLUE, GREY, ORANGE, SKY, house_style
from labkit.seeding import seeded, streams
from labkit.unlearning import Recipe, accuracy, digits_split, logits_of, take, train
from labkit.unlearning.noise import Centre, input_gradient, min_min_noise, pgd, project, small_cnn
from labkit.unlearning.training import descend

PAPER = "unlearnable-examples"
TILE = 48  # side of the squares of the chessboard, in pixels
unknown = [name for name in photographs if name not in PHOTOGRAPHS]
if unknown or len(photographs) < 2:
    raise ValueError(f"photographs: two or more of {', '.join(PHOTOGRAPHS)}; not {photographs}")
if min(n_train, n_test, epochs, class_rounds, attack_steps) < 1:
    raise ValueError("n_train, n_test, epochs, class_rounds, attack_steps: at least 1")
if not all(0 < e <= 1 for e in (eps, *digit_eps)):
    raise ValueError(f"eps and digit_eps must lie above 0 and at most at 1: {eps}, {digit_eps}")
check_ranges(globals(), side=(8, TILE), class_share=(1 / n_train, 1), jpeg_quality=(1, 95))

house_style()
K = len(photographs)

draws = streams(seed)  # a generator of its own for each use: no experiment shifts another's draws


# %% [markdown]
# ## 1. The task
#
# Tell from which photograph a small patch was cut. Three are grey textures, three have colour.
# Each photograph is divided like a chessboard: training patches come from white squares, test
# patches from black ones, so that no pixel is in both.


# %%
def cut(images, colour, count, rng):
    """Patches (K * count, 3, side, side) from squares of one colour, and their classes."""
    patches = []
    for image in images:
        squares = chessboard(image, TILE, colour)
        for square in rng.integers(len(squares), size=count):
            top, left = rng.integers(TILE - side + 1, size=2)
            patch = squares[square][top : top + side, left : left + side]
            patches.append(patch.transpose(2, 0, 1))
    return torch.from_numpy(np.stack(patches)), torch.arange(K).repeat_interleave(count)


rng = np.random.default_rng(seed)
images = natural_images(photographs, colour=True)
x, y = cut(images, 0, n_train, rng)
x_test, y_test = cut(images, 1, n_test, rng)


def share_right(model, x, y):
    return accuracy(logits_of(model, x), y)


def cnn(stream=10, channels=3, classes=K, batch_norm=True):
    return small_cnn(draws(stream), channels, classes, batch_norm=batch_norm)


def mlp(stream=10):
    with seeded(draws(stream)):
        return nn.Sequential(
            Centre(), nn.Flatten(), nn.Linear(3 * side**2, 128), nn.ReLU(), nn.Linear(128, K)
        )


def victim(x, y, model=None, epochs=epochs):
    """Whoever collects the published pictures and trains on them."""
    model = cnn() if model is None else model
    train(model, (x, y), Recipe(epochs, 64, 3e-3), generator=draws(11))
    return model


# %% [markdown]
# ## 2. Noise that makes learning unnecessary
#
# Adversarial noise *raises* the loss, and shows a network what it does not know yet. The paper
# turns this round: noise that *lowers* the loss tells the network that there is nothing to learn.
# Its weights $\theta$ and the noise $\delta$ minimise the same loss,
#
# $$\min_\theta \; \mathbb{E}_{(x, y)} \Big[ \min_{\lVert\delta\rVert_\infty \le \epsilon}
#   \mathcal{L}\big(f_\theta(x + \delta), y\big) \Big].$$
#
# They take turns. The source model $f_\theta$ trains on $M = 10$ mini-batches of $x + \delta$.
# Then its weights are frozen, and the noise goes down the gradient,
#
# $$\delta \leftarrow \Pi_\epsilon\big(\delta - \alpha\, \mathrm{sign}\,\nabla_x
#   \mathcal{L}(f_\theta(x + \delta), y)\big),$$
#
# where $\Pi_\epsilon$ clips $\delta$ to $\pm\epsilon$ and $x + \delta$ to $[0, 1]$, and $\alpha =
# \epsilon / 10$. **Sample-wise**, each picture has its own noise and takes 20 such steps a round.
# **Class-wise**, all pictures of a class share one: each takes a single step from it, and their
# mean is the new noise of the class. A fifth of the pictures suffices for that.
#
# This is `labkit.unlearning.noise.min_min_noise`; its inner loop is short:


# %%
def pgd_plain(model, x, y, delta, eps, alpha, steps):
    for _ in range(steps):
        g = input_gradient(model, x + delta, y)
        delta = (delta - alpha * g.sign()).clamp(-eps, eps)
        delta = (x + delta).clamp(0, 1) - x
    return delta


few, source = slice(None, None, 20), cnn(20).eval()
torch.testing.assert_close(
    pgd_plain(source, x[few], y[few], torch.zeros_like(x[few]), eps, eps / 10, 5),
    pgd(source, (x[few], y[few]), torch.zeros_like(x[few]), eps, step=eps / 10, n_steps=5),
)
print("the library and the equation agree")

# %%
some = torch.randperm(len(x), generator=draws(21))
some = torch.cat([some[y[some] == k][: round(class_share * n_train)] for k in range(K)])
class_noise, class_errors = min_min_noise(
    cnn(22, batch_norm=False),
    (x[some], y[some]),
    eps,
    generator=draws(23),
    class_wise=True,
    stop_error=0,
    max_rounds=class_rounds,
)
sample_noise, sample_errors = min_min_noise(
    cnn(22, batch_norm=False), (x, y), eps, generator=draws(24)
)
print("errors of the source model on x + δ, round by round")
print("class-wise ", " ".join(f"{e:.2f}" for e in class_errors))
print("sample-wise", " ".join(f"{e:.2f}" for e in sample_errors))

# %% [markdown]
# The paper stops once the source model errs on less than 1 % (10 % class-wise). Sample-wise we do
# the same. Class-wise, six classes of small patches are so easy that this would come after two or
# three rounds of one step each, when the noise is still close to the random one it started from;
# here all rounds pass.
#
# ### The controls
#
# Does any noise do? *Random* noise, uniform in $\pm\epsilon$, one for each patch. *Random
# class-wise* noise, the paper's control: uniform, and the same for all patches of a class. And its
# strongest form, where every value is $+\epsilon$ or $-\epsilon$: a fixed pattern for each class,
# without any optimisation. At last *min-max* noise, which raises the loss of an adversarially
# trained network.


# %%
def adversarial_training(x, y, eps):
    """Train on the worst noise within eps (Madry et al., ICLR 2018), found by `attack_steps`."""
    model, random = cnn(), draws(30)

    def loss(i):
        model.eval()  # the adversary must not move the statistics of the batch norm
        start = (2 * torch.rand(x[i].shape, generator=random) - 1) * eps
        settings = {"step": 0.8 * eps, "n_steps": attack_steps, "sign": 1}
        delta = pgd(model, (x[i], y[i]), project(start, x[i], eps), eps, **settings)
        model.train()
        return F.cross_entropy(model(x[i] + delta), y[i])

    descend(model, loss, len(x), Recipe(epochs, 64, 3e-3), draws(11))
    return model


robust = adversarial_training(x, y, eps)  # on clean patches
uniform = 2 * torch.rand((K, *x.shape[1:]), generator=draws(31)) - 1
published = {
    "no noise": x,
    "random": x + project((2 * torch.rand(x.shape, generator=draws(32)) - 1) * eps, x, eps),
    "random class-wise": x + project(uniform[y] * eps, x, eps),
    "random class-wise, ±ε": x + project(uniform[y].sign() * eps, x, eps),
    "min-max": x + pgd(robust, (x, y), torch.zeros_like(x), eps, step=eps / 10, n_steps=20, sign=1),
    "min-min sample-wise": x + sample_noise,
    "min-min class-wise": x + project(class_noise[y], x, eps),
}
victims = {
    name: victim(z, y) for name, z in tqdm(published.items(), desc="CNN victims", leave=False)
}
mlps = {name: victim(z, y, mlp()) for name, z in published.items()}
on_train = {name: share_right(net, published[name], y) for name, net in victims.items()}
on_test = {name: share_right(net, x_test, y_test) for name, net in victims.items()}
mlp_test = {name: share_right(net, x_test, y_test) for name, net in mlps.items()}

print("noise                    CNN: training   clean test   MLP: clean test   mean |δ| / ε")
for name, z in published.items():
    size = float((z - x).abs().mean()) / eps
    print(
        f"{name:23}  {on_train[name]:13.1%}   {on_test[name]:10.1%}   {mlp_test[name]:15.1%}"
        f"   {size:12.2f}"
    )

# %% tags=["cover"]
protected = published["min-min class-wise"]
fig = plt.figure(figsize=(11, 3.9), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[1.25, 1])
axes = left.subplots(3, K)
for k, name in enumerate(photographs):
    of_class = torch.arange(len(x))[y == k]
    example = of_class[x[of_class].std(dim=(1, 2, 3)).argsort()[n_train // 2]]  # median contrast
    noise = (protected - x)[example]
    for axis, shown in zip(axes[:, k], (x[example], 0.5 + noise / (2 * eps), protected[example])):
        axis.imshow(shown.permute(1, 2, 0).clamp(0, 1))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    axes[0, k].set_title(name, fontsize=10)
for axis, label in zip(axes[:, 0], ("patch", f"noise × {1 / (2 * eps):.0f}", "published")):
    axis.set_ylabel(label)
axis = right.subplots()
names = list(published)
colours = [GREY] * 5 + [ORANGE] * 2
place = np.arange(len(names))
bars = axis.barh(place, [100 * on_test[name] for name in names], color=colours)
axis.bar_label(bars, fmt="%.0f", padding=3)
axis.plot(
    [100 * on_train[name] for name in names], place, "|", ms=14, mew=2, color="black",
    label="on its own training patches",
)  # fmt: skip
axis.axvline(100 / K, color="black", lw=0.8, ls=":", label="chance")
axis.set(yticks=place, yticklabels=names, xlim=(0, 109), xlabel="CNN: clean test patches right (%)")
axis.invert_yaxis()
axis.legend(loc="upper center", bbox_to_anchor=(0.3, 1.14), ncols=2, fontsize=8.5)
plt.show()


# %%
def lost(name, accuracies=on_test):
    """Points of clean test accuracy that a noise costs."""
    return 100 * (accuracies["no noise"] - accuracies[name])


claim(
    PAPER,
    "class-wise min-min noise: the victim's accuracy on its own training patches",
    on_train["min-min class-wise"],
    at_least=0.95,
)
claim(
    PAPER,
    "class-wise min-min noise: clean test accuracy lost",
    lost("min-min class-wise"),
    at_least=25,
    unit="points",
)
claim(
    PAPER,
    "sample-wise min-min noise: clean test accuracy lost",
    lost("min-min sample-wise"),
    at_least=2,
    unit="points",
)
claim(
    PAPER,
    "random noise of equal bound: clean test accuracy lost",
    lost("random"),
    at_most=10,
    unit="points",
)
claim(
    PAPER,
    "class-wise min-min noise costs more than uniform random class-wise noise of equal bound",
    lost("min-min class-wise") - lost("random class-wise"),
    at_least=3,
    unit="points",
)
claim(
    PAPER,
    "class-wise min-min noise costs more than random class-wise noise of full amplitude, ±ε",
    lost("min-min class-wise") - lost("random class-wise, ±ε"),
    at_least=0,
    unit="points",
)
claim(
    PAPER,
    "an MLP: class-wise min-min noise costs more than uniform random class-wise noise",
    lost("min-min class-wise", mlp_test) - lost("random class-wise", mlp_test),
    at_least=0,
    unit="points",
)
metric("lost_mlp_min_min", lost("min-min class-wise", mlp_test))
metric("lost_mlp_random_class_wise", lost("random class-wise", mlp_test))
metric("lost_mlp_random_class_wise_sign", lost("random class-wise, ±ε", mlp_test))
metric("clean_accuracy", on_test["no noise"])
metric("lost_min_max", lost("min-max"))
metric("lost_random_class_wise_sign", lost("random class-wise, ±ε"))

# %% [markdown]
# The victim of min-min noise sees nothing wrong: all its training patches are right. On clean
# patches it fails. Noise that differs from patch to patch does no such thing, so the harm is not
# in the disturbance.
#
# Now look at the third and fourth bar. **Random patterns do it too**, if they are the same for a
# whole class: at full amplitude they cost about seven tenths of what the optimised ones cost
# (67 to 85 % at seeds 0 to 9), and to the MLP it is all one: those of full amplitude cost it as
# much, and even uniform ones, of half the amplitude, do over four fifths of that harm (71 to 89 %).
# So its loss is hardly evidence that the *optimised* pattern carries over. What counts is that the
# noise tells the class more simply than the picture does. Optimisation finds patterns that a
# convolution notices sooner, and makes do with less amplitude; it is not the only way to find them
# (Yu et al., KDD 2022, need no network at all).
#
# **Sample-wise** noise is weaker here, and varies more from seed to seed: with 600 patches the
# source model has every one right after three or four rounds, and the method stops.
#
# **Min-max** noise, which the paper finds harmless, is not harmless here. It depends on the network
# that made it. Fowl et al. (NeurIPS 2021) found the same at full scale: adversarial noise makes a
# patch resemble another class, and that is what the victim then learns.
#
# ## 3. What did the victim learn?
#
# If it reads the noise, it should follow the noise rather than the picture. Test patches get the
# noise of the *next* class, at growing amplitude. A victim that learned from clean patches should
# still see the picture; one that learned from protected patches should name the class of the noise.

# %%
other = (y_test + 1) % K


def answers(model, amplitude):
    """Shares of test patches with the noise of another class: named by picture, by noise."""
    noisy = x_test + project(amplitude * class_noise[other], x_test, eps)
    return share_right(model, noisy, y_test), share_right(model, noisy, other)


amplitudes = np.linspace(0, 1, 11)
fig, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
for axis, name, title in zip(
    axes, ("no noise", "min-min class-wise"), ("learned from clean", "learned from protected")
):
    curves = 100 * np.array([answers(victims[name], a) for a in amplitudes])
    axis.plot(amplitudes, curves[:, 0], color=BLUE, label="class of the picture")
    axis.plot(amplitudes, curves[:, 1], "--", color=ORANGE, label="class of the noise")
    axis.set(xlabel="amplitude of the noise (of ε)", title=title, ylim=(0, 102))
axes[0].set_ylabel("answers (%)")
axes[0].legend()
plt.show()
claim(
    PAPER,
    "test patches with another class's noise: the protected victim names the class of the noise",
    answers(victims["min-min class-wise"], 1)[1],
    at_least=0.6,
)

# %% [markdown]
# Watch it change its mind on one patch.


# %%
def explore(amplitude, patch=n_test * (K // 2)):
    """One test patch with another class's noise, and what both victims make of it."""
    noisy = x_test + project(amplitude * class_noise[other], x_test, eps)
    _, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
    axes[0].imshow(noisy[patch].permute(1, 2, 0))
    axes[0].set_axis_off()
    axes[0].set_title(f"{photographs[y_test[patch]]} + noise of {photographs[other[patch]]}")
    for axis, name, title in zip(
        axes[1:], ("no noise", "min-min class-wise"), ("learned from clean", "from protected")
    ):
        with torch.no_grad():
            p = victims[name](noisy[patch : patch + 1]).softmax(dim=1)[0]
        colours = [
            {int(y_test[patch]): BLUE, int(other[patch]): ORANGE}.get(k, GREY) for k in range(K)
        ]
        axis.barh(photographs, p, color=colours)
        axis.invert_yaxis()
        axis.set(xlim=(0, 1), xlabel="probability", title=title)
    plt.show()


_ = interact(
    lambda amplitude: explore(amplitude),  # the slider moves the amplitude alone
    amplitude=FloatSlider(0.3, min=0, max=1, step=0.05, continuous_update=False),
)

# %%
explore(0.4)  # the same without the slider, for those who read this on paper

# %% [markdown]
# ## 4. When only some protect themselves
#
# Suppose half of the patches are protected and the others are not. Compare with a training set from
# which that half is simply missing.

# %%
half = torch.randperm(len(x), generator=draws(40)) < len(x) // 2
mixed = torch.where(half[:, None, None, None], protected, x)
partial = {
    "half protected": share_right(victim(mixed, y), x_test, y_test),
    "half deleted": share_right(victim(x[~half], y[~half]), x_test, y_test),
}
for name, value in partial.items():
    print(f"{name:15} {value:.1%} of clean test patches right")
claim(
    PAPER,
    "half of the patches protected: accuracy below that with these patches deleted",
    100 * (partial["half deleted"] - partial["half protected"]),
    at_most=8,
    unit="points",
)

# %% [markdown]
# A protected patch then contributes about as much as an absent one: at seeds 0 to 9, accuracy came
# out between 4 points below and 3 points above that without these patches, and the bound leaves
# room for a worse draw. The noise guards the pictures that carry it, by making them useless. It
# hardly spoils the others, and the model learns the class from those who did not protect
# themselves.
#
# ## 5. Countermeasures
#
# Somebody who suspects protection can process the pictures before training. Three remedies, each
# measured against the *same* processing of clean pictures, since it has a price of its own:
#
# - **JPEG**, which throws fine detail away; test patches are compressed too.
# - **Grayscale**, for networks trained on CIFAR lean on the colour of the noise.
# - **Adversarial training** at the same $\epsilon$: no noise within the bound is to be trusted.


# %%
def jpeg(x):
    """Each patch compressed and decompressed in memory."""
    out = []
    for pixels in (255 * x).round().byte().permute(0, 2, 3, 1).numpy():
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=jpeg_quality)
        out.append(np.asarray(Image.open(file), np.float32) / 255)
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()


LUMA = torch.tensor([0.2125, 0.7154, 0.0721])


def grayscale(x):
    """Luminance in all three channels."""
    return torch.einsum("nchw,c->nhw", x, LUMA)[:, None].repeat(1, 3, 1, 1)


cured = {"none": (on_test["no noise"], on_test["min-min class-wise"])}
for name, process in {"JPEG": jpeg, "grayscale": grayscale}.items():
    nets = [victim(process(z), y) for z in (x, protected)]
    cured[name] = tuple(share_right(net, process(x_test), y_test) for net in nets)
cured["adversarial training"] = (
    share_right(robust, x_test, y_test),
    share_right(adversarial_training(protected, y, eps), x_test, y_test),
)
fig, axis = plt.subplots(figsize=(8, 2.9), layout="constrained")
place = np.arange(len(cured))
for shift, column, colour, label in ((-0.2, 0, GREY, "clean"), (0.2, 1, ORANGE, "protected")):
    values = [100 * pair[column] for pair in cured.values()]
    bars = axis.barh(place + shift, values, 0.38, color=colour, label=f"from {label} patches")
    axis.bar_label(bars, fmt="%.0f", padding=3)
axis.axvline(100 / K, color="black", lw=0.8, ls=":", label="chance")
axis.set(yticks=place, yticklabels=list(cured), xlim=(0, 100), xlabel="test patches right (%)")
axis.invert_yaxis()
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()


# %%
def recovered(name):
    """Share of the loss that a remedy brings back, against the untreated clean victim."""
    clean, spoilt = cured["none"]
    return (cured[name][1] - spoilt) / (clean - spoilt)


def still_lost(name):
    return 100 * (cured[name][0] - cured[name][1])


claim(
    PAPER,
    "adversarial training: share of the lost accuracy recovered",
    recovered("adversarial training"),
    at_least=0.2,
)
claim(
    PAPER,
    "adversarial training: accuracy from protected patches below that from clean ones",
    still_lost("adversarial training"),
    at_most=5,
    unit="points",
)
claim(PAPER, "JPEG: share of the lost accuracy recovered", recovered("JPEG"), at_least=0.1)
claim(
    PAPER,
    "grayscale does not help here: accuracy still lost",
    still_lost("grayscale"),
    at_least=10,
    unit="points",
)
metric("recovered_grayscale", recovered("grayscale"))

# %% [markdown]
# Adversarial training takes the noise away, completely by the measure of its own clean baseline:
# learned from protected patches, the robust network is even better than learned from clean ones,
# perhaps since the noise does a part of the adversary's work against it. But at this $\epsilon$
# robustness is dear, and so only about half of the loss comes back. JPEG brings back as much, and
# costs a clean set almost nothing.
#
# Grayscale makes matters worse. It helps on CIFAR-10, where optimised noise varies strongly
# in colour and little in luminance. Our noise has independent values in the three channels, so
# luminance keeps $\sqrt{0.2125^2 + 0.7154^2 + 0.0721^2} \approx 75\,\%$ of its amplitude; and half
# of what told the photographs apart *was* colour.
#
# ## 6. Digits: a picture too plain to hide in
#
# How large must $\epsilon$ be? On CIFAR-10 8/255 suffices. Digits of 8 × 8 pixels are almost
# binary: ink is 1, paper is 0. The same method runs at three bounds.

# %%
train_digits, test_digits = digits_split(600, generator=draws(50))
x_d, y_d = train_digits
fifth = torch.randperm(len(x_d), generator=draws(51))
fifth = torch.cat([fifth[y_d[fifth] == k][:12] for k in range(10)])
pattern = (2 * torch.rand((10, 1, 8, 8), generator=draws(52)) - 1).sign()


def digit_accuracy(z):
    net = victim(z, y_d, cnn(channels=1, classes=10), epochs=10)
    return 100 * share_right(net, *test_digits)


clean_digits = digit_accuracy(x_d)
rows = {"random class-wise, ±ε": [], "min-min class-wise": []}
size = {name: [] for name in rows}  # mean |δ| / ε on the published digits
for e in tqdm(digit_eps, desc="digits", leave=False):
    source = cnn(53, channels=1, classes=10, batch_norm=False)
    noise, _ = min_min_noise(
        source,
        take(train_digits, fifth),
        e,
        generator=draws(54),
        class_wise=True,
        stop_error=0,
        max_rounds=class_rounds,
    )
    for name, delta in zip(rows, (e * pattern, noise)):
        delta = project(delta[y_d], x_d, e)
        rows[name].append(digit_accuracy(x_d + delta))
        size[name].append(float(delta.abs().mean()) / e)

paper = float((x_d == 0).float().mean())
print(f"without noise {clean_digits:.1f}% right; {paper:.0%} of all pixels are exactly 0")
for name in rows:
    cells = [f"{v:.1f}% at ε = {e:g}" for v, e in zip(rows[name], digit_eps)]
    print(f"{name:23} {',  '.join(cells)};  mean |δ| / ε", *(f"{v:.2f}" for v in size[name]))

fig, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained", width_ratios=[2.4, 1, 1])
for (name, values), colour, mark in zip(rows.items(), (SKY, ORANGE), "so"):
    axes[0].plot([0, *digit_eps], [clean_digits, *values], mark + "-", color=colour, label=name)
axes[0].set(xlabel="ε (of the range)", ylabel="clean test digits right (%)", ylim=(0, 102))
axes[0].legend(loc="lower left")
one = x_d[fifth[36]]
noisy = one + project(noise[y_d[fifth[36]]], one, digit_eps[-1])
titles = "a digit", f"with min-min noise,\nε = {digit_eps[-1]}"
for axis, image, title in zip(axes[1:], (one, noisy), titles):
    axis.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize="medium")
    axis.spines[:].set_visible(True)
plt.show()
claim(
    PAPER,
    "digits at the smallest bound: clean test accuracy lost to class-wise min-min noise",
    clean_digits - rows["min-min class-wise"][0],
    at_most=4,
    unit="points",
)
for k, e in enumerate(digit_eps):
    for name, short in zip(rows, ("_random", "")):
        metric(f"digits_lost{short}_at_{e:g}", clean_digits - rows[name][k])
        metric(f"digits_size{short}_at_{e:g}", size[name][k])

# %% [markdown]
# At the paper's bound nothing happens. At 0.15 the optimised noise does little, and at 0.3 anybody
# can see it. At both a random pattern of full amplitude does more harm. But the two are **not of
# one size**: on the published digits the pattern has two thirds of the bound, the optimised noise
# one third. That is not for want of gradient, since a step has size $\alpha$ whatever the gradient
# is. It is the clipping to $[0, 1]$: where a digit has paper, it takes only noise that adds ink,
# where it has full ink, only noise that takes ink away; and the noise of a class is the mean of
# what its digits take. (Clipped to $\pm\epsilon$ alone, it grew to 0.8 of the bound 0.3 in a trial
# at seeds 0 and 1.) Size for size, the noise at 0.3 costs a little more than the pattern at 0.15:
# 17 points against 13, and more at nine of the seeds 0 to 9.
#
# Noise protects where the class lies in faint detail, as in photographs; the strokes of a digit are
# a stronger signal than any noise one could overlook.
#
# ## 7. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: stay within bounds
#
# Given images `x` in $[0, 1]$ and noise `delta` of the same shape, return the nearest noise that
# lies within $\pm$`eps` and keeps `x + delta` in $[0, 1]$.
#
# <details><summary>Hint</summary>
#
# Clip the noise first, then the sum, then subtract the image again. Both bounds are boxes, and the
# bounds of the intersection are reached in either order.
#
# </details>


# %% tags=["exercise"]
def clip_noise(x, delta, eps):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def clip_noise_solution(x, delta, eps):
    return (x + delta.clamp(-eps, eps)).clamp(0, 1) - x


# %% tags=["check"]
check(
    clip_noise,
    clip_noise_solution,
    lambda rng: (*map(torch.from_numpy, (rng.random((3, 4)), rng.normal(0, 0.3, (3, 4)))), 0.2),
)

# %% [markdown]
# ### Exercise 2: one noise per class
#
# A step of the class-wise method. Every image starts from the `noise` (K, d) of its class `y` (N,);
# `g` (N, d) is the gradient of the loss there. Take one signed step of size `alpha` down the
# gradient, average over the images of each class, and clip to $\pm$`eps`. Return (K, d).
#
# <details><summary>Hint</summary>
#
# `noise[y]` gives every image the noise of its class. Loop over classes and take the mean of
# `moved[y == k]`.
#
# </details>


# %% tags=["exercise"]
def class_step(noise, g, y, alpha, eps):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def class_step_solution(noise, g, y, alpha, eps):
    moved = noise[y] - alpha * g.sign()
    means = torch.stack([moved[y == k].mean(dim=0) for k in range(len(noise))])
    return means.clamp(-eps, eps)


# %% tags=["check"]
def a_class_step(rng):
    labels = torch.from_numpy(rng.permutation(np.arange(12) % 3))
    noise, g = (torch.from_numpy(rng.uniform(-1, 1, shape)) for shape in ((3, 5), (12, 5)))
    return noise, g, labels, 0.3, 0.9


check(class_step, class_step_solution, a_class_step)

# %% [markdown]
# ### Exercise 3: how simple is the noise?
#
# A linear classifier can read class-wise noise. For noise patterns `noise` (K, d), classify every
# row of `z` (N, d) by the pattern with the largest inner product, after the mean over the patterns
# was subtracted from them. Return the classes (N,).
#
# <details><summary>Hint</summary>
#
# `z @ centred.T` has one column for each class.
#
# </details>


# %% tags=["exercise"]
def read_noise(z, noise):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def read_noise_solution(z, noise):
    return (z @ (noise - noise.mean(dim=0)).T).argmax(dim=1)


# %% tags=["check"]
check(
    read_noise,
    read_noise_solution,
    lambda rng: tuple(torch.from_numpy(rng.normal(size=shape)) for shape in ((9, 6), (4, 6))),
)

# %% [markdown]
# ## 8. What did not reproduce, and what is smaller here
#
# - **Optimisation is only a part of it.** Random class-wise noise of amplitude $\pm\epsilon$ does
#   seven tenths of the harm to the CNN here and all of it to the MLP. Uniform noise, the usual
#   control, has half the amplitude and flatters the method; to the MLP even it does most of the
#   harm.
# - **Min-max noise is a strong poison here** (21 to 57 points at seeds 0 to 9), not the weak one of
#   the paper, so no bound is held against it.
# - **Adversarial training** undoes the noise compared with itself on clean patches, yet regains
#   only 45 to 73 % of the loss: at this bound it costs the small network a third of its accuracy
#   or more.
# - **Grayscale** does not help; the text above says why.
# - **Sample-wise noise** costs 13 to 50 points here, less than class-wise (40 to 67). In the paper
#   they bring a ResNet-18 on CIFAR-10 from 94 % down to 20 % and 16 %.
# - **Digits** resist: noise that costs more than a few points is plain to see.
#
# Smaller than in the paper: patches of 16 × 16 pixels in six classes, three-layer networks, 12
# epochs without augmentation; the bound is 0.1 instead of 8/255, about three times as large.
# Source models have no batch norm, victims have it, and all train with Adam instead of SGD.
#
# **Next.** *unlearning/06_local_masks* puts the noise only where a picture is not empty. Fowl et
# al., *Adversarial examples make strong poisons* (NeurIPS 2021); Yu et al., *Availability attacks
# create shortcuts* (KDD 2022); Liu et al., *Image shortcut squeezing* (ICML 2023), for JPEG and
# grayscale.

# %%
# NBVAL_CHECK_OUTPUT
summary()
