"""EoMT's own checkpoints, those of Hugging Face's transformers, and DINOv3 models that are differences from DINOv3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from segkit.engine.checkpoints.deltas import is_dinov3
from segkit.engine.importers.base import BASE, ConvertedWeights, Shapes, Weights, WeightSource, register_source
from segkit.engine.importers.config_keys import find_size
from segkit.engine.importers.eomt_names import NETWORK, OURS, POSITIONS, from_hugging_face
from segkit.utils.errors import CheckpointError
from segkit.utils.text import abbreviate

COMPILED = "_orig_mod."  # part of names that torch.compile adds
OFFICIAL, ENCODER = "network.", "network.encoder.backbone."
# DINOv3 in the official network, and in the files of DINOv3 itself -> in transformers' EoMT
OFFICIAL_V3 = {"patch_embed.": "embeddings.", "blocks.": "layers.", "norm.": "layernorm."}
BASE_V3 = {"layer.": "layers.", "norm.": "layernorm."}
CONSTANTS = {
    "network.encoder.pixel_mean": "a constant that the config sets",
    "network.encoder.pixel_std": "a constant that the config sets",
    "attn_mask_probs": "the training's schedule, which inference does not need",
    "rope_embeddings.inv_freq": "a constant",
    "embeddings.mask_token": "for the pre-training alone",
}
CLASSES, QUERIES, PATCHES = (
    "(head.class_head.*|criterion.empty_weight)",
    "head.q.weight",
    f"{NETWORK}patch_embed.proj.weight",
)
GATED = f"{NETWORK}blocks.0.mlp.fc1_g.weight"
DEFAULT_SIZE = 640
# (DINOv3, channels, blocks, gated MLP) -> (network of timm, blocks with queries)
NETWORKS = {
    (False, 384, 12, False): ("vit_small_patch14_reg4_dinov2.lvd142m", 3),
    (False, 768, 12, False): ("vit_base_patch14_reg4_dinov2.lvd142m", 3),
    (False, 1024, 24, False): ("vit_large_patch14_reg4_dinov2.lvd142m", 4),
    (False, 1536, 40, False): ("vit_giant_patch14_reg4_dinov2.lvd142m", 5),
    (True, 384, 12, False): ("vit_small_patch16_dinov3_qkvb.lvd1689m", 3),
    (True, 384, 12, True): ("vit_small_plus_patch16_dinov3_qkvb.lvd1689m", 3),
    (True, 768, 12, False): ("vit_base_patch16_dinov3_qkvb.lvd1689m", 3),
    (True, 1024, 24, False): ("vit_large_patch16_dinov3_qkvb.lvd1689m", 4),
    (True, 1280, 32, True): ("vit_huge_plus_patch16_dinov3_qkvb.lvd1689m", 4),
}
# Classes of the published weights, and whether they have 100 queries -> (key of KNOWN_CLASSES, recipe)
PUBLISHED = {
    (133, False): ("coco_all", "coco/eomt_L_dinov2_640"),
    (80, False): ("coco", "coco/eomt_instance_L_dinov2_640"),
    (150, False): ("", "ade20k/eomt_L_dinov2_640"),
    (150, True): ("", "ade20k/eomt_semantic_L_dinov2_512"),
    (19, True): ("cityscapes_semantic", "cityscapes/eomt_semantic_L_dinov2_1024"),
}
SEMANTIC_QUERIES = 100
JOINT = " + "  # between the names of tensors that become one
BASES = "the weights of DINOv3, such as model.safetensors of facebook/dinov3-vitl16-pretrain-lvd1689m"


def _is_official(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    return any(name.replace(COMPILED, "").startswith(f"{OFFICIAL}upscale.") for name in shapes)


def _is_transformers(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    return any(name.startswith("upscale_block.block.") for name in shapes)


def _convert_official(weights: Weights, entries: Mapping[str, Any]) -> ConvertedWeights:
    originals = {name.replace(COMPILED, ""): name for name in weights}
    is_v3 = is_dinov3(originals)
    kept, converted = _drop_constants({name: weights[original] for name, original in originals.items()})
    translated = {_translate(name, is_v3): name for name in kept}
    converted.weights, parts = {name: kept[official] for name, official in translated.items()}, dict[str, str]()
    if is_v3:
        converted.weights, parts = from_hugging_face(converted.weights)
    for name in converted.weights:
        sources = [originals[translated[part]] for part in parts.get(name, name).split(JOINT)]
        if sources != [name]:
            converted.source_names[name] = JOINT.join(sources)
    return _complete(converted, weights, entries)


def _convert_transformers(weights: Weights, entries: Mapping[str, Any]) -> ConvertedWeights:
    kept, converted = _drop_constants(weights)
    converted.weights, converted.source_names = from_hugging_face(kept)
    return _complete(converted, weights, entries)


def _translate(name: str, is_v3: bool) -> str:
    """DINOv2 and the heads as ours; DINOv3 as in transformers."""
    if name.startswith(ENCODER):
        rest = name.removeprefix(ENCODER)
        return _replace(rest, OFFICIAL_V3) if is_v3 else f"{NETWORK}{rest}"
    return f"head.{name.removeprefix(OFFICIAL)}" if name.startswith(OFFICIAL) else name


def _replace(name: str, beginnings: Mapping[str, str]) -> str:
    old = next((old for old in beginnings if name.startswith(old)), "")
    return beginnings[old] + name.removeprefix(old) if old else name


def _drop_constants(weights: Weights) -> tuple[Weights, ConvertedWeights]:
    dropped = {
        name: reason for name in weights for end, reason in CONSTANTS.items() if name == end or name.endswith(f".{end}")
    }
    kept = {name: weight for name, weight in weights.items() if name not in dropped}
    return kept, ConvertedWeights({}, dropped=dropped)


def _complete(converted: ConvertedWeights, weights: Weights, entries: Mapping[str, Any]) -> ConvertedWeights:
    """Add the base, and find the config and the classes from names and shapes."""
    if BASE in entries:
        _add_base(converted, entries[BASE])
    shapes = {name: tuple(weight.shape) for name, weight in converted.weights.items()}
    queries = find_size(shapes, QUERIES, default=200)
    channels = find_size(shapes, r".*\.norm1\.weight")
    blocks = len({match[1] for name in shapes if (match := OURS.fullmatch(name))})
    is_v3 = is_dinov3(shapes)
    known = NETWORKS.get((is_v3, channels, blocks, GATED in shapes))
    if known is None:
        problem = f"expected EoMT over a ViT of DINOv2 or DINOv3, got {blocks} blocks of {channels} channels"
        converted.unknown = CheckpointError(problem, remedy="give the config of the network, by --config-file")
        return converted
    probabilities = [weight for name, weight in weights.items() if name.endswith("attn_mask_probs")]
    patch = find_size(shapes, PATCHES, axis=3, default=16)
    side = math.isqrt(find_size(shapes, POSITIONS, axis=1)) * patch or DEFAULT_SIZE
    converted.channels = find_size(shapes, CLASSES, default=1) - 1
    is_semantic = queries == SEMANTIC_QUERIES
    default = "", PUBLISHED[133, False][1]
    converted.classes, converted.recipe = PUBLISHED.get((converted.channels, is_semantic), default)
    converted.keys = {
        "MODEL.TIMM.NAME": known[0],
        "MODEL.TIMM.WEIGHTS": "",
        "MODEL.TIMM.PATCH_SIZE": patch,
        "MODEL.TIMM.IMAGE_SIZE": side,
        "MODEL.EOMT.NUM_BLOCKS": probabilities[0].numel() if probabilities else known[1],
        "MODEL.EOMT.ROPE_RESCALE": 2.0 if is_v3 else 0.0,
        "MODEL.QUERIES.NUM_QUERIES": queries,
        "INPUT.LSJ.SIZE": side,
        "INPUT.MIN_SIZE_TEST": side,
    }
    if not is_semantic:
        converted.keys["INPUT.MAX_SIZE_TEST"] = side
    if is_v3:
        text = f"DINOv3's weights do not say the size of the images: set to {side} pixels (MODEL.TIMM.IMAGE_SIZE"
        converted.notes.append(f"{text}, INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST)")
    return converted


def _add_base(converted: ConvertedWeights, base: Weights) -> None:
    """Add DINOv3's weights to the differences from them; those of the heads are whole."""
    base, _ = _drop_constants({name.removeprefix("model."): weight for name, weight in base.items()})
    if any(name.startswith("blocks.") for name in base):  # of timm
        base = {f"{NETWORK}{name}": weight for name, weight in base.items()}
    else:
        base = from_hugging_face({_replace(name, BASE_V3): weight for name, weight in base.items()}).weights
    own = [name for name in converted.weights if name.startswith(NETWORK)]
    missing = [name for name in own if name not in base]
    reshaped = [name for name in own if name in base and base[name].shape != converted.weights[name].shape]
    if missing or reshaped:
        faults = [f"{len(missing)} tensors are missing: {abbreviate(missing)}"] if missing else []
        faults += [f"{len(reshaped)} have another shape: {abbreviate(reshaped)}"] if reshaped else []
        problem = f"expected the weights of the ViT that the differences were computed from; {'; '.join(faults)}"
        raise CheckpointError(problem, where="--base", remedy=f"give {BASES}, of the size of the model")
    for name in own:
        converted.weights[name] = converted.weights[name].float() + base[name].float()
    converted.notes.append(f"{len(own)} tensors of the ViT are the sum of the file and of --base")


for source in (
    WeightSource("eomt", "EoMT", _is_official, _convert_official, BASES),
    WeightSource("eomt-transformers", "transformers' EoMT", _is_transformers, _convert_transformers, BASES),
):
    register_source(source)
