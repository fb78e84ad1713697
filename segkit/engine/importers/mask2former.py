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
from segkit.engine.importers.config_keys import count_layers, find_size, infer_resnet
from segkit.utils.errors import CheckpointError

HEAD, PIXEL_DECODER, PREDICTOR = "sem_seg_head.", "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."
QUERIES = f"{PREDICTOR}query_feat.weight"
OLD_QUERIES = f"{PREDICTOR}static_query.weight"  # of the published files
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
    return any(name.startswith(f"{PREDICTOR}transformer_cross_attention_layers.") for name in shapes)


def _is_transformers(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    return any(name.startswith(TRANSFORMER) for name in shapes)


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
    classes = f"({re.escape(PREDICTOR)}class_embed.*|criterion.empty_weight)"
    converted.channels = find_size(shapes, classes, default=1) - 1
    converted.classes, converted.recipe = PUBLISHED.get(converted.channels, ("", PUBLISHED[133][1]))
    encoder, decoder = f"{PIXEL_DECODER}transformer.encoder.layers.", f"{PREDICTOR}transformer_ffn_layers."
    sizes = {
        "QUERIES.NUM_QUERIES": find_size(shapes, rf"{PREDICTOR}query_\w+.weight"),
        "MASK2FORMER.CHANNELS": find_size(shapes, rf"{PREDICTOR}.*norm.weight"),
        "MASK2FORMER.HEADS": find_size(shapes, rf"{encoder}\d+.self_attn.sampling_offsets.*") // POINTS_OF_HEAD,
        "MASK2FORMER.DECODER_LAYERS": count_layers(shapes, f"{decoder}{{}}."),
        "MASK2FORMER.ENCODER_LAYERS": count_layers(shapes, f"{encoder}{{}}."),
        "MASK2FORMER.DECODER_FEEDFORWARD": find_size(shapes, rf"{decoder}\d+.linear1.*"),
        "MASK2FORMER.ENCODER_FEEDFORWARD": find_size(shapes, rf"{encoder}\d+.linear1.*"),
    }
    converted.keys = {f"MODEL.{key}": value for key, value in sizes.items() if value}
    try:
        is_swin = any(name.startswith("backbone.layers.") for name in shapes)
        converted.keys |= _infer_swin(shapes) if is_swin else _infer_resnet(shapes)
    except CheckpointError as error:
        converted.unknown = error
    converted.notes.append("weights do not say which task they were trained for: the config predicts all that it can")


def _infer_swin(shapes: Shapes) -> dict[str, Any]:
    """MODEL.SWIN; a head's attention has a table of (2 * window - 1) ** 2 rows."""
    stages = range(count_layers(shapes, "backbone.layers.{}."))
    tables = "blocks.*bias_table"
    return {
        "MODEL.BACKBONE.NAME": "build_swin_backbone",
        "MODEL.SWIN.EMBED_DIM": find_size(shapes, "backbone.patch_embed.*"),
        "MODEL.SWIN.DEPTHS": [count_layers(shapes, f"backbone.layers.{stage}.blocks.{{}}.") for stage in stages],
        "MODEL.SWIN.NUM_HEADS": [find_size(shapes, f"backbone.layers.{stage}.{tables}", axis=1) for stage in stages],
        "MODEL.SWIN.WINDOW_SIZE": (math.isqrt(find_size(shapes, f"backbone.layers.*{tables}")) + 1) // 2,
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
