"""Cityscapes as a DatasetReader: instance ids, polygons, panoptic files, label ids or train ids."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from segkit.formats import coco, png
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.cityscapes import label_pngs
from segkit.formats.cityscapes.label_pngs import CATEGORIES, IMAGE_SUFFIX, LABEL_ID_BY_TRAIN_ID
from segkit.formats.cityscapes.polygons import POLYGONS_SUFFIX, read_polygon_segmentation
from segkit.formats.image_files import check_folder, describe_unused_images, find_by_pattern, index_unique
from segkit.structures import PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, report_missing, report_unpaired, try_read
from segkit.utils.json_fields import Location, check_inside
from segkit.utils.text import abbreviate, suggest

Annotations = Literal["instanceIds", "polygons", "panoptic", "labelIds", "trainIds"]
READERS = {
    "instanceIds": (label_pngs.INSTANCE_IDS_SUFFIX, label_pngs.read_segmentation),
    "polygons": (POLYGONS_SUFFIX, read_polygon_segmentation),
    "labelIds": (label_pngs.LABEL_IDS_SUFFIX, label_pngs.read_label_id_segmentation),
    "trainIds": (label_pngs.TRAIN_IDS_SUFFIX, label_pngs.read_train_id_segmentation),
}
CITIES = "*/"  # pattern of the folders in a split
PANOPTIC = "panoptic"
PANOPTIC_REMEDY = "make it with cityscapesscripts' preparation/createPanopticImgs.py"
PANOPTIC_SUFFIXES = ("", "_trainId")  # of the file name; the categories show which ids the JSON has


class CityscapesReader(DatasetReader):
    """A split of Cityscapes' fine annotations; image_id is the stem that the files of an image share.

    "instanceIds", "polygons" and "panoptic" give equal segmentations. "labelIds" and "trainIds" hold no instances: all
    things are crowds, one per class. Image sizes are those of the image files.

    Args:
        root: Folder that holds leftImg8bit/<split>/<city>/ and gtFine/.
        split: Name of the split's folders, such as "val".
        annotations: Files of gtFine to read: <split>/<city>/*_instanceIds.png, *_polygons.json, *_labelIds.png,
            *_labelTrainIds.png, or cityscapes_panoptic_<split>.json with its folder of PNGs; if that JSON does not
            exist, cityscapes_panoptic_<split>_trainId.json.
        on_issue: Gets images without annotation, annotations without image and second images of one name, which are
            then left out. Raises by default.

    Raises:
        DatasetError: The split has no image, or the panoptic JSON has other categories.
        ValueError: `annotations` is none of the above.
    """

    format = "cityscapes"
    marks_void = True
    categories = CATEGORIES

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        *,
        annotations: Annotations = "instanceIds",
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        if annotations not in (*READERS, PANOPTIC):
            raise ValueError(f"annotations must be one of {[*READERS, PANOPTIC]}, got {annotations!r}")
        check_inside(split, "split", root)
        self.root = Path(root)
        self.image_root = self.root / "leftImg8bit" / split
        self._annotations = annotations
        self.metrics = ("cityscapes_ap",) if annotations == "instanceIds" else ()
        if annotations == PANOPTIC:
            images = self._find_panoptic(split, on_issue)
        else:
            self._gt_paths = find_annotations(self.root, split, READERS[annotations][0], on_issue)
            images = _index_by_image_id(self._gt_paths, on_issue)
        read = partial(_read_image, self.image_root)
        readable = [try_read(on_issue, "image-unreadable", read, *item) for item in images.items()]
        self.images = tuple(image for image in readable if image is not None)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class. segment_id is the value in *_instanceIds.png, as `cityscapes.read_segmentation` gives it."""
        if self._annotations != PANOPTIC:
            return READERS[self._annotations][1](self._gt_paths[self.image_root / image.file_name], image.size_hw)
        record = self._records[str(image.image_id)]
        path = self._pngs / record.png_name
        return coco.read_segmentation(path, record.segments_info, CATEGORIES, image.size_hw, image.image_id)

    def find_instance_ids(self, image: DatasetImage) -> Path:
        """Find the *_instanceIds.png of an image, if these files are read.

        Args:
            image: One of `images`.

        Returns:
            The path of the PNG.
        """
        return self._gt_paths[self.image_root / image.file_name]

    def _find_panoptic(self, split: str, on_issue: IssueHandler) -> dict[str, Path]:
        """Set the records, the folder of PNGs and `skipped` from the panoptic JSON; image_id -> path of the images."""
        json_paths = [self.root / f"gtFine/cityscapes_panoptic_{split}{suffix}.json" for suffix in PANOPTIC_SUFFIXES]
        json_path = next((path for path in json_paths if os.path.isfile(path)), None)
        if json_path is None:
            raise DatasetError("expected a panoptic JSON, found none", where=json_paths[0], remedy=PANOPTIC_REMEDY)
        self._pngs = json_path.with_suffix("")
        self._records = _read_panoptic_records(json_path, on_issue)
        paths = _find_images(self.image_root, f"expected <city>/*{IMAGE_SUFFIX}").values()
        png_names = {record.png_name for record in self._records.values()}
        self.skipped = describe_unused_images(self._pngs, png_names, "PNGs are of no annotation that is read")
        images = _index_by_image_id(paths, on_issue)
        problem = f"{json_path.name} has no valid annotation of the image"
        report_unpaired(on_issue, "image-without-annotation", problem, images, self._records, PANOPTIC_REMEDY)
        places = {image_id: Location(json_path, image_id) for image_id in sorted(self._records)}
        report_unpaired(on_issue, "image-missing", "the image is missing", places, images, "complete the download")
        return {image_id: path for image_id, path in images.items() if image_id in self._records}


def list_images(root: str | Path, split: str) -> tuple[Path, tuple[DatasetImage, ...]]:
    """List the images of a split without its ground truth.

    Args:
        root: Folder that holds leftImg8bit/<split>/<city>/.
        split: Name of the split's folder, such as "test".

    Returns:
        The folder of the images, and these, sorted by city and name.

    Raises:
        DatasetError: The split has no image, an image cannot be read, or two have one name.
    """
    folder = Path(root, "leftImg8bit", split)
    tree = f"expected leftImg8bit/{split}/<city>/*{IMAGE_SUFFIX}"
    check_folder(folder, tree)
    images = _index_by_image_id(_find_images(folder, tree).values(), raise_issue)
    return folder, tuple(_read_image(folder, *item) for item in images.items())


def find_annotations(root: Path, split: str, suffix: str, on_issue: IssueHandler) -> dict[Path, Path]:
    """Image -> annotation file of a split, sorted by city and name.

    suffix: ending of the annotation files in gtFine. Images without annotation, which are left out, and annotations
    without image are reported. DatasetError if a folder is missing or the split has no image.
    """
    tree = f"expected leftImg8bit/<split>/<city>/*{IMAGE_SUFFIX} and gtFine/<split>/<city>/*{suffix}"
    image_folder, gt_folder = (root / name / split for name in ("leftImg8bit", "gtFine"))
    for folder in (image_folder, gt_folder):
        splits = [path.name for path in folder.parent.iterdir()] if os.path.isdir(folder.parent) else []
        check_folder(folder, suggest(split, splits, tree))
    images = _find_images(image_folder, tree)
    annotations = find_by_pattern(gt_folder, CITIES, suffix)
    pairs = {path: gt_folder / f"{name}{suffix}" for name, path in images.items()}
    missing = report_missing(on_issue, "png-missing", "ground truth", [*pairs.values()], tree)
    report_unpaired(on_issue, "image-missing", "the ground truth has no image", annotations, images, tree)
    return {image_path: gt_path for image_path, gt_path in pairs.items() if gt_path not in missing}


def _find_images(folder: Path, remedy: str) -> dict[str, Path]:
    """`<city>/<image_id>` -> path of the images, sorted; DatasetError without images."""
    images = find_by_pattern(folder, CITIES, IMAGE_SUFFIX)
    if not images:
        raise DatasetError("the split has no image", where=folder, remedy=remedy)
    return images


def _read_image(image_root: Path, image_id: str, path: Path) -> DatasetImage:
    return DatasetImage(image_id, path.relative_to(image_root).as_posix(), png.read_header(path).size_hw)


def _index_by_image_id(image_paths: Iterable[Path], on_issue: IssueHandler) -> dict[str, Path]:
    """image_id -> path; a second image of the same id in another city is reported and left out."""
    named_paths = ((path.name.removesuffix(IMAGE_SUFFIX), path) for path in image_paths)
    return index_unique(named_paths, "image-id-twice", "rename one", on_issue)


def _read_panoptic_records(path: Path, on_issue: IssueHandler) -> dict[str, coco.PanopticRecord]:
    """image_id -> record of the panoptic JSON, in its order, with label ids as category ids.

    The JSON's own file names, *_gtFine_leftImg8bit.png, are names of no file: images are found by image_id, as
    Detectron2 finds them. Invalid annotations are reported and left out. DatasetError if the categories are not
    Cityscapes', by label id or by train id.
    """
    content = coco.read_panoptic(path, on_issue)
    names = {c.category_id: (c.name, c.isthing) for c in CATEGORIES.categories}
    got = {c.category_id: (c.name, c.isthing) for c in content.categories.categories}
    by_train_id = {train_id: names[label_id] for train_id, label_id in LABEL_ID_BY_TRAIN_ID.items()}
    if got not in (names, by_train_id):
        expected = f"the {len(CATEGORIES)} categories of Cityscapes by label id or by train id"
        different = abbreviate(sorted({*got.items()} ^ {*names.items()}))
        raise DatasetError(f"expected {expected}, got others: {different}", where=path, remedy=PANOPTIC_REMEDY)
    label_ids = LABEL_ID_BY_TRAIN_ID if got == by_train_id else {label_id: label_id for label_id in names}
    records = {}
    for record in content.records:
        infos = tuple({**info, "category_id": label_ids[info["category_id"]]} for info in record.segments_info)
        records[str(record.image_id)] = replace(record, segments_info=infos)
    return records
