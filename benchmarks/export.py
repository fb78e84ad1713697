#!/usr/bin/env python3
"""Compare the export of predictions with Detectron2 and panopticapi: equal results, ratio of times.

    python benchmarks/export.py [--rounds 5]

COCO results of 100 instances, from crops and from Detectron2's `Instances` with the same masks: the same RLE bytes.
Panoptic PNGs, against `id2rgb` and Pillow: the same pixels, and the ratio of the file sizes. Both run in turns on one
thread: the ratio counts, since times depend on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _panoptic_scenes import scene
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances
from panopticapi.utils import id2rgb
from PIL import Image

from segkit.evaluation.predictions import build_coco_results
from segkit.formats import png
from segkit.structures import Category, CategorySet, InstanceMasks, default_color

SIZES_HW = ((480, 640), (1024, 2048))
COUNT, CLASSES, ELLIPSES = 100, 80, 25
CATEGORIES = CategorySet(Category(i, f"class {i}", True, default_color(i)) for i in range(CLASSES))


def build_instances(size_hw: tuple[int, int], rng: np.random.Generator) -> InstanceMasks:
    """Ellipses with ragged edges, of 4 % to 54 % of the image's sides, most of them small."""
    height, width = size_hw
    crops, boxes = [], []
    for _ in range(COUNT):
        share_yx = rng.random(2) ** 2 * 0.5 + 0.04
        h, w = (int(share * side) for share, side in zip(share_yx, size_hw, strict=True))
        y, x = np.ogrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
        ragged = 0.05 * np.sin(9 * np.arctan2(y, x) + rng.random() * 6)
        crops.append(np.sqrt(y**2 + x**2) + ragged < 0.95)
        left, top = rng.integers(0, width - w), rng.integers(0, height - h)
        boxes.append([left, top, left + w, top + h])
    boxes_xyxy = np.array(boxes, dtype=np.float32)
    corners = boxes_xyxy[:, :2].astype(np.int64)
    scores, classes = rng.random(COUNT).astype(np.float32), rng.integers(0, CLASSES, COUNT)
    return InstanceMasks(size_hw, boxes_xyxy, scores, classes, corners, tuple(crops))


def to_detectron2(masks: InstanceMasks) -> Instances:
    """The same as full-size masks."""
    instances = Instances(masks.size_hw)
    instances.pred_masks = torch.from_numpy(masks.to_full())
    instances.pred_boxes = Boxes(torch.from_numpy(masks.boxes_xyxy))
    instances.scores, instances.pred_classes = torch.from_numpy(masks.scores), torch.from_numpy(masks.class_ids)
    return instances


def measure(rounds: int, *functions: Callable[[], Any]) -> list[list[float]]:
    """Milliseconds of each function in each round; the order changes from round to round."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(rounds):
        for index in np.roll(np.arange(len(functions)), number).tolist():
            start = time.perf_counter()
            functions[index]()
            times[index].append((time.perf_counter() - start) * 1e3)
    return times


def describe(ours: list[float], peer: list[float]) -> str:
    """Medians, their ratio, and the range of the ratios of the rounds."""
    ratios = [b / a for a, b in zip(ours, peer, strict=True)]
    ratio = statistics.median(peer) / statistics.median(ours)
    times = f"{statistics.median(peer):.1f} ms / {statistics.median(ours):.1f} ms"
    return f"{ratio:.1f}x ({min(ratios):.1f} to {max(ratios):.1f}; {times})"


def compare_results(size_hw: tuple[int, int], rounds: int) -> None:
    """COCO results of one image."""
    masks = build_instances(size_hw, np.random.default_rng(0))
    instances, output = to_detectron2(masks), {"instance_masks": masks}
    ours, peer = build_coco_results(output, 1, size_hw, CATEGORIES), instances_to_coco_json(instances, 1)
    for result, expected in zip(ours, peer, strict=True):
        assert result["segmentation"]["counts"] == expected["segmentation"]["counts"]
        assert (result["category_id"], result["score"]) == (expected["category_id"], expected["score"])
    times = measure(
        rounds,
        lambda: build_coco_results(output, 1, size_hw, CATEGORIES),
        lambda: instances_to_coco_json(instances, 1),
    )
    print(f"COCO results, {COUNT} instances, {size_hw[0]} x {size_hw[1]}: {describe(*times)}, same RLE")


def compare_pngs(size_hw: tuple[int, int], rounds: int, folder: Path) -> None:
    """A panoptic PNG."""
    ids = scene(size_hw, ELLIPSES, np.random.default_rng(0))[0].astype(np.int32)
    paths = folder / "ours.png", folder / "peer.png"
    times = measure(rounds, lambda: png.write_ids(paths[0], ids), lambda: Image.fromarray(id2rgb(ids)).save(paths[1]))
    assert np.array_equal(np.array(Image.open(paths[0])), np.array(Image.open(paths[1])))
    ours_bytes, peer_bytes = (path.stat().st_size for path in paths)
    size = f"{ours_bytes / peer_bytes:.2f} of the file size"
    print(f"panoptic PNG, {size_hw[0]} x {size_hw[1]}: {describe(*times)}, same pixels, {size}")


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for size_hw in SIZES_HW:
        compare_results(size_hw, rounds)
    with tempfile.TemporaryDirectory() as folder:
        for size_hw in SIZES_HW:
            compare_pngs(size_hw, rounds, Path(folder))


if __name__ == "__main__":
    main()
