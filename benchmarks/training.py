#!/usr/bin/env python3
"""Panoptic FPN R18 on a CPU: segkit's training loop against Detectron2's, and what segkit's options give.

    python benchmarks/training.py [--rounds 3] [--steps 6] [--options bfloat16 channels_last compile]

Makes its own JPEG files. Config, data and weights are the same. Rounds of the loops alternate; each builds its loop,
loader and all. Stops where losses of the same batches differ by more than rounding.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other measure the other work of a machine

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

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

NETWORK = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 64,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 256,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 64,
}
SIZES = {"INPUT.MIN_SIZE_TRAIN": "(224, 240, 256)", "INPUT.MAX_SIZE_TRAIN": 400}
OPTIONS: dict[str, dict[str, Any]] = {
    "bfloat16": {"SOLVER.AMP.ENABLED": True},
    "channels_last": {"MODEL.CHANNELS_LAST": True},
    "compile": {"MODEL.COMPILE.ENABLED": True},
}
BASE, PEER = "segkit", "Detectron2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--options", nargs="*", default=[], choices=[*OPTIONS], help="time segkit with these too")
    parser.add_argument("--tiny", action="store_true", help="small images and network, one step: shows that it works")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, quiet():
        compare(Path(folder) / "data", options)


def compare(folder: Path, options: Any) -> None:
    write_scenes(folder, *((4, (64, 96)) if options.tiny else (16, (240, 320))))
    values = {"MODEL.DEVICE": "cpu", "SOLVER.IMS_PER_BATCH": 2, "DATALOADER.NUM_WORKERS": 1}
    values |= {"INPUT.MIN_SIZE_TRAIN": "(64,)", **TINY_NETWORK} if options.tiny else {**NETWORK, **SIZES}
    cfg = build_config(folder, "coco/panoptic_rcnn_R50_FPN_1x", values)
    check_losses(cfg, 1 if options.tiny else 3)
    loops = {BASE: cfg, PEER: build_peer_config(cfg)}
    for name in options.options:
        loops[f"{BASE}, {name}"] = changed = cfg.clone()
        changed.merge_from_list([word for pair in OPTIONS[name].items() for word in pair])
    results: dict[str, list[Result]] = {name: [] for name in loops}
    for _ in range(1 if options.tiny else options.rounds):
        for name, loop in loops.items():
            results[name].append(run_round(loop, *((1, 0) if options.tiny else (options.steps, 2))))
            print(f"{name:24} {results[name][-1]}", flush=True)
    medians = summarise(results)
    for name in loops:
        ratios = [a.images_s / b.images_s for a, b in zip(results[name], results[PEER], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        if name != PEER:
            text = f"median of the rounds {statistics.median(ratios):.2f}, {spread}"
            print(f"{name} against {PEER}: {medians[name] / medians[PEER]:.2f}x ({text})")


if __name__ == "__main__":
    main()
