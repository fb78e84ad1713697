"""NSD (normalised surface distance) of each class over whole volumes, as in the Medical Segmentation Decathlon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import IntArray
from segkit.metrics.semantic_iou import SemanticIoU
from segkit.metrics.state import reading_saved_counts
from segkit.metrics.surface_elements import compute_surface_overlap, find_box
from segkit.metrics.volume_dice import VolumeDice, flatten, mean_of, summarize
from segkit.structures import IGNORE_LABEL
from segkit.utils.errors import DatasetError

Areas = NDArray[np.float64]


class VolumeNSD:
    """The share of both surfaces that is within a tolerance of the other surface, averaged over volumes.

    NSD = (S_gt' + S_pred') / (S_gt + S_pred), S' the part of a surface within the tolerance. Sources: Nikolov et al.
    2018, "Deep learning to achieve clinically applicable segmentation of head and neck anatomy for radiotherapy", as
    surface Dice; Antonelli et al. 2022, "The Medical Segmentation Decathlon". The surfaces have areas, as in the
    package `surface_distance`, see `segkit.metrics.surface_elements`. NSD is not defined for a class that neither
    ground truth nor prediction of the volume has; it is 0 if only one of them has it. Where the ground truth is
    `ignore_label`, the prediction holds no class either.

    The state: for each volume (2, C) float64, the area within the tolerance and all area of each class in mm2. An
    instance can be pickled.
    """

    def __init__(
        self, names: Sequence[str], tolerance_mm: float, background: int | None = 0, ignore_label: int = IGNORE_LABEL
    ) -> None:
        """Start without volumes.

        Args:
            names: C names, one per label 0..C-1.
            tolerance_mm: The tolerance in mm, at least 0; a distance equal to it is within.
            background: The label without an NSD; None if every label has one.
            ignore_label: The ground truth label of voxels that are not scored; no class.

        Raises:
            ValueError: The tolerance is negative or not finite, or as `VolumeDice` raises.
            DatasetError: Two classes have one name.
        """
        VolumeDice(names, background, ignore_label)  # checks them
        if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
            raise ValueError(f"tolerance_mm must be finite and at least 0, got {tolerance_mm}")
        self.names = tuple(names)
        self.tolerance_mm = float(tolerance_mm)
        self.background = background
        self.ignore_label = ignore_label
        self._areas: dict[str, Areas] = {}

    def __len__(self) -> int:
        """The number of volumes."""
        return len(self._areas)

    def update(
        self, volume: str, ground_truth: IntArray, prediction: IntArray, spacing_mm: tuple[float, float, float]
    ) -> None:
        """Measure one volume.

        Args:
            volume: Name of the volume.
            ground_truth: (X, Y, Z) integer labels, 0..C-1 and `ignore_label`.
            prediction: (X, Y, Z) integer labels, 0..C-1.
            spacing_mm: Edge lengths of a voxel along these axes in mm.

        Raises:
            DatasetError: The volume was measured before, a spacing is not positive, or as `SemanticIoU.update` raises.
                Nothing is added then.
            ValueError: As `SemanticIoU.update` raises. Nothing is added then.
            ConfigError: scipy is not installed.
        """
        where = f"volume {volume!r}"
        if volume in self._areas:
            problem = "expected every volume once, got it a second time"
            raise DatasetError(problem, where=where, remedy="score each volume once")
        if not all(math.isfinite(spacing) and spacing > 0 for spacing in spacing_mm):
            problem = f"expected voxels of positive size, got {' x '.join(f'{spacing:g}' for spacing in spacing_mm)} mm"
            raise DatasetError(problem, where=where, remedy="repair the affine of the volume")
        SemanticIoU(self.names, self.ignore_label).update(
            *flatten(ground_truth, prediction, where), where
        )  # checks them
        is_counted = ground_truth != self.ignore_label
        areas = np.zeros((2, len(self.names)))
        scored = [label for label in range(len(self.names)) if label != self.background]
        box = find_box((np.isin(ground_truth, scored) | np.isin(prediction, scored)) & is_counted)
        for label in scored if box is not None else ():
            masks = ground_truth[box] == label, (prediction[box] == label) & is_counted[box]
            overlap = compute_surface_overlap(*masks, spacing_mm, self.tolerance_mm)
            areas[:, label] = (
                overlap.gt_within_mm2 + overlap.pred_within_mm2,
                overlap.gt_mm2 + overlap.pred_mm2,
            )
        self._areas[volume] = areas

    def merge(self, other: VolumeNSD) -> None:
        """Add another shard's volumes.

        Args:
            other: A metric with the same names, tolerance, background and ignored label.

        Raises:
            DatasetError: Both hold a volume. Nothing is added then.
            ValueError: The names or the options differ.
        """
        if (self.names, self._options()) != (other.names, other._options()):
            raise ValueError("other must have the names, tolerance, background and ignore_label of this VolumeNSD")
        if common := sorted(self._areas.keys() & other._areas.keys()):
            problem = f"expected shards without common volumes, got this and {len(common) - 1} more in both"
            raise DatasetError(problem, where=f"volume {common[0]!r}", remedy="score each volume in one shard only")
        self._areas.update(other._areas)

    def compute(self) -> dict[str, Any]:
        """Compute the metrics over all volumes; no order of volumes or shards moves a bit.

        Returns:
            mNSD: mean over classes of NSD. `NSD-<name>`: NSD of a class.
            `per_class`: name -> {NSD: mean over the volumes that define it, NSD_std: standard deviation over them
            (divided by their number), NSD_lowest: of them, NSD_lowest_volume: its name, of equal ones the first by
            name}. In percent (float64), None if not defined, without the background.
        """
        per_volume = self.per_volume()
        scored = [name for label, name in enumerate(self.names) if label != self.background]
        rows = {name: summarize({volume: row[name] for volume, row in per_volume.items()}) for name in scored}
        per_class = {
            name: {
                "NSD": row.mean,
                "NSD_std": row.std,
                "NSD_lowest": row.lowest,
                "NSD_lowest_volume": row.lowest_volume,
            }
            for name, row in rows.items()
        }
        nsd = {f"NSD-{name}": row.mean for name, row in rows.items()}
        return {"mNSD": mean_of([mean for mean in nsd.values() if mean is not None]), **nsd, "per_class": per_class}

    def per_volume(self) -> dict[str, dict[str, float | None]]:
        """Compute the NSD of each volume.

        Returns:
            Volume -> class -> NSD in percent, None if neither map has the class; volumes by name.
        """
        return {
            volume: {
                name: 100 * float(within / area) if area else None
                for label, (name, within, area) in enumerate(zip(self.names, *self._areas[volume], strict=True))
                if label != self.background
            }
            for volume in sorted(self._areas)
        }

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what `from_state` needs to build the same metric.

        Returns:
            A header for JSON, and `areas` (volumes, 2, C) float64.
        """
        header = {"names": [*self.names], "options": self._options(), "volumes": [*self._areas]}
        return header, {"areas": np.array([*self._areas.values()]).reshape(-1, 2, len(self.names))}

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> VolumeNSD:
        """Build the metric that `state` described.

        Args:
            header: The first result of `state`.
            arrays: The second result of `state`.

        Returns:
            The metric.

        Raises:
            DatasetError: The arguments are not such a state.
        """
        with reading_saved_counts("NSD"):
            metric = cls(header["names"], **header["options"])
            areas = arrays["areas"]
            if areas.dtype != np.float64 or areas.shape != (len(header["volumes"]), 2, len(metric.names)):
                raise ValueError("areas has another dtype or shape")
            if not (np.isfinite(areas).all() and (areas >= 0).all()):
                raise ValueError("areas must be 0 or more")
            metric._areas = {str(volume): table for volume, table in zip(header["volumes"], areas, strict=True)}
        return metric

    def _options(self) -> dict[str, Any]:
        return {
            "tolerance_mm": self.tolerance_mm,
            "background": self.background,
            "ignore_label": self.ignore_label,
        }
