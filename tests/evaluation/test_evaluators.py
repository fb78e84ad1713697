"""The evaluators and what they export, with a model that says what we want; the reference packages as judges."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.evaluation import inference_on_dataset
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segkit.config import load_config
from segkit.data.catalog import load_dataset
from segkit.data.dataset import Dataset
from segkit.data.datasets import cityscapes as cityscapes_names
from segkit.data.ground_truth import GroundTruth, read_segmentation
from segkit.evaluation import EVALUATORS, build_evaluators
from segkit.evaluation.predictions import get_instance_masks, get_panoptic_prediction
from segkit.evaluation.semantic import SemanticEvaluator
from segkit.formats import coco, head_outputs
from segkit.metrics import PanopticQuality
from segkit.modeling.lazy_dict import LazyDict, LazyValue
from segkit.scoring import counts_file
from segkit.scoring.instances import score_instances
from segkit.scoring.panoptic import score_panoptic
from segkit.structures import NO_THING, HeadOutputs, SemanticScores
from segkit.utils.errors import ConfigError
from tests.data.test_mapper import cityscapes_tree
from tests.helpers.coco_datasets import load_coco_panoptic

PANOPTIC_RCNN = ["MODEL.META_ARCHITECTURE", "PanopticRCNN"]


class Parrot(torch.nn.Module):
    """Says the truth, shifted to the right by `shift_px`, in Detectron2's output format."""

    def __init__(self, dataset: Dataset, shift_px: int = 0, outputs: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.dataset, self.shift_px, self.outputs = dataset, shift_px, outputs
        self.records = {r["image_id"]: r for r in dataset.records}

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self.answer(self.records[x["image_id"]]) for x in inputs]

    def answer(self, record: dict[str, Any]) -> dict[str, Any]:
        categories = self.dataset.categories
        ground_truth = read_segmentation(record, categories)
        ids = np.roll(ground_truth.segment_ids, self.shift_px, axis=1)
        numbers = {s.segment_id: i for i, s in enumerate(ground_truth.segments, 1)}
        segment_ids = np.vectorize(lambda i: numbers.get(i, 0))(ids).astype(np.int32)
        info, sem_seg = [], torch.zeros(len(categories.stuff) + 1, *ids.shape)
        for segment in ground_truth.segments:
            number = numbers[segment.segment_id]
            if segment.isthing:
                contiguous = categories.thing_contiguous_ids[segment.category_id]
                info.append({"id": number, "isthing": True, "category_id": contiguous, "score": 0.9})
            else:
                contiguous = categories.stuff_contiguous_ids[segment.category_id]
                info.append({"id": number, "isthing": False, "category_id": contiguous})
                sem_seg[contiguous][torch.from_numpy(ids == segment.segment_id)] = 5.0
        things = [s for s in ground_truth.segments if s.isthing and not s.iscrowd]
        instances = Instances(ids.shape)
        masks = np.array([ids == s.segment_id for s in things]).reshape(-1, *ids.shape)
        instances.pred_masks = torch.from_numpy(masks)
        boxes = [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] for ys, xs in (np.nonzero(m) for m in masks)]
        instances.pred_boxes = Boxes(torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32))
        instances.scores = torch.linspace(0.9, 0.6, len(things))
        instances.pred_classes = torch.tensor([categories.thing_contiguous_ids[s.category_id] for s in things]).long()
        found = {"panoptic_seg": (torch.from_numpy(segment_ids), info), "instances": instances, "sem_seg": sem_seg}
        return {key: value for key, value in found.items() if not self.outputs or key in self.outputs}


@pytest.fixture
def dataset(toy_folder: Path) -> Dataset:
    return load_coco_panoptic("toy", toy_folder / "panoptic.json", toy_folder / "panoptic")


def judge(
    dataset: Dataset,
    output: Path,
    shift_px: int = 0,
    outputs: tuple[str, ...] = (),
    opts: Sequence[str] = (),
    parrot: type[Parrot] = Parrot,
) -> dict[str, Any]:
    inputs = [[{k: r[k] for k in ("image_id", "file_name", "height", "width")}] for r in dataset.records]
    evaluators = build_evaluators(load_config(opts=[*PANOPTIC_RCNN, *opts]), dataset, output)
    results: dict[str, Any] = inference_on_dataset(parrot(dataset, shift_px, outputs), inputs, evaluators)
    return results


