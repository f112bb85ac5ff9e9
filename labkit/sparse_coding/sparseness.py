"""How sparse a code is: of one neuron over stimuli (lifetime), of one stimulus over neurons.

Sources
-------
Rolls & Tovee (1995), J. Neurophysiol. 73:713; Vinje & Gallant (2000), Science 287:1273 -- the
activity sparseness of Treves and Rolls, as one number from 0 to 1.
Hoyer (2004), JMLR 5:1457, section 3.1.
Willmore & Tolhurst (2001), Network 12:255 -- that lifetime and population sparseness differ.
"""

import math

import torch
from torch import Tensor


def treves_rolls(r: Tensor, dim: int = -1) -> Tensor:
    """S = (1 - mean(|r|)^2 / mean(r^2)) / (1 - 1/n): 0 for equal activities, 1 for a single one.

    For codes r (B, K), `dim=0` is the lifetime sparseness of each neuron (K,), `dim=1` the
    population sparseness of each stimulus (B,). The sign of an activity does not count.

    Raises
    ------
    TypeError
        for activities that are not floating point.
    ValueError
        for fewer than two activities along `dim`, or some that are all zero: they have no
        sparseness.
    """
    n, size = _checked(r, dim)
    ratio = size.mean(dim).square() / size.square().mean(dim)
    return ((1 - ratio) / (1 - 1 / n)).clamp(0, 1)


def hoyer(r: Tensor, dim: int = -1) -> Tensor:
    """(sqrt(n) - |r|_1 / |r|_2) / (sqrt(n) - 1), from 0 to 1; arguments as in `treves_rolls`."""
    n, size = _checked(r, dim)
    root = math.sqrt(n)
    return ((root - size.sum(dim) / size.norm(dim=dim)) / (root - 1)).clamp(0, 1)


def excess_kurtosis(r: Tensor, dim: int = -1) -> Tensor:
    """Fourth central moment over the squared variance, less 3; 0 for a normal distribution.

    Raises as `treves_rolls` does, and for activities that are all equal.
    """
    _checked(r, dim)
    d = r - r.mean(dim, keepdim=True)
    variance = d.square().mean(dim)
    if not variance.all():
        raise ValueError("activities that are all equal have no kurtosis")
    return d.pow(4).mean(dim) / variance.square() - 3


def usage_entropy(a: Tensor) -> Tensor:
    """Entropy () of how often each of K atoms is active, relative to log K: 1 if all equally often.

    a : (B, K) codes, K >= 2. Raises a ValueError for another shape or codes without activity.
    """
    if a.ndim != 2 or a.shape[1] < 2:
        raise ValueError(f"a must be (B, K) with K >= 2, not {tuple(a.shape)}")
    counts = (a != 0).sum(0).double()
    if not counts.any():
        raise ValueError("no code has an active unit")
    p = counts / counts.sum()
    return torch.special.entr(p).sum() / math.log(a.shape[1])


def _checked(r: Tensor, dim: int) -> tuple[int, Tensor]:
    """The number of activities along `dim`, and their sizes relative to the largest of each."""
    if not r.is_floating_point():
        raise TypeError(f"activities must be floating point, not {r.dtype}")
    n = r.shape[dim] if r.ndim else 1
    if n < 2:
        raise ValueError(f"sparseness needs two or more activities along dim {dim}, not {n}")
    if not r.isfinite().all():
        raise ValueError("activities hold NaN or infinity")
    size = r.abs()
    largest = size.amax(dim, keepdim=True)
    if not largest.all():
        raise ValueError(f"activities that are all zero along dim {dim} have no sparseness")
    return n, size / largest  # else squares of small ones vanish
