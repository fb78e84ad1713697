"""Dice over whole volumes: by hand, over shards, and against counting voxel by voxel."""

import itertools
import math
import pickle
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics.volume_dice import VolumeDice
from segkit.utils.errors import DatasetError

NAMES = ("background", "anterior", "posterior")


def counted(*slices, **options):
    """slices: (volume, index, ground truth, prediction)."""
    metric = VolumeDice(NAMES, **options)
    for volume, index, ground_truth, prediction in slices:
        metric.update(volume, index, np.array(ground_truth), np.array(prediction))
    return metric


TWO_VOLUMES = [
    ("b", 0, [[0, 1, 1, 1]], [[0, 1, 1, 0]]),
    ("b", 1, [[0, 0, 1, 2]], [[0, 0, 1, 1]]),
    ("a", 7, [[0, 1, 255, 255]], [[2, 1, 1, 2]]),
]


def test_two_volumes_by_hand():
    # b: anterior: 4 true, 4 predicted, 3 right: 6 / 8 = 75. posterior: 1 true, 0 predicted: 0.
    # a: anterior: 1 right of 1 and 1 (the void pixel is left out): 100. posterior: 0 true, 1 predicted: 0.
    metric = counted(*TWO_VOLUMES)
    assert len(metric) == 2
    per_volume = metric.per_volume()
    assert per_volume == {"a": {"anterior": 100.0, "posterior": 0.0}, "b": {"anterior": 75.0, "posterior": 0.0}}
    assert list(per_volume) == ["a", "b"]
    # anterior: mean 87.5, both 12.5 off. posterior: both 0, the first by name is the lowest.
    assert metric.compute() == {
        "mDice": 43.75,
        "Dice-anterior": 87.5,
        "Dice-posterior": 0.0,
        "per_class": {
            "anterior": {"Dice": 87.5, "Dice_std": 12.5, "lowest": 75.0, "lowest_volume": "b", "volumes": 2},
            "posterior": {"Dice": 0.0, "Dice_std": 0.0, "lowest": 0.0, "lowest_volume": "a", "volumes": 2},
        },
    }


def test_a_volume_counts_as_one_however_many_slices_it_has():
    # b: 3 right, 4 true, 3 predicted: 6 / 7 (its slices alone: 100 and 0). a: 100. Pooled it would be 8 / 9.
    metric = counted(
        ("b", 0, [[1, 1, 1]], [[1, 1, 1]]), ("b", 1, [[1, 0, 0]], [[0, 0, 0]]), ("a", 0, [[1, 0]], [[1, 0]])
    )
    assert metric.compute()["Dice-anterior"] == pytest.approx((600 / 7 + 100) / 2, abs=1e-12)


def test_a_class_in_neither_map_has_no_dice():
    # posterior is in a alone: its mean is over a, 2 * 1 / (1 + 2). anterior is nowhere: None, and not in mDice.
    metric = counted(("a", 0, [[2, 0]], [[2, 2]]), ("b", 0, [[0, 0]], [[0, 0]]))
    assert metric.per_volume()["b"] == {"anterior": None, "posterior": None}
    results = metric.compute()
    nothing = {"Dice": None, "Dice_std": None, "lowest": None, "lowest_volume": None, "volumes": 0}
    assert results["per_class"]["anterior"] == nothing
    assert results["Dice-anterior"] is None
    assert results["mDice"] == results["Dice-posterior"] == 200 / 3
    assert results["per_class"]["posterior"]["volumes"] == 1


@pytest.mark.parametrize("slices", [[], [("a", 0, [[255, 255]], [[1, 2]])], [("a", 0, [[]], [[]])]])
def test_nothing_counted_gives_none(slices):
    results = counted(*[(v, i, np.array(t, int), np.array(p, int)) for v, i, t, p in slices]).compute()
    assert (results["mDice"], results["Dice-anterior"], results["Dice-posterior"]) == (None, None, None)


def test_the_background_may_be_another_label_or_none():
    slices = [("a", 0, [[0, 0, 1, 2]], [[0, 1, 1, 2]])]
    # background: 2 * 1 / (2 + 1); anterior: 2 * 1 / (1 + 2); posterior: 100.
    assert counted(*slices, background=None).per_volume()["a"] == {
        "background": 200 / 3,
        "anterior": 200 / 3,
        "posterior": 100.0,
    }
    assert [*counted(*slices, background=2).per_volume()["a"]] == ["background", "anterior"]
    for background in (-1, 3):
        with pytest.raises(ValueError, match=f"background must be None or a class, 0..2, got {background}"):
            VolumeDice(NAMES, background)
    alone = VolumeDice(["background"])
    alone.update("a", 0, np.zeros((1, 1), int), np.zeros((1, 1), int))
    assert alone.compute() == {"mDice": None, "per_class": {}}


def test_another_label_may_be_ignored():
    # 255 is no label then.
    metric = counted(("a", 0, [[-1, 1, 1]], [[1, 1, 0]]), ignore_label=-1)
    assert metric.per_volume()["a"]["anterior"] == 200 / 3  # 1 right of 2 and 1
    with pytest.raises(DatasetError, match=r"expected ground truth labels 0\.\.2 or -1 \(ignored\), got 255"):
        metric.update("a", 1, np.array([[255]]), np.array([[0]]))


