"""Unlearning by more training: gradient steps that raise the loss, wrong labels, two teachers.

Every method copies the model, trains the copy by a `Recipe` (Adam) in training mode and returns it
in evaluation mode. `model` gives logits (B, C); `forget` and `retain` are inputs (N, ...) and
classes (N,) int64; `generator` draws everything random. All of them raise what
`check_unlearning` raises, before any work and with the model as it was.

The defaults suit small networks on small images. How much to forget is a matter of steps and
learning rate, so that comparing methods means searching both, with equal effort for each.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from labkit.unlearning.checks import (
    Examples,
    check_apart,
    check_unlearning,
    count_classes,
    union,
)
from labkit.unlearning.training import Recipe, descend, train

RECIPE = Recipe(epochs=5)  # the default of nearly all, so that they start with equal budgets
ASCENT = Recipe(epochs=5, lr=3e-4)
IMPAIR, REPAIR = Recipe(epochs=1, lr=5e-3), Recipe(epochs=1, lr=2e-3)


def fine_tune(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    recipe: Recipe = RECIPE,
    generator: Generator,
) -> nn.Module:
    """Go on training with the retain set, and let the rest be forgotten on its own.

    Catastrophic forgetting as a baseline: FT, or CF in Goel et al. (2024).
    """
    student = _student(model, forget, retain)
    train(student, retain, recipe, generator=generator)
    return student


def gradient_ascent(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    recipe: Recipe = ASCENT,
    generator: Generator,
) -> nn.Module:
    """Raise the cross-entropy of the forget set, which has no upper bound (GA; Thudi et al. 2022).

    The retain set serves the check alone.
    """
    student = _student(model, forget, retain)
    descend(student, lambda i: -_ce(student, forget, i), len(forget[0]), recipe, generator)
    return student


def neg_grad_plus(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    beta: float = 0.95,
    recipe: Recipe = RECIPE,
    generator: Generator,
) -> nn.Module:
    """Descend on the retain set and ascend on the forget set in one step (Kurmanji et al. 2023).

        beta CE(retain) - (1 - beta) CE(forget),   0 < beta < 1

    An epoch passes over the retain set; batches of the forget set start over as often as needed.
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta must lie between 0 and 1, not {beta}")
    student = _student(model, forget, retain)
    forget_batches = _endless(len(forget[0]), recipe, generator)

    def loss(i: Tensor) -> Tensor:
        ascent = _ce(student, forget, next(forget_batches))
        return beta * _ce(student, retain, i) - (1 - beta) * ascent

    descend(student, loss, len(retain[0]), recipe, generator)
    return student


# ------------------------------------------------------------------ wrong labels


def wrong_labels(targets: Tensor, n_classes: int, generator: Generator) -> Tensor:
    """A class y' != y for every target (N,), uniform over the other n_classes - 1."""
    shift = torch.randint(1, n_classes, targets.shape, generator=generator, device=generator.device)
    return (targets + shift.to(targets.device)) % n_classes


def random_labels(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    recipe: Recipe = RECIPE,
    generator: Generator,
) -> nn.Module:
    """Train the forget set with random wrong labels, and nothing else (Golatkar et al. 2020).

    The labels are drawn once and never the true ones. The retain set serves the check alone.
    """
    student = _student(model, forget, retain)
    train(student, _relabelled(model, forget, generator), recipe, generator=generator)
    return student


def amnesiac(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    recipe: Recipe = RECIPE,
    generator: Generator,
) -> nn.Module:
    """Train the forget set with random wrong labels among the retain set with its own.

    The relabelling of Graves, Nagisetty & Ganesh (AAAI 2021), as the literature compares with it;
    their other method, which subtracts logged updates, must be prepared at training time.
    """
    student = _student(model, forget, retain)
    data = union(_relabelled(model, forget, generator), retain)
    train(student, data, recipe, generator=generator)
    return student


