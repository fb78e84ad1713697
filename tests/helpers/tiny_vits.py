"""Plain ViTs for timm's registry, as DINOv2's and DINOv3's but with 32 channels and 4 blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers import LayerNorm, SwiGLUPacked
from timm.models import generate_default_cfgs, register_model
from timm.models.eva import _create_eva
from timm.models.vision_transformer import _create_vision_transformer
from torch import nn

CHANNELS, BLOCKS, HEADS = 32, 4, 2
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "input_size": (3, 56, 56)}
SIZE: dict[str, Any] = {"embed_dim": CHANNELS, "depth": BLOCKS, "num_heads": HEADS}
DINOV2: dict[str, Any] = {**SIZE, "patch_size": 14, "init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}
DINOV3: dict[str, Any] = {
    **SIZE,
    "patch_size": 16,
    "dynamic_img_size": True,
    "qkv_bias": True,
    "init_values": 1e-5,
    "rope_type": "dinov3",
    "rope_temperature": 100,
    "rope_rotate_half": True,
    "use_rot_pos_emb": True,
    "use_abs_pos_emb": False,
    "num_reg_tokens": 4,
    "use_fc_norm": False,
    "norm_layer": partial(LayerNorm, eps=1e-5),
}
NAMES = ["tiny_vit_dinov2", "tiny_vit_dinov2_swiglu", "tiny_vit_dinov3", "tiny_vit_dinov3_gated"]
default_cfgs = generate_default_cfgs({f"{name}.none": IMAGENET for name in NAMES})


@register_model
def tiny_vit_dinov2(pretrained: bool = False, **options: Any) -> nn.Module:
    return _create_vision_transformer("tiny_vit_dinov2", pretrained, **{**DINOV2, **options})


@register_model
def tiny_vit_dinov2_swiglu(pretrained: bool = False, **options: Any) -> nn.Module:
    """As the giant: of 4 * 32 = 128 channels, SwiGLU has (128 * 2 / 3 + 7) // 8 * 8 = 88, twice."""
    swiglu = {"mlp_ratio": 2 * 88 / CHANNELS, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    return _create_vision_transformer("tiny_vit_dinov2_swiglu", pretrained, **{**DINOV2, **swiglu, **options})


@register_model
def tiny_vit_dinov3(pretrained: bool = False, **options: Any) -> nn.Module:
    return _create_eva("tiny_vit_dinov3", pretrained, **{**DINOV3, **options})


@register_model
def tiny_vit_dinov3_gated(pretrained: bool = False, **options: Any) -> nn.Module:
    gated = {"swiglu_mlp": True, "swiglu_align_to": 8}
    return _create_eva("tiny_vit_dinov3_gated", pretrained, **{**DINOV3, **gated, **options})
