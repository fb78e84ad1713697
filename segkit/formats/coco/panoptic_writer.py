"""COCO's panoptic format, written image by image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from segkit.formats.coco import panoptic as coco_panoptic
from segkit.structures import CategorySet, ImageId, PanopticSegmentation
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.files import Finishing
from segkit.utils.json_fields import Entry, Place


class PanopticWriter(Finishing):
    """Writes a dataset, or predictions, one image at a time: each PNG at once, the JSON at the end of the `with` block.

    On an exception no JSON is written, and one of an earlier run stays as it was. info: what else the JSON is to hold,
    by key; to be set before the end of the block.
    """

    info: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, json_path: str | Path, png_folder: str | Path, categories: CategorySet) -> None:
        self.json_path = Path(json_path)
        self.png_folder = Path(png_folder)
        self.categories = categories
        self._images: dict[ImageId, Entry] = {}
        self._annotations: dict[str, Entry] = {}  # by png_name

    def add(
        self,
        image_id: ImageId,
        file_name: str,
        segmentation: PanopticSegmentation,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the image's PNG and remembers its annotation.

        file_name: of the image, relative to the image folder; its PNG is named by `coco_panoptic.free_name`. Segments
        have the dataset's category ids. extra: what else the JSON is to say of the image, by key.
        Raises DatasetError for an image that was added before or a name that climbs out; ValueError for an unknown
        category, an id in the map that no segment has, or a score that is not finite.
        """
        unknown = {s.category_id for s in segmentation.segments if s.category_id not in self.categories}
        if unknown:
            raise ValueError(f"segments must have category ids of the dataset, got {sorted(unknown)}")
        where = Place(self.json_path, image_id)
        json_fields.check_inside(file_name, "file_name", where)
        if image_id in self._images:
            raise DatasetError("an image with this id was added before", where=where)
        png_name = coco_panoptic.free_name(file_name, self._annotations)
        annotation = coco_panoptic.annotation_of(image_id, png_name, segmentation)
        coco_panoptic.write_png(self.png_folder / png_name, segmentation.segment_ids)
        height, width = segmentation.segment_ids.shape
        own = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        self._images[image_id] = {**(extra or {}), **own}
        self._annotations[png_name] = annotation

    def finish(self) -> None:
        """Write the JSON."""
        images, annotations = [*self._images.values()], [*self._annotations.values()]
        coco_panoptic.write_json(self.json_path, images, annotations, self.categories, self.info)
