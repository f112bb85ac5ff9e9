"""Handwritten digits that scikit-learn carries in its wheel."""

import numpy as np


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
