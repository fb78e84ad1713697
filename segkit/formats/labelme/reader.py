"""labelme: one JSON of shapes beside each image (github.com/wkentaro/labelme)."""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.formats import image_files
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.labelme import shapes as labelme_shapes
from segkit.formats.labelme.embedded_images import read_embedded_image
from segkit.formats.labelme.files import LabelmeFile, describe_images_without_json, read_all
from segkit.formats.labelme.shapes import JSON_SUFFIX, Shape
from segkit.formats.splits import VAL_SHARE, Split, check_split, select_split
from segkit.structures import VOID, CategorySet, ImageId, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, raise_issue
from segkit.utils.text import abbreviate, suggest

MAX_LINE_WIDTH = 1000
Key = tuple[object, ...]  # identifies the segment that a shape belongs to
IGNORED: Key = ("ignored",)  # the key of shapes that become void


class LabelmeReader(DatasetReader):
    """Every JSON below root is one image, its path without suffix the image_id; hidden files are passed over.

    The image is at imagePath, relative to its JSON and inside root. If no file is there, it is in imageData, which is
    read without EXIF, as labelme does. Categories are the things
    and the stuff, sorted by name, with ids from 1: name both if several folders are to have the same ids.

    The shapes of a thing with one label and group_id are one object; any other shape of a thing is one object. The
    shapes of one stuff label are one segment. Ignored shapes are void. Later shapes occlude earlier ones, as labelme
    draws them. A shape has the pixels of labelme's own conversion. Its flag `iscrowd` makes a crowd. `skipped` has a
    line each on points and lines, and on images without JSON.

    Args:
        root: Folder of the JSON files.
        things: Labels of things; None means all labels that are neither stuff nor ignored.
        stuff: Labels of stuff.
        ignore: Labels that become void.
        line_width: Pixels that lines are drawn with; points have half of it as radius. labelme's own conversion draws
            10. By default neither is read, since they have no area.
        split: "train" or "val", by the hash of the JSONs' names; None for all images. Both have the same categories.
        val_share: Share of the images in "val", 0..1.
        on_issue: Gets the issues of single images, which are then left out: an invalid JSON, an image that is
            missing, of another size or that an earlier JSON has, a label that is not in things, stuff or ignore.
            Raises by default.

    Raises:
        DatasetError: The folder holds no JSON or no label, or the split is empty.
        ConfigError: A label is in two of things, stuff and ignore, or `split` or `val_share` is invalid.
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
        line_width: int = 0,
        split: Split | None = None,
        val_share: float = VAL_SHARE,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        _check_options(things, stuff, ignore)
        check_split(split, val_share)
        if type(line_width) is not int or not 0 <= line_width <= MAX_LINE_WIDTH:
            raise ConfigError(f"expected line_width to be a whole number in 0..{MAX_LINE_WIDTH}, got {line_width!r}")
        self._line_width = line_width
        self.root = self.image_root = Path(root)
        names = image_files.files_below(self.root, "give the folder of labelme's JSON files")
        json_names = [name for name in names if name.endswith(JSON_SUFFIX)]
        if not json_names:
            raise DatasetError("expected labelme's JSON files, found none", where=root, remedy="check the folder")
        contents = read_all(self.root, json_names, line_width, on_issue)
        lines = [line for content in contents.values() for line in content.skipped]
        self.skipped = (*lines, *describe_images_without_json(self.root, names, json_names, contents))
        selected = select_split(split, val_share, contents, root, lambda name: name.removesuffix(JSON_SUFFIX))
        images = {name: self._read_size(name, contents[name], on_issue) for name in selected}
        labels = {shape.label for content in contents.values() for shape in content.shapes}
        self._ignored = {*ignore}
        class_names = sorted({*stuff, *(labels - {*ignore} if things is None else things)})
        entries = [{"id": i, "name": name, "isthing": name not in stuff} for i, name in enumerate(class_names, 1)]
        self.categories = CategorySet.from_coco(entries, self.root)
        self._category_by_label = {c.name: c for c in self.categories.categories}
        self._shapes: dict[str, tuple[Shape, ...]] = {}
        self._embedded: set[ImageId] = set()  # images that are in their JSON
        valid_images = []
        for name, image in images.items():
            if image is not None and self._check_labels(contents[name].shapes, on_issue):
                valid_images.append(image)
                self._shapes[str(image.image_id)] = contents[name].shapes
                if contents[name].embedded_size_hw is not None:
                    self._embedded.add(image.image_id)
        self.images = tuple(valid_images)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class. Segments are numbered from 1 in the order of their first shapes; occluded ones are left out.

        Raises:
            DatasetError: A mask is damaged.
        """
        segment_ids = np.zeros(image.size_hw, dtype=np.int32)
        ids: dict[Key, int] = {IGNORED: VOID}
        groups: dict[int, list[Shape]] = defaultdict(list)
        for key, shape, rle in self._rasterise(image):
            segment_id = ids.setdefault(key, len(ids))
            crop, (left, top) = labelme_shapes.decode_crop(rle)
            segment_ids[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = segment_id
            groups[segment_id].append(shape)
        areas_px = np.bincount(segment_ids.ravel(), minlength=len(ids)).tolist()
        segments = []
        for segment_id in (i for i in ids.values() if i != VOID and areas_px[i]):
            category = self._category_by_label[groups[segment_id][0].label]
            iscrowd = category.isthing and any(shape.iscrowd for shape in groups[segment_id])
            segments.append(Segment(segment_id, category.category_id, category.isthing, areas_px[segment_id], iscrowd))
        return PanopticSegmentation(segment_ids, tuple(segments))

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """See base class. Masks are whole, also under other shapes, in the order of their first shapes."""
        parts: dict[Key, tuple[list[Shape], list[dict[str, Any]]]] = {}
        for key, shape, rle in self._rasterise(image):
            if key != IGNORED and self._category_by_label[shape.label].isthing:
                shapes, rles = parts.setdefault(key, ([], []))
                shapes.append(shape)
                rles.append(rle)
        annotations = (self._build_annotation(image, *part) for part in parts.values())
        return [annotation for annotation in annotations if annotation["area"]]

    def read_image(self, image: DatasetImage) -> NDArray[np.uint8]:
        """See base class. The image may be in the JSON."""
        if image.image_id in self._embedded:
            return read_embedded_image(self.root / f"{image.image_id}{JSON_SUFFIX}")
        return super().read_image(image)

    def check_annotation(self, image: DatasetImage, on_issue: IssueHandler) -> None:
        """See base class: shapes outside the image, without area, or drawn twice."""
        earlier: dict[Key, Shape] = {}
        for _, shape, rle in self._rasterise(image):
            where = f"{shape.where} ({shape.label!r})"
            first = earlier.setdefault(shape.get_key(), shape)
            if first is shape:
                labelme_shapes.report_fault(on_issue, shape, int(coco_mask.area(rle)), image.size_hw, where)
            else:
                problem = f"it is equal to {first.where.removeprefix(f'{self.root}/')}"
                on_issue("mask-twice", DatasetError(problem, where=where))

    def _rasterise(self, image: DatasetImage) -> Iterator[tuple[Key, Shape, dict[str, Any]]]:
        """Every shape in its order, with the key of its segment and its pixels as RLE."""
        for index, shape in enumerate(self._shapes[str(image.image_id)]):
            if shape.label in self._ignored:
                key = IGNORED
            elif not self._category_by_label[shape.label].isthing:
                key = ("stuff", shape.label)
            else:
                key = ("single", index) if shape.group_id is None else ("group", shape.label, shape.group_id)
            yield key, shape, labelme_shapes.rasterise(shape, image.size_hw, self._line_width)

    def _build_annotation(self, image: DatasetImage, shapes: list[Shape], rles: list[dict[str, Any]]) -> dict[str, Any]:
        rle = coco_mask.merge(rles)
        return {
            "image_id": image.image_id,
            "category_id": self._category_by_label[shapes[0].label].category_id,
            "iscrowd": int(any(shape.iscrowd for shape in shapes)),
            "area": int(coco_mask.area(rle)),
            "bbox": [int(number) for number in coco_mask.toBbox(rle).tolist()],
            "segmentation": {"size": [*image.size_hw], "counts": rle["counts"].decode("ascii")},
        }

    def _read_size(self, name: str, content: LabelmeFile, on_issue: IssueHandler) -> DatasetImage | None:
        """The image with its size; None, once reported, if it is missing or the JSON has another size."""
        size_hw = content.embedded_size_hw
        if size_hw is None:
            size_hw = image_files.read_common_size(self.root / content.file_name, [], on_issue)
        if size_hw is None:
            return None
        for key, got, expected in zip(("imageHeight", "imageWidth"), content.size_hw, size_hw, strict=True):
            if got not in (None, expected):
                expectation = f"`{key}` to be {expected} pixels, as of {content.file_name}"
                problem, remedy = f"expected {expectation}, got {reprlib.repr(got)}", "is it the JSON of this image?"
                on_issue("size-differs", DatasetError(problem, where=self.root / name, remedy=remedy))
                return None
        return DatasetImage(name.removesuffix(JSON_SUFFIX), content.file_name, size_hw)

    def _check_labels(self, shapes: Sequence[Shape], on_issue: IssueHandler) -> bool:
        """Whether all labels are among the classes; each other label is reported once."""
        expected = [*self._category_by_label, *sorted(self._ignored)]
        unexpected: set[str] = set()
        for shape in shapes:
            if shape.label not in expected and shape.label not in unexpected:
                unexpected.add(shape.label)
                problem = f"expected a label among {abbreviate(expected)}, got {shape.label!r}"
                remedy = suggest(shape.label, expected, "name it in things, stuff or ignore")
                on_issue("category-unknown", DatasetError(problem, where=shape.where, remedy=remedy))
        return not unexpected


def _check_options(things: Sequence[str] | None, stuff: Sequence[str], ignore: Sequence[str]) -> None:
    seen: set[str] = set()
    for key, labels in (("things", () if things is None else things), ("stuff", stuff), ("ignore", ignore)):
        is_list = isinstance(labels, Collection) and not isinstance(labels, str)
        if not is_list or not all(isinstance(label, str) and label for label in labels):
            raise ConfigError(f"expected {key} to be a list of labels, got {labels!r}")
        if repeated := seen & {*labels}:
            got = abbreviate(sorted(repeated))
            raise ConfigError(f"expected a label in one of things, stuff and ignore, got {got} in two")
        seen |= {*labels}
