"""Synaptic delays at the size of the Spiking Heidelberg Digits, against the package DCLS."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from labkit.bench.measure import Case, Trial, agree, generator, multiplied
from labkit.kernels import delayed_linear

T, B, INPUTS, OUTPUTS, MAX_DELAY = 100, 256, 140, 256, 24
SIGMA = 2.27  # steps; DCLS keeps |SIG| = sigma - 0.27. Narrower, its far taps are subnormal: slow
RATE = 0.05  # spikes an input and step


def _build(*, train: bool) -> Callable[[str], Trial]:
    def build(device: str) -> Trial:
        draw = generator(device)

        def random(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=draw, device=device)

        x = (random(T, B, INPUTS) < RATE).float()
        weight = ((random(OUTPUTS, INPUTS) - 0.5) / INPUTS**0.5).requires_grad_(train)
        delay = (MAX_DELAY * random(OUTPUTS, INPUTS)).requires_grad_(train)
        if not train:
            delay = delay.round()
        width = SIGMA if train else None
        g = random(T, B, OUTPUTS)

        def timed(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
            def call() -> Tensor:
                with torch.set_grad_enabled(train):
                    y = forward()
                if train:
                    torch.autograd.backward(y, g)
                return y.detach()

            return call

        def ours(**options: Any) -> Tensor:
            return delayed_linear(x, weight, delay, width=width, max_delay=MAX_DELAY, **options)

        missing = () if find_spec("DCLS") else ("DCLS",)
        peers = {} if missing else {"DCLS": timed(_dcls(x, weight, delay, train))}

        def check() -> None:
            expected = ours(backend="reference").detach()
            agree("its reference", ours().detach(), expected, 1e-4)
            for name, call in peers.items():
                agree(name, call(), expected, 1e-4)

        products = int(x.sum()) * OUTPUTS * (3 * (MAX_DELAY + 1) if train else 1)
        return Trial(timed(ours), check, multiplied(products, device), peers, missing)

    return build


def _dcls(x: Tensor, weight: Tensor, delay: Tensor, train: bool) -> Callable[[], Tensor]:
    from DCLS.construct.modules import Dcls1d

    size = MAX_DELAY + 1
    layer = Dcls1d(
        INPUTS,
        OUTPUTS,
        kernel_count=1,
        dilated_kernel_size=size,
        bias=False,
        version="gauss" if train else "max",  # a triangle of one step is a rounded delay
    ).to(x.device)
    with torch.no_grad():
        layer.weight.copy_(weight.unsqueeze(-1))
        # its kernel is a correlation and its positions count from the centre
        layer.P.copy_((size // 2 - delay)[None, :, :, None])
        layer.SIG.fill_(SIGMA - 0.27 if train else 0.0)
    layer.SIG.requires_grad_(False)
    series = torch.nn.functional.pad(x.permute(1, 2, 0), (MAX_DELAY, 0)).contiguous()

    def forward() -> Tensor:
        return layer(series).permute(2, 0, 1)

    return forward


CASES = [
    Case(
        "delayed_linear",
        f"training, {INPUTS} to {OUTPUTS}, {MAX_DELAY + 1} delays, B {B}, T {T}, 5 % spikes",
        "a product for each spike, output and delay, three times, as a dense product",
        _build(train=True),
    ),
    Case(
        "delayed_linear",
        f"rounded evaluation, {INPUTS} to {OUTPUTS}, {MAX_DELAY + 1} delays, B {B}, T {T}",
        "a product for each spike and output, as a dense product",
        _build(train=False),
    ),
]
