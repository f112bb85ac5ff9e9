"""From noise to data: one loop, a few ways to step between two levels of noise.

A level is a pair (alpha, sigma), a sample there x = alpha x0 + sigma eps. Between neighbouring
levels every method follows the chord, the straight line from one pair to the next, on which the
probability flow is

    dx = d_alpha x0_hat(x) + d_sigma eps_hat(x),     eps_hat = (x - alpha x0_hat) / sigma.

One Euler step of it is x' = alpha' x0_hat + sigma' eps_hat. That is DDIM on the circle
alpha^2 + sigma^2 = 1 (Song et al. 2021, equation 12), Euler of EDM where alpha = 1 (Karras et al.
2022), and iterative deblending or flow matching where alpha + sigma = 1 (Heitz et al. 2023; Lipman
et al. 2023): one function with three names. Nothing divides by alpha, so that alpha = 0 is allowed.

    "ddim", "euler"   Euler; eta > 0 puts fresh noise in the place of a part of eps_hat
    "ancestral"       DDPM (Ho et al. 2020): "ddim" with eta = 1
    "heun"            trapezoid on the chord (Karras et al. 2022, algorithm 1), two calls a step
    "midpoint"        the level in the middle of the chord, two calls a step
    "dpmpp_2m"        DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), one call a step

A denoiser is a callable `denoise(x, alpha, sigma) -> x0_hat`, E[x0 | x] shaped like x. Here alpha
and sigma are numbers.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from labkit.checks import check_choice, check_finite
from labkit.diffusion.predictions import Denoiser

METHODS = ("ddim", "euler", "ancestral", "heun", "midpoint", "dpmpp_2m")

Levels = tuple[Sequence[float] | Tensor, Sequence[float] | Tensor]
Pair = tuple[float, float]  # alpha, sigma


class State(NamedTuple):
    """Where the sampler stands, before it takes step `step`.

    Attributes
    ----------
    step : 0 to n_steps; at n_steps all steps are taken
    n_steps : number of steps
    alpha, sigma : the level of x
    x : (B, ...) samples at that level
    x0 : (B, ...) estimate of the clean samples, from x alone; in the last state, where sigma = 0,
        x itself
    """

    step: int
    n_steps: int
    alpha: float
    sigma: float
    x: Tensor
    x0: Tensor


def sample(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    method: str = "ddim",
    eta: float = 0.0,
    generator: Generator | None = None,
) -> Iterator[State]:
    """Walk from noise to data, one state at a time: n_steps + 1 of them, the last one clean.

        for state in sample(denoise, x, schedule.steps(50)):
            plot(state.x, state.x0)

    Input is checked at the call, before the first state is asked for. No gradient is kept.

    Parameters
    ----------
    denoise : E[x0 | x] of (x, alpha, sigma), shaped like x
    x : (B, ...) floating, samples at the first level: sigma_0 * randn where alpha_0 = 0
    levels : alphas (n + 1,) and sigmas (n + 1,), noisiest first, the last one (1, 0)
    method : one of "ddim" (also called "euler"), "ancestral", "heun", "midpoint", "dpmpp_2m"
    eta : of "ddim", from 0 (deterministic) to 1 (ancestral): the noise added has eta times the
        standard deviation of the posterior of x' given x and x0
    generator : draws that noise; needed where there is some

    Raises
    ------
    TypeError
        for a denoiser that cannot be called, x that is not a floating tensor, or a denoiser that
        does not return a tensor.
    ValueError
        for an unknown method, eta out of range or of a deterministic method, no generator where
        noise is drawn, levels that are not as above, or x or estimates that hold NaN or infinity
        or have another shape.
    """
    eta = _check_method(method, eta, generator)
    pairs = _check_levels(levels)
    if not callable(denoise):
        raise TypeError(
            f"denoise must be a callable (x, alpha, sigma) -> x0, not {type(denoise).__name__}"
        )
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a floating tensor (B, ...) of noise, not {kind}")
    check_finite("x", x)
    return _walk(denoise, x, pairs, method, eta, generator)


def generate(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    method: str = "ddim",
    eta: float = 0.0,
    generator: Generator | None = None,
    *,
    progress: bool = False,
) -> Tensor:
    """The clean samples (B, ...) at the end of `sample`, whose parameters and errors it shares.

    progress : show a bar
    """
    states = sample(denoise, x, levels, method, eta, generator)
    for state in tqdm(states, total=len(levels[0]), desc=method, leave=False, disable=not progress):
        x = state.x
    return x


def _walk(
    denoise: Denoiser,
    x: Tensor,
    pairs: list[Pair],
    method: str,
    eta: float,
    generator: Generator | None,
) -> Iterator[State]:
    n_steps = len(pairs) - 1
    past = None  # the level before and the estimate there, which the multistep method looks at
    for step, (here, there) in enumerate(pairwise(pairs)):
        # No `with` around a yield: it would reach into the code of the reader.
        with torch.no_grad():
            x0 = _estimate(denoise, x, here)
        yield State(step, n_steps, *here, x, x0)
        with torch.no_grad():
            if method == "heun":
                x = _heun(denoise, x, x0, here, there)
            elif method == "midpoint":
                x = _midpoint(denoise, x, x0, here, there)
            elif method == "dpmpp_2m":
                x, past = _dpmpp_2m(x, x0, here, there, past), (here, x0)
            else:
                x = _ddim(x, x0, here, there, eta, generator)
    yield State(n_steps, n_steps, *pairs[-1], x, x)


def _estimate(denoise: Denoiser, x: Tensor, level: Pair) -> Tensor:
    x0 = denoise(x, *level)
    if not isinstance(x0, Tensor):
        raise TypeError(f"denoise must return a tensor, not {type(x0).__name__}")
    if x0.shape != x.shape:
        raise ValueError(
            f"denoise must return estimates {tuple(x.shape)} as x is, not {tuple(x0.shape)}"
        )
    if not math.isfinite(x0.sum()):  # or it overflows, and the slow look finds nothing
        where = f"alpha = {level[0]:.4g}, sigma = {level[1]:.4g}"
        check_finite(f"the estimate of denoise at {where}", x0)
    return x0


# ------------------------------------------------------------------ steps from here to there


def _ddim(
    x: Tensor, x0: Tensor, here: Pair, there: Pair, eta: float, generator: Generator | None
) -> Tensor:
    """Song et al. 2021, equations 12 and 16: fresh noise of variance eta^2 var in eps_hat's place.

    The posterior of x' given x and x0 has variance
    var = sigma'^2/sigma^2 (sigma^2 - (alpha/alpha')^2 sigma'^2).
    """
    (alpha, sigma), (alpha_, sigma_) = here, there
    share = max(0.0, 1 - (alpha * sigma_ / (alpha_ * sigma)) ** 2)  # var / sigma'^2
    kept = sigma_ * math.sqrt(1 - eta**2 * share)
    y = (kept / sigma) * x + (alpha_ - alpha * kept / sigma) * x0
    noise = eta * sigma_ * math.sqrt(share)
    if noise == 0:
        return y
    return y + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def _heun(denoise: Denoiser, x: Tensor, x0: Tensor, here: Pair, there: Pair) -> Tensor:
    """Mean of the directions at both ends; Euler to sigma = 0, where the second has no eps_hat."""
    chord = there[0] - here[0], there[1] - here[1]
    first = _along(chord, x, x0, here)
    y = x + first
    if there[1] == 0:
        return y
    return x + (first + _along(chord, y, _estimate(denoise, y, there), there)) / 2


def _midpoint(denoise: Denoiser, x: Tensor, x0: Tensor, here: Pair, there: Pair) -> Tensor:
    """The direction in the middle of the chord, where half an Euler step leads."""
    chord = there[0] - here[0], there[1] - here[1]
    middle = (here[0] + there[0]) / 2, (here[1] + there[1]) / 2
    y = x + _along(chord, x, x0, here) / 2
    return x + _along(chord, y, _estimate(denoise, y, middle), middle)


def _along(chord: Pair, x: Tensor, x0: Tensor, level: Pair) -> Tensor:
    """d_alpha x0_hat + d_sigma eps_hat, eps_hat written out."""
    (d_alpha, d_sigma), (alpha, sigma) = chord, level
    return (d_sigma / sigma) * x + (d_alpha - alpha * d_sigma / sigma) * x0


def _dpmpp_2m(
    x: Tensor, x0: Tensor, here: Pair, there: Pair, past: tuple[Pair, Tensor] | None
) -> Tensor:
    """Euler with x0_hat extrapolated over h, the step in log(alpha/sigma).

    Of order one for want of a past, and to sigma = 0, where h is infinite. On the whole of order
    two where the steps h shrink together, as those of `edm` do. In equal steps of t, those near the
    data do not: from t = 2/n to 1/n, h is log 2 for any n, and the order falls towards one.
    """
    if past is not None and there[1] > 0:
        before, x0_before = past
        h, h_before = _log_ratio(there) - _log_ratio(here), _log_ratio(here) - _log_ratio(before)
        x0 = x0 + h / (2 * h_before) * (x0 - x0_before)
    return _ddim(x, x0, here, there, 0, None)


def _log_ratio(level: Pair) -> float:
    alpha, sigma = level
    return math.log(alpha) - math.log(sigma) if alpha > 0 else -math.inf


# ------------------------------------------------------------------ what is asked of the input


def _check_method(method: str, eta: float, generator: Generator | None) -> float:
    """The eta to use."""
    check_choice("method", method, METHODS)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie from 0 to 1, not {eta}")
    if eta > 0 and method not in ("ddim", "ancestral"):
        raise ValueError(f"eta goes with method 'ddim'; {method!r} adds no noise, and eta is {eta}")
    eta = 1.0 if method == "ancestral" else eta
    if eta > 0 and generator is None:
        raise ValueError(
            f"method {method!r} with eta = {eta} draws noise and needs a generator: "
            "generator=torch.Generator().manual_seed(seed)"
        )
    return eta


def _check_levels(levels: Levels) -> list[Pair]:
    try:
        alphas, sigmas = (torch.as_tensor(a, dtype=torch.float64) for a in levels)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"levels must be a pair (alphas, sigmas) of sequences of numbers: {error}"
        ) from error
    if alphas.ndim != 1 or alphas.shape != sigmas.shape or len(alphas) < 2:
        raise ValueError(
            "levels must be alphas (n + 1,) and sigmas (n + 1,) of n >= 1 steps, not "
            f"{tuple(alphas.shape)} and {tuple(sigmas.shape)}"
        )
    pairs = list(zip(alphas.tolist(), sigmas.tolist(), strict=True))
    for i, (alpha, sigma) in enumerate(pairs):
        if not (0 <= alpha < math.inf and 0 <= sigma < math.inf):
            raise ValueError(
                f"alphas and sigmas must be finite and not negative; level {i} is {alpha}, {sigma}"
            )
    for i, ((alpha, sigma), (alpha_, sigma_)) in enumerate(pairwise(pairs)):
        if not alpha_ * sigma > alpha * sigma_:
            raise ValueError(
                "the noise sigma/alpha must decrease from level to level; from level "
                f"{i} to {i + 1} it goes from {sigma:.6g}/{alpha:.6g} to {sigma_:.6g}/{alpha_:.6g}"
            )
    if pairs[-1] != (1, 0):
        raise ValueError(
            f"the last level must be clean, alpha = 1 and sigma = 0, not {pairs[-1][0]:.6g} and "
            f"{pairs[-1][1]:.6g}"
        )
    return pairs
