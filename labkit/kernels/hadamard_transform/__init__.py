"""Fast Walsh-Hadamard transform along the last axis."""

from typing import Any

import torch
from torch import Tensor

from labkit.checks import check_floating
from labkit.kernels.dispatch import choose
from labkit.kernels.hadamard_transform import reference


def hadamard_transform(x: Tensor, *, backend: str | None = None) -> Tensor:
    """Orthonormal Walsh-Hadamard transform of the last axis, y = H_n x / sqrt(n).

    In natural (Sylvester's) order; its own inverse, its own gradient. Formulas and source are in
    `reference.py`. The butterflies work in place in the result; x is left as it is.

    Parameters
    ----------
    x : (..., n) of any floating point type, n a power of two
    backend : "reference", "cpu" or "gpu"; that of the device of x if None

    Returns
    -------
    (..., n), dtype and device of x; half precision is computed in float32.

    Raises
    ------
    TypeError
        if x holds no real floating point numbers.
    ValueError
        if n is no power of two, or for an unknown back end.
    """
    check_floating("x", x)
    n = x.shape[-1] if x.ndim else 0
    if n < 1 or n & (n - 1):
        raise ValueError(f"the last axis of x must be a power of two; x is {tuple(x.shape)}")
    backend = choose("hadamard_transform", backend, x)
    if backend == "reference" or x.numel() == 0:
        return reference.hadamard_transform(x)
    return _Transform.apply(x, backend)


class _Transform(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, backend: str) -> Tensor:
        ctx.backend = backend
        rows = x.detach().resolve_neg().reshape(-1, x.shape[-1]).contiguous()
        if backend == "cpu":
            from labkit.kernels.hadamard_transform import cpu

            return cpu.transform(rows).reshape(x.shape)
        from labkit.kernels.hadamard_transform import gpu

        return gpu.transform(rows).reshape(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Transform.apply(grad, ctx.backend), None
