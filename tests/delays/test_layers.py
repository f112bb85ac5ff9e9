"""Layers with delays: what a spike does, what training changes, and what is refused."""

import pytest
import torch

from labkit.delays import (
    DelayedLinear,
    DelayNetwork,
    annealed_width,
    clamp_delays,
    delayed_layers,
    parameter_groups,
    round_delays,
    rounded,
    set_width,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def spikes(generator, *shape, rate=0.2):
    return (torch.rand(*shape, generator=generator) < rate).float()


def test_a_spike_arrives_once_and_late(generator):
    layer = DelayedLinear(2, 3, 8, generator=generator)
    x = torch.zeros(20, 1, 2)
    x[4, 0, 1] = 1
    with rounded(layer):
        y = layer(x)[:, 0]
    for output in range(3):
        expected = torch.zeros(20)
        expected[4 + int(layer.delay[output, 1].round())] = layer.weight[output, 1].detach()
        assert torch.equal(y[:, output], expected)


@pytest.mark.parametrize(
    "kind, shape", [("synaptic", (3, 2)), ("axonal", (1, 2)), ("dendritic", (3, 1))]
)
def test_delays_of_every_kind_are_learned(generator, kind, shape):
    layer = DelayedLinear(2, 3, 8, kind=kind, width=2.0, generator=generator)
    assert layer.delay.shape == shape and f"kind='{kind}'" in repr(layer)
    layer(spikes(generator, 20, 4, 2)).square().sum().backward()
    assert layer.delay.grad.abs().min() > 0 and layer.weight.grad.abs().min() > 0


def test_without_room_for_delays_it_is_a_linear_layer(generator):
    layer = DelayedLinear(5, 3, 0, generator=generator)
    x = spikes(generator, 7, 2, 5)
    assert torch.allclose(layer(x), torch.nn.functional.linear(x, layer.weight))


def test_the_same_generator_draws_the_same_layer():
    one, two = (
        DelayedLinear(4, 3, 9, generator=torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(one.weight, two.weight) and torch.equal(one.delay, two.delay)


def test_rounding_for_a_while_keeps_the_delays_also_after_an_error(generator):
    net = DelayNetwork((3, 4, 2), 6, width=2.0, generator=generator)
    before = [layer.delay.detach().clone() for layer in delayed_layers(net)]
    with pytest.raises(ZeroDivisionError), rounded(net):
        assert all(layer.rounded for layer in delayed_layers(net))
        raise ZeroDivisionError
    assert not any(layer.rounded for layer in delayed_layers(net))
    for layer, delay in zip(delayed_layers(net), before, strict=True):
        assert torch.equal(layer.delay, delay)


def test_rounding_for_good_leaves_weights_to_learn(generator):
    net = DelayNetwork((3, 4, 2), 6, generator=generator)
    round_delays(net)
    net(spikes(generator, 15, 8, 3)).square().sum().backward()
    for layer in delayed_layers(net):
        assert torch.equal(layer.delay, layer.delay.round()) and layer.delay.grad is None
        assert layer.weight.grad is not None
    groups = parameter_groups(net, 1e-3, 0.1)
    assert not groups[1]["params"]


def test_delays_have_a_rate_of_their_own_and_no_decay(generator):
    net = DelayNetwork((3, 4, 2), 6, generator=generator)
    weights, delays = parameter_groups(net, 1e-3, 0.1, weight_decay=1e-5)
    assert (weights["lr"], weights["weight_decay"]) == (1e-3, 1e-5)
    assert (delays["lr"], delays["weight_decay"]) == (0.1, 0)
    assert {id(p) for p in delays["params"]} == {id(layer.delay) for layer in delayed_layers(net)}
    assert len(weights["params"]) + len(delays["params"]) == len(list(net.parameters()))


def test_clamping_brings_delays_back(generator):
    layer = DelayedLinear(2, 2, 5, generator=generator)
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([[-1.0, 2.0], [7.0, 5.0]]))
    clamp_delays(layer)
    assert layer.delay.tolist() == [[0, 2], [5, 5]]


def test_the_width_shrinks_geometrically_and_stays():
    widths = [annealed_width(p, 12.27) for p in (0, 0.125, 0.25, 1)]
    assert widths == pytest.approx([12.27, 0.27 + (12 * 0.23) ** 0.5, 0.5, 0.5])
    layer = DelayedLinear(2, 2, 5)
    set_width(layer, 1.5)
    assert layer.width == 1.5


def test_the_network_is_causal_and_its_hidden_spikes_are_whole(generator):
    net = DelayNetwork((3, 5, 4, 2), 6, width=1.0, generator=generator).eval()
    x = spikes(generator, 30, 4, 3)
    changed = x.clone()
    changed[20:] = 1 - changed[20:]
    assert torch.equal(net(x)[:20], net(changed)[:20])
    assert net(x).shape == (30, 4, 2)
    hidden = net.hidden(x)
    assert [h.shape[2] for h in hidden] == [3, 5, 4]
    assert all(((h == 0) | (h == 1)).all() for h in hidden)


def test_training_learns_an_order_that_only_delays_can_tell(generator):
    layer = DelayedLinear(2, 2, 12, generator=generator)
    layer.weight.requires_grad_(False).fill_(1)
    optimiser = torch.optim.Adam(parameter_groups(layer, 0.0, 0.1))
    x = torch.zeros(30, 2, 2)
    x[2, 0, 0] = x[7, 0, 1] = x[2, 1, 1] = x[7, 1, 0] = 1
    for step in range(300):
        set_width(layer, annealed_width(step / 300, 6.5, until=1.0))
        loss = torch.nn.functional.cross_entropy(4 * layer(x).square().sum(0), torch.tensor([0, 1]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        clamp_delays(layer)
    with rounded(layer):
        assert layer(x).square().sum(0).argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: DelayedLinear(0, 2, 5), "inputs must be a whole number of at least 1, not 0"),
        (lambda: DelayedLinear(2, 2, -1), "max_delay must be a whole number of at least 0, not -1"),
        (lambda: DelayedLinear(2, 2, 5, kind="axon"), "kind must be one of .*, not 'axon'"),
        (lambda: DelayedLinear(2, 2, 2.5), "max_delay must be a whole number of at least 0, not"),
        (lambda: DelayedLinear(2, 2, 5, width=-1.0), "width must be positive and finite, not -1"),
        (
            lambda: DelayedLinear(2, 2, 5, interpolation="gauss"),
            "interpolation must be one of gaussian, triangular, not 'gauss'",
        ),
        (lambda: DelayNetwork((3,), 5), r"sizes must name inputs and classes .* not \[3\]"),
        (lambda: DelayNetwork((3, 2), 5, tau=0.5), "tau must be at least one step, not 0.5"),
        (lambda: annealed_width(0, 0.2), "above 0.27, not 0.2"),
        (lambda: annealed_width(0, 5, until=0), r"until must lie in \(0, 1\], not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
