"""The exact diagonal of the Fisher information of a classifier, sample by sample.

With p = softmax(logits) of one sample and the cross-entropy gradient g(y) = - d log p_y / d theta,

    empirical   F_i = mean over samples of  g_i(target)^2
    expected    F_i = mean over samples of  sum_k p_k g_i(k)^2

(Amari 1998; Kunstner, Balles & Hennig 2019 on what sets the two apart). The square stands inside
the mean. Squaring the gradient of a batch instead gives another number, one that falls with the
size of the batch.

Gradients of single samples are never stored for the whole model. Samples do not meet, so one
backward pass of a batch leaves in delta, the gradient at the output of a layer, one row per sample.
From delta and the input a of the layer, its importances follow:

    linear layer            F = (delta^2)^T (a^2), one product of matrices (Goodfellow 2015)
    the same, over time     F = sum_b (delta_b^T a_b)^2, the positions of sample b summed inside
    convolution             likewise, a_b being the unfolded image, of a few samples at a time
    normalisation           F = sum_b (sum over positions of delta_b x_b)^2, x normalised
    embedding               F = sum_b (sum over occurrences of a token of delta_b)^2

Any other parameter gets its gradients from autograd, sample by sample: slower, and as exact.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from math import ceil, prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from labkit.checks import check_count, check_device, check_finite
from labkit.unlearning.checks import check_apart, check_int64, check_logits, check_targets

SCRATCH = 2**17  # elements of the gradients of single samples that are held at a time


def fisher_diagonal(
    model: nn.Module, inputs: Tensor, targets: Tensor | None = None, *, batch_size: int = 64
) -> dict[str, Tensor]:
    """Mean over samples of the squared cross-entropy gradient of each sample alone.

    With targets the empirical Fisher, without them the one that the model expects: the square for
    every class k, weighted by its softmax probability. That takes one backward pass a class.

    Samples must not meet in the model: dropout and batch norm must be in evaluation mode. The
    model, its mode, `requires_grad` and `.grad` stay as they are. Frozen parameters are left out;
    a trainable one that the logits do not depend on gets zeros.

    Parameters
    ----------
    model : gives logits (B, K) of a batch of inputs, K >= 2
    inputs : (N, ...) samples, on the device of the model
    targets : (N,) int64 classes from 0 to K - 1, or None
    batch_size : samples per pass; more take more memory, the result is the same to rounding

    Returns
    -------
    name -> importances of the shape of that parameter, in float32, or float64 where it is float64.

    Raises
    ------
    TypeError
        for inputs that are not a tensor, targets that are not int64, or a model that does not
        return a tensor.
    ValueError
        for no samples, shapes or devices that differ, targets out of range, logits that are not
        (B, K), NaN or infinity among parameters, inputs or logits, a model with no trainable
        parameter, or layers that are random or mix samples in their present mode.
    RuntimeError
        if the logits do not depend on any trainable parameter.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _check_model(model, trainable)
    _check_data(trainable, inputs, targets, batch_size)
    totals = {name: _zeros(parameter) for name, parameter in trainable.items()}
    with torch.enable_grad():
        layers = _ruled_layers(model, inputs[:8], targets)
        for first in range(0, len(inputs), batch_size):
            batch = slice(first, first + batch_size)
            labels = None if targets is None else targets[batch]
            _add_batch(totals, model, trainable, layers, inputs[batch], labels)
    return {name: total / len(inputs) for name, total in totals.items()}


