"""Linear scan on a CPU: lanes side by side in vectors, their states in a scratch of the L1 cache.

Time is not cut into chunks here. Each chunk would be computed twice, first to learn how it maps the
state before it to the one after it: measured, two cores only made up for that, and one lost.
"""

import numpy as np
import torch
from torch import Tensor

from labkit.jit import jit
from labkit.kernels.dispatch import split

GRAIN = 64  # lanes: parts of threads begin at multiples, so that no two write one cache line
TILE = 4096  # lanes that are carried through time together: their states fit L1
NARROW = 2  # up to so many lanes, one lane after another in a register is faster
WORTH = 2**15  # states that are worth a thread

# A fused multiply-add rounds once and halves the latency of a step.
_compiled = jit(fastmath={"contract"})


def forward(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """States (T, ...) of a (T or 1, ...), b (T, ...) and h0 (...)."""
    h = torch.empty(b.shape, dtype=b.dtype)
    arrays = _rows(a), _rows(b), _lanes(h0), h.numpy().reshape(len(h), -1)
    _over_lanes(_forward_narrow if h0.numel() <= NARROW else _forward, h, *arrays)
    return h


def backward(
    grad: Tensor, a: Tensor, h0: Tensor, h: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of a, b and h0; that of a where h is given."""
    rows, gates = _rows(grad), _rows(a)
    grad_b = torch.empty(grad.shape, dtype=grad.dtype)
    grad_h0 = torch.empty(h0.shape, dtype=h0.dtype)
    if h is None:  # a row of scratch then takes what nobody reads
        grad_a = torch.empty((1, *h0.shape), dtype=grad.dtype)
    else:
        grad_a = torch.empty((len(gates), *h0.shape), dtype=grad.dtype)
    _over_lanes(
        _backward_narrow if h0.numel() <= NARROW else _backward,
        grad,
        rows,
        gates,
        _lanes(h0),
        rows[:1] if h is None else _rows(h),
        grad_a.numpy().reshape(len(grad_a), -1),
        grad_b.numpy().reshape(len(grad_b), -1),
        grad_h0.numpy().reshape(-1),
    )
    return None if h is None else grad_a, grad_b, grad_h0


def _rows(x: Tensor) -> np.ndarray:
    """(T, lanes), or (1, lanes) where x is constant over time."""
    x = x[:1] if x.stride(0) == 0 else x
    return _lanes(x).reshape(len(x), -1)


def _lanes(x: Tensor) -> np.ndarray:
    return x.detach().resolve_conj().resolve_neg().contiguous().numpy().reshape(-1)


def _over_lanes(kernel: object, like: Tensor, *arrays: object) -> None:
    lanes = like[0].numel()
    grains = -(-lanes // GRAIN)
    split(kernel, grains, *arrays, least=max(1, WORTH // (len(like) * GRAIN)))


@_compiled
def _forward(first, last, a, b, h0, h):
    steps, lanes = h.shape
    gate, drive = len(a) > 1, len(b) > 1
    for low in range(first * GRAIN, min(last * GRAIN, lanes), TILE):
        high = min(low + TILE, last * GRAIN, lanes)
        state = h0[low:high].copy()
        for t in range(steps):
            a_t, b_t, h_t = a[t * gate, low:high], b[t * drive, low:high], h[t, low:high]
            for i in range(high - low):
                value = a_t[i] * state[i] + b_t[i]
                state[i] = value
                h_t[i] = value


@_compiled
def _forward_narrow(_first, _last, a, b, h0, h):
    gate, drive = len(a) > 1, len(b) > 1
    for i in range(h.shape[1]):
        state = h0[i]
        for t in range(len(h)):
            state = a[t * gate, i] * state + b[t * drive, i]
            h[t, i] = state


@_compiled
def _backward(first, last, grad, a, h0, h, grad_a, grad_b, grad_h0):
    steps, lanes = grad_b.shape
    gate, drive, past, varying = len(a) > 1, len(grad) > 1, len(h) > 1, len(grad_a) > 1
    for low in range(first * GRAIN, min(last * GRAIN, lanes), TILE):
        high = min(low + TILE, last * GRAIN, lanes)
        carry = np.zeros(high - low, grad_b.dtype)  # conj(a_{t+1}) G_{t+1}
        total = np.zeros(high - low, grad_b.dtype)
        for t in range(steps - 1, 0, -1):
            grad_t, a_t = grad[t * drive, low:high], a[t * gate, low:high]
            h_before, adjoint = h[(t - 1) * past, low:high], grad_b[t, low:high]
            out = grad_a[t * varying, low:high]
            for i in range(high - low):
                value = grad_t[i] + carry[i]
                carry[i] = np.conj(a_t[i]) * value
                adjoint[i] = value
            if varying:
                for i in range(high - low):
                    out[i] = adjoint[i] * np.conj(h_before[i])
            else:
                for i in range(high - low):
                    total[i] += adjoint[i] * np.conj(h_before[i])
        for i in range(low, high):  # the first step, before which comes h0
            value = grad[0, i] + carry[i - low]
            grad_b[0, i] = value
            grad_a[0, i] = total[i - low] + value * np.conj(h0[i])
            grad_h0[i] = np.conj(a[0, i]) * value


@_compiled
def _backward_narrow(_first, _last, grad, a, h0, h, grad_a, grad_b, grad_h0):
    gate, drive, past, varying = len(a) > 1, len(grad) > 1, len(h) > 1, len(grad_a) > 1
    for i in range(len(h0)):
        adjoint = a_next = total = grad_h0.dtype.type(0)
        for t in range(len(grad_b) - 1, 0, -1):
            adjoint = grad[t * drive, i] + a_next * adjoint
            a_next = np.conj(a[t * gate, i])
            grad_b[t, i] = adjoint
            product = adjoint * np.conj(h[(t - 1) * past, i])
            if varying:
                grad_a[t, i] = product
            else:
                total += product
        adjoint = grad[0, i] + a_next * adjoint
        grad_b[0, i] = adjoint
        grad_a[0, i] = total + adjoint * np.conj(h0[i])
        grad_h0[i] = np.conj(a[0, i]) * adjoint
