"""Kernels: one folder per operation, a readable reference beside each compiled back end."""

from labkit.kernels.dampen import dampen
from labkit.kernels.delayed_linear import delay_kernel, delayed_linear
from labkit.kernels.hadamard_transform import hadamard_transform
from labkit.kernels.lif_scan import lif_scan
from labkit.kernels.linear_scan import linear_scan
from labkit.kernels.sparse_code import sparse_code

__all__ = [
    "dampen",
    "delay_kernel",
    "delayed_linear",
    "hadamard_transform",
    "lif_scan",
    "linear_scan",
    "sparse_code",
]
