"""What samples are worth: distances to data, their band for data against data, and memorisation.

Samples and data are (n, ...), flattened to (n, d) here, and compared as points; for images, the
features of `DigitFeatures` serve as well as pixels. Distances of finite sets have noise, and some
a bias: a value means nothing without `null_band`, what the metric says of two sets of real data.

`energy_distance` and `kid` are unbiased: around zero, on both sides, for equal laws.
`sliced_wasserstein` and `frechet_distance` are positive even then, and the less the larger n is.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from labkit.checks import check_count, check_finite, check_floating, check_positive
from labkit.seeding import seeded

Metric = Callable[[Tensor, Tensor], float]

# ------------------------------------------------------------------ distances


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, unbiased (Szekely & Rizzo 2013).

    Zero in expectation where the laws are equal, positive elsewhere, in the unit of the data.

    Parameters
    ----------
    x : (n, ...), y : (m, ...); n, m >= 2

    Raises
    ------
    TypeError, ValueError
        for sets that are not floating, too small, not finite or of another shape; so in every
        metric here.
    """
    x, y = _points(x=x, y=y)
    return 2 * _mean_distance(x, y) - _mean_distance(x) - _mean_distance(y)


def sliced_wasserstein(
    x: Tensor, y: Tensor, n_projections: int = 128, *, generator: Generator, p: int = 2
) -> float:
    """Sliced Wasserstein distance of order p, in the unit of the data (Bonneel et al. 2015).

    (E_u W_p^p(u.x, u.y))^(1/p) over directions u, uniform on the sphere. Positive also for equal
    laws.

    Parameters
    ----------
    x, y : (n, ...), equally many, n >= 2
    n_projections : directions
    generator : draws them
    p : order, 1 or 2
    """
    x, y = _points(x=x, y=y)
    _check_equal(x=x, y=y)
    check_count(n_projections=n_projections)
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2, not {p!r}")
    u = torch.randn(x.shape[1], n_projections, generator=generator, dtype=x.dtype)
    u = u / u.norm(dim=0)
    gap = (x @ u).sort(dim=0).values - (y @ u).sort(dim=0).values
    return gap.abs().pow(p).mean().item() ** (1 / p)


def kid(x: Tensor, y: Tensor) -> float:
    """Kernel distance: squared MMD with kernel (x.y / d + 1)^3, unbiased (Binkowski et al. 2018).

    Usually of features, (n, d) and (m, d), n, m >= 2.
    """
    x, y = _points(x=x, y=y)
    d = x.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / d + 1) ** 3

    return kernel(x, x).fill_diagonal_(0).sum().item() / (len(x) * (len(x) - 1)) + (
        kernel(y, y).fill_diagonal_(0).sum().item() / (len(y) * (len(y) - 1))
        - 2 * kernel(x, y).mean().item()
    )


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Squared Wasserstein distance of Gaussians with the moments of x and y (Heusel et al. 2017).

    Far from zero for equal laws unless n is much larger than d^2: use few features, equal n, and
    `null_band`. x (n, ...), y (m, ...); n, m > d.
    """
    x, y = _points(x=x, y=y)
    d = x.shape[1]
    if min(len(x), len(y)) <= d:
        raise ValueError(
            f"x and y must hold more samples than their {d} dimensions, not {len(x)} and {len(y)}; "
            "take fewer features"
        )
    return frechet_gaussians(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())


def frechet_gaussians(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of N(m, C) and N(m', C') (Dowson & Landau 1982).

    means (d,), covariances (d, d) symmetric, positive semi-definite.
    """
    mean, cov, other_mean, other_cov = (
        value.detach().double() for value in (mean, cov, other_mean, other_cov)
    )
    d = len(mean)
    if any(v.shape != (d,) for v in (mean, other_mean)) or any(
        v.shape != (d, d) for v in (cov, other_cov)
    ):
        raise ValueError(
            "means and covariances must be (d,) and (d, d), not "
            f"{[tuple(v.shape) for v in (mean, cov, other_mean, other_cov)]}"
        )
    # tr (C C')^(1/2) = tr (R C' R)^(1/2) with R = C^(1/2): symmetric, so its roots are real.
    root = _root(cov)
    cross = torch.linalg.eigvalsh(root @ other_cov @ root).clamp(min=0).sqrt().sum()
    gap = (mean - other_mean).square().sum()
    return max(0.0, (gap + cov.trace() + other_cov.trace() - 2 * cross).item())


