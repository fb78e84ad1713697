"""Saving head outputs during an evaluation: a file for each image, the index when all exist."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from segkit.config import load_config
from segkit.data.dataset import Dataset
from segkit.data.ground_truth import GroundTruth
from segkit.evaluation import head_outputs as module
from segkit.evaluation.base import EvaluatorOptions
from segkit.evaluation.head_outputs import HeadOutputsEvaluator, check_saved_logits, fusing_saved_values
from segkit.formats.head_outputs import load, round_head_outputs
from segkit.structures import Category, CategorySet, HeadOutputs, InstanceMasks, SemanticScores
from segkit.utils.errors import ConfigError, DatasetError

SIZE = (6, 8)
CATEGORIES = CategorySet(
    [Category(3, "car", True, (0, 0, 1)), Category(8, "sky", False, (0, 0, 2)), Category(9, "sea", False, (0, 0, 3))]
)
IMAGES = ["e", 5, "a", 1]
ROOT = Path("/images")


def dataset() -> Dataset:
    """Images whose ids are not sorted; two images have the same name in different folders."""
    names = ["x/1.jpg", "2.jpg", "y/1.jpg", "3.jpg"]
    size = {"height": SIZE[0], "width": SIZE[1]}
    records = [{"image_id": i, "file_name": f"{ROOT}/{name}", **size} for i, name in zip(IMAGES, names, strict=True)]
    return Dataset("toy", CATEGORIES, (), records, metadata={"image_root": str(ROOT)})


def draw_outputs(number: int, size: tuple[int, int] = SIZE) -> HeadOutputs:
    rng = np.random.default_rng(number)
    logits = rng.normal(0, 3, (3, *size)).astype(np.float32)
    masks = rng.random((number, *size)) < 0.3
    boxes, scores = rng.random((number, 4), dtype=np.float32), rng.random(number, dtype=np.float32)
    instances = InstanceMasks.from_full(masks, boxes, scores, np.zeros(number, dtype=np.int64))
    return HeadOutputs(instances, SemanticScores(logits.argmax(0), np.arange(3), np.full(3, -1), logits))


def build_evaluator(folder: Path, keep_logits: int = 2, export: bool = False) -> HeadOutputsEvaluator:
    data = dataset()
    heads_evaluator = HeadOutputsEvaluator(
        GroundTruth(data, "one"), folder, EvaluatorOptions(export, keep_logits=keep_logits)
    )
    heads_evaluator.reset()
    return heads_evaluator


def process(heads_evaluator: HeadOutputsEvaluator, images: list[Any]) -> HeadOutputsEvaluator:
    for image_id in images:
        heads_evaluator.process([{"image_id": image_id}], [{"head_outputs": draw_outputs(IMAGES.index(image_id))}])
    return heads_evaluator


@pytest.mark.parametrize("keep_logits", [0, 2, 3])
def test_head_outputs_are_saved(tmp_path: Path, keep_logits: int) -> None:
    assert process(build_evaluator(tmp_path, keep_logits), [1, "a", 5, "e"]).evaluate() == {}
    saved = load(tmp_path / "head_outputs")
    assert saved.categories == CATEGORIES
    assert saved.channel_names == ("things", "sky", "sea")
    assert [(image.image_id, image.file_name, image.size_hw, image.outputs) for image in saved.images] == [
        ("e", "x/1.jpg", SIZE, "1.npz"),
        (5, "2.jpg", SIZE, "2.npz"),
        ("a", "y/1.jpg", SIZE, "images_y_1.npz"),
        (1, "3.jpg", SIZE, "3.npz"),
    ]
    for number, image in enumerate(saved.images):
        found, expected = saved.read(image), round_head_outputs(draw_outputs(number), keep_logits)
        assert found.semantic.logits is not None or not keep_logits
        np.testing.assert_array_equal(found.semantic.channels, expected.semantic.channels)
        if expected.semantic.logits is not None:
            np.testing.assert_array_equal(found.semantic.logits, expected.semantic.logits)
        np.testing.assert_array_equal(found.instances.to_full(), expected.instances.to_full())
        np.testing.assert_array_equal(found.instances.scores, expected.instances.scores)


def in_processes(evaluators: list[HeadOutputsEvaluator], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any] | None:
    """The result of `evaluate` on the main process, with the shards of all processes."""
    shards = [(False, single._processed, single.shard()) for single in evaluators]
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda own_shard: shards)
    return evaluators[0].evaluate()


def test_processes_write_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [process(build_evaluator(tmp_path), images) for images in (["e", "a"], [1, 5])]
    assert in_processes(both, monkeypatch) == {}
    assert [image.image_id for image in load(tmp_path / "head_outputs").images] == IMAGES


@pytest.mark.parametrize("stale", [False, True])
def test_machines_without_a_shared_folder_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    here = process(build_evaluator(tmp_path / "here"), ["e", "a"])
    there = process(build_evaluator(tmp_path / "there"), [1, 5])
    if stale:  # a file of an earlier run of that name
        (here.folder / "3.npz").write_bytes(b"something else")
    with pytest.raises(
        DatasetError, match=r"2 of 4 files .* cannot be seen here: '2\.npz', '3\.npz'; let all machines"
    ):
        in_processes([here, there], monkeypatch)
    assert not (here.folder / "index.json").exists()


def test_an_interrupted_run_writes_no_index(tmp_path: Path) -> None:
    process(build_evaluator(tmp_path), IMAGES).evaluate()
    process(build_evaluator(tmp_path), IMAGES[:2])
    with pytest.raises(DatasetError, match="cut short"):
        load(tmp_path / "head_outputs")
    process(build_evaluator(tmp_path, keep_logits=0), IMAGES).evaluate()
    saved = load(tmp_path / "head_outputs")
    assert [saved.read(image).semantic.logits for image in saved.images] == [None] * 4


def test_only_the_main_process_writes_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(build_evaluator(tmp_path), IMAGES).evaluate()
    monkeypatch.setattr(module.comm, "is_main_process", lambda: False)
    build_evaluator(tmp_path)
    assert len(load(tmp_path / "head_outputs")) == 4


def test_a_part_of_the_images_is_saved_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert process(build_evaluator(tmp_path), [5]).evaluate() == {}
    assert "only 1 of the 4 images" in caplog.text
    assert [image.image_id for image in load(tmp_path / "head_outputs").images] == [5]


def test_a_model_without_head_outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heads_evaluator = build_evaluator(tmp_path)
    heads_evaluator.process([{"image_id": 5}], [{"instances": None}])
    with caplog.at_level(logging.WARNING):
        assert heads_evaluator.evaluate() == {}
    assert "the model gives no 'head_outputs'" in caplog.text
    assert not heads_evaluator.folder.exists()


def test_outputs_of_another_image_or_model_are_rejected(tmp_path: Path) -> None:
    heads_evaluator = build_evaluator(tmp_path)
    with pytest.raises(ValueError, match=r"head_outputs must be of the image's size \(6, 8\), got \(8, 6\) of image 5"):
        heads_evaluator.process([{"image_id": 5}], [{"head_outputs": draw_outputs(1, (8, 6))}])
    outputs = draw_outputs(1)
    semantic = SemanticScores.from_stuff_ids(np.ones(SIZE, dtype=np.int64))
    with pytest.raises(ValueError, match=r"the semantic channels must be those of the categories \(3 .*, got \(2 "):
        heads_evaluator.process([{"image_id": 5}], [{"head_outputs": HeadOutputs(outputs.instances, semantic)}])
    outputs.instances.class_ids[0] = 1
    with pytest.raises(ValueError, match=r"class_ids of instances must be in 0\.\.0, .* got 1"):
        heads_evaluator.process([{"image_id": 5}], [{"head_outputs": outputs}])
    assert not heads_evaluator.folder.exists()


def test_the_option_for_saved_logits_is_checked() -> None:
    def check(*opts: str) -> None:
        check_saved_logits(load_config("", opts))

    logit_fusion = ("MODEL.PANOPTIC.FUSION.NAME", "efficientps")
    check()
    check(*logit_fusion)
    check("TEST.KEEP_LOGITS", "0")
    with pytest.raises(ConfigError, match=r"TEST\.KEEP_LOGITS: expected 0 or more logits per pixel, got -1"):
        check("TEST.KEEP_LOGITS", "-1")
    with pytest.raises(ConfigError, match="EfficientPSFusion needs logits, but none are kept"):
        check(*logit_fusion, "TEST.KEEP_LOGITS", "0")


@pytest.mark.parametrize(("keep_logits", "with_logits"), [(0, False), (2, True)])
def test_the_model_fuses_rounded_values_only_while_heads_are_saved(keep_logits: int, with_logits: bool) -> None:
    model: Any = nn.Identity()
    with fusing_saved_values(model, keep_logits):
        assert not hasattr(model, "rounding")
    model.rounding, model.with_logits = None, False
    with fusing_saved_values(model, keep_logits):
        assert model.with_logits == with_logits
        assert (model.rounding(draw_outputs(1)).semantic.logits is not None) == with_logits
    assert (model.rounding, model.with_logits) == (None, False)
