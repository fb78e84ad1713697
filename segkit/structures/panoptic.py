"""PanopticSegmentation: a map of segment ids with the class of each segment; ids as PNG colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segkit.structures.id_runs import IdRuns

ImageId: TypeAlias = int | str  # of the dataset's files

MAX_SEGMENT_ID = 256**3 - 1  # what the three bytes of an RGB pixel hold


@dataclass(frozen=True)
class Segment:
    """One segment of one image.

    Attributes:
        segment_id: Id in the map, 1..MAX_SEGMENT_ID.
        category_id: category_id of the dataset in files, contiguous id in a network's output.
        isthing: Whether the class is a thing.
        area_px: Pixels in the map.
        iscrowd: Whether the segment is a crowd: several instances that are not told apart.
        score: [0, 1] for a predicted instance, else None.
        instance_id: Row of the instance that the segment was made from, else None.
    """

    segment_id: int
    category_id: int
    isthing: bool
    area_px: int
    iscrowd: bool = False
    score: float | None = None
    instance_id: int | None = None


@dataclass(frozen=True)
class PanopticSegmentation:
    """A map of segment ids and its segments.

    Attributes:
        segment_ids: (H, W) int32, `VOID` (0) = unlabelled.
        segments: One Segment per id that the map may hold.
    """

    segment_ids: NDArray[np.int32]
    segments: tuple[Segment, ...]

    @classmethod
    def from_runs(cls, runs: IdRuns, segments: tuple[Segment, ...]) -> PanopticSegmentation:
        """Build a segmentation from the runs of its map; `segment_ids` is computed at its first use.

        Args:
            runs: Runs of the map.
            segments: One Segment per id that the map may hold.

        Returns:
            The segmentation.
        """
        segmentation = cls.__new__(cls)
        segmentation.__dict__.update(runs=runs, segments=segments)
        return segmentation

    @cached_property
    def runs(self) -> IdRuns:
        """The map as runs of ids, computed once."""
        return IdRuns.from_map(self.segment_ids)

    def __getattr__(self, name: str) -> Any:
        """Compute `segment_ids` of a segmentation that was built from runs."""
        if name != "segment_ids" or "runs" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.__dict__.setdefault(name, self.runs.to_map())


def ids_to_rgb(segment_ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Encode ids as colours, id = R + 256 G + 65536 B (panopticapi utils.id2rgb).

    Args:
        segment_ids: (H, W) integers in [0, 2^24).

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: An id does not fit into three bytes.
    """
    if segment_ids.size and (segment_ids.min() < 0 or segment_ids.max() > MAX_SEGMENT_ID):
        raise ValueError(f"segment ids must be in [0, {MAX_SEGMENT_ID}], got {segment_ids.min()}..{segment_ids.max()}")
    packed = np.ascontiguousarray(segment_ids, dtype="<u4")
    rgb: NDArray[np.uint8] = packed.view(np.uint8).reshape(*packed.shape, 4)[..., :3].copy()
    return rgb


def rgb_to_ids(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Decode colours to ids, id = R + 256 G + 65536 B (panopticapi utils.rgb2id).

    Args:
        rgb: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) int32 ids.
    """
    ids = np.zeros(rgb.shape[:2], dtype="<i4")
    planes = ids.view(np.uint8).reshape(*ids.shape, 4)
    for channel in range(3):  # byte by byte, without a temporary array of four times the size
        planes[..., channel] = rgb[..., channel]
    return ids.astype(np.int32, copy=False)
