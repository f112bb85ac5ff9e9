"""The inner ear against what is known of ears, and its stages against each other."""

import numpy as np
import pytest

pytest.importorskip("numba")

from labkit.data import cochlea

RATE = 22_050
DT = 1 / RATE


@pytest.fixture(autouse=True, scope="module")
def free_tables():
    yield
    cochlea.clear_tables()


def tone(frequency, seconds=0.2, level=0.1):
    t = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sqrt(2) * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def test_the_base_hears_high_tones_and_each_octave_takes_the_same_distance():
    frequency = np.geomspace(60, 10_000, 400)
    best = frequency[np.abs(cochlea.transfer(frequency)).argmax(axis=0)]
    inside = (best > 200) & (best < 8_000)
    assert (np.diff(best[inside]) <= 0).all()
    octaves_per_cm = np.polyfit(cochlea.place()[inside], np.log2(best[inside]), 1)[0]
    # Where stiffness falls off as exp(-αc), resonance falls off as exp(-αc/2).
    assert octaves_per_cm == pytest.approx(-cochlea.ALPHA / 2 / np.log(2), rel=0.05)
    ratio = best[inside] / cochlea.resonance()[inside]
    assert 0.6 < ratio.min() <= ratio.max() < 1


def test_the_wave_cannot_pass_the_place_of_its_frequency():
    V = np.abs(cochlea.transfer(np.array([2_000.0])))[0]
    peak = V.argmax()
    assert V[peak + 100] < 1e-3 * V[peak]  # towards the apex it dies at once
    assert V[peak - 100] > 0.1 * V[peak]  # it came from the base


def test_a_click_is_answered_after_it_sounds_and_later_towards_the_apex():
    click = np.zeros(4_000, np.float32)
    click[1_000] = 1
    energy = cochlea.basilar_membrane(click, RATE) ** 2
    before, after = energy[:995].sum(axis=0), energy[995:].sum(axis=0)
    assert (before[100:] < 0.01 * after[100:]).all()
    delay = (energy * np.arange(4_000)[:, None]).sum(axis=0) / energy.sum(axis=0) - 1_000
    assert (np.diff(delay[100:650:50]) > 0).all()
    assert 0.001 < delay[600] / RATE < 0.03


def test_the_tables_interpolate_the_exact_transfer_function():
    frequency = np.fft.rfftfreq(cochlea.STRIDE, DT)[1:]
    exact = cochlea.transfer(frequency, 50)
    table = cochlea._table(cochlea.STRIDE, float(RATE), 50)[:, 1:].T
    assert np.abs(table - exact).max() < 1e-3 * np.abs(exact).max()


def test_padding_does_not_matter():
    # A sound of one length and the same with silence behind it need different tables.
    sound = tone(500, 0.1)
    short = cochlea.basilar_membrane(sound, RATE, 70)
    long = cochlea.basilar_membrane(np.pad(sound, (0, 5_000)), RATE, 70)[: len(sound)]
    assert np.abs(short - long).max() < 0.02 * np.abs(long).max()


def test_hair_cells_rest_adapt_and_rectify():
    silence = np.zeros((2_000, 1), np.float32)
    rest = cochlea.hair_cells(silence, RATE)
    assert rest == pytest.approx(rest[0, 0], rel=1e-3)  # the start is the steady state
    assert 50 < rest[0, 0] < 80  # spikes per second, a fibre of high spontaneous rate
    step = np.concatenate([silence, np.full((8_000, 1), 300, np.float32)])
    rates = cochlea.hair_cells(step, RATE)[:, 0]
    onset, late = rates[2_000:2_200].max(), rates[-100:].mean()
    assert onset > 2 * late > 2 * rest[0, 0]  # it answers to the onset most
    assert cochlea.hair_cells(-step, RATE)[-1, 0] < 0.01 * rest[0, 0]


def slow_hair_cell(s, dt):
    """The equations of Meddis, one value at a time, in double precision."""
    k = 2000 * 5 / 305
    c = 5.05 * k / (2500 * k + 5.05 * 9080)
    q, w, rates = c * 9080 / k, c * 6580 / 66.3, []
    for velocity in s:
        k = 2000 * max(velocity + 5, 0) / (max(velocity + 5, 0) + 300)
        q, c, w = (
            q + dt * (5.05 * (1 - q) + 66.3 * w - k * q),
            c + dt * (k * q - 9080 * c),
            w + dt * (6580 * c - 66.3 * w),
        )
        rates.append(50_000 * c)
    return np.array(rates)


def test_hair_cells_follow_the_equations():
    velocity = np.random.default_rng(0).normal(scale=200, size=(500, 3))
    expected = np.stack([slow_hair_cell(v, DT) for v in velocity.T], axis=1)
    assert cochlea.hair_cells(velocity, RATE) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def vector_strength(frequency):
    """How well fibres keep to the phase of a tone, 0 to 1, and how fast they fire."""
    sound = tone(frequency, 0.5, level=0.3)
    gain = np.abs(cochlea.transfer(np.array([frequency])))[0].max()
    rates = cochlea.hair_cells(sound[:, None] * gain, RATE)
    many = np.repeat(rates, 30, axis=1)
    counts = cochlea.auditory_nerve(many, RATE, np.random.default_rng(1))[3_000:].sum(axis=1)
    phase = 2 * np.pi * frequency * np.arange(len(counts)) / RATE
    return abs((counts * np.exp(1j * phase)).sum()) / counts.sum()


def test_fibres_lock_to_the_phase_of_low_tones_only():
    low, middle, high = (vector_strength(f) for f in (300.0, 2_000.0, 7_000.0))
    assert low > 0.6
    assert low > middle > high
    assert high < 0.25


