"""Data that ship with packages or are made on the spot: no source here ever asks the network.

One file per source; each says where its data come from and under which licence. Everything is
returned as NumPy arrays with the range stated in the docstring; splits are tensors, for networks.
"""

from labkit.data.digits import digits, digits_split
from labkit.data.natural_images import PHOTOGRAPHS, natural_images
from labkit.data.patches import chessboard, sample_patches, whiten, whitened_patches
from labkit.data.spoken_digits import SpokenDigits, spoken_digits

__all__ = [
    "PHOTOGRAPHS",
    "SpokenDigits",
    "chessboard",
    "digits",
    "digits_split",
    "natural_images",
    "sample_patches",
    "spoken_digits",
    "whiten",
    "whitened_patches",
]
