"""Fused predictions as files: their content, the explanation of each segment, and no partial files after an error."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.formats import coco, head_outputs
from segkit.formats.head_outputs import SavedHeadOutputs, SavedImage
from segkit.fusion import FUSION_METHODS, LOGITS, MASK_PROBS, DroppedSegment, HeuristicFusion
from segkit.scoring.fusion.run import check_needs, fuse_to_dataset, run_fusion
from segkit.structures import HeadOutputs, InstanceMasks, SemanticScores
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.saved_heads import CATEGORIES, SPACE, outputs, write

CAT, GRASS, DOG, SKY = 2, 5, 7, 90


@pytest.fixture
def saved(tmp_path: Path) -> SavedHeadOutputs:
    return head_outputs.load(write(tmp_path, 5)[0])


def drawn() -> HeadOutputs:
    """2 x 4 pixels: a cat (score 0.9) left, a dog (0.75) of which the cat takes half, a cow (0.25); sky over grass."""
    masks = np.zeros((3, 2, 4), dtype=bool)
    masks[0, :, :2], masks[1, 0, :2], masks[1, 0, 2:], masks[2, 1, 3] = True, True, True, True
    full = InstanceMasks.from_full(
        masks, np.zeros((3, 4), np.float32), np.array([0.9, 0.75, 0.25], np.float32), np.arange(3)
    )
    channels = np.array([[4, 4, 4, 4], [1, 1, 1, 1]])  # by category_id: cat, grass, dog, cow, sky
    return HeadOutputs(full, SemanticScores(channels, SPACE.stuff_ids, SPACE.thing_ids))


def save_drawn(folder: Path) -> SavedHeadOutputs:
    head_outputs.write_image(folder, "a.npz", drawn(), 0)
    head_outputs.write_index(folder, [SavedImage("a", "deep/a.jpg", (2, 4), "a.npz")], CATEGORIES, SPACE)
    return head_outputs.load(folder)


def test_the_files_hold_the_fused_map_with_scores_and_dataset_ids(tmp_path: Path) -> None:
    """The cat keeps its 4 pixels. 2 of the dog's 4 are taken: 0.5 is not above 0.5, it keeps 2. The cow's score is
    below 0.5. Sky has nothing left, grass columns 2 and 3 of row 1."""
    run_fusion(save_drawn(tmp_path / "saved"), HeuristicFusion(stuff_area_limit_px=1), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["panoptic", "panoptic.json"]
    content = json.loads((tmp_path / "out/panoptic.json").read_text())
    assert content["images"] == [{"id": "a", "file_name": "deep/a.jpg", "height": 2, "width": 4}]
    (annotation,) = content["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == ("a", "a.png")
    messages = [
        (s["id"], s["category_id"], s["isthing"], s["area"], s.get("score")) for s in annotation["segments_info"]
    ]
    assert messages == [
        (1, CAT, 1, 4, pytest.approx(0.9)),
        (2, DOG, 1, 2, 0.75),
        (3, GRASS, 0, 2, None),
    ]
    rgb = np.array(Image.open(tmp_path / "out/panoptic/a.png")).astype(int)
    assert (rgb[..., 0]).tolist() == [[1, 1, 2, 2], [1, 1, 3, 3]]
    assert coco.read_panoptic(tmp_path / "out/panoptic.json").categories == CATEGORIES


def test_dropped_segments_are_written_with_names(tmp_path: Path) -> None:
    """Of the same image: the dog lost 2 pixels to the cat. Of the sky's 4 the cat has 2 and the dog 2; of grass's 4
    the cat has 2; the cow's one pixel went to grass."""
    messages = run_fusion(
        save_drawn(tmp_path / "saved"), HeuristicFusion(stuff_area_limit_px=1), tmp_path / "out", explain=True
    )
    assert messages == json.loads((tmp_path / "out/dropped_segments.json").read_text())
    assert [(image["image_id"], image["file_name"]) for image in messages] == [("a", "deep/a.jpg")]
    dropped_segments = messages[0]["dropped_segments"]
    shown = [
        (f["category"], f["category_id"], f["instance_id"], f["reason"], f["segment_id"], f["area_px"], f["kept_px"])
        for f in dropped_segments
    ]
    assert shown == [
        ("dog", DOG, 1, "overlap", 2, 4, 2),
        ("cow", 11, 2, "score", 0, 1, 0),
        ("grass", GRASS, None, "overlap", 3, 4, 2),
        ("sky", SKY, None, "occluded", 0, 4, 0),
    ]
    takers = [
        [(t["category"], t["category_id"], t["segment_id"], t["pixels"]) for t in f["overlapped_by"]]
        for f in dropped_segments
    ]
    assert takers == [
        [("[red]cat", CAT, 1, 2)],
        [("grass", GRASS, 3, 1)],
        [("[red]cat", CAT, 1, 2)],
        [("[red]cat", CAT, 1, 2), ("dog", DOG, 2, 2)],
    ]
    assert (dropped_segments[1]["value"], dropped_segments[1]["limit"]) == (0.25, 0.5)


