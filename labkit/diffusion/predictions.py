"""What a network may predict, and how it turns into the estimate of the clean sample and back.

With x = alpha x0 + sigma eps, the kinds are

    "x0"        x0
    "eps"       eps                                       (Ho et al. 2020)
    "v"         v = alpha eps - sigma x0                  (Salimans & Ho 2022)
    "score"     -eps / sigma, the score of p(x)           (Song et al. 2021)
    "velocity"  eps - x0, from data to noise              (flow matching: Lipman et al. 2023; Heitz
                                                           et al. 2023 have x0 - eps)

Every formula holds for any alpha and sigma, not only on the circle alpha^2 + sigma^2 = 1 or the
line alpha + sigma = 1. "eps" and "score" hold no trace of x0 where alpha = 0, and are refused.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from labkit.checks import check_choice

PREDICTIONS = ("x0", "eps", "v", "score", "velocity")

Level = float | Tensor  # alpha or sigma: a number, or a tensor () or (B,)
Denoiser = Callable[[Tensor, Level, Level], Tensor]  # (x, alpha, sigma) -> E[x0 | x], like x


def expand(a: Level, x: Tensor) -> Tensor:
    """A level as a tensor of the dtype and device of x that broadcasts over its trailing axes.

    Parameters
    ----------
    a : number, or tensor () for all samples or (B,) for one value a sample
    x : (B, ...) samples

    Returns
    -------
    () or (B, 1, ..., 1)

    Raises
    ------
    ValueError
        for another shape.
    """
    a = torch.as_tensor(a, dtype=x.dtype, device=x.device)
    if a.ndim == 0:
        return a
    if a.shape != x.shape[:1]:
        raise ValueError(
            f"a level must be a number or a tensor () or (B,) = {tuple(x.shape[:1])} for samples "
            f"{tuple(x.shape)}, not {tuple(a.shape)}"
        )
    return a.reshape(-1, *[1] * (x.ndim - 1))


def to_x0(kind: str, output: Tensor, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """The estimate of x0 that a prediction stands for.

    Parameters
    ----------
    kind : one of "x0", "eps", "v", "score", "velocity"
    output : prediction, shaped like x
    x : (B, ...) noisy samples alpha x0 + sigma eps
    alpha, sigma : number, () or (B,)

    Raises
    ------
    ValueError
        for an unknown kind, levels that do not fit, or "eps" or "score" at alpha = 0.
    """
    check_choice("prediction", kind, PREDICTIONS)
    if kind == "x0":
        return output
    alpha, sigma = _broadcast(alpha, x), _broadcast(sigma, x)
    if kind == "v":
        x0, scale = alpha * x - sigma * output, alpha**2 + sigma**2
        return x0 if is_one(scale) else x0 / scale
    if kind == "velocity":
        return (x - sigma * output) / (alpha + sigma)
    if _any_zero(alpha):
        raise ValueError(
            f"a prediction of {kind!r} at alpha = 0 (zero terminal SNR) says nothing of x0, and "
            "x0 = (x - sigma eps)/alpha divides by zero; predict 'v' or 'x0' instead"
        )
    eps = output if kind == "eps" else -sigma * output
    return (x - sigma * eps) / alpha


def from_x0(kind: str, x0: Tensor, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """The prediction that an estimate of x0 stands for; the inverse of `to_x0`.

    Raises
    ------
    ValueError
        for an unknown kind, levels that do not fit, or any kind but "x0" at sigma = 0, where x
        holds no trace of the noise.
    """
    check_choice("prediction", kind, PREDICTIONS)
    if kind == "x0":
        return x0
    a, s = _broadcast(alpha, x), _broadcast(sigma, x)
    if _any_zero(s):
        raise ValueError(f"{kind!r} cannot be read from x0 at sigma = 0, where x holds no noise")
    return target(kind, x0, (x - a * x0) / s, alpha, sigma)


def target(kind: str, x0: Tensor, eps: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """What a network of this kind is trained to give, (B, ...), of clean samples and their noise.

    Raises
    ------
    ValueError
        for an unknown kind, levels that do not fit, or "score" at sigma = 0.
    """
    check_choice("prediction", kind, PREDICTIONS)
    if kind == "x0":
        return x0
    if kind == "eps":
        return eps
    if kind == "velocity":
        return eps - x0
    alpha, sigma = _broadcast(alpha, x0), _broadcast(sigma, x0)
    if kind == "v":
        return alpha * eps - sigma * x0
    if _any_zero(sigma):
        raise ValueError("the score -eps/sigma has no value at sigma = 0; train at sigma > 0")
    return -eps / sigma


def _broadcast(a: Level, x: Tensor) -> Level:
    """`expand`, but a number stays one: samplers pass numbers, and a tensor for each takes time."""
    return a if isinstance(a, float | int) else expand(a, x)


def is_one(a: Level) -> bool:
    """Whether a level is the number one, to rounding: nothing has to be multiplied by it then."""
    return isinstance(a, float | int) and abs(a - 1) < 1e-12


def _any_zero(a: Level) -> bool:
    return a == 0 if isinstance(a, float | int) else bool((a == 0).any())
