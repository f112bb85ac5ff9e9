"""delayed_linear against its sum written out, against its reference, and against DCLS."""

import itertools

import pytest
import torch

from labkit.kernels.delayed_linear import delay_kernel, delayed_linear

GRAINS = {
    "synapse": lambda o, i: (o, i),
    "axon": lambda o, i: (1, i),
    "dendrite": lambda o, i: (o, 1),
}
WIDTHS = [(None, "gaussian"), (0.8, "gaussian"), (1.7, "triangular")]
COMPILED = ["cpu", "gpu"]


def problem(T=9, B=3, inputs=5, outputs=4, longest=6, density=0.3, grain="synapse", seed=0,
            dtype=torch.float64):  # fmt: skip
    draw = torch.Generator().manual_seed(seed)
    spikes = torch.rand(T, B, inputs, generator=draw) < density
    x = torch.randn(T, B, inputs, generator=draw, dtype=dtype) * spikes
    weight = torch.randn(outputs, inputs, generator=draw, dtype=dtype)
    delay = torch.rand(GRAINS[grain](outputs, inputs), generator=draw, dtype=dtype) * longest
    return x, weight, delay


def written_out(x, K):
    """The definition, one product at a time."""
    T, B, _ = x.shape
    y = x.new_zeros(T, B, len(K))
    for t, b, o, i, d in itertools.product(*map(range, (T, B, *K.shape))):
        if d <= t:
            y[t, b, o] += K[o, i, d] * x[t - d, b, i]
    return y


def gradients(x, weight, delay, width, backend, seed=1, **options):
    """Output and gradients; rounded, none by delay and width."""
    leaves = [value.clone().requires_grad_() for value in (x, weight)]
    if width is not None:
        leaves += [delay.clone().requires_grad_(), torch.full_like(delay, width).requires_grad_()]
    x, weight, delay, width = (*leaves, delay, None)[:4] if width is None else leaves
    y = delayed_linear(x, weight, delay, width=width, backend=backend, **options)
    draw = torch.Generator().manual_seed(seed)
    return y, torch.autograd.grad(y, leaves, torch.randn(y.shape, generator=draw).to(y.dtype))


# ------------------------------------------------------------------ what the operation means


@pytest.mark.parametrize("backend", ["reference", *COMPILED])
@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize(("width", "interpolation"), WIDTHS)
def test_equals_the_sum_written_out(width, interpolation, grain, backend):
    x, weight, delay = problem(grain=grain)
    K = delay_kernel(weight, delay, width, 7, interpolation)
    y = delayed_linear(
        x, weight, delay, width=width, interpolation=interpolation, max_delay=7, backend=backend
    )
    torch.testing.assert_close(y, written_out(x, K))


def test_an_impulse_arrives_after_its_delay():
    x = torch.zeros(12, 1, 2)
    x[3, 0, 1] = 2.0
    weight, delay = torch.tensor([[5.0, 3.0]]), torch.tensor([[0, 4]])
    y = delayed_linear(x, weight, delay)
    assert y[7, 0, 0] == 6 and y.count_nonzero() == 1
    delay = torch.tensor([[0.0, 4.3]], dtype=torch.float64)
    spread = delayed_linear(x.double(), weight.double(), delay, width=1.0, max_delay=20)[:, 0, 0]
    assert spread[3:].argmax() == 4
    spread = delayed_linear(
        x.double(), weight.double(), delay, width=1.0, interpolation="triangular"
    )
    steps = torch.arange(12) - 3.0  # a triangle of width 1 interpolates linearly: exact centroid
    assert (spread[:, 0, 0] * steps).sum() / spread.sum() == pytest.approx(4.3, abs=1e-5)


def test_halves_round_to_the_even_step():
    x = torch.zeros(6, 1, 1)
    x[0] = 1
    for delay, step in [(0.5, 0), (1.5, 2), (2.5, 2), (2.51, 3), (4, 4)]:
        y = delayed_linear(x, torch.ones(1, 1), torch.tensor([[float(delay)]]))
        assert y.flatten().nonzero().item() == step


