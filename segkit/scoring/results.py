"""All results of an evaluation as one dict for JSON: metrics by task, and for panoptic quality an error analysis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segkit.metrics import AveragePrecision, CityscapesAP, PanopticQuality, VideoPanopticQuality, VolumeScores
from segkit.metrics.panoptic.bootstrap import confidence_intervals
from segkit.metrics.panoptic.confusion import segment_confusion
from segkit.metrics.panoptic.error_budget import error_budget
from segkit.metrics.panoptic.worst_images import worst_images
from segkit.metrics.undefined import add_notes
from segkit.scoring.counts_file import SavedCounts
from segkit.structures import ImageId
from segkit.utils.files import convert_write_errors, dump_json

WORST_IMAGES = 50
# metric -> key of its results
TASKS = {CityscapesAP: "cityscapes_segm", VolumeScores: "volumes", VideoPanopticQuality: "video_panoptic_seg"}


def build_results(counts: SavedCounts, worst: int = WORST_IMAGES, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Compute the results of counts.

    Args:
        counts: The counts of all images.
        worst: Number of worst images to list.
        notes: Further lines for `notes`.

    Returns:
        Task -> its metrics, named as Detectron2 does, in percent; for panoptic quality also `analysis`, see `analyse`;
        and `notes`, why metrics are undefined (`explain_undefined`), if there are any.
        None stands for undefined values, and for infinities, which JSON does not have: trusted areas that contradict
        their map can cause them.
    """
    metric = counts.metric
    with np.errstate(invalid="ignore", over="ignore"):
        if isinstance(metric, PanopticQuality):
            analysis = analyse(metric, counts.image_order, worst)
            results: dict[str, Any] = {"panoptic_seg": metric.compute(counts.image_order), "analysis": analysis}
        elif isinstance(metric, AveragePrecision):
            results = dict(metric.compute())
        else:
            results = {TASKS.get(type(metric), "sem_seg"): metric.compute()}
    return dict(replace_nonfinite(add_notes(results, getattr(metric, "categories", None), notes)))


def analyse(
    metric: PanopticQuality, image_order: Sequence[ImageId] | None = None, worst: int = WORST_IMAGES
) -> dict[str, Any]:
    """Analyse the errors of panoptic quality.

    Args:
        metric: The counts of all images.
        image_order: All images in the order in which the reference adds their IoUs; None is by ascending id.
        worst: Number of worst images to list.

    Returns:
        {intervals, error_budget, confusion, worst_images, per_image}: see the functions of these names in
        segkit.metrics, and docs/metric-rules.md.
    """
    table, categories, mode = metric.table(image_order), metric.categories, metric.mode
    return {
        "intervals": confidence_intervals(table, categories, mode),
        "error_budget": error_budget(table, categories, mode),
        "confusion": segment_confusion(table, categories, mode),
        "worst_images": worst_images(table, categories, mode, worst),
        "per_image": [{"image_id": image_id, **row} for image_id, row in metric.per_image(image_order).items()],
    }


def replace_nonfinite(content: Any) -> Any:
    """Replace every NaN and infinity by None.

    Args:
        content: Dicts, lists and values.

    Returns:
        The same dicts, lists and values.
    """
    if isinstance(content, dict):
        return {key: replace_nonfinite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [replace_nonfinite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def save_results(path: str | Path, results: dict[str, Any]) -> None:
    """Write results as JSON, whole or not at all.

    Args:
        path: The file.
        results: Values that JSON can hold.

    Raises:
        DatasetError: The file cannot be written.
    """
    path = Path(path)
    with convert_write_errors(path):
        dump_json(path, results)
