"""All metrics computed from counts, as one JSON-compatible dict."""

import json

import numpy as np
import pytest

from segkit.metrics import AveragePrecision, CityscapesAP, PanopticQuality, SemanticIoU
from segkit.scoring.counts_file import SavedCounts
from segkit.scoring.results import analyse, build_results, replace_nonfinite, save_results
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.process_pool import Shard

CATEGORIES = CategorySet([Category(26, "car", True, (0, 0, 0)), Category(23, "sky", False, (0, 0, 1))])
IDS = np.array([[1, 1, 2, 2], [1, 1, 2, 2]], dtype=np.int32)


def panoptic(areas="recount", declared=4, images=(3, "b")):
    """A perfect prediction of a car and the sky, 4 pixels each."""
    metric = PanopticQuality(CATEGORIES, areas=areas)
    for image_id in images:
        sides = [
            PanopticSegmentation(IDS, (Segment(1, 26, True, area), Segment(2, 23, False, 4))) for area in (declared, 4)
        ]
        metric.update(image_id, *sides)
    return metric


def results(kind, metric, order=None, **options):
    return build_results(SavedCounts(kind, metric, order, Shard()), **options)


def test_tasks_have_detectron2s_names():
    assert [*results("panoptic", panoptic())] == ["panoptic_seg", "analysis", "notes"]
    assert [*results("instances", AveragePrecision(CATEGORIES, ["bbox", "segm"]))] == ["bbox", "segm", "notes"]
    assert [*results("semantic", SemanticIoU(["sky"]))] == ["sem_seg", "notes"]
    assert [*results("cityscapes", CityscapesAP(CATEGORIES))] == ["cityscapes_segm", "notes"]


def test_results_equal_those_of_the_metric():
    metric = panoptic()
    built = results("panoptic", metric, ("b", 3))
    assert built["panoptic_seg"] == metric.compute(("b", 3))
    assert built["analysis"] == analyse(metric, ("b", 3))
    assert [entry["image_id"] for entry in built["analysis"]["per_image"]] == ["b", 3]
    assert built["analysis"]["worst_images"] == []
    assert built["analysis"]["intervals"]["PQ"] == {"value": 100, "low": None, "high": None}  # few segments


def test_the_requested_number_of_worst_images_is_listed():
    metric = PanopticQuality(CATEGORIES)
    empty = PanopticSegmentation(np.zeros((2, 4), np.int32), ())
    for image_id in range(4):
        metric.update(image_id, PanopticSegmentation(IDS, (Segment(1, 26, True, 4), Segment(2, 23, False, 4))), empty)
    assert len(results("panoptic", metric, worst=3)["analysis"]["worst_images"]) == 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("images", [(1,), (1, 2, 3)])
def test_an_infinite_iou_of_trusted_areas_is_none(images):
    """A declared area of 0: the union is 4 + 0 - 4 = 0. No warning is raised, and the result has the reason."""
    built = results("panoptic", panoptic("trust", 0, images))
    assert built["panoptic_seg"]["PQ"] is None
    assert built["panoptic_seg"]["RQ"] == 100
    assert built["panoptic_seg"]["other_mode"]["PQ"] == 100
    contradiction = "panoptic_seg PQ, panoptic_seg PQ_th are undefined: declared areas that contradict their maps"
    assert built["notes"][0].startswith(contradiction)
    json.dumps(built, allow_nan=False)


@pytest.mark.parametrize(
    "metric",
    [PanopticQuality(CATEGORIES), AveragePrecision(CATEGORIES), SemanticIoU(["sky"]), CityscapesAP(CATEGORIES)],
)
def test_without_images_all_metrics_are_none(metric):
    kinds = {PanopticQuality: "panoptic", AveragePrecision: "instances", SemanticIoU: "semantic"}
    built = results(kinds.get(type(metric), "cityscapes"), metric)
    built.pop("analysis", None)
    assert len(built.pop("notes")) == 1
    for numbers in built.values():
        assert {value for value in numbers.values() if not isinstance(value, dict)} == {None}


def test_finite_replaces_only_infinities():
    content = {"a": [1, float("inf"), "x", None, True, {"b": float("nan"), "c": -0.5}], 3: float("-inf")}
    assert replace_nonfinite(content) == {"a": [1, None, "x", None, True, {"b": None, "c": -0.5}], 3: None}


def test_results_are_written_completely_or_not_at_all(tmp_path):
    save_results(tmp_path / "deep/metrics.json", {"bbox": {"AP": 0.1 + 0.2}})
    assert json.loads((tmp_path / "deep/metrics.json").read_text()) == {"bbox": {"AP": 0.1 + 0.2}}
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"metrics\.json: cannot be written"):
        save_results(tmp_path / "file/metrics.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "file"]