def test_the_truth_scores_100(dataset: Dataset, tmp_path: Path) -> None:
    results = judge(dataset, tmp_path)
    assert set(results) == {"panoptic_seg", "bbox", "segm", "sem_seg"}
    for task, name in (("panoptic_seg", "PQ"), ("bbox", "AP"), ("segm", "AP"), ("sem_seg", "mIoU")):
        assert results[task][name] == pytest.approx(100), task


class Lazily(Parrot):
    """Says the same as PanopticRCNN does: crops and head outputs; what is costly to make must not be asked for."""

    def answer(self, record: dict[str, Any]) -> LazyDict:
        said = super().answer(record)
        masks = get_instance_masks(said, (record["height"], record["width"]))
        assert masks is not None
        stuff_ids = said["sem_seg"].argmax(dim=0).numpy()
        count = len(said["sem_seg"])
        semantic = SemanticScores(stuff_ids, np.arange(count), np.full(count, NO_THING))
        return LazyDict(
            panoptic_seg=said["panoptic_seg"],
            instance_masks=LazyValue(lambda: masks),
            head_outputs=LazyValue(lambda: HeadOutputs(masks, semantic)),
            instances=LazyValue(lambda: pytest.fail("full-size masks were made")),
            sem_seg=LazyValue(lambda: pytest.fail("full-size logits were made")),
        )


def test_nothing_of_full_size_is_made_and_the_numbers_are_the_same(dataset: Dataset, tmp_path: Path) -> None:
    opts = ["TEST.BOUNDARY", "True", "TEST.SAVE_HEADS", "True", "TEST.KEEP_LOGITS", "0"]
    lazily = judge(dataset, tmp_path / "a", shift_px=2, opts=opts, parrot=Lazily)
    assert lazily == judge(dataset, tmp_path / "b", shift_px=2, opts=opts[:2])
    names = ("panoptic.json", "coco_instances_results.json")
    a, b = ([(tmp_path / folder / name).read_bytes() for name in names] for folder in ("a", "b"))
    assert a == b
    assert len(head_outputs.load(tmp_path / "a" / "head_outputs")) == len(dataset.records)


def test_on_an_accelerator_the_logits_are_counted_there(dataset: Dataset, tmp_path: Path) -> None:
    class Elsewhere(Parrot):
        def answer(self, record: dict[str, Any]) -> LazyDict:
            far = torch.zeros((1, 1), dtype=torch.int32, device="meta"), []
            travels = LazyValue(lambda: pytest.fail("head outputs were brought to the CPU"))
            return LazyDict(panoptic_seg=far, head_outputs=travels, sem_seg=super().answer(record)["sem_seg"])

    evaluator = SemanticEvaluator(GroundTruth(dataset, "one"), tmp_path)
    evaluator.reset()
    for record in dataset.records:
        evaluator.process([{"image_id": record["image_id"]}], Elsewhere(dataset)([record]))
    results = evaluator.evaluate()
    assert results is not None
    assert results["sem_seg"]["mIoU"] == pytest.approx(100)


def test_the_exports_score_the_same_under_pycocotools(dataset: Dataset, toy_folder: Path, tmp_path: Path) -> None:
    results = judge(dataset, tmp_path, shift_px=2)
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
    results = judge(dataset, tmp_path, shift_px=2)
    ground_truth = json.loads((toy_folder / "panoptic.json").read_text())
    prediction = json.loads((tmp_path / "panoptic.json").read_text())
    found = {a["image_id"]: a for a in prediction["annotations"]}
    categories = {c["id"]: c for c in ground_truth["categories"]}
    pairs = [(a, found[a["image_id"]]) for a in ground_truth["annotations"]]
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


