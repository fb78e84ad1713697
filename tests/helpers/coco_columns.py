"""COCO entries of an image, added to AveragePrecision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from segkit.formats.coco import ImageEntries, read_annotation_columns, read_result_columns
from segkit.metrics import AveragePrecision


class ScoredImage(NamedTuple):
    """An image of (height, width) pixels with its annotations and results."""

    image_id: Any
    size_hw: tuple[int, int]
    ground_truth: Sequence[Any]
    results: Sequence[Any]


def update(
    metric: AveragePrecision,
    image_id: Any,
    size_hw: tuple[int, int],
    ground_truth: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
) -> None:
    """Add one image by `AveragePrecision.update`."""
    columns = [
        read([ImageEntries(entries, size_hw, f"image {image_id!r}, {name}")], metric.fields, metric.categories)
        for read, entries, name in (
            (read_annotation_columns, ground_truth, "ground truth"),
            (read_result_columns, results, "results"),
        )
    ]
    metric.update(image_id, size_hw, *columns)


def update_images(metric: AveragePrecision, images: Sequence[ScoredImage], boxes_from_masks: bool = False) -> None:
    """Add many images by `AveragePrecision.update_images`."""
    ground_truth = [ImageEntries(i.ground_truth, i.size_hw, f"image {i.image_id!r}, ground truth") for i in images]
    results = [ImageEntries(i.results, i.size_hw, f"image {i.image_id!r}, results") for i in images]
    metric.update_images(
        [image.image_id for image in images],
        [image.size_hw for image in images],
        read_annotation_columns(ground_truth, metric.fields, metric.categories),
        read_result_columns(results, metric.fields, metric.categories, boxes_from_masks),
    )
