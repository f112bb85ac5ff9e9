"""Sparse coding of natural images.

gabor       Gabor functions fitted to atoms and receptive fields
dictionary  atoms learned from examples
sparseness  how sparse a code is: lifetime, population, usage

Codes themselves are `labkit.kernels.sparse_code`; whitening and patches are in `labkit.data`.
"""
