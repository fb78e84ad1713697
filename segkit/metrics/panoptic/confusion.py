"""Which category stands in the place of which: a confusion matrix of segments instead of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.panoptic.counts import get_category_rows
from segkit.metrics.panoptic.error_types import NO_PAIR, SegmentErrors, best_pairs, classify_errors
from segkit.metrics.panoptic.matching import MATCH_IOU, BoolArray
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.structures import CategorySet

TOP = 20
IntArray = NDArray[np.int64]


def segment_confusion(
    table: OverlapTable,
    categories: CategorySet,
    mode: str = "reference",
    *,
    limit: float = MATCH_IOU,
    top: int = TOP,
) -> dict[str, Any]:
    """Every true segment (no crowds) against the one prediction that stands in its place.

    That is its match; else the unmatched prediction of any category with the greatest IoU strictly above `limit`
    (of equals the first by segment_id); else nothing. Predictions that stand for no true segment and count as false
    are in the row of nothing. At the limit of 0.5, that of a match, every prediction stands for at most one true
    segment: the diagonal holds PQ's matches, all else of a row its misses. A lower limit adds poor masks, some of
    them on the diagonal, and a prediction may then stand for several true segments.

    `category_ids`: ascending. `limit`. `cells`: [true category_id, predicted category_id, segments] of every cell that
    is not empty, ascending, null for nothing last. `top`: at most so many {true, predicted, segments, share}, two
    different categories each, most segments first, then by category_id; share: percent of the true category's
    segments. Empty lists without segments. ValueError where limit is not in [0, 1).
    """
    if not 0 <= limit < 1:
        raise ValueError(f"limit must be in [0, 1), got {limit}")
    counts = _matrix(classify_errors(table, mode), categories, limit)
    names: list[int | None] = [category.category_id for category in categories.categories]
    names.append(None)
    places = np.argwhere(counts)
    cells = [[names[row], names[column], int(counts[row, column])] for row, column in places.tolist()]
    return {"category_ids": names[:-1], "limit": limit, "cells": cells, "top": _top(cells, top)}


def _matrix(errors: SegmentErrors, categories: CategorySet, limit: float) -> IntArray:
    """(C + 1, C + 1) segments by true and predicted category, nothing last."""
    table, matching = errors.table, errors.matching
    pair = _stand_ins(errors, limit)
    gt_rows = get_category_rows(categories, table.ground_truth["category_id"])
    pred_rows = get_category_rows(categories, table.prediction["category_id"])
    nothing = len(categories)
    counted = ~table.ground_truth["iscrowd"]
    has = counted & (pair != NO_PAIR)
    columns = np.full(len(pair), nothing)
    columns[has] = pred_rows[table.pairs["prediction"][pair[has]]]
    idle: BoolArray = matching.false_positive.copy()
    idle[table.pairs["prediction"][pair[has]]] = False
    counts = np.zeros((nothing + 1, nothing + 1), dtype=np.int64)
    np.add.at(counts, (gt_rows[counted], columns[counted]), 1)
    np.add.at(counts[nothing], pred_rows[idle], 1)
    return counts


def _stand_ins(errors: SegmentErrors, limit: float) -> IntArray:
    """(T,) the pair of every true segment with the prediction in its place, NO_PAIR without."""
    table, matching = errors.table, errors.matching
    near = np.flatnonzero(matching.iou > limit)
    unmatched = matching.false_positive | matching.ignored
    near = near[unmatched[table.pairs["prediction"][near]]]
    pair = best_pairs(table.pairs["ground_truth"], near, matching.iou, len(table.ground_truth))
    matches = np.flatnonzero(matching.matched)
    pair[table.pairs["ground_truth"][matches]] = matches
    return pair


def _top(cells: list[list[int | None]], top: int) -> list[dict[str, Any]]:
    totals: dict[int | None, int] = {}
    for true, _, segments in cells:
        totals[true] = totals.get(true, 0) + (segments or 0)
    confused = [cell for cell in cells if None not in cell and cell[0] != cell[1]]
    confused.sort(key=lambda cell: -(cell[2] or 0))  # stable: equals stay by category_id
    return [
        {
            "ground_truth": true,
            "prediction": predicted,
            "segments": segments,
            "share": 100 * (segments or 0) / totals[true],
        }
        for true, predicted, segments in confused[: max(top, 0)]
    ]
