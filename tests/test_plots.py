"""The shared look of figures."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from labkit.plots import show_image, table


def test_an_image_has_no_frame_and_a_fixed_range():
    fig, axes = plt.subplots(1, 2)
    show_image(axes[0], torch.zeros(3, 4), "flat")
    show_image(axes[1], np.ones((2, 2)), vmin=0, vmax=2)
    drawn = [axis.images[0] for axis in axes]
    assert [image.get_clim() for image in drawn] == [(-1, 1), (0, 2)]
    assert drawn[0].get_array().shape == (3, 4)
    for axis in axes:
        assert not axis.get_xticks().size and not axis.get_yticks().size
        assert not any(spine.get_visible() for spine in axis.spines.values())
    assert axes[0].get_title() == "flat" and not axes[1].get_title()
    plt.close(fig)


def test_a_table_is_one_of_markdown():
    assert table(["n", "what"], [[1, "[a](b)"], [2, "$x$"]]).data.splitlines() == [
        "| n | what |",
        "| --- | --- |",
        "| 1 | [a](b) |",
        "| 2 | $x$ |",
    ]
