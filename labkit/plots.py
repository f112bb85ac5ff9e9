"""One look for all figures and tables: a light theme, and one set of colours.

The colours are those of Okabe and Ito (2008), and a grey. In print several are equally dark, so a
line gets a marker or dashes of its own as well.
"""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from IPython.display import Markdown
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

BLUE, ORANGE, GREEN, PINK, SKY, AMBER, GREY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999", "#000000",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, GREY)


def house_style() -> None:
    """Set matplotlib's defaults to the look of the suite; a notebook calls it once."""
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=PALETTE),
            "legend.frameon": False,
        }
    )


def show_image(
    axis: Axes, image: ArrayLike, title: str = "", *, vmin: float = -1, vmax: float = 1
) -> None:
    """Draw a grey image (height, width), black at vmin and white at vmax, without a frame."""
    axis.imshow(np.asarray(image), cmap="gray", vmin=vmin, vmax=vmax, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize="medium")


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> Markdown:
    """A table for the end of a cell; what stands in it may have links and equations."""
    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))
