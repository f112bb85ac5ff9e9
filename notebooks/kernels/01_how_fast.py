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
# # How fast can it be? Kernels and the roofline
#
# **Question.** A spiking layer takes a tenth of a second. Is that slow, and how would you know
# without writing a faster one?
#
# ![Kernels of this suite below two lines measured on this machine: the speed of a copy and that of
# a product of matrices](01_how_fast.png)
#
# **Reading** 15 minutes. **Running** under 15 seconds on two CPU cores, under 1.5 GB of memory.
#
# The notebooks of this suite lean on a few loops that are too hot for Python: spiking neurons over
# time, synaptic delays, sparse codes, linear recurrences. Each is a *kernel* in `labkit.kernels`,
# with a readable reference in PyTorch beside it. This notebook is about how to judge such a loop.
# We measure what the machine can do at most, work out what a kernel must do at least, and see how
# much room there is between the two; then why a loop in Python wastes most of it, how the backward
# pass gets along without storing the forward pass, and when a cost can follow the spikes instead of
# the synapses. The layer that runs through it is that of `dcls-snn-delays`, Hammouamri, Khalfaoui-
# Hassani & Masquelier (2024): leaky neurons behind synapses with learned delays.
#
# You need to know what a matrix product is, and that the gradient of a recurrence goes back through
# its steps. What there is to know of the machine is explained.

# %% tags=["parameters"]
seed: int = 0  # of all random draws
steps: int = 100  # T, time steps
batch: int = 64  # B, samples at a time
neurons: int = 512  # N, neurons of the layer
decay: float = 0.9  # share of the voltage that is left after a step
rate: float = 0.05  # spikes per input and step, for the delayed synapses
threads: int = 1  # CPU threads of every measurement

# %%
if seed < 0 or min(steps, batch, neurons, threads) < 1:
    raise ValueError("seed: not negative; steps, batch, neurons, threads: at least 1")
if not (0 <= decay <= 1 and 0 < rate <= 0.5):
    raise ValueError("decay: from 0 to 1; rate: above 0, at most 0.5")

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see the end of section 1

import time
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
import torch
from ipywidgets import IntSlider, interact

from labkit import claim, metric
from labkit.bench import peak_memory
from labkit.claims import summary
from labkit.exercises import check
from labkit.kernels import delayed_linear, hadamard_transform, lif_scan, linear_scan
from labkit.plots import BLUE, ORANGE, house_style, table

PAPER = "dcls-snn-delays"
torch.set_num_threads(threads)
generator = torch.Generator().manual_seed(seed)
house_style()


def milliseconds(call, rounds=9, choose=median):
    """Median time of a call (or another choice), after one that compiles and fills the caches."""
    call()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return 1e3 * choose(taken)


# %% [markdown]
# ## 1. What the machine can do at most
#
# Two numbers bound every program: how many bytes reach the processor in a second, and how many
# multiplications and additions it makes in one. We measure the first by copying an array that the
# core's own caches do not hold, with as many threads as everything below (one, by default), the
# second by multiplying matrices, for which decades of work have gone into the library that does it.
# The large cache that the cores of a server share may well hold both arrays: then the first number
# is the speed of that cache, as it is for a layer of the same size.
#
# Three habits keep such numbers honest. Take the *median* of several runs, and let the first not
# count, for it compiles and allocates; for a roof, which nothing is to pass, take the fastest of
# many. Compare only what ran *in the same session*: laptops throttle and cloud machines have
# neighbours. And make idle threads sleep (`OMP_WAIT_POLICY=passive`): by default they spin, and
# where cores are shared that can cost a factor of six.

# %%
size = 2**22  # floats, 16 MB
source, target = torch.ones(size), torch.empty(size)
copying = milliseconds(lambda: target.copy_(source), 40, min)
bandwidth = 8 * size / copying * 1e3  # bytes per second
square = torch.ones(1024, 1024)
multiplying = milliseconds(lambda: square @ square, 40, min)
peak = 2 * 1024**3 / multiplying * 1e3  # operations per second
metric("bandwidth, GB/s", bandwidth / 1e9)
metric("peak, Gop/s", peak / 1e9)
print(f"{bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} billion operations per second")
print(f"in the time of one byte: {peak / bandwidth:.1f} operations")

