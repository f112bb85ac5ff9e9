"""Delayed synapses in Numba: cost follows the non-zero inputs while these are few.

An input (t, i) that is not 0 adds a block of the kernel, K[i, 0 .. steps - 1, :], to the outputs
from step t on: both are contiguous when K is laid out (in, steps, out). Rounded, it adds one row of
weights, each to its own step. Where many inputs are not 0, one matrix product a delay is faster,
and, rounded, samples side by side.

Every output is summed in one order, whatever the number of threads.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from labkit.jit import jit
from labkit.kernels import dispatch

# Shares of non-zero inputs from which another way is faster, seen at 140 -> 256, 25 steps.
DENSE = 0.25  # matrix products
DENSE_ROUNDED = 0.06  # lanes of samples
TILE = 64  # outputs at a time: the taps of all inputs fit the second cache, one block the first
SCRATCH = 2**18  # elements of samples that are worked on together
LANES, SPAN = 8, 128  # samples side by side, and steps at a time: eight inputs fit the first cache

# A product and its sum may fuse to one instruction; nothing is reordered.
_compiled = jit(fastmath={"contract"})


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
        return _Rounded.apply(x, weight, delay, steps)
    return _Convolution.apply(x, _Kernel.apply(weight, delay, width, steps, interpolation))


def per_channel(x: Tensor, delay: Tensor, width: Tensor, steps: int, interpolation: str) -> Tensor:
    """As `reference.per_channel`."""
    column = delay[:, None], width[:, None]
    X = _Kernel.apply(torch.ones_like(column[0]), *column, steps, interpolation)
    return _Channels.apply(x, X[0])


# ------------------------------------------------------------------ the kernel of weights


class _Kernel(torch.autograd.Function):
    """K (in, steps, out) of weight, delay and width (out, in)."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, delay: Tensor, width: Tensor, steps: int, interpolation: str
    ) -> Tensor:
        synapses = [value.detach().t().contiguous() for value in (weight, delay, width)]
        w, delays, widths = (value.numpy() for value in synapses)
        ctx.gaussian = interpolation == "gaussian"
        X = weight.new_empty(weight.shape[1], steps, weight.shape[0])
        K = torch.empty_like(X)
        dispatch.split(_footprints, len(X), X.numpy(), delays, widths, ctx.gaussian)
        if ctx.gaussian:
            X.exp_()
        dispatch.split(_normalise, len(X), K.numpy(), X.numpy(), w)
        ctx.save_for_backward(X, *synapses)
        return K

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        X, *synapses = ctx.saved_tensors
        grads = [torch.empty_like(value) for value in synapses]
        arrays = (value.numpy() for value in (*grads, grad.contiguous(), X, *synapses))
        dispatch.split(_kernel_backward, len(X), *arrays, ctx.gaussian)
        wanted = zip(grads, ctx.needs_input_grad, strict=False)
        return *(grad.t() if needed else None for grad, needed in wanted), None, None


@_compiled
def _footprints(first, last, X, delay, width, gaussian):
    """The exponent of the Gaussian, or the triangle."""
    _, steps, outputs = X.shape
    real = X.dtype.type
    least = np.log(np.finfo(X.dtype).tiny)
    for i in range(first, last):
        for step in range(steps):
            d, row = real(step), X[i, step]
            if gaussian:
                for o in range(outputs):
                    z = (d - delay[i, o]) / width[i, o]
                    exponent = real(-0.5) * z * z
                    row[o] = exponent if exponent > least else -np.inf
            else:
                for o in range(outputs):
                    row[o] = max(width[i, o] - abs(d - delay[i, o]), real(0))


@_compiled
def _normalise(first, last, K, X, weight):
    """Divide X by its sum; K is weight X, and 0 where subnormal: those cost 100 cycles each."""
    _, steps, outputs = X.shape
    tiny = np.finfo(X.dtype).tiny
    total = np.empty(outputs, X.dtype)
    for i in range(first, last):
        total[:] = 1e-7
        for d in range(steps):
            for o in range(outputs):
                total[o] += X[i, d, o]
        for d in range(steps):
            for o in range(outputs):
                X[i, d, o] /= total[o]
                product = weight[i, o] * X[i, d, o]
                K[i, d, o] = product if abs(product) >= tiny else 0


