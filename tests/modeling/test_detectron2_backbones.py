"""Detectron2's own networks from YAML: shapes, and the names of its model zoo."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling import build_backbone

from segkit.config import load_config
from segkit.modeling import register_models
from segkit.utils.errors import ConfigError

RESNET = (
    "MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.OUT_FEATURES ['res2','res3','res4','res5'] MODEL.RESNETS.STEM_OUT_CHANNELS 8"
)
RESNET += " MODEL.RESNETS.RES2_OUT_CHANNELS 16 MODEL.FPN.IN_FEATURES ['res2','res3','res4','res5']"
SMALL = "MODEL.{0}.EMBED_DIM 16 MODEL.{0}.NUM_HEADS 2 MODEL.{0}.DEPTH 4"
# builder, options of a tiny variant, a weight and its shape as the zoo names it
ROWS = [
    ("resnet_fpn", f"{RESNET} MODEL.RESNETS.WIDTH_PER_GROUP 8", "bottom_up.res5.2.conv2.weight", (64, 64, 3, 3)),
    (  # ResNeXt: 2 groups of 4 channels in res2, 32 each in res5
        "resnet_fpn",
        f"{RESNET} MODEL.RESNETS.NUM_GROUPS 2 MODEL.RESNETS.WIDTH_PER_GROUP 4 MODEL.RESNETS.STRIDE_IN_1X1 False",
        "bottom_up.res5.2.conv2.weight",
        (64, 32, 3, 3),
    ),
    (
        "regnet_fpn",
        "MODEL.REGNET.DEPTH 13 MODEL.REGNET.W_A 28.0 MODEL.REGNET.W_0 24 MODEL.REGNET.GROUP_WIDTH 8",
        "bottom_up.s1.b1.f.a.weight",
        (24, 32, 1, 1),
    ),
    (
        "swin_fpn",
        "MODEL.SWIN.EMBED_DIM 12 MODEL.SWIN.DEPTHS [1,1,1,1] MODEL.SWIN.NUM_HEADS [1,1,2,2]",
        "bottom_up.layers.0.blocks.0.attn.relative_position_bias_table",
        (169, 1),  # (2 * 7 - 1) ** 2
    ),
    (
        "mvit_fpn",
        "MODEL.MVIT.EMBED_DIM 16 MODEL.MVIT.DEPTH 4 MODEL.MVIT.LAST_BLOCK_INDEXES [0,1,2,3]",
        "bottom_up.scale5_norm.weight",
        (128,),
    ),
    (
        "vit_simple_pyramid",
        f"{SMALL.format('VIT')} MODEL.VIT.GLOBAL_BLOCKS [1,3] MODEL.VIT.IMAGE_SIZE 64 MODEL.VIT.WINDOW_SIZE 2",
        "net.blocks.1.attn.rel_pos_h",  # of a global block: 2 * (64 / 16) - 1 rows, 16 / 2 channels of a head
        (7, 8),
    ),
]


def build(kind: str, options: str) -> Any:
    register_models()
    opts = ["MODEL.BACKBONE.NAME", f"build_{kind}_backbone", "MODEL.FPN.OUT_CHANNELS", "16", *options.split()]
    return build_backbone(load_config(opts=opts))


@pytest.mark.parametrize(("kind", "options", "name", "shape"), ROWS)
def test_networks_of_detectron2_feed_a_pyramid(kind: str, options: str, name: str, shape: tuple[int, ...]) -> None:
    backbone = build(kind, options).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert {level: tuple(feature.shape[1:]) for level, feature in features.items()} == {
        "p2": (16, 16, 24), "p3": (16, 8, 12), "p4": (16, 4, 6), "p5": (16, 2, 3), "p6": (16, 1, 2),
    }  # fmt: skip
    assert tuple(backbone.state_dict()[name].shape) == shape
    assert backbone.size_divisibility == 32


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("swin_fpn", "MODEL.FPN.IN_FEATURES ['res2']", "has the levels p0, p1, p2, p3, got res2"),
        ("vit_simple_pyramid", "MODEL.VIT.GLOBAL_BLOCKS [12]", r"below MODEL.VIT.DEPTH 12, got \[12\]"),
        ("regnet_fpn", "MODEL.PIXEL_MEAN [1.0,1.0,1.0,1.0]", "takes images of 3 channels, got 4"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(kind, options)