# %% [markdown]
# The last line is the important one. While one `float32` comes from memory and another goes back,
# the processor could make dozens of operations. A loop that makes fewer is **memory-bound**: its
# arithmetic is free, and only bytes count.
#
# ## 2. What a kernel must do at least
#
# A layer of leaky integrate-and-fire neurons computes, for every neuron and step,
#
# $$h_t = d\,v_{t-1} + x_t, \qquad s_t = \Theta(h_t - \theta), \qquad v_t = h_t - s_t\,\theta .$$
#
# Whoever computes it must read $x_t$ and write $s_t$: 8 bytes for some 5 operations. The voltage
# can stay in the processor. Training must moreover read the gradient $\partial L/\partial s_t$,
# read $x_t$ once more, and write $\partial L/\partial x_t$: 20 bytes in all. Nobody can do with
# less, so bytes divided by bandwidth is a **floor** for the time, at the speed of section 1's copy.
#
# `lif_scan` is our kernel; `backend="reference"` is the same thing as a loop over time in PyTorch.
# No time is worth comparing before the results are, so we first count the spikes that differ. None
# may: the kernel multiplies and adds in the order of the reference, without fusing the two.

# %%
x = 0.5 * torch.randn(steps, batch, neurons, generator=generator)
kernel_spikes = lif_scan(x, decay)
loop_spikes = lif_scan(x, decay, backend="reference")
differ = int((kernel_spikes != loop_spikes).sum())
print(f"{int(kernel_spikes.sum()):,} spikes, {differ} differ")
claim(PAPER, "spikes in which the compiled layer differs from a loop in PyTorch", differ, at_most=0)
claim(PAPER, "share of neurons and steps with a spike", kernel_spikes.mean(), at_least=0.01)

# %%
upstream = torch.randn(x.shape, generator=generator)
leaf = x.clone().requires_grad_()


def train(backend):
    leaf.grad = None
    lif_scan(leaf, decay, backend=backend).backward(upstream)
    return leaf.grad


kernel_gradient, loop_gradient = train("cpu"), train("reference")
distance = (kernel_gradient - loop_gradient).abs().max() / loop_gradient.abs().max()
claim(
    PAPER,
    "largest difference of the two gradients, of the largest gradient",
    distance,
    at_most=1e-4,
)

floor = {"forward": 8 * x.numel() / bandwidth * 1e3, "training": 20 * x.numel() / bandwidth * 1e3}
kernel_ms = {
    "forward": milliseconds(lambda: lif_scan(x, decay)),
    "training": milliseconds(lambda: train("cpu")),
}
loop_ms = {
    "forward": milliseconds(lambda: lif_scan(x, decay, backend="reference"), 3),
    "training": milliseconds(lambda: train("reference"), 3),
}
claim(
    PAPER,
    "time of a loop in PyTorch relative to the compiled layer, training",
    loop_ms["training"] / kernel_ms["training"],
    at_least=1.5,
)
table(
    ["", "floor, ms", "kernel, ms", "of the floor", "loop in PyTorch, ms", "of the kernel"],
    [
        [
            name,
            f"{floor[name]:.1f}",
            f"{kernel_ms[name]:.1f}",
            f"{kernel_ms[name] / floor[name]:.1f} ×",
            f"{loop_ms[name]:.0f}",
            f"{loop_ms[name] / kernel_ms[name]:.0f} ×",
        ]
        for name in floor
    ],
)

# %% [markdown]
# The floor answers the question of the title without anyone having to write a faster program: what
# is left between kernel and floor is all there is to gain, as long as bytes move no faster than in
# that copy.
#
# ## 3. The roofline
#
# Divide a kernel's operations by its bytes and you get its **intensity**; times the bandwidth, that
# is the speed at which memory can feed it. Below the intensity at which this reaches the peak of
# the processor, memory is the roof; above it, arithmetic (Williams, Waterman & Patterson, 2009).
# Each point below is a kernel, measured here; the roof is section 1. Operations and bytes are
# counted by hand from the formulas, never from the program: a program that moves more than it must
# shall look slow.

