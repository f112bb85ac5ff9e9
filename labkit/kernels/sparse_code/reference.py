"""Sparse inference in plain PyTorch: what `labkit.kernels.sparse_code` means.

    minimise over a   1/2 ||x - D a||^2 + lam sum_i C(a_i)

by proximal gradient from a start a:  u = a + eta D^T (x - D a),  a = T(u),  eta = 1 / ||D||_2^2,
where the threshold T is the proximal map of eta lam C.

======== ==================================================== =================================
penalty  C(a)                                                 source of the threshold
======== ==================================================== =================================
soft     |a|                                                  Daubechies et al. 2004
hard     1[a != 0]                                            Blumensath & Davies 2008
half     |a|^(1/2)                                            Xu et al. 2012
cel0     1 - max(0, 1 - |a| / sqrt(2 lam))^2, unit atoms      Soubies et al. 2015
======== ==================================================== =================================
"""

from math import pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = ("soft", "hard", "half", "cel0")


def threshold(u: Tensor, lam: float, eta: float, penalty: str) -> Tensor:
    """Proximal map of eta lam C at u, elementwise."""
    if penalty == "soft":
        return F.softshrink(u, lam * eta)
    if penalty == "hard":
        return F.hardshrink(u, sqrt(2 * lam * eta))
    if penalty == "half":
        mu = 2 * lam * eta
        a = F.hardshrink(u, (54 ** (1 / 3) / 4) * mu ** (2 / 3))
        active = a.nonzero(as_tuple=True)  # the cosine is dear: take it where it counts
        v = a[active]
        w = v.abs() / 3
        phi = torch.arccos((mu / 8) / (w * w.sqrt()))
        a[active] = (2 / 3) * v * (1 + torch.cos(2 * pi / 3 - (2 / 3) * phi))
        return a
    if eta >= 1:  # CEL0 is then as steep as the quadratic: its proximal map is the hard threshold
        return threshold(u, lam, eta, "hard")
    # sign(u) min(|u|, max(|u| - s eta, 0) / (1 - eta)), written as a sum of two soft thresholds
    s = sqrt(2 * lam)
    return torch.sub(F.softshrink(u, s * eta), F.softshrink(u, s), alpha=eta) / (1 - eta)


def penalty_value(a: Tensor, lam: float, penalty: str) -> Tensor:
    """Lam C(a), elementwise."""
    if penalty == "soft":
        return lam * a.abs()
    if penalty == "hard":
        return lam * (a != 0).to(a.dtype)
    if penalty == "half":
        return lam * a.abs().sqrt()
    return lam * (1 - (1 - a.abs() / sqrt(2 * lam)).clamp(min=0) ** 2)


def ista(
    x: Tensor, D: Tensor, lam: float, penalty: str, a: Tensor, max_iter: int, tol: float
) -> Tensor:
    """Proximal gradient; every step lowers the objective, convex or not."""
    eta = step_size(D)
    Dt = D.T.contiguous()
    for t in range(max_iter):
        new = threshold(_gradient_step(x, D, Dt, a, eta), lam, eta, penalty)
        old, a = a, new
        if tol and t % 10 == 9 and _converged(x, D, a, lam, penalty, (a - old) / eta, tol):
            break
    return a


def fista(
    x: Tensor, D: Tensor, lam: float, penalty: str, a: Tensor, max_iter: int, tol: float
) -> Tensor:
    """Accelerated proximal gradient (Beck & Teboulle 2009), each row restarted by itself whenever
    momentum points uphill (O'Donoghue & Candes 2015).
    """
    eta = step_size(D)
    Dt = D.T.contiguous()
    z, s = a, x.new_ones(x.shape[0], 1)
    for t in range(max_iter):
        new = threshold(_gradient_step(x, D, Dt, z, eta), lam, eta, penalty)
        uphill = ((z - new) * (new - a)).sum(dim=1, keepdim=True) > 0
        s_next = torch.where(uphill, 1, (1 + (1 + 4 * s**2).sqrt()) / 2)
        z = new + torch.where(uphill, 0, (s - 1) / s_next) * (new - a)
        old, a, s = a, new, s_next
        if tol and t % 10 == 9 and _converged(x, D, a, lam, penalty, (a - old) / eta, tol):
            break
    return a


def _gradient_step(x: Tensor, D: Tensor, Dt: Tensor, a: Tensor, eta: float) -> Tensor:
    """The gradient step a + eta (x - a D^T) D, each product fused with the sum it goes into."""
    return torch.addmm(a, torch.addmm(x, a, Dt, alpha=-1), D, alpha=eta)


def step_size(D: Tensor) -> float:
    """The longest step for which proximal gradient surely descends, eta = 1 / ||D||_2^2."""
    gram = D @ D.T if D.shape[0] <= D.shape[1] else D.T @ D  # the smaller one, same eigenvalues
    return 1 / float(torch.linalg.eigvalsh(gram)[-1])


def duality_gap(x: Tensor, D: Tensor, a: Tensor, lam: float) -> Tensor:
    """Relative duality gap of the l1 problem, one number a row; 0 only at the minimum.

    The residual, scaled until |D^T r| <= lam, is a feasible dual point (Kim et al. 2007).
    """
    r = x - a @ D.T
    primal = 0.5 * (r**2).sum(dim=1) + lam * a.abs().sum(dim=1)
    scale = (lam / (r @ D).abs().amax(dim=1)).clamp(max=1).unsqueeze(1)
    dual = 0.5 * (x**2).sum(dim=1) - 0.5 * ((x - scale * r) ** 2).sum(dim=1)
    energy = 0.5 * (x**2).sum(dim=1)
    return torch.where(energy > 0, (primal - dual) / energy, primal)


def _converged(
    x: Tensor, D: Tensor, a: Tensor, lam: float, penalty: str, residual: Tensor, tol: float
) -> bool:
    if penalty == "soft":
        return bool((duality_gap(x, D, a, lam) <= tol).all())
    return bool((residual.abs().amax(dim=1) <= tol * (x @ D).abs().amax(dim=1)).all())
