"""Batched sparse inference: codes of signals in an overcomplete dictionary."""

import warnings

import torch
from torch import Tensor

from labkit.kernels.sparse_code import reference
from labkit.kernels.sparse_code.reference import PENALTIES

BACKENDS = ("reference", "cpu", "gpu")
_told: set[str] = set()


def sparse_code(
    x: Tensor,
    dictionary: Tensor,
    lam: float,
    *,
    penalty: str = "soft",
    init: Tensor | None = None,
    max_iter: int = 5000,
    tol: float = 1e-4,
    accelerate: bool | None = None,
    backend: str | None = None,
) -> Tensor:
    """Minimise 1/2 ||x - D a||^2 + lam sum_i C(a_i) over a, for every row of x.

    The formulas and their sources are in `reference.py`. For "soft" the result is the global
    minimum; the other penalties are not convex, and what is found depends on `init`.

    Parameters
    ----------
    x : (B, n) float32 or float64 signals, one a row
    dictionary : (n, K) atoms, one a column; "cel0" needs unit-norm atoms
    lam : weight of the penalty, positive; for "hard", a non-zero coefficient costs lam
    penalty : "soft" (l1), "hard" (l0), "half" (l1/2) or "cel0" (continuous exact l0)
    init : (B, K) start; zeros by default
    max_iter : most iterations
    tol : stop once every row is this close to a minimum: the relative duality gap for "soft", the
        proximal residual relative to the largest of |D^T x| for the others; 0 runs `max_iter`
    accelerate : FISTA with restart instead of plain proximal gradient; by default for "soft" alone,
        since it voids the guarantee of descent where the penalty is not convex
    backend : "reference"; "cpu" and "gpu" fall back to it until they are built, and say so once

    Returns
    -------
    (B, K) codes, dtype and device of x. Zeros are exact: `(a != 0).sum(1)` counts active units.

    Raises
    ------
    ValueError
        for shapes that do not fit, mixed dtypes or devices, NaN, infinities, an unknown penalty or
        back end, lam <= 0, a dictionary of zeros, or atoms that are not unit-norm with "cel0".
    """
    _check(x, dictionary, lam, penalty, init, max_iter, tol, backend)
    if backend in ("cpu", "gpu") and backend not in _told:
        _told.add(backend)
        warnings.warn(f"sparse_code has no {backend!r} back end; using reference", stacklevel=2)
    if x.numel() == 0 or dictionary.shape[1] == 0:
        return x.new_zeros(x.shape[0], dictionary.shape[1])
    start = x.new_zeros(x.shape[0], dictionary.shape[1]) if init is None else init.clone()
    accelerate = penalty == "soft" if accelerate is None else accelerate
    solve = reference.fista if accelerate else reference.ista
    return solve(x, dictionary, lam, penalty, start, max_iter, tol)


def _check(
    x: Tensor,
    dictionary: Tensor,
    lam: float,
    penalty: str,
    init: Tensor | None,
    max_iter: int,
    tol: float,
    backend: str | None,
) -> None:
    if penalty not in PENALTIES:
        raise ValueError(f"unknown penalty {penalty!r}: one of {', '.join(PENALTIES)}")
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}: one of {', '.join(BACKENDS)} or None")
    if not 0 < lam < float("inf"):
        raise ValueError(f"lam must be positive and finite, not {lam}")
    if max_iter < 0 or not tol >= 0:
        raise ValueError(f"max_iter and tol must not be negative: {max_iter}, {tol}")
    if x.ndim != 2 or dictionary.ndim != 2 or x.shape[1] != dictionary.shape[0]:
        raise ValueError(
            f"x must be (B, n) and dictionary (n, K), not {tuple(x.shape)} and "
            f"{tuple(dictionary.shape)}"
        )
    if init is not None and init.shape != (x.shape[0], dictionary.shape[1]):
        raise ValueError(
            f"init must be (B, K) = {(x.shape[0], dictionary.shape[1])}, not {tuple(init.shape)}"
        )
    for name, tensor in {"x": x, "dictionary": dictionary, "init": init}.items():
        if tensor is None:
            continue
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} must be float32 or float64, not {tensor.dtype}")
        if tensor.dtype != x.dtype or tensor.device != x.device:
            raise ValueError(
                f"{name} must share dtype and device with x: {tensor.dtype} on {tensor.device} "
                f"against {x.dtype} on {x.device}"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinite values")
    norms = dictionary.norm(dim=0)
    if dictionary.numel() and not norms.any():
        raise ValueError("every atom of the dictionary is zero")
    if penalty == "cel0" and norms.numel() and (norms - 1).abs().max() > 1e-3:
        raise ValueError(
            f"penalty 'cel0' needs unit-norm atoms; norms range over "
            f"{norms.min():.4g} to {norms.max():.4g}"
        )
