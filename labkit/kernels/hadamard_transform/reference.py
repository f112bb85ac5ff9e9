"""Fast Walsh-Hadamard transform in plain PyTorch: what `labkit.kernels.hadamard_transform` means.

    y = H_n x / sqrt(n),   H_1 = [1],   H_2n = [[H_n, H_n], [H_n, -H_n]]

in natural (Sylvester's) order. H_n is symmetric and H_n H_n = n I, so that the transform is its own
inverse and its own gradient. H_n is the Kronecker product of log2(n) matrices H_2: one stage for
each makes n log2(n) sums instead of n^2 (Fino & Algazi 1976).
"""

import torch
from torch import Tensor


def hadamard_transform(x: Tensor) -> Tensor:
    """Transform of x (..., n) along its last axis; half precision is computed in float32."""
    n = x.shape[-1]
    y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    stride = 1
    while stride < n:
        first, second = y.reshape(*x.shape[:-1], n // (2 * stride), 2, stride).unbind(-2)
        y = torch.stack((first + second, first - second), dim=-2)
        stride *= 2
    return (y.reshape(x.shape) * n**-0.5).to(x.dtype)
