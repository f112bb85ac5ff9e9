"""What a model still knows after unlearning, and how that compares with models that never knew.

Retraining without the forget set is the yardstick, and retrained models differ among themselves. So
success is a value inside the band of several of them (`retrain_band`), not the lowest one: a model
that is always wrong about the forget set gives it away as much as one that is always right.

A network can also hide what it knows. `relearning_curve`, `linear_probe`, `cka` and
`confusion_routing` look behind its last layer; `recalibrate_batch_norm` tells damaged weights from
stale statistics.

`logits_of` and `penultimate_features` run a model, in evaluation mode and without gradients, and
most of the rest takes what they return. The model given to any function here stays as it was, its
mode included. Logits are (N, C), of N examples and C >= 2 classes; examples are a pair of inputs
(N, ...) and int64 targets (N,); accuracies are shares from 0 to 1.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import t as student_t
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from labkit.checks import (
    check_count,
    check_finite,
    check_floating,
    check_positive,
    check_samples,
)
from labkit.unlearning.checks import (
    Examples,
    check_examples,
    check_logits,
    check_targets,
    evaluating,
)

# ------------------------------------------------------------------ running a model


def logits_of(model: nn.Module, inputs: Tensor, *, batch_size: int = 1024) -> Tensor:
    """Logits (N, C) of inputs (N, ...), in evaluation mode and without gradients.

    Raises
    ------
    TypeError
        for inputs or logits that are not floating point tensors.
    ValueError
        for no inputs, a batch size below 1, NaN or infinity among inputs or logits, or logits that
        are not (N, C).
    """
    check_samples("inputs", inputs)
    check_count(batch_size=batch_size)
    with torch.no_grad(), evaluating(model):
        logits = torch.cat([model(x) for x in inputs.split(batch_size)])
    check_logits("logits of model", logits)
    return logits


def penultimate_features(
    model: nn.Module, inputs: Tensor, *, layer: nn.Module | None = None, batch_size: int = 1024
) -> Tensor:
    """What the last layer sees: its input for every example, (N, d), in evaluation mode.

    Parameters
    ----------
    model : gives logits of a batch of inputs
    inputs : (N, ...)
    layer : module of the model whose input is wanted; None takes the last `nn.Linear` in the order
        of `model.modules()`
    batch_size : examples per pass

    Raises
    ------
    TypeError
        for inputs that are not a floating point tensor.
    ValueError
        for no inputs, NaN or infinity, a batch size below 1, a layer that is not in the model or
        is not called, or a model with no linear layer where none is named.
    """
    check_samples("inputs", inputs)
    check_count(batch_size=batch_size)
    modules = list(model.modules())
    if layer is None:
        linear = [module for module in modules if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError("model has no nn.Linear: name the layer whose input is wanted")
        layer = linear[-1]
    elif not any(layer is module for module in modules):
        raise ValueError(f"layer must be a module of the model, not another {layer}")
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        with torch.no_grad(), evaluating(model):
            for x in inputs.split(batch_size):
                model(x)
    finally:
        hook.remove()
    if not seen:
        raise ValueError(f"layer {layer} is not called by the model")
    return torch.cat(seen).flatten(1)


# ------------------------------------------------------------------ predictions


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Share of the N examples whose largest logit is that of the target, from 0 to 1.

    Parameters
    ----------
    logits : (N, C)
    targets : (N,) int64 classes from 0 to C - 1

    Raises
    ------
    TypeError
        for tensors of another kind.
    ValueError
        for other shapes, classes out of range, no examples, NaN or infinity.
    """
    check_logits("logits", logits, targets)
    return float((logits.argmax(dim=1) == targets).double().mean())


def confusion_routing(logits: Tensor) -> Tensor:
    """Share of the N examples predicted as each class, (C,), adding up to 1.

    For logits of a forgotten class: where its examples go. A retrained model sends them to the
    classes they resemble; a suppressed output or a random relabelling gives another profile.

    Raises TypeError or ValueError for logits that are not finite floating point numbers (N, C).
    """
    check_logits("logits", logits)
    return logits.argmax(dim=1).bincount(minlength=logits.shape[1]).double() / len(logits)


