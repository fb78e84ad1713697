"""The probability that a query is masked, by the progress of the training."""

from __future__ import annotations

import pytest

from segkit.modeling.queries.annealing import build_annealing
from segkit.utils.errors import ConfigError

COCO_ITERATIONS = 88692  # 12 epochs of 7391 batches


@pytest.mark.parametrize(
    ("starts", "ends"),
    [  # of the official configs for COCO: L, g, and S or B
        ([14782, 29564, 44346, 59128], [29564, 44346, 59128, 73910]),
        ([14782, 25869, 36955, 48042, 59128], [29564, 40651, 51737, 62824, 73910]),
        ([14782, 36955, 59128], [29564, 51737, 73910]),
    ],
)
def test_the_default_is_the_published_schedule(starts: list[int], ends: list[int]) -> None:
    annealing = build_annealing(len(starts))
    assert [share * COCO_ITERATIONS for share in annealing.starts] == pytest.approx(starts, abs=0.51)
    assert [share * COCO_ITERATIONS for share in annealing.ends] == pytest.approx(ends, abs=0.51)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, [1, 1]),
        (0.2, [1, 1]),  # the start itself: (1 - 0) ** 0.9
        (0.3, [0.5**0.9, 1]),
        (0.375, [0.125**0.9, 1]),
        (0.4, [0, 1]),
        (0.9, [0, 0.2**0.9]),
        (1.0, [0, 0]),
    ],
)
def test_the_probability_falls_from_start_to_end(progress: float, expected: list[float]) -> None:
    annealing = build_annealing(2, [0.2, 0.5], [0.4, 1.0])
    assert annealing.compute_probabilities(progress) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("starts", "ends", "message"),
    [
        ([0.1], [], "expected 2 shares of the training, one for each block with queries, got 1.*ANNEALING_STARTS"),
        ([0.5, 0.5], [0.4, 0.6], "expected 0 <= start <= end <= 1"),
        ([3000, 4000], [5000, 6000], "give shares of the training, not iterations"),
    ],
)
def test_wrong_schedules_are_clear_errors(starts: list[float], ends: list[float], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_annealing(2, starts, ends)
    error.match(message) if "*" not in message else error.match(message.split(".*")[0])
