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
from segkit.utils.errors import ConfigError
from tests.helpers import small_models, small_training


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


@pytest.mark.parametrize("architecture", ["PanopticRCNN", "GeneralizedRCNN", "SemanticSegmentor"])
def test_an_only_view_gives_what_the_model_gives(architecture: str) -> None:
    register_models()
    cfg = small_models.small_config(architecture)
    cfg.TEST.AUG.update({"MIN_SIZES": (0,), "FLIP": False})
    torch.manual_seed(3)
    model = small_models.build_model(cfg).eval()
    sample = small_models.images(1)[0]
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


@pytest.mark.parametrize("architecture", ["PanopticRCNN", "GeneralizedRCNN", "SemanticSegmentor"])
def test_equal_views_give_what_the_model_gives_up_to_rounding(architecture: str) -> None:
    register_models()
    cfg = small_models.small_config(architecture)
    cfg.TEST.AUG.update({"MIN_SIZES": (0, 0), "FLIP": False})
    torch.manual_seed(3)
    model = small_models.build_model(cfg).eval()
    sample = small_models.images(1)[0]
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


def test_evaluation_obeys_the_config(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"training_{toy_folder.parent.name}".replace("-", "_")
    augmentation = {"ENABLED": True, "MIN_SIZES": (48,), "FLIP": True, "MAX_SIZE": 90}
    options = small_training.build_options(
        toy_folder,
        tmp_path,
        DATASETS__TEST=f"('{name}',)",
        MODEL__WEIGHTS=tmp_path / "weights.pth",
        TEST__SAVE_HEADS=True,
        **{f"TEST__AUG__{key}": value for key, value in augmentation.items()},
    )
    model = small_models.build_model(small_training.build_config(toy_folder, tmp_path))
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    sizes, run = [], TestTimeAugmentation._run_views

    def spy(self: TestTimeAugmentation, sample: dict[str, Any]) -> Any:
        sizes.append((tuple(sample["image"].shape[1:]), (sample["height"], sample["width"])))
        return run(self, sample)

    monkeypatch.setattr(TestTimeAugmentation, "_run_views", spy)
    assert main(["train", "--eval-only", "--config-file", "toy/panoptic_rcnn_R18_FPN", *options]) == 0
    assert len(sizes) == 12
    assert all(size_hw == output_hw for size_hw, output_hw in sizes)  # scaled from the file, not from a scaled image
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert {"panoptic_seg", "bbox", "segm", "sem_seg"} <= results.keys()
    saved = tmp_path / "inference" / name / "head_outputs"
    assert len([*saved.glob("*.npz")]) == 12
