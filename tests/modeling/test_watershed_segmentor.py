"""WatershedSegmentor: things of a semantic map split where they touch, Detectron2's outputs, weights of the U-Net."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.backbone import Backbone
from torch import nn

from segkit.config import load_config
from segkit.data.class_counts import resolve_for_categories
from segkit.modeling import register_models
from segkit.modeling.meta_arch import WatershedSegmentor
from segkit.structures import Category, CategorySet
from segkit.utils.errors import ConfigError

STUFF, CELL, WORM = 0, 1, 2  # channels
CATEGORIES = CategorySet([Category(1, "nucleus", True, (1, 2, 3)), Category(2, "background", False, (4, 5, 6))])


class Image(Backbone):
    """The image itself is the only level."""

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": image}


class ChannelOfBrightness(nn.Module):
    """The logit of channel c is log(9) where the brightness is c, log(3) where it is c + 0.25, and 0 elsewhere.

    With two channels, the probability of the best one is therefore 9 / (9 + 1) or 3 / (3 + 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, levels: dict[str, torch.Tensor], _targets: Any) -> Any:
        channels, brightness = torch.arange(self.channels).view(1, -1, 1, 1), levels["image"]
        return (brightness == channels) * np.log(9) + (brightness == channels + 0.25) * np.log(3), {}


def build(stuff_ids: tuple[int, ...] = (1, 0), thing_ids: tuple[int, ...] = (-1, 0), **options: Any) -> Any:
    return WatershedSegmentor(
        backbone=Image(),
        sem_seg_head=ChannelOfBrightness(len(stuff_ids)),
        pixel_mean=[0.0],
        pixel_std=[1.0],
        stuff_ids=stuff_ids,
        thing_ids=thing_ids,
        **options,
    ).eval()


def run(model: Any, *maps: np.ndarray, **size: int) -> Any:
    return model([{"image": torch.from_numpy(channels)[None].float(), **size} for channels in maps])


def draw_discs(*discs: tuple[int, float]) -> np.ndarray:
    """(30, 50) map of STUFF with discs of radius 8 at y = 15: (x, channel)."""
    channels = np.full((30, 50), STUFF, dtype=np.float32)
    for x, channel in discs:
        cv2.circle(channels, (x, 15), 8, channel, -1)
    return channels


TOUCHING = draw_discs((15, CELL), (30, CELL))


def test_two_discs_that_touch_are_two_instances() -> None:
    assert cv2.connectedComponents(TOUCHING.astype(np.uint8))[0] == 2  # the background and one component
    (output,) = run(build(), TOUCHING)
    ids, segments = output["panoptic_seg"]
    assert [(s["isthing"], s["category_id"]) for s in segments] == [(True, 0), (True, 0), (False, 1)]
    assert ids[15, 12] != ids[15, 33]
    assert ids[0, 0] == segments[2]["id"]
    assert [s["instance_id"] for s in segments[:2]] == [0, 1]
    instances = output["instances"]
    assert instances.pred_classes.tolist() == [0, 0]
    assert instances.pred_masks.numpy().sum(axis=0).tolist() == TOUCHING.tolist()
    assert output["instance_masks"].to_full().tolist() == instances.pred_masks.tolist()
    assert output["sem_seg"].argmax(dim=0).tolist() == TOUCHING.tolist()


def test_a_greater_depth_leaves_them_one() -> None:
    (output,) = run(build(depth_px=9.0), TOUCHING)
    assert len(output["instances"]) == 1


def test_scores_are_mean_probabilities_and_fall() -> None:
    image = draw_discs((10, CELL + 0.25), (35, CELL))
    image[:, 36:][image[:, 36:] == CELL] += 0.25  # columns 36 to 43 of the second disc
    (output,) = run(build(), image)
    instances, (_, segments) = output["instances"], output["panoptic_seg"]
    high, low = (int((image[:, 20:] == value).sum()) for value in (CELL, CELL + 0.25))
    expected = [(0.9 * high + 0.75 * low) / (high + low), 0.75]
    assert instances.scores.tolist() == pytest.approx(expected)
    assert [s["score"] for s in segments[:2]] == pytest.approx(expected)
    assert instances.pred_boxes.tensor[:, 0].tolist() == [27, 2]  # centre - radius


