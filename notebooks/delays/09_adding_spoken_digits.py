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
# # Adding spoken digits: one word must wait for the other
#
# **Question.** Somebody says "three" and then "eight". Whoever wants to answer "eleven" has to keep
# the first word while the second one arrives. How well does a single expressive neuron with slow
# memory do that, how much memory does it need, and is an LSTM any worse?
#
# ![Sums named right by expressive leaky memory neurons of three sizes and by an LSTM, and which
# sums the largest neuron answers](09_adding_spoken_digits.png)
#
# **Reading** 10 minutes. **Running** under a minute on two CPU cores, under 1.5 GB of memory; the
# first time, making the words takes a minute or two more.
#
# **Paper** `elm-neuron`: A. Spieler, N. Rahaman, G. Martius, B. Schölkopf and A. Levina, *The
# Expressive Leaky Memory Neuron: an Efficient and Expressive Phenomenological Neuron Model Can
# Solve Long-Horizon Tasks*, ICLR 2024, [arXiv:2306.16922](https://arxiv.org/abs/2306.16922). The
# neuron itself is the story of `delays/06_expressive_leaky_memory`; the words are those of
# `delays/08_reading_spoken_digits`.
#
# You need to know what an LSTM and a leaky integrator are. Numbers in the text are measured below,
# unless other runs are named; the green cards say which statement was held against which bound.

# %% tags=["parameters"]
seed: int = 0  # of weights, pairs, batches and the voices set aside
word_set: int = 0  # seed of the words; another one has to be spoken and heard first
n_train: int = 80  # utterances of each word by the voices to learn from
n_test: int = 40  # utterances of each word by the held-out voices
n_valid_voices: int = 4  # of the 16 voices to learn from, to choose learning rates by
step: float = 0.03  # length of a step, in seconds
word: float = 0.75  # time that a word is given, in seconds
channels: int = 140  # input channels: 700 of the ear, summed in groups
n_branches: int = 35  # dendritic branches; each collects neighbouring channels
memory_sizes: list[int] = [5, 20, 60]  # memory units of the neurons, d_m
tau_max: float = 3.0  # longest memory time constant, in seconds
learn_tau: bool = False  # whether time constants are learned, too
lam: float = 5.0  # how far an update may move a memory unit
learning_rates: list[float] = [0.01, 0.03]  # peak rates to choose from, for every model
n_steps: int = 360  # of Adam
batch: int = 48  # pairs in a step
n_pairs: int = 2000  # pairs of test words to be measured on

# %%
import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from ipywidgets import FloatSlider, interact
from scipy.stats import binomtest
from torch.func import functional_call
from tqdm.auto import tqdm

from labkit import claim, metric
from labkit.claims import summary
from labkit.data import spoken_digits
from labkit.exercises import check
from labkit.kernels import linear_scan
from labkit.plots import BLUE, GREY, ORANGE, PINK, SKY, house_style
from labkit.spiking import synaptic_operations

PAPER = "elm-neuron"
positive = {
    "n_train": n_train, "n_test": n_test, "n_valid_voices": n_valid_voices, "step": step,
    "n_branches": n_branches, "lam": lam, "n_steps": n_steps, "batch": batch, "n_pairs": n_pairs,
    "every memory size": min(memory_sizes, default=0),
    "every learning rate": min(learning_rates, default=0),
}  # fmt: skip
for name, value in positive.items():
    if value <= 0:
        raise ValueError(f"{name} must be positive, and there must be one: not {value}")
if len(memory_sizes) < 2 or memory_sizes != sorted(set(memory_sizes)):
    raise ValueError(f"memory_sizes must be two or more that ascend, not {memory_sizes}")
if channels < 1 or 700 % channels or channels % n_branches:
    raise ValueError(
        f"channels must divide 700, and n_branches channels: not {channels} and {n_branches}"
    )
if not step < word <= 2:
    raise ValueError(f"word must be longer than a step of {step} s and at most 2 s, not {word}")
if tau_max <= step:
    raise ValueError(f"tau_max must exceed a step of {step} s, not {tau_max}")
if n_train < 16 or n_valid_voices > 15 or word_set < 0:
    raise ValueError(
        f"n_train: at least one of each of 16 voices, not {n_train}; n_valid_voices: at most 15, "
        f"not {n_valid_voices}; word_set: at least 0, not {word_set}"
    )

rng = torch.Generator().manual_seed(seed)
house_style()
# Gradients of fast memory units fade below 1e-38; at that size processors are many times slower.
_ = torch.set_flush_denormal(True)