def test_pixels_of_void_are_reported_as_such(tmp_path: Path) -> None:
    """With an area limit of 3 grass's 2 pixels become void, and with them the cow's."""
    messages = run_fusion(
        save_drawn(tmp_path / "saved"), HeuristicFusion(stuff_area_limit_px=3), tmp_path / "out", explain=True
    )
    cow, grass = messages[0]["dropped_segments"][1:3]
    assert cow["overlapped_by"] == [{"segment_id": 0, "category_id": None, "category": None, "pixels": 1}]
    assert (grass["reason"], grass["value"], grass["limit"]) == ("area", 2, 3)


def test_segments_without_pixels_are_left_out() -> None:
    """At overlap_threshold 1 a fully occluded instance is an empty segment, as in Detectron2; it is not written."""
    mask = np.ones((2, 1, 1), dtype=bool)
    twice = InstanceMasks.from_full(mask, np.zeros((2, 4), np.float32), np.array([0.9, 0.8], np.float32), np.arange(2))
    saved_outputs = HeadOutputs(twice, SemanticScores(np.zeros((1, 1), int), SPACE.stuff_ids, SPACE.thing_ids))
    assert len(HeuristicFusion(overlap_threshold=1.0)(saved_outputs).segments) == 2
    assert [
        s.category_id
        for s in fuse_to_dataset(HeuristicFusion(overlap_threshold=1.0), saved_outputs, CATEGORIES).segments
    ] == [2]


def test_a_class_outside_the_categories_is_a_dataset_error() -> None:
    saved_outputs = drawn()
    saved_outputs.instances.class_ids[0] = 3
    with pytest.raises(DatasetError, match="no thing has the contiguous id 3"):
        fuse_to_dataset(HeuristicFusion(), saved_outputs, CATEGORIES)


def test_workers_write_the_same_bytes(saved: SavedHeadOutputs, tmp_path: Path) -> None:
    for workers in (1, 2):
        run_fusion(saved, HeuristicFusion(), tmp_path / f"{workers}", explain=True, workers=workers)
    files = [{p.relative_to(tmp_path / f): p.read_bytes() for p in (tmp_path / f).rglob("*.*")} for f in "12"]
    assert len(files[0]) == 7  # 5 PNGs and two JSON
    assert files[0] == files[1]


