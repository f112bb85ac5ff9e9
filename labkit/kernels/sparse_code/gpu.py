"""Sparse inference in Triton: matrix products by torch, all else of an iteration in one kernel.

One program holds one row of the codes, so that the restart of FISTA is decided where it is used.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from labkit.kernels.sparse_code import reference
from labkit.kernels.sparse_code.reference import State, rest_eta, step_size, threshold_constants


def solve(
    x: Tensor,
    D: Tensor,
    lam: float,
    penalty: str,
    method: str,
    a: Tensor,
    max_iter: int,
    tol: float,
) -> Tensor:
    """Codes (B, K) by the iterations of the reference, from the start a, which is overwritten."""
    n, K = D.shape
    eta = step_size(D)
    goal = rest_eta(eta, method)
    kind, least, gain = threshold_constants(lam, goal, penalty)
    h = min(eta, 1) if method == "lca" else eta
    constants = x.new_tensor([h, least, gain])  # a scalar would lose its float64
    Dt = D.T.contiguous()
    G = None if 2 * n < K else Dt @ D  # two products with D are then cheaper than one with G

    def correlation(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        if G is None:
            return torch.addmm(x, a, Dt, alpha=-1) @ D
        return torch.addmm(b, a, G, alpha=-1)

    block = triton.next_power_of_2(K)
    warps = min(16, max(1, block // 256))

    def step(x: Tensor, a: Tensor, ahead: Tensor, s: Tensor, b: Tensor) -> State:
        q = correlation(x, b, a if method == "lca" else ahead)
        _step[(len(a),)](a, ahead, s, q, constants, K, kind, method, block, num_warps=warps)
        return a, ahead, s, b

    def settled(x: Tensor, a: Tensor) -> Tensor:
        return reference.at_rest(x, D, a, lam, goal, penalty, tol)

    ahead = reference.lca_start(x, D, a) if method == "lca" else a.clone()
    state = (a, ahead, a.new_ones(len(a)), x @ D)
    return reference.iterate(step, x, state, max_iter, settled if tol else None)


@triton.jit
def _step(
    a_ptr, ahead_ptr, s_ptr, q_ptr, constants_ptr, K,
    KIND: tl.constexpr, METHOD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One iteration of one row; `ahead` holds the potentials u of lca, else the point z."""
    row = tl.program_id(0)
    k = tl.arange(0, BLOCK)
    inside = k < K
    at = row.to(tl.int64) * K + k
    h = tl.load(constants_ptr)
    a = tl.load(a_ptr + at, inside, 0.0)
    z = tl.load(ahead_ptr + at, inside, 0.0)
    q = tl.load(q_ptr + at, inside, 0.0)
    if METHOD == "lca":
        z += h * (q + a - z)
        new = _threshold(z, constants_ptr, KIND)
    else:
        new = _threshold(z + h * q, constants_ptr, KIND)
        z_old = z
        z = new
        if METHOD == "fista":
            s = tl.load(s_ptr + row)
            uphill = tl.sum((z_old - new) * (new - a), 0) > 0
            s_next = tl.where(uphill, 1.0, (1.0 + tl.sqrt(1.0 + 4.0 * s * s)) / 2)
            z += tl.where(uphill, 0.0, (s - 1.0) / s_next) * (new - a)
            tl.store(s_ptr + row, s_next)
    tl.store(a_ptr + at, new, inside)
    tl.store(ahead_ptr + at, z, inside)


@triton.jit
def _threshold(u, constants_ptr, KIND: tl.constexpr):
    edge = tl.load(constants_ptr + 1)
    gain = tl.load(constants_ptr + 2)
    v = tl.abs(u)
    size = v
    if KIND == "soft":
        size = v - edge
    if KIND == "cel0":
        size = tl.minimum(v, (v - edge) * gain)
    if KIND == "half":  # Newton's steps to the largest root of s^3 - v s + gain, see cpu.py
        v = tl.where(v > edge, v, 4 * edge)  # anything that has a root
        s = tl.sqrt(v)
        for _ in tl.static_range(5):
            s -= (s * s * s - v * s + gain) / (3 * s * s - v)
        size = s * s
    size = tl.where(tl.abs(u) > edge, size, 0.0)
    return tl.where(u < 0, -size, size)
