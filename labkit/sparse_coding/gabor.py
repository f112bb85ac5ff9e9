"""Two-dimensional Gabor fits to dictionary atoms and receptive fields.

Sources
-------
Ringach (2002), J. Neurophysiol. 88:455 -- the Gabor model, (n_x, n_y), circular variance.
Golub & Pereyra (1973), SIAM J. Numer. Anal. 10:413; Kaufman (1975), BIT 15:49 -- variable
projection: linear coefficients are eliminated from a separable least-squares problem.
Marquardt (1963), J. SIAM 11:431 -- damped Gauss-Newton steps.

Conventions
-----------
A patch of ``size`` x ``size`` pixels is flattened row by row. Pixel (row, column) has
x = column - (size - 1)/2 and y = row - (size - 1)/2, so y points *down*, as rows do, and
angles turn clockwise on a picture whose first row is drawn at the top. Lengths are in pixels
and spatial frequencies in cycles/pixel.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit.checks import check_count

# Columns of the non-linear parameter table p: x0, y0, theta, log sigma_x, log sigma_y, log f.
# The logarithms keep the three positive and put octaves, not pixels, on an equal footing.
_N_NONLINEAR = 6
_SIGMA_MIN = 0.5  # pixels; a narrower envelope would sit on a single pixel
_NYQUIST = 0.5  # cycles/pixel
_START_SIGMAS = (0.08, 0.14, 0.25)  # envelope widths of the starts, in patch widths
_SCREENING_ITERATIONS = 12  # given to every start; the best _FINALISTS of an atom go on
_FINALISTS = 2
_CHUNK_VALUES = 2**18  # starts x pixels handled at once: temporaries of 2 MB, 50 MB in all


@dataclass(frozen=True, eq=False)
class GaborFit:
    """Gabor parameters of K atoms; every field but ``size`` is a (K,) float64 tensor.

    Attributes
    ----------
    x0, y0 : centre, pixels from the patch centre (y downward).
    theta : direction of the carrier wave vector, radians in [0, pi).
    sigma_x, sigma_y : envelope widths along the wave vector and along the stripes, pixels.
    frequency : cycles/pixel.
    phase : carrier phase at the centre, radians in (-pi, pi].
    amplitude : >= 0, in units of the atom. For stripes near Nyquist along a pixel axis the
        sine or cosine component vanishes at the pixel centres, so amplitude and phase are
        then ill determined (their product with the carrier is not).
    r2 : 1 - SSE/SST, SST being the atom's energy about its own mean. The model has no offset,
        so an atom far from mean-free can have r2 < 0. Atoms without any variation (zero or
        constant) are not fitted: r2 = 0, amplitude = 0, other parameters meaningless.
    size : patch width, pixels.
    """

    x0: Tensor
    y0: Tensor
    theta: Tensor
    sigma_x: Tensor
    sigma_y: Tensor
    frequency: Tensor
    phase: Tensor
    amplitude: Tensor
    r2: Tensor
    size: int

    @property
    def n_x(self) -> Tensor:
        """Envelope width across the stripes in carrier periods, sigma_x f (Ringach 2002)."""
        return self.sigma_x * self.frequency

    @property
    def n_y(self) -> Tensor:
        """Envelope width along the stripes in carrier periods, sigma_y f (Ringach 2002)."""
        return self.sigma_y * self.frequency

    @property
    def orientation(self) -> Tensor:
        """Stripe orientation, degrees in [0, 180): 0 horizontal, 90 vertical."""
        return (torch.rad2deg(self.theta) + 90.0) % 180.0

    @property
    def bandwidth_octaves(self) -> Tensor:
        """Full width of the spectrum at half amplitude, octaves.

        The spectral lobe is a Gaussian of standard deviation 1/(2 pi sigma_x) about f, so it
        halves at f +- h/sigma_x with h = sqrt(2 ln 2)/(2 pi). Where n_x <= h the lobe reaches
        zero frequency above half height and the bandwidth is inf. Overlap with the lobe at -f
        is ignored, so values above about 2 octaves are nominal.
        """
        h = math.sqrt(2 * math.log(2)) / (2 * math.pi)
        ratio = (self.n_x + h) / (self.n_x - h)
        return torch.where(self.n_x > h, torch.log2(ratio), torch.inf)

    def patches(self) -> Tensor:
        """Fitted Gabors, (size*size, K): the layout of the atoms."""
        unit = gabor(
            self.x0, self.y0, self.theta, self.sigma_x, self.sigma_y,
            self.frequency, self.phase, self.size,
        )  # fmt: skip
        return (self.amplitude[:, None, None] * unit).flatten(1).T


def gabor(
    x0: Tensor,
    y0: Tensor,
    theta: Tensor,
    sigma_x: Tensor,
    sigma_y: Tensor,
    frequency: Tensor,
    phase: Tensor,
    size: int,
) -> Tensor:
    """Unit-amplitude Gabors at the pixel centres (Ringach 2002, eq. 1).

    exp(-x'^2/(2 sigma_x^2) - y'^2/(2 sigma_y^2)) cos(2 pi f x' + phase), with x' along the
    carrier wave vector and y' along the stripes, both measured from (x0, y0).

    Parameters
    ----------
    x0, y0, theta, sigma_x, sigma_y, frequency, phase : (K,), pixels, radians, cycles/pixel.
    size : patch width, pixels.

    Returns
    -------
    (K, size, size), indexed [atom, row, column].
    """
    u, v = _envelope_coordinates(x0, y0, theta, sigma_x, sigma_y, size)
    envelope = torch.exp(-0.5 * (u * u + v * v))
    carrier = torch.cos((2 * math.pi * frequency * sigma_x)[:, None] * u + phase[:, None])
    return (envelope * carrier).unflatten(1, (size, size))


def fit_gabors(atoms: Tensor, size: int, *, n_starts: int = 12, n_iter: int = 25) -> GaborFit:
    """Least-squares Gabor fit to every atom.

    Levenberg-Marquardt on the six non-linear parameters, the cosine and sine amplitudes being
    eliminated by variable projection. Bounds: f from half a cycle per patch to Nyquist, sigmas
    from 0.5 pixel to the patch width, centre inside the patch. Deterministic.

    Parameters
    ----------
    atoms : (size*size, K), one atom per column, row-major pixels; size >= 4.
    size : patch width, pixels.
    n_starts : starting points per atom (spectral peaks x three envelope widths).
    n_iter : final Levenberg-Marquardt iterations of the atom's best starts.

    Returns
    -------
    GaborFit in float64: for each atom the best local optimum found.
    """
    atoms = _checked_atoms(atoms, size)
    check_count(n_starts=n_starts, n_iter=n_iter)

    # Unit-energy rows make the fit independent of the atoms' scale; dividing by the largest
    # pixel first keeps the squares from over- or underflowing.
    peak = atoms.abs().amax(0)
    y = atoms / torch.where(peak > 0, peak, 1.0)
    norm = torch.linalg.vector_norm(y, dim=0)
    y = y / torch.where(norm > 0, norm, 1.0)
    sst = (y - y.mean(0)).square().sum(0)
    varied = sst > 1e-24  # rounding leaves a constant atom of unit energy with about 1e-32
    y = torch.where(varied, y, 0.0).T.contiguous()

    chunk = max(1, _CHUNK_VALUES // (n_starts * size * size))
    parts = [_fit_chunk(rows, size, n_starts, n_iter) for rows in y.split(chunk)]
    p, c, sse = (torch.cat(column) for column in zip(*parts, strict=True))

    # c_0 cos(psi) + c_1 sin(psi) = A cos(psi + phase). Bringing theta back into [0, pi) by an
    # odd number of half turns reverses x', hence the sign of the phase.
    half_turns = torch.floor(p[:, 2] / math.pi)
    phase = torch.atan2(-c[:, 1], c[:, 0])
    return GaborFit(
        x0=p[:, 0],
        y0=p[:, 1],
        theta=p[:, 2] - math.pi * half_turns,
        sigma_x=p[:, 3].exp(),
        sigma_y=p[:, 4].exp(),
        frequency=p[:, 5].exp(),
        phase=torch.where(half_turns % 2 == 0, phase, -phase),
        amplitude=peak * norm * torch.linalg.vector_norm(c, dim=1),
        r2=torch.where(varied, 1 - sse / torch.where(varied, sst, 1.0), 0.0),
        size=size,
    )


def orientation_tuning(
    atoms: Tensor, size: int, *, n_orientations: int = 36, n_frequencies: int = 24
) -> Tensor:
    """Phase-invariant grating responses against orientation, at each best spatial frequency.

    The response is the modulus of the inner products with a full-patch cosine and sine grating
    of unit amplitude. An atom's frequency is that of its largest response over all orientations
    and n_frequencies log-spaced frequencies from half a cycle per patch to Nyquist.

    Parameters
    ----------
    atoms : (size*size, K), one atom per column, row-major pixels.
    size : patch width, pixels.

    Returns
    -------
    (K, n_orientations) >= 0; column j is the stripe orientation 180 j / n_orientations degrees,
    in the convention of ``GaborFit.orientation``.
    """
    atoms = _checked_atoms(atoms, size)
    if n_orientations < 2 or n_frequencies < 1:
        raise ValueError("n_orientations must be >= 2 and n_frequencies >= 1")
    grid = _pixel_grid(size, atoms)[:2]
    frequencies = torch.logspace(
        math.log10(0.5 / size), math.log10(_NYQUIST), n_frequencies,
        dtype=atoms.dtype, device=atoms.device,
    )  # fmt: skip
    turns = torch.arange(n_orientations, dtype=atoms.dtype, device=atoms.device) / n_orientations
    theta = math.pi * (turns - 0.5)  # the wave vector is 90 degrees from the stripes
    direction = torch.stack([theta.cos(), theta.sin()], 1)  # (O, 2)
    phase = 2 * math.pi * frequencies[:, None, None] * (direction @ grid)  # (F, O, N)
    response = torch.hypot(phase.cos() @ atoms, phase.sin() @ atoms)  # (F, O, K)
    best = response.amax(1).argmax(0)
    return response.permute(2, 0, 1)[torch.arange(len(best), device=best.device), best]


def circular_variance(tuning: Tensor) -> Tensor:
    """1 - |sum_j r_j e^(2i theta_j)| / sum_j r_j (Ringach 2002): 0 sharp, 1 untuned.

    Parameters
    ----------
    tuning : (K, O) responses >= 0 at O equally spaced orientations over 180 degrees.

    Returns
    -------
    (K,) in [0, 1]; 1 where all responses are zero.
    """
    n = tuning.shape[1]
    angle = 2 * math.pi * torch.arange(n, dtype=tuning.dtype, device=tuning.device) / n
    resultant = torch.hypot(tuning @ angle.cos(), tuning @ angle.sin())
    total = tuning.sum(1)
    variance = 1 - resultant / torch.where(total > 0, total, 1.0)  # 1 where total is 0
    return variance.clamp_min(0)  # the rounding of a delta-like curve


def tuning_half_width(tuning: Tensor) -> Tensor:
    """Half-width at half height of the tuning peak, degrees, the mean of its two flanks.

    Parameters
    ----------
    tuning : (K, O) responses >= 0 at O equally spaced orientations over 180 degrees.

    Returns
    -------
    (K,); a flank that never falls to half height counts as 90 degrees.
    """
    n = tuning.shape[1]
    steps = torch.arange(n, device=tuning.device)
    peak = tuning.argmax(1, keepdim=True)
    widths = [_flank_width(tuning.gather(1, (peak + s * steps) % n)) for s in (1, -1)]
    return (180.0 / n) * (widths[0] + widths[1]) / 2


def _flank_width(flank: Tensor) -> Tensor:
    """Samples from the peak, flank[:, 0], to the first interpolated crossing of half height."""
    half = flank[:, :1] / 2
    below = flank < half
    j = below.to(torch.uint8).argmax(1, keepdim=True).clamp_min(1)  # first sample below half
    after, before = flank.gather(1, j), flank.gather(1, j - 1)
    crosses = below.any(1, keepdim=True)
    crossing = j - 1 + (before - half) / torch.where(crosses, before - after, 1.0)
    right_angle = flank.shape[1] / 2
    return torch.where(crosses, crossing, right_angle).squeeze(1).clamp_max(right_angle)


def _checked_atoms(atoms: Tensor, size: int) -> Tensor:
    """Atoms in float64, or ValueError."""
    atoms = torch.as_tensor(atoms).detach().to(torch.float64)
    if size < 4:  # a Gabor has eight parameters: 3 x 3 pixels would not test it
        raise ValueError(f"size must be >= 4, got {size}")
    if atoms.ndim != 2 or atoms.shape[0] != size * size or atoms.shape[1] == 0:
        raise ValueError(f"atoms must be ({size * size}, K >= 1), got {tuple(atoms.shape)}")
    bad = (~atoms.isfinite().all(0)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"atoms contain NaN or infinity in column {bad[0]} ({len(bad)} in all)")
    return atoms


def _pixel_grid(size: int, like: Tensor) -> Tensor:
    """Rows x, y and 1 at the pixel centres, (3, size*size)."""
    axis = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()])


def _envelope_coordinates(
    x0: Tensor, y0: Tensor, theta: Tensor, sigma_x: Tensor, sigma_y: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Coordinates u = x'/sigma_x and v = y'/sigma_y of the pixels; each (K, size*size)."""
    cos, sin = theta.cos(), theta.sin()
    grid = _pixel_grid(size, theta)
    u = torch.stack([cos, sin, -x0 * cos - y0 * sin], 1) / sigma_x[:, None] @ grid
    v = torch.stack([-sin, cos, x0 * sin - y0 * cos], 1) / sigma_y[:, None] @ grid
    return u, v


def _bounds(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest p, each (6,); theta is an angle and needs no bound."""
    edge = size / 2
    sigma = (math.log(_SIGMA_MIN), math.log(size))
    frequency = (math.log(0.5 / size), math.log(_NYQUIST))
    low = [-edge, -edge, -math.inf, sigma[0], sigma[0], frequency[0]]
    high = [edge, edge, math.inf, sigma[1], sigma[1], frequency[1]]
    return like.new_tensor(low), like.new_tensor(high)


def _fit_chunk(y: Tensor, size: int, n_starts: int, n_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    """Best fit to each row of y (K, N): p (K, 6), coefficients c (K, 2) and SSE (K,)."""
    p = _starts(y, size, n_starts)
    p, _, sse = _descend(y, p, size, _SCREENING_ITERATIONS)
    p = _pick(p, sse.topk(min(_FINALISTS, n_starts), dim=1, largest=False).indices)
    p, c, sse = _descend(y, p, size, n_iter)
    best = sse.argmin(1, keepdim=True)
    return _pick(p, best).squeeze(1), _pick(c, best).squeeze(1), sse.gather(1, best).squeeze(1)


def _pick(table: Tensor, index: Tensor) -> Tensor:
    """Rows index (K, M) of each atom's table (K, S, P), giving (K, M, P)."""
    return table.gather(1, index[:, :, None].expand(-1, -1, table.shape[2]))


def _starts(y: Tensor, size: int, n_starts: int) -> Tensor:
    """Starting points (K, n_starts, 6): carriers at the peaks of each atom's spectrum.

    For every carrier and every width sigma the envelope is put where the atom, demodulated by
    the carrier and smoothed by that envelope, has the largest modulus -- where it best matches
    a complex Gabor. (The centroid of the energy would fall between two separate lobes.)
    """
    grid = _pixel_grid(size, y)[:2]
    distance2 = (grid[:, :, None] - grid[:, None]).square().sum(0)
    sigmas = [max(width * size, _SIGMA_MIN) for width in _START_SIGMAS]
    windows = [torch.exp(-distance2 / (2 * sigma**2)) for sigma in sigmas]
    windows = [window / torch.linalg.vector_norm(window, dim=0) for window in windows]

    padded = 4 * size  # samples the spectrum at quarters of a cycle per patch
    power = torch.fft.rfft2(y.unflatten(1, (size, size)), s=(padded, padded)).abs().square()
    fy = torch.fft.fftfreq(padded, dtype=y.dtype, device=y.device)
    fx = torch.fft.rfftfreq(padded, dtype=y.dtype, device=y.device)
    k = torch.cartesian_prod(fy, fx).flip(1)  # wave vectors (kx, ky), in the order of power
    f = torch.linalg.vector_norm(k, dim=1)
    power = power.flatten(1) * ((f >= 0.5 / size) & (f <= _NYQUIST))

    starts = []
    while len(starts) < n_starts:
        peak = power.argmax(1)
        carrier = k[peak]
        psi = 2 * math.pi * (carrier @ grid)
        theta = torch.atan2(carrier[:, 1], carrier[:, 0])
        for sigma, window in zip(sigmas, windows, strict=True):
            match = torch.hypot((y * psi.cos()) @ window, (y * psi.sin()) @ window)
            x0, y0 = grid[:, match.argmax(1)]
            log_sigma = torch.full_like(theta, math.log(sigma))
            starts.append(torch.stack([x0, y0, theta, log_sigma, log_sigma, f[peak].log()], 1))
        # The next carrier must lie a cycle per patch away from this one and its mirror image.
        away = torch.minimum(torch.cdist(carrier, k), torch.cdist(-carrier, k)) > 1 / size
        power = power * away
    # Clamping also turns the f = 0 of an exhausted (all-zero) spectrum into a valid start.
    return torch.stack(starts[:n_starts], 1).clamp(*_bounds(size, y))


def _descend(y: Tensor, p: Tensor, size: int, n_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    """Projected Levenberg-Marquardt from every start p (K, S, 6) of atoms y (K, N).

    Returns p (K, S, 6), coefficients (K, S, 2) and SSE (K, S).
    """
    shape = p.shape[:2]
    y = y.repeat_interleave(shape[1], dim=0)
    p = p.flatten(0, 1)
    low, high = _bounds(size, p)
    sse, c, hessian, descent = _normal_equations(y, p, size)
    damping = torch.full_like(sse, 1e-2)
    for _ in range(n_iter):
        # A parameter on a bound that the descent pushes outward is held during this step;
        # otherwise the others would move as if it could still give way.
        held = ((p <= low) & (descent < 0)) | ((p >= high) & (descent > 0))
        free = (~held).to(p.dtype)
        matrix = hessian * free[:, :, None] * free[:, None, :]
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        matrix = matrix + torch.diag_embed(damping[:, None] * diagonal + 1e-12 + (1 - free))
        # solve_ex does not raise on a singular matrix: the non-finite step loses below.
        step = torch.linalg.solve_ex(matrix, descent * free).result
        trial = torch.clamp(p + step, low, high)
        new_sse, new_c, new_hessian, new_descent = _normal_equations(y, trial, size)
        better = new_sse < sse
        p = torch.where(better[:, None], trial, p)
        c = torch.where(better[:, None], new_c, c)
        descent = torch.where(better[:, None], new_descent, descent)
        hessian = torch.where(better[:, None, None], new_hessian, hessian)
        sse = torch.where(better, new_sse, sse)
        damping = torch.where(better, damping / 5, damping * 4).clamp(1e-9, 1e9)
    return p.unflatten(0, shape), c.unflatten(0, shape), sse.unflatten(0, shape)


def _normal_equations(y: Tensor, p: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Variable projection at p (B, 6) for targets y (B, N).

    With basis B(p) = E(p) [cos psi, sin psi] and c = argmin |y - B c|^2, the projected Jacobian
    is (Kaufman 1975) J = (I - B B^+) dB c, so that

        J'J = dB c' dB c - (dB c' B) (B'B)^-1 (B' dB c),    J'r = dB c' r  as r is normal to B.

    Returns SSE (B,), c (B, 2), J'J (B, 6, 6) and the descent direction J'r (B, 6).
    """
    x0, y0, theta = p[:, :3].unbind(1)
    sigma_x, sigma_y, f = p[:, 3:, None].exp().unbind(1)  # (B, 1) each
    u, v = _envelope_coordinates(x0, y0, theta, sigma_x[:, 0], sigma_y[:, 0], size)
    kappa = 2 * math.pi * f * sigma_x
    psi = kappa * u
    envelope = torch.exp(-0.5 * (u * u + v * v))

    # Six rows for d(model)/dp and two for the basis, so that one product has every Gram matrix.
    rows = y.new_empty(len(p), _N_NONLINEAR + 2, y.shape[1])
    gradient, basis = rows[:, :_N_NONLINEAR], rows[:, _N_NONLINEAR:]
    torch.mul(envelope, psi.cos(), out=basis[:, 0])
    torch.mul(envelope, psi.sin(), out=basis[:, 1])
    gram = basis @ basis.mT
    # Near Nyquist cosine and sine can coincide on the pixel grid; the tiny ridge decides then.
    ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).sum(1)
    gram = gram + torch.diag_embed(ridge[:, None].expand(-1, 2))
    c = torch.linalg.solve_ex(gram, (basis @ y[:, :, None]).squeeze(2)).result
    a, b = c[:, :1], c[:, 1:]
    model = a * basis[:, 0] + b * basis[:, 1]
    residual = y - model

    d_psi = b * basis[:, 0] - a * basis[:, 1]
    u_model = u * model
    d_u = kappa * d_psi - u_model
    minus_d_v = v * model
    cos, sin = theta[:, None].cos(), theta[:, None].sin()
    gradient[:, 0] = (-cos / sigma_x) * d_u - (sin / sigma_y) * minus_d_v
    gradient[:, 1] = (-sin / sigma_x) * d_u + (cos / sigma_y) * minus_d_v
    gradient[:, 2] = (sigma_y / sigma_x) * v * d_u + (sigma_x / sigma_y) * u * minus_d_v
    torch.mul(u, u_model, out=gradient[:, 3])
    torch.mul(v, minus_d_v, out=gradient[:, 4])
    torch.mul(psi, d_psi, out=gradient[:, 5])

    products = gradient @ rows.mT  # (B, 6, 8)
    cross = products[:, :, _N_NONLINEAR:]
    through_basis = cross @ torch.linalg.solve_ex(gram, cross.mT).result
    descent = (gradient @ residual[:, :, None]).squeeze(2)
    return residual.square().sum(1), c, products[:, :, :_N_NONLINEAR] - through_basis, descent
