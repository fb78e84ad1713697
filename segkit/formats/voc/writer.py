"""Pascal VOC, written: two palette PNGs per picture, the image set and class_names.txt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from segkit.formats import image_files
from segkit.formats.base import (
    DatasetImage,
    DatasetWriter,
    compute_segment_areas,
    list_lost_annotations,
    list_lost_scores,
)
from segkit.formats.derive import relabel
from segkit.formats.image_files import IMAGE_SUFFIX_CASES
from segkit.formats.voc.labels import (
    BACKGROUND,
    BACKGROUND_NAMES,
    CLASSES,
    IMAGES,
    MAX_LABEL,
    NAMES_FILE,
    OBJECTS,
    VOID_LABEL,
    Labels,
    build_categories,
    compute_color_map,
    is_line,
    read_names,
    set_path,
    write_lines,
)
from segkit.structures import CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.files import replacing
from segkit.utils.json_fields import Location


class VOCWriter(DatasetWriter):
    """Writes one image set, ImageSets/Segmentation/<split>.txt: the PNGs of each image at once, the list of ids and
    class_names.txt in the end.

    The things of `categories`, by rising category_id, become the labels 1, 2, ...; stuff becomes background, as VOC
    means by it whatever is in no class; crowds and unlabelled pixels become void. Pictures are not copied: the image
    id is their file_name without suffix, so that their folder is a ready JPEGImages (`picture_path`). border_px: pixels
    within this distance (the larger of rows and columns) of another label become void; 2 is nearly VOC's own border.
    Raises DatasetError for no or more than 254 things, for names that class_names.txt cannot hold, and for a folder
    with labels of other classes.
    """

    def __init__(self, root: str | Path, categories: CategorySet, *, split: str = "train", border_px: int = 0) -> None:
        if type(border_px) is not int or border_px < 0:
            raise ValueError(f"border_px must be an integer of at least 0, got {border_px!r}")
        super().__init__(root, categories)
        self.border_px = border_px
        self._set_path = set_path(self.root, split)
        classes = build_categories([c.name for c in categories.things], True, "categories")
        self._names = tuple(c.name for c in classes.things)
        if os.path.isdir(self.root / CLASSES) and read_names(self.root) != self._names:
            remedy = "write to another folder"
            raise DatasetError("the folder holds labels of other classes", where=self.root, remedy=remedy)
        self._image_ids: dict[str, None] = {}  # in order

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Writes the image's two PNGs; what VOC cannot hold of it, a line each.

        Segment ids in 1..254 of all objects are kept; otherwise objects are numbered in their order. annotations:
        looked at for overlaps, a pixel of VOC has one object, as in the segmentation.
        Raises DatasetError for a file_name that climbs out, is hidden, too long, cannot be a line of the set or was
        added before; ValueError for a category that is none of the writer's, an id in the map that no segment has, or
        another size.
        """
        image_id = self._image_id(image)
        areas_px = compute_segment_areas(image, segmentation, self.categories)
        if not segmentation.segment_ids.size:
            raise ValueError(f"segment_ids must not be empty, got {segmentation.segment_ids.shape}")
        object_of, lost = _place(segmentation.segments, areas_px, self.categories)
        object_labels = self._object_labels(segmentation, object_of)
        left = np.unique(object_labels)
        lost += [f"segment {i}: the border covers it" for i, label in object_of.items() if label not in left]
        class_of = np.zeros(256, dtype=np.uint8)
        class_of[VOID_LABEL] = VOID_LABEL
        for segment in segmentation.segments:
            if segment.segment_id in object_of:
                label = self.categories.thing_contiguous_ids[segment.category_id] + 1
                class_of[object_of[segment.segment_id]] = label
        class_path, object_path = (self.root / folder / f"{image_id}.png" for folder in (CLASSES, OBJECTS))
        with replacing(class_path) as class_file, replacing(object_path) as object_file:
            _save(class_file, class_of.take(object_labels))
            _save(object_file, object_labels)
        self._image_ids[image_id] = None
        return lost + list_lost_annotations(annotations, image.size_hw)

    def image_path(self, image: DatasetImage) -> Path:
        """Where the image's picture is to lie, as `image_files.picture_in` has it."""
        return image_files.build_image_path(self.root / IMAGES, image, IMAGE_SUFFIX_CASES)

    def finish(self) -> None:
        """Write class_names.txt and the image set."""
        write_lines(self.root / NAMES_FILE, [BACKGROUND_NAMES[0], *self._names])
        write_lines(self._set_path, [*self._image_ids])

    def _image_id(self, image: DatasetImage) -> str:
        image_id = image_files.get_unique_stem(image, self._image_ids, self.root)
        if not is_line(image_id):
            problem = f"expected a file_name that can be a line of an image set, got {image.file_name!r}"
            raise DatasetError(problem, where=Location(self.root, image.image_id), remedy="rename the image")
        return image_id

    def _object_labels(self, segmentation: PanopticSegmentation, object_of: dict[int, int]) -> Labels:
        stuff = [s.segment_id for s in segmentation.segments if not self.categories.isthing_by_id[s.category_id]]
        # One more than the label: 0, what void gets, then wraps around to VOID_LABEL.
        values = {i: label + 1 for i, label in (object_of | dict.fromkeys(stuff, BACKGROUND)).items()}
        labels: Labels = relabel(segmentation.segment_ids, values, np.uint8)
        np.subtract(labels, 1, out=labels)
        if self.border_px:
            labels[_border(labels, self.border_px)] = VOID_LABEL
        return labels


