"""MNIST-1D: the published set, and draws of other sizes and seeds."""

import numpy as np
import pytest

from labkit.data.mnist1d import mnist1d, mnist1d_templates


def test_the_published_set():
    signals, labels = mnist1d()
    assert signals.shape == (5000, 40) and signals.dtype == np.float32
    assert labels.dtype == np.int64 and (np.bincount(labels) == 500).all()
    assert abs(signals.mean()) < 1e-5 and abs(signals.std() - 1) < 1e-5
    # The first signal and labels of mnist1d_data.pkl as the authors distribute it.
    first = [-0.33200567, -0.47191037, -0.77869708, -1.00974083, -0.88235257]
    np.testing.assert_allclose(signals[0, :5], first, atol=1e-6)
    assert labels[:10].tolist() == [2, 6, 4, 5, 6, 6, 6, 0, 3, 1]


def test_against_the_authors_package():
    data = pytest.importorskip("mnist1d.data")
    arguments = data.get_dataset_args()
    arguments.num_samples, arguments.seed = 200, 3
    theirs = data.make_dataset(arguments)
    signals, labels = mnist1d(200, seed=3)
    np.testing.assert_allclose(signals[:160], theirs["x"], atol=1e-5)
    np.testing.assert_array_equal(labels[160:], theirs["y_test"])


def test_seeds_and_determinism():
    a, b, c = mnist1d(50, seed=1)[0], mnist1d(50, seed=1)[0], mnist1d(50, seed=2)[0]
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1


def test_templates_start_at_zero():
    templates = mnist1d_templates()
    assert templates.shape == (10, 12) and (templates[:, 0] == 0).all()
    assert len({row.tobytes() for row in templates}) == 10


@pytest.mark.parametrize("count", [0, 15, -10])
def test_counts_that_do_not_fit(count):
    with pytest.raises(ValueError, match=f"count.*{count}"):
        mnist1d(count)


def test_negative_seed():
    with pytest.raises(ValueError, match="-1"):
        mnist1d(10, seed=-1)
