"""Cityscapes' submissions: its own scripts read them, and a prediction that is the ground truth is perfect."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from segkit.cli.main import main
from segkit.formats.base import DatasetImage
from segkit.formats.cityscapes import CATEGORIES as LABELS
from segkit.formats.cityscapes import CityscapesWriter
from segkit.formats.coco import PanopticPredictionsReader, PanopticWriter
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment
from tests.helpers.cityscapes_reference import import_reference, reference

NAME = "ulm_000000_000019"
# The dataset's own ids, in another order than Cityscapes', and a class that Cityscapes lacks.
ROAD, CAR, PERSON, CAT = 1, 2, 3, 4
CATEGORIES = CategorySet(
    [
        Category(ROAD, "road", False, (1, 1, 1)),
        Category(CAR, "car", True, (2, 2, 2)),
        Category(PERSON, "person", True, (3, 3, 3)),
        Category(CAT, "cat", True, (4, 4, 4)),
    ]
)
SEGMENTS = (
    Segment(1, ROAD, False, 0),
    Segment(2, CAR, True, 0, score=0.75),
    Segment(3, CAR, True, 0, score=0.125),
    Segment(4, PERSON, True, 0, score=0.5),
    Segment(5, CAT, True, 0, score=0.5),
)


def build_scene() -> PanopticSegmentation:
    """Objects of at least 100 pixels, which the benchmark asks for; the first car has a hole and two parts."""
    ids = np.zeros((48, 64), dtype=np.int32)
    ids[40:] = 1
    ids[2:20, 2:20] = 2
    ids[8:10, 8:10] = 0
    ids[30:32, 2:4] = 2
    ids[2:20, 22:40] = 3
    ids[22:38, 22:40] = 4
    ids[22:38, 44:60] = 5
    return PanopticSegmentation(ids, SEGMENTS)


def convert(tmp_path: Path, *options: str, name: str = f"{NAME}_leftImg8bit.png") -> tuple[int, Path]:
    with PanopticWriter(tmp_path / "run/panoptic.json", tmp_path / "run/panoptic", CATEGORIES) as writer:
        writer.add(7, f"ulm/{name}", build_scene())
        writer.add(8, "ulm/ulm_000000_000020_leftImg8bit.png", PanopticSegmentation(np.zeros((48, 64), np.int32), ()))
    command = ["data", "convert", "--from", "run", "--root", tmp_path / "run", "--to", "cityscapes-submission"]
    code = main([*map(str, command), "--output", str(tmp_path / "out"), "--skip-images", *options])
    return code, tmp_path / "out"


def write_ground_truth(tmp_path: Path) -> Path:
    with CityscapesWriter(tmp_path / "gt", CATEGORIES, split="val") as writer:
        writer.add(DatasetImage(7, f"ulm/{NAME}_leftImg8bit.png", (48, 64)), build_scene())
    return tmp_path / "gt/gtFine/val/ulm"


def test_instances_are_perfect_for_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, output = convert(tmp_path)
    path = write_ground_truth(tmp_path) / f"{NAME}_gtFine_instanceIds.png"
    numbers = reference(monkeypatch, [path], output / "instances", tmp_path)
    assert {name for name, value in numbers.items() if value == 100} == {
        *("AP", "AP50", "AP-car", "AP50-car", "AP-person", "AP50-person")
    }
    lines = (output / f"instances/{NAME}_pred.txt").read_text().splitlines()
    assert [line.split(" ")[1:] for line in lines] == [["26", "0.75"], ["26", "0.125"], ["24", "0.5"]]
    assert (output / "instances/ulm_000000_000020_pred.txt").read_text() == ""


def test_the_semantic_map_is_perfect_for_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, output = convert(tmp_path)
    path = write_ground_truth(tmp_path) / f"{NAME}_gtFine_labelIds.png"
    import_reference(monkeypatch)
    scripts = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    args = scripts.args
    args.predictionPath, args.predictionWalk = str(output / "semantic"), None
    args.evalInstLevelScore, args.JSONOutput, args.quiet = False, False, True
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        scores = scripts.evaluateImgLists([scripts.getPrediction(args, str(path))], [str(path)], args)
    iou = {name: score for name, score in scores["classScores"].items() if score == score}
    assert iou == {"road": 1, "car": 1, "person": 1}


def test_the_panoptic_map_is_perfect_for_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, output = convert(tmp_path, "--to-set", "split=val", "tasks=[panoptic]")
    assert {path.name for path in output.iterdir()} == {"panoptic", "panoptic.zip"}
    import_reference(monkeypatch)
    scripts = importlib.import_module("cityscapesscripts.evaluation.evalPanopticSemanticLabeling")
    stem = output / "panoptic/cityscapes_panoptic_val"
    content = json.loads(stem.with_suffix(".json").read_text())
    annotations = {annotation["image_id"]: annotation for annotation in content["annotations"]}
    infos = {info["id"]: info["category_id"] for info in annotations[NAME]["segments_info"]}
    assert infos == {7: 7, 26000: 26, 26001: 26, 24000: 24}
    with contextlib.redirect_stdout(io.StringIO()):
        pairs = [(annotations[NAME], annotations[NAME])]
        categories = {category["id"]: category for category in content["categories"]}
        metric = scripts.pq_compute_single_core(0, pairs, str(stem), str(stem), categories)
    assert {label: (one.tp, one.fp, one.fn, one.iou) for label, one in metric.pq_per_cat.items() if one.tp} == {
        7: (1, 0, 0, 1),
        24: (1, 0, 0, 1),
        26: (2, 0, 0, 2),
    }


def test_the_files_have_the_names_and_ids_of_the_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output = convert(tmp_path)
    assert code == 0
    assert "segment 5: no label of Cityscapes' is named 'cat'" in capsys.readouterr().out
    names = {}
    for task in ("instances", "semantic", "panoptic"):
        with zipfile.ZipFile(output / f"{task}.zip") as archive:
            names[task] = {*archive.namelist()}
    other = "ulm_000000_000020"
    assert names["semantic"] == {f"{NAME}.png", f"{other}.png"}
    stem = "cityscapes_panoptic_test"
    assert names["panoptic"] == {f"{stem}.json", f"{stem}/{NAME}_panoptic.png", f"{stem}/{other}_panoptic.png"}
    masks = {f"{NAME}/{number:03d}.png" for number in range(3)}
    assert names["instances"] == {f"{NAME}_pred.txt", f"{other}_pred.txt", *masks}
    path = output / "panoptic" / stem
    reader = PanopticPredictionsReader(path.with_suffix(".json"), path, tmp_path, min_score=None, keep_scores=True)
    assert reader.categories == LABELS
    segments = reader.read_segmentation(reader.images[0]).segments
    assert [(s.segment_id, s.score) for s in segments] == [(7, None), (26000, 0.75), (26001, 0.125), (24000, 0.5)]


def test_other_names_and_tasks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = convert(tmp_path / "a", name="photo.png")
    assert code == 1
    assert "expected a file_name that begins with city_sequence_frame, got 'ulm/photo.png'" in capsys.readouterr().out
    code, _ = convert(tmp_path / "b", "--to-set", "tasks=boxes")
    assert code == 1
    assert "expected tasks to be a list of instances, semantic, panoptic, got 'boxes'" in capsys.readouterr().err
