"""Writers of COCO's panoptic and instances datasets; `add` returns what the format cannot store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from segkit.formats import base
from segkit.formats.base import (
    ANNOTATION_KEYS,
    ORIGINAL_SEGMENTATION,
    DatasetImage,
    DatasetWriter,
    compute_segment_areas,
    list_empty_segments,
    list_lost_annotations,
    list_lost_scores,
)
from segkit.formats.coco.instances import write_instances
from segkit.formats.coco.panoptic_writer import PanopticWriter
from segkit.formats.derive import build_coco_annotations
from segkit.formats.image_files import build_image_path
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry, Location, check_inside, other_keys, split_writable_keys
from segkit.utils.text import abbreviate

IMAGES = "images"  # folder below the root
Annotations = list[dict[str, Any]] | None


class PanopticFilesWriter(DatasetWriter):
    """Writes root/<name>.json and root/<name>/*.png, with scores; masks must not overlap.

    Args:
        root: the folder of the dataset.
        categories: of the dataset.
        name: of the JSON and the folder of PNGs.
        images: the image folder below the root.
    """

    writes_extras = True

    def __init__(self, root: str | Path, categories: CategorySet, name: str, images: str) -> None:
        super().__init__(root, categories)
        self._image_root = self.root / images
        self._writer = PanopticWriter(self.root / f"{name}.json", self.root / name, categories)

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return build_image_path(self._image_root, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: Annotations = None
    ) -> list[str]:
        """See base class; lost are segments without pixels, masks under others, and keys that segments lack."""
        areas_px = compute_segment_areas(image, segmentation, self.categories)
        extra, losses = _split_extras(image.extra, "the image")
        self._writer.add(image.image_id, image.file_name, segmentation, extra)
        losses += list_empty_segments(segmentation.segments, areas_px)
        return [*losses, *list_lost_annotations(annotations, segmentation)]

    def finish(self) -> None:
        """See base class."""
        self._writer.info = self.info
        self._writer.finish()


class CocoPanopticWriter(PanopticFilesWriter):
    """Writes root/panoptic.json and root/panoptic/*.png.

    Args:
        root: the folder of the dataset.
        categories: of the dataset.
    """

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories, "panoptic", IMAGES)


class CocoInstancesWriter(DatasetWriter):
    """Writes root/instances.json: things only, whole masks if the reader has them, distinct ids above 0.

    Args:
        root: the folder of the dataset.
        categories: of the dataset.

    Raises:
        DatasetError: no category is a thing.
    """

    writes_extras = True

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories)
        base.check_has_things(categories, root)
        self.path = self.root / "instances.json"
        self._images: dict[Any, dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return build_image_path(self.root / IMAGES, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: Annotations = None
    ) -> list[str]:
        """See base class; lost are stuff, segments without pixels, scores, and keys that JSON cannot store."""
        where = Location(self.path, image.image_id)
        check_inside(image.file_name, "file_name", where)
        if image.image_id in self._images:
            raise DatasetError("an image with this id was added before", where=where)
        areas_px = compute_segment_areas(image, segmentation, self.categories)
        height, width = image.size_hw
        extra, losses = _split_extras(image.extra, "the image")
        own = {"id": image.image_id, "file_name": image.file_name, "height": height, "width": width}
        self._images[image.image_id] = {**extra, **own}
        for annotation in build_coco_annotations(image.image_id, segmentation) if annotations is None else annotations:
            extra, lost = _split_extras(
                other_keys(annotation, ANNOTATION_KEYS), f"annotation {annotation.get('id', '')}"
            )
            own = {key: value for key, value in annotation.items() if key in ANNOTATION_KEYS}
            given = own.pop(ORIGINAL_SEGMENTATION, annotation["segmentation"])
            self._annotations.append({**own, "image_id": image.image_id, "segmentation": given, **extra})
            losses += lost
        stuff = [s for s in segmentation.segments if not s.isthing and s.segment_id in areas_px]
        losses += [f"{len(stuff)} segments of stuff cannot be held"] if stuff else []
        empty = list_empty_segments(segmentation.segments, areas_px)
        return [*losses, *empty, *list_lost_scores(segmentation.segments)]

    def finish(self) -> None:
        """See base class."""
        numbered = _number(self._annotations)
        write_instances(self.path, [*self._images.values()], numbered, self.categories, self.info)


def _split_extras(extra: Mapping[str, Any], owner: str) -> tuple[Entry, list[str]]:
    """The keys that JSON can store, and the line on the others."""
    writable, lost = split_writable_keys(extra)
    return writable, [f"{owner}: the values of {abbreviate(lost)} cannot be held, JSON has no NaN"] if lost else []


def _number(annotations: Sequence[Entry]) -> list[Entry]:
    """Give distinct ids above 0: the first annotation with such an id keeps it, the others get unused ids."""
    index_by_id: dict[object, int] = {}
    for index, annotation in enumerate(annotations):
        annotation_id = annotation.get("id")
        if type(annotation_id) is int and annotation_id > 0:
            index_by_id.setdefault(annotation_id, index)
    unused_ids = (number for number in count(1) if number not in index_by_id)
    valid = {*index_by_id.values()}
    return [
        annotation if index in valid else {**annotation, "id": next(unused_ids)}
        for index, annotation in enumerate(annotations)
    ]