def zrf(logits: Tensor, reference_logits: Tensor) -> float:
    """Zero retrain forgetting: 1 - mean over examples of the Jensen-Shannon divergence, in nats.

    With p the prediction of the model, q that of a network that never saw the data (randomly
    initialised, or retrained) and m = (p + q) / 2,

        ZRF = 1 - mean over examples of [ KL(p || m) / 2 + KL(q || m) / 2 ]

    (Chundawat et al., AAAI 2023). It lies between 1 - log 2 = 0.31 and 1, for equal predictions.
    Code in circulation computes KL(m || p), which has no upper bound, and divides by the number of
    classes; its values are nearer to 1 and cannot be compared.

    Parameters
    ----------
    logits, reference_logits : (N, C), of the same examples

    Raises
    ------
    TypeError
        for logits that are not floating point tensors.
    ValueError
        for shapes that differ or are not (N, C), NaN or infinity.
    """
    check_logits("logits", logits)
    check_logits("reference_logits", reference_logits)
    if logits.shape != reference_logits.shape:
        raise ValueError(
            f"reference_logits must be {tuple(logits.shape)} as logits are, "
            f"not {tuple(reference_logits.shape)}"
        )
    log_p = logits.double().log_softmax(dim=1)
    log_q = reference_logits.double().log_softmax(dim=1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    # kl_div(a, b) is KL(b || a), both given as logarithms; batchmean divides by N alone.
    js = sum(
        F.kl_div(log_m, each, reduction="batchmean", log_target=True) / 2 for each in (log_p, log_q)
    )
    return 1 - float(js)


# ------------------------------------------------------------------ against retrained models


def tug_of_war(accuracies: Sequence[float], retrain_accuracies: Sequence[float]) -> float:
    """(1 - |d_forget|) (1 - |d_retain|) (1 - |d_test|), d being differences in accuracy.

    1 where the model is as accurate as the retrained one on all three sets, less where it is worse
    or better on any (Zhao et al., NeurIPS 2024). It does not say whether a gap exceeds that between
    two retrained models: compute it for those as well.

    Parameters
    ----------
    accuracies : of the model on the forget, the retain and the test set, shares from 0 to 1
    retrain_accuracies : of a retrained model, in the same order

    Raises
    ------
    ValueError
        for other than three values, or a value out of range.
    """
    both = {"accuracies": accuracies, "retrain_accuracies": retrain_accuracies}
    for name, values in both.items():
        if len(values) != 3 or not all(0 <= value <= 1 for value in values):
            raise ValueError(
                f"{name} must be three shares from 0 to 1, for forget, retain and test set, "
                f"not {list(values)}"
            )
    pairs = zip(accuracies, retrain_accuracies, strict=True)
    return math.prod(1 - abs(ours - theirs) for ours, theirs in pairs)


@dataclass(frozen=True)
class Band:
    """Where one more retrained model is expected: `value in band` asks whether a value lies there.

    Attributes
    ----------
    mean, sd : of the n retrained models; sd with n - 1 in the denominator
    minimum, maximum : of the n retrained models
    low, high : bounds of the prediction interval, included in it
    n : number of retrained models
    confidence : probability that a further retrained model falls between low and high
    """

    mean: float
    sd: float
    minimum: float
    maximum: float
    low: float
    high: float
    n: int
    confidence: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def retrain_band(values: Sequence[float], *, confidence: float = 0.95) -> Band:
    """The band that a measured value of one more retrained model would fall into.

    Student's t prediction interval, mean +- t_{n-1} sd sqrt(1 + 1/n), which is exact for Gaussian
    values. The interval of the *mean*, with sqrt(1/n), is too narrow for this question, and gets
    narrower with every retraining. The plain range makes no assumption, but holds one more value
    with probability (n - 1) / (n + 1) only, 0.82 for n = 10; it is kept as minimum and maximum.

    Where all values agree (a retrained model never names a class it has not seen), the band is that
    one value.

    Parameters
    ----------
    values : one measured value for each of n >= 2 retrained models; ten or more make a useful band
    confidence : between 0 and 1

    Raises
    ------
    ValueError
        for fewer than two values, NaN or infinity, or a confidence out of range.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"values must be at least two finite numbers, not {values}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    n, minimum, maximum = len(x), float(x.min()), float(x.max())
    # Rounding must not push equal values out of their own band.
    mean = min(max(float(x.mean()), minimum), maximum)
    sd = float(x.std(ddof=1))
    half = float(student_t.ppf((1 + confidence) / 2, n - 1)) * sd * math.sqrt(1 + 1 / n)
    return Band(mean, sd, minimum, maximum, mean - half, mean + half, n, confidence)


def pareto_front(points: Tensor | Sequence[Sequence[float]]) -> Tensor:
    """Which of N points no other point beats: at least as good in all, better in one.

    Parameters
    ----------
    points : (N, m), larger is better in every column: give 1 - forget accuracy, not the accuracy

    Returns
    -------
    (N,) bool. Of equal points, all are on the front or none is.

    Raises
    ------
    ValueError
        for another shape, no points, NaN or infinity.
    """
    x = torch.as_tensor(points, dtype=torch.float64)
    if x.ndim != 2 or x.numel() == 0:
        raise ValueError(f"points must be (N, m) with N >= 1 and m >= 1, not {tuple(x.shape)}")
    check_finite("points", x)
    as_good = (x[:, None] >= x).all(dim=2)  # [i, j]: i is at least as good as j everywhere
    better = (x[:, None] > x).any(dim=2)
    return ~(as_good & better).any(dim=0)


# ------------------------------------------------------------------ behind the last layer


def relearning_curve(
    model: nn.Module,
    forget: Examples,
    retain: Examples | None = None,
    *,
    measure: Examples | None = None,
    steps: int = 50,
    lr: float = 1e-3,
    batch_size: int = 32,
    generator: torch.Generator,
) -> Tensor:
    """Accuracy after 0, 1, ..., steps steps of training a copy on the forget set again.

    A model that hides the forget set recovers it in fewer steps than a retrained one needs to
    learn it. Draw that one's curve beside it. Every step of Adam takes a batch, drawn without
    replacement from forget and retain set together; batch norm and dropout work as in training.
    If the forget set is one class, give retained examples too: without them a model has only to
    learn to answer with that class always.

    Parameters
    ----------
    model : gives logits (B, C); the copy trains those parameters that require a gradient
    forget : examples that the model should have forgotten
    retain : examples mixed in, or None
    measure : examples on which the accuracy is taken, in evaluation mode; None is the forget set.
        Test examples of a forgotten class tell relearning from learning by heart.
    steps : number of steps, at least 1
    lr : learning rate of Adam
    batch_size : examples per step; all of them if there are fewer
    generator : draws the batches. (Dropout draws from torch's own: call it
        within `labkit.seeding.seeded`.)

    Returns
    -------
    (steps + 1,) float64 accuracies; the first is that of the model as given.

    Raises
    ------
    TypeError
        for inputs of another type than the model, or targets that are not int64.
    ValueError
        for no examples, targets or devices that do not fit, steps or batch_size below 1, a learning
        rate that is not positive, NaN or infinity (also where training diverges), or no trainable
        parameter.
    """
    check_count(steps=steps, batch_size=batch_size)
    check_positive(lr=lr)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("model must have a parameter that requires a gradient; it has none")
    measured = forget if measure is None else measure
    for name, examples in {"forget": forget, "retain": retain, "measure": measured}.items():
        if examples is not None:
            check_examples(name, examples, model)

    model = copy.deepcopy(model).train()
    x, y = forget if retain is None else map(torch.cat, zip(forget, retain, strict=True))
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=lr)
    curve = [accuracy(logits_of(model, measured[0]), measured[1])]
    for _ in range(steps):
        batch = torch.randperm(len(x), generator=generator, device=generator.device)[:batch_size]
        batch = batch.to(x.device)
        optimizer.zero_grad()
        with torch.enable_grad():
            F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        curve.append(accuracy(logits_of(model, measured[0]), measured[1]))
    return torch.tensor(curve, dtype=torch.float64)


def linear_probe(
    features: Tensor, targets: Tensor, test_features: Tensor, test_targets: Tensor
) -> float:
    """Accuracy on test examples of a logistic regression fitted to features.

    If the features of an unlearned model tell the forgotten class from the others as well as those
    of the original do, and better than those of a retrained one, only the last layer has forgotten.
    Train the probe on all classes, test it on the forgotten one.

    Parameters
    ----------
    features, test_features : (N, d) and (M, d), as from `penultimate_features`; standardised here
        by the mean and deviation of the first
    targets, test_targets : (N,) and (M,) int64 classes; at least two among targets

    Raises
    ------
    TypeError
        for tensors of another kind.
    ValueError
        for shapes that do not fit, NaN or infinity, or a single class.
    """
    for name, value in {"features": features, "test_features": test_features}.items():
        _check_features(name, value)
    check_targets("targets", targets, len(features))
    check_targets("test_targets", test_targets, len(test_features))
    if features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"test_features must have the {features.shape[1]} columns of features, "
            f"not {test_features.shape[1]}"
        )
    if len(targets.unique()) < 2:
        raise ValueError(f"targets must hold at least two classes, not {int(targets[0])} alone")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(_float64(features), targets.cpu().numpy())
    return float(probe.score(_float64(test_features), test_targets.cpu().numpy()))


def cka(features: Tensor, other_features: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features of the same examples, 0 to 1.

    ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) with the columns of X and Y centred (Kornblith et al.,
    ICML 2019). 1 for features equal up to rotation, reflection and one common scale, and the two
    may have different widths. For unrelated features it is near 0 only with far more examples than
    columns.

    Parameters
    ----------
    features, other_features : (N, d) and (N, e)

    Raises
    ------
    TypeError
        for tensors of another kind.
    ValueError
        for shapes that do not fit, NaN or infinity, or features that are the same for all examples.
    """
    pair = {"features": features, "other_features": other_features}
    for name, value in pair.items():
        _check_features(name, value)
        if (value == value[0]).all():
            raise ValueError(f"{name} must vary over the examples; all {len(value)} rows are equal")
    if len(features) != len(other_features):
        raise ValueError(
            f"other_features must be of the {len(features)} examples that features are of, "
            f"not of {len(other_features)}"
        )
    x, y = (value.double() - value.double().mean(dim=0) for value in pair.values())
    return float((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def recalibrate_batch_norm(
    model: nn.Module, inputs: Tensor, *, batch_size: int | None = None
) -> nn.Module:
    """A copy whose batch norm layers hold the statistics of these inputs under its present weights.

    Methods that edit weights leave the running means and variances of the old ones behind. Report
    an unlearned model with and without this step: accuracy that it restores, on the retain set or
    on the forget set, was never removed from the weights. Dropout stays off here, unlike in
    `torch.optim.swa_utils.update_bn`.

    Parameters
    ----------
    model : with batch norm layers that keep running statistics
    inputs : (N, ...) with N >= 2, those of the retain set as a rule
    batch_size : None takes all inputs in one pass, so that their order does not matter. Otherwise
        statistics are averaged over batches of at least that size, which must then be alike:
        shuffle sorted data.

    Returns
    -------
    A copy, each part in the mode (training or evaluation) of the original.

    Raises
    ------
    TypeError
        for inputs that are not a floating point tensor.
    ValueError
        for fewer than two inputs, NaN or infinity, a batch size below 2, or a model that has no
        batch norm layer with running statistics.
    """
    check_samples("inputs", inputs)
    size = len(inputs) if batch_size is None else batch_size
    if len(inputs) < 2 or size < 2:
        raise ValueError(
            f"a variance needs at least two inputs in a batch, not {len(inputs)} inputs in batches "
            f"of {size}"
        )
    new = copy.deepcopy(model)
    layers = [m for m in new.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        raise ValueError("model has no batch norm layer with running statistics to recalibrate")
    momenta = [layer.momentum for layer in layers]
    with torch.no_grad(), evaluating(new):
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over batches
            layer.train()
        for x in inputs.tensor_split(max(1, len(inputs) // size)):  # equal up to one input
            new(x)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return new


# ------------------------------------------------------------------ checks


def _check_features(name: str, features: Tensor) -> None:
    check_floating(name, features)
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(
            f"{name} must be (N, d) with N >= 1 and d >= 1, not {tuple(features.shape)}"
        )
    check_finite(name, features)


def _float64(value: Tensor) -> np.ndarray:
    return value.detach().cpu().double().numpy()
