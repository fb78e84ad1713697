"""Cityscapes' tree of label PNGs, written from segmentations of any dataset that has its classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import image_files, png
from segkit.formats.base import (
    DatasetImage,
    DatasetWriter,
    compute_segment_areas,
    list_lost_annotations,
    list_lost_scores,
)
from segkit.formats.cityscapes import files as cityscapes
from segkit.formats.cityscapes.files import CATEGORIES, IMAGE_SUFFIX, INSTANCE_IDS_SUFFIX
from segkit.formats.cityscapes.label_ids import LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX
from segkit.structures import VOID, CategorySet, PanopticSegmentation, Segment
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

NAME = re.compile(r"([^_]+)_\d+_\d+")  # city, sequence, frame


class CityscapesWriter(DatasetWriter):
    """Writes gtFine/<split>/<city>/<name>_gtFine_{instanceIds,labelIds}.png, by option labelTrainIds, image by image.

    <name> is the picture's without its ending, and becomes the image_id; <city> is the picture's folder, or where it
    has none what <name> begins with, or <split> where <name> is not city_sequence_frame. `picture_path` says where a
    picture belongs. categories: of the segmentations; by their names they become Cityscapes' labels, whatever their
    ids: DatasetError where none has such a name.
    """

    def __init__(
        self, root: str | Path, categories: CategorySet, *, split: str = "val", train_ids: bool = False
    ) -> None:
        super().__init__(root, categories)
        json_fields.check_inside(split, "split", root)
        self.split = split
        self.train_ids = train_ids
        self._name_of = {c.category_id: c.name for c in categories.categories}
        self._label_of = {c.name: c for c in CATEGORIES.categories}
        if not self._label_of.keys() & self._name_of.values():
            remedy = f"rename the categories to Cityscapes': {', '.join(self._label_of)}"
            got = abbreviate(self._name_of.values())
            raise DatasetError(f"expected categories with names of Cityscapes', got {got}", where=root, remedy=remedy)
        self._written: set[str] = set()

    def image_path(self, image: DatasetImage) -> Path:
        """Where the image's picture is to lie, as a PNG; DatasetError for a name that climbs out, is hidden, or too
        long for a label file."""
        city, name = self._city_and_name(image)
        return self.root / "leftImg8bit" / self.split / city / f"{name}{IMAGE_SUFFIX}"

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Writes the image's PNGs; returns what they cannot hold, one line each. annotations: looked at for overlaps.

        Raises DatasetError where the name climbs out, is hidden, too long, or was written before, and for more
        instances of a label than the PNG can number; ValueError for a category not in `categories`, an id in the map
        that no segment has, and a map without pixels.
        """
        city, name = self._city_and_name(image)
        where = json_fields.Location(self.root, image.image_id)
        if name in self._written:
            problem = f"labels of the name {name!r} were written before, and it is the image_id"
            raise DatasetError(problem, where=where, remedy="rename one of the images")
        areas_px = compute_segment_areas(image, segmentation, self.categories)
        labelled, lost = self._labelled(segmentation)
        try:
            values = cityscapes.compute_instance_values(labelled.segments)
        except ValueError as error:
            raise DatasetError(str(error), where=where) from None
        maps: dict[str, NDArray[Any]] = {INSTANCE_IDS_SUFFIX: cityscapes.encode_instance_ids(labelled)}
        maps[LABEL_IDS_SUFFIX] = cityscapes.encode_label_ids(labelled)
        if self.train_ids:
            maps[TRAIN_IDS_SUFFIX] = cityscapes.encode_train_ids(labelled)
        for suffix, pixels in maps.items():
            png.write(self.root / "gtFine" / self.split / city / f"{name}{suffix}", pixels)
        self._written.add(name)
        lost += _unheld(labelled.segments, values, areas_px) + list_lost_scores(labelled.segments)
        return lost + list_lost_annotations(annotations, image.size_hw)

    def _city_and_name(self, image: DatasetImage) -> tuple[str, str]:
        where = json_fields.Location(self.root, image.image_id)
        image_files.check_plain_name(image.file_name, where)
        path = PurePosixPath(image.file_name)
        name = path.name.removesuffix(IMAGE_SUFFIX) if path.name.endswith(IMAGE_SUFFIX) else path.stem
        image_files.check_name_length(f"{name}{TRAIN_IDS_SUFFIX}", where)  # the longest
        named = NAME.fullmatch(name)
        return path.parent.name or (named[1] if named else self.split), name

    def _labelled(self, segmentation: PanopticSegmentation) -> tuple[PanopticSegmentation, list[str]]:
        """The segmentation with Cityscapes' label ids, without what has none; and what was lost."""
        kept: list[Segment] = []
        dropped, lost = [], []
        for segment in segmentation.segments:
            name, where = self._name_of[segment.category_id], f"segment {segment.segment_id}"
            label = self._label_of.get(name)
            if label is None:
                dropped.append(segment.segment_id)
                lost.append(f"{where}: no label of Cityscapes' is named {name!r}, its pixels become unlabeled")
                continue
            iscrowd = label.isthing and (segment.iscrowd or not segment.isthing)
            if iscrowd and not segment.iscrowd:
                lost.append(f"{where}: {name} without instances is held as a crowd")
            if segment.iscrowd and not iscrowd:
                lost.append(f"{where}: {name} is stuff, it cannot be held as a crowd")
            kept.append(replace(segment, category_id=label.category_id, isthing=label.isthing, iscrowd=iscrowd))
        if not dropped:
            return PanopticSegmentation(segmentation.segment_ids, tuple(kept)), lost
        segment_ids = np.where(np.isin(segmentation.segment_ids, dropped), VOID, segmentation.segment_ids)
        return PanopticSegmentation(segment_ids.astype(np.int32), tuple(kept)), lost


def _unheld(segments: Sequence[Segment], values: dict[int, int], areas_px: dict[int, int]) -> list[str]:
    lost: list[str] = []
    first_with: dict[int, int] = {}
    for segment in segments:
        where = f"segment {segment.segment_id}"
        if segment.segment_id not in areas_px:
            lost.append(f"{where}: it has no pixel")
            continue
        first = first_with.setdefault(values[segment.segment_id], segment.segment_id)
        if first != segment.segment_id:
            kind = f"{'a crowd of ' if segment.iscrowd else ''}{CATEGORIES[segment.category_id].name}"
            lost.append(f"{where}: {kind}, it becomes one with segment {first}")
    return lost
