#!/usr/bin/env python3
"""A sweep over 200 settings of the heuristic fusion against fusing the same images 10 times with Detectron2's function.

    python benchmarks/fusion_sweep.py [--images 100] [--instances 50] [--workers 1]

Our time is that of the whole sweep: reading the saved outputs and the ground truth, fusing, counting, tuning. Of
Detectron2 only the calls of combine_semantic_and_instance_outputs are counted, not reading, pasting or scoring. One
thread each, image by image in turns, since the ratio is what counts. The PQ of some settings is compared with that of
Detectron2's maps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Instances

from segkit.formats import coco, head_outputs
from segkit.formats.coco import PanopticWriter
from segkit.formats.head_outputs import SavedImage
from segkit.fusion import HeuristicFusion
from segkit.fusion.paste import paste_masks
from segkit.metrics import PanopticQuality
from segkit.scoring.fusion.options import build_grid
from segkit.scoring.fusion.run import fuse_to_dataset
from segkit.scoring.fusion.sweep import SweepData
from segkit.scoring.fusion.tuning import search
from segkit.structures import (
    Category,
    CategorySet,
    HeadOutputs,
    PanopticSegmentation,
    Segment,
    SemanticScores,
    default_color,
)

SIZE_HW = (480, 640)
THINGS, STUFF = 80, 53  # COCO panoptic's numbers of classes
CATEGORIES = CategorySet(Category(i, f"class {i}", i <= THINGS, default_color(i)) for i in range(1, THINGS + STUFF + 1))
TIMES = 10  # that Detectron2 fuses each image
CHECKED = 3  # settings whose PQ is compared


def make_outputs(count: int, rng: np.random.Generator) -> HeadOutputs:
    """COCO-like: soft ellipses in boxes of all sizes, a semantic map of patches."""
    height, width = SIZE_HW
    grid_px = np.linspace(-1, 1, 28)
    radius = rng.uniform(0.5, 1, (count, 1, 1))
    probs = 1 / (1 + np.exp(-10 * (radius - np.hypot(grid_px[:, None], grid_px[None]))))
    sides, centres = rng.uniform(size=(count, 2)) ** 2 * 0.5 + 0.04, rng.uniform(size=(count, 2))
    boxes = np.clip(np.concatenate([centres - sides / 2, centres + sides / 2], axis=1), 0, 1)
    boxes = (boxes * [width, height, width, height]).astype(np.float32)
    scores = rng.uniform(0.2, 1, count).astype(np.float32)
    masks = paste_masks(probs.astype(np.float32), boxes, scores, rng.integers(0, THINGS, count), SIZE_HW)
    patches = rng.integers(0, STUFF + 1, (6, 8)).repeat(height // 6, axis=0).repeat(width // 8, axis=1)
    return HeadOutputs(masks, SemanticScores(patches, np.arange(STUFF + 1), np.full(STUFF + 1, -1)))


def write(folder: Path, images: int, count: int) -> tuple[Path, Path]:
    """Saved outputs, and as ground truth a fusion of them that is shifted a little."""
    rng, saved = np.random.default_rng(0), []
    gt_json = folder / "ground_truth.json"
    with PanopticWriter(gt_json, folder / "ground_truth", CATEGORIES) as writer:
        for image_id in range(images):
            head = make_outputs(count, rng)
            head_outputs.write_image(folder / "saved", f"{image_id}.npz", head, 0)
            saved.append(SavedImage(image_id, f"{image_id}.jpg", SIZE_HW, f"{image_id}.npz"))
            fused = fuse_to_dataset(HeuristicFusion(0.5, 500, 0.45), head, CATEGORIES)
            ids = np.roll(fused.segment_ids, rng.integers(0, 6, 2), axis=(0, 1))
            writer.add(image_id, f"{image_id}.jpg", PanopticSegmentation(ids, fused.segments))
    head_outputs.write_index(folder / "saved", saved, CATEGORIES, CATEGORIES.build_semantic_space("one"))
    return folder / "saved", gt_json


def build_inputs(outputs: HeadOutputs) -> tuple[Instances, torch.Tensor]:
    """The arguments of Detectron2's function."""
    instances = Instances(SIZE_HW)
    instances.pred_masks = torch.from_numpy(outputs.instances.to_full())
    instances.scores = torch.from_numpy(outputs.instances.scores)
    instances.pred_classes = torch.from_numpy(outputs.instances.class_ids)
    return instances, torch.from_numpy(outputs.semantic.channels.astype(np.int64))


def compute_detectron2_pq(sweep_data: SweepData, options: dict[str, Any]) -> float | None:
    """PQ of Detectron2's maps with these options."""
    metric = PanopticQuality(sweep_data.categories)
    order = [record.image_id for record in sweep_data.ground_truth.records]
    for record in sweep_data.ground_truth.records:
        instances, semantic = build_inputs(sweep_data.saved.read(sweep_data.saved_images[record.image_id]))
        thresholds = [options[k] for k in ("overlap_threshold", "stuff_area_limit_px", "instance_score_threshold")]
        ids, infos = combine_semantic_and_instance_outputs(instances, semantic, *thresholds)
        present = set(np.unique(ids.numpy()).tolist())
        segments = tuple(
            Segment(s["id"], CATEGORIES.category_id(s["category_id"], s["isthing"]), s["isthing"], 0)
            for s in infos
            if s["id"] in present
        )
        png = sweep_data.gt_folder / record.png_name
        ground_truth = coco.read_segmentation(png, record.segments_info, sweep_data.categories)
        metric.update(record.image_id, ground_truth, PanopticSegmentation(ids.numpy(), segments))
    pq: float | None = metric.compute(order)["PQ"]
    return pq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--instances", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        files = write(Path(name), args.images, args.instances)
        settings = build_grid(["heuristic"], [], CATEGORIES)
        search(SweepData.open(*files), {"heuristic": settings["heuristic"][:2]})  # functions are compiled here
        theirs = 0.0
        sweep_data = SweepData.open(*files)
        for image in sweep_data.saved.images:
            instances, semantic = build_inputs(sweep_data.saved.read(image))
            for _ in range(TIMES):
                start = time.perf_counter()
                combine_semantic_and_instance_outputs(instances, semantic, 0.5, 4096, 0.5)
                theirs += time.perf_counter() - start
        start = time.perf_counter()
        result = search(SweepData.open(*files), settings, workers=args.workers)
        ours = time.perf_counter() - start
        plain = [setting for setting in result["settings"] if setting["options"]["nms"] == "none"]
        for setting in plain[:: max(1, len(plain) // CHECKED)][:CHECKED]:
            options, pq = setting["options"], setting["all"]["PQ"]
            if (expected := compute_detectron2_pq(sweep_data, options)) != pq:
                raise SystemExit(f"PQ differs: {expected}, not {pq} at {json.dumps(options)}")
    shape = f"{args.images} images {SIZE_HW[0]}x{SIZE_HW[1]}, {args.instances} instances"
    print(f"{shape}: Detectron2, {TIMES} fusions {theirs:.1f} s; {len(result['settings'])} settings {ours:.1f} s")
    print(f"ratio {theirs / ours:.2f}x, PQ of {CHECKED} settings equal")


if __name__ == "__main__":
    main()
