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
# # Denoising with spikes
#
# **Question.** A diffusion model is a network that guesses noise, a real number for each pixel. Can
# its neurons do with four moments in time, at each of which they fire or do not?
#
# ![A noisy digit, the spikes it causes at four steps, and the digit made of them; beside it error
# and energy of the spiking network and of an ordinary one](10_denoising_with_spikes.png)
#
# **Reading** 15 minutes. **Running** under a minute on two CPU cores, under 1 GB of memory.
#
# **Paper** `spiking-diffusion-models`: J. Cao, H. Guo, Z. Wang, D. Zhou, H. Cheng, Q. Zhang and
# R. Xu, *Spiking diffusion models*, 2024, [arXiv:2408.16467](https://arxiv.org/abs/2408.16467).
#
# You need to know what a denoiser is, and that sampling is denoising in small steps. Numbers in the
# text are measured below, unless other runs are named; the green cards say which statement was held
# against which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
width: int = 8  # channels at full resolution; twice as many at half, four times at a quarter
T_s: int = 4  # steps of the spiking network, in each of which a neuron fires or does not
train_steps: int = 120  # mini-batches of every network
extra: float = 0.2  # further training, with and without TSM, as a share of train_steps
batch_size: int = 48  # images per step
lr: float = 0.03  # highest learning rate; a quarter of it in the further training
n_models: int = 3  # spiking networks, each from its own weights and draws, at most 10
n_eval: int = 100  # held-out images that measure the error, 20 to 597
n_levels: int = 8  # noise levels at which it is measured, equally spaced in t
thresholds: list[float] = [0.8, 0.9, 1.0, 1.1, 1.2]  # of threshold guidance, 1 among them
n_samples: int = 128  # digits drawn to judge a sampler, 64 to 800
ddim_steps: int = 20  # evaluations of the network per drawn digit

# %%
import math
from collections import defaultdict
from contextlib import contextmanager
from copy import deepcopy
from timeit import timeit

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from ipywidgets import FloatSlider, interact
from torch import nn

from labkit import claim, metric
from labkit.claims import summary
from labkit.diffusion import (
    NetworkDenoiser,
    TinyUNet,
    denoising_loss,
    digit_images,
    energy_distance,
    generate,
    linear_beta,
    train,
)
from labkit.diffusion.networks import CONDITIONING, Conditioning
from labkit.exercises import check
from labkit.kernels import lif_scan
from labkit.plots import BLACK, BLUE, GREY, ORANGE, SKY, house_style
from labkit.seeding import seeded, streams
from labkit.spiking import synaptic_operations

PAPER = "spiking-diffusion-models"
MAC, AC = 4.6, 0.9  # pJ: multiply and add, or add alone, of float32 in 45 nm (Horowitz 2014)
KAPPA = 10  # how much faster than a weight the scalars of TSM learn

counts = {
    "width": width, "T_s": T_s, "train_steps": train_steps, "batch_size": batch_size,
    "n_models": n_models, "n_levels": n_levels, "ddim_steps": ddim_steps,
}  # fmt: skip
for name, value in counts.items():
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
if T_s < 2 or batch_size < 2:
    raise ValueError(f"T_s and batch_size must be at least 2, not {T_s} and {batch_size}")
if not 0 < extra <= 1 or round(extra * train_steps) < 1:
    raise ValueError(f"extra must be above 0, at most 1, and make a step or more, not {extra}")
if not 0 < lr < 1:
    raise ValueError(f"lr must be above 0 and below 1, not {lr}")
if not 20 <= n_eval <= 597 or not 64 <= n_samples <= 800 or max(n_levels, ddim_steps) > 1000:
    raise ValueError(
        "need n_eval from 20 to 597, n_samples from 64 to 800, n_levels and ddim_steps up to 1000, "
        f"not {n_eval}, {n_samples}, {n_levels} and {ddim_steps}"
    )
if len(thresholds) < 3 or min(thresholds) <= 0 or 1 not in thresholds[1:-1]:
    raise ValueError(f"thresholds: three or more above 0, with 1 between others, not {thresholds}")
if thresholds != sorted(set(thresholds)):
    raise ValueError(f"thresholds must rise, not {thresholds}")
if n_models > 10:
    raise ValueError(f"n_models must be at most 10, for draws of their own, not {n_models}")
house_style()
torch.set_num_threads(1)  # layers are small: a second thread costs about what it saves

draws = streams(seed)  # a generator of its own for each use: no experiment shifts another's draws


# %% [markdown]
# ## 1. A neuron that adds up and fires
#
# The integrate-and-fire (IF) neuron has one number, its membrane potential $v$. At each of $T_s$
# steps it adds its input current $x_s$, fires if the threshold $V_{th}$ is reached, and pays for
# the spike with $V_{th}$ (a *soft* reset):
#
# $$h_s = v_{s-1} + x_s, \qquad S_s = \Theta(h_s - V_{th}), \qquad v_s = h_s - V_{th} S_s .$$
#
# The step $\Theta$ has no useful derivative. Training takes that of an arctangent instead,
# $\Theta'(u) \approx 1 / (1 + (\pi u)^2)$, the ATan *surrogate*. With $g_s$ the gradient that comes
# back to spike $S_s$, the gradient of $h_s$, and so of $x_s$, follows from the last step to the
# first:
#
# $$\delta_s = \big(g_s - V_{th}\, \delta_{s+1}\big)\, \Theta'(h_s - V_{th}) + \delta_{s+1} .$$


