"""Which category was predicted in place of which: a confusion matrix of segments instead of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from segkit.metrics.panoptic.counts import get_category_rows
from segkit.metrics.panoptic.error_types import NO_PAIR, SegmentErrors, classify_errors, find_best_pairs
from segkit.metrics.panoptic.matching import MATCH_IOU, BoolArray, IntArray
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.structures import CategorySet

TOP = 20


def segment_confusion(
    table: OverlapTable,
    categories: CategorySet,
    mode: str = "reference",
    *,
    limit: float = MATCH_IOU,
    top: int = TOP,
) -> dict[str, Any]:
    """Count every ground truth segment (no crowds) by its own category and by the category of its prediction.

    The prediction of a segment is its match; else the unmatched prediction of any category with the greatest IoU
    strictly above `limit`, of equals the first by segment_id; else nothing. False positives that are the prediction of
    no segment are in the row of nothing. At the limit of 0.5, that of a match, every prediction belongs to at most one
    segment: the diagonal holds PQ's matches, the rest of a row its misses. A lower limit adds poor masks, some of them
    on the diagonal, and a prediction may belong to several segments.

    Args:
        table: The segments of all images.
        categories: Their categories.
        mode: The mode of `match`.
        limit: IoU in [0, 1).
        top: Number of confusions to list.

    Returns:
        `category_ids`: ascending. `limit`.
        `cells`: [ground truth category_id, predicted category_id, segments] of every cell that is not empty,
        ascending; None stands for nothing and is last.
        `top`: {ground_truth, prediction, segments, share} of two different categories each, most segments first, then
        by category_id; share is the percentage of the ground truth category's segments.
        The lists are empty without segments.

    Raises:
        ValueError: The limit is not in [0, 1), or the mode is unknown.
    """
    if not 0 <= limit < 1:
        raise ValueError(f"limit must be in [0, 1), got {limit}")
    matrix = _build_matrix(classify_errors(table, mode), categories, limit)
    names: list[int | None] = [*(category.category_id for category in categories.categories), None]
    cells = [[names[row], names[column], int(matrix[row, column])] for row, column in np.argwhere(matrix).tolist()]
    confused = matrix[:-1, :-1] * ~np.eye(len(categories), dtype=np.bool_)
    order = np.argsort(-confused, axis=None, kind="stable")[: min(max(top, 0), np.count_nonzero(confused))]
    listed = [
        {
            "ground_truth": names[row],
            "prediction": names[column],
            "segments": int(confused[row, column]),
            "share": 100 * int(confused[row, column]) / int(matrix[row].sum()),
        }
        for row, column in zip(*(index.tolist() for index in np.unravel_index(order, confused.shape)), strict=True)
    ]
    return {"category_ids": names[:-1], "limit": limit, "cells": cells, "top": listed}


def _build_matrix(errors: SegmentErrors, categories: CategorySet, limit: float) -> IntArray:
    """(C + 1, C + 1) segments by ground truth and predicted category, nothing last."""
    table, matching = errors.table, errors.matching
    pair = _find_predictions(errors, limit)
    gt_rows = get_category_rows(categories, table.ground_truth["category_id"])
    pred_rows = get_category_rows(categories, table.prediction["category_id"])
    nothing = len(categories)
    counted = ~table.ground_truth["iscrowd"]
    has_prediction = counted & (pair != NO_PAIR)
    predictions = table.pairs["prediction"][pair[has_prediction]]
    columns = np.full(len(pair), nothing)
    columns[has_prediction] = pred_rows[predictions]
    unassigned: BoolArray = matching.false_positive.copy()
    unassigned[predictions] = False
    matrix = np.zeros((nothing + 1, nothing + 1), dtype=np.int64)
    np.add.at(matrix, (gt_rows[counted], columns[counted]), 1)
    np.add.at(matrix[nothing], pred_rows[unassigned], 1)
    return matrix


def _find_predictions(errors: SegmentErrors, limit: float) -> IntArray:
    """(T,) the pair of every ground truth segment with its prediction, NO_PAIR without one."""
    table, matching = errors.table, errors.matching
    near = np.flatnonzero(matching.iou > limit)
    unmatched = matching.false_positive | matching.ignored
    near = near[unmatched[table.pairs["prediction"][near]]]
    pair = find_best_pairs(table.pairs["ground_truth"], near, matching.iou, len(table.ground_truth))
    matches = np.flatnonzero(matching.matched)
    pair[table.pairs["ground_truth"][matches]] = matches
    return pair
