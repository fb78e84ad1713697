"""Source: a dataset on disk, in whatever layout, as pictures and panoptic segmentations; one file per layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segkit.formats.coco_tables import ImageId
from segkit.formats.derive import coco_annotations
from segkit.structures import CategorySet, DatasetError, PanopticSegmentation


@dataclass(frozen=True)
class SourceImage:
    """image_id: of the dataset's files, or the name that its files share. file_name: of the picture inside `pictures`,
    with "/". size_hw: pixels."""

    image_id: ImageId
    file_name: str
    size_hw: tuple[int, int]


class Source(ABC):
    """A dataset as its layout holds it; a subclass finds its files when it is made and reads one image at a time.

    root: what the layout is below. pictures: the folder of the images. categories: the dataset's own. images: in a
    stable order. A subclass raises DatasetError where files are missing, damaged or contradict each other, naming the
    file; it never writes.
    """

    layout: ClassVar[str]  # its key in segkit.formats.registry.SOURCES
    overlaps: ClassVar[bool] = False  # whether `annotations` hold pixels that the segmentation gives to others
    root: Path
    pictures: Path
    categories: CategorySet
    images: tuple[SourceImage, ...]

    @abstractmethod
    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """What is true of the image, category ids of the dataset; pixels without a label are void."""

    def annotations(self, image: SourceImage) -> list[dict[str, Any]]:
        """COCO annotations of the things, masks as compressed RLE; of layouts that hold overlapping masks, those."""
        return coco_annotations(image.image_id, self.segmentation(image))

    def picture(self, image: SourceImage) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, turned as its EXIF says; DatasetError where it cannot be read or has another size."""
        return read_picture(self.pictures / image.file_name, image.size_hw)


def read_picture(path: Path, size_hw: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image file, turned as its EXIF says; DatasetError where it cannot be read, is a bomb
    (more pixels than Pillow allows) or of another size than expected."""
    try:
        with Image.open(path) as image:
            pixels: NDArray[np.uint8] = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise DatasetError("the image is missing", where=path, remedy="complete the download") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        problem = f"the image does not decode: {' '.join(str(error).split())}"
        raise DatasetError(problem, where=path, remedy="replace the file") from None
    if size_hw is not None and pixels.shape[:2] != size_hw:
        raise DatasetError(f"expected {size_hw[0]} x {size_hw[1]} pixels, got {pixels.shape[:2]}", where=path)
    return pixels
