"""Sparse inference in Numba, row by row on the Gram matrix G = D^T D.

What an iteration asks of the data is how every atom correlates with the residual,
q = D^T (x - D a) = b - G a. A sparse code makes that cheap: only the rows of G that belong to
active units are read. Every row stops by itself.
"""

import numpy as np
from numpy import ndarray
from torch import Tensor

from labkit.jit import jit
from labkit.kernels.dispatch import split
from labkit.kernels.sparse_code.reference import (
    CHECK_EVERY,
    rest_eta,
    step_size,
    threshold_constants,
)

# Sums may be reordered into vectors: the order is fixed when compiled, whatever the threads.
FAST = {"contract", "reassoc", "nsz", "nnan", "ninf"}
_compiled = jit(fastmath=FAST)

LANES = 32  # a loop over a multiple of it has no remainder after the last vector
KINDS = {"soft": 0, "hard": 1, "half": 2, "cel0": 3}
LEAST_ROWS = 4  # that are worth a thread


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
    G, b, energy = _products(x, D)
    eta = step_size(D)
    goal = rest_eta(eta, method)
    number = G.dtype.type
    h = number(min(eta, 1) if method == "lca" else eta)
    kind, least, gain = threshold_constants(lam, goal, penalty)
    T = KINDS[kind], number(least), number(gain)
    split(
        _iterate, len(b), b, G, energy, number(lam), T, number(goal), h,
        method == "fista", method == "lca", a.numpy(), max_iter, tol, least=LEAST_ROWS,
    )  # fmt: skip
    return a


def minimise_l1(x: Tensor, D: Tensor, lam: float, a: Tensor, max_iter: int, tol: float) -> Tensor:
    """Codes (B, K) at the minimum of the l1 problem, from the start a, which is overwritten.

    Each round looks at all atoms, adds to a working set those that violate optimality most, and
    then descends inside the set: by coordinate (Friedman et al. 2010), which finds the active units
    and their signs, and by conjugate gradients among these as long as no sign changes.
    """
    G, b, energy = _products(x, D)
    split(
        _descend, len(b), b, G, energy, G.dtype.type(lam), a.numpy(), max_iter, tol,
        least=LEAST_ROWS,
    )  # fmt: skip
    return a


def _products(x: Tensor, D: Tensor) -> tuple[ndarray, ndarray, ndarray]:
    """The Gram matrix (K, K), correlations with x (B, K), and energy |x|^2 / 2 in float64 (B,)."""
    return (D.T @ D).numpy(), (x @ D).numpy(), (0.5 * x.double().square().sum(dim=1)).numpy()


# ------------------------------------------------------------------ all atoms


@_compiled
def _active(a, index, value):
    """List the active units of a code; returns how many there are."""
    count = 0
    for k in range(len(a)):
        index[count] = k
        value[count] = a[k]
        count += a[k] != 0
    return count


@_compiled
def _correlate(b, G, index, value, count, q, width):
    """The correlations q = b - G a, from the active units listed, four rows of G at a time."""
    for k in range(width):
        q[k] = b[k]
    fours = count // 4 * 4
    for i in range(0, fours, 4):
        g0, g1, g2, g3 = G[index[i]], G[index[i + 1]], G[index[i + 2]], G[index[i + 3]]
        v0, v1, v2, v3 = value[i], value[i + 1], value[i + 2], value[i + 3]
        for k in range(width):
            q[k] -= v0 * g0[k] + v1 * g1[k] + v2 * g2[k] + v3 * g3[k]
    for i in range(fours, count):
        g, v = G[index[i]], value[i]
        for k in range(width):
            q[k] -= v * g[k]


@_compiled
def _largest(q, lanes):
    """The largest |q|: one maximum a lane, since a single one would have to wait for itself."""
    zero = q.dtype.type(0)
    whole = len(q) // LANES * LANES
    for i in range(LANES):
        lanes[i] = zero
    for k in range(0, whole, LANES):
        for i in range(LANES):
            v = abs(q[k + i])
            lanes[i] = v if v > lanes[i] else lanes[i]
    top = zero
    for i in range(LANES):
        top = max(top, lanes[i])
    for k in range(whole, len(q)):
        top = max(top, abs(q[k]))
    return top


@_compiled
def _gap(b, q, index, value, count, energy, lam, top):
    """The duality gap of `reference.duality_gap`, absolute; top = max |q|."""
    s = 1.0 if top <= lam else np.float64(lam) / np.float64(top)
    residual = 2 * energy  # |r|^2 = |x|^2 - a b - a q
    gap = 0.0
    for i in range(count):
        v = np.float64(value[i])
        correlation = np.float64(q[index[i]])
        residual -= v * (np.float64(b[index[i]]) + correlation)
        gap += np.float64(lam) * abs(v) - s * v * correlation
    return gap + 0.5 * (1 - s) ** 2 * max(residual, 0.0)