# %%
signal = torch.randn(1000, 2048, generator=generator)
gates = torch.rand(1000, 2048, generator=generator)
rows = torch.randn(1024, 1024, generator=generator)
matrix = torch.randn(512, 512, generator=generator)
cases = {  # name: (call, operations, bytes)
    "LIF, forward": (lambda: lif_scan(x, decay), 5 * x.numel(), 8 * x.numel()),
    "LIF, training": (lambda: train("cpu"), 20 * x.numel(), 20 * x.numel()),
    "linear scan": (
        lambda: linear_scan(gates, signal),
        2 * signal.numel(),
        12 * signal.numel(),
    ),
    "Hadamard transform": (
        lambda: hadamard_transform(rows),
        10 * rows.numel(),  # log2(1024) additions for each number
        8 * rows.numel(),
    ),
    "linear layer": (lambda: rows[:, :512] @ matrix, 2 * 1024 * 512 * 512, 4 * 512 * (2048 + 512)),
    "LIF, loop in PyTorch": (
        lambda: lif_scan(x, decay, backend="reference"),
        5 * x.numel(),
        8 * x.numel(),
    ),
}
points = {}
for name, (call, operations, moved) in cases.items():
    seconds = milliseconds(call, 5) / 1e3
    points[name] = (operations / moved, operations / seconds)


def draw_roofline(axes):
    intensity = np.geomspace(0.1, 300, 200)
    axes.plot(intensity, np.minimum(peak, bandwidth * intensity) / 1e9, color="0.2", lw=2)
    axes.text(0.12, bandwidth * 0.12 / 1e9 * 1.5, "memory", rotation=33, color="0.3")
    axes.text(30, peak / 1e9 * 1.15, "arithmetic", color="0.3")
    below = (0, -18, "center")
    beside = {"linear layer": below, "LIF, forward": below}
    beside |= {"LIF, training": (0, 9, "center"), "Hadamard transform": (9, -13, "left")}
    for name, (where, speed) in points.items():
        colour = ORANGE if "PyTorch" in name else BLUE
        x_offset, y_offset, side = beside.get(name, (9, -4, "left"))
        axes.plot(where, speed / 1e9, "o", color=colour, ms=8)
        axes.annotate(
            name,
            (where, speed / 1e9),
            xytext=(x_offset, y_offset),
            textcoords="offset points",
            color=colour,
            ha=side,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(0.1, 300),
        xlabel="intensity: operations per byte that has to move",
        ylim=(None, 2.5 * peak / 1e9),
        ylabel="speed: billion operations per second",
        title="No kernel gets through the roof; how far below is it?",
    )
    axes.grid(alpha=0.2, which="both")


# %% tags=["cover"]
figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
draw_roofline(axes)
plt.show()

# %% [markdown]
# The compiled spiking layer hangs a factor of two to four below the slanted roof, where only bytes
# count. The loop in PyTorch does the same arithmetic far below it. A linear layer sits under the
# flat roof: that is why a network of large matrices gains little from a faster neuron, and a
# network of small ones a lot.
#
# Where does the loop lose? It visits memory with every operation: `decay * v`, then `+ x`, then a
# comparison, each reads and writes whole arrays. And every operation costs some microseconds before
# it does anything. The second cost does not depend on the number of neurons, so it shows at small
# sizes. Move the slider.

# %%
sizes = [2**k for k in range(6, 16, 3)]
per_step = {"kernel": [], "loop in PyTorch": []}
for count in sizes:
    small = torch.randn(steps, count, generator=generator)
    per_step["kernel"].append(milliseconds(lambda small=small: lif_scan(small, decay)) / steps)
    per_step["loop in PyTorch"].append(
        milliseconds(lambda small=small: lif_scan(small, decay, backend="reference"), 3) / steps
    )


def draw_overhead(neurons_per_step=512):
    _, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for (name, times), colour in zip(per_step.items(), (BLUE, ORANGE), strict=True):
        axes.loglog(sizes, [1e3 * ms for ms in times], "o-", color=colour, label=name)
        here = np.exp(np.interp(np.log(neurons_per_step), np.log(sizes), np.log(times)))
        axes.plot(neurons_per_step, 1e3 * here, "s", color=colour, ms=10)
    axes.loglog(
        sizes, [8 * n / bandwidth * 1e6 for n in sizes], color="0.2", lw=2, label="floor: 8 bytes"
    )
    axes.axvline(neurons_per_step, color="0.7", lw=1)
    axes.set(xlabel="neurons in a step (batch × layer)", ylabel="microseconds per step")
    axes.legend(frameon=False)
    plt.show()