def salun(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    share: float = 0.5,
    recipe: Recipe = RECIPE,
    generator: Generator,
) -> nn.Module:
    """Random wrong labels, where only the salient weights may move (SalUn; Fan et al., ICLR 2024).

    Salient are the share (0 < share <= 1) of all parameters with the largest gradient of the forget
    set's cross-entropy, in absolute value. The others are put back after every step and so stay
    exactly what they were, whatever momentum or weight decay do. Relabelled forget set and retain
    set are mixed, as the official code does for CIFAR-100. Buffers, such as the statistics of a
    batch norm, are no parameters and do move.

    The gradient is taken in evaluation mode: a model with batch norm or dropout must be in it.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {share}")
    student = _student(model, forget, retain)
    check_apart(model)
    salient = saliency_mask(model, forget, share)
    data = union(_relabelled(model, forget, generator), retain)
    optimizer = recipe.optimizer(student.parameters())
    original = dict(model.named_parameters())

    @torch.no_grad()
    def put_back(*_: object) -> None:
        for name, parameter in student.named_parameters():
            parameter.copy_(torch.where(salient[name], parameter, original[name]))

    optimizer.register_step_post_hook(put_back)
    descend(student, lambda i: _ce(student, data, i), len(data[0]), recipe, generator, optimizer)
    return student


def saliency_mask(model: nn.Module, forget: Examples, share: float) -> dict[str, Tensor]:
    """Name -> bool, true for the share of all parameters with the largest |gradient|.

    The gradient is that of the mean cross-entropy of the forget set, in the model's present mode. A
    parameter that the loss does not depend on has gradient 0. Ties at the threshold are all in.
    """
    parameters = dict(model.named_parameters())
    loss = F.cross_entropy(model(forget[0]), forget[1])
    gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    sizes = torch.cat([gradient.abs().flatten() for gradient in gradients])
    kept = max(1, round(share * len(sizes)))
    threshold = sizes.kthvalue(len(sizes) - kept + 1).values
    return {
        name: gradient.abs() >= threshold
        for name, gradient in zip(parameters, gradients, strict=True)
    }


# ------------------------------------------------------------------ teachers


def scrub(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    alpha: float = 0.5,
    gamma: float = 1.0,
    temperature: float = 4.0,
    ascent_epochs: int = 3,
    forget_batch_size: int = 16,
    recipe: Recipe = RECIPE,
    generator: Generator,
) -> nn.Module:
    """Leave the teacher on the forget set, stay with it elsewhere (SCRUB; Kurmanji et al. 2023).

    The teacher is the original model. Each epoch is

        a pass over the forget set up the divergence from the teacher (first ascent_epochs only),
        a pass over the retain set down alpha divergence + gamma CE,

    with one optimiser. The ascent is on the divergence alone: no label enters it. So it may also
    leave the teacher towards more confidence in the right class. And at first, where student and
    teacher are equal, the divergence has no gradient: without batch norm or dropout the first
    ascent stands nearly still, and the descent that follows sets the direction.

    alpha, gamma : weights of the two terms of the descent
    temperature : of the divergence, see `divergence`
    ascent_epochs : how many epochs ascend first, from 0 to recipe.epochs
    forget_batch_size : examples per step of the ascent; smaller batches make more steps up
    """
    if not 0 <= ascent_epochs <= recipe.epochs:
        raise ValueError(
            f"ascent_epochs must be from 0 to recipe.epochs = {recipe.epochs}, not {ascent_epochs}"
        )
    student = _student(model, forget, retain)
    of_forget, of_retain = _logits(model, forget), _logits(model, retain)

    def ascent(i: Tensor) -> Tensor:
        return -divergence(student(forget[0][i]), of_forget[i], temperature)

    def descent(i: Tensor) -> Tensor:
        logits = student(retain[0][i])
        stay = divergence(logits, of_retain[i], temperature)
        return alpha * stay + gamma * F.cross_entropy(logits, retain[1][i])

    up = replace(recipe, epochs=1, batch_size=forget_batch_size)
    down = replace(recipe, epochs=1)
    optimizer = recipe.optimizer(student.parameters())
    for epoch in range(recipe.epochs):
        if epoch < ascent_epochs:
            descend(student, ascent, len(forget[0]), up, generator, optimizer)
        descend(student, descent, len(retain[0]), down, generator, optimizer)
    return student


def bad_teacher(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    incompetent: nn.Module,
    temperature: float = 1.0,
    recipe: Recipe = RECIPE,
    generator: Generator,
) -> nn.Module:
    """Learn the forget set from an untrained network, the rest from the original (BadT).

    Chundawat et al., AAAI 2023, "Can bad teaching induce forgetting?": the student descends the
    divergence from the incompetent teacher on forget examples and from the original on retain
    examples, mixed. The official code divides it by the number of classes as well
    (`reduction="mean"`); here it is per example, as written in the paper.

    incompetent : a network with logits (B, C) too, as a rule freshly initialised
    """
    student = _student(model, forget, retain)
    C, other = count_classes(model, forget[0]), count_classes(incompetent, forget[0])
    if other != C:
        raise ValueError(f"incompetent must give {C} logits as model does, not {other}")
    x = torch.cat([forget[0], retain[0]])
    lesson = torch.cat([_logits(incompetent, forget), _logits(model, retain)])
    descend(
        student,
        lambda i: divergence(student(x[i]), lesson[i], temperature),
        len(x),
        recipe,
        generator,
    )
    return student


def divergence(logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(logits / T)), the mean over examples.

    Logits (B, C) both; a scalar in nats. T^2 keeps the gradient comparable to that of the
    cross-entropy (Hinton et al. 2015).
    """
    T = temperature
    return T**2 * F.kl_div(
        (logits / T).log_softmax(dim=1),
        (teacher_logits / T).log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )


