"""Follow a model's forward through its time loop, and find the series in what it computes.

`forward` runs once on tensors of the device "meta", which have shapes and no numbers. Every torch
function that it calls is recorded as a node. A tensor stands for a node alone (it is *fixed*) or
for step t of a series:

    x[t]                            step t of the rows of x
    f(tensors at step t, fixed)     step t of a series of its own, one for every f and its arguments
    neuron(current at t, mem)       step t, where mem is the neuron's own at t - 1, or fixed: then 0
    torch.stack(steps 0 .. T-1)     the series itself, fixed

All else, say a sum of two steps, is fixed, and computed as it stands.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode, handle_torch_function

from labkit.spiking.series import (
    Attribute,
    Call,
    CallEachStep,
    Constant,
    Given,
    Node,
    Pick,
    Rows,
    Scan,
    Steps,
    Whole,
    leaves,
    replace,
    words,
)

_NUMBERS = words(
    """item tolist numpy __bool__ __int__ __float__ __index__ __contains__ equal allclose nonzero
    unique"""
)
_RANDOM = words(
    """rand randn randint randperm rand_like randn_like randint_like bernoulli normal poisson
    multinomial dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"""
)
_IN_PLACE = words("__setitem__ __set__ __iadd__ __isub__ __imul__ __itruediv__")


class Plan:
    """What a call computes: nodes in order, the nest of results, and the neurons' last voltages."""

    def __init__(
        self, given: list[Given], nodes: list[Node], results: Any, last: dict[nn.Module, Node]
    ) -> None:
        wanted = {node for node in nodes if node.impure}
        wanted |= {*leaves(results, Node), *last.values()}
        for node in reversed(nodes):  # parents come before their children
            if node in wanted:
                wanted.update(node.parents)
        for node in wanted:
            if isinstance(node, Pick) and isinstance(node.parents[0], Scan) and node.place == 1:
                node.parents[0].voltages_wanted = True
        self.given, self.results, self.last = given, results, last
        self.nodes = [node for node in nodes if node in wanted and not isinstance(node, Given)]

    def run(self, tensors: list[Tensor]) -> Any:
        values: dict[Node, Any] = dict(zip(self.given, tensors, strict=True))
        for node in self.nodes:
            values[node] = node.compute(values)
        for neuron, node in self.last.items():
            neuron.mem = values[node]
        return replace(self.results, Node, values.__getitem__)


