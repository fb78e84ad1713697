"""Pascal VOC, written: two palette PNGs per image, the image set and class_names.txt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.formats import base
from segkit.formats.base import DatasetImage, UnfitImageError
from segkit.formats.derive import relabel
from segkit.formats.image_files import LabelFilesWriter
from segkit.formats.voc import reader
from segkit.formats.voc.colors import (
    BACKGROUND,
    BACKGROUND_NAMES,
    MAX_LABEL,
    VOID_LABEL,
    Labels,
    compute_color_map,
)
from segkit.structures import CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.files import replacing
from segkit.utils.json_fields import Location


class VOCWriter(LabelFilesWriter):
    """Writes one image set: two PNGs per image at once; the list of ids and class_names.txt at the end.

    The things of `categories`, by ascending category_id, become the labels 1, 2, ... Stuff becomes background, since
    VOC's background is whatever is in no class. Crowds and unlabelled pixels become void. An image id is the file_name
    of the image without suffix, so that the images' folder can be JPEGImages.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations.
        split: Name of the image set, ImageSets/Segmentation/<split>.txt.
        border_px: Pixels within this distance (the larger of rows and columns) of another label become void; 2 is
            nearly VOC's own border.

    Raises:
        DatasetError: There are no or more than 254 things, class_names.txt cannot hold their names, or the folder has
            labels of other classes.
        ValueError: `border_px` is not an integer of at least 0.
    """

    def __init__(self, root: str | Path, categories: CategorySet, *, split: str = "train", border_px: int = 0) -> None:
        if type(border_px) is not int or border_px < 0:
            raise ValueError(f"border_px must be an integer of at least 0, got {border_px!r}")
        super().__init__(root, categories, reader.IMAGES)
        base.check_has_things(categories, root)
        self.border_px = border_px
        self._set_path = reader.get_set_path(self.root, split)
        classes = reader.build_categories([c.name for c in categories.things], True, "categories")
        self._class_names = tuple(c.name for c in classes.things)
        if os.path.isdir(self.root / reader.CLASS_MAPS) and reader.read_names(self.root) != self._class_names:
            remedy = "write to another folder"
            raise DatasetError("the folder holds labels of other classes", where=self.root, remedy=remedy)

    def _write(
        self, image: DatasetImage, name: str, segmentation: PanopticSegmentation, areas_px: dict[int, int]
    ) -> list[str]:
        """Segment ids are kept if those of all objects are in 1..254; otherwise objects are numbered in their order."""
        if not segmentation.segment_ids.size:
            raise ValueError(f"segment_ids must not be empty, got {segmentation.segment_ids.shape}")
        label_by_segment, losses = _assign_labels(segmentation.segments, areas_px, self.categories)
        object_labels = self._draw_objects(segmentation, label_by_segment)
        visible = np.unique(object_labels)
        covered = [i for i, label in label_by_segment.items() if label not in visible]
        losses += [f"segment {i}: the border covers it" for i in covered]
        things = self.categories.thing_contiguous_ids
        objects = [s for s in segmentation.segments if s.segment_id in label_by_segment]
        class_by_object = {label_by_segment[s.segment_id]: things[s.category_id] + 1 for s in objects}
        class_path = self.root / reader.CLASS_MAPS / f"{name}.png"
        object_path = self.root / reader.OBJECT_MAPS / f"{name}.png"
        with replacing(class_path) as class_file, replacing(object_path) as object_file:
            _save(class_file, relabel(object_labels, {**class_by_object, VOID_LABEL: VOID_LABEL}, np.uint8))
            _save(object_file, object_labels)
        return losses

    def finish(self) -> None:
        """Write class_names.txt and the image set."""
        write_lines(self.root / reader.NAMES_FILE, [BACKGROUND_NAMES[0], *self._class_names])
        write_lines(self._set_path, [*self._names])

    def _get_name(self, image: DatasetImage) -> str:
        """The image id, which must be a line of the image set."""
        image_id = super()._get_name(image)
        check_line(image_id, image, self.root)
        return image_id

    def _draw_objects(self, segmentation: PanopticSegmentation, label_by_segment: dict[int, int]) -> Labels:
        """(H, W) object labels, with the border."""
        stuff = [s.segment_id for s in segmentation.segments if not self.categories.isthing_by_id[s.category_id]]
        # One more than the label: 0, the value of void, then wraps around to VOID_LABEL.
        values = {i: label + 1 for i, label in (label_by_segment | dict.fromkeys(stuff, BACKGROUND)).items()}
        labels: Labels = relabel(segmentation.segment_ids, values, np.uint8)
        np.subtract(labels, 1, out=labels)
        if self.border_px:
            labels[_find_border(labels, self.border_px)] = VOID_LABEL
        return labels


def _assign_labels(
    segments: tuple[Segment, ...], areas_px: dict[int, int], categories: CategorySet
) -> tuple[dict[int, int], list[str]]:
    """segment_id -> object label of the segments that become objects, and a line on each loss."""
    visible = [s for s in segments if s.segment_id in areas_px]
    objects = [s for s in visible if categories.isthing_by_id[s.category_id] and not s.iscrowd]
    by_size = sorted(objects, key=lambda s: -areas_px[s.segment_id])  # of equal ones the earlier counts
    too_many = {s.segment_id for s in by_size[MAX_LABEL:]}
    object_ids = [s.segment_id for s in objects if s.segment_id not in too_many]
    background_ids = {c.category_id for c in categories.stuff if c.name in BACKGROUND_NAMES}
    backgrounds = [s.segment_id for s in visible if s.category_id in background_ids]
    losses = []
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
        losses += [f"segment {segment_id}: {loss}"] if loss else []
    keeps_ids = all(segment_id <= MAX_LABEL for segment_id in object_ids)
    labels = {segment_id: segment_id if keeps_ids else label for label, segment_id in enumerate(object_ids, 1)}
    return labels, losses


def _find_border(labels: Labels, distance_px: int) -> NDArray[np.bool_]:
    """Pixels that have another label within distance_px rows and columns."""
    size = 2 * min(distance_px, max(labels.shape)) + 1
    window = np.ones((size, size), dtype=np.uint8)
    return np.not_equal(cv2.erode(labels, window), cv2.dilate(labels, window))


def _save(path: Path, labels: Labels) -> None:
    image = Image.fromarray(labels)
    image.putpalette(compute_color_map().tobytes())
    image.save(path, "PNG")


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write the lines, whole or not at all, with names encoded as in the file system."""
    with replacing(path) as temporary:
        temporary.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def check_line(image_id: str, image: DatasetImage, root: Path) -> None:
    """Raise UnfitImageError if the name cannot be a line of an image set."""
    if not _is_line(image_id):
        problem = f"expected a file_name that can be a line of an image set, got {image.file_name!r}"
        raise UnfitImageError(problem, where=Location(root, image.image_id), remedy="rename the image")


def _is_line(text: str) -> bool:
    """Whether `write_lines` and `split_lines` give the text back as one line."""
    try:
        return bool(text.encode("utf-8", "surrogateescape")) and reader.split_lines(text) == [text]
    except UnicodeEncodeError:
        return False
