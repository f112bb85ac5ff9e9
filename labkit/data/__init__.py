"""Data that ships with packages: no source here ever asks the network.

One file per source; each says where its data come from and under which licence. Everything is
returned as NumPy arrays with the range stated in the docstring.
"""

from labkit.data.digits import digits
from labkit.data.natural_images import PHOTOGRAPHS, natural_images
from labkit.data.patches import sample_patches, whiten, whitened_patches

__all__ = [
    "PHOTOGRAPHS",
    "digits",
    "natural_images",
    "sample_patches",
    "whiten",
    "whitened_patches",
]
