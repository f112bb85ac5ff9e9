"""Membership inference: scores against their formulas, attacks against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from labkit.unlearning.attacks import (
    auc,
    confidence_scores,
    entropy,
    entropy_attack,
    lira,
    modified_entropy,
    tpr_at_fpr,
    u_lira,
)


def draw(*shape, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def labels(n, n_classes, seed=1):
    return torch.randint(n_classes, (n,), generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ scores from one model


def test_entropy_follows_its_formula():
    p = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]])
    assert entropy(p.log()).tolist() == pytest.approx([1.5 * math.log(2), math.log(3)], rel=1e-6)
    assert entropy(torch.tensor([[2000.0, 0.0]])).tolist() == [0.0]


def slow_modified_entropy(p, y):
    """The formula, class by class."""
    others = sum(p[i] * math.log(1 - p[i]) for i in range(len(p)) if i != y)
    return -(1 - p[y]) * math.log(p[y]) - others


def naive_modified_entropy(p, y):
    """As code in circulation has it: log p where log(1 - p) should stand, [:, y] for every row."""
    modified_p, modified_log = p.clone(), p.log()
    modified_p[:, y] = 1 - p[:, y]
    modified_log[:, y] = p.log()[:, y]
    return -(modified_p * modified_log).sum(dim=1)


def test_modified_entropy_follows_its_formula_where_the_naive_one_does_not():
    z, y = draw(50, 10, scale=3), labels(50, 10)
    p = z.softmax(dim=1)
    slow = [slow_modified_entropy(row, k) for row, k in zip(p.tolist(), y.tolist(), strict=True)]
    assert modified_entropy(z, y).tolist() == pytest.approx(slow, rel=1e-9)
    alone = [float(naive_modified_entropy(p[i : i + 1], y[i : i + 1])) for i in range(50)]
    assert alone != pytest.approx(slow, rel=0.01)


def test_modified_entropy_of_an_example_does_not_depend_on_its_batch():
    z, y = draw(8, 10, scale=3), torch.arange(8)
    ours = [float(modified_entropy(z[i : i + 1], y[i : i + 1])) for i in range(8)]
    assert modified_entropy(z, y).tolist() == pytest.approx(ours, rel=1e-12)
    p = z.softmax(dim=1)
    naive_alone = float(naive_modified_entropy(p[:1], y[:1]))
    naive_in_batch = float(naive_modified_entropy(p, y)[0])
    assert naive_in_batch > 2 * naive_alone  # published: 4.5 alone, 29.1 in a batch of eight


def test_modified_entropy_tells_sure_and_wrong_from_sure_and_right():
    z = torch.tensor([[800.0, 0.0, -800.0]]).expand(2, 3)
    right, wrong = modified_entropy(z, torch.tensor([0, 1])).tolist()
    assert right == pytest.approx(0, abs=1e-12)
    assert wrong == pytest.approx(1600, rel=1e-9)  # - log p_y, and - log(1 - p_top): 800 each
    assert entropy(z).tolist() == [0.0, 0.0]
    p = z.softmax(dim=1)
    assert torch.isinf((1 - p).log()[0, 0])  # what the plain logarithm gives


def test_confidence_is_the_logit_of_p_and_stays_finite():
    z, y = draw(50, 10), labels(50, 10)
    p = z.softmax(dim=1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(confidence_scores(z, y), p.logit())
    sure = torch.tensor([[50.0, 0.0, 0.0]])
    target = torch.tensor([0])
    assert confidence_scores(sure, target).item() == pytest.approx(50 - math.log(2))
    p = sure.softmax(dim=1)[0, 0]
    assert torch.isinf(torch.log(p / (1 - p)))  # the plain formula, in float32


def test_scores_take_any_floating_type():
    z, y = draw(5, 4), labels(5, 4)
    for score in (lambda z: entropy(z), lambda z: modified_entropy(z, y)):
        assert score(z.float()).dtype == torch.float64
        torch.testing.assert_close(score(z.half()), score(z.half().double()))


# ------------------------------------------------------------------ how good an attack is


def test_tpr_at_fpr_by_hand_with_ties():
    members = torch.tensor([3.0, 2.0, 2.0, 1.0])
    others = torch.tensor([2.0, 1.0, 0.0, 0.0])
    found = {fpr: tpr_at_fpr(members, others, fpr) for fpr in (0, 0.1, 0.25, 0.4, 0.5, 1)}
    assert found == {0: 0.25, 0.1: 0.25, 0.25: 0.75, 0.4: 0.75, 0.5: 1.0, 1: 1.0}


def test_ties_are_never_called_members_in_part_or_beyond_the_rate():
    equal = torch.zeros(10)
    assert tpr_at_fpr(equal, equal, 0.1) == 0
    threshold = np.quantile(equal, 0.9)  # a quantile of the others lets every tie through
    assert (equal.numpy() >= threshold).mean() == 1


def test_auc_counts_ties_half():
    assert auc(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0])) == 0.875
    assert auc(torch.zeros(3), torch.zeros(5)) == 0.5


@pytest.mark.parametrize("swap", [False, True])
def test_auc_of_two_gaussians(swap):
    members, others = draw(20000, seed=0) + 1, draw(20000, seed=1)
    expected = norm.cdf(1 / math.sqrt(2))
    pair = (others, members) if swap else (members, others)
    assert auc(*pair) == pytest.approx(1 - expected if swap else expected, abs=0.01)


# ------------------------------------------------------------------ scores from many models


def shadows(n, k, shift, seed=0):
    """Scores of k models, (k, n): an own mean per example (sd 5), noise of sd 1, a shift when in.

    Half of the models, drawn for each example, had it in their training set.
    """
    generator = torch.Generator().manual_seed(seed)
    mean = 5 * torch.randn(n, generator=generator, dtype=torch.float64)
    members = torch.rand(k, n, generator=generator).argsort(dim=0) < k // 2
    noise = torch.randn(k, n, generator=generator, dtype=torch.float64)
    return mean + noise + shift * members, members


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
def test_lira_reaches_the_roc_of_the_gaussian_case(offline, pooled):
    shift = 2.0
    scores, members = shadows(8000, 129, shift)
    ratio = lira(scores[0], scores[1:], members[1:], offline=offline, pooled_variance=pooled)
    inside, outside = ratio[members[0]], ratio[~members[0]]
    assert auc(inside, outside) == pytest.approx(norm.cdf(shift / math.sqrt(2)), abs=0.01)
    for fpr in (0.01, 0.1):
        expected = norm.cdf(shift - norm.isf(fpr))
        assert tpr_at_fpr(inside, outside, fpr) == pytest.approx(expected, abs=0.04)
    # One threshold for all examples, on the score itself, sees next to nothing of this.
    population = auc(scores[0][members[0]], scores[0][~members[0]])
    assert population < 0.65


def test_lira_equals_the_ratio_of_densities():
    scores, members = shadows(6, 12, 1.0)
    attacked = draw(3, 6)
    found = lira(attacked, scores, members)
    for i in range(6):
        inside, outside = (scores[side, i].numpy() for side in (members[:, i], ~members[:, i]))
        densities = [
            norm.logpdf(attacked[:, i], each.mean(), each.std(ddof=1)) for each in (inside, outside)
        ]
        np.testing.assert_allclose(found[:, i], densities[0] - densities[1], rtol=1e-9)


def test_offline_lira_orders_as_one_sided_probability_and_does_not_saturate():
    scores, members = shadows(5, 40, 0.0)
    mu = torch.where(members, torch.nan, scores).nanmean(dim=0)
    far = torch.stack([mu - 3, mu, mu + 3, mu + 30, mu + 60])
    found = lira(far, scores, members, offline=True)
    assert (found.diff(dim=0) > 0).all() and torch.allclose(found[1], mu * 0)
    probability = norm.cdf(found)
    assert (probability[3] == probability[4]).all()
    two_sided = -norm.logpdf(found)  # the density: far below counts as far above
    assert two_sided[0] == pytest.approx(two_sided[2])


def test_pooled_variance_leaves_out_the_spread_between_examples():
    mean, members = 5 * draw(2000, seed=1), (torch.arange(4) < 2)[:, None].expand(4, 2000)
    scores = mean + 2 * members + draw(4, 2000, seed=2)  # two models a side: few for a variance
    inside, outside = mean + 2 + draw(2000, seed=3), mean + draw(2000, seed=4)
    areas = [
        auc(*(lira(each, scores, members, pooled_variance=pooled) for each in (inside, outside)))
        for pooled in (False, True)
    ]
    assert areas[1] > areas[0] + 0.1
    z = lira(inside, scores, members, offline=True, pooled_variance=True)
    sigma = (inside - scores[2:].mean(dim=0)) / z
    assert sigma.mean().item() == pytest.approx(1, abs=0.1) and sigma.std() < 1e-6
    assert scores[2:].std() > 4  # the deviation over all models and examples is another thing


def test_u_lira_sees_what_a_population_attack_does_not():
    """Each example keeps a trace of its own sign: the mean score over examples gives no hint."""
    n, k = 4000, 65
    mean, sign = 5 * draw(n, seed=1), draw(n, seed=2).sign()
    unlearned = mean + sign + draw(k, n, seed=3)
    retrained = mean + draw(k, n, seed=4)
    inside, outside = (
        u_lira(side[0], unlearned[1:], retrained[1:]) for side in (unlearned, retrained)
    )
    assert auc(inside, outside) == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.02)
    assert auc(unlearned[0], retrained[0]) == pytest.approx(0.5, abs=0.03)


def test_u_lira_finds_nothing_after_perfect_unlearning():
    mean = 5 * draw(4000, seed=1)
    unlearned, retrained = (mean + draw(33, 4000, seed=seed) for seed in (3, 4))
    ratios = [u_lira(side[0], unlearned[1:], retrained[1:]) for side in (unlearned, retrained)]
    assert auc(*ratios) == pytest.approx(0.5, abs=0.03)


def test_u_lira_is_lira_with_models_for_members():
    a, b, attacked = draw(7, 5, seed=1), draw(9, 5, seed=2), draw(2, 5, seed=3)
    members = (torch.arange(16) < 7)[:, None].expand(16, 5)
    for pooled in (False, True):
        found = u_lira(attacked, a, b, pooled_variance=pooled)
        expected = lira(attacked, torch.cat([a, b]), members, pooled_variance=pooled)
        torch.testing.assert_close(found, expected)


# ------------------------------------------------------------------ the entropy attack


def logits_of_confidence(scale, n, seed):
    return torch.nn.functional.one_hot(labels(n, 10, seed), 10) * scale + draw(n, 10, seed=seed)


def test_entropy_attack_calls_the_forget_set_what_it_resembles():
    sure = [logits_of_confidence(12.0, n, seed) for n, seed in ((300, 1), (100, 2))]
    unsure = [logits_of_confidence(2.0, n, seed) for n, seed in ((100, 3), (100, 4))]
    assert entropy_attack(retain=sure[0], test=unsure[0], forget=sure[1]) > 0.95
    assert entropy_attack(retain=sure[0], test=unsure[0], forget=unsure[1]) < 0.05


def test_entropy_attack_is_balanced():
    """Nine times as many members as others must not make everything a member."""
    members, others = draw(900, 2, seed=1), draw(100, 2, seed=2)
    share = entropy_attack(retain=3 * members, test=2 * others, forget=2 * draw(1000, 2, seed=3))
    assert 0.2 < share < 0.7


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: entropy([1.0]), TypeError, "logits.*list"),
        (lambda: entropy(torch.ones(3)), ValueError, r"logits.*\(N, C\).*\(3,\)"),
        (lambda: entropy(torch.ones(3, 1)), ValueError, r"C >= 2.*\(3, 1\)"),
        (lambda: entropy(torch.ones(0, 3)), ValueError, r"\(0, 3\)"),
        (lambda: entropy(torch.ones(3, 2, dtype=torch.int64)), TypeError, "logits.*int64"),
        (lambda: entropy(torch.tensor([[1.0, math.nan]])), ValueError, "logits must be finite"),
        (lambda: modified_entropy(torch.ones(2, 3), torch.ones(2)), TypeError, "targets.*float32"),
        (lambda: modified_entropy(torch.ones(2, 3), torch.tensor([0])), ValueError, r"\(2,\)"),
        (lambda: confidence_scores(torch.ones(1, 3), torch.tensor([3])), ValueError, "0 to 2"),
        (lambda: confidence_scores(torch.ones(1, 3), torch.tensor([-1])), ValueError, "-1"),
        (lambda: auc(torch.ones(0), torch.ones(1)), ValueError, "scores_members"),
        (lambda: auc(torch.ones(1), torch.tensor([math.inf])), ValueError, "scores_others.*finite"),
        (lambda: auc([1.0], torch.ones(1)), TypeError, "scores_members.*list"),
        (lambda: tpr_at_fpr(torch.ones(1), torch.ones(1), 5), ValueError, "fpr.*5"),
        (lambda: tpr_at_fpr(torch.ones(1), torch.ones(1), math.nan), ValueError, "fpr.*nan"),
        (
            lambda: entropy_attack(
                retain=torch.ones(2, 2), test=torch.ones(2), forget=torch.ones(2, 2)
            ),
            ValueError,
            r"test must be \(N, C\)",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scores": torch.ones(2, 3, 5)}, ValueError, r"scores.*\(2, 3, 5\)"),
        ({"scores": torch.ones(4)}, ValueError, r"shadow_scores.*N = 4.*\(8, 5\)"),
        ({"scores": torch.full((5,), math.nan)}, ValueError, "scores must be finite"),
        ({"shadow_scores": draw(5)}, ValueError, r"shadow_scores.*\(5,\)"),
        ({"members": torch.ones(8, 5)}, TypeError, "members.*bool.*float32"),
        ({"members": torch.ones(5, 8, dtype=torch.bool)}, ValueError, r"\(8, 5\).*\(5, 8\)"),
        ({"members": torch.ones(8, 5, dtype=torch.bool)}, ValueError, "2 shadow models without.*0"),
        ({"members": torch.arange(8)[:, None].expand(8, 5) < 1}, ValueError, "2 .*with each.*1"),
        ({"shadow_scores": torch.full((8, 5), 0.1)}, ValueError, "vary; those of 5 of 5.*pool"),
        ({"shadow_scores": torch.ones(8, 5), "pooled_variance": True}, ValueError, "5 of 5"),
    ],
)
def test_bad_shadows_are_named(change, error, message):
    members = torch.arange(8)[:, None].expand(8, 5) < 4
    good = {"scores": torch.ones(5), "shadow_scores": draw(8, 5), "members": members}
    with pytest.raises(error, match=message):
        lira(**good | change)


def test_u_lira_names_the_side_that_is_wrong():
    with pytest.raises(ValueError, match=r"retrained_scores.*\(3, 4\)"):
        u_lira(torch.ones(5), draw(3, 5), draw(3, 4))
    with pytest.raises(ValueError, match=r"retrained_scores.*example 0 has 1"):
        u_lira(torch.ones(5), draw(3, 5), draw(1, 5))
