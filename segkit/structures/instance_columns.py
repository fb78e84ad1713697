"""Annotations or results of many images as columns: what average precision compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class InstanceColumns(NamedTuple):
    """Annotations or results of things, one row each, in the order of the file.

    Attributes:
        image: (N,) int64, index of the image.
        thing: (N,) int64, contiguous id of the category among the things.
        iscrowd: (N,) int64, 0 or 1.
        number: (N,) float64, area of an annotation in pixels, or score of a result.
        boxes: (N, 4) float64, [x, y, width, height] in pixels; (0, 4) if boxes are not compared.
        box_area: (N,) float64, pixels that decide the size class of a box; empty if boxes are not compared.
        masks: N compressed COCO RLEs, of annotations also polygons; empty if masks are not compared.
        area_px: (N,) int64, pixels of each mask, 0 for polygons; empty if masks are not compared.
    """

    image: NDArray[np.int64]
    thing: NDArray[np.int64]
    iscrowd: NDArray[np.int64]
    number: NDArray[np.float64]
    boxes: NDArray[np.float64]
    box_area: NDArray[np.float64]
    masks: list[Any]
    area_px: NDArray[np.int64]

    def select(self, rows: NDArray[np.integer]) -> InstanceColumns:
        """Select rows.

        Args:
            rows: (M,) integers, indices of rows.

        Returns:
            These rows, in this order.
        """
        selected = {name: column[rows] for name, column in self._arrays().items() if len(column)}
        return self._replace(masks=[self.masks[row] for row in rows.tolist()] if self.masks else [], **selected)

    @classmethod
    def concatenate(cls, parts: Sequence[InstanceColumns]) -> InstanceColumns:
        """Join the columns of single images.

        Args:
            parts: one or more columns, each of one image.

        Returns:
            The rows of all parts; `image` is the index of the part.
        """
        joined = {name: np.concatenate([part._arrays()[name] for part in parts]) for name in parts[0]._arrays()}
        joined["image"] = np.repeat(np.arange(len(parts)), [len(part.image) for part in parts])
        return cls(masks=[mask for part in parts for mask in part.masks], **joined)

    def _arrays(self) -> dict[str, Any]:
        return {name: column for name, column in self._asdict().items() if name != "masks"}
