"""Every method of unlearning: what it must do, and what the wrong formulas in use would do."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.seeding import seeded
from labkit.unlearning.dampening import (
    adaptive_ssd,
    jit_unlearning,
    loss_free_ssd,
    ssd,
)
from labkit.unlearning.finetuning import (
    amnesiac,
    bad_teacher,
    divergence,
    error_maximising_noise,
    fine_tune,
    gradient_ascent,
    neg_grad_plus,
    random_labels,
    saliency_mask,
    salun,
    scrub,
    unsir,
    wrong_labels,
)
from labkit.unlearning.training import Recipe, train


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def network(generator, *, norm=False, dtype=torch.float64):
    with seeded(generator):
        hidden = [nn.BatchNorm1d(16)] if norm else []
        layers = nn.Linear(6, 16), *hidden, nn.ReLU(), nn.Linear(16, 3)
        return nn.Sequential(*layers).to(dtype).eval()


@pytest.fixture(scope="module")
def case():
    """A network that knows three classes; the first is to be forgotten."""
    g = draw()
    y = torch.arange(150) % 3
    x = 2 * torch.eye(3, 6).double()[y] + torch.randn(150, 6, generator=g).double() / 2
    model = network(g)
    train(model, (x, y), Recipe(epochs=40, batch_size=16, lr=5e-3), generator=g)
    return model, (x[y == 0], y[y == 0]), (x[y > 0], y[y > 0])


QUICK = Recipe(epochs=4, batch_size=16, lr=5e-3)
TRAINED = {
    "fine_tune": partial(fine_tune, recipe=QUICK),
    "gradient_ascent": partial(gradient_ascent, recipe=QUICK),
    "neg_grad_plus": partial(neg_grad_plus, beta=0.7, recipe=QUICK),
    "random_labels": partial(random_labels, recipe=QUICK),
    "amnesiac": partial(amnesiac, recipe=QUICK),
    "salun": partial(salun, recipe=QUICK),
    "scrub": partial(scrub, recipe=Recipe(epochs=6, batch_size=16, lr=5e-3)),
    "bad_teacher": partial(bad_teacher, incompetent=network(draw(99)), recipe=QUICK),
    "unsir": partial(unsir, noise_steps=10),
    "jit_unlearning": partial(jit_unlearning, copies=5, sigma=0.5),
}
DAMPENED = {
    "ssd": lambda *data, generator: ssd(*data, alpha=1.5),
    "ssd_empirical": lambda *data, generator: ssd(*data, alpha=1.5, fisher="empirical"),
    "ssd_batch": lambda *data, generator: ssd(*data, alpha=1.5, fisher="batch", batch_size=16),
    "loss_free_ssd": lambda *data, generator: loss_free_ssd(*data, alpha=1.2),
    "adaptive_ssd": lambda *data, generator: adaptive_ssd(*data),
}
METHODS = TRAINED | DAMPENED
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def state(model):
    return copy.deepcopy(model.state_dict())


def same(model, before):
    return all(value.equal(before[name]) for name, value in model.state_dict().items())


def loss(model, data):
    return float(F.cross_entropy(model(data[0]), data[1]).detach())


# ------------------------------------------------------------------ all methods


@every_method
def test_a_new_model_comes_back_and_the_old_one_stays(method, case):
    model = case[0]
    before, data = state(model), [value.clone() for pair in case[1:] for value in pair]
    global_state = torch.random.get_rng_state()
    student = method(*case, generator=draw(1))
    again = method(*case, generator=draw(1))
    assert same(model, before) and not any(p.grad is not None for p in model.parameters())
    assert torch.random.get_rng_state().equal(global_state)
    assert all(torch.equal(*pair) for pair in zip(data, case[1] + case[2], strict=True))
    assert not same(student, before) and same(student, state(again))
    assert type(student) is type(model) and not student.training
    assert all(p.requires_grad and p.grad is None for p in student.parameters())
    assert {p.data_ptr() for p in student.parameters()}.isdisjoint(
        p.data_ptr() for p in model.parameters()
    )


# Scrub may leave its teacher upwards, and unsir asks for a network that noise can mislead: below.
@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"fine_tune", "scrub", "unsir"}))
def test_the_forget_set_is_lost(name, case):
    model, forget, _ = case
    student = METHODS[name](*case, generator=draw(1))
    assert loss(student, forget) > 2 * loss(model, forget)


@pytest.mark.parametrize("name", ["fine_tune", "amnesiac", "salun", "scrub", "bad_teacher"])
def test_the_retain_set_is_kept(name, case):
    model, _, (x, y) = case
    student = METHODS[name](*case, generator=draw(1))
    kept = (student(x).argmax(dim=1) == y).double().mean()
    assert kept >= (model(x).argmax(dim=1) == y).double().mean() - 0.05


def clash(forget, retain):
    """One forget example of two stands in the retain set as well."""
    both = zip(retain, forget, strict=True)
    return tuple(value[:2] for value in forget), tuple(torch.cat([r, f[:1]]) for r, f in both)


BAD = {
    "empty forget": (lambda f, r: ((f[0][:0], f[1][:0]), r), ValueError, "forget.*at least one"),
    "empty retain": (lambda f, r: (f, (r[0][:0], r[1][:0])), ValueError, "retain.*at least one"),
    "overlap": (clash, ValueError, r"overlap; 1 of 2 forget"),
    "shapes": (lambda f, r: (f, (r[0][:, :5], r[1])), ValueError, r"one shape.*\(6,\).*\(5,\)"),
    "classes": (lambda f, r: ((f[0], f[1] + 3), r), ValueError, "forget.*0 to 2, not 3 to 3"),
    "labels": (lambda f, r: (f, (r[0], r[1].float())), TypeError, r"retain.*int64.*float32"),
    "dtype": (lambda f, r: ((f[0].float(), f[1]), r), TypeError, r"forget.*float64.*float32"),
    "nan": (lambda f, r: ((f[0] * torch.nan, f[1]), r), ValueError, r"forget inputs.*finite"),
}


@every_method
@pytest.mark.parametrize(("bad", "error", "message"), BAD.values(), ids=BAD)
def test_bad_data_leave_the_model_as_it_was(method, bad, error, message, case):
    model, forget, retain = case
    before = state(model)
    with pytest.raises(error, match=message):
        method(model, *bad(forget, retain), generator=draw())
    assert same(model, before)


@every_method
def test_bad_models(method, case):
    model, *data = case
    frozen = copy.deepcopy(model)
    frozen[2].bias.requires_grad_(False)
    broken = copy.deepcopy(model)
    broken[0].weight.data[1, 2] = torch.nan
    for bad, message in (
        (frozen, r"frozen: '2.bias'"),
        (nn.Sequential(nn.Flatten()), "parameters; it has none"),
        (broken, r"'0.weight'.*finite"),
    ):
        before = state(bad)
        with pytest.raises(ValueError, match=message):
            method(bad, *data, generator=draw())
        assert all(
            torch.allclose(value, before[name], rtol=0, atol=0, equal_nan=True)
            for name, value in bad.state_dict().items()
        )


@pytest.mark.parametrize("name", [*DAMPENED, "jit_unlearning", "salun"])
def test_batch_norm_in_training_mode_is_refused_where_importances_are_taken(name, case):
    model = network(draw(), norm=True).train()
    before = state(model)
    with pytest.raises(ValueError, match=r"'1'.*model.eval\(\)"):
        METHODS[name](model, *case[1:], generator=draw())
    assert same(model, before) and model.training
    METHODS[name](model.eval(), *case[1:], generator=draw())


@pytest.mark.parametrize("name", TRAINED)
def test_batch_norm_in_training_mode_is_no_matter_to_training(name, case):
    if name in ("jit_unlearning", "salun"):
        return
    model = network(draw(), norm=True)
    student = METHODS[name](model, *case[1:], generator=draw(2))
    before = state(model)
    from_training = METHODS[name](model.train(), *case[1:], generator=draw(2))
    assert same(from_training, state(student)) and not from_training.training
    assert same(model, before)


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        (neg_grad_plus, {"beta": 1.0}, "beta.*1.0"),
        (salun, {"share": 0.0}, "share.*0.0"),
        (scrub, {"ascent_epochs": 9, "recipe": QUICK}, "ascent_epochs.*4.*9"),
        (bad_teacher, {"incompetent": nn.Linear(6, 4).double()}, "incompetent.*3 logits.*4"),
        (unsir, {"noise_steps": 0}, "noise_steps.*0"),
        (jit_unlearning, {"sigma": -1.0}, "sigma.*-1"),
        (jit_unlearning, {"lr": 0.0}, "lr.*0"),
    ],
)
def test_bad_numbers(method, values, message, case):
    before = state(case[0])
    with pytest.raises(ValueError, match=message):
        method(*case, **values, generator=draw())
    assert same(case[0], before)


# ------------------------------------------------------------------ one by one


def test_gradient_ascent_and_neg_grad_plus_step_up_their_loss(case):
    model, forget, retain = case
    one = Recipe(epochs=1, batch_size=1000, lr=1e-3)
    for method, raised in (
        (gradient_ascent, lambda m: loss(m, forget)),
        (neg_grad_plus, lambda m: 0.05 * loss(m, forget) - 0.95 * loss(m, retain)),
    ):
        assert raised(method(*case, recipe=one, generator=draw())) > raised(model)


def test_wrong_labels_are_never_true_and_uniform():
    """Drawing from all classes gives one label of C back to the truth."""
    y = torch.arange(10).repeat(3000)
    naive = torch.randint(10, y.shape, generator=draw())
    assert abs((naive == y).double().mean() - 0.1) < 0.01
    labels = wrong_labels(y, 10, draw())
    assert not (labels == y).any() and labels.min() >= 0 and labels.max() < 10
    counts = torch.stack([(labels[y == 4] == k).sum() for k in range(10) if k != 4])
    assert (counts / 3000 - 1 / 9).abs().max() < 0.025


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_salun_leaves_masked_weights_exactly_as_they_were(weight_decay, case):
    """Zeroing their gradient is not enough: weight decay and old momentum still move them."""
    model, forget, _ = case
    recipe = Recipe(epochs=3, batch_size=16, lr=0.01, weight_decay=weight_decay)
    mask = saliency_mask(model, forget, 0.5)
    before, student = state(model), salun(*case, recipe=recipe, generator=draw())
    for name, parameter in student.named_parameters():
        assert parameter[~mask[name]].equal(before[name][~mask[name]])
    assert any(not p[mask[n]].equal(before[n][mask[n]]) for n, p in student.named_parameters())

    naive = copy.deepcopy(model)
    optimizer = recipe.optimizer(naive.parameters())
    for step in range(2):  # one step without the mask, as any momentum of before; one with it
        optimizer.zero_grad()
        F.cross_entropy(naive(forget[0]), 2 - forget[1]).backward()
        if step == 1:
            middle = state(naive)
            for name, parameter in naive.named_parameters():
                parameter.grad[~mask[name]] = 0
        optimizer.step()
    assert any(not p[~mask[n]].equal(middle[n][~mask[n]]) for n, p in naive.named_parameters())


def test_saliency_mask_holds_the_largest_gradients(case):
    model, (x, y), _ = case
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(named.values()))
    for share in (0.1, 0.5, 1.0):
        mask = saliency_mask(model, (x, y), share)
        kept = torch.cat([mask[name].flatten() for name in named])
        sizes = torch.cat([g.abs().flatten() for g in gradients])
        assert int(kept.sum()) >= round(share * len(sizes))
        assert share == 1 or sizes[kept].min() > sizes[~kept].max()


def test_divergence_is_that_of_the_definition_and_not_divided_by_the_classes():
    """Means over examples and classes, `kl_div`'s default, are C times too small."""
    C = 10
    s, t = torch.randn(2, 7, C, generator=draw()).double()
    q, p = s.softmax(dim=1), t.softmax(dim=1)
    exact = (p * (p / q).log()).sum(dim=1).mean()
    torch.testing.assert_close(divergence(s, t), exact)
    naive = F.kl_div(s.log_softmax(dim=1), p, reduction="none").mean()
    torch.testing.assert_close(naive * C, exact)
    assert divergence(t, t).abs() < 1e-12
    T = 4.0
    torch.testing.assert_close(divergence(s, t, T), 16 * divergence(s / T, t / T))


