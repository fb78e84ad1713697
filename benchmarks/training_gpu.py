#!/usr/bin/env python3
"""Panoptic FPN R50 on a GPU: segkit's training loop against Detectron2's, both with their own loaders.

    python benchmarks/training_gpu.py [--minutes 3] [--batch 16] [--workers 12]

Makes its own JPEG files, of COCO's size. Sizes are Detectron2's: shortest edge 640 to 800, longest at most 1333.
Weights are random, and the same. Rounds of the loops alternate; each builds its loop, loader and all. Stops where the
losses of the same batches differ by more than rounding. Without a GPU nothing is measured: --device cpu --tiny only
shows that it works.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _training import (
    TINY_NETWORK,
    Result,
    build_config,
    build_peer_config,
    check_losses,
    quiet,
    run_round,
    summarise,
    write_scenes,
)

from segkit.engine.training.loader import count_usable_cpus

STEPS, WARM_UP = 15, 4
TINY = {"INPUT.MIN_SIZE_TRAIN": "(64,)", **TINY_NETWORK}
AMP = {"SOLVER.AMP.ENABLED": True}
OURS = {"segkit, bfloat16": AMP, "segkit, bfloat16, channels_last": {**AMP, "MODEL.CHANNELS_LAST": True}}
THEIRS = {"Detectron2, AMP": AMP, "Detectron2, default": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=min(12, count_usable_cpus()))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small images and network, one step")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured (--device cpu --tiny runs the same on the CPU)")
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options, end)


def compare(folder: Path, options: Any, end: float) -> None:
    if options.device == "cuda":
        print(torch.cuda.get_device_name(), "torch", torch.__version__, f"{options.workers} workers", flush=True)
    write_scenes(folder / "data", *((4, (64, 96)) if options.tiny else (64, (480, 640))))
    values = {"MODEL.DEVICE": options.device, "SOLVER.IMS_PER_BATCH": 2 if options.tiny else options.batch}
    values |= {"DATALOADER.NUM_WORKERS": options.workers, **(TINY if options.tiny else {})}
    with quiet():
        cfg = build_config(folder / "data", "coco/panoptic_rcnn_R50_FPN_1x", values)
        check_losses(cfg, 1 if options.tiny else 3)
    loops = build_loops(cfg, with_amp=options.device == "cuda")
    results: dict[str, list[Result]] = {name: [] for name in loops}
    longest = 0.0
    while time.monotonic() + longest < end or not all(results.values()):
        for name, loop in loops.items():
            begin = time.monotonic()
            with quiet():
                results[name].append(run_round(loop, *((1, 1) if options.tiny else (STEPS, WARM_UP))))
            longest = max(longest, time.monotonic() - begin)
            print(f"{name:32} {results[name][-1]}", flush=True)
            if all(results.values()) and time.monotonic() + longest > end:
                break
        if options.tiny:
            break
    report(results)


def build_loops(cfg: Any, with_amp: bool) -> dict[str, Any]:
    """The configs by name, segkit's and Detectron2's in turn."""
    pairs = [*zip(OURS.items(), THEIRS.items(), strict=True)] if with_amp else []
    loops = {}
    for ours, theirs in pairs:
        for (name, options), is_ours in ((ours, True), (theirs, False)):
            loop = cfg.clone() if is_ours else build_peer_config(cfg)
            loop.merge_from_list([word for pair in options.items() for word in pair])
            loops[name] = loop
    return loops or {"segkit, default": cfg, "Detectron2, default": build_peer_config(cfg)}


def report(results: dict[str, list[Result]]) -> None:
    medians = summarise(results)
    for ours in (name for name in medians if name.startswith("segkit")):
        for theirs in (name for name in medians if name.startswith("Detectron2")):
            memory = [statistics.median(r.peak_mib for r in results[name]) for name in (ours, theirs)]
            print(
                f"{ours} against {theirs}: {medians[ours] / medians[theirs]:.2f}x, memory {memory[0] / memory[1]:.2f}x"
            )


if __name__ == "__main__":
    main()
