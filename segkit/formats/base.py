"""Source: a dataset on disk, in whatever layout, as pictures and panoptic segmentations; one file per layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from segkit.formats.coco.tables import ImageId
from segkit.formats.derive import coco_annotations
from segkit.formats.image_io import read_picture
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError

AS_GIVEN = "segkit.segmentation"  # of an annotation: its mask as COCO's JSON has it, polygons say
Tell = Callable[[str, DatasetError], None]


def refuse(code: str, error: DatasetError) -> None:
    """The `tell` of a source that is to be used, not checked: what is wrong is raised."""
    raise error


@dataclass(frozen=True)
class SourceImage:
    """image_id: of the dataset's files, or the name that its files share. file_name: of the picture inside `pictures`,
    with "/". size_hw: pixels. extra: what else a JSON says of the image, a licence say, by its keys."""

    image_id: ImageId
    file_name: str
    size_hw: tuple[int, int]
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)


class Source(ABC):
    """A dataset as its layout holds it; a subclass finds its files when it is made and reads one image at a time.

    root: what the layout is below. pictures: the folder of the images. categories: the dataset's own. images: in a
    stable order. info: what the dataset says of itself, as JSON, by the keys of a COCO file beside its tables.

    A subclass raises DatasetError where files are missing, damaged or contradict each other, naming the file; it never
    writes. One that has a keyword `tell` hands what is wrong with single images to it instead, with the code of
    segkit.curation.issues.RULES; where `tell` returns, the image is left out. An image of which one file is missing
    is wrong: a list names it, or its label or picture lies in the layout's own folders without the other. Files that no
    image uses, and that may belong to another split, are not, nor is what is on purpose not read: a line each in
    skipped.
    """

    layout: ClassVar[str]  # its key in segkit.formats.registry.SOURCES
    overlaps: ClassVar[bool] = False  # whether `annotations` hold pixels that the segmentation gives to others
    metrics: ClassVar[tuple[str, ...]] = ()  # that judge it beside the usual, keys of segkit.evaluation.EVALUATORS
    root: Path
    pictures: Path
    categories: CategorySet
    images: tuple[SourceImage, ...]
    skipped: tuple[str, ...] = ()
    info: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """What is true of the image, category ids of the dataset; pixels without a label are void."""

    def annotations(self, image: SourceImage) -> list[dict[str, Any]]:
        """COCO annotations of the things, masks as compressed RLE; of layouts that hold overlapping masks, those.

        Of COCO's layout they have all that the file has, and under `AS_GIVEN` the segmentation that it has.
        """
        return coco_annotations(image.image_id, self.segmentation(image))

    def picture(self, image: SourceImage) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, turned as its EXIF says; DatasetError where it cannot be read or has another size."""
        return read_picture(self.pictures / image.file_name, image.size_hw)
