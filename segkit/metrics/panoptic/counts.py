"""Matches, false and missed segments added up: per category, per image and category; and the numbers they give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.panoptic.matching import BoolArray, FloatArray, Matching
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.structures import Category, CategorySet

IntArray = NDArray[np.int64]
Numbers = dict[str, "float | None"]


@dataclass(frozen=True)
class Counts:
    """Sum of IoUs of the matches (float64), and numbers of matches, false and missed segments; arrays of one shape,
    the last axis being the categories in ascending order of category_id."""

    iou: FloatArray
    tp: IntArray
    fp: IntArray
    fn: IntArray

    def quality(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """PQ, SQ, RQ in [0, 1], NaN where there is no segment; SQ is 0 without a match."""
        size = self.tp + 0.5 * self.fp + 0.5 * self.fn
        with np.errstate(divide="ignore", invalid="ignore"):
            sq = np.where(self.tp > 0, self.iou / self.tp, np.where(size > 0, 0.0, np.nan))
            return np.where(size > 0, self.iou / size, np.nan), sq, np.where(size > 0, self.tp / size, np.nan)


def get_category_rows(categories: CategorySet, category_ids: IntArray) -> IntArray:
    """The place of every category_id among the categories, in ascending order."""
    known = np.array([category.category_id for category in categories.categories], dtype=np.int64)
    return np.searchsorted(known, category_ids)


def count(
    table: OverlapTable,
    matching: Matching,
    categories: CategorySet,
    *,
    exact: bool = False,
    gt_mask: BoolArray | None = None,
    pred_mask: BoolArray | None = None,
) -> Counts:
    """(C,) counts over all images.

    IoUs are added one by one in the order of the pairs, as panopticapi does; or, where `exact`, so that no order moves
    a bit (math.fsum). gt_mask (T,), pred_mask (P,): the segments that count, a match by its true one.
    """
    matches, ground_truth, prediction = _kept(table, matching, gt_mask, pred_mask)
    groups = get_category_rows(categories, ground_truth["category_id"])
    number = len(categories)
    missed = table.ground_truth["category_id"][matching.missed & _all(gt_mask)]
    return Counts(
        sums(matching.iou[matches], groups, number, exact),
        np.bincount(groups, minlength=number),
        np.bincount(get_category_rows(categories, prediction["category_id"]), minlength=number),
        np.bincount(get_category_rows(categories, missed), minlength=number),
    )


def sums(values: FloatArray, groups: IntArray, number: int, exact: bool) -> FloatArray:
    """(number,) sums of the values of each group, added one by one; or, where `exact`, so that no order moves a bit."""
    if exact:
        return np.array([math.fsum(values[groups == group]) for group in range(number)])
    return np.bincount(groups, weights=values, minlength=number).astype(np.float64)


def count_per_image(table: OverlapTable, matching: Matching, categories: CategorySet) -> Counts:
    """(I, C) counts of every image of the table, in its order."""
    shape = len(table.image_ids), len(categories)
    matches = np.flatnonzero(matching.matched)
    groups = [
        (table.pair_image[matches], table.ground_truth["category_id"][table.pairs["ground_truth"][matches]]),
        (table.pred_image[matching.false_positive], table.prediction["category_id"][matching.false_positive]),
        (table.gt_image[matching.missed], table.ground_truth["category_id"][matching.missed]),
    ]
    flat = [image * shape[1] + get_category_rows(categories, category_ids) for image, category_ids in groups]
    size = shape[0] * shape[1]
    return Counts(
        np.bincount(flat[0], weights=matching.iou[matches], minlength=size).reshape(shape).astype(np.float64),
        *(np.bincount(group, minlength=size).reshape(shape) for group in flat),
    )


def averages(counts: Counts, categories: CategorySet, *, exact: bool = False) -> Numbers:
    """PQ, SQ, RQ of all, and with `_th`, `_st` of things and stuff, in percent; None where no category has segments."""
    results: Numbers = {}
    groups = (("", categories.categories), ("_th", categories.things), ("_st", categories.stuff))
    for suffix, group in groups:
        values = average(counts.quality(), categories, group, exact=exact)
        results.update({f"{name}{suffix}": value for name, value in zip(("PQ", "SQ", "RQ"), values, strict=True)})
    return results


def average(
    columns: Iterable[FloatArray], categories: CategorySet, group: Sequence[Category], *, exact: bool = False
) -> list[float | None]:
    """Mean of each (C,) column over the categories of the group that have a number, in percent; None where none has.

    Added one by one in the order in which the categories were listed, as panopticapi's pq_average does over its
    file's; or, where `exact`, so that no order moves a bit.
    """
    members = {category.category_id for category in group}
    listed = [category_id for category_id in categories.ids_in_file_order if category_id in members]
    places = get_category_rows(categories, np.array(listed, dtype=np.int64))
    return [_mean(column[places], exact) for column in columns]


def _mean(values: FloatArray, exact: bool) -> float | None:
    present = values[~np.isnan(values)].tolist()
    if not present:
        return None
    total = 0.0
    if exact:
        total = math.fsum(present)
    else:
        for value in present:  # one by one: `sum` compensates rounding from Python 3.12 on
            total += value
    return 100 * (total / len(present))


def percent(value: float) -> float | None:
    """A share in percent; None for NaN."""
    return None if math.isnan(value) else 100 * float(value)


def _kept(
    table: OverlapTable, matching: Matching, gt_mask: BoolArray | None, pred_mask: BoolArray | None
) -> tuple[IntArray, NDArray[np.void], NDArray[np.void]]:
    """Pairs that match, their true segments, and the false predictions."""
    matches = np.flatnonzero(matching.matched)
    if gt_mask is not None:
        matches = matches[gt_mask[table.pairs["ground_truth"][matches]]]
    return (
        matches,
        table.ground_truth[table.pairs["ground_truth"][matches]],
        table.prediction[matching.false_positive & _all(pred_mask)],
    )


def _all(kept: BoolArray | None) -> BoolArray | np.bool_:
    return np.bool_(True) if kept is None else kept
