"""Sparse inference in plain PyTorch: what `labkit.kernels.sparse_code` means.

    minimise over a   1/2 ||x - D a||^2 + lam sum_i C(a_i)

with x (B, n) one signal a row, D (n, K) one atom a column and a (B, K). T_eta is the proximal map
of eta lam C, a threshold:

======== ==================================================== =================================
penalty  C(a)                                                 source of the threshold
======== ==================================================== =================================
soft     |a|                                                  Daubechies et al. 2004
hard     1[a != 0]                                            Blumensath & Davies 2008
half     |a|^(1/2)                                            Xu et al. 2012
cel0     1 - max(0, 1 - |a| / sqrt(2 lam))^2, unit atoms      Soubies et al. 2015
======== ==================================================== =================================

Three iterations look for the minimum. With eta = 1 / ||D||_2^2,

- ista, proximal gradient:  a <- T_eta(a + eta D^T (x - D a));
- fista (Beck & Teboulle 2009), the same from a point ahead of a along its last step, where each
  row restarts by itself whenever this momentum points uphill (O'Donoghue & Candes 2015);
- lca (Rozell et al. 2008), neurons that compete, in Euler steps of eta time constants, at most 1:
  u <- u + eta (D^T x - u - (D^T D - I) a),  a = T_1(u).

Where lca rests, a = T_1(a + D^T (x - D a)). So its points of rest are those of proximal gradient
with a step of 1: for "soft" the minima, as for every step; for the others, since a fixed point of a
longer step is one of every shorter step too, some of those where ista rests if ||D||_2 >= 1.
"""

from collections.abc import Callable
from math import pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = ("soft", "hard", "half", "cel0")
METHODS = ("ista", "fista", "lca")
CHECK_EVERY = 10  # iterations from one look at the residual to the next

State = tuple[Tensor, ...]  # one row a signal; the codes come first


def edge(lam: float, eta: float, penalty: str) -> float:
    """The largest |u| that T_eta maps to 0."""
    if penalty == "soft":
        return lam * eta
    if penalty == "half":
        return (54 ** (1 / 3) / 4) * (2 * lam * eta) ** (2 / 3)
    if penalty == "cel0" and eta < 1:
        return sqrt(2 * lam) * eta
    return sqrt(2 * lam * eta)


def threshold(u: Tensor, lam: float, eta: float, penalty: str) -> Tensor:
    """Proximal map of eta lam C at u, elementwise."""
    least = edge(lam, eta, penalty)
    if penalty == "soft":
        return F.softshrink(u, least)
    if penalty == "half":
        a = F.hardshrink(u, least)
        active = a.nonzero(as_tuple=True)  # the cosine is dear: take it where it counts
        v = a[active]
        w = v.abs() / 3
        phi = torch.arccos((lam * eta / 4) / (w * w.sqrt()))
        return a.index_put(active, (2 / 3) * v * (1 + torch.cos(2 * pi / 3 - (2 / 3) * phi)))
    if penalty == "cel0" and eta < 1:
        # sign(u) min(|u|, max(|u| - s eta, 0) / (1 - eta)), as a sum of two soft thresholds
        s = sqrt(2 * lam)
        return torch.sub(F.softshrink(u, least), F.softshrink(u, s), alpha=eta) / (1 - eta)
    return F.hardshrink(u, least)  # CEL0 from eta = 1 on too: it is as steep as the quadratic


def threshold_constants(lam: float, eta: float, penalty: str) -> tuple[str, float, float]:
    """A threshold as compiled kernels take it: kind, edge, a number more for "half" and "cel0"."""
    if penalty == "cel0" and eta >= 1:
        penalty = "hard"
    gain = 1 / (1 - eta) if penalty == "cel0" else lam * eta / 2
    return penalty, edge(lam, eta, penalty), gain


