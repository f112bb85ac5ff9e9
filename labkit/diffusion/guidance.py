"""Two denoisers made into one: classifier-free guidance."""

import math

from torch import Tensor

from labkit.checks import check_choice
from labkit.diffusion.predictions import PREDICTIONS, Denoiser, Level, from_x0, to_x0


def guided(
    conditional: Denoiser,
    unconditional: Denoiser,
    weight: float,
    rescale: float = 0.0,
    *,
    prediction: str = "v",
) -> Denoiser:
    """The denoiser of classifier-free guidance (Ho & Salimans 2022), with CFG rescale.

        g = u + weight (c - u)
        out = rescale * g std(c) / std(g) + (1 - rescale) * g

    c and u stand for the conditional and the unconditional prediction. The first line is the same
    for every kind of prediction, the second (Lin et al. 2024, equations 15 and 16) is not: the
    standard deviation, over all axes but the first, is of the kind named by `prediction`. The paper
    predicts v.

    Parameters
    ----------
    conditional, unconditional : denoisers, such as partial(network, label=y) with labels y (B,)
        and with the null label
    weight : 1 is the conditional alone, 0 the unconditional, above 1 guided
    rescale : phi of the paper, 0 (off) to 1; 0.7 there, with weight 7.5
    prediction : "x0", "eps", "v", "score" or "velocity", whose standard deviation is kept

    Raises
    ------
    TypeError
        for a denoiser that is missing or cannot be called.
    ValueError
        for a weight that is not finite, a rescale out of range or an unknown kind; when called, for
        rescaling samples of a single value, which have no standard deviation, and guided
        predictions of equal values throughout, which no factor gives another one.
    """
    for name, denoiser in {"conditional": conditional, "unconditional": unconditional}.items():
        if not callable(denoiser):
            raise TypeError(
                f"guidance needs two denoisers (x, alpha, sigma) -> x0; the {name} one is "
                f"{denoiser!r}"
            )
    if not math.isfinite(weight):
        raise ValueError(f"weight must be finite, not {weight}")
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale must lie from 0 to 1, not {rescale}")
    check_choice("prediction", prediction, PREDICTIONS)

    def denoise(x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        c, u = conditional(x, alpha, sigma), unconditional(x, alpha, sigma)
        g = u + weight * (c - u)
        if rescale == 0:
            return g
        c, g = (from_x0(prediction, x0, x, alpha, sigma) for x0 in (c, g))
        spread = _std(g)
        if not spread.all():
            raise ValueError(
                f"rescale divides by the standard deviation of the guided {prediction}, which is 0 "
                f"at alpha = {alpha}: use rescale=0 there, or another kind of prediction"
            )
        g = g * (rescale * _std(c) / spread + 1 - rescale)
        return to_x0(prediction, g, x, alpha, sigma)

    return denoise


def _std(prediction: Tensor) -> Tensor:
    """Standard deviation (B, 1, ..., 1) of each sample over its own values."""
    if prediction[:1].numel() < 2:
        raise ValueError(
            f"rescale needs samples of two or more values, not {tuple(prediction.shape)}"
        )
    return prediction.std(dim=tuple(range(1, prediction.ndim)), keepdim=True)
