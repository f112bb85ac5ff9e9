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
# # Learning when: synapses with delays
#
# **Question.** A synapse has a weight, and it has a delay: the time a spike takes to arrive.
# Networks learn the weights. Can they learn the delays too, and what can they do then that weights
# alone cannot?
#
# ![Two or more spikes that left at different times arrive together at a neuron whose delays were
# learned](02_learning_delays.png)
#
# **Reading** 15 minutes. **Running** under a minute on two CPU cores, under 1 GB of memory.
#
# **Paper** `dcls-snn-delays`: I. Hammouamri, I. Khalfaoui-Hassani and T. Masquelier, *Learning
# Delays in Spiking Neural Networks using Dilated Convolutions with Learnable Spacings*, ICLR 2024,
# [arXiv:2306.17670](https://arxiv.org/abs/2306.17670). Its experiment on spoken digits has a
# notebook of its own, `delays/08_reading_spoken_digits`.
#
# You need to know what a convolution and a leaky integrate-and-fire neuron are.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
replicates: int = 5  # independent repetitions of each experiment, trained side by side
max_delay: int = 24  # longest delay, in steps
teacher_steps: int = 1200  # optimiser steps while a student looks for the delays of a teacher
timing_steps: int = 400  # optimiser steps of the networks that tell rhythms apart
tuning_steps: int = 120  # steps in which weights get used to rounded delays
batch: int = 64  # rhythms in a step
jitter: int = 1  # steps by which a spike may come early or late, in the noisy version

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from ipywidgets import FloatSlider, interact
from torch import nn
from tqdm.auto import tqdm

from labkit import claim, metric
from labkit.claims import summary
from labkit.delays import DelayedLinear, annealed_width, clamp_delays
from labkit.exercises import check
from labkit.kernels import delay_kernel, delayed_linear, lif_scan
from labkit.plots import AMBER, BLUE, GREY, ORANGE, PINK, house_style
from labkit.spiking import synaptic_operations

PAPER = "dcls-snn-delays"
if min(replicates, teacher_steps, timing_steps, tuning_steps, batch) < 1:
    raise ValueError("replicates, teacher_steps, timing_steps, tuning_steps, batch: at least 1")
if max_delay < 20:
    raise ValueError(f"max_delay must reach over a rhythm of 20 steps, not {max_delay}")
if jitter not in (0, 1):
    raise ValueError(f"jitter must be 0 or 1: latencies 4 steps apart would meet, not {jitter}")

generator = torch.Generator().manual_seed(seed)
house_style()

# %% [markdown]
# ## 1. A delay that has a slope
#
# A synapse of weight $w$ and delay $d$ answers a spike at step $t$ with $w$ at step $t + d$. As a
# convolution over time, $y_t = \sum_j K_j\, x_{t-j}$, its kernel is $w$ at one place and zero
# elsewhere. Move the place a little and nothing changes until it jumps: there is no gradient to
# follow. The paper's way out, *dilated convolution with learnable spacings*, spreads the weight
# over a Gaussian about a **real-valued** delay,
#
# $$K_j = w\,\frac{G_j}{\sum_k G_k + 10^{-7}}, \qquad
#   G_j = \exp\left(-\frac{(j - d)^2}{2\sigma^2}\right),$$
#
# with $\sigma$ steps of spread. Now $\partial L / \partial d = w \sum_j
# (\partial L/\partial K_j)\,\partial (G_j / \sum_k G_k)/\partial d$ exists wherever the Gaussian
# reaches. A wide one feels the pull of a target far away; a narrow one is a delay at last.

# %%
STEPS = np.arange(max_delay + 1)


def draw_kernel(d=9.4, sigma=2.0):
    taps = delay_kernel(torch.ones(1, 1), torch.tensor([[d]]), sigma, max_delay)[0, 0]
    _, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    axes.bar(STEPS, taps, color=BLUE, width=0.8)
    axes.axvline(d, color=ORANGE, lw=1.5)
    on_the_tap = float(taps[round(d)])
    axes.set(
        xlabel="step j",
        ylabel="weight at j",
        ylim=(0, 1.05),
        title=f"d = {d:.1f} steps, σ = {sigma:.2f}: {100 * on_the_tap:.0f} % at the nearest step",
    )
    plt.show()


draw_kernel()

# %%
_ = interact(
    draw_kernel,
    d=FloatSlider(9.4, min=0, max=max_delay, step=0.1, continuous_update=False),
    sigma=FloatSlider(2.0, min=0.28, max=12.5, step=0.1, continuous_update=False),
)

