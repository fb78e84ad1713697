"""The user's own datasets: the entries of DATASETS.CUSTOM, or one call each."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from segkit.data.catalog import BUILTIN_PREFIX, register_dataset, register_files
from segkit.data.dataset import Dataset
from segkit.data.loaders.readers import TRAINING_READERS, load_reader_dataset
from segkit.formats.detection import detect_format
from segkit.formats.registry import check_format, check_options
from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

WHERE = "DATASETS.CUSTOM"
AUTO = "auto"  # the format that is to be found
# Arguments of `register_panoptic`: options of the format coco-panoptic.
PANOPTIC_OPTIONS = {
    "panoptic_json": "json",
    "panoptic_root": "masks",
    "image_root": "images",
    "instances_json": "instances_json",
}
PATHS = ("root", "path", *PANOPTIC_OPTIONS.values())  # options that are paths in every format

logger = logging.getLogger(__name__)


def register_custom(entries: Iterable[Mapping[str, Any]]) -> None:
    """Register the entries of DATASETS.CUSTOM.

    Args:
        entries: a list of {name, format, the format's options}, see `register_by_format`, or of {name, the arguments of
            `register_panoptic`}.

    Raises:
        ConfigError: the keys are others, a name comes twice or is one of segkit's, or an option is wrong.
    """
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
        elif {"name", "panoptic_json", "panoptic_root"} <= keys <= {"name", *PANOPTIC_OPTIONS}:
            register_panoptic(entry["name"], **options)
        else:
            problem = "expected name, format and its options, or name, panoptic_json, panoptic_root"
            known = {"name", "format", *PANOPTIC_OPTIONS}
            unknown = sorted(map(str, keys - known))
            hints = [f"{suggest(key, known - keys)[:-1]} for {key!r}?" for key in unknown]
            remedy = next((hint for hint in hints if hint.startswith("did")), "")
            raise ConfigError(f"{problem}, got {entry}", where=WHERE, remedy=remedy)


def register_by_format(name: str, format_name: str, **options: Any) -> None:
    """Register a dataset in a format that segkit reads; nothing is read yet.

    `load_dataset` raises DatasetError if files are missing or contradict each other.

    Args:
        name: the dataset's name.
        format_name: key of segkit.formats.registry.READERS; "auto" finds it when the dataset is first used.
        options: as the format's reader takes them (`root`, `split`, ...); paths are relative to the working directory.
            COCO's JSON files are read through the annotation cache: `coco-panoptic` can do without `images`, which is
            then found beside the PNGs, and takes `instances_json`, see `register_panoptic`.

    Raises:
        ConfigError: the format or an option is unknown, or an option is missing or no path.
    """
    if format_name == AUTO:
        _check_paths({key: value for key, value in options.items() if key in PATHS})
        register_dataset(name, partial(_load_detected, name, options))
        return
    check_format(format_name, TRAINING_READERS, name)
    reader = TRAINING_READERS[format_name]
    check_options(format_name, options, reader)
    _check_paths({key: value for key, value in options.items() if key in PATHS})
    register_files(name, format_name, options, None, getattr(reader, "categories", None))


def register_panoptic(
    name: str,
    panoptic_json: str | Path,
    panoptic_root: str | Path,
    image_root: str | Path | None = None,
    instances_json: str | Path | None = None,
) -> None:
    """Register a panoptic dataset in COCO's format: the JSON and the folder of its PNGs are enough.

    Instance masks, semantic maps, class counts and metrics are derived. Nothing is read yet; `load_dataset` raises
    DatasetError if files are missing or contradict each other.

    Args:
        name: the dataset's name.
        panoptic_json: path of the JSON.
        panoptic_root: folder of the PNGs.
        image_root: folder of the images; None: found beside the PNGs, see `formats.coco.find_image_root`.
        instances_json: COCO instances of the same images, with masks that may overlap, for training and evaluation of
            boxes and masks; None: instances are derived from the PNGs.

    Raises:
        ConfigError: an argument is no path.
    """
    values = (panoptic_json, panoptic_root, image_root, instances_json)
    given = {key: value for key, value in zip(PANOPTIC_OPTIONS, values, strict=True) if value is not None}
    _check_paths(given)
    register_by_format(name, "coco-panoptic", **{PANOPTIC_OPTIONS[key]: value for key, value in given.items()})


def list_path_options(entry: Mapping[str, Any]) -> set[str]:
    """List which options of a dataset are paths.

    Args:
        entry: an entry of DATASETS.CUSTOM.

    Returns:
        Names of options, whether the entry has them or not.
    """
    if entry.get("format") == AUTO:  # beside a root, the others are folders in it
        return {"root"} if "root" in entry else {"json", "masks", "images", "categories", "dataset"}
    reader = TRAINING_READERS.get(entry.get("format", ""))
    if reader is None:
        return {*PANOPTIC_OPTIONS}
    parameters = inspect.signature(reader).parameters.values()
    return {parameter.name for parameter in parameters if "Path" in str(parameter.annotation)}


def _load_detected(name: str, options: Mapping[str, Any]) -> Dataset:
    try:
        detection = detect_format(options)
    except ConfigError as error:
        raise ConfigError(str(error), where=f"{WHERE}, {name!r}") from None
    logger.info("%s: format %s (%s)", name, detection.format_name, detection.evidence)
    return load_reader_dataset(name, detection.format_name, detection.options)


def _check_name(name: Any, names: set[str]) -> None:
    """Add the name; ConfigError if it comes twice, or is one of segkit's."""
    text = str(name)
    if text in names or text.startswith(BUILTIN_PREFIX):
        taken = "comes twice" if text in names else f"begins with {BUILTIN_PREFIX}, as built-in names do"
        raise ConfigError(f"the name {text!r} {taken}", where=WHERE, remedy="choose another name")
    names.add(text)


def _check_paths(options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        if not isinstance(value, (str, os.PathLike)):
            raise ConfigError(f"expected `{key}` to be a path, got {value!r}", where=WHERE)
