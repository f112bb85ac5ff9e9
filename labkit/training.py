"""The loop in which gradients change weights: one step for each mini-batch."""

import math
from collections.abc import Callable, Iterable, Sized
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

Batch = TypeVar("Batch")


def descend(
    model: nn.Module,
    loss: Callable[[Batch], Tensor],
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    after_step: Callable[[], Any] | None = None,
    describe: str | None = None,
) -> Tensor:
    """Take a step of the optimiser down loss(batch) for each of the batches.

    The model takes the steps in training mode and is left in evaluation mode, without gradients.

    Parameters
    ----------
    model : whose weights the optimiser changes
    loss : a scalar for a batch, mostly a mean over its examples
    batches : whatever the loss takes: indices of examples, or ``range(steps)`` where it draws them
    optimizer : new, or with the momenta of earlier calls
    schedule : of the learning rate; makes a step after each of the optimiser's
    after_step : called then, without gradients: to clamp weights, or to average them
    describe : the words beside a progress bar; None for no bar

    Returns
    -------
    Losses (steps,) float64, each as it was before its step.

    Raises
    ------
    FloatingPointError
        if a loss is not finite, before its step is taken.
    """
    steps = len(batches) if isinstance(batches, Sized) else None
    losses = []
    model.train()
    for batch in tqdm(batches, desc=describe, total=steps, leave=False, disable=describe is None):
        value = loss(batch)
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(
                f"the loss is {losses[-1]} at step {len(losses)} of {steps or 'many'}: "
                f"lower the learning rate, {optimizer.param_groups[0]['lr']:.3g} at this step"
            )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        if after_step is not None:
            with torch.no_grad():
                after_step()
    optimizer.zero_grad()
    model.eval()
    return torch.tensor(losses, dtype=torch.float64)