# %% [markdown]
# Two things go wrong easily. PyTorch's `conv1d` is a cross-correlation: without turning the kernel
# round, a *longer* delay answers *earlier*. So send one spike through and look where it comes out.
# And a gradient that looks right may be wrong: compare it with finite differences, in `float64`.

# %%
one_spike = torch.zeros(60, 1, 1, dtype=torch.float64)
one_spike[10] = 1
asked = torch.arange(max_delay + 1, dtype=torch.float64)
rounded_answers = delayed_linear(
    one_spike, torch.ones_like(asked)[:, None], asked[:, None], max_delay=max_delay
)[:, 0]
arrival = (torch.arange(60.0, dtype=torch.float64) @ rounded_answers) / rounded_answers.sum(0)
late = (arrival - 10 - asked).abs().max()

x = (torch.rand(40, 3, 5, generator=generator) < 0.2).double()
target = torch.randn(40, 3, 4, generator=generator, dtype=torch.float64)
w = torch.randn(4, 5, generator=generator, dtype=torch.float64)
d = 4 + (max_delay - 8) * torch.rand(4, 5, generator=generator, dtype=torch.float64)


def loss_of(d):
    return ((delayed_linear(x, w, d, width=2.0, max_delay=max_delay) - target) ** 2).mean()


d.requires_grad_()
(gradient,) = torch.autograd.grad(loss_of(d), d)
finite = torch.zeros_like(gradient)
with torch.no_grad():
    for at in np.ndindex(*d.shape):
        up, down = d.clone(), d.clone()
        up[at] += 1e-5
        down[at] -= 1e-5
        finite[at] = (loss_of(up) - loss_of(down)) / 2e-5
    silent = torch.zeros_like(x)
error = float((gradient - finite).abs().max() / finite.abs().max())
(unmoved,) = torch.autograd.grad(
    (delayed_linear(silent, w, d, width=2.0, max_delay=max_delay) - target).square().mean(), d
)

claim(PAPER, "largest error of a spike's arrival at t + d", late, at_most=1e-9, unit="steps")
claim(PAPER, "gradient of delays against finite differences, relative", error, at_most=1e-6)
claim(PAPER, "gradient of delays without any spike", unmoved.abs().max(), at_most=0)

# %% [markdown]
# ## 2. Finding the delays of a teacher
#
# A teacher layer of 8 × 4 synapses has random weights and whole delays up to `max_delay`. A student
# sees its input, random spikes (0.1 a step), and its output, and nothing else. Both start far
# apart. The loss is the squared difference.
#
# The paper begins with a $\sigma$ of half the kernel and narrows it geometrically to 0.5. Here the
# narrowing takes 60 % of the training. The control is the same student with $\sigma = 0.5$ from the
# start. A third student has triangles instead of Gaussians, of the same schedule plus a half.
# All of them, for all replicates, are one grouped convolution.

# %%
INPUTS, OUTPUTS = 8, 4
STUDENTS = ("narrowing σ", "σ fixed at 0.5", "narrowing triangle")


def spikes_delayed(x, K):
    """y[t] = sum_j K[..., j] x[t - j]: x (B, replicates · in, T), K (replicates, out, in, taps)."""
    past = F.pad(x, (K.shape[3] - 1, 0))  # nothing came before step 0
    return F.conv1d(past, K.flatten(0, 1).flip(2), groups=len(K))  # turned round: see above


def kernels(w, d, sigma):
    """Of (replicates, student, out, in): K (replicates, students · out, in, taps)."""
    wide = torch.tensor([sigma, 0.5])[:, None, None]
    gaussian = delay_kernel(w[:, :2], d[:, :2], wide, max_delay)
    triangle = delay_kernel(w[:, 2:], d[:, 2:], sigma + 0.5, max_delay, "triangular")
    return torch.cat([gaussian, triangle], 1).flatten(1, 2)


shape = (replicates, OUTPUTS, INPUTS)
teacher_w = torch.randn(shape, generator=generator)
teacher_d = torch.randint(0, max_delay + 1, shape, generator=generator).float()
teacher_K = delay_kernel(teacher_w, teacher_d, None, max_delay)


def begin(low, high):
    """The same start for every student of a replicate."""
    value = low + (high - low) * torch.rand(shape, generator=generator)
    return value[:, None].repeat(1, len(STUDENTS), 1, 1)


