"""lif_scan on the GPU: one program a block of neurons, in a loop over time.

What a step waits for is memory, and a load may not pass the stores before it. So the loads of the
next `AHEAD` steps (backward: `CHUNK`) are all under way before the first store of these. As on the
CPU, forward keeps the voltage at every `CHUNK`-th step alone, and backward charges a chunk anew
from there, in registers: 20 bytes an element and step in float32, 10 in half precision.

For finite input, spikes and voltages equal the reference's bit by bit: no multiplication is fused
with an addition, and the division of a leak is rounded as IEEE 754 asks. Gradients agree within
rounding. No two programs write to one place, so results do not vary from run to run.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

CHUNK = 16  # steps between two kept voltages, and that backward holds in registers
AHEAD = 32  # steps that forward loads at once, a multiple of CHUNK
SIZES = ("T", "M", "each", "x_step", "x_lane")  # of which no value deserves a compilation


@triton.jit
def _load(pointer, step, left, count: tl.constexpr, real: tl.constexpr):
    """Rows 0 to count, zero where none are left in a lane."""
    rows = ()
    for i in tl.static_range(count):
        rows += (tl.load(pointer, mask=left > i, other=0.0).to(real),)
        pointer += step
    return rows


@triton.jit
def _divide(a, b):
    if a.dtype == tl.float32:
        return tl.div_rn(a, b)
    else:
        return a / b  # already so in float64


@triton.jit
def _step(v, x, d, tau, theta, leak: tl.constexpr, reset: tl.constexpr, delay: tl.constexpr):
    """What the step charges, to what voltage, whether that fires, and what it leaves behind."""
    u = v
    if delay and reset == "zero":
        u = tl.where(v > theta, 0.0, v)
    if leak == "multiply":
        h = d * u + x
    elif leak == "average":
        h = u + _divide(x - u, tau)
    else:
        h = u - _divide(u, tau) + x
    if delay:
        if reset == "subtract":
            h = tl.where(v > theta, h - theta, h)
        fires = h > theta
        after = h
    else:
        fires = h >= theta
        after = h
        if reset == "subtract":
            after = tl.where(fires, h - theta, h)
        elif reset == "zero":
            after = tl.where(fires, 0.0, h)
    return u, h, fires, after


@triton.jit(do_not_specialize=SIZES)
def _forward(
    x_ptr, d_ptr, tau_ptr, theta_ptr, v0_ptr, s_ptr, kept_ptr, voltages_ptr, last_ptr,
    T, M: tl.int64, each: tl.int64, x_step: tl.int64, x_lane: tl.int64,
    leak: tl.constexpr, reset: tl.constexpr, delay: tl.constexpr,
    keep: tl.constexpr, tell: tl.constexpr,
    AHEAD: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    real: tl.constexpr = kept_ptr.dtype.element_ty
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < M
    d = tl.load(d_ptr + lane * each, mask=inside, other=0.0)
    tau = tl.load(tau_ptr + lane * each, mask=inside, other=1.0)
    theta = tl.load(theta_ptr + lane * each, mask=inside, other=0.0)
    v = tl.load(v0_ptr + lane, mask=inside, other=0.0)
    last = v
    x_ptr += lane * x_lane
    s_ptr += lane
    kept_ptr += lane
    voltages_ptr += lane
    left = tl.where(inside, T, 0)  # steps
    ahead = _load(x_ptr, x_step, left, AHEAD, real)
    for _ in range(0, T, AHEAD):
        xs = ahead
        x_ptr += AHEAD * x_step
        ahead = _load(x_ptr, x_step, left - AHEAD, AHEAD, real)
        for i in tl.static_range(AHEAD):
            now = left > i
            if keep and i % CHUNK == 0:
                tl.store(kept_ptr, v, mask=now)
                kept_ptr += M
            _, _, fires, v = _step(v, xs[i], d, tau, theta, leak, reset, delay)
            last = tl.where(now, v, last)  # off the way from v to v
            tl.store(s_ptr, fires.to(real).to(s_ptr.dtype.element_ty), mask=now)
            s_ptr += M
            if tell:
                tl.store(voltages_ptr, v, mask=now)
                voltages_ptr += M
        left -= AHEAD
    tl.store(last_ptr + lane, last, mask=inside)


@triton.jit
def _derivative(u, k, surrogate: tl.constexpr):
    if surrogate == "atan":
        w = 1.5707963267948966 * k * u
        p = 0.5 * k / (1.0 + w * w)
    elif surrogate == "fast_sigmoid":
        w = 1.0 + k * tl.abs(u)
        p = 1.0 / (w * w)
    elif surrogate == "triangular":
        p = k * tl.maximum(1.0 - k * tl.abs(u), 0.0)
    else:
        p = u * 0.0 + k
    return p


@triton.jit
def _step_back(
    h, n, g, g_v, d, theta, k,
    reset: tl.constexpr, delay: tl.constexpr, detach: tl.constexpr, surrogate: tl.constexpr,
):  # fmt: skip
    """dL/dh_t and the step's part of dL/dtheta, from n = dL/dh_{t+1}, g = dL/ds_t, g_v = dL/dv_t.

    The formulas are those of the CPU: b comes back to v_t, and `back` meets dr/ds.
    """
    fires = h > theta if delay else h >= theta
    b = d * n
    if not delay:
        b += g_v
    back = b
    if delay and reset == "subtract":
        back = n
    g_s = g
    if not detach:
        if reset == "subtract":
            g_s = g - theta * back
        elif reset == "zero":
            g_s = g - h * back
    through = g_s * _derivative(h - theta, k, surrogate)
    g_theta = -through
    if reset == "subtract":
        g_theta = tl.where(fires, g_theta - back, g_theta)
    elif reset == "zero":
        b = tl.where(fires, 0.0, b)
    if delay:
        b += g_v
    return through + b, g_theta


@triton.jit(do_not_specialize=(*SIZES, "g_step", "g_lane", "gv_step", "gv_lane"))
def _backward(
    x_ptr, d_ptr, tau_ptr, theta_ptr, kept_ptr, g_ptr, gv_ptr, g_last_ptr,
    gx_ptr, gd_ptr, gtheta_ptr, g0_ptr, slope: tl.float64,
    T, M: tl.int64, each: tl.int64, x_step: tl.int64, x_lane: tl.int64,
    g_step: tl.int64, g_lane: tl.int64, gv_step: tl.int64, gv_lane: tl.int64,
    leak: tl.constexpr, reset: tl.constexpr, delay: tl.constexpr, detach: tl.constexpr,
    surrogate: tl.constexpr, told: tl.constexpr, learn: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    real: tl.constexpr = kept_ptr.dtype.element_ty
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < M
    k = tl.full([BLOCK], slope, real)
    d = tl.load(d_ptr + lane * each, mask=inside, other=0.0)
    tau = tl.load(tau_ptr + lane * each, mask=inside, other=1.0)
    theta = tl.load(theta_ptr + lane * each, mask=inside, other=0.0)
    g_last = tl.load(g_last_ptr + lane, mask=inside, other=0.0)
    zero = tl.zeros([BLOCK], real)
    n, gd, gtheta = zero, zero, zero
    chunks = tl.cdiv(T, CHUNK)
    t0 = (chunks - 1) * CHUNK
    x_ptr += t0 * x_step + lane * x_lane
    g_ptr += t0 * g_step + lane * g_lane
    gv_ptr += t0 * gv_step + lane * gv_lane
    gx_ptr += (t0 + CHUNK) * M + lane
    kept_ptr += (chunks - 1) * M + lane
    left = tl.where(inside, T - t0, 0)  # steps from t0 on
    xs_ahead = _load(x_ptr, x_step, left, CHUNK, real)
    gs_ahead = _load(g_ptr, g_step, left, CHUNK, real)
    v_ahead = tl.load(kept_ptr, mask=inside, other=0.0)
    v0 = v_ahead
    for _ in range(0, chunks):
        xs, gs, v0 = xs_ahead, gs_ahead, v_ahead
        x_ptr -= CHUNK * x_step
        g_ptr -= CHUNK * g_step
        kept_ptr -= M
        more = tl.where(inside & (left < T), left + CHUNK, 0)
        xs_ahead = _load(x_ptr, x_step, more, CHUNK, real)
        gs_ahead = _load(g_ptr, g_step, more, CHUNK, real)
        v_ahead = tl.load(kept_ptr, mask=more > 0, other=0.0)
        if told:
            gvs = _load(gv_ptr, gv_step, left, CHUNK, real)
            gv_ptr -= CHUNK * gv_step
        v, us, hs = v0, (), ()
        for i in tl.static_range(CHUNK):
            u, h, _, v = _step(v, xs[i], d, tau, theta, leak, reset, delay)
            us += (u,)
            hs += (h,)
        for i in tl.static_range(CHUNK - 1, -1, -1):
            g_v = tl.where(left == i + 1, g_last, 0.0)
            if told:
                g_v += gvs[i]
            n, g_theta = _step_back(
                hs[i], n, gs[i], g_v, d, theta, k, reset, delay, detach, surrogate
            )
            g_x, g_d = n, n * us[i]
            if leak == "average":
                g_x, g_d = n / tau, n * (us[i] - xs[i])
            gx_ptr -= M
            tl.store(gx_ptr, g_x.to(gx_ptr.dtype.element_ty), mask=left > i)
            if learn:
                gd += g_d
                gtheta += g_theta
        left = more
    if delay:  # the first reset follows from the voltage before the first step
        g0, g_theta = _step_back(v0, n, zero, zero, d, theta, k, reset, delay, detach, surrogate)
        gtheta += g_theta
    else:
        g0 = d * n
    tl.store(g0_ptr + lane, g0, mask=inside)
    if learn:
        tl.store(gd_ptr + lane, gd, mask=inside)
        tl.store(gtheta_ptr + lane, gtheta, mask=inside)


class _LIFScan(torch.autograd.Function):
    """Of x (T, M) and v0 (M,); decay, tau and threshold are (M,) or, all alike, (1,)."""

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
        ctx.set_materialize_grads(False)
        T, M = x.shape
        keep = any(ctx.needs_input_grad)
        s = x.new_empty(T, M)
        kept = v0.new_empty(triton.cdiv(T, CHUNK) if keep else 0, M)
        voltages = x.new_empty(T if tell else 0, M)
        last = torch.empty_like(v0)
        grid, launch = _grid(M)
        with torch.cuda.device_of(x):
            _forward[grid](
                x, d, tau, theta, v0, s, kept, voltages, last,
                T, M, int(len(d) > 1), *x.stride(),
                leak=kind["leak"], reset=kind["reset"], delay=kind["reset_delay"],
                keep=keep, tell=tell, AHEAD=AHEAD, CHUNK=CHUNK, **launch,
            )  # fmt: skip
        ctx.save_for_backward(x, d, tau, theta, kept)
        ctx.kind, ctx.slope = kind, slope
        return s, voltages, last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, g: Tensor | None, g_voltages: Tensor | None, g_last: Tensor | None
    ):
        x, d, tau, theta, kept = ctx.saved_tensors
        T, M = x.shape
        learn = ctx.needs_input_grad[1] or ctx.needs_input_grad[3]
        told = g_voltages is not None
        g = kept.new_zeros(()).expand(T, M) if g is None else _side_by_side(g)
        g_voltages = _side_by_side(g_voltages) if told else g
        g_last = kept.new_zeros(M) if g_last is None else g_last.contiguous()
        gx, g0 = x.new_empty(T, M), torch.empty_like(kept[0])
        gd, gtheta = kept.new_empty(2, M if learn else 0)
        grid, launch = _grid(M)
        with torch.cuda.device_of(x):
            _backward[grid](
                x, d, tau, theta, kept, g, g_voltages, g_last, gx, gd, gtheta, g0, ctx.slope,
                T, M, int(len(d) > 1), *x.stride(), *g.stride(), *g_voltages.stride(),
                leak=ctx.kind["leak"], reset=ctx.kind["reset"], delay=ctx.kind["reset_delay"],
                detach=ctx.kind["detach_reset"], surrogate=ctx.kind["surrogate"],
                told=told, learn=learn, CHUNK=CHUNK, **launch,
            )  # fmt: skip
        if not learn:
            return gx, None, None, None, g0, None, None, None
        if len(d) == 1:
            gd, gtheta = gd.sum(0, keepdim=True), gtheta.sum(0, keepdim=True)
        return gx, gd, None, gtheta, g0, None, None, None


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
    """Spikes, voltages (none unless `tell`) and the last voltage, as in the reference.

    x may be of half precision, and so are then the spikes and voltages; all else is float32.
    """
    flat = _side_by_side(x.reshape(len(x), -1))
    each = decay.numel() > 1 or threshold.numel() > 1
    d, tau, theta = (
        q.expand(x.shape[1:]).reshape(-1).contiguous() if each else q.reshape(1)
        for q in (decay, tau.detach(), threshold)
    )
    s, voltages, last = _LIFScan.apply(
        flat, d, tau, theta, v.reshape(-1).contiguous(), kind, slope, tell
    )
    return s.view(x.shape), voltages.view(-1, *x.shape[1:]), last.view(x.shape[1:])


def _side_by_side(x: Tensor) -> Tensor:
    """The same (T, M) values, with neurons side by side in memory, or all alike."""
    return x if x.stride(1) in (0, 1) else x.contiguous()


def _grid(M: int) -> tuple[tuple[int], dict[str, Any]]:
    """Programs, and how each is launched: of one warp until there are plenty."""
    warps = 1 if M <= 2**14 else 2 if M <= 2**16 else 4
    block = 32 * warps
    return (triton.cdiv(M, block),), {
        "BLOCK": block,
        "num_warps": warps,
        "enable_fp_fusion": False,
    }
