"""A panoptic training sample: segkit's mapper against Detectron2's DatasetMapper, one thread each.

Makes its own COCO-like scenes (JPEG, panoptic PNG and JSON of 20 segments), and from the same PNG what the peer wants:
instances as RLE and a semantic PNG. Both resize and flip alike (shortest edge 640 to 800, longest at most 1333), seeded
alike. Stops where image, semantic map, masks, classes or tight boxes differ; prints the ratio of samples a second.

    python benchmarks/mapper.py [--images 12] [--rounds 4]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from segkit.data.dataset import Dataset
from segkit.data.ground_truth import read_segmentation
from segkit.data.loaders.readers import load_reader_dataset
from segkit.data.mapper import SegkitMapper
from segkit.formats import png
from segkit.formats.coco import PanopticWriter
from segkit.formats.derive import build_coco_annotations, build_semantic_map
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment

SIZE_HW = (480, 640)
SEGMENTS = 20
THINGS = 13  # of the segments, and of the categories; the others are stuff, some of them merged into one segment
SHORTEST_PX, LONGEST_PX = (640, 672, 704, 736, 768, 800), 1333
CATEGORIES = CategorySet([Category(i + 1, f"c{i}", i < THINGS, (i, i, i)) for i in range(SEGMENTS)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12, help="images of the dataset (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="passes over them (default: %(default)s)")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder), max(1, options.images))
        compare(dataset, make_peer_records(Path(folder), dataset), max(1, options.rounds))


def make_dataset(folder: Path, images: int) -> Dataset:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    with PanopticWriter(folder / "panoptic.json", folder / "panoptic", CATEGORIES) as writer:
        for image_id in range(images):
            segmentation = paint(rng)
            noise = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            pixels = cv2.resize(noise, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC)
            pixels[..., 0] = pixels[..., 0] // 2 + 6 * segmentation.segment_ids.astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"images/{image_id}.jpg", quality=90)
            writer.add(image_id, f"{image_id}.jpg", segmentation)
    options = {"json": folder / "panoptic.json", "masks": folder / "panoptic", "images": folder / "images"}
    return load_reader_dataset("benchmark", "coco-panoptic", options)


def paint(rng: np.random.Generator) -> PanopticSegmentation:
    """Stuff in bands, things as ellipses over it, void above."""
    (height, width), stuff = SIZE_HW, SEGMENTS - THINGS
    ids = np.repeat(np.arange(THINGS, SEGMENTS) + 1, -(-height // stuff))[:height, None].repeat(width, axis=1)
    ids = ids.astype(np.int32)
    for segment_id in range(1, THINGS + 1):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(20, width // 6)), int(rng.integers(20, height // 6)))
        cv2.ellipse(ids, centre, axes, float(rng.integers(180)), 0, 360, segment_id, cv2.FILLED)
    ids[: height // 40] = 0
    found, areas = np.unique(ids[ids > 0], return_counts=True)
    pairs = zip(found.tolist(), areas.tolist(), strict=True)
    return PanopticSegmentation(ids, tuple(Segment(i, i, i <= THINGS, area) for i, area in pairs))


def make_peer_records(folder: Path, dataset: Dataset) -> list[dict[str, Any]]:
    """As Detectron2's "panoptic separated" datasets have them."""
    space, records = dataset.categories.build_semantic_space("one"), []
    for record in dataset.records:
        ground_truth = read_segmentation(record, dataset.categories)
        path = folder / f"semantic/{record['image_id']}.png"
        png.write_labels(path, build_semantic_map(ground_truth, space))
        annotations = [
            {
                "bbox": annotation["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": dataset.categories.thing_contiguous_ids[annotation["category_id"]],
                "iscrowd": 0,
                "segmentation": annotation["segmentation"],
            }
            for annotation in build_coco_annotations(record["image_id"], ground_truth)
        ]
        image_fields = {key: record[key] for key in ("file_name", "image_id", "height", "width")}
        records.append({**image_fields, "sem_seg_file_name": str(path), "annotations": annotations})
    return records


def compare(dataset: Dataset, peer_records: list[dict[str, Any]], rounds: int) -> None:
    space = dataset.categories.build_semantic_space("one")
    ours = SegkitMapper(dataset.categories, space, augmentations())
    peer, tight = (
        DatasetMapper(
            True,
            augmentations=augmentations(),
            image_format="BGR",
            use_instance_mask=True,
            instance_mask_format="bitmask",
            recompute_boxes=recompute,
        )
        for recompute in (False, True)
    )
    ratios, theirs_ms, ours_ms = [], [], []
    for turn in range(-1, rounds):  # the first one warms up, and compares
        for seed, (record, peer_record) in enumerate(zip(dataset.records, peer_records, strict=True)):
            our_time, got = timed(ours, record, seed)
            their_time, expected = timed(peer, peer_record, seed)
            if turn < 0:
                check_equal(got, expected, timed(tight, peer_record, seed)[1])
                continue
            ratios.append(their_time / our_time)
            theirs_ms.append(1000 * their_time)
            ours_ms.append(1000 * our_time)
    times = f"{statistics.median(theirs_ms):.1f} ms / {statistics.median(ours_ms):.1f} ms"
    low, _, high = statistics.quantiles(ratios, n=4)
    print(
        f"panoptic sample, {SIZE_HW[0]}x{SIZE_HW[1]}, {SEGMENTS} segments: {statistics.median(ratios):.2f}x samples a "
        f"second (quartiles {low:.2f} to {high:.2f} of {len(ratios)}; {times} a sample), tensors equal"
    )


def augmentations() -> list[T.Augmentation]:
    return [T.ResizeShortestEdge(SHORTEST_PX, LONGEST_PX, "choice"), T.RandomFlip()]


def timed(mapper: Any, record: dict[str, Any], seed: int) -> tuple[float, dict[str, Any]]:
    np.random.seed(seed)  # noqa: NPY002  # what Detectron2's augmentations draw from
    start = time.perf_counter()
    sample = mapper(record)
    return time.perf_counter() - start, sample


def check_equal(ours: dict[str, Any], theirs: dict[str, Any], tight: dict[str, Any]) -> None:
    """Stop where a tensor differs; boxes are compared with the peer's tight ones, which take it longer."""
    got, expected = ours["instances"], theirs["instances"]
    pairs = {
        "image": (ours["image"], theirs["image"]),
        "sem_seg": (ours["sem_seg"], theirs["sem_seg"]),
        "masks": (got.gt_masks.tensor, expected.gt_masks.tensor),
        "classes": (got.gt_classes, expected.gt_classes),
        "boxes": (got.gt_boxes.tensor, tight["instances"].gt_boxes.tensor),
    }
    for name, (one, other) in pairs.items():
        if one.dtype != other.dtype or not torch.equal(one, other):
            raise SystemExit(f"the {name} of {ours['file_name']} differ")


if __name__ == "__main__":
    main()
