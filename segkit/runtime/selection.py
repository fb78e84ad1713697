"""Predictions of chosen classes and of a least score."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from segkit.runtime.prediction import Prediction
from segkit.structures import (
    IGNORE_LABEL,
    VOID,
    CategorySet,
    InstanceMasks,
    PanopticSegmentation,
    Segment,
)
from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest


def find_category_ids(names: Iterable[str], categories: CategorySet) -> set[int]:
    """Find classes by their names.

    Args:
        names: of classes.
        categories: the dataset's categories.

    Returns:
        Their category_ids.

    Raises:
        ConfigError: a name is unknown.
    """
    known, names = {category.name for category in categories.categories}, {*names}
    for name in sorted(names - known):
        remedy = suggest(name, known, f"choose among {', '.join(sorted(known))}")
        raise ConfigError(f"the model has no class {name!r}", where="--classes", remedy=remedy)
    return {category.category_id for category in categories.categories if category.name in names}


def select_segments(
    prediction: Prediction, min_score: float = 0.0, category_ids: Collection[int] | None = None
) -> Prediction:
    """Leave out segments and instances.

    Args:
        prediction: of one image.
        min_score: least score of things, [0, 1]; stuff has no score and stays.
        category_ids: of the classes that stay; None: all.

    Returns:
        The prediction without the others: their pixels are void, and in `semantic` `IGNORE_LABEL` (of 255 classes and
        more the first number that is no channel). A channel that all things share stays if one of them does.
    """
    categories, selected = prediction.categories, prediction
    ids = {category.category_id for category in categories.categories} if category_ids is None else {*category_ids}
    if prediction.panoptic is not None:
        selected = replace(selected, panoptic=_select_panoptic(prediction.panoptic, min_score, ids))
    if prediction.instances is not None:
        thing_ids = [row for row, thing in enumerate(categories.things) if thing.category_id in ids]
        instances = prediction.instances
        rows = np.isin(instances.class_ids, thing_ids) & (instances.scores >= min_score)
        selected = replace(selected, instances=_select_instances(instances, np.flatnonzero(rows)))
    if prediction.semantic is not None and prediction.space is not None and category_ids is not None:
        channels = [prediction.space.channel_by_category[category_id] for category_id in ids]
        void = max(IGNORE_LABEL, len(prediction.space.names))
        semantic = np.where(np.isin(prediction.semantic, channels), prediction.semantic.astype(np.int32), void)
        selected = replace(selected, semantic=semantic)
    return selected


def _select_panoptic(panoptic: PanopticSegmentation, min_score: float, ids: Collection[int]) -> PanopticSegmentation:
    def stays(segment: Segment) -> bool:
        has_score = not segment.isthing or segment.score is None or segment.score >= min_score
        return has_score and segment.category_id in ids

    segments = tuple(segment for segment in panoptic.segments if stays(segment))
    if len(segments) == len(panoptic.segments):
        return panoptic
    has_segment = np.isin(panoptic.segment_ids, [segment.segment_id for segment in segments])
    return PanopticSegmentation(np.where(has_segment, panoptic.segment_ids, np.int32(VOID)), segments)


def _select_instances(instances: InstanceMasks, rows: NDArray[np.intp]) -> InstanceMasks:
    if len(rows) == len(instances):
        return instances
    return InstanceMasks(
        instances.size_hw,
        instances.boxes_xyxy[rows],
        instances.scores[rows],
        instances.class_ids[rows],
        instances.corners_xy[rows],
        tuple(instances.crops[row] for row in rows.tolist()),
        None if instances.mask_probs is None else instances.mask_probs[rows],
    )