student_w = begin(-1, 1).div(INPUTS**0.5).requires_grad_()
student_d = begin(0, max_delay).requires_grad_()
first_d = student_d[:, 0].detach().clone()
optimiser = torch.optim.Adam(
    [{"params": [student_w], "lr": 0.01}, {"params": [student_d], "lr": 0.1}]
)
path = []  # of one replicate's delays, to draw
for step in tqdm(range(teacher_steps), desc="teacher"):
    x = (torch.rand(16, replicates * INPUTS, 100, generator=generator) < 0.1).float()
    y = spikes_delayed(x, teacher_K).view(16, replicates, 1, OUTPUTS, 100)
    sigma = annealed_width(step / teacher_steps, max_delay / 2 + 0.5, until=0.6)
    guess = spikes_delayed(x, kernels(student_w, student_d, sigma)).view(
        16, replicates, len(STUDENTS), OUTPUTS, 100
    )
    loss = (guess - y).square().mean((0, 3, 4)).sum()  # every student has its own
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    with torch.no_grad():
        student_d.clamp_(0, max_delay)
    path.append(student_d[0, :2].detach().flatten(1).clone())

strong = teacher_w.abs() >= 0.3  # a synapse of no weight has no delay to find
near = ((student_d.detach() - teacher_d[:, None]).abs() <= 1).float()
found = torch.stack([near[r][:, strong[r]].mean(1) for r in range(replicates)])  # (r, students)
by_chance = ((first_d - teacher_d).abs() <= 1)[strong].float().mean()
for i, name in enumerate(STUDENTS):
    print(f"{name:20} found within a step: {', '.join(f'{v:.0%}' for v in found[:, i].tolist())}")
