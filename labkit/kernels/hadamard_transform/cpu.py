"""Walsh-Hadamard transform on a CPU, in blocks that fit the L1 cache.

A stage of the textbook works on pairs at distance 1, 2, 4 and so on, and the short distances do not
fill a vector. Here (Pease 1968) every pass takes the sums of four neighbours, the two lowest bits
of the index, and stores them a quarter of the block apart: these bits become the highest, and the
next pass finds two new ones below. After as many passes as the block has pairs of bits, all are
back in their place. A block holds many short rows: the bits of the row's number only travel.
"""

import numpy as np
import torch
from torch import Tensor

from labkit.jit import jit
from labkit.kernels.dispatch import split
from labkit.kernels.hadamard_transform import reference

DENSE = 64  # up to this n one product with the matrix is faster
BLOCK_BITS = {4: 12, 8: 10}  # by size of a number; even, as a pass takes two bits
WIDTH = 256  # columns that the butterflies between blocks carry at once
WORTH = 2**15  # numbers that are worth a thread

_compiled = jit()


def transform(x: Tensor) -> Tensor:
    """Transform of every row of x (rows, n)."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return transform(x.float()).to(x.dtype)
    rows, n = x.shape
    if n <= DENSE:
        return x @ reference.hadamard_transform(torch.eye(n, dtype=x.dtype))
    out = torch.empty(x.shape, dtype=x.dtype)
    source, target = x.numpy().reshape(-1), out.numpy().reshape(-1)
    scale = source.dtype.type(n**-0.5)
    bits = BLOCK_BITS[x.element_size()]
    block = 2**bits
    if n <= block:
        blocks, least = -(-x.numel() // block), max(1, WORTH // block)
        split(_blocks, blocks, source, target, n.bit_length() - 1, bits, scale, least=least)
    elif rows >= torch.get_num_threads():
        split(_rows, rows, source, target, n, bits, scale)
    else:
        split(_blocks, x.numel() // block, source, target, bits, bits, scale)
        split(_columns, rows * block // WIDTH, target, n // block, block)
    return out


@_compiled
def _rows(first, last, x, out, n, bits, scale):
    """Rows longer than a block, each to its end while it lies in the cache."""
    block = 1 << bits
    each = n // block
    for row in range(first, last):
        _blocks(row * each, (row + 1) * each, x, out, bits, bits, scale)
        _columns(row * block // WIDTH, (row + 1) * block // WIDTH, out, each, block)


@_compiled
def _blocks(first, last, x, out, levels, bits, scale):
    """Butterflies over the lowest bits, as many as levels, within every block of x."""
    block = 1 << bits
    here, there = np.empty(block, x.dtype), np.empty(block, x.dtype)
    for k in range(first, last):
        low, high = k * block, (k + 1) * block
        if high <= x.size:
            _block(x[low:high], out[low:high], here, there, levels, bits, scale)
        else:
            padded = np.zeros(block, x.dtype)
            padded[: x.size - low] = x[low:]
            _block(padded, padded, here, there, levels, bits, scale)
            out[low:] = padded[: x.size - low]


@_compiled
def _block(x, out, here, there, levels, bits, scale):
    one = x.dtype.type(1)
    _pass(x, here, levels, scale)
    for done in range(2, bits - 2, 2):
        _pass(here, there, levels - done, one)
        here, there = there, here
    _pass(here, out, levels - (bits - 2), one)


@_compiled
def _pass(x, y, levels, scale):
    """Move the two lowest bits to the top, with butterflies over both, the lower or none."""
    m = x.size // 4
    if levels >= 2:
        for i in range(m):
            a, b, c, d = x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]
            a, b, c, d = a + b, a - b, c + d, c - d
            y[i] = (a + c) * scale
            y[i + m] = (b + d) * scale
            y[i + 2 * m] = (a - c) * scale
            y[i + 3 * m] = (b - d) * scale
    elif levels == 1:
        for i in range(m):
            a, b, c, d = x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]
            y[i], y[i + m], y[i + 2 * m], y[i + 3 * m] = a + b, a - b, c + d, c - d
    else:
        for i in range(m):
            a, b, c, d = x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]
            y[i], y[i + m], y[i + 2 * m], y[i + 3 * m] = a, b, c, d


@_compiled
def _columns(first, last, out, m, block):
    """Butterflies over m blocks in place: tiles of WIDTH columns of the (m, block) of each row."""
    each = block // WIDTH
    for tile in range(first, last):
        corner = tile // each * m * block + tile % each * WIDTH
        stride = 1
        while stride < m:
            for i in range(m // 2):
                i += i // stride * stride  # those rows whose bit of this stage is 0
                low = corner + i * block
                high = low + stride * block
                upper, lower = out[low : low + WIDTH], out[high : high + WIDTH]
                for j in range(WIDTH):
                    a, b = upper[j], lower[j]
                    upper[j] = a + b
                    lower[j] = a - b
            stride *= 2
