"""Counts of a dataset: images, segments, areas, crowds and void, by class and overall."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from segkit.formats.base import DatasetReader
from segkit.structures import VOID
from segkit.utils.process_pool import Progress

QUARTILES = (0, 25, 50, 75, 100)
QUARTILE_NAMES = ("least", "lower quartile", "median", "upper quartile", "most")


def count_dataset(reader: DatasetReader, progress: Progress | None = None) -> dict[str, Any]:
    """Count a dataset.

    Args:
        reader: The dataset.
        progress: Called with (images done, images in all).

    Returns:
        Counts for JSON; a value is None if there is nothing to count. Crowds do not count as segments.
        - format, images, pixels, sizes: {"H x W": images}, void_share: of all pixels, 0..1
        - segments_per_image, instances_per_image: QUARTILE_NAMES -> number
        - classes: name -> {category_id, isthing, images, segments, crowds, pixels, share: of all pixels, area_px:
          QUARTILE_NAMES -> pixels of a segment}

    Raises:
        DatasetError: The reader failed.
    """
    sizes, pixels, void = Counter[str](), 0, 0
    areas = defaultdict[tuple[int, bool], list[int]](list)  # by category_id and iscrowd
    image_ids = defaultdict[int, set[Any]](set)  # of the images that hold the category
    segments, instances = [], []
    for done, image in enumerate(reader.images, 1):
        ground_truth = reader.read_segmentation(image)
        height, width = image.size_hw
        sizes[f"{height} x {width}"] += 1
        pixels += height * width
        void += ground_truth.runs.areas_px().get(VOID, 0)
        present = [segment for segment in ground_truth.segments if segment.area_px]
        for segment in present:
            areas[segment.category_id, segment.iscrowd].append(segment.area_px)
            image_ids[segment.category_id].add(image.image_id)
        segments.append(sum(not segment.iscrowd for segment in present))
        instances.append(sum(segment.isthing and not segment.iscrowd for segment in present))
        if progress is not None:
            progress(done, len(reader.images))
    classes = {}
    for category in reader.categories.categories:
        class_areas, class_crowds = (areas[category.category_id, iscrowd] for iscrowd in (False, True))
        total = sum(class_areas) + sum(class_crowds)
        classes[category.name] = {
            "category_id": category.category_id,
            "isthing": category.isthing,
            "images": len(image_ids[category.category_id]),
            "segments": len(class_areas),
            "crowds": len(class_crowds),
            "pixels": total,
            "share": total / pixels if pixels else None,
            "area_px": _compute_quartiles(class_areas),
        }
    return {
        "format": reader.format,
        "images": len(reader.images),
        "sizes": dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))),
        "pixels": pixels,
        "void_share": void / pixels if pixels else None,
        "segments_per_image": _compute_quartiles(segments),
        "instances_per_image": _compute_quartiles(instances),
        "classes": classes,
    }


def _compute_quartiles(values: list[int]) -> dict[str, float] | None:
    return dict(zip(QUARTILE_NAMES, np.percentile(values, QUARTILES).tolist(), strict=True)) if values else None
