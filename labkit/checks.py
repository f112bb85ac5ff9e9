"""Checks of arguments that more than one room needs: which value, why, what is accepted."""

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral

import torch
from torch import Tensor


def check_count(least: int = 1, **counts: int) -> None:
    """Raise ValueError unless each is a whole number of at least `least`."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_positive(**values: float) -> None:
    """Raise ValueError unless each is positive and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, not {value}")


def check_ranges(values: Mapping[str, float], **ranges: tuple[float, float]) -> None:
    """Raise ValueError unless each of these values lies from the low to the high end of its range.

    In a notebook ``check_ranges(globals(), steps=(20, 5000))`` checks the parameter ``steps``.
    """
    for name, (low, high) in ranges.items():
        if not low <= values[name] <= high:
            raise ValueError(f"{name} must lie from {low} to {high}, not {values[name]}")


def check_choice(name: str, value: object, known: Iterable[str | None]) -> None:
    """Raise ValueError unless value is one of the known, and name the one that is nearest."""
    known = tuple(known)
    if value not in known:
        names = [str(each) for each in known]
        near = get_close_matches(str(value), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(names)}, not {value!r}{hint}")


def check_floating(name: str, value: object, *, among: tuple[torch.dtype, ...] = ()) -> None:
    """Raise unless value is a tensor of floating point numbers, of these types if any are given."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}")
    if among and value.dtype not in among:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in among)
        raise TypeError(f"{name} must be one of {names}, not {_dtype(value)}")
    if not value.is_floating_point() and not among:
        raise TypeError(f"{name} must hold floating point numbers, not {_dtype(value)}")


def check_samples(name: str, value: Tensor, *, axes: int = 1) -> None:
    """Raise unless value is a finite floating point tensor (N, ...), N >= 1, of `axes` or more."""
    check_floating(name, value)
    if value.ndim < axes or value.numel() == 0:
        raise ValueError(f"{name} must be (N, ...) with N >= 1 samples, not {tuple(value.shape)}")
    check_finite(name, value)


def check_like(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless two tensors share dtype and device."""
    if value.dtype != other.dtype:
        raise TypeError(f"{name} must be {_dtype(other)} as {other_name} is, not {_dtype(value)}")
    check_device(name, value, other_name, other)


def check_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless two tensors lie on one device."""
    if value.device != other.device:
        raise ValueError(
            f"{name} must lie on {other.device} as {other_name} does, not on {value.device}"
        )


def check_broadcasts(name: str, value: Tensor, other_name: str, shape: Sequence[int]) -> None:
    """Raise ValueError unless a tensor broadcasts to this shape, which is that of another one."""
    try:
        fits = torch.broadcast_shapes(value.shape, shape) == tuple(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} must broadcast to {other_name} {tuple(shape)}, not {tuple(value.shape)}"
        )


def check_finite(name: str, value: Tensor) -> None:
    """Raise if a tensor holds NaN or infinity."""
    bad = ~torch.isfinite(value)
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{name} must be finite; {int(bad.sum())} of {value.numel()} values are not, the first "
            f"at {where}: {value[where].item()}"
        )


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
