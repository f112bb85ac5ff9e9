"""Fisher information and dampening against per-sample gradients and eager PyTorch."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from labkit.bench.measure import Case, Disagreement, Trial, agree, generator, moved
from labkit.data import digits
from labkit.kernels import dampen
from labkit.seeding import seeded
from labkit.unlearning import fisher_diagonal

TRAINING, BATCH = 1437, 64  # digits
PARAMETERS = 11_000_000  # of a ResNet-18, about


def _fisher(device: str) -> Trial:
    images, labels = digits()
    x = torch.as_tensor(images, dtype=torch.float32, device=device)[:TRAINING, None]
    y = torch.as_tensor(labels, device=device)[:TRAINING].long()
    with seeded(generator("cpu")):
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        ).to(device)
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    batches = range(0, TRAINING, BATCH)

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(net, parameters, (x[None],)), y[None])

    each = vmap(grad(loss), (None, 0, 0))

    def per_sample() -> dict[str, Tensor]:
        total = {name: torch.zeros_like(value) for name, value in parameters.items()}
        for i in batches:
            made = each(parameters, x[i : i + BATCH], y[i : i + BATCH])
            for name, gradients in made.items():
                total[name] += gradients.square().sum(0)
        return {name: value / TRAINING for name, value in total.items()}

    def training() -> None:
        for i in batches:
            F.cross_entropy(net(x[i : i + BATCH]), y[i : i + BATCH]).backward()
        net.zero_grad()

    def ours() -> dict[str, Tensor]:
        return fisher_diagonal(net, x, y, batch_size=BATCH)

    def check() -> None:
        for name, expected in per_sample().items():
            agree(f"vmap(grad) in {name}", ours()[name], expected, 1e-4)

    return Trial(ours, check, training, {"torch.func vmap(grad)": per_sample})


def _dampen(device: str) -> Trial:
    draw = generator(device)

    def random() -> Tensor:
        return torch.rand(PARAMETERS, generator=draw, device=device)

    theta, everything, forget = random() - 0.5, random(), 4 * random()
    alpha, lam = 10.0, 1.0

    def eager(theta: Tensor) -> None:
        """As the authors' code is organised: a mask, the factors, the places to be changed."""
        where = torch.where(forget > alpha * everything)
        factor = (lam * everything).div(forget)[where]
        theta[where] = theta[where].mul(factor.clamp(max=1))

    def check() -> None:
        ours, theirs = theta.clone(), theta.clone()
        dampen(ours, everything, forget, alpha, lam)
        eager(theirs)
        agree("the eager formula", ours, theirs, 1e-6)
        if torch.equal(ours, theta):
            raise Disagreement("nothing was dampened")

    # Again and again in place: what is dampened goes to zero, and costs the same.
    mine, his = theta.clone(), theta.clone()
    return Trial(
        lambda: dampen(mine, everything, forget, alpha, lam),
        check,
        moved(16 * PARAMETERS, device),
        {"PyTorch, eager": lambda: eager(his)},
    )


CASES = [
    Case(
        "fisher_diagonal",
        f"two-layer CNN, {TRAINING} digits, batches of {BATCH}",
        "an ordinary forward and backward pass over the same batches",
        _fisher,
        ("cpu", "cuda"),
    ),
    Case(
        "dampen",
        f"{PARAMETERS:,} parameters",
        "16 bytes a parameter",
        _dampen,
        ("cpu", "cuda"),
    ),
]
