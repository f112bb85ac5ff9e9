"""Scenarios of forgetting: which examples are marked, which labels change, what is tested."""

import pytest
import torch

from labkit.data import digits_split
from labkit.unlearning.scenarios import (
    class_forgetting,
    confusion,
    memorisation_scores,
    memorised_forgetting,
    poison,
    random_forgetting,
    stamp,
    subclass_forgetting,
)
from labkit.unlearning.training import Recipe, digits_mlp


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def split():
    return digits_split(1200, generator=draw())


def by_score(train, test):
    return memorised_forgetting(train, test, torch.arange(len(train[1])).float(), 30)


MAKERS = {
    "class": lambda train, test, _: class_forgetting(train, test, 3),
    "subclass": lambda train, test, g: subclass_forgetting(train, test, 3, generator=g),
    "random": lambda train, test, g: random_forgetting(train, test, 50, generator=g),
    "memorised": lambda train, test, _: by_score(train, test),
    "poison": lambda train, test, g: poison(train, test, 60, generator=g),
    "confusion": lambda train, test, g: confusion(train, test, generator=g),
}


def test_split(split):
    (x, y), (x_test, y_test) = split
    assert x.shape == (1200, 1, 8, 8) and x_test.shape == (597, 1, 8, 8)
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    assert x.min() == 0 and x.max() == 1 and y.unique().equal(y_test.unique())
    assert not digits_split(1200, generator=draw(1))[0][0].equal(x)
    with pytest.raises(ValueError, match=r"1796.*1797"):
        digits_split(1797, generator=draw())


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_every_scenario_parts_the_training_set(maker, split):
    train, test = split
    before = [value.clone() for value in (*train, *test)]
    scenario, again = maker(train, test, draw(3)), maker(train, test, draw(3))
    both = torch.cat([scenario.forget, scenario.retain])
    assert both.sort().values.equal(torch.arange(1200))
    assert scenario.forget.equal(again.forget) and scenario.train[1].equal(again.train[1])
    assert len(scenario.forget_set[0]) == len(scenario.forget) > 0
    assert scenario.retain_set[1].equal(scenario.train[1][scenario.retain])
    assert len(scenario.affected[0]) == len(scenario.affected[1]) > 0
    assert all(value.equal(old) for value, old in zip((*train, *test), before, strict=True))


def test_class(split):
    scenario = class_forgetting(*split, 3)
    assert (scenario.forget_set[1] == 3).all() and not (scenario.retain_set[1] == 3).any()
    assert (scenario.affected[1] == 3).all() and not (scenario.test[1] == 3).any()
    with pytest.raises(ValueError, match="class 10; the classes are 0, 1"):
        class_forgetting(*split, 10)


def test_subclass_is_the_smallest_cluster_and_only_of_its_class(split):
    scenario = subclass_forgetting(*split, 3, n_clusters=3, generator=draw())
    n = int((split[0][1] == 3).sum())
    assert 0 < len(scenario.forget) <= n / 3
    assert (scenario.forget_set[1] == 3).all() and (scenario.affected[1] == 3).all()
    assert (scenario.test[1] == 3).any()
    x = scenario.train[0].flatten(1)
    centre = x[scenario.forget].mean(dim=0)
    rest = x[(scenario.train[1] == 3) & ~torch.isin(torch.arange(len(x)), scenario.forget)]
    inside = (x[scenario.forget] - centre).norm(dim=1).mean()
    assert inside < (rest - centre).norm(dim=1).mean()


def test_memorised_takes_the_highest_scores(split):
    assert by_score(*split).forget.equal(torch.arange(1170, 1200))
    with pytest.raises(ValueError, match=r"scores.*\(1200,\).*\(3,\)"):
        memorised_forgetting(*split, torch.zeros(3))