def test_files_and_training_give_the_same_numbers(dataset: Dataset, toy_folder: Path, tmp_path: Path) -> None:
    results = judge(dataset, tmp_path, shift_px=2, opts=["TEST.BOUNDARY", "True"])
    panoptic = score_panoptic(toy_folder / "panoptic.json", tmp_path / "panoptic.json", boundary=True)
    assert panoptic.metric.compute(panoptic.image_order) == results["panoptic_seg"]
    assert results["panoptic_seg"]["BoundaryPQ"] < results["panoptic_seg"]["PQ"]
    found = tmp_path / "coco_instances_results.json"
    instances = score_instances(toy_folder / "instances.json", found, iou_types=("bbox", "segm", "boundary"))
    assert instances.compute() == {task: results[task] for task in ("bbox", "segm", "boundary")}
    assert results["sem_seg"]["mBoundaryIoU"] < results["sem_seg"]["mIoU"]


def test_an_evaluation_leaves_its_counts_and_why(dataset: Dataset, tmp_path: Path) -> None:
    results = judge(dataset, tmp_path, shift_px=2)
    counts = counts_file.load(tmp_path / "panoptic_counts.npz")
    assert isinstance(counts.metric, PanopticQuality)
    assert counts.metric.compute(counts.image_order) == results["panoptic_seg"]
    analysis = json.loads((tmp_path / "panoptic_analysis.json").read_text())
    assert analysis["error_budget"]["PQ"] == results["panoptic_seg"]["PQ"] == analysis["intervals"]["PQ"]["value"]
    assert analysis["error_budget"]["error_types"]["mask_quality"]["cost"] > 1  # every mask is moved by two pixels


def test_without_export_nothing_is_written(dataset: Dataset, tmp_path: Path) -> None:
    expected = judge(dataset, tmp_path / "with", shift_px=2)
    assert judge(dataset, tmp_path / "without", shift_px=2, opts=["TEST.EXPORT", "False"]) == expected
    assert list((tmp_path / "without").iterdir()) == []


def test_a_model_is_judged_by_what_it_gives(dataset: Dataset, tmp_path: Path) -> None:
    assert set(judge(dataset, tmp_path, outputs=("instances",))) == {"bbox", "segm"}
    assert not (tmp_path / "panoptic.json").exists()
    assert set(judge(dataset, tmp_path / "b", outputs=("sem_seg",))) == {"sem_seg"}


def test_nothing_found_scores_0_and_is_exported(dataset: Dataset, tmp_path: Path) -> None:
    class Blind(Parrot):
        def answer(self, record: dict[str, Any]) -> dict[str, Any]:
            empty = super().answer(record)
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


def test_an_unknown_metric_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    strange = Dataset("toy", dataset.categories, ("beauty",), dataset.records)
    with pytest.raises(ConfigError, match=f"unknown metric 'beauty'; known: .*{next(iter(EVALUATORS))}"):
        build_evaluators(load_config(opts=PANOPTIC_RCNN), strange, tmp_path)


def test_cityscapes_and_its_string_ids(tmp_path: Path) -> None:
    cityscapes_tree(tmp_path)
    cityscapes_names.register(tmp_path)
    found = load_dataset("segkit_cityscapes_fine_panoptic_train")
    results = judge(found, tmp_path / "out")
    assert results["panoptic_seg"]["PQ"] == results["segm"]["AP"] == results["sem_seg"]["mIoU"] == 100
    exported = coco.read_panoptic(tmp_path / "out/panoptic.json")
    assert [r.image_id for r in exported.records] == ["aachen_000000_000019", "aachen_000001_000019"]
    assert exported.records[0].file_name == "aachen/aachen_000000_000019_leftImg8bit.png"


def test_images_that_were_not_evaluated_are_told(dataset: Dataset, tmp_path: Path, caplog: Any) -> None:
    inputs = [[{"image_id": r["image_id"]}] for r in dataset.records[:6]]
    evaluators = build_evaluators(load_config(opts=PANOPTIC_RCNN), dataset, tmp_path)
    inference_on_dataset(Parrot(dataset), inputs, evaluators)
    assert "PanopticEvaluator: only 6 of the 12 images of toy were evaluated" in caplog.text
