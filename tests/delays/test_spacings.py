"""The kernel construction that readers see in delays/03_learnable_spacings, taken out of it."""

import ast
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "delays" / "03_learnable_spacings.py"
WANTED = {"profile", "footprints", "construct", "convolve"}
VERSIONS = ["v0", "v1", "max", "gauss"]


@pytest.fixture(scope="module")
def shown():
    """The functions of the notebook, without running the rest of it."""
    tree = ast.parse(NOTEBOOK.read_text(encoding="utf-8"))
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in WANTED]
    assert {n.name for n in tree.body} == WANTED
    names = {"torch": torch, "F": F}
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return names


def parameters(axes, channels=(3, 2), elements=4, reach=5.0):
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(*channels, elements, generator=draw)
    P = reach * (2 * torch.rand(axes, *channels, elements, generator=draw) - 1)
    return w, P, torch.randn(P.shape, generator=draw)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("axes", [1, 2])
def test_kernels_are_those_of_the_package(shown, version, axes):
    modules = pytest.importorskip("DCLS.construct.modules")
    w, P, SIG = parameters(axes)
    size = (13,) * axes  # of unequal sides the package confuses the middles
    package = getattr(modules, f"ConstructKernel{axes}d")(3, 2, 1, 4, size, version)
    # Its positions run from the last axis to the first, except in v0.
    order = slice(None) if version == "v0" else [*range(axes)][::-1]
    theirs = package(w, P[order], SIG[order])
    torch.testing.assert_close(
        shown["construct"](w, P, size, version, SIG), theirs, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_gradients_in_double_precision(shown, version):
    w, P, SIG = (v.double().requires_grad_() for v in parameters(2, (), 3, 2.0))
    size = (7, 9)
    assert torch.autograd.gradcheck(
        lambda w, P, SIG: shown["construct"](w, P, size, version, SIG), (w, P, SIG)
    )


@pytest.mark.parametrize("version", ["v0", "v1", "max", "gauss"])
@pytest.mark.parametrize("size", [(9,), (5, 9), (3, 5, 7)])
def test_an_element_in_the_middle_is_a_symmetric_footprint_of_sum_one(shown, version, size):
    P = torch.zeros(len(size), 1)
    X = shown["footprints"](P, size, version, torch.full_like(P, 0.5))[0]
    assert X.shape == size
    torch.testing.assert_close(X.sum(), torch.tensor(1.0))
    torch.testing.assert_close(X, X.flip(*range(len(size))))
    assert X.argmax() == X.numel() // 2


def test_an_even_kernel_has_no_tap_at_its_upper_end(shown):
    end = torch.tensor([[4.0]])
    assert shown["footprints"](end, (8,), "v1").sum() == 0
    assert shown["footprints"](end, (9,), "v1").sum() > 0.99


def test_unknown_version(shown):
    with pytest.raises(ValueError, match="'v2'"):
        shown["footprints"](torch.zeros(1, 1), (5,), "v2")


@pytest.mark.parametrize(("span", "length"), [(5, 40), (25, 40), (25, 7), (1, 3)])
def test_banded_product_is_a_padded_convolution(shown, span, length):
    draw = torch.Generator().manual_seed(0)
    x, K = torch.randn(3, 2, length, generator=draw), torch.randn(3, span, generator=draw)
    usual = F.conv1d(x.transpose(0, 1), K[:, None], padding=span // 2, groups=3).transpose(0, 1)
    torch.testing.assert_close(shown["convolve"](x, K), usual, rtol=1e-4, atol=1e-5)
