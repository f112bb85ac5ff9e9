"""Batched sparse inference: codes of signals in an overcomplete dictionary."""

import torch
from torch import Tensor

from labkit.checks import check_choice, check_finite, check_floating, check_like, check_positive
from labkit.kernels import dispatch
from labkit.kernels.sparse_code.reference import METHODS, PENALTIES

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def sparse_code(
    x: Tensor,
    dictionary: Tensor,
    lam: float,
    *,
    penalty: str = "soft",
    method: str | None = None,
    init: Tensor | None = None,
    max_iter: int = 5000,
    tol: float = 1e-4,
    backend: str | None = None,
) -> Tensor:
    """Minimise 1/2 ||x - D a||^2 + lam sum_i C(a_i) over a, for every row of x.

    The formulas and their sources are in `reference.py`. For "soft" the result is the global
    minimum; the other penalties are not convex, and what is found depends on `init` and `method`.
    Every row stops by itself, so its code does not depend on the other rows.

    Parameters
    ----------
    x : (B, n) signals, one a row; half and bfloat16 are computed in float32
    dictionary : (n, K) atoms, one a column; "cel0" needs unit-norm atoms
    lam : weight of the penalty, positive; for "hard", a non-zero coefficient costs lam
    penalty : "soft" (l1), "hard" (l0), "half" (l1/2) or "cel0" (continuous exact l0)
    method : "ista" (proximal gradient), "fista" (with momentum and restart; where the penalty is
        not convex it need not descend) or "lca" (competing neurons); every back end takes the same
        steps. By default what is fastest: for "soft" a working set solved by coordinate descent and
        conjugate gradients on the CPU and fista elsewhere, for the other penalties ista
    init : (B, K) start; zeros by default
    max_iter : most iterations of a row
    tol : a row stops once it is this close to a minimum: the relative duality gap for "soft", the
        proximal residual relative to the largest of |D^T x| for the others; looked at every ten
        iterations. Rounding puts a floor under both, of some 3e-6 in float32. 0 runs `max_iter`,
        or to where nothing changes any more
    backend : "reference", "cpu", "gpu" or None, the device's own. Only the reference has a
        gradient, through all its iterations; it is taken by default where one is asked for. The
        CPU's holds the Gram matrix (K, K)

    Returns
    -------
    (B, K) codes, dtype and device of x. Zeros are exact: `(a != 0).sum(1)` counts active units.

    Raises
    ------
    TypeError
        for numbers that are not floating point, or mixed dtypes.
    ValueError
        for shapes that do not fit, mixed devices, NaN, infinities, an unknown penalty, method or
        back end, lam <= 0, a dictionary of zeros, atoms that are not unit-norm with "cel0", or a
        compiled back end where a gradient is asked for.
    """
    _check(x, dictionary, lam, penalty, method, init, max_iter, tol)
    backend = _choose(x, dictionary, init, backend)
    if x.numel() == 0 or dictionary.shape[1] == 0:
        return x.new_zeros(x.shape[0], dictionary.shape[1])

    dtype = torch.promote_types(x.dtype, torch.float32)
    D = dictionary.to(dtype).contiguous()
    signals = x.to(dtype).contiguous()
    start = signals.new_zeros(len(x), D.shape[1])
    if init is not None:
        start = init.to(dtype, copy=True, memory_format=torch.contiguous_format)

    if backend == "cpu" and penalty == "soft" and method is None:
        from labkit.kernels.sparse_code.cpu import minimise_l1

        return minimise_l1(signals, D, lam, start, max_iter, float(tol)).to(x.dtype)
    if backend == "cpu":
        from labkit.kernels.sparse_code.cpu import solve
    elif backend == "gpu":
        from labkit.kernels.sparse_code.gpu import solve
    else:
        from labkit.kernels.sparse_code.reference import solve
    method = method or ("fista" if penalty == "soft" else "ista")
    return solve(signals, D, lam, penalty, method, start, max_iter, float(tol)).to(x.dtype)


def _choose(x: Tensor, dictionary: Tensor, init: Tensor | None, backend: str | None) -> str:
    """The back end that computes; only the reference can where a gradient is asked for."""
    asked = [t is not None and t.requires_grad for t in (x, dictionary, init)]
    if not (torch.is_grad_enabled() and any(asked)):
        return dispatch.choose("sparse_code", backend, x)
    if backend in ("cpu", "gpu"):
        name = ("x", "dictionary", "init")[asked.index(True)]
        raise ValueError(
            f"backend {backend!r} has no gradient, and {name} requires one: detach it, or take "
            "backend='reference'"
        )
    return dispatch.choose("sparse_code", "reference" if backend is None else backend, x)


def _check(
    x: Tensor,
    dictionary: Tensor,
    lam: float,
    penalty: str,
    method: str | None,
    init: Tensor | None,
    max_iter: int,
    tol: float,
) -> None:
    check_choice("penalty", penalty, PENALTIES)
    check_choice("method", method, (*METHODS, None))
    check_positive(lam=lam)
    if max_iter < 0 or not tol >= 0:
        raise ValueError(f"max_iter and tol must not be negative: {max_iter}, {tol}")
    tensors = {"x": x, "dictionary": dictionary} | ({} if init is None else {"init": init})
    for name, tensor in tensors.items():
        check_floating(name, tensor, among=_DTYPES)
        check_like(name, tensor, "x", x)
    if x.ndim != 2 or dictionary.ndim != 2 or x.shape[1] != dictionary.shape[0]:
        raise ValueError(
            f"x must be (B, n) and dictionary (n, K), not {tuple(x.shape)} and "
            f"{tuple(dictionary.shape)}"
        )
    if init is not None and init.shape != (x.shape[0], dictionary.shape[1]):
        raise ValueError(
            f"init must be (B, K) = {(x.shape[0], dictionary.shape[1])}, not {tuple(init.shape)}"
        )
    for name, tensor in tensors.items():
        check_finite(name, tensor)
    norms = dictionary.detach().float().norm(dim=0)
    if dictionary.numel() and not norms.any():
        raise ValueError("every atom of the dictionary is zero")
    if penalty == "cel0" and norms.numel() and (norms - 1).abs().max() > 1e-3:
        raise ValueError(
            f"penalty 'cel0' needs unit-norm atoms; norms range over "
            f"{norms.min():.4g} to {norms.max():.4g}"
        )
