"""lif_scan against its reference, against snnTorch, and against SpikingJelly's formulas."""

import pytest
import torch

from labkit.bench import peak_memory
from labkit.kernels import lif_scan

KINDS = [  # every pair of options stands side by side at least once
    ("multiply", "subtract", False, False, "atan"),
    ("multiply", "subtract", True, True, "fast_sigmoid"),
    ("multiply", "zero", True, False, "triangular"),
    ("multiply", "none", False, True, "straight_through"),
    ("average", "zero", False, True, "atan"),
    ("average", "subtract", True, False, "straight_through"),
    ("average", "none", True, True, "triangular"),
    ("subtract", "zero", True, False, "atan"),
    ("subtract", "subtract", False, False, "triangular"),
    ("subtract", "none", False, False, "fast_sigmoid"),
    ("subtract", "zero", False, False, "straight_through"),
]
NAMES = ("leak", "reset", "reset_delay", "detach_reset", "surrogate")


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def everything(backend, T, shape, dtype=torch.float64, **options):
    """All that comes out and all gradients, with a decay and a threshold for each neuron."""
    x, v = draw(T, *shape, dtype=dtype), draw(*shape, seed=1, dtype=dtype)
    decay = torch.sigmoid(draw(*shape[-1:], seed=2, dtype=dtype))
    theta = 0.5 + draw(*shape[-1:], seed=3, dtype=dtype).abs()
    inputs = [tensor.requires_grad_() for tensor in (x, decay, theta, v)]
    s, voltage, last = lif_scan(
        x, decay, theta, v=v, return_voltage=True, return_state=True, backend=backend, **options
    )
    grads = [draw(*out.shape, seed=4 + i, dtype=dtype) for i, out in enumerate((s, voltage, last))]
    torch.autograd.backward([s, voltage, last], grads)
    return [s, voltage, last, *(tensor.grad for tensor in inputs)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_cpu_equals_the_reference(kind):
    options = dict(zip(NAMES, kind, strict=True))
    for T, shape in ((37, (3, 50)), (1, (5,)), (16, (1, 1)), (17, (2, 1100))):
        expected = everything("reference", T, shape, **options)
        found = everything("cpu", T, shape, **options)
        for name, a, b in zip(
            ["s", "v", "last", "x", "decay", "threshold", "v0"], expected, found, strict=True
        ):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-10), (name, T, shape)


@pytest.mark.parametrize("kind", KINDS[:8], ids=str)
def test_spikes_and_voltages_are_the_references_bit_by_bit(kind):
    x = draw(64, 8, 33)
    options = dict(zip(NAMES, kind, strict=True)) | {"return_voltage": True}
    decay, theta = torch.sigmoid(draw(33, seed=1)), 0.5 + draw(33, seed=2).abs()
    expected = lif_scan(x, decay, theta, backend="reference", **options)
    found = lif_scan(x, decay, theta, backend="cpu", **options)
    assert 0.02 < expected[0].mean() < 0.6
    assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])


# ------------------------------------------------------------------ peers


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.95, 1.0])
def test_spikes_are_those_of_snntorch(reset, beta):
    snntorch = pytest.importorskip("snntorch")
    x = draw(100, 16, 40, seed=3)
    for threshold in (1.0, 0.7):
        leaky = snntorch.Leaky(beta=beta, threshold=threshold, reset_mechanism=reset)
        mem, spikes, voltages = leaky.init_leaky(), [], []
        for x_t in x:
            s, mem = leaky(x_t, mem)
            spikes.append(s)
            voltages.append(mem)
        found = lif_scan(
            x, beta, threshold, reset=reset, reset_delay=True, return_voltage=True, backend="cpu"
        )
        assert torch.equal(found[0], torch.stack(spikes))
        assert torch.equal(found[1], torch.stack(voltages))


