"""Box and mask AP: COCO's scorer, with Detectron2's result keys."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segkit.metrics.coco_entries import Entry, read_entry
from segkit.metrics.per_image import PerImage
from segkit.structures import CategorySet, DatasetError

# What each kind of IoU compares. Results carry this field only: with a box, COCO.loadRes would take a result's
# area, hence its size class, from the box also for masks (Detectron2's _evaluate_predictions_on_coco).
FIELD = {"bbox": "bbox", "segm": "segmentation"}
# COCOeval.summarize's twelve numbers, in its order.
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
ALL_AREAS, MAX_DETECTIONS = 0, -1  # indices into COCOeval's precision: any area, 100 detections


@dataclass(frozen=True)
class _Image:
    size_hw: tuple[int, int]
    truth: list[Entry]
    results: list[Entry]


class AveragePrecision:
    """COCO AP and AR of things over images (pycocotools' COCOeval, called as Detectron2's COCOEvaluator does).

    The state is the categories and, per image, its size and the checked annotations and results: RLE and boxes, no
    maps. An instance pickles as it is.
    """

    def __init__(self, categories: CategorySet, iou_types: Sequence[str] = ("bbox", "segm")) -> None:
        """Raises ValueError for other iou_types than "bbox" and "segm", DatasetError where two things have one name
        (their results would have one key)."""
        if not iou_types or isinstance(iou_types, str) or not set(iou_types) <= set(FIELD):
            raise ValueError(f"iou_types must be one or more of {tuple(FIELD)}, got {iou_types!r}")
        names = [category.name for category in categories.things]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DatasetError(f"expected distinct names of things, got {twice} twice", remedy="rename one of them")
        self.categories = categories
        self.iou_types = tuple(dict.fromkeys(iou_types))
        self._images: PerImage[_Image] = PerImage()

    def update(
        self,
        image_id: int | str,
        size_hw: tuple[int, int],
        truth: Sequence[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add one image of `size_hw` pixels; both lists may be empty.

        truth: COCO annotations {category_id, area, iscrowd, bbox, segmentation}; results: {category_id, score, bbox,
        segmentation}. category_id is the dataset's, bbox is [x, y, width, height] in pixels, segmentation is RLE of the
        image's size; the one that no iou_type compares may be absent. What has a stuff category is left out.
        Equal scores, and truths equally overlapped, keep the order given. Raises DatasetError, and adds nothing, where
        the image was added before or a value is missing, not finite or malformed; ValueError where size_hw is no size.
        """
        height, width = size_hw
        if height < 1 or width < 1:
            raise ValueError(f"size_hw must be two numbers of pixels from 1 on, got {size_hw}")
        where = f"image {image_id!r}"
        kept_truth = self._read(truth, "area", (int(height), int(width)), f"{where}, truth")
        kept_results = self._read(results, "score", (int(height), int(width)), f"{where}, results")
        self._images.add(image_id, _Image((int(height), int(width)), kept_truth, kept_results))

    def merge(self, other: AveragePrecision) -> None:
        """Add another shard's images; DatasetError where both hold an image, ValueError where the categories or the
        iou_types differ."""
        if self.categories != other.categories or set(self.iou_types) != set(other.iou_types):
            raise ValueError("other must have the same categories and iou_types as this AveragePrecision, they differ")
        self._images.merge(other._images)

    def compute(self, image_order: Sequence[int | str] | None = None) -> dict[str, dict[str, float | None]]:
        """{iou_type: {AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, AP-<thing's name>...}}, percent.

        None where there is no truth to find (pycocotools: -1); truth without any result has 0. image_order: all images,
        in the order that settles equal scores in different images; None is by ascending id (numbers, then strings), the
        order of pycocotools. Raises DatasetError where it does not name every image once.
        """
        order = image_order
        if order is None:
            numbers = sorted(image_id for image_id in self._images.ids() if not isinstance(image_id, str))
            order = [*numbers, *sorted(image_id for image_id in self._images.ids() if isinstance(image_id, str))]
        images = [image for _, image in self._images.in_order(order)]
        return {iou_type: self._score(images, iou_type) for iou_type in self.iou_types}

    def _read(
        self, entries: Sequence[Mapping[str, Any]], number: str, size_hw: tuple[int, int], where: str
    ) -> list[Entry]:
        read = [
            read_entry(entry, number, self.iou_types, self.categories, size_hw, f"{where}[{index}]")
            for index, entry in enumerate(entries)
        ]
        return [entry for entry in read if self.categories[entry["category_id"]].isthing]

    def _score(self, images: Sequence[_Image], iou_type: str) -> dict[str, float | None]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = _coco_truth(images, self.categories, FIELD[iou_type])
            scorer = COCOeval(truth, _coco_results(images, truth, FIELD[iou_type]), iou_type)
            scorer.evaluate()
            scorer.accumulate()
            scorer.summarize()
        results = {name: _percent(value) for name, value in zip(STATS, scorer.stats, strict=True)}
        for index, category in enumerate(self.categories.things):
            precision = scorer.eval["precision"][:, :, index, ALL_AREAS, MAX_DETECTIONS]
            precision = precision[precision > -1]
            results[f"AP-{category.name}"] = _percent(np.mean(precision) if precision.size else -1)
        return results


def _coco_truth(images: Sequence[_Image], categories: CategorySet, compared: str) -> COCO:
    """The images as 1..N; annotation ids from 1 on, since COCOeval takes a match with id 0 for none."""
    annotations = [
        {key: entry[key] for key in ("category_id", "area", "iscrowd", compared)} | {"image_id": image_id}
        for image_id, image in enumerate(images, 1)
        for entry in image.truth
    ]
    for annotation_id, annotation in enumerate(annotations, 1):
        annotation["id"] = annotation_id
    sizes = [
        {"id": image_id, "height": image.size_hw[0], "width": image.size_hw[1]}
        for image_id, image in enumerate(images, 1)
    ]
    names = [{"id": category.category_id, "name": category.name} for category in categories.things]
    return _indexed({"info": {}, "images": sizes, "annotations": annotations, "categories": names})


def _coco_results(images: Sequence[_Image], truth: COCO, compared: str) -> COCO:
    results = [
        {key: entry[key] for key in ("category_id", "score", compared)} | {"image_id": image_id}
        for image_id, image in enumerate(images, 1)
        for entry in image.results
    ]
    # loadRes looks at the first result and fails where there is none.
    return truth.loadRes(results) if results else _indexed({**truth.dataset, "annotations": []})


def _indexed(dataset: Mapping[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _percent(value: float) -> float | None:
    return float(value * 100) if value >= 0 else None
