"""Networks: what they give before training, what they see, and what they refuse."""

from functools import partial

import pytest
import torch

from labkit.diffusion.networks import Mlp, NetworkDenoiser, TinyUNet
from labkit.diffusion.predictions import from_x0


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


NETWORKS = {"mlp": (partial(Mlp, 64, 32, 2), (64,)), "unet": (partial(TinyUNet, 8), (1, 8, 8))}


@pytest.fixture(params=NETWORKS)
def build(request):
    return NETWORKS[request.param]


def shaken(network, seed=9):
    """The network with weights that are zero at first drawn, so that its output says something."""
    g = draw(seed)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.normal_(std=0.3, generator=g)
    return network


# ------------------------------------------------------------------ networks


def test_weights_follow_from_the_generator_alone(build):
    make, _ = build
    state = torch.random.get_rng_state()
    first, same, other = (make(n_classes=3, generator=draw(s)).state_dict() for s in (0, 0, 1))
    assert torch.random.get_rng_state().equal(state)
    assert all(first[name].equal(same[name]) for name in first)
    assert not all(first[name].equal(other[name]) for name in first)


def test_output_is_like_the_input_and_zero_at_first(build):
    make, shape = build
    network, x = make(generator=draw()), torch.randn(5, *shape, generator=draw(1))
    assert network(x, torch.zeros(5)).shape == x.shape
    assert not network(x, torch.zeros(5)).any()
    assert shaken(network)(x, torch.zeros(5)).all()


