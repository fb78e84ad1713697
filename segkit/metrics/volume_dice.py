"""Dice of each class over whole volumes, then over volumes: the metric of the Medical Segmentation Decathlon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import IntArray
from segkit.metrics.semantic_iou import SemanticIoU
from segkit.metrics.state import reading_saved_counts
from segkit.structures import IGNORE_LABEL
from segkit.utils.errors import DatasetError

VoxelCounts = NDArray[np.int64]


class VolumeSummary(NamedTuple):
    """A metric of a class over volumes.

    Attributes:
        mean: Mean over the volumes that define it, None if none does.
        std: Standard deviation over them, divided by their number.
        lowest: The lowest value.
        lowest_volume: The volume of the lowest value, of equal ones the first by name.
        volumes: Number of volumes that define it.
    """

    mean: float | None
    std: float | None
    lowest: float | None
    lowest_volume: str | None
    volumes: int


class VolumeDice:
    """Dice = 2 TP / (2 TP + FP + FN) of each class in each volume, averaged over volumes.

    Sources: Dice 1945, "Measures of the amount of ecologic association between species"; Antonelli et al. 2022, "The
    Medical Segmentation Decathlon". A volume is added slice by slice, in any order. Dice is not defined for a class
    that neither ground truth nor prediction of the volume has; it is 0 for a class that is only predicted. Pixels of
    `ignore_label` are left out first.

    The state: for each volume (3, C) int64, the correct, ground truth and predicted voxels of each class, and which
    slices were counted. An instance can be pickled.
    """

    def __init__(self, names: Sequence[str], background: int | None = 0, ignore_label: int = IGNORE_LABEL) -> None:
        """Start without volumes.

        Args:
            names: C names, one per label 0..C-1.
            background: The label without a Dice, left out of the means; None if every label has one.
            ignore_label: The ground truth label of pixels that are not scored; no class.

        Raises:
            ValueError: `background` is no label, or as `SemanticIoU` raises.
            DatasetError: Two classes have one name.
        """
        SemanticIoU(names, ignore_label)  # checks them
        if background is not None and not 0 <= background < len(names):
            raise ValueError(f"background must be None or a class, 0..{len(names) - 1}, got {background}")
        self.names = tuple(names)
        self.background = background
        self.ignore_label = ignore_label
        self._counts: dict[str, VoxelCounts] = {}
        self._slices: set[tuple[str, int]] = set()

    def __len__(self) -> int:
        """The number of volumes."""
        return len(self._counts)

    def update(self, volume: str, slice_index: int, ground_truth: IntArray, prediction: IntArray) -> None:
        """Count one slice.

        Args:
            volume: Name of the volume.
            slice_index: Index of the slice in the volume.
            ground_truth: (H, W) integer labels, 0..C-1 and `ignore_label`.
            prediction: (H, W) integer labels, 0..C-1.

        Raises:
            DatasetError: The slice was counted before, or as `SemanticIoU.update` raises. Nothing is counted then.
            ValueError: As `SemanticIoU.update` raises. Nothing is counted then.
        """
        where = f"slice {slice_index} of volume {volume!r}"
        if (volume, slice_index) in self._slices:
            remedy = "score each slice once"
            raise DatasetError("expected every slice once, got it a second time", where=where, remedy=remedy)
        pixels = SemanticIoU(self.names, self.ignore_label)
        pixels.update(ground_truth, prediction, where)
        table = pixels.confusion
        self._add(volume, np.stack([table.diagonal(), table.sum(axis=0), table.sum(axis=1)]))
        self._slices.add((volume, slice_index))

    def merge(self, other: VolumeDice) -> None:
        """Add another shard's slices.

        Args:
            other: A metric with the same names, background and ignored label.

        Raises:
            DatasetError: Both hold a slice. Nothing is added then.
            ValueError: The names, the background or the ignored label differ.
        """
        if (self.names, self._options()) != (other.names, other._options()):
            raise ValueError("other must have the names, background and ignore_label of this VolumeDice, they differ")
        if common := sorted(self._slices & other._slices):
            volume, slice_index = common[0]
            problem = f"expected shards without common slices, got this and {len(common) - 1} more in both"
            where = f"slice {slice_index} of volume {volume!r}"
            raise DatasetError(problem, where=where, remedy="score each slice in one shard only")
        for volume, counts in other._counts.items():
            self._add(volume, counts)
        self._slices |= other._slices

    def compute(self) -> dict[str, Any]:
        """Compute the metrics over all volumes; no order of slices, volumes or shards moves a bit.

        Returns:
            mDice: mean over classes of Dice. `Dice-<name>`: Dice of a class.
            `per_class`: name -> {Dice: mean over the volumes that define it, Dice_std: standard deviation over them
            (divided by their number), lowest: of them, lowest_volume: its name, of equal ones the first by name,
            volumes: their number}.
            In percent (float64), None if not defined, without the background.
        """
        per_volume = self.per_volume()
        names = self._scored_names().values()
        rows = {name: summarize({volume: row[name] for volume, row in per_volume.items()}) for name in names}
        per_class = {
            name: {
                "Dice": row.mean,
                "Dice_std": row.std,
                "lowest": row.lowest,
                "lowest_volume": row.lowest_volume,
                "volumes": row.volumes,
            }
            for name, row in rows.items()
        }
        dice = {f"Dice-{name}": row.mean for name, row in rows.items()}
        defined = [mean for mean in dice.values() if mean is not None]
        return {"mDice": mean_of(defined), **dice, "per_class": per_class}

    def per_volume(self) -> dict[str, dict[str, float | None]]:
        """Compute the Dice of each volume.

        Returns:
            Volume -> class -> Dice in percent, None if neither map has the class; volumes by name.
        """
        names = self._scored_names()
        return {
            volume: {name: _compute_dice(*self._counts[volume][:, label].tolist()) for label, name in names.items()}
            for volume in sorted(self._counts)
        }

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what `from_state` needs to build the same metric.

        Returns:
            A header for JSON, `counts` (volumes, 3, C) int64, and `slices` (S, 2) int64, position in `volumes` of the
            header and index of each slice.
        """
        volumes = [*self._counts]
        header = {"names": [*self.names], "options": self._options(), "volumes": volumes}
        positions = {volume: position for position, volume in enumerate(volumes)}
        slices = sorted((positions[volume], index) for volume, index in self._slices)
        return header, {
            "counts": np.array([*self._counts.values()], dtype=np.int64).reshape(-1, 3, len(self.names)),
            "slices": np.array(slices, dtype=np.int64).reshape(-1, 2),
        }

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> VolumeDice:
        """Build the metric that `state` described.

        Args:
            header: The first result of `state`.
            arrays: The second result of `state`.

        Returns:
            The metric.

        Raises:
            DatasetError: The arguments are not such a state.
        """
        with reading_saved_counts("Dice of volumes"):
            metric = cls(header["names"], **header["options"])
            volumes = [str(volume) for volume in header["volumes"]]
            counts, slices = arrays["counts"], arrays["slices"]
            if counts.dtype != np.int64 or counts.shape != (len(volumes), 3, len(metric.names)):
                raise ValueError("counts has another dtype or shape")
            if slices.dtype != np.int64 or slices.ndim != 2 or slices.shape[1] != 2 or (slices < 0).any():
                raise ValueError("slices has another dtype, shape or range")
            if (counts < 0).any() or (counts[:, 0] > counts[:, 1:].min(axis=1)).any():
                raise ValueError("counts must be numbers of voxels, the correct ones the smallest")
            metric._counts = dict(zip(volumes, counts, strict=True))
            metric._slices = {(volumes[position], index) for position, index in slices.tolist()}
        return metric

    def _add(self, volume: str, counts: VoxelCounts) -> None:
        self._counts[volume] = self._counts[volume] + counts if volume in self._counts else counts

    def _scored_names(self) -> dict[int, str]:
        return {label: name for label, name in enumerate(self.names) if label != self.background}

    def _options(self) -> dict[str, Any]:
        return {"background": self.background, "ignore_label": self.ignore_label}


