"""How the noise grows: alpha(t) and sigma(t) of x = alpha x0 + sigma eps, and steps through them.

A schedule is its log signal-to-noise ratio lambda(t) = log(alpha^2 / sigma^2), which falls as t
goes from 0 (data) to 1 (noise), and one of three ways to split a ratio into alpha and sigma:

    "vp"    alpha^2 = sigmoid(lambda), sigma^2 = sigmoid(-lambda)     variance preserving
    "ve"    alpha = 1, sigma = exp(-lambda / 2)                       variance exploding
    "flow"  alpha = sigmoid(lambda / 2), sigma = sigmoid(-lambda / 2) straight, alpha + sigma = 1

Schedules of T discrete steps keep lambda of steps 1 to T in a table; there t = i / T is step i.
All is float64, and finite at lambda = +inf (clean) and -inf (pure noise).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from labkit.checks import check_choice, check_count, check_positive

PROCESSES = ("vp", "ve", "flow")
SPACINGS = ("trailing", "leading", "linspace")
GAMMA_FLOOR = 1e-9  # alpha^2 and sigma^2 of Chen's schedules are cut off below, as in his code


@dataclass(frozen=True, eq=False)
class Schedule:
    """A schedule of noise; call it with t for (alpha, sigma), or let it cut itself into steps.

    Attributes
    ----------
    name : for legends
    logsnr : lambda(t) of a float64 tensor t (...) in [0, 1], falling; +-inf allowed
    process : "vp", "ve" or "flow"
    table : of a discrete schedule, lambda (T,) of steps 1 to T, else None
    """

    name: str
    logsnr: Callable[[Tensor], Tensor]
    process: str = "vp"
    table: Tensor | None = None

    def __post_init__(self) -> None:
        check_choice("process", self.process, PROCESSES)

    def __call__(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma), float64 and shaped like t, at t in [0, 1]."""
        t = torch.as_tensor(t, dtype=torch.float64)
        if not ((t >= 0) & (t <= 1)).all():
            raise ValueError(f"t must lie in [0, 1], not in [{t.min():.4g}, {t.max():.4g}]")
        return levels_of(self.logsnr(t), self.process)

    @property
    def alpha_bar(self) -> Tensor:
        """alpha^2 (T,) of steps 1 to T of a discrete schedule; ValueError for a continuous one."""
        if self.table is None:
            raise ValueError(f"schedule {self.name!r} is continuous: it has no table of alpha_bar")
        return levels_of(self.table, self.process)[0] ** 2

    def steps(
        self, n: int, spacing: str | None = None, *, offset: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Levels to sample with: alphas (n + 1,) and sigmas (n + 1,), noisiest first, then clean.

        A continuous schedule is cut into equal steps of t, from t = 1. Where lambda(0) is finite,
        as for `edm`, n levels go from t = 1 to 0, and the last step leads from there to (1, 0).

        Parameters
        ----------
        n : number of steps, at least 1, at most T of a discrete schedule
        spacing : of a discrete one, see `timesteps`; None for "trailing"
        offset : of a discrete one with "leading", see `timesteps`

        Raises
        ------
        ValueError
            for n out of range, an unknown spacing, or a spacing or offset of a continuous schedule.
        """
        if self.table is not None:
            chosen = timesteps(len(self.table), n, spacing or "trailing", offset=offset)
            logsnr = self.table[chosen]
        else:
            check_count(n=n)
            if spacing is not None or offset:
                raise ValueError(
                    f"schedule {self.name!r} is continuous and takes equal steps of t: spacing "
                    f"must be None and offset 0, not {spacing!r} and {offset}"
                )
            ends_clean = self.logsnr(torch.zeros(1, dtype=torch.float64)).isposinf().item()
            t = torch.linspace(1, 0, n + 1 if ends_clean else n, dtype=torch.float64)
            logsnr = self.logsnr(t[:n])
        clean = torch.full((1,), math.inf, dtype=torch.float64)
        return levels_of(torch.cat([logsnr, clean]), self.process)


def levels_of(logsnr: Tensor, process: str = "vp") -> tuple[Tensor, Tensor]:
    """(alpha, sigma) of lambda (...), +-inf allowed; "ve" has no lambda = -inf."""
    if process == "ve":
        return torch.ones_like(logsnr), (-logsnr / 2).exp()
    if process == "flow":
        return (logsnr / 2).sigmoid(), (-logsnr / 2).sigmoid()
    check_choice("process", process, PROCESSES)
    return logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt()


def timesteps(T: int, n: int, spacing: str = "trailing", *, offset: int = 0) -> Tensor:
    """Which of T discrete steps to sample with, (n,) int64 from 0 to T - 1, noisiest first.

    "trailing"  round(T - i T/n) - 1: starts at the last step, T - 1, as it should
    "leading"   i (T // n) + offset: starts short of it, the flaw of many released samplers
    "linspace"  round(linspace(0, T - 1, n)): both ends

    Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed", table 2. Stable
    Diffusion samples with "leading" and offset 1.

    Raises
    ------
    ValueError
        for n or T below 1, n > T, an unknown spacing, or an offset that leaves the range or is
        not of "leading".
    """
    check_count(T=T, n=n)
    if n > T:
        raise ValueError(f"n must be at most T = {T}, not {n}")
    check_choice("spacing", spacing, SPACINGS)
    if offset and spacing != "leading":
        raise ValueError(f"offset goes with spacing 'leading', not with {spacing!r}")
    i = torch.arange(n, dtype=torch.float64)
    if spacing == "trailing":
        return (T - i * (T / n)).round().long() - 1
    if spacing == "linspace":
        return torch.linspace(T - 1, 0, n, dtype=torch.float64).round().long()
    chosen = (i * (T // n)).long().flip(0) + offset
    if chosen[0] >= T or chosen[-1] < 0:
        raise ValueError(
            f"offset {offset} leads from {int(chosen[-1])} to {int(chosen[0])}, out of 0 to {T - 1}"
        )
    return chosen


# ------------------------------------------------------------------ discrete schedules


def from_betas(name: str, betas: Tensor) -> Schedule:
    """The schedule of T steps with alpha_bar_i = prod over j <= i of (1 - beta_j), betas (T,).

    Raises
    ------
    ValueError
        for betas that do not lie in (0, 1]; 1 is allowed for the last alone.
    """
    betas = torch.as_tensor(betas, dtype=torch.float64)
    if betas.ndim != 1 or not len(betas):
        raise ValueError(f"betas must be (T,) with T >= 1, not {tuple(betas.shape)}")
    if not ((betas > 0) & (betas <= 1)).all() or (betas[:-1] == 1).any():
        raise ValueError(
            f"betas must lie in (0, 1), the last in (0, 1]; they lie in [{betas.min():.4g}, "
            f"{betas.max():.4g}]"
        )
    log_alpha_bar = torch.log1p(-betas).cumsum(dim=0)  # no digits lost where alpha_bar is near 1
    return from_table(name, log_alpha_bar - (-torch.expm1(log_alpha_bar)).log())


def from_table(name: str, table: Tensor, process: str = "vp") -> Schedule:
    """The discrete schedule with lambda (T,) of steps 1 to T. Between steps the noisier one counts,
    so that t ~ U(0, 1) draws each with probability 1/T. At t = 0 the data are clean.
    """
    T = len(table)
    padded = torch.cat([torch.full((1,), math.inf, dtype=torch.float64), table])

    def logsnr(t: Tensor) -> Tensor:
        return padded[(t * T - 1e-9).ceil().long().clamp(0, T)]

    return Schedule(name, logsnr, process, table)


def linear_beta(beta_0: float = 1e-4, beta_T: float = 0.02, T: int = 1000) -> Schedule:
    """Steps beta_i from beta_0 to beta_T, equally spaced (Ho et al. 2020, section 4)."""
    check_count(T=T)
    return from_betas("linear beta", torch.linspace(beta_0, beta_T, T, dtype=torch.float64))


def stable_diffusion(beta_0: float = 0.00085, beta_T: float = 0.012, T: int = 1000) -> Schedule:
    """Steps sqrt(beta_i) equally spaced, "scaled linear" (Rombach et al. 2022). The last has a
    signal-to-noise ratio of 0.0047, and not 0.
    """
    check_count(T=T)
    roots = torch.linspace(beta_0**0.5, beta_T**0.5, T, dtype=torch.float64)
    return from_betas("Stable Diffusion", roots**2)


def cosine_beta(T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """The discrete cosine schedule, its betas cut off at max_beta (Nichol & Dhariwal 2021,
    equation 17).
    """
    check_count(T=T)
    t = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    alpha_bar = ((t + s) / (1 + s) * math.pi / 2).cos() ** 2
    return from_betas("cosine beta", (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))


# ------------------------------------------------------------------ continuous schedules


def cosine(shift: float = 0.0, scale: float = 1.0) -> Schedule:
    """With lambda = (2 / scale) log cot(pi t / 2) + shift; by default alpha = cos(pi t / 2).

    Nichol & Dhariwal 2021, without their offset; shifted: Hoogeboom et al. 2023; scaled: Hang et
    al. 2024.
    """
    return Schedule("cosine", cosine_density(shift, scale).logsnr)


def laplace(mu: float = 0.0, b: float = 0.5) -> Schedule:
    """With lambda = mu - b sgn(1/2 - t) log(1 - 2|t - 1/2|) (Hang et al. 2024, table 1)."""
    return Schedule("Laplace", laplace_density(mu, b).logsnr)


def cauchy(mu: float = 0.0, gamma: float = 1.0) -> Schedule:
    """With lambda = mu + gamma tan(pi/2 (1 - 2t)) (Hang et al. 2024, table 1)."""
    return Schedule("Cauchy", cauchy_density(mu, gamma).logsnr)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """With alpha = 1 and sigma^(1/rho) linear in t, from sigma_min to sigma_max (Karras et al.
    2022, equation 5).
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"sigma_min and sigma_max must be 0 < sigma_min < sigma_max, not {sigma_min} and "
            f"{sigma_max}"
        )
    check_positive(rho=rho)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def logsnr(t: Tensor) -> Tensor:
        return -2 * rho * (low + t * (high - low)).log()

    return Schedule("EDM", logsnr, "ve")


def flow() -> Schedule:
    """With alpha = 1 - t and sigma = t: flow matching, rectified flow, iterative deblending."""
    return Schedule("flow", lambda t: 2 * ((1 - t) / t).log(), "flow")


def linear_gamma() -> Schedule:
    """With alpha^2 = 1 - t, kept within [1e-9, 1] (Chen 2023, "simple linear")."""
    return _gamma("linear", lambda t: (1 - t, t))


def cosine_gamma(start: float = 0.0, end: float = 1.0, tau: float = 1.0) -> Schedule:
    """With alpha^2 = (c(t) - c(1)) / (c(0) - c(1)), kept within [1e-9, 1] (Chen 2023), where
    c(t) = cos(pi/2 (start + t (end - start)))^(2 tau).
    """
    check_positive(tau=tau)
    if not 0 <= start < end <= 1:
        raise ValueError(f"start and end must be 0 <= start < end <= 1, not {start} and {end}")

    def c(t: Tensor) -> Tensor:
        return (math.pi / 2 * (start + t * (end - start))).cos().clamp(min=0) ** (2 * tau)

    first, last = c(torch.tensor([0.0, 1.0], dtype=torch.float64))
    return _gamma("cosine", lambda t: (c(t) - last, first - c(t)))


def sigmoid_gamma(start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """With alpha^2 = (s(1) - s(t)) / (s(1) - s(0)), kept within [1e-9, 1] (Chen 2023, after Jabri
    et al. 2022), where s(t) = sigmoid((start + t (end - start)) / tau).
    """
    check_positive(tau=tau)
    if not start < end:
        raise ValueError(f"start must lie below end, not {start} and {end}")

    def s(t: Tensor) -> Tensor:
        return ((start + t * (end - start)) / tau).sigmoid()

    first, last = s(torch.tensor([0.0, 1.0], dtype=torch.float64))
    return _gamma("sigmoid", lambda t: (last - s(t), s(t) - first))


def _gamma(name: str, parts: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Schedule:
    """The schedule with alpha^2 : sigma^2 as the two parts, alpha^2 kept from GAMMA_FLOOR up."""

    def logsnr(t: Tensor) -> Tensor:
        signal, noise = parts(t)
        gamma = (signal / (signal + noise)).clamp(GAMMA_FLOOR, 1)
        rest = (noise / (signal + noise)).clamp(0, 1 - GAMMA_FLOOR)  # 1 - gamma, with its digits
        return gamma.log() - rest.log()

    return Schedule(name, logsnr)


# ------------------------------------------------------------------ schedules made of others


def zero_terminal(schedule: Schedule) -> Schedule:
    """The discrete schedule moved and stretched so that alpha_T is 0 and alpha_1 stays (Lin et al.
    2024, algorithm 1): alpha <- (alpha - alpha_T) alpha_1 / (alpha_1 - alpha_T).

    Predict "v" or "x0" with it; "eps" says nothing of the data at alpha = 0.

    Raises
    ------
    ValueError
        for a continuous schedule, one that is not "vp", or one of a single step.
    """
    if schedule.table is None or schedule.process != "vp" or len(schedule.table) < 2:
        raise ValueError(
            "zero_terminal takes a discrete variance-preserving schedule of two or more steps, "
            f"such as stable_diffusion(); {schedule.name!r} is not one"
        )
    alpha, _ = levels_of(schedule.table)
    rescaled = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    table = 2 * rescaled.log() - torch.log1p(-(rescaled**2))
    table[0] = schedule.table[0]
    return from_table(f"{schedule.name}, zero terminal SNR", table)


def shifted(schedule: Schedule, by: float) -> Schedule:
    """The schedule with lambda + by.

    Images of side s instead of s_0, with the same noise on what both show: by = 2 log(s_0 / s)
    (Hoogeboom et al. 2023). Data scaled by b, and x divided by its standard deviation once noise is
    added: by = 2 log b, for b scales the amplitude, and lambda is a ratio of powers (Chen 2023).

    Raises
    ------
    ValueError
        for a shift that is not finite.
    """
    if not math.isfinite(by):
        raise ValueError(f"by must be finite, not {by}")
    name = f"{schedule.name}, shifted by {by:.3g}"
    if schedule.table is not None:
        return from_table(name, schedule.table + by, schedule.process)
    return replace(schedule, name=name, logsnr=lambda t: schedule.logsnr(t) + by)


# ------------------------------------------------------------------ densities of lambda


@dataclass(frozen=True, eq=False)
class LogSNRDensity:
    """How often training meets a log signal-to-noise ratio lambda.

    A schedule with t ~ U(0, 1) and a density are the same thing: lambda(t) is the inverse of
    1 - cdf, and pdf = -dt/d lambda (Hang et al. 2024, section 3).

    Attributes
    ----------
    name : for legends
    pdf, cdf : of lambda (...), float64
    logsnr : lambda(t) of t (...) in [0, 1], falling
    process : the way in which alpha and sigma follow, "vp", "ve" or "flow"
    """

    name: str
    pdf: Callable[[Tensor], Tensor]
    cdf: Callable[[Tensor], Tensor]
    logsnr: Callable[[Tensor], Tensor]
    process: str = "vp"

    def __post_init__(self) -> None:
        check_choice("process", self.process, PROCESSES)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw n values of lambda (n,), float64, all finite."""
        t = torch.rand(n, generator=generator, dtype=torch.float64)
        return self.logsnr(t.clamp(min=2.0**-54))  # rand may be 0, where lambda is infinite


def cosine_density(shift: float = 0.0, scale: float = 1.0) -> LogSNRDensity:
    """Density s sech(s (lambda - shift) / 2) / (2 pi), s = scale: of `cosine`."""
    check_positive(scale=scale)

    def logsnr(t: Tensor) -> Tensor:
        cot = (math.pi / 2 * (1 - t)).sin().log() - (math.pi / 2 * t).sin().log()
        return 2 / scale * cot + shift

    return LogSNRDensity(
        "cosine",
        lambda x: scale / (2 * math.pi) / (scale * (x - shift) / 2).cosh(),
        lambda x: 2 / math.pi * (scale * (x - shift) / 2).exp().atan(),
        logsnr,
    )


def laplace_density(mu: float = 0.0, b: float = 0.5) -> LogSNRDensity:
    """Density exp(-|lambda - mu| / b) / (2 b): of `laplace`."""
    check_positive(b=b)

    def cdf(x: Tensor) -> Tensor:
        tail = (-(x - mu).abs() / b).exp() / 2
        return torch.where(x < mu, tail, 1 - tail)

    def logsnr(t: Tensor) -> Tensor:
        # 1 - 2|t - 1/2| is twice the nearer end's distance
        return mu - b * (0.5 - t).sign() * (2 * torch.minimum(t, 1 - t)).log()

    return LogSNRDensity("Laplace", lambda x: (-(x - mu).abs() / b).exp() / (2 * b), cdf, logsnr)


def cauchy_density(mu: float = 0.0, gamma: float = 1.0) -> LogSNRDensity:
    """Density gamma / (pi ((lambda - mu)^2 + gamma^2)): of `cauchy`."""
    check_positive(gamma=gamma)
    return LogSNRDensity(
        "Cauchy",
        lambda x: gamma / math.pi / ((x - mu) ** 2 + gamma**2),
        lambda x: 0.5 + ((x - mu) / gamma).atan() / math.pi,
        # tan(pi/2 (1 - 2t)) = cot(pi t)
        lambda t: mu + gamma * (math.pi * (0.5 - t)).sin() / (math.pi * t).sin(),
    )


def edm_density(mean: float = -1.2, std: float = 1.2) -> LogSNRDensity:
    """Where log sigma ~ N(mean, std^2) and alpha = 1, that is lambda ~ N(-2 mean, 4 std^2).

    Karras et al. 2022, table 1.
    """
    check_positive(std=std)

    def standard(x: Tensor) -> Tensor:
        return (x + 2 * mean) / (2 * std)

    return LogSNRDensity(
        "EDM",
        lambda x: (-(standard(x) ** 2) / 2).exp() / (2 * std * math.sqrt(2 * math.pi)),
        lambda x: 0.5 * torch.erfc(-standard(x) / math.sqrt(2)),
        lambda t: -2 * mean - 2 * std * torch.special.ndtri(t),
        "ve",
    )
