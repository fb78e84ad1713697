"""Weights of another package, checked against our model and written as ours, with the config that they need."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from segkit.config import load_config
from segkit.data.class_counts import resolve_for_categories
from segkit.engine.checkpoints.checkpointer import require_weights
from segkit.engine.checkpoints.deltas import are_deltas, is_dinov3, refuse_deltas
from segkit.engine.checkpoints.weight_files import read_weight_file, write_weight_file
from segkit.engine.importers.base import BASE, BOTTOM_UP, ConvertedWeights, Weights, WeightSource, find_source
from segkit.engine.importers.known_classes import load_classes
from segkit.engine.importers.tensor_report import MISSING, OTHER_SHAPE, UNEXPECTED, ImportReport, compare_tensors
from segkit.structures import Category, CategorySet
from segkit.structures.categories import default_color
from segkit.utils.errors import CheckpointError, ConfigError
from segkit.utils.files import replacing
from segkit.utils.text import abbreviate

CONFIG_SUFFIX = ".yaml"
HEADER = "# Written by `segkit import`."
DDP_PREFIX = "module."
GIVE_CLASSES = "give --classes, the name of a dataset or a JSON file with `categories`"


def import_weights(
    path: str,
    output: str | Path,
    *,
    source: str = "",
    config_file: str = "",
    classes: str = "",
    base: str = "",
    on_report: Callable[[ImportReport], Any] = lambda report: None,
) -> ImportReport:
    """Read weights of another package, and write them as ours, with their classes and the config that they need.

    The config is written beside the weights, with the suffix .yaml. No code of the file is run.

    Args:
        path: the file, or an address that Detectron2 knows.
        output: the file to write: .pth or .safetensors.
        source: name of a source of `get_sources`; "": recognised from names and shapes.
        config_file: config of our model; "": found from names and shapes.
        classes: key of `KNOWN_CLASSES`, name of a dataset, or JSON with `categories`; "": those that the source is
            known for, or, of other class counts, none.
        base: file of the weights to which the file's differences are added; "": none.
        on_report: is called with the report before weights that do not fill the model are refused.

    Returns:
        What became of each tensor.

    Raises:
        CheckpointError: the file cannot be read, is of no known source, or does not fill the model.
        ConfigError: the config or the classes do not fit.
    """
    output = Path(output)
    config = output.with_suffix(CONFIG_SUFFIX)
    if not config_file:
        _check_replaceable(config)
    entries = read_weight_file(require_weights(path))
    weights = _as_tensors(entries.pop("model"))
    try:
        chosen = find_source(weights, entries, source, path)
    except CheckpointError:
        refuse_deltas(weights, path)  # the better reason
        raise
    entries = {**entries, **_read_base(chosen, weights, base, path)}
    converted = chosen.convert(weights, entries)
    if converted.unknown and not config_file:
        raise CheckpointError(converted.unknown.problem, where=path, remedy=converted.unknown.remedy)
    categories = _choose_classes(converted, classes)
    channels = _find_thing_channels(converted, categories, classes or converted.classes or path)
    cfg = _build_config(converted, config_file)
    resolve_for_categories(cfg, categories, channels, "of the weights")
    shapes = {name: tuple(weight.shape) for name, weight in build_model(cfg).state_dict().items()}
    report = compare_tensors(converted, shapes, chosen.name)
    report.notes += converted.notes
    if not report.is_backbone:
        report.classes = [category.name for category in categories.categories]
    on_report(report)
    _refuse_gaps(report, config_file, converted.recipe, path)
    checkpoint: dict[str, Any] = {"model": {name: converted.weights[name].contiguous() for name in report.loaded}}
    if not report.is_backbone:
        checkpoint["segkit"] = {"categories": categories.to_coco(), "thing_channels": channels, "plugins": []}
    write_weight_file(output, checkpoint)
    if not config_file:
        report.config = config
        _write_config(config, converted, output)
    return report


def _read_base(chosen: WeightSource, weights: Weights, base: str, path: str) -> dict[str, Weights]:
    """The entry of the base. Weights without one must not be differences."""
    if not base:
        if chosen.base and is_dinov3(weights):
            refuse_deltas(weights, path, f"give {chosen.base}, by --base")
        return {}
    if not chosen.base or not are_deltas(weights):
        problem = f"expected differences from other weights, got whole weights of {chosen.summary}"
        raise ConfigError(problem, where=path, remedy="leave out --base")
    return {BASE: _as_tensors(read_weight_file(require_weights(base))["model"])}


def _as_tensors(weights: Mapping[str, Any]) -> Weights:
    """Arrays of .pkl files as tensors, without the prefix of DistributedDataParallel."""
    tensors = {name: torch.as_tensor(weight) for name, weight in weights.items()}
    if all(name.startswith(DDP_PREFIX) for name in tensors):
        return {name.removeprefix(DDP_PREFIX): weight for name, weight in tensors.items()}
    return tensors


def _choose_classes(converted: ConvertedWeights, name: str) -> CategorySet:
    """The named or known classes; otherwise numbered ones."""
    if name or converted.classes:
        return load_classes(name or converted.classes)
    if converted.things and converted.channels:
        problem = (
            f"the classes of {converted.things} thing classes and {converted.channels} semantic channels are unknown"
        )
        raise ConfigError(problem, where="--classes", remedy=GIVE_CLASSES)
    if converted.things or converted.channels:
        converted.notes.append(f"the names of the classes are unknown: they are numbered; {GIVE_CLASSES}")
    numbers = range(1, max(converted.things, converted.channels, 1) + 1)
    is_thing = not converted.channels
    return CategorySet(Category(number, f"class {number}", is_thing, default_color(number)) for number in numbers)


def _find_thing_channels(converted: ConvertedWeights, categories: CategorySet, where: object) -> str:
    """Check the classes against the counts of the weights, and find what the semantic channels mean."""
    if converted.things and converted.things != len(categories.things):
        problem = f"the weights have {converted.things} thing classes, {where} has {len(categories.things)}"
        raise ConfigError(problem, where="--classes", remedy=GIVE_CLASSES)
    counts = {name: len(categories.build_semantic_space(name).names) for name in ("one", "per_class")}
    if converted.channels and converted.channels not in counts.values():
        problem = f"the weights have {converted.channels} semantic channels, {where} needs {counts['per_class']}, or "
        problem += f"{counts['one']} with one channel for all things"
        raise ConfigError(problem, where="--classes", remedy=GIVE_CLASSES)
    return "per_class" if converted.channels == counts["per_class"] else "one"


def _build_config(converted: ConvertedWeights, config_file: str) -> CfgNode:
    cfg = load_config(config_file or converted.recipe)
    if not config_file:
        for key, value in converted.keys.items():
            cfg.merge_from_list([key, value])
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    return cfg


def _refuse_gaps(report: ImportReport, config_file: str, recipe: str, path: str) -> None:
    """Refuse weights that leave a part of the model unfilled; heads may be missing beside an ImageNet backbone."""
    gaps = {status: report.list_names(status) for status in (MISSING, OTHER_SHAPE, UNEXPECTED)}
    if report.is_backbone:
        gaps[MISSING] = [name for name in gaps[MISSING] if name.startswith(BOTTOM_UP)]
    if not gaps[MISSING] and not gaps[OTHER_SHAPE]:
        return
    rows = {row.name: row for row in report.rows}
    shapes = [f"{name} (file {rows[name].file_shape}, model {rows[name].model_shape})" for name in gaps[OTHER_SHAPE]]
    faults = {MISSING: gaps[MISSING], "of another shape": shapes, UNEXPECTED: gaps[UNEXPECTED]}
    problem = "; ".join(f"{len(names)} {fault}: {abbreviate(names)}" for fault, names in faults.items() if names)
    if config_file:
        problem = f"weights of another variant than the model of {config_file}: of {len(rows)} tensors, {problem}"
        remedy = "leave out --config-file, to let the network be found from the weights, or give the config of them"
    else:
        problem = f"the model that was found from names and shapes, {recipe} with other sizes, is not filled: {problem}"
        remedy = "load an undamaged file, or give the config of the weights by --config-file"
    raise CheckpointError(problem, where=path, remedy=remedy)


def _check_replaceable(config: Path) -> None:
    """Only a config of an earlier import is replaced."""
    if config.exists() and not config.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
        raise ConfigError("the config to write exists already", where=config, remedy="name another --output")


def _write_config(config: Path, converted: ConvertedWeights, output: Path) -> None:
    """The recipe, the keys that differ from it, and the path of the weights."""
    recipe = load_config(converted.recipe)
    keys = {key: value for key, value in converted.keys.items() if attrgetter(key)(recipe) != value}
    keys |= {"MODEL.WEIGHTS": os.path.abspath(output), "TEST.EXPECTED_RESULTS": []}
    if converted.classes.partition("_")[0] != converted.recipe.partition("/")[0]:  # not the recipe's dataset
        keys |= {"DATASETS.TRAIN": [], "DATASETS.TEST": []}
    tree: dict[str, Any] = {"_BASE_": converted.recipe}
    for key, value in keys.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    with replacing(config) as temporary:
        temporary.write_text(f"{HEADER}\n{yaml.safe_dump(tree, sort_keys=False)}", encoding="utf-8")
