"""dampen against its formula, written out element by element in Python."""

from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from labkit.kernels.dampen import dampen

BACKENDS = ("reference", "cpu", "gpu")


def problem(shape, dtype=torch.float32, seed=0):
    """Parameters, and importances that select about a third and hold zeros of each kind."""
    draw = torch.Generator().manual_seed(seed)
    importances = torch.promote_types(dtype, torch.float32)
    theta = torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)
    F = torch.rand(shape, generator=draw, dtype=torch.float64).square().to(importances)
    f = torch.rand(shape, generator=draw, dtype=torch.float64).to(importances)
    F[torch.rand(shape, generator=draw) < 0.1] = 0
    f[torch.rand(shape, generator=draw) < 0.1] = 0
    return theta, F, f


def by_hand(theta, F, f, alpha, lam):
    new, count = theta.flatten().tolist(), 0
    for i, (F_i, f_i) in enumerate(zip(F.flatten().tolist(), f.flatten().tolist(), strict=True)):
        if f_i > alpha * F_i:
            factor = min(lam * F_i / f_i, 1)
            new[i] *= factor
            count += factor < 1
    return torch.tensor(new, dtype=torch.float64).reshape(theta.shape), count


@pytest.fixture
def poisoned(poisoned, monkeypatch):
    # For this one file: Numba, which may meet NumPy here for the first time, knows its own `empty`.
    seen = SimpleNamespace(empty=lambda *a, **k: np.full(*a, 10**9, **k), int64=np.int64)
    monkeypatch.setattr(import_module("labkit.kernels.dampen.cpu"), "np", seen)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 1, 5), (1031,), (41, 57)])
@pytest.mark.parametrize(("alpha", "lam"), [(2.0, 1.0), (1.0, 0.1), (0.5, 2.0)])
def test_the_formula_holds(backend, dtype, shape, alpha, lam):
    theta, F, f = problem(shape, dtype)
    expected, expected_count = by_hand(theta, F, f, alpha, lam)
    count = dampen(theta, F, f, alpha, lam, backend=backend)
    assert count.shape == () and count.dtype == torch.int64
    assert int(count) == expected_count
    torch.testing.assert_close(
        theta, expected.to(dtype), rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_scalars_keep_their_precision_in_float64(backend):
    alpha, lam = 0.1, 0.3  # neither is a float32
    F = torch.ones(1, dtype=torch.float64)
    theta = torch.ones(3, dtype=torch.float64)
    f = torch.tensor([lam * (1 + 1e-12), lam * (1 - 1e-12), 3.0], dtype=torch.float64)
    assert int(dampen(theta, F.expand(3), f, alpha, lam, backend=backend)) == 2
    torch.testing.assert_close(theta[2].item(), 0.1, rtol=1e-15, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(backend, dtype):
    theta, F, f = problem((33, 5), dtype)
    expected, _ = by_hand(theta, F, f, 2.0, 1.0)
    dampen(theta, F, f, 2.0, 1.0, backend=backend)
    torch.testing.assert_close(theta.double(), expected.to(dtype).double(), rtol=1e-2, atol=1e-6)
    assert theta.dtype == dtype


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros(backend):
    theta = torch.tensor([1.0, 2.0, 3.0, -4.0])
    F = torch.tensor([0.0, 0.0, 1.0, 1.0])
    f = torch.tensor([0.0, 1.0, 0.0, 4.0])
    assert int(dampen(theta, F, f, 2.0, 1.0, backend=backend)) == 2
    assert theta.tolist() == [1.0, 0.0, 3.0, -1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_importances_and_nan_change_nothing(backend):
    theta, F, _ = problem((50,))
    before = theta.clone()
    assert int(dampen(theta, F, F, 1.0, 0.5, backend=backend)) == 0
    assert int(dampen(theta, F, torch.full_like(F, torch.nan), 1.0, 0.5, backend=backend)) == 0
    assert int(dampen(theta, torch.full_like(F, torch.nan), F, 1.0, 0.5, backend=backend)) == 0
    assert torch.equal(theta, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_parameter_grows(backend):
    theta, F, f = problem((300,))
    before = theta.clone()
    dampen(theta, F, f, 0.1, 5.0, backend=backend)  # lam F / f is above 1 for some
    assert (theta.abs() <= before.abs()).all() and not torch.equal(theta, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts(backend):
    theta, F, f = problem((6, 10))
    expected, count = by_hand(theta, F, f, 2.0, 1.0)
    wide = torch.full((6, 20), 7.0)
    wide[:, ::2] = theta
    assert int(dampen(wide[:, ::2], F, f.T.contiguous().T, 2.0, 1.0, backend=backend)) == count
    torch.testing.assert_close(wide[:, ::2], expected.float())
    assert (wide[:, 1::2] == 7).all()
    ones = torch.ones(6, 10)
    dampen(ones, torch.ones(1).expand(6, 10), torch.full((1, 1), 4.0).expand(6, 10), 2.0, 1.0)
    assert (ones == 0.25).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    count = dampen(torch.ones(0, 3), torch.ones(0, 3), torch.ones(0, 3), 1.0, 1.0, backend=backend)
    assert int(count) == 0 and count.dtype == torch.int64


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_parameter_changes_in_place_and_autograd_notices(backend):
    theta = torch.nn.Parameter(torch.ones(4))
    loss = theta.square().sum()
    dampen(theta, torch.ones(4), torch.full((4,), 2.0), 1.0, 1.0, backend=backend)
    assert (theta == 0.5).all() and theta.requires_grad and theta.grad is None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_threads_do_not_change_the_result():
    theta, F, f = problem((100_003,))
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            mine = theta.clone()
            results.append((mine, int(dampen(mine, F, f, 2.0, 1.0, backend="cpu"))))
    finally:
        torch.set_num_threads(threads)
    for mine, count in results[1:]:
        assert torch.equal(mine, results[0][0]) and count == results[0][1] > 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alpha": 0.0}, ValueError, "alpha must be positive and finite, not 0.0"),
        ({"alpha": float("nan")}, ValueError, "alpha"),
        ({"lam": -1.0}, ValueError, "lam must be positive and finite, not -1.0"),
        ({"lam": float("inf")}, ValueError, "lam"),
        ({"theta": torch.ones(3, dtype=torch.int64)}, TypeError, "theta.*int64"),
        ({"theta": [1.0]}, TypeError, "theta.*list"),
        ({"theta": torch.ones(3, dtype=torch.float64)}, TypeError, "importance_all.*float64"),
        ({"importance_forget": torch.ones(3).half()}, TypeError, "importance_forget.*float32"),
        ({"importance_all": torch.ones(4)}, ValueError, r"importance_all.*\(3,\).*\(4,\)"),
        ({"importance_forget": torch.ones(3, device="meta")}, ValueError, "forget.*meta"),
        ({"backend": "cuda"}, ValueError, "reference, cpu, gpu"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_changes_nothing(change, error, message):
    theta = torch.ones(3)
    good = {"importance_all": torch.ones(3), "importance_forget": torch.full((3,), 9.0)}
    with pytest.raises(error, match=message):
        dampen(**{"theta": theta, **good, "alpha": 2.0, "lam": 1.0} | change)
    assert (theta == 1).all()
