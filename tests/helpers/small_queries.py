"""Small mask transformers with random weights, and samples for them."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances

from segkit.config import load_config
from segkit.modeling import register_models
from tests.helpers.tiny_vits import NAMES

ARCHITECTURES = ["Mask2Former", "EoMT"]
SIDE_PX = 64  # EoMT pads images to a square of this side
SIZES = "MODEL.QUERIES.NUM_QUERIES 6 MODEL.QUERIES.NUM_POINTS 64 MODEL.QUERIES.TEST.OBJECT_THRESHOLD 0.0"
CLASSES = "MODEL.QUERIES.NUM_CLASSES 3 MODEL.PANOPTIC.THING_IDS [0,1,-1] MODEL.PANOPTIC.STUFF_IDS [0,0,1]"
RECIPES = {
    "Mask2Former": (
        "toy/mask2former_R18",
        f"""{SIZES} MODEL.MASK2FORMER.ENCODER_LAYERS 1 MODEL.MASK2FORMER.DECODER_LAYERS 2
        MODEL.MASK2FORMER.CHANNELS 64 MODEL.BACKBONE.NAME build_swin_backbone MODEL.SWIN.EMBED_DIM 12
        MODEL.SWIN.DEPTHS [1,1,1,1] MODEL.SWIN.NUM_HEADS [1,1,2,2]""",
    ),
    "EoMT": (
        "toy/eomt_tiny",
        f"""{SIZES} MODEL.TIMM.NAME {NAMES[0]} MODEL.TIMM.PATCH_SIZE 16 MODEL.TIMM.IMAGE_SIZE {SIDE_PX}
        MODEL.EOMT.NUM_BLOCKS 2 INPUT.MIN_SIZE_TEST {SIDE_PX} INPUT.MAX_SIZE_TEST {SIDE_PX}
        INPUT.MAX_SIZE_TRAIN {SIDE_PX} TEST.AUG.MAX_SIZE {SIDE_PX}""",
    ),
}


def build_config(architecture: str, *options: Any) -> Any:
    """Of two things and a stuff class."""
    recipe, own = RECIPES[architecture]
    return load_config(recipe, [*own.split(), *CLASSES.split(), *map(str, options)])


def build(architecture: str, *options: Any, seed: int = 0) -> Any:
    register_models()
    torch.manual_seed(seed)
    return build_model(build_config(architecture, *options))


def draw_sample(height: int = SIDE_PX, width: int = SIDE_PX, seed: int = 0) -> dict[str, Any]:
    """A thing on the left half, stuff elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(1, height, width, dtype=torch.bool)
    masks[:, :, : width // 2] = True
    instances = Instances((height, width), gt_classes=torch.tensor([1]), gt_masks=BitMasks(masks))
    image = torch.rand(3, height, width, generator=generator) * 255
    labels = torch.where(masks[0], 1, 2)
    return {"image": image, "instances": instances, "sem_seg": labels, "height": height, "width": width}
