"""Leaky integrate-and-fire over time in plain PyTorch: what `labkit.kernels.lif_scan` means.

With the input x_t, the decay d and the threshold theta, all elementwise over neurons,

    h_t = leak(v_{t-1}, x_t)         the membrane potential, charged
    s_t = Theta(h_t - theta)         the spike
    v_t = reset(h_t, s_t)            what the next step starts from

========== =============================== ====================================================
leak       h_t                             source
========== =============================== ====================================================
multiply   d v + x                         snnTorch's Leaky (Eshraghian et al. 2023)
subtract   v - v / tau + x                 SpikingJelly's LIFNode, decay_input=False
average    v + (x - v) / tau               SpikingJelly's LIFNode (Fang et al. 2023)
========== =============================== ====================================================

with tau = 1 / (1 - d), rounded once and passed along. In exact arithmetic the first two are one; in
floating point they are not, and a spike hangs on the last bit. Reset by "subtract" takes theta
away, "zero" sets v to 0.

The reset acts at once (v_t is what is left), or with `reset_delay` one step later (v_t = h_t, and
step t + 1 begins with the reset). As in the packages these conventions come from, a neuron that
meets its threshold exactly fires in the first case and does not in the second.

Gradients take dTheta/du to be the surrogate derivative, with the slope k:

================ ================================ ===== ========================================
surrogate        derivative at u = h - theta       k     source
================ ================================ ===== ========================================
atan             (k/2) / (1 + (pi k u / 2)^2)      2     Fang et al. 2021
fast_sigmoid     1 / (1 + k |u|)^2                 25    Zenke & Ganguli 2018
triangular       k max(0, 1 - k |u|)               1     Esser et al. 2016; Bellec et al. 2018
straight_through k                                 1     Bengio et al. 2013
================ ================================ ===== ========================================
"""

from math import pi

import torch
from torch import Tensor

SLOPES = {"atan": 2.0, "fast_sigmoid": 25.0, "triangular": 1.0, "straight_through": 1.0}
RESETS = ("subtract", "zero", "none")
LEAKS = ("multiply", "subtract", "average")


def surrogate_derivative(u: Tensor, surrogate: str, slope: float) -> Tensor:
    """What backward takes for dTheta/du."""
    if surrogate == "atan":
        return slope / 2 / (1 + (pi / 2 * slope * u) ** 2)
    if surrogate == "fast_sigmoid":
        return 1 / (1 + slope * u.abs()) ** 2
    if surrogate == "triangular":
        return slope * (1 - slope * u.abs()).clamp(min=0)
    return torch.full_like(u, slope)


class _Spike(torch.autograd.Function):
    """Theta(u), with the derivative of a surrogate."""

    @staticmethod
    def forward(ctx, u: Tensor, strict: bool, surrogate: str, slope: float) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(u)
        ctx.surrogate, ctx.slope = surrogate, slope
        return (u > 0 if strict else u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN001
        (u,) = ctx.saved_tensors
        return grad * surrogate_derivative(u, ctx.surrogate, ctx.slope), None, None, None


def lif_scan(
    x: Tensor,
    decay: Tensor,
    tau: Tensor,
    threshold: Tensor,
    v: Tensor,
    *,
    leak: str,
    reset: str,
    reset_delay: bool,
    detach_reset: bool,
    surrogate: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes and voltages v_t, both (T, ...), and the last voltage; v is the first one."""

    def charge(v: Tensor, x: Tensor) -> Tensor:
        if leak == "multiply":
            return decay * v + x
        return v - v / tau + x if leak == "subtract" else v + (x - v) / tau

    def fire(h: Tensor) -> Tensor:
        return _Spike.apply(h - threshold, reset_delay, surrogate, slope)

    def after(h: Tensor, s: Tensor) -> Tensor:
        s = s.detach() if detach_reset else s
        if reset == "subtract":
            return h - s * threshold
        return (1 - s) * h if reset == "zero" else h

    spikes, voltages = [], []
    for x_t in x:
        if not reset_delay:
            h = charge(v, x_t)
            s = fire(h)
            v = after(h, s)
        elif reset == "subtract":  # after the leak: what is taken away does not decay
            v = after(charge(v, x_t), fire(v))
            s = fire(v)
        else:
            v = charge(after(v, fire(v)), x_t)
            s = fire(v)
        spikes.append(s)
        voltages.append(v)
    if not spikes:
        return x.clone(), x.clone(), v
    return torch.stack(spikes), torch.stack(voltages), v
