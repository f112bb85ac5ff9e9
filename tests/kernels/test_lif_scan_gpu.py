"""lif_scan's GPU kernels against the reference, in Triton's interpreter; and that they compile."""

import os
import random
import subprocess
import sys
from itertools import combinations

import pytest
import torch

from labkit.kernels import lif_scan
from labkit.kernels.lif_scan.reference import LEAKS, RESETS, SLOPES

pytest.importorskip("triton")
from labkit.kernels.lif_scan import gpu

INPUTS = ("x", "decay", "threshold", "v")
OUTPUTS = ("spikes", "voltages", "last")


pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture
def short_chunks(monkeypatch):
    """Several chunks within few steps, for the interpreter is slow."""
    monkeypatch.setattr(gpu, "CHUNK", 4)
    monkeypatch.setattr(gpu, "AHEAD", 8)


def neurons(shape, dtype=torch.float32, decay=True, threshold=True):
    """x, decay, threshold, v at which about every second step fires.

    Decay and threshold are one for all neurons where `decay` or `threshold` is False.
    """
    draw = torch.Generator().manual_seed(0)

    def uniform(low, high, size):
        return low + (high - low) * torch.rand(size, generator=draw, dtype=dtype)

    x = uniform(-0.6, 1.4, shape)
    d = uniform(0.3, 0.99, shape[1:] if decay else ())
    theta = uniform(0.2, 0.8, shape[1:] if threshold else ())
    v = uniform(-0.5, 2.0, shape[1:])
    return [q.requires_grad_() for q in (x, d, theta, v)]


def scan(inputs, backend, **options):
    """Spikes, voltages, last voltage."""
    x, d, theta, v = inputs
    return lif_scan(
        x, d, theta, v=v, return_voltage=True, return_state=True, backend=backend, **options
    )


def loss_of(outputs, wanted=OUTPUTS):
    """A weighted sum of the wanted outputs."""
    draw = torch.Generator().manual_seed(1)
    losses = [
        (output * torch.randn(output.shape, generator=draw).to(output.dtype)).sum()
        for name, output in zip(OUTPUTS, outputs, strict=True)
        if name in wanted
    ]
    return sum(losses)


def assert_gradients_close(found, expected):
    for name, a, b in zip(INPUTS, found, expected, strict=True):
        bound = 1e-5 if b.dtype == torch.float32 else 1e-12
        error = (a - b).norm() / b.norm().clamp(min=0.1)
        assert a.shape == b.shape and error < bound, f"{name}: {error:.2g}"


def all_pairs(**choices):
    """A few cases in which any two values of different options meet."""
    draw = random.Random(0)
    missing = {
        ((a, p), (b, q))
        for a, b in combinations(choices, 2)
        for p in choices[a]
        for q in choices[b]
    }
    cases = []
    while missing:
        two = dict(min(missing, key=repr))
        tries = [{a: two.get(a, draw.choice(p)) for a, p in choices.items()} for _ in range(50)]
        cases.append(max(tries, key=lambda case: len(missing & {*combinations(case.items(), 2)})))
        missing -= {*combinations(cases[-1].items(), 2)}
    return cases


