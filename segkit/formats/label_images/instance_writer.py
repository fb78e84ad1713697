"""Instance label maps, written: labels/NAME.png of each image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segkit.formats import image_files, png
from segkit.formats.base import (
    DatasetImage,
    DatasetWriter,
    compute_segment_areas,
    list_lost_annotations,
    list_lost_scores,
)
from segkit.formats.derive import relabel
from segkit.structures import CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.json_fields import Location, check_inside
from segkit.utils.text import abbreviate

MAX_OBJECTS = np.iinfo(np.uint16).max


class InstanceMapWriter(DatasetWriter):
    """Writes <root>/<labels>/NAME.png, image by image: 8-bit greyscale up to 255 objects, else 16-bit.

    categories: those of the segmentations, with different names. thing: name of the objects' category, by default the
    first thing's; objects of other things lose their class. background: name of the stuff category that 0 stands for;
    where the categories have none of that name, 0 stands for void. Where a picture belongs says `picture_path`. Raises
    DatasetError where there is no such thing or a folder is outside root, ConfigError for one folder in place of two.
    """

    def __init__(
        self,
        root: str | Path,
        categories: CategorySet,
        *,
        images: str = "images",
        labels: str = "labels",
        thing: str | None = None,
        background: str = "background",
    ) -> None:
        super().__init__(root, categories)
        for key, folder in (("images", images), ("labels", labels)):
            check_inside(folder, key, self.root)
        self._image_root, self._labels = self.root / images, self.root / labels
        if self._image_root == self._labels:
            raise ConfigError(f"expected two folders, got {images!r} for the images and the labels", where=root)
        things = {c.name: c.category_id for c in categories.things}
        if not things or (thing is not None and thing not in things):
            got = abbreviate(things) or "none"
            raise DatasetError(f"expected a thing category{f' {thing!r}' if thing else ''}, got {got}", where=root)
        self._thing_id = categories.things[0].category_id if thing is None else things[thing]
        self._background_id = {c.name: c.category_id for c in categories.stuff}.get(background)
        self._names: set[str] = set()

    def image_path(self, image: DatasetImage) -> Path:
        """Where the image's picture is to lie, as `image_files.picture_in` has it."""
        return image_files.build_image_path(self._image_root, image, image_files.IMAGE_SUFFIX_CASES)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Writes the image's map, objects 1..N in the order of the segments; what it cannot hold, one line each.

        Crowds and stuff become 0. annotations: only looked at for masks that overlap. Raises DatasetError where the
        name climbs out, is hidden, too long, or was written before, and for more than 65535 objects; ValueError for a
        map of another size than the image, a category that is not in `categories` and an id in the map that no segment
        has.
        """
        name = image_files.get_unique_stem(image, self._names, self.root)
        areas_px = compute_segment_areas(image, segmentation, self.categories)
        objects = [s for s in segmentation.segments if s.isthing and not s.iscrowd and s.segment_id in areas_px]
        if len(objects) > MAX_OBJECTS:
            problem = f"expected at most {MAX_OBJECTS} objects, got {len(objects)}"
            raise DatasetError(problem, where=Location(self.root, image.image_id))
        values = {s.segment_id: value for value, s in enumerate(objects, 1)}
        png.write_labels(self._labels / f"{name}.png", relabel(segmentation.segment_ids, values, np.uint16))
        self._names.add(name)
        return [*self._losses(segmentation, areas_px), *list_lost_annotations(annotations, image.size_hw)]

    def _losses(self, segmentation: PanopticSegmentation, areas_px: dict[int, int]) -> list[str]:
        lines = [line for s in segmentation.segments if (line := self._loss(s, areas_px))]
        void_px = segmentation.segment_ids.size - sum(areas_px.values())
        if void_px and self._background_id is not None:
            lines.append(f"void: {void_px} pixels become background")
        return lines + list_lost_scores(segmentation.segments)

    def _loss(self, segment: Segment, areas_px: dict[int, int]) -> str:
        name = self.categories[segment.category_id].name
        if segment.segment_id not in areas_px:
            return f"segment {segment.segment_id}: a segment without pixels cannot be held"
        if segment.iscrowd:
            return f"segment {segment.segment_id}: crowds cannot be held"
        if segment.isthing and segment.category_id != self._thing_id:
            return f"segment {segment.segment_id}: its class {name} cannot be held, objects have one class"
        if not segment.isthing and segment.category_id != self._background_id:
            return f"segment {segment.segment_id}: the stuff {name} cannot be held"
        return ""
