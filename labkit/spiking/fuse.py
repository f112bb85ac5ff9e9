"""`fuse`: the time loop of an snnTorch network, computed layer by layer for all steps at once."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from labkit.spiking.series import neuron_options, replace
from labkit.spiking.trace import Plan, trace


def fuse(model: nn.Module) -> nn.Module:
    """The same network with the same spikes, and without the loop over time.

    ``net = fuse(net)`` returns a view of the model: its class, attributes, state_dict, parameters
    and submodules are the model's own, so that optimisers and checkpoints go on as before. Only
    `forward` differs: what the loop would do step by step, it does for all steps at once, neurons
    by `labkit.kernels.lif_scan`. Spikes and voltages equal the loop's bit for bit on the CPU,
    gradients up to rounding. There are two kinds of model:

    *The loop is inside.* `forward` begins with ``mem1 = self.lif1.init_leaky()`` (or `reset_mem`),
    loops over steps, ``spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)``, and returns lists or
    ``torch.stack(...)`` of what it gathered. Call it as before. Any feed-forward graph of layers
    and functions will do. The first call with other shapes, attributes or globals that `forward`
    reads traces the loop, which takes about as long as running it.

    *The loop is outside.* All neurons keep their voltage (``init_hidden=True``) and `forward`, say
    of an `nn.Sequential`, takes one step. The fused model takes all of them, x (T, B, ...), in the
    place of ``for x_t in x: out = net(x_t)``, and returns every output stacked, (T, B, ...). For an
    input that does not change, pass ``x.expand(T, *x.shape)``. `snntorch.utils.reset` works as
    before, and so does a call without it, which goes on from the last voltages.

    Linear layers, pooling and simple arithmetic take all steps at once, and linear layers of sparse
    spikes add up the weights of those that fired. Other layers, as convolutions and normalisations,
    take one step after another, since their sums may round otherwise, and since batch statistics
    are those of a step. Dropout draws a mask for every step, as in the
    loop, but from another place in the stream of random numbers.

    Parameters
    ----------
    model : network of stateless layers and `snntorch.Leaky`, float32. Accepted are the surrogates
        atan, fast_sigmoid and straight_through_estimator, all reset mechanisms, and learned or
        per-neuron beta and threshold.

    Raises
    ------
    ImportError
        if snntorch is not installed.
    ValueError
        naming the module, if it is another neuron or has an option that is not accepted; and at
        the first call if the loop feeds spikes or voltages back to other neurons or steps, changes
        tensors in place, or depends on their numbers. The model stays as it was.
    """
    neurons = _neurons(model)
    hidden = [neuron.init_hidden for neuron in neurons.values()]
    if any(hidden) and not all(hidden):
        names = ", ".join(name for name, neuron in neurons.items() if not neuron.init_hidden)
        raise ValueError(
            f"init_hidden must be the same for all neurons: True if the loop over time is outside "
            f"the model, False if inside. It is False for {names}"
        )
    fused = copy.copy(model)
    fused.forward = _Forward(fused, neurons, outside=all(hidden))
    return fused


def _neurons(model: nn.Module) -> dict[str, nn.Module]:
    try:
        from snntorch import Leaky
    except ImportError as error:
        raise ImportError('fuse needs snntorch: pip install "labkit-notebooks[bench]"') from error
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        kind = type(module)
        if kind is Leaky:
            try:
                neuron_options(module)
            except ValueError as error:
                raise ValueError(f"fuse cannot compute {name} (Leaky): {error}") from None
            found[name] = module
        elif isinstance(module, Leaky) or kind.__module__.startswith("snntorch"):
            raise ValueError(f"fuse cannot compute {name} ({kind.__name__}): only snntorch.Leaky")
        elif getattr(module, "inplace", False):
            raise ValueError(f"{name} ({kind.__name__}) must have inplace=False, not True")
    if not found:
        raise ValueError(f"{type(model).__name__} has no snntorch.Leaky to fuse")
    return found


class _Forward:
    """Stands in the place of `model.forward`."""

    def __init__(self, model: nn.Module, neurons: dict[str, nn.Module], outside: bool) -> None:
        self.model, self.neurons, self.outside = model, neurons, outside
        self.plans: dict[Any, Plan] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"plans": {}}  # plans hold the modules of this model, not of a copy

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise ValueError("a fused model computes in float32; autocast must be off")
        tensors: list[Tensor] = []
        key = repr((replace((args, kwargs), Tensor, lambda x: _kind(x, tensors)), *self.settings()))
        if key not in self.plans:
            forward = self.every_step if self.outside else self.one_call
            self.plans[key] = trace(self.model, self.neurons, forward, (args, kwargs))
        return self.plans[key].run(tensors)

    def one_call(self, *args: Any, **kwargs: Any) -> Any:
        return type(self.model).forward(self.model, *args, **kwargs)

    def every_step(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(x) == 0:
            raise ValueError(f"x must be (T, B, ...) with at least one step, not {tuple(x.shape)}")
        outputs = [self.one_call(x_t, *args, **kwargs) for x_t in x]
        if isinstance(outputs[0], Tensor):
            return torch.stack(outputs)
        return tuple(torch.stack(output) for output in zip(*outputs, strict=True))

    def settings(self) -> Iterator[Any]:
        """What forward may read besides its arguments: plain attributes and globals."""
        for module in self.model.modules():
            yield _plain(module.__dict__)
        function: Callable[..., Any] = type(self.model).forward
        code = function.__code__
        yield _plain({n: function.__globals__.get(n) for n in code.co_names})
        cells = function.__closure__ or ()
        yield _plain({n: c.cell_contents for n, c in zip(code.co_freevars, cells, strict=True)})


def _kind(x: Tensor, tensors: list[Tensor]) -> tuple[Any, ...]:
    tensors.append(x)
    return tuple(x.shape), x.stride(), x.dtype, x.device


def _plain(values: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(n, v) for n, v in values.items() if isinstance(v, (bool, int, float, str))]
