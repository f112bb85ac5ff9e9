"""Selective synaptic dampening: forget by shrinking what matters to the forget set alone."""

from collections.abc import Mapping
from math import inf, isfinite

import torch
from torch import Tensor, nn

from labkit.kernels.dampen import dampen
from labkit.kernels.dispatch import check_floating


def selective_synaptic_dampening(
    model: nn.Module,
    importance_all: Mapping[str, Tensor],
    importance_forget: Mapping[str, Tensor],
    alpha: float,
    lam: float,
) -> dict[str, int]:
    """Dampen a model in place, with no training and no data (Foster et al., AAAI 2024).

    Every parameter with importance_forget > alpha importance_all is multiplied by
    min(lam importance_all / importance_forget, 1); the others stay. Parameters that
    the importances do not name stay as they are, and so do buffers such as the statistics of a
    batch norm. Everything is checked before anything changes.

    With exact per-sample importances, alpha is bounded: if a share rho of the data is to be
    forgotten, importance_forget <= importance_all / rho, so that alpha >= 1 / rho selects nothing.

    Parameters
    ----------
    model : its parameters change
    importance_all, importance_forget : name of a parameter -> tensor of its shape, finite and not
        negative, as `fisher_diagonal` returns them; both name the same parameters
    alpha : how many times larger the importance to the forget set must be, positive
    lam : strength of what remains, positive; smaller dampens more

    Returns
    -------
    name -> how many elements of that parameter were multiplied by less than 1

    Raises
    ------
    TypeError
        for an importance of another dtype than `labkit.kernels.dampen` asks for.
    ValueError
        for names that are not parameters of the model or not in both mappings, no names at all,
        shapes or devices that differ, importances that are negative, NaN or infinite, or alpha or
        lam that are not positive and finite.
    """
    parameters = dict(model.named_parameters())
    _check(parameters, importance_all, importance_forget, alpha, lam)
    counts = {
        name: dampen(parameters[name], importance_all[name], importance_forget[name], alpha, lam)
        for name in importance_all
    }
    return {name: int(count) for name, count in counts.items()}


def _check(
    parameters: Mapping[str, Tensor],
    importance_all: Mapping[str, Tensor],
    importance_forget: Mapping[str, Tensor],
    alpha: float,
    lam: float,
) -> None:
    for name, value in {"alpha": alpha, "lam": lam}.items():
        if not (value > 0 and isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, not {value}")
    if not importance_all:
        raise ValueError("importance_all must name at least one parameter of the model")
    different = sorted(importance_all.keys() ^ importance_forget.keys())
    if different:
        raise ValueError(
            "importance_all and importance_forget must name the same parameters; only one of them "
            f"names {', '.join(map(repr, different))}"
        )
    unknown = sorted(importance_all.keys() - parameters.keys())
    if unknown:
        raise ValueError(
            f"importance_all names no parameter of the model with {', '.join(map(repr, unknown))}"
        )
    importances = {"importance_all": importance_all, "importance_forget": importance_forget}
    for label, importance in importances.items():
        for name, value in importance.items():
            _check_importance(f"{label}[{name!r}]", value, parameters[name])


def _check_importance(label: str, value: Tensor, parameter: Tensor) -> None:
    wanted = torch.promote_types(parameter.dtype, torch.float32)
    check_floating(label, value, among=(wanted,))
    if value.shape != parameter.shape:
        raise ValueError(
            f"{label} must have the shape of the parameter, {tuple(parameter.shape)}, "
            f"not {tuple(value.shape)}"
        )
    if value.device != parameter.device:
        raise ValueError(
            f"{label} must lie on {parameter.device} as the parameter does, not on {value.device}"
        )
    if value.numel() == 0:
        return
    low, high = torch.aminmax(value)  # one pass; a NaN anywhere makes both NaN
    if not (low >= 0 and high < inf):
        raise ValueError(
            f"{label} must be finite and not negative; its values range from {low} to {high}"
        )