# %% [markdown]
# ## 1. Two words, one answer
#
# *SHD-Adding* is a task that the paper invented: two spoken digits, heard by a model of the inner
# ear as spikes of 700 nerve fibres, follow each other, and the answer is their sum, 0 to 18. Our
# words are synthetic and English. Three groups of voices never mix: twelve to learn from, four to
# choose learning rates by, and six to be measured on, once, at the end. Both words of a pair come
# from the same group.

# %%
train_set, test_set = (
    spoken_digits(part, languages=("english",), n_per_class=n, seed=word_set)
    for part, n in (("train", n_train), ("test", n_test))
)
voices = np.unique(train_set.speakers)
set_aside = voices[torch.randperm(len(voices), generator=rng)[:n_valid_voices].numpy()]
is_valid = np.isin(train_set.speakers, set_aside)

TAU_B = 0.005  # s, of the traces that spikes leave in a dendrite
kappa_b = math.exp(-step / TAU_B)


def heard(words, chosen=slice(None)):
    """Spikes (steps, N, channels), their traces, and the digits (N,) of the chosen words."""
    x = torch.from_numpy(words.binned(step, channels, word)[chosen]).transpose(0, 1).contiguous()
    return x, linear_scan(kappa_b, x), torch.from_numpy(words.labels[chosen])


GROUPS = {
    "train": heard(train_set, ~is_valid),
    "valid": heard(train_set, is_valid),
    "test": heard(test_set),
}
T = len(GROUPS["train"][0])  # steps of a word
SUMS = 19
for _, s, _ in GROUPS.values():
    s /= GROUPS["train"][0].std()  # of order one, as networks like it


def draw(group, n, generator):
    """n random pairs of words.

    Returns traces (2 T, n, channels), running sums (2, n): first digit, then the answer, and which
    words they are, (2, n). Words end in silence, so one's trace does not reach into the other.
    """
    _, s, digit = GROUPS[group]
    pair = torch.randint(len(digit), (2, n), generator=generator)
    return torch.cat([s[:, pair[0]], s[:, pair[1]]]), digit[pair].cumsum(0), pair


s_valid, y_valid, _ = draw("valid", 600, rng)
s_test, y_test, test_pairs = draw("test", n_pairs, rng)
guess = float(y_test[1].bincount().max() / n_pairs)
for group, (x, _, digit) in GROUPS.items():
    print(f"{group:5}: {len(digit)} words, {x.sum() / len(digit):.0f} spikes each")
print(f"always the same answer: at best {guess:.1%} right")

fig, axes = plt.subplots(1, 3, figsize=(11, 2.9), layout="constrained", width_ratios=[2, 2, 1.3])
for axis, pair in zip(axes[:2], (0, 1)):
    axis.imshow(
        s_test[:, pair].T, aspect="auto", cmap="magma_r", vmax=5, interpolation="nearest",
        extent=(0, 2 * word, channels, 0),
    )  # fmt: skip
    axis.axvline(word, color="black", lw=1, ls=":")
    one, both = y_test[:, pair].tolist()
    axis.set(
        xlabel="time (s)",
        ylabel="channel",
        title=f"“{test_set.keys[one]}”, “{test_set.keys[both - one]}”: {both}",
    )
axes[2].bar(range(SUMS), y_test[1].bincount(minlength=SUMS) / n_pairs * 100, color=GREY)
axes[2].set(xlabel="sum", ylabel="pairs (%)")
plt.show()

# %% [markdown]
# The task is mean to those who listen to half of it. Whoever always says "nine" is right in a tenth
# of all cases. Whoever has understood the second word perfectly and forgotten the first is right in
# a tenth as well: ten sums remain, all equally likely. Anything above that is memory.
#
# ## 2. A neuron with branches
#
# The paper's *branch* version of the ELM neuron, for inputs of hundreds of channels. Neighbouring
# synapses share a branch, and their weighted spikes leave one trace there, $b$. With
# $\kappa = e^{-\Delta t/\tau}$,
#
# $$b_t = \kappa_b\, b_{t-1} + \textstyle\sum_{s} w_s\, x_{s,t}, \qquad
#   \Delta m_t = \mathrm{ctanh}\big(\mathrm{MLP}([\,b_t,\ \kappa_m m_{t-1}\,])\big),$$
#
# $$m_t = \kappa_m\, m_{t-1} + \big(1 - e^{-\lambda \Delta t/\tau_m}\big)\,\Delta m_t, \qquad
#   y_t = W_y\, m_t,$$
#
# where $w_s = \mathrm{ReLU}(\cdot) \ge 0$ starts at 0.5, $\mathrm{ctanh}(x) = 1.7159
# \tanh(\tfrac23 x)$, and the perceptron has one hidden layer of $2 d_m$ rectified units. The factor
# before $\Delta m$ never exceeds one, however small $\tau_m$ is; the first version's
# $\lambda (1 - \kappa_m)$ did. Time constants are log-spaced from a step to $\tau_{\max}$. We chose
# $\tau_{\max}$ with the task in mind: the first word has to outlast the second.
#
# Models that differ only in their learning rate are trained side by side: the first axis of every
# weight below, $M$, counts them.