print(f"where they began: {by_chance:.0%}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for axis, i, colour in zip(axes, (0, 1), (BLUE, ORANGE)):
    axis.plot([0, max_delay], [0, max_delay], color=GREY, lw=1, zorder=0)
    size = 60 * teacher_w.abs().flatten().clamp(max=2)
    axis.scatter(
        teacher_d.flatten(), student_d[:, i].detach().flatten(), size, color=colour, alpha=0.5, lw=0
    )
    axis.set(
        title=f"{STUDENTS[i]}: {found[:, i].mean():.0%} found",
        xlabel="delay of the teacher, steps",
        ylabel="delay of the student, steps",
        aspect="equal",
    )
history = torch.stack(path)
for synapse in strong[0].flatten().nonzero().flatten()[:8]:
    for i, colour, style in ((0, BLUE, "-"), (1, ORANGE, "--")):
        off = history[:, i, synapse] - teacher_d[0].flatten()[synapse]
        axes[2].plot(off, style, color=colour, lw=1, label=STUDENTS[i])
axes[2].axhline(0, color=GREY, lw=1)
axes[2].axvline(0.6 * teacher_steps, color=GREY, lw=1, ls=":")
axes[2].set(
    title="eight synapses on their way",
    xlabel="optimiser step",
    ylabel="delay: student − teacher, steps",
)
axes[2].legend(*(both[:2] for both in axes[2].get_legend_handles_labels()), fontsize=9)
plt.show()

metric("found within a step, narrowing triangle", float(found[:, 2].mean()))
claim(
    PAPER,
    "delays found within one step when σ narrows, mean over replicates",
    found[:, 0].mean(),
    at_least=0.7,
)
claim(
    PAPER,
    "delays found within one step when σ narrows, worst replicate",
    found[:, 0].min(),
    at_least=0.5,
)
claim(
    PAPER,
    "delays found within one step when σ is 0.5 from the start",
    found[:, 1].mean(),
    at_most=0.35,
)

# %% [markdown]
# Each dot is a synapse, its size the teacher's weight. With a narrow Gaussian a delay moves only
# when the target happens to lie next to it. A wide one blurs all synapses at first, finds the rough
# place of each, and sharpens; where the narrowing ends there is a dotted line on the right. Some
# delays stay in a wrong place whose weight has meanwhile adapted: they are learned on a landscape
# with valleys, and the schedule is a good but not a perfect map.
#
# ## 3. What only delays can do
#
# Two inputs spike once each, ten steps apart. Which came first? Every class has the same spikes in
# the same number; only their order differs. Let all weights be 1 and never change. Two outputs
# compete by the coincidences they see, $\sum_t y_t^2$: the one whose delays make up for the ten
# steps wins. Synaptic delays are free in both inputs of both outputs; an *axonal* delay belongs to
# an input and is shared by all outputs; a *dendritic* one belongs to an output and is shared by all
# inputs. Which of them can solve it?

# %%
GAP = 10


def two_spikes(order, gap=GAP):
    """Trials (40, B, 2): input `order` first, the other `gap` steps later."""
    x = torch.zeros(40, len(order), 2)
    start = torch.randint(0, 4, order.shape, generator=generator)
    trial = torch.arange(len(order))
    x[start, trial, order] = 1
    x[start + gap, trial, 1 - order] = 1
    return x


def learn_order(kind):
    layer = DelayedLinear(2, 2, max_delay, kind=kind, generator=generator)
    layer.weight.requires_grad_(False).fill_(1)
    optimiser = torch.optim.Adam([layer.delay], lr=0.1)
    for step in range(400):
        layer.width = annealed_width(step / 400, max_delay / 2 + 0.5, until=1.0)
        order = torch.randint(0, 2, (32,), generator=generator)
        loss = F.cross_entropy(4 * layer(two_spikes(order)).square().sum(0), order)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        clamp_delays(layer)
    layer.rounded = True
    order = torch.randint(0, 2, (1000,), generator=generator)
    shuffled = torch.randint(0, 2, (1000,), generator=generator)  # same counts, order by chance
    with torch.no_grad():
        right, luck = (
            float((layer(two_spikes(o)).square().sum(0).argmax(1) == order).float().mean())
            for o in (order, shuffled)
        )
    return layer, right, luck


orders = {kind: learn_order(kind) for kind in ("synaptic", "axonal", "dendritic")}
for kind, (layer, right, luck) in orders.items():
    print(f"{kind:10} {right:6.1%} right, {luck:5.1%} when the order is shuffled", end="; ")
    print("delays", layer.delay.detach().round().int().tolist())
apart = orders["synaptic"][0].delay.detach().round().diff(dim=1).abs().flatten()

claim(PAPER, "order of two spikes, synaptic delays", orders["synaptic"][1], at_least=0.99)
claim(
    PAPER,
    "largest error of the learned difference of two delays that bridge 10 steps",
    (apart - GAP).abs().max(),
    at_most=1,
    unit="steps",
)
metric("check of the task: order of two spikes, shuffled", orders["synaptic"][2])

# %% [markdown]
# Dendritic delays move both inputs alike and cannot tell the orders apart, however long they train.
# Axonal delays can make one order coincide, but then for both outputs alike: these see the same
# sum, and with equal weights they cannot disagree. Only a delay *per synapse* lets one output wait
# for "left first" and the other for "right first". (With weights to learn, axonal delays do well in
# larger networks, at $N$ parameters instead of $N^2$.) The share printed for a shuffled order
# is a check of the task, not of the network: such inputs know nothing of the label, so that half
# must be right.
#
# ## 4. Rhythms
#
# Now spiking networks, as the paper builds them: delayed synapses, batch normalisation, leaky
# integrate-and-fire neurons with a hard reset and an arctan surrogate gradient, a readout whose
# softmax is summed over time. The membrane has $\tau = 1.005$ steps, so it keeps half a percent of
# its voltage from one step to the next: **all memory lies in the delays**.
#
# Six channels spike once each, at the latencies 0, 4, …, 20 steps in some order; four orders are
# the four classes. A common random shift makes single times worthless, and every class has the same
# counts in every channel. Eight hidden neurons read them:
#
# - **no delays**: what is left without memory;
# - **fixed delays**: random ones, only weights are learned;
# - **fixed delays, same σ**: these delays once more, spread by the Gaussian of the learned ones,
#   narrowing with it: what does the width do by itself?
# - **learned delays**: weights and delays are learned;
# - **a membrane of two steps**, and no delays: the trap. Is it really the delays?
#
# All start from the same weights in the same replicate, and see the same trials: their hidden
# neurons are the outputs of one delayed layer.

# %%
CHANNELS, CLASSES, HIDDEN, LATEST = 6, 4, 8, 6
T = LATEST + 20 + 2 + max_delay + 1
CONDITIONS = {
    "no delays": GREY,
    "fixed delays": ORANGE,
    "fixed delays, same σ": AMBER,
    "learned delays": BLUE,
    "membrane": PINK,
}
NONE, FIXED, SPREAD, LEARNED, MEMBRANE = range(len(CONDITIONS))
UNITS = len(CONDITIONS) * HIDDEN
role = torch.arange(len(CONDITIONS)).repeat_interleave(HIDDEN)  # of each hidden unit


def orders_of(count):
    """Latencies (count, channels) in steps, all different orders."""
    chosen = {}
    while len(chosen) < count:
        order = torch.randperm(CHANNELS, generator=generator)
        chosen[tuple(order.tolist())] = 4 * order
    return torch.stack(list(chosen.values()))


def rhythms(templates, labels, jitter):
    """Spikes (T, B, channels) of the templates of the labels (B,)."""
    times = templates[labels] + torch.randint(2, 2 + LATEST, (len(labels), 1), generator=generator)
    times = times + torch.randint(-jitter, jitter + 1, times.shape, generator=generator)
    return F.one_hot(times, T).permute(2, 0, 1).float()


class Readers(nn.Module):
    """The networks of all conditions for one replicate, side by side."""

    def __init__(self):
        super().__init__()
        self.synapses = DelayedLinear(CHANNELS, UNITS, max_delay, generator=generator)
        self.norm = nn.BatchNorm1d(UNITS)
        out = 2 * torch.rand(CLASSES, HIDDEN, generator=generator) - 1
        self.out = nn.Parameter(out.div(HIDDEN**0.5).repeat(len(CONDITIONS), 1, 1))
        with torch.no_grad():
            for value in self.synapses.parameters():  # the same start for each condition
                value.copy_(value[:HIDDEN].repeat(len(CONDITIONS), 1))
            self.synapses.delay[(role == NONE) | (role == MEMBRANE)] = 0
            fixed = (role == FIXED) | (role == SPREAD)
            self.synapses.delay[fixed] = self.synapses.delay[fixed].round()
        learned = (role == LEARNED)[:, None]
        self.synapses.delay.register_hook(lambda gradient: gradient * learned)
        self.decay = 1 - 1 / torch.where(role == MEMBRANE, 2.0, 1.005)

    def set_width(self, sigma):
        """Learned delays and their control are spread by sigma, the others by next to nothing."""
        spread = (role == LEARNED) | (role == SPREAD)
        self.synapses.width = torch.where(spread, sigma, 0.05)[:, None]

    def hidden(self, x):
        current = self.norm(self.synapses(x).flatten(0, 1)).view(*x.shape[:2], UNITS)
        return lif_scan(current, self.decay, reset="zero", detach_reset=True, slope=5.0)

    def forward(self, x):
        """Evidence (conditions, classes, B): the softmax of the voltages, summed over time."""
        spikes = self.hidden(x).unflatten(2, (len(CONDITIONS), HIDDEN))
        return torch.einsum("tbkh,kch->tkcb", spikes, self.out).softmax(2).sum(0)


def train(readers, templates, jitter, steps, rate, delay_rate, describe):
    """Train all replicates; the width narrows unless delays are rounded already."""
    own = [p for r in readers for p in r.parameters() if p is not r.synapses.delay]
    delays = [r.synapses.delay for r in readers]
    optimiser = torch.optim.Adam(
        [{"params": own, "lr": rate}, {"params": delays, "lr": delay_rate}]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [5 * rate, delay_rate], steps)
    for step in tqdm(range(steps), desc=describe):
        loss = 0
        for reader, template in zip(readers, templates):
            reader.set_width(annealed_width(step / steps, max_delay / 2 + 0.5, until=0.5))
            labels = torch.randint(0, CLASSES, (batch,), generator=generator)
            evidence = reader(rhythms(template, labels, jitter))
            for condition in evidence:
                loss = loss + F.cross_entropy(condition.T, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        for reader in readers:
            clamp_delays(reader)


def accuracy(readers, templates, jitter, trials=1000, shuffle=False):
    """(replicates, conditions) on new trials; shuffled, channels swap their trains in each."""
    found = []
    for reader, template in zip(readers, templates):
        reader.eval()
        labels = torch.randint(0, CLASSES, (trials,), generator=generator)
        x = rhythms(template, labels, jitter)
        if shuffle:
            order = torch.rand(trials, CHANNELS, generator=generator).argsort(1)
            x = x.gather(2, order.expand(T, -1, -1))
        with torch.no_grad():
            evidence = reader(x)
        found.append((evidence.argmax(1) == labels).float().mean(1))
        reader.train()
    return torch.stack(found)


def tell_rhythms_apart(jitter):
    """Train; then accuracy before rounding, after it, and after tuning: (3, replicates, 5)."""
    templates = [orders_of(CLASSES) for _ in range(replicates)]
    readers = [Readers() for _ in range(replicates)]
    what = f"jitter {jitter}" if jitter else "no jitter"
    train(readers, templates, jitter, timing_steps, 2e-3, 0.1, f"{what}: learning")
    measured = [accuracy(readers, templates, jitter)]
    for reader in readers:
        reader.synapses.rounded = True
    measured.append(accuracy(readers, templates, jitter))
    train(readers, templates, jitter, tuning_steps, 1e-3, 0.0, f"{what}: tuning")
    measured.append(accuracy(readers, templates, jitter))
    return readers, templates, torch.stack(measured)


exact, exact_templates, on_time = tell_rhythms_apart(0)
noisy, noisy_templates, late_or_early = tell_rhythms_apart(jitter)

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained", sharey=True)
stages = ("learned", "rounded", "rounded, weights tuned")
for axis, measured, title in zip(
    axes, (on_time, late_or_early), ("spikes on time", f"spikes up to {jitter} step early or late")
):
    for k, (name, colour) in enumerate(CONDITIONS.items()):
        at = np.arange(3) + 0.17 * (k - 2)
        axis.bar(at, measured[:, :, k].mean(1), 0.15, color=colour, label=name, alpha=0.85)
        for replicate in measured.unbind(1):
            axis.plot(at, replicate[:, k], "o", color="black", ms=2.5, alpha=0.6)
    axis.axhline(1 / CLASSES, color="black", lw=1, ls=":")
    axis.set(title=title, xticks=range(3), ylim=(0, 1.05))
    axis.set_xticks(range(3), stages)
axes[0].set_ylabel("accuracy on new trials\n(dots: replicates)")
axes[1].text(2.6, 1 / CLASSES, "chance", va="center", fontsize=9)
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
)
plt.show()

mean_on_time, mean_noisy = on_time.mean(1), late_or_early.mean(1)
for k, name in enumerate(CONDITIONS):
    metric(f"on time, {name}, tuned", float(mean_on_time[2, k]))
    metric(f"jitter, {name}, before rounding", float(mean_noisy[0, k]))
    metric(f"jitter, {name}, rounded", float(mean_noisy[1, k]))
    metric(f"jitter, {name}, tuned", float(mean_noisy[2, k]))
claim(
    PAPER,
    "rhythms on time: learned delays, before rounding, mean over replicates",
    mean_on_time[0, LEARNED],
    at_least=0.9,
)
claim(
    PAPER,
    "rhythms on time: no delays, best replicate (chance 0.25)",
    on_time[2, :, NONE].max(),
    at_most=0.32,
)
claim(
    PAPER,
    "rhythms with jitter: errors of learned over fixed random delays of the same σ, unrounded",
    (1 - mean_noisy[0, LEARNED]) / (1 - mean_noisy[0, SPREAD]),
    at_most=0.5,
)
claim(
    PAPER,
    "rhythms with jitter: learned minus fixed random delays of the same σ, rounded and tuned",
    mean_noisy[2, LEARNED] - mean_noisy[2, SPREAD],
    at_least=0.05,
)
claim(
    PAPER,
    "rhythms with jitter: what tuning the weights wins back after rounding",
    mean_noisy[2, LEARNED] - mean_noisy[1, LEARNED],
    at_least=0.1,
)

# %% [markdown]
# Without memory the networks are at chance, as they must be: no two spikes meet. With delays they
# can bring spikes together that left apart. As long as spikes are on time, *random* delays are
# enough, or nearly: eight neurons with six of them each see coincidences to choose from. (At seeds
# 3 and 7 they read 95 and 85 % of the rhythms at last, learned ones 100 and 95 %.)
#
# As soon as spikes come a little early or late, learned delays are far ahead of random ones. But
# **much of that lead is the width of the Gaussian, not the places**. At $\sigma = 0.5$ a tenth of a
# weight lies on either neighbour of its step and catches a spike that is one step off, wherever the
# delay stands: random delays with the same $\sigma$ do better than random single steps, too. What
# learned places add to that was 0.20 here, and 0.03 to 0.14 at seeds 1 to 9. Where that is little,
# little was left to win: at all ten seeds learned delays err a twentieth to a fifth as often.
#
# The width is also what they lose by **rounding**. Rounded, a delay catches no spike that is a step
# off, and learned delays fall below random ones that never were wide. The paper reports hardly any
# loss from rounding, for layers of 256 neurons and words of many spikes. A small network that hangs
# on single spikes has to get used to its new delays: weights and normalisation are tuned for some
# more steps. After that learned delays lead random ones of the same treatment by 0.17 to 0.18 at
# seeds 0, 3 and 7, and random single steps by 0.03 to 0.12.
#
# And the trap: **a membrane that remembers two steps solves the task without any delay.** It
# bridges gaps of four steps with what is left of its voltage. Whoever wants to show what delays do
# has to take the other memories away, which is what $\tau = 1.005$ is for.
#
# ## 5. A look inside
#
# What does a neuron with learned delays do? On the left the six spikes of a rhythm as they leave,
# and as they arrive at the hidden neuron that responds to this rhythm most. In the middle, its
# delays against the latencies: on the line are the spikes that arrive together, when this neuron
# gets its largest input. Not all six do.
# On the right, where delays began and where they went.

# %% tags=["cover"]
rows = (role == LEARNED).nonzero().flatten()


def strongest(reader, templates):
    """The hidden neuron and rhythm with the most input in one step: (input, rhythm, unit)."""
    W, D = (value.detach()[rows] for value in reader.synapses.parameters())
    drive = torch.stack(
        [
            delayed_linear(F.one_hot(order, T).T[:, None].float(), W, D, max_delay=max_delay)
            for order in templates
        ]
    ).amax((1, 2))
    rhythm, neuron = divmod(int(drive.argmax()), HIDDEN)
    return float(drive.max()), rhythm, int(rows[neuron])


each = [strongest(*pair) for pair in zip(exact, exact_templates)]
which = max(range(replicates), key=lambda r: each[r][0])
_, rhythm, unit = each[which]
latency = exact_templates[which][rhythm]
weight, delay = (value.detach()[unit] for value in exact[which].synapses.parameters())
delay = delay.round()
excites = weight > 0.25 * weight.max()

figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for c in range(CHANNELS):
    colour = BLUE if excites[c] else GREY
    axes[0].plot(latency[c], c + 1, "|", ms=16, mew=2.5, color="black")
    axes[0].annotate(
        "",
        (latency[c] + delay[c], c + 1),
        (latency[c], c + 1),
        arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.5, "shrinkA": 4, "shrinkB": 2},
    )
    axes[0].plot(latency[c] + delay[c], c + 1, "|", ms=16, mew=2.5, color=colour)