def test_the_smallest_kernel_holds_all_delays():
    weight, delay = torch.ones(1, 2), torch.tensor([[0.0, 2.4]])
    assert delay_kernel(weight, delay).shape == (1, 2, 3)
    assert delay_kernel(weight, delay, 0.5).shape == (1, 2, 4)
    assert delay_kernel(weight, delay, 0.5, 9).shape == (1, 2, 10)
    assert delay_kernel(weight, delay, 0.5).sum(dim=-1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("Kd", [7, 8])
@pytest.mark.parametrize(
    ("version", "interpolation", "offset"),
    [("gauss", "gaussian", 0.27), ("max", "triangular", 1.0), ("v1", "triangular", None)],
)
def test_equals_the_dcls_package(version, interpolation, offset, Kd):
    dcls = pytest.importorskip("DCLS.construct.modules")
    x, weight, delay = problem(longest=Kd - 1, dtype=torch.float32)
    outputs, inputs = weight.shape
    module = dcls.Dcls1d(
        inputs, outputs, kernel_count=1, dilated_kernel_size=Kd, bias=False, version=version
    )
    P = Kd - 1 - delay - Kd // 2
    SIG = torch.linspace(-2, 2, weight.numel()).view_as(weight)
    with torch.no_grad():
        module.weight.copy_(weight[..., None])
        module.P.copy_(P[None, ..., None])
        if offset is not None:
            module.SIG.copy_(SIG[None, ..., None])
    theirs_K = module.DCK(module.weight, module.P, module.SIG)
    theirs = module(torch.nn.functional.pad(x.permute(1, 2, 0), (Kd - 1, 0))).permute(2, 0, 1)
    theirs.square().sum().backward()

    weight.requires_grad_()
    P.requires_grad_()
    SIG.requires_grad_()
    delay = Kd - 1 - (P + Kd // 2)
    width = 1.0 if offset is None else SIG.abs() + offset
    ours_K = delay_kernel(weight, delay, width, Kd - 1, interpolation)
    torch.testing.assert_close(ours_K.flip(-1), theirs_K)
    ours = delayed_linear(
        x, weight, delay, width=width, interpolation=interpolation, max_delay=Kd - 1
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    ours.square().sum().backward()
    torch.testing.assert_close(weight.grad, module.weight.grad[..., 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(P.grad, module.P.grad[0, ..., 0], atol=1e-4, rtol=1e-4)
    if offset is not None:
        torch.testing.assert_close(SIG.grad, module.SIG.grad[0, ..., 0], atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------ back ends


SHAPES = [  # T, B, in, out, longest delay
    (1, 1, 1, 1, 0),
    (1, 2, 3, 2, 5),
    (7, 1, 1, 3, 2),
    (5, 17, 6, 1, 4),
    (11, 3, 2, 70, 12),
    (6, 2, 9, 5, 30),
]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("density", [0.1, 1.0])
@pytest.mark.parametrize(("width", "interpolation"), WIDTHS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grain", GRAINS)
def test_cpu_equals_reference(grain, shape, width, interpolation, density):
    case = problem(*shape, density, grain)
    options = {"interpolation": interpolation, "max_delay": shape[-1] + 1}
    y, grads = gradients(*case, width, "cpu", **options)
    y_, grads_ = gradients(*case, width, "reference", **options)
    torch.testing.assert_close(y, y_)
    torch.testing.assert_close(grads, grads_)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("width", "interpolation"), WIDTHS)
@pytest.mark.parametrize("grain", GRAINS)
def test_gpu_equals_reference(grain, width, interpolation):
    for shape in [(1, 2, 3, 2, 5), (6, 2, 5, 3, 6), (1, 1, 1, 1, 0)]:
        case = problem(*shape, grain=grain)
        options = {"interpolation": interpolation, "max_delay": shape[-1] + 1}
        y, grads = gradients(*case, width, "gpu", **options)
        y_, grads_ = gradients(*case, width, "reference", **options)
        torch.testing.assert_close(y, y_)
        torch.testing.assert_close(grads, grads_)


def test_gpu_kernel_spans_several_programs(monkeypatch):
    from labkit.kernels.delayed_linear import gpu

    monkeypatch.setattr(gpu, "TAPS", 16)
    case = problem(4, 2, 5, 3, 6)
    found = gradients(*case, 0.9, "gpu", max_delay=6)
    torch.testing.assert_close(found, gradients(*case, 0.9, "reference", max_delay=6))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("density", [0.02, 0.1, 1.0])  # each its own way on the CPU
@pytest.mark.parametrize(("width", "interpolation"), WIDTHS)
def test_float32_equals_float64(width, interpolation, density):
    case = problem(140, 9, 12, 9, 10, density, dtype=torch.float32)
    options = {"interpolation": interpolation, "max_delay": 10}
    y, grads = gradients(*case, width, "cpu", **options)
    exact, exact_grads = gradients(
        *(value.double() for value in case), width, "reference", **options
    )
    assert all(value.dtype == torch.float32 for value in (y, *grads))
    torch.testing.assert_close(y.double(), exact, atol=1e-5, rtol=1e-4)
    for grad, exact_grad in zip(grads, exact_grads, strict=True):
        torch.testing.assert_close(grad.double(), exact_grad, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["reference", *COMPILED])
@pytest.mark.parametrize("width", [None, 0.9])
def test_half_precision(width, backend, dtype):
    x, weight, delay = (value.to(dtype) for value in problem(dtype=torch.float32))
    y = delayed_linear(x, weight, delay, width=width, max_delay=6, backend=backend)
    exact = delayed_linear(x.double(), weight.double(), delay.double(), width=width, max_delay=6)
    assert y.dtype == dtype
    tolerance = 8 * torch.finfo(dtype).eps * float(exact.abs().max())
    torch.testing.assert_close(y.double(), exact, atol=tolerance, rtol=0)


@pytest.mark.parametrize("backend", ["reference", *COMPILED])
@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize(("width", "interpolation"), WIDTHS)
def test_gradcheck(width, interpolation, grain, backend):
    if backend == "gpu" and grain == "dendrite":
        pytest.skip("what differs from an axon is torch's own")
    x, weight, delay = problem(3, 1, 2, 2, 2, density=0.7, grain=grain)
    x.requires_grad_()
    weight.requires_grad_()
    if width is None:
        assert torch.autograd.gradcheck(
            lambda x, w: delayed_linear(x, w, delay, backend=backend), (x, weight)
        )
        return
    delay.requires_grad_()
    width = torch.tensor(width, dtype=torch.float64, requires_grad=True)  # one for all delays
    assert torch.autograd.gradcheck(
        lambda x, w, d, s: delayed_linear(
            x, w, d, width=s, interpolation=interpolation, max_delay=3, backend=backend
        ),
        (x, weight, delay, width),
    )


@pytest.mark.parametrize("density", [0.05, 1.0])
@pytest.mark.parametrize(("width", "interpolation"), WIDTHS)
def test_threads_do_not_change_the_result(width, interpolation, density):
    case = problem(30, 33, 7, 150, 9, density, dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(gradients(*case, width, "cpu", interpolation=interpolation))
    finally:
        torch.set_num_threads(threads)
    (y, grads), (y_, grads_) = results
    if density < 0.1:  # matrix products are torch's own
        assert torch.equal(y, y_)
        assert all(map(torch.equal, grads[1:], grads_[1:]))
    torch.testing.assert_close((y, grads), (y_, grads_), atol=1e-3, rtol=1e-4)


def test_only_what_is_asked_for_has_a_gradient():
    x, weight, delay = problem()
    delay.requires_grad_()
    delayed_linear(x, weight, delay, width=0.8).sum().backward()
    assert delay.grad.abs().sum() > 0 and x.grad is None and weight.grad is None
    assert not delayed_linear(x, weight, delay).requires_grad  # rounded


# ------------------------------------------------------------------ edges


@pytest.mark.parametrize("backend", ["reference", *COMPILED])
@pytest.mark.parametrize("width", [None, 0.8])
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (5, 0, 3, 4), (5, 2, 0, 4), (5, 2, 3, 0)])
def test_empty(shape, width, backend):
    T, B, inputs, outputs = shape
    x, weight = torch.ones(T, B, inputs), torch.ones(outputs, inputs, requires_grad=True)
    y = delayed_linear(x, weight, torch.ones(outputs, inputs), width=width, backend=backend)
    assert y.shape == (T, B, outputs) and not y.any()
    y.sum().backward()
    assert weight.grad.shape == weight.shape


@pytest.mark.parametrize("backend", ["reference", *COMPILED])
@pytest.mark.parametrize(("width", "interpolation"), WIDTHS)
def test_layouts(width, interpolation, backend):
    """Strided inputs, and the gradient of a sum, which has stride 0."""
    x, weight, delay = problem()
    options = {"width": width, "interpolation": interpolation, "backend": backend}
    strided = [torch.stack([v, v], dim=-1)[..., 0].requires_grad_() for v in (x, weight)]
    turned = delay.t().contiguous().t()
    assert not strided[0].is_contiguous() and not turned.is_contiguous()
    y = delayed_linear(*strided, turned, **options)
    plain = [value.clone().requires_grad_() for value in (x, weight)]
    y_ = delayed_linear(*plain, delay, **options)
    assert torch.equal(y, y_) and y.is_contiguous()
    y.sum().backward()
    y_.backward(torch.ones_like(y_))
    for one, other in zip(strided, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("width", [None, 0.8])
def test_long(width):
    x = torch.zeros(20_000, 1, 2)
    x[[0, 19_000], 0, 0] = 1
    delay = torch.tensor([[900.0, 0.0]])
    y = delayed_linear(x, torch.ones(1, 2), delay, width=width)[:, 0, 0]
    assert y.argmax() in (900, 19_900) and y[900] == y[19_900] > 0.4


def test_one_delay_for_all_is_a_shift():
    x, weight, _ = problem()
    delay = torch.full((1, 1), 2.0, dtype=x.dtype)
    for backend in ("reference", *COMPILED):
        y = delayed_linear(x, weight, delay, backend=backend)
        torch.testing.assert_close(y[2:], x[:-2] @ weight.t())
        assert not y[:2].any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_whole_delays_of_any_type(dtype):
    x, weight, delay = problem()
    y = delayed_linear(x, weight, delay.round().to(dtype))
    assert torch.equal(y, delayed_linear(x, weight, delay))


def test_inputs_that_are_not_finite_pass_through():
    x, weight, delay = problem(density=0.1)
    x[4, 1, 2] = torch.nan
    for width in (None, 0.8):
        y = delayed_linear(x, weight, delay, width=width, max_delay=6)
        assert y[4:, 1].isnan().any() and not y[:, [0, 2]].isnan().any() and not y[:4].isnan().any()


ONES = torch.ones(4, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, "x must be a torch.Tensor"),
        ({"x": torch.ones(9, 3, 5, dtype=torch.int64)}, TypeError, "x must hold floating"),
        ({"x": torch.ones(9, 5, dtype=torch.float64)}, ValueError, r"\(T, B, in\).*\(9, 5\)"),
        ({"x": torch.ones(9, 3, 6, dtype=torch.float64)}, ValueError, r"\(9, 3, 6\)"),
        ({"weight": ONES.float()}, TypeError, "weight must be float64 as x"),
        ({"weight": ONES.to("meta")}, ValueError, "weight must lie on cpu"),
        ({"weight": ONES * torch.nan}, ValueError, "weight must be finite"),
        ({"weight": ONES.long()}, TypeError, "weight must hold floating"),
        ({"delay": ONES.float()}, TypeError, "delay must be float64"),
        ({"delay": ONES.to("meta")}, ValueError, "delay must lie on cpu"),
        ({"delay": ONES.long()}, TypeError, "width=None"),
        ({"delay": ONES.bool(), "width": None}, TypeError, "delay must hold floating"),
        ({"delay": ONES[:, :2]}, ValueError, r"delay must be.*\(4, 2\)"),
        ({"delay": ONES[0]}, ValueError, r"delay must be.*\(5,\)"),
        ({"delay": 2.0}, TypeError, "delay must be a torch.Tensor"),
        ({"delay": ONES * -0.25}, ValueError, r"delay must lie.*first at \(0, 0\): -0.25"),
        ({"delay": ONES.long() * -2, "width": None}, ValueError, "delay must lie.*-2"),
        ({"delay": ONES * 8.5, "max_delay": 8}, ValueError, "max_delay = 8.*8.5"),
        ({"delay": ONES * torch.inf}, ValueError, "delay must be finite"),
        ({"delay": ONES * torch.nan}, ValueError, "delay must be finite"),
        ({"max_delay": -1}, ValueError, "max_delay.*-1"),
        ({"max_delay": 2.5}, TypeError, "max_delay.*2.5"),
        ({"width": 0.0}, ValueError, "width must be positive, not 0.0"),
        ({"width": float("nan")}, ValueError, "width.*nan"),
        ({"width": float("inf")}, ValueError, "width.*inf"),
        ({"width": "1"}, TypeError, "width must be a number"),
        ({"width": ONES - 1}, ValueError, "width must be positive"),
        ({"width": ONES.float()}, TypeError, "width must be float64"),
        ({"width": ONES.long()}, TypeError, "width must hold floating"),
        ({"width": ONES[:, :3]}, ValueError, r"width must broadcast.*\(4, 3\)"),
        ({"width": ONES[None]}, ValueError, "width must broadcast"),
        ({"width": 0.9, "interpolation": "triangular"}, ValueError, "at least 1 step, not 0.9"),
        ({"interpolation": "linear"}, ValueError, "gaussian, triangular, not 'linear'"),
        ({"backend": "cuda"}, ValueError, "reference, cpu, gpu"),
    ],
)
def test_bad_input_is_named(change, error, message):
    x, weight, delay = problem()
    with pytest.raises(error, match=message):
        delayed_linear(**{"x": x, "weight": weight, "delay": delay, "width": 1.0} | change)