draw_overhead()

# %%
_ = interact(
    draw_overhead, neurons_per_step=IntSlider(512, sizes[0], sizes[-1], 64, description="neurons")
)

# %% [markdown]
# The flat part of the upper line is the price of asking: PyTorch needs it for each of the half
# dozen operations of a step, however small the arrays are. It is the reason why teaching-size
# networks are slow on a GPU as well, where asking costs more still.
#
# ## 4. Backward without a diary
#
# Backpropagation through time needs $h_t$ of every step. A loop under autograd stores it, and the
# intermediate results of every operation beside it. But the state at *one* step and the input are
# enough to compute the steps after it again, in the cache, for a handful of operations. `lif_scan`
# keeps the voltage of every 16th step, and charges 16 steps anew on its way back. The arithmetic is
# free, as section 1 has shown; the bytes are not.

# %%
held = {name: peak_memory(lambda name=name: train(name)) for name in ("cpu", "reference")}
array = 4 * x.numel()
print(f"training holds {held['cpu'] / array:.1f} arrays of the size of x in the kernel,")
print(f"{held['reference'] / array:.1f} in the loop")
claim(
    PAPER,
    "memory that training the compiled layer holds, relative to a loop under autograd",
    held["cpu"] / held["reference"],
    at_most=0.5,
)

# %% [markdown]
# ## 5. A cost that follows the spikes
#
# A synapse with a delay, $y_{t} = \sum_i w_i\, x_i(t - d_i)$, can be computed as a convolution over
# time with a kernel that is zero but for one place. That is what packages for learned delays do,
# and while delays are *learned* there is a good reason: the gradient with respect to $d_i$ comes
# from the neighbours of that place (`dcls-snn-delays` spreads each weight over a Gaussian for that
# purpose). Once they are rounded there is none. Then a spike has one place to go per synapse, and
# no spike costs nothing:
#
# $$\text{convolution: } T B N_\text{in} N_\text{out} K_d \qquad
# \text{events: } p\; T B N_\text{in} N_\text{out}$$
#
# multiplications, with $K_d$ delays and the share $p$ of inputs that spike. Where more than 6 % of
# the inputs spike, our kernel no longer follows events: it adds up all inputs, for eight samples
# side by side, but still without the factor $K_d$. In the figure, the last point is of that kind.

# %%
inputs, outputs, longest = 140, 256, 24
weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
delay = torch.randint(0, longest + 1, (outputs, inputs), generator=generator).float()
samples = 64
uniform = torch.rand(steps, samples, inputs, generator=generator)


def convolved(spikes):
    """The same synapses as a dense convolution over time."""
    kernel = torch.zeros(outputs, inputs, longest + 1)
    kernel.scatter_(2, longest - delay.long().unsqueeze(2), weight.unsqueeze(2))
    series = torch.nn.functional.pad(spikes.permute(1, 2, 0), (longest, 0))
    return torch.nn.functional.conv1d(series, kernel).permute(2, 0, 1)


spikes = (uniform < rate).float()
expected, found = convolved(spikes), delayed_linear(spikes, weight, delay)
assert torch.allclose(expected, found, atol=1e-4), "the two compute different things"

rates = [rate / 4, rate / 2, rate, 2 * rate]
event_ms, dense_ms = [], []
for p in rates:
    given = (uniform < p).float()
    event_ms.append(milliseconds(lambda given=given: delayed_linear(given, weight, delay), 5))
    dense_ms.append(milliseconds(lambda given=given: convolved(given), 3))

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
percent = [100 * p for p in rates]
axes.loglog(percent, dense_ms, "o-", color=ORANGE, label="convolution")
axes.loglog(percent, event_ms, "o-", color=BLUE, label="kernel: by events up to 6 %")
axes.set(xlabel="inputs that spike in a step, %", ylabel="milliseconds", xticks=percent)
axes.set_xticks(percent, [f"{p:.3g}" for p in percent])
axes.xaxis.minorticks_off()
axes.legend(frameon=False)
plt.show()