axes[0].set(
    xlabel="step",
    ylabel="channel",
    ylim=(0.3, CHANNELS + 0.7),
    xlim=(-1, 46),
    title="spikes leave (black) and arrive",
)
meeting = int(torch.bincount((latency + delay).long(), weight).argmax())  # most input
metric("spikes that meet at the neuron drawn", int((latency + delay == meeting).sum()))
axes[1].plot([0, 20], [meeting, meeting - 20], color=ORANGE, lw=1, zorder=0)
axes[1].scatter(latency[excites], delay[excites], 60, color=BLUE, label="excitatory")
axes[1].scatter(latency[~excites], delay[~excites], 60, color=GREY, label="weak or inhibitory")
axes[1].set(
    xlabel="latency of the spike, steps",
    ylabel="delay of the synapse, steps",
    ylim=(-1, max_delay + 9),
    title=f"on the line: spikes that arrive at step {meeting}",
)
axes[1].legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
bins = np.linspace(0, max_delay, 13)
began, ended = (
    np.concatenate([r.synapses.delay.detach()[role == k].flatten() for r in exact + noisy])
    for k in (FIXED, LEARNED)
)
axes[2].hist([began, ended], bins, color=[ORANGE, BLUE], label=["random", "learned"])
axes[2].set(xlabel="delay, steps", ylabel="synapses", title="delays before and after")
axes[2].legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
axes[2].margins(y=0.2)
plt.show()

