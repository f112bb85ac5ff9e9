"""The inner ear: sound in, spikes of bushy cells out.

The model behind the Heidelberg spiking datasets (Cramer, Stradmann, Schemmel & Zenke 2022,
doi:10.1109/TNNLS.2020.3044364) and its constants, written anew from the equations:

- basilar membrane: a travelling wave in shallow water, linear, in closed form (Sieroka, Dosch &
  Rupp 2006, doi:10.1121/1.2204438)
- inner hair cell: three pools of transmitter (Meddis 1986, doi:10.1121/1.393460; 1988)
- auditory nerve: 40 fibres per hair cell, Poisson spikes with a dead time
- bushy cell of the cochlear nucleus: a leaky integrate-and-fire neuron that sums its 40 fibres

What differs from the published code: every formula keeps the sign convention exp(+iωt), so the
membrane answers after the sound and the base before the apex; the fibres of a hair cell, which are
alike, are drawn as one pool, which has the same distribution as drawing each by itself; and all
chance comes from a generator of the caller.

Arrays have time first: (samples, channels). Channel 0 is the base, which hears the highest tones.
"""

from functools import lru_cache
from threading import Lock

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from scipy import fft, special
from scipy.interpolate import CubicSpline

from labkit.jit import jit

CHANNELS = 700
LENGTH = 3.5  # of the membrane, cm
FIBRES = 40  # per hair cell

# Basilar membrane, in cm, g and s: stiffness S(c) = S0 exp(-αc) - a, resistance R(c) = R0
# exp(-αc/2), mass m per area; density ρ of the fluid, height h of the canal.
S0, A_STIFF, ALPHA, MASS, RHO, HEIGHT = 1e9, 3500.0, 3.0, 0.05, 1.0, 0.1
R0 = 0.15 * np.sqrt(S0 * MASS)

# Hair cell: permeability g (s + A) / (s + A + B), rates in 1/s; h turns cleft contents into spikes.
PERMEABILITY, A, B = 2000.0, 5.0, 300.0
REPLENISH, LOSS, REUPTAKE, REPROCESS, GAIN = 5.05, 2500.0, 6580.0, 66.3, 50_000.0

# Fibres and bushy cell, in s; the weight is per second and shared by the fibres.
REFRACTORY, TAU_MEMBRANE, TAU_SYNAPSE, WEIGHT = 1e-3, 1e-3, 5e-4, 13_000.0

LOWEST_RATE = 16_000  # Hz; explicit Euler steps of the hair cell overshoot below 9 kHz
TAIL = 0.03  # s of silence behind a sound, in which the wave runs out
# Sounds are padded to a multiple of so many samples: few tables serve all lengths, FFTs like small
# factors, and powers of two would make channels compete for the same lines of the cache.
STRIDE = 2700
BLOCK = 100  # channels that are worked on together, small enough for the cache
NODES = 700  # frequencies at which the membrane is computed exactly

_one_at_a_time = Lock()  # or threads would compute the same table side by side
_compiled = jit()


def place(channels: int = CHANNELS) -> ndarray:
    """Distance (channels,) of each channel from the base, in cm."""
    return np.linspace(0, LENGTH, channels)


def resonance(channels: int = CHANNELS) -> ndarray:
    """Frequency (channels,) in Hz at which stiffness and mass cancel, √(S(c)/m) / 2π.

    The wave loses its energy on the way to this place, so a channel answers best to a tone that is
    lower by some 15 %.
    """
    return np.sqrt((S0 * np.exp(-ALPHA * place(channels)) - A_STIFF) / MASS) / (2 * np.pi)


def transfer(frequency: ndarray, channels: int = CHANNELS) -> ndarray:
    """Velocity of the membrane per sound pressure, complex (frequencies, channels).

    Parameters
    ----------
    frequency : (frequencies,) in Hz, positive
    """
    slow, G = _wave(frequency, channels)
    return slow * np.exp(-1j * G)


