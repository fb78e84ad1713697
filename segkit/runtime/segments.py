"""PredictedSegment: one segment or instance of a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segkit.formats.outlines import Points, trace_rings


@dataclass(frozen=True, eq=False)
class PredictedSegment:
    """One segment or instance of a prediction.

    Attributes:
        segment_id: its id in `Prediction.segment_ids`.
        category_id: its class, an id of the dataset.
        name: the name of its class.
        isthing: whether the class is a thing.
        score: [0, 1]; None for stuff.
        area_px: pixels of its mask.
        box_xywh: tight box of its mask: left, top, width, height in pixels.
        mask: (height, width) bool, its pixels within the box.
    """

    segment_id: int
    category_id: int
    name: str
    isthing: bool
    score: float | None
    area_px: int
    box_xywh: tuple[int, int, int, int]
    mask: NDArray[np.bool_]

    @cached_property
    def polygons(self) -> list[list[Points]]:
        """For each piece its outline, then its holes: (K, 2) float64 corners (x, y), pixels of the image."""
        offset = np.array(self.box_xywh[:2], dtype=np.float64)
        return [[ring + offset for ring in piece] for piece in trace_rings(self.mask)]

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score {self.score:.2f}"
        return f"PredictedSegment({self.segment_id}, {self.name!r}{score}, {self.area_px} px, box {self.box_xywh})"