# ------------------------------------------------------------------ noise


def unsir(
    model: nn.Module,
    forget: Examples,
    retain: Examples,
    *,
    noise_steps: int = 40,
    noise_lr: float = 0.1,
    penalty: float = 0.1,
    impair: Recipe = IMPAIR,
    repair: Recipe = REPAIR,
    generator: Generator,
) -> nn.Module:
    """Impair with noise that maximises the error, then repair (UNSIR; Tarun et al., TNNLS 2023).

    The copy learns `error_maximising_noise` under the classes of the forget set, mixed with the
    retain set (impair), and then the retain set alone (repair). It never sees a forget input. The
    paper does this to whole classes.
    """
    if noise_steps < 1 or not noise_lr > 0 or not penalty >= 0:
        raise ValueError(
            "noise_steps must be at least 1, noise_lr positive and penalty not negative, not "
            f"{noise_steps}, {noise_lr} and {penalty}"
        )
    student = _student(model, forget, retain)
    noise = error_maximising_noise(model, forget, noise_steps, noise_lr, penalty, generator)
    train(student, union((noise, forget[1]), retain), impair, generator=generator)
    train(student, retain, repair, generator=generator)
    return student


def error_maximising_noise(
    model: nn.Module,
    forget: Examples,
    steps: int,
    lr: float,
    penalty: float,
    generator: Generator,
) -> Tensor:
    """Noise of the shape of the forget inputs, one for each and with its class y.

    It starts Gaussian and climbs CE(f(noise), y) - penalty ||noise||^2 by Adam; the model is fixed
    and in evaluation mode.
    """
    x, y = forget
    fixed = copy.deepcopy(model).eval().requires_grad_(False)
    noise = torch.randn(x.shape, dtype=x.dtype, device=generator.device, generator=generator)
    noise = noise.to(x.device).requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        size = noise.square().flatten(1).sum(dim=1).mean()
        (penalty * size - F.cross_entropy(fixed(noise), y)).backward()
        optimizer.step()
    return noise.detach()


# ------------------------------------------------------------------ shared steps


def _student(model: nn.Module, forget: Examples, retain: Examples) -> nn.Module:
    check_unlearning(model, forget, retain)
    return copy.deepcopy(model)


def _ce(model: nn.Module, data: Examples, i: Tensor) -> Tensor:
    return F.cross_entropy(model(data[0][i]), data[1][i])


@torch.no_grad()
def _logits(teacher: nn.Module, data: Examples) -> Tensor:
    return copy.deepcopy(teacher).eval()(data[0])


def _relabelled(model: nn.Module, forget: Examples, generator: Generator) -> Examples:
    x, y = forget
    return x, wrong_labels(y, count_classes(model, x), generator)


def _endless(N: int, recipe: Recipe, generator: Generator) -> Iterator[Tensor]:
    """Shuffled mini-batches of N examples, over and over."""
    while True:
        for batches in recipe.orders(N, generator):
            yield from batches