# %% [markdown]
# A last check of the task: trains that change channels at random within each trial, with every
# count and every interval kept, know nothing of the label any more, so that any network must be at
# chance. And what does a network cost? On hardware that works event by event a spike costs one
# addition for each synapse it reaches, delayed or not: a *synaptic operation*.

# %%
shuffled = accuracy(noisy, noisy_templates, jitter, shuffle=True)[:, LEARNED]
reader = noisy[0].eval()
labels = torch.randint(0, CLASSES, (500,), generator=generator)
x = rhythms(noisy_templates[0], labels, jitter)
with torch.no_grad():
    fired = reader.hidden(x)[:, :, role == LEARNED]
W, out = reader.synapses.weight.detach()[role == LEARNED], reader.out.detach()[LEARNED]
events = synaptic_operations(x, W) + synaptic_operations(fired, out)
dense = T * (W.numel() * (max_delay + 1) + out.numel())
print(f"a rhythm costs {events:.0f} synaptic operations; a dense convolution over time makes")
print(f"{dense} multiplications for the same network")
metric("synaptic operations a rhythm", events)
metric("check of the task: rhythms whose channels are swapped, learned delays", shuffled.mean())
print(f"of rhythms whose channels are swapped {shuffled.mean():.1%} are right; chance is 25 %")

