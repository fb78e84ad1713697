"""Synthetic panoptic ground truth and predictions as files: overlapping ellipses, some moved, missed or mislabelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.structures import Category, CategorySet, default_color, ids_to_rgb

THINGS, STUFF = 80, 53  # COCO panoptic's numbers of classes
CATEGORIES = CategorySet(Category(i, f"class {i}", i <= THINGS, default_color(i)) for i in range(1, THINGS + STUFF + 1))
STRIPES = 6  # of stuff behind the ellipses
VOID_SHARE = 0.2  # of the stripes

Entry = dict[str, Any]


def write_pairs(
    folder: Path, images: int, size_hw: tuple[int, int], ellipses: int, rng: np.random.Generator
) -> tuple[Path, Path]:
    """Write `images` pairs; return the JSON of ground truth and of predictions, each beside its folder of PNGs."""
    ground_truth, predictions, table = [], [], []
    for image_id in range(1, images + 1):
        gt_map, gt_infos, pred_map, pred_infos = scene(size_hw, ellipses, rng)
        name = f"{image_id:012d}"
        table.append({"id": image_id, "file_name": f"{name}.jpg", "height": size_hw[0], "width": size_hw[1]})
        ground_truth.append({"image_id": image_id, "file_name": f"{name}.png", "segments_info": gt_infos})
        predictions.append({"image_id": image_id, "file_name": f"{name}.png", "segments_info": pred_infos})
        write_png(folder / "ground_truth" / f"{name}.png", gt_map)
        write_png(folder / "predictions" / f"{name}.png", pred_map)
    paths = folder / "ground_truth.json", folder / "predictions.json"
    for path, entries in zip(paths, (ground_truth, predictions), strict=True):
        path.write_text(json.dumps({"images": table, "annotations": entries, "categories": CATEGORIES.to_coco()}))
    return paths


def scene(
    size_hw: tuple[int, int], ellipses: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], list[Entry], NDArray[np.int32], list[Entry]]:
    """Ground truth map and segments_info, predicted map and segments_info of one image."""
    height, width = size_hw
    ids = rng.choice(np.arange(1, 2**24), size=STRIPES + ellipses, replace=False)
    categories = np.concatenate(
        [
            rng.choice(np.arange(THINGS + 1, THINGS + STUFF + 1), STRIPES, replace=False),
            rng.integers(1, THINGS + 1, ellipses),
        ]
    )
    pred_categories = np.where(rng.random(len(ids)) < 0.8, categories, rng.permutation(categories))
    shapes = rng.uniform([0, 0, 0.01, 0.01, 0], [width, height, width / 8, height / 6, 360], size=(ellipses, 5))
    moved = shapes + rng.normal(0, [4, 4, 3, 3, 2], size=shapes.shape)
    void = rng.random(STRIPES) < VOID_SHARE
    gt_map = paint(size_hw, np.where(void, 0, ids[:STRIPES]), shapes, ids[STRIPES:])
    predicted = rng.random(ellipses) < 0.9
    pred_map = paint(size_hw, ids[:STRIPES], moved[predicted], ids[STRIPES:][predicted])
    crowds = set(ids[STRIPES:][rng.random(ellipses) < 0.05].tolist())
    return gt_map, infos(gt_map, ids, categories, crowds), pred_map, infos(pred_map, ids, pred_categories, set())


def paint(
    size_hw: tuple[int, int], stripes: NDArray[np.int64], shapes: NDArray[np.float64], ids: NDArray[np.int64]
) -> NDArray[np.int32]:
    """(H, W) ids: wavy stripes, and on them filled ellipses (x, y, half axes, degrees), later ones on top."""
    height, width = size_hw
    wave = (np.sin(np.arange(width) / width * 12) * height / 40).astype(np.int64)
    rows = np.clip((np.arange(height)[:, None] + wave) * len(stripes) // height, 0, len(stripes) - 1)
    canvas = stripes[rows].astype(np.int32)
    for (x, y, a, b, degrees), segment_id in zip(shapes.tolist(), ids.tolist(), strict=True):
        axes = (max(1, round(a)), max(1, round(b)))
        cv2.ellipse(canvas, (round(x), round(y)), axes, degrees, 0, 360, segment_id, cv2.FILLED)
    return canvas


def infos(
    segment_ids: NDArray[np.int32], ids: NDArray[np.int64], categories: NDArray[np.int64], crowds: set[int]
) -> list[Entry]:
    """segments_info of the visible segments."""
    category_ids = dict(zip(ids.tolist(), categories.tolist(), strict=True))
    visible = zip(*(column.tolist() for column in np.unique(segment_ids, return_counts=True)), strict=True)
    return [
        {"id": i, "category_id": category_ids[i], "area": area, "iscrowd": int(i in crowds)} for i, area in visible if i
    ]


def write_png(path: Path, segment_ids: NDArray[np.int32]) -> None:
    """As panopticapi and Detectron2 write them: Pillow with its defaults."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids_to_rgb(segment_ids)).save(path)
