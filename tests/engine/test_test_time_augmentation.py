"""TEST.AUG: views of an image are merged, for every kind of output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segkit.cli.main import main
from segkit.config import load_config
from segkit.engine.test_time_augmentation import TestTimeAugmentation, augment_for_test
from segkit.fusion.paste import paste_masks
from segkit.modeling import register_models
from segkit.modeling.postprocessing.view_merging import ViewOutputs
from segkit.modeling.queries import QueryCriterion, QueryOutputs
from segkit.modeling.queries.segmentor import QuerySegmentor
from segkit.utils.errors import ConfigError
from tests.helpers import small_models, small_queries, small_training


class ColorQueries(QuerySegmentor):
    """Its queries are the pixels of a channel; a mirrored image has mirrored masks."""

    def __init__(self) -> None:
        common = {"pixel_mean": [100.0] * 3, "pixel_std": [50.0] * 3, "stuff_ids": [0, 0, 1], "thing_ids": [0, 1, -1]}
        super().__init__(criterion=QueryCriterion(num_classes=3), most_instances=3, size_divisibility=4, **common)
        self.class_logits = torch.eye(4)[[0, 0, 2]] * torch.tensor([[4.0], [5.0], [6.0]])

    def predict(self, images: torch.Tensor) -> list[QueryOutputs]:
        return [QueryOutputs(self.class_logits.expand(len(images), -1, -1), F.avg_pool2d(images, 4))]


class BrightChannels(nn.Module):
    """Finds an instance in each channel: the box of its bright pixels. It says the same of every view."""

    def compute_heads(self, inputs: list[dict[str, Any]]) -> list[ViewOutputs]:
        self.seen = [*getattr(self, "seen", []), *(tuple(x["image"].shape[1:]) for x in inputs)]
        return [self.find(x["image"] > 127, (x["height"], x["width"])) for x in inputs]

    def find(self, bright: torch.Tensor, size_hw: tuple[int, int]) -> ViewOutputs:
        scale = size_hw[0] / bright.shape[1]
        boxes = []
        for channel in bright:
            ys, xs = channel.nonzero().unbind(1)
            boxes.append([value * scale for value in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)])
        scores = np.array([0.9, 0.8, 0.7], dtype=np.float32)
        probs, classes = np.ones((3, 4, 4), dtype=np.float32), np.zeros(3, dtype=np.int64)
        masks = paste_masks(probs, np.array(boxes, dtype=np.float32), scores, classes, size_hw)
        return ViewOutputs(masks, F.interpolate(bright[None].float(), size_hw)[0] * 5)

    def fuse_heads(self, outputs: ViewOutputs) -> ViewOutputs:
        return outputs

    def forward(self, inputs: list[dict[str, Any]]) -> list[ViewOutputs]:
        return self.compute_heads(inputs)


def build_config(architecture: str = "PanopticRCNN", **augmentation: Any) -> Any:
    cfg = load_config()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.MASK_ON = architecture, True
    cfg.TEST.AUG.update({"ENABLED": True, "MIN_SIZES": (0,), "MAX_SIZE": 1000, "FLIP": True} | augmentation)
    return cfg


def bright_image() -> dict[str, Any]:
    """Two instances that touch, and one inside of the first one."""
    image = torch.zeros((3, 20, 30), dtype=torch.uint8)
    for channel, (top, left, bottom, right) in enumerate([(2, 2, 12, 12), (2, 12, 12, 22), (4, 4, 8, 8)]):
        image[channel, top:bottom, left:right] = 255
    return {"image": image, "height": 20, "width": 30}


@pytest.mark.parametrize(("sizes", "flip"), [((0,), True), ((20, 40), False), ((20, 40), True)])
def test_a_model_that_says_the_same_of_every_view_says_the_same_with_augmentation(
    sizes: tuple[int, ...], flip: bool
) -> None:
    model, sample = BrightChannels(), bright_image()
    (expected,) = model([sample])
    model.seen = []
    (merged,) = TestTimeAugmentation(build_config(MIN_SIZES=sizes, FLIP=flip), model)([sample])
    np.testing.assert_array_equal(merged.instances.to_full(), expected.instances.to_full())
    np.testing.assert_allclose(merged.instances.boxes_xyxy, expected.instances.boxes_xyxy)
    np.testing.assert_allclose(merged.instances.scores, expected.instances.scores, rtol=1e-6)
    torch.testing.assert_close(merged.logits.softmax(0), expected.logits.softmax(0))
    heights = [size or 20 for size in sizes for _ in range(1 + flip)]
    assert model.seen == [(height, height * 30 // 20) for height in heights]


ARCHITECTURES = ["PanopticRCNN", "GeneralizedRCNN", "SemanticSegmentor", *small_queries.ARCHITECTURES]


def build_model(architecture: str, sizes: tuple[int, ...]) -> tuple[Any, Any, dict[str, Any]]:
    """The config with views of `sizes`, the model, and a sample."""
    register_models()
    is_query = architecture in small_queries.ARCHITECTURES
    cfg = (small_queries.build_config if is_query else small_models.small_config)(architecture)
    cfg.TEST.AUG.update({"MIN_SIZES": sizes, "FLIP": False})
    torch.manual_seed(3)
    model = small_models.build_model(cfg).eval()
    return cfg, model, small_queries.draw_sample(48, 60) if is_query else small_models.images(1)[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_only_view_gives_what_the_model_gives(architecture: str) -> None:
    cfg, model, sample = build_model(architecture, (0,))
    with torch.no_grad():
        (expected,) = model([sample])
    (output,) = TestTimeAugmentation(cfg, model)([sample])
    assert output.keys() == expected.keys()
    if "sem_seg" in output:
        assert torch.equal(output["sem_seg"], expected["sem_seg"])
    if "instances" in output:
        assert torch.equal(output["instances"].pred_masks, expected["instances"].pred_masks)
        assert torch.equal(output["instances"].scores, expected["instances"].scores)
    if "panoptic_seg" in output:
        assert torch.equal(output["panoptic_seg"][0], expected["panoptic_seg"][0])
        assert output["panoptic_seg"][1] == expected["panoptic_seg"][1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_views_give_what_the_model_gives_up_to_rounding(architecture: str) -> None:
    cfg, model, sample = build_model(architecture, (0, 0))
    with torch.no_grad():
        (expected,) = model([sample])
    (output,) = TestTimeAugmentation(cfg, model)([sample])
    if "sem_seg" in output:
        torch.testing.assert_close(output["sem_seg"].softmax(0), expected["sem_seg"].softmax(0))
    if "instances" in output:
        mine, theirs = output["instances"], expected["instances"]
        order = torch.argsort(theirs.scores, descending=True, stable=True)
        torch.testing.assert_close(mine.scores, theirs.scores[order])
        torch.testing.assert_close(mine.pred_boxes.tensor, theirs.pred_boxes.tensor[order])
        assert (mine.pred_masks != theirs.pred_masks[order]).float().mean() < 1e-3
    if "panoptic_seg" in output:
        assert (output["panoptic_seg"][0] != expected["panoptic_seg"][0]).float().mean() < 1e-2
        assert len(output["head_outputs"].instances) == len(expected["head_outputs"].instances)


def test_mirrored_views_of_a_symmetric_network_change_nothing_but_rounding() -> None:
    """Two things of one class overlap, and stay two."""
    model = ColorQueries().eval()
    image = torch.zeros((3, 32, 48), dtype=torch.uint8)
    image[0, 4:20, 4:30], image[1, 8:24, 8:36], image[2, 20:] = 220, 255, 200
    sample = {"image": image, "height": 64, "width": 100}
    with torch.no_grad():
        (expected,) = model([sample])
    (merged,) = TestTimeAugmentation(build_config(), model)([sample])
    assert len(expected["instances"]) == len(merged["instances"]) == 2
    assert torch.equal(merged["instances"].pred_masks, expected["instances"].pred_masks)
    torch.testing.assert_close(merged["instances"].scores, expected["instances"].scores)
    assert torch.equal(merged["panoptic_seg"][0], expected["panoptic_seg"][0])
    assert len(expected["panoptic_seg"][1]) == len(merged["panoptic_seg"][1]) == 2  # a thing and the stuff
    torch.testing.assert_close(merged["sem_seg"], expected["sem_seg"])


@pytest.mark.parametrize("architecture", ["PanopticFPN", "ClassicalSegmentor", "GeneralizedRCNN"])
def test_models_without_outputs_of_their_heads_are_refused(architecture: str) -> None:
    register_models()
    cfg = small_models.small_config(architecture)
    cfg.TEST.AUG.ENABLED, cfg.MODEL.MASK_ON = True, architecture == "PanopticFPN"
    model = small_models.build_model(cfg)
    with pytest.raises(ConfigError, match=f"TEST.AUG.ENABLED: {architecture} .*set TEST.AUG.ENABLED False"):
        augment_for_test(cfg, model)


@pytest.mark.parametrize("augmentation", [{"MIN_SIZES": ()}, {"MIN_SIZES": (-1,)}, {"MAX_SIZE": 0}])
def test_sizes_out_of_range_are_refused(augmentation: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"TEST.AUG.{next(iter(augmentation))}: expected"):
        TestTimeAugmentation(build_config(**augmentation), BrightChannels())


def test_models_are_only_augmented_if_the_config_says_so() -> None:
    cfg, model = build_config(ENABLED=False), BrightChannels()
    assert augment_for_test(cfg, model) == (cfg, model)
    augmented_cfg, augmented = augment_for_test(build_config(), model)
    assert isinstance(augmented, TestTimeAugmentation)
    assert augmented_cfg.INPUT.MIN_SIZE_TEST == 0


@pytest.mark.parametrize(
    "architecture",
    ["PanopticRCNN", *(pytest.param(name, marks=pytest.mark.slow) for name in small_queries.ARCHITECTURES)],
)
def test_evaluation_and_prediction_obey_the_config(
    architecture: str, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"training_{toy_folder.parent.name}".replace("-", "_")
    augmentation = {"ENABLED": True, "MIN_SIZES": (48,), "FLIP": True, "MAX_SIZE": 60}
    cfg = small_training.build_config(
        toy_folder,
        tmp_path,
        architecture,
        DATASETS__TEST=f"('{name}',)",
        MODEL__WEIGHTS=tmp_path / "weights.pth",
        TEST__SAVE_HEADS=True,
    )
    torch.save({"model": small_models.build_model(cfg).state_dict()}, tmp_path / "weights.pth")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    sizes, run = [], TestTimeAugmentation._run_views

    def spy(self: TestTimeAugmentation, sample: dict[str, Any]) -> Any:
        sizes.append((tuple(sample["image"].shape[1:]), (sample["height"], sample["width"])))
        return run(self, sample)

    monkeypatch.setattr(TestTimeAugmentation, "_run_views", spy)
    arguments = ["--config-file", str(tmp_path / "config.yaml")]
    options = [f"{word}" for key, value in augmentation.items() for word in (f"TEST.AUG.{key}", value)]
    assert main(["train", "--eval-only", *arguments, *options]) == 0
    assert len(sizes) == 12
    assert all(size_hw == output_hw for size_hw, output_hw in sizes)  # scaled from the file, not from a scaled image
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert {"panoptic_seg", "bbox", "segm", "sem_seg"} <= results.keys()
    saved = tmp_path / "inference" / name / "head_outputs"
    assert len([*saved.glob("*.npz")]) == 12
    image, output = next((toy_folder / "images").iterdir()), tmp_path / "predictions"
    assert main(["predict", *arguments, "--input", str(image), "--output", str(output), "--opts", *options]) == 0
    assert len(sizes) == 13
    assert len([*output.glob("panoptic/*.png")]) == 1
