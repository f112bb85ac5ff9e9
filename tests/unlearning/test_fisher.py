"""The Fisher diagonal against the gradient of every sample taken alone, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from labkit.seeding import seeded
from labkit.unlearning import fisher, fisher_diagonal
from labkit.unlearning.fisher import batch_fisher_diagonal, output_sensitivity


def alone(model, x, y=None):
    """One sample at a time, by plain autograd of the textbook loss."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in trainable.items()}
    for b in range(len(x)):
        logits = model(x[b : b + 1])
        p = logits.softmax(dim=1).detach()[0]
        labels = range(len(p)) if y is None else [int(y[b])]
        for k in labels:
            loss = F.cross_entropy(logits, torch.tensor([k]))
            gradients = torch.autograd.grad(
                loss, list(trainable.values()), retain_graph=True, allow_unused=True
            )
            for name, gradient in zip(trainable, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient**2 * (p[k] if y is None else 1) / len(x)
    return {name: value.detach() for name, value in total.items()}


def by_vmap(model, x, y):
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    return {name: g.square().mean(dim=0) for name, g in gradients.items()}


class Text(nn.Module):
    """Tokens repeat within a sample; one linear layer serves every position."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6, padding_idx=2)
        self.mix = nn.Linear(6, 5)
        self.norm = nn.LayerNorm((4, 5))
        self.out = nn.Linear(20, 3)

    def forward(self, tokens):
        return self.out(self.norm(torch.tanh(self.mix(self.embed(tokens)))).flatten(1))


class Tied(nn.Module):
    """A layer called twice, weights used by hand, a free parameter, and an unused layer."""

    def __init__(self):
        super().__init__()
        self.again = nn.Linear(5, 5)
        self.both = nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5)
        self.gain = nn.Parameter(torch.ones(5))
        self.unused = nn.Linear(2, 2)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.tanh(self.again(torch.tanh(self.again(x))))
        x = torch.tanh(F.linear(self.both(x), self.both.weight))
        self.tied(x)  # thrown away: what counts is the product by hand
        return self.out(torch.tanh(F.linear(x, self.tied.weight) * self.gain))


class TimeFirst(nn.Module):
    """Within, samples lie along the second axis: (T, B, features)."""

    def __init__(self):
        super().__init__()
        self.each = nn.Linear(4, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.each(x.transpose(0, 1))).mean(dim=0))


class Folded(nn.Module):
    """Within, positions are folded into the axis of the samples."""

    def __init__(self):
        super().__init__()
        self.each = nn.Linear(4, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.each(x.flatten(0, 1))).view(*x.shape[:2], 5).sum(dim=1))


class Last(nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.recurrent(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(4, 6))
        self.read = nn.Linear(4, 6)
        self.mix = nn.TransformerEncoderLayer(6, 2, 7, dropout=0.1, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.mix(self.read(x) + self.place).mean(dim=1))


class Overwriting(nn.Module):
    """The input of the layer is overwritten after it was read."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        x = x.clone()
        h = self.first(x)
        x.mul_(3)
        return self.out(torch.tanh(h) + x)


def conv(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3, bias=False)), (4,)),
    "one layer": (lambda: nn.Linear(4, 3), (4,)),
    "shared linear": (lambda: conv(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), (3, 4)),
    "length one": (lambda: conv(nn.Linear(4, 5), nn.Tanh()), (1, 4)),
    "conv1d": (lambda: conv(nn.Conv1d(2, 4, 3, 2, padding=2, dilation=2), nn.Tanh()), (2, 9)),
    "conv2d": (
        lambda: conv(
            nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)), nn.ReLU(inplace=True),
            nn.Conv2d(4, 6, 3, groups=2, padding="same", padding_mode="circular"), nn.Tanh(),
            nn.MaxPool2d(2), nn.Conv2d(6, 6, 1, groups=6, bias=False),
        ),
        (2, 7, 5),
    ),
    "conv3d": (
        lambda: conv(nn.Conv3d(1, 2, (2, 1, 3), dilation=(1, 1, 2)), nn.Tanh()),
        (1, 3, 2, 6),
    ),
    "norms": (
        lambda: conv(
            nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(),
            nn.LazyBatchNorm1d(), nn.LayerNorm(24, bias=False),
        ),
        (2, 5, 4),
    ),
    "rules missing": (
        lambda: conv(
            nn.ConvTranspose1d(2, 3, 2), nn.PReLU(), nn.InstanceNorm1d(3, affine=True),
            torch.nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 3, 2)),
        ),
        (2, 5),
    ),
    "tied": (Tied, (5,)),
    "time first": (TimeFirst, (11, 4)),
    "time first, as many steps as samples": (TimeFirst, (8, 4)),
    "folded": (Folded, (3, 4)),
    "lstm": (lambda: Last(nn.LSTM(4, 6, batch_first=True)), (3, 4)),
    "attention": (Attention, (4, 4)),
}  # fmt: skip


