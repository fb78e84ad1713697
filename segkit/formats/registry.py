"""The layouts that segkit reads and writes, by name; a format needs its file and a line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from segkit.formats.ade20k import ADE20KSource, ADE20KWriter
from segkit.formats.cityscapes_source import CityscapesSource
from segkit.formats.cityscapes_writer import CityscapesWriter
from segkit.formats.coco_sources import CocoInstancesSource, CocoPanopticSource, TwoChannelSource
from segkit.formats.coco_writers import CocoInstancesWriter, CocoPanopticWriter, SemanticMapWriter
from segkit.formats.decathlon import DecathlonSource
from segkit.formats.instance_maps import InstanceMapSource, InstanceMapWriter
from segkit.formats.labelme import LabelmeSource, LabelmeWriter
from segkit.formats.source import Source
from segkit.formats.voc import VOCSource, VOCWriter
from segkit.structures import CategorySet, ConfigError

SOURCES: dict[str, type[Source]] = {
    source.layout: source
    for source in (
        CocoPanopticSource,
        CocoInstancesSource,
        TwoChannelSource,
        CityscapesSource,
        ADE20KSource,
        DecathlonSource,
        VOCSource,
        InstanceMapSource,
        LabelmeSource,
    )
}
WRITERS: dict[str, Callable[[Path, CategorySet], AbstractContextManager[Any]]] = {
    "coco-panoptic": CocoPanopticWriter,
    "coco-instances": CocoInstancesWriter,
    "semantic-maps": SemanticMapWriter,
    "voc": VOCWriter,
    "instance-maps": InstanceMapWriter,
    "labelme": LabelmeWriter,
    "cityscapes": lambda root, categories: CityscapesWriter(root, categories=categories),
    "ade20k": lambda root, categories: ADE20KWriter(root, categories=categories),
}


def open_source(layout: str, options: Mapping[str, Any]) -> Source:
    """The dataset in this layout; ConfigError for an unknown layout, an option that it does not have, one that is
    missing or has a wrong value, DatasetError for what is wrong with the files."""
    if layout not in SOURCES:
        raise ConfigError(f"unknown format {layout!r}", remedy=f"choose one of {sorted(SOURCES)}")
    parameters = inspect.signature(SOURCES[layout]).parameters
    needed = [name for name, one in parameters.items() if one.default is inspect.Parameter.empty]
    unknown, missing = sorted(set(options) - set(parameters)), [name for name in needed if name not in options]
    if unknown or missing:
        problem = f"the format {layout!r} takes {[*parameters]}, needs {needed}"
        raise ConfigError(f"{problem}, got {sorted(options)}", remedy="add or leave out the others")
    try:
        return SOURCES[layout](**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"format {layout!r}: {error}") from error
