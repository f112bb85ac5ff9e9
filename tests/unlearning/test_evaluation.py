"""Measures of unlearning: against their definitions, and against the wrong formulas in use."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon
from torch import nn

from labkit.unlearning.evaluation import (
    accuracy,
    cka,
    confusion_routing,
    linear_probe,
    logits_of,
    pareto_front,
    penultimate_features,
    recalibrate_batch_norm,
    relearning_curve,
    retrain_band,
    tug_of_war,
    zrf,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed))


def blobs(n=300, seed=0):
    """Three classes around three of the corners of a square."""
    y = torch.randint(3, (n,), generator=rng(seed))
    corners = torch.tensor([[3.0, 3.0], [-3.0, 3.0], [-3.0, -3.0]])
    return corners[y] + draw(n, 2, seed=seed + 1), y


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))


def trained(x, y, steps=200):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def suppressed():
    """A trained network whose last bias just keeps it from answering 2; and its data."""
    x, y = blobs()
    model = trained(x, y)
    logits = model(x[y == 2]).detach()
    model[2].bias.data[2] -= (logits[:, 2] - logits[:, :2].amax(dim=1)).max() + 0.1
    return model, x, y


def state(model):
    return copy.deepcopy(model.state_dict())


def assert_untouched(model, before):
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ------------------------------------------------------------------ running a model


def test_logits_are_taken_in_evaluation_mode_and_every_mode_stays():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    model[1].eval()
    before = state(model)
    x = draw(10, 3)
    found = logits_of(model, x, batch_size=3)
    assert [module.training for module in model] == [True, False, True] and model.training
    assert_untouched(model, before)
    torch.testing.assert_close(found, model.eval()(x).detach())
    assert not found.requires_grad


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Linear(3, 2)).train()
    with pytest.raises(RuntimeError):
        logits_of(model, draw(5, 4))
    assert model.training and model[0].training


def test_penultimate_features_are_what_the_last_layer_sees():
    model, x = network().train(), draw(7, 2)
    features = penultimate_features(model, x, batch_size=3)
    torch.testing.assert_close(features, model[:2](x).detach())
    assert torch.equal(penultimate_features(model, x, layer=model[0]), x)
    assert not model[2]._forward_pre_hooks and model.training
    images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), model)
    first = penultimate_features(images[:2], draw(5, 1, 8, 8), layer=images[1])
    assert first.shape == (5, 2 * 6 * 6)


# ------------------------------------------------------------------ predictions


def test_accuracy_and_routing_count():
    logits = torch.tensor([[2.0, 1, 0, 0], [0, 3, 1, 0], [5, 1, 1, 0], [0, 0, 1, 0]])
    assert accuracy(logits, torch.tensor([0, 1, 2, 2])) == 0.75
    assert confusion_routing(logits).tolist() == [0.5, 0.25, 0.25, 0]


def naive_zrf(p, q):
    """As code in circulation has it: KL(m || p), and a mean over the classes too."""
    m = (p + q) / 2
    return 1 - float((F.kl_div(p.log(), m) + F.kl_div(q.log(), m)) / 2)


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize(("C", "right", "wrong"), [(10, 0.679, 0.929), (100, 0.545, 0.989)])
def test_zrf_is_one_minus_the_jensen_shannon_divergence(C, right, wrong):
    """Softmax of Gaussian logits of sd 3 against uniform predictions."""
    logits, uniform = 3 * draw(5000, C), torch.zeros(5000, C)
    p, q = logits.double().softmax(dim=1), uniform.double().softmax(dim=1)
    exact = 1 - np.mean(jensenshannon(p.numpy(), q.numpy(), axis=1) ** 2)
    assert zrf(logits, uniform) == pytest.approx(exact, rel=1e-6)
    assert zrf(logits, uniform) == pytest.approx(zrf(uniform, logits))
    assert exact == pytest.approx(right, abs=0.01)
    assert naive_zrf(p, q) == pytest.approx(wrong, abs=0.01)


@pytest.mark.filterwarnings("ignore:reduction")
def test_zrf_has_its_bounds():
    logits = draw(20, 5)
    assert zrf(logits, logits) == pytest.approx(1)
    certain = 1000 * F.one_hot(torch.arange(4), 4).float()
    opposite = certain.roll(1, dims=0)
    assert zrf(certain, opposite) == pytest.approx(1 - math.log(2))
    softer = certain / 20  # the naive value has no lower bound
    assert naive_zrf(softer.softmax(dim=1), opposite.div(20).softmax(dim=1)) < 0


# ------------------------------------------------------------------ against retrained models


def test_tug_of_war():
    assert tug_of_war([0.5, 0.9, 0.8], [0.5, 0.9, 0.8]) == 1
    assert tug_of_war((0.0, 0.9, 0.7), (0.5, 1.0, 0.8)) == pytest.approx(0.5 * 0.9 * 0.9)
    assert tug_of_war((1.0, 1.0, 1.0), (0.9, 1.0, 1.0)) == pytest.approx(0.9)  # too good costs too


def test_band_holds_one_more_retrained_model_as_often_as_it_says():
    x = np.random.default_rng(0).normal(0.9, 0.02, size=(2000, 11))
    bands = [retrain_band(row[:10]) for row in x]
    held = np.mean([row[10] in band for row, band in zip(x, bands, strict=True)])
    assert held == pytest.approx(0.95, abs=0.02)
    inside_range = np.mean(
        [band.minimum <= row[10] <= band.maximum for row, band in zip(x, bands, strict=True)]
    )
    assert inside_range == pytest.approx(9 / 11, abs=0.04)
    of_the_mean = np.mean(  # the interval of the mean answers another question
        [
            abs(row[10] - band.mean) <= 2.262 * band.sd / math.sqrt(10)
            for row, band in zip(x, bands, strict=True)
        ]
    )
    assert of_the_mean < 0.6


def test_band_by_hand():
    band = retrain_band([0.2, 0.4, 0.6], confidence=0.9)
    assert (band.mean, band.sd) == pytest.approx((0.4, 0.2))
    assert (band.minimum, band.maximum, band.n, band.confidence) == (0.2, 0.6, 3, 0.9)
    half = 2.919986 * 0.2 * math.sqrt(4 / 3)
    assert (band.low, band.high) == pytest.approx((0.4 - half, 0.4 + half))


def test_band_of_equal_values_is_that_value():
    for value in (0.0, 0.1, 1 / 3, 0.9):
        band = retrain_band([value] * 10)
        assert value in band and value + 1e-6 not in band


def test_pareto_front():
    points = [[1.0, 0.0], [0.5, 0.5], [0.4, 0.5], [0.0, 1.0], [0.5, 0.5], [0.0, 0.9]]
    assert pareto_front(points).tolist() == [True, True, False, True, True, False]
    cloud = draw(60, 3)
    beaten = [
        any(bool((b >= a).all() and (b > a).any()) for b in cloud) for a in cloud
    ]  # by the definition
    assert pareto_front(cloud).tolist() == [not each for each in beaten]


# ------------------------------------------------------------------ behind the last layer


def test_a_suppressed_class_is_still_there(suppressed):
    model, x, y = suppressed
    of_two = y == 2
    logits = logits_of(model, x)
    assert accuracy(logits[of_two], y[of_two]) == 0
    assert confusion_routing(logits[of_two])[2] == 0
    features = penultimate_features(model, x)
    probe = linear_probe(features, y, features[of_two], y[of_two])
    assert probe > 0.95
    noise = draw(len(x), 16)
    assert linear_probe(noise[:150], y[:150], noise[150:], y[150:]) < 0.5


def test_a_suppressed_class_comes_back_sooner_than_a_new_one_is_learned(suppressed):
    model, x, y = suppressed
    forget, retain = (x[y == 2], y[y == 2]), (x[y != 2], y[y != 2])
    fresh = trained(*retain)
    before = state(model)
    hidden, learned = (
        relearning_curve(each, forget, retain, steps=60, lr=0.02, generator=rng())
        for each in (model, fresh)
    )
    assert hidden.shape == (61,) and hidden[0] == learned[0] == 0
    assert hidden.mean() > learned.mean() + 0.05  # 0.91 and 0.80 when written
    assert_untouched(model, before)


def test_relearning_reaches_the_forget_set_and_repeats(suppressed):
    x, y = suppressed[1:]
    forget, retain = (x[y == 2], y[y == 2]), (x[y != 2], y[y != 2])
    model = trained(*retain)
    curves = [
        relearning_curve(model, forget, retain, steps=80, lr=0.05, generator=rng(seed))
        for seed in (0, 0, 1)
    ]
    assert curves[0][-1] > 0.9 and curves[0].equal(curves[1]) and not curves[0].equal(curves[2])
    with torch.no_grad():
        inside = relearning_curve(model, forget, retain, steps=80, lr=0.05, generator=rng())
    assert inside.equal(curves[0])


def test_relearning_measures_where_it_is_told_and_leaves_frozen_parameters(suppressed):
    model, x, y = suppressed
    model = copy.deepcopy(model)
    forget, rest = (x[y == 2], y[y == 2]), (x[y != 2], y[y != 2])
    curve = relearning_curve(model, forget, measure=rest, steps=5, generator=rng())
    assert curve[0] == accuracy(logits_of(model, rest[0]), rest[1]) > 0.9
    model.requires_grad_(False)
    model[0].bias.requires_grad_(True)  # which nothing depends on, once the next layer is zero
    model[2].weight.data.zero_()
    model[2].bias.data[:] = torch.tensor([1.0, 0.0, 0.0])
    assert not relearning_curve(model, forget, steps=20, lr=0.5, generator=rng()).any()


def test_cka_ignores_rotation_and_scale_but_not_more():
    x = draw(200, 6).double()
    rotation = torch.linalg.qr(draw(6, 6, seed=1).double())[0]
    assert cka(x, x) == pytest.approx(1)
    assert cka(x, 3 * x @ rotation + 5) == pytest.approx(1)
    stretched = x * torch.tensor([10.0, 1, 1, 1, 1, 1])
    assert 0.2 < cka(x, stretched) < 0.9
    assert cka(draw(5000, 4, seed=2), draw(5000, 8, seed=3)) < 0.01


def test_cka_equals_its_form_with_gram_matrices():
    x, y = draw(30, 5).double(), draw(30, 3, seed=1).double() + 7
    H = torch.eye(30, dtype=torch.float64) - 1 / 30
    K, L = H @ x @ x.T @ H, H @ y @ y.T @ H
    assert cka(x, y) == pytest.approx(float((K * L).sum() / (K.norm() * L.norm())), rel=1e-9)


# ------------------------------------------------------------------ batch norm


def normalised(seed=0, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3),
        ).eval()  # fmt: skip


def test_recalibration_repairs_shifted_statistics():
    x, y = blobs()
    model = recalibrate_batch_norm(normalised(), x)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model = recalibrate_batch_norm(model, x)
    good = accuracy(logits_of(model, x), y)
    model[1].running_mean += 8
    model[5].running_var *= 100
    before = state(model)
    assert accuracy(logits_of(model, x), y) < good - 0.2
    repaired = recalibrate_batch_norm(model, x)
    assert accuracy(logits_of(repaired, x), y) == good > 0.9
    assert_untouched(model, before)


def test_recalibrated_statistics_are_those_of_the_data_at_every_depth():
    x = 3 * draw(2001, 2) + 5
    model = recalibrate_batch_norm(normalised(dropout=0.9), x)
    for at in (1, 5):
        seen = penultimate_features(model, x, layer=model[at], batch_size=500)
        torch.testing.assert_close(model[at].running_mean, seen.mean(dim=0), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(model[at].running_var, seen.var(dim=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batch_size", [2, 4, 100, 1000])
def test_recalibration_in_batches(batch_size):
    """Equal batches: the mean over them is that of the data. None is left with one input."""
    x = draw(101, 2)
    exact, found = (
        recalibrate_batch_norm(normalised(), x, batch_size=b) for b in (None, batch_size)
    )
    torch.testing.assert_close(found[1].running_mean, exact[1].running_mean, rtol=0, atol=0.01)


def test_recalibration_keeps_modes_and_momenta():
    model = normalised().train()
    model[1].eval()
    model[1].momentum = 0.3
    new = recalibrate_batch_norm(model, draw(20, 2))
    assert [m.training for m in new.modules()] == [m.training for m in model.modules()]
    assert (new[1].momentum, new[5].momentum) == (0.3, 0.1)
    assert all(a is not b for a, b in zip(new.parameters(), model.parameters(), strict=True))


# ------------------------------------------------------------------ bad input


NAN = torch.full((2, 3), math.nan)
TARGETS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: logits_of(network(), [1.0]), TypeError, "inputs.*list"),
        (lambda: logits_of(network(), torch.ones(0, 2)), ValueError, r"inputs.*\(0, 2\)"),
        (lambda: logits_of(network(), torch.ones(3, 2), batch_size=0), ValueError, "batch_size.*0"),
        (lambda: logits_of(nn.Linear(2, 1), torch.ones(3, 2)), ValueError, "logits of model"),
        (lambda: penultimate_features(nn.ReLU(), draw(3, 2)), ValueError, "no nn.Linear"),
        (
            lambda: penultimate_features(network(), draw(3, 2), layer=nn.ReLU()),
            ValueError,
            "layer must be a module of the model",
        ),
        (lambda: accuracy(NAN, TARGETS), ValueError, "logits must be finite"),
        (lambda: accuracy(torch.ones(2, 3), torch.tensor([0, 3])), ValueError, "0 to 2.*3"),
        (lambda: confusion_routing(torch.ones(3)), ValueError, r"logits.*\(3,\)"),
        (lambda: zrf(torch.ones(2, 3), torch.ones(2, 4)), ValueError, r"reference.*\(2, 4\)"),
        (lambda: tug_of_war([0.1, 0.2], [0.1, 0.2, 0.3]), ValueError, "accuracies must be three"),
        (lambda: tug_of_war([0.1] * 3, [99.0, 98.0, 97.0]), ValueError, "retrain.*99"),
        (lambda: retrain_band([0.5]), ValueError, r"at least two.*\[0.5\]"),
        (lambda: retrain_band([0.5, math.nan]), ValueError, "finite.*nan"),
        (lambda: retrain_band([0.5, 0.6], confidence=95), ValueError, "confidence.*95"),
        (lambda: pareto_front([0.1, 0.2]), ValueError, r"points.*\(2,\)"),
        (lambda: pareto_front([[0.1, math.inf]]), ValueError, "points must be finite"),
        (lambda: cka(torch.ones(4, 2), draw(4, 2)), ValueError, "features must vary"),
        (lambda: cka(draw(4, 2), draw(5, 2)), ValueError, "4 examples.*5"),
        (lambda: cka(draw(4), draw(4)), ValueError, r"\(N, d\)"),
        (
            lambda: linear_probe(draw(2, 3), torch.tensor([1, 1]), draw(2, 3), TARGETS),
            ValueError,
            "two classes, not 1 alone",
        ),
        (
            lambda: linear_probe(draw(2, 3), TARGETS, draw(2, 4), TARGETS),
            ValueError,
            "test_features.*3 columns.*4",
        ),
        (
            lambda: linear_probe(draw(2, 3), TARGETS, draw(2, 3), TARGETS.float()),
            TypeError,
            "test_targets.*float32",
        ),
        (lambda: recalibrate_batch_norm(network(), draw(5, 2)), ValueError, "no batch norm"),
        (lambda: recalibrate_batch_norm(normalised(), draw(1, 2)), ValueError, "1 inputs"),
        (
            lambda: recalibrate_batch_norm(normalised(), draw(5, 2), batch_size=1),
            ValueError,
            "batches of 1",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps.*0"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"lr": -1.0}, "lr.*-1"),
        ({"forget": (draw(2, 2), torch.tensor([0, 3]))}, "forget targets.*0 to 2"),
        ({"retain": (draw(3, 2), TARGETS)}, r"retain targets.*\(3,\)"),
        ({"measure": (draw(2, 2) * math.nan, TARGETS)}, "measure inputs must be finite"),
        ({"model": network().requires_grad_(False)}, "requires a gradient"),
        ({"lr": 1e30}, "logits of model must be finite"),
    ],
)
def test_bad_relearning_is_named(change, message):
    good = {"model": network(), "forget": (draw(2, 2), TARGETS), "generator": rng()}
    with pytest.raises(ValueError, match=message):
        relearning_curve(**good | change)
