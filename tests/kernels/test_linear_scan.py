"""linear_scan against its definition, a filter of SciPy, and finite differences."""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from labkit.kernels.linear_scan import linear_scan

REAL = (torch.float32, torch.float64)
DTYPES = (*REAL, torch.complex64, torch.complex128)
SHAPES = [(1,), (6,), (1, 1), (5, 2), (4, 1, 3), (3, 2, 2)]


def problem(shape, dtype=torch.float64, gate="varying", seed=0):
    """Gates, inputs and first state that require gradients."""
    draw = torch.Generator().manual_seed(seed)
    gates = {"varying": shape, "constant": shape[1:], "kept": (1, *shape[1:]), "number": ()}[gate]
    tensors = [torch.randn(s, generator=draw, dtype=dtype) for s in (gates, shape, shape[1:])]
    return [tensor.requires_grad_() for tensor in tensors]


def weigh(h):
    """A real number that depends on every state in another way."""
    weights = torch.linspace(-1, 2, h.numel(), dtype=torch.float64).reshape(h.shape)
    h = h * weights.to(h.dtype) * (1 + 0.3j if h.is_complex() else 1)
    return (h.real + 0.5 * h.imag).sum() if h.is_complex() else h.sum()


@pytest.fixture
def chunked(monkeypatch):
    """Tiles and chunks so small that the GPU kernel cuts lanes and time of a tiny problem."""
    from labkit.kernels.linear_scan import gpu

    monkeypatch.setattr(gpu, "BLOCK_N", 2)
    monkeypatch.setattr(gpu, "TILE", 4)
    monkeypatch.setattr(gpu, "LEAST_CHUNK", 2)


