"""Networks that learn to denoise, and what makes a denoiser of one.

A network here is a module called as `network(x, logsnr, label)`: it sees inputs of variance one,
the log signal-to-noise ratio lambda = log(alpha^2 / sigma^2) and, if it was built with classes, a
label. It knows neither process nor prediction. `NetworkDenoiser` puts these around it:

    net = NetworkDenoiser(Mlp(64, n_classes=10, generator=g), "v", sigma_data=0.75)
    x0_hat = net(x, alpha, sigma, label)              # E[x0 | x, label]
    conditional = partial(net, label=y)               # a denoiser (x, alpha, sigma) -> x0_hat
    unconditional = net                               # no label: the null label
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from labkit.checks import check_choice, check_count, check_positive
from labkit.diffusion.predictions import PREDICTIONS, Level, expand, is_one, to_x0
from labkit.seeding import seeded

MAX_LOGSNR = 20.0  # beyond +-20 a sample is clean or noise to float32: nothing left to tell apart
N_FREQUENCIES = 8
CONDITIONING = 64  # numbers that tell a block of level and class
GROUPS = 4  # of channels, for group norm
NULL = -1  # label of a sample without one

# ------------------------------------------------------------------ conditioning


class Conditioning(nn.Module):
    """Noise level and class label as one vector, (B, 64), or (1, 64) where all samples share it.

    lambda, clamped to [-20, 20], becomes cosines and sines of 8 geometric frequencies, from half a
    period over that range to one of 4 units, and then a vector; that of the class is added.
    Class k has row k + 1 of a table, and row 0 is the null label of classifier-free guidance (Ho &
    Salimans 2022).
    """

    def __init__(self, n_classes: int | None, *, noise_conditioning: bool) -> None:
        super().__init__()
        self.n_classes, self.noise_conditioning = n_classes, noise_conditioning
        lowest, highest = math.pi / (2 * MAX_LOGSNR), math.pi / 2
        frequencies = torch.logspace(math.log10(lowest), math.log10(highest), N_FREQUENCIES)
        self.register_buffer("frequencies", frequencies)
        self.level = nn.Linear(2 * N_FREQUENCIES, CONDITIONING)
        self.classes = None
        if n_classes is not None:
            self.classes = nn.Embedding(n_classes + 1, CONDITIONING)
            nn.init.normal_(self.classes.weight, std=0.5)
        self.mix = nn.Linear(CONDITIONING, CONDITIONING)

    def forward(self, logsnr: Tensor, label: Tensor | None) -> Tensor:
        if not self.noise_conditioning:
            logsnr = logsnr.new_zeros(1)
        logsnr = logsnr.reshape(-1, 1).clamp(-MAX_LOGSNR, MAX_LOGSNR)
        angles = logsnr.to(self.frequencies.dtype) * self.frequencies
        h = self.level(torch.cat([angles.cos(), angles.sin()], dim=1))
        if self.classes is not None:
            label = torch.full((1,), NULL, device=h.device) if label is None else label
            h = h + self.classes(label + 1)
        return F.silu(self.mix(F.silu(h)))


def check_label(label: Tensor | None, n_classes: int | None, x: Tensor) -> None:
    """Raise unless label is None or (B,) int64 from 0 to n_classes - 1, or -1 for no label."""
    if label is None:
        return
    if n_classes is None:
        raise ValueError("this network knows no classes: build it with n_classes, or give no label")
    if not isinstance(label, Tensor) or label.dtype != torch.int64:
        kind = label.dtype if isinstance(label, Tensor) else type(label).__name__
        raise TypeError(f"label must be a torch.int64 tensor (B,), not {kind}")
    if label.shape != x.shape[:1]:
        raise ValueError(
            f"label must be (B,) = ({len(x)},) as x is {tuple(x.shape)}, not {tuple(label.shape)}"
        )
    if len(label) and not (label.min() >= NULL and label.max() < n_classes):
        raise ValueError(
            f"label must hold classes from 0 to {n_classes - 1}, or {NULL} for none, not "
            f"{int(label.min())} to {int(label.max())}"
        )


# ------------------------------------------------------------------ networks


class Mlp(nn.Module):
    """Residual perceptron for points, and for images small enough to be taken as points.

    Each of its blocks is h + W2 SiLU(W1 LayerNorm(h) + U c), with c the conditioning. The last
    layer starts at zero.

    Parameters
    ----------
    d : numbers per sample; x is (B, ...) with d values per sample, and the output is like x
    width : of the residual stream and the hidden layers
    depth : blocks
    n_classes : classes 0 to n_classes - 1 may be given as label; None knows no labels
    noise_conditioning : False hides the noise level: a blind denoiser (Sun et al. 2025)
    generator : draws the weights
    """

    def __init__(
        self,
        d: int,
        width: int = 128,
        depth: int = 3,
        n_classes: int | None = None,
        *,
        noise_conditioning: bool = True,
        generator: Generator,
    ) -> None:
        super().__init__()
        check_count(d=d, width=width, depth=depth)
        _check_classes(n_classes)
        self.d, self.n_classes = d, n_classes
        with seeded(generator):
            self.conditioning = Conditioning(n_classes, noise_conditioning=noise_conditioning)
            self.first = nn.Linear(d, width)
            self.blocks = nn.ModuleList(_MlpBlock(width) for _ in range(depth))
            self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), _zero(nn.Linear(width, d)))

    def forward(self, x: Tensor, logsnr: Tensor, label: Tensor | None = None) -> Tensor:
        """Output like x (B, ...); logsnr () or (B,), label None or (B,)."""
        if x[:1].numel() != self.d:
            raise ValueError(
                f"x must be (B, ...) with {self.d} values per sample, not {tuple(x.shape)}"
            )
        check_label(label, self.n_classes, x)
        c = self.conditioning(logsnr, label)
        h = self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h, c)
        return self.last(h).view(x.shape)


class _MlpBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.shift = _zero(nn.Linear(CONDITIONING, width))

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        return h + self.outer(F.silu(self.inner(self.norm(h)) + self.shift(c)))


class TinyUNet(nn.Module):
    """U-Net of three resolutions, for images of 8 x 8 pixels or a few times that.

    Residual blocks at half and quarter resolution on the way down, at half and full on the way up,
    where skips are added. Blocks are those of Ho et al. 2020, group norm, SiLU and 3 x 3
    convolution, twice, with scale and shift linear in the conditioning (Dhariwal & Nichol 2021).
    At a quarter, 2 x 2 of 8 x 8 pixels, a convolution sees the whole image. The first block stands
    at half resolution and skips are not concatenated, for convolutions of large maps take most of
    the time, and channels-last memory, which is faster on CPUs. The last layer starts at zero.

    Parameters
    ----------
    channels : at full resolution, a multiple of 4; twice as many at half, four times at a quarter
    side : pixels per side, a multiple of 4
    n_classes : classes 0 to n_classes - 1 may be given as label; None knows no labels
    in_channels : of the images
    noise_conditioning : False hides the noise level: a blind denoiser (Sun et al. 2025)
    generator : draws the weights
    """

    def __init__(
        self,
        channels: int = 16,
        side: int = 8,
        n_classes: int | None = None,
        *,
        in_channels: int = 1,
        noise_conditioning: bool = True,
        generator: Generator,
    ) -> None:
        super().__init__()
        check_count(channels=channels, side=side, in_channels=in_channels)
        _check_classes(n_classes)
        if channels % GROUPS or side % 4:
            raise ValueError(
                f"channels must be a multiple of {GROUPS} and side of 4, not {channels} and {side}"
            )
        self.shape, self.n_classes = (in_channels, side, side), n_classes
        full, half, quarter = channels, 2 * channels, 4 * channels
        with seeded(generator):
            self.conditioning = Conditioning(n_classes, noise_conditioning=noise_conditioning)
            self.first = nn.Conv2d(in_channels, full, 3, padding=1)
            self.to_half = nn.Conv2d(full, half, 2, stride=2)
            self.down = _UNetBlock(half)
            self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
            self.middle = _UNetBlock(quarter)
            self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
            self.up_half = _UNetBlock(half)
            self.from_half = nn.ConvTranspose2d(half, full, 2, stride=2)
            self.up_full = _UNetBlock(full)
            self.norm = nn.GroupNorm(GROUPS, full)
            self.last = _zero(nn.Conv2d(full, in_channels, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, logsnr: Tensor, label: Tensor | None = None) -> Tensor:
        """Output like x (B, in_channels, side, side); logsnr () or (B,), label None or (B,)."""
        if x.shape[1:] != self.shape:
            shape = ", ".join(map(str, self.shape))
            raise ValueError(f"x must be (B, {shape}), not {tuple(x.shape)}")
        check_label(label, self.n_classes, x)
        c = self.conditioning(logsnr, label)
        full = self.first(x)
        half = self.down(self.to_half(full), c)
        quarter = self.middle(self.to_quarter(half), c)
        half = self.up_half(half + self.from_quarter(quarter), c)
        full = self.up_full(full + self.from_half(half), c)
        return self.last(F.silu(self.norm(full)))


class _UNetBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, channels), nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = _zero(nn.Linear(CONDITIONING, 2 * channels))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.film(c)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))


# ------------------------------------------------------------------ denoiser


class NetworkDenoiser(nn.Module):
    """The denoiser E[x0 | x] that a network stands for, in any process.

    With s = sqrt(alpha^2 sigma_data^2 + sigma^2), the standard deviation of x, the network sees

        x / s = a x0 / sigma_data + b eps,     a = alpha sigma_data / s,     b = sigma / s,

    a variance-preserving process of data of variance one, whatever alpha and sigma were. What it
    predicts is meant in these coordinates. With "v" this is the preconditioning of EDM (Karras et
    al. 2022, table 1), to the sign: c_skip x + c_out output. For sigma_data = 1 and alpha^2 +
    sigma^2 = 1 nothing changes, and the predictions are those of the papers; "velocity" is, for
    sigma_data = 1, eps - x0 in every process.

    Parameters
    ----------
    network : called as network(x, logsnr, label), with logsnr () or (B,)
    prediction : what it gives, one of "x0", "eps", "v", "score", "velocity"
    sigma_data : standard deviation of the data per coordinate
    """

    def __init__(
        self, network: nn.Module, prediction: str = "v", *, sigma_data: float = 1.0
    ) -> None:
        super().__init__()
        check_choice("prediction", prediction, PREDICTIONS)
        check_positive(sigma_data=sigma_data)
        self.network, self.prediction, self.sigma_data = network, prediction, sigma_data

    def forward(self, x: Tensor, alpha: Level, sigma: Level, label: Tensor | None = None) -> Tensor:
        """x0_hat like x (B, ...); alpha and sigma number, () or (B,), label None or (B,).

        The network computes in its own dtype, the answer has that of x.
        """
        output, z, a, b = self.predict(x, alpha, sigma, label)
        x0 = to_x0(self.prediction, output, z, a, b).to(x.dtype)
        return x0 if is_one(self.sigma_data) else self.sigma_data * x0

    def predict(
        self, x: Tensor, alpha: Level, sigma: Level, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Level, Level]:
        """What the network says and the coordinates it is meant in: output, x / s, a, b."""
        dtype = next(self.network.parameters()).dtype
        coordinates = self._of_tensors if _any_tensor(alpha, sigma) else self._of_numbers
        s, logsnr, a, b = coordinates(alpha, sigma, x, dtype)
        z = (x if is_one(s) else x / s).to(dtype)
        return self.network(z, logsnr, label), z, a, b

    def _of_tensors(
        self, alpha: Level, sigma: Level, x: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """s, logsnr, a, b, computed in float64."""
        like = {"dtype": torch.float64, "device": x.device}
        alpha, sigma = torch.as_tensor(alpha, **like), torch.as_tensor(sigma, **like)
        s = (alpha**2 * self.sigma_data**2 + sigma**2).sqrt()
        logsnr = (2 * (alpha.log() - sigma.log())).clamp(-MAX_LOGSNR, MAX_LOGSNR)
        a, b = (alpha * self.sigma_data / s).to(dtype), (sigma / s).to(dtype)
        return expand(s, x), logsnr.to(dtype), a, b

    def _of_numbers(
        self, alpha: float, sigma: float, x: Tensor, dtype: torch.dtype
    ) -> tuple[float, Tensor, float, float]:
        """The same without a tensor for each: samplers pass numbers, at every step."""
        s = math.hypot(alpha * self.sigma_data, sigma)
        logsnr = -MAX_LOGSNR if alpha == 0 else MAX_LOGSNR
        if alpha > 0 and sigma > 0:
            logsnr = max(-MAX_LOGSNR, min(MAX_LOGSNR, 2 * math.log(alpha / sigma)))
        logsnr = torch.tensor(logsnr, dtype=dtype, device=x.device)
        return s, logsnr, alpha * self.sigma_data / s, sigma / s


# ------------------------------------------------------------------ parts


def _any_tensor(*values: Level) -> bool:
    return any(isinstance(value, Tensor) for value in values)


def _zero(layer: nn.Module) -> nn.Module:
    """The layer with weights and bias zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _check_classes(n_classes: int | None) -> None:
    if n_classes is not None:
        check_count(n_classes=n_classes)
