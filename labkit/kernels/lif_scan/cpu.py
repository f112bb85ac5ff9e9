"""lif_scan on the CPU: one pass over x forward, one over x and the gradients backward.

Neurons are lanes, side by side in memory. A block of them runs through time with its voltages in
the cache, so that the compiler works on whole vectors. Forward keeps the voltages at every
`CHUNK`-th step alone; backward charges a chunk anew from there and walks back through it. That
makes 20 bytes an element and step (read x, write s; read x and ds, write dx), which is the floor.

No operation is fused or reordered: a spike hangs on the last bit, and equals the reference's.
"""

from collections.abc import Callable
from functools import cache
from math import pi
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from labkit.jit import jit
from labkit.kernels.dispatch import split
from labkit.kernels.streaming import LARGE, stream

CHUNK = 16  # steps between two kept voltages
LANES = 1024  # neurons of a block: a page of x, and all that is at hand stays in the caches
PAD = 16  # rows of 4096 bytes would share cache sets, and loads would wait for stores 4096 away
LEAST = 2**16  # elements that are worth a thread

compiled = jit()


@cache
def _forward(leak: str, reset: str, reset_delay: bool) -> Callable[..., None]:
    """The forward pass of one kind of neuron; what is decided here costs no branch in the loop."""
    multiply, average = leak == "multiply", leak == "average"
    subtract, zero = reset == "subtract", reset == "zero"
    lanes, chunk = LANES, CHUNK
    V, D, TAU, THETA, S = range(5)

    @compiled
    def run(first, last, x, d, tau, theta, v0, s, kept, voltages):
        one, nil = x.dtype.type(1), x.dtype.type(0)
        keep, tell = kept.shape[0] > 0, voltages.shape[0] > 0
        large = x.size * x.itemsize > LARGE
        at_hand = np.empty((5, lanes + PAD), x.dtype)
        for j0 in range(first, last, lanes):
            j1 = min(j0 + lanes, last)
            w = j1 - j0
            at_hand[V, :w] = v0[j0:j1]
            at_hand[D, :w] = d[j0:j1]
            at_hand[TAU, :w] = tau[j0:j1]
            at_hand[THETA, :w] = theta[j0:j1]
            for t in range(x.shape[0]):
                if keep and t % chunk == 0:
                    kept[t // chunk, j0:j1] = at_hand[V, :w]
                x_ = x[t, j0:j1]
                for j in range(w):
                    theta_, u = at_hand[THETA, j], at_hand[V, j]
                    earlier = one if u > theta_ else nil
                    if zero and reset_delay:
                        u = (one - earlier) * u
                    if multiply:
                        h = at_hand[D, j] * u + x_[j]
                    elif average:
                        h = u + (x_[j] - u) / at_hand[TAU, j]
                    else:
                        h = u - u / at_hand[TAU, j] + x_[j]
                    if reset_delay:
                        if subtract:
                            h = h - earlier * theta_
                        fires = one if h > theta_ else nil
                        at_hand[V, j] = h
                    else:
                        fires = one if h >= theta_ else nil
                        if subtract:
                            at_hand[V, j] = h - fires * theta_
                        elif zero:
                            at_hand[V, j] = (one - fires) * h
                        else:
                            at_hand[V, j] = h
                    at_hand[S, j] = fires
                if large:
                    stream(s[t, j0:j1], at_hand[S, :w])
                else:
                    s[t, j0:j1] = at_hand[S, :w]
                if tell:
                    voltages[t, j0:j1] = at_hand[V, :w]
            v0[j0:j1] = at_hand[V, :w]

    return run


@cache
def _backward(
    leak: str,
    reset: str,
    reset_delay: bool,
    detach_reset: bool,
    surrogate: str,
    learn: bool,
    told: bool,
) -> Callable[..., None]:
    """The backward pass of one kind of neuron; `learn`: decay and threshold want gradients too;
    `told`: voltages were returned, and have gradients.

    With n_t = dL/dh_t, walking back from n_{T+1} = 0, and p the derivative of the surrogate at
    h_t - theta: what comes back to v_t is b = d n_{t+1} (and the gradient of a voltage that was
    returned). If the reset acts at once, v_t = r(h_t, s_t) and

        dL/ds_t = g_t + b dr/ds,    n_t = dL/ds_t p + b dr/dh

    Delayed, v_t = h_t; the reset stands between v_t and h_{t+1}, and dr/ds meets n_{t+1} instead
    of b where "subtract" acts after the leak. A detached reset drops the terms with dr/ds.
    """
    multiply, average = leak == "multiply", leak == "average"
    subtract, zero = reset == "subtract", reset == "zero"
    atan, fast_sigmoid = surrogate == "atan", surrogate == "fast_sigmoid"
    triangular = surrogate == "triangular"
    lanes, chunk, half_pi = LANES, CHUNK, pi / 2
    V, D, TAU, THETA, N, TOLD, GD, GTHETA, GX = range(9)

    @compiled
    def run(
        first,
        last,
        x,
        d,
        tau,
        theta,
        kept,
        slope,
        g,
        g_voltages,
        g_last,
        gx,
        gd,
        gtheta,
        g0,
    ):
        one, nil = x.dtype.type(1), x.dtype.type(0)
        k, half_k = x.dtype.type(slope), x.dtype.type(slope / 2)
        pi_k = x.dtype.type(half_pi * slope)
        T = x.shape[0]
        large = x.size * x.itemsize > LARGE
        at_hand = np.empty((9, lanes + PAD), x.dtype)
        # h_t of the chunk; before them, what it began with.
        charged = np.empty((chunk + 1, lanes + PAD), x.dtype)
        starts = np.empty((chunk, lanes + PAD), x.dtype)  # what each h_t was charged from
        # In memory: LLVM does not vectorise a loop within one whose index visibly counts down.
        backwards = np.arange(chunk, -1, -1)
        zeros = np.zeros(lanes, x.dtype)
        for j0 in range(first, last, lanes):
            j1 = min(j0 + lanes, last)
            w = j1 - j0
            at_hand[D, :w] = d[j0:j1]
            at_hand[TAU, :w] = tau[j0:j1]
            at_hand[THETA, :w] = theta[j0:j1]
            if told:
                at_hand[TOLD, :w] = g_last[j0:j1]
            at_hand[N, :w] = nil
            at_hand[GD, :w] = nil
            at_hand[GTHETA, :w] = nil
            for c in range((T - 1) // chunk, -1, -1):
                t0, t1 = c * chunk, min((c + 1) * chunk, T)
                charged[0, :w] = kept[c, j0:j1]
                at_hand[V, :w] = kept[c, j0:j1]
                for t in range(t0, t1):
                    x_, h_, from_ = x[t, j0:j1], charged[t - t0 + 1, :w], starts[t - t0, :w]
                    for j in range(w):
                        theta_, u = at_hand[THETA, j], at_hand[V, j]
                        earlier = one if u > theta_ else nil
                        if zero and reset_delay:
                            u = (one - earlier) * u
                        if multiply:
                            h = at_hand[D, j] * u + x_[j]
                        elif average:
                            h = u + (x_[j] - u) / at_hand[TAU, j]
                        else:
                            h = u - u / at_hand[TAU, j] + x_[j]
                        if learn:
                            from_[j] = u
                        if reset_delay:
                            if subtract:
                                h = h - earlier * theta_
                            at_hand[V, j] = h
                        else:
                            fires = one if h >= theta_ else nil
                            if subtract:
                                at_hand[V, j] = h - fires * theta_
                            elif zero:
                                at_hand[V, j] = (one - fires) * h
                            else:
                                at_hand[V, j] = h
                        h_[j] = h
                # Delayed, the first reset follows from the state before the first step: t = -1.
                for row in backwards:
                    t = t0 + row - 1
                    if t >= t1 or (row == 0 and not (reset_delay and t0 == 0)):
                        continue
                    h_, g_ = charged[row, :w], zeros[:w]
                    if t >= 0:
                        g_ = g[t, j0:j1]
                        if told:
                            gv_ = g_voltages[t, j0:j1]
                            for j in range(w):
                                at_hand[TOLD, j] += gv_[j]
                    for j in range(w):
                        theta_, u = at_hand[THETA, j], h_[j] - at_hand[THETA, j]
                        if reset_delay:
                            fires = one if u > nil else nil
                        else:
                            fires = one if u >= nil else nil
                        if atan:
                            p = half_k / (one + (pi_k * u) * (pi_k * u))
                        elif fast_sigmoid:
                            p = one / ((one + k * abs(u)) * (one + k * abs(u)))
                        elif triangular:
                            p = k * max(nil, one - k * abs(u))
                        else:
                            p = k
                        b = at_hand[D, j] * at_hand[N, j]
                        if told and not reset_delay:
                            b += at_hand[TOLD, j]
                        meets = at_hand[N, j] if reset_delay and subtract else b
                        gs = g_[j]
                        if not detach_reset:
                            if subtract:
                                gs -= theta_ * meets
                            elif zero:
                                gs -= h_[j] * meets
                        if learn:
                            gtheta_ = gs * p
                            if subtract:
                                gtheta_ += meets * fires
                            at_hand[GTHETA, j] -= gtheta_
                        if zero:
                            b = (one - fires) * b
                        if told and reset_delay:
                            b += at_hand[TOLD, j]
                        if told:
                            at_hand[TOLD, j] = nil
                        n = gs * p + b
                        at_hand[N, j] = n
                        if average:
                            at_hand[GX, j] = n / at_hand[TAU, j]
                    made = at_hand[GX if average else N, :w]
                    if t >= 0 and large:
                        stream(gx[t, j0:j1], made)
                    elif t >= 0:
                        gx[t, j0:j1] = made
                    if learn and t >= 0:
                        x_, from_ = x[t, j0:j1], starts[t - t0, :w]
                        for j in range(w):
                            dh_dd = from_[j] - x_[j] if average else from_[j]
                            at_hand[GD, j] += at_hand[N, j] * dh_dd
            for j in range(w):
                n = at_hand[N, j]
                g0[j0 + j] = n if reset_delay else at_hand[D, j] * n
            if learn:
                gd[j0:j1] = at_hand[GD, :w]
                gtheta[j0:j1] = at_hand[GTHETA, :w]

    return run


class _LIFScan(torch.autograd.Function):
    """Of contiguous inputs: x (T, M), all the others (M,)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        d: Tensor,
        tau: Tensor,
        theta: Tensor,
        v0: Tensor,
        kind: dict[str, Any],
        slope: float,
        tell: bool,
    ):
        T, M = x.shape
        leak, reset, delay = kind["leak"], kind["reset"], kind["reset_delay"]
        training = any(ctx.needs_input_grad)
        s = torch.empty_like(x)
        v = v0.clone()
        kept = x.new_empty(-(-T // CHUNK) if training else 0, M)
        voltages = x.new_empty(T if tell else 0, M)
        arrays = [tensor.detach().numpy() for tensor in (x, d, tau, theta, v, s, kept, voltages)]
        split(_forward(leak, reset, delay), M, *arrays, least=max(1, LEAST // T))
        ctx.save_for_backward(x, d, tau, theta, kept)
        ctx.kind, ctx.slope = kind, slope
        ctx.set_materialize_grads(False)
        return s, voltages, v

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, g: Tensor | None, g_voltages: Tensor | None, g_last: Tensor | None
    ):
        x, d, tau, theta, kept = ctx.saved_tensors
        T, M = x.shape
        learn = ctx.needs_input_grad[1] or ctx.needs_input_grad[3]
        told = g_voltages is not None or g_last is not None
        g = torch.zeros_like(x) if g is None else g
        if told:
            g_voltages = torch.zeros_like(x) if g_voltages is None else g_voltages
            g_last = x.new_zeros(M) if g_last is None else g_last
        else:
            g_voltages, g_last = x.new_empty(0, M), x.new_empty(0)
        gx, g0 = torch.empty_like(x), x.new_empty(M)
        gd, gtheta = x.new_empty(M if learn else 0), x.new_empty(M if learn else 0)
        run = _backward(**ctx.kind, learn=learn, told=told)
        given = [q.detach().numpy() for q in (x, d, tau, theta, kept)]
        grads = [q.contiguous().numpy() for q in (g, g_voltages, g_last)]
        made = [q.numpy() for q in (gx, gd, gtheta, g0)]
        split(run, M, *given, ctx.slope, *grads, *made, least=max(1, LEAST // T))
        return gx, gd if learn else None, None, gtheta if learn else None, g0, None, None, None


def lif_scan(
    x: Tensor,
    decay: Tensor,
    tau: Tensor,
    threshold: Tensor,
    v: Tensor,
    *,
    slope: float,
    tell: bool,
    **kind: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, voltages (none unless `tell`) and the last voltage, as in the reference."""
    flat, rest = x.reshape(len(x), -1).contiguous(), x.shape[1:]
    lanes = [q.expand(rest).reshape(-1).contiguous() for q in (decay, tau, threshold, v)]
    s, voltages, last = _LIFScan.apply(flat, *lanes, kind, slope, tell)
    return s.view(x.shape), voltages.view(-1, *rest), last.view(rest)
