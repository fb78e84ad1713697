"""Dice over volumes and their export: two tiny volumes in NIfTI, and a model with given outputs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.evaluation import inference_on_dataset

from segkit.config import load_config
from segkit.data.dataset import Dataset
from segkit.data.ground_truth import GroundTruth
from segkit.data.loaders.readers import load_reader_dataset
from segkit.evaluation import build_evaluators
from segkit.evaluation.base import EvaluatorOptions
from segkit.evaluation.volumes import VolumeEvaluator
from segkit.metrics import VolumeNSD
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.ground_truth_model import PANOPTIC_RCNN, GroundTruthModel

nib = pytest.importorskip("nibabel")

LABELS = {0: "background", 1: "anterior", 300: "posterior"}
AFFINE = np.diag([-1.0, 2.0, 3.0, 1.0])  # x is stored from right to left
# (X, Y, Z) as stored: a has nothing in its first and last axial slice, b anterior voxels in every slice.
GROUND_TRUTH = {"a": np.zeros((2, 3, 4), np.uint16), "b": np.zeros((3, 2, 2), np.uint16)}
GROUND_TRUTH["a"][:, :2, 1:3] = 1
GROUND_TRUTH["a"][1, 2, 1] = 300
GROUND_TRUTH["b"][0, 0, :] = 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "task"
    for name, label in GROUND_TRUTH.items():
        for kind, voxels in (
            ("imagesTr", np.arange(label.size, dtype=np.int16).reshape(label.shape)),
            ("labelsTr", label),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, AFFINE), folder / kind / f"{name}.nii.gz")
    return folder


def load_volumes(root: Path, **options: Any) -> Dataset:
    labels = {str(label): name for label, name in LABELS.items()}
    return load_reader_dataset("volumes", "decathlon", {"root": str(root), "labels": labels, **options})


def extract_slices(volume: np.ndarray, axis: int = 2) -> np.ndarray:
    """(slices, H, W) of a volume as stored: x is flipped to run to the right, then turned to be seen from above."""
    return np.rot90(np.moveaxis(volume[::-1], axis, 0), axes=(1, 2))


def build_evaluator(dataset: Dataset, folder: Path, **options: Any) -> VolumeEvaluator:
    volume_evaluator = VolumeEvaluator(
        GroundTruth(dataset, dataset.default_thing_channels), folder, EvaluatorOptions(**options)
    )
    volume_evaluator.reset()
    return volume_evaluator


def process_volume(
    volume_evaluator: VolumeEvaluator, output: dict[str, np.ndarray], image_ids: list[str] | None = None, axis: int = 2
) -> None:
    """Process images (all by default): each gets its slice of a volume of category ids."""
    channels = [*LABELS]
    for image_id in volume_evaluator.ground_truth.records if image_ids is None else image_ids:
        name, index = image_id.rsplit("_", 1)
        labels = extract_slices(output[name], axis)[int(index)]
        logits = np.stack([labels == channel for channel in channels]).astype(np.float32)
        volume_evaluator.process([{"image_id": image_id}], [{"sem_seg": torch.from_numpy(logits)}])


def written(folder: Path, name: str) -> np.ndarray:
    return np.asarray(nib.load(folder / "volumes" / f"{name}.nii.gz").dataobj)


def in_processes(evaluators: list[VolumeEvaluator], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any] | None:
    """The result of `evaluate` on the main process, with the shards of all processes."""
    shards = [(False, single._processed, single.shard()) for single in evaluators]
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda own_shard: shards)
    return evaluators[0].evaluate()


def draw_mistakes() -> dict[str, np.ndarray]:
    """a: posterior is predicted as anterior. b: a voxel of anterior is missed."""
    output = {name: label.copy() for name, label in GROUND_TRUTH.items()}
    output["a"][output["a"] == 300] = 1
    output["b"][0, 0, 1] = 0
    return output


# a: anterior: 8 right, 8 true, 9 predicted: 16 / 17. posterior: 1 true, 0 predicted: 0.
# b: anterior: 1 right, 2 true, 1 predicted: 2 / 3. posterior: in neither.
MISTAKEN = {"a": {"anterior": 1600 / 17, "posterior": 0.0}, "b": {"anterior": 200 / 3, "posterior": None}}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_ground_truth_scores_100_and_is_exported_unchanged(root: Path, tmp_path: Path, axis: int) -> None:
    volume_evaluator = build_evaluator(load_volumes(root, axis=axis), tmp_path / "out")
    process_volume(volume_evaluator, GROUND_TRUTH, axis=axis)
    results = volume_evaluator.evaluate()
    assert results is not None
    assert [results["volumes"][key] for key in ("mDice", "Dice-anterior", "Dice-posterior")] == [100, 100, 100]
    for name, label in GROUND_TRUTH.items():
        np.testing.assert_array_equal(written(tmp_path / "out", name), label)
        image = nib.load(root / "imagesTr" / f"{name}.nii.gz")
        np.testing.assert_array_equal(nib.load(tmp_path / "out/volumes" / f"{name}.nii.gz").affine, image.affine)


def test_drawn_mistakes_score_as_computed_by_hand(root: Path, tmp_path: Path) -> None:
    volume_evaluator = build_evaluator(load_volumes(root), tmp_path)
    process_volume(volume_evaluator, draw_mistakes())
    results = volume_evaluator.evaluate()
    assert results is not None
    assert set(results) == {"volumes"}
    assert set(results["volumes"]) == {"mDice", "Dice-anterior", "Dice-posterior", "per_class"}
    anterior = (1600 / 17 + 200 / 3) / 2
    assert results["volumes"]["Dice-anterior"] == pytest.approx(anterior, abs=1e-12)
    assert results["volumes"]["Dice-posterior"] == 0
    assert results["volumes"]["mDice"] == pytest.approx(anterior / 2, abs=1e-12)
    assert results["volumes"]["per_class"]["anterior"]["lowest_volume"] == "b"
    assert json.loads((tmp_path / "volume_dice.json").read_text()) == MISTAKEN
    for name, label in draw_mistakes().items():
        np.testing.assert_array_equal(written(tmp_path, name), label)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_nsd_is_that_of_the_volumes_along_every_axis(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axis: int, processes: int
) -> None:
    pytest.importorskip("scipy.ndimage")
    dataset = load_volumes(root.rename(root.with_name("Task04_Hippocampus")), axis=axis)  # 1 mm
    evaluators = [build_evaluator(dataset, tmp_path / "out") for _ in range(processes)]
    ids = [record["image_id"] for record in dataset.records]
    for number, single in enumerate(evaluators):
        process_volume(single, draw_mistakes(), ids[number::processes], axis=axis)
    results = in_processes(evaluators, monkeypatch)
    expected = VolumeNSD([*LABELS.values()], 1)
    for name, labels in draw_mistakes().items():
        rows = [np.searchsorted([*LABELS], volume) for volume in (GROUND_TRUTH[name], labels)]
        expected.update(name, *rows, (1.0, 2.0, 3.0))
    assert results is not None
    for key, value in expected.compute().items():
        if key != "per_class":
            assert results["volumes"][key] == pytest.approx(value, rel=1e-12)
    assert 0 < results["volumes"]["NSD-anterior"] < 100
    # a: posterior is in the ground truth alone. b: in neither.
    nsd = json.loads((tmp_path / "out/volume_nsd.json").read_text())
    assert (nsd["a"]["posterior"], nsd["b"]["posterior"]) == (0, None)


def test_a_volume_that_lacks_slices_has_no_nsd(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("scipy.ndimage")
    volume_evaluator = build_evaluator(load_volumes(root, tolerance_mm=2), tmp_path, export=False)
    process_volume(volume_evaluator, GROUND_TRUTH, ["b_000", "b_001", "a_001"])
    with caplog.at_level(logging.WARNING):
        results = volume_evaluator.evaluate()
    assert "1 volumes lack slices and have no NSD: 'a'" in caplog.text
    assert results is not None
    assert (results["volumes"]["mNSD"], results["volumes"]["NSD-posterior"]) == (100, None)
    assert results["volumes"]["Dice-posterior"] == 100  # of the slice of a


def test_metrics_without_an_export(root: Path, tmp_path: Path) -> None:
    volume_evaluator = build_evaluator(load_volumes(root), tmp_path / "out", export=False)
    process_volume(volume_evaluator, draw_mistakes())
    assert volume_evaluator.evaluate() is not None
    assert [*(tmp_path / "out").iterdir()] == []


@pytest.mark.parametrize(
    ("cut", "travel"),  # images of the first process, and the slices of volumes that are split between processes
    [
        (0, [{}, {}]),
        (1, [{"a": [0]}, {"a": [1, 2, 3]}]),
        (3, [{"a": [0, 1, 2]}, {"a": [3]}]),
        (4, [{}, {}]),
        (5, [{"b": [0]}, {"b": [1]}]),
    ],
)
def test_slices_of_a_volume_on_two_processes_are_joined(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int, travel: list[dict[str, list[int]]]
) -> None:
    dataset = load_volumes(root)
    alone = build_evaluator(dataset, tmp_path / "one")
    process_volume(alone, draw_mistakes())
    expected = alone.evaluate()
    ids = [record["image_id"] for record in dataset.records]
    assert ids == ["a_000", "a_001", "a_002", "a_003", "b_000", "b_001"]
    both = [build_evaluator(dataset, tmp_path / "two") for _ in range(2)]
    for single, share in zip(both, (ids[:cut], ids[cut:]), strict=True):
        process_volume(single, draw_mistakes(), share)
    assert [{name: sorted(slices) for name, slices in single.shard()[1].items()} for single in both] == travel
    # A process that has all slices of a volume writes it at once.
    assert {path.name[0] for path in (tmp_path / "two").rglob("*.gz")} == {"a", "b"} - travel[0].keys()
    assert in_processes(both[::-1], monkeypatch) == expected
    for name in GROUND_TRUTH:
        a, b = ((tmp_path / folder / "volumes" / f"{name}.nii.gz").read_bytes() for folder in ("one", "two"))
        assert a == b


def test_slices_that_are_left_out_are_background(root: Path, tmp_path: Path) -> None:
    dataset = load_volumes(root, keep_empty=False)
    assert [record["image_id"] for record in dataset.records] == ["a_001", "a_002", "b_000", "b_001"]
    volume_evaluator = build_evaluator(dataset, tmp_path)
    output = {"a": np.ones((2, 3, 4), np.uint16), "b": GROUND_TRUTH["b"]}
    process_volume(volume_evaluator, output)
    results = volume_evaluator.evaluate()
    assert results is not None
    # a, its slices 1 and 2: 8 anterior voxels of 12, all predicted: 16 / 20.
    assert results["volumes"]["per_class"]["anterior"]["lowest"] == 80
    expected = output["a"].copy()
    expected[..., [0, 3]] = 0
    np.testing.assert_array_equal(written(tmp_path, "a"), expected)


def test_missing_slices_are_reported_and_no_part_of_a_volume_is_left(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume_evaluator = build_evaluator(load_volumes(root), tmp_path)
    process_volume(volume_evaluator, GROUND_TRUTH)
    volume_evaluator.evaluate()
    volume_evaluator.reset()
    process_volume(volume_evaluator, draw_mistakes(), ["b_000", "b_001", "a_001"])
    with caplog.at_level(logging.WARNING):
        results = volume_evaluator.evaluate()
    assert "1 volumes lack slices and are not written: 'a'" in caplog.text
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["b.nii.gz"]
    np.testing.assert_array_equal(written(tmp_path, "b"), draw_mistakes()["b"])
    assert results is not None
    assert results["volumes"]["per_class"]["anterior"]["volumes"] == 2


def test_a_slice_on_two_processes_is_rejected(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [build_evaluator(load_volumes(root), tmp_path) for _ in range(2)]
    for single in both:
        process_volume(single, GROUND_TRUTH, ["a_002"])
    with pytest.raises(DatasetError, match=r"slice 2 of volume 'a': expected shards without common slices"):
        in_processes(both, monkeypatch)
    with pytest.raises(DatasetError, match=r"slice 2 of volume 'a': expected every slice once"):
        process_volume(both[1], GROUND_TRUTH, ["a_002"])


def test_a_model_without_semantic_logits(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume_evaluator = build_evaluator(load_volumes(root), tmp_path)
    volume_evaluator.process([{"image_id": "a_000"}], [{"instances": None}])
    with caplog.at_level(logging.WARNING):
        assert volume_evaluator.evaluate() == {}
    assert "the model gives no 'sem_seg'" in caplog.text
    assert not (tmp_path / "volumes").exists()


def test_logits_of_another_model_are_rejected(root: Path, tmp_path: Path) -> None:
    volume_evaluator = build_evaluator(load_volumes(root), tmp_path)
    names = "'background', 'anterior', 'posterior'"
    with pytest.raises(ValueError, match=f"sem_seg must have 3 channels, {names}, got 4"):
        volume_evaluator.process([{"image_id": "a_000"}], [{"sem_seg": torch.zeros(4, 3, 2)}])
    with pytest.raises(DatasetError, match=r"slice 0 of volume 'a': expected ground truth and prediction of one size"):
        volume_evaluator.process([{"image_id": "a_000"}], [{"sem_seg": torch.zeros(3, 2, 3)}])


def test_pixels_of_an_unused_things_channel_are_background(root: Path, tmp_path: Path) -> None:
    dataset = load_volumes(root)
    volume_evaluator = VolumeEvaluator(GroundTruth(dataset, "one"), tmp_path)
    volume_evaluator.reset()
    # Channels: things, background, anterior, posterior; pixels say 0, 1, 2, 3.
    labels = torch.tensor([[0, 1], [2, 3], [3, 3]])
    logits = torch.nn.functional.one_hot(labels, 4).permute(2, 0, 1).float()
    for index in range(4):
        volume_evaluator.process([{"image_id": f"a_{index:03d}"}], [{"sem_seg": logits}])
    volume_evaluator.evaluate()
    expected = np.array([[0, 0], [1, 300], [300, 300]])
    np.testing.assert_array_equal(extract_slices(written(tmp_path, "a")), [expected] * 4)


def test_test_volumes_without_labels_are_written(root: Path, tmp_path: Path) -> None:
    (root / "imagesTr").rename(root / "imagesTs")
    volume_evaluator = build_evaluator(load_volumes(root, split="test"), tmp_path)
    process_volume(volume_evaluator, draw_mistakes())
    results = volume_evaluator.evaluate()
    assert results is not None
    assert (results["volumes"]["mDice"], results["volumes"]["Dice-anterior"]) == (None, None)
    np.testing.assert_array_equal(written(tmp_path, "a"), draw_mistakes()["a"])


def evaluate_volumes(dataset: Dataset, folder: Path, outputs: tuple[str, ...] = ()) -> dict[str, Any]:
    inputs = [[{k: r[k] for k in ("image_id", "file_name", "height", "width")}] for r in dataset.records]
    results: dict[str, Any] = inference_on_dataset(
        GroundTruthModel(dataset, 0, outputs),
        inputs,
        build_evaluators(load_config(opts=PANOPTIC_RCNN), dataset, folder),
    )
    return results


def test_with_things_the_panoptic_map_is_evaluated(root: Path, tmp_path: Path) -> None:
    dataset = load_volumes(root, things=["anterior"])
    assert dataset.metrics == ("panoptic_quality", "mask_ap", "semantic_iou", "volume_dice")
    assert dataset.default_thing_channels == "one"
    results = evaluate_volumes(dataset, tmp_path)
    assert results["panoptic_seg"]["PQ"] == pytest.approx(100)
    assert results["volumes"]["mDice"] == 100
    for name, label in GROUND_TRUTH.items():
        np.testing.assert_array_equal(written(tmp_path, name), label)
    assert "volumes" not in evaluate_volumes(dataset, tmp_path, ("sem_seg",))


def test_void_of_a_panoptic_map_is_background(root: Path, tmp_path: Path) -> None:
    volume_evaluator = build_evaluator(load_volumes(root, things=["anterior"]), tmp_path)
    nothing = torch.zeros((3, 2), dtype=torch.int32), []
    for index in range(4):
        volume_evaluator.process([{"image_id": f"a_{index:03d}"}], [{"panoptic_seg": nothing}])
    results = volume_evaluator.evaluate()
    assert results is not None
    assert results["volumes"]["mDice"] == 0
    assert not written(tmp_path, "a").any()


def test_the_metrics_of_a_dataset_without_things(root: Path, tmp_path: Path) -> None:
    dataset = load_volumes(root)
    assert dataset.metrics == ("semantic_iou", "volume_dice")
    assert dataset.default_thing_channels == "per_class"
    evaluators = build_evaluators(load_config(opts=PANOPTIC_RCNN), dataset, tmp_path)
    assert [type(single).__name__ for single in evaluators._evaluators] == ["SemanticEvaluator", "VolumeEvaluator"]


def test_datasets_of_images_are_rejected(root: Path, tmp_path: Path) -> None:
    dataset = load_volumes(root)
    records = [{key: value for key, value in record.items() if key != "reader"} for record in dataset.records]
    images = Dataset("photos", dataset.categories, ("volume_dice",), records)
    with pytest.raises(
        ConfigError, match="the images of photos are no slices of volumes, which the metric volume_dice needs"
    ):
        build_evaluators(load_config(opts=PANOPTIC_RCNN), images, tmp_path)
