"""Closed forms against autograd, integrals, moments of draws and brute force."""

import math

import pytest
import torch
from scipy import stats

from labkit.diffusion import FiniteData, GaussianField, GaussianMixture, levels_of
from labkit.diffusion import exact as module

LEVELS = {
    "clean": (1.0, 0.0),
    "vp": tuple(float(a) for a in levels_of(torch.tensor(0.8, dtype=torch.float64))),
    "ve": (1.0, 2.0),
    "pure noise": (0.0, 1.0),
    "one a sample": levels_of(torch.linspace(-3, 3, 6, dtype=torch.float64)),
}
NOISY = {name: levels for name, levels in LEVELS.items() if name != "clean"}


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=draw(seed), dtype=torch.float64)


def mixture(kind="full"):
    weights, means = torch.tensor([0.5, 0.3, 0.2]), 2 * randn(3, 2, seed=1)
    if kind == "full":
        root = randn(3, 2, 2, seed=2)
        return GaussianMixture(weights, means, 0.1 * torch.eye(2) + root @ root.mT)
    stds = torch.tensor([0.3, 0.8, 0.5])
    return GaussianMixture(weights, means, stds=stds if kind == "round" else 0.2 + means.abs())


def field():
    f = torch.fft.fftfreq(6, 1 / 6)[:, None] ** 2 + torch.fft.fftfreq(5, 1 / 5) ** 2
    return GaussianField(4 / (0.5 + f), mean=0.3)


def finite():
    return FiniteData(randn(7, 3, 2, seed=3))


LAWS = {
    "full": (mixture(), (2,)),
    "round": (mixture("round"), (2,)),
    "axis-parallel": (mixture("axes"), (2,)),
    "finite": (finite(), (3, 2)),
    "field": (field(), (6, 5)),
}
SMOOTH = [(law, *LAWS[law], levels) for law in LAWS for levels in LEVELS]
SMOOTH = [case for case in SMOOTH if (case[0], case[3]) != ("finite", "clean")]


@pytest.mark.parametrize(("name", "law", "shape", "level"), SMOOTH)
def test_score_is_the_gradient_of_log_prob(name, law, shape, level):
    x = (2 * randn(6, *shape)).requires_grad_()
    (gradient,) = torch.autograd.grad(law.log_prob(x, *LEVELS[level]).sum(), x)
    found = law.score(x.detach(), *LEVELS[level])
    torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "law", "shape", "level"), SMOOTH)
def test_tweedie(name, law, shape, level):
    """alpha E[x0 | x] = x + sigma^2 score."""
    x, (alpha, sigma) = 2 * randn(6, *shape), LEVELS[level]
    a, s = (torch.as_tensor(v, dtype=x.dtype).reshape(-1, *[1] * len(shape)) for v in LEVELS[level])
    expected = x + s**2 * law.score(x, alpha, sigma)
    torch.testing.assert_close(a * law.denoise(x, alpha, sigma), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("law", "shape"), LAWS.values(), ids=LAWS)
def test_without_signal_the_estimate_is_the_mean(law, shape):
    draws = law.sample(40_000, draw())
    mean = law.denoise(randn(1, *shape), 0.0, 1.0)[0]
    error = draws.std(dim=0) / 200  # of a mean of 40 000
    assert ((draws.mean(dim=0) - mean).abs() < 5 * error).all()


@pytest.mark.parametrize("level", NOISY)
@pytest.mark.parametrize(("law", "shape"), LAWS.values(), ids=LAWS)
def test_draws_of_the_posterior_have_its_mean(law, shape, level):
    x, (alpha, sigma) = randn(6, *shape), NOISY[level]
    alpha, sigma = (torch.as_tensor(a).expand(6) for a in (alpha, sigma))
    n = 2000
    many = [v.repeat_interleave(n, dim=0) for v in (x, alpha, sigma)]
    draws = law.sample_posterior(*many, draw()).reshape(6, n, *shape)
    mean = law.denoise(x, alpha, sigma)
    assert ((draws.mean(dim=1) - mean).abs() < 5 * draws.std(dim=1) / n**0.5 + 1e-3).all()


