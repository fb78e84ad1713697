"""The layouts that segkit reads and writes, by name; a format needs its file and a line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.formats.ade20k import ADE20KSource, ADE20KWriter
from segkit.formats.base import Source, Tell, refuse
from segkit.formats.cityscapes.reader import CityscapesSource
from segkit.formats.cityscapes.writer import CityscapesWriter
from segkit.formats.coco.prediction_readers import CocoResultsSource, PanopticPredictionsSource
from segkit.formats.coco.readers import CocoInstancesSource, CocoPanopticSource
from segkit.formats.coco.two_channel import TwoChannelSource, TwoChannelWriter
from segkit.formats.coco.writers import CocoInstancesWriter, CocoPanopticWriter
from segkit.formats.decathlon.reader import DecathlonSource
from segkit.formats.label_images.instance_reader import InstanceMapSource
from segkit.formats.label_images.instance_writer import InstanceMapWriter
from segkit.formats.label_images.semantic_dataset import SemanticMapSource, SemanticMapWriter
from segkit.formats.labelme.reader import LabelmeSource
from segkit.formats.labelme.writer import LabelmeWriter
from segkit.formats.voc.reader import VOCSource
from segkit.formats.voc.writer import VOCWriter
from segkit.formats.writer import Writer
from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError, DatasetError

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
        SemanticMapSource,
        LabelmeSource,
        CocoResultsSource,
        PanopticPredictionsSource,
    )
}
WRITERS: dict[str, Callable[..., Writer]] = {
    "coco-panoptic": CocoPanopticWriter,
    "coco-instances": CocoInstancesWriter,
    "two-channel-png": TwoChannelWriter,
    "semantic-maps": SemanticMapWriter,
    "voc": VOCWriter,
    "instance-maps": InstanceMapWriter,
    "labelme": LabelmeWriter,
    "cityscapes": CityscapesWriter,
    "ade20k": ADE20KWriter,
}

NEEDED = inspect.Parameter.empty  # the default of an option that has none
OF_ALL_WRITERS = ("root", "categories")  # what they take, and no user gives


def open_source(layout: str, options: Mapping[str, Any], tell: Tell = refuse) -> Source:
    """The dataset in this layout.

    tell: gets what is wrong with single images, which are then left out; by default it is raised. Raises ConfigError
    for an unknown layout, an option that it does not have, one that is missing or has a wrong value, DatasetError for
    what is wrong with the files.
    """
    if layout not in SOURCES:
        raise ConfigError(f"unknown format {layout!r}", remedy=f"choose one of {sorted(SOURCES)}")
    check_options(layout, options, SOURCES[layout])
    make: Callable[..., Source] = SOURCES[layout]
    telling = {"tell": tell} if "tell" in inspect.signature(make).parameters else {}
    try:
        return make(**options, **telling)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"format {layout!r}: {error}") from error
    except OSError as error:
        raise DatasetError(f"the dataset cannot be read: {error}", where=f"format {layout!r}") from None


def open_writer(layout: str, root: Path, categories: CategorySet, options: Mapping[str, Any]) -> Writer:
    """A writer of this layout below `root`; raises as `open_source` does."""
    if layout not in WRITERS:
        raise ConfigError(f"nothing writes the format {layout!r}", remedy=f"choose one of {sorted(WRITERS)}")
    check_options(layout, options, WRITERS[layout], OF_ALL_WRITERS)
    try:
        return WRITERS[layout](root, categories, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"format {layout!r}: {error}") from error


def check_options(
    layout: str, options: Mapping[str, Any], takes: Callable[..., Any], given: Sequence[str] = ()
) -> None:
    """ConfigError where `takes` has no such option, or needs one that is not there; `given` are not the user's."""
    known = options_of(takes, given)
    needed = [name for name, default in known.items() if default is NEEDED]
    if set(options) - set(known) or set(needed) - set(options):
        problem = f"the format {layout!r} takes {[*known]}, needs {needed}"
        raise ConfigError(f"{problem}, got {sorted(options)}", remedy="add or leave out the others")


def options_of(takes: Callable[..., Any], given: Sequence[str] = ()) -> dict[str, Any]:
    """The options that a source or writer takes, and their defaults, `NEEDED` where there is none; without `given`."""
    parameters = inspect.signature(takes).parameters
    return {name: one.default for name, one in parameters.items() if name not in (*given, "tell")}
