"""sparse_code against definitions: proximal maps by brute force, optimality at its result."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from labkit.kernels import sparse_code
from labkit.kernels.sparse_code import reference

PENALTIES, METHODS = reference.PENALTIES, reference.METHODS


def problem(seed=0, B=20, n=24, K=60, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    D = torch.randn(n, K, generator=draw, dtype=dtype)
    return torch.randn(B, n, generator=draw, dtype=dtype), D / D.norm(dim=0)


def objective(x, D, a, lam, penalty):
    fit = 0.5 * (x - a @ D.T).square().sum(dim=1)
    return fit + reference.penalty_value(a, lam, penalty).sum(dim=1)


@pytest.mark.parametrize("eta", [0.05, 0.4, 0.95, 1.5])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_threshold_is_the_proximal_map(penalty, eta):
    lam = 0.7
    u = torch.linspace(-4, 4, 57, dtype=torch.float64)
    grid = torch.linspace(-5, 5, 40_001, dtype=torch.float64)  # holds 0 exactly
    found = reference.threshold(u, lam, eta, penalty)

    def cost(a):
        price = reference.penalty_value(a, lam, penalty)
        return 0.5 * (a - u[:, None]) ** 2 + eta * price

    best = cost(grid[None, :]).min(dim=1).values
    mine = cost(found[:, None])[:, 0]
    assert (mine - best).max() < 1e-12  # a grid can only be worse
    assert torch.equal(found, -reference.threshold(-u, lam, eta, penalty))


def test_l1_meets_the_kkt_conditions():
    x, D = problem()
    lam = 0.3
    a = sparse_code(x, D, lam, tol=1e-12, max_iter=20_000)
    correlation = (x - a @ D.T) @ D
    active = a != 0
    assert active.any() and (~active).any()
    assert (correlation[active] - lam * a[active].sign()).abs().max() < 1e-5
    assert correlation[~active].abs().max() <= lam + 1e-5


@pytest.mark.parametrize("penalty", ["hard", "half", "cel0"])
def test_other_penalties_rest_at_a_fixed_point(penalty):
    x, D = problem()
    a = sparse_code(x, D, 0.1, penalty=penalty, tol=1e-10, max_iter=20_000)
    eta = reference.step_size(D)
    step = reference.threshold(a + eta * (x - a @ D.T) @ D, 0.1, eta, penalty) - a
    assert (a != 0).any()
    assert step.abs().max() / eta < 1e-8


def test_default_tolerance_bounds_the_duality_gap():
    x, D = problem(B=50)
    for lam in (0.02, 0.2, 1.0):
        a = sparse_code(x, D, lam)
        gap = reference.duality_gap(x, D, a, lam)
        assert gap.max() <= 1e-4 and gap.min() > -1e-9


def test_duality_gap_bounds_the_distance_to_the_minimum():
    x, D = problem()
    best = objective(x, D, sparse_code(x, D, 0.2, tol=1e-13, max_iter=50_000), 0.2, "soft")
    for steps in (1, 5, 30):
        a = sparse_code(x, D, 0.2, tol=0, max_iter=steps)
        excess = (objective(x, D, a, 0.2, "soft") - best) / (0.5 * x.square().sum(dim=1))
        assert (reference.duality_gap(x, D, a, 0.2) >= excess - 1e-10).all()
        assert excess.max() > 0


def test_l1_agrees_with_scikit_learn():
    x, D = problem(B=3)
    lam = 0.25
    # Lasso divides the squared error by 2 n, so its alpha is lam / n.
    lasso = Lasso(alpha=lam / x.shape[1], fit_intercept=False, tol=1e-12, max_iter=100_000)
    theirs = np.stack([lasso.fit(D.numpy(), row.numpy()).coef_ for row in x])
    mine = sparse_code(x, D, lam, tol=1e-13, max_iter=50_000)
    np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_proximal_gradient_descends(penalty):
    x, D = problem()
    costs = [
        objective(
            x, D, sparse_code(x, D, 0.2, penalty=penalty, tol=0, max_iter=k, method="ista"),
            0.2, penalty,
        )
        for k in range(0, 60, 5)
    ]  # fmt: skip
    for before, after in pairwise(costs):
        assert (after <= before + 1e-12).all()
    assert (costs[-1] < costs[0]).all()


def test_orthonormal_dictionary_is_solved_by_one_threshold():
    x, _ = problem(n=24)
    Q = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64, generator=torch.manual_seed(1)))[0]
    expected = torch.sign(x @ Q) * ((x @ Q).abs() - 0.3).clamp(min=0)
    torch.testing.assert_close(sparse_code(x, Q, 0.3, tol=1e-14), expected)
    hard = (x @ Q) * ((x @ Q).abs() > 0.6**0.5)
    torch.testing.assert_close(sparse_code(x, Q, 0.3, penalty="hard"), hard)


def test_lambda_above_its_maximum_gives_zero_codes():
    x, D = problem()
    assert not sparse_code(x, D, float((x @ D).abs().max()) * 1.001).any()


def test_warm_start_is_kept_and_not_changed():
    x, D = problem()
    a = sparse_code(x, D, 0.2, tol=1e-12, max_iter=20_000)
    start = a.clone()
    again = sparse_code(x, D, 0.2, init=start, max_iter=10, tol=0)
    assert torch.equal(start, a)
    torch.testing.assert_close(again, a, atol=1e-6, rtol=0)


def test_edge_shapes_and_layouts():
    x, D = problem(dtype=torch.float32)
    assert sparse_code(x[:0], D, 0.1).shape == (0, 60)
    assert sparse_code(x[:1], D[:, :1] / D[:, :1].norm(), 0.1).shape == (1, 1)
    assert not sparse_code(torch.zeros_like(x), D, 0.1).any()
    strided = torch.stack([x, x], dim=2)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(sparse_code(strided, D, 0.1), sparse_code(x, D, 0.1))
    with_zero_atom = torch.cat([D, torch.zeros_like(D[:, :1])], dim=1)
    assert not sparse_code(x, with_zero_atom, 0.1)[:, -1].any()


# ------------------------------------------------------------------ back ends and methods


@pytest.mark.parametrize("method", ["ista", "fista", "lca"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_every_back_end_takes_the_steps_of_the_reference(backend, penalty, method):
    x, D = problem(B=5, n=12, K=20)
    arguments = {"penalty": penalty, "method": method, "max_iter": 25, "tol": 0}
    expected = sparse_code(x, D, 0.15, backend="reference", **arguments)
    found = sparse_code(x, D, 0.15, backend=backend, **arguments)
    assert expected.any()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (3, 33, 17), (40, 16, 130)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_working_set_reaches_the_gap_that_was_asked_for(shape, dtype):
    B, n, K = shape
    x, D = problem(seed=sum(shape), B=B, n=n, K=K, dtype=dtype)
    for lam, tol in ((0.05, 1e-3), (0.3, 1e-5)):
        found = sparse_code(x, D, lam, tol=tol, backend="cpu").double()
        rounding = 5e-6 if dtype == torch.float32 else 1e-12
        assert reference.duality_gap(x.double(), D.double(), found, lam).max() <= tol + rounding


@pytest.mark.parametrize("init", [None, 0.5])
def test_the_working_set_finds_the_minimum_of_the_reference(init):
    x, D = problem()
    start = None if init is None else torch.full((20, 60), init, dtype=torch.float64)
    found = sparse_code(x, D, 0.2, init=start, tol=1e-12, backend="cpu")
    expected = sparse_code(x, D, 0.2, tol=1e-13, max_iter=50_000, backend="reference")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_atoms_that_repeat_do_not_trouble_the_working_set():
    x, D = problem(B=4, n=10, K=8)
    twice = torch.cat([D, D, -D], dim=1)
    found = sparse_code(x, twice, 0.1, tol=1e-8, backend="cpu")
    assert reference.duality_gap(x, twice, found, 0.1).max() <= 1.01e-8


def test_lca_and_ista_rest_at_the_same_l1_code():
    x, D = problem(B=4)
    lca = sparse_code(x, D, 0.3, method="lca", tol=1e-10, max_iter=100_000)
    ista = sparse_code(x, D, 0.3, method="ista", tol=1e-10, max_iter=100_000)
    torch.testing.assert_close(lca, ista, rtol=0, atol=1e-4)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_row_does_not_depend_on_the_others_nor_on_threads(penalty):
    x, D = problem(B=30, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        together = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            together.append(sparse_code(x, D, 0.2, penalty=penalty, backend="cpu"))
        alone = torch.cat([sparse_code(x[i : i + 1], D, 0.2, penalty=penalty) for i in range(30)])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together[0], together[1]) and torch.equal(together[0], together[2])
    torch.testing.assert_close(alone, together[0], rtol=0, atol=2e-3)  # both within tol


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    x, D = problem(B=3, dtype=torch.float32)
    D = D[:, :30]
    found = sparse_code(x.to(dtype), D.to(dtype), 0.3)
    expected = sparse_code(x.to(dtype).float(), D.to(dtype).float(), 0.3)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0.01)


def test_a_gradient_passes_through_the_reference():
    x, D = problem(B=2, n=6, K=9)
    D = D.clone().requires_grad_()
    sparse_code(x, D, 0.3, method="ista", max_iter=20, tol=0).square().sum().backward()
    assert D.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="backend 'cpu' has no gradient, and dictionary requires"):
        sparse_code(x, D, 0.3, backend="cpu")


@pytest.mark.parametrize("penalty", PENALTIES)
def test_lca_is_the_circuit_and_rests_where_proximal_gradient_with_step_1_does(penalty):
    x, D = problem(B=6, n=9, K=14)
    u, h = torch.zeros(6, 14, dtype=torch.float64), min(1, reference.step_size(D))
    for _ in range(7):  # tau du/dt = b - u - (G - 1) a
        a = reference.threshold(u, 0.3, 1, penalty)
        u = u + h * (x @ D - u - a @ (D.T @ D - torch.eye(14, dtype=torch.float64)))
    mine = sparse_code(x, D, 0.3, penalty=penalty, method="lca", max_iter=7, tol=0)
    torch.testing.assert_close(mine, reference.threshold(u, 0.3, 1, penalty))
    rest = sparse_code(x, D, 0.3, penalty=penalty, method="lca", max_iter=20_000, tol=1e-8)
    assert (rest != 0).any()
    for eta in (1, reference.step_size(D)):  # a rest of the longer step is one of the shorter
        step = reference.threshold(rest + eta * (x - rest @ D.T) @ D, 0.3, eta, penalty) - rest
        assert step.abs().max() < (1e-3 if penalty == "soft" else 1e-7)
    again = sparse_code(x, D, 0.3, penalty=penalty, method="lca", init=rest, max_iter=50, tol=0)
    torch.testing.assert_close(again, rest, atol=1e-3 if penalty == "soft" else 1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_cpu_takes_the_steps_of_the_reference(penalty, method, dtype, poisoned):
    for seed, (B, n, K) in enumerate([(7, 24, 61), (1, 5, 1), (5, 33, 20), (3, 1, 40)]):
        x, D = problem(seed, B, n, K, dtype)
        start = torch.randn(B, K, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        start *= start.abs() > 1
        for init in (None, start):
            for stop in ({"max_iter": 13, "tol": 0}, {"max_iter": 90, "tol": 1e-2}):
                asked = {"penalty": penalty, "method": method, "init": init} | stop
                expected = sparse_code(x, D, 0.1, backend="reference", **asked)
                found = sparse_code(x, D, 0.1, backend="cpu", **asked)
                tolerance = 1e-10 if dtype == torch.float64 else 1e-3
                torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_gpu_takes_the_steps_of_the_reference(penalty, method, poisoned):
    for dtype, shape in ((torch.float64, (3, 6, 7)), (torch.float32, (2, 3, 17))):
        x, D = problem(1, *shape, dtype)
        init = torch.randn(
            shape[0], shape[2], dtype=dtype, generator=torch.Generator().manual_seed(1)
        )
        asked = {"penalty": penalty, "method": method, "init": init, "max_iter": 11, "tol": 1e-2}
        expected = sparse_code(x, D, 0.1, backend="reference", **asked)
        found = sparse_code(x, D, 0.1, backend="gpu", **asked)
        tolerance = 1e-10 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_cpu_finds_the_l1_minimum_from_any_start(dtype, poisoned):
    for seed, (B, n, K) in enumerate([(9, 24, 61), (1, 5, 1), (4, 40, 20), (6, 64, 300)]):
        x, D = problem(seed, B, n, K, dtype)
        D[:, 0] *= 3  # atoms need no unit norm
        D = torch.cat([D, torch.zeros_like(D[:, :1])], dim=1)
        start = torch.randn(B, K + 1, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        for lam in (0.003, 0.3):
            for init in (None, start):
                for tol in (1e-2, 1e-5):
                    a = sparse_code(x, D, lam, init=init, tol=tol, backend="cpu")
                    gap = reference.duality_gap(x.double(), D.double(), a.double(), lam)
                    assert gap.max() <= tol + (5e-6 if dtype == torch.float32 else 1e-12)
                    assert not a[:, -1].any()


@pytest.mark.parametrize("method", METHODS)
def test_the_reference_has_a_gradient(method):
    x, D = problem(B=2, n=4, K=6)
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: sparse_code(x, D, 0.2, method=method, max_iter=5, tol=0), (x,)
    )
    D.requires_grad_()
    with torch.no_grad():
        assert not sparse_code(x, D, 0.1, backend="cpu").requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lam": 0.0}, "lam"),
        ({"lam": -1.0}, "lam"),
        ({"lam": float("nan")}, "lam"),
        ({"penalty": "l1"}, "soft, hard, half, cel0"),
        ({"backend": "cuda"}, "reference, cpu, gpu, None, not"),
        ({"x": torch.ones(2, 5, dtype=torch.float64)}, r"\(2, 5\)"),
        ({"x": torch.full((2, 24), torch.nan, dtype=torch.float64)}, "x must be finite"),
        ({"x": torch.ones(2, 24)}, "must be float32 as x is"),
        ({"x": torch.ones(2, 24, dtype=torch.int64)}, "x must be one of float32"),
        ({"dictionary": torch.zeros(24, 60, dtype=torch.float64)}, "zero"),
        ({"dictionary": 2 * problem()[1], "penalty": "cel0"}, "unit-norm"),
        ({"init": torch.zeros(3, 3, dtype=torch.float64)}, "init"),
        ({"tol": -1.0}, "tol"),
        ({"method": "cd"}, "method must be one of ista, fista, lca"),
    ],
)
def test_bad_input_is_named(change, message):
    x, D = problem()
    with pytest.raises((ValueError, TypeError), match=message):
        sparse_code(**{"x": x, "dictionary": D, "lam": 0.1} | change)
