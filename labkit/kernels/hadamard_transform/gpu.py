"""Walsh-Hadamard transform on a GPU: rows in registers, long rows in more than one pass.

H_mn is the Kronecker product of H_m and H_n: a row longer than LONGEST is transformed in pieces of
LONGEST, then across the pieces, in place.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LONGEST = 8192  # numbers of a row in one program: 32 KiB to exchange, which every GPU has
TILE = 2048  # numbers of a program with short rows


def transform(x: Tensor) -> Tensor:
    """Transform of every row of x (rows, n)."""
    n = x.shape[1]
    half = x.dtype in (torch.float16, torch.bfloat16)
    between = torch.float32 if half and n > LONGEST else x.dtype
    out = torch.empty(x.shape, dtype=between, device=x.device)
    source, stride = x, 1
    while True:
        size = min(LONGEST, n // stride)
        rows = x.numel() // size
        block = max(1, min(TILE // size, triton.next_power_of_2(rows)))
        _transform[(triton.cdiv(rows, block),)](
            source,
            out,
            rows,
            stride,
            N=size,
            LOG_N=size.bit_length() - 1,
            ROWS=block,
            DOUBLE=x.dtype == torch.float64,
            num_warps=max(1, min(16, size * block // 512)),
        )
        source, stride = out, stride * size
        if stride == n:
            return out.to(x.dtype)


@triton.jit(do_not_specialize=["rows"])
def _transform(
    x, out, rows, stride,
    N: tl.constexpr, LOG_N: tl.constexpr, ROWS: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """Rows of N numbers that lie stride apart, stride rows side by side."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    corner = row // stride * stride * N + row % stride
    at = corner[:, None] + tl.arange(0, N)[None, :] * stride
    mask = (row < rows)[:, None]
    real_type: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    y = tl.load(x + at, mask=mask, other=0.0).to(real_type)
    for _ in tl.static_range(LOG_N):  # the lowest bit of the index becomes the highest
        even, odd = tl.split(tl.reshape(y, (ROWS, N // 2, 2)))
        pairs = tl.permute(tl.join(even + odd, even - odd), (0, 2, 1))
        y = tl.reshape(pairs, (ROWS, N))
    scale = 1.0 / tl.sqrt(tl.full((1, 1), N, real_type))
    tl.store(out + at, y * scale, mask=mask)