@_compiled
def _kernel_backward(
    first, last, grad_weight, grad_delay, grad_width, grad, X, weight, delay, width, gaussian
):  # fmt: skip
    """The normalisation takes off the mean: dX_d = X_d (u_d - sum_e X_e u_e) for u = dG / G."""
    _, steps, outputs = X.shape
    real = X.dtype.type
    mean_delay = np.empty(outputs, X.dtype)
    mean_width = np.empty(outputs, X.dtype)
    for i in range(first, last):
        mean_delay[:] = 0
        mean_width[:] = 0
        grad_weight[i] = 0
        grad_delay[i] = 0
        grad_width[i] = 0
        for step in range(steps):
            d = real(step)
            for o in range(outputs):
                distance = d - delay[i, o]
                if gaussian:
                    by_delay = distance / (width[i, o] * width[i, o])
                    by_width = distance * by_delay / width[i, o]
                else:
                    gap = width[i, o] - abs(distance)
                    by_width = real(1) / gap if gap > 0 else real(0)
                    by_delay = by_width * np.sign(distance)
                share = X[i, step, o]
                change = grad[i, step, o] * share
                grad_weight[i, o] += change
                grad_delay[i, o] += change * by_delay
                grad_width[i, o] += change * by_width
                mean_delay[o] += share * by_delay
                mean_width[o] += share * by_width
        for o in range(outputs):
            w = weight[i, o]
            grad_delay[i, o] = w * (grad_delay[i, o] - grad_weight[i, o] * mean_delay[o])
            grad_width[i, o] = w * (grad_width[i, o] - grad_weight[i, o] * mean_width[o])


# ------------------------------------------------------------------ inputs that are not 0


def _starts(x: np.ndarray) -> np.ndarray:
    """Of the inputs that are not 0, those of sample b, step t begin at [b T + t]; the last: all."""
    T, B, _ = x.shape
    start = np.zeros(B * T + 1, np.int64)
    dispatch.split(_count, B, x, start)
    return np.cumsum(start, out=start)


