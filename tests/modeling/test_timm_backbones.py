"""timm's networks as backbones: levels, sizes of images, order of channels, pyramids, errors."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from detectron2.modeling import build_backbone
from detectron2.structures import ImageList
from torch.nn import functional as F

from segkit.config import load_config
from segkit.modeling import register_models
from segkit.modeling.backbones.bifpn import BiFPNLayer
from segkit.modeling.backbones.timm_network import TimmBackbone
from segkit.utils.errors import ConfigError

PYRAMID_32 = {"p2": (32, 16, 24), "p3": (32, 8, 12), "p4": (32, 4, 6), "p5": (32, 2, 3), "p6": (32, 1, 2)}


def build(name: str, kind: str = "fpn", *options: str) -> Any:
    register_models()
    builder = f"build_timm_{kind}_backbone" if kind else "build_timm_backbone"
    small = ["MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", "32"]
    return build_backbone(load_config(opts=["MODEL.BACKBONE.NAME", builder, "MODEL.TIMM.NAME", name, *small, *options]))


@pytest.mark.parametrize(
    ("name", "kind", "channels"),
    [
        ("test_resnet.r160_in1k", "fpn", (32, 48, 192, 96)),
        ("test_convnext", "fpn", (24, 32, 48, 64)),
        ("swin_tiny_patch4_window7_224", "fpn", (96, 192, 384, 768)),
        ("tf_efficientnet_lite0", "bifpn", (24, 40, 112, 320)),
    ],
)
def test_every_kind_of_network_feeds_a_pyramid(name: str, kind: str, channels: tuple[int, ...]) -> None:
    backbone = build(name, kind).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert {level: tuple(feature.shape[1:]) for level, feature in features.items()} == PYRAMID_32
    assert [shape.stride for shape in backbone.output_shape().values()] == [4, 8, 16, 32, 64]
    shapes = backbone.bottom_up.output_shape()
    assert [(shapes[f"res{level}"].channels, shapes[f"res{level}"].stride) for level in (2, 3, 4, 5)] == [
        *zip(channels, (4, 8, 16, 32), strict=True)
    ]
    names = {*timm.create_model(name, num_classes=0).state_dict()}
    assert {*backbone.bottom_up.network.state_dict()} <= names


@pytest.mark.parametrize(("name", "options"), [("test_vit", ()), ("test_vit2", ("MODEL.TIMM.PATCH_SIZE", "16"))])
def test_a_plain_vit_has_a_simple_pyramid_for_images_of_any_size(name: str, options: tuple[str, ...]) -> None:
    backbone = build(name, "simple_pyramid", *options).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert {level: tuple(feature.shape[1:]) for level, feature in features.items()} == PYRAMID_32
    assert backbone.padding_constraints == {"size_divisibility": 32, "square_size": 0}
    assert {name.partition(".")[0] for name in backbone.state_dict()} == {
        "net",
        "simfp_2",
        "simfp_3",
        "simfp_4",
        "simfp_5",
    }


def test_a_network_of_one_size_takes_it_though_it_is_no_multiple_of_the_last_stride() -> None:
    """LeViT: 224 = 3.5 x 64; the map of stride 64 has 4 x 4 pixels. One image of 200 x 180 is padded to 224 x 224."""
    backbone = build("levit_128s", "", "INPUT.MAX_SIZE_TRAIN", "224", "INPUT.MAX_SIZE_TEST", "224").eval()
    image = torch.zeros(3, 200, 180)
    padding = {"padding_constraints": backbone.padding_constraints}
    batch = ImageList.from_tensors([image], backbone.size_divisibility, **padding).tensor
    with torch.no_grad():
        features = backbone(batch)
    assert batch.shape[2:] == (224, 224)
    assert {level: feature.shape[2] for level, feature in features.items()} == {"res4": 14, "res5": 7, "res6": 4}


def test_dilated_networks_keep_the_names_of_their_levels() -> None:
    """Of strides 2, 4, 8, 16, 32 the last two become 8 too."""
    backbone = build("test_resnet", "", "MODEL.TIMM.OUTPUT_STRIDE", "8").eval()
    assert [(k, shape.stride) for k, shape in backbone.output_shape().items()][-4:] == [
        ("res2", 4), ("res3", 8), ("res4", 8), ("res5", 8),
    ]  # fmt: skip
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 32, 32))["res5"].shape[2:] == (4, 4)
    assert backbone.size_divisibility == 8


def test_constants_are_those_of_timm_in_the_order_of_the_images() -> None:
    options = ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME"]
    bgr = load_config(opts=[*options, "convnext_tiny.fb_in22k"])
    assert bgr.INPUT.FORMAT == "BGR"
    assert bgr.MODEL.PIXEL_MEAN == [103.53, 116.28, 123.675]  # 255 x (0.406, 0.456, 0.485)
    assert bgr.MODEL.PIXEL_STD == [57.375, 57.12, 58.395]
    rgb = load_config(opts=[*options, "convnext_tiny", "INPUT.FORMAT", "RGB", "MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"])
    assert rgb.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert rgb.MODEL.PIXEL_STD == [1.0, 1.0, 1.0]
    half = load_config(opts=[*options, "vit_tiny_patch16_224"])
    assert half.MODEL.PIXEL_MEAN == half.MODEL.PIXEL_STD == [127.5] * 3
    assert load_config().MODEL.PIXEL_STD == [1.0, 1.0, 1.0]  # Detectron2's, of its own networks


def test_bgr_images_reach_the_network_as_rgb() -> None:
    rgb, bgr = (TimmBackbone("test_resnet", image_format=order).eval() for order in ("RGB", "BGR"))
    bgr.load_state_dict(rgb.state_dict())
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(rgb(image)["res5"], bgr(image.flip(1))["res5"])
        assert not torch.equal(rgb(image)["res5"], bgr(image)["res5"])


def test_frozen_batch_norm_keeps_names_and_statistics() -> None:
    plain, frozen = TimmBackbone("test_efficientnet"), TimmBackbone("test_efficientnet", norm="FrozenBN")
    names = {name for name in plain.state_dict() if not name.endswith("num_batches_tracked")}
    assert {*frozen.state_dict()} == names
    before = {name: buffer.clone() for name, buffer in frozen.named_buffers()}
    frozen.train()(torch.rand(1, 3, 64, 64))
    assert all(torch.equal(buffer, before[name]) for name, buffer in frozen.named_buffers())


def test_a_bifpn_layer_is_the_papers_formula() -> None:
    """Three levels, written out: equations of section 3.3, with identity convolutions."""
    torch.manual_seed(0)
    layer = BiFPNLayer(3, 4, "").eval()
    for conv in [*layer.down_convs, *layer.up_convs]:
        torch.nn.init.dirac_(conv[0].weight, groups=4)
        torch.nn.init.dirac_(conv[1].weight)
        torch.nn.init.zeros_(conv[1].bias)
    for weights in [*layer.down_weights, *layer.up_weights]:
        torch.nn.init.uniform_(weights, -0.5, 1.5)
    p0, p1, p2 = (torch.randn(1, 4, side, side) for side in (8, 4, 2))

    def fuse(weights: torch.Tensor, *maps: torch.Tensor) -> torch.Tensor:
        positive = [max(0.0, w) for w in weights.tolist()]
        mean = sum(w * m for w, m in zip(positive, maps, strict=True)) / (sum(positive) + 1e-4)
        return mean * torch.sigmoid(mean)

    def up(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def down(x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, 3, 2, 1)

    td1 = fuse(layer.down_weights[1], p1, up(p2))
    out0 = fuse(layer.down_weights[0], p0, up(td1))
    out1 = fuse(layer.up_weights[0], p1, td1, down(out0))
    out2 = fuse(layer.up_weights[1], p2, down(out1))
    with torch.no_grad():
        for ours, expected in zip(layer([p0, p1, p2]), (out0, out1, out2), strict=True):
            torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("name", "kind", "options", "message"),
    [
        ("convnext_tinny", "fpn", "", "knows no network 'convnext_tinny'; did you mean convnext_tiny"),
        ("convnext_tiny.fb", "fpn", "", "no weights with the tag 'fb'; choose one of .*convnext_tiny.fb_in22k"),
        ("test_vit", "fpn", "", "has res4 .stride 16.* build_timm_simple_pyramid_backbone"),
        ("test_resnet", "simple_pyramid", "", "needs a plain ViT with patches of 16 pixels"),
        ("vit_tiny_patch16_224", "fpn", "MODEL.TIMM.OUTPUT_STRIDE 16", "cannot be built with .*output_stride=16"),
        ("test_resnet", "fpn", "MODEL.TIMM.OUTPUT_STRIDE 16", "set MODEL.TIMM.OUTPUT_STRIDE 32"),
        ("test_resnet", "fpn", "MODEL.TIMM.NORM GN", "expected FrozenBN or an empty text, got 'GN'"),
        ("maxvit_rmlp_pico_rw_256", "fpn", "", "takes images of 256 pixels only, INPUT allows 1333"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_model_is_built(name: str, kind: str, options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, kind, *options.split())


def test_sizes_that_the_network_does_not_take_are_refused_at_the_first_image() -> None:
    backbone = TimmBackbone("test_resnet")
    with pytest.raises(ConfigError, match="expects images of multiples of 32 pixels, got 20 x 64; pad them"):
        backbone(torch.zeros(1, 3, 20, 64))
