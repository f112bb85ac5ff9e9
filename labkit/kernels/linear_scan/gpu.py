"""Linear scan on a GPU: tiles of time in parallel, and chunks of time where lanes are few.

A tile of BLOCK_T steps of BLOCK_N lanes is scanned at once, steps composed as `reference.py` says,
and the state goes from tile to tile. Where the lanes alone would leave the GPU idle, time is cut
into chunks: a first kernel finds how each chunk maps the state before it to the one after it, a
scan over these maps gives the state before every chunk, and all chunks are then scanned at once.
How time is cut follows from the shapes alone. A complex number is two reals, side by side.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_N = 32  # lanes of a tile
TILE = 2048  # states of a tile
PROGRAMS = 512  # enough to fill a GPU
LEAST_CHUNK = 512  # steps that are worth a chunk of their own


def forward(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """States (T, ...) of a (T or 1, ...), b (T, ...) and h0 (...)."""
    plan = _Plan(a, b)
    h = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    plan.launch(_forward, plan.starts(h0, backward=False), _reals(h))
    return h


def backward(
    grad: Tensor, a: Tensor, h0: Tensor, h: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of a, b and h0; that of a where h is given."""
    plan = _Plan(a, grad)
    grad_b = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
    constant = plan.a_step == 0
    grad_a = None
    if h is not None:  # one sum a chunk for a gate that is constant over time
        rows, dtype = (plan.chunks, plan.wide) if constant else (len(grad), grad.dtype)
        grad_a = torch.empty((rows, *h0.shape), dtype=dtype, device=grad.device)
    plan.launch(
        _backward,
        plan.starts(torch.zeros_like(h0), backward=True),
        *(_reals(x) for x in (h0, h, grad_a, grad_b)),
        CONSTANT=constant,
        WANT_A=h is not None,
    )
    grad_h0 = a[0].conj() * grad_b[0]
    if grad_a is not None and constant:
        grad_a = grad_a.sum(0, keepdim=True).to(a.dtype)
    return grad_a, grad_b, grad_h0


