"""Networks that learn when spikes arrive, over `labkit.kernels.delayed_linear`."""

from labkit.delays.layers import (
    DelayedLinear,
    DelayNetwork,
    annealed_width,
    clamp_delays,
    delayed_layers,
    parameter_groups,
    round_delays,
    rounded,
    set_width,
)

__all__ = [
    "DelayNetwork",
    "DelayedLinear",
    "annealed_width",
    "clamp_delays",
    "delayed_layers",
    "parameter_groups",
    "round_delays",
    "rounded",
    "set_width",
]
