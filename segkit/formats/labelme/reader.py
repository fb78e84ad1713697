"""labelme: one JSON of shapes beside each picture (github.com/wkentaro/labelme)."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segkit.formats import image_files
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.image_io import IMAGE_SUFFIXES
from segkit.formats.labelme import files as labelme_files
from segkit.formats.labelme import shapes as labelme_shapes
from segkit.formats.labelme.files import SUFFIX, Drawing
from segkit.formats.labelme.shapes import Shape
from segkit.structures import VOID, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, describe_unused, raise_issue
from segkit.utils.text import abbreviate

IGNORED = ("ignored",)  # the key of shapes that become void
NO_FOLDER = "give the folder of labelme's JSON files"


class LabelmeReader(DatasetReader):
    """Every JSON below root is one image, its path without suffix the image_id; hidden files are passed over.

    A picture is where imagePath says, seen from its JSON, inside root; imageData is not looked at. things, stuff,
    ignore: labels; things of None are all other labels. Categories are the things and the stuff, sorted by name, with
    ids from 1: name both where several folders are to agree. A thing's shapes of one label and group_id are one object,
    every other shape of a thing is one; the shapes of one stuff label are one segment; ignored shapes are void. Later
    shapes lie on top of earlier ones, as labelme draws them. A shape's flag `iscrowd` makes a crowd.
    skipped: one line each on what is not read, which are points and lines, and pictures without JSON.
    tell: gets images whose JSON is malformed, whose picture is missing, of another size or has another JSON before, or
    which have labels that are none of things, stuff and ignore. Raises DatasetError where there is no JSON or no label;
    ConfigError where a label is in two of the three.
    """

    format = "labelme"
    has_overlapping_masks = True

    def __init__(
        self,
        root: str | Path,
        *,
        things: Sequence[str] | None = None,
        stuff: Sequence[str] = (),
        ignore: Sequence[str] = (),
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        _check_options(things, stuff, ignore)
        self.root = self.image_root = Path(root)
        names = image_files.files_below(self.root, NO_FOLDER)
        json_names = [name for name in names if name.endswith(SUFFIX)]
        if not json_names:
            raise DatasetError("expected labelme's JSON files, found none", where=root, remedy="check the folder")
        drawings = _read_all(self.root, json_names, on_issue)
        self.skipped = (
            *(line for drawing in drawings.values() for line in drawing.skipped),
            *_without_json(self.root, names, json_names, drawings),
        )
        found = {name: self._image(name, drawing, on_issue) for name, drawing in drawings.items()}
        labels = {shape.label for drawing in drawings.values() for shape in drawing.shapes}
        self._ignore = {*ignore}
        self.categories = _categories(labels - {*stuff, *ignore} if things is None else things, stuff, self.root)
        self._category_ids = {c.name: c.category_id for c in self.categories.categories}
        known = {name for name, drawing in drawings.items() if found[name] and self._knows(drawing.shapes, on_issue)}
        self._shapes = {name.removesuffix(SUFFIX): drawings[name].shapes for name in known}
        self.images = tuple(image for name, image in found.items() if image is not None and name in known)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """Segments are numbered from 1 in the order of their first shapes; those that others hide have no segment.

        DatasetError where a mask is damaged.
        """
        segment_ids = np.zeros(image.size_hw, dtype=np.int32)
        numbers: dict[tuple[object, ...], int] = {}
        found: dict[int, Shape] = {}
        crowds: set[int] = set()
        for key, shape, rle in self._painted(image):
            segment_id = VOID if key == IGNORED else numbers.setdefault(key, len(numbers) + 1)
            crop, (left, top) = labelme_shapes.crop_of(rle)
            segment_ids[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = segment_id
            found.setdefault(segment_id, shape)
            crowds |= {segment_id} if shape.iscrowd else set()
        areas_px = np.bincount(segment_ids.ravel(), minlength=len(numbers) + 1).tolist()
        segments = []
        for segment_id in (i for i in numbers.values() if areas_px[i]):
            category = self.categories[self._category_ids[found[segment_id].label]]
            iscrowd = category.isthing and segment_id in crowds
            segments.append(Segment(segment_id, category.category_id, category.isthing, areas_px[segment_id], iscrowd))
        return PanopticSegmentation(segment_ids, tuple(segments))

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """COCO annotations of the things' whole masks, whatever lies on top, in the order of their first shapes."""
        parts: dict[tuple[object, ...], tuple[list[Shape], list[dict[str, Any]]]] = {}
        for key, shape, rle in self._painted(image):
            if key != IGNORED and self.categories[self._category_ids[shape.label]].isthing:
                shapes, rles = parts.setdefault(key, ([], []))
                shapes.append(shape)
                rles.append(rle)
        made = (self._annotation(image, *part) for part in parts.values())
        return [annotation for annotation in made if annotation["area"]]

    def _painted(self, image: DatasetImage) -> Iterator[tuple[tuple[object, ...], Shape, dict[str, Any]]]:
        """Every shape in its order, with the key of the segment that it belongs to and its pixels as RLE."""
        for index, shape in enumerate(self._shapes[str(image.image_id)]):
            if shape.label in self._ignore:
                key: tuple[object, ...] = IGNORED
            elif not self.categories[self._category_ids[shape.label]].isthing:
                key = ("stuff", shape.label)
            else:
                key = ("single", index) if shape.group_id is None else ("group", shape.label, shape.group_id)
            yield key, shape, labelme_shapes.to_rle(shape, image.size_hw)

    def _annotation(self, image: DatasetImage, shapes: list[Shape], rles: list[dict[str, Any]]) -> dict[str, Any]:
        rle = coco_mask.merge(rles)
        return {
            "image_id": image.image_id,
            "category_id": self._category_ids[shapes[0].label],
            "iscrowd": int(any(shape.iscrowd for shape in shapes)),
            "area": int(coco_mask.area(rle)),
            "bbox": [int(number) for number in coco_mask.toBbox(rle).tolist()],
            "segmentation": {"size": [*image.size_hw], "counts": rle["counts"].decode("ascii")},
        }

    def _image(self, name: str, drawing: Drawing, on_issue: IssueHandler) -> DatasetImage | None:
        size_hw = image_files.read_common_size(self.root / drawing.file_name, [], on_issue)
        if size_hw is None:
            return None
        for key, got, expected in zip(("imageHeight", "imageWidth"), drawing.size_hw, size_hw, strict=True):
            if got not in (None, expected):
                problem = (
                    f"expected `{key}` to be {expected} pixels, as of {drawing.file_name}, got {reprlib.repr(got)}"
                )
                remedy = "is it the JSON of this picture?"
                on_issue("size-differs", DatasetError(problem, where=self.root / name, remedy=remedy))
                return None
        return DatasetImage(name.removesuffix(SUFFIX), drawing.file_name, size_hw)

    def _knows(self, shapes: Sequence[Shape], on_issue: IssueHandler) -> bool:
        """Whether all labels are among the classes; those that are not are told, each once."""
        known = [*self._category_ids, *sorted(self._ignore)]
        strange: dict[str, Shape] = {}
        for shape in shapes:
            if shape.label not in self._category_ids and shape.label not in self._ignore:
                strange.setdefault(shape.label, shape)
        for label, shape in strange.items():
            problem = f"expected a label among {abbreviate(known)}, got {label!r}"
            remedy = "name it in things, stuff or ignore"
            on_issue("category-unknown", DatasetError(problem, where=shape.where, remedy=remedy))
        return not strange


