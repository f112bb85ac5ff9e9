"""Delayed synapses in Triton: the kernel of weights and delays in one pass, forward and backward.

The convolution is left to cuDNN. Rounded delays go the same way, with a one-hot kernel: at 25
delays a gather would be bound by shared memory and no faster than tensor cores on the dense kernel.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from labkit.kernels.delayed_linear import reference

TAPS = 4096  # of one program: enough to hide latency, few enough for registers


def synaptic(
    x: Tensor,
    weight: Tensor,
    delay: Tensor,
    width: Tensor | None,
    steps: int,
    interpolation: str,
) -> Tensor:
    """As `reference.synaptic`."""
    if width is None:
        return reference.synaptic(x, weight, delay, width, steps, interpolation)
    return reference.convolve(x, _Kernel.apply(weight, delay, width, steps, interpolation))


def per_channel(x: Tensor, delay: Tensor, width: Tensor, steps: int, interpolation: str) -> Tensor:
    """As `reference.per_channel`."""
    X = _Kernel.apply(torch.ones_like(delay), delay, width, steps, interpolation)
    return reference.convolve_channels(x, X)


class _Kernel(torch.autograd.Function):
    """K (..., steps) of weight, delay and width of one shape."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, delay: Tensor, width: Tensor, steps: int, interpolation: str
    ) -> Tensor:
        synapses = [value.contiguous() for value in (weight, delay, width)]
        K = weight.new_empty(*weight.shape, steps)
        ctx.save_for_backward(*synapses)
        ctx.gaussian = interpolation == "gaussian"
        grid, block_n, block_d = _launch(weight.numel(), steps)
        _forward[grid](*synapses, K, weight.numel(), steps, ctx.gaussian, block_n, block_d)
        return K

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        synapses = ctx.saved_tensors
        grads = [torch.empty_like(value) for value in synapses]
        count, steps = synapses[0].numel(), grad.shape[-1]
        grid, block_n, block_d = _launch(count, steps)
        _backward[grid](
            *synapses, grad.contiguous(), *grads, count, steps, ctx.gaussian, block_n, block_d
        )
        wanted = zip(grads, ctx.needs_input_grad, strict=False)
        return *(grad if needed else None for grad, needed in wanted), None, None


def _launch(count: int, steps: int) -> tuple[tuple[int], int, int]:
    block_d = triton.next_power_of_2(steps)
    block_n = max(1, TAPS // block_d)
    return (triton.cdiv(count, block_n),), block_n, block_d


@triton.jit
def _load(pointer, mask, other: tl.constexpr):
    value = tl.load(pointer, mask=mask, other=other)
    return value if value.dtype == tl.float64 else value.to(tl.float32)


@triton.jit
def _footprint(delay, width, d, inside, gaussian: tl.constexpr):
    """G, and its derivatives by delay and by width, both divided by G (0 where G is 0)."""
    distance = d - delay
    if gaussian:
        z = distance / width
        G = tl.where(inside, tl.exp(-0.5 * z * z), 0.0)
        by_delay = z / width
        by_width = z * by_delay
    else:
        G = tl.where(inside, tl.maximum(width - tl.abs(distance), 0.0), 0.0)
        by_width = tl.where(G > 0, 1.0 / tl.where(G > 0, G, 1.0), 0.0)
        by_delay = tl.where(distance > 0, by_width, tl.where(distance < 0, -by_width, 0.0))
    return G, by_delay, by_width


@triton.jit(do_not_specialize=["count", "steps"])
def _forward(
    weight, delay, width, K, count, steps,
    gaussian: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    w = _load(weight + n, n < count, 0.0)
    delays = _load(delay + n, n < count, 0.0)
    widths = _load(width + n, n < count, 1.0)
    inside = (n < count)[:, None] & (d < steps)[None, :]
    G, _, _ = _footprint(delays[:, None], widths[:, None], d[None, :], inside, gaussian)
    scale = w / (tl.sum(G, axis=1) + 1e-7)
    where = n.to(tl.int64)[:, None] * steps + d[None, :]
    tl.store(K + where, (G * scale[:, None]).to(K.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count", "steps"])
def _backward(
    weight, delay, width, grad, grad_weight, grad_delay, grad_width, count, steps,
    gaussian: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    w = _load(weight + n, n < count, 0.0)
    delays = _load(delay + n, n < count, 0.0)
    widths = _load(width + n, n < count, 1.0)
    inside = (n < count)[:, None] & (d < steps)[None, :]
    G, by_delay, by_width = _footprint(
        delays[:, None], widths[:, None], d[None, :], inside, gaussian
    )
    X = G / (tl.sum(G, axis=1) + 1e-7)[:, None]
    where = n.to(tl.int64)[:, None] * steps + d[None, :]
    A = _load(grad + where, inside, 0.0) * X
    # the normalisation takes off the mean: dX_d = X_d (u_d - sum_e X_e u_e) for u = dG / G
    total = tl.sum(A, axis=1)
    by_delay = tl.sum(A * by_delay, axis=1) - total * tl.sum(X * by_delay, axis=1)
    by_width = tl.sum(A * by_width, axis=1) - total * tl.sum(X * by_width, axis=1)
    tl.store(grad_weight + n, total.to(grad_weight.dtype.element_ty), mask=n < count)
    tl.store(grad_delay + n, (w * by_delay).to(grad_delay.dtype.element_ty), mask=n < count)
    tl.store(grad_width + n, (w * by_width).to(grad_width.dtype.element_ty), mask=n < count)
