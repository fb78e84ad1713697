"""Crops of masks with a bit for each pixel, for images with very many or very large instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray


class PackedCrop(NamedTuple):
    """A crop with a bit for each pixel.

    Attributes:
        bits: (h, B) uint8, the pixels of each row, the first one in the highest bit.
        width: of the crop, at most 8 B pixels.
    """

    bits: NDArray[np.uint8]
    width: int

    @classmethod
    def pack(cls, crop: NDArray[np.bool_]) -> PackedCrop:
        """Pack a crop.

        Args:
            crop: (h, w) bool.

        Returns:
            The same crop.
        """
        return cls(np.packbits(crop, axis=1), crop.shape[1])

    def unpack(self, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[np.bool_]:
        """Unpack the crop or a part of it.

        Args:
            rows: of the part.
            columns: of the part.

        Returns:
            (h, w) bool.
        """
        return np.unpackbits(self.bits[rows], axis=1, count=self.width)[:, columns].view(np.bool_)


class PackedCrops(Sequence[NDArray[np.bool_]]):
    """The crops of `InstanceMasks` in an eighth of the memory: each is unpacked when it is asked for.

    Args:
        crops: the crops.
    """

    def __init__(self, crops: Sequence[PackedCrop]) -> None:
        self._crops = [*crops]

    def __len__(self) -> int:
        return len(self._crops)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.bool_]: ...

    @overload
    def __getitem__(self, index: slice) -> PackedCrops: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.bool_] | PackedCrops:
        return PackedCrops(self._crops[index]) if isinstance(index, slice) else self._crops[index].unpack()