def _events(x: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, channels and values of the inputs that are not 0."""
    channel, value = np.empty(start[-1], np.int32), np.empty(start[-1], x.dtype)
    dispatch.split(_list, x.shape[1], x, start, channel, value)
    return start, channel, value


@_compiled
def _count(first, last, x, start):
    T, _, inputs = x.shape
    for t in range(T):
        for b in range(first, last):
            count = np.int32(0)
            for i in range(inputs):
                count += np.int32(x[t, b, i] != 0)
            start[b * T + t + 1] = count


@_compiled
def _list(first, last, x, start, channel, value):
    T, _, inputs = x.shape
    found = np.empty(inputs, np.int32)
    for t in range(T):
        for b in range(first, last):
            count = 0
            for i in range(inputs):  # without a branch, which would be mispredicted at each one
                found[count] = i
                count += x[t, b, i] != 0
            e = start[b * T + t]
            for k in range(count):
                channel[e + k] = found[k]
                value[e + k] = x[t, b, found[k]]


@_compiled
def _by_channel(start, channel, value, b, T, first, time, sorted_value):
    """Sort the inputs of sample b by channel, then time; those of i begin at first[i]."""
    first[:] = 0
    for e in range(start[b * T], start[(b + 1) * T]):
        first[channel[e] + 2] += 1
    for i in range(2, len(first)):
        first[i] += first[i - 1]
    for t in range(T):
        for e in range(start[b * T + t], start[b * T + t + 1]):
            place = first[channel[e] + 1]
            first[channel[e] + 1] += 1
            time[place] = t
            sorted_value[place] = value[e]


# ------------------------------------------------------------------ samples, copied to lines


@_compiled
def _group(size):
    """How many samples are copied together: the steps of one lie far apart, a page each."""
    return max(1, min(8, SCRATCH // size))


@_compiled
def _read(lines, grad, begin, count, low, n):
    for t in range(len(grad)):
        for g in range(count):
            for j in range(n):
                lines[g, t * n + j] = grad[t, begin + g, low + j]


@_compiled
def _write(y, lines, begin, count, low, n):
    for t in range(len(y)):
        for g in range(count):
            for j in range(n):
                y[t, begin + g, low + j] = lines[g, t * n + j]


# ------------------------------------------------------------------ interpolated delays


class _Convolution(torch.autograd.Function):
    """y (T, B, out) of x (T, B, in) and K (in, steps, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, K: Tensor) -> Tensor:
        x = x.detach().contiguous()
        ctx.save_for_backward(x, K)
        ctx.events = None
        start = _starts(x.numpy())
        if start[-1] > DENSE * x.numel():
            return _products(x.new_zeros(*x.shape[:2], K.shape[2]), x, K)
        y = x.new_empty(*x.shape[:2], K.shape[2])
        ctx.events = _events(x.numpy(), start)
        dispatch.split(_add_blocks, x.shape[1], y.numpy(), K.detach().numpy(), *ctx.events)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, K = ctx.saved_tensors
        grad = grad.contiguous()
        return (
            _products_backward(grad, K) if ctx.needs_input_grad[0] else None,
            _kernel_gradient(x, grad, K, ctx.events) if ctx.needs_input_grad[1] else None,
        )


def _products(y: Tensor, x: Tensor, K: Tensor) -> Tensor:
    """One matrix product a delay, added to y."""
    for d in range(min(len(x), K.shape[1])):
        y[d:].flatten(0, 1).addmm_(x[: len(x) - d].flatten(0, 1), K[:, d])
    return y


def _products_backward(grad: Tensor, K: Tensor) -> Tensor:
    grad_x = grad.new_zeros(*grad.shape[:2], len(K))
    for d in range(min(len(grad), K.shape[1])):
        grad_x[: len(grad) - d].flatten(0, 1).addmm_(grad[d:].flatten(0, 1), K[:, d].t())
    return grad_x


def _kernel_gradient(x: Tensor, grad: Tensor, K: Tensor, events: tuple | None) -> Tensor:
    grad_K = torch.zeros_like(K)
    if events is None:
        for d in range(min(len(x), K.shape[1])):
            grad_K[:, d] = x[: len(x) - d].flatten(0, 1).t() @ grad[d:].flatten(0, 1)
    else:
        outputs = K.shape[2]
        dispatch.split(_gather_blocks, outputs, grad_K.numpy(), grad.numpy(), *events, least=TILE)
    return grad_K


@_compiled
def _add_blocks(first, last, y, K, start, channel, value):
    T, _, outputs = y.shape
    inputs, steps = len(K), min(K.shape[1], T)
    for low in range(0, outputs, TILE):
        n = min(TILE, outputs - low)
        taps = np.empty((inputs, steps * n), K.dtype)
        for i in range(inputs):
            for d in range(steps):
                taps[i, d * n : (d + 1) * n] = K[i, d, low : low + n]
        group = _group(T * n)
        lines = np.empty((group, T * n), K.dtype)
        for begin in range(first, last, group):
            count = min(group, last - begin)
            lines[:] = 0
            for b in range(begin, begin + count):
                line = lines[b - begin]
                for t in range(T):
                    window = line[t * n : (t + steps) * n]
                    e, end = start[b * T + t], start[b * T + t + 1]
                    while e + 4 <= end:  # four at a time: the window is read and written once
                        v0, v1, v2, v3 = value[e], value[e + 1], value[e + 2], value[e + 3]
                        k0, k1 = taps[channel[e]], taps[channel[e + 1]]
                        k2, k3 = taps[channel[e + 2]], taps[channel[e + 3]]
                        for j in range(len(window)):
                            window[j] += v0 * k0[j] + v1 * k1[j] + v2 * k2[j] + v3 * k3[j]
                        e += 4
                    for f in range(e, end):
                        v, k = value[f], taps[channel[f]]
                        for j in range(len(window)):
                            window[j] += v * k[j]
            _write(y, lines, begin, count, low, n)


@_compiled
def _gather_blocks(first, last, grad_K, grad, start, channel, value):
    """The gradient of the kernel, for outputs first .. last - 1."""
    T, B, _ = grad.shape
    inputs, steps = len(grad_K), min(grad_K.shape[1], T)
    begin = np.empty(inputs + 2, np.int64)
    time = np.empty(T * inputs, np.int64)
    spike = np.empty(T * inputs, value.dtype)
    for low in range(first, last, TILE):
        n = min(TILE, last - low)
        size = steps * n
        taps = np.zeros((inputs, size), grad.dtype)
        group = _group((T + steps) * n)
        lines = np.zeros((group, (T + steps) * n), grad.dtype)
        for b in range(B):
            if b % group == 0:
                _read(lines, grad, b, min(group, B - b), low, n)
            line = lines[b % group]
            _by_channel(start, channel, value, b, T, begin, time, spike)
            for i in range(inputs):
                k = taps[i]
                e, end = begin[i], begin[i + 1]
                while e + 4 <= end:
                    v0, v1, v2, v3 = spike[e], spike[e + 1], spike[e + 2], spike[e + 3]
                    g0, g1 = line[time[e] * n :], line[time[e + 1] * n :]
                    g2, g3 = line[time[e + 2] * n :], line[time[e + 3] * n :]
                    for j in range(size):
                        k[j] += v0 * g0[j] + v1 * g1[j] + v2 * g2[j] + v3 * g3[j]
                    e += 4
                for f in range(e, end):
                    v, g = spike[f], line[time[f] * n :]
                    for j in range(size):
                        k[j] += v * g[j]
        for i in range(inputs):
            for d in range(steps):
                grad_K[i, d, low : low + n] = taps[i, d * n : (d + 1) * n]


# ------------------------------------------------------------------ rounded delays


class _Rounded(torch.autograd.Function):
    """y (T, B, out) of x (T, B, in), weight and whole delays (out, in) below steps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, delay: Tensor, steps: int) -> Tensor:
        x = x.detach().contiguous()
        ctx.save_for_backward(x, weight, delay)
        ctx.steps, ctx.start = steps, _starts(x.numpy())
        y = x.new_empty(*x.shape[:2], len(weight))
        if ctx.start[-1] > DENSE_ROUNDED * x.numel():
            _lanes(y, x, weight, steps - 1 - delay, steps, front=True)
            return y
        events = _events(x.numpy(), ctx.start)
        w, rows = weight.detach().t().contiguous().numpy(), _rows(delay)
        dispatch.split(_add_rows, x.shape[1], y.numpy(), w, rows, *events, steps)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, delay = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x)
            _lanes(grad_x, grad, weight.t(), delay.t(), ctx.steps, front=False)
        if ctx.needs_input_grad[1]:
            grad_weight = weight.new_zeros(weight.shape[::-1])
            arrays = grad_weight.numpy(), grad.numpy(), delay.t().contiguous().numpy()
            events = _events(x.numpy(), ctx.start)
            dispatch.split(_gather_rows, len(weight), *arrays, *events, ctx.steps)
            grad_weight = grad_weight.t()
        return grad_x, grad_weight, None, None


def _rows(delay: Tensor) -> np.ndarray:
    """Where output o of input i lies after its step, in rows of all outputs: (in, out)."""
    outputs = len(delay)
    return (delay.t() * outputs + torch.arange(outputs)).numpy().astype(np.uint32)


@_compiled
def _add_rows(first, last, y, weight, rows, start, channel, value, steps):
    T, _, outputs = y.shape
    group = _group((T + steps) * outputs)
    lines = np.empty((group, (T + steps) * outputs), weight.dtype)
    for begin in range(first, last, group):
        count = min(group, last - begin)
        lines[:] = 0
        for b in range(begin, begin + count):
            line = lines[b - begin]
            for t in range(T):
                window = line[t * outputs :]
                for e in range(start[b * T + t], start[b * T + t + 1]):
                    v, w, row = value[e], weight[channel[e]], rows[channel[e]]
                    for o in range(outputs):
                        window[row[o]] += v * w[o]
        _write(y, lines, begin, count, 0, outputs)


@_compiled
def _gather_rows(first, last, grad_weight, grad, delay, start, channel, value, steps):
    """The gradient of the weights, for outputs first .. last - 1."""
    T, B, _ = grad.shape
    n = last - first
    rows = (delay[:, first:last] * n + np.arange(n)).astype(np.uint32)
    group = _group((T + steps) * n)
    lines = np.zeros((group, (T + steps) * n), grad.dtype)
    for b in range(B):
        if b % group == 0:
            _read(lines, grad, b, min(group, B - b), first, n)
        line = lines[b % group]
        for t in range(T):
            window = line[t * n :]
            for e in range(start[b * T + t], start[b * T + t + 1]):
                v, g, row = value[e], grad_weight[channel[e], first:last], rows[channel[e]]
                for o in range(n):
                    g[o] += v * window[row[o]]


def _lanes(y: Tensor, x: Tensor, weight: Tensor, offset: Tensor, steps: int, front: bool) -> None:
    """Write y[t, b, c] = sum_k weight[c, k] z[t + offset[c, k], b, k], where z is x with
    steps - 1 rows of zeros before it (front) or after it.
    """
    ragged = -weight.shape[1] % 8
    weight, offset = (
        F.pad(value.detach(), (0, ragged)).contiguous().numpy() for value in (weight, offset)
    )
    blocks = -(-x.shape[1] // LANES)
    pad = steps - 1 if front else 0
    dispatch.split(_sum_lanes, blocks, y.numpy(), x.numpy(), weight, offset, steps, pad)


@_compiled
def _sum_lanes(first, last, y, x, weight, offset, steps, pad):
    T, B, outputs = y.shape
    inputs = weight.shape[1]
    z = np.zeros((inputs, (T + steps) * LANES), x.dtype)
    lines = np.empty((outputs, min(T, SPAN) * LANES), x.dtype)
    for block in range(first, last):
        low = block * LANES
        lanes = min(LANES, B - low)
        for t in range(T):
            for lane in range(lanes):
                for k in range(x.shape[2]):
                    z[k, (pad + t) * LANES + lane] = x[t, low + lane, k]
        for begin in range(0, T, SPAN):
            span = min(SPAN, T - begin)
            lines[:] = 0
            for k in range(0, inputs, 8):  # eight at a time: their part of z stays near, and
                for c in range(outputs):  # a line is read and written once
                    line, w, s = lines[c], weight[c, k : k + 8], offset[c, k : k + 8]
                    z0, z1 = z[k, (s[0] + begin) * LANES :], z[k + 1, (s[1] + begin) * LANES :]
                    z2, z3 = z[k + 2, (s[2] + begin) * LANES :], z[k + 3, (s[3] + begin) * LANES :]
                    z4, z5 = z[k + 4, (s[4] + begin) * LANES :], z[k + 5, (s[5] + begin) * LANES :]
                    z6, z7 = z[k + 6, (s[6] + begin) * LANES :], z[k + 7, (s[7] + begin) * LANES :]
                    w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
                    for j in range(span * LANES):
                        line[j] += (w0 * z0[j] + w1 * z1[j] + w2 * z2[j] + w3 * z3[j]) + (
                            w4 * z4[j] + w5 * z5[j] + w6 * z6[j] + w7 * z7[j]
                        )
            for t in range(span):
                for lane in range(lanes):
                    for c in range(outputs):
                        y[begin + t, low + lane, c] = lines[c, t * LANES + lane]


# ------------------------------------------------------------------ delays of channels


class _Channels(torch.autograd.Function):
    """y (T, B, C) of x (T, B, C) and taps X (steps, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, X: Tensor) -> Tensor:
        x, X = x.detach().contiguous(), X.detach()
        ctx.save_for_backward(x, X)
        y = torch.empty_like(x)
        dispatch.split(_filter, x.shape[1], y.numpy(), x.numpy(), X.numpy(), -1)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, X = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_X = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x)
            dispatch.split(_filter, x.shape[1], grad_x.numpy(), grad.numpy(), X.numpy(), 1)
        if ctx.needs_input_grad[1]:
            grad_X = torch.zeros_like(X)
            dispatch.split(_correlate, len(X), grad_X.numpy(), x.numpy(), grad.numpy())
        return grad_x, grad_X


@_compiled
def _filter(first, last, y, x, X, sign):
    """Write y[t] = sum_d X[d] x[t + sign d]."""
    T, _, channels = x.shape
    for b in range(first, last):
        for t in range(T):
            row = y[t, b]
            row[:] = 0
            for d in range(min(len(X), t + 1 if sign < 0 else T - t)):
                past, share = x[t + sign * d, b], X[d]
                for c in range(channels):
                    row[c] += share[c] * past[c]


@_compiled
def _correlate(first, last, grad_X, x, grad):
    """Add sum_t grad[t + d] x[t] to grad_X[d]."""
    T, B, channels = x.shape
    for d in range(first, last):
        share = grad_X[d]
        for t in range(T - d):
            for b in range(B):
                now, past = grad[t + d, b], x[t, b]
                for c in range(channels):
                    share[c] += now[c] * past[c]