@pytest.mark.parametrize("kind", ["full", "round", "axes"])
def test_moments_of_the_posterior_of_a_mixture(kind):
    law, x, n = mixture(kind), randn(3, 2), 20_000
    weights, means, covariances = law.posterior(x, 0.8, 0.6)
    assert (
        weights.shape == (3, 3) and means.shape == (3, 3, 2) and covariances.shape[1:] == (3, 2, 2)
    )
    mean = torch.einsum("bk,bkd->bd", weights, means)
    torch.testing.assert_close(mean, law.denoise(x, 0.8, 0.6))
    second = covariances + means[..., None] * means[..., None, :]
    covariance = torch.einsum("bk,bkde->bde", weights, second) - mean[:, :, None] * mean[:, None]
    draws = law.sample_posterior(x.repeat_interleave(n, 0), 0.8, 0.6, draw()).reshape(3, n, 2)
    for b in range(3):
        torch.testing.assert_close(draws[b].T.cov(), covariance[b], rtol=0.06, atol=0.01)


def test_posterior_by_bayes_on_a_grid():
    """p(x0 | x) of a mixture in one dimension, as prior times likelihood."""
    law = GaussianMixture(torch.tensor([3.0, 7.0]), torch.tensor([[-1.0], [0.8]]), stds=[0.2, 0.1])
    grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    alpha, sigma, x = 0.9, 0.5, torch.tensor([[-0.3], [0.05], [2.0]], dtype=torch.float64)
    posterior = (law.log_prob(grid[:, None]) - (x - alpha * grid) ** 2 / (2 * sigma**2)).exp()
    posterior /= posterior.sum(dim=1, keepdim=True)
    expected = (posterior * grid).sum(dim=1, keepdim=True)
    torch.testing.assert_close(law.denoise(x, alpha, sigma), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("level", ["clean", "vp", "ve"])
def test_densities_are_those_of_torch_and_of_draws(level):
    law, (alpha, sigma) = mixture(), LEVELS[level]
    parts = torch.distributions.MultivariateNormal(
        alpha * law.means, alpha**2 * law.covariances + sigma**2 * torch.eye(2)
    )
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(law.weights), parts
    )
    x = 3 * randn(50, 2)
    torch.testing.assert_close(law.log_prob(x, alpha, sigma), reference.log_prob(x))
    draws = law.sample(20_000, draw())
    torch.testing.assert_close(draws.T.cov(), reference_cov(law), rtol=0.05, atol=0.05)


def reference_cov(law):
    mean = law.weights @ law.means
    second = law.covariances + law.means[:, :, None] * law.means[:, None]
    return torch.einsum("k,kde->de", law.weights, second) - torch.outer(mean, mean)


def test_full_covariances_of_round_components_agree_with_stds():
    a = mixture("round")
    b = GaussianMixture(a.weights, a.means, a.covariances)
    x = randn(6, 2)
    for name in ("log_prob", "score", "denoise"):
        torch.testing.assert_close(getattr(a, name)(x, 0.7, 0.5), getattr(b, name)(x, 0.7, 0.5))


# ------------------------------------------------------------------ far away, and float32


def test_weights_do_not_vanish_far_away():
    """The trap: float32 densities are all 0 beyond some 14 deviations, and 0/0 follows."""
    law = GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), stds=[0.1, 0.1])
    x = torch.tensor([[3.0]])
    density = (-0.5 * ((x - law.means.float().T) / 0.1) ** 2).exp()
    assert (density / density.sum()).isnan().all()
    found = law.denoise(x, 1.0, 0.01)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(2.98, abs=0.01)
    assert law.score(x).item() == pytest.approx(-200, rel=1e-6)
    far = torch.tensor([[1e6]])
    assert law.denoise(far, 1.0, 1.0).isfinite() and law.log_prob(far).isfinite()


