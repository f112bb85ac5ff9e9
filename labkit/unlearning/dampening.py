"""Selective synaptic dampening: forget by shrinking what matters to the forget set alone."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from math import inf, log1p

import torch
from torch import Generator, Tensor, nn

from labkit.checks import check_choice, check_count, check_device, check_floating, check_positive
from labkit.kernels.dampen import dampen
from labkit.unlearning.checks import Examples, check_apart, check_unlearning, union
from labkit.unlearning.fisher import (
    batch_fisher_diagonal,
    fisher_diagonal,
    output_sensitivity,
)
from labkit.unlearning.training import Recipe


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


def alpha_ceiling(n_all: int, n_forget: int) -> float:
    """N / N_f, from which on alpha selects nothing with importances of single samples.

    The importance to all of the data is a mean that contains the forget set, so that
    importance_all >= (N_f / N) importance_forget: no parameter has a ratio above N / N_f, and the
    factor of dampening is never below lam N_f / N.
    """
    if not 1 <= n_forget <= n_all:
        raise ValueError(f"n_forget must be from 1 to n_all = {n_all}, not {n_forget}")
    return n_all / n_forget


def alpha_on_retain(alpha: float, rho: float) -> float:
    """The alpha that selects the same where importance_all is taken on the retain set alone.

    With a share rho to forget, importance_all = (1 - rho) importance_retain + rho
    importance_forget, so that alpha on all of the data is alpha (1 - rho) / (1 - alpha rho) on the
    retain set. Grids of alpha from papers that use one or the other do not compare without it.

    Raises
    ------
    ValueError
        for a share outside (0, 1), or alpha outside (0, 1 / rho): beyond it selects nothing.
    """
    if not 0 < rho < 1:
        raise ValueError(f"rho must lie between 0 and 1, not {rho}")
    if not 0 < alpha < 1 / rho:
        raise ValueError(f"alpha must be above 0 and below 1 / rho = {1 / rho:g}, not {alpha}")
    return alpha * (1 - rho) / (1 - alpha * rho)


# ------------------------------------------------------------------ from a model to one that forgot

FISHERS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "expected": lambda model, inputs, _, **batch: fisher_diagonal(model, inputs, **batch),
    "empirical": fisher_diagonal,
    "batch": batch_fisher_diagonal,
}


def ssd(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    alpha: float,
    lam: float = 1.0,
    fisher: str = "expected",
    batch_size: int = 64,
) -> nn.Module:
    """Selective synaptic dampening, importances included, of a copy of the model.

    Parameters
    ----------
    model : in evaluation mode, all of its parameters trainable; stays as it is
    forget, retain : inputs (N, ...) and classes (N,) int64; together the training data
    alpha, lam : as in `selective_synaptic_dampening`
    fisher : "expected" or "empirical" (`fisher_diagonal` without and with targets), or "batch"
        (`batch_fisher_diagonal`, the official estimator, of the retain set followed by the forget
        set)
    batch_size : samples per pass; it matters to the result of "batch" alone

    Raises
    ------
    TypeError, ValueError
        as `check_unlearning`, `fisher_diagonal` and `selective_synaptic_dampening`; and for an
        alpha that cannot select anything, at or above `alpha_ceiling` with a Fisher of single
        samples.
    """
    check_choice("fisher", fisher, FISHERS)
    check_positive(alpha=alpha, lam=lam)
    check_unlearning(model, forget, retain)
    if fisher != "batch":
        _check_below_ceiling(alpha, forget, retain)
    importance = partial(FISHERS[fisher], model, batch_size=batch_size)
    return _dampened(model, importance(*union(retain, forget)), importance(*forget), alpha, lam)


def loss_free_ssd(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    alpha: float,
    lam: float = 1.0,
    batch_size: int = 64,
) -> nn.Module:
    """Dampening by the sensitivity of ||f(x)||^2, without labels (Foster et al. 2024, LFSSD).

    As `ssd`, with the importances of `output_sensitivity`. With batch_size = 1 they are those of
    single samples, and alpha has its ceiling.
    """
    check_positive(alpha=alpha, lam=lam)
    check_unlearning(model, forget, retain)
    if batch_size == 1:
        _check_below_ceiling(alpha, forget, retain)
    importance = partial(output_sensitivity, model, batch_size=batch_size)
    return _dampened(model, importance(union(retain, forget)[0]), importance(forget[0]), alpha, lam)


def adaptive_ssd(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    lam: float = 1.0,
    fisher: str = "expected",
    batch_size: int = 64,
) -> nn.Module:
    """Dampening that chooses alpha by the size of the forget set (Schoepf et al. 2024, ASSD).

    The importances are of the forget set, I_f, and of the retain set alone, I_r. Alpha is the
    percentile 100 - ln(1 + 100 N_f / N) of the ratios I_f / I_r of all parameters: so ln(1 + 100
    N_f / N) percent of them are dampened, 2.4 % to forget a tenth of the data.

    Parameters and errors as `ssd`. A parameter that matters to neither set has ratio 0.

    Raises
    ------
    ValueError
        also where that percentile is 0 or infinite, and so no threshold.
    """
    check_choice("fisher", fisher, FISHERS)
    check_positive(lam=lam)
    check_unlearning(model, forget, retain)
    importance = partial(FISHERS[fisher], model, batch_size=batch_size)
    I_f, I_r = importance(*forget), importance(*retain)
    share = len(forget[0]) / (len(forget[0]) + len(retain[0]))
    alpha = adaptive_alpha(I_f, I_r, share)
    if not 0 < alpha < inf:
        raise ValueError(
            f"the percentile of I_f / I_r that adaptive_ssd takes for alpha is {alpha}: too many "
            f"parameters matter to {'the forget set alone' if alpha else 'the retain set alone'}"
        )
    return _dampened(model, I_r, I_f, alpha, lam)


def adaptive_alpha(I_f: Mapping[str, Tensor], I_r: Mapping[str, Tensor], share: float) -> float:
    """The percentile 100 - ln(1 + 100 share) of I_f / I_r over all parameters, 0 / 0 being 0."""
    ratio = torch.cat([(I_f[name] / I_r[name]).flatten() for name in I_f]).nan_to_num(0, inf)
    rank = round(len(ratio) * (1 - log1p(100 * share) / 100))
    return float(ratio.kthvalue(min(max(rank, 1), len(ratio))).values)


def jit_unlearning(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    lr: float = 0.1,
    sigma: float = 0.2,
    copies: int = 25,
    epochs: int = 5,
    batch_size: int = 16,
    generator: Generator,
) -> nn.Module:
    """Smooth the function around the forget set alone (JiT; Foster et al., arXiv 2402.01401).

    Gradient descent on the mean over Gaussian copies of ||f(x) - f(x + eps)|| / ||eps||, a local
    Lipschitz constant of the logits: what is constant around x has forgotten it. The retain set
    serves for the check that it shares nothing with the forget set, and for nothing else. The
    gradient runs through both terms; the official code stops it at f(x + eps).

    Parameters
    ----------
    model : in evaluation mode, in which it stays; a copy changes
    forget, retain : inputs (N, ...) and classes (N,) int64; the classes are not used
    lr : learning rate of plain gradient descent; it goes with the scale of the logits, and between
        too little and the loss of everything lies a factor of ten: search it for each network
    sigma : standard deviation of eps, in units of the inputs
    copies : draws of eps per example
    epochs, batch_size : passes over the forget set and examples per step
    generator : draws the order and eps

    Raises
    ------
    TypeError, ValueError
        as `check_unlearning` and `check_apart`, and for numbers that are not positive.
    """
    check_positive(sigma=sigma)
    check_count(copies=copies)
    recipe = Recipe(epochs, batch_size, lr)
    check_unlearning(model, forget, retain)
    check_apart(model)
    student, x = copy.deepcopy(model), forget[0]
    optimizer = torch.optim.SGD(student.parameters(), lr=lr)
    for batches in recipe.orders(len(x), generator):
        for i in batches:
            shape = (copies, *x[i].shape)
            eps = sigma * torch.randn(
                shape, dtype=x.dtype, device=generator.device, generator=generator
            ).to(x.device)
            f = student((x[i] + eps).flatten(0, 1)).unflatten(0, shape[:2])
            change = (student(x[i]) - f).norm(dim=2)
            optimizer.zero_grad()
            (change / eps.flatten(2).norm(dim=2)).mean().backward()
            optimizer.step()
    optimizer.zero_grad()
    return student


def _dampened(
    model: nn.Module,
    importance_all: Mapping[str, Tensor],
    importance_forget: Mapping[str, Tensor],
    alpha: float,
    lam: float,
) -> nn.Module:
    student = copy.deepcopy(model)
    selective_synaptic_dampening(student, importance_all, importance_forget, alpha, lam)
    return student


# ------------------------------------------------------------------ checks


def _check_below_ceiling(alpha: float, forget: Examples, retain: Examples) -> None:
    n_forget = len(forget[0])
    ceiling = alpha_ceiling(n_forget + len(retain[0]), n_forget)
    if alpha >= ceiling:
        raise ValueError(
            f"alpha = {alpha:g} selects nothing: with importances of single samples it must be "
            f"below N / N_f = {ceiling:g}"
        )


def _check(
    parameters: Mapping[str, Tensor],
    importance_all: Mapping[str, Tensor],
    importance_forget: Mapping[str, Tensor],
    alpha: float,
    lam: float,
) -> None:
    check_positive(alpha=alpha, lam=lam)
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
    check_device(label, value, "the parameter", parameter)
    if value.numel() == 0:
        return
    low, high = torch.aminmax(value)  # one pass; a NaN anywhere makes both NaN
    if not (low >= 0 and high < inf):
        raise ValueError(
            f"{label} must be finite and not negative; its values range from {low} to {high}"
        )
