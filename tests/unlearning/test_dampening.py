"""Selective synaptic dampening of a model: what changes, what stays, what is refused."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from labkit.seeding import seeded
from labkit.unlearning import fisher_diagonal, selective_synaptic_dampening
from labkit.unlearning.dampening import (
    adaptive_alpha,
    adaptive_ssd,
    alpha_ceiling,
    alpha_on_retain,
    loss_free_ssd,
    ssd,
)
from labkit.unlearning.fisher import batch_fisher_diagonal
from labkit.unlearning.training import Recipe, train


def model_and_importances(seed=0):
    draw = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).eval()
    names = {name: p.shape for name, p in model.named_parameters()}
    F = {name: torch.rand(shape, generator=draw) for name, shape in names.items()}
    f = {name: torch.rand(shape, generator=draw) for name, shape in names.items()}
    return model, F, f


def state(model):
    return copy.deepcopy(model.state_dict())


def test_every_parameter_follows_the_formula():
    model, F, f = model_and_importances()
    before = state(model)
    counts = selective_synaptic_dampening(model, F, f, 1.5, 0.5)
    for name, parameter in model.named_parameters():
        factor = (0.5 * F[name] / f[name]).clamp(max=1)
        expected = torch.where(f[name] > 1.5 * F[name], before[name] * factor, before[name])
        torch.testing.assert_close(parameter.detach(), expected)
        assert counts[name] == int((f[name] > 1.5 * F[name]).sum())
    assert sum(counts.values()) > 0 and all(type(count) is int for count in counts.values())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_only_named_parameters_change():
    model, F, f = model_and_importances()
    before = state(model)
    counts = selective_synaptic_dampening(
        model, {"3.weight": F["3.weight"]}, {"3.weight": f["3.weight"]}, 1.1, 1.0
    )
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {"3.weight"} == counts.keys()


def test_equal_importances_change_nothing():
    model, F, _ = model_and_importances()
    before = state(model)
    for alpha in (1.0, 1.5, 100.0):
        for lam in (0.1, 1.0):
            assert not any(selective_synaptic_dampening(model, F, F, alpha, lam).values())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_alpha_has_a_ceiling_with_exact_importances():
    """F_all >= rho F_forget, so that alpha >= 1 / rho selects nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(40, 6).double(), torch.randint(3, (40,))
    F, f = fisher_diagonal(model, x, y), fisher_diagonal(model, x[:8], y[:8])
    assert not any(selective_synaptic_dampening(model, F, f, 5.0 * (1 + 1e-9), 1.0).values())
    assert any(selective_synaptic_dampening(model, F, f, 1.2, 1.0).values())


def test_half_precision_model_takes_float32_importances():
    model, F, f = model_and_importances()
    counts = selective_synaptic_dampening(model.bfloat16(), F, f, 1.5, 0.5)
    assert sum(counts.values()) > 0
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())


def test_frozen_and_shared_parameters_are_dampened_once():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    one, four = {"0.weight": torch.ones(3, 3)}, {"0.weight": torch.full((3, 3), 4.0)}
    assert selective_synaptic_dampening(model, one, four, 2.0, 1.0) == {"0.weight": 9}
    torch.testing.assert_close(model[1].weight, before / 4)
    assert not model[0].weight.requires_grad


