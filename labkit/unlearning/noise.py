"""Noise that makes images unlearnable: error-minimising (min-min) noise within an l_inf bound.

Training lowers the loss over the weights. Error-minimising noise (Huang et al., ICLR 2021,
equation 2) lowers it over the images too,

    min over theta of E[ min over |delta|_inf <= eps of CE(f_theta(x + delta), y) ],

so that a network which learns from x + delta has little left to learn from x. `min_min_noise` makes
one delta for each image or one for each class. `pgd` is its inner loop; with sign=+1 it is the
adversary of adversarial training.

Images are (N, C, H, W) in [0, 1], classes (N,) int64; eps and step are in units of the images.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from labkit.checks import check_broadcasts, check_count, check_positive
from labkit.unlearning.checks import Examples, check_examples, check_trainable
from labkit.unlearning.training import Centre, small_cnn

__all__ = ["Centre", "input_gradient", "min_min_noise", "pgd", "project", "small_cnn"]


def project(delta: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest noise with |delta| <= eps and x + delta in [0, 1]; noise and images (N, ...)."""
    return (x + delta.clamp(-eps, eps)).clamp(0, 1) - x


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient (N, ...) of the cross-entropy of each image (N, ...), taken at that image."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0]


def pgd(
    model: nn.Module,
    examples: Examples,
    delta: Tensor,
    eps: float,
    *,
    step: float,
    n_steps: int,
    sign: int = -1,
    mask: Tensor | None = None,
) -> Tensor:
    """Projected gradient steps on the images; weights and mode of the model stay.

        delta <- project(delta + sign * step * mask * sign(gradient))

    Parameters
    ----------
    model : gives logits (N, K); in evaluation mode, or images of a batch affect each other
    examples : images (N, ...) and classes (N,)
    delta : (N, ...), noise to start from
    eps, step : bound of the noise, size of a step
    n_steps : number of steps
    sign : -1 lowers the loss (protection), +1 raises it (attack)
    mask : broadcastable to (N, ...), 1 where a pixel may change and 0 elsewhere; None for all
    """
    x, y = examples
    for _ in range(n_steps):
        ascent = input_gradient(model, x + delta, y).sign()
        if mask is not None:
            ascent = mask * ascent
        delta = project(delta + sign * step * ascent, x, eps)
    return delta


def min_min_noise(
    model: nn.Module,
    examples: Examples,
    eps: float,
    *,
    generator: Generator,
    class_wise: bool = False,
    mask: Tensor | None = None,
    step: float | None = None,
    n_steps: int | None = None,
    train_steps: int = 10,
    stop_error: float = 0.01,
    max_rounds: int = 20,
    batch_size: int = 64,
    lr: float = 3e-3,
) -> tuple[Tensor, list[float]]:
    """Error-minimising noise by the bilevel method of Huang et al. (ICLR 2021, section 3).

    A round trains the source model on `train_steps` mini-batches of x + delta. Then, with its
    weights frozen and in evaluation mode, every image takes `n_steps` steps of `pgd`. Class-wise,
    all images of a class start from the noise of the class, which becomes the mean of what they
    arrive at. Rounds end when the model errs on less than a share `stop_error` of x + delta.

    Parameters
    ----------
    model : source model, logits (N, K); trained in place and left in evaluation mode
    examples : images (N, ...) in [0, 1] and classes (N,) int64
    eps : bound of the noise
    generator : draws the first noise, uniform in [-eps, eps], and the mini-batches
    class_wise : one noise per class instead of one per image
    mask : broadcastable to (N, ...), 1 where a pixel may change and 0 elsewhere; None for all
    step : of the descent on images; None for eps / 10, as in the paper
    n_steps : steps per image and round; None for 20, or 1 class-wise, as in the paper
    train_steps, batch_size, lr : of the source model, with Adam; its dropout draws from torch's own
        generator: call this within `labkit.seeding.seeded`
    stop_error : 0 lets all rounds pass
    max_rounds : rounds after which it ends in any case

    Returns
    -------
    noise : (N, ...) with x + noise in [0, 1]; class-wise (K, ...) for classes 0 to K - 1 = max(y),
        to be fitted to each image with `project`
    errors : share of errors of the source model on x + delta after every round

    Raises
    ------
    TypeError, ValueError
        as `check_examples` and `check_trainable`; for images outside [0, 1], numbers out of range,
        a mask that does not fit or holds other values than 0 and 1, and, class-wise, for a mask or
        a class without an image.
    """
    step = eps / 10 if step is None else step
    n_steps = (1 if class_wise else 20) if n_steps is None else n_steps
    check_positive(eps=eps, step=step, lr=lr)
    check_count(
        n_steps=n_steps, train_steps=train_steps, max_rounds=max_rounds, batch_size=batch_size
    )
    check_trainable(model)
    check_examples("examples", examples, model)
    _check_images(examples, mask, class_wise)

    x, y = examples
    K = int(y.max()) + 1
    start = torch.empty((K, *x.shape[1:]) if class_wise else x.shape, dtype=x.dtype)
    noise = start.uniform_(-eps, eps, generator=generator)
    delta = project(noise[y] if class_wise else noise, x, eps)
    if mask is not None:
        delta = mask * delta
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    errors = []
    for _ in range(max_rounds):
        model.train()
        for _ in range(train_steps):
            i = torch.randint(len(x), (batch_size,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x[i] + delta[i]), y[i]).backward()
            optimizer.step()
        model.eval()
        delta = pgd(model, examples, delta, eps, step=step, n_steps=n_steps, mask=mask)
        if class_wise:
            noise = torch.stack([delta[y == k].mean(dim=0) for k in range(K)])
            delta = project(noise[y], x, eps)
        with torch.no_grad():
            errors.append(float((model(x + delta).argmax(dim=1) != y).double().mean()))
        if errors[-1] < stop_error:
            break
    return noise if class_wise else delta, errors


def _check_images(examples: Examples, mask: Tensor | None, class_wise: bool) -> None:
    x, y = examples
    if x.min() < 0 or x.max() > 1:
        raise ValueError(f"images must lie in [0, 1], not in [{x.min():.4g}, {x.max():.4g}]")
    if class_wise and not y.bincount().all():
        raise ValueError(f"class-wise, no class may lack images; {int(y.bincount().argmin())} does")
    if mask is None:
        return
    if class_wise:
        raise ValueError("mask goes with one noise per image; class_wise must be False")
    check_broadcasts("mask", mask, "the images", x.shape)
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must hold 0 and 1 alone")
