"""What every method of unlearning asks of its model and data, checked before any work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from labkit.checks import check_device, check_finite, check_floating

Examples = tuple[Tensor, Tensor]  # inputs (N, ...) and classes (N,) int64


def union(*parts: Examples) -> Examples:
    """All examples of the parts, one part after the other."""
    inputs, targets = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def check_unlearning(model: nn.Module, forget: Examples, retain: Examples) -> None:
    """Raise unless model, forget set and retain set fit together.

    Raises
    ------
    TypeError
        for data or logits that are not tensors, inputs of another type than the model, or targets
        that are not int64.
    ValueError
        for an empty set, shapes, dtypes or devices that differ, NaN or infinity, targets without a
        logit, logits that are not finite (N, C), an example in both sets, or a model with frozen or
        no parameters.
    """
    check_trainable(model)
    parts = {"forget": forget, "retain": retain}
    for label, examples in parts.items():
        _check_tensors(label, examples, next(model.parameters()))
    if forget[0].shape[1:] != retain[0].shape[1:]:
        raise ValueError(
            "forget and retain must hold inputs of one shape, not "
            f"{tuple(forget[0].shape[1:])} and {tuple(retain[0].shape[1:])}"
        )
    for label, examples in parts.items():
        _check_classes(label, examples, model)
    shared = count_shared(forget, retain)
    if shared:
        raise ValueError(
            f"forget and retain must not overlap; {shared} of {len(forget[0])} forget examples "
            "(input and target) are also in retain"
        )


def check_trainable(model: nn.Module) -> None:
    """Raise for a model with no parameter, a frozen one, or one that is not finite."""
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ValueError("model must have parameters; it has none")
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    if frozen:
        raise ValueError(
            f"every parameter of model must be trainable; frozen: {', '.join(map(repr, frozen))}"
        )
    for name, parameter in parameters.items():
        check_finite(f"parameter {name!r} of model", parameter.detach())


def check_examples(label: str, examples: Examples, model: nn.Module) -> None:
    """Raise unless examples are inputs (N, ...) and classes (N,) that the model can take."""
    _check_tensors(label, examples, next(model.parameters()))
    _check_classes(label, examples, model)


def _check_classes(label: str, examples: Examples, model: nn.Module) -> None:
    inputs, targets = examples
    check_targets(f"{label} targets", targets, len(inputs), count_classes(model, inputs))


def _check_tensors(label: str, examples: Examples, parameter: Tensor) -> None:
    inputs, targets = examples
    for name, value in {"inputs": inputs, "targets": targets}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{label} {name} must be a torch.Tensor, not {type(value).__name__}")
    if inputs.ndim == 0 or len(inputs) == 0:
        raise ValueError(f"{label} must hold at least one example; inputs {tuple(inputs.shape)}")
    if inputs.dtype != parameter.dtype:
        raise TypeError(
            f"{label} inputs must be {parameter.dtype} as the model is, not {inputs.dtype}"
        )
    check_int64(f"{label} targets", targets, len(inputs))
    for name, value in {"inputs": inputs, "targets": targets}.items():
        check_device(f"{label} {name}", value, "the model", parameter)
    check_finite(f"{label} inputs", inputs)


def check_logits(
    name: str, logits: Tensor, targets: Tensor | None = None, *, n: int | None = None
) -> None:
    """Raise unless logits are finite (N, C), C >= 2, and targets (N,) classes of them.

    N is n where that is known, and at least 1 otherwise.

    Raises
    ------
    TypeError
        for logits that are not a floating point tensor, or targets that are not int64.
    ValueError
        for other shapes, NaN or infinity, or targets out of range.
    """
    check_floating(name, logits)
    fits = logits.ndim == 2 and len(logits) >= 1 and logits.shape[1] >= 2
    if not fits or n not in (None, len(logits)):
        wanted = "N >= 1" if n is None else f"N = {n}"
        raise ValueError(
            f"{name} must be (N, C) with {wanted} and C >= 2, not {tuple(logits.shape)}"
        )
    check_finite(name, logits)
    if targets is not None:
        check_targets("targets", targets, len(logits), logits.shape[1])


def check_targets(name: str, targets: Tensor, n: int, n_classes: int | None = None) -> None:
    """Raise unless targets are (n,) int64 classes, from 0 to n_classes - 1 where that is known."""
    check_int64(name, targets, n)
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        wanted = "at least 0" if n_classes is None else f"from 0 to {n_classes - 1}"
        raise ValueError(f"{name} must be classes {wanted}, not {low} to {high}")


def check_int64(name: str, targets: object, n: int) -> None:
    """Raise unless targets are an int64 tensor (n,), one for each input."""
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64:
        kind = getattr(targets, "dtype", type(targets).__name__)
        raise TypeError(f"{name} must be a torch.Tensor of int64, not {kind}")
    if targets.shape != (n,):
        raise ValueError(f"{name} must be (N,) = ({n},), not {tuple(targets.shape)}")


@torch.no_grad()
def count_classes(model: nn.Module, inputs: Tensor) -> int:
    """C of the logits (N, C), found out with one example; the mode of every layer stays."""
    with evaluating(model):
        logits = model(inputs[:1])
    check_logits("logits of model", logits, n=1)
    return logits.shape[1]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within, the model is in evaluation mode; then every layer is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def count_shared(forget: Examples, retain: Examples) -> int:
    """How many forget examples stand in retain too, input and target both."""
    others = set(_keys(retain))
    return sum(key in others for key in _keys(forget))


def _keys(examples: Examples) -> Iterator[tuple[bytes, int]]:
    inputs, targets = (value.detach().cpu() for value in examples)
    rows = inputs.reshape(len(inputs), -1).contiguous().view(torch.uint8).numpy()
    return ((row.tobytes(), target) for row, target in zip(rows, targets.tolist(), strict=True))


def check_apart(model: nn.Module) -> None:
    """Raise for layers that, in their present mode, mix samples or are random.

    Importances of single samples have no meaning there, and those of batches another one.
    """
    for name, layer in model.named_modules():
        label = f"layer {name!r} of model, {type(layer).__name__},"
        if isinstance(layer, _NormBase) and _uses_batch(layer):
            raise ValueError(
                f"{label} must normalise by running statistics, not by those of the batch, which "
                "mix the samples: call model.eval(), with track_running_stats=True"
            )
        if layer.training and _drops(layer):
            raise ValueError(f"{label} must not be random: call model.eval()")


def _uses_batch(layer: _NormBase) -> bool:
    if isinstance(layer, _BatchNorm):
        return layer.training or layer.running_mean is None
    return layer.training and layer.track_running_stats  # instance norm would write to them


def _drops(layer: nn.Module) -> bool:
    rate = layer.p if isinstance(layer, _DropoutNd) else getattr(layer, "dropout", 0)
    return isinstance(layer, nn.RReLU) or (isinstance(rate, float) and rate > 0)
