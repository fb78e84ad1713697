"""The training targets of Panoptic-DeepLab, derived from a panoptic map (Cheng et al. 2020, sections 3.2 and 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segkit.data.augmentations.scene import SegmentMap
from segkit.structures import IGNORE_LABEL, IdRuns, Segment, SemanticSpace
from segkit.utils.errors import ConfigError

REACH = 3  # standard deviations after which a peak ends


@dataclass(frozen=True)
class CenterTargets:
    """Semantic map, heatmap of centers, offsets to them, and a weight of each pixel for each loss.

    They equal those of `PanopticDeepLabTargetGenerator` (detectron2/projects/panoptic_deeplab/target_generator.py),
    which visits the image several times for each segment. As there, a crowd has a peak and offsets too. The pixels of
    the crowd itself do not count in these losses.

    Attributes:
        sigma_px: Standard deviation of a peak.
        ignores_stuff: Whether offsets are trained on things only.
        small_area_px: Things with fewer pixels are small.
        small_weight: Weight of their pixels in the semantic loss; 1 for other pixels.
        ignores_crowds: Whether crowds are `IGNORE_LABEL` in the semantic map.

    Raises:
        ConfigError: A number is out of range.
    """

    sigma_px: int = 10
    ignores_stuff: bool = True
    small_area_px: int = 4096
    small_weight: float = 3
    ignores_crowds: bool = False

    def __post_init__(self) -> None:
        limits = {"GAUSSIAN_SIGMA": (self.sigma_px, 1), "SMALL_INSTANCE_AREA": (self.small_area_px, 0)}
        for key, (value, least) in {**limits, "SMALL_INSTANCE_WEIGHT": (self.small_weight, 0)}.items():
            if value < least:
                raise ConfigError(f"expected {least} or more, got {value}", where=f"INPUT.{key}")

    @classmethod
    def from_config(cls, cfg: Any) -> CenterTargets:
        """Read the options from cfg.INPUT.

        Args:
            cfg: a config with segkit's keys.

        Returns:
            The targets.

        Raises:
            ConfigError: a number is out of range.
        """
        return cls(
            sigma_px=cfg.INPUT.GAUSSIAN_SIGMA,
            ignores_stuff=cfg.INPUT.IGNORE_STUFF_IN_OFFSET,
            small_area_px=cfg.INPUT.SMALL_INSTANCE_AREA,
            small_weight=cfg.INPUT.SMALL_INSTANCE_WEIGHT,
            ignores_crowds=cfg.INPUT.IGNORE_CROWD_IN_SEMANTIC,
        )

    def __call__(self, segment_map: SegmentMap, space: SemanticSpace) -> dict[str, torch.Tensor]:
        """Derive the targets of an image.

        Args:
            segment_map: the panoptic map after all augmentations.
            space: the semantic channels.

        Returns:
            By the names of the reference: sem_seg (H, W) int64 channels; sem_seg_weights (H, W), center (H, W) in
            [0, 1], center_weights (1, H, W), offset (2, H, W) in pixels down and right, offset_weights (1, H, W), all
            float32.
        """
        segments = segment_map.segments
        runs = IdRuns.from_map(segment_map.numbers())
        rows, lefts = np.divmod(runs.starts.astype(np.int64), runs.size_hw[1])
        lengths = runs.lengths().astype(np.int64)
        # Numbers without a segment are void: position 0 of each table.
        numbers = np.where((runs.ids >= 0) & (runs.ids <= len(segments)), runs.ids, 0)
        table = _Table.build(self, segments, space)
        # Sums of integers below 2 ** 53 are exact in float64.
        areas_px = np.bincount(numbers, lengths, len(segments) + 1)
        sums_yx = (
            np.bincount(numbers, weights, len(segments) + 1)
            for weights in (rows * lengths, lefts * lengths + lengths * (lengths - 1) / 2)
        )
        centers_y, centers_x = (sums / np.maximum(areas_px, 1) for sums in sums_yx)
        is_small = table.isthing & (areas_px < self.small_area_px)

        def spread(values: NDArray[Any]) -> NDArray[Any]:
            """(H, W): each pixel's value of a table."""
            return np.repeat(values[numbers], lengths).reshape(runs.size_hw)

        offsets = np.empty((2, *runs.size_hw), dtype=np.float32)
        isthing = table.isthing[numbers]
        down = np.where(isthing, centers_y[numbers] - rows, 0).astype(np.float32)
        offsets[0] = np.repeat(down, lengths).reshape(runs.size_hw)
        np.subtract(spread(centers_x), np.arange(runs.size_hw[1]), out=offsets[1], casting="same_kind")
        offsets[1] *= spread(table.isthing)
        has_peak = np.flatnonzero(table.isthing & (areas_px > 0))
        points = [(round(centers_y[row]), round(centers_x[row])) for row in has_peak.tolist()]
        targets = {
            "sem_seg": spread(table.channels),
            "sem_seg_weights": spread(np.where(is_small, np.float32(self.small_weight), np.float32(1))),
            "center": self._draw_peaks(points, runs.size_hw),
            "center_weights": spread(table.center_weights)[None],
            "offset": offsets,
            "offset_weights": spread(table.offset_weights)[None],
        }
        return {name: torch.from_numpy(values) for name, values in targets.items()}

    @cached_property
    def _peak(self) -> NDArray[np.float32]:
        """A Gaussian of 6 sigma + 3 pixels, 1 in the middle."""
        distances_px = np.arange(2 * self._reach_px + 1) - float(self._reach_px)
        squares = distances_px**2 + distances_px[:, None] ** 2
        return np.exp(-squares / (2 * self.sigma_px**2)).astype(np.float32)

    @property
    def _reach_px(self) -> int:
        return REACH * self.sigma_px + 1

    def _draw_peaks(self, points_yx: Sequence[tuple[int, int]], size_hw: tuple[int, int]) -> NDArray[np.float32]:
        """(H, W): the highest of all peaks at each pixel."""
        heat = np.zeros(size_hw, dtype=np.float32)
        for point in points_yx:
            first = [max(center - self._reach_px, 0) for center in point]
            window = tuple(slice(a, center + self._reach_px + 1) for a, center in zip(first, point, strict=True))
            part = heat[window]
            begin = [a - center + self._reach_px for a, center in zip(first, point, strict=True)]
            peak = self._peak[begin[0] : begin[0] + part.shape[0], begin[1] : begin[1] + part.shape[1]]
            np.maximum(part, peak, out=part)
        return heat


@dataclass(frozen=True)
class _Table:
    """What follows from the segments alone, (N + 1,) each; row 0 is void."""

    isthing: NDArray[np.bool_]
    channels: NDArray[np.int64]
    center_weights: NDArray[np.float32]
    offset_weights: NDArray[np.float32]

    @classmethod
    def build(cls, targets: CenterTargets, segments: Sequence[Segment], space: SemanticSpace) -> _Table:
        isthing = np.array([False, *(segment.isthing for segment in segments)])
        counts = np.array([False, *(not segment.iscrowd for segment in segments)])
        channels = [space.channel_by_category[segment.category_id] for segment in segments]
        labelled = counts if targets.ignores_crowds else np.arange(len(segments) + 1) > 0
        has_offset = counts & (isthing | (not targets.ignores_stuff))
        return cls(
            isthing,
            np.where(labelled, np.array([IGNORE_LABEL, *channels], dtype=np.int64), IGNORE_LABEL),
            counts.astype(np.float32),
            has_offset.astype(np.float32),
        )
