"""The stream of batches: what it contains, its groups, its place."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from segkit.engine.training.batches import BatchStream


def test_each_epoch_has_each_image_once_in_another_order() -> None:
    stream = BatchStream(np.zeros(6, dtype=int), 3, seed=1)
    batches = [*islice(stream.generate(), 4)]
    epochs = [[draw.image for batch in batches[start : start + 2] for draw in batch] for start in (0, 2)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4, 5]] * 2
    assert epochs[0] != epochs[1]
    assert {draw.epoch for draw in batches[2]} == {1}
    assert [*islice(BatchStream(np.zeros(6, dtype=int), 3, seed=2).generate(), 4)] != batches


def test_batches_have_one_group_and_no_image_is_lost() -> None:
    groups = np.array([0, 1, 0, 1, 0, 1, 0])  # four and three: batches of two leave images in the buckets
    batches = [*islice(BatchStream(groups, 2, seed=0).generate(), 7)]
    assert all(len({groups[draw.image] for draw in batch}) == 1 for batch in batches)
    assert Counter(draw.image for batch in batches for draw in batch) == dict.fromkeys(range(7), 2)  # 14 draws


def test_a_later_start_gives_the_rest() -> None:
    stream = BatchStream(np.array([0, 1, 1, 0, 1]), 2, seed=3, repeats=np.array([1, 2.5, 0, 1, 1]))
    assert [*islice(stream.generate(5), 6)] == [*islice(stream.generate(), 11)][5:]


def test_repeats_are_kept_whole_and_drawn_in_part() -> None:
    stream = BatchStream(np.zeros(3, dtype=int), 1, seed=0, shuffle=False, repeats=np.array([2, 0, 1.5]))
    draws = [batch[0] for batch in islice(stream.generate(), 400)]
    first_epoch = [(draw.image, draw.repetition) for draw in draws if draw.epoch == 0]
    assert first_epoch[:3] == [(0, 0), (0, 1), (2, 0)]
    counts = Counter(draw.image for draw in draws if draw.epoch < 100)
    assert (counts[0], counts[1]) == (200, 0)
    assert 130 <= counts[2] <= 170  # 100 and half of 100, a standard deviation of 5


@pytest.mark.parametrize(("size", "repeats"), [(0, None), (2, np.zeros(2))])
def test_no_image_to_draw_is_an_error(size: int, repeats: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="expected images"):
        BatchStream(np.zeros(size, dtype=int), 1, seed=0, repeats=repeats)