def test_a_fibre_has_a_dead_time_of_one_millisecond():
    rates = np.full((40_000, 20), 800, np.float32)
    counts = cochlea.auditory_nerve(rates, RATE, np.random.default_rng(0), fibres=1)
    intervals = np.concatenate([np.diff(np.flatnonzero(c)) for c in counts.T])
    assert counts.max() == 1
    assert intervals.min() >= round(1e-3 * RATE)
    # A dead time τ turns the rate r into r / (1 + r τ); beyond it, intervals are exponential.
    assert counts.mean() * RATE == pytest.approx(800 / 1.8, rel=0.03)
    beyond = (intervals - intervals.min()) / RATE
    assert beyond.std() == pytest.approx(1 / 800, rel=0.05)


def test_a_pool_of_fibres_is_like_fibres_drawn_one_by_one():
    rng = np.random.default_rng(2)
    rate = 1_000 * (1 + np.sin(2 * np.pi * 100 * np.arange(1_000) / RATE))
    pool = cochlea.auditory_nerve(
        np.repeat(rate[:, None], 400, axis=1), RATE, rng, fibres=10
    ).astype(float)
    single = (
        cochlea.auditory_nerve(np.repeat(rate[:, None], 4_000, axis=1), RATE, rng, fibres=1)
        .reshape(1_000, 400, 10)
        .sum(axis=2)
    )
    blocks = [x.reshape(50, 20, 400).sum(axis=1) for x in (pool, single)]
    mean, error = [b.mean(axis=1) for b in blocks], np.sqrt(2 * blocks[1].var(axis=1) / 400)
    assert (np.abs(mean[0] - mean[1]) < 4.5 * error).all()
    assert blocks[0].var(axis=1).mean() == pytest.approx(blocks[1].var(axis=1).mean(), rel=0.1)


def slow_bushy_cell(counts, fibres=40):
    steps, current, voltage, held = [], 0.0, 0.0, 0
    for t, n in enumerate(counts):
        current = current * np.exp(-DT / 5e-4) + n
        if held <= 0:
            voltage = voltage * np.exp(-DT / 1e-3) + 13_000 / fibres * DT * current
        else:
            voltage = 0.0
        held -= 1
        if voltage >= 1:
            steps.append(t)
            voltage, held = 0.0, round(1e-3 / DT)
    return steps


def test_bushy_cells_follow_the_equations_and_pause():
    counts = np.random.default_rng(3).poisson(0.4, (3_000, 5)).astype(np.uint8)
    times, units = cochlea.bushy_cells(counts, RATE)
    assert (np.diff(times) >= 0).all()
    for i in range(5):
        steps = slow_bushy_cell(counts[:, i])
        assert len(steps) > 20
        assert np.round(times[units == i] * RATE).astype(int).tolist() == steps
        assert np.diff(steps).min() > round(1e-3 * RATE)


def test_silence_leaves_bushy_cells_almost_silent():
    rates = cochlea.hair_cells(np.zeros((RATE, 50), np.float32), RATE)
    counts = cochlea.auditory_nerve(rates, RATE, np.random.default_rng(0))
    times, _ = cochlea.bushy_cells(counts, RATE)
    assert counts.mean() * RATE / 40 == pytest.approx(
        rates[0, 0] / (1 + 1e-3 * rates[0, 0]), rel=0.03
    )
    assert len(times) / 50 < 5  # spikes per second, where a fibre has 60


def test_hear_is_its_stages_and_nothing_but_the_seed_is_random():
    sound = tone(1_000, 0.05) + tone(300, 0.05)
    heard = cochlea.hear(sound, RATE, np.random.default_rng(5), channels=230)
    again = cochlea.hear(sound, RATE, np.random.default_rng(5), channels=230)
    other = cochlea.hear(sound, RATE, np.random.default_rng(6), channels=230)
    rates = cochlea.hair_cells(cochlea.basilar_membrane(sound, RATE, 230), RATE)
    counts = cochlea.auditory_nerve(rates, RATE, np.random.default_rng(5))
    times, units = cochlea.bushy_cells(counts, RATE)
    assert len(times) > 50
    for a, b in zip(heard, again, strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(heard[0], times) and np.array_equal(heard[1], units)
    assert not (len(other[0]) == len(times) and np.array_equal(other[0], times))


def test_normalise_sets_the_level_and_cuts_silence():
    sound = np.pad(tone(400, 0.3, level=0.01), 5_000)
    cut = cochlea.normalise(sound, RATE, ramp=0.0)
    assert len(cut) == pytest.approx(0.3 * RATE, abs=5)
    assert np.sqrt(np.mean(cut**2)) == pytest.approx(0.3, rel=1e-3)
    assert abs(cochlea.normalise(sound, RATE)[[0, -1]]).max() < 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cochlea.basilar_membrane(np.zeros((2, 9)), RATE), r"\(2, 9\)"),
        (lambda: cochlea.basilar_membrane(np.zeros(0), RATE), "finite"),
        (lambda: cochlea.basilar_membrane(np.array([np.nan]), RATE), "finite"),
        (lambda: cochlea.basilar_membrane(np.zeros(9), 8_000), "16000"),
        (lambda: cochlea.basilar_membrane(np.zeros(9), RATE, 0), "channels"),
        (lambda: cochlea.auditory_nerve(np.zeros((9, 2)), RATE, None, fibres=300), "300"),
        (lambda: cochlea.normalise(np.zeros(100), RATE), "silent"),
        (lambda: cochlea.normalise(np.zeros((2, 9)), RATE), r"\(2, 9\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