def _check_options(things: Sequence[str] | None, stuff: Sequence[str], ignore: Sequence[str]) -> None:
    seen: set[str] = set()
    for key, labels in (("things", () if things is None else things), ("stuff", stuff), ("ignore", ignore)):
        sound = isinstance(labels, Collection) and not isinstance(labels, str)
        if not sound or not all(isinstance(label, str) and label for label in labels):
            raise ConfigError(f"expected {key} to be a list of labels, got {labels!r}")
        if seen & {*labels}:
            got = abbreviate(sorted(seen & {*labels}))
            raise ConfigError(f"expected a label in one of things, stuff and ignore, got {got} in two")
        seen |= {*labels}


def _read_all(root: Path, json_names: Sequence[str], on_issue: IssueHandler) -> dict[str, Drawing]:
    """By the JSON's path; of two with one picture, the first counts."""
    drawings: dict[str, Drawing] = {}
    owner: dict[str, str] = {}
    for name in json_names:
        drawing = labelme_files.read(root, name, on_issue)
        if drawing is None:
            continue
        other = owner.setdefault(drawing.file_name, name)
        if other == name:
            drawings[name] = drawing
        else:
            problem = f"expected one JSON of a picture, got {other} and {name} of {drawing.file_name}"
            remedy = "remove one, or correct its imagePath"
            on_issue("annotation-twice", DatasetError(problem, where=root / name, remedy=remedy))
    return drawings


def _without_json(
    root: Path, names: Sequence[str], json_names: Sequence[str], drawings: Mapping[str, Drawing]
) -> tuple[str, ...]:
    """The line on pictures that no JSON is about, as far as they can be read."""
    drawn = {drawing.file_name for drawing in drawings.values()}
    unread = {name.removesuffix(SUFFIX) for name in json_names if name not in drawings}
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    bare = [name for name in images if name not in drawn and image_files.strip_suffix(name) not in unread]
    return describe_unused(root, "pictures have no JSON", bare)


def _categories(things: Collection[str], stuff: Collection[str], root: Path) -> CategorySet:
    names = sorted({*things, *stuff})
    return CategorySet.from_coco(
        [{"id": i, "name": n, "isthing": n not in stuff} for i, n in enumerate(names, 1)], root
    )
