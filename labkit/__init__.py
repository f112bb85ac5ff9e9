"""Labkit: the small package that the notebooks share.

Importing it is cheap: torch, matplotlib and Jupyter are loaded by the modules that need them.
"""

from importlib import import_module
from types import ModuleType

from labkit.claims import claim, metric

__version__ = "0.1.0"
__all__ = ["__version__", "claim", "metric"]

_ROOMS = (
    *("atlas", "bench", "checks", "claims", "data", "delays", "diffusion", "exercises"),
    *("headless", "kernels", "plots", "seeding", "sparse_coding", "spiking"),
    *("training", "unlearning"),
)


def __getattr__(name: str) -> ModuleType:
    """Load a sub-package on first use, so that ``labkit.data.digits()`` works after one import."""
    if name in _ROOMS:
        return import_module(f"labkit.{name}")
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")
