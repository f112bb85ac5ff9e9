"""Whitening of images and sampling of patches from them."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator


def whiten(image: np.ndarray, *, cutoff: float = 0.4) -> np.ndarray:
    """Flatten the amplitude spectrum of a photograph, which falls off about as 1/f.

    The filter of Olshausen & Field (1996, 1997), R(f) = f exp(-(f / f_0)^4): it rises with the
    spatial frequency f and cuts the corners of the frequency plane, where pixel noise rules.

    Parameters
    ----------
    image : (height, width), real
    cutoff : f_0 in cycles per pixel (0.4 is their 200 cycles per picture of 512 pixels)

    Returns
    -------
    float32 array of the same shape, zero mean and unit variance.

    Raises
    ------
    ValueError
        for an image that is not two-dimensional, not finite, or constant; for cutoff <= 0.
    """
    if image.ndim != 2:
        raise ValueError(f"whiten takes one (height, width) image, not shape {image.shape}")
    if not cutoff > 0:
        raise ValueError(f"cutoff must be positive, not {cutoff}")
    if not np.isfinite(image).all():
        raise ValueError("the image holds NaN or infinite pixels")
    if np.ptp(image) == 0:
        raise ValueError("a constant image has no spectrum to whiten")
    # The FFT sees a torus: mirrored margins keep its seam, a false edge, out of the image.
    margin = [min(32, side - 1) for side in image.shape]
    padded = np.pad(image.astype(np.float64), [(m, m) for m in margin], mode="reflect")
    f_y = np.fft.fftfreq(padded.shape[0])[:, None]
    f_x = np.fft.rfftfreq(padded.shape[1])[None, :]
    f = np.hypot(f_y, f_x)
    spectrum = np.fft.rfft2(padded) * f * np.exp(-((f / cutoff) ** 4))
    filtered = np.fft.irfft2(spectrum, s=padded.shape)
    inner = filtered[margin[0] : -margin[0] or None, margin[1] : -margin[1] or None]
    return ((inner - inner.mean()) / inner.std()).astype(np.float32)


def sample_patches(
    images: Sequence[np.ndarray], size: int, count: int, rng: Generator
) -> np.ndarray:
    """Cut square patches at random places; every image gets the same share, in random order.

    Returns
    -------
    Array (count, size * size) of the images' dtype; a row holds its patch row by row.

    Raises
    ------
    ValueError
        for no image, a count below 1, or a size below 1 or above the smallest side of an image.
    """
    if not images:
        raise ValueError("sample_patches needs at least one image")
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    smallest = min(min(image.shape) for image in images)
    if not 1 <= size <= smallest:
        raise ValueError(f"size must be 1 to {smallest} (the smallest side), not {size}")
    patches = np.empty((count, size * size), dtype=images[0].dtype)
    which = rng.permutation(np.arange(count) % len(images))
    for row, image in zip(range(count), (images[i] for i in which), strict=True):
        top = rng.integers(image.shape[0] - size + 1)
        left = rng.integers(image.shape[1] - size + 1)
        patches[row] = image[top : top + size, left : left + size].ravel()
    return patches


def chessboard(image: np.ndarray, side: int, colour: int) -> list[np.ndarray]:
    """Squares of one colour of a chessboard laid over an image.

    What learns from patches within the squares of one colour can be tested on those of the other:
    no pixel is in both. What is left over at the right and at the bottom is cut off.

    Parameters
    ----------
    image : (height, width, ...)
    side : of a square, in pixels
    colour : 0 for that of the upper left corner, 1 for the other

    Returns
    -------
    Views (side, side, ...), row by row.

    Raises
    ------
    ValueError
        for an image too small for a square of each colour, or another colour.
    """
    if colour not in (0, 1):
        raise ValueError(f"colour must be 0 or 1, not {colour!r}")
    rows, columns = image.shape[0] // max(1, side), image.shape[1] // max(1, side)
    if side < 1 or rows * columns < 2:
        raise ValueError(f"an image of shape {image.shape} has no two squares of side {side}")
    corners = [(side * r, side * c) for r in range(rows) for c in range(columns)]
    own = [(top, left) for top, left in corners if (top + left) // side % 2 == colour]
    return [image[top : top + side, left : left + side] for top, left in own]


def whitened_patches(
    images: Sequence[np.ndarray], size: int, count: int, rng: Generator, *, cutoff: float = 0.4
) -> np.ndarray:
    """Patches of whitened photographs, each with its own mean removed.

    Every image is whitened as a whole (see `whiten`) before patches are cut, so that borders of
    patches leave no trace in the spectrum.

    Returns
    -------
    float32 array (count, size * size), zero mean in every row.
    """
    patches = sample_patches([whiten(i, cutoff=cutoff) for i in images], size, count, rng)
    return patches - patches.mean(axis=1, keepdims=True)