def _wave(frequency: ndarray, channels: int) -> tuple[ndarray, ndarray]:
    """The transfer function as slow exp(-iG): both factors are smooth in frequency.

    With ξ = S - mω² + iωR and g = ω √(2ρ/hξ), the pressure obeys p'' = -g² p along the membrane.
    To the order of WKB, and exactly where stiffness rules, p = √(G/g) H₀⁽²⁾(G) with G' = g and
    G(0) = 2 g(0)/α. The membrane moves at 2iω p/ξ; the impedance at the base gives p(0).
    """
    omega = 2 * np.pi * np.asarray(frequency, dtype=np.float64)[:, None]
    u = np.exp(ALPHA * place(channels) / 2)[None, :]
    inertia = A_STIFF + MASS * omega**2

    def xi(u: ndarray) -> ndarray:
        return S0 / u**2 - inertia + 1j * omega * R0 / u

    def g(u: ndarray) -> ndarray:
        return omega * np.sqrt(2 * RHO / (HEIGHT * xi(u)))

    def antiderivative(u: ndarray) -> ndarray:  # of 1/√(S0 + iωR0 u - inertia u²)
        width = np.sqrt(4 * inertia * S0 - (omega * R0) ** 2)
        return np.arcsin((2 * inertia * u - 1j * omega * R0) / width) / np.sqrt(inertia)

    base = np.ones((1, 1))
    G_base = 2 * g(base) / ALPHA
    path = antiderivative(u) - antiderivative(base)
    G = G_base + omega * np.sqrt(2 * RHO / HEIGHT) * (2 / ALPHA) * path
    p = np.sqrt(G / g(u)) * special.hankel2e(0, G)  # without its factor exp(-iG)
    p_base = np.sqrt(G_base / g(base)) * special.hankel2(0, G_base)
    z = 2 * omega / ALPHA * np.sqrt(2 * RHO / (HEIGHT * S0))
    impedance = 1j * np.sqrt(2 * S0 / HEIGHT) * special.hankel2(0, z) / special.hankel2(1, z)
    return 2j * omega / xi(u) * p / p_base * impedance, G


@lru_cache(maxsize=1)
def _smooth(highest: float, channels: int) -> CubicSpline:
    """Both factors of `_wave` over the logarithm of frequency: Hankel functions are slow."""
    nodes = np.geomspace(1, highest, NODES)
    return CubicSpline(np.log(nodes), np.stack(_wave(nodes, channels)), axis=1)


@lru_cache(maxsize=4)
def _table(samples: int, rate: float, channels: int) -> ndarray:
    """The transfer function at the frequencies of a real FFT, complex64 (channels, frequencies)."""
    frequency = fft.rfftfreq(samples, 1 / rate)
    smooth = _smooth(frequency[-1], channels)
    table = np.zeros((channels, len(frequency)), np.complex64)  # no answer to constant pressure
    for start in range(1, len(frequency), 1000):
        part = slice(start, start + 1000)
        slow, G = smooth(np.log(frequency[part]))
        table[:, part] = (slow * np.exp(-1j * G)).T
    return table


def clear_tables() -> None:
    """Free the memory of the membrane's tables, some 50 MB for every length of sound."""
    _table.cache_clear()
    _smooth.cache_clear()


def normalise(
    sound: ndarray, rate: float, *, level: float = 0.3, silence: float = 0.02, ramp: float = 0.01
) -> ndarray:
    """Cut the silence off both ends, scale to the level at which the ear works, fade in and out.

    Parameters
    ----------
    sound : (samples,), rate in Hz
    level : root mean square of the result, before the ramps
    silence : what never exceeds this share of the peak is cut off
    ramp : seconds of each cosine ramp

    Raises
    ------
    ValueError
        for a sound that is not one-dimensional or not finite, or for silence.
    """
    sound = np.asarray(sound, dtype=np.float32)
    if sound.ndim != 1 or not np.isfinite(sound).all():
        raise ValueError(f"a sound is a finite array (samples,), not of shape {sound.shape}")
    peak = np.abs(sound).max(initial=0)
    if peak == 0:
        raise ValueError("the sound is silent")
    heard = np.flatnonzero(np.abs(sound) > silence * peak)
    cut = sound[heard[0] : heard[-1] + 1].copy()
    cut *= level / np.sqrt(np.mean(cut**2))
    length = min(round(ramp * rate), len(cut) // 2)
    rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / max(length, 1))).astype("f4")
    cut[:length] *= rise
    cut[len(cut) - length :] *= rise[::-1]
    return cut


