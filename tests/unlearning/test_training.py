"""Training, true retraining, and members of an ensemble against networks trained alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.seeding import seeded, spawn
from labkit.unlearning.training import (
    Ensemble,
    Recipe,
    digits_cnn,
    digits_mlp,
    retrain,
    train,
)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def build(generator):
    with seeded(generator):
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def build_with_batch_norm(generator):
    with seeded(generator):
        layers = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
        return nn.Sequential(*layers).double()


class Scaled(nn.Module):
    """Has a parameter that belongs to no layer with `reset_parameters`."""

    def __init__(self, generator):
        super().__init__()
        self.layers = build(generator)
        self.scale = nn.Parameter(1 + torch.randn(6, generator=generator).double() / 10)

    def forward(self, x):
        return self.layers(x * self.scale)


def examples(n, generator):
    y = torch.randint(3, (n,), generator=generator)
    noise = torch.randn(n, 6, generator=generator).double()
    return 2 * torch.eye(3, 6).double()[y] + noise, y


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(model, other):
    before = other.state_dict()
    return all(value.equal(before[name]) for name, value in model.state_dict().items())


# ------------------------------------------------------------------ one network


def test_training_lowers_the_loss_and_ends_in_evaluation_mode():
    g = draw()
    model, data = build_with_batch_norm(g).train(), examples(90, g)
    losses = train(model, data, Recipe(epochs=15, batch_size=16, lr=0.01), generator=g)
    assert len(losses) == 15 and losses[-1] < losses[0] / 2
    assert not any(layer.training for layer in model.modules())
    assert F.cross_entropy(model(data[0]), data[1]) < losses[0] / 2


def test_one_step_is_that_of_adam():
    g = draw()
    model, (x, y) = build(g), examples(12, g)
    other = copy.deepcopy(model)
    train(model, (x, y), Recipe(1, 12, 0.02, weight_decay=0.1), generator=g)
    optimizer = torch.optim.Adam(other.parameters(), lr=0.02, weight_decay=0.1)
    F.cross_entropy(other(x), y).backward()
    optimizer.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_orders_visit_every_example_once_in_batches_of_equal_size():
    orders = Recipe(epochs=3, batch_size=8).orders(65, draw())
    assert len(orders) == 3
    for batches in orders:
        assert {len(batch) for batch in batches} == {7, 8}
        assert torch.cat(batches).sort().values.equal(torch.arange(65))
    assert not torch.cat(orders[0]).equal(torch.cat(orders[1]))


def test_a_generator_decides_everything_and_the_global_one_stays():
    def network(g):
        with seeded(g):
            return nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 3)).double()

    data, found = examples(40, draw(9)), []
    before = torch.random.get_rng_state()
    for _ in range(2):
        g = draw(1)
        model = network(g)
        train(model, data, Recipe(epochs=2), generator=g)
        found.append(weights(model))
        torch.manual_seed(len(found))  # must not matter
    assert all(found[0][name].equal(found[1][name]) for name in found[0])
    torch.random.set_rng_state(before)
    retrain(network, data, Recipe(epochs=1), generator=draw(3))
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize("network", [digits_mlp, digits_cnn])
def test_networks_of_the_digits(network):
    logits = network(draw())(torch.rand(5, 1, 8, 8, generator=draw(1)))
    assert logits.shape == (5, 10)
    first, same, other = (next(network(draw(s)).parameters()) for s in (0, 0, 1))
    assert first.equal(same) and not first.equal(other)


# ------------------------------------------------------------------ true retraining


def test_retraining_is_new_in_every_parameter_where_resetting_layers_is_not():
    """The official code resets `model.children()` that own `reset_parameters`, and trains on."""
    g = draw()
    data, recipe = examples(60, g), Recipe(epochs=2, batch_size=16)
    original = Scaled(g)
    initial = weights(original)
    train(original, data, recipe, generator=g)
    retain = tuple(value[20:] for value in data)

    reset = copy.deepcopy(original)
    for child in reset.children():
        if hasattr(child, "reset_parameters"):
            child.reset_parameters()
    assert equal(reset, original)

    again = retrain(Scaled, retain, recipe, generator=g)
    for name, parameter in again.named_parameters():
        assert not torch.isclose(parameter, original.get_parameter(name)).any()
        assert not torch.isclose(parameter, initial[name]).any()


def test_retraining_sees_the_retain_set_alone():
    data = examples(60, draw())
    retain = tuple(value[20:] for value in data)
    model = retrain(build, retain, Recipe(epochs=2), generator=draw(1))
    g = draw(1)
    by_hand = build(g)
    train(by_hand, retain, Recipe(epochs=2), generator=g)
    assert equal(model, by_hand)


# ------------------------------------------------------------------ many networks


@pytest.mark.parametrize("network", [build, build_with_batch_norm, Scaled])
@pytest.mark.parametrize("own_sets", [False, True])
def test_a_member_equals_the_network_trained_alone(network, own_sets):
    g, K = draw(), 3
    x, y = examples(50, g)
    models = [network(g) for _ in range(K)]
    subsets = torch.stack([torch.randperm(50, generator=g)[:33] for _ in range(K)])
    recipe = Recipe(epochs=4, batch_size=8, lr=0.01, weight_decay=1e-3)
    ensemble = Ensemble(models)
    losses = ensemble.fit((x, y), recipe, generator=draw(5), subsets=subsets if own_sets else None)
    logits = ensemble(x)
    assert losses.shape == (4, K) and logits.shape == (K, 50, 3) and not logits.requires_grad
    for k, (alone, generator) in enumerate(zip(models, spawn(draw(5), K), strict=True)):
        data = (x[subsets[k]], y[subsets[k]]) if own_sets else (x, y)
        alone_losses = train(alone, data, recipe, generator=generator)
        member = ensemble.member(k)
        exact = {"rtol": 0, "atol": 1e-10}
        torch.testing.assert_close(member.state_dict(), alone.state_dict(), **exact)
        torch.testing.assert_close(logits[k], alone(x), **exact)
        torch.testing.assert_close(losses[:, k], torch.tensor(alone_losses, dtype=x.dtype), **exact)


def test_members_are_apart_from_the_ensemble_and_from_the_models_given():
    g = draw()
    models = [build(g) for _ in range(2)]
    before = [weights(model) for model in models]
    data, ensemble = examples(20, g), Ensemble(models)
    member = ensemble.member(0)
    ensemble.fit(data, Recipe(epochs=1), generator=g)
    for model, old in zip([*models, member], [*before, before[0]], strict=True):
        assert all(value.equal(old[name]) for name, value in model.state_dict().items())
    trained = ensemble(data[0])
    train(ensemble.member(0), data, Recipe(epochs=1), generator=g)
    assert ensemble(data[0]).equal(trained) and len(ensemble) == 2
    assert not ensemble.member(1).training


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs.*0"),
        ({"batch_size": 2.5}, "batch_size.*2.5"),
        ({"lr": -1.0}, "lr.*-1"),
        ({"lr": float("nan")}, "lr.*nan"),
        ({"weight_decay": -0.1}, "weight_decay.*-0.1"),
    ],
)
def test_a_recipe_names_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda x, y: (x[:0], y[:0]), ValueError, "at least one"),
        (lambda x, y: (x.float(), y), TypeError, "float64.*float32"),
        (lambda x, y: (x.numpy(), y), TypeError, "inputs.*ndarray"),
        (lambda x, y: (x, y.int()), TypeError, "int64.*int32"),
        (lambda x, y: (x, y[1:]), ValueError, r"\(20,\).*\(19,\)"),
        (lambda x, y: (x, y + 1), ValueError, "0 to 2.*to 3"),
        (lambda x, y: (x / 0, y), ValueError, "finite"),
    ],
)
def test_bad_data_change_nothing(bad, error, message):
    g = draw()
    model, data = build(g), examples(20, g)
    before, ensemble = weights(model), Ensemble([model])
    for refuse in (
        lambda: train(model, bad(*data), Recipe(), generator=g),
        lambda: ensemble.fit(bad(*data), Recipe(), generator=g),
    ):
        with pytest.raises(error, match=message):
            refuse()
    for network in (model, ensemble.member(0)):
        assert all(value.equal(before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("subsets", "error", "message"),
    [
        (torch.zeros(2, 3), TypeError, "int64"),
        (torch.zeros(3, 4).long(), ValueError, r"\(2, n\).*\(3, 4\)"),
        (torch.full((2, 4), 20), ValueError, "0 to 19.*20"),
    ],
)
def test_bad_subsets(subsets, error, message):
    g = draw()
    ensemble = Ensemble([build(g), build(g)])
    with pytest.raises(error, match=message):
        ensemble.fit(examples(20, g), Recipe(), generator=g, subsets=subsets)


def test_bad_models():
    g = draw()
    frozen = build(g)
    frozen[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"frozen: '0.weight'"):
        train(frozen, examples(20, g), Recipe(), generator=g)
    with pytest.raises(ValueError, match="has none"):
        train(nn.Flatten(), examples(20, g), Recipe(), generator=g)
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (nn.Linear(6, 1), ValueError, r"\(N, C\) with N = 1 and C >= 2, not \(1, 1\)"),
        (nn.Unflatten(1, (2, 3)), ValueError, r"not \(1, 2, 3\)"),
        (nn.Flatten(0), ValueError, r"not \(6,\)"),
        (nn.LSTM(6, 3), TypeError, "torch.Tensor, not tuple"),
    ],
)
def test_what_is_no_classifier_is_refused_and_keeps_its_modes(layer, error, message):
    g = draw()
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout().eval(), layer).double()
    with pytest.raises(error, match=f"logits of model .*{message}"):
        train(model, examples(20, g), Recipe(), generator=g)
    assert model.training and not model[1].training
