"""Photographs that scikit-image and scikit-learn carry in their wheels.

========== ======================================== ===========================================
name       what                                     source and licence
========== ======================================== ===========================================
astronaut  Eileen Collins, NASA                     scikit-image; public domain
brick      a brick wall                             scikit-image, CC0Textures; CC0
camera     a photographer at work, L. Varshney      scikit-image; CC0
chelsea    a cat, S. van der Walt                   scikit-image; CC0
china      a Chinese pagoda, user danielbuechele    scikit-learn, Flickr; CC BY 2.0
coffee     a cup of coffee, R. Michetti             scikit-image; CC0
flower     a dahlia, user vultilion                 scikit-learn, Flickr; CC BY 2.0
grass      a lawn, user linolafett                  scikit-image, DeviantArt; CC0
gravel     gravel                                   scikit-image, CC0Textures; CC0
rocket     launch of DSCOVR, SpaceX                 scikit-image; public domain
========== ======================================== ===========================================
"""

from collections.abc import Sequence

import numpy as np

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "china",
    "coffee",
    "flower",
    "grass",
    "gravel",
    "rocket",
)
_FROM_SCIKIT_LEARN = ("china", "flower")


def natural_images(names: Sequence[str] = PHOTOGRAPHS, *, colour: bool = False) -> list[np.ndarray]:
    """Load photographs, offline, as luminance or in colour.

    Parameters
    ----------
    names : which ones, in which order; by default all of `PHOTOGRAPHS`
    colour : red, green and blue instead; those that are grey have the same in all three

    Returns
    -------
    A list of float32 arrays of shape (height, width), 300 to 640 pixels a side, values in [0, 1]:
    the gamma-encoded luminance 0.2125 R + 0.7154 G + 0.0721 B of the 8-bit originals. In colour,
    (height, width, 3).

    Raises
    ------
    ValueError
        for a name that is not in `PHOTOGRAPHS`.
    """
    from labkit.checks import check_choice  # loads torch, which labkit.data does without

    if isinstance(names, str):
        raise ValueError(f"names takes a list, e.g. [{names!r}]")
    for name in names:
        check_choice("a photograph", name, PHOTOGRAPHS)
    pixels = [_load(name) for name in names]
    return [_colour(p) for p in pixels] if colour else [_luminance(p) for p in pixels]


def _load(name: str) -> np.ndarray:
    """(height, width) or (height, width, 3) from 0 to 1."""
    if name in _FROM_SCIKIT_LEARN:
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(f"{name}.jpg")
    else:
        import skimage.data

        pixels = getattr(skimage.data, name)()
    return np.asarray(pixels, dtype=np.float32) / 255


def _colour(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def _luminance(pixels: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2gray

    grey = rgb2gray(pixels) if pixels.ndim == 3 else pixels
    # Rounding in the weighted sum may leave [0, 1] by an ulp.
    return np.clip(grey, 0, 1).astype(np.float32)
