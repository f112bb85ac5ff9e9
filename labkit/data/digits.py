"""Handwritten digits that scikit-learn carries in its wheel."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Examples = tuple[Tensor, Tensor]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 handwritten digits of 8 x 8 pixels, offline.

    Source: the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and
    C. Kaynak, UCI Machine Learning Repository, 1998; CC BY 4.0), as scikit-learn ships it. The
    original pixels count 0 to 16.

    Returns
    -------
    images : float32 array (1797, 8, 8), values in [0, 1]
    labels : int64 array (1797,), 0 to 9; about 180 of each
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)


def digits_split(n_train: int = 1400, *, generator: "Generator") -> tuple["Examples", "Examples"]:
    """Shuffled digits as tensors: n_train images to learn from, the other 1797 - n_train held out.

    Images (N, 1, 8, 8) with values in [0, 1], float32; classes int64.
    """
    import torch

    images, labels = map(torch.from_numpy, digits())
    if not 0 < n_train < len(images):
        raise ValueError(f"n_train must be from 1 to {len(images) - 1}, not {n_train}")
    order = torch.randperm(len(images), generator=generator)
    images, labels = images[order, None], labels[order]
    return (images[:n_train], labels[:n_train]), (images[n_train:], labels[n_train:])