def trace(
    model: nn.Module, neurons: dict[str, nn.Module], forward: Callable[..., Any], arguments: Any
) -> Plan:
    """The plan of ``forward(*arguments[0], **arguments[1])``, a method of model.

    Nothing is computed, and model is left as it was.

    Raises
    ------
    ValueError
        where the loop is not one that can be computed for all steps at once.
    """
    saved = [(m, dict(m.__dict__), dict(m._buffers)) for m in model.modules()]
    recorder = _Recorder(model, {neuron: name for name, neuron in neurons.items()})
    try:
        args, kwargs = replace(arguments, Tensor, recorder.give)
        recorder.intercept(model)
        with recorder:
            results = forward(*args, **kwargs)
        recorder.check_attributes(saved)
        last = {q: q.mem for q in neurons.values() if hasattr(q.mem, "_place")}
        return recorder.plan(results, last)
    finally:
        for module, attributes, buffers in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module, neurons: dict[nn.Module, str]) -> None:
        super().__init__()
        self.neurons = neurons
        self.device: torch.device | None = None
        self.nodes: dict[Hashable, Node] = {}
        self.calls: Counter[Hashable] = Counter()
        self.owned = {
            id(tensor): (tensor, module, name)
            for module in model.modules()
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]
            if tensor is not None
        }
        self.empty: dict[int, tuple[Tensor, Tensor]] = {}  # a tensor, and its like without numbers

    # -------------------------------------------------------------- tensors and their places

    def give(self, tensor: Tensor) -> Tensor:
        """A tensor that stands for an argument."""
        self.device = self.device or tensor.device
        node = self.node(("given", len(self.nodes)), Given)
        return self.symbol(self.without_numbers(tensor), node)

    def symbol(self, meta: Tensor, node: Node, t: int | None = None) -> Tensor:
        """A tensor of that shape which stands for a node, or for step t of it."""
        symbol = meta.detach()  # a new object, whatever made it
        symbol._place = (node, t)
        if t is not None:
            node.steps = max(node.steps, t + 1)
        return symbol

    def node(self, key: Hashable, make: Callable[[], Node]) -> Node:
        """The node of this key, made the first time."""
        if key not in self.nodes:
            self.nodes[key] = make()
        return self.nodes[key]

    def place(self, tensor: Tensor) -> tuple[Node, int | None]:
        """What a tensor stands for: a node, or a step of it."""
        if hasattr(tensor, "_place"):
            return tensor._place
        if id(tensor) in self.owned:
            _, module, name = self.owned[id(tensor)]
            key = ("attribute", id(module), name)
            return self.node(key, partial(Attribute, module, name)), None
        return self.node(("constant", id(tensor)), partial(Constant, tensor)), None

    def fixed(self, tensor: Tensor) -> Node:
        """What a tensor stands for, as a fixed node."""
        node, t = self.place(tensor)
        if t is None:
            return node
        steps = self.node(("steps", node), partial(Steps, node))
        return self.node(("pick", steps, t), partial(Pick, steps, t))

    def without_numbers(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == "meta":
            return tensor
        if id(tensor) not in self.empty:
            shape, strides = tensor.shape, tensor.stride()
            meta = torch.empty_strided(shape, strides, dtype=tensor.dtype, device="meta")
            self.empty[id(tensor)] = tensor, meta
        return self.empty[id(tensor)][1]

    # -------------------------------------------------------------- what forward calls

    def intercept(self, model: nn.Module) -> None:
        """Record whole calls of the modules that have a state."""
        for module in model.modules():
            if module in self.neurons:
                module.forward = partial(_call_neuron, module)
            elif isinstance(module, _BatchNorm) and module.training:
                module.forward = partial(_call_module, module)

    def __torch_function__(  # noqa: ANN204
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: Any = None
    ):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", str(function))
        if function is _call_neuron:
            return self.scan(*args)
        if function == torch.Tensor.device.__get__:
            return self.device if hasattr(args[0], "_place") else args[0].device
        tensors = leaves((args, kwargs), Tensor)
        self.check(name, tensors, kwargs)
        if "dropout" in name and not kwargs.get("training", args[2:3] != (False,)):
            return args[0]
        if name == "unbind" and _first_dim(args, kwargs):
            return tuple(self.item(args[0], t) for t in range(args[0].shape[0]))
        if name == "__getitem__":
            return self.item(*args)
        if name == "stack" and (steps := self.successive(tensors)):
            dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
            key = ("whole", *steps, dim)
            return self.symbol(
                torch.stack([*map(self.without_numbers, tensors)], dim),
                self.node(key, lambda: Whole(*steps, dim)),
            )
        return self.record(function, name, args, kwargs)

    def check(self, name: str, tensors: list[Tensor], kwargs: dict[str, Any]) -> None:
        if name == "_set_grad_enabled":
            _refuse("it turns gradients on or off", "wrap the call of the model in torch.no_grad()")
        if name in _NUMBERS and tensors:
            _refuse(f"what it does depends on the numbers in a tensor ({name})", "fixed loops")
        changes = name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))
        if tensors and (changes or kwargs.get("inplace") or kwargs.get("out") is not None):
            _refuse(f"it changes a tensor in place ({name})", "lists and torch.stack")

    def item(self, x: Tensor, index: Any) -> Tensor:
        """x[index]: a step of the rows of x, if x is fixed and the index one place of a dim."""
        node, t = self.place(x)
        at = _one_place(index, x.ndim) if t is None else None
        if at is None:
            return self.record(torch.Tensor.__getitem__, "__getitem__", (x, index), {})
        dim, i = at
        meta = self.without_numbers(x)[index]
        i %= x.shape[dim]
        if isinstance(node, Whole) and (node.start, node.dim, dim) == (0, 0, 0):
            return self.symbol(meta, node.parents[0], i)
        return self.symbol(meta, self.node(("rows", node, dim), partial(Rows, node, dim)), i)

    def successive(self, tensors: list[Tensor]) -> tuple[Node, int, int] | None:
        """Series, first step and number of steps, if tensors are successive steps of one series."""
        places = [self.place(tensor) for tensor in tensors]
        node, start = places[0]
        if start is None or places != [(node, start + i) for i in range(len(places))]:
            return None
        return node, start, len(places)

    def record(self, function: Callable[..., Any], name: str, args: tuple, kwargs: Any) -> Any:
        """The result of a call, standing for a step of a series if one is among the arguments."""
        with torch.device("meta"):
            meta_args, meta_kwargs = replace(
                replace((args, kwargs), Tensor, self.without_numbers),
                torch.device,
                lambda _: torch.device("meta"),
            )
            if function is _call_module:
                result = self.without_numbers(args[1])
            else:
                result = function(*meta_args, **meta_kwargs)
        made = leaves(result, Tensor)
        if not made:
            return result
        tensors = leaves((args, kwargs), Tensor)
        times = {t for _, t in map(self.place, tensors) if t is not None}
        t = times.pop() if len(times) == 1 else None
        to_node = self.fixed if t is None else lambda tensor: self.place(tensor)[0]
        args, kwargs = replace((args, kwargs), Tensor, to_node)
        key = ("call", t is None, function, _frozen((args, kwargs)))
        if name in _RANDOM or function is _call_module:  # drawn, or counted, anew at every call
            moment = (key, t)
            self.calls[moment] += 1
            key = (key, self.calls[moment])
        node = self.node(key, partial(Call if t is None else CallEachStep, function, args, kwargs))
        node.impure = function is _call_module
        if isinstance(result, Tensor):
            return self.symbol(result, node, t)
        node.steps = max(node.steps, 0 if t is None else t + 1)
        places = iter(range(len(made)))

        def picked(meta: Tensor) -> Tensor:
            i = next(places)
            return self.symbol(meta, self.node(("pick", node, i), partial(Pick, node, i)), t)

        return replace(result, Tensor, picked)

    def scan(self, neuron: nn.Module, x: Tensor, mem: Tensor | None) -> Any:
        """One step of a neuron; as snnTorch does, it leaves its voltage in `neuron.mem`."""
        name = self.neurons[neuron]
        if neuron.init_hidden and mem is not None:
            raise TypeError(f"{name} keeps its voltage (init_hidden=True) and takes no mem")
        if x.dtype != torch.float32:
            _refuse(f"the input of {name} is {x.dtype}", "float32")
        current, t = self.place(x)
        before, t_before = self.place(neuron.mem if mem is None else mem)
        voltages = before.parents[0] if isinstance(before, Pick) else None
        if t_before is None:
            key = ("scan", neuron, current, before)
            node, now = self.node(key, partial(Scan, neuron, current, before)), 0
        elif isinstance(voltages, Scan) and voltages.neuron is neuron and before.place == 1:
            node, now = voltages, t_before + 1
        else:
            _refuse(f"{name} is given a mem at step {t_before} which is not its own", "its own mem")
        if node.current is not current or t not in (None, now):
            _refuse(
                f"the input of {name} at its step {now} is not computed as at its first, from what "
                "is known of that step alone: it may be drawn anew, or come from another layer's "
                "earlier spikes",
                "feed-forward layers of one loop over x[0], x[1], ...",
            )
        node.steps = max(node.steps, now + 1)
        meta = self.without_numbers(x)
        spikes = self.symbol(meta, self.node(("pick", node, 0), partial(Pick, node, 0)), now)
        neuron.mem = self.symbol(meta, self.node(("pick", node, 1), partial(Pick, node, 1)), now)
        return spikes if neuron.init_hidden and not neuron.output else (spikes, neuron.mem)

    # -------------------------------------------------------------- the end

    def check_attributes(self, saved: list[tuple[nn.Module, dict, dict]]) -> None:
        for module, attributes, buffers in saved:
            before = attributes | buffers
            for name, value in (module.__dict__ | module._buffers).items():
                if value is before.get(name) or (module in self.neurons and name == "mem"):
                    continue
                kept = leaves(value, Tensor) if isinstance(value, (Tensor, list, tuple)) else []
                if any(hasattr(tensor, "_place") for tensor in kept):
                    _refuse(f"it keeps a tensor in the attribute {name}", "local variables")

    def plan(self, results: Any, last: dict[nn.Module, Tensor]) -> Plan:
        results = replace(results, Tensor, self.at_end)
        ends = {neuron: self.at_end(mem) for neuron, mem in last.items()}
        nodes = list(self.nodes.values())
        return Plan([node for node in nodes if isinstance(node, Given)], nodes, results, ends)

    def at_end(self, tensor: Tensor) -> Node:
        """`fixed`, without all voltages of a neuron where its last one is asked for."""
        node, t = self.place(tensor)
        scan = node.parents[0] if isinstance(node, Pick) else None
        if isinstance(scan, Scan) and (node.place, t) == (1, scan.steps - 1):
            return self.node(("last", scan), partial(_last, scan))
        return self.fixed(tensor)