class _Plan:
    """How a scan with gates a (T or 1, ...) over x (T, ...) is cut into programs."""

    def __init__(self, a: Tensor, x: Tensor) -> None:
        self.steps, self.lanes = len(x), x[0].numel()
        self.a_step = 0 if len(a) == 1 else self.lanes
        self.x_step = 0 if x.stride(0) == 0 or len(x) == 1 else self.lanes
        self.a = _reals(a)
        self.x = _reals(x if self.x_step else x[:1])
        self.block_n = min(BLOCK_N, triton.next_power_of_2(self.lanes))
        self.block_t = min(TILE // self.block_n, triton.next_power_of_2(self.steps))
        self.lane_blocks = triton.cdiv(self.lanes, self.block_n)
        chunks = max(1, min(PROGRAMS // self.lane_blocks, self.steps // LEAST_CHUNK))
        tiles = triton.cdiv(triton.cdiv(self.steps, chunks), self.block_t)
        self.chunk = tiles * self.block_t
        self.chunks = triton.cdiv(self.steps, self.chunk)
        self.dtype = x.dtype
        half = x.dtype in (torch.float16, torch.bfloat16)
        self.wide = torch.float32 if half else x.dtype  # what states are computed in

    def starts(self, first: Tensor, *, backward: bool) -> Tensor:
        """The state before every chunk, (chunks, lanes), where the first chunk starts from first.

        Backward, chunks count from the end of time, and the state is the gradient G_t.
        """
        first = first.reshape(1, -1)
        if self.chunks == 1:
            return _reals(first)
        gates, states = torch.empty(
            (2, self.chunks, self.lanes), dtype=self.wide, device=first.device
        ).unbind()
        self.launch(_ends, _reals(gates), _reals(states), BACKWARD=backward)
        ends = forward(gates, states, first[0].to(self.wide))
        return _reals(torch.cat((first.to(self.wide), ends[:-1])))

    def launch(self, kernel: object, *tensors: Tensor | None, **options: bool) -> None:
        """Run a kernel over all lanes and chunks; x stands in for a tensor that is not there."""
        kernel[(self.lane_blocks, self.chunks)](
            self.a,
            self.x,
            *(self.x if tensor is None else tensor for tensor in tensors),
            self.steps,
            self.lanes,
            self.chunk,
            self.a_step,
            self.x_step,
            COMPLEX=self.dtype.is_complex,
            DOUBLE=self.dtype in (torch.float64, torch.complex128),
            BLOCK_T=self.block_t,
            BLOCK_N=self.block_n,
            **options,
        )


def _reals(x: Tensor | None) -> Tensor | None:
    """A contiguous tensor of reals, (..., 2) for complex x."""
    if x is None:
        return None
    x = x.detach().resolve_conj().resolve_neg().contiguous()
    return torch.view_as_real(x) if x.is_complex() else x


# ------------------------------------------------------------------ kernels


@triton.jit
def _join(a, b, c, d):
    """The step (a, b), then the step (c, d)."""
    return c * a, c * b + d


@triton.jit
def _join_complex(ar, ai, br, bi, cr, ci, dr, di):
    return (
        cr * ar - ci * ai,
        cr * ai + ci * ar,
        cr * br - ci * bi + dr,
        cr * bi + ci * br + di,
    )


@triton.jit
def _load(x, offset, mask, other, COMPLEX: tl.constexpr, DOUBLE: tl.constexpr):
    """Real and imaginary part at an offset in numbers; for reals the latter is the former again."""
    real_type: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    if COMPLEX:
        re = tl.load(x + 2 * offset, mask=mask, other=other).to(real_type)
        im = tl.load(x + 2 * offset + 1, mask=mask, other=0.0).to(real_type)
        return re, im
    else:
        re = tl.load(x + offset, mask=mask, other=other).to(real_type)
        return re, re


@triton.jit
def _store(x, offset, re, im, mask, COMPLEX: tl.constexpr):
    if COMPLEX:
        tl.store(x + 2 * offset, re, mask=mask)
        tl.store(x + 2 * offset + 1, im, mask=mask)
    else:
        tl.store(x + offset, re, mask=mask)


@triton.jit
def _tile(
    a, x, k, lane, steps, lanes, a_step, x_step,
    BACKWARD: tl.constexpr, COMPLEX: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """How steps k map the state before the tile: h -> A h + H, as Ar, Ai, Hr, Hi.

    Backward, k counts from the end of time, and the gate of a step is that of the step after it.
    Steps beyond the end leave the state as it is.
    """
    t = steps - 1 - k if BACKWARD else k
    gate_t = t + 1 if BACKWARD else t
    mask = ((k < steps)[:, None]) & ((lane < lanes)[None, :])
    gate_mask = mask & ((gate_t < steps)[:, None])
    at_gate = gate_t.to(tl.int64)[:, None] * a_step + lane[None, :]
    ar, ai = _load(a, at_gate, gate_mask, 1.0, COMPLEX, DOUBLE)
    at_x = t.to(tl.int64)[:, None] * x_step + lane[None, :]
    xr, xi = _load(x, at_x, mask, 0.0, COMPLEX, DOUBLE)
    if COMPLEX:
        if BACKWARD:
            ai = -ai
        return tl.associative_scan((ar, ai, xr, xi), 0, _join_complex)
    else:
        ar, xr = tl.associative_scan((ar, xr), 0, _join)
        return ar, ar, xr, xr


@triton.jit
def _apply(ar, ai, hr, hi, sr, si, COMPLEX: tl.constexpr):
    """A s + H for a state s (lanes)."""
    sr, si = sr[None, :], si[None, :]
    if COMPLEX:
        return ar * sr - ai * si + hr, ar * si + ai * sr + hi
    else:
        hr = ar * sr + hr
        return hr, hr


@triton.jit
def _last(x, BLOCK_T: tl.constexpr):
    """The last row of a tile."""
    row = tl.arange(0, BLOCK_T)[:, None]
    return tl.sum(tl.where(row == BLOCK_T - 1, x, 0.0), 0)


@triton.jit(do_not_specialize=["steps", "chunk"])
def _ends(
    a, x, gates, states, steps, lanes, chunk, a_step, x_step,
    COMPLEX: tl.constexpr, DOUBLE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
    BACKWARD: tl.constexpr,
):  # fmt: skip
    """How a chunk maps the state before it: s -> gates s + states."""
    lane = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.program_id(1) * chunk
    real_type: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    pr = tl.full((BLOCK_N,), 1.0, real_type)
    pi = tl.zeros((BLOCK_N,), real_type)
    sr = tl.zeros((BLOCK_N,), real_type)
    si = tl.zeros((BLOCK_N,), real_type)
    for start in range(first, tl.minimum(first + chunk, steps), BLOCK_T):
        k = start + tl.arange(0, BLOCK_T)
        ar, ai, hr, hi = _tile(
            a, x, k, lane, steps, lanes, a_step, x_step, BACKWARD, COMPLEX, DOUBLE
        )
        ar, hr = _last(ar, BLOCK_T), _last(hr, BLOCK_T)
        if COMPLEX:
            ai, hi = _last(ai, BLOCK_T), _last(hi, BLOCK_T)
            pr, pi, sr, si = _join_complex(pr, pi, sr, si, ar, ai, hr, hi)
        else:
            pr, sr = _join(pr, sr, ar, hr)
    at = tl.program_id(1).to(tl.int64) * lanes + lane
    _store(gates, at, pr, pi, lane < lanes, COMPLEX)
    _store(states, at, sr, si, lane < lanes, COMPLEX)


@triton.jit(do_not_specialize=["steps", "chunk"])
def _forward(
    a, b, starts, h, steps, lanes, chunk, a_step, b_step,
    COMPLEX: tl.constexpr, DOUBLE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """h_t = a_t h_{t-1} + b_t in one chunk."""
    lane = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.program_id(1) * chunk
    at = tl.program_id(1).to(tl.int64) * lanes + lane
    sr, si = _load(starts, at, lane < lanes, 0.0, COMPLEX, DOUBLE)
    for start in range(first, tl.minimum(first + chunk, steps), BLOCK_T):
        k = start + tl.arange(0, BLOCK_T)
        ar, ai, hr, hi = _tile(a, b, k, lane, steps, lanes, a_step, b_step, False, COMPLEX, DOUBLE)
        hr, hi = _apply(ar, ai, hr, hi, sr, si, COMPLEX)
        at_h = k.to(tl.int64)[:, None] * lanes + lane[None, :]
        _store(h, at_h, hr, hi, (k < steps)[:, None] & (lane < lanes)[None, :], COMPLEX)
        sr, si = _last(hr, BLOCK_T), _last(hi, BLOCK_T)


@triton.jit(do_not_specialize=["steps", "chunk"])
def _backward(
    a, grad, starts, h0, h, grad_a, grad_b, steps, lanes, chunk, a_step, grad_step,
    COMPLEX: tl.constexpr, DOUBLE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
    CONSTANT: tl.constexpr, WANT_A: tl.constexpr,
):  # fmt: skip
    """G_t = dL/dh_t + conj(a_{t+1}) G_{t+1} in one chunk, and G_t conj(h_{t-1})."""
    lane = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.program_id(1) * chunk
    at = tl.program_id(1).to(tl.int64) * lanes + lane
    real_type: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    gr, gi = _load(starts, at, lane < lanes, 0.0, COMPLEX, DOUBLE)
    total_r = tl.zeros((BLOCK_N,), real_type)
    total_i = tl.zeros((BLOCK_N,), real_type)
    for start in range(first, tl.minimum(first + chunk, steps), BLOCK_T):
        k = start + tl.arange(0, BLOCK_T)
        ar, ai, xr, xi = _tile(
            a, grad, k, lane, steps, lanes, a_step, grad_step, True, COMPLEX, DOUBLE
        )
        xr, xi = _apply(ar, ai, xr, xi, gr, gi, COMPLEX)
        gr, gi = _last(xr, BLOCK_T), _last(xi, BLOCK_T)
        t = (steps - 1 - k).to(tl.int64)[:, None]
        mask = (k < steps)[:, None] & (lane < lanes)[None, :]
        at_t = t * lanes + lane[None, :]
        _store(grad_b, at_t, xr, xi, mask, COMPLEX)
        if WANT_A:
            br, bi = _load(h, at_t - lanes, mask & (t > 0), 0.0, COMPLEX, DOUBLE)
            cr, ci = _load(h0, at_t, mask & (t == 0), 0.0, COMPLEX, DOUBLE)
            br, bi = br + cr, bi + ci  # h_{t-1}
            if COMPLEX:
                zr, zi = xr * br + xi * bi, xi * br - xr * bi
            else:
                zr, zi = xr * br, xr
            if CONSTANT:
                total_r += tl.sum(tl.where(mask, zr, 0.0), 0)
                total_i += tl.sum(tl.where(mask, zi, 0.0), 0)
            else:
                _store(grad_a, at_t, zr, zi, mask, COMPLEX)
    if WANT_A and CONSTANT:
        _store(grad_a, at, total_r, total_i, lane < lanes, COMPLEX)
