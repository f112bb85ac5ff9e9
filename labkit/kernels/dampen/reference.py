"""Selective synaptic dampening in plain PyTorch: what `labkit.kernels.dampen` means.

    theta_i <- theta_i min(lam F_i / f_i, 1)   where f_i > alpha F_i,     theta_i otherwise

with F the importance of parameter i to all data and f its importance to the data to be forgotten
(Foster, Schoepf & Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic
Dampening", AAAI 2024, section "Proposed method"). A parameter that no data need, f = F = 0, is not
selected; one that only the forget set needs, F = 0 < f, becomes zero.
"""

import torch
from torch import Tensor


def dampen(theta: Tensor, F: Tensor, f: Tensor, alpha: float, lam: float) -> Tensor:
    """All of one shape. Changes theta; returns how many of its elements shrank, a scalar tensor."""
    factor = torch.where(f > alpha * F, (lam * F / f).clamp(max=1), 1)
    theta.mul_(factor)  # half precision: the product is taken in float32, and rounded once
    return (factor < 1).sum()
