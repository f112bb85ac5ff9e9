"""Denoisers learned from data: one loop of steps, and the loss of denoising at drawn levels.

`train` is the usual recipe: examples, noise and levels drawn anew at every step, squared error of
what the network predicts. `descend` is its loop alone, for processes with a loss of their own.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel

from labkit import training
from labkit.checks import check_choice, check_count, check_positive, check_samples
from labkit.data import digits_split
from labkit.diffusion.networks import MAX_LOGSNR, NULL, NetworkDenoiser, check_label
from labkit.diffusion.predictions import Level, expand, target
from labkit.diffusion.schedules import LogSNRDensity, Schedule, levels_of
from labkit.seeding import seeded

Levels = Schedule | LogSNRDensity | Callable[[int, Generator], tuple[Tensor, Tensor]]
Examples = tuple[Tensor, Tensor]  # images (N, 1, 8, 8) and classes (N,) int64

# ------------------------------------------------------------------ data


def digit_images(n_train: int = 1200, *, generator: Generator) -> tuple[Examples, Examples]:
    """Shuffled digits from -1 to 1: n_train to learn from, the other 1797 - n_train held out.

    Images (N, 1, 8, 8) float32, classes int64 (`labkit.data.digits`). Their pixels have a root mean
    square of 0.85 and a standard deviation of 0.75 about a mean of -0.39.
    """
    train, held_out = digits_split(n_train, generator=generator)
    return (2 * train[0] - 1, train[1]), (2 * held_out[0] - 1, held_out[1])


# ------------------------------------------------------------------ loss


def prediction_loss(
    denoiser: NetworkDenoiser,
    x0: Tensor,
    eps: Tensor,
    alpha: Level,
    sigma: Level,
    label: Tensor | None = None,
) -> Tensor:
    """Squared error of what the network predicts, mean over the values of a sample, (B,).

    The prediction is compared in the network's own coordinates (see `NetworkDenoiser`).

    Parameters
    ----------
    x0, eps : (B, ...) clean samples and their noise
    alpha, sigma : number, () or (B,)
    label : None or (B,) int64, -1 for no label
    """
    x = expand(alpha, x0) * x0 + expand(sigma, x0) * eps
    output, z, a, b = denoiser.predict(x, alpha, sigma, label)
    wanted = target(denoiser.prediction, x0 / denoiser.sigma_data, eps, a, b)
    return (output - wanted.to(z.dtype)).square().flatten(1).mean(dim=1)


@torch.no_grad()
def denoising_loss(
    denoise: Callable[[Tensor, float, float], Tensor],
    x0: Tensor,
    levels: tuple[Sequence[float] | Tensor, Sequence[float] | Tensor],
    *,
    generator: Generator,
    draws: int = 1,
) -> Tensor:
    """Mean squared error of x0_hat per value, at each level, of data that should be held out.

    The noise follows from the generator alone, so that denoisers are compared on the same noise.
    Error of the noise estimate: (alpha/sigma)^2 times this. Of v, where alpha^2 + sigma^2 = 1:
    1/sigma^2 times this. Compare with the floor of an exact denoiser; never is it zero.

    Parameters
    ----------
    denoise : (x, alpha, sigma) -> x0_hat; a conditional one is bound: partial(net, label=y)
    x0 : (N, ...) clean samples
    levels : alphas (L,) and sigmas (L,)
    generator : draws the noise, of every level its own
    draws : noises per sample and level

    Returns
    -------
    (L,) float64
    """
    check_samples("x0", x0, axes=2)
    check_count(draws=draws)
    alphas, sigmas = (torch.as_tensor(value, dtype=torch.float64).tolist() for value in levels)
    losses = []
    for alpha, sigma in zip(alphas, sigmas, strict=True):
        total = 0.0
        for _ in range(draws):
            x = alpha * x0 + sigma * _noise(x0, generator)
            total += (denoise(x, alpha, sigma) - x0).double().square().mean().item()
        losses.append(total / draws)
    return torch.tensor(losses, dtype=torch.float64)


# ------------------------------------------------------------------ training


def train(
    denoiser: NetworkDenoiser,
    data: Tensor,
    *,
    steps: int,
    levels: Levels,
    generator: Generator,
    batch_size: int = 128,
    lr: float = 5e-3,
    labels: Tensor | None = None,
    label_dropout: float = 0.1,
    weighting: Callable[[Tensor], Tensor] | None = None,
    pair: Callable[[Tensor, Tensor], Tensor] | None = None,
    decay: str = "cosine",
    ema: float = 0.0,
    progress: bool = True,
) -> Tensor:
    """Train a denoiser in place and leave it in evaluation mode.

    Every step draws a mini-batch x0, noise eps and levels, and takes a step of Adam down the mean
    of weighting(lambda) ||prediction - target||^2 (`prediction_loss`).

    Parameters
    ----------
    denoiser : to be trained
    data : (N, ...) floating, clean samples
    steps : mini-batches
    levels : a schedule or a density of lambda, taken at t uniform in (0, 1), one t from each of
        batch_size equal parts; or a function (n, generator) -> alpha (n,), sigma (n,)
    generator : draws everything
    batch_size : samples per step, drawn with replacement
    lr : learning rate of Adam, at its highest; it warms up over a twentieth of the steps
    labels : (N,) int64 classes, of a network built with classes; None trains it without
    label_dropout : share of samples whose label is hidden, so that the network without a label
        learns the unconditional denoiser for classifier-free guidance
    weighting : weight (B,) of lambda (B,), clamped to +-20; None for 1
    pair : (x0, eps) -> eps, which noise goes with which sample, as in immiscible diffusion
    decay : of the learning rate, "cosine" to 0 or "constant"
    ema : decay per step of the average of the weights that is kept at the end; in its first steps
        it is lower, so that the initial weights do not count; 0 keeps the last weights
    progress : show a bar

    Returns
    -------
    (steps,) loss of every step.

    Raises
    ------
    TypeError, ValueError
        for data that are empty, not floating or not finite, labels that do not fit, or numbers out
        of range, before anything changes.
    FloatingPointError
        where the loss is no longer finite.
    """
    check_samples("data", data, axes=2)
    if labels is not None:
        n_classes = getattr(denoiser.network, "n_classes", None)
        check_label(labels, n_classes, data)
    if not 0 <= label_dropout <= 1:
        raise ValueError(f"label_dropout must be from 0 to 1, not {label_dropout}")
    draw = partial(_draw_levels, levels)

    def loss(index: Tensor) -> Tensor:
        x0 = data[index]
        label = None
        if labels is not None:
            hidden = torch.rand(len(index), generator=generator) < label_dropout
            label = labels[index].masked_fill(hidden.to(labels.device), NULL)
        alpha, sigma = draw(len(index), generator)
        eps = _noise(x0, generator)
        if pair is not None:
            eps = pair(x0, eps)
        squared = prediction_loss(denoiser, x0, eps, alpha, sigma, label)
        if weighting is not None:
            logsnr = (2 * (alpha.log() - sigma.log())).clamp(-MAX_LOGSNR, MAX_LOGSNR)
            squared = squared * weighting(logsnr).to(squared)
        return squared.mean()

    return descend(
        denoiser,
        loss,
        len(data),
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        decay=decay,
        ema=ema,
        generator=generator,
        progress=progress,
    )


def descend(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    N: int,
    *,
    steps: int,
    generator: Generator,
    batch_size: int = 128,
    lr: float = 5e-3,
    decay: str = "cosine",
    ema: float = 0.0,
    progress: bool = True,
) -> Tensor:
    """Step down loss(index), a mean over the examples of an index (batch_size,) into N of them.

    The loop of `train`, which explains its parameters, for losses of your own: `labkit.training`
    with the optimiser, the schedule and the average of a denoiser. The model takes the
    steps in training mode and is left in evaluation mode. Returns (steps,) losses.
    """
    check_count(steps=steps, batch_size=batch_size, N=N)
    check_positive(lr=lr)
    if not 0 <= ema < 1:
        raise ValueError(f"ema must be at least 0 and below 1, not {ema}")
    check_choice("decay", decay, ("cosine", "constant"))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
    rate = partial(_rate, steps=steps, decay=decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    average = AveragedModel(model, multi_avg_fn=partial(_average, ema)) if ema else None
    with seeded(generator):  # dropout, where a network has some
        losses = training.descend(
            model,
            lambda _: loss(torch.randint(N, (batch_size,), generator=generator)),
            range(steps),
            optimizer,
            schedule=scheduler,
            after_step=average and (lambda: average.update_parameters(model)),
            describe="training" if progress else None,
        )
    if average is not None:
        model.load_state_dict(average.module.state_dict())
    return losses


def _rate(step: int, *, steps: int, decay: str) -> float:
    """Learning rate of a step as a share of the highest."""
    warm = min(1.0, (step + 1) / max(1, steps // 20))
    return warm if decay == "constant" else warm * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def _average(ema: float, averaged: list[Tensor], current: list[Tensor], n: Tensor) -> None:
    """One step of the moving average, of weights that have been averaged n times before."""
    n = int(n)
    torch._foreach_lerp_(averaged, current, 1 - min(ema, (1 + n) / (10 + n)))


def _draw_levels(levels: Levels, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    if not isinstance(levels, Schedule | LogSNRDensity):
        return levels(n, generator)
    # One t from every n-th of (0, 1): uniform still, and the loss scatters less.
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    t = ((torch.arange(n) + u) / n).clamp(min=2.0**-54)  # rand may be 0: no noise at all
    return levels_of(levels.logsnr(t), levels.process)


def _noise(x0: Tensor, generator: Generator) -> Tensor:
    return torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
