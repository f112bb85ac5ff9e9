"""Selective synaptic dampening of a model: what changes, what stays, what is refused."""

import copy
import math

import pytest
import torch
from torch import nn

from labkit.unlearning import fisher_diagonal, selective_synaptic_dampening


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
    assert not any(selective_synaptic_dampening(model, F, F, 1.0, 1.0).values())
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
