#!/usr/bin/env python3
"""Compare the targets of the mask head from one map with those from Detectron2's bitmasks: equal, time, memory.

    python benchmarks/mask_targets.py [--rounds 5] [--device cuda]

An image of 800 x 1333 pixels with objects of many sizes. As in training, 512 proposals are sampled, each with its mask,
of which 128 are cropped to 28 x 28 pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from detectron2.structures import BitMasks

from segkit.data.map_masks import MapMasks

SIZE_HW, SAMPLED, FOREGROUND, SIDE_PX = (800, 1333), 512, 128, 28
MIB = 1024**2


def build_scene(objects: int) -> tuple[MapMasks, torch.Tensor]:
    """Rectangles over each other, and their boxes."""
    generator = torch.Generator().manual_seed(objects)
    numbers, (height, width) = torch.zeros(SIZE_HW, dtype=torch.uint8), SIZE_HW
    boxes = torch.rand(objects, 2, 2, generator=generator).sort(dim=1).values.flatten(1)
    boxes = (boxes * torch.tensor([width, height, width, height])).round()
    for number, (left, top, right, bottom) in enumerate(boxes.int().tolist(), 1):
        numbers[top:bottom, left:right] = number
    return MapMasks(numbers, torch.arange(1, objects + 1, dtype=torch.uint8)), boxes


def compute_targets(masks: BitMasks, boxes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """What Detectron2's heads do with the masks of an image."""
    sampled = masks[rows]
    targets: torch.Tensor = sampled[:FOREGROUND].crop_and_resize(boxes[rows[:FOREGROUND]], SIDE_PX)
    return targets


def measure(run: Callable[[], torch.Tensor], device: str, rounds: int) -> tuple[float, float]:
    """The median time in ms, and the memory that the call takes for a moment in MiB (nan on the CPU)."""
    times, peak = [], float("nan")
    for _ in range(rounds + 1):
        before = 0
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
            peak = (torch.cuda.max_memory_allocated() - before) / MIB
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:]), peak  # the first one warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    options = parser.parse_args()
    for objects in (5, 20, 60):
        masks, boxes = build_scene(objects)
        rows = torch.randint(0, objects, (SAMPLED,), generator=torch.Generator().manual_seed(1)).to(options.device)
        bitmasks = BitMasks(masks.tensor)
        sent, their_sent = (x.numel() / MIB for x in (masks.numbers, bitmasks.tensor))
        masks, bitmasks, boxes = masks.to(options.device), bitmasks.to(options.device), boxes.to(options.device)
        if not torch.equal(compute_targets(masks, boxes, rows), compute_targets(bitmasks, boxes, rows)):
            raise SystemExit("the targets differ")
        ours, theirs = (
            measure(partial(compute_targets, kind, boxes, rows), options.device, options.rounds)
            for kind in (masks, bitmasks)
        )
        print(
            f"{objects:>3} objects, targets equal: {theirs[0]:.1f} ms / {ours[0]:.1f} ms = {theirs[0] / ours[0]:.1f}x; "
            f"memory {theirs[1]:.0f} / {ours[1]:.0f} MiB; to the model {their_sent:.1f} / {sent:.1f} MiB"
        )


if __name__ == "__main__":
    main()
