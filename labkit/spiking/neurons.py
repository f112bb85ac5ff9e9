"""Layers of neurons that take a whole sequence, time first."""

import torch
from torch import Tensor, nn

from labkit.kernels import lif_scan


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons: input current (T, B, ...) -> spikes (T, B, ...).

    `labkit.kernels.lif_scan` as a layer; there are the equations, and the keywords for the
    conventions of other packages. Every call starts at zero voltage.

    A learned decay is the sigmoid of the parameter `raw_decay`, which keeps it between 0 and 1
    (as in the parametric LIF neuron, Fang et al. 2021). A learned threshold is the parameter
    `threshold` itself, as in snnTorch.

    Parameters
    ----------
    decay : share of the voltage left after one step, exp(-dt / tau_m), in [0, 1]: a number, or a
        tensor that broadcasts to (B, ...), say (N,) for one a neuron. Inside (0, 1) if learned.
    threshold : likewise, in units of the input, positive
    learn_decay, learn_threshold : make them parameters
    reset, reset_delay, detach_reset, leak, surrogate, slope : as in `lif_scan`
    return_voltage : return (spikes, voltages) instead of spikes

    Raises
    ------
    ValueError
        for a decay or threshold outside its range; the rest is checked when the layer is called.
    """

    def __init__(
        self,
        decay: float | Tensor,
        threshold: float | Tensor = 1.0,
        *,
        learn_decay: bool = False,
        learn_threshold: bool = False,
        reset: str = "subtract",
        reset_delay: bool = False,
        detach_reset: bool = False,
        leak: str = "multiply",
        surrogate: str = "atan",
        slope: float | None = None,
        return_voltage: bool = False,
    ) -> None:
        super().__init__()
        _keep_decay(self, decay, learn_decay)
        if not (torch.as_tensor(threshold) > 0).all():
            raise ValueError(f"threshold must be positive, not {threshold}")
        _keep(self, "threshold", threshold, learn_threshold)
        self.options = {
            "reset": reset,
            "reset_delay": reset_delay,
            "detach_reset": detach_reset,
            "leak": leak,
            "surrogate": surrogate,
            "slope": slope,
            "return_voltage": return_voltage,
        }

    @property
    def decay(self) -> float | Tensor:
        return _decay(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return lif_scan(x, self.decay, self.threshold, **self.options)

    def extra_repr(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"decay={_shown(self.decay)}, threshold={_shown(self.threshold)}, {options}"


class LeakyIntegrator(nn.Module):
    """Neurons that never fire: input current (T, B, ...) -> voltages v_t = d v_{t-1} + x_t.

    The usual readout of a spiking classifier, whose voltages are averaged or maximised over time.

    Parameters
    ----------
    decay, learn_decay : as in `LIF`
    leak : "multiply" as above, or "average": v_t = d v_{t-1} + (1 - d) x_t
    """

    def __init__(
        self, decay: float | Tensor, *, learn_decay: bool = False, leak: str = "multiply"
    ) -> None:
        super().__init__()
        _keep_decay(self, decay, learn_decay)
        self.leak = leak

    @property
    def decay(self) -> float | Tensor:
        return _decay(self)

    def forward(self, x: Tensor) -> Tensor:
        return lif_scan(x, self.decay, reset="none", leak=self.leak, return_voltage=True)[1]

    def extra_repr(self) -> str:
        return f"decay={_shown(self.decay)}, leak={self.leak!r}"


def _keep_decay(module: nn.Module, decay: float | Tensor, learned: bool) -> None:
    value = torch.as_tensor(decay)
    if not ((value >= 0) & (value <= 1)).all():
        raise ValueError(f"decay must lie in [0, 1], not {decay}")
    if not learned:
        _keep(module, "raw_decay", decay, learned=False)
    elif ((value == 0) | (value == 1)).any():
        raise ValueError(f"a learned decay must begin between 0 and 1, not at {decay}")
    else:
        _keep(module, "raw_decay", torch.as_tensor(decay, dtype=_float(value)).logit(), learned)
    module.learn_decay = learned


def _decay(module: nn.Module) -> float | Tensor:
    return module.raw_decay.sigmoid() if module.learn_decay else module.raw_decay


def _keep(module: nn.Module, name: str, value: float | Tensor, learned: bool) -> None:
    """A parameter, a buffer, or a number, which fits inputs of every type."""
    if learned:
        value = torch.as_tensor(value)
        setattr(module, name, nn.Parameter(value.detach().clone().to(_float(value))))
    elif isinstance(value, Tensor):
        module.register_buffer(name, value)
    else:
        setattr(module, name, value)


def _float(value: Tensor) -> torch.dtype:
    return value.dtype if value.is_floating_point() else torch.get_default_dtype()


def _shown(value: float | Tensor) -> str:
    if isinstance(value, Tensor) and value.numel() > 1:
        return f"tensor of {tuple(value.shape)}"
    return f"{float(value):.4g}"
