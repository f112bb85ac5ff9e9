"""What every kernel shares: which back end computes, threads of the CPU."""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from labkit.checks import check_choice

BACKENDS = ("reference", "cpu", "gpu")
_told: set[tuple[str, str]] = set()


def choose(kernel: str, backend: str | None, x: Tensor) -> str:
    """The back end that computes: the one asked for, else the one of the device of x.

    Where it is missing, "reference" computes, and a warning says so once.

    Raises
    ------
    ValueError
        for an unknown back end, or "cpu" for a tensor that lies on another device.
    """
    check_choice("backend", backend, (*BACKENDS, None))
    if backend == "cpu" and x.device.type != "cpu":
        raise ValueError(f"backend 'cpu' computes tensors on the CPU; x lies on {x.device}")
    wanted = backend or {"cpu": "cpu", "cuda": "gpu"}.get(x.device.type, "reference")
    missing = _missing(wanted, x.device.type)
    if missing is None:
        return wanted
    if (kernel, wanted) not in _told:
        _told.add((kernel, wanted))
        warnings.warn(f"{kernel} computes with its reference, for {missing}", stacklevel=3)
    return "reference"


def _missing(backend: str, device: str) -> str | None:
    if backend == "cpu" and not _installed("numba"):
        return "numba is not installed: pip install numba"
    if backend == "gpu" and not _installed("triton"):
        return "triton is not installed: pip install triton (Linux)"
    if backend == "gpu" and device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"x lies on {device!r}, and the GPU kernel computes tensors on 'cuda'"
    return None


@cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


# ------------------------------------------------------------------ threads


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="labkit-kernel")


def split(function: Callable[..., None], count: int, *arguments: Any, least: int = 1) -> None:
    """Call ``function(first, last, *arguments)`` over parts of range(count), one a thread.

    As many threads as torch uses, and not more than `count / least`: a part is worth a thread only
    from some size on. The function must let go of the interpreter (numba: ``nogil=True``). Threads
    of Python, not of OpenMP: these survive a fork, and never spin while they wait.
    """
    threads = max(1, min(torch.get_num_threads(), count // least))
    bounds = [count * i // threads for i in range(threads + 1)]
    if threads == 1:
        function(0, count, *arguments)
        return
    pool = _pool(os.getpid(), threads)
    parts = [pool.submit(function, bounds[i], bounds[i + 1], *arguments) for i in range(1, threads)]
    try:
        function(bounds[0], bounds[1], *arguments)
    finally:
        wait(parts)  # they write into memory that the caller may free
    for part in parts:
        part.result()