# %% [markdown]
# ## 6. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: catch a rhythm
#
# A neuron shall respond to a rhythm: its channels spike at `latency`, whole steps of shape
# `(channels,)`. Choose delays such that all spikes arrive together, as early as possible. No delay
# is negative.
#
# <details><summary>Hint</summary>The last spike needs no delay.</details>


# %% tags=["exercise"]
def catch(latency):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def catch_solution(latency):
    return latency.max() - latency


# %% tags=["check"]
check(catch, catch_solution, lambda rng: (torch.from_numpy(rng.permutation(24)[:6]),))

# %% [markdown]
# ### Exercise 2: which way does a delay want to go?
#
# For one synapse of weight $w$ write the gradient of the loss with respect to its delay $d$, given
# the gradient $\partial L / \partial K_j$ of shape `(taps,)`. With $X_j = G_j / \sum_k G_k$ (leave
# out the $10^{-7}$),
#
# $$\frac{\partial L}{\partial d} = w \sum_j \frac{\partial L}{\partial K_j}\,
#   X_j \left(\frac{j - d}{\sigma^2} - \sum_k X_k \frac{k - d}{\sigma^2}\right).$$
#
# <details><summary>Hint</summary>`torch.arange(len(grad_K))` holds the steps j.</details>


# %% tags=["exercise"]
def delay_gradient(grad_K, w, d, sigma):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def delay_gradient_solution(grad_K, w, d, sigma):
    j = torch.arange(len(grad_K), dtype=grad_K.dtype)
    G = torch.exp(-((j - d) ** 2) / (2 * sigma**2))
    X = G / G.sum()
    pull = (j - d) / sigma**2
    return w * (grad_K * X * (pull - (X * pull).sum())).sum()