# ------------------------------------------------------------------ ista, fista, lca


@_compiled
def _iterate(
    first, last, b, G, energy, lam, T, eta, h, accelerate, compete, codes, max_iter, tol
):  # fmt: skip
    K = len(G)
    # Separate allocations: the compiler vectorises loops over arrays that surely do not overlap.
    u, z, new = np.empty(K, G.dtype), np.empty(K, G.dtype), np.empty(K, G.dtype)
    q, q_z, q_new = np.empty(K, G.dtype), np.empty(K, G.dtype), np.empty(K, G.dtype)
    value = np.empty(K, G.dtype)
    index = np.empty(K, np.uintp)
    lanes = np.empty(LANES, G.dtype)
    for row in range(first, last):
        a = codes[row]
        rest = tol * np.float64(_largest(b[row], lanes)) * np.float64(eta)
        count = _active(a, index, value)
        _correlate(b[row], G, index, value, count, q, K)
        s = 1.0
        for k in range(K):
            z[k], q_z[k] = a[k], q[k]
            u[k] = a[k] + q[k] if a[k] != 0 else 0
        for t in range(1, max_iter + 1):
            if compete:
                for k in range(K):
                    u[k] += h * (q[k] + a[k] - u[k])
            else:
                for k in range(K):
                    u[k] = z[k] + h * q_z[k]
            count = _threshold(u, T, new, index, value)
            _correlate(b[row], G, index, value, count, q_new, K)
            beta = q.dtype.type(0)
            if accelerate:
                uphill = q.dtype.type(0)
                for k in range(K):
                    uphill += (z[k] - new[k]) * (new[k] - a[k])
                s_next = 1.0 if uphill > 0 else (1 + np.sqrt(1 + 4 * s * s)) / 2
                beta = q.dtype.type(0 if uphill > 0 else (s - 1) / s_next)
                s = s_next
            for k in range(K):
                z[k] = new[k] + beta * (new[k] - a[k])
                q_z[k] = q_new[k] + beta * (q_new[k] - q[k])
                a[k], q[k] = new[k], q_new[k]
            if tol == 0 or t % CHECK_EVERY:
                continue
            if T[0] == 0:
                top = _largest(q, lanes)
                if _gap(b[row], q, index, value, count, energy[row], lam, top) <= tol * energy[row]:
                    break
            else:
                for k in range(K):
                    q_new[k] = a[k] + eta * q[k]
                _threshold(q_new, T, new, index, value)
                for k in range(K):
                    new[k] -= a[k]
                if _largest(new, lanes) <= rest:
                    break


@_compiled
def _threshold(u, T, a, index, value):
    """The code a = T(u); lists its active units as `_active` does."""
    kind, edge, gain = T
    zero = u.dtype.type(0)
    if kind == 0:
        for k in range(len(u)):
            a[k] = np.copysign(max(abs(u[k]) - edge, zero), u[k])
    elif kind == 3:
        for k in range(len(u)):
            grown = max(abs(u[k]) - edge, zero) * gain
            a[k] = np.copysign(min(abs(u[k]), grown), u[k])
    else:
        for k in range(len(u)):
            a[k] = u[k] if abs(u[k]) > edge else zero
    count = _active(a, index, value)
    if kind == 2:
        # sqrt|a| is the largest root s of s^3 - |u| s + gain = 0: Newton's steps from sqrt|u|, to
        # its right, fall to it and are done after five, since there |u| <= slope <= 2 |u|.
        for i in range(count):
            v = abs(value[i])
            s = np.sqrt(v)
            for _ in range(5):
                s -= (s * s * s - v * s + gain) / (3 * s * s - v)
            value[i] = np.copysign(s * s, value[i])
        for i in range(count):
            a[index[i]] = value[i]
    return count


# ------------------------------------------------------------------ the l1 minimum


SWEEPS = 2  # by coordinate in a round
STEPS = 8  # of conjugate gradients in a round
ENOUGH = 0.01  # of the squared gradient, at which they stop


