"""Offline data: ranges, shapes, determinism, and that no source asks the network."""

import socket

import numpy as np
import pytest

from labkit.data import (
    PHOTOGRAPHS,
    chessboard,
    digits,
    natural_images,
    sample_patches,
    whiten,
    whitened_patches,
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a data source asked the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_photographs_are_luminance_in_unit_range():
    images = natural_images()
    assert len(images) == len(PHOTOGRAPHS) == 10
    for image in images:
        assert image.dtype == np.float32 and image.ndim == 2 and min(image.shape) >= 300
        assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.05
    assert max(image.max() for image in images) == 1  # the 8-bit originals reach 255
    assert len({image.tobytes() for image in images}) == 10


def test_photographs_in_colour_have_the_same_luminance():
    (camera, coffee), (grey, mixed) = (
        natural_images(["camera", "coffee"], colour=colour) for colour in (True, False)
    )
    assert coffee.shape == (*mixed.shape, 3) and coffee.dtype == np.float32
    np.testing.assert_allclose(coffee @ [0.2125, 0.7154, 0.0721], mixed, atol=1e-6)
    assert all(np.array_equal(camera[..., channel], grey) for channel in range(3))


def test_photographs_by_name_keep_their_order():
    coffee, camera = natural_images(["coffee", "camera"])
    assert coffee.shape == (400, 600) and camera.shape == (512, 512)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["camra"], "not 'camra'; did you mean 'camera'"),
        (["x"], "a photograph must be one of astronaut, brick, .*, not 'x'$"),
        ("camera", "list"),
    ],
)
def test_unknown_photographs_are_named(names, message):
    with pytest.raises(ValueError, match=message):
        natural_images(names)


def test_digits():
    images, labels = digits()
    assert images.shape == (1797, 8, 8) and images.dtype == np.float32
    assert images.min() == 0 and images.max() == 1
    assert np.bincount(labels).min() > 170 and len(set(labels)) == 10


def spectral_slope(image):
    """Slope of log amplitude on log frequency, between 0.02 and 0.25 cycles per pixel."""
    side = min(image.shape)
    square = image[:side, :side] - image[:side, :side].mean()
    amplitude = np.abs(np.fft.fft2(square * np.outer(np.hanning(side), np.hanning(side))))
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    band = (f > 0.02) & (f < 0.25)
    return np.polyfit(np.log(f[band]), np.log(amplitude[band]), 1)[0]


def test_whitening_raises_the_spectral_slope_by_one():
    for image in natural_images():
        white = whiten(image)
        assert white.shape == image.shape and white.dtype == np.float32
        assert abs(white.mean()) < 1e-5 and abs(white.std() - 1) < 1e-5
        gain = spectral_slope(white) - spectral_slope(image)
        assert 0.8 < gain < 1.1  # the filter is f exp(-(f/f0)^4), its last factor near 1 here


def test_whitening_leaves_no_seam_at_the_borders():
    ramp = np.linspace(0, 1, 128)[:, None] * np.ones((1, 96))  # a torus sees a cliff here
    white = np.abs(whiten(ramp))
    inner = white[8:-8, 8:-8].max()
    assert white.max() < 4 * inner


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((20, 20)), "constant"),
        (np.zeros((20, 20, 3)), "one .height, width. image"),
        (np.full((20, 20), np.nan), "NaN"),
    ],
)
def test_images_without_a_spectrum_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        whiten(image)


def test_patches_come_from_the_images_in_equal_shares():
    images = [np.full((30, 40), value, dtype=np.float32) for value in (1, 2, 3)]
    patches = sample_patches(images, 8, 90, np.random.default_rng(0))
    assert patches.shape == (90, 64) and patches.dtype == np.float32
    values, counts = np.unique(patches[:, 0], return_counts=True)
    assert list(values) == [1, 2, 3] and list(counts) == [30, 30, 30]


def test_patches_reach_every_pixel_and_keep_their_layout():
    image = np.arange(12 * 10, dtype=np.float32).reshape(12, 10)
    patches = sample_patches([image], 4, 2000, np.random.default_rng(0))
    assert set(patches.ravel()) == set(image.ravel())
    square = patches[0].reshape(4, 4)
    assert (np.diff(square, axis=1) == 1).all() and (np.diff(square, axis=0) == 10).all()


def test_whitened_patches_are_seeded_and_have_no_mean():
    images = natural_images(["camera", "coffee"])
    first, again, other = (
        whitened_patches(images, 12, 300, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (300, 144) and first.dtype == np.float32
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.abs(first.mean(axis=1)).max() < 1e-5
    assert 0.3 < first.var() < 3


@pytest.mark.parametrize(
    ("size", "count", "message"), [(0, 5, "size"), (301, 5, "300"), (8, 0, "count")]
)
def test_impossible_patches_are_refused(size, count, message):
    images = natural_images(["chelsea", "camera"])
    with pytest.raises(ValueError, match=message):
        sample_patches(images, size, count, np.random.default_rng(0))


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        sample_patches([], 8, 5, np.random.default_rng(0))


def test_squares_of_both_colours_share_no_pixel_and_cover_the_board():
    image = np.arange(7 * 10 * 2).reshape(7, 10, 2)
    white, black = (chessboard(image, 3, colour) for colour in (0, 1))
    assert {square.shape for square in white + black} == {(3, 3, 2)}
    np.testing.assert_array_equal(white[1], image[:3, 6:9])  # of the first row's three squares
    pixels = [set(np.concatenate([s.ravel() for s in squares])) for squares in (white, black)]
    assert not pixels[0] & pixels[1]
    assert pixels[0] | pixels[1] == set(image[:6, :9].ravel())


@pytest.mark.parametrize(
    ("side", "colour", "message"), [(3, 2, "0 or 1"), (0, 0, "no two squares"), (6, 1, "side 6")]
)
def test_impossible_chessboards_are_refused(side, colour, message):
    with pytest.raises(ValueError, match=message):
        chessboard(np.zeros((7, 10)), side, colour)