def built(name, N=11):
    torch.manual_seed(0)
    build, shape = MODELS[name]
    model = build().double()
    x = torch.randn(N, *shape, dtype=torch.float64)
    model(x)  # lazy layers take their size, batch norms their statistics
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval(), x, torch.randint(3, (N,))


def assert_same(found, expected, rtol=1e-10):
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].shape == expected[name].shape
        assert not found[name].requires_grad
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(found[name], expected[name], rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("expected", [False, True], ids=["targets", "expected"])
@pytest.mark.parametrize("name", MODELS)
def test_exact_for(name, expected):
    model, x, y = built(name)
    y = None if expected else y
    assert_same(fisher_diagonal(model, x, y, batch_size=8), alone(model, x, y))


@pytest.mark.parametrize("name", ["mlp", "shared linear", "conv2d", "norms"])
def test_agrees_with_vmap_of_grad(name):
    model, x, y = built(name)
    assert_same(fisher_diagonal(model, x, y), by_vmap(model, x, y))


@pytest.mark.parametrize("expected", [False, True], ids=["targets", "expected"])
def test_tokens(expected):
    torch.manual_seed(0)
    model = Text().double()
    x, y = torch.randint(7, (9, 4)), torch.randint(3, (9,))
    y = None if expected else y
    found = fisher_diagonal(model, x, y, batch_size=4)
    assert_same(found, alone(model, x, y))
    assert not found["embed.weight"][2].any()


@pytest.mark.parametrize("name", ["mlp", "shared linear", "conv2d", "norms"])
def test_rules_cover_their_layers(name, monkeypatch):
    """Nothing here falls back to one sample at a time."""
    model, x, y = built(name)
    monkeypatch.delattr(fisher, "_add_by_autograd")
    fisher_diagonal(model, x, y)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 11, 100])
@pytest.mark.parametrize("name", ["conv2d", "time first, as many steps as samples", "folded"])
def test_batches_do_not_matter(name, batch_size):
    model, x, y = built(name)
    assert_same(fisher_diagonal(model, x, y, batch_size=batch_size), alone(model, x, y))


def test_little_scratch_gives_the_same(monkeypatch):
    for name in ("conv2d", "shared linear"):
        model, x, y = built(name)
        whole = fisher_diagonal(model, x, y)
        monkeypatch.setattr(fisher, "SCRATCH", 1)
        assert_same(fisher_diagonal(model, x, y), whole)
        monkeypatch.undo()


def test_one_sample():
    model, x, y = built("conv2d")
    assert_same(fisher_diagonal(model, x[:1], y[:1]), alone(model, x[:1], y[:1]))


def test_squaring_the_gradient_of_a_batch_is_another_number():
    """The trap: it falls with the size of the batch, so that an alpha holds for one size only."""
    model, x, y = built("mlp", N=64)
    exact = fisher_diagonal(model, x, y)["0.weight"].sum()

    def careless(size):
        total = 0
        for first in range(0, 64, size):
            loss = F.cross_entropy(model(x[first : first + size]), y[first : first + size])
            total = total + torch.autograd.grad(loss, model[0].weight)[0] ** 2 * size / 64
        return total.sum()

    torch.testing.assert_close(careless(1), exact)
    assert careless(8) < 0.5 * exact
    assert careless(64) < 0.5 * careless(8)


def test_expected_fisher_of_a_linear_softmax_by_hand():
    """Of one layer the Fisher of weight (k, i) is the mean of p_k (1 - p_k) x_i^2."""
    model, x, _ = built("one layer")
    p = model(x).softmax(dim=1).detach()
    by_hand = ((p * (1 - p)).T @ x**2) / len(x)
    torch.testing.assert_close(fisher_diagonal(model, x)["weight"], by_hand)


