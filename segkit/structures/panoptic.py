"""PanopticSegmentation: one segment per pixel, and what each segment is; ids as PNG colours."""

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

    category_id: the maker states its space (dataset files: category_id; a network: contiguous id).
    area_px: pixels in the map. score: of an instance, else None. instance_id: row of the instance it came from.
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
    """segment_ids: (H, W) int32, `VOID` = unlabelled; segments: one per id that the map may hold."""

    segment_ids: NDArray[np.int32]
    segments: tuple[Segment, ...]

    @classmethod
    def from_runs(cls, runs: IdRuns, segments: tuple[Segment, ...]) -> PanopticSegmentation:
        """The segmentation whose map the runs are; the map is made when it is first asked for."""
        made = cls.__new__(cls)
        made.__dict__.update(runs=runs, segments=segments)
        return made

    @cached_property
    def runs(self) -> IdRuns:
        """The map as runs of ids, found once."""
        return IdRuns.from_map(self.segment_ids)

    def __getattr__(self, name: str) -> Any:
        """`segment_ids` of a segmentation that was made of runs."""
        if name != "segment_ids" or "runs" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.__dict__.setdefault(name, self.runs.to_map())


def ids_to_rgb(segment_ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(H, W) ids in [0, 2^24) -> (H, W, 3) uint8 RGB, id = R + 256 G + 65536 B (panopticapi utils.id2rgb).

    Raises ValueError where an id does not fit into three bytes.
    """
    if segment_ids.size and (segment_ids.min() < 0 or segment_ids.max() > MAX_SEGMENT_ID):
        raise ValueError(f"segment ids must be in [0, {MAX_SEGMENT_ID}], got {segment_ids.min()}..{segment_ids.max()}")
    packed = np.ascontiguousarray(segment_ids, dtype="<u4")
    rgb: NDArray[np.uint8] = packed.view(np.uint8).reshape(*packed.shape, 4)[..., :3]
    copied: NDArray[np.uint8] = rgb.copy()
    return copied


def rgb_to_ids(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(H, W, 3) uint8 RGB -> (H, W) int32 ids, id = R + 256 G + 65536 B (panopticapi utils.rgb2id)."""
    ids = np.zeros(rgb.shape[:2], dtype="<i4")
    planes = ids.view(np.uint8).reshape(*ids.shape, 4)
    for channel in range(3):  # byte by byte: no temporary of four times the size
        planes[..., channel] = rgb[..., channel]
    return ids.astype(np.int32, copy=False)
