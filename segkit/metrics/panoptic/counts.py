"""Matches, false positives and misses added up per category, or per image and category; and their PQ, SQ and RQ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segkit.metrics.panoptic.matching import BoolArray, FloatArray, IntArray, Matching
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.metrics.state import percent
from segkit.structures import CategorySet

METRICS, TALLIES = ("PQ", "SQ", "RQ"), ("tp", "fp", "fn")
SUFFIXES = ("", "_th", "_st")  # of all categories, things, stuff


@dataclass(frozen=True)
class Counts:
    """Counts of segments in arrays of one shape, whose last axis is the categories ascending by category_id.

    Attributes:
        iou: float64 sums of the matches' IoUs.
        tp: int64 numbers of matches.
        fp: int64 numbers of false positives.
        fn: int64 numbers of missed segments.
    """

    iou: FloatArray
    tp: IntArray
    fp: IntArray
    fn: IntArray

    def quality(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Compute PQ, SQ and RQ of every entry.

        Returns:
            PQ, SQ, RQ in [0, 1], NaN without segments; SQ is 0 without a match.
        """
        size = self.tp + 0.5 * self.fp + 0.5 * self.fn
        with np.errstate(divide="ignore", invalid="ignore"):
            sq = np.where(self.tp > 0, self.iou / self.tp, np.where(size > 0, 0.0, np.nan))
            return np.where(size > 0, self.iou / size, np.nan), sq, np.where(size > 0, self.tp / size, np.nan)


def get_category_rows(categories: CategorySet, category_ids: IntArray) -> IntArray:
    """Find the category of every id.

    Args:
        categories: The categories, which ascend by category_id.
        category_ids: (n,) int64 ids of these categories.

    Returns:
        (n,) int64 index of every id among the categories.
    """
    known_ids = np.array([category.category_id for category in categories.categories], dtype=np.int64)
    return np.searchsorted(known_ids, category_ids)


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

    exact: add IoUs so that no order moves a bit (math.fsum), not one by one in the order of the pairs as panopticapi.
    gt_mask (T,), pred_mask (P,): the segments that count; a match counts by its ground truth segment.
    """
    number, (matches, matched, false_positives, missed) = len(categories), _group(table, matching, categories)
    if gt_mask is not None:
        selected = gt_mask[table.pairs["ground_truth"][matches]]
        matches, matched, missed = matches[selected], matched[selected], missed[gt_mask[matching.missed]]
    if pred_mask is not None:
        false_positives = false_positives[pred_mask[matching.false_positive]]
    iou = compute_sums(matching.iou[matches], matched, number, exact)
    return Counts(iou, *(np.bincount(rows, minlength=number) for rows in (matched, false_positives, missed)))


def count_per_image(table: OverlapTable, matching: Matching, categories: CategorySet) -> Counts:
    """(I, C) counts of every image of the table, in its order."""
    shape = len(table.image_ids), len(categories)
    matches, *rows = _group(table, matching, categories)
    images = table.pair_image[matches], table.pred_image[matching.false_positive], table.gt_image[matching.missed]
    cells = [image * shape[1] + row for image, row in zip(images, rows, strict=True)]
    iou = compute_sums(matching.iou[matches], cells[0], shape[0] * shape[1], exact=False)
    tallies = [np.bincount(cell, minlength=shape[0] * shape[1]) for cell in cells]
    return Counts(iou.reshape(shape), *(tally.reshape(shape) for tally in tallies))


def compute_sums(values: FloatArray, groups: IntArray, number: int, exact: bool) -> FloatArray:
    """(number,) sums of the values of each group, added one by one; or, if `exact`, so that no order moves a bit."""
    if exact:
        return np.array([math.fsum(values[groups == group]) for group in range(number)])
    return np.bincount(groups, weights=values, minlength=number).astype(np.float64)


def select_groups(categories: CategorySet) -> dict[str, BoolArray]:
    """The suffix of result names -> (C,) its categories: all, things, stuff."""
    isthing = np.array([category.isthing for category in categories.categories])
    return dict(zip(SUFFIXES, (np.ones_like(isthing), isthing, ~isthing), strict=True))


def averages(counts: Counts, categories: CategorySet, *, exact: bool = False) -> dict[str, float | None]:
    """Average PQ, SQ and RQ over the categories that have segments.

    Args:
        counts: (C,) counts.
        categories: The C categories.
        exact: Add so that no order moves a bit.

    Returns:
        PQ, SQ, RQ of all categories, and with `_th`, `_st` of things and stuff, in percent; None if no category of the
        group has segments.
    """
    results: dict[str, float | None] = {}
    for suffix, group in select_groups(categories).items():
        values = average(counts.quality(), categories, group, exact=exact)
        results.update({f"{name}{suffix}": value for name, value in zip(METRICS, values, strict=True)})
    return results


def average(
    columns: Iterable[FloatArray], categories: CategorySet, group: BoolArray, *, exact: bool = False
) -> list[float | None]:
    """Mean of each (C,) column over the (C,) categories of the group that have a value, in percent; None if none has.

    Values are added one by one in the order of the categories' file, as panopticapi's pq_average does; or, if `exact`,
    so that no order moves a bit.
    """
    rows = get_category_rows(categories, np.array(categories.ids_in_file_order, dtype=np.int64))
    rows = rows[group[rows]]
    return [_mean(column[rows], exact) for column in columns]


def build_rows(quality: Sequence[FloatArray], tallies: Sequence[IntArray]) -> list[dict[str, Any]]:
    """{PQ, SQ, RQ in percent (None for NaN), tp, fp, fn} of every class or image, from the (N,) columns of each."""
    columns = [[percent(value) for value in column] for column in quality] + [column.tolist() for column in tallies]
    return [dict(zip((*METRICS, *TALLIES), row, strict=True)) for row in zip(*columns, strict=True)]


def _group(
    table: OverlapTable, matching: Matching, categories: CategorySet
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """The pairs that match, and the categories' rows of matches, false positives and missed segments."""
    matches = np.flatnonzero(matching.matched)
    gt, prediction = table.ground_truth["category_id"], table.prediction["category_id"]
    ids = gt[table.pairs["ground_truth"][matches]], prediction[matching.false_positive], gt[matching.missed]
    matched, false_positives, missed = (get_category_rows(categories, category_ids) for category_ids in ids)
    return matches, matched, false_positives, missed


def _mean(values: FloatArray, exact: bool) -> float | None:
    present = values[~np.isnan(values)]
    if not present.size:
        return None
    total = math.fsum(present) if exact else float(np.cumsum(present)[-1])  # one by one, unlike np.sum
    return 100 * (total / len(present))
