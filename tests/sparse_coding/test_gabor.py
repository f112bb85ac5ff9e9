import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from labkit.sparse_coding.gabor import (
    circular_variance,
    fit_gabors,
    gabor,
    orientation_tuning,
    tuning_half_width,
)

NAMES = ("x0", "y0", "theta", "sigma_x", "sigma_y", "frequency", "phase")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _uniform(generator, k, low, high):
    return low + (high - low) * torch.rand(k, generator=generator, dtype=torch.float64)


def _random_gabors(size, k, seed):
    """Parameters whose orientation and frequency the pixels determine well, and the atoms."""
    g = torch.Generator().manual_seed(seed)
    frequency = _uniform(g, k, 1.5 / size, 0.35)
    truth = {
        "x0": _uniform(g, k, -size / 5, size / 5),
        "y0": _uniform(g, k, -size / 5, size / 5),
        "theta": _uniform(g, k, 0, math.pi),
        "sigma_x": _uniform(g, k, 0.35, 0.7) / frequency,  # n_x: at least one full stripe pair
        "sigma_y": _uniform(g, k, 0.12, 0.25) * size,
        "frequency": frequency,
        "phase": _uniform(g, k, -math.pi, math.pi),
    }
    return truth, gabor(**truth, size=size).flatten(1).T