# %%
class IntegrateAndFire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, V_th):
        h, S = torch.empty_like(x), torch.empty_like(x)
        v = torch.zeros_like(x[0])
        for s in range(len(x)):
            torch.add(v, x[s], out=h[s])
            torch.ge(h[s], V_th, out=S[s])
            v = h[s] - V_th * S[s]
        ctx.save_for_backward(h)
        ctx.V_th = V_th
        return S

    @staticmethod
    def backward(ctx, g):
        (h,) = ctx.saved_tensors
        surrogate = (h - ctx.V_th).mul_(math.pi).square_().add_(1).reciprocal_()
        delta = torch.empty_like(h)
        delta[-1] = g[-1] * surrogate[-1]
        for s in range(len(h) - 2, -1, -1):
            from_spike = torch.sub(g[s], delta[s + 1], alpha=ctx.V_th)
            torch.addcmul(delta[s + 1], from_spike, surrogate[s], out=delta[s])
        return delta, None


x = torch.randn((T_s, 64, width, 8, 8), generator=draws(1)).requires_grad_()
g = torch.randn(x.shape, generator=draws(2))
spikes, gradients, milliseconds = [], [], []
for fire in (lambda x: IntegrateAndFire.apply(x, 1.0), lambda x: lif_scan(x, decay=1.0)):
    spikes.append(fire(x))
    gradients.append(torch.autograd.grad(spikes[-1], x, g)[0])
    once = lambda fire=fire: torch.autograd.grad(fire(x), x, g)  # noqa: E731
    milliseconds.append(1e3 * min(timeit(once, number=1) for _ in range(20)))
torch.testing.assert_close(spikes[0], spikes[1], rtol=0, atol=0)
torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)
print("the library and the equation agree")
print(f"there and back, for {T_s} steps: {milliseconds[0]:.2f} ms here, {milliseconds[1]:.2f} ms")

# %% [markdown]
# A neuron with a constant input counts: in four steps it can say one of five numbers, as the
# staircase below shows. That is all that one neuron tells the next about a real number.

# %%
currents = torch.linspace(-0.4, 1.6, 801)
fired = IntegrateAndFire.apply(currents.expand(T_s, -1).contiguous(), 1.0)
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for current, colour in ((0.3, SKY), (0.45, BLUE), (0.7, ORANGE)):
    v, path = 0.0, [(0, 0.0)]
    for s in range(1, T_s + 1):
        v += current
        path += [(s, v)]
        if v >= 1:
            axes[0].plot(s, v, "*", ms=11, color=colour)
            v -= 1
            path += [(s, v)]
    axes[0].plot(*zip(*path), color=colour, label=f"current {current}")
axes[0].axhline(1, color=BLACK, lw=0.8, ls=":")
axes[0].set(xlabel="step s", ylabel="potential v (of $V_{th}$)", xticks=range(T_s + 1))
axes[0].set(xlim=(-0.1, T_s + 0.1), ylim=(-0.05, 1.85))
axes[0].legend(ncols=3, fontsize=8.5, loc="upper left", columnspacing=1)
axes[1].plot(currents, currents.clamp(0, 1), color=GREY, label="clipped line")
axes[1].plot(currents, fired.mean(0), color=ORANGE, label=f"IF, {T_s} steps")
axes[1].set(xlabel="current (of $V_{th}$)", ylabel="spikes per step", xticks=[0, 0.5, 1, 1.5])
axes[1].legend(loc="upper left")
plt.show()

# %% [markdown]
# ## 2. A U-Net of spikes
#
# Every layer below is **spike, then convolve, then normalise**. A *pre-spike* residual block takes
# two of these and adds its input, between them the embedding of the noise level; sums are currents,
# real numbers, and meet a neuron before the next convolution. So a convolution of spikes needs no
# multiplication: it adds the weights of those that fired.
#
# The image enters as a constant current, the same at each step (*direct encoding*): the first
# convolution sees real numbers, and has to be computed only once. The output is the current of the
# last layer, later steps counting more: $\sum_s 0.8^{\,T_s - 1 - s} h_s$ with $s$ from 0.
#
# **TSM**, the temporal-wise spiking mechanism, lets a synapse change over the steps: the output of
# a convolution is multiplied by a learned scalar $p_s$, one for each layer and step, that starts
# at 1. We write $p_s = 1 + 10 q_s$ and learn $q_s$, so that Adam moves $p_s$ ten times as fast as
# a weight: the further training is short.


# %%
class IF(nn.Module):
    def __init__(self):
        super().__init__()
        self.V_th = 1.0

    def forward(self, x):
        return IntegrateAndFire.apply(x, self.V_th)


