"""Spiking layers over the kernels: neurons, encoders, and `fuse` for networks of snnTorch."""

from labkit.spiking.encoders import delta, latency, rate
from labkit.spiking.fuse import fuse
from labkit.spiking.neurons import LIF, LeakyIntegrator

__all__ = ["LIF", "LeakyIntegrator", "delta", "fuse", "latency", "rate"]
