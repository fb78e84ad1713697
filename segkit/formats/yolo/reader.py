"""Ultralytics' YOLO segmentation format, read: data.yaml, images/ and labels/ with polygons as shares of the size.

Source: docs.ultralytics.com/datasets/segment, and ultralytics/data/utils.py for what its check of labels accepts.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pycocotools import mask as coco_mask

from segkit.formats import image_files
from segkit.formats.base import ORIGINAL_SEGMENTATION, DatasetImage, DatasetReader
from segkit.formats.coco import paint_annotations
from segkit.formats.splits import check_split, select_split
from segkit.formats.yolo import dataset_file
from segkit.formats.yolo.dataset_file import CLASSES_FILE, DatasetFile
from segkit.formats.yolo.labels import Outline, read_outlines
from segkit.structures import Category, CategorySet, PanopticSegmentation, default_color, segmentation_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, describe_unused, raise_issue, report_unpaired, try_read

LABEL_SUFFIX = ".txt"
PAIRING = "expected images/NAME.* and labels/NAME.txt, an image for each label file"


class YoloReader(DatasetReader):
    """The images of one split. Every class is a thing, its number in data.yaml the category_id.

    An image without label file has no objects; `skipped` counts these images. A line is one object, its pixels those
    that COCO's polygons have. Smaller objects occlude larger ones, as in Ultralytics' overlap masks. Paths may have
    backslashes. If the dataset was moved, the longest end of a path that exists in its folder counts. `root` may also
    be a folder with `images`, `labels` and classes.txt, without data.yaml: its images are the split `train`.

    Args:
        root: Folder of data.yaml, or this file under any name.
        split: "train", "val" or "test" of data.yaml.
        val_share: If given, the images of data.yaml's `train` are divided by the hash of their names instead: this
            share of them, 0..1, is "val".
        path: Folder of the dataset, in place of `path` in data.yaml, which must not lead out of the file's folder.
        classes: Names of the classes from 0 on, or {class: name}, in place of those in data.yaml.
        on_issue: Gets images that are missing or unreadable, label files without image, and the first invalid line of
            each label file: a box without outline, x and y outside 0..1 by more than 0.01, a class without name. The
            image is then left out. Raises by default.

    Raises:
        DatasetError: A file is missing or invalid, the split has no image, or none of its images has a label file.
        ConfigError: `val_share` is no share, or split is "test" beside it.
    """

    format = "yolo"
    has_overlapping_masks = True

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        val_share: float | None = None,
        path: str | Path | None = None,
        classes: Sequence[str] | Mapping[int, str] | None = None,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        if val_share is not None:
            check_split(split, val_share)
        file = dataset_file.read_dataset_file(Path(root), None if path is None else Path(path), classes)
        self.root = file.root
        self.categories = CategorySet(
            [Category(i, name, True, default_color(i)) for i, name in sorted(file.names.items())], file.path
        )
        named_split = split if val_share is None else "train"
        names = dataset_file.list_images(file, named_split, on_issue)
        folder = dataset_file.choose_image_root(file, named_split, names)
        self.image_root = file.root / folder
        paths = [(image_files.strip_suffix(posixpath.relpath(name, folder or ".")), file.root / name) for name in names]
        remedy = "an image and its label file have one name: rename one of the images"
        by_id = image_files.index_unique(paths, "image-id-twice", remedy, on_issue)
        self._labels = {i: file.root / dataset_file.get_label_name(_get_relative(p, file)) for i, p in by_id.items()}
        self._describe_unlabelled()
        if not dataset_file.has_lists(file, named_split):
            self._report_labels_without_image(on_issue)
        images = []
        for image_id in select_split(None if val_share is None else split, val_share or 0.0, by_id, file.path):
            image = self._open_image(image_id, by_id[image_id], on_issue)
            images += [image] if image is not None else []
        self.images = tuple(images)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class. Segments are numbered from 1 in the order of the lines; pixels outside all are void."""
        return paint_annotations(self.read_annotations(image), image.size_hw)

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """See base class. An object without pixel is left out."""
        annotations = []
        for annotation in self.read_stored_annotations(image):
            rle = segmentation_to_rle(annotation["segmentation"], image.size_hw)
            if area_px := int(coco_mask.area(rle)):
                given = annotation["segmentation"]
                box = [int(number) for number in coco_mask.toBbox(rle).tolist()]
                whole = {"area": area_px, "bbox": box, "segmentation": rle, ORIGINAL_SEGMENTATION: given}
                annotations.append({**annotation, **whole})
        return annotations

    def read_stored_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """See base class. Masks are polygons."""
        return [
            {
                "image_id": image.image_id,
                "category_id": outline.category_id,
                "iscrowd": 0,
                "bbox": _compute_box(outline.polygon),
                "segmentation": [outline.polygon],
            }
            for outline in self._read_outlines(image)
        ]

    def check_annotation(self, image: DatasetImage, on_issue: IssueHandler) -> None:
        """See base class: outlines without pixel, and lines that are there twice."""
        path, earlier = self._labels[str(image.image_id)], dict[tuple[object, ...], int]()
        for outline in self._read_outlines(image):
            where = f"{path}, line {outline.line} ({self.categories[outline.category_id].name!r})"
            first = earlier.setdefault((outline.category_id, *outline.polygon), outline.line)
            if first != outline.line:
                on_issue("mask-twice", DatasetError(f"it is equal to line {first}", where=where))
            elif not coco_mask.area(segmentation_to_rle([outline.polygon], image.size_hw)):
                on_issue("segment-empty", DatasetError("its outline has no pixel inside", where=where))

    def _read_outlines(self, image: DatasetImage) -> list[Outline]:
        path = self._labels[str(image.image_id)]
        return read_outlines(path, image.size_hw, self.categories.thing_contiguous_ids) if os.path.isfile(path) else []

    def _open_image(self, image_id: str, path: Path, on_issue: IssueHandler) -> DatasetImage | None:
        """The image with its size; None, once reported, if it or its label file cannot be read."""
        size_hw = image_files.read_common_size(path, [], on_issue)
        if size_hw is None:
            return None
        image = DatasetImage(image_id, path.relative_to(self.image_root).as_posix(), size_hw)
        return None if try_read(on_issue, "", self._read_outlines, image) is None else image

    def _describe_unlabelled(self) -> None:
        """Count the images without label file; DatasetError if none has one."""
        missing = [image_id for image_id, path in self._labels.items() if not os.path.isfile(path)]
        if len(missing) == len(self._labels):
            expected = next(iter(self._labels.values())).relative_to(self.root)
            problem = f"none of its {len(missing)} images has a label file, such as {expected}"
            raise DatasetError(problem, where=self.root, remedy=PAIRING)
        self.skipped = describe_unused(self.image_root, "images have no label file, and so no objects", missing)

    def _report_labels_without_image(self, on_issue: IssueHandler) -> None:
        """Report text files beside the label files that belong to no image."""
        labels = {*self._labels.values()}
        for folder in sorted({path.parent for path in labels if path.parent != self.root}):
            paths = image_files.find_by_pattern(folder, "", LABEL_SUFFIX)
            unpaired = {n: path for n, path in paths.items() if path not in labels and path.name != CLASSES_FILE}
            report_unpaired(on_issue, "image-missing", "no image has the label file's name", unpaired, (), PAIRING)


def _get_relative(path: Path, file: DatasetFile) -> str:
    return PurePosixPath(path.relative_to(file.root)).as_posix()


def _compute_box(polygon: Sequence[float]) -> list[float]:
    """(x, y, width, height) of the corners."""
    xs, ys = polygon[::2], polygon[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
