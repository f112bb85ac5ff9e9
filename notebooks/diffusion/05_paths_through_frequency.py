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
# # Paths through frequency
#
# **Question.** Noise drowns the leaves long before it drowns the tree. In which order should an
# image be taken apart, and do its leaves have to be there while the tree is being drawn?
#
# ![A face taken apart in three ways, by noise alone, along the shortest path and by blur and noise,
# each with its spectrum over time](05_paths_through_frequency.png)
#
# **Reading** 20 minutes. **Running** under a minute on two CPU cores, under 1.5 GB of memory.
#
# **Papers**
#
# - `shortest-path-diffusion`: A. Das, S. Fotiadis, A. Batra, F. Nabiei, F. Liao, S. Vakili,
#   D. Shiu and A. Bernacchia, *Image generation with shortest path diffusion*, ICML 2023, PMLR
#   202:7009–7024, [arXiv:2306.00501](https://arxiv.org/abs/2306.00501).
# - `relay-diffusion`: J. Teng, W. Zheng, M. Ding, W. Hong, J. Wangni, Z. Yang and J. Tang, *Relay
#   diffusion: unifying diffusion process across resolutions for image synthesis*, ICLR 2024,
#   [arXiv:2309.03350](https://arxiv.org/abs/2309.03350).
#
# You need the Fourier transform, and to have heard that a diffusion model removes noise step by
# step. Green cards say which statement was held against which bound.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
n_crops: int = 2000  # 32 x 32 crops of photographs, for their spectrum
delta: float = 0.3  # departure from the shortest path
digit_steps: int = 700  # of training, per model of digits
n_photos: int = 2400  # 64 x 64 crops, at 16 x 16 the data of the relay; three quarters for training
relay_steps: int = 100  # of training the relay, and the stage before it
sampling_steps: int = 8  # of the relay, and of the stage before it
prob_length: float = 0.93  # share of the noise levels that the relay takes over
s_noise: float = 0.2  # share of fresh noise in a step of the relay

# %%
import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dct, dctn

from labkit import claim, diffusion, metric
from labkit.checks import check_ranges
from labkit.claims import summary
from labkit.data import natural_images, sample_patches
from labkit.exercises import check
from labkit.plots import AMBER, BLACK, BLUE, GREY, ORANGE, house_style, show_image
from labkit.seeding import streams

SPD, RELAY = "shortest-path-diffusion", "relay-diffusion"
T = 1000  # steps of a full schedule
SIDE = 32  # of the crops in sections 1 and 2
S, FINE = 2, 16  # the relay's step in resolution, and the side it leads to
BLOCK, WIDE = 0.15, 20.0  # block noise relative to white; noise to start from without an image

check_ranges(globals(), n_crops=(200, 20_000), delta=(0.05, 0.95), digit_steps=(1, 10_000))
check_ranges(globals(), n_photos=(400, 20_000), relay_steps=(1, 10_000), sampling_steps=(3, 100))
check_ranges(globals(), prob_length=(0.05, 0.999), s_noise=(0, 0.9))
house_style()
torch.set_num_threads(1)  # layers are small: a second thread costs about what it saves
COLOUR = {"shortest path": BLUE, "linear": ORANGE, "cosine": AMBER, "linear, even": BLACK}

draws = streams(seed)  # a generator of its own for each use: no experiment shifts another's draws


def randn(shape, stream, dtype=torch.float64):
    return torch.randn(shape, generator=draws(stream), dtype=dtype)


def fft(x):
    return torch.fft.fft2(x, norm="ortho")


def ifft(X):
    return torch.fft.ifft2(X, norm="ortho").real


# %% [markdown]
# ## 1. A path has a length
#
# Photographs have a spectrum: the power $S_0(f)$ of their orthonormal Fourier coefficients falls
# over five orders of magnitude from brightness to the finest detail. White noise has power one
# everywhere. Each diffusion process is a **path** from the first spectrum to the second. Write
# $\bar\alpha_t(f)$ for what is left of the signal at a frequency, then
#
# $$x_t(f) = \sqrt{\bar\alpha_t(f)}\; x_0(f) + \sqrt{1 - \bar\alpha_t(f)}\; \epsilon(f),
#   \qquad S_t(f) = \bar\alpha_t(f)\, S_0(f) + 1 - \bar\alpha_t(f) .$$
#
# DDPM takes the same $\bar\alpha_t$ for all frequencies. Must it? The first paper takes the images
# for a Gaussian field and measures a path with **Fisher's metric**, which counts how well two
# neighbouring laws can be told apart:
#
# $$\text{length} = \sum_t \sqrt{\tfrac12 \textstyle\sum_f
#   \big(\log S_{t+1}(f) - \log S_t(f)\big)^2} .$$
#
# In the coordinates $\log S(f)$ this is flat space, and the shortest path is a straight line:
# $S_t = S_0^{\tau}$ with $\tau = 1 - t/T$. It fixes everything, with nothing to tune:
#
# $$\bar\alpha_t(f) = \frac{1 - S_0(f)^{\tau}}{1 - S_0(f)}, \qquad
#   \bar\alpha_t(f) = \tau \ \text{ where } S_0(f) = 1 .$$
#
# **A trap**: a path does not get longer by being walked unevenly. We report the **action** too, the
# mean squared speed in units of that of a straight line walked evenly, and add a control that the
# paper lacks: *linear, even*, DDPM's own path, one $\bar\alpha$ for all frequencies, in steps of
# equal Fisher length.