def test_a_sure_model_keeps_its_digits():
    """In float32, 1 - p of the label would round to 0 or to a multiple of 6e-8."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[18.0, 0.0], [0.0, 0.0]])
    x, y = torch.ones(1, 2), torch.zeros(1, dtype=torch.int64)
    by_hand = torch.tensor(18.0, dtype=torch.float64).neg().sigmoid() ** 2
    found = fisher_diagonal(model, x, y)["weight"].double()
    torch.testing.assert_close(found, by_hand.expand(2, 2), rtol=1e-5, atol=0)


def test_frozen_parameters_are_left_out_and_the_rest_is_exact():
    model, x, y = built("conv2d")
    model[0].weight.requires_grad_(False)
    model[2].requires_grad_(False)
    found = fisher_diagonal(model, x, y)
    assert "0.weight" not in found and "2.bias" not in found and "0.bias" in found
    assert_same(found, alone(model, x, y))


def test_half_precision_gives_float32():
    model, x, y = built("conv2d")
    exact = fisher_diagonal(model, x, y)
    found = fisher_diagonal(model.bfloat16(), x.bfloat16(), y)
    for name in exact:
        assert found[name].dtype == torch.float32
        scale = exact[name].max().item()
        torch.testing.assert_close(found[name].double(), exact[name], rtol=0.1, atol=0.1 * scale)


def test_strided_inputs_and_no_grad():
    model, x, y = built("conv2d")
    strided = torch.stack([x, x], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    with torch.no_grad():
        found = fisher_diagonal(model, strided, y)
    assert_same(found, alone(model, x, y))


@pytest.mark.parametrize("name", ["norms", "tied", "lstm"])
def test_the_model_stays_as_it_was(name):
    model, x, y = built(name)
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    before = copy.deepcopy(model.state_dict())
    fisher_diagonal(model, x, y)
    assert (first.grad == 1).all() and sum(p.grad is not None for p in model.parameters()) == 1
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert not model.training and not any(m._forward_hooks for m in model.modules())


def test_hooks_go_on_error():
    class Failing(nn.Sequential):
        def forward(self, x):
            super().forward(x)
            raise OSError("broken")

    model = Failing(nn.Linear(4, 3))
    with pytest.raises(OSError, match="broken"):
        fisher_diagonal(model, torch.ones(2, 4))
    assert not model[0]._forward_hooks


def test_hooks_of_others_run_after():
    model, x, y = built("mlp")
    model[0].register_forward_hook(lambda module, arguments, output: 2 * output)
    assert_same(fisher_diagonal(model, x, y), alone(model, x, y))


def test_an_overwritten_input_is_refused_as_autograd_does():
    model = Overwriting()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        fisher_diagonal(model, torch.randn(5, 4))


def test_training_mode_is_fine_without_random_or_mixing_layers():
    model, x, y = built("mlp")
    assert_same(fisher_diagonal(model.train(), x, y), alone(model, x, y))
    assert model.training


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.BatchNorm1d(4), "layer '0' of model, BatchNorm1d.*eval"),
        (nn.BatchNorm1d(4, track_running_stats=False).eval(), "BatchNorm1d.*running"),
        (nn.Dropout(0.5), "layer '0' of model, Dropout.*eval"),
        (nn.RReLU(), "RReLU"),
        (nn.TransformerEncoderLayer(4, 2, 4, dropout=0.1), "MultiheadAttention|Dropout"),
    ],
)
def test_layers_that_mix_samples_or_are_random_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        fisher_diagonal(nn.Sequential(layer, nn.Linear(4, 3)), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": [1.0]}, TypeError, "inputs.*list"),
        ({"inputs": torch.ones(0, 4)}, ValueError, r"inputs.*\(0, 4\)"),
        ({"inputs": torch.tensor(1.0)}, ValueError, r"inputs.*\(\)"),
        ({"inputs": torch.full((5, 4), torch.nan)}, ValueError, "inputs must be finite"),
        ({"inputs": torch.ones(5, 4, device="meta")}, ValueError, "inputs.*cpu.*meta"),
        ({"targets": torch.zeros(5)}, TypeError, "targets.*float32"),
        ({"targets": [0] * 5}, TypeError, "targets.*list"),
        ({"targets": torch.zeros(4, dtype=torch.int64)}, ValueError, r"targets.*\(5,\).*\(4,\)"),
        ({"targets": torch.full((5,), 3)}, ValueError, "targets.*0 to 2, not 3 to 3"),
        ({"targets": torch.tensor([0, 1, 2, 0, -100])}, ValueError, "targets.*-100"),
        ({"targets": torch.zeros(5, dtype=torch.int64, device="meta")}, ValueError, "meta"),
        ({"batch_size": 0}, ValueError, "batch_size.*0"),
        ({"model": nn.Linear(4, 1)}, ValueError, r"\(N, C\).*\(5, 1\)"),
        ({"model": nn.Unflatten(1, (2, 2))}, ValueError, "parameter"),
        ({"model": nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)))}, ValueError, "5, 2, 2"),
        ({"model": Last(nn.RNN(4, 6)).recurrent}, TypeError, "logits.*tuple"),
        ({"model": nn.Linear(4, 3).requires_grad_(False)}, ValueError, "requires a gradient"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, error, message):
    good = {"model": nn.Linear(4, 3), "inputs": torch.ones(5, 4)}
    with pytest.raises(error, match=message):
        fisher_diagonal(**good | change)


def test_nan_and_detached_models_are_named():
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].bias.data[1] = torch.nan
    with pytest.raises(ValueError, match=r"parameter '0\.bias' of model must be finite"):
        fisher_diagonal(model, torch.ones(2, 4))

    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(RuntimeError, match="no trainable parameter"):
        fisher_diagonal(Detached(4, 3), torch.ones(2, 4))


# ------------------------------------------------------------------ importances of batches


def small(seed=0):
    g = torch.Generator().manual_seed(seed)
    with seeded(g):
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(30, 6, generator=g).double(), torch.randint(3, (30,), generator=g)
    return model, x, y


@pytest.mark.parametrize("batch_size", [1, 8, 30, 100])
def test_batch_fisher_and_sensitivity_follow_their_definitions(batch_size):
    model, x, y = small()
    parameters = list(model.parameters())
    F_, S = ({name: 0.0 for name, _ in model.named_parameters()} for _ in range(2))
    batches = list(zip(x.split(batch_size), y.split(batch_size), strict=True))
    for x_, y_ in batches:
        losses = F.cross_entropy(model(x_), y_), model(x_).square().sum(dim=1).mean()
        ce, norm = (torch.autograd.grad(loss, parameters) for loss in losses)
        for name, g, h in zip(F_, ce, norm, strict=True):
            F_[name] = F_[name] + g**2 / len(batches)
            S[name] = S[name] + h.abs() / len(batches)
    torch.testing.assert_close(batch_fisher_diagonal(model, x, y, batch_size=batch_size), F_)
    torch.testing.assert_close(output_sensitivity(model, x, batch_size=batch_size), S)


def test_in_batches_of_one_the_batch_fisher_is_exact():
    model, x, y = small()
    single = batch_fisher_diagonal(model, x, y, batch_size=1)
    torch.testing.assert_close(single, fisher_diagonal(model, x, y))


def test_batches_divide_the_fisher_of_gradients_that_cancel_by_their_size():
    """Squares of batch means of independent gradients with mean zero: 1 / B of the Fisher."""
    B, g = 16, torch.Generator().manual_seed(0)
    x = torch.randn(16_000, 4, generator=g).double()
    y = torch.randint(2, (16_000,), generator=g)
    model = nn.Linear(4, 2).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    exact = fisher_diagonal(model, x, y)
    by_batch = batch_fisher_diagonal(model, x, y, batch_size=B)
    for name in exact:
        torch.testing.assert_close(by_batch[name] * B, exact[name], rtol=0.2, atol=0)


def test_the_batch_fisher_depends_on_the_order_and_the_exact_one_does_not():
    model, x, y = small()
    order = y.argsort()
    exact = fisher_diagonal(model, x, y)
    torch.testing.assert_close(fisher_diagonal(model, x[order], y[order]), exact)
    mixed = batch_fisher_diagonal(model, x, y, batch_size=5)
    sorted_ = batch_fisher_diagonal(model, x[order], y[order], batch_size=5)
    assert sorted_["2.bias"].sum() > 2 * mixed["2.bias"].sum()


@pytest.mark.parametrize("by_batch", [batch_fisher_diagonal, output_sensitivity])
def test_importances_of_batches_refuse_what_the_exact_ones_refuse(by_batch):
    model, x, y = small()
    labels = (y,) if by_batch is batch_fisher_diagonal else ()
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        by_batch(model, x, *labels, batch_size=0)
    with pytest.raises(ValueError, match=r"\(0, 6\)"):
        by_batch(model, x[:0], *labels)
    with pytest.raises(ValueError, match="requires a gradient"):
        by_batch(copy.deepcopy(model).requires_grad_(False), x, *labels)
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        by_batch(nn.Sequential(nn.BatchNorm1d(6), *model).double(), x, *labels)
    if labels:
        with pytest.raises(ValueError, match="0 to 2, not 3 to"):
            by_batch(model, x, y + 3)
    assert not any(p.grad is not None for p in model.parameters())
