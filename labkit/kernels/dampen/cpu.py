"""dampen on the CPU: one pass, which reads three streams and writes where it must."""

import numpy as np
import torch
from torch import Tensor

from labkit.jit import jit
from labkit.kernels.dispatch import split

BLOCK = 16384  # elements that share one count, and the least that are worth a thread


@jit()
def _run(first, last, theta, F, f, bound, lam, counts):
    for block in range(first, last):
        part = slice(block * BLOCK, min(theta.size, (block + 1) * BLOCK))
        theta_, F_, f_ = theta[part], F[part], f[part]
        count = 0
        for i in range(theta_.size):
            if f_[i] > bound * F_[i]:  # becomes a masked store: what stays is not written
                theta_[i] *= lam * F_[i] / f_[i]
                count += 1
        counts[block] = count


def dampen(theta: Tensor, F: Tensor, f: Tensor, alpha: float, lam: float) -> Tensor:
    """Contiguous tensors of one dtype, float32 or float64. Changes theta; returns the count."""
    theta_, F_, f_ = (tensor.detach().view(-1).numpy() for tensor in (theta, F, f))
    blocks = -(-theta_.size // BLOCK)
    counts = np.empty(blocks, dtype=np.int64)
    # Where lam F >= f the factor is 1, so f > max(alpha, lam) F selects all that changes.
    bound, lam_ = theta_.dtype.type(max(alpha, lam)), theta_.dtype.type(lam)
    split(_run, blocks, theta_, F_, f_, bound, lam_, counts)
    return torch.tensor(counts.sum())
