"""The event camera: exact shifts, and events that keep their residual."""

import numpy as np
import pytest

from labkit.data.event_camera import fourier_shift, simulate


@pytest.fixture
def image():
    """A periodic image without energy at the Nyquist frequency."""
    spectrum = np.fft.fft2(np.random.default_rng(0).standard_normal((15, 21)))
    return np.fft.ifft2(spectrum).real


def test_whole_pixels_are_a_roll(image):
    np.testing.assert_allclose(
        fourier_shift(image, [2, -3]), np.roll(image, (2, -3), axis=(0, 1)), atol=1e-12
    )


def test_fractions_add_up(image):
    twice = fourier_shift(fourier_shift(image, [0.3, 1.6]), [0.7, -0.6])
    np.testing.assert_allclose(twice, np.roll(image, (1, 1), axis=(0, 1)), atol=1e-12)


def test_a_wave_moves_by_a_fraction():
    x = np.arange(32)
    wave = np.broadcast_to(np.sin(2 * np.pi * 3 * x / 32), (8, 32))
    expected = np.broadcast_to(np.sin(2 * np.pi * 3 * (x - 0.37) / 32), (8, 32))
    np.testing.assert_allclose(fourier_shift(wave, [0, 0.37]), expected, atol=1e-12)


def test_leading_axes_broadcast(image):
    shifts = np.array([[0.5, 0], [0, 0.5], [1, 2]])
    moved = fourier_shift(image, shifts)
    assert moved.shape == (3, *image.shape)
    for one, shift in zip(moved, shifts, strict=True):
        np.testing.assert_allclose(one, fourier_shift(image, shift), atol=1e-12)
    stack = np.stack([image] * 3).astype(np.float32)
    assert fourier_shift(stack, shifts).dtype == np.float32
    np.testing.assert_allclose(fourier_shift(stack, shifts), moved, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "shift", "message"),
    [
        ((5,), [0, 0], "height, width"),
        ((5, 5), [0, 0, 0], r"\(\.\.\., 2\)"),
        ((5, 5), 1.0, r"\(\.\.\., 2\)"),
        ((5, 5), [0, np.nan], "finite"),
    ],
)
def test_wrong_shifts_are_named(shape, shift, message):
    with pytest.raises(ValueError, match=message):
        fourier_shift(np.zeros(shape), shift)


def test_a_ramp_makes_evenly_spaced_events():
    events = simulate(np.arange(13) * 0.25, 1.0)
    assert events.shape == (2, 13) and events.dtype == bool
    assert np.flatnonzero(events[0]).tolist() == [4, 8, 12]
    assert not events[1].any()
    falling = simulate(-np.arange(13) * 0.25, 1.0)
    np.testing.assert_array_equal(falling, events[::-1])


def test_the_residual_is_kept_after_a_jump():
    """A jump of 2.5 thresholds: one event at once, one later, half a threshold never."""
    events = simulate(np.array([0, 2.5, 2.5, 2.5, 2.5]), 1.0)
    assert events[0].tolist() == [False, True, True, False, False]


def test_events_follow_the_movie():
    """Where no pixel changes by more than a threshold a frame, events rebuild it to a threshold."""
    rng = np.random.default_rng(1)
    frames = rng.uniform(-0.9, 0.9, (60, 4, 5)).cumsum(axis=0) + 7
    events = simulate(frames, 0.9)
    assert not events[:, 0].any() and not (events[0] & events[1]).any()
    rebuilt = 0.9 * (events[0].astype(float) - events[1]).cumsum(axis=0)
    assert np.abs(rebuilt - (frames - frames[0])).max() < 0.9 + 1e-9


@pytest.mark.parametrize(
    ("frames", "threshold", "message"),
    [
        (np.zeros((3, 2)), 0.0, "threshold"),
        (np.zeros((3, 2)), np.inf, "threshold"),
        (np.zeros((3, 2)), np.nan, "threshold"),
        (np.zeros((0, 2)), 1.0, "at least 1"),
        (np.array(1.0), 1.0, "at least 1"),
        (np.array([0, np.nan]), 1.0, "NaN"),
    ],
)
def test_wrong_movies_are_named(frames, threshold, message):
    with pytest.raises(ValueError, match=message):
        simulate(frames, threshold)