def test_finite_data_stays_finite_at_little_noise():
    law, x = finite(), finite().points + 1e-3
    for sigma in (1e-6, 1e-4, 1e-2):
        torch.testing.assert_close(law.denoise(x, 1.0, sigma), law.points)
        assert law.log_prob(x, 1.0, sigma).isfinite().all()
    distances = (x.float()[:, None] - law.points.float()).flatten(2).square().sum(dim=2)
    naive = (-distances / (2 * 1e-4**2)).exp()
    assert (naive / naive.sum(dim=1, keepdim=True)).isnan().any()


@pytest.mark.parametrize(("law", "shape"), LAWS.values(), ids=LAWS)
def test_results_have_the_dtype_of_x(law, shape):
    x = randn(4, *shape).float()
    for name in ("log_prob", "score", "denoise"):
        found = getattr(law, name)(x, 0.7, 0.5)
        assert found.dtype == torch.float32
        exactly = getattr(law, name)(x.double(), 0.7, 0.5)
        torch.testing.assert_close(found.double(), exactly, rtol=1e-6, atol=1e-5)
    assert law.sample_posterior(x, 0.7, 0.5, draw()).dtype == torch.float32


@pytest.mark.parametrize(("law", "shape"), LAWS.values(), ids=LAWS)
def test_draws_follow_their_generator(law, shape):
    assert law.sample(5, draw()).shape == (5, *shape)
    assert law.sample(5, draw()).equal(law.sample(5, draw()))
    x = randn(4, *shape)
    first, again, other = (law.sample_posterior(x, 0.7, 2.0, draw(s)) for s in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)


# ------------------------------------------------------------------ one dimension


def line():
    return GaussianMixture([0.3, 0.7], [[-1.0], [0.8]], stds=[0.2, 0.1])


@pytest.mark.parametrize("level", [(1.0, 0.0), (0.6, 0.8), (1.0, 80.0), (0.0, 1.0)])
def test_quantiles(level):
    law, p = line(), torch.linspace(0, 1, 1001, dtype=torch.float64)[1:-1]
    x = law.quantile(p, *level)
    torch.testing.assert_close(law.cdf(x, *level), p, rtol=1e-10, atol=1e-13)
    assert (x.diff() > 0).all()
    z = torch.special.ndtri(p)
    torch.testing.assert_close(law.quantile_map(z, *level), x)


def test_cdf_is_the_integral_of_the_density():
    law, grid = line(), torch.linspace(-3, 3, 20_001, dtype=torch.float64)
    density = law.log_prob(grid[:, None], 0.9, 0.2).exp()
    integral = torch.cumulative_trapezoid(density, grid)
    torch.testing.assert_close(law.cdf(grid, 0.9, 0.2)[1:], integral, rtol=0, atol=1e-7)


def test_quantile_map_keeps_its_digits_in_both_tails():
    """Far out one component rules: F(x) = .3 Phi((x + 1)/.2), 1 - F(x) = .7 Phi(-(x - .8)/.1)."""
    z = torch.tensor([-20.0, -9.0, 7.0, 9.0], dtype=torch.float64)
    found = line().quantile_map(z)
    mass = torch.tensor(stats.norm.logcdf([-20.0, -9.0, -7.0, -9.0]))
    share = torch.tensor([0.3, 0.3, 0.7, 0.7], dtype=torch.float64).log()
    spot = torch.special.ndtri((mass - share).exp())
    expected = torch.cat([-1 + 0.2 * spot[:2], 0.8 - 0.1 * spot[2:]])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_quantile_map_of_one_gaussian_is_linear():
    law = GaussianMixture(torch.ones(1), torch.tensor([[2.0]]), stds=[0.3])
    z = torch.linspace(-8, 8, 33, dtype=torch.float64)
    torch.testing.assert_close(law.quantile_map(z), 2 + 0.3 * z)
    infinite = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert law.quantile(infinite).tolist() == [-math.inf, math.inf]


# ------------------------------------------------------------------ finite data and fields