class Layer(nn.Module):
    """Spike, convolve, scale by p_s, normalise: (T_s, B, C, H, W) -> (T_s, B, C', H', W')."""

    def __init__(self, activation, convolution, T_s, norm=True):
        super().__init__()
        self.activation, self.convolution = activation(), convolution
        self.norm = nn.BatchNorm2d(convolution.out_channels) if norm else nn.Identity()
        self.q = nn.Parameter(torch.zeros(T_s), requires_grad=False)

    @property
    def p(self):
        return 1 + KAPPA * self.q

    def forward(self, x):
        spikes = self.activation(x).flatten(0, 1)
        return self.after(self.convolution(spikes).unflatten(0, x.shape[:2]))

    def after(self, y):
        if self.q.requires_grad:  # TSM
            y = y * self.p[:, None, None, None, None]
        return self.norm(y.flatten(0, 1)).unflatten(0, y.shape[:2])


class Block(nn.Module):
    def __init__(self, activation, C, T_s):
        super().__init__()
        convolutions = [nn.Conv2d(C, C, 3, padding=1, bias=False) for _ in range(2)]
        self.first, self.second = (Layer(activation, conv, T_s) for conv in convolutions)
        self.embedding = nn.Linear(CONDITIONING, C)

    def forward(self, x, c):
        return x + self.second(self.first(x) + self.embedding(c)[:, :, None, None])


class SpikingUNet(nn.Module):
    """Guesses the noise in images (B, 1, 8, 8); with another activation and T_s = 1, an ANN."""

    def __init__(self, activation, T_s, generator, C=width):
        super().__init__()

        def resize(kind, C_in, C_out):  # by a factor of two
            return Layer(activation, kind(C_in, C_out, 2, stride=2, bias=False), T_s)

        with seeded(generator):
            self.conditioning = Conditioning(None, noise_conditioning=True)
            self.encoder = Layer(nn.Identity, nn.Conv2d(1, C, 3, padding=1, bias=False), T_s)
            self.to_half = resize(nn.Conv2d, C, 2 * C)
            self.down = Block(activation, 2 * C, T_s)
            self.to_quarter = resize(nn.Conv2d, 2 * C, 4 * C)
            self.middle = Block(activation, 4 * C, T_s)
            self.from_quarter = resize(nn.ConvTranspose2d, 4 * C, 2 * C)
            self.up = Block(activation, 2 * C, T_s)
            self.from_half = resize(nn.ConvTranspose2d, 2 * C, C)
            self.last = Layer(activation, nn.Conv2d(C, 1, 3, padding=1), T_s, norm=False)
        self.register_buffer("smoothing", 0.8 ** torch.arange(T_s - 1, -1, -1.0))
        self.to(memory_format=torch.channels_last)

    def forward(self, x, logsnr, label=None):
        c = self.conditioning(logsnr, label)
        current = self.encoder.convolution(x)
        full = self.encoder.after(current.expand(len(self.smoothing), *current.shape))
        half = self.down(self.to_half(full), c)
        quarter = self.middle(self.to_quarter(half), c)
        half = self.up(half + self.from_quarter(quarter), c)
        full = full + self.from_half(half)
        return torch.einsum("s,sbchw->bchw", self.smoothing, self.last(full))


# %% [markdown]
# The opponent has the same plan, width, normalisation and training, with SiLU in the place of the
# neurons and one step. The noise has 1000 levels with $\beta$ from $10^{-4}$ to 0.02, and the loss
# is the squared error of the guessed noise, as in the paper. A second opponent is the suite's own
# small U-Net with group norm, which learns faster.

# %%
(images, _), (held_out, _) = digit_images(generator=draws(3))
schedule = linear_beta(1e-4, 0.02, 1000)
t = (torch.arange(n_levels) + 0.5) / n_levels
levels = schedule(t)
judges = held_out[:n_eval]


def fit(network, stream):
    net = NetworkDenoiser(network, "eps")
    train(
        net, images, steps=train_steps, levels=schedule, batch_size=batch_size, lr=lr,
        generator=draws(stream),
    )  # fmt: skip
    return net


def eps_mse(net):
    """Held-out squared error of the guessed noise at each level; the same noise for all nets."""
    alpha, sigma = levels
    return denoising_loss(net, judges, levels, generator=draws(4)) * (alpha / sigma) ** 2


ann = fit(SpikingUNet(nn.SiLU, 1, draws(10)), 20)
strong_ann = fit(TinyUNet(width, generator=draws(10)), 20)
snns = [fit(SpikingUNet(IF, T_s, draws(10 + m)), 20 + m) for m in range(n_models)]
error = {"ANN": eps_mse(ann), "group-norm ANN": eps_mse(strong_ann)}
error["SNN"] = torch.stack([eps_mse(net) for net in snns])
for name, value in error.items():
    print(f"{name:15} eps-MSE {value.mean():.4f}")

# %% [markdown]
# **The trap.** One real number inside, a Swish or a shortcut that convolves a sum, and the network
# is an ordinary one with spikes for decoration. (The code released with the paper has both, before
# its last convolution and in blocks that change the number of channels.) So we watch every
# convolution at work: what comes in, and how many synapses it reaches. A convolution whose
# weights are all 1 counts these exactly, also at the border of the image.