def test_two_thing_classes_that_touch_keep_their_pixels() -> None:
    image = draw_discs((15, CELL), (30, WORM))
    (output,) = run(build(stuff_ids=(1, 0, 0), thing_ids=(-1, 1, 0)), image)
    ids, segments = output["panoptic_seg"]
    classes = {s["id"]: s["category_id"] for s in segments if s["isthing"]}
    assert [classes[int(ids[15, x])] for x in (12, 33)] == [1, 0]
    masks = dict(zip(output["instances"].pred_classes.tolist(), output["instances"].pred_masks, strict=True))
    assert masks[1].tolist() == (image == CELL).tolist()
    assert masks[0].tolist() == (image == WORM).tolist()


def test_small_objects_are_the_best_stuff() -> None:
    image = draw_discs((15, CELL))
    image[2:4, 40:44] = CELL  # 8 pixels
    (output,) = run(build(stuff_ids=(2, 0, 1), thing_ids=(-1, 0, -1), min_area_px=9), image)
    ids, segments = output["panoptic_seg"]
    assert len(output["instances"]) == 1
    # Both stuff channels have the logit 0 there: the first one, of stuff class 2, wins.
    assert [(s["category_id"], s["id"]) for s in segments if not s["isthing"]] == [(2, ids[2, 40])]
    assert segments[-1]["area"] == int((ids == segments[-1]["id"]).sum())
    assert len(run(build(min_area_px=8), image)[0]["instances"]) == 2


def test_without_stuff_small_objects_are_void() -> None:
    image = np.full((30, 50), 1, dtype=np.float32)
    image[2:4, 40:44] = 0
    (output,) = run(build(stuff_ids=(0, 0), thing_ids=(0, 1)), image)
    ids, segments = output["panoptic_seg"]
    assert [(s["isthing"], s["category_id"]) for s in segments] == [(True, 1)]
    assert ids[2, 40] == 0


def test_an_image_without_things_and_one_that_is_a_thing_in_a_batch() -> None:
    outputs = run(build(), np.zeros((6, 8), dtype=np.float32), np.ones((6, 8), dtype=np.float32), TOUCHING)
    assert [len(output["instances"]) for output in outputs] == [0, 1, 2]
    assert [s["isthing"] for s in outputs[0]["panoptic_seg"][1]] == [False]
    assert outputs[0]["instances"].pred_masks.shape == (0, 6, 8)
    assert outputs[1]["instances"].pred_boxes.tensor.tolist() == [[0, 0, 8, 6]]
    assert len(outputs[1]["panoptic_seg"][1]) == 1


def test_outputs_have_the_size_that_is_asked_for() -> None:
    (output,) = run(build(), TOUCHING, height=60, width=100)
    assert output["panoptic_seg"][0].shape == (60, 100)
    assert output["instances"].pred_masks.shape == (2, 60, 100)
    assert output["sem_seg"].shape == (2, 60, 100)


def test_logits_that_are_nan_are_a_clear_error() -> None:
    with pytest.raises(ValueError, match="did the training diverge"):
        build()._build_output(torch.full((2, 3, 4), torch.nan))


@pytest.mark.parametrize("options", [{"depth_px": -1.0}, {"min_area_px": -1}])
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"_px must be a number from 0, got -1"):
        build(**options)


def test_weights_of_the_unet_recipe_load_and_losses_are_equal() -> None:
    register_models()
    models = []
    for recipe in ("nuclei/unet", "nuclei/unet_watershed"):
        cfg = load_config(
            recipe, ["MODEL.DEVICE", "cpu", "MODEL.UNET.CHANNELS", "4", "MODEL.WATERSHED.DEPTH_PX", "2.0"]
        )
        resolve_for_categories(cfg, CATEGORIES, "per_class", "nuclei")
        models.append(build_model(cfg))
    unet, watershed = models
    assert (watershed.depth_px, watershed.min_area_px) == (2.0, 20)
    watershed.load_state_dict(unet.state_dict(), strict=True)
    batch = [{"image": torch.rand(3, 32, 48) * 255, "sem_seg": torch.zeros(32, 48, dtype=torch.int64)}]
    losses = [model.train()(batch) for model in models]
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    logits = [model.eval()([{"image": batch[0]["image"]}])[0]["sem_seg"] for model in models]
    assert torch.equal(*logits)


def test_channels_without_a_meaning_are_refused() -> None:
    register_models()
    cfg = load_config("nuclei/unet_watershed", ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2"])
    with pytest.raises(ConfigError, match="the meaning of the 2 semantic channels of WatershedSegmentor is unknown"):
        build_model(cfg)
