"""Sparse codes of image patches: scikit-learn's coordinate descent and LCA in plain PyTorch."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from sklearn.linear_model import Lasso
from torch import Tensor
from torch.nn import functional as F

from labkit.bench.measure import Case, Disagreement, Trial, multiplied
from labkit.data import natural_images, whitened_patches
from labkit.kernels import sparse_code
from labkit.kernels.sparse_code.reference import duality_gap

PATCHES, SIDE, ATOMS = 1024, 16, 512
GAP = 1e-3  # relative duality gap that every solver has to reach
STEPS = (0.4, 0.2, 0.1, 0.05, 0.02)  # dt / tau that LCA may take
MOST = 4000  # steps of it


@cache
def _data() -> tuple[Tensor, Tensor]:
    """Whitened patches of unit variance, and other patches as atoms of unit norm."""
    rng = np.random.default_rng(0)
    drawn = whitened_patches(natural_images(), SIDE, PATCHES + ATOMS, rng)
    patches = torch.from_numpy(drawn)
    atoms = patches[PATCHES:].T
    return patches[:PATCHES].contiguous(), (atoms / atoms.norm(dim=0)).contiguous()


def _objective(x: Tensor, D: Tensor, a: Tensor, lam: float) -> float:
    x, D, a = x.double(), D.double(), a.double()
    return float(0.5 * (x - a @ D.T).square().sum() + lam * a.abs().sum())


def _lca(x: Tensor, D: Tensor, lam: float, target: float, step: float) -> tuple[Tensor, int]:
    """Rozell et al. (2008), until the objective is as low as the target, looked at now and then."""
    b, G = x @ D, D.T @ D
    u = torch.zeros_like(b)
    a = u
    for t in range(1, MOST + 1):
        u = u + step * (b - u - a @ G + a)
        a = F.softshrink(u, lam)
        if t % 10 == 0:
            objective = 0.5 * (x - a @ D.T).square().sum() + lam * a.abs().sum()
            if float(objective) <= target:
                return a, t
            if not objective.isfinite():
                break
    return a, MOST + 1


def _build(lam: float) -> Callable[[str], Trial]:
    def build(device: str) -> Trial:
        x, D = (tensor.to(device) for tensor in _data())

        def ours() -> Tensor:
            return sparse_code(x, D, lam, tol=GAP)

        found = ours()
        target = _objective(x, D, found, lam) * (1 + GAP / 10)  # float32 sums know no better

        @cache
        def step() -> float:
            """The longest step that gets there; the longer, the faster."""
            return next(step for step in STEPS if _lca(x, D, lam, target, step)[1] <= MOST)

        X, atoms = x.cpu().numpy().T, np.asfortranarray(D.cpu().numpy())

        def scikit_learn() -> np.ndarray:
            # What `sparse_encode(algorithm="lasso_cd")` does, at our tolerance instead of its 1e-8;
            # both tolerances are relative to |x|^2.
            model = Lasso(
                alpha=lam / SIDE**2,
                fit_intercept=False,
                precompute=atoms.T @ atoms,
                tol=GAP / 2,
                max_iter=10_000,
            )
            return model.fit(atoms, X, check_input=False).coef_

        def check() -> None:
            gap = float(duality_gap(x.double(), D.double(), ours().double(), lam).max())
            if gap > 1.01 * GAP:
                raise Disagreement(f"relative duality gap {gap:.1e} instead of {GAP}")
            theirs = _objective(x, D, torch.from_numpy(scikit_learn()).to(x), lam)
            if _objective(x, D, ours(), lam) > theirs * (1 + 2 * GAP):
                raise Disagreement("a higher objective than scikit-learn's")

        active = int((found != 0).sum())
        return Trial(
            ours,
            check,
            multiplied(PATCHES * ATOMS * SIDE**2 + active * ATOMS, device),
            {
                "scikit-learn lasso_cd, at our tolerance": scikit_learn,
                "LCA, eager": lambda: _lca(x, D, lam, target, step()),
            },
        )

    return build


CASES = [
    Case(
        "sparse_code",
        f"l1 to a gap of {GAP}, {PATCHES} patches of {SIDE} x {SIDE}, {ATOMS} atoms, lam {lam}",
        "D^T x, and each active unit's row of the Gram matrix once",
        _build(lam),
        devices=("cpu", "cuda"),
    )
    for lam in (1.0, 0.5)
]
