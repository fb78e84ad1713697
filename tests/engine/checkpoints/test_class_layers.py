"""Fine-tuning on other classes: which rows of the layers for classes are kept."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segkit.engine.checkpoints.architecture import WeightMatch, check_architecture
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.checkpoints.class_layers import keep_classes_by_name
from segkit.engine.training.classes import CategoriesInCheckpoint
from segkit.structures import Category, CategorySet
from segkit.utils.errors import CheckpointError


def make_categories(things: list[str], stuff: list[str]) -> CategorySet:
    names = [(name, True) for name in things] + [(name, False) for name in stuff]
    return CategorySet(Category(i, name, isthing, (0, 0, 0)) for i, (name, isthing) in enumerate(names, 1))


def build_heads(things: int, channels: int, value: float | None = None) -> nn.Module:
    """The class layers by Detectron2's names; with `value`, row r of each tensor is value + r."""
    model = nn.Module()
    model.trunk = nn.Linear(2, 2)
    model.roi_heads = nn.Module()
    model.roi_heads.box_predictor = nn.ModuleDict(
        {"cls_score": nn.Linear(2, things + 1), "bbox_pred": nn.Linear(2, 4 * things)}
    )
    model.roi_heads.mask_head = nn.ModuleDict({"predictor": nn.Conv2d(2, things, 1)})
    model.sem_seg_head = nn.ModuleDict({"predictor": nn.Conv2d(2, channels, 1)})
    if value is not None:
        with torch.no_grad():
            for weight in model.parameters():
                rows = torch.arange(len(weight)).reshape(-1, *[1] * (weight.ndim - 1))
                weight.copy_((value + rows).expand_as(weight))
    return model


def save(path: Path, model: nn.Module, categories: CategorySet, channels: str = "one") -> str:
    SafeCheckpointer(model, str(path.parent), segkit=CategoriesInCheckpoint(categories, channels)).save(path.stem)
    return str(path)


def load(path: str, model: nn.Module, categories: CategorySet, **options: Any) -> dict[str, list[float]]:
    """The first number of each row after the load, by layer."""
    classes = CategoriesInCheckpoint(categories, options.pop("channels", "one"))
    SafeCheckpointer(model, segkit=classes, **options).load(path, checkpointables=[])
    return {name: tensor.flatten(1)[:, 0].tolist() for name, tensor in model.state_dict().items() if tensor.ndim > 1}


FRESH = ["nothing:", "the", "layer", "starts", "afresh"]
SAVED = make_categories(["cat", "dog", "cow"], ["sky", "sea"])
OURS = make_categories(["dog", "pig"], ["sea", "mud"])


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return save(tmp_path / "w.pth", build_heads(3, 3, value=10), SAVED)


def test_rows_of_equal_names_are_kept(weights: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        rows = load(weights, build_heads(2, 3, value=-100), OURS, keep_classes=True)
    # The file has cat 10, dog 11, cow 12, background 13; the model has dog, pig, background.
    assert rows["roi_heads.box_predictor.cls_score.weight"] == [11, -99, 13]
    # dog has the rows 4 to 7 of the file
    assert rows["roi_heads.box_predictor.bbox_pred.weight"] == [14, 15, 16, 17, -96, -95, -94, -93]
    assert rows["roi_heads.mask_head.predictor.weight"] == [11, -99]
    # channels of the file: things, sky, sea; of the model: things, sea, mud
    assert rows["sem_seg_head.predictor.weight"] == [10, 12, -98]
    assert rows["trunk.weight"] == [10, 11]
    assert "classes kept: 2: 'dog', 'sea'" in caplog.text
    assert "classes that start afresh: 2: 'pig', 'mud'" in caplog.text


def test_channels_of_each_class_find_those_of_the_stuff(weights: str) -> None:
    rows = load(weights, build_heads(2, 4, value=-100), OURS, keep_classes=True, channels="per_class")
    assert rows["sem_seg_head.predictor.weight"] == [-100, -99, 12, -97]  # dog, pig, sea, mud


def test_layers_of_another_count_start_afresh_by_default(weights: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        rows = load(weights, build_heads(2, 3, value=-100), OURS)
    assert rows["roi_heads.box_predictor.cls_score.weight"] == [-100, -99, -98]
    assert rows["sem_seg_head.predictor.weight"] == [10, 11, 12]  # as many channels
    assert rows["trunk.weight"] == [10, 11]
    lines = [line.split() for line in caplog.text.splitlines()]
    assert ["roi_heads.box_predictor.cls_score.weight", "4", "3", *FRESH] in lines
    assert ["sem_seg_head.predictor.weight", "3", "3", "all", "rows"] in lines


def test_as_many_other_classes_are_a_warning(weights: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = load(weights, build_heads(3, 3, value=-100), make_categories(["a", "b", "c"], ["d", "e"]))
    assert rows["roi_heads.mask_head.predictor.weight"] == [10, 11, 12]
    assert "as many classes, but others" in caplog.text
    assert "MODEL.KEEP_CLASSES_BY_NAME True keeps those of equal names" in caplog.text


def test_weights_without_names_cannot_be_matched(tmp_path: Path) -> None:
    torch.save(build_heads(3, 3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match="do not say what their classes are; name them by `segkit import --classes`"
    ):
        load(str(tmp_path / "w.pth"), build_heads(2, 3), OURS, keep_classes=True)
    torch.save({"trunk.weight": torch.ones(2, 2)}, tmp_path / "w.pth")  # a backbone needs no names
    assert load(str(tmp_path / "w.pth"), build_heads(2, 3), OURS, keep_classes=True)["trunk.weight"] == [1, 1]


def test_inference_names_both_class_counts(weights: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        SafeCheckpointer(build_heads(2, 5)).load_for_inference(weights)
    problem = (
        "weights of another dataset: they have 3 thing classes (the model 2) and 3 semantic channels (the model 5)"
    )
    assert problem in str(caught.value)
    assert "use the dataset that they were trained on, or train them on this one first" in str(caught.value)


@pytest.mark.parametrize("layer", ["sem_seg_head.predictor.class_embed", "head.class_head"])
def test_classes_of_queries_keep_their_rows_by_name(layer: str) -> None:
    """Of a cat and a dog and "no object", the dog and "no object" stay, the bird starts afresh."""
    saved = CategorySet([Category(1, "cat", True, (0, 0, 1)), Category(2, "dog", True, (0, 0, 2))])
    classes = CategorySet([Category(5, "dog", True, (0, 0, 3)), Category(6, "bird", True, (0, 0, 4))])
    name = f"{layer}.weight"
    weights = {name: torch.tensor([[1.0], [2.0], [3.0]])}
    model = {name: torch.tensor([[-1.0], [-2.0], [-3.0]])}
    kept, fresh = keep_classes_by_name(weights, model, (saved, "per_class"), (classes, "per_class"))
    assert (kept, fresh) == (["dog"], ["bird"])
    assert weights[name].flatten().tolist() == [2.0, -2.0, 3.0]


def test_weights_of_queries_for_other_classes_are_refused_with_both_counts() -> None:
    layer, loss = "sem_seg_head.predictor.class_embed.weight", "criterion.empty_weight"
    backbone = {"backbone.stem.conv1.weight": (8, 3, 3, 3)}
    match = WeightMatch(
        {**backbone, layer: (20, 8), loss: (20,)}, {**backbone, layer: (134, 8), loss: (134,)}, [layer, loss], []
    )
    with pytest.raises(CheckpointError, match=r"133 classes \(the model 19\)"):
        check_architecture(match, strict=True, where="w.pth")
