"""Selective synaptic dampening of one tensor of parameters, in place."""

import torch
from torch import Tensor

from labkit.checks import check_device, check_floating, check_positive
from labkit.kernels import dispatch
from labkit.kernels.dampen import reference


@torch.no_grad()
def dampen(
    theta: Tensor,
    importance_all: Tensor,
    importance_forget: Tensor,
    alpha: float,
    lam: float,
    *,
    backend: str | None = None,
) -> Tensor:
    """Shrink, in place, the parameters that matter more to the forget set than to all data.

    Where importance_forget > alpha importance_all, theta is multiplied by
    min(lam importance_all / importance_forget, 1); elsewhere it stays as it is. Formula and source
    are in `reference.py`. A NaN among the importances leaves its parameter alone. Values are not
    checked here, which would cost as much as the work: see
    `labkit.unlearning.selective_synaptic_dampening` for a whole model.

    Parameters
    ----------
    theta : parameters of any shape: float16, bfloat16, float32 or float64
    importance_all, importance_forget : shape and dtype of theta, but float32 for half precision;
        finite and not negative
    alpha : how many times larger the importance to the forget set must be, positive
    lam : strength of what remains, positive; smaller dampens more
    backend : "reference", "cpu" or "gpu"; by default the one of the device of theta

    Returns
    -------
    int64 scalar tensor on the device of theta: how many parameters were multiplied by less than 1.

    Raises
    ------
    TypeError
        for an argument that is no tensor of floating point numbers, or importances of a dtype other
        than the one that theta asks for.
    ValueError
        for shapes or devices that differ, alpha or lam that are not positive and finite, or an
        unknown back end.
    """
    _check(theta, importance_all, importance_forget, alpha, lam)
    chosen = dispatch.choose("dampen", backend, theta)
    if theta.numel() == 0:
        return torch.zeros((), dtype=torch.int64, device=theta.device)
    if chosen == "reference":
        return reference.dampen(theta, importance_all, importance_forget, alpha, lam)
    if chosen == "cpu":
        from labkit.kernels.dampen import cpu as kernel
    else:
        from labkit.kernels.dampen import gpu as kernel
    # The kernels run over flat memory; any other layout makes a round trip through a copy.
    flat = theta if theta.is_contiguous() else theta.contiguous()
    if chosen == "cpu" and theta.dtype in (torch.float16, torch.bfloat16):
        flat = theta.float().contiguous()
    count = kernel.dampen(
        flat, importance_all.contiguous(), importance_forget.contiguous(), alpha, lam
    )
    if flat is theta:
        torch.autograd.graph.increment_version(theta)  # autograd sees no write of a kernel
    else:
        theta.copy_(flat)
    return count


def _check(
    theta: Tensor, importance_all: Tensor, importance_forget: Tensor, alpha: float, lam: float
) -> None:
    check_positive(alpha=alpha, lam=lam)
    check_floating("theta", theta)
    wanted = torch.promote_types(theta.dtype, torch.float32)
    importances = {"importance_all": importance_all, "importance_forget": importance_forget}
    for name, value in importances.items():
        check_floating(name, value, among=(wanted,))
        if value.shape != theta.shape:
            raise ValueError(
                f"{name} must have the shape of theta, {tuple(theta.shape)}, "
                f"not {tuple(value.shape)}"
            )
        check_device(name, value, "theta", theta)
