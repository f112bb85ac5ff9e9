"""The loop of steps, against the same steps written out."""

import pytest
import torch
from torch import nn

from labkit.training import descend


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(3)
    return torch.randn(20, 4, generator=g), torch.randn(20, 1, generator=g)


def line(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1))


def test_the_steps_are_those_of_a_loop_written_out(data):
    x, y = data
    ours, theirs = line(), line()
    batches = torch.randperm(20, generator=torch.Generator().manual_seed(1)).split(5) * 3

    adam = torch.optim.Adam(theirs.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 5e-2, len(batches))
    expected = []
    for i in batches:
        loss = (theirs(x[i]) - y[i]).square().mean()
        expected.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        with torch.no_grad():
            theirs[0].weight.clamp_(-0.4, 0.4)

    adam = torch.optim.Adam(ours.parameters(), 1e-2)
    losses = descend(
        ours,
        lambda i: (ours(x[i]) - y[i]).square().mean(),
        batches,
        adam,
        schedule=torch.optim.lr_scheduler.OneCycleLR(adam, 5e-2, len(batches)),
        after_step=lambda: ours[0].weight.clamp_(-0.4, 0.4),
    )
    assert losses.tolist() == expected
    for mine, its in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(mine, its)


def test_the_model_learns_in_training_mode_and_is_left_in_evaluation_mode(data):
    x, _ = data
    model, modes = line().eval(), []

    def loss(step):
        modes.append(model.training)
        return model(x).square().mean()

    descend(model, loss, range(2), torch.optim.SGD(model.parameters(), 0.1))
    assert modes == [True, True] and not model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_that_is_not_finite_is_named_before_its_step(data):
    x, _ = data
    model = line()

    def loss(step):
        return model(x).mean() * (torch.inf if step == 2 else 1.0)

    before = []
    with pytest.raises(
        FloatingPointError, match=r"inf at step 3 of 4: lower the learning rate, 0.1 "
    ):
        descend(
            model,
            loss,
            range(4),
            torch.optim.SGD(model.parameters(), 0.1),
            after_step=lambda: before.append(model[2].weight.clone()),
        )
    assert len(before) == 2 and torch.equal(before[-1], model[2].weight)


def test_batches_are_asked_for_one_at_a_time_and_a_bar_is_shown(data, capsys):
    x, _ = data
    model, seen = line(), []

    def lazily():
        for k in range(3):
            seen.append(k)
            yield k

    def loss(k):
        assert seen[-1] == k
        return model(x).square().mean()

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert descend(model, loss, lazily(), optimizer, describe="a line").shape == (3,)
    assert "a line" in capsys.readouterr().err
