"""Kernels: one folder per operation, a readable reference beside each compiled back end."""

from labkit.kernels.sparse_code import sparse_code

__all__ = ["sparse_code"]
