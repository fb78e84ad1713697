"""Mask2Former's own checkpoints, whose names are ours, and those of Hugging Face's transformers.

Tensors are recognised by their names alone: whether a file keeps PyTorch's `_metadata`, by which the official code
decides how names were meant, makes no difference.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from segkit.engine.importers.base import (
    BOTTOM_UP,
    ConvertedWeights,
    Shapes,
    Weights,
    WeightSource,
    register_source,
    rename,
)
from segkit.engine.importers.config_keys import count_layers, infer_resnet

HEAD, PIXEL_DECODER, PREDICTOR = "sem_seg_head.", "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."
QUERIES = f"{PREDICTOR}query_feat.weight"
OLD_QUERIES = f"{PREDICTOR}static_query.weight"  # of the published files
CLASSES = f"{PREDICTOR}class_embed.weight"
OFFSETS = f"{PIXEL_DECODER}transformer.encoder.layers.0.self_attn.sampling_offsets.weight"
PATCHES = "backbone.patch_embed.proj.weight"
POINTS_OF_HEAD = 3 * 4 * 2  # levels, points, x and y
CONSTANTS = ("pixel_mean", "pixel_std")
# Classes of the published weights -> (key of KNOWN_CLASSES, recipe)
PUBLISHED = {
    133: ("coco_all", "coco/mask2former_R50_panoptic_50ep"),
    80: ("coco", "coco/mask2former_R50_instance_50ep"),
    19: ("cityscapes_panoptic", "cityscapes/mask2former_R50_panoptic_90k"),
    8: ("cityscapes_things", "cityscapes/mask2former_R50_instance_90k"),
}
# Our names and those of transformers: `#` is a number, `[qkv]` the three parts of a tensor of ours, along its rows.
DECODER, TRANSFORMER = "model.pixel_level_module.decoder.", "model.transformer_module."
SWIN = "model.pixel_level_module.encoder."
PAIRS = [
    ("backbone.patch_embed.proj.", f"{SWIN}swin.embeddings.patch_embeddings.projection."),
    ("backbone.patch_embed.norm.", f"{SWIN}swin.embeddings.norm."),
    ("backbone.layers.#.downsample.", f"{SWIN}swin.encoder.layers.#.downsample."),
    ("backbone.layers.#.blocks.#.norm1.", f"{SWIN}swin.encoder.layers.#.blocks.#.layernorm_before."),
    ("backbone.layers.#.blocks.#.norm2.", f"{SWIN}swin.encoder.layers.#.blocks.#.layernorm_after."),
    ("backbone.layers.#.blocks.#.attn.qkv.", f"{SWIN}swin.encoder.layers.#.blocks.#.attention.[qkv]_proj."),
    ("backbone.layers.#.blocks.#.attn.proj.", f"{SWIN}swin.encoder.layers.#.blocks.#.attention.o_proj."),
    (
        "backbone.layers.#.blocks.#.attn.relative_position_",
        f"{SWIN}swin.encoder.layers.#.blocks.#.attention.relative_position_bias.relative_position_",
    ),
    ("backbone.layers.#.blocks.#.mlp.", f"{SWIN}swin.encoder.layers.#.blocks.#.mlp."),
    *((f"backbone.norm{stage}.", f"{SWIN}hidden_states_norms.stage{stage + 1}.") for stage in range(4)),
    (f"{PIXEL_DECODER}input_proj.", f"{DECODER}input_projections."),
    (f"{PIXEL_DECODER}transformer.level_embed", f"{DECODER}level_embed"),
    (f"{PIXEL_DECODER}transformer.encoder.layers.#.self_attn.", f"{DECODER}encoder.layers.#.self_attn."),
    (f"{PIXEL_DECODER}transformer.encoder.layers.#.norm1.", f"{DECODER}encoder.layers.#.self_attn_layer_norm."),
    (f"{PIXEL_DECODER}transformer.encoder.layers.#.linear1.", f"{DECODER}encoder.layers.#.fc1."),
    (f"{PIXEL_DECODER}transformer.encoder.layers.#.linear2.", f"{DECODER}encoder.layers.#.fc2."),
    (f"{PIXEL_DECODER}transformer.encoder.layers.#.norm2.", f"{DECODER}encoder.layers.#.final_layer_norm."),
    (f"{PIXEL_DECODER}mask_features.", f"{DECODER}mask_projection."),
    (f"{PIXEL_DECODER}adapter_1.norm.", f"{DECODER}adapter_1.1."),
    (f"{PIXEL_DECODER}adapter_1.", f"{DECODER}adapter_1.0."),
    (f"{PIXEL_DECODER}layer_1.norm.", f"{DECODER}layer_1.1."),
    (f"{PIXEL_DECODER}layer_1.", f"{DECODER}layer_1.0."),
    (f"{PREDICTOR}query_feat.", f"{TRANSFORMER}queries_features."),
    (f"{PREDICTOR}query_embed.", f"{TRANSFORMER}queries_embedder."),
    (f"{PREDICTOR}level_embed.", f"{TRANSFORMER}level_embed."),
    (
        f"{PREDICTOR}transformer_self_attention_layers.#.self_attn.in_proj_",
        f"{TRANSFORMER}decoder.layers.#.self_attn.[qkv]_proj.",
    ),
    (
        f"{PREDICTOR}transformer_self_attention_layers.#.self_attn.out_proj.",
        f"{TRANSFORMER}decoder.layers.#.self_attn.out_proj.",
    ),
    (
        f"{PREDICTOR}transformer_self_attention_layers.#.norm.",
        f"{TRANSFORMER}decoder.layers.#.self_attn_layer_norm.",
    ),
    (
        f"{PREDICTOR}transformer_cross_attention_layers.#.multihead_attn.",
        f"{TRANSFORMER}decoder.layers.#.cross_attn.",
    ),
    (
        f"{PREDICTOR}transformer_cross_attention_layers.#.norm.",
        f"{TRANSFORMER}decoder.layers.#.cross_attn_layer_norm.",
    ),
    (f"{PREDICTOR}transformer_ffn_layers.#.linear1.", f"{TRANSFORMER}decoder.layers.#.fc1."),
    (f"{PREDICTOR}transformer_ffn_layers.#.linear2.", f"{TRANSFORMER}decoder.layers.#.fc2."),
    (f"{PREDICTOR}transformer_ffn_layers.#.norm.", f"{TRANSFORMER}decoder.layers.#.final_layer_norm."),
    (f"{PREDICTOR}decoder_norm.", f"{TRANSFORMER}decoder.layernorm."),
    (f"{PREDICTOR}mask_embed.layers.#.", f"{TRANSFORMER}decoder.mask_predictor.mask_embedder.#.0."),
    (f"{PREDICTOR}class_embed.", "class_predictor."),
    ("criterion.empty_weight", "criterion.empty_weight"),
]
# Names of transformers before 5, which its files keep.
OLD_SWIN = [
    (rf"^{re.escape(SWIN)}(encoder|embeddings)\.", rf"{SWIN}swin.\1."),
    (r"\.attention\.self\.query\.", ".attention.q_proj."),
    (r"\.attention\.self\.key\.", ".attention.k_proj."),
    (r"\.attention\.self\.value\.", ".attention.v_proj."),
    (r"\.attention\.self\.relative_position_", ".attention.relative_position_bias.relative_position_"),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(\.blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
]
UNUSED = f"{SWIN}swin.layernorm."  # a norm after the last level, which transformers computes and does not use


def _is_official(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    return QUERIES in shapes or OLD_QUERIES in shapes


def _is_transformers(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    return f"{TRANSFORMER}queries_features.weight" in shapes


def _convert_official(weights: Weights, _entries: Mapping[str, Any]) -> ConvertedWeights:
    dropped = {name: "a constant that the config sets" for name in weights if name in CONSTANTS}
    weights = {name: weight for name, weight in weights.items() if name not in dropped}
    renamed, source_names = rename(weights, _translate)
    converted = ConvertedWeights(renamed, source_names=source_names, dropped=dropped)
    _describe(converted)
    return converted


def _translate(name: str) -> str:
    """Old files lack the part `pixel_decoder`; files that the official code has misread have it twice."""
    if name == OLD_QUERIES:
        return QUERIES
    if not name.startswith(HEAD) or name.startswith(PREDICTOR):
        return name
    rest = name.removeprefix(HEAD)
    while rest.startswith("pixel_decoder."):
        rest = rest.removeprefix("pixel_decoder.")
    return PIXEL_DECODER + rest


def _convert_transformers(weights: Weights, _entries: Mapping[str, Any]) -> ConvertedWeights:
    converted = ConvertedWeights({})
    parts: dict[str, dict[str, str]] = {}
    for name in weights:
        ours, part = translate_from_transformers(name)
        if ours.startswith(UNUSED):
            converted.dropped[name] = "not used by the model"
        elif part:
            parts.setdefault(ours, {})[part] = name
        else:
            converted.weights[ours] = weights[name]
            converted.source_names[ours] = name
    for ours, names in parts.items():
        tensors = [weights[names[part]] for part in "qkv" if part in names]
        if len(tensors) == len("qkv") and len({tensor.shape[1:] for tensor in tensors}) == 1:
            converted.weights[ours] = torch.cat(tensors)
            converted.source_names[ours] = names["q"].replace("q_proj", "{q,k,v}_proj").replace("query", "{q,k,v}")
        else:  # reported as unexpected, and the whole as missing
            converted.weights |= {name: weights[name] for name in names.values()}
    _describe(converted)
    return converted


def translate_from_transformers(name: str) -> tuple[str, str]:
    """Translate a name of transformers' Mask2FormerForUniversalSegmentation with a Swin.

    Args:
        name: of a tensor; names of transformers before 5 are understood too.

    Returns:
        (our name, "q", "k" or "v" for a tensor that is a part of ours, otherwise ""). A name that is unknown stays.
    """
    for pattern, replacement in OLD_SWIN:
        name = re.sub(pattern, replacement, name)
    for ours, theirs in PAIRS:
        pattern = re.escape(theirs).replace(r"\#", r"(\d+)").replace(r"\[qkv\]", "(?P<part>[qkv])")
        if match := re.match(pattern, name):
            numbers = (group for group in match.groups() if group.isdigit())
            prefix = re.sub("#", lambda _: next(numbers), ours)  # noqa: B023
            return prefix + name[match.end() :], match.groupdict().get("part", "")
    return name, ""


def _describe(converted: ConvertedWeights) -> None:
    """Find the config and the classes from names and shapes."""
    shapes = {name: tuple(weight.shape) for name, weight in converted.weights.items()}
    converted.channels = shapes.get(CLASSES, (1,))[0] - 1
    converted.classes, converted.recipe = PUBLISHED.get(converted.channels, ("", PUBLISHED[133][1]))
    layers = f"{PREDICTOR}transformer_ffn_layers.{{}}.norm.weight"
    encoder = f"{PIXEL_DECODER}transformer.encoder.layers.{{}}.norm1.weight"
    queries, channels = shapes.get(QUERIES, (0, 0))
    sizes = {
        "MODEL.QUERIES.NUM_QUERIES": queries,
        "MODEL.MASK2FORMER.CHANNELS": channels,
        "MODEL.MASK2FORMER.HEADS": shapes.get(OFFSETS, (0,))[0] // POINTS_OF_HEAD,
        "MODEL.MASK2FORMER.DECODER_LAYERS": count_layers(shapes, layers),
        "MODEL.MASK2FORMER.ENCODER_LAYERS": count_layers(shapes, encoder),
        "MODEL.MASK2FORMER.DECODER_FEEDFORWARD": shapes.get(
            f"{PREDICTOR}transformer_ffn_layers.0.linear1.weight", (0,)
        )[0],
        "MODEL.MASK2FORMER.ENCODER_FEEDFORWARD": shapes.get(
            f"{PIXEL_DECODER}transformer.encoder.layers.0.linear1.weight", (0,)
        )[0],
    }
    converted.keys = {key: value for key, value in sizes.items() if value}
    converted.keys |= _infer_swin(shapes) if PATCHES in shapes else _infer_resnet(shapes)
    converted.notes.append("weights do not say which task they were trained for: the config predicts all that it can")


def _infer_swin(shapes: Shapes) -> dict[str, Any]:
    """MODEL.SWIN; a head's attention has a table of (2 * window - 1) ** 2 rows."""
    depths, heads, rows = [], [], 0
    for stage in range(count_layers(shapes, "backbone.layers.{}.blocks.0.norm1.weight")):
        blocks = f"backbone.layers.{stage}.blocks."
        tables = [shape for name, shape in shapes.items() if name.startswith(blocks) and name.endswith("bias_table")]
        depths.append(count_layers(shapes, f"{blocks}{{}}.norm1.weight"))
        rows, count = max(tables, default=(0, 0))
        heads.append(count)
    return {
        "MODEL.BACKBONE.NAME": "build_swin_backbone",
        "MODEL.SWIN.EMBED_DIM": shapes[PATCHES][0],
        "MODEL.SWIN.DEPTHS": depths,
        "MODEL.SWIN.NUM_HEADS": heads,
        "MODEL.SWIN.WINDOW_SIZE": (math.isqrt(rows) + 1) // 2,
    }


def _infer_resnet(shapes: Shapes) -> dict[str, Any]:
    with_prefix = {name.replace("backbone.", BOTTOM_UP, 1): shape for name, shape in shapes.items()}
    keys = infer_resnet(with_prefix, "")
    keys["MODEL.RESNETS.STRIDE_IN_1X1"] = False  # all of Mask2Former's ResNets are torchvision's
    keys.pop("MODEL.PIXEL_STD", None)
    return keys


for source in (
    WeightSource("mask2former", "Mask2Former", _is_official, _convert_official),
    WeightSource("mask2former-transformers", "transformers' Mask2Former", _is_transformers, _convert_transformers),
):
    register_source(source)