def changed(importances, **change):
    return {**importances, **{name.replace("_", "."): value for name, value in change.items()}}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda F, f: (F, f, 0.0, 1.0), ValueError, "alpha.*0.0"),
        (lambda F, f: (F, f, 1.0, math.inf), ValueError, "lam.*inf"),
        (lambda F, f: ({}, {}, 1.0, 1.0), ValueError, "importance_all"),
        (lambda F, f: (changed(F, other=torch.ones(1)), f, 1.0, 1.0), ValueError, "'other'"),
        (
            lambda F, f: (changed(F, no_p=torch.ones(1)), changed(f, no_p=torch.ones(1)), 1.0, 1.0),
            ValueError,
            "no parameter.*'no.p'",
        ),
        (
            lambda F, f: (changed(F, **{"3_bias": torch.ones(4)}), f, 1.0, 1.0),
            ValueError,
            r"importance_all\['3.bias'\].*\(3,\).*\(4,\)",
        ),
        (
            lambda F, f: (F, changed(f, **{"3_bias": -torch.ones(3)}), 1.0, 1.0),
            ValueError,
            r"importance_forget\['3.bias'\].*negative.*-1",
        ),
        (
            lambda F, f: (F, changed(f, **{"3_bias": torch.full((3,), torch.nan)}), 1.0, 1.0),
            ValueError,
            r"importance_forget\['3.bias'\].*nan",
        ),
        (
            lambda F, f: (changed(F, **{"3_bias": torch.full((3,), math.inf)}), f, 1.0, 1.0),
            ValueError,
            r"importance_all\['3.bias'\].*inf",
        ),
        (
            lambda F, f: (changed(F, **{"3_bias": torch.ones(3).long()}), f, 1.0, 1.0),
            TypeError,
            r"importance_all\['3.bias'\].*float32.*int64",
        ),
        (
            lambda F, f: (changed(F, **{"3_bias": torch.ones(3, device="meta")}), f, 1.0, 1.0),
            ValueError,
            r"importance_all\['3.bias'\].*meta",
        ),
    ],
)
def test_bad_input_is_named_before_anything_changes(bad, error, message):
    model, F, f = model_and_importances()
    before = state(model)
    with pytest.raises(error, match=message):
        selective_synaptic_dampening(model, *bad(F, f))
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


# ------------------------------------------------------------------ from a model to one that forgot


def trained():
    """A network of three classes in float64; the smallest, a tenth of the data, is to go."""
    g = torch.Generator().manual_seed(0)
    y = torch.cat([torch.zeros(10).long(), torch.randint(1, 3, (90,), generator=g)])
    x = 2 * torch.eye(3, 6).double()[y] + torch.randn(100, 6, generator=g).double()
    with seeded(g):
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    train(model, (x, y), Recipe(epochs=10, batch_size=10, lr=0.01), generator=g)
    return model, (x[:10], y[:10]), (x[10:], y[10:])


def test_no_parameter_grows_in_magnitude_or_changes_sign():
    model, forget, retain = trained()
    before = state(model)
    students = [
        ssd(model, forget, retain, alpha=1.1, lam=lam, fisher=fisher)
        for lam in (0.1, 1.0, 5.0)
        for fisher in ("expected", "empirical", "batch")
    ]
    students += [loss_free_ssd(model, forget, retain, alpha=1.01), adaptive_ssd(*trained())]
    for student in students:
        for name, parameter in student.named_parameters():
            assert (parameter.abs() <= before[name].abs()).all()
            assert (parameter * before[name] >= 0).all()


@pytest.mark.parametrize("fisher", ["expected", "empirical", "batch"])
def test_ssd_is_the_fisher_followed_by_dampening(fisher):
    model, (x, y), (x_r, y_r) = trained()
    x_all, y_all = torch.cat([x_r, x]), torch.cat([y_r, y])
    if fisher == "batch":
        F = batch_fisher_diagonal(model, x_all, y_all, batch_size=20)
        f = batch_fisher_diagonal(model, x, y, batch_size=20)
    else:
        labels = (y_all, y) if fisher == "empirical" else (None, None)
        F, f = fisher_diagonal(model, x_all, labels[0]), fisher_diagonal(model, x, labels[1])
    by_hand = copy.deepcopy(model)
    selective_synaptic_dampening(by_hand, F, f, 1.3, 0.7)
    data = (x, y), (x_r, y_r)
    student = ssd(model, *data, alpha=1.3, lam=0.7, fisher=fisher, batch_size=20)
    torch.testing.assert_close(student.state_dict(), by_hand.state_dict(), rtol=1e-12, atol=0)
    assert not student[0].weight.equal(model[0].weight)


@pytest.mark.parametrize("alpha", [10.0, 50.0])
def test_an_alpha_that_selects_nothing_is_an_error(alpha):
    """Ten of a hundred to forget: the official alpha of 10 does nothing with exact importances."""
    model, forget, retain = trained()
    before = state(model)
    refuse = (
        lambda: ssd(model, forget, retain, alpha=alpha),
        lambda: ssd(model, forget, retain, alpha=alpha, fisher="empirical"),
        lambda: loss_free_ssd(model, forget, retain, alpha=alpha, batch_size=1),
    )
    for attempt in refuse:
        with pytest.raises(ValueError, match=rf"alpha = {alpha:g} selects.*N / N_f = 10"):
            attempt()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    # What the error says is true: nothing would have been selected.
    x, y = (torch.cat(pair) for pair in zip(forget, retain, strict=True))
    for labels, some in ((y, forget[1]), (None, None)):
        F, f = fisher_diagonal(model, x, labels), fisher_diagonal(model, forget[0], some)
        assert all((f[name] <= 10 * F[name] * (1 + 1e-12)).all() for name in F)
    ssd(model, forget, retain, alpha=alpha, fisher="batch")  # has no such bound