def agree_with_the_reference(inputs, backend, **tolerance):
    h, expected = (linear_scan(*inputs, backend=name) for name in (backend, "reference"))
    assert h.dtype == expected.dtype
    torch.testing.assert_close(h, expected, **tolerance)
    mine, theirs = (torch.autograd.grad(weigh(x), inputs) for x in (h, expected))
    for name, got, want in zip(("a", "b", "h0"), mine, theirs, strict=True):
        torch.testing.assert_close(got, want, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("gate", ["varying", "constant", "kept", "number"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_cpu_is_the_reference(shape, dtype, gate, poisoned):
    agree_with_the_reference(problem(shape, dtype, gate), "cpu")


@pytest.mark.parametrize("gate", ["varying", "constant"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2), (5,), (2, 1, 3)])
def test_gpu_is_the_reference(shape, dtype, gate, poisoned):
    agree_with_the_reference(problem(shape, dtype, gate), "gpu")


@pytest.mark.parametrize("gate", ["varying", "constant"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(7, 3)])
def test_gpu_in_chunks_is_the_reference(shape, dtype, gate, chunked, poisoned):
    agree_with_the_reference(problem(shape, dtype, gate), "gpu")


@pytest.mark.parametrize("gate", ["varying", "constant"])
def test_cpu_over_many_tiles_is_the_reference(gate, monkeypatch, poisoned):
    from labkit.kernels.linear_scan import cpu

    monkeypatch.setattr(cpu, "WORTH", 1)
    agree_with_the_reference(problem((3, 4096 + 200), gate=gate), "cpu")


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype, backend, chunked, poisoned):
    for gate in ("varying", "constant"):
        inputs = problem((7, 3), dtype, gate)
        agree_with_the_reference(inputs, backend, atol=0.05, rtol=0.02)
        wide = linear_scan(*(x.float() for x in inputs), backend="reference").to(dtype)
        assert torch.equal(linear_scan(*inputs, backend="cpu"), wide)


@pytest.mark.parametrize("gate", ["varying", "constant"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(4,), (5, 3)])
def test_cpu_gradients_by_finite_differences(shape, dtype, gate):
    assert torch.autograd.gradcheck(
        lambda *x: linear_scan(*x, backend="cpu"), problem(shape, dtype, gate)
    )


def test_gpu_gradients_by_finite_differences(chunked):
    inputs = problem((3, 1), torch.complex128)
    assert torch.autograd.gradcheck(
        lambda *x: linear_scan(*x, backend="gpu"), inputs, fast_mode=True
    )


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_constant_gate_is_a_filter_of_scipy(backend):
    b = torch.randn(200, 5, dtype=torch.float64)
    expected = lfilter([1], [1, -0.9], b.numpy(), axis=0)
    np.testing.assert_allclose(linear_scan(0.9, b, backend=backend), expected, rtol=1e-12)
    phase = np.exp(0.3j)
    np.testing.assert_allclose(
        linear_scan(complex(phase), b, backend=backend),
        lfilter([1], [1, -phase], b.numpy(), axis=0),
        rtol=1e-10,
    )


def test_a_gate_of_one_sums_and_a_gate_of_zero_forgets():
    b = torch.randn(50, 7, dtype=torch.float64)
    torch.testing.assert_close(linear_scan(1, b), b.cumsum(0))
    assert torch.equal(linear_scan(0.0, b), b)
    a = torch.ones(50, 1, dtype=torch.float64)
    a[20] = 0
    torch.testing.assert_close(linear_scan(a, b)[20:], b[20:].cumsum(0))


def test_the_gates_are_applied_before_the_input():
    a, b = torch.tensor([2.0, 3.0, 5.0]), torch.tensor([1.0, 10.0, 100.0])
    h = linear_scan(a, b, torch.tensor(7.0))
    assert h.tolist() == [15.0, 55.0, 375.0]


def test_long_time_with_strong_leak():
    b = torch.randn(100_000, 1)
    h = linear_scan(0.5, b)  # products of gates underflow after 150 steps
    expected = lfilter([1], [1, -0.5], b.double().numpy(), axis=0)
    np.testing.assert_allclose(h, expected, atol=1e-6)


@pytest.mark.parametrize("backend", ["reference", "cpu", "gpu"])
def test_real_and_complex_go_together(backend):
    a, b, h0 = problem((4, 2))
    z = torch.polar(torch.full((2,), 0.9, dtype=torch.float64), torch.arange(2.0).double())
    z.requires_grad_()
    for inputs in ((z, b, h0), (a, b.to(torch.complex128), h0), (a, b, z)):
        h = linear_scan(*inputs, backend=backend)
        assert h.dtype == torch.complex128
        promoted = [x.to(torch.complex128) for x in inputs]
        torch.testing.assert_close(h, linear_scan(*promoted, backend="reference"))
        for x, grad in zip(inputs, torch.autograd.grad(weigh(h), inputs), strict=True):
            assert grad.dtype == x.dtype


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_layouts(backend, dtype):
    a, b, h0 = problem((3, 5), dtype)
    across = [x.detach().T.contiguous().T.requires_grad_() for x in (a, b)]
    agree_with_the_reference([*across, h0], backend)
    lazy = [x.detach().conj() for x in (a, b, h0)]
    torch.testing.assert_close(
        linear_scan(*lazy, backend=backend), linear_scan(*lazy, backend="reference")
    )
    negated = torch.randn(3, 5, dtype=torch.complex128).conj().imag  # a minus that is still due
    torch.testing.assert_close(
        linear_scan(negated, negated, backend=backend),
        linear_scan(negated, negated, backend="reference"),
    )
    row = b[:1].detach().requires_grad_()
    for gate in (a, a[:1].detach().requires_grad_()):  # constant drive, and expanded gate
        h, expected = (
            linear_scan(gate.expand(3, 5), row.expand(3, 5), h0, backend=name)
            for name in (backend, "reference")
        )
        torch.testing.assert_close(h, expected)
        grads = [torch.autograd.grad(weigh(x), (gate, row, h0)) for x in (h, expected)]
        torch.testing.assert_close(*grads)
    spread = [
        torch.autograd.grad(linear_scan(a, b, h0, backend=name), (a, b, h0), b[0].expand(3, 5))
        for name in (backend, "reference")
    ]
    torch.testing.assert_close(*spread)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_only_the_gradients_that_are_asked_for(wanted, backend):
    for gate in ("varying", "constant"):
        inputs = [x.requires_grad_(i in wanted) for i, x in enumerate(problem((4, 3), gate=gate))]
        asked = [inputs[i] for i in wanted]
        mine, theirs = (
            torch.autograd.grad(weigh(linear_scan(*inputs, backend=name)), asked)
            for name in (backend, "reference")
        )
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("backend", ["reference", "cpu", "gpu"])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0), (4, 2, 0)])
def test_nothing(shape, backend):
    inputs = problem(shape)
    h = linear_scan(*inputs, backend=backend)
    assert h.shape == shape
    grads = torch.autograd.grad(h.sum(), inputs)
    assert [g.shape for g in grads] == [x.shape for x in inputs]
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_threads_do_not_change_a_bit(dtype, monkeypatch):
    from labkit.kernels.linear_scan import cpu

    monkeypatch.setattr(cpu, "WORTH", 1)
    inputs = problem((20, 333), dtype)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            h = linear_scan(*inputs)
            results.append((h, *torch.autograd.grad(weigh(h), inputs)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_inputs_are_not_changed():
    inputs = problem((6, 3))
    copies = [x.detach().clone() for x in inputs]
    weigh(linear_scan(*inputs)).backward()
    assert all(torch.equal(x, y) for x, y in zip(inputs, copies, strict=True))


def test_overflow_is_no_error():
    assert linear_scan(1e30, torch.ones(3, 1))[-1].isinf().all()


@pytest.mark.parametrize(
    ("error", "change", "message"),
    [
        (TypeError, {"b": [1.0]}, "b must be a torch.Tensor, not list"),
        (TypeError, {"b": torch.ones(4, 3, dtype=torch.int64)}, "b must be one of .* not int64"),
        (ValueError, {"b": torch.tensor(1.0)}, "time first"),
        (TypeError, {"a": torch.ones(4, 3, dtype=torch.int64)}, "a must be one of .* not int64"),
        (TypeError, {"a": "0.9"}, "a must be a torch.Tensor or a number, not str"),
        (TypeError, {"a": torch.ones(4, 3).double()}, "a must be of the precision of b"),
        (TypeError, {"h0": torch.ones(3).half()}, "h0 must be of the precision of b"),
        (ValueError, {"a": torch.ones(5, 3)}, r"a must broadcast to b \(4, 3\), not \(5, 3\)"),
        (ValueError, {"a": torch.ones(4)}, r"a must broadcast to b \(4, 3\), not \(4,\)"),
        (ValueError, {"a": torch.ones(1, 4, 3)}, r"a must broadcast"),
        (ValueError, {"h0": torch.ones(4, 3)}, r"h0 must broadcast to b\[0\] \(3,\), not \(4, 3\)"),
        (ValueError, {"a": torch.ones(4, 3, device="meta")}, "a must lie on cpu"),
        (ValueError, {"a": torch.full((4, 3), torch.nan)}, "a must be finite; 12 of 12"),
        (ValueError, {"a": torch.nan}, "a must be finite"),
        (ValueError, {"h0": torch.full((3,), torch.inf)}, "h0 must be finite"),
        (ValueError, {"b": torch.full((4, 3), torch.nan)}, "b must be finite"),
        (ValueError, {"backend": "cuda"}, "backend must be one of reference, cpu, gpu"),
    ],
)
def test_bad_input_is_named(error, change, message):
    with pytest.raises(error, match=message):
        linear_scan(**{"a": torch.ones(4, 3) / 2, "b": torch.ones(4, 3)} | change)
