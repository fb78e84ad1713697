"""The panoptic files of Cityscapes that cityscapesscripts' preparation/createPanopticImgs.py makes, of either ids."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from segkit.formats import coco
from segkit.formats.cityscapes.files import CATEGORIES, LABELS
from segkit.formats.coco import PanopticRecord
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue
from segkit.utils.text import abbreviate

MAKE = "make it with cityscapesscripts' createPanopticImgs.py"
LABEL_IDS = {c.category_id: c.category_id for c in CATEGORIES.categories}
LABEL_OF_TRAIN_ID = {x.train_id: x.label_id for x in LABELS if not x.ignored}
SUFFIXES = ("", "_trainId")  # of the names; whether the ids are train ids, the categories say


def find_panoptic_json(folder: Path, split: str) -> Path:
    """cityscapes_panoptic_<split>.json in gtFine, else that of train ids; DatasetError where there is neither. The PNGs
    lie in the folder of its name."""
    paths = [folder / f"cityscapes_panoptic_{split}{suffix}.json" for suffix in SUFFIXES]
    found = [path for path in paths if os.path.isfile(path)]
    if not found:
        raise DatasetError("expected a panoptic JSON, found none", where=paths[0], remedy=MAKE)
    return found[0]


def read_panoptic_records(path: Path, on_issue: IssueHandler = raise_issue) -> dict[str, PanopticRecord]:
    """The records of the JSON by image_id, in its order, with label ids as category ids, whatever --use-train-id was.

    Pictures are found by image_id, as Detectron2 does: the JSON's own names of them, *_gtFine_leftImg8bit.png, are
    names of no file. tell: gets what is wrong with single annotations, which are then left out. Raises DatasetError
    where the categories are not Cityscapes', by label id or by train id.
    """
    content = coco.read_panoptic(path, partial(on_issue, "annotation-unreadable"))
    label_of = _label_of(content.categories, path)
    records = {}
    for record in content.records:
        infos = tuple({**info, "category_id": label_of[info["category_id"]]} for info in record.segments_info)
        records[str(record.image_id)] = replace(record, segments_info=infos)
    return records


def _label_of(categories: CategorySet, path: Path) -> dict[int, int]:
    """The label id of every category_id of the JSON."""
    got = {c.category_id: (c.name, c.isthing) for c in categories.categories}
    for label_of in (LABEL_IDS, LABEL_OF_TRAIN_ID):
        expected = {i: (CATEGORIES[label_id].name, CATEGORIES[label_id].isthing) for i, label_id in label_of.items()}
        if got == expected:
            return label_of
    strange = abbreviate(sorted({*got.items()} ^ {(c.category_id, (c.name, c.isthing)) for c in CATEGORIES.categories}))
    problem = (
        f"expected the {len(CATEGORIES)} categories of Cityscapes by label id or by train id, got others: {strange}"
    )
    raise DatasetError(problem, where=path, remedy=MAKE)
