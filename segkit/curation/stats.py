"""What a dataset holds, counted: images, segments, areas, crowds and void, by class and in all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from segkit.formats.base import DatasetReader
from segkit.structures import VOID

QUARTILES = (0, 25, 50, 75, 100)
QUARTILE_NAMES = ("least", "lower quartile", "median", "upper quartile", "most")
Progress = Callable[[int, int], None]


def count_dataset(source: DatasetReader, progress: Progress | None = None) -> dict[str, Any]:
    """Counts for JSON.

    {layout, images, sizes: {"H x W": images}, pixels, void_share (of all pixels, 0 to 1), segments_per_image and
    instances_per_image (QUARTILE_NAMES -> number), classes: name -> {category_id, isthing, images,
    segments, crowds, pixels, share (of all pixels), area_px (QUARTILE_NAMES -> pixels of its segments)}}.
    Crowds are no segments in `segments` and areas. None where there is nothing to count. DatasetError as the source
    raises it.
    """
    sizes: dict[str, int] = defaultdict(int)
    areas: dict[int, list[int]] = defaultdict(list)
    crowds: dict[int, list[int]] = defaultdict(list)
    holding: dict[int, set[Any]] = defaultdict(set)
    segments, instances, pixels, void = [], [], 0, 0
    for done, image in enumerate(source.images, 1):
        ground_truth = source.read_segmentation(image)
        sizes[f"{image.size_hw[0]} x {image.size_hw[1]}"] += 1
        pixels += image.size_hw[0] * image.size_hw[1]
        void += ground_truth.runs.areas_px().get(VOID, 0)
        present = [segment for segment in ground_truth.segments if segment.area_px]
        for segment in present:
            (crowds if segment.iscrowd else areas)[segment.category_id].append(segment.area_px)
            holding[segment.category_id].add(image.image_id)
        segments.append(sum(not segment.iscrowd for segment in present))
        instances.append(sum(segment.isthing and not segment.iscrowd for segment in present))
        if progress is not None:
            progress(done, len(source.images))
    classes = {}
    for category in source.categories.categories:
        of_class, of_crowds = areas[category.category_id], crowds[category.category_id]
        total = sum(of_class) + sum(of_crowds)
        classes[category.name] = {
            "category_id": category.category_id,
            "isthing": category.isthing,
            "images": len(holding[category.category_id]),
            "segments": len(of_class),
            "crowds": len(of_crowds),
            "pixels": total,
            "share": total / pixels if pixels else None,
            "area_px": _quartiles(of_class),
        }
    return {
        "format": source.format,
        "images": len(source.images),
        "sizes": dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))),
        "pixels": pixels,
        "void_share": void / pixels if pixels else None,
        "segments_per_image": _quartiles(segments),
        "instances_per_image": _quartiles(instances),
        "classes": classes,
    }


def _quartiles(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.percentile(values, QUARTILES).tolist()
    return dict(zip(QUARTILE_NAMES, found, strict=True))
