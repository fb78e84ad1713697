"""Instance AP of Cityscapes, equal to cityscapesscripts' to the last bit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.instances.cityscapes_precision import (
    DTYPES,
    FIRST_INSTANCE_ID,
    GROUND_TRUTH,
    PREDICTION,
    SHARED,
    THRESHOLDS,
    Table,
    Tables,
    average_precisions,
    join,
    label_ids,
)
from segkit.metrics.label_pairs import IntArray, count_pairs
from segkit.metrics.per_image import PerImage
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError

LAST_LABEL_ID = 33  # helpers/labels.py
# The labels with ignoreInEval. Only bare ids are void: single caravans (29000...) and trailers (30000...) are not.
VOID_IDS = frozenset({0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30})
SHOWN_IDS = 5


class MaskPrediction(NamedTuple):
    """One predicted instance of an image.

    category_id: the label id of a thing. score: any finite number. crop: (h, w) bool, the pixels of the instance, at
    corner_xy = (left, top) in the image.
    """

    category_id: int
    score: float
    crop: NDArray[np.bool_]
    corner_xy: Sequence[int]


class CityscapesAP:
    """AP of things over IoU 0.5, 0.55 ... 0.95, and AP50 (cityscapesscripts, evalInstanceLevelSemanticLabeling.py).

    A true instance has a numbered id and at least 100 pixels. A prediction of its label finds it with an IoU strictly
    above the threshold; of several the best score counts, the others are false. A prediction that finds none is false,
    unless more than the threshold's share of it lies on void, groups and smaller instances of its label (small groups
    count twice). Predictions may overlap each other; those without pixels are left out. AP within 50 and 100 m is not
    given: it needs distances.

    The state is the categories and, per image, `Tables`: some numbers per instance, no maps. No order of images,
    predictions or merged shards moves a bit, also where scores are equal. An instance of the class pickles as it is.
    """

    def __init__(self, categories: CategorySet) -> None:
        """categories: Cityscapes' (category_id = label id), whose things are scored. Raises ValueError where a thing is
        of no label that is evaluated, DatasetError where two have one name (their results would have one key)."""
        ids = [category.category_id for category in categories.things]
        if strange := [i for i in ids if not 0 <= i <= LAST_LABEL_ID or i in VOID_IDS]:
            raise ValueError(f"categories must have ids of labels that Cityscapes evaluates as things, got {strange}")
        names = [category.name for category in categories.things]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DatasetError(f"expected distinct names of things, got {twice} twice", remedy="rename one of them")
        self.categories = categories
        self._images: PerImage[Tables] = PerImage()

    def __len__(self) -> int:
        """The number of images."""
        return len(self._images)

    def update(self, image_id: int | str, gt_ids: IntArray, predictions: Iterable[MaskPrediction]) -> None:
        """Count one image; predictions may be a generator: they are looked at one by one, none is kept.

        gt_ids: (H, W) integers, the values of a *_instanceIds.png. Raises DatasetError, and counts nothing, where
        the image was counted before, an id is of no label or a score is not finite; ValueError where gt_ids is not
        an (H, W) integer array, a category_id is of no thing, or a crop is not (h, w) bool or leaves the image.
        """
        where = f"image {image_id!r}"
        ground_truth = self._truth(gt_ids, where)
        row_of = {instance_id: row for row, (instance_id, _, _) in enumerate(ground_truth)}
        label_of = {instance_id: label_id for instance_id, _, label_id in ground_truth}
        found: list[tuple[int, float, int, int]] = []
        shared: list[tuple[int, int, int]] = []
        for index, (category_id, score, crop, corner_xy) in enumerate(predictions):
            self._check(category_id, score, f"{where}, prediction {index}")
            under = _ids_under(gt_ids, crop, corner_xy)
            if under:
                shared += [(row_of[i], len(found), px) for i, px in under.items() if label_of.get(i) == category_id]
                void_px = sum(px for i, px in under.items() if i in VOID_IDS)
                found.append((category_id, float(score), sum(under.values()), void_px))
        rows = np.array([row[:2] for row in ground_truth], GROUND_TRUTH)
        self._images.add(image_id, Tables(rows, np.array(found, PREDICTION), np.array(shared, SHARED)))

    def merge(self, other: CityscapesAP) -> None:
        """Add another shard's images; DatasetError where both hold an image, ValueError where the categories differ."""
        if self.categories != other.categories:
            raise ValueError("other must have the same categories as this CityscapesAP, they differ")
        self._images.merge(other._images)

    def compute(self) -> dict[str, float | None]:
        """AP, AP50, and `AP-<name>`, `AP50-<name>` of every thing, in percent (float64).

        A thing that is nowhere true has None and is left out of the means; one that is true and never predicted has 0.
        All are None without any true instance.
        """
        tables = join([tables for _, tables in self._images.in_order(self._images.ids())])
        things = self.categories.things
        ap = np.array([average_precisions(tables, c.category_id) for c in things]).reshape(-1, len(THRESHOLDS))
        results = {"AP": _mean(ap), "AP50": _mean(ap[:, 0])}
        results.update({f"AP-{c.name}": _mean(row) for c, row in zip(things, ap, strict=True)})
        results.update({f"AP50-{c.name}": _mean(row[:1]) for c, row in zip(things, ap, strict=True)})
        return results

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """(header for JSON, arrays without objects): what `from_state` makes the same metric of."""
        images = self._images.in_order(self._images.sorted_ids())
        header = {"categories": self.categories.to_coco(), "image_ids": [image_id for image_id, _ in images]}
        arrays: dict[str, NDArray[Any]] = {}
        for name, dtype in DTYPES.items():
            rows = [getattr(tables, name) for _, tables in images]
            arrays[name] = np.concatenate([np.zeros(0, dtype), *rows])
            arrays[f"{name}_per_image"] = np.array([len(one) for one in rows], dtype=np.int64)
        return header, arrays

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> CityscapesAP:
        """The metric that `state` described; DatasetError where this is no such state."""
        try:
            metric = cls(CategorySet.from_coco(header["categories"], "categories"))
            columns = [_split(name, arrays[name], arrays[f"{name}_per_image"]) for name in DTYPES]
            for image_id, *found in zip(header["image_ids"], *columns, strict=True):
                tables = Tables(*found)
                metric._check_tables(tables)
                metric._images.add(image_id, tables)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"expected saved counts of Cityscapes' AP, got others ({error})") from error
        return metric

    def _truth(self, gt_ids: IntArray, where: str) -> list[tuple[int, int, int]]:
        """(id, pixels, label id) of every instance and group of a thing."""
        ids, _, pixels = count_pairs(gt_ids, gt_ids)
        labels = label_ids(ids)
        strange = ids[(labels < 0) | (labels > LAST_LABEL_ID)].tolist()
        if strange:
            expected = (
                f"expected ids of labels, 0..{LAST_LABEL_ID}, or {FIRST_INSTANCE_ID} times these plus an instance"
            )
            raise DatasetError(f"{expected}, got {strange[:SHOWN_IDS]}", where=f"{where}, ground truth")
        kept = np.isin(labels, [*self.categories.thing_contiguous_ids])
        return list(zip(*(column[kept].tolist() for column in (ids, pixels, labels)), strict=True))

    def _check(self, category_id: int, score: float, where: str) -> None:
        if category_id not in self.categories.thing_contiguous_ids:
            known = [*self.categories.thing_contiguous_ids]
            raise ValueError(f"category_id must be of a thing, one of {known}, got {category_id!r} ({where})")
        if not math.isfinite(score):
            raise DatasetError(f"expected a finite score, got {score!r}", where=where)

    def _check_tables(self, tables: Tables) -> None:
        ground_truth, prediction, shared = tables
        for name in ("ground_truth", "prediction"):
            if not np.isin(shared[name], np.arange(len(getattr(tables, name)))).all():
                raise ValueError("rows of `shared` that are not there")
        things = [*self.categories.thing_contiguous_ids]
        labels = label_ids(ground_truth["instance_id"])
        if not np.isin(labels, things).all() or not np.isin(prediction["category_id"], things).all():
            raise ValueError("instances of other categories")
        if (labels[shared["ground_truth"]] != prediction["category_id"][shared["prediction"]]).any():
            raise ValueError("common pixels of two categories")
        if any((table["pixels"] < 1).any() for table in tables) or not np.isfinite(prediction["score"]).all():
            raise ValueError("instances without pixels or score")