def test_samples_do_not_meet(build):
    make, shape = build
    network, g = shaken(make(n_classes=3, generator=draw())), draw(1)
    x, logsnr = torch.randn(4, *shape, generator=g), torch.linspace(-3, 3, 4)
    label = torch.tensor([0, 1, 2, -1])
    together = network(x, logsnr, label)
    alone = [network(x[i : i + 1], logsnr[i : i + 1], label[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-4, atol=1e-5)


def test_one_level_for_all_is_that_level_for_each(build):
    make, shape = build
    network, x = shaken(make(generator=draw())), torch.randn(3, *shape, generator=draw(1))
    for_all, for_each = network(x, torch.tensor(0.7)), network(x, torch.full((3,), 0.7))
    torch.testing.assert_close(for_all, for_each, rtol=1e-4, atol=1e-5)


def test_the_null_label_is_no_label_and_no_class(build):
    make, shape = build
    network, x = (
        shaken(make(n_classes=3, generator=draw())),
        torch.randn(2, *shape, generator=draw(1)),
    )
    logsnr = torch.zeros(2)
    none, null = network(x, logsnr), network(x, logsnr, torch.full((2,), -1))
    torch.testing.assert_close(none, null)
    for k in range(3):
        assert not torch.allclose(network(x, logsnr, torch.full((2,), k)), none)


def test_a_blind_network_ignores_the_level_and_another_one_does_not(build):
    make, shape = build
    x, levels = (
        torch.randn(3, *shape, generator=draw(1)),
        (torch.tensor(-4.0), torch.tensor([0.0, 5.0, 20.0])),
    )
    for sees in (False, True):
        network = shaken(make(noise_conditioning=sees, generator=draw()))
        assert torch.allclose(*(network(x, level) for level in levels)) is not sees


def test_levels_beyond_twenty_are_clamped(build):
    make, shape = build
    network, x = shaken(make(generator=draw())), torch.randn(2, *shape, generator=draw(1))
    far = network(x, torch.tensor([torch.inf, -torch.inf]))
    torch.testing.assert_close(far, network(x, torch.tensor([20.0, -20.0])))


def test_the_unet_takes_other_sides_and_channels():
    network = shaken(TinyUNet(4, side=16, in_channels=3, generator=draw()))
    x = torch.randn(2, 3, 16, 16)
    assert network(x, torch.zeros(2)).shape == x.shape


def test_a_pixel_of_the_unet_sees_the_whole_image():
    network, x = shaken(TinyUNet(8, generator=draw())), torch.randn(1, 1, 8, 8, requires_grad=True)
    network(x, torch.tensor(0.0))[0, 0, 0, 0].backward()
    assert (x.grad != 0).all()


# ------------------------------------------------------------------ denoiser

LEVELS = [(0.6, 0.8), (1.0, 3.0), (0.3, 0.7), (1.0, 0.0), (0.0, 1.0)]


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_before_training_v_is_the_linear_denoiser_of_white_data(build, alpha, sigma):
    make, shape = build
    net, x = (
        NetworkDenoiser(make(generator=draw()), "v", sigma_data=0.5),
        torch.randn(4, *shape, generator=draw(1)),
    )
    wiener = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * x
    torch.testing.assert_close(net(x, alpha, sigma), wiener)


@pytest.mark.parametrize("kind", ["x0", "eps", "v", "score", "velocity"])
@pytest.mark.parametrize(("alpha", "sigma"), LEVELS[:3])
def test_output_is_meant_in_coordinates_of_variance_one(kind, alpha, sigma):
    """A network that knows x0 gives it back, whatever it predicts and in every process."""
    g, scale = draw(), 0.5
    x0, eps = scale * torch.randn(6, 64, generator=g), torch.randn(6, 64, generator=g)

    class Oracle(Mlp):
        def forward(self, x, logsnr, label=None):
            s = (alpha**2 * scale**2 + sigma**2) ** 0.5
            torch.testing.assert_close(x, (alpha * x0 + sigma * eps) / s)
            assert logsnr.item() == pytest.approx(2 * torch.tensor(alpha / sigma).log().item())
            return from_x0(kind, x0 / scale, x, alpha * scale / s, sigma / s)

    net = NetworkDenoiser(Oracle(64, 8, 1, generator=draw()), kind, sigma_data=scale)
    estimate = net(alpha * x0 + sigma * eps, alpha, sigma)
    torch.testing.assert_close(estimate, x0, rtol=1e-4, atol=1e-5)


def test_levels_per_sample_and_the_dtype_of_x(build):
    make, shape = build
    net = NetworkDenoiser(shaken(make(generator=draw())), "v")
    x = torch.randn(2, *shape, dtype=torch.float64)
    both = net(x, torch.tensor([0.6, 1.0]), torch.tensor([0.8, 2.0]))
    assert both.dtype == torch.float64
    torch.testing.assert_close(both[1:], net(x[1:], 1.0, 2.0), rtol=1e-4, atol=1e-5)


def test_eps_at_zero_terminal_snr_is_refused():
    net = NetworkDenoiser(Mlp(2, generator=draw()), "eps")
    with pytest.raises(ValueError, match="alpha = 0"):
        net(torch.randn(3, 2), 0.0, 1.0)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: Mlp(0, generator=g), "d must be.*0"),
        (lambda g: Mlp(2, width=1.5, generator=g), "width.*1.5"),
        (lambda g: Mlp(2, n_classes=0, generator=g), "n_classes.*0"),
        (lambda g: TinyUNet(6, generator=g), "multiple of 4.*6"),
        (lambda g: TinyUNet(8, side=10, generator=g), "side of 4.*10"),
        (lambda g: NetworkDenoiser(Mlp(2, generator=g), "noise"), "noise"),
        (lambda g: NetworkDenoiser(Mlp(2, generator=g), sigma_data=0.0), "sigma_data.*0"),
    ],
)
def test_sizes_and_kinds(make, message):
    with pytest.raises(ValueError, match=message):
        make(draw())


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        (torch.tensor([0, 1, 3]), ValueError, "0 to 2.*0 to 3"),
        (torch.tensor([0, 1, -2]), ValueError, "-2 to 1"),
        (torch.tensor([0, 1]), ValueError, r"\(3,\).*\(2,\)"),
        (torch.tensor([0.0, 1.0, 2.0]), TypeError, "int64.*float32"),
        ([0, 1, 2], TypeError, "int64.*list"),
    ],
)
def test_labels(build, label, error, message):
    make, shape = build
    with pytest.raises(error, match=message):
        make(n_classes=3, generator=draw())(
            torch.randn(3, *shape, generator=draw(1)), torch.zeros(3), label
        )
    with pytest.raises(ValueError, match="no classes"):
        make(generator=draw())(
            torch.randn(3, *shape, generator=draw(1)), torch.zeros(3), torch.zeros(3).long()
        )


def test_inputs_of_another_size(build):
    make, _ = build
    with pytest.raises(ValueError, match=r"x must be.*\(3, 1, 4, 4\)"):
        make(generator=draw())(torch.randn(3, 1, 4, 4), torch.zeros(3))