def test_scrub_ascends_the_divergence_alone(case):
    """From the teacher itself the divergence has no gradient; its sum with a cross-entropy has."""
    model, (x, y), _ = case
    one = Recipe(epochs=1, batch_size=64, lr=1e-3)
    student = scrub(
        *case, alpha=0, gamma=0, ascent_epochs=1, forget_batch_size=64, recipe=one, generator=draw()
    )
    before = state(model)
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-8)

    naive = copy.deepcopy(model)
    optimizer = one.optimizer(naive.parameters())
    teacher = model(x).detach()
    (-(F.cross_entropy(naive(x), y) + divergence(naive(x), teacher))).backward()
    optimizer.step()
    assert max((p - before[n]).abs().max() for n, p in naive.named_parameters()) > 1e-4


def test_scrub_leaves_the_teacher_on_the_forget_set(case):
    model, (x, _), (x_r, _) = case
    student = TRAINED["scrub"](*case, generator=draw())
    with torch.no_grad():
        on_forget, on_retain = (divergence(student(v), model(v), 4.0) for v in (x, x_r))
    assert on_forget > 3 * on_retain


def test_scrub_ignores_the_labels_of_the_forget_set(case):
    model, (x, y), retain = case
    students = [
        scrub(model, (x, labels), retain, recipe=QUICK, generator=draw()) for labels in (y, y + 1)
    ]
    assert same(students[0], state(students[1]))


