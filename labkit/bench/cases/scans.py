"""The linear scan and the Walsh-Hadamard transform against SciPy and plain PyTorch."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import hadamard
from scipy.signal import lfilter
from torch import Tensor

from labkit.bench.measure import Case, Trial, agree, generator, moved
from labkit.kernels import hadamard_transform, linear_scan

BOTH = ("cpu", "cuda")


def _gated(T: int, N: int) -> Callable[[str], Trial]:
    def build(device: str) -> Trial:
        draw = generator(device)
        a = torch.rand(T, N, generator=draw, device=device)
        b = torch.randn(T, N, generator=draw, device=device)

        def eager() -> Tensor:
            return linear_scan(a, b, backend="reference")

        def ours() -> Tensor:
            return linear_scan(a, b)

        check = lambda: agree("its reference", ours(), eager(), 1e-5)  # noqa: E731
        return Trial(ours, check, moved(12 * a.numel(), device), {"PyTorch, eager": eager})

    return build


def _leaky(T: int, N: int) -> Callable[[str], Trial]:
    """A constant gate: an exponential filter, for which SciPy has compiled code."""

    def build(device: str) -> Trial:
        b = torch.randn(T, N, generator=generator(device), device=device)
        decay = np.float32(0.9)
        signal = b.numpy()

        def scipy() -> np.ndarray:
            return lfilter(np.ones(1, np.float32), np.array([1, -decay]), signal, axis=0)

        def ours() -> Tensor:
            return linear_scan(float(decay), b)

        def check() -> None:
            agree("SciPy", ours(), torch.from_numpy(scipy()).to(b), 1e-5)

        return Trial(ours, check, moved(8 * b.numel(), device), {"SciPy lfilter": scipy})

    return build


def _hadamard(rows: int, n: int) -> Callable[[str], Trial]:
    def build(device: str) -> Trial:
        x = torch.randn(rows, n, generator=generator(device), device=device)

        def eager() -> Tensor:
            return hadamard_transform(x, backend="reference")

        def ours() -> Tensor:
            return hadamard_transform(x)

        peers = {"PyTorch, eager": eager}
        if n <= 1024:
            H = torch.from_numpy(hadamard(n) / n**0.5).to(x)
            peers["dense product"] = lambda: x @ H
        check = lambda: agree("its reference", ours(), eager(), 1e-5)  # noqa: E731
        return Trial(ours, check, moved(8 * x.numel(), device), peers)

    return build


CASES = [
    Case("linear_scan", "T 1000, 4096 lanes", "12 bytes a step", _gated(1000, 4096), BOTH),
    Case("linear_scan", "T 65536, 8 lanes", "12 bytes a step", _gated(65536, 8), BOTH),
    Case("linear_scan", "constant gate, T 1000, 4096 lanes", "8 bytes a step", _leaky(1000, 4096)),
    *(
        Case(
            "hadamard_transform",
            f"{2**22 // n} rows of {n}",
            "8 bytes an element",
            _hadamard(2**22 // n, n),
            BOTH,
        )
        for n in (64, 1024, 32768)
    ),
]
