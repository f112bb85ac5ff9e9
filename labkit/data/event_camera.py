"""An event camera in software: frames in, ON and OFF events out.

A dynamic vision sensor has no frames. Each of its pixels waits until the brightness has changed by
a threshold since the pixel's last event, and then sends one event, ON for brighter or OFF for
darker (Lichtsteiner, Posch & Delbruck 2008, doi:10.1109/JSSC.2007.914337). `simulate` does the same
to a movie; `fourier_shift` moves an image by fractions of a pixel, to make such movies.
"""

import numpy as np

from labkit.checks import check_positive


def fourier_shift(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Translate images by any fraction of a pixel: the shift theorem of the Fourier transform.

    The translation multiplies the spectrum by exp(-2 pi i (f_y shift_y + f_x shift_x)). It is exact
    for a periodic image without energy at the Nyquist frequency; elsewhere what leaves on one side
    comes back on the other, so that real photographs need a margin to be cut off.

    Parameters
    ----------
    image : (..., height, width), real
    shift : (..., 2), displacement in pixels along (height, width); its leading axes broadcast
        against those of image

    Returns
    -------
    Array (..., height, width), float32 for a float32 image, else float64: the content at (y, x)
    has moved to (y + shift_y, x + shift_x).

    Raises
    ------
    ValueError
        for an image without two axes, a shift whose last axis does not hold two numbers, or numbers
        that are not finite.
    """
    image, shift = np.asarray(image), np.asarray(shift, dtype=np.float64)
    if image.ndim < 2:
        raise ValueError(f"image must be (..., height, width), not of shape {image.shape}")
    if shift.ndim < 1 or shift.shape[-1] != 2:
        raise ValueError(f"shift must be (..., 2), not of shape {shift.shape}")
    if not (np.isfinite(image).all() and np.isfinite(shift).all()):
        raise ValueError("image and shift must be finite")
    size = image.shape[-2:]
    f_y = np.fft.fftfreq(size[0])[:, None]
    f_x = np.fft.rfftfreq(size[1])[None, :]
    along_y = np.exp(-2j * np.pi * f_y * shift[..., 0, None, None])
    along_x = np.exp(-2j * np.pi * f_x * shift[..., 1, None, None])
    moved = np.fft.irfft2(np.fft.rfft2(image) * along_y * along_x, s=size)
    return moved.astype(np.float32) if image.dtype == np.float32 else moved


def simulate(frames: np.ndarray, threshold: float) -> np.ndarray:
    """Turn a movie into the events of an event camera, at most one per pixel and frame.

    Every pixel adds up its changes of intensity. Where the sum reaches the threshold in absolute
    value, the pixel sends an event of that sign and the threshold is taken off the sum; what is
    left, the residual, is kept for the next frame. The first frame is what the pixels start from
    and sends nothing.

    Parameters
    ----------
    frames : (T, ...), intensity over time; a real sensor sees the logarithm of luminance
    threshold : change of intensity that makes an event, positive, in units of frames

    Returns
    -------
    Boolean array (2, T, ...): ON events first, then OFF.

    Raises
    ------
    ValueError
        for frames without a time axis or not finite, or a threshold that is not positive and
        finite.
    """
    frames = np.asarray(frames)
    if frames.ndim < 1 or len(frames) < 1:
        raise ValueError(f"frames must be (T, ...) with T of at least 1, not {frames.shape}")
    check_positive(threshold=threshold)
    if not np.isfinite(frames).all():
        raise ValueError("frames hold NaN or infinite intensities")
    events = np.zeros((2, *frames.shape), dtype=bool)
    residual = np.zeros(frames.shape[1:])
    for t in range(1, len(frames)):
        residual += np.subtract(frames[t], frames[t - 1], dtype=np.float64)
        events[0, t] = residual >= threshold
        events[1, t] = residual <= -threshold
        residual -= threshold * (events[0, t].astype(np.float64) - events[1, t])
    return events
