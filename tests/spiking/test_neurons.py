"""Layers of neurons: the kernel with parameters that learn."""

import pytest
import torch

from labkit.kernels import lif_scan
from labkit.spiking import LIF, LeakyIntegrator


def current(T=7, B=3, N=5, dtype=torch.float32):
    return 1.5 * torch.rand(T, B, N, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reset": "zero", "reset_delay": True, "leak": "average"},
    ],
)
def test_lif_is_the_kernel(options):
    x = current()
    assert torch.equal(LIF(0.8, 0.6, **options)(x), lif_scan(x, 0.8, 0.6, **options))
    s, v = LIF(0.8, 0.6, return_voltage=True, **options)(x)
    expected = lif_scan(x, 0.8, 0.6, return_voltage=True, **options)
    assert torch.equal(s, expected[0]) and torch.equal(v, expected[1])


def test_learned_values_start_where_they_were_set_and_learn():
    decay = torch.tensor([0.3, 0.6, 0.9, 0.5, 0.99])
    layer = LIF(decay, 0.7, learn_decay=True, learn_threshold=True)
    torch.testing.assert_close(layer.decay, decay)
    assert {name for name, _ in layer.named_parameters()} == {"raw_decay", "threshold"}
    layer(current()).sum().backward()
    assert layer.raw_decay.grad.shape == (5,) and (layer.raw_decay.grad != 0).any()
    assert layer.threshold.grad.shape == () and layer.threshold.grad != 0


def test_a_learned_decay_stays_in_range():
    layer = LIF(0.9, learn_decay=True)
    with torch.no_grad():
        layer.raw_decay.fill_(1e3)
    assert layer.decay <= 1
    layer(current())


def test_state_dict_holds_tensors_and_learned_values():
    layer = LIF(torch.full((5,), 0.4), 2, learn_threshold=True)
    assert set(layer.state_dict()) == {"raw_decay", "threshold"}
    other = LIF(torch.zeros(5), 1.0, learn_threshold=True)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(current()), layer(current()))
    assert LIF(0.9).state_dict() == {}  # a number fits every dtype
    assert LIF(0.9)(current(dtype=torch.float64)).dtype == torch.float64


def test_calls_do_not_remember():
    layer = LIF(0.9)
    assert torch.equal(layer(current()), layer(current()))


def test_leaky_integrator_is_the_leaky_sum():
    x = current(dtype=torch.float64).requires_grad_()
    v = LeakyIntegrator(0.8)(x)
    expected = torch.stack(
        [sum(0.8 ** (t - k) * x[k] for k in range(t + 1)) for t in range(len(x))]
    )
    torch.testing.assert_close(v, expected)
    mine, theirs = (torch.autograd.grad((q**2).sum(), x)[0] for q in (v, expected))
    torch.testing.assert_close(mine, theirs)
    averaged = LeakyIntegrator(0.8, leak="average")(x)
    torch.testing.assert_close(averaged, 0.2 * expected)


def test_leaky_integrator_learns_its_decay():
    layer = LeakyIntegrator(0.8, learn_decay=True).double()
    x = current(dtype=torch.float64)
    layer(x).sum().backward()
    d = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    sum((d ** (t - k) * x[k]).sum() for t in range(len(x)) for k in range(t + 1)).backward()
    torch.testing.assert_close(layer.raw_decay.grad, d.grad * 0.8 * 0.2, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1.2,), {}, r"decay must lie in \[0, 1\], not 1.2"),
        ((float("nan"),), {}, "decay must lie"),
        ((torch.tensor([0.5, -0.1]),), {}, "decay must lie"),
        ((1.0,), {"learn_decay": True}, "begin between 0 and 1"),
        ((0.5, 0.0), {}, "threshold must be positive, not 0.0"),
    ],
)
def test_bad_values_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        LIF(*arguments, **options)


def test_shown_with_its_values():
    assert "decay=0.9, threshold=1, reset='zero'" in repr(LIF(0.9, reset="zero"))
    assert "decay=tensor of (5,)" in repr(LIF(torch.full((5,), 0.5), learn_decay=True))
    assert repr(LeakyIntegrator(0.5)) == "LeakyIntegrator(decay=0.5, leak='multiply')"