# %%
branch = torch.arange(channels) // (channels // n_branches)  # neighbours share a branch


def uniform(generator, inputs, *shape):
    """Weights as torch.nn.Linear draws them, from our generator."""
    return (2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(inputs)


def elm_weights(d_m):
    """Initial weights of a branch ELM neuron, drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    inputs, hidden = n_branches + d_m, 2 * d_m
    start = torch.logspace(math.log10(step), math.log10(tau_max), d_m + 2)[1:-1]
    return {
        "w_s": torch.full((1, channels), 0.5),
        "W_b": uniform(generator, inputs, n_branches, hidden),
        "W_m": uniform(generator, inputs, d_m, hidden),
        "b_1": uniform(generator, inputs, 1, hidden),
        "W_2": uniform(generator, hidden, hidden, d_m),
        "b_2": uniform(generator, hidden, 1, d_m),
        "W_y": uniform(generator, d_m, d_m, SUMS),
        "b_y": torch.zeros(1, SUMS),
        "logit_tau": torch.logit((start - step) / (tau_max - step))[None],
    }


def time_constants(theta):
    """tau_m (M, 1, d_m) in seconds, between a step and tau_max."""
    return step + (tau_max - step) * torch.sigmoid(theta["logit_tau"])


def elm(s, theta, asked, keep=None):
    """Answers of M neurons to traces s (time, B, channels).

    Returns what they answer at the steps asked, (M, len(asked), B, 19). `keep` (d_m,), if given,
    multiplies the memory once, after the first of these steps.
    """
    tau_m = time_constants(theta)
    kappa_m, gain = torch.exp(-step / tau_m), 1 - torch.exp(-lam * step / tau_m)
    # Branches are linear, so what they pass on is one matrix, and needs no loop.
    from_synapses = torch.relu(theta["w_s"]).mT * theta["W_b"][:, branch]  # (M, channels, hidden)
    drive = (s.flatten(0, 1) @ from_synapses + theta["b_1"]).unflatten(1, s.shape[:2])
    W_2, b_2 = 2 / 3 * theta["W_2"], 2 / 3 * theta["b_2"]  # the scales of ctanh, out of the loop
    gain = 1.7159 * gain
    m = s.new_zeros(len(drive), s.shape[1], tau_m.shape[-1])
    memories = {}
    for t, drive_t in enumerate(drive.unbind(1)):
        kept = kappa_m * m
        h = torch.relu(torch.baddbmm(drive_t, kept, theta["W_m"]))
        m = torch.addcmul(kept, gain, torch.tanh(torch.baddbmm(b_2, h, W_2)))
        if t in asked:
            memories[t] = m
        if keep is not None and t == asked[0]:
            m = m * keep
    m = torch.cat([memories[t] for t in asked], 1)
    return torch.baddbmm(theta["b_y"], m, theta["W_y"]).unflatten(1, (len(asked), -1))


# %% [markdown]
# **The rivals** are LSTMs with as many parameters as the largest neuron. It is easy to win against
# a weak rival, so they have help: their forget gates start with time scales spread over the length
# of the task ("chrono" initialisation, the paper's choice as well). One hears all channels, as the
# neuron does. Each of its units has four gates, and each gate reads every channel: few units can be
# afforded. The other is given what the neuron's branches have, sums over the same neighbours
# (divided by their number, so that its inputs stay of order one). That buys it almost twice as many
# units.


# %%
def lstm_weights(H, inputs):
    """Initial weights of torch.nn.LSTM with H units, one bias of its two, and of the readout."""
    generator = torch.Generator().manual_seed(seed)
    bias = torch.zeros(4, H)  # gates in the order in, forget, new value, out
    bias[1] = torch.log(1 + (2 * T - 2) * torch.rand(H, generator=generator))
    bias[0] = -bias[1]
    return {
        "weight_ih_l0": uniform(generator, H, 4 * H, inputs),
        "weight_hh_l0": uniform(generator, H, 4 * H, H),
        "bias_ih_l0": bias.flatten(),
        "W_y": uniform(generator, H, H, SUMS),
        "b_y": torch.zeros(1, SUMS),
    }


def lstm(s, theta, asked):
    """Answers of M LSTMs, as `elm`."""
    M, four_H, inputs = theta["weight_ih_l0"].shape
    s = s.unflatten(2, (inputs, -1)).mean(3)
    net = torch.nn.LSTM(inputs, four_H // 4, device="meta")  # holds no weights of its own
    h = []
    for model in range(M):
        weights = {name: w[model] for name, w in theta.items() if name.endswith("_l0")}
        weights["bias_hh_l0"] = torch.zeros(four_H)
        h.append(functional_call(net, weights, s)[0][list(asked)].flatten(0, 1))
    return torch.baddbmm(theta["b_y"], torch.stack(h), theta["W_y"]).unflatten(1, (len(asked), -1))


def units_for(parameters, inputs):
    """Units of the LSTM whose 4 H (inputs + H + 1) + 19 (H + 1) parameters are nearest."""
    b = 4 * (inputs + 1) + SUMS
    return max(1, round((math.sqrt(b**2 + 16 * (parameters - SUMS)) - b) / 8))


def size(weights):
    """Number of trained parameters."""
    return sum(w.numel() for name, w in weights.items() if learn_tau or name != "logit_tau")


WEIGHTS = {f"ELM, {d} units": elm_weights(d) for d in memory_sizes}
ELMS = list(WEIGHTS)
ELM = ELMS[-1]
LSTMS = ["LSTM", "LSTM on sums"]
for name, inputs in zip(LSTMS, (channels, n_branches)):
    WEIGHTS[name] = lstm_weights(units_for(size(WEIGHTS[ELM]), inputs), inputs)
MODEL = dict.fromkeys(ELMS, elm) | dict.fromkeys(LSTMS, lstm)
for name, weights in WEIGHTS.items():
    print(f"{name:13} {size(weights):6} parameters, {len(weights['W_y']):3} units")

# %% [markdown]
# ## 3. Learning to add
#
# All models learn alike: Adam with a one-cycle rate, the gradient of each model clipped to length
# one, the same fresh pairs at every step, and the cross-entropy of a *running sum*: after the first
# word the answer is its digit, after the second the sum. (In the paper only the sum is asked for.
# With our few hundred steps that is too little to go by, for any of the models.) Each is trained
# with every learning rate of the list; that which gets most sums right for the voices set aside is
# kept.

# %%
ENDS = (T - 1, 2 * T - 1)  # last steps of the two words


def stacked(models):
    return {name: torch.stack([m[name] for m in models]) for name in models[0]}


def right(model, theta, s, y, asked=ENDS, **options):
    """Which running sums are right: bool (M, 2, B)."""
    with torch.no_grad():
        parts = [model(part, theta, asked, **options).argmax(-1) for part in s.split(500, dim=1)]
    return torch.cat(parts, 2) == y


def train(name):
    """Weights (M = 1) with the best learning rate, that rate, and the losses (n_steps, 2)."""
    models = [{k: w.clone().requires_grad_() for k, w in WEIGHTS[name].items()}
              for _ in learning_rates]  # fmt: skip
    for weights in models:
        if "logit_tau" in weights:
            weights["logit_tau"].requires_grad_(learn_tau)
    learned = [[w for w in weights.values() if w.requires_grad] for weights in models]
    optimiser = torch.optim.Adam(
        [{"params": ws, "lr": rate} for ws, rate in zip(learned, learning_rates)], fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rates, total_steps=n_steps + 1, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in tqdm(range(n_steps), desc=name, leave=False):
        s, y, _ = draw("train", batch, generator)
        answers = MODEL[name](s, stacked(models), ENDS)
        loss = F.cross_entropy(
            answers.movedim(3, 1), y.expand(len(models), 2, batch), reduction="none"
        ).mean(2)
        optimiser.zero_grad()
        loss.sum().backward()  # the models share nothing, so each gets its own gradient
        for ws in learned:
            torch.nn.utils.clip_grad_norm_(ws, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
    theta = {k: w.detach() for k, w in stacked(models).items()}
    valid = right(MODEL[name], theta, s_valid, y_valid)[:, 1].float().mean(1)
    best = int(valid.argmax())
    print(
        f"{name:14} right for the voices set aside:",
        ", ".join(f"{v:.1%} at rate {rate:g}" for v, rate in zip(valid, learning_rates)),
    )
    chosen = {k: w[best : best + 1] for k, w in theta.items()}
    return chosen, learning_rates[best], torch.stack(losses)[:, best]


trained = {name: train(name) for name in WEIGHTS}
theta = {name: weights for name, (weights, _, _) in trained.items()}


# %%
def answers(name, s):
    """Running sums that a trained model answers after each of the words: (2, B)."""
    with torch.no_grad():
        parts = [MODEL[name](part, theta[name], ENDS)[0] for part in s.split(500, dim=1)]
    return torch.cat(parts, 1).argmax(-1)


def interval(found):
    """Wilson's 95 % interval of a share, in percent."""
    ci = binomtest(int(found.sum()), len(found)).proportion_ci(method="wilson")
    return 100 * ci.low, 100 * ci.high


s_known, y_known, _ = draw("train", 600, rng)
found = {name: answers(name, s_test) == y_test for name in WEIGHTS}
first_word = {name: float(hits[0].float().mean()) for name, hits in found.items()}
accuracy = {name: float(hits[1].float().mean()) for name, hits in found.items()}
known = {name: float((answers(name, s_known) == y_known)[1].float().mean()) for name in WEIGHTS}
nothing_kept = right(elm, theta[ELM], s_test, y_test, keep=torch.zeros(memory_sizes[-1]))
forgetful = float(nothing_kept[0, 1].float().mean())

print("                   first word    sum   sum, voices of training")
for name in WEIGHTS:
    print(f"{name:16} {first_word[name]:12.1%} {accuracy[name]:6.1%} {known[name]:8.1%}")
    metric(f"accuracy, {name}", accuracy[name])
    metric(f"accuracy on the first word, {name}", first_word[name])
print(f"{ELM}, its memory erased between the words: {forgetful:.1%}")

# %% tags=["cover"]
fig, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", width_ratios=[1.5, 1])
colours = dict.fromkeys(ELMS, BLUE) | dict.fromkeys(LSTMS, ORANGE)
for row, name in enumerate(WEIGHTS):
    value = 100 * accuracy[name]
    low, high = interval(found[name][1])
    axes[0].barh(row, value, color=colours[name], alpha=0.85)
    axes[0].errorbar(value, row, xerr=[[value - low], [high - value]], color="black", lw=1.5)
    axes[0].plot(100 * first_word[name], row, "|", color=colours[name], ms=18, mew=2)
    axes[0].text(high + 1, row, f"{value:.0f} %", va="center")
axes[0].axvline(10, color="black", lw=1, ls=":")
axes[0].text(11, len(WEIGHTS) - 0.35, "one word only", fontsize=9)
axes[0].set_yticks(
    range(len(WEIGHTS)), [f"{name}\n{size(w):,} parameters" for name, w in WEIGHTS.items()]
)
axes[0].set(
    xlabel="sums right, pairs of unknown voices (%); ticks: first words right",
    xlim=(0, 100),
    ylim=(len(WEIGHTS) - 0.2, -0.6),
)
told = torch.zeros(SUMS, SUMS)
told.index_put_((y_test[1], answers(ELM, s_test)[1]), torch.ones(n_pairs), accumulate=True)
image = axes[1].imshow(
    100 * told / told.sum(1, keepdim=True).clamp(min=1), cmap="Blues", vmin=0, vmax=100,
    origin="lower",
)  # fmt: skip
fig.colorbar(image, ax=axes[1], label="answers (%)")
axes[1].set(xlabel="sum that is answered", ylabel="sum of the words", title=ELM)
axes[1].set(xticks=range(0, SUMS, 3), yticks=range(0, SUMS, 3))
plt.show()

# %%
smallest_gain = min(accuracy[b] - accuracy[a] for a, b in pairwise(ELMS))
claim(
    PAPER,
    "sums of unknown voices: largest ELM neuron above the same neuron with its memory erased "
    "between the words",
    100 * (accuracy[ELM] - forgetful),
    at_least=20,
    unit="points",
)
claim(
    PAPER,
    "sums of unknown voices: smallest gain from one memory size to the next larger one",
    100 * smallest_gain,
    at_least=1,
    unit="points",
)
claim(
    PAPER,
    "sums of unknown voices: largest ELM neuron above an LSTM of as many parameters that hears "
    "the same channels",
    100 * (accuracy[ELM] - accuracy["LSTM"]),
    at_least=3,
    unit="points",
)
metric("ELM above the LSTM on sums, points", 100 * (accuracy[ELM] - accuracy["LSTM on sums"]))

# %% [markdown]
# Three things to take from this.
#
# **Memory is what counts.** Five units can tell some words apart and cannot add. Twenty can, and
# sixty do it better. The same large neuron whose memory is erased between the words falls back to
# the level of those who hear one word only.
#
# **The LSTM stumbles over its input.** With all channels and as many parameters it is far behind
# the neuron. On sums over neighbours it is level, somewhat better in one run and somewhat worse in
# the next. So the neuron's lead is in what it does with many inputs, not in how it remembers.
#
# **Hearing is not adding.** The ticks show how many first words are recognised. If both words were
# heard as well as that and then added without a fault, many more sums would be right. The third
# exercise works out how many.
#
# ## 4. Where the first word is kept
#
# The time constants of the neuron spread over two decades. Which memory units carry the first word
# across the second? We erase some of them, once, in the moment between the two words: the fastest
# ones first, or the slowest ones first. The neuron is not trained for that.

# %%
tau_m = time_constants(theta[ELM]).flatten()
by_speed = tau_m.argsort()
d_m = memory_sizes[-1]
erased = np.unique(np.linspace(0, d_m, 9).round().astype(int))


def without(units):
    """Share of sums right, of 600 pairs, when these memory units are erased between the words."""
    keep = torch.ones(d_m)
    keep[units] = 0
    return float(right(elm, theta[ELM], s_test[:, :600], y_test[:, :600], keep=keep)[0, 1]
                 .float().mean())  # fmt: skip


lesions = {
    "fastest first": [without(by_speed[:n]) for n in erased],
    "slowest first": [without(by_speed[d_m - n :]) for n in erased],
}
half = d_m // 2
slow, fast = without(by_speed[d_m - half :]), without(by_speed[:half])

PAUSES = (0.0, 0.3, 0.6, 0.9, 1.2)  # s


def paused(s, pause):
    """Pairs with so many seconds of silence between the words, and the steps to ask at."""
    silence = torch.zeros(round(pause / step), *s.shape[1:])
    return torch.cat([s[:T], silence, s[T:]]), (T - 1, 2 * T - 1 + len(silence))


def after_pause(name, pause):
    s, asked = paused(s_test[:, :600], pause)
    return float(right(MODEL[name], theta[name], s, y_test[:, :600], asked)[0, 1].float().mean())


waited = {name: [after_pause(name, pause) for pause in PAUSES] for name in (ELM, *LSTMS)}

fig, axes = plt.subplots(1, 2, figsize=(11, 3.3), layout="constrained", sharey=True)
for (order, values), colour, style in zip(lesions.items(), (SKY, PINK), ("o-", "s-")):
    axes[0].plot(erased, 100 * np.array(values), style, c=colour, label=order)
axes[0].set(xlabel="memory units erased between the words", ylabel="sums right (%)", title=ELM)
looks = {ELM: (BLUE, "o-"), "LSTM": (ORANGE, "s:"), "LSTM on sums": (ORANGE, "s-")}
for name, (colour, line) in looks.items():
    axes[1].plot(PAUSES, 100 * np.array(waited[name]), line, c=colour, label=name)
axes[1].set(xlabel="silence between the words (s)", title="longer than ever heard", ylim=(0, 70))
for axis in axes:
    axis.axhline(10, color="black", lw=1, ls=":")
    axis.legend()
plt.show()

claim(
    PAPER,
    "sums lost when the slower half of the memory is erased between the words, more than are lost "
    "with the faster half",
    100 * (fast - slow),
    at_least=15,
    unit="points",
)
for name in looks:
    metric(f"accuracy after a pause of {PAUSES[2]} s, {name}", waited[name][2])

# %% [markdown]
# The first word is in the slow units. A fast one has forgotten by itself what we take from it.
# (Dotted: the level of those who hear one word only.)
#
# On the right, the words are as they were, with silence between them that no model has met in
# training. Nobody waits well, and the LSTM on sums waits better than the neuron: an LSTM can learn
# to close its gates in silence, while the neuron's memory leaks at its fixed rates.
#
# What the neuron would answer can be watched at every moment; the darker, the surer. The dashed
# lines are the right answers. The pair is the first that it gets right without a pause; with 0.6 s
# of silence between the words, as drawn below, it gets it wrong. Move the pause.


# %%
solved = int(found[ELM].all(0).int().argmax())  # a pair that the neuron gets right


def listen(pause=0.0, pair=solved):
    """Show how sure the neuron is of every sum at every moment of a pair."""
    s, _ = paused(s_test[:, [pair]], pause)
    with torch.no_grad():
        sure = elm(s, theta[ELM], range(len(s)))[0, :, 0].softmax(-1)
    one, both = y_test[:, pair].tolist()
    fig, axes = plt.subplots(
        2, 1, figsize=(9, 4.2), sharex=True, layout="constrained", height_ratios=[1, 1.6]
    )
    end = len(s) * step
    axes[0].imshow(
        s[:, 0].T, aspect="auto", cmap="magma_r", vmax=5, extent=(0, end, channels, 0),
        interpolation="nearest",
    )  # fmt: skip
    axes[0].set(ylabel="channel")
    image = axes[1].imshow(
        sure.T, aspect="auto", cmap="Blues", vmin=0, vmax=1, origin="lower",
        extent=(0, end, -0.5, SUMS - 0.5), interpolation="nearest",
    )  # fmt: skip
    for start, stop, value in ((0, word, one), (word + pause, end, both)):
        axes[1].plot([start, stop], [value, value], c=ORANGE, lw=1, ls="--")
    axes[1].set(xlabel="time (s)", ylabel="running sum", yticks=range(0, SUMS, 3))
    fig.colorbar(image, ax=axes[1], label="probability")
    fig.suptitle(f"“{test_set.keys[one]}”, then “{test_set.keys[both - one]}”: {both}")
    plt.show()


_ = interact(
    lambda pause: listen(pause),
    pause=FloatSlider(0.0, min=0, max=1.2, step=0.15, continuous_update=False),
)

# %%
listen(0.6)

# %% [markdown]
# ## 5. What a sum costs
#
# A spike needs an addition for every synapse that it reaches; a dense layer, a multiplication for
# every weight at every step. The neuron's spikes reach one synapse each, on a branch; what follows
# is a dense perceptron at every step. In the LSTM that hears all channels each spike reaches four
# gates of each unit. (Where training has set $w_s = 0$ there is no synapse left, and no addition.)

# %%
spikes, (first, second) = GROUPS["test"][0], test_pairs
x_test = torch.cat([spikes[:, first[:200]], spikes[:, second[:200]]])
to_branches = F.one_hot(branch, n_branches).T * torch.relu(theta[ELM]["w_s"][0, 0])
hidden = 2 * d_m
H, H_sums = (len(WEIGHTS[name]["W_y"]) for name in LSTMS)
costs = {
    ELM: (
        synaptic_operations(x_test, to_branches),
        hidden * (n_branches + d_m) + d_m * hidden,
    ),
    "LSTM": (synaptic_operations(x_test, theta["LSTM"]["weight_ih_l0"][0]), 4 * H * H),
    "LSTM on sums": (
        synaptic_operations(x_test, F.one_hot(branch, n_branches).T),
        4 * H_sums * (n_branches + H_sums),
    ),
}
print(f"{'':14} additions for spikes   multiplications, {2 * T} steps")
for name, (additions, dense) in costs.items():
    print(f"{name:14} {additions:20,.0f}   {2 * T * dense:27,}")
    metric(f"additions for input spikes a pair, {name}", additions)

# %% [markdown]
# ## 6. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: a dendrite with branches
#
# Given spikes `x` of shape `(T, channels)`, raw weights `w` of shape `(channels,)`, the number
# `kappa` and the number of branches, return the branch traces $b$, shape `(T, branches)`. Weights
# below zero count as zero. Neighbouring channels share a branch, equally many each.
#
# <details><summary>Hint</summary>
#
# `(np.maximum(w, 0) * x).reshape(T, branches, -1).sum(2)` is what arrives at each step.
#
# </details>


# %% tags=["exercise"]
def branch_traces(x, w, kappa, branches):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def branch_traces_solution(x, w, kappa, branches):
    arriving = (np.maximum(w, 0) * x).reshape(len(x), branches, -1).sum(2)
    b = np.zeros_like(arriving)
    for t in range(len(x)):
        b[t] = arriving[t] + (kappa * b[t - 1] if t else 0)
    return b


# %% tags=["check"]
check(
    branch_traces,
    branch_traces_solution,
    lambda rng: (rng.poisson(0.5, (8, 12)).astype(float), rng.standard_normal(12), 0.6, 4),
)

# %% [markdown]
# ### Exercise 2: a rival of equal size
#
# How many parameters does an LSTM of `H` units have that hears `inputs` numbers and chooses among
# `classes` answers? Four gates, each with weights for the input and for the $H$ states and with one
# bias; then a linear readout with a bias. How does the number grow with `H`, and how with `inputs`?
#
# <details><summary>Hint</summary>
#
# A gate has $H$ rows of `inputs + H + 1` numbers.
#
# </details>


# %% tags=["exercise"]
def lstm_size(H, inputs, classes):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def lstm_size_solution(H, inputs, classes):
    return 4 * H * (inputs + H + 1) + classes * (H + 1)


# %% tags=["check"]
check(lstm_size, lstm_size_solution, lambda rng: tuple(int(n) for n in rng.integers(2, 200, 3)))

# %% [markdown]
# ### Exercise 3: if it could add
#
# Let `C[d, a]` be the probability that digit `d` is heard as `a`. Both digits of a pair are heard
# independently and added without a fault. What share of sums comes out right, if all pairs of
# digits are equally likely? Count lucky cases, too: a 3 heard as a 4, and an 8 as a 7.
#
# <details><summary>Hint</summary>
#
# The sum of two independent numbers has the convolution of their distributions:
# `np.convolve(C[i], C[j])[i + j]`.
#
# </details>


# %% tags=["exercise"]
def perfect_adder(C):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def perfect_adder_solution(C):
    n = len(C)
    return np.mean([np.convolve(C[i], C[j])[i + j] for i in range(n) for j in range(n)])


# %% tags=["check"]
check(perfect_adder, perfect_adder_solution, lambda rng: (rng.dirichlet(np.full(10, 0.2), 10),))

# %%
for name in WEIGHTS:
    heard_as = np.zeros((10, SUMS))
    np.add.at(heard_as, (y_test[0].numpy(), answers(name, s_test)[0].numpy()), 1)
    could = perfect_adder_solution(heard_as / heard_as.sum(1, keepdims=True).clip(min=1))
    print(f"{name:14} {accuracy[name]:6.1%} of sums right, {could:6.1%} if it could add")
    metric(f"accuracy of a perfect adder with the ears of {name}", could)

# %% [markdown]
# ## 7. What did not reproduce, and what is smaller here
#
# - **Half of the claim holds.** At equal parameters the neuron beats an LSTM on the same channels
#   by far more than the 3 points that we looked for. It does not beat one that is handed sums over
#   neighbours: at seeds 0 to 9 the difference was between −5 and +10 points, +3 on average. The
#   sharing of branches is not the whole story, though. With a branch for every channel
#   (`n_branches = 140`, which makes both LSTMs the same) the neuron was ahead as well, 45 % to
#   32 %, at the one seed tried.
# - **Finer steps** are where the paper's LSTM falls behind, and we saw a trace of it: with 10 ms
#   instead of 30 ms, at seed 0, the neuron went from 46 % to 44 %, and the LSTM on sums from 47 %
#   to 37 %. It takes three times as long (`step = 0.01`).
# - **More memory is better** at each of these seeds, by 6 points or more from one size to the next.
# - **The running sum.** The paper asks for the sum alone, at the last step. So did we at first: in
#   an early trial a neuron of 20 units got 17 % of sums right, against 27 % with the running sum,
#   after as many steps. All models here have the same help. The paper also leaves out half of the
#   input spikes in training; we do not.
# - **One run is noisy.** The intervals in the figure are Wilson's, for so many independent pairs.
#   But pairs share 400 words, and the order of floating-point operations alone moves a
#   model's accuracy by several points. Claims have room for that.
#
# Smaller than in the paper: synthetic English words instead of recordings in two languages, 140
# channels instead of 700, 60 memory units instead of 100, steps of 30 ms, and a few hundred steps
# of Adam, which ends before the models have learned all they can. Rates above 0.03 were worse for
# the LSTMs where we tried. Both words have a place of fixed length, as in the paper, so that the
# silence after a word is part of what is learned.
#
# **Next.** Tallec and Ollivier, *Can recurrent neural networks warp time?* (ICLR 2018), for the
# initialisation of the rivals; Cramer et al. (2022) for the spoken digits that the paper adds up;
# and `delays/02_learning_delays`, where a word's past waits in the axon instead of the soma.

# %%
# NBVAL_CHECK_OUTPUT
summary()