# %% tags=["check"]
check(
    delay_gradient,
    delay_gradient_solution,
    lambda rng: (
        torch.from_numpy(rng.standard_normal(25)),
        float(rng.normal()),
        float(rng.uniform(2, 22)),
        float(rng.uniform(0.5, 5)),
    ),
)

# %% [markdown]
# ### Exercise 3: how much of a weight does rounding move?
#
# Of a synapse with $d$ = `delay` and spread $\sigma$ = `sigma`, what share of the weight lies on
# other steps than the one that rounding leaves? Kernels hold the steps 0 to `last`.
#
# <details><summary>Hint</summary>`delay_kernel(weight, delay, sigma, last)` with weights of 1 and
# shapes `(1, 1)` has the shares; its shape is `(1, 1, last + 1)`.</details>


# %% tags=["exercise"]
def moved_by_rounding(delay, sigma, last):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def moved_by_rounding_solution(delay, sigma, last):
    taps = delay_kernel(torch.ones(1, 1), torch.tensor([[delay]]), sigma, last)[0, 0]
    return 1 - taps[round(delay)]


# %% tags=["check"]
check(
    moved_by_rounding,
    moved_by_rounding_solution,
    lambda rng: (float(rng.uniform(3, 20)), float(rng.uniform(0.3, 3)), 24),
)

# %% [markdown]
# ## 7. What did not reproduce, and what is smaller here
#
# - **Learned delays against random ones.** The paper's statement, that random delays help and
#   learning them helps more, holds for rhythms with jitter, but much of the lead is the width of
#   the Gaussian: section 4 has random delays of the same width for comparison. For spikes that are
#   exactly on time eight neurons with random delays are about as good. Once delays are rounded and
#   the weights tuned, the lead over random single steps with jitter is small, too.
# - **Rounding is not free.** See section 4: small networks need their weights tuned afterwards.
# - **Gaussian against triangle.** With the same schedule the triangle finds fewer of the teacher's
#   delays. Its gradient vanishes outside its base, a Gaussian's never quite does.
# - Smaller: layers of eight neurons instead of 256, hundreds of optimiser steps instead of 150
#   epochs; the layer, its constants and its schedule are those of the released code, but for the
#   share of training over which $\sigma$ narrows (0.5 to 0.6 here, a quarter there).
#
# **Next.** `delays/01_hearing_in_spikes` turns words into spikes, and the network of this notebook
# reads them in `delays/08_reading_spoken_digits`. The kernels behind a delayed layer are explained
# in `kernels/01_how_fast`.

# %%
# NBVAL_CHECK_OUTPUT
summary()
