"""Unlearning: how much each parameter matters to some data, and dampening by that."""

from labkit.unlearning.dampening import selective_synaptic_dampening
from labkit.unlearning.fisher import fisher_diagonal

__all__ = ["fisher_diagonal", "selective_synaptic_dampening"]
