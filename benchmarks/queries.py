#!/usr/bin/env python3
"""Mask transformers: post-processing against Mask2Former's, matching and losses against transformers'.

    python benchmarks/queries.py [--rounds 5] [--device cuda] [--part postprocessing] [--side 512] [--layers 10]

Post-processing: 100 queries, 20 of them above the score threshold, 133 classes, 800 x 1333 pixels, on round objects and
on noise; the peer is `panoptic_inference` of Mask2Former with its resizing, see tests/helpers/official_queries.py.
Losses: forward and backward for 16 images with 3 to 20 objects; the peer matches image by image and layer by layer.
Results are checked equal. Both run in turns on one thread. On the CPU the time is that of the processor.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.modeling.postprocessing.panoptic_tensors import to_panoptic
from segkit.modeling.postprocessing.queries import QueryPostProcessor
from segkit.modeling.postprocessing.query_masks import QueryImage
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.modeling.queries import QueryCriterion, QueryOutputs, QueryTargets
from tests.helpers import official_queries
from tests.helpers.same_points import draw_same_points

IMAGE_HW, STRIDE, PADDED_HW = (800, 1333), 4, (800, 1344)
QUERIES, SURE, CLASSES, THINGS = 100, 20, 133, 80
IMAGES, MOST_OBJECTS = 16, 20


def build_image(kind: str) -> QueryImage:
    """Queries whose masks are round and smooth, as of a trained network, or noise; 20 are sure of their class."""
    torch.manual_seed(0)
    height, width = PADDED_HW[0] // STRIDE, PADDED_HW[1] // STRIDE
    if kind == "noise":
        masks = 3 * torch.randn(QUERIES, height, width)
    else:
        ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centers = torch.rand(QUERIES, 2, 1, 1) * torch.tensor([height, width])[:, None, None]
        distances = ((ys - centers[:, 0]) ** 2 + (xs - centers[:, 1]) ** 2).sqrt()
        masks = (torch.linspace(60, 10, QUERIES)[:, None, None] - distances) / 2 + 0.3 * torch.randn_like(distances)
    logits = torch.randn(QUERIES, CLASSES + 1)
    logits[:, CLASSES] += 12
    sure = torch.randperm(QUERIES)[:SURE]
    logits[sure, CLASSES] = 0
    logits[sure, torch.randint(0, CLASSES, (SURE,))] += 12
    return QueryImage(logits, masks, Sizes(IMAGE_HW, IMAGE_HW, STRIDE))


def compare_postprocessing(device: str, rounds: int) -> None:
    """Print the ratios, if the maps are equal."""
    is_thing = [index < THINGS for index in range(CLASSES)]
    stuff_ids = [0 if thing else index - THINGS + 1 for index, thing in enumerate(is_thing)]
    thing_ids = [index if thing else -1 for index, thing in enumerate(is_thing)]
    processor = QueryPostProcessor(MaskArgmaxFusion(), stuff_ids, thing_ids)
    for kind in ("round objects", "noise"):
        image = build_image(kind)
        image = QueryImage(image.class_logits.to(device), image.mask_logits.to(device), image.sizes)

        def run_official(image: QueryImage = image) -> Any:
            masks = official_queries.resize_masks(image.mask_logits, STRIDE, IMAGE_HW, IMAGE_HW)
            return official_queries.fuse_panoptic(image.class_logits, masks, is_thing, 0.8, 0.8)

        def run(image: QueryImage = image) -> Any:
            return to_panoptic(processor.fuse([image]))[0]

        differing_px = count_differing_px(run_official()[0], run().segment_ids)
        if differing_px > 20:  # of pixels within rounding
            raise SystemExit(f"{differing_px} pixels differ")
        report(f"panoptic map, {kind} ({differing_px} pixels differ)", measure([run_official, run], device, rounds))


def count_differing_px(first: np.ndarray, second: np.ndarray) -> int:
    """Pixels that differ when the ids of the first map are renamed to those of the second that they share most with."""
    pairs, counts = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1, return_counts=True)
    best = {int(pairs[0, i]): int(counts[i]) for i in np.argsort(counts)}
    return first.size - sum(best.values())


def compare_criterion(device: str, rounds: int, side: int, count: int) -> None:
    """Print the ratio, if the losses are equal."""
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerConfig, Mask2FormerLoss

    torch.manual_seed(0)
    shape = (IMAGES, QUERIES, side // STRIDE, side // STRIDE)
    layers = [
        QueryOutputs(
            torch.randn(IMAGES, QUERIES, CLASSES + 1, device=device).requires_grad_(),
            torch.randn(shape, device=device).requires_grad_(),
        )
        for _ in range(count)
    ]
    targets = [
        QueryTargets(torch.randint(0, CLASSES, (n,), device=device), torch.rand(n, side, side, device=device) > 0.5)
        for n in torch.randint(3, MOST_OBJECTS + 1, (IMAGES,)).tolist()
    ]
    criterion = QueryCriterion(num_classes=CLASSES).to(device)
    peer = Mask2FormerLoss(Mask2FormerConfig(num_labels=CLASSES), {}).to(device)
    *earlier, last = [{"masks_queries_logits": o.mask_logits, "class_queries_logits": o.class_logits} for o in layers]
    weights = dict(zip(("cross_entropy", "mask", "dice"), criterion.weights, strict=True))

    def compute() -> dict[str, torch.Tensor]:
        return criterion(layers, targets)

    def compute_with_peer() -> dict[str, torch.Tensor]:
        losses = peer(
            **last,
            mask_labels=[image.masks.float() for image in targets],  # its matcher and its losses want floats
            class_labels=[image.class_ids for image in targets],
            auxiliary_predictions=earlier,
        )
        return {k: v * next(w for name, w in weights.items() if name in k) for k, v in losses.items()}

    draw = torch.rand
    points = draw_same_points(setattr)
    own = compute()
    points.start_again()
    theirs = compute_with_peer()
    torch.rand = draw
    for name, loss in own.items():
        torch.testing.assert_close(loss, theirs[name.replace("loss_class", "loss_cross_entropy")], rtol=1e-4, atol=1e-4)

    def step(compute: Callable[[], dict[str, torch.Tensor]]) -> None:
        sum(compute().values()).backward()
        for layer in layers:
            layer.class_logits.grad = layer.mask_logits.grad = None

    runs = [lambda: step(compute_with_peer), lambda: step(compute)]
    title = f"matching and losses of {IMAGES} images, {count} layers, {sum(len(t.class_ids) for t in targets)} objects"
    report(f"{title} of {side} x {side} pixels", measure(runs, device, rounds))
    report("  without the backward pass", measure([compute_with_peer, compute], device, rounds))
    if device == "cuda":
        print(f"  the host waits {count_waits(compute_with_peer)} times / {count_waits(compute)} times")


def count_waits(run: Callable[[], Any]) -> int:
    """How often the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def measure(runs: list[Callable[[], Any]], device: str, rounds: int) -> list[list[float]]:
    """Milliseconds of each run, in turns."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, measured in zip(runs, times, strict=True):
            start = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            measured.append(1e3 * (clock() - start))
    return times


def report(title: str, times: list[list[float]]) -> None:
    ratios = [theirs / own for theirs, own in zip(*times, strict=True)]
    theirs, own = (statistics.median(measured) for measured in times)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"{title}: {theirs:.0f} ms / {own:.0f} ms = {statistics.median(ratios):.2f}x ({spread})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    parser.add_argument("--part", nargs="+", choices=["postprocessing", "criterion"], default=[])
    parser.add_argument("--side", type=int, default=512, help="of the padded images of the losses, in pixels")
    parser.add_argument("--layers", type=int, default=10, help="of the decoder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = options.part or ["postprocessing", "criterion"]
    if "postprocessing" in parts:
        with torch.no_grad():
            compare_postprocessing(options.device, options.rounds)
    if "criterion" in parts:
        compare_criterion(options.device, options.rounds, options.side, options.layers)


if __name__ == "__main__":
    main()
