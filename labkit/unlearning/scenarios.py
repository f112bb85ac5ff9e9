"""What is to be forgotten: six scenarios, each a training set with a part marked.

Two kinds. Where people leave (a class, part of a class, some of the examples, the memorised ones),
the part is honest data, and the aim is a network that never saw it. Where data prove manipulated (a
trigger, swapped labels: corrective unlearning, Goel et al. 2024), the part is harmful, perhaps
only a share of it is known, and the aim is the true label on the affected domain.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from labkit.checks import check_count
from labkit.unlearning.checks import Examples
from labkit.unlearning.training import Ensemble, Recipe


@dataclass(frozen=True)
class Scenario:
    """A training set, the part to forget, and test sets that tell what happened.

    name : what is forgotten, in words
    train : inputs (N, ...) and classes (N,) that the original network learns, manipulated where
        the scenario says so
    forget, retain : (N_f,), (N - N_f,) int64, sorted indices into train, together all of it
    test : test examples that unlearning should leave alone
    affected : test examples, with their true classes, on which it shows: of the forgotten class or
        cluster, with the trigger, or of the confused classes. Where no part of the test set is
        singled out (random and memorised examples), it is all of test.
    """

    name: str
    train: Examples
    forget: Tensor
    retain: Tensor
    test: Examples
    affected: Examples

    @property
    def forget_set(self) -> Examples:
        return take(self.train, self.forget)

    @property
    def retain_set(self) -> Examples:
        return take(self.train, self.retain)

    def identified(self, share: float, *, generator: Generator) -> "Scenario":
        """The same, where only a random share (0 < share <= 1) of the forget set is known.

        The rest of it hides in the retain set, as in corrective unlearning.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        count = max(1, round(share * len(self.forget)))
        known = self.forget[_choose(len(self.forget), count, generator)]
        return replace(self, **_parts(len(self.train[0]), known))


def take(examples: Examples, index: Tensor) -> Examples:
    """The examples at index, or where a mask is true."""
    return examples[0][index], examples[1][index]


# ------------------------------------------------------------------ honest data


def class_forgetting(train: Examples, test: Examples, label: int = 3) -> Scenario:
    """Forget every example of a class."""
    of_class = _of_class(train, label)
    return Scenario(
        name=f"class {label}",
        train=train,
        **_parts(len(train[0]), of_class.nonzero().flatten()),
        test=take(test, test[1] != label),
        affected=take(test, test[1] == label),
    )


def subclass_forgetting(
    train: Examples, test: Examples, label: int = 3, *, n_clusters: int = 3, generator: Generator
) -> Scenario:
    """Forget one way to write a digit: the smallest k-means cluster of the images of a class.

    Affected are the test images of the class that lie nearest to that cluster's centre.
    """
    from sklearn.cluster import KMeans

    of_class = _of_class(train, label).nonzero().flatten()
    if not 2 <= n_clusters <= len(of_class):
        raise ValueError(f"n_clusters must be from 2 to {len(of_class)}, not {n_clusters}")
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    kmeans = KMeans(n_clusters, n_init=10, random_state=seed)
    cluster = torch.from_numpy(kmeans.fit_predict(train[0][of_class].flatten(1).numpy()))
    smallest = int(cluster.bincount().argmin())
    nearest = torch.from_numpy(kmeans.predict(test[0].flatten(1).numpy()))
    affected = (test[1] == label) & (nearest == smallest)
    return Scenario(
        name=f"a cluster of class {label}",
        train=train,
        **_parts(len(train[0]), of_class[cluster == smallest]),
        test=take(test, ~affected),
        affected=take(test, affected),
    )


def random_forgetting(
    train: Examples, test: Examples, n: int = 100, *, generator: Generator
) -> Scenario:
    """Forget n examples drawn at random."""
    forget = _choose(len(train[0]), n, generator)
    parts = _parts(len(train[0]), forget)
    return Scenario(f"{n} random examples", train, **parts, test=test, affected=test)


def memorised_forgetting(train: Examples, test: Examples, scores: Tensor, n: int = 100) -> Scenario:
    """Forget the n examples with the highest scores (N,), as `memorisation_scores` returns them."""
    if scores.shape != train[1].shape:
        raise ValueError(
            f"scores must be (N,) = {tuple(train[1].shape)}, not {tuple(scores.shape)}"
        )
    _check_count(n, len(scores))
    parts = _parts(len(train[0]), scores.argsort(descending=True, stable=True)[:n])
    return Scenario(f"{n} memorised examples", train, **parts, test=test, affected=test)


