"""EoMT's tensors: the names of Hugging Face's transformers and of the official network, and ours.

Ours are timm's below `backbone.network.`, and those of the official heads below `head.`. Hugging Face has the queries,
keys and values of a block apart, timm has them in one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch

from segkit.engine.checkpoints.deltas import is_dinov3
from segkit.engine.importers.base import Weights

NETWORK = "backbone.network."
HEADS = {  # beginning of a name in transformers -> in our model
    "query.": "head.q.",
    "class_predictor.": "head.class_head.",
    "mask_head.fc1.": "head.mask_head.0.",
    "mask_head.fc2.": "head.mask_head.2.",
    "mask_head.fc3.": "head.mask_head.4.",
    "upscale_block.block.": "head.upscale.",
}
UPSCALE_NORM = ".layernorm2d."  # ".norm." in our model
POSITIONS = f"{NETWORK}pos_embed"
EMBEDDINGS = {
    "embeddings.cls_token": f"{NETWORK}cls_token",
    "embeddings.register_tokens": f"{NETWORK}reg_token",
    "embeddings.position_embeddings.weight": POSITIONS,
    "embeddings.patch_embeddings.projection.": f"{NETWORK}patch_embed.proj.",
    "layernorm.": f"{NETWORK}norm.",
}
EMBEDDINGS_V3 = {
    "embeddings.cls_token": f"{NETWORK}cls_token",
    "embeddings.register_tokens": f"{NETWORK}reg_token",
    "embeddings.patch_embeddings.": f"{NETWORK}patch_embed.proj.",
    "layernorm.": f"{NETWORK}norm.",
}
BLOCK = {
    "attention.out_proj.": "attn.proj.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
# SwiGLU of the giant of DINOv2, in transformers 5.24 in memory, and in its files.
BLOCK_SWIGLU = {**BLOCK, "mlp.down_proj.": "mlp.fc2."}
BLOCK_OLD_SWIGLU = {**BLOCK, "mlp.weights_in.": "mlp.fc1.", "mlp.weights_out.": "mlp.fc2."}
BLOCK_V3 = {
    "attention.q_proj.bias": "attn.q_bias",
    "attention.v_proj.bias": "attn.v_bias",
    "attention.o_proj.": "attn.proj.",
    "layer_scale1.lambda1": "gamma_1",
    "layer_scale2.lambda1": "gamma_2",
    "mlp.up_proj.": "mlp.fc1.",
    "mlp.down_proj.": "mlp.fc2.",
}
BLOCK_GATED_V3 = {**BLOCK_V3, "mlp.gate_proj.": "mlp.fc1_g.", "mlp.up_proj.": "mlp.fc1_x."}
# Layer in timm -> the layers in transformers whose rows it has, in this order.
QKV = {"attn.qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"]}
PACKED = {**QKV, "mlp.fc1": ["mlp.gate_proj", "mlp.up_proj"]}
LAYER = re.compile(r"layers\.(\d+)\.(.+)")
OURS = re.compile(rf"{re.escape(NETWORK)}blocks\.(\d+)\.(.+)")


class Rules(NamedTuple):
    """Names of one kind of network.

    Attributes:
        outside: beginning of a name in transformers, outside of the blocks -> in our model.
        block: the same within a block.
        merged: layer of a block of ours -> the layers in transformers whose rows it has.
    """

    outside: dict[str, str]
    block: dict[str, str]
    merged: dict[str, list[str]]


class Converted(NamedTuple):
    """Tensors with other names.

    Attributes:
        weights: name -> tensor.
        source_names: name -> names in the source, joined by " + ".
    """

    weights: Weights
    source_names: dict[str, str]


def from_hugging_face(weights: Mapping[str, torch.Tensor]) -> Converted:
    """Convert tensors of `EomtForUniversalSegmentation` or `EomtDinov3ForUniversalSegmentation`.

    Args:
        weights: the tensors; names that transformers does not have stay.

    Returns:
        Ours.
    """
    rules = _find_rules(weights)
    layers = {layer: ours for ours, parts in rules.merged.items() for layer in parts}
    converted, sources = Weights(), dict[str, str]()
    merged: dict[str, dict[str, str]] = {}  # our name -> layer in transformers -> name in transformers
    for name, weight in weights.items():
        match = LAYER.fullmatch(name)
        ours = _replace(match[2], rules.block) if match else _replace(name, rules.outside)
        layer, _, kind = ours.rpartition(".")
        if match and layer in layers:
            merged.setdefault(f"{NETWORK}blocks.{match[1]}.{layers[layer]}.{kind}", {})[layer] = name
            continue
        if match:
            ours = f"{NETWORK}blocks.{match[1]}.{ours}"
        elif ours.startswith("head.upscale."):
            ours = ours.replace(UPSCALE_NORM, ".norm.")
        converted[ours] = weight[None] if ours == POSITIONS else weight
        sources[ours] = name
    for ours, names in merged.items():
        parts = [names[layer] for layer in layers if layer in names]
        converted[ours] = torch.cat([weights[name] for name in parts])
        sources[ours] = " + ".join(parts)
    return Converted(converted, {ours: name for ours, name in sources.items() if ours != name})


def to_hugging_face(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Convert tensors of our EoMT; the inverse of `from_hugging_face`.

    Args:
        weights: state dict of our model.

    Returns:
        Those of transformers 5.24 without `attn_mask_probs`, which a trained model has as zeros.
    """
    rules = _find_rules(weights)
    outside, block = ({ours: theirs for theirs, ours in pairs.items()} for pairs in rules[:2])
    converted = Weights()
    for name, weight in weights.items():
        match = OURS.fullmatch(name)
        layer, _, kind = (match[2] if match else name).rpartition(".")
        if match and layer in rules.merged:
            parts = rules.merged[layer]
            rows = weight.chunk(len(parts))
            converted |= {f"layers.{match[1]}.{part}.{kind}": r for part, r in zip(parts, rows, strict=True)}
        elif match:
            converted[f"layers.{match[1]}.{_replace(match[2], block)}"] = weight
        else:
            theirs = _replace(name, outside)
            theirs = theirs.replace(".norm.", UPSCALE_NORM) if theirs.startswith("upscale_block.") else theirs
            converted[theirs] = weight[0] if name == POSITIONS else weight
    return converted


def _find_rules(weights: Mapping[str, torch.Tensor]) -> Rules:
    def has(*layers: str) -> bool:
        return any(name.endswith(tuple(f".{layer}.weight" for layer in layers)) for name in weights)

    if is_dinov3(weights):
        block = BLOCK_GATED_V3 if has("mlp.gate_proj", "mlp.fc1_g") else BLOCK_V3
        return Rules({**EMBEDDINGS_V3, **HEADS}, block, QKV)
    outside = {**EMBEDDINGS, **HEADS}
    if has("mlp.gate_proj") or _is_packed(weights):
        return Rules(outside, BLOCK_SWIGLU, PACKED)
    return Rules(outside, BLOCK_OLD_SWIGLU if has("mlp.weights_in") else BLOCK, QKV)


def _is_packed(weights: Mapping[str, torch.Tensor]) -> bool:
    """Timm's packed SwiGLU has the gate in its first layer: twice as many rows as its second one has columns."""
    first, second = (weights.get(f"{NETWORK}blocks.0.mlp.fc{number}.weight") for number in (1, 2))
    return first is not None and second is not None and len(first) == 2 * second.shape[1]


def _replace(name: str, beginnings: Mapping[str, str]) -> str:
    for old, new in beginnings.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name