def test_alpha_ceiling():
    assert alpha_ceiling(50_000, 5_000) == 10 and alpha_ceiling(7, 7) == 1
    for n in (0, 11):
        with pytest.raises(ValueError, match=rf"n_forget.*10.*{n}"):
            alpha_ceiling(10, n)


def test_alpha_on_the_retain_set_selects_the_same_parameters():
    model, (x, _), (x_r, _) = trained()
    F = fisher_diagonal(model, torch.cat([x, x_r]))
    f, r = fisher_diagonal(model, x), fisher_diagonal(model, x_r)
    for alpha in (0.5, 1.2, 2.0, 6.0):
        converted = alpha_on_retain(alpha, 0.1)
        for name in F:
            assert (f[name] > alpha * F[name]).equal(f[name] > converted * r[name])
    # 2.0 taken over as it stands would select others.
    assert any(not (f[name] > 2 * F[name]).equal(f[name] > 2 * r[name]) for name in F)
    assert alpha_on_retain(10, 0.05) == pytest.approx(19) and alpha_on_retain(1, 0.3) == 1
    for alpha, rho in ((10.0, 0.1), (0.0, 0.1), (1.0, 0.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match=r"alpha must be above|rho must lie"):
            alpha_on_retain(alpha, rho)


def test_adaptive_ssd_dampens_the_share_that_it_says():
    model, forget, retain = trained()
    f, r = fisher_diagonal(model, forget[0]), fisher_diagonal(model, retain[0])
    ratio = torch.cat([(f[name] / r[name]).flatten() for name in f])
    alpha = adaptive_alpha(f, r, 0.1)
    count = int((ratio > alpha).sum())
    assert count == round(len(ratio) * math.log(11) / 100) > 0
    student = adaptive_ssd(model, forget, retain)
    for name, parameter in student.named_parameters():
        chosen = f[name] > alpha * r[name]
        old = model.get_parameter(name)
        assert parameter[~chosen].equal(old[~chosen])
        factor = (r[name] / f[name]).clamp(max=1)
        torch.testing.assert_close(parameter[chosen], (old * factor)[chosen])


def test_adaptive_ssd_without_a_threshold():
    """Where the forget set alone uses most of the network, the percentile is infinite."""
    model = nn.Linear(4, 2, bias=False).double()
    forget = torch.eye(4).double()[:3], torch.tensor([0, 1, 0])
    retain = torch.eye(4).double()[3:], torch.tensor([1])
    before = state(model)
    with pytest.raises(ValueError, match=r"inf.*forget set alone"):
        adaptive_ssd(model, forget, retain)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_loss_free_ssd_needs_no_labels():
    model, (x, y), (x_r, y_r) = trained()
    student = loss_free_ssd(model, (x, y), (x_r, y_r), alpha=1.1)
    other = loss_free_ssd(model, (x, 2 - y), (x_r, 2 - y_r), alpha=1.1)
    again = state(other)
    assert all(value.equal(again[name]) for name, value in student.state_dict().items())
    assert not student[0].weight.equal(model[0].weight)


@pytest.mark.parametrize("method", [partial(ssd, alpha=1.1), adaptive_ssd])
def test_an_unknown_fisher(method):
    with pytest.raises(ValueError, match="expected, empirical, batch, not 'exact'"):
        method(*trained(), fisher="exact")


@pytest.mark.parametrize("values", [{"alpha": 0.0}, {"alpha": math.nan}, {"alpha": 1, "lam": -1.0}])
def test_bad_strengths(values):
    for method in (ssd, loss_free_ssd):
        with pytest.raises(ValueError, match=r"positive and finite, not (0.0|nan|-1.0)"):
            method(*trained(), **values)
