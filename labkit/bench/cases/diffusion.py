"""Sampling: the loop of `labkit.diffusion` against that of diffusers, around one network."""

from importlib.util import find_spec

import torch
from torch import Tensor

from labkit.bench.measure import Case, Trial, agree, generator
from labkit.diffusion import NetworkDenoiser, TinyUNet, generate, linear_beta

BATCH, SIDE, STEPS = 64, 8, 50


def _sample(device: str) -> Trial:
    draw = generator("cpu")
    network = TinyUNet(16, SIDE, generator=draw)
    with torch.no_grad():  # else its last layer is zero, and every sampler agrees
        for weight in network.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=draw)
    network = network.to(device).requires_grad_(False)
    x = torch.randn(BATCH, 1, SIDE, SIDE, generator=draw).to(device)
    schedule = linear_beta()
    denoise, levels = NetworkDenoiser(network, "v"), schedule.steps(STEPS)
    logsnr = schedule.table.float().to(device)

    def ours() -> Tensor:
        return generate(denoise, x, levels)

    def network_alone() -> None:
        with torch.no_grad():
            for _ in range(STEPS):
                network(x, logsnr[-1])

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

    return Trial(ours, check, network_alone, peers, missing)


CASES = [
    Case(
        "diffusion_sample",
        f"DDIM, {STEPS} steps of {BATCH} digits, U-Net of 16 channels",
        f"{STEPS} calls of the network alone",
        _sample,
        ("cpu", "cuda"),
    )
]
