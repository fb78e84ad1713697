"""Datasets of the user's own: the entries of DATASETS.CUSTOM, or one call each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segkit.data.catalog import Dataset, register_dataset
from segkit.data.instances_dataset import load_coco_instances
from segkit.data.panoptic_dataset import load_coco_panoptic, register_panoptic
from segkit.data.source_dataset import load_source
from segkit.formats.registry import SOURCES, check_options
from segkit.structures import ConfigError

BY_FILES = {"panoptic_json", "panoptic_root", "image_root", "instances_json"}


def register_custom(entries: Iterable[Mapping[str, Any]]) -> None:
    """Register the entries of DATASETS.CUSTOM: name, format and the format's options, see `register_source`, or the
    arguments of `register_panoptic`; ConfigError for others."""
    for entry in entries:
        keys = set(entry) if isinstance(entry, Mapping) else set()
        if {"name", "format"} <= keys:
            options = {str(key): value for key, value in entry.items() if key not in ("name", "format")}
            register_source(entry["name"], entry["format"], **options)
        elif {"name", "panoptic_json", "panoptic_root"} <= keys <= {"name", *BY_FILES}:
            register_panoptic(**entry)
        else:
            raise ConfigError(
                f"expected name, format and its options, or name, panoptic_json, panoptic_root, got {entry}",
                where="DATASETS.CUSTOM",
            )


def register_source(name: str, layout: str, **options: Any) -> None:
    """Register a dataset in one of the layouts of segkit.formats.registry.SOURCES.

    options: as the layout takes them (`root`, `split`, ...); paths are relative to the working directory. COCO's JSONs
    are read through the cache of annotations: `coco-panoptic` takes json and masks, and may do without images, which
    are then looked for, or take `instances_json`, see `register_panoptic`.
    Raises ConfigError for a layout or option that is unknown, or missing. Nothing is read yet: `load_dataset` raises
    DatasetError for what is wrong with the files.
    """
    if layout not in SOURCES:
        raise ConfigError(f"unknown format {layout!r} of {name!r}", remedy=f"choose one of {sorted(SOURCES)}")
    if layout == "coco-panoptic":
        check_options(layout, options, _load_panoptic, given=("name",))
        register_dataset(name, lambda: _load_panoptic(name, **options))
    elif layout == "coco-instances" and "overlap" not in options:
        check_options(layout, options, _load_instances, given=("name",))
        register_dataset(name, lambda: _load_instances(name, **options))
    else:
        check_options(layout, options, SOURCES[layout])
        register_dataset(name, lambda: load_source(name, layout, options))


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
