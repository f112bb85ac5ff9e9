"""Data whose noisy versions are known in closed form: what a perfect denoiser would do.

With x = alpha x0 + sigma eps, eps ~ N(0, I), each class here knows the density of x, its score
and the posterior p(x0 | x), whose mean E[x0 | x] is the denoiser: `law.denoise` can stand
wherever a trained network can. With it a sampler shows the errors of the sampler alone.

    GaussianMixture   any mixture of Gaussians; in one dimension also the map that every
                      deterministic sampler converges to
    FiniteData        a set of points: what training to the end on them would learn
    GaussianField     stationary Gaussian images: the Wiener filter

All is computed in float64, with log-sum-exp, and returned in the dtype of x. In float32, without
it, all weights of a mixture vanish some fourteen standard deviations away.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from labkit.checks import check_finite
from labkit.diffusion.predictions import Level, expand

Values = Tensor | Sequence  # numbers of any dtype, also nested lists; kept in float64

CHUNK = 2**22  # distances to points of a finite set that are held at a time


class Posterior(NamedTuple):
    """p(x0 | x) of a mixture, itself a mixture for each of B samples, float64.

    weights : (B, K); means : (B, K, d); covariances : (B, K, d, d)
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor


class GaussianMixture:
    """Mixture of K Gaussians in d dimensions.

    Parameters
    ----------
    weights : (K,) positive; they are divided by their sum
    means : (K, d)
    covariances : (K, d, d) symmetric, positive definite
    stds : instead of covariances, standard deviations (K,) of round or (K, d) of axis-parallel
        components

    Raises
    ------
    ValueError
        for shapes that do not fit, weights or stds that are not positive, values that are not
        finite, covariances that are not symmetric or not positive definite, or both or none of
        covariances and stds.
    """

    def __init__(
        self,
        weights: Values,
        means: Values,
        covariances: Values | None = None,
        *,
        stds: Values | None = None,
    ) -> None:
        weights, means = _float64("weights", weights), _float64("means", means)
        if weights.ndim != 1 or means.ndim != 2 or len(weights) != len(means) or not means.numel():
            raise ValueError(
                "weights and means must be (K,) and (K, d), not "
                f"{tuple(weights.shape)} and {tuple(means.shape)}"
            )
        if not (weights > 0).all():
            raise ValueError(f"weights must be positive, not {weights.tolist()}")
        self.weights = weights / weights.sum()
        self.means = means
        self.K, self.d = means.shape
        # Covariances as axes diag(variances) axes^T: every level has the same axes.
        self.axes: Tensor | None = None
        if stds is not None and covariances is None:
            self.variances = _round(_float64("stds", stds), means)
        elif covariances is not None and stds is None:
            self.variances, self.axes = _decompose(_float64("covariances", covariances), means)
        else:
            raise ValueError("give either covariances or stds, and not both or none of them")

    @property
    def covariances(self) -> Tensor:
        """The covariances (K, d, d) of the components."""
        return self._turned(torch.diag_embed(self.variances))

    def log_prob(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        """Log-density (B,) of x (B, d) at a level, () or (B,) each."""
        log_parts, _, _ = self._parts(*self._at_level(x, alpha, sigma))
        return log_parts.logsumexp(dim=1).to(x.dtype)

    def score(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        """Gradient (B, d) of the log-density of x (B, d) at a level."""
        log_parts, y, variances = self._parts(*self._at_level(x, alpha, sigma))
        score = self._outward(-y / variances)
        return _mean(log_parts.softmax(dim=1), score).to(x.dtype)

    def denoise(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """E[x0 | x], (B, d), of x (B, d) at a level."""
        weights, means, _ = self._posterior(x, alpha, sigma)
        return _mean(weights, means).to(x.dtype)

    def posterior(self, x: Tensor, alpha: Level, sigma: Level) -> Posterior:
        """The mixture p(x0 | x) for each sample x (B, d) at a level."""
        weights, means, variances = self._posterior(x, alpha, sigma)
        covariances = self._turned(torch.diag_embed(variances))
        return Posterior(weights, means, covariances.expand(len(x), -1, -1, -1))

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw n clean samples (n, d), float64."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = _randn((n, self.d), generator)
        return self.means[k] + self._outward_of(k, self.variances[k].sqrt() * z)

    def sample_posterior(
        self, x: Tensor, alpha: Level, sigma: Level, generator: Generator
    ) -> Tensor:
        """Draw one x0 (B, d) from p(x0 | x) for each sample x (B, d) at a level."""
        weights, means, variances = self._posterior(x, alpha, sigma)
        k = torch.multinomial(weights, 1, generator=generator)[:, 0]
        b = torch.arange(len(x))
        spread = variances.expand(len(x), -1, -1)[b, k].sqrt() * _randn((len(x), self.d), generator)
        return (means[b, k] + self._outward_of(k, spread)).to(x.dtype)

    # -------------------------------------------------------------- one dimension

    def cdf(self, x: Tensor, alpha: float = 1.0, sigma: float = 0.0) -> Tensor:
        """Distribution function at x (...), of a mixture in one dimension."""
        means, stds = self._on_a_line(alpha, sigma)
        z = (x.double()[..., None] - means) / stds
        return (self.weights * _phi(z)).sum(dim=-1).to(x.dtype)

    def quantile(self, p: Tensor, alpha: float = 1.0, sigma: float = 0.0) -> Tensor:
        """The x (...) below which a share p (...), from 0 to 1, lies; in one dimension."""
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError(f"p must lie from 0 to 1, not from {p.min():.4g} to {p.max():.4g}")
        return self.quantile_map(torch.special.ndtri(p.double()), alpha, sigma).to(p.dtype)

    def quantile_map(self, z: Tensor, alpha: float = 1.0, sigma: float = 0.0) -> Tensor:
        """F^{-1}(Phi(z)), the increasing map (...) from N(0, 1) to a mixture in one dimension.

        On a line the probability flow keeps the order of samples, hence this is where every
        deterministic sampler leads in the limit of many steps: from N(0, 1) to the data, or from
        quantile_map(z, alpha, sigma) at a level to quantile_map(z). Bisection, to the last digits.
        """
        means, stds = self._on_a_line(alpha, sigma)
        z64 = z.double()
        # Each component alone would put z at mean + std z. The mixture lies between those.
        spots = means + stds * z64[..., None]
        low, high = spots.amin(dim=-1), spots.amax(dim=-1)
        # Far right, 1 - F has the digits that F lacks.
        side = torch.where(z64 > 0, -1.0, 1.0)
        goal = _phi(side * z64)
        for _ in range(64):
            middle = (low + high) / 2
            share = _phi(side[..., None] * (middle[..., None] - means) / stds)
            below = side * ((self.weights * share).sum(dim=-1) - goal) < 0
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2).to(z.dtype)

    def _on_a_line(self, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (K,) at a level."""
        if self.d != 1:
            raise ValueError(f"only a mixture in one dimension has quantiles; this has {self.d}")
        _check_level(alpha, sigma)
        return alpha * self.means[:, 0], (alpha**2 * self.variances[:, 0] + sigma**2).sqrt()

    # -------------------------------------------------------------- in the axes of the components

    def _parts(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each component the log of weight times density (B, K); the deviation of x from its
        mean in its axes (B, K, d); the variances there (1 or B, K, d).
        """
        y = self._inward(x - alpha * self.means)
        variances = (alpha**2 * self.variances + sigma**2).reshape(-1, self.K, self.d)
        log_density = -0.5 * (y**2 / variances + (2 * math.pi * variances).log()).sum(dim=-1)
        return self.weights.log() + log_density, y, variances

    def _posterior(self, x: Tensor, alpha: Level, sigma: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (B, K), means (B, K, d), and variances (1 or B, K, d) in the axes."""
        x, alpha, sigma = self._at_level(x, alpha, sigma)
        log_parts, y, noisy = self._parts(x, alpha, sigma)
        shrunk = self.variances / noisy
        means = self.means + self._outward(alpha * shrunk * y)
        return log_parts.softmax(dim=1), means, sigma**2 * shrunk

    def _at_level(self, x: Tensor, alpha: Level, sigma: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Samples (B, 1, d), alpha and sigma (1,) or (B, 1, 1), to go with components (K, d)."""
        x, alpha, sigma = _at_level(x, (self.d,), alpha, sigma)
        return x[:, None], alpha[..., None], sigma[..., None]

    def _inward(self, y: Tensor) -> Tensor:
        return y if self.axes is None else torch.einsum("kde,bkd->bke", self.axes, y)

    def _outward(self, y: Tensor) -> Tensor:
        return y if self.axes is None else torch.einsum("kde,bke->bkd", self.axes, y)

    def _outward_of(self, k: Tensor, y: Tensor) -> Tensor:
        """The same for one component k (B,) a sample, y (B, d)."""
        if self.axes is None:
            return y
        return torch.einsum("bde,be->bd", self.axes[k], y)

    def _turned(self, diagonal: Tensor) -> Tensor:
        return diagonal if self.axes is None else self.axes @ diagonal @ self.axes.mT


class FiniteData:
    """The points x_1 ... x_N, each with probability 1/N: what a training set alone says.

    Its denoiser is a softmax over the points. It is what minimises the training loss, and samplers
    that use it return training points: memorisation.

    Parameters
    ----------
    points : (N, *shape), finite

    Raises
    ------
    ValueError
        for no points, or values that are not finite.
    """

    def __init__(self, points: Values) -> None:
        points = _float64("points", points)
        if points.ndim < 2 or not points.numel():
            raise ValueError(f"points must be (N, *shape) with N >= 1, not {tuple(points.shape)}")
        self.points = points
        self._flat = points.flatten(start_dim=1)
        self._energy = self._flat.square().sum(dim=1)

    def denoise(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """E[x0 | x], shaped like x (B, *shape), of samples at a level with sigma > 0."""
        parts = [logits.softmax(dim=1) @ self._flat for logits, _ in self._logits(x, alpha, sigma)]
        return torch.cat(parts).reshape(x.shape).to(x.dtype)

    def score(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """Gradient of the log-density, shaped like x (B, *shape), at a level with sigma > 0."""
        x_, a, s = _at_level(x, self.points.shape[1:], alpha, sigma)
        return ((a * self.denoise(x_, alpha, sigma) - x_) / s**2).to(x.dtype)

    def log_prob(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """Log-density (B,) of x (B, *shape) at a level with sigma > 0."""
        N, d = self._flat.shape
        parts = [
            logits.logsumexp(dim=1) - 0.5 * energy - math.log(N)
            for logits, energy in self._logits(x, alpha, sigma)
        ]
        sigma = torch.as_tensor(sigma, dtype=torch.float64)
        return (torch.cat(parts) - 0.5 * d * (2 * math.pi * sigma**2).log()).to(x.dtype)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw n of the points (n, *shape), with replacement."""
        return self.points[torch.randint(len(self.points), (n,), generator=generator)]

    def sample_posterior(
        self, x: Tensor, alpha: Level, sigma: Level, generator: Generator
    ) -> Tensor:
        """Draw one of the points from p(x0 | x) for each sample x (B, *shape) at a level."""
        rows = [
            torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
            for logits, _ in self._logits(x, alpha, sigma)
        ]
        return self.points[torch.cat(rows)].to(x.dtype)

    def _logits(self, x: Tensor, alpha: Level, sigma: Level) -> Iterator[tuple[Tensor, Tensor]]:
        """A few samples at a time: -||x - alpha x_i||^2 / (2 sigma^2), (b, N), less its first part
        -||x||^2 / (2 sigma^2), (b, 1), which the softmax does not see; and ||x||^2 / sigma^2, (b,).
        """
        x, alpha, sigma = _at_level(x, self.points.shape[1:], alpha, sigma)
        if not (sigma > 0).all():
            raise ValueError("sigma must be positive: a finite set has no density without noise")
        x = x.flatten(start_dim=1)
        alpha, sigma = (a.reshape(-1, 1).expand(len(x), 1) for a in (alpha, sigma))
        rows = max(1, CHUNK // len(self.points))
        for x_, a, s in zip(x.split(rows), alpha.split(rows), sigma.split(rows), strict=True):
            logits = (a * (x_ @ self._flat.T) - a**2 * self._energy / 2) / s**2
            yield logits, x_.square().sum(dim=1) / s[:, 0] ** 2


class GaussianField:
    """Stationary Gaussian images: one variance for each coefficient of the 2-D Fourier transform.

    The transform is orthonormal, so that white noise of variance sigma^2 adds sigma^2 to every
    coefficient, and the ideal denoiser is the filter of Wiener,

        E[x0 | x] = mean + alpha S / (alpha^2 S + sigma^2) (x - alpha mean),   per frequency.

    Parameters
    ----------
    spectrum : (H, W), E|FFT(x0 - mean)|^2 >= 0 at the frequencies of `torch.fft.fft2`, the same at
        f and -f; a brightness of standard deviation s has (H W s^2) at [0, 0]
    mean : number or image (H, W)

    Raises
    ------
    ValueError
        for shapes that do not fit, or a spectrum that is negative or differs between f and -f.
    """

    def __init__(self, spectrum: Values, mean: float | Values = 0.0) -> None:
        spectrum, mean = _float64("spectrum", spectrum), _float64("mean", mean)
        if spectrum.ndim != 2 or not spectrum.numel():
            raise ValueError(f"spectrum must be (H, W), not {tuple(spectrum.shape)}")
        if mean.shape not in ((), spectrum.shape):
            raise ValueError(
                f"mean must be a number or (H, W) = {tuple(spectrum.shape)}, not "
                f"{tuple(mean.shape)}"
            )
        if not (spectrum >= 0).all():
            raise ValueError(f"spectrum must not be negative; its least value is {spectrum.min()}")
        mirrored = spectrum.flip(0, 1).roll((1, 1), (0, 1))
        if not torch.allclose(spectrum, mirrored, rtol=1e-6, atol=0):
            raise ValueError("spectrum must be the same at f and -f, as that of real images is")
        self.spectrum, self.mean = spectrum, mean

    def log_prob(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        """Log-density (B,) of images x (B, ..., H, W) at a level."""
        y, variance, _ = self._transformed(x, alpha, sigma)
        log_density = -0.5 * (y.abs() ** 2 / variance + (2 * math.pi * variance).log())
        return log_density.flatten(start_dim=1).sum(dim=1).to(x.dtype)

    def score(self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0) -> Tensor:
        """Gradient of the log-density, shaped like x (B, ..., H, W), at a level."""
        y, variance, _ = self._transformed(x, alpha, sigma)
        return _image(-y / variance).to(x.dtype)

    def denoise(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """E[x0 | x], shaped like x (B, ..., H, W), at a level."""
        y, variance, alpha = self._transformed(x, alpha, sigma)
        return (self.mean + _image(alpha * self.spectrum / variance * y)).to(x.dtype)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw n clean images (n, H, W), float64."""
        white = torch.fft.fft2(_randn((n, *self.spectrum.shape), generator), norm="ortho")
        return self.mean + _image(self.spectrum.sqrt() * white)

    def sample_posterior(
        self, x: Tensor, alpha: Level, sigma: Level, generator: Generator
    ) -> Tensor:
        """Draw one x0, shaped like x (B, ..., H, W), from p(x0 | x) for each image at a level."""
        _, variance, _ = self._transformed(x, alpha, sigma)
        std = expand(sigma, x.double()) * (self.spectrum / variance).sqrt()
        white = torch.fft.fft2(_randn(x.shape, generator), norm="ortho")
        return self.denoise(x, alpha, sigma) + _image(std * white).to(x.dtype)

    def _transformed(self, x: Tensor, alpha: Level, sigma: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients of x - alpha mean, (B, ..., H, W); their variances; alpha."""
        if x.ndim < 3 or x.shape[-2:] != self.spectrum.shape:
            raise ValueError(
                f"x must be images (B, ..., H, W) of {tuple(self.spectrum.shape)}, not "
                f"{tuple(x.shape)}"
            )
        x, alpha, sigma = _at_level(x, x.shape[1:], alpha, sigma)
        variance = alpha**2 * self.spectrum + sigma**2
        if not (variance > 0).all():
            raise ValueError(
                "sigma must be positive where the spectrum is zero: the images have no density"
            )
        return torch.fft.fft2(x - alpha * self.mean, norm="ortho"), variance, alpha


# ------------------------------------------------------------------ shared


def _at_level(
    x: Tensor, shape: tuple[int, ...], alpha: Level, sigma: Level
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples in float64, with alpha and sigma that broadcast over it; checked."""
    wanted = ", ".join(["B", *map(str, shape)])
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a floating tensor ({wanted}), not {kind}")
    if x.ndim == 0 or x.shape[1:] != torch.Size(shape):
        raise ValueError(f"x must be ({wanted}), not {tuple(x.shape)}")
    x = x.double()
    levels = expand(alpha, x), expand(sigma, x)
    _check_level(alpha, sigma)
    return x, *levels


def _check_level(alpha: Level, sigma: Level) -> None:
    fits = (alpha >= 0) & (sigma >= 0) & (alpha + sigma > 0) & (alpha + sigma < math.inf)
    if not torch.as_tensor(fits).all():
        alpha, sigma = (torch.as_tensor(a, dtype=torch.float64) for a in (alpha, sigma))
        raise ValueError(
            "alpha and sigma must be finite, not negative, and not both 0; alpha runs from "
            f"{alpha.min():.4g} to {alpha.max():.4g}, sigma from {sigma.min():.4g} to "
            f"{sigma.max():.4g}"
        )


def _float64(name: str, value: float | Values) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64)
    check_finite(name, value)
    return value


def _round(stds: Tensor, means: Tensor) -> Tensor:
    """Variances (K, d) of components whose axes are those of the space."""
    K, d = means.shape
    if stds.shape not in ((K,), (K, d)):
        raise ValueError(
            f"stds must be (K,) = ({K},) or (K, d) = ({K}, {d}), not {tuple(stds.shape)}"
        )
    if not (stds > 0).all():
        raise ValueError(f"stds must be positive; the least is {stds.min():.4g}")
    return stds.reshape(K, -1).expand(K, d) ** 2


def _decompose(covariances: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (K, d) along axes (K, d, d), one axis a column."""
    K, d = means.shape
    if covariances.shape != (K, d, d):
        raise ValueError(
            f"covariances must be (K, d, d) = {(K, d, d)}, not {tuple(covariances.shape)}"
        )
    if not torch.allclose(covariances, covariances.mT, rtol=1e-8, atol=1e-12):
        raise ValueError("covariances must be symmetric")
    variances, axes = torch.linalg.eigh(covariances)
    if not (variances > 0).all():
        raise ValueError(
            f"covariances must be positive definite; the least eigenvalue is {variances.min():.4g}"
        )
    return variances, axes


def _phi(z: Tensor) -> Tensor:
    """Phi(z), the distribution function of N(0, 1). That of torch is 0 from z = -9 on."""
    return 0.5 * torch.erfc(-z / math.sqrt(2))


def _mean(weights: Tensor, values: Tensor) -> Tensor:
    """The mean (B, d) of values (B, K, d) with weights (B, K)."""
    return (weights[..., None] * values).sum(dim=1)


def _image(coefficients: Tensor) -> Tensor:
    return torch.fft.ifft2(coefficients, norm="ortho").real


def _randn(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)
