"""What a traced time loop computes: nodes, each of which does its work for all steps at once.

A node is *fixed*, one value in a call, or a *series*, one value a step, stacked along a first
dimension of time. `trace.py` builds them; `fuse.py` runs them, call after call.

Every series is bit for bit what the loop would have computed, for a spike hangs on the last bit.
BLAS may sum in another order when it is given T times the rows. So a linear layer takes all steps
at once forward only where that was seen to change no bit, and backward, where rounding is harmless.
"""

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from labkit.kernels import lif_scan


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Exact for any number of steps at once: they move numbers, compare them, or round each one once.
_LANEWISE = words(
    """view reshape flatten unflatten squeeze unsqueeze permute transpose movedim contiguous detach
    clone float relu threshold clamp where cat __getitem__ max_pool1d max_pool2d max_pool3d
    avg_pool1d avg_pool2d avg_pool3d dropout dropout1d dropout2d dropout3d neg abs mul div
    true_divide __mul__ __rmul__ __truediv__ add sub rsub __add__ __radd__ __sub__ __rsub__ gt lt
    ge le __gt__ __lt__ __ge__ __le__"""
)


class Node:
    """One computation, from the values of its parents."""

    series = False
    impure = False  # changes a module, so that it runs whether or not its value is asked for

    def __init__(self, *parents: "Node") -> None:
        self.parents = parents
        self.steps = 0  # of a series: how many the loop asked for

    def compute(self, values: dict["Node", Any]) -> Any:
        raise NotImplementedError


class Given(Node):
    """An argument of the call."""


class Constant(Node):
    """A tensor that the model does not own."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def compute(self, values: dict[Node, Any]) -> Tensor:
        return self.tensor


class Attribute(Node):
    """A parameter or buffer of a module, as it is when the call begins."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def compute(self, values: dict[Node, Any]) -> Tensor:
        return getattr(self.module, self.name)


class Rows(Node):
    """The series x_t = x.select(dim, t) of a fixed tensor x."""

    series = True

    def __init__(self, x: Node, dim: int) -> None:
        super().__init__(x)
        self.dim = dim

    def compute(self, values: dict[Node, Any]) -> Tensor:
        return values[self.parents[0]].movedim(self.dim, 0)


class Whole(Node):
    """Successive steps of a series, stacked along a dimension: a fixed tensor."""

    def __init__(self, series: Node, start: int, count: int, dim: int) -> None:
        super().__init__(series)
        self.start, self.count, self.dim = start, count, dim

    def compute(self, values: dict[Node, Any]) -> Tensor:
        steps = _part(values[self.parents[0]], self.start, self.start + self.count)
        return steps.movedim(0, self.dim).contiguous() if self.dim else steps


class Steps(Node):
    """The steps of a series, one by one: a fixed tuple."""

    def compute(self, values: dict[Node, Any]) -> tuple[Tensor, ...]:
        return values[self.parents[0]].unbind()


class Pick(Node):
    """One of several results."""

    def __init__(self, several: Node, place: int) -> None:
        super().__init__(several)
        self.series, self.place = several.series, place

    def compute(self, values: dict[Node, Any]) -> Tensor:
        return values[self.parents[0]][self.place]


