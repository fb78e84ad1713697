"""Datasets written in COCO's layouts; `add` writes an image and says what the layout cannot hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

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
    """root/<name>.json and root/<name>/*.png; whatever has no overlaps fits, scores too. pictures: their folder."""

    writes_extras = True

    def __init__(self, root: str | Path, categories: CategorySet, name: str, images: str) -> None:
        super().__init__(root, categories)
        self._image_root = self.root / images
        self._writer = PanopticWriter(self.root / f"{name}.json", self.root / name, categories)

    def image_path(self, image: DatasetImage) -> Path:
        """As `DatasetWriter` has it."""
        return build_image_path(self._image_root, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: Annotations = None
    ) -> list[str]:
        """As `DatasetWriter` has it; told are segments without a pixel, masks that overlap, keys of annotations that
        segments have not."""
        areas_px = compute_segment_areas(image, segmentation, self.categories)
        extra, told = _written_extras(image.extra, "the image")
        self._writer.add(image.image_id, image.file_name, segmentation, extra)
        told += list_empty_segments(segmentation.segments, areas_px)
        return [*told, *list_lost_annotations(annotations, image.size_hw)]

    def finish(self) -> None:
        """Write the JSON."""
        self._writer.info = self.info
        self._writer.finish()


class CocoPanopticWriter(PanopticFilesWriter):
    """root/panoptic.json and root/panoptic/*.png."""

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories, "panoptic", IMAGES)


class CocoInstancesWriter(DatasetWriter):
    """root/instances.json: things alone, whole masks where the source has them, ids above 0 that are distinct."""

    writes_extras = True

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        """DatasetError where there is no thing."""
        super().__init__(root, categories)
        if not categories.things:
            problem = "expected categories with things, all are stuff"
            raise DatasetError(problem, where=root, remedy="convert to another")
        self.path = self.root / "instances.json"
        self._images: dict[Any, dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []

    def image_path(self, image: DatasetImage) -> Path:
        """As `DatasetWriter` has it."""
        return build_image_path(self.root / IMAGES, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: Annotations = None
    ) -> list[str]:
        """As `DatasetWriter` has it; told are stuff, segments without a pixel, scores, keys that JSON cannot hold."""
        where = Location(self.path, image.image_id)
        check_inside(image.file_name, "file_name", where)
        if image.image_id in self._images:
            raise DatasetError("an image with this id was added before", where=where)
        areas_px = compute_segment_areas(image, segmentation, self.categories)
        height, width = image.size_hw
        extra, told = _written_extras(image.extra, "the image")
        own = {"id": image.image_id, "file_name": image.file_name, "height": height, "width": width}
        self._images[image.image_id] = {**extra, **own}
        for annotation in build_coco_annotations(image.image_id, segmentation) if annotations is None else annotations:
            extra, lost = _written_extras(
                other_keys(annotation, ANNOTATION_KEYS), f"annotation {annotation.get('id', '')}"
            )
            own = {key: value for key, value in annotation.items() if key in ANNOTATION_KEYS}
            given = own.pop(ORIGINAL_SEGMENTATION, annotation["segmentation"])
            self._annotations.append({**own, "image_id": image.image_id, "segmentation": given, **extra})
            told += lost
        stuff = [s for s in segmentation.segments if not s.isthing and s.segment_id in areas_px]
        told += [f"{len(stuff)} segments of stuff cannot be held"] if stuff else []
        empty = list_empty_segments(segmentation.segments, areas_px)
        return [*told, *empty, *list_lost_scores(segmentation.segments)]

    def finish(self) -> None:
        """Write the JSON."""
        numbered = _numbered(self._annotations)
        write_instances(self.path, [*self._images.values()], numbered, self.categories, self.info)


def _written_extras(extra: Mapping[str, Any], what: str) -> tuple[Entry, list[str]]:
    """What of it JSON can hold, and the line on the rest."""
    held, lost = split_writable_keys(extra)
    return held, [f"{what}: the values of {abbreviate(lost)} cannot be held, JSON has no NaN"] if lost else []


def _numbered(annotations: Sequence[Entry]) -> list[Entry]:
    """With distinct ids above 0: the first annotation that has such an id keeps it, the others get the ids not used."""
    owner: dict[object, int] = {}
    for place, annotation in enumerate(annotations):
        annotation_id = annotation.get("id")
        if type(annotation_id) is int and annotation_id > 0:
            owner.setdefault(annotation_id, place)
    free = (number for number in count(1) if number not in owner)
    keeps = {*owner.values()}
    return [one if place in keeps else {**one, "id": next(free)} for place, one in enumerate(annotations)]
