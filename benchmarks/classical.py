#!/usr/bin/env python3
"""Compare the steps of classical methods that segkit has of its own with scikit-image's: results, ratio of times.

    python benchmarks/classical.py [--rounds 5]

The images are drawn: overlapping discs on an uneven background, with noise. Thresholds must be equal. Regions must be
about as many: both sides break ties in their own order. Both run in turns on one thread: the ratio counts, since times
depend on the machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from paste_and_fusion import seconds
from scipy import ndimage
from skimage import filters, graph, measure, morphology, segmentation

from segkit.classical.brightness import find_bright, to_gray
from segkit.classical.clustering import merge_similar, to_lab
from segkit.classical.regions import split_touching
from segkit.classical.thresholding import find_otsu_thresholds

SIZES_HW = ((256, 256), (480, 640))
DISCS_PER_PIXEL, RADII_PX, NOISE = 1 / 1000, (6, 16), 6.0
DEPTH_PX, SUPERPIXELS, MAX_DISTANCE = 0.75, 300, 10.0
MOST_DIFFERENCE = 0.1  # of the numbers of regions


def draw_image(size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    height, width = size_hw
    image = np.full((height, width, 3), 40, dtype=np.float32) + np.linspace(0, 40, width)[None, :, None]
    for _ in range(round(height * width * DISCS_PER_PIXEL)):
        center, radius = (int(rng.integers(width)), int(rng.integers(height))), int(rng.integers(*RADII_PX))
        cv2.circle(image, center, radius, rng.integers(130, 256, 3).tolist(), -1)
    return (image + rng.normal(0, NOISE, image.shape)).clip(0, 255).astype(np.uint8)


def watershed_of_skimage(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    distance = ndimage.distance_transform_edt(mask)
    markers = measure.label(morphology.h_maxima(distance, DEPTH_PX))
    return segmentation.watershed(-distance, markers, mask=mask, connectivity=2)


def merge_of_skimage(superpixels: NDArray[np.int32], lab: NDArray[np.float32]) -> NDArray[np.int32]:
    def weigh(rag: Any, _source: int, target: int, neighbour: int) -> dict[str, float]:
        difference = rag.nodes[target]["mean color"] - rag.nodes[neighbour]["mean color"]
        return {"weight": float(np.linalg.norm(difference))}

    def join(rag: Any, source: int, target: int) -> None:
        source_node, target_node = rag.nodes[source], rag.nodes[target]
        for key in ("total color", "pixel count"):
            target_node[key] += source_node[key]
        target_node["mean color"] = target_node["total color"] / target_node["pixel count"]

    rag = graph.rag_mean_color(lab, superpixels)
    return graph.merge_hierarchical(superpixels, rag, MAX_DISTANCE, False, True, join, weigh)


def compare(
    name: str,
    peer: Callable[[], Any],
    ours: Callable[[], Any],
    count: Callable[[Any], int] | None,
    rounds: int,
) -> None:
    results = peer(), ours()
    if count is None:
        equal = np.array_equal(*results)
        summary = "equal"
    else:
        numbers = count(results[0]), count(results[1])
        equal = abs(numbers[0] - numbers[1]) <= MOST_DIFFERENCE * max(numbers)
        summary = f"{numbers[0]} / {numbers[1]} regions"
    if not equal:
        raise SystemExit(f"{name}: the results differ: {results if count is None else summary}")
    pairs = [(seconds(peer), seconds(ours)) for _ in range(rounds)]
    ratios = sorted(theirs / own for theirs, own in pairs)
    theirs_ms, own_ms = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    spread = f"({ratios[0]:.1f} to {ratios[-1]:.1f})"
    ratio = statistics.median(ratios)
    print(f"{name:<34} {theirs_ms:>9.1f} ms {own_ms:>7.1f} ms {ratio:>8.1f}x {spread:<22} {summary}")


def count_regions(label_map: NDArray[np.int32]) -> int:
    return len(np.unique(label_map))


def compare_size(size_hw: tuple[int, int], rounds: int) -> None:
    image, size = draw_image(size_hw), f"{size_hw[0]}x{size_hw[1]}"
    gray, lab = to_gray(image), to_lab(image)
    mask = find_bright(gray)
    superpixels = segmentation.slic(image, SUPERPIXELS, start_label=1).astype(np.int32)
    for classes in (3, 4):
        theirs = partial(filters.threshold_multiotsu, gray, classes)
        compare(
            f"multi-Otsu, {classes} classes, {size}", theirs, partial(find_otsu_thresholds, gray, classes), None, rounds
        )
    ways = partial(watershed_of_skimage, mask), partial(split_touching, mask, DEPTH_PX)
    compare(f"watershed of the distance, {size}", *ways, count_regions, rounds)
    merging = partial(merge_of_skimage, superpixels, lab), partial(merge_similar, superpixels, lab, MAX_DISTANCE)
    compare(f"merging of superpixels, {size}", *merging, count_regions, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    print(f"{'':<34} scikit-image      segkit     ratio")
    for size_hw in SIZES_HW:
        compare_size(size_hw, rounds)


if __name__ == "__main__":
    main()
