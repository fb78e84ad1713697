"""Both metrics of the Medical Segmentation Decathlon over the same volumes: Dice, and NSD at the task's tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from segkit.metrics.label_pairs import IntArray
from segkit.metrics.state import reading_saved_counts
from segkit.metrics.volume_dice import VolumeDice, flatten
from segkit.metrics.volume_nsd import VolumeNSD
from segkit.structures import IGNORE_LABEL


class VolumeScores:
    """`VolumeDice`, and if there is a tolerance, `VolumeNSD`.

    Attributes:
        dice: Dice; slices can be added one by one.
        nsd: NSD of whole volumes; None without a tolerance.
    """

    def __init__(
        self,
        names: Sequence[str],
        tolerance_mm: float | None = None,
        background: int | None = 0,
        ignore_label: int = IGNORE_LABEL,
    ) -> None:
        """Start without volumes.

        Args:
            names: C names, one per label 0..C-1.
            tolerance_mm: The tolerance of NSD in mm, None to leave NSD out.
            background: The label without metrics; None if every label has them.
            ignore_label: The ground truth label of voxels that are not scored; no class.

        Raises:
            ValueError: As `VolumeDice` and `VolumeNSD` raise.
            DatasetError: Two classes have one name.
        """
        self.names = tuple(names)
        self.dice = VolumeDice(names, background, ignore_label)
        self.nsd = None if tolerance_mm is None else VolumeNSD(names, tolerance_mm, background, ignore_label)

    def update(
        self, volume: str, ground_truth: IntArray, prediction: IntArray, spacing_mm: tuple[float, float, float]
    ) -> None:
        """Count one whole volume.

        Args:
            volume: Name of the volume.
            ground_truth: (X, Y, Z) integer labels, 0..C-1 and `ignore_label`.
            prediction: (X, Y, Z) integer labels, 0..C-1.
            spacing_mm: Edge lengths of a voxel along these axes in mm.

        Raises:
            DatasetError: As `VolumeDice.update` and `VolumeNSD.update` raise.
            ValueError: As `VolumeDice.update` and `VolumeNSD.update` raise.
            ConfigError: As `VolumeNSD.update` raises.
        """
        if self.nsd is not None:
            self.nsd.update(volume, ground_truth, prediction, spacing_mm)
        self.dice.update(volume, 0, *flatten(ground_truth, prediction, f"volume {volume!r}"))

    def merge(self, other: VolumeScores) -> None:
        """Add another shard's volumes.

        Args:
            other: A metric with the same names and options.

        Raises:
            DatasetError: As `VolumeDice.merge` and `VolumeNSD.merge` raise.
            ValueError: The names or the options differ.
        """
        tolerances = [None if scores.nsd is None else scores.nsd.tolerance_mm for scores in (self, other)]
        if tolerances[0] != tolerances[1]:
            raise ValueError(f"both must have one tolerance, got {tolerances[0]} and {tolerances[1]}")
        self.dice.merge(other.dice)
        if self.nsd is not None and other.nsd is not None:
            self.nsd.merge(other.nsd)

    def compute(self) -> dict[str, Any]:
        """Compute the metrics over all volumes; no order of volumes or shards moves a bit.

        Returns:
            The values of `VolumeDice.compute` and `VolumeNSD.compute`, the means first. Without a tolerance there is no
            NSD.
        """
        dice = self.dice.compute()
        if self.nsd is None:
            return dice
        nsd = self.nsd.compute()
        per_class = {name: {**row, **nsd["per_class"][name]} for name, row in dice["per_class"].items()}
        return {"mDice": dice["mDice"], "mNSD": nsd["mNSD"], **dice, **nsd, "per_class": per_class}

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what `from_state` needs to build the same metric.

        Returns:
            A header for JSON, and arrays of numbers.
        """
        header, arrays = self.dice.state()
        if self.nsd is None:
            return {"dice": header, "nsd": None}, arrays
        nsd_header, nsd_arrays = self.nsd.state()
        return {"dice": header, "nsd": nsd_header}, {**arrays, **nsd_arrays}

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> VolumeScores:
        """Build the metric that `state` described.

        Args:
            header: The first result of `state`.
            arrays: The second result of `state`.

        Returns:
            The metric.

        Raises:
            DatasetError: The arguments are not such a state.
        """
        with reading_saved_counts("volumes"):
            dice = VolumeDice.from_state(header["dice"], arrays)
            nsd = None if header["nsd"] is None else VolumeNSD.from_state(header["nsd"], arrays)
            if nsd is not None and (nsd.names, nsd.background) != (dice.names, dice.background):
                raise ValueError("Dice and NSD have other classes")
            metric = cls(dice.names)
            metric.dice, metric.nsd = dice, nsd
        return metric
