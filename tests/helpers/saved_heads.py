"""Saved head outputs of small random images beside a truth that they resemble, as files."""

from __future__ import annotations

import json
from dataclasses import replace
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
# Ids with gaps, stuff in between: no id space is another. [red] would be markup to rich.
NAMED = ((2, "[red]cat", True), (5, "grass", False), (7, "dog", True), (11, "cow", True), (90, "sky", False))
CATEGORIES = CategorySet(Category(i, name, isthing, default_color(i)) for i, name, isthing in NAMED)
SPACE = CATEGORIES.build_semantic_space("per_class")
TRUE_FUSION = HeuristicFusion(0.5, 1, 0.35)


def outputs(seed: int, *, count: int = 8, logits: bool = True) -> HeadOutputs:
    """Instances of 3 classes whose scores are in 0.2..0.99 and a semantic map of two stripes with noise."""
    rng = np.random.default_rng(seed)
    height, width = SIZE_HW
    corners = rng.uniform(-2, [width - 4, height - 4], (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 14, (count, 2))], axis=1).astype(np.float32)
    probs = (1 / (1 + np.exp(-rng.normal(1.5, 2, (count, 6, 6))))).astype(np.float32)
    scores = rng.permutation(np.linspace(0.2, 0.99, max(count, 1)))[:count].astype(np.float32)
    instances = paste_masks(probs, boxes, scores, rng.integers(0, 3, count), SIZE_HW)
    made = rng.normal(0, 1.2, (5, *SIZE_HW)).astype(np.float32)
    made[1, : height // 2] += 4
    made[4, height // 2 :] += 4
    semantic = SemanticScores(made.argmax(axis=0), SPACE.stuff_ids, SPACE.thing_ids, made if logits else None)
    return HeadOutputs(instances, semantic)


def truth_of(one: HeadOutputs, rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A map and segments_info: what a fusion makes of the outputs, blurred by moved rows, with a crowd and void."""
    fused = TRUE_FUSION(one)
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
    """Make folder/saved, folder/ground_truth.json and folder/ground_truth/; return the first two."""
    rng = np.random.default_rng(seed)
    ids = image_ids or [*(f"image {i}" if i % 3 == 0 else 10 * images - i for i in range(images))]
    saved, annotations, table = [], [], []
    (folder / "ground_truth").mkdir(parents=True)
    for place, image_id in enumerate(ids):
        one = outputs(1000 * seed + place, logits=logits, count=count)
        head_outputs.write_image(folder / "saved", f"{place}.npz", one, 5 if logits else 0)
        saved.append(SavedImage(image_id, f"{place}.jpg", SIZE_HW, f"{place}.npz"))
        ground_truth, infos = truth_of(head_outputs.round_head_outputs(one, 5 if logits else 0), rng)
        Image.fromarray(ids_to_rgb(ground_truth)).save(folder / f"ground_truth/{place}.png")
        annotations.append({"image_id": image_id, "file_name": f"{place}.png", "segments_info": infos})
        table.append({"id": image_id, "file_name": f"{place}.jpg", "height": SIZE_HW[0], "width": SIZE_HW[1]})
    head_outputs.write_index(folder / "saved", saved, CATEGORIES, SPACE)
    order = rng.permutation(len(ids))  # the truth has an order of its own
    content = {
        "images": table,
        "annotations": [annotations[i] for i in order],
        "categories": CATEGORIES.to_coco()[::-1],
    }
    (folder / "ground_truth.json").write_text(json.dumps(content))
    return folder / "saved", folder / "ground_truth.json"


def without_instances(one: HeadOutputs) -> HeadOutputs:
    """The same with nothing found."""
    empty = outputs(0, count=0).instances
    return replace(one, instances=empty)
