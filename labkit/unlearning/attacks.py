"""Membership inference: was this example in the training set, judged by what the model says of it?

An attack gives every example a score, larger for what looks like a member; `auc` and `tpr_at_fpr`
say how well scores of true members stand above those of others. Two families:

    population attacks   one rule for all examples: entropy, modified entropy, confidence
    per-example attacks  a rule for each example, from models trained with and without it: LiRA,
                         and U-LiRA for models that were made to forget it

Unlearning looks better under the first family than it is (Hayes et al. 2024), so report the second.

Sources
-------
Song & Mittal (2021), USENIX Security, "Systematic evaluation of privacy risks of machine learning
models": modified entropy.
Carlini et al. (2022), IEEE S&P, "Membership inference attacks from first principles", arXiv
2112.03570: the logit-scaled confidence, LiRA online and offline, and the true positive rate at a
low false positive rate.
Hayes et al. (2024), "Inexact unlearning needs more careful evaluations to avoid a false sense of
privacy", arXiv 2403.01218: U-LiRA.
Foster et al. (2024), AAAI, selective synaptic dampening: the entropy attack.

Logits are (N, C), of N examples and C >= 2 classes. Scores are float64, in nats where they have a
unit.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from labkit.checks import check_finite, check_floating
from labkit.unlearning.checks import check_logits

# ------------------------------------------------------------------ scores from one model


def entropy(logits: Tensor) -> Tensor:
    """- sum_i p_i log p_i of every row, (N,), in nats; low where the model is sure.

    Raises TypeError or ValueError for logits that are not finite floating point numbers (N, C).
    """
    check_logits("logits", logits)
    log_p = logits.double().log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def modified_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """- (1 - p_y) log p_y - sum_{i != y} p_i log(1 - p_i) of every row (Song & Mittal 2021).

    It is 0 for a model that is sure and right, and without limit for one that is sure and wrong,
    where the entropy is 0 as well. Every row has its own y: the value of an example does not depend
    on which others are in the batch.

    Parameters
    ----------
    logits : (N, C)
    targets : (N,) int64 classes from 0 to C - 1

    Returns
    -------
    (N,) not negative, in nats; low for what looks like a member. Finite even where p rounds to 1.

    Raises
    ------
    TypeError
        for tensors of another kind.
    ValueError
        for other shapes, classes out of range, no rows, NaN or infinity.
    """
    check_logits("logits", logits, targets)
    z, y = logits.double(), targets[:, None]
    log_p = z.log_softmax(dim=1)
    # log1p is exact up to p = 1/2. Only the largest p can pass that: there, sum all the others.
    top = z.argmax(dim=1, keepdim=True)
    others = z.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
    log_not_p = (-log_p.exp()).log1p().scatter(1, top, others - z.logsumexp(dim=1, keepdim=True))
    terms = log_p.exp() * log_not_p
    return -terms.scatter(1, y, log_not_p.gather(1, y).exp() * log_p.gather(1, y)).sum(dim=1)


def confidence_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """log(p_y / (1 - p_y)) of every row: the logit-scaled confidence (Carlini et al. 2022).

    Computed as z_y - log sum_{i != y} exp(z_i), which never divides by 1 - p_y = 0. Over models,
    it is nearly Gaussian for one example, which is what LiRA asks of a score.

    Parameters, errors as for `modified_entropy`. Returns (N,), high for what looks like a member.
    """
    check_logits("logits", logits, targets)
    z, y = logits.double(), targets[:, None]
    others = z.scatter(1, y, -torch.inf).logsumexp(dim=1)
    return z.gather(1, y)[:, 0] - others


# ------------------------------------------------------------------ scores from many models


def lira(
    scores: Tensor,
    shadow_scores: Tensor,
    members: Tensor,
    *,
    offline: bool = False,
    pooled_variance: bool = False,
) -> Tensor:
    """Likelihood ratio of every example having been in the training set (Carlini et al. 2022).

    Each example i has two Gaussians, fitted to its scores s under the shadow models trained with it
    and without it:

        online    log N(s_i; mu_in, sigma_in^2) - log N(s_i; mu_out, sigma_out^2)
        offline   (s_i - mu_out) / sigma_out, which needs no shadow model trained with it

    The offline value orders examples as the paper's 1 - Pr[Z > s] does, without rounding to 1 in
    the tail. (The authors' code uses the density of Z there. It is two-sided, so that an
    example with a far too low score also counts as a member.)

    With few shadow models, sigma of one example is poorly known; `pooled_variance` then takes one
    variance, around the examples' own means, for all of them.

    Parameters
    ----------
    scores : (N,) or (M, N), under the model or the M models attacked; larger means more like a
        member, as `confidence_scores`
    shadow_scores : (K, N), under each of K shadow models
    members : (K, N) bool, whether example i was in the training set of shadow model k
    offline : use only the models trained without the example
    pooled_variance : one sigma_in and one sigma_out for all examples

    Returns
    -------
    shape of scores, float64, larger for members.

    Raises
    ------
    TypeError
        for tensors of another kind.
    ValueError
        for shapes that do not fit, NaN or infinity, an example with fewer than two shadow models
        on a side that is used (one, for a pooled variance), or a variance of 0.
    """
    _check_scores(scores, {"shadow_scores": shadow_scores})
    if not isinstance(members, Tensor) or members.dtype != torch.bool:
        kind = getattr(members, "dtype", type(members).__name__)
        raise TypeError(f"members must be a torch.Tensor of bool, not {kind}")
    if members.shape != shadow_scores.shape:
        raise ValueError(
            f"members must be (K, N) = {tuple(shadow_scores.shape)} as shadow_scores are, "
            f"not {tuple(members.shape)}"
        )
    shadow_scores = shadow_scores.double()
    outside = _gaussians("without", shadow_scores, ~members, pooled_variance)
    if offline:
        mu, sigma = outside
        return (scores - mu) / sigma
    inside = _gaussians("with", shadow_scores, members, pooled_variance)
    return _log_density(scores, *inside) - _log_density(scores, *outside)


def u_lira(
    scores: Tensor,
    unlearned_scores: Tensor,
    retrained_scores: Tensor,
    *,
    pooled_variance: bool = False,
) -> Tensor:
    """Likelihood ratio of every example having been unlearned, not left out (Hayes et al. 2024).

    For each example i, with s its score, one Gaussian is fitted to models that were trained with
    it and then made to forget it, another to models that never saw it:

        log N(s_i; mu_unlearned, sigma_unlearned^2) - log N(s_i; mu_retrained, sigma_retrained^2)

    A perfect unlearning leaves nothing to tell apart: values of unlearned and of retrained models,
    none of which took part in the fit, then have an `auc` of 1/2.

    Parameters
    ----------
    scores : (N,) or (M, N), under the model or the M models attacked
    unlearned_scores : (K, N), under K models trained with these examples and made to forget them
    retrained_scores : (L, N), under L models trained without them
    pooled_variance : one variance for all examples, for few models, as in `lira`

    Returns
    -------
    shape of scores, float64, larger where the model looks unlearned. Its sigmoid is the probability
    of that if both cases are as likely.

    Raises
    ------
    TypeError, ValueError
        as `lira` does.
    """
    shadows = {"unlearned_scores": unlearned_scores, "retrained_scores": retrained_scores}
    _check_scores(scores, shadows)
    gaussians = []
    for name, shadow in shadows.items():
        every = torch.ones_like(shadow, dtype=torch.bool)
        gaussians.append(_gaussians(f"in {name} of", shadow.double(), every, pooled_variance))
    unlearned, retrained = gaussians
    return _log_density(scores, *unlearned) - _log_density(scores, *retrained)


def _gaussians(
    side: str, scores: Tensor, chosen: Tensor, pooled_variance: bool
) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation over the chosen of (K, N): (N,) each, or (N,) and ()."""
    count = chosen.sum(dim=0)
    least = 1 if pooled_variance else 2
    few = (count < least).nonzero()[:, 0]
    if len(few):
        raise ValueError(
            f"at least {least} shadow models {side} each example are needed; example "
            f"{int(few[0])} has {int(count[few[0]])}, and {len(few)} of {len(count)} have too few"
        )
    highest = torch.where(chosen, scores, -torch.inf).amax(dim=0)
    varies = highest > torch.where(chosen, scores, torch.inf).amin(dim=0)
    if not (varies.any() if pooled_variance else varies.all()):
        raise ValueError(
            f"scores of shadow models {side} an example must vary; those of {int((~varies).sum())} "
            f"of {len(varies)} examples do not: add shadow models"
            + ("" if pooled_variance else ", or pool the variance")
        )
    mu = torch.where(chosen, scores, 0).sum(dim=0) / count
    squares = torch.where(chosen, scores - mu, 0).square().sum(dim=0)
    if pooled_variance:
        return mu, (squares.sum() / (count - 1).sum()).sqrt()
    return mu, (squares / (count - 1)).sqrt()


