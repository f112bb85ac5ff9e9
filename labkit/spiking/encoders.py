"""Encoders: from values to spike trains, time first. Names and formulas follow snnTorch."""

import torch
from torch import Tensor

from labkit.checks import check_count, check_floating, check_positive


def rate(x: Tensor, steps: int | None = None, *, generator: torch.Generator) -> Tensor:
    """Poisson-like spikes: at every step one fires with probability x, independently (Bernoulli).

    Parameters
    ----------
    x : (...) expected spikes a step, in [0, 1]; or (T, ...) that change in time if steps is None
    steps : T, the length of the spike trains
    generator : source of the random numbers, on the device of x

    Returns
    -------
    (T, ...) spikes, 0 or 1, dtype of x. A rate of r Hz with steps of dt s is x = r dt.

    Raises
    ------
    TypeError
        if x holds no floating point numbers, or generator is not a torch.Generator.
    ValueError
        for x outside [0, 1], steps that are no positive number, or x without time and steps.
    """
    _check_unit(x)
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, not {type(generator).__name__}")
    if steps is None and x.ndim == 0:
        raise ValueError("x must be (T, ...) if steps is None; it has no dimension")
    if steps is not None:
        check_count(steps=steps)
    shape = x.shape if steps is None else (steps, *x.shape)
    # In float32 at least: half precision rounds draws up to 1, and steps of 2^-11 are too coarse.
    precise = torch.promote_types(x.dtype, torch.float32)
    drawn = torch.rand(shape, dtype=precise, device=x.device, generator=generator)
    return (drawn < x).to(x.dtype)


def latency(
    x: Tensor,
    steps: int,
    *,
    tau: float | None = None,
    threshold: float = 0.01,
    linear: bool = False,
    clip: bool = False,
) -> Tensor:
    """Time to the first spike: the larger x is, the earlier its one spike.

    The spike comes when an integrator with the time constant tau, driven by x, would reach the
    threshold:

        t = tau ln(x / (x - threshold)), or t = tau (1 - x) if linear,

    rounded to steps. Values below the threshold fire at the time of the threshold itself (or, for
    the logarithm, just above it), which is the last time there is.

    Parameters
    ----------
    x : (...) values in [0, 1]
    steps : T
    tau : time constant in steps; None chooses it so that the last time is the last step, T - 1
    threshold : between 0 and 1
    linear : take the linear code instead of the logarithmic one
    clip : values below the threshold do not fire at all

    Returns
    -------
    (T, ...) with at most one spike for each value, dtype of x. Spikes later than T are left out.

    Raises
    ------
    TypeError
        if x holds no floating point numbers.
    ValueError
        for numbers out of the ranges above.
    """
    _check_unit(x)
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, not {threshold}")
    if tau is not None:
        check_positive(tau=tau)
    check_count(steps=steps)
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    if linear:
        t, longest = 1 - precise.clamp(min=threshold), 1.0
    else:
        precise = precise.clamp(min=threshold + 1e-7)  # as in snnTorch: the latest is finite
        t = (precise / (precise - threshold)).log()
        longest = float(t.max()) if t.numel() else 1.0
    scale = (steps - 1) / longest if tau is None else tau
    t = (t * scale).round()
    at = torch.arange(steps, device=x.device).view(-1, *[1] * x.ndim)
    spikes = at == t
    if clip:
        spikes = spikes & (x >= threshold)
    return spikes.to(x.dtype)


def delta(x: Tensor, threshold: float = 0.1, *, off_spike: bool = False) -> Tensor:
    """Delta modulation: a spike where x has risen by the threshold since the last step.

    Parameters
    ----------
    x : (T, ...) signal; it is 0 before its first step
    threshold : change a step that makes a spike, positive, in units of x
    off_spike : also make a spike of -1 where x has fallen as much

    Returns
    -------
    (T, ...) of 0 and 1, and of -1 with `off_spike`; dtype of x.

    Raises
    ------
    TypeError
        if x holds no floating point numbers.
    ValueError
        if x has no time, or for a threshold that is not positive.
    """
    check_floating("x", x)
    if x.ndim == 0:
        raise ValueError("x must be (T, ...), time first; it has no dimension")
    check_positive(threshold=threshold)
    change = torch.diff(x, dim=0, prepend=torch.zeros_like(x[:1]))
    spikes = (change >= threshold).to(x.dtype)
    return spikes - (change <= -threshold).to(x.dtype) if off_spike else spikes


def _check_unit(x: Tensor) -> None:
    check_floating("x", x)
    if not ((x >= 0) & (x <= 1)).all():  # NaN is neither
        low, high = float(x.min()), float(x.max())
        raise ValueError(f"x must lie in [0, 1]; it ranges over {low:.4g} to {high:.4g}")