def _last(scan: Scan) -> Pick:
    pick = Pick(scan, 2)
    pick.series = False
    return pick


def _call_neuron(neuron: nn.Module, input_: Tensor, mem: Tensor | None = None) -> Any:
    return handle_torch_function(_call_neuron, (input_,), neuron, input_, mem)


def _call_module(module: nn.Module, input: Tensor) -> Tensor:
    """Records itself while it is traced; computes when the plan runs."""
    if hasattr(input, "_place"):
        return handle_torch_function(_call_module, (input,), module, input)
    return module(input)


def _refuse(what: str, accepted: str) -> NoReturn:
    raise ValueError(f"fuse cannot follow forward: {what}. Accepted: {accepted}.")


def _first_dim(args: tuple, kwargs: dict[str, Any]) -> bool:
    return (args[1] if len(args) > 1 else kwargs.get("dim", 0)) == 0


def _one_place(index: Any, ndim: int) -> tuple[int, int] | None:
    """Dimension and place, if an index is one number among full slices."""
    parts = index if isinstance(index, tuple) else (index,)
    if sum(part is Ellipsis for part in parts) == 1:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts = (*parts[:at], *[slice(None)] * (ndim - len(parts) + 1), *parts[at + 1 :])
    numbers = [(dim, part) for dim, part in enumerate(parts) if type(part) is int]
    full = sum(isinstance(part, slice) and part == slice(None) for part in parts)
    return numbers[0] if len(numbers) == 1 and full == len(parts) - 1 else None


def _frozen(nested: Any) -> Hashable:
    """Arguments as a key."""
    if isinstance(nested, dict):
        return tuple((name, _frozen(part)) for name, part in nested.items())
    if isinstance(nested, slice):
        return ("slice", _frozen((nested.start, nested.stop, nested.step)))
    if isinstance(nested, (tuple, list)):
        return tuple(_frozen(part) for part in nested)
    return (type(nested), nested) if isinstance(nested, Hashable) else id(nested)