def test_bad_teacher_learns_from_each_teacher_its_own_part(case):
    model, forget, retain = case
    incompetent = network(draw(99))
    long = Recipe(epochs=60, batch_size=16, lr=5e-3)
    student = bad_teacher(*case, incompetent=incompetent, recipe=long, generator=draw())
    for data, near, far in ((forget, incompetent, model), (retain, model, incompetent)):
        with torch.no_grad():
            logits, own, other = (m(data[0]) for m in (student, near, far))
        assert divergence(logits, own) < 0.1 * divergence(logits, other)


def test_unsir_never_sees_a_forget_input(case):
    """Only the shape and the classes of the forget set count."""
    model, (x, y), retain = case
    student = unsir(*case, noise_steps=5, generator=draw())
    other = unsir(model, (x + 1, y), retain, noise_steps=5, generator=draw())
    assert same(student, state(other))


def test_noise_maximises_the_error_and_the_penalty_bounds_it(case):
    model, (x, y), _ = case
    start, free, bound = (
        error_maximising_noise(model, (x, y), steps, 0.1, penalty, draw())
        for steps, penalty in ((1, 0.0), (40, 0.0), (40, 1.0))
    )
    assert start.shape == x.shape and loss(model, (free, y)) > 5 + loss(model, (start, y))
    assert bound.norm() < free.norm() / 2


def test_jit_smooths_around_the_forget_set_and_takes_nothing_from_the_rest(case):
    model, (x, y), retain = case
    student = jit_unlearning(*case, generator=draw())
    fewer = tuple(value[:5] for value in retain)
    assert same(jit_unlearning(model, (x, y), fewer, generator=draw()), state(student))

    @torch.no_grad()
    def roughness(m):
        eps = 0.2 * torch.randn(25, *x.shape, generator=draw(7), dtype=x.dtype)
        change = (m(x) - m((x + eps).flatten(0, 1)).unflatten(0, (25, -1))).norm(dim=2)
        return float((change / eps.norm(dim=2)).mean())

    assert roughness(student) < 0.8 * roughness(model)
