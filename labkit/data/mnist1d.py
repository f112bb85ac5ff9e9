"""MNIST-1D: ten drawn templates, made hard to recognise by a published procedure.

Source: S. Greydanus and D. Kobak, "Scaling down deep learning with MNIST-1D", ICML 2024,
arXiv:2011.14439; https://github.com/greydanus/mnist1d (Apache License 2.0), from which the
templates and the constants below are taken. The procedure needs no download, and seed 42 draws the
very set that the authors publish.
"""

import numpy as np

# Height of the pen over time, one row a digit.
_PEN = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
_PADDING = 36, 60  # zeros appended, fewest and most
_SCALE = 0.4  # range of the factor on the height, about 1
_TRANSLATION = 48  # positions to which a template may be rolled
_CORRELATED_NOISE = 0.25  # where there is no template; smoothed by a Gaussian of 2 samples
_NOISE = 0.02  # everywhere
_SHEAR = 0.75  # range of the slope that is subtracted
_LENGTH = 40  # samples of a finished signal


def mnist1d_templates() -> np.ndarray:
    """The ten undistorted digits as float64 (10, 12), each starting at 0."""
    x = _PEN - _PEN.mean(1, keepdims=True)
    x /= x.std(1, keepdims=True)
    return (x - x[:, :1]) / 6


def mnist1d(count: int = 5000, *, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """Signals of 40 samples that hide one of ten templates, offline.

    A template of 12 samples is padded with zeros, stretched to 72 samples, scaled, rolled to a
    random place, covered with noise, sheared and sampled at 40 points; all signals together then
    get mean 0 and variance 1.

    Parameters
    ----------
    count : signals, a multiple of 10; as many of each digit, in random order
    seed : of every draw. 42 with 5000 signals is the published set, whose first 4000 are for
        training and last 1000 for testing.

    Returns
    -------
    signals : float32 array (count, 40)
    labels : int64 array (count,), 0 to 9

    Raises
    ------
    ValueError
        for a count that is not a positive multiple of 10, or a negative seed.
    """
    from scipy.ndimage import gaussian_filter1d

    if count < 1 or count % 10:
        raise ValueError(f"count must be a positive multiple of 10, not {count}")
    if seed < 0:
        raise ValueError(f"seed must not be negative: {seed}")
    rng = np.random.RandomState(seed)  # the published set was drawn with this older generator
    templates, steps = mnist1d_templates(), 12 + _PADDING[1]
    signals = np.empty((count, _LENGTH))
    labels = np.repeat(np.arange(10), count // 10)
    for signal, label in zip(signals, labels, strict=True):
        padding = _PADDING[0] + int(rng.rand() * (_PADDING[1] - _PADDING[0] + 1))
        # 1e-8 tells the zeros of a template from those of the padding.
        x = _resample(np.concatenate([templates[label] + 1e-8, np.zeros(padding)]), steps)
        x *= 1 + _SCALE * (rng.rand() - 0.5)
        x = np.roll(x, rng.choice(_TRANSLATION))
        correlated = gaussian_filter1d(_CORRELATED_NOISE * rng.randn(steps), 2)
        x = np.where(x != 0, x, correlated) + _NOISE * rng.randn(steps)
        x -= _SHEAR * (rng.rand() - 0.5) * np.linspace(-0.5, 0.5, steps)
        signal[:] = _resample(x, _LENGTH)
    order = rng.permutation(count)
    signals = (signals - signals.mean()) / signals.std()
    return signals[order].astype(np.float32), labels[order]


def _resample(x: np.ndarray, length: int) -> np.ndarray:
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(x)), x)
