"""Cityscapes' tree of label PNGs, written from the segmentations of any dataset that has its classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import image_files, png
from segkit.formats.base import DatasetImage, UnfitImageError
from segkit.formats.cityscapes import label_pngs
from segkit.formats.cityscapes.label_pngs import CATEGORIES, IMAGE_SUFFIX
from segkit.formats.derive import relabel
from segkit.formats.image_files import LabelFilesWriter
from segkit.structures import CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Location, check_inside
from segkit.utils.text import abbreviate

NAME = re.compile(r"([^_]+)_\d+_\d+")  # city, sequence, frame


class CityscapesWriter(LabelFilesWriter):
    """Writes gtFine/<split>/<city>/<name>_gtFine_{instanceIds,labelIds}.png, image by image.

    <name> is the image's file name without its ending, and becomes the image_id. <city> is the image's folder. Without
    a folder it is the first part of a name of the form city_sequence_frame, and <split> for other names.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations. Their names, not their ids, select Cityscapes' labels.
        split: Name of the split's folders.
        train_ids: Whether *_labelTrainIds.png is written too.

    Raises:
        DatasetError: No category has a name of Cityscapes', or `split` leaves the folder.
    """

    def __init__(
        self, root: str | Path, categories: CategorySet, *, split: str = "val", train_ids: bool = False
    ) -> None:
        super().__init__(root, categories)
        check_inside(split, "split", root)
        self.split = split
        self.train_ids = train_ids
        self._labels = {c.name: c for c in CATEGORIES.categories}
        names = [c.name for c in categories.categories]
        if not self._labels.keys() & {*names}:
            problem = f"expected categories with names of Cityscapes', got {abbreviate(names)}"
            remedy = f"rename the categories to Cityscapes': {', '.join(self._labels)}"
            raise DatasetError(problem, where=root, remedy=remedy)

    def image_path(self, image: DatasetImage) -> Path:
        """See base class. The image is a PNG; DatasetError also for a hidden name, or one too long for a label file."""
        name = self._get_stem(image)
        return self.root / "leftImg8bit" / self.split / self._get_city(image, name) / f"{name}{IMAGE_SUFFIX}"

    def _write(
        self, image: DatasetImage, name: str, segmentation: PanopticSegmentation, areas_px: dict[int, int]
    ) -> list[str]:
        labelled, losses = self._convert(segmentation)
        try:
            values = label_pngs.compute_instance_values(labelled.segments)
        except ValueError as error:
            raise UnfitImageError(str(error), where=Location(self.root, image.image_id)) from None
        maps: dict[str, NDArray[Any]] = {label_pngs.INSTANCE_IDS_SUFFIX: label_pngs.encode_instance_ids(labelled)}
        maps[label_pngs.LABEL_IDS_SUFFIX] = label_pngs.encode_label_ids(labelled)
        if self.train_ids:
            maps[label_pngs.TRAIN_IDS_SUFFIX] = label_pngs.encode_train_ids(labelled)
        for suffix, pixels in maps.items():
            png.write(self.root / "gtFine" / self.split / self._get_city(image, name) / f"{name}{suffix}", pixels)
        return losses + list_merged_segments(labelled.segments, values, areas_px)

    def _get_name(self, image: DatasetImage) -> str:
        """The name without ending, which must not be repeated in another city."""
        name = self._get_stem(image)
        if name in self._names:
            problem = f"labels of the name {name!r} were written before, and the name is the image_id"
            raise UnfitImageError(problem, where=Location(self.root, image.image_id), remedy="rename one of the images")
        return name

    def _get_stem(self, image: DatasetImage) -> str:
        where = Location(self.root, image.image_id)
        image_files.check_plain_name(image.file_name, where)
        path = PurePosixPath(image.file_name)
        name = path.name.removesuffix(IMAGE_SUFFIX) if path.name.endswith(IMAGE_SUFFIX) else path.stem
        image_files.check_name_length(f"{name}{label_pngs.TRAIN_IDS_SUFFIX}", where)  # the longest
        return name

    def _get_city(self, image: DatasetImage, name: str) -> str:
        match = NAME.fullmatch(name)
        return PurePosixPath(image.file_name).parent.name or (match[1] if match else self.split)

    def _convert(self, segmentation: PanopticSegmentation) -> tuple[PanopticSegmentation, list[str]]:
        """The segmentation with Cityscapes' label ids, without segments of other classes; and a line on each loss."""
        segments: list[Segment] = []
        losses = []
        for segment in segmentation.segments:
            name, where = self.categories[segment.category_id].name, f"segment {segment.segment_id}"
            label = self._labels.get(name)
            if label is None:
                losses.append(f"{where}: no label of Cityscapes' is named {name!r}, its pixels become unlabeled")
                continue
            iscrowd = label.isthing and (segment.iscrowd or not segment.isthing)
            if iscrowd and not segment.iscrowd:
                losses.append(f"{where}: {name} without instances is held as a crowd")
            if segment.iscrowd and not iscrowd:
                losses.append(f"{where}: {name} is stuff, it cannot be held as a crowd")
            segments.append(replace(segment, category_id=label.category_id, isthing=label.isthing, iscrowd=iscrowd))
        ids = {s.segment_id: s.segment_id for s in segments}
        return PanopticSegmentation(relabel(segmentation.segment_ids, ids, np.int32), tuple(segments)), losses


def list_merged_segments(segments: Sequence[Segment], values: dict[int, int], areas_px: dict[int, int]) -> list[str]:
    """A line on each segment without pixels, and on each that gets the value of an earlier one."""
    losses: list[str] = []
    first_by_value: dict[int, int] = {}
    for segment in segments:
        where = f"segment {segment.segment_id}"
        if segment.segment_id not in areas_px:
            losses.append(f"{where}: it has no pixel")
            continue
        first = first_by_value.setdefault(values[segment.segment_id], segment.segment_id)
        if first != segment.segment_id:
            kind = f"{'a crowd of ' if segment.iscrowd else ''}{CATEGORIES[segment.category_id].name}"
            losses.append(f"{where}: {kind}, it becomes one with segment {first}")
    return losses