def penalty_value(a: Tensor, lam: float, penalty: str) -> Tensor:
    """Lam C(a), elementwise."""
    if penalty == "soft":
        return lam * a.abs()
    if penalty == "hard":
        return lam * (a != 0).to(a.dtype)
    if penalty == "half":
        return lam * a.abs().sqrt()
    return lam * (1 - (1 - a.abs() / sqrt(2 * lam)).clamp(min=0) ** 2)


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
    """Codes (B, K) of x (B, n), from the start a (B, K)."""
    eta = step_size(D)
    Dt = D.T.contiguous()

    def ista(x: Tensor, a: Tensor) -> State:
        return (threshold(gradient_step(x, D, Dt, a, eta), lam, eta, penalty),)

    def fista(x: Tensor, a: Tensor, z: Tensor, s: Tensor) -> State:
        new = threshold(gradient_step(x, D, Dt, z, eta), lam, eta, penalty)
        uphill = ((z - new) * (new - a)).sum(dim=1, keepdim=True) > 0
        s_next = torch.where(uphill, 1, (1 + (1 + 4 * s**2).sqrt()) / 2)
        return new, new + torch.where(uphill, 0, (s - 1) / s_next) * (new - a), s_next

    def lca(x: Tensor, a: Tensor, u: Tensor) -> State:
        u = torch.lerp(u, gradient_step(x, D, Dt, a, 1), min(eta, 1))
        return threshold(u, lam, 1, penalty), u

    state: State = (a,)
    if method == "fista":
        state = (a, a, a.new_ones(a.shape[0], 1))
    if method == "lca":
        state = (a, lca_start(x, D, a))
    step = {"ista": ista, "fista": fista, "lca": lca}[method]

    def settled(x: Tensor, a: Tensor) -> Tensor:
        return at_rest(x, D, a, lam, rest_eta(eta, method), penalty, tol)

    return iterate(step, x, state, max_iter, settled if tol else None)


def iterate(
    step: Callable[..., State],
    x: Tensor,
    state: State,
    max_iter: int,
    settled: Callable[[Tensor, Tensor], Tensor] | None,
) -> Tensor:
    """Repeat a step. Rows that have settled are put aside, so that no row depends on the others."""
    codes = state[0].clone()
    rows = torch.arange(x.shape[0], device=x.device)
    for t in range(1, max_iter + 1):
        state = step(x, *state)
        if settled is None or t % CHECK_EVERY:
            continue
        done = settled(x, state[0])
        if done.any():
            codes = codes.index_put((rows[done],), state[0][done])
            rows, x = rows[~done], x[~done]
            state = tuple(part[~done] for part in state)
            if not len(rows):
                break
    return codes.index_put((rows,), state[0])


def gradient_step(x: Tensor, D: Tensor, Dt: Tensor, a: Tensor, eta: float) -> Tensor:
    """The gradient step a + eta (x - a D^T) D, each product fused with the sum it goes into."""
    return torch.addmm(a, torch.addmm(x, a, Dt, alpha=-1), D, alpha=eta)


def step_size(D: Tensor) -> float:
    """The longest step for which proximal gradient surely descends, eta = 1 / ||D||_2^2."""
    gram = D @ D.T if D.shape[0] <= D.shape[1] else D.T @ D  # the smaller one, same eigenvalues
    return 1 / float(torch.linalg.eigvalsh(gram.detach())[-1])


def lca_start(x: Tensor, D: Tensor, a: Tensor) -> Tensor:
    """Potentials for the codes a: of active units as if at rest, of the others 0."""
    return torch.where(a != 0, a + (x - a @ D.T) @ D, 0)


def rest_eta(eta: float, method: str) -> float:
    """The step of proximal gradient whose points of rest a method looks for."""
    return 1.0 if method == "lca" else eta


def at_rest(
    x: Tensor, D: Tensor, a: Tensor, lam: float, eta: float, penalty: str, tol: float
) -> Tensor:
    """Which rows are done, (B,) of bool: by the duality gap for "soft", else by the proximal
    residual |T_eta(a + eta D^T r) - a| / eta, relative to |D^T x|, the largest entry of each.
    """
    if penalty == "soft":
        return duality_gap(x, D, a, lam) <= tol
    u = a + eta * ((x - a @ D.T) @ D)
    residual = (threshold(u, lam, eta, penalty) - a).abs().amax(dim=1) / eta
    return residual <= tol * (x @ D).abs().amax(dim=1)


def duality_gap(x: Tensor, D: Tensor, a: Tensor, lam: float) -> Tensor:
    """Relative duality gap of the l1 problem, one number a row; 0 only at the minimum.

    The residual r, scaled by s until |D^T r| <= lam, is a feasible dual point (Kim et al. 2007).
    Primal minus dual value, relative to |x|^2 / 2, written as a sum of terms that do not cancel:
    (1 - s)^2 |r|^2 / 2 + sum_i (lam |a_i| - s a_i (D^T r)_i). A row of zeros has it absolute.
    """
    r = x - a @ D.T
    correlation = r @ D
    s = (lam / correlation.abs().amax(dim=1, keepdim=True)).clamp(max=1)
    gap = 0.5 * ((1 - s) * r).square().sum(dim=1) + (lam * a.abs() - s * a * correlation).sum(dim=1)
    energy = 0.5 * x.square().sum(dim=1)
    return gap / torch.where(energy > 0, energy, 1)
