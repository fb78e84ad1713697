"""EoMT as a meta-architecture: losses, outputs, annealing by the iteration, configs that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage

from segkit.config import load_config
from segkit.data.class_counts import resolve_for_categories
from segkit.data.toy.dataset import CATEGORIES
from segkit.modeling import register_models
from segkit.modeling.meta_arch.eomt import find_windows
from segkit.utils.errors import ConfigError
from tests.helpers.tiny_vits import NAMES

SIZE_PX, QUERIES, BLOCKS, CLASSES = 64, 6, 2, len(CATEGORIES)
OPTIONS = f"""MODEL.TIMM.NAME {NAMES[0]} MODEL.TIMM.PATCH_SIZE 16 MODEL.TIMM.IMAGE_SIZE {SIZE_PX}
    MODEL.QUERIES.NUM_QUERIES {QUERIES} MODEL.QUERIES.NUM_POINTS 64 MODEL.EOMT.NUM_BLOCKS {BLOCKS} SOLVER.MAX_ITER 100
    INPUT.MAX_SIZE_TEST {SIZE_PX} INPUT.MAX_SIZE_TRAIN {SIZE_PX}"""


def build(options: str = "") -> Any:
    register_models()
    cfg = load_config("toy/eomt_tiny", f"{OPTIONS} {options}".split())
    resolve_for_categories(cfg, CATEGORIES, "per_class", "toy")
    torch.manual_seed(0)
    return build_model(cfg)


def sample(height: int, width: int, with_objects: bool = True) -> dict[str, Any]:
    instances = Instances((height, width))
    masks = torch.zeros(2 if with_objects else 0, height, width, dtype=torch.bool)
    masks[:1, 4:20, 8:30] = True
    masks[1:, 30:44, 2:12] = True
    instances.gt_masks, instances.gt_classes = BitMasks(masks), torch.tensor([0, 2][: len(masks)])
    sem_seg = torch.full((height, width), 5)
    sem_seg[: height // 2] = 255 if with_objects else 5
    return {"image": torch.full((3, height, width), 100.0), "instances": instances, "sem_seg": sem_seg}


def test_each_block_has_its_losses_and_all_weights_are_trained() -> None:
    model = build()
    with EventStorage(0):
        losses = model([sample(64, 48), sample(48, 64, with_objects=False)])
    assert {*losses} == {f"loss_{n}{s}" for n in ("class", "mask", "dice") for s in ("", "_0", "_1")}
    sum(losses.values()).backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert idle == []
    assert {name.split(".")[0] for name in model.state_dict()} == {"backbone", "head", "criterion"}


def test_outputs_have_the_size_that_is_asked_for() -> None:
    model = build().eval()
    images = [{"image": torch.rand(3, 64, 40) * 255, "height": 128, "width": 80}, {"image": torch.rand(3, 30, 64)}]
    with torch.no_grad():
        outputs = model(images)
        (alone,) = model(images[1:])
    for output, size_hw in zip(outputs, [(128, 80), (30, 64)], strict=True):
        assert {*output} == {"panoptic_seg", "instances", "instance_masks", "sem_seg", "head_outputs"}
        assert output["panoptic_seg"][0].shape == size_hw
        assert output["sem_seg"].shape == (CLASSES, *size_hw)
        assert output["instances"].pred_masks.shape[1:] == size_hw
    torch.testing.assert_close(alone["sem_seg"], outputs[1]["sem_seg"])


def test_outputs_can_be_left_out() -> None:
    off = "MODEL.QUERIES.TEST.INSTANCE_ON False MODEL.QUERIES.TEST.PANOPTIC_ON False"
    assert {*build(off).eval()([{"image": torch.zeros(3, 64, 64)}])[0]} == {"sem_seg", "head_outputs"}


def test_images_larger_than_the_square_are_not_cut() -> None:
    with pytest.raises(ConfigError, match=r"pads images to 64 x 64 pixels, but .*MIN_SIZES 0 gives 65 x 40"):
        build().eval()([{"image": torch.zeros(3, 65, 40)}])


def test_images_are_padded_with_black() -> None:
    model = build()
    batch = model.preprocess_image([{"image": torch.full((3, 32, 64), 124.0)}]).tensor
    assert batch.shape == (1, 3, SIZE_PX, SIZE_PX)
    red = batch[0, 0]  # mean and standard deviation are 255 * 0.485 and 255 * 0.229
    assert torch.allclose(red[:32], torch.tensor((124 - 123.675) / 58.395), atol=1e-6)
    assert torch.allclose(red[32:], torch.tensor(-123.675 / 58.395), atol=1e-6)


@pytest.mark.parametrize(("iteration", "expected"), [(0, [1, 1]), (25, [0.5**0.9, 1]), (90, [0, 0])])
def test_masks_are_annealed_by_the_iteration(
    monkeypatch: pytest.MonkeyPatch, iteration: int, expected: list[float]
) -> None:
    model, probabilities = build(), list[float]()
    build_mask = model.head.build_mask
    monkeypatch.setattr(model.head, "build_mask", lambda *a: (probabilities.append(a[2]), build_mask(*a))[1])
    with EventStorage(iteration):
        model([sample(64, 64)])
    # The first of 2 blocks falls from 1/6 to 1/3 of the 100 iterations, which has its middle at 25.
    assert probabilities == pytest.approx(expected)


def test_without_a_storage_a_training_is_at_its_beginning() -> None:
    model = build()
    torch.manual_seed(0)
    alone = model([sample(64, 64)])
    torch.manual_seed(0)
    with EventStorage(0):
        assert model([sample(64, 64)])["loss_class"] == alone["loss_class"]


WINDOWS = """MODEL.EOMT.WINDOWS True MODEL.QUERIES.TEST.INSTANCE_ON False MODEL.QUERIES.TEST.PANOPTIC_ON False
    INPUT.MAX_SIZE_TEST 999 INPUT.MIN_SIZE_TEST 64"""


def test_windows_are_spread_over_the_longer_side() -> None:
    # 150 pixels need 3 windows of 64, whose starts are 86 / 2 = 43 pixels apart.
    assert find_windows((64, 150), 64) == [(slice(None), slice(first, first + 64)) for first in (0, 43, 86)]
    assert find_windows((128, 64), 64) == [(slice(0, 64), slice(None)), (slice(64, 128), slice(None))]
    assert find_windows((64, 40), 64) == [(slice(0, 64), slice(None))]
    with pytest.raises(ConfigError, match="shorter side is at most 64 pixels, got 65 x 80"):
        find_windows((65, 80), 64)


@torch.no_grad()
def test_scores_of_windows_are_averaged() -> None:
    model = build(WINDOWS).eval()
    image = torch.rand(3, 64, 96) * 255
    (output,) = model([{"image": image}])
    left, right = (model([{"image": part}])[0]["sem_seg"] for part in (image[..., :64], image[..., 32:]))
    assert {*output} == {"sem_seg"}
    torch.testing.assert_close(output["sem_seg"][..., :32], left[..., :32])
    torch.testing.assert_close(output["sem_seg"][..., 32:64], (left[..., 32:] + right[..., :32]) / 2)
    (resized,) = model([{"image": image, "height": 32, "width": 48}])
    assert resized["sem_seg"].shape == (CLASSES, 32, 48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "MODEL.EOMT.WINDOWS True INPUT.MIN_SIZE_TEST 64",
            "windows need an image size and classes of pixels alone, got panoptic_seg",
        ),
        ("MODEL.BACKBONE.NAME build_resnet_backbone", "EoMT needs a plain ViT of timm, got build_resnet_backbone"),
        ("MODEL.TIMM.NORM FrozenBN", "a plain ViT has no NORM"),
        ("INPUT.MAX_SIZE_TEST 96", "pads images to 64 x 64 pixels, but INPUT.MAX_SIZE_TEST 96 allow larger ones"),
        ("INPUT.LSJ.ENABLED True INPUT.LSJ.SIZE 80", "INPUT.LSJ.SIZE 80"),
        ("TEST.AUG.ENABLED True TEST.AUG.MAX_SIZE 96", "but TEST.AUG.MAX_SIZE 96 allow larger ones"),
        ("MODEL.EOMT.WINDOWS True TEST.AUG.ENABLED True", "views of TEST.AUG are not evaluated in windows"),
        ("MODEL.TIMM.PATCH_SIZE 14", "expected a multiple of .* patch of 14 pixels, got 64"),
        ("MODEL.QUERIES.NUM_CLASSES 7", "NUM_CLASSES is 7, but the dataset toy needs 8"),
        ("MODEL.EOMT.ANNEALING_STARTS [0.1]", "expected 2 shares of the training"),
    ],
)
def test_configs_that_do_not_fit_are_clear_errors(options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(options)
