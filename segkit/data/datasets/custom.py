"""Datasets of the user's own: the entries of DATASETS.CUSTOM, or one call each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segkit.data.catalog import register_dataset
from segkit.data.dataset import Dataset
from segkit.data.datasets import cityscapes
from segkit.data.loaders.coco_instances import load_coco_instances
from segkit.data.loaders.coco_panoptic import load_coco_panoptic, register_panoptic
from segkit.data.loaders.readers import load_source
from segkit.formats.cityscapes import CATEGORIES
from segkit.formats.registry import READERS, check_options
from segkit.utils.errors import ConfigError

WHERE = "DATASETS.CUSTOM"
INSTANCE_IDS = "instanceIds"
OWN = "segkit_"  # how the built-in names begin
BY_FILES = {"panoptic_json", "panoptic_root", "image_root", "instances_json"}


def register_custom(entries: Iterable[Mapping[str, Any]]) -> None:
    """Register the entries of DATASETS.CUSTOM: name, format and the format's options, see `register_source`, or the
    arguments of `register_panoptic`; ConfigError for others, a name that comes twice, and one that segkit has."""
    if not isinstance(entries, (list, tuple)):
        raise ConfigError(f"expected a list of datasets, got {entries!r}", where=WHERE)
    names: set[str] = set()
    for entry in entries:
        keys = set(entry) if isinstance(entry, Mapping) else set()
        options = {str(key): value for key, value in entry.items() if key not in ("name", "format")} if keys else {}
        if "name" in keys:
            _check_name(entry["name"], names)
        if {"name", "format"} <= keys:
            register_by_format(entry["name"], entry["format"], **options)
        elif {"name", "panoptic_json", "panoptic_root"} <= keys <= {"name", *BY_FILES}:
            register_panoptic(entry["name"], **_paths(options))
        else:
            problem = "expected name, format and its options, or name, panoptic_json, panoptic_root"
            raise ConfigError(f"{problem}, got {entry}", where=WHERE)


def register_by_format(name: str, format_name: str, **options: Any) -> None:
    """Register a dataset in one of the layouts of segkit.formats.registry.READERS.

    options: as the layout takes them (`root`, `split`, ...); paths are relative to the working directory. COCO's JSONs
    are read through the cache of annotations: `coco-panoptic` takes json and masks, and may do without images, which
    are then looked for, or take `instances_json`, see `register_panoptic`.
    Raises ConfigError for a layout or option that is unknown, or missing. Nothing is read yet: `load_dataset` raises
    DatasetError for what is wrong with the files.
    """
    if not isinstance(format_name, str) or format_name not in READERS:
        raise ConfigError(f"unknown format {format_name!r} of {name!r}", remedy=f"choose one of {sorted(READERS)}")
    if format_name == "coco-panoptic":
        check_options(format_name, options, _load_panoptic, given=("name",))
        paths = _paths(options)
        register_dataset(name, lambda: _load_panoptic(name, **paths))
    elif format_name == "coco-instances" and "overlap" not in options:
        check_options(format_name, options, _load_instances, given=("name",))
        paths = _paths(options)
        register_dataset(name, lambda: _load_instances(name, **paths))
    elif format_name == "cityscapes" and options.get("annotations", INSTANCE_IDS) == INSTANCE_IDS:
        check_options(format_name, options, READERS[format_name])
        root, split = Path(_paths(options)["root"]), options.get("split", "val")
        register_dataset(name, lambda: cityscapes.load(name, root, split, cityscapes.TASKS["panoptic"]), CATEGORIES)
    else:
        check_options(format_name, options, READERS[format_name])
        register_dataset(name, lambda: load_source(name, format_name, options))


def _check_name(name: Any, names: set[str]) -> None:
    """Add the name; ConfigError where it is there, or is one of segkit's."""
    text = str(name)
    if text in names or text.startswith(OWN):
        taken = "comes twice" if text in names else f"begins with {OWN}, as built-in names do"
        raise ConfigError(f"the name {text!r} {taken}", where=WHERE, remedy="choose another name")
    names.add(text)


def _paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options; ConfigError where one is no path."""
    for key, value in options.items():
        if not isinstance(value, (str, Path)):
            raise ConfigError(f"expected `{key}` to be a path, got {value!r}", where=WHERE)
    return dict(options)


def _load_panoptic(
    name: str,
    json: str | Path,
    masks: str | Path,
    images: str | Path | None = None,
    instances_json: str | Path | None = None,
) -> Dataset:
    return load_coco_panoptic(name, json, masks, images, instances_json)


def _load_instances(name: str, json: str | Path, images: str | Path) -> Dataset:
    return load_coco_instances(name, Path(json), Path(images))