def test_merged_shards_in_any_order_equal_one_pass():
    whole = counted(*TWO_VOLUMES)
    for order in itertools.permutations(TWO_VOLUMES):
        shards = [pickle.loads(pickle.dumps(counted(slices))) for slices in order]
        for shard in shards[1:]:
            shards[0].merge(shard)
        assert shards[0].compute() == whole.compute()
        assert list(shards[0].per_volume()) == ["a", "b"]


def test_merging_does_not_change_the_other_metric():
    first, second = counted(), counted(TWO_VOLUMES[0])
    before = second.per_volume()
    first.merge(second)
    with pytest.raises(DatasetError, match="slice 0 of volume 'b': expected shards without common slices"):
        first.merge(second)
    first.update(*[np.array(x) if isinstance(x, list) else x for x in TWO_VOLUMES[1]])
    assert second.per_volume() == before


def test_a_slice_is_counted_once():
    metric = counted(*TWO_VOLUMES)
    before = metric.compute()
    again = np.zeros((1, 4), int)
    with pytest.raises(DatasetError, match=r"^slice 1 of volume 'b': expected every slice once, got it a second time"):
        metric.update("b", 1, again, again)
    with pytest.raises(DatasetError, match=r"^slice 1 of volume 'b': expected shards without common slices, got this"):
        metric.merge(counted(("c", 0, again, again), ("b", 1, again, again)))
    assert metric.compute() == before


def test_invalid_slices_are_reported_and_not_counted():
    metric = counted(*TWO_VOLUMES)
    before = metric.compute()
    ground_truth = np.array([[0, 1]])
    with pytest.raises(
        DatasetError, match=r"^slice 3 of volume 'c': expected ground truth labels 0\.\.2 or 255 \(ignored\), got 4"
    ):
        metric.update("c", 3, np.array([[0, 4]]), ground_truth)
    with pytest.raises(DatasetError, match=r"^slice 3 of volume 'c': expected ground truth and prediction of one size"):
        metric.update("c", 3, ground_truth, ground_truth.T)
    with pytest.raises(ValueError, match=r"prediction must hold labels 0\.\.2, got 3"):
        metric.update("c", 3, ground_truth, ground_truth + 2)
    with pytest.raises(ValueError, match=r"ground_truth must be an .* integer numpy array"):
        metric.update("c", 3, ground_truth.astype(float), ground_truth)
    assert metric.compute() == before
    metric.update("c", 3, ground_truth, ground_truth)
    assert len(metric) == 3


def test_other_options_do_not_merge_and_bad_names_are_rejected():
    for other in (VolumeDice(NAMES[:2]), VolumeDice(NAMES, None), VolumeDice(NAMES, ignore_label=-1)):
        with pytest.raises(ValueError, match="other must have the names, background and ignore_label of this"):
            VolumeDice(NAMES).merge(other)
    with pytest.raises(DatasetError, match="expected distinct names of classes"):
        VolumeDice(["a", "b", "b"])
    with pytest.raises(ValueError, match="names must hold at least one class"):
        VolumeDice([])
    with pytest.raises(ValueError, match="ignore_label must not be a class"):
        VolumeDice(NAMES, ignore_label=2)


@st.composite
def some_slices(draw):
    places = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), unique=True, max_size=8))
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=4))
    maps = hnp.arrays(np.uint8, shape, elements=st.integers(0, 2))
    ground_truths = hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255]))
    return [(volume, index, draw(ground_truths), draw(maps)) for volume, index in places]


def slow_dice(slices, label):
    """volume -> Dice in percent of one label, voxel by voxel."""
    dice = {}
    for volume in sorted({volume for volume, *_ in slices}):
        right = wrong = 0
        for name, _, ground_truth, prediction in slices:
            for true, predicted in zip(ground_truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
                if name == volume and true != 255:
                    right += true == predicted == label
                    wrong += (true == label) != (predicted == label)
        if right or wrong:
            dice[volume] = 100 * 2 * right / (2 * right + wrong)
    return dice


@settings(deadline=None, max_examples=100)
@given(some_slices(), st.randoms(use_true_random=False))
def test_equals_counting_voxel_by_voxel(slices, random):
    metric = counted(*slices)
    per_volume, results = metric.per_volume(), metric.compute()
    means = []
    for label, name in ((1, "anterior"), (2, "posterior")):
        expected = slow_dice(slices, label)
        assert {volume: row[name] for volume, row in per_volume.items() if row[name] is not None} == expected
        row = results["per_class"][name]
        assert row["volumes"] == len(expected)
        if expected:
            values = [*expected.values()]
            means.append(statistics.fmean(values))
            assert math.isclose(results[f"Dice-{name}"], means[-1], abs_tol=1e-9)
            assert math.isclose(row["Dice_std"], statistics.pstdev(values), abs_tol=1e-9)
            assert row["lowest"] == min(values) == expected[row["lowest_volume"]]
        else:
            assert results[f"Dice-{name}"] is None
    assert results["mDice"] == (pytest.approx(statistics.fmean(means), abs=1e-9) if means else None)
    mixed = random.sample(slices, len(slices))
    first, second = counted(*mixed[::2]), counted(*mixed[1::2])
    first.merge(second)
    assert first.compute() == results  # to the last bit
