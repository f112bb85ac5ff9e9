"""Training: reproducible, right where the answer is known, and careful about its input."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from labkit.diffusion.exact import GaussianMixture
from labkit.diffusion.networks import Mlp, NetworkDenoiser, TinyUNet
from labkit.diffusion.schedules import cosine, cosine_density, flow, laplace_density, levels_of
from labkit.diffusion.training import (
    denoising_loss,
    descend,
    digit_images,
    prediction_loss,
    train,
)
from labkit.seeding import seeded


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def build(seed=0, kind="v", **options):
    return NetworkDenoiser(Mlp(2, 32, 2, generator=draw(seed), **options), kind)


def points(n=200, seed=3):
    return torch.randn(n, 2, generator=draw(seed))


quick = partial(train, steps=4, levels=cosine(), batch_size=16, progress=False)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one, other):
    return all(one[name].equal(other[name]) for name in one)


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("unet", [False, True])
def test_one_seed_gives_the_same_losses_and_weights_bit_for_bit(unet):
    (x, y), _ = digit_images(64, generator=draw())
    found = []
    for seed in (1, 1, 2):
        g = draw(seed)
        make = TinyUNet(4, n_classes=10, generator=g) if unet else Mlp(64, 16, 1, 10, generator=g)
        net = NetworkDenoiser(make, sigma_data=0.75)
        before = torch.random.get_rng_state()
        losses = quick(net, x, labels=y, generator=g)
        assert torch.random.get_rng_state().equal(before)
        found.append((losses, weights(net)))
    (first, w1), (same, w2), (other, _) = found
    assert first.shape == (4,) and first.equal(same) and equal(w1, w2)
    assert not first.equal(other)


def test_training_lowers_the_loss_and_ends_in_evaluation_mode():
    net = build()
    losses = quick(net, 0.1 * points(), steps=100, generator=draw(1))  # far from variance one
    assert losses[-20:].mean() < losses[:5].mean() / 2
    assert not any(module.training for module in net.modules())


def test_one_step_is_that_of_adam_on_the_prediction_loss():
    data, net = points(1), build()
    other, g = copy.deepcopy(net), draw(5)
    levels = partial(lambda n, g: (torch.full((n,), 0.6), torch.full((n,), 0.8)))
    loss = quick(net, data, steps=1, levels=levels, lr=0.01, decay="constant", generator=g)

    g = draw(5)
    torch.randint(2**62, (), generator=g)  # what `seeded` draws
    torch.randint(1, (16,), generator=g)  # the mini-batch
    eps = torch.randn(16, 2, generator=g)
    x0 = data.expand(16, 2)
    output = other.network(0.6 * x0 + 0.8 * eps, torch.full((16,), 2 * math.log(0.75)))
    by_hand = (output - (0.6 * eps - 0.8 * x0)).square().mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    by_hand.backward()
    torch.optim.Adam(other.parameters(), lr=0.01, betas=(0.9, 0.99)).step()
    torch.testing.assert_close(dict(net.named_parameters()), dict(other.named_parameters()))


def test_gaussian_data_reach_the_closed_form_floor():
    """Correlated Gaussian: the floor is known at every level, and training comes near to it."""
    g = draw()
    law = GaussianMixture(
        torch.ones(1), torch.tensor([[0.5, -1.0]]), torch.tensor([[[1.0, 0.6], [0.6, 0.5]]])
    )
    data, held_out = (law.sample(n, generator=g).float() for n in (20_000, 4000))
    net = NetworkDenoiser(Mlp(2, 64, 2, generator=g))
    levels = cosine()(torch.linspace(0.1, 0.9, 5))
    loss = partial(denoising_loss, x0=held_out, levels=levels)
    floor = loss(law.denoise, generator=draw(1))
    before = loss(net, generator=draw(1)) - floor
    quick(net, data, steps=400, batch_size=256, generator=g)
    excess = loss(net, generator=draw(1)) - floor
    assert (before > 0.1 * floor).any()
    assert (excess.abs() < 0.02 * floor).all(), excess / floor


def test_labels_teach_classes_and_hidden_ones_the_mixture():
    g = draw()
    y = torch.arange(2000) % 2
    data = (4.0 * y - 2)[:, None] + 0.1 * torch.randn(2000, 1, generator=g)
    net = NetworkDenoiser(Mlp(1, 32, 2, n_classes=2, generator=g), sigma_data=2.0)
    quick(net, data, labels=y, label_dropout=0.5, steps=300, batch_size=64, generator=g)
    x, noise = torch.zeros(2, 1), (0.01, 1.0)
    conditional = net(x, *noise, label=torch.tensor([0, 1])).flatten()
    torch.testing.assert_close(conditional, torch.tensor([-2.0, 2.0]), atol=0.4, rtol=0)
    assert net(x, *noise).abs().max() < 0.6


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_label_dropout_at_its_ends(dropout):
    """Only rows of the table that were looked up have moved."""
    net = build(n_classes=3)
    table = net.network.conditioning.classes.weight
    before = table.detach().clone()
    quick(net, points(), labels=torch.arange(200) % 3, label_dropout=dropout, generator=draw())
    moved = (table != before).any(dim=1).tolist()
    assert moved == ([True, False, False, False] if dropout else [False, True, True, True])


def test_pair_decides_the_noise():
    """Noise that repeats the data makes the prediction certain: x says all."""
    seen = []

    def pair(x0, eps):
        seen.append((x0, eps))
        return x0

    net = build()
    losses = quick(net, points(), pair=pair, steps=200, levels=flow(), generator=draw())
    assert len(seen) == 200 and seen[0][0].shape == seen[0][1].shape == (16, 2)
    plain = quick(build(), points(), steps=200, levels=flow(), generator=draw())
    assert losses[-50:].mean() < 0.2 * plain[-50:].mean()


def test_the_average_of_weights_is_that_of_a_loop():
    data = torch.zeros(8, 2)

    def run(ema):
        net, path = build(), []

        def loss(index):
            path.append(weights(net))
            return (net.network(data[index] + 1, torch.zeros(len(index))) - 1).square().mean()

        descend(net, loss, 8, steps=30, batch_size=4, ema=ema, generator=draw(), progress=False)
        return net, path

    averaged, _ = run(0.8)
    last, path = run(0.0)
    steps = [*path[1:], weights(last)]  # after each of the 30 steps
    expected = steps[0]
    for n, current in enumerate(steps[1:], start=1):
        d = min(0.8, (1 + n) / (10 + n))
        for name in ("network.first.weight", "network.last.2.bias"):
            expected[name] = d * expected[name] + (1 - d) * current[name]
    for name in ("network.first.weight", "network.last.2.bias"):
        torch.testing.assert_close(averaged.state_dict()[name], expected[name])
    assert not equal(averaged.state_dict(), last.state_dict())


def test_density_and_weight_are_two_ways_to_the_same_loss():
    """Cosine levels weighted by p_Laplace/p_cosine give the mean loss of Laplace levels."""
    net, x0, n = build(), 0.3 * points(1000), 40_000
    with torch.no_grad():
        net.network.last[-1].weight.normal_(std=0.3, generator=draw(8))

    @torch.no_grad()
    def losses(density, seed):
        g = draw(seed)
        logsnr = density.sample(n, g)
        alpha, sigma = levels_of(logsnr)
        index, eps = torch.randint(1000, (n,), generator=g), torch.randn(n, 2, generator=g)
        return logsnr, prediction_loss(net, x0[index], eps, alpha, sigma).double()

    wide, narrow = cosine_density(), laplace_density(mu=2.0, b=1.0)
    logsnr, of_wide = losses(wide, 1)
    _, of_narrow = losses(narrow, 2)
    weighted = narrow.pdf(logsnr) / wide.pdf(logsnr) * of_wide
    error = math.hypot(weighted.std().item(), of_narrow.std().item()) / math.sqrt(n)
    assert abs(weighted.mean() - of_narrow.mean()) < 4 * error
    assert abs(of_wide.mean() - of_narrow.mean()) > 8 * error  # or there were nothing to see


def test_weighting_multiplies_the_loss_and_sees_lambda():
    seen = []

    def weighting(logsnr):
        seen.append(logsnr)
        return torch.full_like(logsnr, 3.0)

    (plain,), (weighted,) = (
        quick(build(), points(), steps=1, weighting=w, generator=draw()) for w in (None, weighting)
    )
    assert weighted.item() == pytest.approx(3 * plain.item())
    assert seen[0].shape == (16,) and seen[0].abs().max() <= 20
    assert (seen[0].diff() < 0).all()  # one t from each 16th, in order


@pytest.mark.parametrize("levels", [cosine(), flow(), laplace_density()])
def test_levels_of_schedules_and_densities_follow_their_law(levels):
    """One t from each of n parts of (0, 1): half of lambda, to one, above its median."""
    seen = []
    quick(build(), points(), levels=levels, batch_size=64, weighting=lambda x: seen.append(x) or x,
          generator=draw())  # fmt: skip
    median = levels.logsnr(torch.tensor(0.5, dtype=torch.float64))
    assert all(31 <= (logsnr > median).sum() <= 33 for logsnr in seen)


# ------------------------------------------------------------------ loss


def test_denoising_loss_is_that_of_a_loop_and_pairs_denoisers():
    x0 = points(50)
    levels = (torch.tensor([1.0, 0.6]), torch.tensor([0.5, 0.8]))
    found = denoising_loss(lambda x, a, s: 0 * x, x0, levels, generator=draw())
    torch.testing.assert_close(found, x0.double().square().mean().expand(2))
    copying = denoising_loss(lambda x, a, s: x / a, x0, levels, generator=draw(1), draws=2)
    g = draw(1)
    eps = [torch.stack([torch.randn(50, 2, generator=g) for _ in range(2)]) for _ in range(2)]
    wanted = [(s / a * e).square().mean().double() for a, s, e in zip(*levels, eps, strict=True)]
    torch.testing.assert_close(copying, torch.stack(wanted), rtol=1e-5, atol=1e-7)


def test_a_loss_of_your_own():
    with seeded(draw()):
        net = nn.Linear(1, 1)
    losses = descend(
        net, lambda i: (net(i[:, None].float()) - 2).square().mean(), 3,
        steps=200, lr=0.1, generator=draw(), progress=False,
    )  # fmt: skip
    assert losses[-1] < losses[0] / 20


# ------------------------------------------------------------------ data


def test_digits_are_split_by_the_seed():
    (x, y), (x_, y_) = digit_images(1000, generator=draw())
    assert x.shape == (1000, 1, 8, 8) and x_.shape == (797, 1, 8, 8)
    assert y.shape == (1000,) and y_.dtype == torch.int64 and x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert x.std() == pytest.approx(0.75, abs=0.01) and x.mean() == pytest.approx(-0.39, abs=0.01)
    assert x.equal(digit_images(1000, generator=draw())[0][0])
    assert not x.equal(digit_images(1000, generator=draw(1))[0][0])
    with pytest.raises(ValueError, match=r"1 to 1796.*1797"):
        digit_images(1797, generator=draw())


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (torch.zeros(0, 2), ValueError, r"N >= 1.*\(0, 2\)"),
        (torch.zeros(5), ValueError, r"\(N, ...\).*\(5,\)"),
        (torch.zeros(5, 2).long(), TypeError, r"floating.*int64"),
        (torch.full((5, 2), torch.nan), ValueError, "finite"),
        ([[0.0, 1.0]], TypeError, "list"),
    ],
)
def test_data(data, error, message):
    net = build()
    before = weights(net)
    with pytest.raises(error, match=message):
        quick(net, data, generator=draw())
    with pytest.raises(error, match=message):
        denoising_loss(net, data, ([1.0], [1.0]), generator=draw())
    assert equal(before, net.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps.*0"),
        ({"batch_size": 2.5}, "batch_size.*2.5"),
        ({"lr": -1.0}, "lr.*-1"),
        ({"ema": 1.0}, "ema.*1"),
        ({"decay": "linear"}, "decay.*linear"),
        ({"label_dropout": 1.5}, "label_dropout.*1.5"),
        ({"labels": torch.zeros(199).long()}, r"\(200,\).*\(199,\)"),
        ({"labels": torch.full((200,), 3)}, "0 to 2.*3 to 3"),
    ],
)
def test_options(options, message):
    net = build(n_classes=3)
    before = weights(net)
    with pytest.raises(ValueError, match=message):
        quick(net, points(), generator=draw(), **options)
    assert equal(before, net.state_dict())


def test_labels_of_a_network_without_classes():
    with pytest.raises(ValueError, match="no classes"):
        quick(build(), points(), labels=torch.zeros(200).long(), generator=draw())


def test_a_loss_that_is_not_finite_is_named():
    with pytest.raises(FloatingPointError, match=r"nan at step 1 of 4.*learning rate"):
        quick(build(), points(), weighting=lambda x: x * torch.nan, generator=draw())
