"""Bootstrap resampling of counts whose results are known."""

import numpy as np
import pytest

from segkit.metrics import comparison
from segkit.metrics.comparison import percentile_interval, resample
from segkit.metrics.state import mean_over_present


def ratio(sums):
    """An example of a metric of summed counts: intersection over union."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[:, :1] / sums[:, 1:]


def test_every_resample_draws_as_many_images_as_there_are():
    counts = np.eye(7)
    drawn = resample(counts, lambda sums: sums, samples=50)
    assert drawn.shape == (50, 7)
    assert (drawn.sum(axis=1) == 7).all()
    assert (drawn >= 0).all()
    assert (drawn == 0).any()


def test_draws_are_uniform():
    # 4 images, 20000 resamples: each is drawn 20000 times, give or take 5 standard errors of sqrt(20000 * 0.75).
    drawn = resample(np.eye(4), lambda sums: sums, samples=20_000).sum(axis=0)
    assert np.abs(drawn - 20_000).max() < 5 * np.sqrt(4 * 20_000 * 0.25 * 0.75)


def test_draws_do_not_depend_on_block_size_or_counts(monkeypatch):
    whole = resample(np.eye(9), lambda sums: sums, samples=40, seed=3)
    monkeypatch.setattr(comparison, "BLOCK_CELLS", 9 * 7)
    assert (resample(np.eye(9), lambda sums: sums, samples=40, seed=3) == whole).all()
    assert (resample(2 * np.eye(9), lambda sums: sums, samples=40, seed=3) == 2 * whole).all()
    assert (resample(np.eye(9), lambda sums: sums, samples=40, seed=4) != whole).any()


def test_one_image_always_draws_itself_and_no_image_is_rejected():
    assert resample(np.array([[1.0, 4.0]]), ratio, samples=3).tolist() == [[0.25]] * 3
    with pytest.raises(ValueError, match="at least one image"):
        resample(np.zeros((0, 2)), ratio)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        resample(np.eye(2), ratio, samples=0)


def test_intervals_leave_out_undefined_values():
    values = np.array([[0.0, np.nan, np.nan], [1.0, 5.0, np.nan], [2.0, np.nan, np.nan], [3.0, 7.0, np.nan]])
    # Quartiles of 0..3 by linear interpolation; of 5 and 7; of an empty list.
    low, high = percentile_interval(values, level=0.5)
    np.testing.assert_array_equal(low, [0.75, 5.5, np.nan])
    np.testing.assert_array_equal(high, [2.25, 6.5, np.nan])
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match="level must be in"):
            percentile_interval(values, level)


def test_a_mean_is_over_defined_values():
    means = mean_over_present(np.array([[1.0, np.nan, 3.0], [np.nan] * 3]))
    np.testing.assert_array_equal(means, [2.0, np.nan])
    np.testing.assert_array_equal(mean_over_present(np.zeros((2, 0))), [np.nan, np.nan])


def test_an_interval_of_95_percent_holds_the_ground_truth_about_95_times_in_100():
    # Images of 1..9 pixels in the union, each in the intersection with probability 0.6: the IoU to find is 0.6.
    rng = np.random.default_rng(11)
    held = 0
    for seed in range(300):
        union = rng.integers(1, 10, size=80)
        counts = np.stack([rng.binomial(union, 0.6), union], axis=1).astype(float)
        low, high = percentile_interval(resample(counts, ratio, samples=300, seed=seed))
        held += bool(low[0] <= 0.6 <= high[0])
    # 300 trials: a standard error of 1.3 points; small samples are held a little too seldom.
    assert 0.90 <= held / 300 <= 0.985
