"""Dictionary learning: bars come back, the objective falls, dead atoms return to life."""

import math

import pytest
import torch
import torch.nn.functional as F

from labkit.kernels import sparse_code
from labkit.sparse_coding.dictionary import _descend, learn_dictionary


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def bars(count, side=6, seed=0):
    """Examples (count, side^2), each of some bars, and the bars (side^2, 2 side) of unit norm."""
    atoms = torch.zeros(side, side, 2 * side)
    for i in range(side):
        atoms[i, :, i] = atoms[:, i, side + i] = 1 / math.sqrt(side)
    atoms = atoms.reshape(side * side, 2 * side)
    generator = draw(seed)
    active = torch.rand(count, 2 * side, generator=generator) < 0.15
    a = active * (1 + torch.rand(count, 2 * side, generator=generator))
    return a @ atoms.T + 0.01 * torch.randn(count, side * side, generator=generator), atoms


@pytest.mark.parametrize("penalty", ["soft", "hard", "half", "cel0"])
def test_bars_blurred_by_noise_are_found_again(penalty):
    x, atoms = bars(1000)
    start = atoms + 0.1 * torch.randn(atoms.shape, generator=draw(1))
    found = learn_dictionary(
        *(x, 12, 0.1),
        penalty=penalty, n_steps=60, init=start, generator=draw(), progress=False,
    )  # fmt: skip
    assert (atoms * F.normalize(start, dim=0)).sum(0).max() < 0.95
    assert (atoms * found.atoms).sum(0).min() > 0.99
    torch.testing.assert_close(found.atoms.norm(dim=0), torch.ones(12))


@pytest.mark.parametrize("seed", [0, 1])
def test_bars_are_found_from_examples(seed):
    x, atoms = bars(1000, seed=seed)
    found = learn_dictionary(x, 18, 0.1, n_steps=100, generator=draw(seed), progress=False)
    best = (atoms.T @ found.atoms).abs().amax(1)
    assert (best > 0.9).sum() >= 10  # of 12


def test_the_objective_falls_below_that_of_the_examples_it_started_from():
    x, _ = bars(2000)
    found = learn_dictionary(x, 12, 0.1, n_steps=60, generator=draw(), progress=False)
    assert found.objective[-10:].mean() < 0.8 * found.objective[:3].mean()


def test_same_generator_same_dictionary():
    x, _ = bars(500)
    one, two = (
        learn_dictionary(x, 12, 0.1, n_steps=20, generator=draw(3), progress=False)
        for _ in range(2)
    )
    assert torch.equal(one.atoms, two.atoms)


def test_an_atom_that_no_example_uses_is_replaced():
    x, _ = bars(1000)
    x = F.pad(x, (0, 1))  # a pixel that is always dark
    start = F.normalize(torch.randn(37, 12, generator=draw()), dim=0)
    start[36], start[:, 0] = 0, F.one_hot(torch.tensor(36), 37)
    found = learn_dictionary(x, 12, 0.1, init=start, n_steps=40, generator=draw(), progress=False)
    assert found.n_replaced >= 1
    assert found.atoms[36, 0].abs() < 0.1
    assert found.usage[0] > 1e-3 * found.usage.mean()


def test_more_atoms_than_examples_start_from_init():
    x, _ = bars(10)
    with pytest.raises(ValueError, match="20 atoms start from as many examples"):
        learn_dictionary(x, 20, 0.1, generator=draw())
    start = torch.randn(36, 20, generator=draw())
    found = learn_dictionary(x, 20, 0.1, init=start, n_steps=25, generator=draw(), progress=False)
    assert found.atoms.isfinite().all()


def test_constant_patches_do_no_harm():
    x, _ = bars(300)
    x[::3] = 0  # constant patches, their mean taken away
    found = learn_dictionary(x, 12, 0.1, n_steps=30, generator=draw(), progress=False)
    assert found.atoms.isfinite().all()
    torch.testing.assert_close(found.atoms.norm(dim=0), torch.ones(12))


def test_lam_above_every_correlation_leaves_the_atoms():
    x, _ = bars(300)
    found = learn_dictionary(x, 12, 1e3, n_steps=5, generator=draw(), progress=False)
    assert found.usage.max() == 0
    assert torch.equal(sparse_code(x, found.atoms, 1e3), torch.zeros(300, 12))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.ones(5, 4, dtype=torch.int64)}, TypeError, "int64"),
        ({"x": torch.zeros(0, 4)}, ValueError, "at least one example"),
        ({"x": torch.zeros(50, 4)}, ValueError, "not zero, and x has 0"),
        ({"x": torch.full((5, 4), math.nan)}, ValueError, "NaN"),
        ({"n_atoms": 0}, ValueError, "n_atoms must be a whole number of at least 1, not 0"),
        ({"n_steps": 0}, ValueError, "n_steps"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"lam": -0.1}, ValueError, "lam must be positive and finite, not -0.1"),
        ({"penalty": "l1"}, ValueError, "penalty"),
        ({"init": torch.ones(3, 2)}, ValueError, r"init must be \(n, K\) = \(4, 3\)"),
        ({"init": torch.eye(4)[:, :3] * torch.tensor([1, 0, 1])}, ValueError, "atom 1 of init"),
    ],
)
def test_bad_input_is_named(change, error, message):
    good = {"x": torch.randn(20, 4, generator=draw()), "n_atoms": 3, "lam": 0.1}
    with pytest.raises(error, match=message):
        learn_dictionary(**good | change, generator=draw(), progress=False)


@pytest.mark.parametrize("n, K", [(40, 70), (20, 32), (9, 33), (5, 1)])
def test_atoms_descend_in_blocks_as_they_would_one_by_one(n, K):
    g = draw()
    a = torch.randn(200, K, generator=g, dtype=torch.float64)
    a[:, 1:3] = 0  # atoms that no example used stay as they are
    x = torch.randn(200, n, generator=g, dtype=torch.float64)
    A, B = a.T @ a, x.T @ a
    D = F.normalize(torch.randn(n, K, generator=g, dtype=torch.float64), dim=0)
    expected = D.clone()
    for j in range(K):
        if A[j, j] > 0:
            d = expected[:, j] + (B[:, j] - expected @ A[:, j]) / A[j, j]
            expected[:, j] = d / d.norm()
    _descend(D, A, B)
    torch.testing.assert_close(D, expected)
