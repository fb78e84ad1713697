"""Cityscapes' instance AP under Detectron2's loop; its export scores the same by files and by cityscapesscripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.evaluation import inference_on_dataset
from PIL import Image

from segkit.config import load_config
from segkit.data.catalog import load_dataset
from segkit.data.dataset import Dataset
from segkit.data.datasets import cityscapes as cityscapes_names
from segkit.evaluation import build_evaluators
from segkit.scoring.cityscapes_instances import score_cityscapes_instances
from segkit.structures import InstanceMasks
from segkit.utils.errors import ConfigError
from tests.helpers.cityscapes_reference import reference, write_ground_truth
from tests.helpers.ground_truth_model import GroundTruthModel, evaluate

IMAGES = ("aachen_000000_000019", "aachen_000001_000019")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two images of 20 x 40 pixels: one has cars of 150 and 100 pixels, a group and a bus, the other only road."""
    ids = np.full((20, 40), 7)
    ids[:10, :15], ids[:10, 25:35], ids[15:, :15], ids[12:, 20:] = 26000, 26001, 26, 28000
    for image_id, values in zip(IMAGES, (ids, np.full((20, 40), 7)), strict=True):
        image = tmp_path / f"cityscapes/leftImg8bit/val/aachen/{image_id}_leftImg8bit.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(image)
        write_ground_truth(tmp_path / "cityscapes/gtFine/val", image_id, values)
    cityscapes_names.register(tmp_path)
    return load_dataset("segkit_cityscapes_fine_instance_seg_val")


def test_the_ground_truth_scores_100(dataset: Dataset, tmp_path: Path) -> None:
    results = evaluate(dataset, tmp_path / "out")
    assert set(results) == {"bbox", "segm", "cityscapes_segm"}
    metrics = {name: value for name, value in results["cityscapes_segm"].items() if value is not None}
    assert metrics == dict.fromkeys(["AP", "AP50", "AP-car", "AP-bus", "AP50-car", "AP50-bus"], 100)


def test_the_export_scores_the_same(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shifted by 3 pixels; the car of 15 pixels' width keeps an IoU of 12/18, that of 10 pixels 7/13, the bus 17/23.

    One car is found at 0.5 to 0.65, the other at 0.5 only: AP50 of cars is 100, AP is not.
    """
    metrics = evaluate(dataset, tmp_path / "out", shift_px=3)["cityscapes_segm"]
    assert metrics["AP50"] == 100
    assert 0 < metrics["AP"] < 50
    export = tmp_path / "out/cityscapes_instances"
    assert sorted(path.name for path in export.glob("*.txt")) == [f"{image_id}_pred.txt" for image_id in IMAGES]
    ground_truth = tmp_path / "cityscapes/gtFine/val"
    assert score_cityscapes_instances(ground_truth, export).compute() == metrics
    assert reference(monkeypatch, sorted(ground_truth.rglob("*.png")), export, tmp_path) == metrics


def test_crops_are_taken_where_the_model_gives_them(dataset: Dataset, tmp_path: Path) -> None:
    class Cropping(GroundTruthModel):
        def predict(self, record: dict[str, Any]) -> dict[str, Any]:
            output = super().predict(record)
            instances = output["instances"]
            columns = [instances.pred_boxes.tensor, instances.scores, instances.pred_classes]
            masks = instances.pred_masks.numpy()
            output["instance_masks"] = InstanceMasks.from_full(masks, *(column.numpy() for column in columns))
            instances.remove("pred_masks")
            return output

    inputs = [[{"image_id": r["image_id"]}] for r in dataset.records]
    evaluators = build_evaluators(load_config(), dataset, tmp_path / "out")
    results = inference_on_dataset(Cropping(dataset, shift_px=3), inputs, evaluators)
    assert results["cityscapes_segm"] == evaluate(dataset, tmp_path / "full", shift_px=3)["cityscapes_segm"]


def test_boxes_without_masks_are_not_evaluated(dataset: Dataset, tmp_path: Path) -> None:
    class Boxing(GroundTruthModel):
        def predict(self, record: dict[str, Any]) -> dict[str, Any]:
            output = super().predict(record)
            output["instances"].remove("pred_masks")
            return {"instances": output["instances"]}

    inputs = [[{"image_id": r["image_id"]}] for r in dataset.records]
    evaluators = build_evaluators(load_config(), dataset, tmp_path / "out")
    assert set(inference_on_dataset(Boxing(dataset), inputs, evaluators)) == {"bbox"}


def test_a_model_without_detections_scores_0_and_exports_empty_files(dataset: Dataset, tmp_path: Path) -> None:
    class Blind(GroundTruthModel):
        def predict(self, record: dict[str, Any]) -> dict[str, Any]:
            return {"instances": super().predict(record)["instances"][:0]}

    inputs = [[{"image_id": r["image_id"]}] for r in dataset.records]
    evaluators = build_evaluators(load_config(), dataset, tmp_path / "out")
    results = inference_on_dataset(Blind(dataset), inputs, evaluators)
    assert results["cityscapes_segm"]["AP"] == 0
    assert [path.read_text() for path in (tmp_path / "out/cityscapes_instances").iterdir()] == ["", ""]


def test_datasets_of_other_files_are_rejected(dataset: Dataset, tmp_path: Path) -> None:
    other_key = dataset.records[0]["reader"]._replace(format_name="voc")
    for records in (
        [{key: value for key, value in record.items() if key != "reader"} for record in dataset.records],
        [dataset.records[0], *({**record, "reader": other_key} for record in dataset.records[1:])],
    ):
        other = Dataset("mine", dataset.categories, ("cityscapes_ap",), records)
        with pytest.raises(ConfigError, match=r"mine has no .*instanceIds.png, which the metric cityscapes_ap needs"):
            build_evaluators(load_config(), other, tmp_path)
