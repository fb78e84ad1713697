#!/usr/bin/env python3
"""Compare pasting and heuristic fusion with Detectron2: the same mask head outputs, equal results, ratio of times.

    python benchmarks/paste_and_fusion.py [--rounds 5]

Results may differ only at pixels whose mask probability is within rounding of the threshold. Both run in turns on one
thread: the ratio counts, since times depend on the machine. Memory is the peak of a forked process above its start
(Linux). The last column is the size of N x H x W bool masks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _memory import peak_mib
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray

from segkit.fusion import HeuristicFusion
from segkit.fusion.paste import MASK_THRESHOLD, ROUNDING, compute_crop_probs
from segkit.modeling.postprocessing.map_outputs import detectron2_segments_info
from segkit.modeling.postprocessing.paste import paste_crops
from segkit.structures import HeadOutputs, InstanceMasks, PanopticSegmentation, SemanticScores

CASES = [(size_hw, count) for size_hw in ((800, 1333), (480, 640)) for count in (20, 50, 100)]
TINY = (32, 32), 2, 0
OVERLAP, STUFF_AREA_PX, SCORE = 0.5, 4096, 0.5


def scene(size_hw: tuple[int, int], count: int, seed: int) -> tuple[Any, ...]:
    """Mask probabilities (N, 28, 28), boxes (N, 4), scores, classes and a semantic map, COCO-like."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size_hw
    grid = torch.linspace(-1, 1, 28)
    radius = torch.rand(count, 1, 1, generator=generator) * 0.5 + 0.5
    probs = (2 * (radius - (grid[None, :, None] ** 2 + grid[None, None, :] ** 2).sqrt())).sigmoid()
    sides = torch.rand(count, 2, generator=generator) ** 2 * 0.5 + 0.04
    centres = torch.rand(count, 2, generator=generator)
    corners = torch.cat([centres - sides / 2, centres + sides / 2], 1).clamp(0, 1)
    boxes = corners * torch.tensor([width, height, width, height])
    scores = torch.rand(count, generator=generator) * 0.6 + 0.4
    blobs = torch.randint(0, 54, (1, 1, 6, 8), generator=generator).float()
    semantic = torch.nn.functional.interpolate(blobs, size=size_hw, mode="nearest")[0, 0].long()
    return probs, boxes, scores, torch.randint(0, 80, (count,), generator=generator), semantic


def detectron2(probs: Any, boxes: Any, scores: Any, classes: Any, semantic: Any) -> Any:
    """Run Detectron2: full-size masks, then its fusion."""
    instances = Instances(tuple(semantic.shape))
    instances.pred_masks = paste_masks_in_image(probs, Boxes(boxes), tuple(semantic.shape))
    instances.scores, instances.pred_classes = scores, classes
    return combine_semantic_and_instance_outputs(instances, semantic, OVERLAP, STUFF_AREA_PX, SCORE)


def ours(probs: Any, boxes: Any, scores: Any, classes: Any, semantic: Any) -> Any:
    """Run segkit: crops, then the fusion on crops."""
    masks = paste_crops(probs, boxes, scores, classes, tuple(semantic.shape))
    return HeuristicFusion(
        overlap_threshold=OVERLAP, stuff_area_limit_px=STUFF_AREA_PX, instance_score_threshold=SCORE
    )(HeadOutputs(masks, SemanticScores.from_stuff_ids(semantic.numpy())))


def find_unsure_pixels(masks: InstanceMasks) -> NDArray[np.bool_]:
    """(H, W) bool: the pixels where a mask's probability is within rounding of the threshold."""
    unsure = np.zeros(masks.size_hw, dtype=np.bool_)
    for row in range(len(masks)):
        unsure[masks.window(row)] |= np.abs(compute_crop_probs(masks, row) - MASK_THRESHOLD) < ROUNDING
    return unsure


def check_equal(fused: PanopticSegmentation, ids: torch.Tensor, info: Any, unsure: NDArray[np.bool_]) -> None:
    """End the program if the segments differ, or the maps at a pixel that is not unsure."""
    differs = fused.segment_ids != ids.numpy()
    segments = detectron2_segments_info(fused.segments)
    if differs.any():
        print(f"{np.count_nonzero(differs)} pixels differ, within rounding")
        segments, info = ([{**segment, "area": None} for segment in listed] for listed in (segments, info))
    if segments != info or (differs & ~unsure).any():
        raise SystemExit(f"results differ at {ids.shape}, {len(info)} segments")


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for way in (detectron2, ours):  # the first call compiles and loads
        way(*scene(*TINY))
    print(f"{'size':>10} {'instances':>9} {'Detectron2':>11} {'segkit':>8} {'ratio':>6} {'memory':>21} {'masks':>9}")
    for size_hw, count in CASES:
        inputs = scene(size_hw, count, seed=count)
        peaks = [peak_mib(way, inputs, scene(*TINY)) for way in (detectron2, ours)]
        (ids, info), fused = detectron2(*inputs), ours(*inputs)
        check_equal(fused, ids, info, find_unsure_pixels(paste_crops(*inputs[:4], size_hw)))
        pairs = [(seconds(lambda i=inputs: detectron2(*i)), seconds(lambda i=inputs: ours(*i))) for _ in range(rounds)]
        theirs, mine = (statistics.median(times) for times in zip(*pairs, strict=True))
        size = f"{size_hw[0]}x{size_hw[1]}"
        memory = f"{peaks[0]:>6.1f} -> {peaks[1]:>4.1f} MiB {size_hw[0] * size_hw[1] * count / 2**20:>5.1f} MiB"
        print(f"{size:>10} {count:>9} {1e3 * theirs:>8.1f} ms {1e3 * mine:>5.1f} ms {theirs / mine:>5.1f}x {memory}")


if __name__ == "__main__":
    main()
