"""Dice of each class over whole volumes, then over volumes: the Medical Segmentation Decathlon's measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import IntArray
from segkit.metrics.semantic_iou import SemanticIoU
from segkit.structures import IGNORE_LABEL
from segkit.utils.errors import DatasetError

Counts = NDArray[np.int64]


class VolumeDice:
    """Dice = 2 TP / (2 TP + FP + FN) of each class in each volume (Dice 1945, "Measures of the amount of ecologic
    association between species"), averaged over volumes (Antonelli et al. 2022, "The Medical Segmentation Decathlon").

    A volume is told slice by slice, in any order. Dice is undefined where a class is in neither its ground truth nor
    its prediction; a volume without the class in which it is predicted has 0. Pixels of `ignore_label` are left out
    first.

    The state: for each volume (3, C) int64, the voxels of each class that are right, true and predicted, and which
    slices were counted. An instance pickles as it is.
    """

    def __init__(self, names: Sequence[str], background: int | None = 0, ignore_label: int = IGNORE_LABEL) -> None:
        """names: one per label 0..C-1. background: the label that has no Dice and is in no mean; None: every label has.

        Raises ValueError where `background` is no label, and what `SemanticIoU` raises for names and ignore_label.
        """
        SemanticIoU(names, ignore_label)  # says what is wrong with them
        if background is not None and not 0 <= background < len(names):
            raise ValueError(f"background must be None or a class, 0..{len(names) - 1}, got {background}")
        self.names = tuple(names)
        self.background = background
        self.ignore_label = ignore_label
        self._counts: dict[str, Counts] = {}
        self._slices: set[tuple[str, int]] = set()

    def __len__(self) -> int:
        """The number of volumes."""
        return len(self._counts)

    def update(self, volume: str, slice_index: int, ground_truth: IntArray, prediction: IntArray) -> None:
        """Count one slice: (H, W) integer labels 0..C-1, and `ignore_label` in the ground truth.

        Raises, and counts nothing, DatasetError where the slice was counted before; else as `SemanticIoU.update` does.
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
        """Add another shard's slices; DatasetError, with nothing added, where both hold a slice, ValueError where the
        names, the background or the ignored label differ."""
        if self._options() != other._options():
            raise ValueError("other must have the names, background and ignore_label of this VolumeDice, they differ")
        if twice := sorted(self._slices & other._slices):
            (volume, slice_index), *more = twice
            problem = f"expected shards without common slices, got this and {len(more)} more in both"
            where = f"slice {slice_index} of volume {volume!r}"
            raise DatasetError(problem, where=where, remedy="score each slice in one shard only")
        for volume, counts in other._counts.items():
            self._add(volume, counts)
        self._slices |= other._slices

    def compute(self) -> dict[str, Any]:
        """mDice, `Dice-<name>` and `per_class`: name -> Dice, Dice_std, lowest, lowest_volume, volumes.

        Dice is the mean over the volumes where it is defined, `volumes` their number, Dice_std the standard deviation
        over them (divided by their number), lowest the worst of them and lowest_volume its name, of equal ones the
        first by name; mDice is the mean over classes of Dice. In percent (float64), None where nothing defines them;
        without the background. Sums are rounded once: no order of slices, volumes or shards moves a bit.
        """
        per_volume = self.per_volume()
        per_class = {
            name: _over_volumes(
                {volume: found for volume, row in per_volume.items() if (found := row[name]) is not None}
            )
            for name in self._judged().values()
        }
        means = {name: row["Dice"] for name, row in per_class.items()}
        defined = [mean for mean in means.values() if mean is not None]
        flat = {f"Dice-{name}": mean for name, mean in means.items()}
        return {"mDice": _mean(defined), **flat, "per_class": per_class}

    def per_volume(self) -> dict[str, dict[str, float | None]]:
        """Volume -> class -> Dice in percent, None where the class is in neither map; by the volumes' names."""
        judged = self._judged()
        return {
            volume: {name: _dice(*self._counts[volume][:, label].tolist()) for label, name in judged.items()}
            for volume in sorted(self._counts)
        }

    def _add(self, volume: str, counts: Counts) -> None:
        self._counts[volume] = self._counts[volume] + counts if volume in self._counts else counts

    def _judged(self) -> dict[int, str]:
        return {label: name for label, name in enumerate(self.names) if label != self.background}

    def _options(self) -> tuple[Any, ...]:
        return self.names, self.background, self.ignore_label


def _dice(right: int, true: int, predicted: int) -> float | None:
    return 100 * 2 * right / (true + predicted) if true + predicted else None


def _over_volumes(dice_of: Mapping[str, float]) -> dict[str, Any]:
    """dice_of: by the volumes' names."""
    values = [*dice_of.values()]
    mean = _mean(values)
    spread = None if mean is None else _mean([(value - mean) ** 2 for value in values])
    lowest = min(dice_of, key=dice_of.__getitem__, default=None)
    return {
        "Dice": mean,
        "Dice_std": None if spread is None else math.sqrt(spread),
        "lowest": None if lowest is None else dice_of[lowest],
        "lowest_volume": lowest,
        "volumes": len(values),
    }


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
