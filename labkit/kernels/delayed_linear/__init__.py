"""Synaptic, axonal and dendritic delays: a linear layer with memory."""

from importlib import import_module
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.checks import check_broadcasts, check_choice, check_finite, check_floating, check_like
from labkit.kernels import dispatch
from labkit.kernels.delayed_linear.reference import (
    INTERPOLATIONS,
    delay_kernel,
    rounded,
    shift,
    smallest_max_delay,
)

__all__ = ["delay_kernel", "delayed_linear"]


def delayed_linear(
    x: Tensor,
    weight: Tensor,
    delay: Tensor,
    *,
    width: Tensor | float | None = None,
    interpolation: str = "gaussian",
    max_delay: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """A linear layer whose inputs arrive late: y[t, o] = sum_i sum_d K[o, i, d] x[t - d, i].

    Inputs before step 0 are 0. `reference.py` has the formula of K, its sources, and how width and
    delay map to the parameters SIG and P of the package `dcls`.

    Parameters
    ----------
    x : (T, B, in) spikes or currents
    weight : (out, in)
    delay : steps, not negative; (out, in): one a synapse, (1, in): one an axon, (out, 1): one a
        dendrite, (1, 1): one for all. Axons and dendrites cost one matrix product and a shift.
    width : None rounds the delays, a half to the even step; they may be whole numbers of any
        integer dtype, and no gradient flows to them. Otherwise the spread of each delay in steps, a
        number or a tensor that broadcasts to delay; gradients flow to delay and to width.
        "gaussian": the standard deviation, > 0 (`dcls`: |SIG| + 0.27); "triangular": half the
        base, >= 1, since a narrower triangle falls between the steps (`dcls`: |SIG| + 1).
    interpolation : "gaussian" or "triangular"; used with a width
    max_delay : the kernel holds delays 0 .. max_delay; None: the smallest that holds them all. A
        kernel that ends nearer to a delay is cut off and scaled back to the whole weight, so give
        max_delay while delays are learned.
    backend : "cpu" follows the non-zero inputs while these are few, and multiplies matrices when
        not; "gpu" builds the kernel in one pass and leaves the convolution to cuDNN; "reference"

    Returns
    -------
    (T, B, out), dtype and device of x. "cpu" and "reference" compute half precision in float32.

    Raises
    ------
    TypeError
        for x, weight, or, with a width, delay that are not floating point, and for mixed dtypes.
    ValueError
        for shapes that do not fit, tensors on several devices, weights, delays or widths that are
        not finite, delays below 0 or beyond max_delay, widths that are too small, and an unknown
        interpolation or back end.
    """
    _check(x, weight, delay, width, interpolation, max_delay)
    chosen = dispatch.choose("delayed_linear", backend, x)
    if x.numel() == 0 or weight.numel() == 0:
        return F.linear(x, weight)
    steps = 1 + (smallest_max_delay(delay, width) if max_delay is None else max_delay)
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16) and chosen != "gpu":
        x, weight = x.float(), weight.float()
    delay = rounded(delay) if width is None else delay.to(x.dtype)
    if width is not None:
        width = torch.as_tensor(width, dtype=x.dtype, device=x.device).expand(delay.shape)
    kernel = import_module(f"{__name__}.{chosen}")
    y = _compute(kernel, x, weight, delay, width, steps, interpolation)
    return y.to(dtype)


def _compute(
    kernel: object,
    x: Tensor,
    weight: Tensor,
    delay: Tensor,
    width: Tensor | None,
    steps: int,
    interpolation: str,
) -> Tensor:
    outputs, inputs = weight.shape
    if delay.shape == (outputs, inputs):
        return kernel.synaptic(x, weight, delay, width, steps, interpolation)
    axonal = delay.shape[0] == 1
    channels = inputs if axonal else outputs
    delay = delay.reshape(-1).expand(channels)
    width = None if width is None else width.reshape(-1).expand(channels)

    def late(z: Tensor) -> Tensor:
        if width is None:
            return shift(z, delay)
        return kernel.per_channel(z, delay, width, steps, interpolation)

    return F.linear(late(x), weight) if axonal else late(F.linear(x, weight))


# ------------------------------------------------------------------ checks


def _check(
    x: Tensor,
    weight: Tensor,
    delay: Tensor,
    width: Tensor | float | None,
    interpolation: str,
    max_delay: int | None,
) -> None:
    check_floating("x", x)
    check_floating("weight", weight)
    check_like("weight", weight, "x", x)
    if x.ndim != 3 or weight.ndim != 2 or x.shape[2] != weight.shape[1]:
        raise ValueError(
            f"x must be (T, B, in) and weight (out, in), not {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    check_finite("weight", weight)
    _check_delay(delay, weight, width, max_delay)
    if width is not None:
        _check_width(width, delay, interpolation)


def _check_delay(
    delay: Tensor, weight: Tensor, width: Tensor | float | None, max_delay: int | None
) -> None:
    whole = isinstance(delay, Tensor) and delay.dtype in (
        torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    )  # fmt: skip
    if whole and width is not None:
        raise TypeError(
            f"delay must hold floating point numbers with a width, not {delay.dtype}; whole "
            "numbers of steps go with width=None"
        )
    if whole:
        check_like("delay", delay.to(weight.dtype), "weight", weight)
    else:
        check_floating("delay", delay)
        check_like("delay", delay, "weight", weight)
    outputs, inputs = weight.shape
    accepted = [(outputs, inputs), (1, inputs), (outputs, 1), (1, 1)]
    if tuple(delay.shape) not in accepted:
        raise ValueError(
            f"delay must be (out, in), (1, in), (out, 1) or (1, 1) for weight (out, in) = "
            f"{(outputs, inputs)}, not {tuple(delay.shape)}"
        )
    if max_delay is not None and (isinstance(max_delay, bool) or not isinstance(max_delay, int)):
        raise TypeError(f"max_delay must be an int or None, not {max_delay!r}")
    if max_delay is not None and max_delay < 0:
        raise ValueError(f"max_delay must not be negative: {max_delay}")
    if not whole:
        check_finite("delay", delay)
    last = inf if max_delay is None else max_delay
    outside = (delay.detach() < 0) | (delay.detach() > last)
    if outside.any():
        where = tuple(outside.nonzero()[0].tolist())
        raise ValueError(
            f"delay must lie in [0, max_delay = {max_delay}] steps; {int(outside.sum())} of "
            f"{delay.numel()} do not, the first at {where}: {delay[where].item()}"
        )


def _check_width(width: Tensor | float, delay: Tensor, interpolation: str) -> None:
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if isinstance(width, Tensor):
        check_floating("width", width)
        check_like("width", width, "delay", delay)
        check_broadcasts("width", width, "delay", delay.shape)
        check_finite("width", width)
        least = float(width.detach().min()) if width.numel() else inf
    elif isinstance(width, bool) or not isinstance(width, int | float):
        raise TypeError(f"width must be a number, a torch.Tensor or None, not {width!r}")
    elif not width < inf:
        raise ValueError(f"width must be finite, not {width}")
    else:
        least = float(width)
    if interpolation == "gaussian" and not least > 0:
        raise ValueError(f"width must be positive, not {least}")
    if interpolation == "triangular" and not least >= 1:
        raise ValueError(f"width of a triangle must be at least 1 step, not {least}")
