"""The workbench on saved outputs of mask transformers: run, sweep and explanations, without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.formats import head_outputs
from segkit.formats.head_outputs import SavedImage
from segkit.fusion import build_fusion
from segkit.fusion.query_masks import compute_query_probs
from segkit.structures import (
    Category,
    CategorySet,
    HeadOutputs,
    InstanceMasks,
    QueryLogits,
    SemanticScores,
    ids_to_rgb,
)

SIZE_HW = (16, 24)
CATEGORIES = CategorySet(
    Category(i, name, isthing, (i, i, i))
    for i, name, isthing in ((3, "sky", False), (5, "cat", True), (8, "dog", True))
)
SPACE = CATEGORIES.build_semantic_space("per_class")
WHOLE_BOX = [0, 0, SIZE_HW[1], SIZE_HW[0]]


def build_outputs(seed: int) -> HeadOutputs:
    """Two cats and a dog, round, and the sky, as logits at a quarter of an image of 16 x 20 pixels, padded to 16 x 32.

    The output is 24 pixels wide. Scores are 0.95, 0.75, 0.6 and, of the sky, 0.9.
    """
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:4, :8]
    centers = np.stack([rng.uniform(0, 4, 3), np.array([0.5, 2.5, 4.5])], axis=1)
    logits = np.stack([*(6 - 4 * ((ys - y) ** 2 + (xs - x) ** 2) for y, x in centers), 0.5 + 0 * ys]).astype(np.float32)
    queries = QueryLogits(logits, (16, 20), 4)
    masks = np.stack([compute_query_probs(queries, row, SIZE_HW) > 0.5 for row in range(4)])
    boxes = np.array([WHOLE_BOX] * 4, dtype=np.float32)
    scores = np.array([0.95, 0.75, 0.6, 0.9], dtype=np.float32)
    instances = InstanceMasks.from_full(masks[:3], boxes[:3], scores[:3], np.array([0, 0, 1]))
    stuff = InstanceMasks.from_full(masks[3:], boxes[3:], scores[3:], np.array([1]))
    semantic = SemanticScores(np.zeros(SIZE_HW, dtype=np.uint8), SPACE.stuff_ids, SPACE.thing_ids)
    return HeadOutputs(instances, semantic, stuff, queries=queries)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Saved outputs of four images, and a ground truth that equals their fusion with object_mask_threshold 0.7."""
    saved, annotations, images = [], [], []
    (tmp_path / "gt").mkdir()
    for number in range(4):
        outputs = head_outputs.round_head_outputs(build_outputs(number), 0)
        head_outputs.write_image(tmp_path / "saved", f"{number}.npz", outputs, 0)
        saved.append(SavedImage(number, f"{number}.jpg", SIZE_HW, f"{number}.npz"))
        fused = build_fusion("mask_argmax", object_mask_threshold=0.7, overlap_threshold=0.5)(outputs)
        Image.fromarray(ids_to_rgb(fused.segment_ids)).save(tmp_path / f"gt/{number}.png")
        infos = [
            {
                "id": s.segment_id,
                "category_id": CATEGORIES.category_id(s.category_id, s.isthing),
                "iscrowd": 0,
                "area": s.area_px,
            }
            for s in fused.segments
        ]
        assert len(infos) == 3  # two cats and the sky, without the dog of score 0.6
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
        images.append({"id": number, "file_name": f"{number}.jpg", "height": SIZE_HW[0], "width": SIZE_HW[1]})
    head_outputs.write_index(tmp_path / "saved", saved, CATEGORIES, SPACE)
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES.to_coco()}
    (tmp_path / "gt.json").write_text(json.dumps(content))
    return tmp_path / "saved", tmp_path / "gt.json"


def test_a_sweep_finds_the_thresholds(files: tuple[Path, Path], tmp_path: Path) -> None:
    command = ["fuse", "sweep", "--predictions", str(files[0]), "--gt", str(files[1]), "--methods", "mask_argmax"]
    grid = ["--set", "object_mask_threshold=0.5,0.7,0.8", "overlap_threshold=0.5", "stuff_area_limit_px=0"]
    assert main([*command, *grid, "--output", str(tmp_path / "sweep")]) == 0
    settings = json.loads((tmp_path / "sweep/sweep.json").read_text())["settings"]
    quality = {s["options"]["object_mask_threshold"]: s["all"]["PQ"] for s in settings}
    assert quality[0.7] == 100
    assert max(quality[0.5], quality[0.8]) < 100


def test_a_run_explains_what_was_dropped(files: tuple[Path, Path], tmp_path: Path) -> None:
    command = ["fuse", "run", "--predictions", str(files[0]), "--method", "mask_argmax", "--explain"]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    content = json.loads((tmp_path / "run/dropped_segments.json").read_text())
    dogs = [row for image in content for row in image["dropped_segments"] if row["category_id"] == 8]
    assert {row["reason"] for row in dogs} == {"score"}
    assert [row["value"] for row in dogs] == pytest.approx([0.6] * 4)


def test_methods_that_need_more_say_so(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["fuse", "run", "--predictions", str(files[0]), "--output", str(tmp_path / "run"), "--method"]
    assert main([*command, "heuristic"]) == 0
    assert main([*command[:-1], "--overwrite", "--method", "upsnet"]) != 0
    assert "needs ['logits', 'mask_probs']" in " ".join(capsys.readouterr().err.split())


def test_logits_that_do_not_belong_to_the_masks_are_refused() -> None:
    outputs = build_outputs(0)
    few = QueryLogits(outputs.queries.logits[:2], (16, 20), 4)
    with pytest.raises(ValueError, match="queries must be of the 4 instances and stuff masks, got 2"):
        HeadOutputs(outputs.instances, outputs.semantic, outputs.stuff_masks, queries=few)
    with pytest.raises(ValueError, match=r"image_size must be inside the padded image \(16, 32\), got \(17, 20\)"):
        QueryLogits(outputs.queries.logits, (17, 20), 4)
    with pytest.raises(ValueError, match="did the training diverge"):
        QueryLogits(outputs.queries.logits * np.nan, (16, 20), 4)
