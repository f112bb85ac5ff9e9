"""Encoders against their definitions, and against snnTorch's where it is installed."""

import math

import pytest
import torch

from labkit.spiking import delta, latency, rate


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rate_fires_with_the_given_probability():
    p = torch.tensor([0.0, 0.03, 0.5, 0.9, 1.0])
    s = rate(p, 20_000, generator=generator())
    assert s.shape == (20_000, 5) and s.dtype == p.dtype
    assert set(s.unique().tolist()) == {0.0, 1.0}
    bound = 5 * (p * (1 - p) / 20_000).sqrt()  # five standard errors; none for 0 and 1
    assert ((s.mean(0) - p).abs() <= bound).all()
    together = (s[1:] * s[:-1]).mean(0)  # independent from step to step
    assert ((together - p**2).abs() <= 0.02).all()


def test_rate_of_a_signal_that_changes():
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert torch.equal(rate(x, generator=generator()), x)


def test_rate_depends_on_its_generator_alone():
    x = torch.full((4, 3), 0.5)
    first = rate(x, 9, generator=generator(1))
    torch.manual_seed(5)
    assert torch.equal(first, rate(x, 9, generator=generator(1)))
    assert not torch.equal(first, rate(x, 9, generator=generator(2)))
    state = torch.get_rng_state()
    rate(x, 9, generator=generator())
    assert torch.equal(state, torch.get_rng_state())


def test_rate_of_small_probabilities_in_half_precision():
    p = torch.full((1000,), 2.0**-14, dtype=torch.float16)
    s = rate(p, 2000, generator=generator())
    assert s.dtype == torch.float16
    assert abs(s.float().sum() - 2e6 * 2.0**-14) < 5 * math.sqrt(2e6 * 2.0**-14)


def test_latency_times_are_those_of_a_charging_neuron():
    x, tau, theta = torch.tensor([0.21, 0.3, 0.5, 1.0], dtype=torch.float64), 4.0, 0.2
    times = latency(x, 30, tau=tau, threshold=theta).argmax(0)
    # v' = (x - v) / tau reaches theta at t: x (1 - exp(-t / tau)) = theta
    expected = [-tau * math.log(1 - theta / float(q)) for q in x]
    assert times.tolist() == [round(t) for t in expected]


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_latency_is_one_spike_earlier_for_larger_values(linear, clip):
    x = torch.linspace(0, 1, 33)
    s = latency(x, 12, threshold=0.1, linear=linear, clip=clip)
    fires = x >= 0.1 if clip else torch.ones(33, dtype=torch.bool)
    assert s.shape == (12, 33) and torch.equal(s.sum(0), fires.float())
    times = s.argmax(0)[fires]
    assert (times.diff() <= 0).all() and times[0] > times[-1]


def test_latency_leaves_out_what_comes_too_late():
    x = torch.tensor([0.1, 1.0])
    assert latency(x, 3, tau=10.0, linear=True).sum(0).tolist() == [0.0, 1.0]


def test_delta_marks_changes():
    x = torch.tensor([1.0, 2.0, 2.5, 2.5, 0.5, 1.6])
    assert delta(x, 1.0).tolist() == [1, 1, 0, 0, 0, 1]
    assert delta(x, 1.0, off_spike=True).tolist() == [1, 1, 0, 0, -1, 1]
    assert delta(torch.zeros(0, 4)).shape == (0, 4)


def test_equal_to_snntorch():
    spikegen = pytest.importorskip("snntorch.spikegen")
    x = torch.rand(6, 5, generator=generator())
    for linear in (False, True):
        for clip in (False, True):
            kind = {"linear": linear, "clip": clip, "threshold": 0.2}
            theirs = spikegen.latency(x, num_steps=9, normalize=True, **kind)
            if linear:  # normalised there to the value 0, here to the threshold, in both cases
                theirs = spikegen.latency(x, num_steps=9, tau=8, **kind)
                assert torch.equal(latency(x, 9, tau=8.0, **kind), theirs)
            else:
                assert torch.equal(latency(x, 9, **kind), theirs)
    for off in (False, True):
        theirs = spikegen.delta(x, threshold=0.3, off_spike=off)
        assert torch.equal(delta(x, 0.3, off_spike=off), theirs)


X = torch.full((3,), 0.5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rate(X + 1, 5, generator=generator()), ValueError, r"x must lie in \[0, 1\]"),
        (lambda: rate(X * float("nan"), 5, generator=generator()), ValueError, "x must lie"),
        (lambda: rate(X.int(), 5, generator=generator()), TypeError, "x must hold floating"),
        (lambda: rate(X, 5, generator=0), TypeError, "generator must be a torch.Generator"),
        (lambda: rate(X, 0, generator=generator()), ValueError, "steps must be a whole number"),
        (lambda: rate(X, 2.5, generator=generator()), ValueError, "steps must be a whole number"),
        (lambda: rate(X[0], generator=generator()), ValueError, r"x must be \(T, ...\)"),
        (lambda: latency(-X, 5), ValueError, "x must lie"),
        (lambda: latency(X, True), ValueError, "steps must be a whole number"),
        (lambda: latency(X, 5, tau=0.0), ValueError, "tau must be positive"),
        (lambda: latency(X, 5, threshold=1.0), ValueError, "threshold must lie between 0 and 1"),
        (lambda: delta(X, 0.0), ValueError, "threshold must be positive"),
        (lambda: delta(X[0]), ValueError, r"x must be \(T, ...\)"),
        (lambda: delta(X.bool()), TypeError, "x must hold floating"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_no_values_no_spikes():
    empty = torch.zeros(0, 4)
    assert rate(empty, 3, generator=generator()).shape == (3, 0, 4)
    assert latency(empty, 3).shape == latency(empty, 3, linear=True).shape == (3, 0, 4)
