"""Sampling: the loop of `labkit.diffusion` against that of diffusers, around one network."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from labkit.bench.measure import Case, Trial, agree, generator
from labkit.diffusion import NetworkDenoiser, TinyUNet, generate, linear_beta

BATCH, SIDE, STEPS = 64, 8, 50


class Free(nn.Module):
    """A network that costs next to nothing: what is left is the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, logsnr: Tensor, label: Tensor | None = None) -> Tensor:
        return self.scale * x


def _unet() -> nn.Module:
    draw = generator("cpu")
    network = TinyUNet(16, SIDE, generator=draw)
    with torch.no_grad():  # else its last layer is zero, and every sampler agrees
        for weight in network.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=draw)
    return network


def _sample(device: str, build: Callable[[], nn.Module]) -> Trial:
    network = build().to(device).requires_grad_(False)
    x = torch.randn(BATCH, 1, SIDE, SIDE, generator=generator("cpu")).to(device)
    schedule = linear_beta()
    denoise, levels = NetworkDenoiser(network, "v"), schedule.steps(STEPS)
    logsnr = schedule.table.float().to(device)

    def ours() -> Tensor:
        return generate(denoise, x, levels)

    @torch.no_grad()
    def floor() -> None:
        y = x
        for _ in range(STEPS):
            y = torch.add(y, network(x, logsnr[-1]), alpha=0.1)

    peers, missing = {}, []
    if find_spec("diffusers") is None:
        missing.append("diffusers")
    else:
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(
            beta_start=1e-4,
            beta_end=0.02,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            clip_sample=False,
        )
        scheduler.set_timesteps(STEPS)

        @torch.no_grad()
        def diffusers() -> Tensor:
            y = x
            for t in scheduler.timesteps:
                y = scheduler.step(network(y, logsnr[t]), t, y).prev_sample
            return y

        peers["diffusers"] = diffusers

    def check() -> None:
        for name, theirs in peers.items():
            agree(name, ours(), theirs(), 1e-3)

    return Trial(ours, check, floor, peers, missing)


FLOOR = f"{STEPS} calls of the network, and a sum after each"
CASES = [
    Case(
        "diffusion_sample",
        f"DDIM, {STEPS} steps of {BATCH} digits, {name}",
        FLOOR,
        partial(_sample, build=build),
        ("cpu", "cuda"),
    )
    for name, build in (("U-Net of 16 channels", _unet), ("the loop alone", Free))
]