@_compiled
def _descend(first, last, b, G, energy, lam, codes, max_iter, tol):
    K = len(G)
    q, value = np.empty(K, G.dtype), np.empty(K, G.dtype)
    index = np.empty(K, np.uintp)
    lanes = np.empty(LANES, G.dtype)
    members = np.empty(K, np.uintp)  # of the working set
    member = np.empty(K, np.bool_)
    a_W, q_W = np.zeros(K + LANES, G.dtype), np.zeros(K + LANES, G.dtype)
    inverse, sign = np.zeros(K + LANES, G.dtype), np.zeros(K + LANES, G.dtype)
    p, y = np.zeros(K + LANES, G.dtype), np.zeros(K + LANES, G.dtype)
    zeros = np.zeros(K + LANES, G.dtype)
    G_W = np.zeros((2 * LANES, 2 * LANES), G.dtype)
    zero, half = G.dtype.type(0), G.dtype.type(0.5)
    for row in range(first, last):
        a = codes[row]
        m = 0
        for k in range(K):
            member[k] = a[k] != 0
            members[m] = k
            m += member[k]
        known = 0
        for _ in range(max_iter):
            count = _active(a, index, value)
            _correlate(b[row], G, index, value, count, q, K)
            top = _largest(q, lanes)
            if _gap(b[row], q, index, value, count, energy[row], lam, top) <= tol * energy[row]:
                break
            bar = lam + half * max(top - lam, zero)  # half the excess: few enter at a time
            for k in range(K):
                if abs(q[k]) > bar and not member[k]:
                    member[k] = True
                    members[m] = k
                    m += 1
            if m > len(G_W):
                G_W = np.zeros((2 * m // LANES * LANES, 2 * m // LANES * LANES), G.dtype)
                known = 0
            for i in range(m):
                for j in range(known if i < known else 0, m):
                    G_W[i, j] = G[members[i], members[j]]
            known = m
            width = (m + LANES - 1) // LANES * LANES
            for i in range(m):
                a_W[i] = a[members[i]]
                q_W[i] = q[members[i]]
                inverse[i] = 1 / G_W[i, i] if G_W[i, i] > 0 else zero
            for i in range(m, width):
                a_W[i] = q_W[i] = zero
            for _ in range(SWEEPS):
                _sweep(G_W, lam, a_W, q_W, inverse, m, width)
            _conjugate_gradients(G_W, lam, a_W, q_W, m, width, sign, p, y, zeros, index, value)
            changed = False
            for i in range(m):
                changed |= a[members[i]] != a_W[i]
                a[members[i]] = a_W[i]
            if not changed:
                break  # as it would be for ever


@_compiled
def _sweep(G, lam, a, q, inverse, m, width):
    """Minimise over one coordinate after the other."""
    zero = q.dtype.type(0)
    for j in range(m):
        v = G[j, j] * a[j] + q[j]
        new = np.copysign(max(abs(v) - lam, zero) * inverse[j], v)
        d = new - a[j]
        if d != 0:
            a[j] = new
            for k in range(width):
                q[k] -= d * G[j, k]


@_compiled
def _conjugate_gradients(G, lam, a, q, m, width, sign, p, y, zeros, index, value):
    """Minimise over the active units with their signs held; a unit that reaches 0 leaves."""
    zero, one = q.dtype.type(0), q.dtype.type(1)
    g_g = zero  # of the gradient g = (q - lam sign) among active units
    for k in range(width):
        sign[k] = one if a[k] > 0 else (-one if a[k] < 0 else zero)
        p[k] = (q[k] - lam * sign[k]) * abs(sign[k])
        g_g += p[k] * p[k]
    enough = g_g * q.dtype.type(ENOUGH)
    for _ in range(STEPS):
        if g_g <= enough:
            return
        count = 0
        for k in range(m):
            index[count] = k
            value[count] = p[k]
            count += sign[k] != 0
        _correlate(zeros, G, index, value, count, y, width)  # y = -G p
        p_y = zero
        for k in range(width):
            p_y -= p[k] * y[k]
        if not p_y > 0:
            return
        step = g_g / p_y
        crossing = 0
        for k in range(width):
            crossing += (a[k] + step * p[k]) * sign[k] < 0
        leaving = -1
        if crossing > 0:
            for k in range(m):
                if (a[k] + step * p[k]) * sign[k] < 0:
                    step = -a[k] / p[k]
                    leaving = k
        for k in range(width):
            a[k] += step * p[k]
            q[k] += step * y[k]
        if leaving >= 0:  # start again among those that are left
            a[leaving] = zero
            sign[leaving] = zero
            for k in range(width):
                p[k] = zero
            g_g = one
        before = g_g
        g_g = zero
        for k in range(width):
            y[k] = (q[k] - lam * sign[k]) * abs(sign[k])
            g_g += y[k] * y[k]
        beta = g_g / before
        for k in range(width):
            p[k] = y[k] + beta * p[k]