def test_finite_denoiser_is_a_softmax_over_the_points():
    law, x, (alpha, sigma) = finite(), randn(5, 3, 2), (0.8, 0.6)
    distances = torch.cdist(x.flatten(1), alpha * law.points.flatten(1)) ** 2
    weights = (-distances / (2 * sigma**2)).softmax(dim=1)
    expected = torch.einsum("bn,nij->bij", weights, law.points)
    torch.testing.assert_close(law.denoise(x, alpha, sigma), expected)
    rows = torch.distributions.Normal(alpha * law.points, sigma).log_prob(x[:, None])
    log_prob = rows.flatten(2).sum(dim=2).logsumexp(dim=1) - math.log(7)
    torch.testing.assert_close(law.log_prob(x, alpha, sigma), log_prob)


def test_finite_data_are_a_mixture_without_width():
    law = finite()
    flat = GaussianMixture(torch.ones(7), law.points.flatten(1), stds=1e-6 * torch.ones(7))
    x = randn(5, 3, 2)
    expected = flat.denoise(x.flatten(1), 0.8, 0.6).reshape(x.shape)
    torch.testing.assert_close(law.denoise(x, 0.8, 0.6), expected)


def test_chunks_do_not_matter(monkeypatch):
    law, x, sigma = finite(), randn(11, 3, 2), torch.linspace(0.1, 2, 11)
    whole = [law.denoise(x, 0.8, sigma), law.log_prob(x, 0.8, sigma), law.score(x, 0.8, sigma)]
    monkeypatch.setattr(module, "CHUNK", 20)  # two samples at a time
    parts = [law.denoise(x, 0.8, sigma), law.log_prob(x, 0.8, sigma), law.score(x, 0.8, sigma)]
    torch.testing.assert_close(parts, whole)


def test_a_field_is_one_gaussian_with_a_circulant_covariance():
    law = field()
    H, W = law.spectrum.shape
    basis = torch.eye(H * W, dtype=torch.float64).reshape(-1, H, W)
    filtered = torch.fft.ifft2(law.spectrum * torch.fft.fft2(basis)).real
    covariance = filtered.reshape(H * W, H * W)
    mean = torch.full((1, H * W), 0.3)
    flat = GaussianMixture(torch.ones(1), mean, ((covariance + covariance.T) / 2)[None])
    x = randn(4, H, W)
    for name in ("log_prob", "score", "denoise"):
        found = getattr(law, name)(x, 0.8, 0.6)
        expected = getattr(flat, name)(x.flatten(1), 0.8, 0.6)
        torch.testing.assert_close(found.flatten(1) if found.ndim > 1 else found, expected)
    draws = law.sample(20_000, draw()).flatten(1)
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0, atol=0.05 * covariance.max())


def test_posterior_draws_of_a_field_have_its_variance():
    law, n = field(), 20_000
    x = randn(1, 6, 5).expand(n, 6, 5)
    draws = law.sample_posterior(x, 0.8, 0.6, draw())
    power = torch.fft.fft2(draws - draws.mean(dim=0), norm="ortho").abs().square().mean(dim=0)
    expected = law.spectrum * 0.36 / (0.64 * law.spectrum + 0.36)
    torch.testing.assert_close(power, expected, rtol=0.06, atol=0)


def test_brightness_of_a_field():
    """A spectrum H W s^2 at frequency 0 is a brightness, the mean of an image, of deviation s."""
    spectrum = torch.zeros(8, 4)
    spectrum[0, 0] = 8 * 4 * 0.5**2
    images = GaussianField(spectrum).sample(20_000, draw())
    assert images.mean(dim=(1, 2)).std().item() == pytest.approx(0.5, rel=0.03)
    assert images.std(dim=(1, 2)).max() < 1e-12


