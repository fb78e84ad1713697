#!/usr/bin/env python3
"""Compare the training targets of Panoptic-DeepLab with Detectron2's generator: equal, and time.

    python benchmarks/center_targets.py [--rounds 7]

Crops of 512 x 1024 pixels, as on Cityscapes, with segments of many sizes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from segkit.data.augmentations.scene import SegmentMap
from segkit.data.center_targets import CenterTargets
from segkit.modeling.center_heads import PROJECT
from segkit.structures import IGNORE_LABEL, Category, CategorySet, PanopticSegmentation, Segment

SIZE_HW, CLASSES, THINGS = (512, 1024), 19, 8


def build_scene(count: int) -> PanopticSegmentation:
    """Ellipses over each other: stuff below, then things."""
    rng = np.random.default_rng(count)
    ys, xs = np.ogrid[: SIZE_HW[0], : SIZE_HW[1]]
    segment_ids = np.zeros(SIZE_HW, dtype=np.int32)
    for segment_id in range(1, count + 1):
        (y, x), radius = rng.random(2) * SIZE_HW, rng.uniform(20, 300) / np.sqrt(segment_id)
        segment_ids[(ys - y) ** 2 + ((xs - x) / 2) ** 2 <= radius**2] = segment_id
    areas_px = np.bincount(segment_ids.ravel(), minlength=count + 1)
    classes = np.sort(rng.integers(1, CLASSES + 1, count))
    segments = [Segment(i, int(c), bool(c > CLASSES - THINGS), int(areas_px[i])) for i, c in enumerate(classes, 1)]
    return PanopticSegmentation(segment_ids, tuple(s for s in segments if s.area_px))


def measure(
    run: Callable[[], dict[str, torch.Tensor]], other: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Median times in ms of both, interleaved; the first round warms up."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for function, own in zip((run, other), times, strict=True):
            start = time.perf_counter()
            function()
            own.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    categories = CategorySet(Category(i, str(i), i > CLASSES - THINGS, (i, i, i)) for i in range(1, CLASSES + 1))
    space, targets = categories.build_semantic_space("per_class"), CenterTargets()
    generator = PROJECT.target_generator.PanopticDeepLabTargetGenerator(
        IGNORE_LABEL, range(CLASSES - THINGS, CLASSES), 10, True, 4096, 3
    )
    for count in (10, 40, 150):
        scene = build_scene(count)
        segment_map = SegmentMap.from_segmentation(scene)
        infos = [{"id": s.segment_id, "category_id": s.category_id - 1, "iscrowd": 0} for s in scene.segments]
        ours, theirs = targets(segment_map, space), generator(scene.segment_ids, infos)
        for name, values in ours.items():
            torch.testing.assert_close(values, theirs[name], rtol=0, atol=1e-3 if name == "offset" else 0)
        runs = partial(targets, segment_map, space), partial(generator, scene.segment_ids, infos)
        own_ms, their_ms = measure(*runs, options.rounds)
        ratio = their_ms / own_ms
        print(f"{len(infos):>3} segments, targets equal: {their_ms:.1f} ms / {own_ms:.1f} ms = {ratio:.1f}x")


if __name__ == "__main__":
    main()