def memorisation_scores(
    train: Examples,
    build: Callable[[Generator], nn.Module],
    recipe: Recipe,
    *,
    members: int = 40,
    share: float = 0.7,
    generator: Generator,
) -> Tensor:
    """How much the right answer on an example depends on having trained with it.

        mem(i) = P[f(x_i) = y_i | i among the training data] - P[f(x_i) = y_i | not among them]

    over networks that each learn a random share of the data (Feldman & Zhang, NeurIPS 2020,
    section 2). An example that none of the networks or all of them have seen gets 0; with the
    default members and share fewer than one in a million does.

    Parameters
    ----------
    train : inputs (N, ...) and classes (N,) int64
    build, recipe : as for `retrain`
    members : how many networks
    share : of the examples that each learns, between 0 and 1
    generator : draws the shares, the weights and the order of the examples

    Returns
    -------
    (N,) float32, from -1 to 1.
    """
    check_count(members=members)
    N = len(train[0])
    if not 0 < round(share * N) < N:
        raise ValueError(f"share must leave examples on both sides of {N}, not {share}")
    n = round(share * N)
    subsets = torch.stack([_choose(N, n, generator) for _ in range(members)])
    ensemble = Ensemble([build(generator) for _ in range(members)])
    ensemble.fit(train, recipe, generator=generator, subsets=subsets)
    right = (ensemble(train[0]).argmax(dim=2) == train[1]).float()
    seen = torch.zeros_like(right).scatter(1, subsets, 1)
    rate_in = (right * seen).sum(dim=0) / seen.sum(dim=0)
    rate_out = (right * (1 - seen)).sum(dim=0) / (1 - seen).sum(dim=0)
    return (rate_in - rate_out).nan_to_num(0)


# ------------------------------------------------------------------ manipulated data


def stamp(inputs: Tensor, size: int = 2, value: float = 1.0) -> Tensor:
    """A copy of images (..., H, W) with a square trigger in the bottom right corner."""
    if inputs.ndim < 3 or not 0 < size <= min(inputs.shape[-2:]):
        raise ValueError(
            f"inputs must be images (N, ..., H, W) of at least {size} x {size} pixels, size at "
            f"least 1; inputs are {tuple(inputs.shape)}, size is {size}"
        )
    stamped = inputs.clone()
    stamped[..., -size:, -size:] = value
    return stamped


def poison(
    train: Examples,
    test: Examples,
    n: int = 60,
    *,
    target: int = 0,
    size: int = 2,
    value: float = 1.0,
    generator: Generator,
) -> Scenario:
    """Give n images of other classes a trigger and the label target (BadNets, Gu et al. 2017).

    Affected are the test images of other classes than target, with the trigger and their true
    classes: images of the target itself would be right for the wrong reason.
    """
    _of_class(train, target)
    others = (train[1] != target).nonzero().flatten()
    chosen = others[_choose(len(others), n, generator)]
    x, y = train[0].clone(), train[1].clone()
    x[chosen], y[chosen] = stamp(x[chosen], size, value), target
    clean = take(test, test[1] != target)
    return Scenario(
        name=f"{n} poisoned examples",
        train=(x, y),
        **_parts(len(x), chosen),
        test=test,
        affected=(stamp(clean[0], size, value), clean[1]),
    )


def confusion(
    train: Examples,
    test: Examples,
    classes: tuple[int, int] = (3, 8),
    *,
    share: float = 0.5,
    generator: Generator,
) -> Scenario:
    """The labels of a random share of each of two classes are swapped.

    Affected are the test images of the two classes, with their true labels.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {share}")
    a, b = classes
    if a == b:
        raise ValueError(f"classes must be two, not {a} twice")
    y, swapped = train[1].clone(), []
    for label, other in ((a, b), (b, a)):
        of_class = _of_class(train, label).nonzero().flatten()
        count = max(1, round(share * len(of_class)))
        chosen = of_class[_choose(len(of_class), count, generator)]
        y[chosen] = other
        swapped.append(chosen)
    affected = (test[1] == a) | (test[1] == b)
    return Scenario(
        name=f"classes {a} and {b} confused",
        train=(train[0], y),
        **_parts(len(y), torch.cat(swapped)),
        test=take(test, ~affected),
        affected=take(test, affected),
    )


# ------------------------------------------------------------------ parts of a set


def _parts(N: int, forget: Tensor) -> dict[str, Tensor]:
    keep = torch.ones(N, dtype=torch.bool)
    keep[forget] = False
    return {"forget": forget.sort().values, "retain": keep.nonzero().flatten()}


def _choose(N: int, n: int, generator: Generator) -> Tensor:
    _check_count(n, N)
    return torch.randperm(N, generator=generator)[:n]


def _check_count(n: int, N: int) -> None:
    if not 1 <= n <= N:
        raise ValueError(f"n must be from 1 to {N}, the examples to choose from, not {n}")


def _of_class(examples: Examples, label: int) -> Tensor:
    mask = examples[1] == label
    if not mask.any():
        found = ", ".join(str(int(y)) for y in examples[1].unique())
        raise ValueError(f"no training example has class {label}; the classes are {found}")
    return mask