def test_wrong_labels_are_memorised(split):
    """Only a network that has seen a wrong label gives it, so that its score is high."""
    x, y = (value[:300].clone() for value in split[0])
    y[:15] = (y[:15] + 1) % 10
    recipe = Recipe(epochs=25, batch_size=32, lr=4e-3)
    scores = memorisation_scores((x, y), digits_mlp, recipe, members=12, generator=draw())
    assert scores.shape == (300,) and scores.abs().max() <= 1
    assert scores[:15].mean() > 0.6 and scores[15:].mean() < 0.2


def test_poison(split):
    train, test = split
    scenario = poison(train, test, 60, target=0, generator=draw())
    x, y = scenario.forget_set
    assert len(y) == 60 and (y == 0).all() and (x[..., -2:, -2:] == 1).all()
    assert not (train[1][scenario.forget] == 0).any()
    assert x[..., :-2, :].equal(train[0][scenario.forget][..., :-2, :])
    assert scenario.retain_set[0].equal(train[0][scenario.retain])
    assert scenario.test[0].equal(test[0])
    # With images of the target among them, a network that always says 0 would look right.
    assert not (scenario.affected[1] == 0).any()
    assert (scenario.affected[0][..., -2:, -2:] == 1).all()


def test_stamp():
    x = torch.rand(2, 1, 8, 8, generator=draw())
    stamped = stamp(x, size=3, value=0.5)
    assert (stamped[..., 5:, 5:] == 0.5).all() and int((stamped != x).sum()) == 18
    with pytest.raises(ValueError, match=r"\(2, 64\)"):
        stamp(x.flatten(1))
    with pytest.raises(ValueError, match="size is 9"):
        stamp(x, size=9)


def test_confusion_swaps_both_ways_at_once(split):
    """Replacing one label after the other gives back the truth to the first; ours does not."""
    train, test = split
    naive = train[1].clone()
    naive[naive == 3] = 8
    naive[naive == 8] = 3
    assert (naive[train[1] == 3] == 3).all()

    scenario = confusion(train, test, (3, 8), share=1.0, generator=draw())
    labels = scenario.train[1]
    assert (labels[train[1] == 3] == 8).all() and (labels[train[1] == 8] == 3).all()
    half = confusion(train, test, (3, 8), share=0.5, generator=draw())
    truth, given = train[1][half.forget], half.forget_set[1]
    assert (truth + given == 11).all() and (truth != given).all()
    for label in (3, 8):
        share = (truth == label).sum() / (train[1] == label).sum()
        assert abs(share - 0.5) < 0.01
    assert half.retain_set[1].equal(train[1][half.retain])
    assert set(half.affected[1].tolist()) == {3, 8} and not set(half.test[1].tolist()) & {3, 8}


def test_identified_hides_the_rest_in_the_retain_set(split):
    full = poison(*split, 60, generator=draw())
    part = full.identified(0.2, generator=draw(1))
    assert len(part.forget) == 12 and torch.isin(part.forget, full.forget).all()
    assert int(torch.isin(part.retain, full.forget).sum()) == 48
    assert part.train is full.train and part.affected is full.affected
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"share.*{share}"):
            full.identified(share, generator=draw())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: random_forgetting(*s, 0, generator=draw()), "1 to 1200.*not 0"),
        (lambda s: random_forgetting(*s, 1201, generator=draw()), "not 1201"),
        (lambda s: poison(*s, target=11, generator=draw()), "class 11"),
        (lambda s: confusion(*s, (3, 3), generator=draw()), "3 twice"),
        (lambda s: confusion(*s, share=0.0, generator=draw()), "share.*0.0"),
        (lambda s: subclass_forgetting(*s, n_clusters=1, generator=draw()), "n_clusters.*1"),
        (
            lambda s: memorisation_scores(s[0], digits_mlp, Recipe(), share=1.0, generator=draw()),
            "share",
        ),
    ],
)
def test_bad_input(make, message, split):
    with pytest.raises(ValueError, match=message):
        make(split)
