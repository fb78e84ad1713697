"""NSD over whole volumes: by hand, over shards, and its state."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from segkit.metrics import VolumeNSD, VolumeScores
from segkit.utils.errors import DatasetError

pytest.importorskip("scipy.ndimage")
NAMES = ("background", "anterior", "posterior")
SPACING = (1.0, 2.0, 4.0)


def draw_slab(start: int, stop: int, label: int = 1) -> np.ndarray:
    """A slab of 2 x 2 voxels across the first axis."""
    labels = np.zeros((9, 2, 2), np.uint8)
    labels[start:stop] = label
    return labels


def build_volumes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    gone = draw_slab(0, 0)
    void = draw_slab(2, 4)
    void[6:] = 255
    return {
        "equal": (draw_slab(2, 5), draw_slab(2, 5)),
        "far": (draw_slab(0, 2), draw_slab(7, 9)),
        "missed": (draw_slab(2, 5), gone),
        "void": (void, draw_slab(2, 4) + draw_slab(6, 9, 2)),
        "neither": (gone, gone),
    }


def measure(volumes: dict[str, tuple[np.ndarray, np.ndarray]], tolerance_mm: float = 1) -> VolumeNSD:
    metric = VolumeNSD(NAMES, tolerance_mm)
    for name, (ground_truth, prediction) in volumes.items():
        metric.update(name, ground_truth, prediction, SPACING)
    return metric


def test_volumes_by_hand() -> None:
    metric = measure(build_volumes())
    # far: the nearest surfaces, behind voxel 1 and before voxel 7, are 5 mm apart. void: the prediction of posterior is
    # where nothing is scored.
    assert metric.per_volume() == {
        "equal": {"anterior": 100.0, "posterior": None},
        "far": {"anterior": 0.0, "posterior": None},
        "missed": {"anterior": 0.0, "posterior": None},
        "neither": {"anterior": None, "posterior": None},
        "void": {"anterior": 100.0, "posterior": None},
    }
    nothing = {"NSD": None, "NSD_std": None, "NSD_lowest": None, "NSD_lowest_volume": None}
    assert metric.compute() == {
        "mNSD": 50.0,
        "NSD-anterior": 50.0,
        "NSD-posterior": None,
        "per_class": {
            "anterior": {"NSD": 50.0, "NSD_std": 50.0, "NSD_lowest": 0.0, "NSD_lowest_volume": "far"},
            "posterior": nothing,
        },
    }


def test_a_bar_that_is_two_voxels_too_long() -> None:
    """Bars of one voxel across: ground truth 2..4, prediction 2..6.

    At each end of a bar are four points with a triangle of area c, at each voxel border inside it four with a
    rectangle of area r: 8 c + 8 r against 8 c + 16 r. The prediction's points on border 6 are 1 mm off, on 7 2 mm.
    """
    bars = np.zeros((2, 9, 1, 1), np.uint8)
    bars[0, 2:5], bars[1, 2:7] = 1, 1
    x, y, z = SPACING
    c, r = math.hypot(y * z / 8, x * z / 8, x * y / 8), x * math.hypot(y / 2, z / 2)
    for tolerance_mm, within in ((2, 16 * c + 24 * r), (1, 12 * c + 24 * r), (0.5, 12 * c + 20 * r)):
        nsd = measure({"bar": (bars[0], bars[1])}, tolerance_mm).per_volume()["bar"]["anterior"]
        assert nsd == pytest.approx(100 * within / (16 * c + 24 * r), rel=1e-12)


def test_shards_and_saved_states_merge_to_the_same_bits() -> None:
    volumes = build_volumes()
    whole = VolumeScores(NAMES, 1)
    shards = [VolumeScores(NAMES, 1) for _ in range(2)]
    for number, (name, (ground_truth, prediction)) in enumerate(volumes.items()):
        for scores in (whole, shards[number % 2]):
            scores.update(name, ground_truth, prediction, SPACING)
    saved = VolumeScores.from_state(*shards[1].state())
    sent = pickle.loads(pickle.dumps(shards[0]))
    saved.merge(sent)
    assert saved.compute() == whole.compute()
    assert [*whole.compute()][:4] == ["mDice", "mNSD", "Dice-anterior", "Dice-posterior"]
    assert whole.compute()["per_class"]["anterior"]["volumes"] == 4
    with pytest.raises(DatasetError, match=r"volume 'equal'.*shards without common"):
        saved.merge(sent)
    with pytest.raises(ValueError, match=r"both must have one tolerance, got 1\.0 and None"):
        saved.merge(VolumeScores(NAMES))


def test_invalid_volumes_are_refused_and_not_counted() -> None:
    metric = measure(build_volumes())
    slab = draw_slab(0, 2)
    with pytest.raises(DatasetError, match="volume 'far': expected every volume once"):
        metric.update("far", slab, slab, SPACING)
    with pytest.raises(DatasetError, match="volume 'flat': expected voxels of positive size, got 1 x 0 x 4 mm"):
        metric.update("flat", slab, slab, (1.0, 0.0, 4.0))
    with pytest.raises(DatasetError, match="volume 'cut': expected ground truth and prediction of one size"):
        metric.update("cut", slab, slab.reshape(9, 4, 1), SPACING)
    with pytest.raises(ValueError, match="tolerance_mm must be finite and at least 0, got nan"):
        VolumeNSD(NAMES, math.nan)
    header, arrays = metric.state()
    for changes in ({"areas": arrays["areas"][1:]}, {"areas": -arrays["areas"]}):
        with pytest.raises(DatasetError, match="expected saved counts of NSD, got others"):
            VolumeNSD.from_state(header, changes)
    assert len(metric) == 5