def _noisy(atoms, fraction, seed):
    """Add white noise that has this fraction of every atom's energy, on average."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(atoms.shape, generator=g, dtype=atoms.dtype)
    return atoms + noise * (fraction * atoms.square().mean(0)).sqrt()


def _white(size, k, seed):
    g = torch.Generator().manual_seed(seed)
    atoms = torch.randn(size * size, k, generator=g, dtype=torch.float64)
    return atoms - atoms.mean(0)


def _angle_between(a, b, period):
    return ((a - b + period / 2) % period - period / 2).abs()


def test_gabor_at_one_pixel_is_ringachs_formula():
    # Row 1, column 5 of an 8-pixel patch lies at x = 1.5, y = -2.5.
    x0, y0, theta, sx, sy, f, phase = 0.3, -1.1, 0.7, 1.9, 2.6, 0.21, -0.4
    dx, dy = 1.5 - x0, -2.5 - y0
    along = dx * math.cos(theta) + dy * math.sin(theta)
    across = -dx * math.sin(theta) + dy * math.cos(theta)
    expected = math.exp(-(along**2) / (2 * sx**2) - across**2 / (2 * sy**2)) * math.cos(
        2 * math.pi * f * along + phase
    )
    arguments = torch.tensor([x0, y0, theta, sx, sy, f, phase], dtype=torch.float64)[:, None]
    patch = gabor(*arguments, size=8)
    assert patch.shape == (1, 8, 8)
    assert patch[0, 1, 5].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [8, 12, 16])
def test_recovers_noise_free_gabors(size):
    truth, atoms = _random_gabors(size, 60, seed=size)
    fit = fit_gabors(atoms * 2.5, size)
    # The pixel mean of these atoms is not exactly zero, so SST < energy; r2 is still 1.
    assert (fit.r2 > 1 - 1e-6).double().mean() >= 0.97
    good = fit.r2 > 1 - 1e-6
    for name in ("x0", "y0", "sigma_x", "sigma_y", "frequency"):
        torch.testing.assert_close(
            getattr(fit, name)[good], truth[name][good], atol=1e-2, rtol=1e-2
        )
    assert _angle_between(fit.theta, truth["theta"], math.pi)[good].max() < 1e-2
    torch.testing.assert_close(
        fit.amplitude[good], torch.full_like(fit.amplitude[good], 2.5), atol=0.02, rtol=0
    )
    torch.testing.assert_close(fit.patches()[:, good], 2.5 * atoms[:, good], atol=5e-3, rtol=0)


@pytest.mark.parametrize("size", [8, 12, 16])
def test_recovers_noisy_gabors(size):
    truth, clean = _random_gabors(size, 60, seed=100 + size)
    atoms = _noisy(clean, 0.05, seed=size)
    fit = fit_gabors(atoms, size)
    # A least-squares fit must explain the noisy atom at least as well as the truth does.
    sse_truth = (atoms - clean).square().sum(0)
    sse_fit = (atoms - fit.patches()).square().sum(0)
    assert (sse_fit <= sse_truth).double().mean() >= 0.97
    assert fit.r2.median() > 0.94
    octaves = torch.log2(fit.frequency / truth["frequency"]).abs()
    degrees = torch.rad2deg(_angle_between(fit.theta, truth["theta"], math.pi))
    assert octaves.median() < 0.05 and (octaves < 0.25).double().mean() >= 0.95
    assert degrees.median() < 2 and (degrees < 8).double().mean() >= 0.95


@pytest.mark.parametrize(("noise", "n_iter"), [(0.05, 25), (10.0, 150)])
def test_fit_is_a_stationary_point_of_the_error(noise, n_iter):
    """By autograd through gabor(): no parameter can move within its bounds and gain.

    With ten times more noise than signal many fits lie on a bound; there it may point outward.
    """
    size = 8
    atoms = _noisy(_random_gabors(size, 60, seed=3)[1], noise, seed=4)
    fit = fit_gabors(atoms, size, n_iter=n_iter)
    values = {n: getattr(fit, n).clone().requires_grad_() for n in (*NAMES, "amplitude")}
    unit = gabor(**{n: values[n] for n in NAMES}, size=size)
    sse = (atoms - values["amplitude"] * unit.flatten(1).T).square().sum()
    gradients = torch.autograd.grad(sse, list(values.values()))
    bounds = {"x0": (-size / 2, size / 2), "y0": (-size / 2, size / 2), "sigma_x": (0.5, size),
              "sigma_y": (0.5, size), "frequency": (0.5 / size, 0.5)}  # fmt: skip
    lengths = ("sigma_x", "sigma_y", "frequency", "amplitude")
    slope, on_bound = torch.zeros_like(fit.r2), torch.zeros_like(fit.r2, dtype=torch.bool)
    for name, gradient in zip(values, gradients, strict=True):
        value = getattr(fit, name)
        low, high = bounds.get(name, (-math.inf, math.inf))
        at_low, at_high = value <= low + 1e-9, value >= high - 1e-9
        outward = (at_low & (gradient > 0)) | (at_high & (gradient < 0))
        relative = gradient * value if name in lengths else gradient
        slope = torch.maximum(slope, torch.where(outward, 0.0, relative.abs()))
        on_bound |= at_low | at_high
    if noise > 1:
        assert on_bound.double().mean() > 0.2  # the bounds are put to the test
    slope = slope / atoms.square().sum(0)
    assert slope.median() < 1e-6
    assert (slope < 1e-3).double().mean() >= 0.8


def test_parameters_stay_within_their_bounds():
    size = 8
    fit = fit_gabors(_white(size, 100, seed=5), size)
    e = 1e-9
    assert fit.frequency.min() >= 0.5 / size - e and fit.frequency.max() <= 0.5 + e
    for sigma in (fit.sigma_x, fit.sigma_y):
        assert sigma.min() >= 0.5 - e and sigma.max() <= size + e
    assert max(fit.x0.abs().max(), fit.y0.abs().max()) <= size / 2 + e
    assert fit.theta.min() >= 0 and fit.theta.max() < math.pi
    assert fit.orientation.min() >= 0 and fit.orientation.max() < 180
    assert fit.phase.abs().max() <= math.pi + e
    assert fit.amplitude.min() >= 0


def _scipy_r2(atom, size, rng, n_starts=6):
    """Independent fit of all eight parameters: NumPy model, trust-region solver, random starts."""
    row, column = np.divmod(np.arange(size * size), size)
    x, y = column - (size - 1) / 2, row - (size - 1) / 2
    a = atom / np.linalg.norm(atom)

    def model(q):
        x0, y0, th, sx, sy, f, c, s = q
        xr = (x - x0) * np.cos(th) + (y - y0) * np.sin(th)
        yr = (y - y0) * np.cos(th) - (x - x0) * np.sin(th)
        env = np.exp(-(xr**2) / (2 * sx**2) - yr**2 / (2 * sy**2))
        return env * (c * np.cos(2 * np.pi * f * xr) + s * np.sin(2 * np.pi * f * xr))

    low = np.array([-size / 2, -size / 2, -np.inf, 0.5, 0.5, 0.5 / size, -np.inf, -np.inf])
    high = np.array([size / 2, size / 2, np.inf, size, size, 0.5, np.inf, np.inf])
    best = np.inf
    for _ in range(n_starts):
        start = [
            *rng.uniform(-size / 3, size / 3, 2), rng.uniform(0, np.pi),
            *rng.uniform(0.8, size / 3, 2), rng.uniform(0.7 / size, 0.45), *rng.normal(0, 0.3, 2),
        ]  # fmt: skip
        best = min(
            best,
            2 * least_squares(lambda q: model(q) - a, start, bounds=(low, high), max_nfev=60).cost,
        )
    return 1 - best / np.sum((a - a.mean()) ** 2)


def test_no_worse_than_scipy_multi_start():
    size = 8
    _, one = _random_gabors(size, 20, seed=11)
    _, two = _random_gabors(size, 20, seed=12)
    # Half single Gabors, half two overlaid ones that no single Gabor explains; all very noisy,
    # so that there are rival optima to get caught in.
    mixed = torch.cat([one[:, :10], one[:, 10:] + two[:, 10:]], 1)
    atoms = _noisy(mixed, 0.6, seed=13)
    atoms = atoms - atoms.mean(0)
    ours = fit_gabors(atoms, size).r2.numpy()
    rng = np.random.default_rng(14)
    theirs = np.array([_scipy_r2(atom, size, rng) for atom in atoms.T.numpy()])
    assert theirs.min() > 0.3  # the reference itself found something
    assert np.mean(theirs - ours <= 0.005) >= 0.95
    assert np.median(theirs - ours) < 1e-6


def test_white_noise_is_rarely_gabor_like():
    size = 8
    r2 = fit_gabors(_white(size, 192, seed=21), size).r2
    assert (r2 >= 0.5).double().mean() <= 0.10
    assert 0.15 < r2.median() < 0.4  # six shape parameters do fit some noise


def test_r2_is_about_the_atoms_mean_and_agrees_with_patches():
    size = 8
    atoms = _noisy(_random_gabors(size, 10, seed=31)[1], 0.1, seed=32)
    atoms[:, 5:] += 0.3
    fit = fit_gabors(atoms, size)
    sse = (atoms - fit.patches()).square().sum(0)
    sst = (atoms - atoms.mean(0)).square().sum(0)
    torch.testing.assert_close(fit.r2, 1 - sse / sst, atol=1e-9, rtol=0)
    assert (fit.r2[5:] < fit_gabors(atoms[:, 5:] - 0.3, size).r2).all()  # no offset in the model


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e200])
def test_atoms_without_variation_have_r2_zero(value):
    size = 8
    atoms = _random_gabors(size, 3, seed=41)[1]
    alone = fit_gabors(atoms, size)
    atoms[:, 1] = value
    fit = fit_gabors(atoms, size)
    assert fit.r2[1] == 0 and fit.amplitude[1] == 0
    assert fit.patches()[:, 1].abs().max() == 0
    assert fit.frequency[1] >= 0.5 / size - 1e-9  # meaningless, but within its bounds
    for field in dataclasses.fields(fit):
        assert torch.as_tensor(getattr(fit, field.name)).isfinite().all(), field.name
    torch.testing.assert_close(fit.r2[[0, 2]], alone.r2[[0, 2]], atol=1e-6, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("function", [fit_gabors, orientation_tuning])
def test_non_finite_atoms_name_the_column(function, bad):
    atoms = _white(8, 5, seed=51)
    atoms[10, 3] = bad
    with pytest.raises(ValueError, match="column 3"):
        function(atoms, 8)


@pytest.mark.parametrize("shape", [(63, 5), (64,), (8, 8, 5), (64, 0)])
@pytest.mark.parametrize("function", [fit_gabors, orientation_tuning])
def test_wrong_shapes_raise(function, shape):
    with pytest.raises(ValueError, match="atoms must be"):
        function(torch.ones(shape), 8)


def test_settings_are_checked():
    atoms = _white(8, 2, seed=52)
    with pytest.raises(ValueError, match="size"):
        fit_gabors(torch.ones(9, 2), 3)
    with pytest.raises(ValueError, match="n_starts"):
        fit_gabors(atoms, 8, n_starts=0)
    with pytest.raises(ValueError, match="n_orientations"):
        orientation_tuning(atoms, 8, n_orientations=1)


@pytest.mark.parametrize("scale", [-1.0, 3.0, -1e-200, 1e200])
def test_scale_and_sign_only_change_amplitude_and_phase(scale):
    size = 12
    atoms = _noisy(_random_gabors(size, 20, seed=61)[1], 0.1, seed=62)
    one, other = fit_gabors(atoms, size), fit_gabors(scale * atoms, size)
    for name in ("x0", "y0", "sigma_x", "sigma_y", "frequency", "r2"):
        torch.testing.assert_close(getattr(other, name), getattr(one, name), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.amplitude / abs(scale), one.amplitude, atol=1e-5, rtol=1e-5)
    turn = math.pi if scale < 0 else 0.0
    assert _angle_between(other.phase, one.phase + turn, 2 * math.pi).max() < 1e-4
    torch.testing.assert_close(other.patches() / scale, one.patches(), atol=1e-5, rtol=0)


def test_a_quarter_turn_of_the_picture_turns_the_fit():
    size = 12
    atoms = _random_gabors(size, 20, seed=71)[1]
    turned = torch.rot90(atoms.T.unflatten(1, (size, size)), dims=(1, 2)).flatten(1).T
    one, other = fit_gabors(atoms, size), fit_gabors(turned, size)
    good = (one.r2 > 0.999) & (other.r2 > 0.999)
    assert good.sum() >= 18
    assert _angle_between(other.orientation, one.orientation + 90, 180)[good].max() < 1
    # rot90 turns counter-clockwise: what was at the right, (x, y), goes to the top, (y, -x).
    torch.testing.assert_close(other.x0[good], one.y0[good], atol=0.05, rtol=0)
    torch.testing.assert_close(other.y0[good], -one.x0[good], atol=0.05, rtol=0)


def test_fits_do_not_depend_on_the_other_atoms():
    size = 8
    atoms = _noisy(_random_gabors(size, 9, seed=81)[1], 0.1, seed=82)
    together = fit_gabors(atoms, size)
    alone = torch.cat([fit_gabors(column[:, None], size).r2 for column in atoms.T])
    torch.testing.assert_close(together.r2, alone, atol=1e-5, rtol=0)


def test_more_starts_than_the_spectrum_has_peaks():
    size = 4
    fit = fit_gabors(_white(size, 5, seed=85), size, n_starts=30)
    assert fit.r2.isfinite().all() and fit.r2.min() > 0.3
    assert fit.frequency.min() >= 0.5 / size - 1e-9


def test_orientation_convention_and_shape_numbers():
    # Stripes drawn by hand: columns alternate (vertical stripes), rows alternate, and a carrier
    # along the down-right diagonal, whose stripes run up-right: 135 degrees with y down.
    size = 16
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * 3.0**2))
    along = torch.stack([x, y, (x + y) / math.sqrt(2)])
    atoms = (envelope * torch.cos(2 * math.pi * 0.2 * along)).flatten(1).T
    fit = fit_gabors(atoms, size)
    expected = torch.tensor([90.0, 0.0, 135.0], dtype=torch.float64)
    assert _angle_between(fit.orientation, expected, 180).max() < 0.1
    torch.testing.assert_close(fit.n_x, torch.full_like(fit.n_x, 0.6), atol=1e-3, rtol=0)
    torch.testing.assert_close(fit.n_y, torch.full_like(fit.n_y, 0.6), atol=1e-3, rtol=0)
    peaks = orientation_tuning(atoms, size, n_orientations=36).argmax(1) * 5.0
    assert _angle_between(peaks, expected, 180).max() == 0


def test_bandwidth_agrees_with_the_numerical_spectrum():
    n = 4096
    t = torch.arange(n, dtype=torch.float64) - n / 2
    sigma, f = 20.0, 0.05
    profile = torch.exp(-(t**2) / (2 * sigma**2)) * torch.cos(2 * math.pi * f * t)
    spectrum = torch.fft.rfft(profile).abs()
    above = (spectrum >= spectrum.max() / 2).nonzero().flatten()
    measured = math.log2(above[-1].item() / above[0].item())
    fit = fit_gabors(_random_gabors(8, 2, seed=91)[1], 8)
    shape = torch.tensor([sigma, 0.1], dtype=torch.float64)
    fit = dataclasses.replace(fit, sigma_x=shape, frequency=torch.full_like(shape, f))
    assert fit.bandwidth_octaves[0].item() == pytest.approx(measured, rel=0.03)
    assert fit.bandwidth_octaves[1] == math.inf  # n_x = 0.005 is a low-pass profile


def test_tuning_peaks_at_the_gabors_orientation():
    size = 12
    truth, atoms = _random_gabors(size, 40, seed=101)
    tuning = orientation_tuning(atoms, size, n_orientations=60)
    assert tuning.shape == (40, 60)
    peak = tuning.argmax(1) * 3.0
    stripes = torch.rad2deg(truth["theta"]) + 90
    error = _angle_between(peak, stripes, 180)
    assert error.median() <= 3 and (error <= 9).double().mean() >= 0.9


def test_tuning_is_phase_invariant_and_linear():
    size = 16
    k = 8
    column = torch.ones(k, dtype=torch.float64)
    phase = torch.arange(k, dtype=torch.float64) * 2 * math.pi / k
    atoms = gabor(0 * column, 0 * column, 0.4 * column, 2.5 * column, 2.5 * column,
                  0.22 * column, phase, size).flatten(1).T  # fmt: skip
    tuning = orientation_tuning(atoms, size)
    torch.testing.assert_close(tuning, tuning[:1].expand(k, -1), atol=0.02 * tuning.max(), rtol=0)
    torch.testing.assert_close(orientation_tuning(-4 * atoms, size), 4 * tuning)


def test_circular_variance_of_known_curves():
    angle = torch.arange(36, dtype=torch.float64) * math.pi / 36
    curves = torch.stack(
        [torch.ones(36), torch.eye(36)[7], 1 + torch.cos(2 * (angle - 1.0)), torch.zeros(36)]
    ).double()
    expected = torch.tensor([1.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(circular_variance(curves), expected, atol=1e-6, rtol=0)


def test_circular_variance_separates_blob_from_elongated_gabor():
    size = 16
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    r2 = axis[:, None] ** 2 + axis**2
    ring = torch.exp(-r2 / (2 * 1.5**2)) / 1.5**2 - torch.exp(-r2 / (2 * 2.5**2)) / 2.5**2
    one = torch.ones(1, dtype=torch.float64)
    stripes = gabor(0 * one, 0 * one, 0.5 * one, 2 * one, 4 * one, 0.3 * one, 0 * one, size)[0]
    atoms = torch.stack([ring, stripes, 0 * ring]).flatten(1).T
    variance = circular_variance(orientation_tuning(atoms, size))
    assert variance[0] > 0.95
    assert variance[1] < 0.1
    assert variance[2] == 1


def test_half_width_of_known_curves():
    angle = torch.arange(36, dtype=torch.float64) * math.pi / 36
    curves = torch.stack(
        [
            1 + torch.cos(2 * (angle - 5 * math.pi / 36)),  # halves 45 degrees from its peak
            (1 - (torch.arange(36) - 20).abs() / 4).clamp_min(0),  # triangle: 2 samples of 5
            torch.ones(36),
            torch.zeros(36),
        ]
    ).double()
    expected = torch.tensor([45.0, 10.0, 90.0, 90.0], dtype=torch.float64)
    torch.testing.assert_close(tuning_half_width(curves), expected, atol=1e-6, rtol=0)


def test_half_width_of_a_gabor_matches_its_transform():
    # |Fourier transform| near the lobe: exp(-2 pi^2 (sx^2 (k_x - f)^2 + sy^2 k_y^2)), whose
    # half-height angle at |k| = f is found here on a fine grid.
    size, sx, sy, f = 16, 2.2, 2.6, 0.25
    delta = torch.linspace(0, math.pi / 2, 9001, dtype=torch.float64)
    exponent = sx**2 * (f * delta.cos() - f) ** 2 + sy**2 * (f * delta.sin()) ** 2
    lobe = torch.exp(-2 * math.pi**2 * exponent)
    expected = torch.rad2deg(delta[(lobe < 0.5).to(torch.uint8).argmax()])
    one = torch.ones(1, dtype=torch.float64)
    atom = gabor(0 * one, 0 * one, 0 * one, sx * one, sy * one, f * one, 0.3 * one, size)
    tuning = orientation_tuning(atom.flatten(1).T, size, n_orientations=90)
    assert tuning_half_width(tuning).item() == pytest.approx(expected.item(), abs=1.0)
