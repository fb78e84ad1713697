"""The files of a Cityscapes split: images, one annotation file per image, and the panoptic JSON."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from segkit.formats import coco
from segkit.formats.cityscapes.labels import CATEGORIES, LABEL_ID_BY_TRAIN_ID
from segkit.formats.image_files import index_unique
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, report_missing, report_unpaired
from segkit.utils.json_fields import Location
from segkit.utils.text import abbreviate

IMAGE_SUFFIX = "_leftImg8bit.png"
PANOPTIC_REMEDY = "make it with cityscapesscripts' preparation/createPanopticImgs.py"
PANOPTIC_SUFFIXES = ("", "_trainId")  # of the file name; the categories show which ids the JSON has


def find_annotations(root: Path, split: str, suffix: str, on_issue: IssueHandler) -> dict[Path, Path]:
    """Image -> annotation file of a split, sorted by city and name.

    suffix: ending of the annotation files in gtFine. Images without annotation, which are left out, and annotations
    without image are reported. DatasetError if a folder is missing or the split has no image.
    """
    tree = f"expected leftImg8bit/<split>/<city>/*{IMAGE_SUFFIX} and gtFine/<split>/<city>/*{suffix}"
    image_folder, gt_folder = (root / name / split for name in ("leftImg8bit", "gtFine"))
    for folder in (image_folder, gt_folder):
        if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
            raise DatasetError("no such folder", where=folder, remedy=tree)
    images, annotations = find_city_files(image_folder, IMAGE_SUFFIX), find_city_files(gt_folder, suffix)
    if not images:
        raise DatasetError("the split has no image", where=image_folder, remedy=tree)
    pairs = {path: gt_folder / f"{name}{suffix}" for name, path in images.items()}
    missing = report_missing(on_issue, "png-missing", "ground truth", [*pairs.values()], tree)
    report_unpaired(on_issue, "image-missing", "the ground truth has no image", annotations, images, tree)
    return {image_path: gt_path for image_path, gt_path in pairs.items() if gt_path not in missing}


def find_city_files(folder: Path, suffix: str) -> dict[str, Path]:
    """`<city>/<image_id>` -> path of the files `<city>/<image_id><suffix>`, sorted by path, without hidden files."""
    paths = sorted(path for path in folder.glob(f"*/*{suffix}") if not path.name.startswith("."))
    return {path.relative_to(folder).as_posix().removesuffix(suffix): path for path in paths}


def index_by_image_id(image_paths: Iterable[Path], on_issue: IssueHandler) -> dict[str, Path]:
    """image_id -> path; a second image of the same id in another city is reported and left out."""
    named_paths = ((path.name.removesuffix(IMAGE_SUFFIX), path) for path in image_paths)
    return index_unique(named_paths, "image-id-twice", "rename one", on_issue)


def find_panoptic_json(folder: Path, split: str) -> Path:
    """cityscapes_panoptic_<split>.json in gtFine, or the one with train ids; its PNGs are in the folder of its name."""
    paths = [folder / f"cityscapes_panoptic_{split}{suffix}.json" for suffix in PANOPTIC_SUFFIXES]
    for path in paths:
        if os.path.isfile(path):
            return path
    raise DatasetError("expected a panoptic JSON, found none", where=paths[0], remedy=PANOPTIC_REMEDY)


def read_panoptic_records(path: Path, on_issue: IssueHandler = raise_issue) -> dict[str, coco.PanopticRecord]:
    """image_id -> record of the panoptic JSON, in its order, with label ids as category ids.

    The JSON's own file names, *_gtFine_leftImg8bit.png, are names of no file: images are found by image_id, as
    Detectron2 finds them. Invalid annotations are reported and left out. DatasetError if the categories are not
    Cityscapes', by label id or by train id.
    """
    content = coco.read_panoptic(path, partial(on_issue, "annotation-unreadable"))
    label_ids = _map_to_label_ids(content.categories, path)
    records = {}
    for record in content.records:
        infos = tuple({**info, "category_id": label_ids[info["category_id"]]} for info in record.segments_info)
        records[str(record.image_id)] = replace(record, segments_info=infos)
    return records


def match_panoptic(
    images: Mapping[str, Path], records: Mapping[str, coco.PanopticRecord], json_path: Path, on_issue: IssueHandler
) -> dict[str, Path]:
    """The images, by image_id, that have a record; images without record and records without image are reported."""
    problem = f"{json_path.name} has no valid annotation of the image"
    report_unpaired(on_issue, "image-without-annotation", problem, images, records, PANOPTIC_REMEDY)
    places = {image_id: Location(json_path, image_id) for image_id in sorted(records)}
    report_unpaired(on_issue, "image-missing", "the image is missing", places, images, "complete the download")
    return {image_id: path for image_id, path in images.items() if image_id in records}


def _map_to_label_ids(categories: CategorySet, path: Path) -> dict[int, int]:
    """category_id of the JSON -> label id."""
    names = {c.category_id: (c.name, c.isthing) for c in CATEGORIES.categories}
    got = {c.category_id: (c.name, c.isthing) for c in categories.categories}
    for label_ids in ({label_id: label_id for label_id in names}, LABEL_ID_BY_TRAIN_ID):
        if got == {category_id: names[label_id] for category_id, label_id in label_ids.items()}:
            return label_ids
    expected = f"the {len(CATEGORIES)} categories of Cityscapes by label id or by train id"
    different = abbreviate(sorted({*got.items()} ^ {*names.items()}))
    raise DatasetError(f"expected {expected}, got others: {different}", where=path, remedy=PANOPTIC_REMEDY)
