"""Unlearnable noise: what the inner loop does, its bounds, masks, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.unlearning import input_gradient, min_min_noise, pgd, project, small_cnn


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def examples(N=24, seed=0):
    g = draw(seed)
    return torch.rand(N, 1, 8, 8, generator=g), torch.arange(N) % 3


def model(seed=0):
    return small_cnn(draw(seed), 1, 3, width=4).eval()


def mean_loss(net, x, y):
    return float(F.cross_entropy(net(x), y).detach())


def test_project_is_the_nearest_noise_in_both_boxes():
    x = torch.tensor([0.0, 0.95, 0.5, 0.5])
    delta = torch.tensor([-0.2, 0.2, -0.2, 0.05])
    torch.testing.assert_close(project(delta, x, 0.1), torch.tensor([0.0, 0.05, -0.1, 0.05]))


def test_gradient_of_an_image_ignores_the_others():
    (x, y), net = examples(), model()
    alone = torch.cat([input_gradient(net, x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(input_gradient(net, x, y), alone, rtol=1e-4, atol=1e-6)


def test_one_step_on_a_linear_model_follows_the_formula():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    W = net[1].weight.detach()
    direction = torch.stack([(W[1 - k] - W[k]).sign().reshape(1, 2, 2) for k in y])
    for sign in (-1, 1):
        found = pgd(net, (x, y), torch.zeros_like(x), 0.3, step=0.1, n_steps=1, sign=sign)
        torch.testing.assert_close(found, sign * 0.1 * direction)


def test_descent_lowers_the_loss_and_ascent_raises_it():
    (x, y), net = examples(), model()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    low, high = (
        pgd(net, (x, y), torch.zeros_like(x), 0.1, step=0.02, n_steps=10, sign=sign)
        for sign in (-1, 1)
    )
    assert mean_loss(net, x + low, y) < mean_loss(net, x, y) < mean_loss(net, x + high, y)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


def test_noise_per_image_keeps_within_bounds_and_mask():
    x, y = examples()
    mask = (torch.rand(x.shape, generator=draw(1)) < 0.25).float()
    noise, errors = min_min_noise(
        model(), (x, y), 0.1, generator=draw(2), mask=mask, max_rounds=3, stop_error=0
    )
    assert noise.shape == x.shape and len(errors) == 3
    assert noise.abs().max() <= 0.1 + 1e-6
    assert (x + noise).min() >= 0 and (x + noise).max() <= 1
    assert not noise[mask == 0].any() and noise[mask == 1].any()


def test_noise_per_class_is_one_per_class():
    x, y = examples()
    noise, _ = min_min_noise(model(), (x, y), 0.1, generator=draw(2), class_wise=True)
    assert noise.shape == (3, 1, 8, 8) and noise.abs().max() <= 0.1 + 1e-6


def test_it_stops_once_the_source_model_errs_little():
    x, y = examples()
    net = model()
    noise, errors = min_min_noise(net, (x, y), 0.3, generator=draw(2), max_rounds=40)
    assert errors[-1] < 0.01 and all(error >= 0.01 for error in errors[:-1])
    assert not net.training
    wrong = (net(x + noise).argmax(dim=1) != y).double().mean()
    assert float(wrong) == errors[-1]


def test_the_generator_decides():
    one, again, other = (
        min_min_noise(model(), examples(), 0.1, generator=draw(s), max_rounds=2)[0]
        for s in (3, 3, 4)
    )
    assert one.equal(again) and not one.equal(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 0.0}, "eps must be positive"),
        ({"step": -1.0}, "step must be positive"),
        ({"n_steps": 0}, "n_steps must be a whole number of at least 1, not 0"),
        ({"max_rounds": 1.5}, "max_rounds must be a whole number"),
        ({"mask": torch.ones(5, 5)}, r"mask must broadcast to the images \(24, 1, 8, 8\)"),
        ({"mask": torch.full((8, 8), 0.5)}, "mask must hold 0 and 1 alone"),
        ({"mask": torch.ones(8, 8), "class_wise": True}, "class_wise must be False"),
        ({"examples": (2 * examples()[0], examples()[1])}, r"images must lie in \[0, 1\]"),
        (
            {"examples": (examples()[0], 2 * (torch.arange(24) % 2)), "class_wise": True},
            "no class may lack images; 1 does",
        ),
    ],
)
def test_what_is_refused(change, message):
    arguments = {"examples": examples(), "eps": 0.1, "generator": draw()} | change
    with pytest.raises(ValueError, match=message):
        min_min_noise(model(), **arguments)