# %%
@contextmanager
def watching(net, kind, hook):
    """Call hook(module, inputs, output) after every module of a kind; what it returns replaces."""
    handles = [m.register_forward_hook(hook) for m in net.modules() if isinstance(m, kind)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def reached(convolution, x):
    """Synapses that inputs other than 0 reach, over all of x."""
    up = isinstance(convolution, nn.ConvTranspose2d)
    ones = torch.ones_like(convolution.weight)
    count = F.conv_transpose2d if up else F.conv2d
    y = count((x != 0).to(x), ones, stride=convolution.stride, padding=convolution.padding)
    return float(y.sum(dtype=torch.float64))


def census(net):
    """Of each convolution: non-binary inputs, rate, synapses reached and all, per image."""
    found = defaultdict(lambda: np.zeros(4))
    names = {module: name.split("network.")[-1] for name, module in net.named_modules()}
    some = judges[:50]

    def look(module, inputs, output):
        (x,) = inputs
        real = float(((x != 0) & (x != 1)).float().mean())
        sums = [reached(module, x), reached(module, torch.ones_like(x))]
        row = [real, float((x != 0).float().mean()), *(value / len(some) for value in sums)]
        found[names[module].removesuffix(".convolution")] += np.array(row) / n_levels

    with watching(net, (nn.Conv2d, nn.ConvTranspose2d), look):
        denoising_loss(net, some, levels, generator=draws(6))
    return dict(found)


seen, seen_ann = census(snns[0]), census(ann)
inner = {name: row for name, row in seen.items() if name != "encoder"}
print("convolution           non-binary   rate   synapses reached, of all")
for name, (real, rate, used, every) in seen.items():
    print(f"{name:20} {real:11.1%} {rate:6.2f} {used:10.0f} {every:13.0f}")

dense = snns[0].network.to_quarter.convolution  # as a matrix, for the library to count
patterns = (torch.rand((T_s, 5, 2 * width, 4, 4), generator=draws(7)) < 0.2).float()
matrix = dense(torch.eye(32 * width).view(-1, 2 * width, 4, 4)).flatten(1).T.detach()
counted = reached(dense, patterns.flatten(0, 1)) / patterns.shape[1]
np.testing.assert_allclose(synaptic_operations(patterns.flatten(2), matrix), counted)
print("the library and the census agree")
claim(
    PAPER,
    "convolutions after the encoder that see an input other than 0 and 1",
    sum(row[0] > 0 for row in inner.values()),
    at_most=0,
)
metric("ann_non_binary_convolutions", sum(row[0] > 0 for row in seen_ann.values()))


# %% [markdown]
# ## 3. What it costs and what it saves
#
# The usual estimate counts synaptic operations: 0.9 pJ to add a weight where a spike arrives, 4.6
# pJ to multiply and add where the input is real (in the ANN everywhere; in the SNN at the encoder,
# once). Both compute the embedding of the noise level, some nine thousand multiplications: a fifth
# of the spiking network's energy. The estimate leaves out the neurons themselves. A second one adds
# an addition for each neuron and step and another for each spike, at the same price.


# %%
def energy(net, seen):
    """Energy of one call per image in nJ; `seen` is its census."""
    spiking = len(net.network.smoothing) > 1
    real = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Linear))
    real += seen["encoder"][3]
    inner = sum(row[2 if spiking else 3] for name, row in seen.items() if name != "encoder")
    return (MAC * real + (AC if spiking else MAC) * inner) / 1e3


neurons, spikes = 0, 0


def count_spikes(module, inputs, S):
    global neurons, spikes
    neurons, spikes = neurons + S.numel(), spikes + float(S.sum())


with watching(snns[0], IF, count_spikes):
    eps_mse(snns[0])
rate = spikes / neurons
per_image = (neurons + spikes) / (n_eval * n_levels)  # an addition each
nanojoule = {"SNN": energy(snns[0], seen), "ANN": energy(ann, seen_ann)}
with_neurons = nanojoule["SNN"] + AC * per_image / 1e3
ratio = float(error["SNN"].mean() / error["ANN"].mean())
print(f"SNN: {nanojoule['SNN']:.0f} nJ for synapses, {with_neurons:.0f} nJ with neurons")
print(f"ANN: {nanojoule['ANN']:.0f} nJ")
claim(PAPER, "eps-MSE of the spiking U-Net over that of the ANN of equal plan", ratio, at_most=1.6)
claim(
    PAPER,
    "mean firing rate, spikes per neuron and step",
    rate,
    at_least=0.02,
    at_most=0.4,
)
claim(
    PAPER,
    "energy of synaptic operations, SNN over ANN",
    nanojoule["SNN"] / nanojoule["ANN"],
    at_most=0.5,
)
metric("energy_ratio_with_neurons", with_neurons / nanojoule["ANN"])
metric("eps_mse_over_group_norm_ann", error["SNN"].mean() / error["group-norm ANN"].mean())

# %% tags=["cover"]
fig = plt.figure(figsize=(11.5, 4.4), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[1, 1.25])
digit, level = judges[:1], (0.8, 0.6)
noisy = level[0] * digit + level[1] * torch.randn(digit.shape, generator=draws(8))
rasters = []
record = watching(snns[0].network.to_half, IF, lambda module, inputs, S: rasters.append(S[:, 0]))
with record, torch.no_grad():
    guess = snns[0](noisy, *level)