middle = rates.index(rate)
claim(
    PAPER,
    "rounded delays: time of a dense convolution relative to the compiled kernel",
    dense_ms[middle] / event_ms[middle],
    at_least=1.5,
)

# %% [markdown]
# ## 6. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: a floor of your own
#
# The linear recurrence $h_t = a_t\,h_{t-1} + b_t$ reads $a$ and $b$ and
# writes $h$, in `float32`. Given the number of steps, of lanes, and the bandwidth in bytes per
# second, what is the shortest time, in milliseconds, that its forward pass can take?
#
# <details><summary>Hint</summary>Three numbers of four bytes for every step and lane.</details>


# %% tags=["exercise"]
def shortest(steps, lanes, bandwidth):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def shortest_solution(steps, lanes, bandwidth):
    return 1e3 * 12 * steps * lanes / bandwidth


# %% tags=["check"]
check(
    shortest,
    shortest_solution,
    lambda rng: (
        int(rng.integers(1, 2000)),
        int(rng.integers(1, 5000)),
        float(rng.uniform(1e9, 4e12)),
    ),
)

# %% [markdown]
# ### Exercise 2: which roof?
#
# Given a kernel's operations and bytes, and the peak and bandwidth of a machine,
# return the highest speed, in operations per second, that the roofline allows.
#
# <details><summary>Hint</summary>The smaller of two numbers.</details>


# %% tags=["exercise"]
def roof(operations, moved, peak, bandwidth):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def roof_solution(operations, moved, peak, bandwidth):
    return min(peak, bandwidth * operations / moved)


# %% tags=["check"]
check(
    roof,
    roof_solution,
    lambda rng: tuple(float(10 ** rng.uniform(low, low + 3)) for low in (8, 8, 10, 9)),
)

# %% [markdown]
# ### Exercise 3: when do events pay?
#
# A dense convolution makes `dense` multiplications per second, an event
# loop only `sparse` (it jumps about in memory). With `delays` places in the kernel, below which
# share of spiking inputs is the event loop faster?
#
# <details><summary>Hint</summary>Set the two times equal: the numbers of multiplications are in
# section 5. The share cannot exceed 1.</details>


# %% tags=["exercise"]
def break_even(dense, sparse, delays):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def break_even_solution(dense, sparse, delays):
    return min(1.0, delays * sparse / dense)


# %% tags=["check"]
check(
    break_even,
    break_even_solution,
    lambda rng: (
        float(rng.uniform(1e10, 1e11)),
        float(rng.uniform(1e8, 1e10)),
        int(rng.integers(1, 64)),
    ),
)

# %% [markdown]
# ## 7. What this does not tell you
#
# - **One machine, one moment.** Every number above belongs to the machine that ran this notebook.
#   `labkit bench` repeats the comparison on yours, against whatever peers are installed (snnTorch,
#   SpikingJelly, DCLS, scikit-learn), with one thread and with two, and checks first that the
#   results are equal.
# - **A roof is not a forecast.** Random access, dependent steps and tiny arrays keep a program far
#   below both lines for reasons that this picture does not show. It tells what is impossible, not
#   what is easy.
# - **A GPU is another picture.** Hundreds of times the bandwidth, and a fixed price for every step
#   in time: small layers are bound by latency there, not by bytes. The same kernels exist in Triton
#   (`labkit bench --device cuda`); nothing in this notebook has measured them.
# - **Exact is a choice.** We forbid the processor to fuse a multiplication with an addition, since
#   a spike hangs on the last bit. That costs little here; where a kernel's result is smooth we
#   allow it.
#
# **Next.** S. Williams, A. Waterman & D. Patterson, *Roofline: an insightful visual performance
# model for multicore architectures*, Communications of the ACM 52 (4), 65-76 (2009). I. Hammouamri,
# I. Khalfaoui-Hassani & T. Masquelier, *Learning delays in spiking neural networks using dilated
# convolutions with learnable spacings*, ICLR (2024). W. Fang et al., *SpikingJelly*, Science
# Advances 9, eadi1480 (2023), on what fused kernels do for spiking networks on a GPU.

# %%
# NBVAL_CHECK_OUTPUT
summary()
