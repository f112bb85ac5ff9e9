"""Layers that learn when: a linear layer with a delay at every synapse, and a network of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from labkit.checks import check_choice, check_count, check_positive
from labkit.kernels import delayed_linear
from labkit.kernels.delayed_linear.reference import INTERPOLATIONS
from labkit.spiking import LIF, LeakyIntegrator

Kind = Literal["synaptic", "axonal", "dendritic"]


class DelayedLinear(nn.Module):
    """A linear layer whose inputs arrive late: x (T, B, in) -> y (T, B, out).

    `labkit.kernels.delayed_linear` as a layer; there is the equation. Delays are parameters in
    steps; an optimizer may carry them out of [0, max_delay], so call `clamp_delays` after each of
    its steps. While they are learned each is spread over neighbouring steps by `width`, which
    `set_width` narrows; a layer that is `rounded` takes whole steps.

    Parameters
    ----------
    inputs, outputs : numbers of channels
    max_delay : the longest delay, in steps; 0 makes an ordinary linear layer
    kind : a delay for each synapse, each input (axon) or each output (dendrite)
    interpolation : "gaussian" or "triangular", as in the kernel
    width : the spread to begin with, in steps
    generator : draws weights from U(-1, 1) / sqrt(inputs) and delays from U(0, max_delay)

    Raises
    ------
    ValueError
        for sizes below 1, a max_delay below 0, a width that is not positive, an unknown kind or
        interpolation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        max_delay: int,
        *,
        kind: Kind = "synaptic",
        interpolation: str = "gaussian",
        width: float = 0.5,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        check_count(inputs=inputs, outputs=outputs)
        check_count(0, max_delay=max_delay)
        check_positive(width=width)
        shapes = {
            "synaptic": (outputs, inputs),
            "axonal": (1, inputs),
            "dendritic": (outputs, 1),
        }
        check_choice("kind", kind, shapes)
        check_choice("interpolation", interpolation, INTERPOLATIONS)
        weight = 2 * torch.rand(outputs, inputs, generator=generator) - 1
        self.weight = nn.Parameter(weight / inputs**0.5)
        self.delay = nn.Parameter(max_delay * torch.rand(shapes[kind], generator=generator))
        self.max_delay, self.kind, self.interpolation = max_delay, kind, interpolation
        self.width, self.rounded = width, False

    def forward(self, x: Tensor) -> Tensor:
        return delayed_linear(
            x,
            self.weight,
            self.delay,
            width=None if self.rounded or self.max_delay == 0 else self.width,
            interpolation=self.interpolation,
            max_delay=self.max_delay,
        )

    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape
        return f"{inputs}, {outputs}, max_delay={self.max_delay}, kind={self.kind!r}"


class DelayNetwork(nn.Module):
    """Feedforward spiking network with delays: spikes (T, B, in) -> voltages (T, B, classes).

    Each hidden layer is delayed linear, batch normalisation over time and batch, LIF neurons,
    dropout; the readout is delayed linear into neurons that never fire. After Hammouamri,
    Khalfaoui-Hassani and Masquelier (ICLR 2024). Their membrane time constant tau = 1.005 steps
    keeps 0.5 % of a voltage for the next step, so all memory lies in the delays.

    Parameters
    ----------
    sizes : channels of the input, of every hidden layer, and classes
    max_delay : of every layer, in steps
    tau : membrane time constant in steps; v <- (1 - 1/tau) v + I, reset to zero
    dropout : share of hidden spikes left out while training
    kind, interpolation, width, generator : as in `DelayedLinear`
    """

    def __init__(
        self,
        sizes: Sequence[int],
        max_delay: int,
        *,
        tau: float = 1.005,
        dropout: float = 0.0,
        kind: Kind = "synaptic",
        interpolation: str = "gaussian",
        width: float = 0.5,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"sizes must name inputs and classes at least, not {list(sizes)}")
        if not tau >= 1:
            raise ValueError(f"tau must be at least one step, not {tau}")
        options: dict[str, Any] = {
            "kind": kind,
            "interpolation": interpolation,
            "width": width,
            "generator": generator,
        }
        self.synapses = nn.ModuleList(
            DelayedLinear(*pair, max_delay, **options) for pair in pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes[1:-1])
        self.neurons = LIF(1 - 1 / tau, reset="zero", detach_reset=True, slope=5.0)
        self.dropout = nn.Dropout(dropout)
        self.readout = LeakyIntegrator(1 - 1 / tau)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.synapses[-1](self.hidden(x)[-1]))

    def hidden(self, x: Tensor) -> list[Tensor]:
        """The input and the spikes of every hidden layer, each (T, B, size)."""
        spikes = [x]
        for synapse, norm in zip(self.synapses[:-1], self.norms, strict=True):
            current = norm(synapse(spikes[-1]).flatten(0, 1)).view(*x.shape[:2], -1)
            spikes.append(self.dropout(self.neurons(current)))
        return spikes


# ------------------------------------------------------------------ while training


def delayed_layers(model: nn.Module) -> list[DelayedLinear]:
    """Every layer of a model that has delays."""
    return [layer for layer in model.modules() if isinstance(layer, DelayedLinear)]


def clamp_delays(model: nn.Module) -> None:
    """Bring all delays back into [0, max_delay]; call it after each step of an optimizer."""
    with torch.no_grad():
        for layer in delayed_layers(model):
            layer.delay.clamp_(0, layer.max_delay)


def set_width(model: nn.Module, width: float) -> None:
    """Set the spread of all delays, in steps."""
    for layer in delayed_layers(model):
        layer.width = width


def annealed_width(
    progress: float, first: float, *, last: float = 0.5, until: float = 0.25
) -> float:
    """The schedule of DCLS-Delays: sigma - 0.27 shrinks geometrically, then stays.

    Parameters
    ----------
    progress : share of training that is done, 0 to 1
    first, last : sigma in steps at the beginning, and from `until` on; above 0.27
    until : the share of training after which it stays

    Raises
    ------
    ValueError
        for a sigma of at most 0.27, or an `until` outside (0, 1].
    """
    least = 0.27  # what the package dcls adds to its parameter |SIG|
    if not min(first, last) > least:
        raise ValueError(f"first and last must be above {least}, not {first} and {last}")
    if not 0 < until <= 1:
        raise ValueError(f"until must lie in (0, 1], not {until}")
    share = min(1.0, progress / until)
    return least + (first - least) ** (1 - share) * (last - least) ** share


@contextmanager
def rounded(model: nn.Module) -> Iterator[None]:
    """Within it delays are whole steps, as on event-driven hardware; the parameters are kept."""
    layers = delayed_layers(model)
    before = [layer.rounded for layer in layers]
    for layer in layers:
        layer.rounded = True
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.rounded = was


def round_delays(model: nn.Module) -> None:
    """Round all delays for good; weights may be tuned on, delays no more."""
    with torch.no_grad():
        for layer in delayed_layers(model):
            layer.delay.round_().requires_grad_(False)
            layer.rounded = True


def parameter_groups(
    model: nn.Module, lr: float, delay_lr: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer: delays have a rate of their own and no weight decay.

    Decay would pull every delay towards 0: it belongs to weights alone.
    """
    delays = [layer.delay for layer in delayed_layers(model) if layer.delay.requires_grad]
    known = {id(delay) for delay in delays}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    return [
        {"params": others, "lr": lr, "weight_decay": weight_decay},
        {"params": delays, "lr": delay_lr, "weight_decay": 0.0},
    ]