axes = left.subplots(2, 1, height_ratios=[1, 2.2])
gap = torch.full((8, 3), torch.nan)
axes[0].imshow(
    torch.cat([digit[0, 0], gap, noisy[0, 0], gap, guess[0, 0]], 1), cmap="gray_r", vmin=-1, vmax=1
)
axes[0].set(xticks=[3.5, 14.5, 25.5], xticklabels=["digit", "noisy", "denoised"], yticks=[])
axes[1].set(yticks=[])
tile = [torch.cat([rasters[0][s, c] for s in range(T_s)], 1) for c in range(min(width, 3))]
raster = torch.cat(tile)
axes[1].imshow(raster, cmap="gray_r", aspect="equal")
axes[1].set(xticks=[8 * s + 3.5 for s in range(T_s)])
axes[1].set_xticklabels([f"$s = {s}$" for s in range(T_s)])
for s in range(1, T_s):
    axes[1].axvline(8 * s - 0.5, color=GREY, lw=0.7)
for c in range(1, len(tile)):
    axes[1].axhline(8 * c - 0.5, color=GREY, lw=0.7)
axes[1].set_ylabel(f"{len(tile)} of {width} channels")
for axis in axes:
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
curve, bars = right.subplots(1, 2, width_ratios=[1.7, 1])
curve.plot(1000 * t, error["SNN"].T, color=ORANGE, lw=1)
curve.plot(1000 * t, error["SNN"].mean(0), "o-", color=ORANGE, ms=4, label="spiking")
curve.plot(1000 * t, error["ANN"], "o-", color=BLUE, ms=4, label="ANN")
curve.set(yscale="log", xlabel="noise level t of 1000", ylabel="eps-MSE, held-out digits")
curve.legend()
bars.bar(["spiking", "ANN"], [nanojoule["SNN"], nanojoule["ANN"]], color=[ORANGE, BLUE])
bars.set(ylabel="energy of synapses per image (nJ)")
plt.show()

# %% [markdown]
# The network denoises with spikes alone, at a fraction of the energy. (Thin lines: each of the
# spiking networks by itself.) Where it falls behind is on the right of the curve: there $x_t$ is
# nearly all noise, and the answer nearly its input. The ANN passes real numbers through and copies
# them well. Eight channels that say one of five numbers copy coarsely.

# %% [markdown]
# ## 4. Synapses that change over the steps
#
# Each of the networks now trains for a fifth of its steps more, twice from the same weights and on
# the same images and noise: once as before, once with TSM.


# %%
def continued(net, stream, tsm):
    net = deepcopy(net)
    for layer in net.modules():
        if isinstance(layer, Layer):
            layer.q.requires_grad_(tsm)
    train(
        net, images, steps=round(extra * train_steps), levels=schedule, batch_size=batch_size,
        lr=lr / 4, generator=draws(stream),
    )  # fmt: skip
    return net


plain = [continued(net, 30 + m, tsm=False) for m, net in enumerate(snns)]
tsm = [continued(net, 30 + m, tsm=True) for m, net in enumerate(snns)]
after = {"plain": [], "TSM": []}
for name, nets in (("plain", plain), ("TSM", tsm)):
    after[name] = torch.stack([eps_mse(net).mean() for net in nets])
p = {
    name.removeprefix("network."): layer.p.detach()
    for name, layer in tsm[0].named_modules()
    if isinstance(layer, Layer)
}
print("before ", " ".join(f"{v:.4f}" for v in error["SNN"].mean(1)))
for name, values in after.items():
    print(f"{name:7}", " ".join(f"{v:.4f}" for v in values))
farthest = max(float((layer - 1).abs().max()) for layer in p.values())
claim(
    PAPER,
    "eps-MSE after further training with TSM over that without, mean of the networks",
    after["TSM"].mean() / after["plain"].mean(),
    at_most=1.0,
)
claim(PAPER, "largest distance of a learned p_s from 1", farthest, at_least=0.05)

# %%
fig, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
shown = axis.imshow(torch.stack(list(p.values())), cmap="PuOr_r", vmin=0, vmax=2, aspect="auto")
axis.set(yticks=range(len(p)), yticklabels=list(p), xticks=range(T_s), xlabel="step s (from 0)")
fig.colorbar(shown, ax=axis, label="$p_s$")
plt.show()

# %% [markdown]
# ### Does it matter when a spike comes?
#
# We give the spikes of every neuron to its steps in random order, as many as before, and measure
# the error again. If TSM teaches the network to use time, it should suffer more than the plain one.


# %%
def shuffled(net, stream=40):
    """The error with spikes of each neuron at random steps."""
    random = draws(stream)

    def shuffle(module, inputs, S):
        return S.gather(0, torch.rand(S.shape, generator=random).argsort(0))

    with watching(net, IF, shuffle):
        return eps_mse(net).mean()