def _compute_dice(correct: int, gt_voxels: int, pred_voxels: int) -> float | None:
    return 100 * 2 * correct / (gt_voxels + pred_voxels) if gt_voxels + pred_voxels else None


def summarize(value_by_volume: Mapping[str, float | None]) -> VolumeSummary:
    """Summarize a class over the volumes that define its metric.

    Args:
        value_by_volume: Volume -> metric, None if it is not defined; sorted by the volumes' names.

    Returns:
        The summary.
    """
    values = {volume: value for volume, value in value_by_volume.items() if value is not None}
    mean = mean_of([*values.values()])
    variance = None if mean is None else mean_of([(value - mean) ** 2 for value in values.values()])
    lowest = min(values, key=values.__getitem__, default=None)
    return VolumeSummary(
        mean,
        None if variance is None else math.sqrt(variance),
        None if lowest is None else values[lowest],
        lowest,
        len(values),
    )


def flatten(ground_truth: IntArray, prediction: IntArray, where: object) -> tuple[IntArray, IntArray]:
    """Turn two volumes into one slice each.

    Args:
        ground_truth: (X, Y, Z).
        prediction: (X, Y, Z).
        where: The place for the message.

    Returns:
        Both as (X, Y * Z).

    Raises:
        DatasetError: They differ in size.
    """
    if ground_truth.shape != prediction.shape:
        expected, got = (" x ".join(map(str, labels.shape)) for labels in (ground_truth, prediction))
        problem = f"expected ground truth and prediction of one size, got {expected} and {got} voxels"
        raise DatasetError(problem, where=where)
    return ground_truth.reshape(len(ground_truth), -1), prediction.reshape(len(prediction), -1)


def mean_of(values: Sequence[float]) -> float | None:
    """The mean, independent of the order; None of no values."""
    return math.fsum(values) / len(values) if values else None
