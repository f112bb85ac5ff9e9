"""Networks trained, retrained, and trained many at a time.

The yardstick of unlearning is retraining: a fresh network, the original recipe, and the retain set
alone. One retrained network is one draw; how far draws differ is what an `Ensemble` shows.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import ceil

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from labkit import training
from labkit.checks import check_count, check_positive
from labkit.seeding import seeded, spawn
from labkit.unlearning.checks import Examples, check_examples, check_trainable

# ------------------------------------------------------------------ networks


def digits_mlp(generator: Generator) -> nn.Module:
    """64-128-128-10 with ReLU, of 8 x 8 images; weights drawn with the generator."""
    with seeded(generator):
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )


def digits_cnn(generator: Generator) -> nn.Module:
    """Two convolutions with batch norm and ReLU, pooled to 4 x 4; of images (B, 1, 8, 8)."""
    with seeded(generator):
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )


class Centre(nn.Module):
    """[0, 1] -> [-2, 2], which networks without batch norm learn from faster."""

    def forward(self, x: Tensor) -> Tensor:
        return 4 * x - 2


def small_cnn(
    generator: Generator, channels: int, classes: int, *, width: int = 12, batch_norm: bool = True
) -> nn.Module:
    """Three convolutions, the first two of stride 2, of images (B, channels, H, W) in [0, 1].

    H and W from 8 up; weights drawn with the generator.
    """

    def layer(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        return [conv, *([nn.BatchNorm2d(outputs)] if batch_norm else []), nn.ReLU()]

    with seeded(generator):
        return nn.Sequential(
            Centre(),
            *layer(channels, width, 5, 2),
            *layer(width, 2 * width, 3, 2),
            *layer(2 * width, 2 * width, 3, 1),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, classes),
        )


# ------------------------------------------------------------------ one network


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: Adam on the cross-entropy of shuffled mini-batches.

    epochs : passes over the data
    batch_size : examples per step, at most; an epoch is cut into steps as equal as can be
    lr : learning rate of Adam
    weight_decay : added to the gradient, times the weight (L2, as torch.optim.Adam has it)
    """

    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_count(epochs=self.epochs, batch_size=self.batch_size)
        check_positive(lr=self.lr)
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be finite, at least 0, not {self.weight_decay}")

    def optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)

    def orders(self, N: int, generator: Generator) -> list[tuple[Tensor, ...]]:
        """Per epoch, indices 0 to N - 1 shuffled and cut into mini-batches of equal size, to one.

        Equal, so that no epoch ends in a step that a few examples decide.
        """
        steps = ceil(N / self.batch_size)
        draw = partial(torch.randperm, N, generator=generator, device=generator.device)
        return [draw().tensor_split(steps) for _ in range(self.epochs)]