# ------------------------------------------------------------------ what is there, what is copied


def mode_recall(samples: Tensor, means: Tensor, radius: float, *, at_least: int = 1) -> float:
    """Share of modes that have at least so many samples within a radius, from 0 to 1.

    samples (n, d), means (K, d), radius in the unit of the data.
    """
    samples, means = _points(least=1, samples=samples, means=means)
    check_positive(radius=radius)
    check_count(at_least=at_least)
    near = (torch.cdist(samples, means) <= radius).sum(dim=0)
    return (near >= at_least).double().mean().item()


class Memorisation(NamedTuple):
    """How much nearer samples lie to the training set than to data that were held out.

    Attributes
    ----------
    ratio : mean distance to the nearest training example, divided by that to the nearest held-out
        one; 1 for new draws, 0 for copies
    nearer : share of samples nearer to the training set; 1/2 for new draws, 1 for copies
    copied : share of samples at most a third as far from their nearest training example as from
        the second (Yoon et al. 2023); near 0 for new draws
    """

    ratio: float
    nearer: float
    copied: float


def memorisation(samples: Tensor, train: Tensor, held_out: Tensor) -> Memorisation:
    """Distances of samples to the nearest examples, of as many seen in training as held out.

    The larger set has the nearer neighbours, hence sets of equal size.

    Parameters
    ----------
    samples : (n, ...)
    train, held_out : (m, ...), equally many, m >= 2
    """
    samples, train, held_out = _points(samples=samples, train=train, held_out=held_out)
    _check_equal(train=train, held_out=held_out)
    # By differences, not |x|^2 + |y|^2 - 2 x.y: the distance of a copy is zero, not its rounding.
    distances = partial(torch.cdist, samples, compute_mode="donot_use_mm_for_euclid_dist")
    first, second = distances(train).topk(2, largest=False).values.T
    other = distances(held_out).min(dim=1).values
    # A tie, such as a copy of an example in both sets, counts for either half.
    nearer = (first < other).double() + (first == other).double() / 2
    ratio = first.mean() / other.mean() if other.any() else torch.tensor(1.0)
    copied = (first <= second / 3).double().mean()
    return Memorisation(ratio.item(), nearer.mean().item(), copied.item())


# ------------------------------------------------------------------ the yardstick


class NullBand(NamedTuple):
    """What a metric says of real data against real data.

    Attributes
    ----------
    low, high : the interval that holds the given share of draws, the tails cut equally
    values : (draws,) float64, one per pair of sets
    """

    low: float
    high: float
    values: Tensor

    def __contains__(self, value: float) -> bool:
        return bool(self.low <= value <= self.high)


def null_band(
    real: Tensor,
    metric: Metric,
    n: int,
    draws: int = 50,
    *,
    generator: Generator,
    level: float = 0.95,
) -> NullBand:
    """The metric between two sets of n real examples each, which share none, drawn many times.

    Parameters
    ----------
    real : (N, ...), N >= 2 n
    metric : (x, y) -> number; one with options is bound: partial(sliced_wasserstein, generator=g)
    n : size of each set: that of the samples the band is for
    draws : pairs of sets
    generator : draws the sets
    level : share of draws within the band
    """
    check_floating("real", real)
    check_count(2, n=n, draws=draws)
    if 2 * n > len(real):
        raise ValueError(
            f"n must be at most {len(real) // 2}, half of the {len(real)} real examples, not {n}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    values = []
    for _ in range(draws):
        order = torch.randperm(len(real), generator=generator)
        values.append(float(metric(real[order[:n]], real[order[n : 2 * n]])))
    values = torch.tensor(values, dtype=torch.float64)
    low, high = values.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2]).double()).tolist()
    return NullBand(low, high, values)


# ------------------------------------------------------------------ spectra