damage = {
    name: torch.stack([shuffled(net) for net in nets]) / after[name]
    for name, nets in (("plain", plain), ("TSM", tsm))
}
for name, values in damage.items():
    print(f"{name:6} error times", " ".join(f"{v:.3f}" for v in values))
more = float((damage["TSM"] / damage["plain"]).mean())
claim(
    PAPER,
    "contrary to expectation: what shuffling spike times does to networks with TSM, over what it "
    "does to plain ones (factors of eps-MSE, mean)",
    more,
    at_most=1.05,
)
metric("shuffle_damage_plain", damage["plain"].mean())
metric("shuffle_damage_tsm", damage["TSM"].mean())

# %% [markdown]
# In two of the three networks hardly anything changes, with TSM or without: they use how many
# spikes there are, not when. In the other the shuffle hurts, and the plain network more than the
# one with TSM. TSM does not make a network more sensitive to time here.
#
# ## 5. One number for all neurons
#
# *Threshold guidance* shifts $V_{th}$ of every neuron after training: lower, and all of them fire
# more. It costs no training. The paper picks the shift by the quality of samples, and so do we: by
# the energy distance of drawn digits to held-out ones, on the draws of block A. Block B has other
# draws and judges the choice. As the error near $t = T$ is magnified by $1/\sqrt{\bar\alpha_T}
# \approx 160$, every estimate of the clean image is clipped to the range of pixels, for all
# networks alike, as is usual.


# %%
@contextmanager
def threshold(net, V_th):
    neurons = [m for m in net.modules() if isinstance(m, IF)]
    for neuron in neurons:
        neuron.V_th = V_th
    try:
        yield net
    finally:
        for neuron in neurons:
            neuron.V_th = 1.0


def drawn(net, stream):
    noise = torch.randn((n_samples, 1, 8, 8), generator=draws(stream))
    return generate(
        lambda x, alpha, sigma: net(x, alpha, sigma).clamp(-1, 1), noise, schedule.steps(ddim_steps)
    )


def distance(samples):
    return energy_distance(samples, held_out)


guided_net = tsm[0]
by_threshold, samples = {}, {}
for V_th in thresholds:
    with threshold(guided_net, V_th):
        samples[V_th] = drawn(guided_net, 50)
        by_threshold[V_th] = [
            float(eps_mse(guided_net).mean()),
            distance(samples[V_th]),
        ]
chosen = min(thresholds, key=lambda V_th: by_threshold[V_th][1])
judged = {}
for V_th in {chosen, 1.0}:
    with threshold(guided_net, V_th):
        judged[V_th] = distance(drawn(guided_net, 51))
ann_samples = drawn(ann, 50)
shuffle = draws(52)  # real digits in place of drawn ones, as many, against the same held-out ones
null = [distance(images[torch.randperm(len(images), generator=shuffle)[:n_samples]])
        for _ in range(20)]  # fmt: skip
low, high = np.quantile(null, [0.025, 0.975])
print("threshold   eps-MSE   energy distance")
for V_th, (mse, far) in by_threshold.items():
    print(f"{V_th:9.2f} {mse:9.4f} {far:17.3f}")
print(f"chosen on A: {chosen}; on B {judged[chosen]:.3f}, with 1 {judged[1.0]:.3f}")
print(f"ANN {distance(ann_samples):.3f}; digits against digits {low:.3f} to {high:.3f}")


# %%
def bends(values):
    """Way up and down along a curve, over that of a V with the same ends and lowest point."""
    values = np.array(values)
    return np.abs(np.diff(values)).sum() / (values[0] + values[-1] - 2 * values.min())


mse = [by_threshold[V_th][0] for V_th in thresholds]
claim(
    PAPER,
    "threshold chosen on one block of draws: energy distance of samples on another, over V_th = 1",
    judged[chosen] / judged[1.0],
    at_most=1.1,
)
claim(
    PAPER,
    "eps-MSE against threshold: way up and down the curve, over that of a V of the same height",
    bends(mse),
    at_most=1.05,
)
claim(
    PAPER,
    "eps-MSE at the better end of the range of thresholds, over the lowest",
    min(mse[0], mse[-1]) / min(mse),
    at_least=1.001,
)
metric("chosen_threshold", chosen)
metric("best_threshold_by_eps_mse", thresholds[int(np.argmin(mse))])

# %%
fig = plt.figure(figsize=(11.5, 3.3), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[1.25, 1])
axes = left.subplots(1, 2)
for axis, column in zip(axes, (0, 1)):
    axis.plot(
        thresholds,
        [row[column] for row in by_threshold.values()],
        "o-",
        color=BLUE,
        label="draws A",
    )
axes[1].plot(list(judged), list(judged.values()), "s", color=ORANGE, label="draws B")
axes[1].axhline(distance(ann_samples), color=GREY, lw=1, ls="--", label="ANN")
axes[1].axhspan(max(low, 0), max(high, 0), color=GREY, alpha=0.3, lw=0, label="real digits")
axes[1].set_ylim(bottom=0)
for axis, label in zip(axes, ("eps-MSE", "energy distance of samples")):
    axis.set(xlabel="threshold $V_{th}$", ylabel=label)
