"""All that counts tell, as one dict for JSON: the numbers by task, and for panoptic quality why they are so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segkit.metrics import AveragePrecision, CityscapesAP, PanopticQuality
from segkit.metrics.panoptic.bootstrap import confidence_intervals
from segkit.metrics.panoptic.confusion import segment_confusion
from segkit.metrics.panoptic.error_budget import error_budget
from segkit.metrics.panoptic.worst_images import worst_images
from segkit.scoring.counts_file import SavedCounts, convert_write_errors
from segkit.utils.files import dump_json

WORST_IMAGES = 50


def build_results(counts: SavedCounts, worst: int = WORST_IMAGES) -> dict[str, Any]:
    """Task -> its numbers, as Detectron2 names them, in percent, None where undefined; and of panoptic quality
    `analysis`, see `analyse`.

    None too for infinities, which trusted areas that contradict their map can bring about, and JSON does not have.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return dict(replace_nonfinite(_build_results(counts, worst)))


def analyse(
    metric: PanopticQuality, image_order: Sequence[int | str] | None = None, worst: int = WORST_IMAGES
) -> dict[str, Any]:
    """{intervals, error_budget, confusion, worst_images (at most `worst`), per_image}: see the functions of these names
    in segkit.metrics and docs/metric-rules.md."""
    table, categories, mode = metric.table(image_order), metric.categories, metric.mode
    return {
        "intervals": confidence_intervals(table, categories, mode),
        "error_budget": error_budget(table, categories, mode),
        "confusion": segment_confusion(table, categories, mode),
        "worst_images": worst_images(table, categories, mode, worst),
        "per_image": [{"image_id": image_id, **one} for image_id, one in metric.per_image(image_order).items()],
    }


def replace_nonfinite(content: Any) -> Any:
    """The same dicts, lists and values, with None for every NaN and infinity."""
    if isinstance(content, dict):
        return {key: replace_nonfinite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [replace_nonfinite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def save_results(path: Path, results: dict[str, Any]) -> None:
    """Write them as JSON, whole or not at all; DatasetError where the file cannot be written."""
    with convert_write_errors(path):
        dump_json(path, results)


def _build_results(counts: SavedCounts, worst: int) -> dict[str, Any]:
    metric = counts.metric
    if isinstance(metric, PanopticQuality):
        found = {"panoptic_seg": metric.compute(counts.image_order)}
        return {**found, "analysis": analyse(metric, counts.image_order, worst)}
    if isinstance(metric, AveragePrecision):
        return dict(metric.compute())
    task = "cityscapes_segm" if isinstance(metric, CityscapesAP) else "sem_seg"
    return {task: metric.compute()}
