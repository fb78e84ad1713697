"""The masks of one image's instances as one map, in the place of an image-sized bitmask for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.structures import BitMasks


class MapMasks(BitMasks):
    """`BitMasks` that do not overlap, held as a map with a number for each pixel.

    Mask r is `numbers == values[rows[r]]`. Selecting masks, as Detectron2 does for each proposal, selects rows. The
    targets of `crop_and_resize` equal those of `BitMasks` to the bit: the same kernel reads the same mask.

    Args:
        numbers: (H, W) uint8 or int32, the number of each pixel.
        values: (N,) of the same type, the number of each mask.
        rows: (R,) int64 rows of `values`, which may repeat; None: all N.
    """

    def __init__(self, numbers: torch.Tensor, values: torch.Tensor, rows: torch.Tensor | None = None) -> None:
        self.numbers, self.values = numbers, values
        self.rows = torch.arange(len(values), device=values.device) if rows is None else rows
        self.image_size = numbers.shape

    @property
    def tensor(self) -> torch.Tensor:
        """(R, H, W) bool, made on request."""
        return self.numbers == self.values[self.rows][:, None, None]

    @property
    def device(self) -> torch.device:
        """The device of the map."""
        return self.numbers.device

    def to(self, *args: Any, **kwargs: Any) -> MapMasks:
        """Copy to a device.

        Args:
            *args: as in `torch.Tensor.to`, without a type.
            **kwargs: likewise.

        Returns:
            The masks there.
        """
        return MapMasks(*(part.to(*args, **kwargs) for part in (self.numbers, self.values, self.rows)))

    def __getitem__(self, item: Any) -> MapMasks:
        return MapMasks(self.numbers, self.values, self.rows[[item] if isinstance(item, int) else item])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.tensor

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Crop each mask to its box, see `BitMasks.crop_and_resize`.

        Args:
            boxes: (R, 4) float32 XYXY, pixels.
            mask_size: M, in pixels.

        Returns:
            (R, M, M) bool.
        """
        boxes, rows, values = boxes.to(self.device), self.rows, self.values
        if len(values) > len(rows):  # never more image-sized masks than rows
            rows, values = torch.arange(len(rows), device=self.device), values[rows]
        masks = (self.numbers == values[:, None, None]).float()[:, None]
        rois = torch.cat([rows.to(boxes.dtype)[:, None], boxes], dim=1)
        cropped: torch.Tensor = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)(masks, rois).squeeze(1)
        return cropped >= 0.5

    def area(self) -> torch.Tensor:
        """Count the pixels of each mask, as `PolygonMasks.area` does.

        Returns:
            (R,) int64.
        """
        areas_px = (
            torch.stack([(self.numbers == value).sum() for value in self.values]) if len(self.values) else self.rows
        )
        return areas_px[self.rows]

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """Concatenate masks of images of one size.

        Args:
            bitmasks_list: at least one.

        Returns:
            Bitmasks.
        """
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list]))