# %%
def shortest_path(tau, S0):
    """alpha_bar of S0^tau; expm1 keeps the digits near S0 = 1, where the ratio is 0/0."""
    ratio = torch.expm1(tau * S0.log()) / torch.expm1(S0.log())
    return torch.where(S0 == 1, tau, ratio)


def variance(abar, S0):
    return abar * S0 + 1 - abar


def fisher_steps(S):
    """Lengths of the steps (T,) along spectra (T + 1, H, W)."""
    return (S.log().diff(dim=0).square().sum(dim=(1, 2)) / 2).sqrt()


def even(S0):
    """alpha_bar (T + 1, 1, 1), the same for all frequencies, in steps of equal Fisher length."""
    logsnr = torch.linspace(25, -25, 4001, dtype=torch.float64)
    walked = fisher_steps(variance(logsnr.sigmoid()[:, None, None], S0)).cumsum(0)
    evenly = np.interp(np.linspace(0, walked[-1], T + 1), [0, *walked], logsnr)
    abar = torch.from_numpy(evenly).sigmoid()
    abar[0], abar[-1] = 1, 0
    return abar[:, None, None]


tau = 1 - torch.arange(T + 1, dtype=torch.float64)[:, None, None] / T


def tables(S0):
    """alpha_bar at steps 0 to T, (T + 1, H, W) or (T + 1, 1, 1), of four processes."""
    one = torch.ones(1, dtype=torch.float64)
    return {
        "shortest path": shortest_path(tau, S0),
        "linear": torch.cat([one, diffusion.linear_beta(T=T).alpha_bar])[:, None, None],
        "cosine": torch.cat([one, diffusion.cosine_beta(T=T).alpha_bar])[:, None, None],
        "linear, even": even(S0),
    }


photographs = [2 * image - 1 for image in natural_images()]
crops = sample_patches(photographs, SIDE, n_crops, np.random.default_rng(seed))
crops = torch.from_numpy(crops).double().view(-1, 1, SIDE, SIDE)
crops = crops - crops.mean()
S0 = fft(crops).abs().square().mean(dim=(0, 1))
table = tables(S0)
shortest = float((S0.log().square().sum() / 2).sqrt())  # the straight line
print("path            length   action   fastest step over mean")
length, action, speed = {}, {}, {}
for name, abar in table.items():
    speed[name] = fisher_steps(variance(abar, S0)) * T / shortest
    length[name], action[name] = float(speed[name].mean()), float(speed[name].square().mean())
    haste = float(speed[name].max()) / length[name]
    print(f"{name:13} {length[name]:8.4f} {action[name]:8.2f} {haste:10.2f}")

