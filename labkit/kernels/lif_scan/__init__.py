"""Leaky integrate-and-fire over time, forward and with surrogate gradients."""

from math import isfinite
from typing import Any

import torch
from torch import Tensor

from labkit.checks import (
    check_broadcasts,
    check_choice,
    check_finite,
    check_floating,
    check_like,
    check_positive,
)
from labkit.kernels.dispatch import choose
from labkit.kernels.lif_scan import reference
from labkit.kernels.lif_scan.reference import LEAKS, RESETS, SLOPES


def lif_scan(
    x: Tensor,
    decay: float | Tensor,
    threshold: float | Tensor = 1.0,
    *,
    reset: str = "subtract",
    reset_delay: bool = False,
    detach_reset: bool = False,
    leak: str = "multiply",
    surrogate: str = "atan",
    slope: float | None = None,
    v: Tensor | None = None,
    return_voltage: bool = False,
    return_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Spikes of leaky integrate-and-fire neurons that receive x, step by step.

    h_t = decay v_{t-1} + x_t;  s_t = 1 if h_t reaches the threshold, else 0;  v_t = h_t after the
    reset. The other conventions, the surrogates and all sources are in `reference.py`.

    ============================================== ================================================
    spikes exactly as those of (on a CPU)          keywords
    ============================================== ================================================
    snntorch.Leaky(beta, threshold)                reset_delay=True, detach_reset=True
    spikingjelly LIFNode(tau, v_reset=None)        leak="average"; decay = 1 - 1 / tau
    the same with decay_input=False                leak="subtract"
    their v_reset=0.0, reset_mechanism="zero"      and reset="zero"
    ============================================== ================================================

    Parameters
    ----------
    x : (T, ...) input current, in units of the threshold, for T steps; any floating point type
    decay : share of the voltage that is left after one step, exp(-dt / tau_m), in [0, 1]: a number,
        or a tensor that broadcasts to x[0], learnable if it requires a gradient
    threshold : likewise, finite
    reset : "subtract" the threshold, to "zero", or "none"
    reset_delay : reset one step after the spike (snnTorch) instead of at once (SpikingJelly); a
        voltage equal to the threshold then does not fire, otherwise it does
    detach_reset : let no gradient pass through the reset's spike
    leak : how h_t is computed: "multiply", "subtract" or "average"
    surrogate : "atan", "fast_sigmoid", "triangular" or "straight_through"
    slope : of the surrogate, positive; 2, 25, 1 and 1 if None
    v : (...) voltage before the first step; zero if None
    return_voltage : also return v_t, (T, ...)
    return_state : also return the last voltage, (...), from which a next call goes on
    backend : "reference", "cpu" or "gpu"; that of the device of x if None

    Returns
    -------
    (T, ...) spikes, 0 or 1, dtype and device of x; with `return_voltage` or `return_state` a tuple
    of the spikes and what was asked for, in this order. Half precision is computed in float32.

    Raises
    ------
    TypeError
        if x holds no floating point numbers, or a tensor is of another type.
    ValueError
        for shapes that do not broadcast, mixed devices, a decay outside [0, 1], NaN, an unknown
        name, a slope that is not positive.
    """
    check_floating("x", x)
    if x.ndim == 0:
        raise ValueError("x must be (T, ...), time first; it has no dimension")
    _check_names(reset, leak, surrogate, slope)
    given, decay = decay, _parameter("decay", decay, x)
    _check_decay(decay if isinstance(given, Tensor) else given)
    tau = _tau(given)
    threshold = _parameter("threshold", threshold, x)
    if v is not None:
        check_like("v", v, "x", x)
        if v.shape != x.shape[1:]:
            raise ValueError(f"v must be {tuple(x.shape[1:])} as x[0] is, not {tuple(v.shape)}")
    start = x.new_zeros(x.shape[1:]) if v is None else v
    inputs = [x, decay, _parameter("tau", tau, x, check=False), threshold, start]
    chosen = choose("lif_scan", backend, x)
    half = x.dtype in (torch.float16, torch.bfloat16)
    if half:  # the GPU reads x as it is
        inputs = [x if chosen == "gpu" else x.float(), *(tensor.float() for tensor in inputs[1:])]
    s, voltage, last = _compute(
        chosen,
        inputs,
        tell=return_voltage,
        leak=leak,
        reset=reset,
        reset_delay=bool(reset_delay),
        detach_reset=bool(detach_reset),
        surrogate=surrogate,
        slope=float(SLOPES[surrogate] if slope is None else slope),
    )
    if x.device.type == "cpu" and torch.isnan(last).any():  # it went in somewhere, and stays
        check_finite("x", x)
        check_finite("v", start)
    if half:
        s, voltage, last = s.to(x.dtype), voltage.to(x.dtype), last.to(x.dtype)
    told = (s, *([voltage] if return_voltage else []), *([last] if return_state else []))
    return told if len(told) > 1 else s


def _compute(
    backend: str, inputs: list[Tensor], *, tell: bool, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "reference" or inputs[0].numel() == 0:
        return reference.lif_scan(*inputs, **options)
    if backend == "cpu":
        from labkit.kernels.lif_scan import cpu

        return cpu.lif_scan(*inputs, tell=tell, **options)
    from labkit.kernels.lif_scan import gpu

    return gpu.lif_scan(*inputs, tell=tell, **options)


def _check_decay(decay: float | Tensor) -> None:
    if not isinstance(decay, Tensor):  # without a tensor, which would wait for a GPU
        worst, inside = decay, 0 <= decay <= 1
    else:
        inside = bool(((decay >= 0) & (decay <= 1)).all())
        worst = 0.0 if inside else float(decay.flatten()[(decay - 0.5).abs().argmax()])
    if not inside:
        raise ValueError(f"decay must lie in [0, 1]; it is {worst:.6g}")


def _tau(decay: float | Tensor) -> float | Tensor:
    """1 / (1 - decay), in float64 for a number: decay = 1 - 1 / tau then gives tau back."""
    if isinstance(decay, Tensor):
        return 1 / (1 - decay)
    return 1 / (1 - decay) if decay != 1 else float("inf")


def _check_names(reset: str, leak: str, surrogate: str, slope: float | None) -> None:
    check_choice("reset", reset, RESETS)
    check_choice("leak", leak, LEAKS)
    check_choice("surrogate", surrogate, SLOPES)
    if slope is not None:
        check_positive(slope=slope)


def _parameter(name: str, value: float | Tensor, x: Tensor, *, check: bool = True) -> Tensor:
    """A number or a tensor as a tensor that broadcasts to x[0]."""
    if not isinstance(value, Tensor):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if check and not (number and isfinite(value)):
            raise ValueError(f"{name} must be a finite number or a tensor, not {value!r}")
        return torch.full((), value, dtype=x.dtype, device=x.device)
    if not check:
        return value
    check_like(name, value, "x", x)
    check_broadcasts(name, value, "x[0]", x.shape[1:])
    check_finite(name, value)
    return value
