"""Spiking layers over the kernels: neurons, encoders, energy, and `fuse` for snnTorch."""

from labkit.spiking.encoders import delta, latency, rate
from labkit.spiking.energy import synaptic_operations
from labkit.spiking.fuse import fuse
from labkit.spiking.neurons import LIF, LeakyIntegrator

__all__ = ["LIF", "LeakyIntegrator", "delta", "fuse", "latency", "rate", "synaptic_operations"]