def descend(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    N: int,
    recipe: Recipe,
    generator: Generator,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[float]:
    """Step down loss(indices), a mean over the mini-batch, for every mini-batch of N examples.

    The model takes the steps in training mode and is left in evaluation mode. The optimiser is
    that of the recipe, new; one that is given keeps its momenta between calls.

    Returns the mean loss per example of every epoch, as seen on the way.
    """
    optimizer = optimizer or recipe.optimizer(model.parameters())
    orders = recipe.orders(N, generator)
    with seeded(generator):
        losses = training.descend(model, loss, list(chain.from_iterable(orders)), optimizer)
    sizes = torch.tensor([len(i) for i in orders[0]])
    return ((losses.view(recipe.epochs, -1) * sizes).sum(1) / N).tolist()


def train(model: nn.Module, data: Examples, recipe: Recipe, *, generator: Generator) -> list[float]:
    """Train a model in place and leave it in evaluation mode.

    Parameters
    ----------
    model : gives logits (B, C) of inputs (B, ...)
    data : inputs (N, ...) and classes (N,) int64
    recipe : epochs, batch size, learning rate, weight decay
    generator : draws the order of the examples and the dropout

    Returns
    -------
    mean cross-entropy of every epoch, as seen during training.

    Raises
    ------
    TypeError, ValueError
        as `check_examples` and `check_trainable`, before anything changes.
    """
    check_trainable(model)
    check_examples("data", data, model)
    x, y = data
    return descend(model, lambda i: F.cross_entropy(model(x[i]), y[i]), len(x), recipe, generator)


def retrain(
    build: Callable[[Generator], nn.Module],
    retain: Examples,
    recipe: Recipe,
    *,
    generator: Generator,
) -> nn.Module:
    """A network that never saw the forget set: exact unlearning, at the price of training.

    The network is new in every parameter: it comes from build, not from a trained one whose layers
    are reset, which misses parameters that no `reset_parameters` reaches.

    Parameters
    ----------
    build : returns a fresh model, its weights drawn with the generator it is given
    retain : inputs (N, ...) and classes (N,) int64 of the retain set
    recipe : the one that the original was trained with
    generator : draws the weights and then the order of the examples
    """
    model = build(generator)
    train(model, retain, recipe, generator=generator)
    return model


# ------------------------------------------------------------------ many networks


class Ensemble:
    """Networks of one architecture, trained and evaluated as one batched model.

    Each keeps its own weights, its own order of examples and, if wanted, its own training set. They
    do not meet: a member equals the network trained alone, to rounding.

    Parameters
    ----------
    models : at least one, of one architecture; they stay as they are
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        if not models:
            raise ValueError("models must hold at least one network")
        for model in models:
            check_trainable(model)
        parameters, buffers = stack_module_state(list(models))
        self._parameters = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        self._buffers = {name: buffer.detach() for name, buffer in buffers.items()}
        self._skeleton = copy.deepcopy(models[0]).eval()

    def __len__(self) -> int:
        return len(next(iter(self._parameters.values())))

    def fit(
        self,
        data: Examples,
        recipe: Recipe,
        *,
        generator: Generator,
        subsets: Tensor | None = None,
    ) -> Tensor:
        """Train every member in place, as `train` does with one of `spawn(generator, K)`.

        Parameters
        ----------
        data : inputs (N, ...) and classes (N,) int64, shared
        recipe : epochs, batch size, learning rate, weight decay
        generator : draws a generator for every member
        subsets : (K, n) int64 indices into data, the training set of each of the K members; None
            gives all of data to each

        Returns
        -------
        (epochs, K), mean cross-entropy of every epoch and member.
        """
        x, y = data
        check_examples("data", data, self._skeleton)
        K = len(self)
        if subsets is None:
            subsets = torch.arange(len(x), device=x.device).expand(K, -1)
        _check_subsets(subsets, K, len(x))
        n = subsets.shape[1]
        orders = [recipe.orders(n, member) for member in spawn(generator, K)]
        optimizer = recipe.optimizer(self._parameters.values())
        losses = []
        self._skeleton.train()
        with seeded(generator):
            for epoch in zip(*orders, strict=True):
                total = torch.zeros(K, dtype=x.dtype, device=x.device)
                for places in zip(*epoch, strict=True):
                    i = subsets.gather(1, torch.stack(places).to(subsets.device))  # (K, B)
                    optimizer.zero_grad()
                    logits = self._forward(x[i], of_member=True)
                    loss = F.cross_entropy(logits.mT, y[i], reduction="none").mean(dim=1)
                    loss.sum().backward()  # members do not meet: each gets its own gradient
                    optimizer.step()
                    total += loss.detach() * i.shape[1]
                losses.append(total / n)
        self._skeleton.eval()
        return torch.stack(losses)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (N, ...), the same for every member -> logits (K, N, C), in evaluation mode."""
        return self._forward(inputs, of_member=False)

    def member(self, k: int) -> nn.Module:
        """Network k as a module of its own, in evaluation mode."""
        model = copy.deepcopy(self._skeleton)
        state = {**self._parameters, **self._buffers}
        model.load_state_dict({name: value[k].detach() for name, value in state.items()})
        return model

    def _forward(self, inputs: Tensor, *, of_member: bool) -> Tensor:
        def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self._skeleton, (parameters, buffers), (x,))

        in_dims = (0, 0, 0 if of_member else None)
        batched = vmap(forward, in_dims=in_dims, randomness="different")
        return batched(self._parameters, self._buffers, inputs)


def _check_subsets(subsets: Tensor, K: int, N: int) -> None:
    if subsets.dtype != torch.int64:
        raise TypeError(f"subsets must be torch.int64, not {subsets.dtype}")
    if subsets.ndim != 2 or len(subsets) != K or subsets.shape[1] == 0:
        raise ValueError(f"subsets must be ({K}, n) with n >= 1, not {tuple(subsets.shape)}")
    if subsets.min() < 0 or subsets.max() >= N:
        raise ValueError(
            f"subsets must hold indices from 0 to {N - 1}, not {int(subsets.min())} to "
            f"{int(subsets.max())}"
        )