def batch_fisher_diagonal(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, batch_size: int = 64
) -> dict[str, Tensor]:
    """Mean over mini-batches of the squared gradient of their mean cross-entropy.

    This is the estimator of the official code of selective synaptic dampening, and not the Fisher
    diagonal: the square stands outside the mean of a batch, whose gradients partly cancel. For
    independent gradients of mean zero it is that of `fisher_diagonal` divided by the batch size.
    It depends on the order of the samples, which are taken as they come: batches of one class
    differ from mixed ones.

    Parameters, result and errors as `fisher_diagonal` with targets, which it equals for
    batch_size = 1. The last batch may be smaller and counts as much as any other.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _check_model(model, trainable)
    _check_data(trainable, inputs, targets, batch_size)

    def loss(logits: Tensor, batch: slice) -> Tensor:
        check_targets("targets", targets, len(inputs), logits.shape[1])
        return F.cross_entropy(logits, targets[batch])

    return _mean_over_batches(model, trainable, inputs, batch_size, loss, torch.square)


def output_sensitivity(
    model: nn.Module, inputs: Tensor, *, batch_size: int = 64
) -> dict[str, Tensor]:
    """Mean over mini-batches of |gradient of the batch mean of ||f(x)||^2|, f the logits.

    The importance of loss-free dampening, which needs no labels (Foster et al., "Loss-free machine
    unlearning", 2024). With batch_size = 1 the absolute value is taken sample by sample; the
    official code takes it of batches, in the order of the samples.

    Parameters, result and errors as `fisher_diagonal`.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _check_model(model, trainable)
    _check_data(trainable, inputs, None, batch_size)

    def loss(logits: Tensor, _: slice) -> Tensor:
        return logits.square().sum(dim=1).mean()

    return _mean_over_batches(model, trainable, inputs, batch_size, loss, torch.abs)


def _mean_over_batches(
    model: nn.Module,
    trainable: dict[str, Tensor],
    inputs: Tensor,
    batch_size: int,
    loss: Callable[[Tensor, slice], Tensor],
    size: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Mean over mini-batches of size(gradient of loss(logits, batch)), element by element."""
    totals = {name: _zeros(parameter) for name, parameter in trainable.items()}
    starts = range(0, len(inputs), batch_size)
    with torch.enable_grad():
        for first in starts:
            batch = slice(first, first + batch_size)
            logits = model(inputs[batch])
            _check_logits(logits, inputs[batch])
            gradients = torch.autograd.grad(
                loss(logits, batch), list(trainable.values()), allow_unused=True
            )
            for total, gradient in zip(totals.values(), gradients, strict=True):
                if gradient is not None:
                    total += size(gradient.to(total.dtype))
    return {name: total / len(starts) for name, total in totals.items()}


def _zeros(parameter: Tensor) -> Tensor:
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    return torch.zeros(parameter.shape, dtype=dtype, device=parameter.device)


def _add_batch(
    totals: dict[str, Tensor],
    model: nn.Module,
    trainable: dict[str, Tensor],
    layers: dict[str, nn.Module],
    x: Tensor,
    labels: Tensor | None,
) -> None:
    """Add to totals the squares of one batch."""
    logits, calls = _forward(model, layers, x)
    owned = {name: _owned(name, layers[name]) for name in calls}
    ruled = set().union(*owned.values())
    rest = {name: p for name, p in trainable.items() if name not in ruled}
    edges = [call.output for call in calls.values()]
    for signal in _signals(logits, labels):
        deltas = torch.autograd.grad(logits, edges, signal, retain_graph=True) if edges else ()
        for (name, call), delta in zip(calls.items(), deltas, strict=True):
            for parameter in owned[name]:
                total = totals[parameter]
                total += _squares(layers[name], parameter, call.input, delta.to(total.dtype))
        if rest:
            _add_by_autograd(totals, model, rest, x, signal)


def _signals(logits: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
    """Gradients at the logits, (B, K) each, whose squares carried to the parameters add up to the
    wanted sum: of the labels, or of every class k times sqrt(p_k).
    """
    p = logits.detach().to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)
    if labels is not None:
        yield _cross_entropy_gradient(p, labels).to(logits.dtype)
        return
    for k in range(p.shape[1]):
        label = torch.full_like(p[:, 0], k, dtype=torch.int64)
        yield (p[:, k : k + 1].sqrt() * _cross_entropy_gradient(p, label)).to(logits.dtype)


def _cross_entropy_gradient(p: Tensor, label: Tensor) -> Tensor:
    """The difference p - onehot(label). Where p_label is near 1, the sum of the others is exact."""
    others = p.scatter(1, label[:, None], 0)
    return others.scatter(1, label[:, None], -others.sum(dim=1, keepdim=True))


def _add_by_autograd(
    totals: dict[str, Tensor],
    model: nn.Module,
    rest: dict[str, Tensor],
    x: Tensor,
    signal: Tensor,
) -> None:
    """Add the squared gradients of the parameters in rest, of many samples at a time if it goes."""
    # Detached, so that only the transform differentiates.
    fixed = {name: p.detach() for name, p in model.named_parameters()}
    free = {name: fixed.pop(name) for name in rest}

    def carried(free: dict[str, Tensor], x: Tensor, signal: Tensor) -> Tensor:
        return (functional_call(model, fixed | free, (x[None],))[0] * signal).sum()

    count = max(1, 16 * SCRATCH // sum(p.numel() for p in free.values()))
    for x_, signal_ in zip(x.split(count), signal.split(count), strict=True):
        try:
            with sdpa_kernel(SDPBackend.MATH):  # the one attention that vmap can batch
                gradients = vmap(grad(carried), in_dims=(None, 0, 0))(free, x_, signal_)
        except RuntimeError:  # recurrent layers, and what else vmap cannot do
            gradients = _one_by_one(model, rest, x_, signal_)
        for name, gradient in gradients.items():
            totals[name] += gradient.to(totals[name].dtype).square().sum(dim=0)


def _one_by_one(
    model: nn.Module, rest: dict[str, Tensor], x: Tensor, signal: Tensor
) -> dict[str, Tensor]:
    """Gradients (B, ...) of each sample, by plain autograd."""
    gradients = {name: x.new_zeros(len(x), *p.shape, dtype=p.dtype) for name, p in rest.items()}
    for b in range(len(x)):
        logits = model(x[b : b + 1])
        found = torch.autograd.grad(
            logits, list(rest.values()), signal[b : b + 1], allow_unused=True
        )
        for name, gradient in zip(rest, found, strict=True):
            if gradient is not None:
                gradients[name][b] = gradient
    return gradients


# ------------------------------------------------------------------ which layers, and what they saw


class _Call(NamedTuple):
    """What one call of a layer saw, and where its output stands in the graph of autograd."""

    input: Tensor
    version: int  # of the input: another one later means that it was overwritten
    output: GradientEdge  # not the tensor, which an in-place ReLU may overwrite


def _ruled_layers(model: nn.Module, x: Tensor, targets: Tensor | None) -> dict[str, nn.Module]:
    """The layers for which a rule holds, found out with a few samples.

    The rules need samples along the first axis, and apart. So a gradient that starts at every other
    sample must arrive in every other row of delta. It does not where the axes are in another order
    and happen to be of one length, nor where samples mix.
    """
    layers = {name: module for name, module in model.named_modules() if _has_rule(module)}
    logits, calls = _forward(model, layers, x)
    if targets is not None:
        check_targets("targets", targets, len(targets), logits.shape[1])
    if not calls:
        return {}
    probe = torch.zeros_like(logits)
    probe[::2] = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    edges = [call.output for call in calls.values()]
    deltas = torch.autograd.grad(logits, edges, probe, allow_unused=True)
    return {
        name: layers[name]
        for name, delta in zip(calls, deltas, strict=True)
        if delta is not None and not delta[1::2].any()
    }


def _forward(
    model: nn.Module, layers: dict[str, nn.Module], x: Tensor
) -> tuple[Tensor, dict[str, _Call]]:
    """The logits, and of every layer whose parameters enter them in one call the call."""
    calls = defaultdict(list)

    def listen_to(name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        def listen(_: nn.Module, arguments: tuple, output: Tensor) -> None:
            if output.requires_grad and len(arguments) == 1:
                a = arguments[0].detach()
                calls[name].append(_Call(a, a._version, get_gradient_edge(output)))

        return listen

    handles = [
        layer.register_forward_hook(listen_to(name), prepend=True) for name, layer in layers.items()
    ]
    try:
        logits = model(x)
    finally:
        for handle in handles:
            handle.remove()
    _check_logits(logits, x)
    uses = _uses(logits)
    once = {
        name: seen[0]
        for name, seen in calls.items()
        if len(seen) == 1 and all(uses[id(p)] == 1 for p in _owned(name, layers[name]).values())
    }
    return logits, {
        name: call
        for name, call in once.items()
        if len(call.input) == len(x) and call.input._version == call.version
    }


def _uses(logits: Tensor) -> Counter[int]:
    """How many edges of the graph of autograd lead to each leaf, by the id of the leaf."""
    uses, seen, stack = Counter(), set(), [logits.grad_fn]
    while stack:
        for node, _ in stack.pop().next_functions:
            if type(node).__name__ == "AccumulateGrad":
                uses[id(node.variable)] += 1
            elif node is not None and node not in seen:
                seen.add(node)
                stack.append(node)
    return uses


# ------------------------------------------------------------------ one rule a kind of layer


def _squares(layer: nn.Module, name: str, a: Tensor, delta: Tensor) -> Tensor:
    """Sum over samples of the squared gradient of the parameter called name, shaped like it.

    a : (B, ...) input of the layer; delta : (B, ...) gradient at its output
    """
    rule, channels = RULES[type(layer)]
    if name.rpartition(".")[2] == "weight":
        return rule(layer, a, delta)
    if channels == "second":
        delta = delta.movedim(1, -1)
    return _sum_over_positions(delta, layer.bias).square().sum(dim=0)


def _sum_over_positions(values: Tensor, parameter: Tensor) -> Tensor:
    """(B, ..., *parameter.shape) -> (B, *parameter.shape)."""
    return values.reshape(len(values), -1, *parameter.shape).sum(dim=1)


def _sum_squared_products(left: Tensor, right: Tensor) -> Tensor:
    """(B, m, L), (B, L, n) -> (m, n), the sum over b of (left_b right_b)^2."""
    return torch.bmm(left, right).square_().sum(dim=0)


def _chunks(per_sample: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Equal parts of tensors along the samples, so that a part takes at most SCRATCH elements."""
    B = len(tensors[0])
    parts = min(B, ceil(B * per_sample / SCRATCH))
    return zip(*(tensor.chunk(parts) for tensor in tensors), strict=True)


def _linear(layer: nn.Linear, a: Tensor, delta: Tensor) -> Tensor:
    a = a.to(delta.dtype).reshape(len(a), -1, layer.in_features)
    delta = delta.reshape(len(delta), -1, layer.out_features)
    if a.shape[1] == 1:  # one position a sample: the square of a product is that of its factors
        return delta[:, 0].square().T @ a[:, 0].square()
    return sum(
        _sum_squared_products(delta_.mT, a_)
        for a_, delta_ in _chunks(layer.weight.numel(), a, delta)
    )


def _convolution(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, a: Tensor, delta: Tensor) -> Tensor:
    g, axes = layer.groups, a.ndim - 2
    outputs, inputs, *kernel = layer.weight.shape
    positions = delta[0, 0].numel()
    squares = torch.zeros(
        g, outputs // g, inputs * prod(kernel), dtype=delta.dtype, device=a.device
    )
    scratch = max(g * inputs * prod(kernel) * positions, layer.weight.numel())
    for a_, delta_ in _chunks(scratch, a.to(delta.dtype), delta):
        B = len(a_)
        windows = _windows(layer, a_).reshape(B * g, positions, -1)
        products = torch.bmm(delta_.reshape(B * g, outputs // g, positions), windows)
        squares += products.square_().unflatten(0, (B, g)).sum(dim=0)
    # (g, outputs / g, kernel x inputs) -> the order of the weight
    return squares.view(outputs, *kernel, inputs).movedim(axes + 1, 1)


def _windows(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, a: Tensor) -> Tensor:
    """(B, C, *space) -> (B, groups, *positions, *kernel, C / groups), what each output sees."""
    axes = a.ndim - 2
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    windows = F.pad(a, layer._reversed_padding_repeated_twice, mode)
    windows = windows.movedim(1, -1).contiguous()  # channels innermost: long runs to copy
    for axis in range(axes):
        span = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        windows = windows.unfold(axis + 1, span, layer.stride[axis])[..., :: layer.dilation[axis]]
    windows = windows.unflatten(axes + 1, (layer.groups, -1))
    # (B, *positions, groups, C / groups, *kernel)
    return windows.movedim(axes + 1, 1).movedim(axes + 2, -1)


def _embedding(layer: nn.Embedding, tokens: Tensor, delta: Tensor) -> Tensor:
    """The tokens of a sample that repeat add up before the square."""
    rows, size = layer.weight.shape
    tokens = tokens.reshape(len(tokens), -1)
    sample = torch.arange(len(tokens), device=tokens.device)[:, None]
    pairs, place = (sample * rows + tokens).unique(return_inverse=True)
    gradients = delta.new_zeros(len(pairs), size)
    gradients.index_add_(0, place.flatten(), delta.reshape(-1, size))
    squares = delta.new_zeros(rows, size).index_add_(0, pairs % rows, gradients.square_())
    if layer.padding_idx is not None:
        squares[layer.padding_idx] = 0
    return squares


def _batch_norm(layer: nn.BatchNorm2d, a: Tensor, delta: Tensor) -> Tensor:
    mean, var = layer.running_mean, layer.running_var
    x = F.batch_norm(a.to(delta.dtype), mean.to(delta.dtype), var.to(delta.dtype), eps=layer.eps)
    return _scale(layer, (x * delta).movedim(1, -1))


def _group_norm(layer: nn.GroupNorm, a: Tensor, delta: Tensor) -> Tensor:
    x = F.group_norm(a.to(delta.dtype), layer.num_groups, eps=layer.eps)
    return _scale(layer, (x * delta).movedim(1, -1))


def _layer_norm(layer: nn.LayerNorm, a: Tensor, delta: Tensor) -> Tensor:
    x = F.layer_norm(a.to(delta.dtype), layer.normalized_shape, eps=layer.eps)
    return _scale(layer, x * delta)


def _scale(layer: nn.Module, products: Tensor) -> Tensor:
    return _sum_over_positions(products, layer.weight).square().sum(dim=0)


# What is computed for the weight of each type of layer, exactly of this type, and which axis of its
# output holds the channels that the bias belongs to.
RULES: dict[type, tuple[Callable[[Any, Tensor, Tensor], Tensor], str]] = {
    nn.Linear: (_linear, "last"),
    nn.Conv1d: (_convolution, "second"),
    nn.Conv2d: (_convolution, "second"),
    nn.Conv3d: (_convolution, "second"),
    nn.Embedding: (_embedding, "last"),
    nn.BatchNorm1d: (_batch_norm, "second"),
    nn.BatchNorm2d: (_batch_norm, "second"),
    nn.BatchNorm3d: (_batch_norm, "second"),
    nn.GroupNorm: (_group_norm, "second"),
    nn.LayerNorm: (_layer_norm, "last"),
}


def _has_rule(layer: nn.Module) -> bool:
    """Whether a rule covers the layer, which must own plain parameters: weight norm, pruning and
    the like replace them by others.
    """
    own = dict(layer.named_parameters(recurse=False))
    return type(layer) in RULES and own.keys() <= {"weight", "bias"} and bool(_owned("", layer))


def _owned(name: str, layer: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters of the layer called name, under their names in the model."""
    own = layer.named_parameters(prefix=name, recurse=False)
    return {full_name: p for full_name, p in own if p.requires_grad}


# ------------------------------------------------------------------ checks


def _check_model(model: nn.Module, trainable: dict[str, Tensor]) -> None:
    if not trainable:
        raise ValueError("model must have a parameter that requires a gradient; it has none")
    for name, parameter in model.named_parameters():
        check_finite(f"parameter {name!r} of model", parameter.detach())
    check_apart(model)


def _check_data(
    trainable: dict[str, Tensor], inputs: Tensor, targets: Tensor | None, batch_size: int
) -> None:
    check_count(batch_size=batch_size)
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a torch.Tensor, not {type(inputs).__name__}")
    if inputs.ndim == 0 or len(inputs) == 0:
        raise ValueError(f"inputs must be (N, ...) with N >= 1, not {tuple(inputs.shape)}")
    parameter = next(iter(trainable.values()))
    check_device("inputs", inputs, "the model", parameter)
    if targets is not None:
        check_int64("targets", targets, len(inputs))
        check_device("targets", targets, "the model", parameter)
    if inputs.is_floating_point():
        check_finite("inputs", inputs)


def _check_logits(logits: object, x: Tensor) -> None:
    check_logits("logits of model", logits, n=len(x))
    if not logits.requires_grad:
        raise RuntimeError("the logits of model depend on no trainable parameter")