def radial_spectrum(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean power of images per spatial frequency, whatever its direction.

    Parameters
    ----------
    images : (n, ..., side, side), real

    Returns
    -------
    frequencies (side // 2 + 1,) float64, 0, 1, ..., side // 2 cycles per image, and the power
    there, (side // 2 + 1,) float64: mean squared modulus of the orthonormal Fourier transform over
    the ring of frequencies that round to it. White noise of variance one has power one.
    """
    check_floating("images", images)
    if images.ndim < 3 or images.shape[-1] != images.shape[-2] or images.numel() == 0:
        raise ValueError(f"images must be (n, ..., side, side), not {tuple(images.shape)}")
    check_finite("images", images)
    side = images.shape[-1]
    power = torch.fft.fft2(images.double(), norm="ortho").abs().square().flatten(0, -3).mean(0)
    f = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    ring = (f[:, None].square() + f.square()).sqrt().round().long()
    inside = ring <= side // 2
    total = torch.bincount(ring[inside], weights=power[inside])
    count = torch.bincount(ring[inside])
    return torch.arange(side // 2 + 1, dtype=torch.float64), total / count


# ------------------------------------------------------------------ digits


class DigitFeatures:
    """A classifier of 8 x 8 digits: its 16 features for `kid` and the like, and what it reads.

    A perceptron 64-128-16-10, trained in about two seconds on images that are given, with slight
    noise, so that samples are judged by their strokes. It shares nothing with the denoisers that it
    judges but, if so given, their training set.

    Parameters
    ----------
    images : (N, 1, 8, 8) or (N, 8, 8), on the scale of what it shall judge
    labels : (N,) int64, 0 to 9
    generator : draws weights, mini-batches and noise
    steps : mini-batches of 128
    """

    def __init__(
        self, images: Tensor, labels: Tensor, *, generator: Generator, steps: int = 800
    ) -> None:
        x = self._flat(images)
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
            kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
            raise TypeError(f"labels must be a torch.int64 tensor (N,), not {kind}")
        if labels.shape != (len(x),):
            raise ValueError(f"labels must be (N,) = ({len(x)},), not {tuple(labels.shape)}")
        if labels.min() < 0 or labels.max() > 9:
            raise ValueError(
                f"labels must be 0 to 9, not {int(labels.min())} to {int(labels.max())}"
            )
        check_count(steps=steps)
        with seeded(generator):
            self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16), nn.Tanh())
            self.head = nn.Linear(16, 10)
        model = nn.Sequential(self.body, self.head)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        scale = 0.3 * x.std()
        for _ in range(steps):
            index = torch.randint(len(x), (128,), generator=generator)
            noise = scale * torch.randn(128, 64, generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x[index] + noise), labels[index]).backward()
            optimizer.step()
            schedule.step()
        model.requires_grad_(False)

    def __call__(self, images: Tensor) -> Tensor:
        """Features (n, 16), from -1 to 1."""
        return self.body(self._flat(images))

    def probabilities(self, images: Tensor) -> Tensor:
        """Probability of each class, (n, 10)."""
        return self.head(self(images)).softmax(dim=1)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of images read as their label, from 0 to 1."""
        read = self.head(self(images)).argmax(dim=1)
        if labels.shape != read.shape:
            raise ValueError(f"labels must be (N,) = ({len(read)},), not {tuple(labels.shape)}")
        return (read == labels).double().mean().item()

    @staticmethod
    def _flat(images: Tensor) -> Tensor:
        check_floating("images", images)
        if images.ndim < 2 or len(images) == 0 or images[0].numel() != 64:
            raise ValueError(f"images must be (N, 1, 8, 8) with N >= 1, not {tuple(images.shape)}")
        check_finite("images", images)
        return images.detach().float().flatten(1)


# ------------------------------------------------------------------ parts


def _mean_distance(x: Tensor, y: Tensor | None = None) -> float:
    """Mean distance of x and y, or of all pairs of x."""
    if y is None:
        return torch.pdist(x).mean().item()
    return torch.cdist(x, y).mean().item()


def _points(least: int = 2, **sets: Tensor) -> list[Tensor]:
    """Sets as float64 (n, d), after checks; all have one d."""
    points = []
    for name, value in sets.items():
        check_floating(name, value)
        if value.ndim < 2 or len(value) < least or value[0].numel() == 0:
            raise ValueError(
                f"{name} must be (n, ...) with n >= {least} samples, not {tuple(value.shape)}"
            )
        check_finite(name, value)
        points.append(value.detach().double().flatten(1))
    if len({value.shape[1] for value in points}) > 1:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in sets.items())
        raise ValueError(f"all sets must hold samples of one size, not {shapes}")
    return points


def _root(cov: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh(cov)
    return axes * values.clamp(min=0).sqrt() @ axes.T


def _check_equal(**sets: Tensor) -> None:
    if len({len(value) for value in sets.values()}) > 1:
        counts = " and ".join(str(len(value)) for value in sets.values())
        raise ValueError(f"{' and '.join(sets)} must hold equally many samples, not {counts}")