def listed(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_an_error_keeps_the_earlier_files(saved: SavedHeadOutputs, tmp_path: Path) -> None:
    """Two invalid images are reported at once; only the earlier run's files remain, unchanged."""
    out = tmp_path / "out"
    run_fusion(saved, HeuristicFusion(), out)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for name in ("1.npz", "3.npz"):
        os.truncate(saved.folder / name, 100)
    with pytest.raises(DatasetError, match=r"2 problems:\n- 2 times: .*1\.npz.*3\.npz"):
        run_fusion(saved, HeuristicFusion(0.1), out, explain=True)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    fresh = tmp_path / "fresh"
    with pytest.raises(DatasetError):
        run_fusion(saved, HeuristicFusion(), fresh)
    assert listed(fresh) == []


def test_a_later_run_replaces_all_of_an_earlier_one(saved: SavedHeadOutputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_fusion(saved, HeuristicFusion(), out, explain=True)
    (out / "panoptic/old.png").touch()
    (out / "note.txt").touch()
    run_fusion(saved, HeuristicFusion(), out)
    assert listed(out) == ["note.txt", "panoptic", "panoptic.json", *(f"panoptic/{i}.png" for i in range(5))]


def test_a_folder_that_cannot_be_written_is_reported(saved: SavedHeadOutputs, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file: cannot be written"):
        run_fusion(saved, HeuristicFusion(), tmp_path / "file")


def test_methods_with_missing_inputs_are_all_named(tmp_path: Path, monkeypatch: Any) -> None:
    class Greedy(HeuristicFusion):
        needs = frozenset({LOGITS})

    class Probing(HeuristicFusion):
        needs = frozenset({MASK_PROBS})

    bare = head_outputs.load(write(tmp_path / "bare", 3, logits=False)[0])
    full = head_outputs.load(write(tmp_path / "full", 3)[0])
    read: list[Any] = []
    real = SavedHeadOutputs.read
    monkeypatch.setattr(SavedHeadOutputs, "read", lambda self, image: (read.append(image), real(self, image))[1])
    with pytest.raises(ConfigError, match=r"Greedy needs \['logits'\]"):
        check_needs(bare, [HeuristicFusion(), Greedy()])
    check_needs(full, [HeuristicFusion(), Greedy()])
    assert len(read) == 2  # the first image has instances
    drawn_only = save_drawn(tmp_path / "saved")  # without mask_probs
    with pytest.raises(ConfigError, match=r"Greedy needs \['logits'\].*Probing needs \['mask_probs'\]"):
        check_needs(drawn_only, [Greedy(), Probing(), Greedy()])


def test_required_inputs_are_checked_on_images_with_instances(tmp_path: Path) -> None:
    class Probing(HeuristicFusion):
        needs = frozenset({MASK_PROBS})

    head_outputs.write_image(tmp_path, "empty.npz", outputs(0, count=0), 0)
    head_outputs.write_image(tmp_path, "a.npz", drawn(), 0)
    empty, full = SavedImage(1, "1.jpg", (24, 32), "empty.npz"), SavedImage(2, "2.jpg", (2, 4), "a.npz")
    head_outputs.write_index(tmp_path, [empty, full], CATEGORIES, SPACE)
    with pytest.raises(ConfigError, match="Probing"):
        check_needs(head_outputs.load(tmp_path), [Probing()])
    head_outputs.write_index(tmp_path, [empty], CATEGORIES, SPACE)
    check_needs(head_outputs.load(tmp_path), [Probing()])


def test_no_images_give_an_empty_file(tmp_path: Path) -> None:
    head_outputs.write_index(tmp_path / "saved", [], CATEGORIES, SPACE)
    saved = head_outputs.load(tmp_path / "saved")
    check_needs(saved, [HeuristicFusion()])
    assert run_fusion(saved, HeuristicFusion(), tmp_path / "out", explain=True) == []
    assert json.loads((tmp_path / "out/panoptic.json").read_text())["annotations"] == []


@pytest.mark.parametrize("name", sorted(FUSION_METHODS))
def test_every_method_can_be_explained(name: str, saved: SavedHeadOutputs, tmp_path: Path) -> None:
    dropped_segments: list[DroppedSegment] = []
    fuse_to_dataset(FUSION_METHODS[name](), saved.read(saved.images[0]), CATEGORIES, dropped_segments)
    messages = run_fusion(saved, FUSION_METHODS[name](), tmp_path / "out", explain=True)
    assert [segment["reason"] for segment in messages[0]["dropped_segments"]] == [
        segment.reason for segment in dropped_segments
    ]