axes[1].legend(fontsize=8.5, loc="upper left")
panels = {"ANN": ann_samples, "$V_{th} = 1$": samples[1.0], f"chosen, {chosen}": samples[chosen]}
for axis, (name, drawn_digits) in zip(right.subplots(1, 3), panels.items()):
    padded = F.pad(drawn_digits[:24].view(6, 4, 8, 8), (1, 1, 1, 1), value=-1.1)
    tiles = padded.permute(0, 2, 1, 3).reshape(60, 40)
    axis.imshow(tiles, cmap="gray_r", vmin=-1.1, vmax=1.1)  # gaps are white
    axis.set_axis_off()
    axis.set_title(name, fontsize=10)
plt.show()

# %% [markdown]
# Two answers to one question. The error of a single guess has a clean V, with its lowest point
# near the threshold that the network was trained with. Samples improve all the way down: a chain
# of guesses is helped by a bias that each guess alone would rather not have. Move the threshold
# yourself.


# %%
def explore(V_th):
    """Estimates of six digits from the same noise, and how much the network fires."""
    digit, alpha, sigma = judges[:6], 0.8, 0.6
    noisy = alpha * digit + sigma * torch.randn(digit.shape, generator=draws(8))
    rates = []
    record = watching(guided_net, IF, lambda module, inputs, S: rates.append(S.mean()))
    with threshold(guided_net, V_th), record, torch.no_grad():
        guess = guided_net(noisy, alpha, sigma)
    _, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    rows = [torch.cat(list(row[:, 0]), 1) for row in (digit, noisy, guess)]
    axis.imshow(torch.cat(rows), cmap="gray_r", vmin=-1, vmax=1)
    axis.set(yticks=[3.5, 11.5, 19.5], yticklabels=["digit", "noisy", "denoised"], xticks=[])
    axis.spines[:].set_visible(False)
    for edge in (7.5, 15.5):
        axis.axhline(edge, color="white", lw=5)
    axis.set_title(
        f"$V_{{th}}$ = {V_th:.2f}: {float(sum(rates) / len(rates)):.2f} spikes per neuron and step",
        fontsize=10,
    )
    plt.show()


explore(0.9)
_ = interact(explore, V_th=FloatSlider(1.0, min=0.5, max=2, step=0.05, continuous_update=False))

# %% [markdown]
# ## 6. Converted instead of trained
#
# There is a second way to spikes. Train an ANN whose activations can take only $T_s + 1$ values,
# from 0 to a learned clip $\alpha$,
#
# $$a = \frac{\alpha}{T_s}\, \mathrm{round}\big(T_s\, \mathrm{clip}(x / \alpha, 0, 1)\big),$$
#
# and replace each by an IF neuron with threshold $\alpha$ that starts at $v_0 = \alpha / 2$ and
# sends $\alpha$ for a spike. For a *constant* input it counts to exactly the same value. Inside the
# network inputs come in bursts. Some neurons fire early on the strength of what is taken back
# later; a **signed** neuron can then send $-\alpha$: if its membrane is negative and it has spikes
# to take back.


