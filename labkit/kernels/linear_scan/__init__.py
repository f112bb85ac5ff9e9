"""First-order linear recurrence over time, real or complex."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from labkit.checks import check_broadcasts, check_device, check_finite, check_floating
from labkit.kernels.dispatch import choose
from labkit.kernels.linear_scan import reference

DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
)


def linear_scan(
    a: Tensor | complex,
    b: Tensor,
    h0: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """States of h_t = a_t h_{t-1} + b_t over the first axis, differentiable in a, b and h0.

    The gradient and the sources are in `reference.py`. A gate that is constant over time is read
    once a step and never copied T times; its gradient is summed over time as it is computed.

    Parameters
    ----------
    a : gates, which broadcast to b by the rules of PyTorch: (T, ...) as b, or constant over time as
        (1, ...), fewer dimensions such as (N,) for b (T, B, N), or a number. A gate (T,) that all
        lanes share is (T, 1, ...) here. Any values; |a| <= 1 keeps h bounded
    b : (T, ...) inputs; float16, bfloat16, float32, float64, complex64 or complex128
    h0 : state before the first step, which broadcasts to (...) = b[0]; zeros if None
    backend : "reference", "cpu" or "gpu"; that of the device of b if None

    Returns
    -------
    (T, ...) states h_1 ... h_T on the device of b, complex as soon as one argument is. Half
    precision is computed in float32. Second derivatives need backend="reference".

    Raises
    ------
    TypeError
        if a tensor holds other numbers, or the precisions differ: float32 goes with complex64,
        float64 with complex128.
    ValueError
        for shapes that do not broadcast to b, mixed devices, an unknown back end, NaN or infinity
        in an argument (found on a CPU only: elsewhere looking would wait for the device).
    """
    check_floating("b", b, among=DTYPES)
    if b.ndim == 0:
        raise ValueError("b must be (T, ...), time first; it has no dimension")
    if not isinstance(a, Tensor):
        a = _number(a, b)
    if h0 is None:
        h0 = b.new_zeros(b.shape[1:])
    _check("a", a, b)
    check_broadcasts("a", a, "b", b.shape)
    _check("h0", h0, b)
    check_broadcasts("h0", h0, "b[0]", b.shape[1:])
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), h0.dtype)
    if a.ndim == b.ndim and a.shape[0] > 1 and a.stride(0) == 0:
        a = a[:1]  # expanded over time, and constant all the same
    steps = a.shape[0] if a.ndim == b.ndim else 1
    inputs = (
        a.to(dtype).expand(steps, *b.shape[1:]),
        b.to(dtype),
        h0.to(dtype).expand(b.shape[1:]),
    )
    h = _compute(choose("linear_scan", backend, b), *inputs)
    if h.numel() and h.device.type == "cpu" and not torch.isfinite(h[-1].detach()).all():
        for name, value in (("a", a), ("b", b), ("h0", h0)):  # what is not finite lasts to the end
            check_finite(name, value)
    return h


def _compute(backend: str, a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    if b.numel() == 0:
        return a * h0 + b  # the shape and the gradients of nothing
    if backend == "reference":
        return reference.linear_scan(a, b, h0)
    if backend == "cpu" and b.dtype in (torch.float16, torch.bfloat16):
        return _Scan.apply(a.float(), b.float(), h0.float(), backend).to(b.dtype)
    return _Scan.apply(a, b, h0, backend)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h0: Tensor, backend: str) -> Tensor:
        h = _kernels(backend).forward(a, b, h0)
        ctx.save_for_backward(a, h0, h if ctx.needs_input_grad[0] else None)
        ctx.backend = backend
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, h0, h = ctx.saved_tensors
        return *_kernels(ctx.backend).backward(grad, a, h0, h), None


def _kernels(backend: str) -> Any:
    if backend == "cpu":
        from labkit.kernels.linear_scan import cpu

        return cpu
    from labkit.kernels.linear_scan import gpu

    return gpu


def _number(value: object, b: Tensor) -> Tensor:
    """A Python number as a tensor of b's precision; filled on the device, which need not wait."""
    if isinstance(value, bool) or not isinstance(value, int | float | complex):
        raise TypeError(f"a must be a torch.Tensor or a number, not {type(value).__name__}")
    dtype = b.dtype.to_complex() if isinstance(value, complex) and not b.is_complex() else b.dtype
    return torch.full((), value, dtype=dtype, device=b.device)


def _check(name: str, value: Tensor, b: Tensor) -> None:
    check_floating(name, value, among=DTYPES)
    if _precision(value) != _precision(b):
        raise TypeError(
            f"{name} must be of the precision of b, {b.dtype}, real or complex, not {value.dtype}"
        )
    check_device(name, value, "b", b)


def _precision(value: Tensor) -> torch.dtype:
    return value.dtype.to_real() if value.is_complex() else value.dtype
