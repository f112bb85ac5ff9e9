"""Diffusion: schedules of noise, denoisers exact and learned, samplers, what samples are worth.

A noisy sample is x = alpha x0 + sigma eps everywhere, and a denoiser a callable
`denoise(x, alpha, sigma) -> x0_hat`.

schedules    alpha and sigma over time, and how often training meets them
predictions  eps, x0, v, score, velocity: one estimate in five forms
samplers     from noise to data
guidance     two denoisers made into one
exact        data whose ideal denoiser is known
networks     networks that predict, and denoisers made of them
training     denoisers learned from data
metrics      samples against data, and data against data
"""

from labkit.diffusion.exact import FiniteData, GaussianField, GaussianMixture, Posterior
from labkit.diffusion.guidance import guided
from labkit.diffusion.metrics import (
    DigitFeatures,
    Memorisation,
    NullBand,
    energy_distance,
    frechet_distance,
    frechet_gaussians,
    kid,
    memorisation,
    mode_recall,
    null_band,
    radial_spectrum,
    sliced_wasserstein,
)
from labkit.diffusion.networks import Mlp, NetworkDenoiser, TinyUNet
from labkit.diffusion.predictions import PREDICTIONS, expand, from_x0, target, to_x0
from labkit.diffusion.samplers import METHODS, State, generate, sample
from labkit.diffusion.schedules import (
    LogSNRDensity,
    Schedule,
    cauchy,
    cauchy_density,
    cosine,
    cosine_beta,
    cosine_density,
    cosine_gamma,
    edm,
    edm_density,
    flow,
    from_betas,
    from_table,
    laplace,
    laplace_density,
    levels_of,
    linear_beta,
    linear_gamma,
    shifted,
    sigmoid_gamma,
    stable_diffusion,
    timesteps,
    zero_terminal,
)
from labkit.diffusion.training import (
    denoising_loss,
    descend,
    digit_images,
    prediction_loss,
    train,
)

__all__ = [
    "METHODS",
    "PREDICTIONS",
    "DigitFeatures",
    "FiniteData",
    "GaussianField",
    "GaussianMixture",
    "LogSNRDensity",
    "Memorisation",
    "Mlp",
    "NetworkDenoiser",
    "NullBand",
    "Posterior",
    "Schedule",
    "State",
    "TinyUNet",
    "cauchy",
    "cauchy_density",
    "cosine",
    "cosine_beta",
    "cosine_density",
    "cosine_gamma",
    "denoising_loss",
    "descend",
    "digit_images",
    "edm",
    "edm_density",
    "energy_distance",
    "expand",
    "flow",
    "frechet_distance",
    "frechet_gaussians",
    "from_betas",
    "from_table",
    "from_x0",
    "generate",
    "guided",
    "kid",
    "laplace",
    "laplace_density",
    "levels_of",
    "linear_beta",
    "linear_gamma",
    "memorisation",
    "mode_recall",
    "null_band",
    "prediction_loss",
    "radial_spectrum",
    "sample",
    "shifted",
    "sigmoid_gamma",
    "sliced_wasserstein",
    "stable_diffusion",
    "target",
    "timesteps",
    "to_x0",
    "train",
    "zero_terminal",
]
