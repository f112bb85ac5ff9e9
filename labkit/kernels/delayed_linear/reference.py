"""Delayed synapses in plain PyTorch: what `labkit.kernels.delayed_linear` means.

    y[t, b, o] = sum_i sum_d K[o, i, d] x[t - d, b, i],    x before step 0 is 0

The kernel K holds one weight and one real-valued delay a synapse, spread over the steps near it:

    K[o, i, d] = w X_d,    X_d = G_d / (sum_e G_e + 1e-7),    d, e = 0 .. max_delay

with a Gaussian G_d = exp(-1/2 ((d - delay) / width)^2), or a triangle G_d = max(0, width - |d -
delay|), or, for rounded delays, the one-hot X_d = [d = round(delay)].

Khalfaoui-Hassani et al., Dilated convolution with learnable spacings (2021), and beyond bilinear
interpolation (2023); as delays: Hammouamri et al., Learning delays in spiking neural networks using
dilated convolutions with learnable spacings (2024), section 3. The package `dcls` keeps positions P
about the middle of a kernel of Kd = max_delay + 1 steps that runs backwards in time:

    delay = Kd - 1 - (P + Kd // 2)
    width = |SIG| + 0.27   for its version "gauss"
    width = |SIG| + 1      for its version "max";   width = 1 for "v1"

Delays of one axon (a channel of x) or one dendrite (a channel of y) need no dense kernel: they
shift the channels before or after one matrix product.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.checks import check_choice

INTERPOLATIONS = ("gaussian", "triangular")


def delay_kernel(
    weight: Tensor,
    delay: Tensor,
    width: Tensor | float | None = None,
    max_delay: int | None = None,
    interpolation: str = "gaussian",
) -> Tensor:
    """The kernel K (out, in, max_delay + 1) of weight (out, in) and delay in steps; see above.

    delay and width (in steps) broadcast to weight. ``width=None`` rounds the delays; ``max_delay=
    None`` is the smallest that holds them all.
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    last = smallest_max_delay(delay, width) if max_delay is None else max_delay
    return weight[..., None] * taps(delay, width, last + 1, interpolation)


def smallest_max_delay(delay: Tensor, width: Tensor | float | None) -> int:
    """Steps to the last one that a kernel of these delays needs: round(max), or ceil(max)."""
    if delay.numel() == 0:
        return 0
    longest = delay.detach().max()
    return int(rounded(longest) if width is None else longest.ceil())


def rounded(delay: Tensor) -> Tensor:
    """Whole steps nearest to delay, int64; a half goes to the even one, as in `torch.round`."""
    return (delay.detach().round() if delay.is_floating_point() else delay).long()


def taps(
    delay: Tensor, width: Tensor | float | None, steps: int, interpolation: str = "gaussian"
) -> Tensor:
    """X of shape (*delay.shape, steps): the share of each step 0 .. steps - 1 in each delay."""
    d = torch.arange(steps, device=delay.device)
    if width is None:
        return (d == rounded(delay)[..., None]).to(torch.get_default_dtype())
    distance = d - delay[..., None]
    width = torch.as_tensor(width, dtype=delay.dtype, device=delay.device)
    width = width.expand(delay.shape)[..., None]
    if interpolation == "gaussian":
        G = torch.exp(-0.5 * (distance / width) ** 2)
    else:
        G = F.relu(width - distance.abs())
    return G / (G.sum(dim=-1, keepdim=True) + 1e-7)


def synaptic(
    x: Tensor,
    weight: Tensor,
    delay: Tensor,
    width: Tensor | None,
    steps: int,
    interpolation: str,
) -> Tensor:
    """One delay a synapse: x (T, B, in), weight, delay and width (out, in) -> (T, B, out)."""
    X = taps(delay, width, steps, interpolation).to(weight.dtype)
    return convolve(x, weight[..., None] * X)


def convolve(x: Tensor, K: Tensor) -> Tensor:
    """The sum above: x (T, B, in), K (out, in, steps) -> (T, B, out)."""
    # PyTorch convolves without turning the kernel round: its last tap meets the newest input.
    past = F.pad(x.permute(1, 2, 0), (K.shape[-1] - 1, 0))
    return F.conv1d(past, K.flip(-1)).permute(2, 0, 1).contiguous()


def per_channel(x: Tensor, delay: Tensor, width: Tensor, steps: int, interpolation: str) -> Tensor:
    """One delay a channel: x (T, B, C), delay and width (C,) -> (T, B, C)."""
    return convolve_channels(x, taps(delay, width, steps, interpolation))


def shift(x: Tensor, steps: Tensor) -> Tensor:
    """Shift x (T, B, C) later by steps (C,), whole numbers."""
    source = torch.arange(x.shape[0], device=x.device)[:, None] - steps
    earlier = x.gather(0, source.clamp(min=0)[:, None].expand(x.shape))
    return earlier.masked_fill((source < 0)[:, None], 0)


def convolve_channels(x: Tensor, X: Tensor) -> Tensor:
    """Every channel of x (T, B, C) with its own taps X (C, steps)."""
    past = F.pad(x.permute(1, 2, 0), (X.shape[-1] - 1, 0))
    y = F.conv1d(past, X.flip(-1)[:, None], groups=x.shape[2])
    return y.permute(2, 0, 1).contiguous()