def _place(
    segments: tuple[Segment, ...], areas_px: dict[int, int], categories: CategorySet
) -> tuple[dict[int, int], list[str]]:
    """The object label of every segment that becomes an object, and what is lost of the others."""
    objects = [
        s for s in segments if s.segment_id in areas_px and categories.isthing_by_id[s.category_id] and not s.iscrowd
    ]
    by_size = sorted(objects, key=lambda s: -areas_px[s.segment_id])  # equal: the earlier
    too_many = {s.segment_id for s in by_size[MAX_LABEL:]}
    kept = [s.segment_id for s in objects if s.segment_id not in too_many]
    stuff = [s for s in segments if s.segment_id in areas_px and not categories.isthing_by_id[s.category_id]]
    backgrounds = [s.segment_id for s in stuff if categories[s.category_id].name in BACKGROUND_NAMES]
    lost = []
    for segment in segments:
        category, segment_id, loss = categories[segment.category_id], segment.segment_id, ""
        if segment_id not in areas_px:
            loss = "it has no pixel"
        elif not category.isthing and segment_id not in backgrounds[:1]:
            loss = f"{category.name} is held as background, without a segment of its own"
        elif category.isthing and segment.iscrowd:
            loss = "crowds cannot be held, its pixels are void"
        elif segment_id in too_many:
            loss = f"an image has at most {MAX_LABEL} objects, its pixels are void"
        lost += [f"segment {segment_id}: {loss}"] if loss else []
    lost += list_lost_scores(segments)
    kept_ids = all(segment_id <= MAX_LABEL for segment_id in kept)
    return {segment_id: segment_id if kept_ids else label for label, segment_id in enumerate(kept, 1)}, lost


def _border(labels: Labels, reach_px: int) -> NDArray[np.bool_]:
    """Pixels that have another label within reach_px rows and columns."""
    reach_px = min(reach_px, max(labels.shape))
    lowest = highest = np.pad(labels, reach_px, mode="edge")
    for axis in (0, 1):
        lowest = sliding_window_view(lowest, 2 * reach_px + 1, axis=axis).min(axis=-1)
        highest = sliding_window_view(highest, 2 * reach_px + 1, axis=axis).max(axis=-1)
    return np.not_equal(lowest, highest)


def _save(path: Path, labels: Labels) -> None:
    image = Image.fromarray(labels)
    image.putpalette(compute_color_map().tobytes())
    image.save(path, "PNG")