class Call(Node):
    """A function of fixed tensors; `args` and `kwargs` hold nodes in the place of tensors."""

    def __init__(self, function: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> None:
        super().__init__(*leaves((args, kwargs), Node))
        self.function, self.args, self.kwargs = function, args, kwargs

    def compute(self, values: dict[Node, Any]) -> Any:
        return _packed(self.call(values))

    def call(self, values: dict[Node, Any]) -> Any:
        args, kwargs = replace((self.args, self.kwargs), Node, values.__getitem__)
        return self.function(*args, **kwargs)


class CallEachStep(Call):
    """A function of tensors of which at least one is a series, all at the same step."""

    series = True

    def compute(self, values: dict[Node, Any]) -> Any:
        rows = {p: _part(values[p], 0, self.steps) for p in self.parents if p.series}
        name = self.function.__name__
        if name == "linear" and tuple(rows) == self.args[:1]:  # the weight is the same at all steps
            args, kwargs = replace((self.args, self.kwargs), Node, (values | rows).__getitem__)
            return linear(*args, **kwargs)
        if name in _LANEWISE and "alpha" not in self.kwargs:

            def step(*at_t: Tensor) -> Any:
                return _packed(self.call(values | dict(zip(rows, at_t, strict=True))))

            return torch.vmap(step, randomness="different")(*rows.values())
        results = [
            _packed(self.call(values | dict(zip(rows, at_t, strict=True))))
            for at_t in zip(*(row.unbind() for row in rows.values()), strict=True)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return tuple(torch.stack(several) for several in zip(*results, strict=True))


class Scan(Node):
    """A neuron, snntorch.Leaky, over time: spikes, voltages and the last voltage."""

    series = True

    def __init__(self, neuron: nn.Module, current: Node, start: Node) -> None:
        super().__init__(current, start)
        self.neuron, self.current, self.start = neuron, current, start
        self.voltages_wanted = False

    def compute(self, values: dict[Node, Any]) -> tuple[Tensor | None, ...]:
        x, v, neuron = values[self.current], values[self.start], self.neuron
        series = self.current.series
        x = _part(x, 0, self.steps) if series else x.expand(self.steps, *x.shape)
        s, *voltages, last = lif_scan(
            x,
            neuron.beta.clamp(0, 1),
            neuron.threshold,
            reset_delay=True,
            detach_reset=True,
            v=v if v.shape == x.shape[1:] else None,  # as in snnTorch: another shape starts at zero
            return_voltage=self.voltages_wanted,
            return_state=True,
            **neuron_options(neuron),
        )
        return s, voltages[0] if voltages else None, last


def neuron_options(neuron: nn.Module) -> dict[str, Any]:
    """The keywords of `lif_scan` for the reset and the surrogate of an snntorch.Leaky.

    Raises
    ------
    ValueError
        for an option that `lif_scan` does not compute.
    """
    for option, plain in (("state_quant", False), ("inhibition", False), ("reset_delay", True)):
        if bool(getattr(neuron, option, plain)) != plain:
            raise ValueError(f"{option} must be {plain}, not {getattr(neuron, option)!r}")
    graded = neuron.graded_spikes_factor
    if isinstance(graded, nn.Parameter) or not (graded == 1).all():
        raise ValueError(f"graded_spikes_factor must be 1 and not learned; it is {graded}")
    function = neuron.spike_grad
    known = {"atan": "atan", "fast_sigmoid": "fast_sigmoid"}
    known["straight_through_estimator"] = "straight_through"
    name = getattr(function, "__qualname__", repr(function)).removesuffix(".<locals>.inner")
    if getattr(function, "__module__", None) != "snntorch.surrogate" or name not in known:
        raise ValueError(
            f"spike_grad must be one of snntorch.surrogate's {', '.join(known)}, not {name}"
        )
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    slope = closed[0] if closed else None
    if isinstance(slope, Tensor):
        slope = float(slope.detach())
    return {"reset": neuron.reset_mechanism, "surrogate": known[name], "slope": slope}


def _linear_each_step(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x.new_empty(*x.shape[:-1], len(weight))
    for y_t, x_t in zip(y, x, strict=True):
        y_t.copy_(F.linear(x_t, weight, bias))
    return y


def _linear_at_once(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def _linear_of_events(
    x: Tensor, weight: Tensor, bias: Tensor | None, ones: tuple[Tensor, ...] = ()
) -> Tensor:
    from labkit.spiking import events

    found = events.Events(*ones) if ones else events.find(x.reshape(-1, x.shape[-1]), densest=1)
    return events.linear(found, weight, bias).view(*x.shape[:-1], len(weight))


@cache
def _exact(
    method: Callable[..., Tensor],
    shape: torch.Size,
    strides: tuple[int, ...],
    outputs: int,
    biased: bool,
    device: torch.device,
    threads: int,
) -> bool:
    """Whether a method has the bits of one product a step.

    The order in which BLAS sums depends on sizes, layout and threads, not on numbers: so one trial
    with random numbers, where another order could not hide, tells.
    """
    draw = torch.Generator(device).manual_seed(0)
    room = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    x = torch.randn(max(room, 0), generator=draw, device=device)
    if method is _linear_of_events:
        x = (x > 1.3).float()  # a tenth
    x = x.as_strided(shape, strides)
    weight = torch.randn(outputs, shape[-1], generator=draw, device=device)
    bias = torch.randn(outputs, generator=draw, device=device) if biased else None
    return torch.equal(method(x, weight, bias), _linear_each_step(x, weight, bias))


def _find_events(x: Tensor) -> tuple[Tensor, ...]:
    """Where x spikes, or nothing if it does not consist of sparse spikes, or lies elsewhere."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or find_spec("numba") is None:
        return ()
    from labkit.spiking import events

    return events.find(x.reshape(-1, x.shape[-1]), densest=events.DENSEST) or ()


class _Linear(torch.autograd.Function):
    """y_t = x_t W^T + b, with the bits of one product a step; the gradients all at once."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ones = _find_events(x)
        ctx.save_for_backward(x, weight, *ones)
        kind = x.shape, x.stride(), len(weight), bias is not None, x.device, torch.get_num_threads()
        if ones and _exact(_linear_of_events, *kind):
            return _linear_of_events(x, weight, bias, ones)
        if x.dtype == torch.float32 and _exact(_linear_at_once, *kind):
            return _linear_at_once(x, weight, bias)
        return _linear_each_step(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *ones = ctx.saved_tensors
        rows = g.reshape(-1, g.shape[-1])
        gx = gweight = gbias = None
        if ctx.needs_input_grad[0]:
            gx = (rows @ weight).view(x.shape)
        if ctx.needs_input_grad[1] and ones:
            from labkit.spiking import events

            gweight = events.weight_gradient(events.Events(*ones), rows, x.shape[-1])
        elif ctx.needs_input_grad[1]:
            gweight = rows.T @ x.reshape(-1, x.shape[-1])
        if ctx.needs_input_grad[2]:
            gbias = rows.sum(0)
        return gx, gweight, gbias


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` of every x_t, with the bits that it has step by step.

    input (T, ..., in), weight (out, in), bias (out,) -> (T, ..., out).
    """
    return _Linear.apply(input, weight, bias)


# ------------------------------------------------------------------ nested arguments


def leaves(nested: Any, kind: type) -> list[Any]:
    """The leaves of this type in nested tuples, lists, dicts and slices, in order."""
    return [leaf for leaf in _walk(nested) if isinstance(leaf, kind)]


def _walk(nested: Any) -> Iterator[Any]:
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, slice):
        nested = [nested.start, nested.stop, nested.step]
    if isinstance(nested, (tuple, list)):
        for part in nested:
            yield from _walk(part)
    else:
        yield nested


def replace(nested: Any, kind: type, by: Callable[[Any], Any]) -> Any:
    """The same nest, with `by(leaf)` in the place of every leaf of this type."""
    if isinstance(nested, kind):
        return by(nested)
    if isinstance(nested, dict):
        return {key: replace(part, kind, by) for key, part in nested.items()}
    if isinstance(nested, slice):
        return slice(*(replace(q, kind, by) for q in (nested.start, nested.stop, nested.step)))
    if isinstance(nested, tuple) and hasattr(nested, "_fields"):
        return type(nested)(*(replace(part, kind, by) for part in nested))
    if isinstance(nested, (tuple, list)):
        return type(nested)([replace(part, kind, by) for part in nested])
    return nested


def _part(x: Tensor, start: int, end: int) -> Tensor:
    """x[start:end]; x itself if that is all, which spares the gradient a copy."""
    return x if (start, end) == (0, len(x)) else x[start:end]


def _packed(result: Any) -> Any:
    """A tensor as it is, the tensors of anything else side by side."""
    return result if isinstance(result, Tensor) else tuple(leaves(result, Tensor))