def basilar_membrane(sound: ndarray, rate: float, channels: int = CHANNELS) -> ndarray:
    """Velocity of the membrane, float32 (samples, channels), for a sound (samples,) at rate in Hz.

    Raises
    ------
    ValueError
        for a sound that is empty, not one-dimensional or not finite, a rate below `LOWEST_RATE`, or
        no channel.
    """
    return np.concatenate(list(_membrane_blocks(sound, rate, channels)), axis=1)


def _membrane_blocks(sound: ndarray, rate: float, channels: int):  # noqa: ANN202
    sound = np.asarray(sound, dtype=np.float32)
    if sound.ndim != 1 or len(sound) == 0 or not np.isfinite(sound).all():
        raise ValueError(f"a sound is a finite array (samples,), not of shape {sound.shape}")
    if not rate >= LOWEST_RATE:
        raise ValueError(f"the ear needs at least {LOWEST_RATE} samples per second, not {rate}")
    if channels < 1:
        raise ValueError(f"channels must be at least 1, not {channels}")
    padded = -(-(len(sound) + round(TAIL * rate)) // STRIDE) * STRIDE
    with _one_at_a_time:
        table = _table(padded, float(rate), channels)
    spectrum = fft.rfft(sound, padded)
    for start in range(0, channels, BLOCK):
        velocity = fft.irfft(table[start : start + BLOCK] * spectrum, padded, overwrite_x=True)
        yield np.ascontiguousarray(velocity[:, : len(sound)].T)


def hair_cells(velocity: ndarray, rate: float) -> ndarray:
    """Firing rate of a fibre that is not refractory, in Hz; shape of `velocity`, float32.

    Transmitter moves between a free pool q, the cleft c and a reprocessing store w:

        k  = g (s + A)₊ / (s + A + B)          permeability for velocity s
        q' = y (1 - q) + x w - k q
        c' = k q - (l + r) c
        w' = r c - x w
        rate = h c

    by Euler steps from rest in silence.
    """
    return _hair_cells(np.ascontiguousarray(velocity, dtype=np.float32), 1 / rate)


@_compiled
def _hair_cells(velocity, dt):  # noqa: ANN001, ANN202
    f = np.float32
    T, channels = velocity.shape
    rates = np.empty_like(velocity)
    k_rest = PERMEABILITY * A / (A + B)
    c_rest = REPLENISH * k_rest / (LOSS * k_rest + REPLENISH * (LOSS + REUPTAKE))
    q = np.full(channels, f(c_rest * (LOSS + REUPTAKE) / k_rest))
    c = np.full(channels, f(c_rest))
    w = np.full(channels, f(c_rest * REUPTAKE / REPROCESS))
    g, y, x, r = f(PERMEABILITY * dt), f(REPLENISH * dt), f(REPROCESS * dt), f(REUPTAKE * dt)
    leave = f((LOSS + REUPTAKE) * dt)
    for t in range(T):
        for i in range(channels):  # compiled to vector instructions
            open_ = max(velocity[t, i] + f(A), f(0))
            released = g * open_ / (open_ + f(B)) * q[i]
            returned = x * w[i]
            w[i] += r * c[i] - returned
            q[i] += y * (f(1) - q[i]) + returned - released
            c[i] += released - leave * c[i]
            rates[t, i] = f(GAIN) * c[i]
    return rates


def auditory_nerve(rates: ndarray, rate: float, rng: Generator, *, fibres: int = FIBRES) -> ndarray:
    """Spikes of all fibres of each hair cell, uint8 counts of the shape of `rates`.

    A fibre fires at the given rate unless it has fired in the last millisecond. The n fibres of a
    hair cell that are ready fire together at n times the rate; the time to the next spike, measured
    by the integral of that rate, is exponential with mean one. So one random number per spike is
    enough, where a coin per fibre and sample takes a thousand times as many.
    """
    if not 1 <= fibres <= 255:
        raise ValueError(f"fibres must be 1 to 255, not {fibres}")
    return _nerve(np.ascontiguousarray(rates, dtype=np.float32), 1 / rate, fibres, rng)


@_compiled
def _nerve(rates, dt, fibres, rng):  # noqa: ANN001, ANN202
    f = np.float32
    T, channels = rates.shape
    counts = np.zeros((T, channels), np.uint8)
    pause = max(1, round(REFRACTORY / dt))
    step = f(dt)
    # Blocks fix the order of the draws: the same spikes from all channels at once as from parts.
    for start in range(0, channels, BLOCK):
        width = min(BLOCK, channels - start)
        ready = np.full(width, f(fibres))
        wait = np.empty(width, f)
        for i in range(width):
            wait[i] = rng.standard_exponential()
        for t in range(T):
            if t >= pause:
                for i in range(width):
                    ready[i] += f(counts[t - pause, start + i])
            for i in range(width):
                wait[i] -= ready[i] * rates[t, start + i] * step
            for i in range(width):
                if wait[i] <= 0:
                    fired = 0
                    while wait[i] <= 0 and ready[i] > 0:
                        ready[i] -= f(1)
                        fired += 1
                        wait[i] += f(rng.standard_exponential())
                    counts[t, start + i] = fired
    return counts


def bushy_cells(counts: ndarray, rate: float, *, fibres: int = FIBRES) -> tuple[ndarray, ndarray]:
    """Spikes of one bushy cell per channel, which sums its fibres.

    Synapses are linear, so it is enough to know how many fibres fired: the current decays with 0.5
    ms, the voltage with 1 ms; at 1 it is reset to 0 and held there for 1 ms.

    Returns
    -------
    times : float32 (spikes,), seconds from the first sample, ascending
    units : int32 (spikes,), the channel of each
    """
    steps, units = _bushy_cells(np.ascontiguousarray(counts), 1 / rate, fibres)
    return (steps / rate).astype(np.float32), units


@_compiled
def _bushy_cells(counts, dt, fibres):  # noqa: ANN001, ANN202
    f = np.float32
    T, channels = counts.shape
    current, voltage = np.zeros(channels, f), np.zeros(channels, f)
    held = np.zeros(channels, np.int32)
    keep_current, keep_voltage = f(np.exp(-dt / TAU_SYNAPSE)), f(np.exp(-dt / TAU_MEMBRANE))
    weight = f(WEIGHT / fibres * dt)
    pause = max(1, round(REFRACTORY / dt))
    steps, units, made = np.empty(1024, np.int32), np.empty(1024, np.int32), 0
    for t in range(T):
        if made + channels > len(steps):
            steps = np.concatenate((steps, np.empty(len(steps) + channels, np.int32)))
            units = np.concatenate((units, np.empty(len(units) + channels, np.int32)))
        for i in range(channels):
            current[i] = keep_current * current[i] + f(counts[t, i])
            free = f(1) if held[i] <= 0 else f(0)
            voltage[i] = free * (keep_voltage * voltage[i] + weight * current[i])
            held[i] -= 1
        for i in range(channels):
            if voltage[i] >= f(1):
                steps[made], units[made] = t, i
                made += 1
                voltage[i] = f(0)
                held[i] = pause
    return steps[:made], units[:made]


def hear(
    sound: ndarray, rate: float, rng: Generator, *, channels: int = CHANNELS
) -> tuple[ndarray, ndarray]:
    """From sound to the spikes of the bushy cells: all stages, some channels at a time.

    Returns what `bushy_cells` returns for the whole membrane, in a tenth of its memory.

    Parameters
    ----------
    sound : (samples,) at a root mean square of about 0.3, see `normalise`; rate in Hz
    rng : source of the fibres' spikes

    Raises
    ------
    ValueError
        as `basilar_membrane`.
    """
    times, units = [], []
    for start, velocity in zip(
        range(0, channels, BLOCK), _membrane_blocks(sound, rate, channels), strict=True
    ):
        counts = auditory_nerve(hair_cells(velocity, rate), rate, rng)
        t, unit = bushy_cells(counts, rate)
        times.append(t)
        units.append(unit + np.int32(start))
    times, units = np.concatenate(times), np.concatenate(units)
    order = np.argsort(times, kind="stable")
    return times[order], units[order]