def _ids_under(gt_ids: IntArray, crop: NDArray[np.bool_], corner_xy: Sequence[int]) -> dict[int, int]:
    """Pixels of every id inside the mask."""
    (left, top), (height, width) = corner_xy, gt_ids.shape
    if crop.ndim != 2 or crop.dtype != np.bool_:
        raise ValueError(f"crop must be an (h, w) bool array, got shape {crop.shape}, {crop.dtype}")
    if left < 0 or top < 0 or top + crop.shape[0] > height or left + crop.shape[1] > width:
        raise ValueError(f"crop {crop.shape} at (x={left}, y={top}) leaves the {height} x {width} image")
    window = gt_ids[top : top + crop.shape[0], left : left + crop.shape[1]]
    ids, inside, pixels = count_pairs(window, crop.view(np.uint8))
    return dict(zip(ids[inside == 1].tolist(), pixels[inside == 1].tolist(), strict=True))


def _mean(precisions: NDArray[np.float64]) -> float | None:
    """In percent, over what is no NaN; nanmean adds as the reference's does."""
    return None if np.isnan(precisions).all() else float(np.nanmean(precisions) * 100)


def _split(name: str, rows: Table, lengths: NDArray[np.int64]) -> list[Table]:
    fitting = lengths.dtype.kind in "iu" and (lengths >= 0).all() and lengths.sum() == len(rows)
    if rows.dtype != DTYPES[name] or not fitting:
        raise ValueError(f"`{name}` is of another kind")
    return np.split(rows, np.cumsum(lengths))[:-1]
