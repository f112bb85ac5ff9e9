"""hadamard_transform against its definition, SciPy's matrix, and the properties it must have."""

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from labkit.kernels.hadamard_transform import hadamard_transform

BACKENDS = ("reference", "cpu", "gpu")


def signals(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def pieces(monkeypatch):
    """Programs so small that the GPU kernel takes rows in pieces, and more than one to a tile."""
    from labkit.kernels.hadamard_transform import gpu

    monkeypatch.setattr(gpu, "LONGEST", 8)
    monkeypatch.setattr(gpu, "TILE", 16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
def test_it_is_the_product_with_the_matrix_of_scipy(n, backend, poisoned):
    x = signals(3, n)
    expected = x.numpy() @ hadamard(n) / np.sqrt(n)
    np.testing.assert_allclose(hadamard_transform(x, backend=backend), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 2, 37])
@pytest.mark.parametrize("n", [128, 512, 1024, 2048, 4096, 8192, 32768])
def test_cpu_is_the_reference(n, rows, dtype, poisoned):
    x = signals(rows, n, dtype=dtype)
    torch.testing.assert_close(
        hadamard_transform(x, backend="cpu"), hadamard_transform(x, backend="reference")
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 8), (5, 8), (2, 3, 16), (3, 64), (1, 128)])
def test_gpu_in_pieces_is_the_reference(shape, dtype, pieces, poisoned):
    x = signals(*shape, dtype=dtype)
    torch.testing.assert_close(
        hadamard_transform(x, backend="gpu"), hadamard_transform(x, backend="reference")
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n", [4, 128])
def test_half_precision_is_computed_in_single(n, dtype, backend, pieces):
    x = signals(3, n, dtype=dtype)
    expected = hadamard_transform(x.float(), backend="reference")
    mine = hadamard_transform(x, backend=backend)
    assert mine.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(mine.float(), expected, atol=eps / 8, rtol=eps)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_its_own_inverse_and_keeps_lengths(backend):
    x = signals(4, 128)
    y = hadamard_transform(x, backend=backend)
    torch.testing.assert_close(hadamard_transform(y, backend=backend), x)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1))
    assert (y - x).abs().max() > 0.1


@pytest.mark.parametrize(
    ("backend", "n"),
    [("reference", 8), ("cpu", 1), ("cpu", 4), ("cpu", 128), ("gpu", 1), ("gpu", 16)],
)
def test_gradients_by_finite_differences(n, backend, pieces):
    x = signals(2, n).requires_grad_()
    fast = {"fast_mode": backend == "gpu"}
    assert torch.autograd.gradcheck(lambda x: hadamard_transform(x, backend=backend), x, **fast)
    y = hadamard_transform(x, backend=backend)
    (spread,) = torch.autograd.grad(y.sum(), x)  # an expanded gradient
    expected = hadamard_transform(torch.ones_like(x), backend="reference")
    torch.testing.assert_close(spread, expected.detach())


def test_second_derivatives():
    x = signals(1, 128).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: hadamard_transform(x, backend="cpu") ** 2, x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts_and_edges(backend):
    x = signals(128, 6)
    expected = x.T.numpy() @ hadamard(128) / np.sqrt(128)
    np.testing.assert_allclose(hadamard_transform(x.T, backend=backend), expected, atol=1e-12)
    negated = torch.complex(x, -x.T.contiguous().T).conj().imag  # x, with a minus still due
    np.testing.assert_allclose(hadamard_transform(negated.T, backend=backend), expected, atol=1e-12)
    row = x[:, 0]
    np.testing.assert_allclose(hadamard_transform(row, backend=backend), expected[0], atol=1e-12)
    spread = row.expand(2, 3, 128)
    assert hadamard_transform(spread, backend=backend).shape == (2, 3, 128)
    assert hadamard_transform(x.T[:0], backend=backend).shape == (0, 128)
    assert torch.equal(hadamard_transform(x[:, :1], backend=backend), x[:, :1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_input_is_not_changed(backend):
    x = signals(3, 128)
    copy = x.clone()
    y = hadamard_transform(x, backend=backend)
    assert torch.equal(x, copy)
    one = hadamard_transform(x[:, :1], backend=backend)
    assert one.data_ptr() != x.data_ptr() and y.data_ptr() != x.data_ptr()


def test_integers_in_a_row_of_a_power_of_four_are_exact():
    x = torch.randint(-100, 100, (9, 1024)).float()
    assert torch.equal(
        hadamard_transform(x) * 32, x @ torch.tensor(hadamard(1024), dtype=torch.float32)
    )


@pytest.mark.parametrize("shape", [(200, 256), (3, 16384), (1, 32768)])
def test_threads_do_not_change_a_bit(shape, monkeypatch):
    from labkit.kernels.hadamard_transform import cpu

    monkeypatch.setattr(cpu, "WORTH", 1)
    x = signals(*shape, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(hadamard_transform(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("error", "x", "message"),
    [
        (ValueError, torch.ones(2, 3), r"power of two; x is \(2, 3\)"),
        (ValueError, torch.ones(4, 0), r"power of two; x is \(4, 0\)"),
        (ValueError, torch.tensor(1.0), r"power of two; x is \(\)"),
        (TypeError, torch.ones(4, dtype=torch.int64), "floating point numbers, not int64"),
        (TypeError, torch.ones(4, dtype=torch.complex64), "floating point numbers, not complex64"),
        (TypeError, [1.0, 2.0], "x must be a torch.Tensor, not list"),
    ],
)
def test_bad_input_is_named(error, x, message):
    with pytest.raises(error, match=message):
        hadamard_transform(x)


def test_an_unknown_back_end_is_named():
    with pytest.raises(ValueError, match="backend must be one of reference, cpu, gpu"):
        hadamard_transform(torch.ones(4), backend="cuda")
