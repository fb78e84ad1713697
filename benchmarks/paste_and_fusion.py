#!/usr/bin/env python3
"""Paste and heuristic fusion against Detectron2: the same mask head outputs, equal results, the ratio of the times.

    python benchmarks/paste_and_fusion.py [--rounds 5]

One thread each, in turns, since the ratio is what counts: absolute times depend on the machine. Memory is the peak of a
forked process above its start (Linux), beside the N x H x W bool masks that hold the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _memory import peak_mib
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Boxes, Instances

from segkit.fusion import HeuristicFusion
from segkit.modeling.meta_arch.panoptic_rcnn import detectron2_segments_info
from segkit.modeling.postprocessing.paste import paste_crops
from segkit.structures import HeadOutputs, SemanticScores

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
    """Detectron2's way: full-size masks, then its combining function."""
    found = Instances(tuple(semantic.shape))
    found.pred_masks = paste_masks_in_image(probs, Boxes(boxes), tuple(semantic.shape))
    found.scores, found.pred_classes = scores, classes
    return combine_semantic_and_instance_outputs(found, semantic, OVERLAP, STUFF_AREA_PX, SCORE)


def ours(probs: Any, boxes: Any, scores: Any, classes: Any, semantic: Any) -> Any:
    """Crops, then the fusion on crops."""
    masks = paste_crops(probs, boxes, scores, classes, tuple(semantic.shape))
    return HeuristicFusion(OVERLAP, STUFF_AREA_PX, SCORE)(
        HeadOutputs(masks, SemanticScores.from_stuff_ids(semantic.numpy()))
    )


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for way in (detectron2, ours):  # compiles, and loads what is loaded at a first call
        way(*scene(*TINY))
    print(f"{'size':>10} {'instances':>9} {'Detectron2':>11} {'segkit':>8} {'ratio':>6} {'memory':>21} {'masks':>9}")
    for size_hw, count in CASES:
        inputs = scene(size_hw, count, seed=count)
        peaks = [peak_mib(way, inputs, scene(*TINY)) for way in (detectron2, ours)]
        (ids, info), fused = detectron2(*inputs), ours(*inputs)
        if fused.segment_ids.tolist() != ids.tolist() or detectron2_segments_info(fused.segments) != info:
            raise SystemExit(f"results differ at {size_hw}, {count} instances")
        pairs = [(seconds(lambda i=inputs: detectron2(*i)), seconds(lambda i=inputs: ours(*i))) for _ in range(rounds)]
        theirs, mine = (statistics.median(times) for times in zip(*pairs, strict=True))
        size = f"{size_hw[0]}x{size_hw[1]}"
        memory = f"{peaks[0]:>6.1f} -> {peaks[1]:>4.1f} MiB {size_hw[0] * size_hw[1] * count / 2**20:>5.1f} MiB"
        print(f"{size:>10} {count:>9} {1e3 * theirs:>8.1f} ms {1e3 * mine:>5.1f} ms {theirs / mine:>5.1f}x {memory}")


if __name__ == "__main__":
    main()