# %%
class Quantised(nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        a = (x / self.alpha).clamp(0, 1) * T_s
        return self.alpha / T_s * (a + (a.round() - a).detach())  # straight through


class Converted(nn.Module):
    def __init__(self, alpha, signed):
        super().__init__()
        self.alpha, self.signed = alpha, signed

    def forward(self, x):
        v, total = self.alpha / 2, torch.zeros_like(x[0])
        out = []
        for current in x:
            v = v + current
            S = (v >= self.alpha).to(x)
            if self.signed:
                S = S - ((v < 0) & (total > 0)).to(x)
            v, total = v - self.alpha * S, total + S
            out.append(self.alpha * S)
        return torch.stack(out)


def convert(net, steps, signed):
    net = deepcopy(net)
    for layer in net.modules():
        if isinstance(layer, Layer) and isinstance(layer.activation, Quantised):
            layer.activation = Converted(layer.activation.alpha.detach(), signed)
    net.network.smoothing = torch.full((steps,), 1 / steps)
    return net


constant = torch.randn(1000, generator=draws(60))
ideal, counting = Quantised(), Converted(torch.tensor(2.0), signed=True)
torch.testing.assert_close(counting(constant.expand(T_s, -1)).mean(0), ideal(constant).detach())
print("for constant inputs, spikes and quantised activations agree")
quantised = fit(SpikingUNet(Quantised, 1, draws(10)), 20)
before = float(eps_mse(quantised).mean())
lost = {signed: float(eps_mse(convert(quantised, T_s, signed)).mean()) for signed in (True, False)}
converted = convert(quantised, T_s, signed=True)
nanojoule["converted"] = energy(converted, census(converted))
print(f"quantised {before:.4f}, signed {lost[True]:.4f}, unsigned {lost[False]:.4f}")
print(f"energy of synapses {nanojoule['converted']:.0f} nJ")
claim(
    PAPER,
    "conversion: eps-MSE of signed IF neurons over that of the quantised ANN they come from",
    lost[True] / before,
    at_most=1.1,
)
metric("signed_over_unsigned", lost[True] / lost[False])
metric("converted_over_trained", lost[True] / float(error["SNN"].mean()))
metric("converted_energy_over_ann", nanojoule["converted"] / nanojoule["ANN"])

# %%
bars = {
    "ANN, group norm": (error["group-norm ANN"].mean(), BLUE),
    "ANN": (error["ANN"].mean(), BLUE),
    f"ANN, {T_s + 1} values": (before, BLUE),
    "converted from it, signed": (lost[True], SKY),
    "converted, unsigned": (lost[False], SKY),
    "trained with spikes": (error["SNN"].mean(), ORANGE),
    "trained further": (after["plain"].mean(), ORANGE),
    "trained further, TSM": (after["TSM"].mean(), ORANGE),
}
fig, axis = plt.subplots(figsize=(7, 3), layout="constrained")
values, colours = zip(*bars.values())
axis.bar_label(axis.barh(list(bars), values, color=colours), fmt="%.3f", padding=3)
axis.invert_yaxis()
axis.margins(x=0.1)
axis.set(xlabel=f"eps-MSE, held-out digits; spikes in {T_s} steps")
plt.show()

# %% [markdown]
# The conversion loses next to nothing, and at four steps the converted network is *better* than the
# one trained with spikes, for a little more energy. Its training took the gradient straight through
# every activation, once; that of the spiking network passes a surrogate at every step. Signs do not
# matter here. And most of the distance between the spiking network and the ANN of equal plan is
# there already in the ANN of five values: it is the price of few values, not of time.
#
# ## 7. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: the hard reset
#
# The released code resets a neuron that fires to $v = 0$, whatever was above the threshold. Return
# the spikes (T, n) for input `x` (T, n), as 0.0 and 1.0; $v$ starts at 0.
#
# <details><summary>Hint</summary>
#
# Loop over the steps. After a spike, $v$ is $h\,(1 - S)$.
#
# </details>


# %% tags=["exercise"]
def hard_reset(x, V_th):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def hard_reset_solution(x, V_th):
    v, out = torch.zeros_like(x[0]), []
    for current in x:
        h = v + current
        S = (h >= V_th).to(x)
        v = h * (1 - S)
        out.append(S)
    return torch.stack(out)


# %% tags=["check"]
check(hard_reset, hard_reset_solution, lambda rng: (torch.from_numpy(rng.normal(size=(5, 9))), 0.8))

# %% [markdown]
# ### Exercise 2: what a spike costs
#
# Spikes `S` (T, n) meet a dense layer with `m` outputs. Return its energy over the energy of a
# layer that takes n real numbers once: `ac` pJ for each synapse that a spike reaches, `mac` pJ for
# each synapse of the other. At which rate do four steps cost as much as one with real numbers?
#
# <details><summary>Hint</summary>
#
# Each spike reaches m synapses, and m cancels. The rate is `mac / (4 * ac)`: more than 1.
#
# </details>


# %% tags=["exercise"]
def relative_energy(S, m, ac, mac):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def relative_energy_solution(S, m, ac, mac):
    return ac * S.sum() * m / (mac * S.shape[1] * m)


# %% tags=["check"]
check(
    relative_energy,
    relative_energy_solution,
    lambda rng: (torch.from_numpy((rng.random((4, 20)) < 0.3) * 1.0), 7, 0.9, 4.6),
)

# %% [markdown]
# ## 8. What did not reproduce, and what is smaller here
#
# - **Shuffled spikes.** We expected TSM to make time matter more. It does not: in two of the three
#   networks shuffling hardly changes the error, in the other it hurts the plain one more. For the
#   plain networks of the two seeds tried the factors go from 1.01 to 1.37.
# - **Threshold guidance** changes the samples a lot: their energy distance falls by about a
#   quarter at the two seeds tried, where the paper reports up to 16.7 % of its own measure. But it
#   starts from poor samples, and takes the lowest threshold offered. The error of a single guess
#   it lowers by 0.1 % at the most.
# - **Sample quality.** In the paper samples come close to those of the ANN. Here their energy
#   distance is about four times as large, though the error is only a third larger. Eight
#   channels of spikes copy their input badly, and that is what a guess of $\epsilon$ asks of them
#   at high noise. Predicting $x_0$ or $v$ should ask less; we have not tried.
# - **Signed spikes** make no difference, where the paper's conversion needs them (and further
#   training after it, which is not tried here).
# - **The opponent.** Group norm and scaled embeddings make a better ANN of equal width; against it
#   the spiking network errs some 1.6 times as much. It also has a block more.
# - **The energy** is an estimate of arithmetic; moving numbers costs more on most machines. The
#   scalars $p_s$ are taken to be stored with the weights, $T_s$ copies of them.
#
# Smaller than in the paper: digits of 8 × 8 pixels instead of CIFAR-10 and LSUN, 120 mini-batches
# of 48, no attention, skips that are added. Different on purpose: the output layer, too, convolves
# spikes, and the reset is soft.
#
# **Next.** *diffusion/01_from_noise_to_digits* has the samplers, *kernels/01_how_fast* the fused
# neurons. J. Cao et al., *Spiking denoising diffusion probabilistic models* (WACV 2024).

# %%
# NBVAL_CHECK_OUTPUT
summary()
