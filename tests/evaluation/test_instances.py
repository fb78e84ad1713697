"""Partial exports: each process writes one, the main process joins and removes them."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO

from segkit.data.dataset import Dataset
from segkit.data.ground_truth import GroundTruth
from segkit.evaluation import instances as module
from segkit.evaluation.instances import GROUND_TRUTH, RESULTS, InstanceEvaluator
from segkit.scoring import counts_file
from segkit.structures import Category, CategorySet
from tests.helpers.platforms import needs_fork

SIZE = (30, 40)
COUNTS = "instances_counts.npz"
CATEGORIES = CategorySet([Category(3, "car", True, (0, 0, 0)), Category(8, "dog", True, (0, 0, 0))])
IMAGES = ["e", 5, "a", 1, "c", 9]


def dataset() -> Dataset:
    """Images whose ids are not sorted, with one or two ground truth boxes each."""
    records = []
    for number, image_id in enumerate(IMAGES):
        outline = [2.0, 2.0, 12.0 + number, 2.0, 12.0 + number, 22.0, 2.0, 22.0]
        entry = {"bbox": [2, 2, 10 + number, 20], "bbox_mode": 1, "category_id": number % 2, "segmentation": [outline]}
        annotations = [entry] * (1 + number % 2)
        size = {"height": SIZE[0], "width": SIZE[1]}
        records.append({"file_name": f"{image_id}.png", "image_id": image_id, "annotations": annotations, **size})
    return Dataset("toy", CATEGORIES, ("mask_ap",), records)


def output(number: int, masks: bool = True, score: float = 0.5) -> dict[str, Any]:
    """A result near the ground truth of image `number`, and a false positive."""
    instances = Instances(SIZE)
    instances.pred_boxes = Boxes(torch.tensor([[2.0, 2.0, 13.0, 22.0], [20.0, 0.0, 30.0, 10.0]]))
    instances.scores = torch.tensor([score, 0.75])
    instances.pred_classes = torch.tensor([number % 2, 0])
    if masks:
        instances.pred_masks = torch.zeros(2, *SIZE, dtype=torch.bool)
        instances.pred_masks[0, 2:22, 2:13] = True
        instances.pred_masks[1, :10, 20:30] = True
    return {"instances": instances}


def run(folder: Path, images: list[Any], **options: Any) -> InstanceEvaluator:
    """An evaluator that has seen these images."""
    data = dataset()
    evaluator = InstanceEvaluator(GroundTruth(data, "one"), folder)
    evaluator.reset()
    for image_id in images:
        evaluator.process([{"image_id": image_id}], [output(IMAGES.index(image_id), **options)])
    return evaluator


def in_processes(evaluators: list[InstanceEvaluator], monkeypatch: pytest.MonkeyPatch, hidden: tuple[int, ...] = ()):
    """Run `evaluate` once per process; the files of the `hidden` ranks are invisible to the main process."""
    owns = [{name: (p.path, p.closed().size) for name, p in e._parts.items()} for e in evaluators]
    lost = [path for rank in hidden for path, _ in owns[rank].values()]
    visible = module.is_visible
    monkeypatch.setattr(module, "is_visible", lambda path, size: path not in lost and visible(path, size))
    seen = [{name: module.is_visible(*file) for name, file in parts.items()} for parts in owns]
    shards = []
    for rank, evaluator in enumerate(evaluators):
        answers = iter([owns, [seen]])  # to the two questions that all processes answer
        with monkeypatch.context() as patch:
            patch.setattr(module.comm, "get_rank", lambda rank=rank: rank)
            patch.setattr(module.comm, "all_gather", lambda mine, answers=answers: next(answers))
            shards.append(evaluator.shard())
    for rank in hidden:
        evaluators[rank]._drop_parts()
    try:
        return evaluators[0].finish(shards)
    finally:
        for evaluator in evaluators:
            evaluator._drop_parts()


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("hidden", [(), (1,), (0, 2)])
def test_several_processes_export_the_same_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: tuple[int, ...]
) -> None:
    alone = run(tmp_path / "one", IMAGES)
    expected = alone.evaluate()
    evaluators = [run(tmp_path / "three", part) for part in (["c", 5], [], [9, "a", "e", 1])]
    results = in_processes(evaluators, monkeypatch, hidden)
    assert results == expected
    assert 0 < results["segm"]["AP"] < 100
    counts = [counts_file.load(tmp_path / folder / COUNTS).metric for folder in ("one", "three")]
    assert counts[0].compute() == counts[1].compute() == expected
    for name in (RESULTS, GROUND_TRUTH):
        assert (tmp_path / "three" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert files_in(tmp_path / "one") == files_in(tmp_path / "three") == {RESULTS, GROUND_TRUTH, COUNTS}


def test_the_export_is_in_the_order_of_the_dataset_and_valid(tmp_path: Path) -> None:
    run(tmp_path, sorted(IMAGES, key=str)).evaluate()
    results = json.loads((tmp_path / RESULTS).read_text())
    assert [entry["image_id"] for entry in results] == [image_id for image_id in IMAGES for _ in range(2)]
    ground_truth = json.loads((tmp_path / GROUND_TRUTH).read_text())
    assert [entry["id"] for entry in ground_truth["annotations"]] == list(range(1, 10))
    assert [entry["id"] for entry in ground_truth["images"]] == IMAGES
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / GROUND_TRUTH))
        assert len(coco.loadRes(str(tmp_path / RESULTS)).anns) == 12


def test_an_evaluation_without_images_exports_an_empty_file(tmp_path: Path) -> None:
    numbers = run(tmp_path, []).evaluate()
    assert numbers is not None
    assert numbers["bbox"]["AP"] is None
    assert json.loads((tmp_path / RESULTS).read_text()) == []
    assert json.loads((tmp_path / GROUND_TRUTH).read_text())["annotations"] == []


@pytest.mark.parametrize("without", [0, 1])
def test_an_image_without_masks_exports_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: int) -> None:
    evaluators = [run(tmp_path, IMAGES[:3], masks=without != 0), run(tmp_path, IMAGES[3:], masks=without != 1)]
    results = in_processes(evaluators, monkeypatch)
    assert set(results) == {"bbox"}
    assert counts_file.load(tmp_path / COUNTS).metric.compute() == results


def test_a_failure_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / RESULTS).write_text("what was there")
    evaluator = run(tmp_path, IMAGES[:2])
    assert len(files_in(tmp_path)) == 3
    with pytest.raises(ValueError, match="got NaN: did the training diverge"):
        evaluator.process([{"image_id": "a"}], [output(2, score=float("nan"))])
    evaluator.reset()
    assert len(files_in(tmp_path)) == 3
    del evaluator
    gc.collect()
    assert files_in(tmp_path) == {RESULTS}

    evaluator = run(tmp_path, IMAGES)
    monkeypatch.setattr(module, "_json_list", lambda lines: [next(iter(lines)), 1 / 0])
    with pytest.raises(ZeroDivisionError):
        evaluator.evaluate()
    assert files_in(tmp_path) == {RESULTS}
    assert (tmp_path / RESULTS).read_text() == "what was there"


def test_a_model_without_instances_leaves_no_files(tmp_path: Path) -> None:
    evaluator = run(tmp_path, IMAGES[:1])
    evaluator.process([{"image_id": 5}], [{}])
    assert evaluator.evaluate() == {}
    assert files_in(tmp_path) == set()


@needs_fork
def test_a_forked_process_does_not_remove_its_parent_s_part(tmp_path: Path) -> None:
    evaluator = run(tmp_path, IMAGES)
    child = os.fork()
    if child == 0:
        evaluator._drop_parts()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(files_in(tmp_path)) == 2
    evaluator.evaluate()
    assert files_in(tmp_path) == {RESULTS, GROUND_TRUTH, COUNTS}


def test_results_are_not_held_in_memory(tmp_path: Path) -> None:
    data = dataset()
    evaluator = InstanceEvaluator(GroundTruth(data, "one"), tmp_path)
    evaluator.reset()
    prediction = output(0)
    prediction["instances"].scores = torch.from_numpy(np.array([0.5, 0.75], dtype=np.float32))
    for image_id in IMAGES:
        evaluator.process([{"image_id": image_id}], [prediction])
    written = evaluator._parts[RESULTS]
    assert set(written._places) == set(IMAGES)
    assert all(isinstance(number, int) for position in written._places.values() for number in position)
    evaluator._drop_parts()
