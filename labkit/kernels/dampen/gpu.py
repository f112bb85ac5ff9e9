"""dampen on the GPU: one program a block, one pass over memory."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


# The numbers travel as float64, or those of float64 parameters would be cut to float32.
@triton.jit
def _run(
    theta_ptr, F_ptr, f_ptr, count_ptr, n, bound: tl.float64, lam: tl.float64, BLOCK: tl.constexpr
):
    block = tl.program_id(0)
    i = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    F = tl.load(F_ptr + i, mask=inside, other=0.0)
    f = tl.load(f_ptr + i, mask=inside, other=0.0)
    selected = f > tl.full([BLOCK], bound, F.dtype) * F
    factor = tl.full([BLOCK], lam, F.dtype) * F / tl.where(selected, f, 1.0)
    theta = tl.load(theta_ptr + i, mask=selected, other=0.0)
    dampened = theta.to(F.dtype) * factor
    tl.store(theta_ptr + i, dampened.to(theta.dtype), mask=selected)
    tl.store(count_ptr + block, tl.sum(selected.to(tl.int32), axis=0))


def dampen(theta: Tensor, F: Tensor, f: Tensor, alpha: float, lam: float) -> Tensor:
    """Contiguous tensors, F and f of one dtype. Changes theta; returns the count."""
    blocks = triton.cdiv(theta.numel(), BLOCK)
    counts = torch.empty(blocks, dtype=torch.int32, device=theta.device)
    # Where lam F >= f the factor is 1, so f > max(alpha, lam) F selects all that changes.
    _run[(blocks,)](theta, F, f, counts, theta.numel(), max(alpha, lam), lam, BLOCK=BLOCK)
    return counts.sum()