def test_fields_take_channels():
    law, x = field(), randn(4, 2, 6, 5)
    found = law.denoise(x, 0.8, 0.6)
    torch.testing.assert_close(found[:, 1], law.denoise(x[:, 1], 0.8, 0.6))
    log_prob = law.log_prob(x[:, 0], 0.8, 0.6) + law.log_prob(x[:, 1], 0.8, 0.6)
    torch.testing.assert_close(law.log_prob(x, 0.8, 0.6), log_prob)
    assert law.sample_posterior(x, 0.8, 0.6, draw()).shape == x.shape


# ------------------------------------------------------------------ bad input


GOOD = {"weights": torch.ones(2), "means": torch.zeros(2, 3), "stds": torch.ones(2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": torch.tensor([1.0, 0.0])}, r"weights must be positive.*0\.0"),
        ({"weights": torch.ones(3)}, r"\(3,\) and \(2, 3\)"),
        ({"means": torch.zeros(2)}, r"\(K, d\).*\(2,\)"),
        ({"means": torch.full((2, 3), math.nan)}, "means must be finite"),
        ({"stds": None}, "either covariances or stds"),
        ({"covariances": torch.eye(3).expand(2, 3, 3)}, "either covariances or stds"),
        ({"stds": torch.ones(3)}, r"stds must be.*\(2, 3\).*\(3,\)"),
        ({"stds": torch.tensor([1.0, 0.0])}, "stds must be positive.*0"),
        ({"stds": None, "covariances": torch.ones(2, 3)}, r"\(2, 3, 3\).*\(2, 3\)"),
        ({"stds": None, "covariances": torch.ones(2, 3, 3)}, "positive definite"),
        ({"stds": None, "covariances": torch.eye(3) + torch.ones(2, 3, 3).triu()}, "symmetric"),
    ],
)  # fmt: skip
def test_bad_mixtures_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**GOOD | change)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mixture().denoise(torch.zeros(4, 3), 1, 1), ValueError, r"\(B, 2\).*\(4, 3\)"),
        (lambda: mixture().denoise(torch.zeros(2), 1, 1), ValueError, r"\(B, 2\).*\(2,\)"),
        (lambda: mixture().denoise(torch.zeros(4, 2).long(), 1, 1), TypeError, "int64"),
        (lambda: mixture().denoise([[0.0, 0.0]], 1, 1), TypeError, "list"),
        (lambda: mixture().denoise(torch.zeros(4, 2), -1, 1), ValueError, "alpha.*-1"),
        (lambda: mixture().denoise(torch.zeros(4, 2), 0, 0), ValueError, "both 0"),
        (lambda: mixture().denoise(torch.zeros(4, 2), 1, math.nan), ValueError, "nan"),
        (lambda: mixture().denoise(torch.zeros(4, 2), 1, torch.ones(3)), ValueError, r"\(3,\)"),
        (lambda: mixture().quantile(torch.tensor([0.5])), ValueError, "one dimension.*2"),
        (lambda: line().quantile(torch.tensor([1.5])), ValueError, "0 to 1.*1.5"),
        (lambda: FiniteData(torch.zeros(0, 3)), ValueError, r"\(0, 3\)"),
        (lambda: FiniteData(torch.zeros(3)), ValueError, r"\(N, \*shape\).*\(3,\)"),
        (lambda: finite().denoise(torch.zeros(4, 3, 2), 1, 0), ValueError, "sigma must be pos"),
        (lambda: finite().denoise(torch.zeros(4, 6), 1, 1), ValueError, r"3, 2.*\(4, 6\)"),
        (lambda: GaussianField(torch.ones(4)), ValueError, r"\(H, W\).*\(4,\)"),
        (lambda: GaussianField(-torch.ones(4, 4)), ValueError, "negative.*-1"),
        (lambda: GaussianField(torch.rand(4, 4)), ValueError, "f and -f"),
        (lambda: GaussianField(torch.ones(4, 4), torch.ones(4)), ValueError, r"mean.*\(4,\)"),
        (lambda: field().denoise(torch.zeros(6, 5), 1, 1), ValueError, r"\(6, 5\)"),
        (lambda: GaussianField(torch.zeros(4, 4)).score(torch.zeros(1, 4, 4)), ValueError, "zero"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