CASES = all_pairs(
    leak=LEAKS,
    reset=RESETS,
    reset_delay=(False, True),
    detach_reset=(False, True),
    surrogate=tuple(SLOPES),
    dtype=(torch.float32, torch.float64),
    T=(1, 4, 7, 13),
    each=((False, False), (False, True), (True, False), (True, True)),
    wanted=(("spikes",), ("voltages",), ("last",), OUTPUTS),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_equals_the_reference(case, short_chunks):
    options = dict(case)
    T, dtype, each, wanted = (options.pop(name) for name in ("T", "dtype", "each", "wanted"))
    inputs = neurons((T, 5), dtype, *each)
    mine, reference = scan(inputs, "gpu", **options), scan(inputs, "reference", **options)
    for name, a, b in zip(OUTPUTS, mine, reference, strict=True):
        assert torch.equal(a, b), name
    expected = torch.autograd.grad(
        loss_of(reference, wanted), inputs, allow_unused=True, materialize_grads=True
    )
    assert_gradients_close(torch.autograd.grad(loss_of(mine, wanted), inputs), expected)


@pytest.mark.parametrize("surrogate", SLOPES)
def test_slopes_reach_the_surrogate(surrogate, short_chunks):
    inputs = neurons((5, 4), torch.float64)
    found, expected = (
        torch.autograd.grad(loss_of(scan(inputs, b, surrogate=surrogate, slope=0.7)), inputs)
        for b in ("gpu", "reference")
    )
    assert_gradients_close(found, expected)


# With what is shipped: less than a chunk, one, a step more; one and several programs; any rank.
@pytest.mark.parametrize("shape", [(1, 70), (16, 1), (17, 3), (37, 2), (33,), (2, 3, 1, 2)])
def test_shapes(shape):
    inputs = neurons(shape)
    mine, reference = scan(inputs, "gpu"), scan(inputs, "reference")
    for a, b in zip(mine, reference, strict=True):
        assert a.shape == b.shape and torch.equal(a, b)
    found, expected = (torch.autograd.grad(loss_of(told), inputs) for told in (mine, reference))
    assert_gradients_close(found, expected)
    if len(shape) > 1 and shape[0] > 2:
        assert 0 < mine[0].mean() < 1


def layouts():
    """x of 7 steps and 6 neurons, as memory may hold it."""
    x = neurons((7, 6))[0].detach()
    return {
        "batch first": x.T.contiguous().T,
        "every other": torch.stack([x, x], dim=2).flatten(1)[:, ::2],
        "backwards in a larger one": torch.cat([x, x], dim=1)[:, 3:9],
        "one input for all steps": x[:1].expand(7, 6),
        "one input for all neurons": x[:, :1].expand(7, 6),
        "one number": x[:1, :1].expand(7, 6),
    }


@pytest.mark.parametrize("name", layouts())
def test_any_layout_of_the_input(name, short_chunks):
    x, (_, d, theta, v) = layouts()[name], neurons((7, 6))
    v = torch.stack([v, v], dim=1)[:, 0]
    before = x.clone()
    inputs = [x.requires_grad_(), d, theta, v]
    same = [x.detach().contiguous().requires_grad_(), d, theta, v]
    strided, dense = scan(inputs, "gpu"), scan(same, "gpu")
    assert all(torch.equal(a, b) for a, b in zip(strided, dense, strict=True))
    for a, b in zip(
        torch.autograd.grad(loss_of(strided), inputs),
        torch.autograd.grad(loss_of(dense), same),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert torch.equal(x, before)


def test_gradient_of_a_sum_is_not_written_out(short_chunks):
    inputs = neurons((9, 6))
    ones = torch.ones(1).expand(9, 6)
    assert gpu._side_by_side(ones) is ones
    s = scan(inputs, "gpu")[0]
    summed = torch.autograd.grad(s.sum(), inputs, retain_graph=True)
    for layout in (torch.ones(9, 6), torch.ones(6, 9).T):
        found = torch.autograd.grad(s, inputs, layout, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(found, summed, strict=True))


@pytest.mark.parametrize("learned", INPUTS)
def test_gradient_of_one_input_alone(learned, short_chunks):
    inputs = neurons((9, 6))
    (expected,) = torch.autograd.grad(loss_of(scan(inputs, "gpu")), inputs[INPUTS.index(learned)])
    alone = [q if name == learned else q.detach() for name, q in zip(INPUTS, inputs, strict=True)]
    (found,) = torch.autograd.grad(loss_of(scan(alone, "gpu")), alone[INPUTS.index(learned)])
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("leak", "reset", "reset_delay"),
    [("multiply", "subtract", False), ("average", "zero", True), ("subtract", "subtract", True)],
)
def test_voltages_have_true_gradients(leak, reset, reset_delay, short_chunks):
    """Where no spike changes, a detached reset leaves nothing to the surrogate."""
    inputs = neurons((6, 2), torch.float64)

    def voltages(*inputs):
        return scan(
            inputs, "gpu", leak=leak, reset=reset, reset_delay=reset_delay, detach_reset=True
        )[1:]

    assert scan(inputs, "gpu", leak=leak, reset=reset, reset_delay=reset_delay)[0].any()
    torch.autograd.gradcheck(voltages, inputs, eps=1e-7, fast_mode=True)


@pytest.mark.parametrize(("reset_delay", "fires"), [(False, [1, 0, 1]), (True, [0, 1, 0])])
def test_meeting_the_threshold_fires_unless_the_reset_is_delayed(reset_delay, fires, short_chunks):
    x = torch.tensor([1.0, 0.75, 0.625]).view(3, 1)
    inputs = [q.requires_grad_() for q in (x, torch.tensor(0.5), torch.ones(1), torch.zeros(1))]
    mine, reference = (scan(inputs, b, reset_delay=reset_delay) for b in ("gpu", "reference"))
    assert mine[0].flatten().tolist() == fires
    assert all(torch.equal(a, b) for a, b in zip(mine, reference, strict=True))
    found, expected = (torch.autograd.grad(loss_of(told), inputs) for told in (mine, reference))
    assert_gradients_close(found, expected)


def test_no_leak_and_nothing_left(short_chunks):
    for decay in (0.0, 1.0):
        for leak in LEAKS:
            x = neurons((5, 4))[0].detach()
            mine = lif_scan(x, decay, leak=leak, return_voltage=True, backend="gpu")
            reference = lif_scan(x, decay, leak=leak, return_voltage=True, backend="reference")
            assert all(torch.equal(a, b) for a, b in zip(mine, reference, strict=True))


@pytest.mark.parametrize("reset_delay", [False, True])
def test_goes_on_from_its_last_voltage(reset_delay, short_chunks):
    x, d, theta, v = (q.detach() for q in neurons((11, 6)))
    whole = scan((x, d, theta, v), "gpu", reset_delay=reset_delay)
    first = scan((x[:5], d, theta, v), "gpu", reset_delay=reset_delay)
    rest = scan((x[5:], d, theta, first[2]), "gpu", reset_delay=reset_delay)
    assert torch.equal(torch.cat([first[0], rest[0]]), whole[0])
    assert torch.equal(torch.cat([first[1], rest[1]]), whole[1])
    assert torch.equal(rest[2], whole[2])


def test_every_call_gives_the_same_bits(short_chunks):
    inputs = neurons((9, 40), decay=False, threshold=False)
    calls = []
    for _ in range(2):
        outputs = scan(inputs, "gpu")
        calls.append([*outputs, *torch.autograd.grad(loss_of(outputs), inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*calls, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_through_the_public_function(dtype, short_chunks):
    inputs = [q.detach().to(dtype).requires_grad_() for q in neurons((9, 6))]
    mine, reference = scan(inputs, "gpu"), scan(inputs, "reference")
    assert torch.equal(mine[0], reference[0]) and 0 < mine[0].mean() < 1
    for a, b in zip(mine, reference, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b)
    found, expected = (torch.autograd.grad(loss_of(told), inputs) for told in (mine, reference))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, rtol=torch.finfo(dtype).eps, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_memory_alone(dtype, short_chunks):
    """x, the spikes, the voltages and the gradients of these are half, all else is float32."""
    x, d, theta, v = (q.detach() for q in neurons((9, 6)))
    kind = {"leak": "multiply", "reset": "subtract", "reset_delay": False, "detach_reset": False}
    kind |= {"surrogate": "atan", "slope": 2.0, "tell": True}
    half = x.to(dtype).requires_grad_()
    full = half.detach().float().requires_grad_()
    mine, wide = (gpu.lif_scan(q, d, 1 / (1 - d), theta, v, **kind) for q in (half, full))
    assert [q.dtype for q in mine] == [dtype, dtype, torch.float32]
    assert torch.equal(mine[0], wide[0].to(dtype))
    torch.testing.assert_close(mine[1], wide[1].to(dtype))
    assert torch.equal(mine[2], wide[2])
    weight = torch.randn(9, 6, generator=torch.manual_seed(1)).to(dtype)
    (found,) = torch.autograd.grad(mine[0], half, weight)
    (expected,) = torch.autograd.grad(wide[0], full, weight.float())
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected.to(dtype))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from labkit.kernels.lif_scan import gpu

KIND = {"reset": "subtract", "delay": True, "detach": False, "surrogate": "atan", "keep": True}
KIND |= {"tell": True, "told": True, "learn": True, "AHEAD": 4, "CHUNK": 2}
LAUNCH = gpu._grid(32)[1]
KIND["BLOCK"] = LAUNCH.pop("BLOCK")
IN_X = {"x_ptr", "s_ptr", "voltages_ptr", "g_ptr", "gv_ptr", "gx_ptr"}


def assembly(kernel, x, real, leak):
    kind = KIND | {"leak": leak}
    types = {name: "i64" for name in kernel.arg_names} | {"T": "i32", "slope": "fp64"}
    for name in kernel.arg_names:
        if name.endswith("_ptr"):
            types[name] = "*" + (x if name in IN_X else real)
        elif name in kind:
            types[name] = "constexpr"
    values = {(i,): kind[name] for i, name in enumerate(kernel.arg_names) if name in kind}
    source = ASTSource(kernel, {name: types[name] for name in kernel.arg_names}, values)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=LAUNCH).asm["ptx"]


for kernel in (gpu._forward, gpu._backward):
    for x, real, leak in [("bf16", "fp32", "average"), ("fp64", "fp64", "multiply")]:
        ptx = assembly(kernel, x, real, leak)
        assert "fma." not in ptx, "fused, and spikes may differ from the reference"
        assert ".shared" not in ptx and "bar." not in ptx, "chunks left the registers"
        assert ("div.rn.f32" in ptx) == (leak == "average")
        assert ".ftz" not in ptx
"""


def test_compiles_for_a_gpu_without_fusing(tmp_path):
    """The interpreter takes more than the compiler does; this needs no GPU either."""
    program = tmp_path / "compile.py"
    program.write_text(COMPILE)
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