def _log_density(x: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """The log of N(x; mu, sigma^2), without the constant, which cancels in a ratio."""
    return -((x - mu) / sigma).square() / 2 - sigma.log()


# ------------------------------------------------------------------ how good an attack is


def auc(scores_members: Tensor, scores_others: Tensor) -> float:
    """Area under the ROC: how often a member scores above another, ties counting half.

    Parameters
    ----------
    scores_members, scores_others : of any shape and size >= 1, finite; larger for members

    Raises TypeError or ValueError for anything else.
    """
    return float(roc_auc_score(*_labelled(scores_members, scores_others)))


def tpr_at_fpr(scores_members: Tensor, scores_others: Tensor, fpr: float) -> float:
    """Share of members found when at most a share fpr of the others is called members.

    The best of all thresholds that keep to fpr, without interpolation. Examples of one score are
    called members together or not at all. With n others, fpr < 1/n allows no mistake at all, so
    that a rate of 0.1 % is measured only with a thousand others or more.

    Parameters
    ----------
    scores_members, scores_others : of any shape and size >= 1, finite; larger for members
    fpr : from 0 to 1

    Raises
    ------
    TypeError
        for scores that are not floating point tensors.
    ValueError
        for no scores, NaN or infinity, or fpr out of range.
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr must be from 0 to 1, not {fpr}")
    rates, found, _ = roc_curve(*_labelled(scores_members, scores_others), drop_intermediate=False)
    return float(found[rates <= fpr].max())


def entropy_attack(*, retain: Tensor, test: Tensor, forget: Tensor) -> float:
    """Share of the forget set called members by its entropy alone, as Foster et al. measure it.

    A logistic regression, classes balanced, learns from entropies to tell retained training
    examples from test examples, and is applied to the forget set. Compare with the value of a
    retrained model: there is no other meaning of "low enough". Where training and test entropies
    are alike, the slope that is fitted has the sign of chance, and the share may be near 1 for any
    model: report the median over seeds.

    Parameters
    ----------
    retain, test, forget : logits (N, C) of the model attacked, on retained training examples, on
        test examples, and on training examples that were to be forgotten

    Raises TypeError or ValueError for logits that are not finite floating point numbers (N, C).
    """
    for name, logits in {"retain": retain, "test": test, "forget": forget}.items():
        check_logits(name, logits)
    is_member, x = _labelled(entropy(retain), entropy(test))
    attack = LogisticRegression(class_weight="balanced").fit(x[:, None], is_member)
    return float(attack.predict(_numpy(entropy(forget))[:, None]).mean())


def _labelled(scores_members: Tensor, scores_others: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores as scikit-learn takes them."""
    for name, value in {"scores_members": scores_members, "scores_others": scores_others}.items():
        check_floating(name, value)
        if value.numel() == 0:
            raise ValueError(f"{name} must hold at least one score, not {tuple(value.shape)}")
        check_finite(name, value)
    scores = torch.cat([scores_members.flatten().double(), scores_others.flatten().double()])
    return np.arange(len(scores)) < scores_members.numel(), _numpy(scores)


# ------------------------------------------------------------------ checks


def _check_scores(scores: Tensor, shadows: dict[str, Tensor]) -> None:
    for name, value in {"scores": scores, **shadows}.items():
        check_floating(name, value)
        check_finite(name, value)
    if scores.ndim not in (1, 2) or scores.numel() == 0:
        raise ValueError(f"scores must be (N,) or (M, N), not {tuple(scores.shape)}")
    for name, value in shadows.items():
        if value.ndim != 2 or value.shape[1] != scores.shape[-1]:
            raise ValueError(
                f"{name} must be (K, N) with N = {scores.shape[-1]} as scores are "
                f"{tuple(scores.shape)}, not {tuple(value.shape)}"
            )


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
