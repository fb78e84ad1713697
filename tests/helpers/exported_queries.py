"""Mask transformers with random weights that give several segments, as `segkit.engine.export` takes them."""

from __future__ import annotations

import torch

from segkit.config import load_config
from segkit.data.class_counts import resolve_for_categories
from segkit.data.toy.dataset import CATEGORIES
from tests.helpers.exported import Source
from tests.helpers.tiny_vits import NAMES

FEW = "MODEL.QUERIES.NUM_QUERIES 18 MODEL.QUERIES.TEST.OBJECT_THRESHOLD 0.5 MODEL.QUERIES.TEST.OVERLAP_THRESHOLD 0.2"
MASK2FORMER = f"""{FEW} MODEL.MASK2FORMER.CHANNELS 32 MODEL.MASK2FORMER.ENCODER_LAYERS 1 MODEL.RESNETS.NORM GN
    INPUT.MIN_SIZE_TEST 96"""
EOMT = f"{FEW} MODEL.TIMM.PATCH_SIZE 16 MODEL.EOMT.NUM_BLOCKS 2 INPUT.MIN_SIZE_TEST 96"
LEARNED, ROTARY = f" MODEL.TIMM.NAME {NAMES[0]}", f" MODEL.TIMM.NAME {NAMES[2]}"  # positions
SQUARE_PX = 160
ANY_SIZE = " MODEL.TIMM.IMAGE_SIZE 0"
SQUARE = f" MODEL.TIMM.IMAGE_SIZE {SQUARE_PX} INPUT.MAX_SIZE_TEST {SQUARE_PX}"


def build_source(options: str, recipe: str = "toy/eomt_tiny") -> Source:
    """Queries of many classes, most of them sure of theirs, whose masks are not the same."""
    cfg = load_config(recipe, options.split())
    resolve_for_categories(cfg, CATEGORIES, "per_class", "toy")
    source = Source(cfg, CATEGORIES, thing_channels="per_class")
    with torch.no_grad():
        for name, weight in source.model.named_parameters():
            if "layer_scale" in name or ".ls1." in name or ".ls2." in name or name.endswith(("gamma_1", "gamma_2")):
                weight.fill_(1.0)
            elif name.endswith(("class_embed.weight", "class_head.weight")):
                weight.normal_(0, 0.7)
            elif name.endswith(("mask_embed.layers.2.weight", "mask_head.4.weight")):
                weight.mul_(6.0)
            elif "pos_embed" in name:
                weight.normal_(0, 0.5)
    return source


def build_mask2former(options: str = "") -> Source:
    """With a ResNet of 18 layers."""
    return build_source(f"{MASK2FORMER} {options}", "toy/mask2former_R18")
