"""Files of head outputs of small random images, and of a ground truth that is similar to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segkit.formats import head_outputs
from segkit.formats.head_outputs import SavedImage
from segkit.fusion import HeuristicFusion
from segkit.fusion.paste import paste_masks
from segkit.structures import Category, CategorySet, HeadOutputs, SemanticScores, default_color, ids_to_rgb

SIZE_HW = (24, 32)
# Ids with gaps and stuff in between, so that no two id spaces are equal. [red] would be markup for rich.
CLASSES = ((2, "[red]cat", True), (5, "grass", False), (7, "dog", True), (11, "cow", True), (90, "sky", False))
CATEGORIES = CategorySet(Category(i, name, isthing, default_color(i)) for i, name, isthing in CLASSES)
SPACE = CATEGORIES.build_semantic_space("per_class")
GROUND_TRUTH_FUSION = HeuristicFusion(0.5, 1, 0.35)


def outputs(seed: int, *, count: int = 8, logits: bool = True) -> HeadOutputs:
    """Instances of 3 classes whose scores are in 0.2..0.99 and a semantic map of two stripes with noise."""
    rng = np.random.default_rng(seed)
    height, width = SIZE_HW
    corners = rng.uniform(-2, [width - 4, height - 4], (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 14, (count, 2))], axis=1).astype(np.float32)
    probs = (1 / (1 + np.exp(-rng.normal(1.5, 2, (count, 6, 6))))).astype(np.float32)
    scores = rng.permutation(np.linspace(0.2, 0.99, max(count, 1)))[:count].astype(np.float32)
    instances = paste_masks(probs, boxes, scores, rng.integers(0, 3, count), SIZE_HW)
    logits_chw = rng.normal(0, 1.2, (5, *SIZE_HW)).astype(np.float32)
    logits_chw[1, : height // 2] += 4
    logits_chw[4, height // 2 :] += 4
    semantic = SemanticScores(
        logits_chw.argmax(axis=0), SPACE.stuff_ids, SPACE.thing_ids, logits_chw if logits else None
    )
    return HeadOutputs(instances, semantic)


def build_ground_truth(
    head_outputs_of_image: HeadOutputs, rng: np.random.Generator
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns a map and its segments_info: the fused outputs with some rows shifted, with crowds and void."""
    fused = GROUND_TRUTH_FUSION(head_outputs_of_image)
    ids = np.where(rng.random((SIZE_HW[0], 1)) < 0.2, np.roll(fused.segment_ids, 2, axis=1), fused.segment_ids)
    ids[:2] = 0
    infos = []
    for segment in fused.segments:
        area = int((ids == segment.segment_id).sum())
        if area:
            category_id = CATEGORIES.category_id(segment.category_id, segment.isthing)
            crowd = int(segment.isthing and rng.random() < 0.1)
            infos.append({"id": segment.segment_id * 7, "category_id": category_id, "iscrowd": crowd, "area": area})
    return ids * 7, infos


def write(
    folder: Path, images: int = 6, *, seed: int = 0, logits: bool = True, count: int = 8, image_ids: Any = None
) -> tuple[Path, Path]:
    """Writes folder/saved, folder/ground_truth.json and folder/ground_truth/; returns the first two paths."""
    rng = np.random.default_rng(seed)
    ids = image_ids or [*(f"image {i}" if i % 3 == 0 else 10 * images - i for i in range(images))]
    saved, annotations, table = [], [], []
    (folder / "ground_truth").mkdir(parents=True)
    for index, image_id in enumerate(ids):
        head_outputs_of_image = outputs(1000 * seed + index, logits=logits, count=count)
        head_outputs.write_image(folder / "saved", f"{index}.npz", head_outputs_of_image, 5 if logits else 0)
        saved.append(SavedImage(image_id, f"{index}.jpg", SIZE_HW, f"{index}.npz"))
        ground_truth, infos = build_ground_truth(
            head_outputs.round_head_outputs(head_outputs_of_image, 5 if logits else 0), rng
        )
        Image.fromarray(ids_to_rgb(ground_truth)).save(folder / f"ground_truth/{index}.png")
        annotations.append({"image_id": image_id, "file_name": f"{index}.png", "segments_info": infos})
        table.append({"id": image_id, "file_name": f"{index}.jpg", "height": SIZE_HW[0], "width": SIZE_HW[1]})
    head_outputs.write_index(folder / "saved", saved, CATEGORIES, SPACE)
    order = rng.permutation(len(ids))  # the ground truth has another order
    content = {
        "images": table,
        "annotations": [annotations[i] for i in order],
        "categories": CATEGORIES.to_coco()[::-1],
    }
    (folder / "ground_truth.json").write_text(json.dumps(content))
    return folder / "saved", folder / "ground_truth.json"