text = "the sum of small steps equals the straight line's length: relative difference"
claim(SPD, text, abs(length["shortest path"] - 1), at_most=1e-6)
text = "length of DDPM's path over the shortest, the less of linear and cosine"
claim(SPD, text, min(length["linear"], length["cosine"]), at_least=1.02)
claim(SPD, "action of linear DDPM over the shortest path's", action["linear"], at_least=3)
claim(SPD, "action of cosine DDPM over the shortest path's", action["cosine"], at_least=1.9)
metric("fastest_over_mean_step", speed["shortest path"].max() / length["shortest path"])
middle = table["shortest path"][T // 2]
text = "half way, signal left at the lowest frequency, one cycle per image: alpha_bar"
claim(SPD, text, middle[0, 1], at_most=0.4)
text = "half way, signal left at the highest frequency, Nyquist both ways: alpha_bar"
claim(SPD, text, middle[SIDE // 2, SIDE // 2], at_least=0.9)

# %% [markdown]
# DDPM's path is only some three per cent longer than the shortest one; but it rushes through the
# first fifth of its time, and then it hardly moves. The shortest path has constant speed (last
# column). That is the same straight line as the sum of its steps, so only the sum has a card. And
# the order is new: low frequencies give up their signal early, high ones late, so that the image is
# *sharpened* while noise comes in.
#
# ## 2. What does a short path buy?
#
# No network is needed to find out. For a Gaussian field the ideal denoiser is Wiener's filter, one
# factor per frequency, and the ancestral sampler of DDPM is linear. So the variance $V(f)$ of what
# it draws follows exactly, step by step from $V = 1$; with primes for the cleaner level and
# $v = \frac{1 - \bar\alpha'}{1 - \bar\alpha} \big(1 - \frac{\bar\alpha}{\bar\alpha'}\big)$,
#
# $$V' = \Big(\sqrt{\bar\alpha'}\; \frac{\sqrt{\bar\alpha}\, S_0}{S_t} +
#   \sqrt{1 - \bar\alpha' - v}\; \frac{\sqrt{1 - \bar\alpha}}{S_t}\Big)^{2} V + v .$$
#
# The error is the Kullback–Leibler divergence of the law drawn from the photographs' law, summed
# over frequencies. We also leave the path: $\tau$ is multiplied by
# $1 + \delta\,(1 - \tau) \cos(2\pi k |f| / 32)$, so that some frequencies hurry and others lag.


# %%
def divergence(abar, S0, n):
    """KL(N(0, V) || N(0, S0)) in nats after n steps of the ideal denoiser, abar (T + 1, ...)."""
    V = torch.ones_like(S0)
    for here, there in pairwise(abar[(T - torch.arange(n + 1) * T / n).round().long()]):
        S_t, v = variance(here, S0), (1 - there) / (1 - here) * (1 - here / there)
        x0, noise = here.sqrt() * S0 / S_t, (1 - here).sqrt() / S_t
        V = (there.sqrt() * x0 + (1 - there - v).clamp(min=0).sqrt() * noise) ** 2 * V + v
    return float(((V / S0 - 1 - (V / S0).log()) / 2).sum())


impulse, (a, b) = torch.eye(SIDE, dtype=torch.float64)[None], (0.6, 0.8)
wiener = ifft(a * S0 / variance(torch.tensor(a**2), S0) * fft(impulse))
torch.testing.assert_close(diffusion.GaussianField(S0).denoise(impulse, a, b), wiener)

counts = (10, 20, 50, 100, 250)
error = {name: [divergence(abar, S0, n) for n in counts] for name, abar in table.items()}
at_50 = {name: values[counts.index(50)] for name, values in error.items()}
print("error after 50 steps: " + ", ".join(f"{name} {v:.1f}" for name, v in at_50.items()))
f = torch.fft.fftfreq(SIDE, 1 / SIDE, dtype=torch.float64)
radius = (f[:, None] ** 2 + f**2).sqrt()


def departure(d, k):
    """Length over the shortest, and error at 50 steps over the shortest path's."""
    abar = shortest_path(tau * (1 + d * (1 - tau) * torch.cos(2 * math.pi * k * radius / SIDE)), S0)
    walked = fisher_steps(variance(abar, S0)).sum() / shortest
    return walked, divergence(abar, S0, 50) / at_50["shortest path"]


sizes = delta * np.array([-1, -0.5, 0, 0.5, 1])
away = {k: np.array([departure(d, k) for d in sizes]) for k in (1, 2)}

fig, axes = plt.subplots(1, 4, figsize=(11.5, 3.3), layout="constrained")
for name in table:
    style = {"color": COLOUR[name], "lw": 4 if name == "shortest path" else 1.5}
    style["ls"] = "--" if name == "linear, even" else "-"
    axes[0].semilogy(np.arange(T) / T, speed[name], label=name, **style)
    axes[1].loglog(counts, error[name], **style)
axes[0].set(xlabel="t / T", ylabel="Fisher speed / mean of shortest", ylim=(1e-2, 30))
axes[1].set(xlabel="sampling steps", ylabel="error (nats)", xticks=counts, xticklabels=counts)
axes[1].minorticks_off()
for axis, column in zip(axes[2:], (0, 1)):
    for k, colour, mark in ((1, BLACK, "o-"), (2, GREY, "s--")):
        axis.plot(sizes, away[k][:, column], mark, color=colour, label=f"k = {k}")
    axis.axhline(1, color=GREY, lw=0.8)
axes[2].set(xlabel=r"departure $\delta$", ylabel="length / shortest")
axes[3].set(xlabel=r"departure $\delta$", ylabel="error / shortest path's")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=9)
fig.legend(*axes[3].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=9)
plt.show()

text = "departures of size delta make the path longer: least length over the shortest"
claim(SPD, text, min(values[[0, -1], 0].min() for values in away.values()), at_least=1.0008)
text = "50 steps, ideal denoiser: error of the shortest path over that of the better DDPM schedule"
claim(SPD, text, at_50["shortest path"] / min(at_50["linear"], at_50["cosine"]), at_most=0.4)
text = "control: error of DDPM's own path at an even pace over the shortest path's, 50 steps"
claim(SPD, text, at_50["linear, even"] / at_50["shortest path"], at_least=0.9, at_most=1.1)
text = "against the paper: some departure lowers the error; least over the shortest path's"
claim(SPD, text, min(values[:, 1].min() for values in away.values()), at_most=0.9)

# %% [markdown]
# Here the story turns. The shortest path is far better than both DDPM schedules, as the paper says.
# But **so is DDPM's own path at an even pace**, the black dashes on the blue line. With an ideal
# denoiser what helps is to spread the Fisher length evenly; that frequencies go separate ways adds
# next to nothing. Nor is the shortest path the best one for this sampler: departures to one side
# lengthen it and lower the error. Fisher's length has no direction; a sampler has one.
#
# ## 3. With a network
#
# A network has to learn its denoiser, so we train three on digits: same network, same initial
# weights, same draws, only the table of $\bar\alpha_t(f)$ differs. Around the network we put what
# the library puts around every one (inputs of variance one, a *v* target), but per frequency, so
# that it starts at Wiener's filter. The paper's network predicts $\epsilon$ directly.

# %%
(digits_train, _), (digits_held, _) = diffusion.digit_images(1200, generator=draws(10))
centre, scale = digits_train.mean(), digits_train.std()
digits_train, digits_held = ((x - centre) / scale for x in (digits_train, digits_held))
S0_digits = fft(digits_train.double()).abs().square().mean(dim=(0, 1))
root = S0_digits.sqrt().float()
digit_tables = tables(S0_digits)


def frame(abar):
    """sqrt(alpha_bar), sqrt(1 - alpha_bar), the std of x_t, and the shares p, q of x0 and eps."""
    a, b = abar.sqrt().float(), (1 - abar).sqrt().float()
    std = variance(abar, S0_digits).sqrt().float()
    return a, b, std, a * root / std, b / std


def learned(abar):
    """A network that predicts p eps - q x0 / sqrt(S0), in coordinates of variance one."""
    network, generator = diffusion.Mlp(64, 128, 2, generator=draws(11)), draws(12)

    def loss(index):
        x0 = digits_train[index]
        t = torch.randint(1, T + 1, (len(x0),), generator=generator)
        a, b, std, p, q = (v[:, None] for v in frame(abar[t]))
        X0, E = fft(x0), fft(torch.randn(x0.shape, generator=generator))
        target = ifft(p * E - q * X0 / root)
        return (network(ifft((a * X0 + b * E) / std), 20 - 40 * t / T) - target).square().mean()

    common = {"lr": 3e-3, "ema": 0.99, "generator": generator}
    diffusion.descend(network, loss, len(digits_train), steps=digit_steps, **common)
    return network


@torch.no_grad()
def draw_digits(network, abar, n):
    """Ancestral sampling per frequency in n steps, (597, 1, 8, 8)."""
    x, generator = randn(digits_held.shape, 13, torch.float32), draws(14)
    for t, t_ in pairwise((T - torch.arange(n + 1) * T / n).round().long()):
        (a, b, std, p, q), (a_, b_, *_) = frame(abar[t]), frame(abar[t_])
        X = fft(x)
        X0 = root * (p * X / std - q * fft(network(ifft(X / std), 20 - 40 * t / T)))
        v = (b_ / b) ** 2 * (1 - (a / a_) ** 2)
        fresh = v.sqrt() * fft(torch.randn(x.shape, generator=generator))
        x = ifft(a_ * X0 + (b_**2 - v).clamp(min=0).sqrt() * (X - a * X0) / b + fresh)
    return x


def spectrum_error(x, y):
    """Root mean square difference of log power, over frequencies."""
    X, Y = (fft(z.double()).abs().square().mean(dim=(0, 1)).log() for z in (x, y))
    return float((X - Y).square().mean().sqrt())


digit_error = {}
for name in ("shortest path", "linear", "linear, even"):
    network = learned(digit_tables[name])
    for n in (10, 50):
        x = draw_digits(network, digit_tables[name], n)
        digit_error[name, n] = spectrum_error(x, digits_held)
        metric(f"digits_spectrum_error_{n}_steps_{name}", digit_error[name, n])
everything = torch.cat([digits_train, digits_held])
band = diffusion.null_band(everything, spectrum_error, len(digits_held), 40, generator=draws(15))
print(f"digits against digits, 95 %: {band.low:.3f} to {band.high:.3f}")
text = "digits, learned denoisers, 10 steps: spectrum error, shortest path over linear DDPM"
claim(SPD, text, digit_error["shortest path", 10] / digit_error["linear", 10], at_most=0.8)
ratio = digit_error["shortest path", 50] / digit_error["linear", 50]
metric("digits_spectrum_error_50_steps_shortest_over_linear", ratio)

# %% [markdown]
# With ten steps the sampler's own error rules and the shortest path wins, mostly for its even pace.
# With 50 the network's error counts too, and the order of the three depends on the seed: there we
# claim nothing.
#
# ## 4. Blur and noise
#
# The second paper starts from the same spectrum. Make an image twice as large: each of its low
# frequencies collects four times as much signal, because four times as many pixels agree about it,
# while white noise, in which pixels do not agree, stays as it is. **The same $\sigma$ is less noise
# on a larger image.** *Block noise* is noise that agrees: $s^2$ shifted copies of a white field,
# summed and divided by $s$. (Not by $s^2$, which would lose the variance.)
#
# So a large image can be drawn coarse first, at low resolution. What is missing is a way to hand
# over. In the DCT $V$ of each $s \times s$ patch the relay fades all but the mean, while it adds
# noise $n$, white with 0.15 of block noise:
#
# $$x_u = V D_u V^\top x + \sigma_u n, \qquad
#   D_u = 0.999\, e^{-\lambda \tau_u} + 0.001, \qquad
#   \lambda_{ij} = \frac{\pi^2 (i^2 + j^2)}{s^2}, \quad
#   \tau_u = \tfrac12 \big(3 \sin^2 \tfrac{\pi u}{2}\big)^2 .$$
#
# At $u = 1$ each patch is its mean: the low-resolution image, enlarged by nearest neighbour. The
# noise is that of EDM, $\sigma_u = \exp(1.2\, \Phi^{-1}(0.93\, u) - 1.2)$, cut off at 1.77: more
# than that the low resolution has seen already.


# %%
dct_matrix = {s: torch.from_numpy(dct(np.eye(s), norm="ortho", axis=0)) for s in (2, 4, 8)}


def blur_factors(u, s, sigma_max=3.0, least=0.001):
    """D_u (..., s, s) at times u (...)."""
    k2 = (math.pi * torch.arange(s, dtype=torch.float64) / s) ** 2
    u = torch.as_tensor(u, dtype=torch.float64)[..., None, None]
    blur = sigma_max * (math.pi * u / 2).sin() ** 2
    return torch.exp(-(k2[:, None] + k2) * blur**2 / 2) * (1 - least) + least


def by_patch(x, D):
    """V D V^T x for images (B, 1, H, W), with factors D (s, s) or (B, s, s) of each patch's DCT."""
    s, (*_, H, W) = D.shape[-1], x.shape
    V = dct_matrix[s].to(x)
    patches = x.reshape(-1, H // s, s, W // s, s).transpose(2, 3)
    D = D.to(x).expand(len(patches), s, s)[:, None, None]
    return (V.T @ (D * (V @ patches @ V.T)) @ V).transpose(2, 3).reshape(x.shape)


def sigma_of(u):
    u = torch.as_tensor(u, dtype=torch.float64)
    return (1.2 * torch.special.ndtri(prob_length * u) - 1.2).exp()


def u_of(sigma):
    sigma = torch.as_tensor(sigma, dtype=torch.float64)
    return (torch.special.ndtr((sigma.log() + 1.2) / 1.2) / prob_length).clamp(max=1)


def block_noise(white, s):
    return sum(white.roll((i, j), (-2, -1)) for i in range(s) for j in range(s)) / s


def relay_noise(shape, generator, dtype, s=S):
    white, other = torch.randn((2, *shape), generator=generator, dtype=dtype)
    return white + BLOCK * block_noise(other, s)


def enlarge(x, s):
    return F.interpolate(x, scale_factor=s, mode="nearest")


def low_power(x):
    """Mean power in the lowest 4 x 4 block of the orthonormal DCT."""
    return float(np.square(dctn(x.numpy(), axes=(-2, -1), norm="ortho")[..., :4, :4]).mean())


big = sample_patches(photographs, 64, n_photos, np.random.default_rng(seed + 1))
big = torch.from_numpy(big).float().view(-1, 1, 64, 64)
few, sides, snr = big[:800] - big.mean(), (8, 16, 32, 64), {"white": [], "block": []}
for side in sides:
    signal = low_power(F.avg_pool2d(few, 64 // side))
    white = randn((len(few), 1, side, side), 20)
    snr["white"].append(signal / low_power(white))
    snr["block"].append(signal / low_power(block_noise(white, side // 8)))
for name, values in snr.items():
    print(f"{name} noise: " + ", ".join(f"{side} px {v:.3g}" for side, v in zip(sides, values)))

blur_error = {}
for s in (2, 4, 8):
    means = enlarge(F.avg_pool2d(few, s), s)
    blur_error[s] = float((by_patch(few, blur_factors(1, s)) - means).norm() / means.norm())
    print(f"hand-over with {s} x {s} patches: {blur_error[s]:.2%} off")
per_doubling = np.divide(snr["white"][1:], snr["white"][:-1])
text = "white noise: low-frequency signal-to-noise, factor per doubling of the side; farthest of 4"
claim(RELAY, text, max(per_doubling, key=lambda v: abs(v - 4)), at_least=3.7, at_most=4.3)
text = "block noise with s = side/8: signal-to-noise at low frequencies, largest over that at 8 px"
claim(RELAY, text, max(snr["block"]) / snr["block"][0], at_most=1.45)
text = "blur at u = 1 against enlarged patch means, relative error, worse of 2 x 2 and 4 x 4"
claim(RELAY, text, 100 * max(blur_error[2], blur_error[4]), at_most=2, unit="%")

# %% tags=["cover"]
face = torch.from_numpy(natural_images(["astronaut"])[0][64:192, 160:288]).double()
face = 2 * F.avg_pool2d(face[None, None], 4) - 1
rows, moments = ("linear", "shortest path", "blur and noise"), (0, 0.2, 0.4, 0.6, 0.8, 1)


def taken_apart(name, t, x):
    """Images x (B, 1, 32, 32) at t from 0 to 1."""
    if name == "blur and noise":
        noise = relay_noise(x.shape, draws(1), x.dtype, 4)
        return by_patch(x, blur_factors(t, 4)) + sigma_of(t) * noise
    eps = randn(x.shape, 1)
    abar = table[name][round(t * T)]
    return ifft(abar.sqrt() * fft(x) + (1 - abar).sqrt() * fft(eps))


fig = plt.figure(figsize=(11, 5.1), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[3.2, 1])
axes, spectra = left.subplots(3, 6), right.subplots(3, 1, sharex=True)
for row, axis, name in zip(axes, spectra, rows):
    for cell, t in zip(row, moments):
        show_image(cell, taken_apart(name, t, face)[0, 0], f"t = {t} T" if name == rows[0] else "")
        frequencies, power = diffusion.radial_spectrum(taken_apart(name, t, crops[:500]))
        axis.loglog(frequencies[1:], power[1:], color=plt.cm.viridis(0.9 * t))
    row[0].set_ylabel({"linear": "DDPM, linear"}.get(name, name), fontsize=10)
    axis.set(ylim=(2e-3, 20), ylabel="power")
spectra[-1].set(xlabel="cycles per image", xticks=[1, 2, 4, 8, 16], xticklabels=[1, 2, 4, 8, 16])
spectra[0].set_title("spectra, t = 0 (dark) to T", fontsize=9)
plt.show()

# %% [markdown]
# Three ways to take a face apart. DDPM lifts the floor, and the fine frequencies go under first.
# The shortest path turns the whole line about its crossing with one, all frequencies arriving
# together. Blur and noise fades the fine frequencies while it drowns them: at the end a blocky face
# is left under noise. On our 32 pixels it is a lot of noise; the paper's images have 256. With the
# paper's patches of $4 \times 4$ the hand-over is exact to within two per cent; for $8 \times 8$ a
# blur of 3 pixels does not reach across the patch.
#
# ## 5. The relay's step
#
# The sampler blurs the estimate $\hat x_0$ to the next level and carries the noise over. With
# $d = (x - \hat x_0)/\sigma$, everything in the patch DCT, primes for the next level, $a = D_u$ and
# $g = \sqrt{1 - s_n^2}\,\sigma'/\sigma$,
#
# $$x' = (a' + g - g a)\, x + \sigma\,(g a - a')\, d + s_n\, \sigma'\, n .$$
#
# A second evaluation at $x'$ gives another $d$, and the step is repeated with the mean of both.
# Without blur ($a = 1$) and fresh noise that is Heun's method of EDM, which we use as a check.


# %%
@torch.no_grad()
def relay(denoise, x, n, s_n=0.0, generator=None, sigma_max=3.0):
    """From x (B, 1, H, W) under noise of standard deviation sigma_of(1) to clean images."""
    for sigma, next_ in pairwise(levels(n)[1].tolist()):
        x0 = denoise(x, 1.0, sigma)
        if next_ == 0:
            return x0
        a, a_ = (blur_factors(u_of(v), S, sigma_max) for v in (sigma, next_))
        g = math.sqrt(1 - s_n**2) * next_ / sigma
        kept, d = by_patch(x, a_ + g - g * a), (x - x0) / sigma
        for second in (False, True):
            x = kept + by_patch(d, sigma * (g * a - a_))
            if s_n > 0:
                x = x + s_n * next_ * relay_noise(x.shape, generator, x.dtype)
            if not second:
                d = (d + (x - denoise(x, 1.0, next_)) / next_) / 2
    return x


def levels(n, top=float(sigma_of(1))):
    return diffusion.edm(0.02, top).steps(n)


pooled = fft(F.avg_pool2d(crops, SIDE // FINE))
field = diffusion.GaussianField(pooled.abs().square().mean(dim=(0, 1)))
x = randn((4, 1, FINE, FINE), 22)
plain = diffusion.generate(field.denoise, x, levels(6), "heun")
torch.testing.assert_close(relay(field.denoise, x, 6, sigma_max=0.0), plain)

# %% [markdown]
# ## 6. The relay, learned
#
# Photographs of $16 \times 16$, and small U-Nets. The relay's network sees blurred, noisy images,
# with EDM's loss, $\frac{\sigma^2 + \sigma_d^2}{(\sigma \sigma_d)^2}\,\|\hat x_0 - x_0\|^2$. The
# stage before it learns $8 \times 8$ images with $\log \sigma \sim \mathcal N(-1.2, 1.2^2)$, EDM's
# levels. The baselines learn $16 \times 16$ from noise. One trains at these levels and takes as
# many steps, in training and in sampling. The other, *moved*, heeds section 4: a doubled side asks
# for a doubled $\sigma$, so the levels it *trains* at are moved up by $\log 2$ (Hoogeboom et al.
# 2023); both are sampled from $\sigma = 20$ downwards. It gets on top what the first stage costs, a
# quarter more training and a quarter more sampling steps.
#
# Two controls take the relay apart. *No blur* is a relay trained and run without blur, handed the
# same images. *Real 8 x 8* is the relay, handed reduced training crops in place of what the first
# stage draws. Images are compared with held-out crops, whole, and in their *detail*, what is left
# of them without the means of $2 \times 2$ pixels. Training and held-out crops are cut at random
# from the **same ten photographs** and may overlap: the distances tell how well a law is drawn, not
# what a network would do with another photograph.

# %%
photos = F.avg_pool2d(big, 64 // FINE) - big.mean()
held, seen = photos[: n_photos // 4], photos[n_photos // 4 :]
sigma_data = float(seen.std())


def unet(side, stream):
    network = diffusion.TinyUNet(8, side, generator=draws(stream))
    return diffusion.NetworkDenoiser(network, sigma_data=sigma_data)


def learn_from_noise(data, steps, stream, moved=0.0):
    denoiser, density = unet(data.shape[-1], stream), diffusion.edm_density(-1.2 + moved, 1.2)
    common = {"batch_size": 64, "ema": 0.99, "generator": draws(stream + 1)}
    diffusion.train(denoiser, data, steps=steps, levels=density, **common)
    return denoiser


def learn_relay(data, steps, stream, sigma_max=3.0):
    denoiser, generator = unet(FINE, stream), draws(stream + 1)

    def loss(index):
        x0, n = data[index], len(index)
        u = ((torch.arange(n) + torch.rand(n, generator=generator)) / n).clamp(min=0.003)
        sigma = sigma_of(u).float()
        noise = sigma[:, None, None, None] * relay_noise(x0.shape, generator, x0.dtype)
        x = by_patch(x0, blur_factors(u, S, sigma_max)) + noise
        weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
        return (weight * (denoiser(x, 1.0, sigma) - x0).square().mean(dim=(1, 2, 3))).mean()

    common = {"batch_size": 64, "ema": 0.99, "generator": generator}
    diffusion.descend(denoiser, loss, len(data), steps=steps, **common)
    return denoiser


def walk(denoiser, n):
    side = denoiser.network.shape[-1]
    noise = WIDE * randn((len(held), 1, side, side), 40, torch.float32)
    return diffusion.generate(denoiser, noise, levels(n, WIDE), "heun")


def detail(x):
    return x - enlarge(F.avg_pool2d(x, S), S)


def sliced(x, y):
    return diffusion.sliced_wasserstein(x, y, generator=draws(42))


def hand_over(low):
    noise = relay_noise(held.shape, draws(41), held.dtype)
    return enlarge(low, S) + float(sigma_of(1)) * noise


def run(denoiser, low, **kwargs):
    return relay(denoiser, hand_over(low), sampling_steps, s_noise, draws(44), **kwargs)


longer, more = (round(1.25 * n) for n in (relay_steps, sampling_steps))
low = walk(learn_from_noise(F.avg_pool2d(seen, S), relay_steps, 33), sampling_steps)
second, no_blur = (learn_relay(seen, relay_steps, 31, sigma_max=v) for v in (3.0, 0.0))
drawn = {
    "from noise": walk(learn_from_noise(seen, relay_steps, 31), sampling_steps),
    "from noise, moved": walk(learn_from_noise(seen, longer, 31, math.log(2)), more),
    "relay": run(second, low),
    "relay, no blur": run(no_blur, low, sigma_max=0.0),
    "relay, real 8 x 8": run(second, F.avg_pool2d(seen[: len(held)], S)),
}
score, band = {}, {}
for what, part in {"images": lambda x: x, "detail": detail}.items():
    band[what] = diffusion.null_band(part(photos), sliced, len(held), 20, generator=draws(43))
    print(f"{what}, real against real, 95 %: {band[what].low:.4f} to {band[what].high:.4f}")
    score[what] = {name: sliced(part(x), part(held)) for name, x in drawn.items()}
    for name, value in score[what].items():
        metric(f"distance_{what}_{name}", value)
images, details = score.values()
text = "learned, equal steps: distance of detail, relay over from noise"
claim(RELAY, text, details["relay"] / details["from noise"], at_most=0.85)
text = "learned, equal compute: distance of detail, relay over from noise, moved"
claim(RELAY, text, details["relay"] / details["from noise, moved"], at_most=0.85)
text = "control: distance of detail, a relay without blur over from noise"
claim(RELAY, text, details["relay, no blur"] / details["from noise"], at_most=0.95)
text = "distance of detail, relay over a relay without blur"
claim(RELAY, text, details["relay"] / details["relay, no blur"], at_most=1.1)
text = "distance of whole images, relay from real 8 x 8 images over from noise"
claim(RELAY, text, images["relay, real 8 x 8"] / images["from noise"], at_most=0.9)

# %%
shown = {
    "first stage, 8 x 8": low, "handed over": hand_over(low) / 2.5, "relay": drawn["relay"],
    "from noise, moved": drawn["from noise, moved"], "photographs": held,
}  # fmt: skip
fig = plt.figure(figsize=(12, 4.3), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[1.6, 1])
for row, (name, x) in zip(left.subplots(5, 8), shown.items()):
    for cell, image in zip(row, x):
        show_image(cell, image[0])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
for axis, what in zip(right.subplots(1, 2, sharey=True), score):
    axis.axvspan(band[what].low, band[what].high, color=GREY, alpha=0.3, lw=0)
    for y, name in enumerate(drawn):
        axis.plot(score[what][name], y, "o", color=ORANGE if "relay" in name else BLUE)
    axis.set(xlabel=f"distance, {what}", xlim=(0, None), yticks=range(5), yticklabels=drawn)
axis.invert_yaxis()
plt.show()

# %% [markdown]
# Grey is what photographs score against photographs. The **detail** that the relay draws is nearer
# to it than either baseline's, by more than a quarter: its network had one task, and a short way to
# go. That is most of it. Blur adds up to a quarter, at some seeds nothing: at $\sigma = 1.77$ the
# noise drowns what blur would take away. (With `prob_length` 0.3 it does more, but there the relay
# hardly beats the start from noise, if at all.) **Whole images**, which brightness and coarse
# shapes rule, show no reliable gain. This is not the relay's fault: from real $8 \times 8$ images
# it comes near the grey band or into it. Most of what is missing has been lost in the first stage.
#
# ## 7. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: half way along the shortest path
#
# Return the ratio of signal to noise, $\bar\alpha S_0 / (1 - \bar\alpha)$, at $\tau$ on the
# shortest path, for a power `S0` other than one. What is it at $\tau = \frac12$?
#
# <details><summary>Hint</summary>
#
# Put $\bar\alpha = (1 - S_0^\tau)/(1 - S_0)$ in and multiply above and below by $1 - S_0$.
#
# </details>


# %% tags=["exercise"]
def signal_to_noise(S0, tau):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def signal_to_noise_solution(S0, tau):
    abar = (1 - S0**tau) / (1 - S0)
    return abar * S0 / (1 - abar)


# %% tags=["check"]
check(signal_to_noise, signal_to_noise_solution, lambda rng: rng.uniform([1.5, 0.1], [50, 0.9]))

# %% [markdown]
# ### Exercise 2: a step of the relay
#
# For one frequency: given `x`, the estimate `x0`, the factors `a` and `a_` of this level and the
# next, their noises `sigma` and `sigma_`, return the next `x` without fresh noise. Blur the
# estimate to the next level and carry the noise $x - a \hat x_0$ over, scaled to `sigma_`.
#
# <details><summary>Hint</summary>
#
# No $d$ is needed. With $g = \sigma'/\sigma$ it is $a' \hat x_0 + g\,(x - a \hat x_0)$.
#
# </details>


# %% tags=["exercise"]
def relay_step(x, x0, a, a_, sigma, sigma_):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def relay_step_solution(x, x0, a, a_, sigma, sigma_):
    return a_ * x0 + sigma_ / sigma * (x - a * x0)


# %% tags=["check"]
check(relay_step, relay_step_solution, lambda rng: tuple(rng.uniform(0.1, 1, 6)))

# %% [markdown]
# ## 8. What did not reproduce, and what is smaller here
#
# - **"Any small deviation leads to worse performance."** Not so for the ideal denoiser of a
#   Gaussian field. The paper measured the FID of networks trained on CIFAR-10, another yardstick.
# - **Why the shortest path is better.** Mostly by its pace: DDPM's own noise, walked evenly, does
#   nearly as well. The paper has no such control.
# - **The unit of a pixel matters.** White noise ends at power one, so the path changes if pixels
#   are scaled. We use the measured spectrum; the paper fits one to CIFAR-10.
# - **The relay as a whole** draws better detail, not better images. But 8 to 16 pixels is no test
#   of 64 to 256 with large networks. By section 4, the same $\sigma = 1.77$ is sixteen times less
#   noise there, so that blur should matter more.
# - **Left out**: FID, blurring rivals and $T = 4000$ of the first paper; class labels, guidance
#   and resolutions beyond 16 pixels of the second.
#
# **Next.** *diffusion/02_what_a_schedule_hides*; S. Rissanen, M. Heinonen and A. Solin, *Generative
# modelling with inverse heat dissipation*, and E. Hoogeboom and T. Salimans, *Blurring diffusion
# models* (both ICLR 2023); E. Hoogeboom, J. Heek and T. Salimans, *Simple diffusion* (ICML 2023).

# %%
# NBVAL_CHECK_OUTPUT
summary()
