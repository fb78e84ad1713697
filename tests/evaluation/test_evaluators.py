"""The evaluators and their exports, with a model that predicts the ground truth, against the reference packages."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.evaluation import inference_on_dataset
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segkit.config import load_config
from segkit.data.catalog import load_dataset
from segkit.data.dataset import Dataset
from segkit.data.datasets import cityscapes as cityscapes_names
from segkit.data.ground_truth import GroundTruth
from segkit.engine.training.hooks import select_numbers
from segkit.evaluation import EVALUATORS, build_evaluators
from segkit.evaluation.predictions import get_instance_masks, get_panoptic_prediction
from segkit.evaluation.semantic import SemanticEvaluator
from segkit.formats import coco, head_outputs
from segkit.metrics import PanopticQuality, SemanticIoU
from segkit.metrics.semantic_comparison import compare_semantic_iou
from segkit.metrics.undefined import add_notes
from segkit.modeling.lazy_dict import LazyDict, LazyValue
from segkit.scoring import counts_file
from segkit.scoring.instances import score_instances
from segkit.scoring.panoptic import score_panoptic
from segkit.structures import NO_THING, HeadOutputs, SemanticScores
from segkit.utils.errors import ConfigError
from tests.helpers.cityscapes_tree import write_instance_ids
from tests.helpers.coco_datasets import load_coco_instances, load_coco_panoptic
from tests.helpers.ground_truth_model import PANOPTIC_RCNN, GroundTruthModel, evaluate


@pytest.fixture
def dataset(toy_folder: Path) -> Dataset:
    return load_coco_panoptic("toy", toy_folder / "panoptic.json", toy_folder / "panoptic")


def test_the_ground_truth_scores_100(dataset: Dataset, tmp_path: Path) -> None:
    results = evaluate(dataset, tmp_path)
    assert set(results) == {"panoptic_seg", "bbox", "segm", "sem_seg"}
    for task, name in (("panoptic_seg", "PQ"), ("bbox", "AP"), ("segm", "AP"), ("sem_seg", "mIoU")):
        assert results[task][name] == pytest.approx(100), task


class Lazily(GroundTruthModel):
    """Gives the same outputs as PanopticRCNN: crops and head outputs; reading an expensive full-size output fails."""

    def predict(self, record: dict[str, Any]) -> LazyDict:
        output = super().predict(record)
        masks = get_instance_masks(output, (record["height"], record["width"]))
        assert masks is not None
        stuff_ids = output["sem_seg"].argmax(dim=0).numpy()
        count = len(output["sem_seg"])
        semantic = SemanticScores(stuff_ids, np.arange(count), np.full(count, NO_THING))
        return LazyDict(
            panoptic_seg=output["panoptic_seg"],
            instance_masks=LazyValue(lambda: masks),
            head_outputs=LazyValue(lambda: HeadOutputs(masks, semantic)),
            instances=LazyValue(lambda: pytest.fail("full-size masks were made")),
            sem_seg=LazyValue(lambda: pytest.fail("full-size logits were made")),
        )


def test_evaluation_uses_no_full_size_output_and_scores_the_same(dataset: Dataset, tmp_path: Path) -> None:
    opts = ["TEST.BOUNDARY", "True", "TEST.SAVE_HEADS", "True", "TEST.KEEP_LOGITS", "0"]
    lazily = evaluate(dataset, tmp_path / "a", shift_px=2, opts=opts, model_class=Lazily)
    assert lazily == evaluate(dataset, tmp_path / "b", shift_px=2, opts=opts[:2])
    names = ("panoptic.json", "coco_instances_results.json")
    a, b = ([(tmp_path / folder / name).read_bytes() for name in names] for folder in ("a", "b"))
    assert a == b
    assert len(head_outputs.load(tmp_path / "a" / "head_outputs")) == len(dataset.records)


def test_on_an_accelerator_the_logits_are_counted_there(dataset: Dataset, tmp_path: Path) -> None:
    class Elsewhere(GroundTruthModel):
        def predict(self, record: dict[str, Any]) -> LazyDict:
            far = torch.zeros((1, 1), dtype=torch.int32, device="meta"), []
            travels = LazyValue(lambda: pytest.fail("head outputs were brought to the CPU"))
            return LazyDict(panoptic_seg=far, head_outputs=travels, sem_seg=super().predict(record)["sem_seg"])

    evaluator = SemanticEvaluator(GroundTruth(dataset, "one"), tmp_path)
    evaluator.reset()
    for record in dataset.records:
        evaluator.process([{"image_id": record["image_id"]}], Elsewhere(dataset)([record]))
    results = evaluator.evaluate()
    assert results is not None
    assert results["sem_seg"]["mIoU"] == pytest.approx(100)


def test_the_exports_score_the_same_under_pycocotools(dataset: Dataset, toy_folder: Path, tmp_path: Path) -> None:
    results = evaluate(dataset, tmp_path, shift_px=2)
    assert 5 < results["segm"]["AP"] < 95
    for ground_truth in (toy_folder / "instances.json", tmp_path / "instances_gt.json"):
        for task in ("bbox", "segm"):
            with contextlib.redirect_stdout(io.StringIO()):
                gt = COCO(str(ground_truth))
                evaluation = COCOeval(gt, gt.loadRes(str(tmp_path / "coco_instances_results.json")), task)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            for index, name in ((0, "AP"), (1, "AP50"), (2, "AP75")):
                assert results[task][name] == 100 * evaluation.stats[index], (task, name)


def test_the_exports_score_the_same_under_panopticapi(dataset: Dataset, toy_folder: Path, tmp_path: Path) -> None:
    evaluation = pytest.importorskip("panopticapi.evaluation", reason="panopticapi-lite is not installed")
    results = evaluate(dataset, tmp_path, shift_px=2)
    ground_truth = json.loads((toy_folder / "panoptic.json").read_text())
    prediction = json.loads((tmp_path / "panoptic.json").read_text())
    predicted_annotations = {a["image_id"]: a for a in prediction["annotations"]}
    categories = {c["id"]: c for c in ground_truth["categories"]}
    pairs = [(a, predicted_annotations[a["image_id"]]) for a in ground_truth["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()):
        stat = evaluation.pq_compute_single_core(
            0, pairs, str(toy_folder / "panoptic"), str(tmp_path / "panoptic"), categories
        )
    for suffix, isthing in (("", None), ("_th", True), ("_st", False)):
        expected, per_class = stat.pq_average(categories, isthing=isthing)
        for name in ("PQ", "SQ", "RQ"):
            assert results["panoptic_seg"][f"{name}{suffix}"] == 100 * expected[name.lower()]
            assert {k: 100 * v[name.lower()] for k, v in per_class.items()}.items() <= {
                int(k): v[name] or 0.0 for k, v in results["panoptic_seg"]["per_class"].items()
            }.items()


def test_evaluation_of_files_and_in_training_score_the_same(dataset: Dataset, toy_folder: Path, tmp_path: Path) -> None:
    results = evaluate(dataset, tmp_path, shift_px=2, opts=["TEST.BOUNDARY", "True"])
    panoptic = score_panoptic(toy_folder / "panoptic.json", tmp_path / "panoptic.json", boundary=True)
    assert panoptic.metric.compute(panoptic.image_order) == results["panoptic_seg"]
    assert results["panoptic_seg"]["BoundaryPQ"] < results["panoptic_seg"]["PQ"]
    results_path = tmp_path / "coco_instances_results.json"
    instances = score_instances(toy_folder / "instances.json", results_path, iou_types=("bbox", "segm", "boundary"))
    assert instances.compute() == {task: results[task] for task in ("bbox", "segm", "boundary")}
    assert results["sem_seg"]["mBoundaryIoU"] < results["sem_seg"]["mIoU"]


def test_an_evaluation_writes_its_counts(dataset: Dataset, tmp_path: Path) -> None:
    results = evaluate(dataset, tmp_path, shift_px=2, opts=["TEST.BOUNDARY", "True"])
    paths = counts_file.find_in_folder(tmp_path)
    assert [path.name for path in paths.values()] == [f"{kind}_counts.npz" for kind in paths]
    counts = {kind: counts_file.load(path) for kind, path in paths.items()}
    assert {*counts} == {"panoptic", "instances", "semantic"}
    panoptic, instances, semantic = (counts[kind].metric for kind in ("panoptic", "instances", "semantic"))
    assert isinstance(panoptic, PanopticQuality)
    assert panoptic.compute(counts["panoptic"].image_order) == results["panoptic_seg"]
    assert instances.compute() == {kind: results[kind] for kind in ("bbox", "segm", "boundary")}
    assert isinstance(semantic, SemanticIoU)
    assert semantic.compute() == results["sem_seg"]
    assert {*semantic.images.ids()} == {record["image_id"] for record in dataset.records}
    compared = compare_semantic_iou(semantic, semantic, samples=5)
    assert compared["mIoU"]["A"] == results["sem_seg"]["mIoU"]
    analysis = json.loads((tmp_path / "panoptic_analysis.json").read_text())
    assert analysis["error_budget"]["PQ"] == results["panoptic_seg"]["PQ"] == analysis["intervals"]["PQ"]["value"]
    assert analysis["error_budget"]["error_types"]["mask_quality"]["cost"] > 1  # every mask is moved by two pixels


def test_without_export_nothing_is_written(dataset: Dataset, tmp_path: Path) -> None:
    expected = evaluate(dataset, tmp_path / "with", shift_px=2)
    assert evaluate(dataset, tmp_path / "without", shift_px=2, opts=["TEST.EXPORT", "False"]) == expected
    assert list((tmp_path / "without").iterdir()) == []


def test_a_model_is_evaluated_by_its_outputs(dataset: Dataset, tmp_path: Path) -> None:
    assert set(evaluate(dataset, tmp_path, outputs=("instances",))) == {"bbox", "segm"}
    assert not (tmp_path / "panoptic.json").exists()
    assert set(evaluate(dataset, tmp_path / "b", outputs=("sem_seg",))) == {"sem_seg"}


def test_things_alone_have_no_metric_of_stuff_and_no_semantic_iou(toy_folder: Path, tmp_path: Path) -> None:
    """They are one semantic class, which every prediction has right."""
    cells = load_coco_instances("cells", toy_folder / "instances.json", toy_folder / "images")
    cells = replace(cells, metrics=("panoptic_quality", "semantic_iou"))
    results = evaluate(cells, tmp_path)
    assert results["panoptic_seg"]["PQ"] == 100
    assert results["panoptic_seg"]["PQ_st"] is results["sem_seg"]["mIoU"] is None
    notes = add_notes(results, cells.categories)["notes"]
    assert "panoptic_seg PQ_st is undefined: the dataset has no classes of stuff" in notes
    assert "sem_seg mIoU is undefined: there is only the class 'things', which every prediction has right" in notes
    assert select_numbers({**results, "notes": notes})["panoptic_seg"]["PQ"] == 100


def test_empty_predictions_score_0_and_are_exported(dataset: Dataset, tmp_path: Path) -> None:
    class Blind(GroundTruthModel):
        def predict(self, record: dict[str, Any]) -> dict[str, Any]:
            empty = super().predict(record)
            ids, _ = empty["panoptic_seg"]
            return {"instances": empty["instances"][:0], "panoptic_seg": (torch.zeros_like(ids), [])}

    inputs = [[{"image_id": r["image_id"]}] for r in dataset.records]
    results = inference_on_dataset(
        Blind(dataset), inputs, build_evaluators(load_config(opts=PANOPTIC_RCNN), dataset, tmp_path)
    )
    assert results["panoptic_seg"]["PQ"] == 0
    assert results["segm"]["AP"] == results["bbox"]["AP"] == 0
    assert json.loads((tmp_path / "coco_instances_results.json").read_text()) == []
    assert len(list((tmp_path / "panoptic").glob("*.png"))) == 12


def test_segments_without_a_pixel_are_left_out(dataset: Dataset) -> None:
    info = [{"id": 1, "isthing": True, "category_id": 0}, {"id": 2, "isthing": False, "category_id": 1}]
    output = {"panoptic_seg": (torch.ones(2, 2, dtype=torch.int32), info)}
    assert [s.segment_id for s in get_panoptic_prediction(output, dataset.categories).segments] == [1]
    with pytest.raises(ValueError, match="segments_info"):
        get_panoptic_prediction({"panoptic_seg": (torch.ones(2, 2), None)}, dataset.categories)


def test_an_unknown_metric_is_rejected(dataset: Dataset, tmp_path: Path) -> None:
    other = Dataset("toy", dataset.categories, ("beauty",), dataset.records)
    with pytest.raises(ConfigError, match=f"unknown metric 'beauty'; known: .*{next(iter(EVALUATORS))}"):
        build_evaluators(load_config(opts=PANOPTIC_RCNN), other, tmp_path)


def test_cityscapes_and_its_string_ids(tmp_path: Path) -> None:
    write_instance_ids(tmp_path)
    cityscapes_names.register(tmp_path)
    dataset = load_dataset("segkit_cityscapes_fine_panoptic_train")
    results = evaluate(dataset, tmp_path / "out")
    assert results["panoptic_seg"]["PQ"] == results["segm"]["AP"] == results["sem_seg"]["mIoU"] == 100
    exported = coco.read_panoptic(tmp_path / "out/panoptic.json")
    assert [r.image_id for r in exported.records] == ["aachen_000000_000019", "aachen_000001_000019"]
    assert exported.records[0].file_name == "aachen/aachen_000000_000019_leftImg8bit.png"


def test_images_that_were_not_evaluated_are_reported(dataset: Dataset, tmp_path: Path, caplog: Any) -> None:
    inputs = [[{"image_id": r["image_id"]}] for r in dataset.records[:6]]
    evaluators = build_evaluators(load_config(opts=PANOPTIC_RCNN), dataset, tmp_path)
    inference_on_dataset(GroundTruthModel(dataset), inputs, evaluators)
    assert "PanopticEvaluator: only 6 of the 12 images of toy were evaluated" in caplog.text