@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid", "straight_through_estimator"])
def test_gradients_are_those_of_snntorch(surrogate):
    snntorch = pytest.importorskip("snntorch")
    from snntorch import surrogate as surrogates

    x, weight = draw(20, 4, 9), draw(20, 4, 9, seed=1)
    beta, theta = torch.full((9,), 0.8), torch.full((9,), 0.9)
    leaky = snntorch.Leaky(
        beta, theta, getattr(surrogates, surrogate)(), learn_beta=True, learn_threshold=True
    )
    theirs = x.clone().requires_grad_()
    mem, loss = leaky.init_leaky(), 0
    for x_t, w_t in zip(theirs, weight, strict=True):
        s, mem = leaky(x_t, mem)
        loss = loss + (s * w_t).sum()
    loss.backward()
    ours, beta, theta = (tensor.clone().requires_grad_() for tensor in (x, beta, theta))
    name = surrogate.removesuffix("_estimator")
    s = lif_scan(ours, beta, theta, reset_delay=True, detach_reset=True, surrogate=name)
    (s * weight).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(beta.grad, leaky.beta.grad, rtol=1e-4, atol=1e-4)
    assert torch.allclose(theta.grad, leaky.threshold.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("v_reset", [None, 0.0])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("tau", [1.1, 2.0, 3.0, 10.0, 17.3])
def test_spikes_are_those_of_spikingjelly(tau, decay_input, v_reset):
    x = draw(100, 16, 40, seed=5) * (tau if decay_input else 1)
    v, expected = torch.zeros(16, 40), []
    for x_t in x:  # LIFNode's charge, fire and reset, as its version 2.0 computes them
        v = v + (x_t - v) / tau if decay_input else v - v / tau + x_t
        s = (v >= 1.0).to(x)
        v = v - s if v_reset is None else (1 - s) * v
        expected.append(s)
    kind = {
        "leak": "average" if decay_input else "subtract",
        "reset": "subtract" if v_reset is None else "zero",
    }
    found = lif_scan(x, 1 - 1 / tau, backend="cpu", **kind)
    assert found.mean() > 0.02
    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("decay_input", [True, False])
def test_spikes_and_gradients_are_those_of_spikingjelly_itself(decay_input):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based.surrogate import ATan

    node = neuron.LIFNode(
        tau=7.0,
        decay_input=decay_input,
        v_reset=None,
        surrogate_function=ATan(),
        step_mode="m",
    )
    theirs, weight = draw(50, 4, 30).mul_(3).requires_grad_(), draw(50, 4, 30, seed=1)
    expected = node(theirs)
    expected.backward(weight)
    ours = theirs.detach().clone().requires_grad_()
    found = lif_scan(ours, 1 - 1 / 7.0, leak="average" if decay_input else "subtract")
    found.backward(weight)
    assert torch.equal(found, expected)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ meaning


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_voltage_at_the_threshold_fires_at_once_but_not_delayed(backend):
    x = torch.tensor([1.0, 0.0])
    assert lif_scan(x, 1.0, backend=backend).tolist() == [1, 0]
    assert lif_scan(x, 1.0, reset_delay=True, backend=backend).tolist() == [0, 0]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gradients_of_the_smooth_path(backend):
    def voltage(x, decay, v):
        kind = {"reset": "none", "return_voltage": True, "backend": backend}
        return lif_scan(x, decay, v=v, **kind)[1]

    inputs = [draw(19, 2, 3, dtype=torch.float64), draw(3, seed=1, dtype=torch.float64).sigmoid()]
    inputs += [draw(2, 3, seed=2, dtype=torch.float64)]
    assert torch.autograd.gradcheck(voltage, [tensor.requires_grad_() for tensor in inputs])


def test_a_scalar_decay_and_threshold_learn():
    grads = {}
    for backend in ("reference", "cpu"):
        decay = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
        theta = torch.tensor([1.1], dtype=torch.float64, requires_grad=True)
        lif_scan(
            draw(30, 4, 5, dtype=torch.float64), decay, theta, backend=backend
        ).sum().backward()
        grads[backend] = torch.stack([decay.grad, theta.grad[0]])
    assert grads["cpu"].abs().min() > 0
    assert torch.allclose(grads["reference"], grads["cpu"])


def test_two_halves_joined_by_their_state_are_the_whole():
    x = draw(20_000, 3)
    whole = lif_scan(x, 0.95)
    first, state = lif_scan(x[:7001], 0.95, return_state=True)
    assert torch.equal(whole, torch.cat([first, lif_scan(x[7001:], 0.95, v=state)]))


# ------------------------------------------------------------------ edges


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("shape", [(0, 4), (5, 0), (5, 0, 3), (1, 1), (6,)])
def test_empty_and_single_dimensions(backend, shape):
    x = draw(*shape).requires_grad_()
    s, voltage, last = lif_scan(x, 0.9, return_voltage=True, return_state=True, backend=backend)
    assert s.shape == voltage.shape == x.shape and last.shape == x.shape[1:]
    (s.sum() + last.sum()).backward()
    assert x.grad.shape == x.shape


def test_memory_order_and_expanded_gradients_make_no_difference():
    x = draw(12, 6, 20)
    plain = x.clone().requires_grad_()
    lif_scan(plain, 0.9).backward(torch.ones(12, 6, 20))
    turned = x.permute(2, 1, 0).contiguous().permute(2, 1, 0).requires_grad_()
    assert not turned.is_contiguous()
    lif_scan(turned, 0.9).sum().backward()
    assert torch.equal(plain.grad, turned.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_spikes_as_float32_does(dtype):
    x = draw(30, 4, 10).to(dtype).requires_grad_()
    s, voltage = lif_scan(x, 0.9, return_voltage=True)
    exact = x.detach().float().requires_grad_()
    expected = lif_scan(exact, float(torch.tensor(0.9, dtype=dtype)))
    assert s.dtype == voltage.dtype == dtype and torch.equal(s.float(), expected)
    s.sum().backward()
    assert x.grad.dtype == dtype and x.grad.isfinite().all()


def test_every_output_is_written(monkeypatch):
    expected = everything("cpu", 21, (2, 9), **dict(zip(NAMES, KINDS[0], strict=True)))
    empty = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda *a, **k: new_empty(*a, **k).fill_(torch.nan)
    )
    found = everything("cpu", 21, (2, 9), **dict(zip(NAMES, KINDS[0], strict=True)))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_the_number_of_threads_changes_nothing():
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(everything("cpu", 100, (4, 1025), torch.float32))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_training_holds_little_beyond_what_it_returns():
    x = draw(100, 16, 128).requires_grad_()
    grad = torch.ones_like(x)

    def step():
        x.grad = None
        lif_scan(x, 0.9).backward(grad)

    # spikes and the gradient of x, and a voltage every 16 steps; SpikingJelly holds over 6
    assert peak_memory(step) < 2.2 * x.numel() * 4


# ------------------------------------------------------------------ bad input

X = torch.zeros(4, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"x": [1.0]}, TypeError, "x must be a torch.Tensor, not list"),
        ({"x": torch.zeros(4, 3, dtype=torch.int64)}, TypeError, "not int64"),
        ({"x": torch.tensor(1.0)}, ValueError, "time first"),
        ({"x": torch.full((4, 2, 3), torch.nan)}, ValueError, "x must be finite"),
        ({"decay": 1.2}, ValueError, r"decay must lie in \[0, 1\]; it is 1.2"),
        ({"decay": torch.tensor([0.5, -0.25, 0.5])}, ValueError, "it is -0.25"),
        ({"decay": torch.tensor([0.5, 0.5])}, ValueError, r"broadcast to x\[0\] \(2, 3\)"),
        ({"decay": torch.tensor(0.5, dtype=torch.float64)}, TypeError, "decay must be float32"),
        ({"decay": torch.tensor(0.5, device="meta")}, ValueError, "decay must lie on cpu"),
        ({"decay": torch.tensor([torch.nan] * 3)}, ValueError, "decay must be finite"),
        ({"decay": "0.9"}, ValueError, "decay must be a finite number or a tensor, not '0.9'"),
        ({"threshold": float("nan")}, ValueError, "threshold must be a finite number"),
        ({"v": torch.zeros(3)}, ValueError, r"v must be \(2, 3\)"),
        ({"v": torch.full((2, 3), torch.nan)}, ValueError, "v must be finite"),
        ({"reset": "hard"}, ValueError, "reset must be one of subtract, zero, none, not 'hard'"),
        ({"leak": "tau"}, ValueError, "leak must be one of"),
        ({"surrogate": "sigmoid"}, ValueError, "surrogate must be one of"),
        ({"slope": 0.0}, ValueError, "slope must be positive"),
        ({"backend": "cuda"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_input_is_named(arguments, error, said):
    with pytest.raises(error, match=said):
        lif_scan(**({"x": X, "decay": 0.9} | arguments))


def test_a_very_long_series_is_that_of_its_halves():
    # Beyond 65,536 steps a single neuron is more work than the least that is worth a thread.
    T = 65_538
    x = draw(T, 1).requires_grad_()
    s, last = lif_scan(x, 0.9, return_state=True)
    first, middle = lif_scan(x[: T // 2], 0.9, return_state=True)
    second, end = lif_scan(x[T // 2 :], 0.9, v=middle, return_state=True)
    assert torch.equal(s, torch.cat([first, second])) and torch.equal(last, end)
    s.sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()
