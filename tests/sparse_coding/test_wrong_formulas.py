"""Formulas found in the code of others that look right: each fails here where ours passes."""

from itertools import pairwise

import pytest
import torch
from sklearn.decomposition import sparse_encode

from labkit.kernels import sparse_code
from labkit.kernels.sparse_code import reference


@pytest.fixture
def problem():
    draw = torch.Generator().manual_seed(0)
    D = torch.randn(24, 60, generator=draw, dtype=torch.float64)
    return torch.randn(20, 24, generator=draw, dtype=torch.float64), D / D.norm(dim=0)


def fit(x, D, a):
    return 0.5 * (x - a @ D.T).square().sum(dim=1)


def test_the_one_half_before_the_square_belongs_to_lambda(problem):
    x, D = problem
    a = sparse_code(x, D, 0.3, tol=1e-12, max_iter=20_000)
    theirs = sparse_encode(x.numpy(), D.T.numpy(), algorithm="lasso_cd", alpha=0.3, max_iter=20_000)
    assert (a - torch.from_numpy(theirs)).abs().max() < 1e-3
    with_half = fit(x, D, a) + 0.3 * a.abs().sum(dim=1)
    b = sparse_code(x, D, 0.15, tol=1e-12, max_iter=20_000)  # minimises without the half
    assert (fit(x, D, b) + 0.3 * b.abs().sum(dim=1) > with_half + 1e-3).all()
    assert (
        2 * fit(x, D, b) + 0.3 * b.abs().sum(dim=1) < 2 * fit(x, D, a) + 0.3 * a.abs().sum(dim=1)
    ).all()


def test_a_hard_threshold_pays_by_the_piece_not_by_the_size(problem):
    x, D = problem
    lam = 0.05  # the threshold is sqrt(2 lam): its square over 2 for each active unit
    steps = [
        sparse_code(x, D, lam, penalty="hard", method="ista", tol=0, max_iter=k) for k in range(40)
    ]
    ours = [fit(x, D, a) + reference.penalty_value(a, lam, "hard").sum(dim=1) for a in steps]
    by_size = [fit(x, D, a) + (2 * lam) ** 0.5 * a.abs().sum(dim=1) for a in steps]
    assert all((after <= before + 1e-12).all() for before, after in pairwise(ours))
    assert any((after > before + 1e-3).any() for before, after in pairwise(by_size))


def test_a_step_of_one_diverges_where_atoms_are_many(problem):
    x, D = problem
    assert reference.step_size(D) < 0.5  # the norm of D is not one, though that of each atom is
    a = torch.zeros(20, 60, dtype=torch.float64)
    for _ in range(100):
        a = reference.threshold(a + (x - a @ D.T) @ D, 0.2, 1.0, "hard")
    assert not a.isfinite().all() or fit(x, D, a).max() > 1e6 * fit(x, D, torch.zeros_like(a)).max()
    ours = sparse_code(x, D, 0.2, penalty="hard", method="ista", max_iter=100)
    assert (fit(x, D, ours) <= fit(x, D, torch.zeros_like(ours))).all()


def test_the_gradient_of_the_fit_is_not_zero_at_the_minimum(problem):
    x, D = problem
    a = sparse_code(x, D, 0.3, tol=1e-12, max_iter=20_000)
    assert ((x - a @ D.T) @ D).abs().mean() > 0.05  # who waits for this to vanish waits for ever
    assert reference.duality_gap(x, D, a, 0.3).max() < 1e-10
    eta = reference.step_size(D)
    step = reference.threshold(a + eta * (x - a @ D.T) @ D, 0.3, eta, "soft") - a
    assert step.abs().max() < 1e-6
