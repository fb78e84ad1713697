"""The layouts that segkit reads and writes, by name; a format needs its file and a line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.formats.ade20k import ADE20KReader, ADE20KWriter
from segkit.formats.base import DatasetReader, DatasetWriter
from segkit.formats.cityscapes import CityscapesReader, CityscapesWriter
from segkit.formats.coco import (
    CocoInstancesReader,
    CocoInstancesWriter,
    CocoPanopticReader,
    CocoPanopticWriter,
    CocoResultsReader,
    PanopticPredictionsReader,
    TwoChannelReader,
    TwoChannelWriter,
)
from segkit.formats.decathlon import DecathlonReader
from segkit.formats.label_images import InstanceMapReader, InstanceMapWriter, SemanticMapReader, SemanticMapWriter
from segkit.formats.labelme import LabelmeReader, LabelmeWriter
from segkit.formats.voc import VOCReader, VOCWriter
from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, raise_issue

READERS: dict[str, type[DatasetReader]] = {
    source.layout: source
    for source in (
        CocoPanopticReader,
        CocoInstancesReader,
        TwoChannelReader,
        CityscapesReader,
        ADE20KReader,
        DecathlonReader,
        VOCReader,
        InstanceMapReader,
        SemanticMapReader,
        LabelmeReader,
        CocoResultsReader,
        PanopticPredictionsReader,
    )
}
WRITERS: dict[str, Callable[..., DatasetWriter]] = {
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


def open_reader(layout: str, options: Mapping[str, Any], on_issue: IssueHandler = raise_issue) -> DatasetReader:
    """The dataset in this layout.

    tell: gets what is wrong with single images, which are then left out; by default it is raised. Raises ConfigError
    for an unknown layout, an option that it does not have, one that is missing or has a wrong value, DatasetError for
    what is wrong with the files.
    """
    if layout not in READERS:
        raise ConfigError(f"unknown format {layout!r}", remedy=f"choose one of {sorted(READERS)}")
    check_options(layout, options, READERS[layout])
    make: Callable[..., DatasetReader] = READERS[layout]
    telling = {"on_issue": on_issue} if "on_issue" in inspect.signature(make).parameters else {}
    try:
        return make(**options, **telling)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"format {layout!r}: {error}") from error
    except OSError as error:
        raise DatasetError(f"the dataset cannot be read: {error}", where=f"format {layout!r}") from None


def open_writer(layout: str, root: Path, categories: CategorySet, options: Mapping[str, Any]) -> DatasetWriter:
    """A writer of this layout below `root`; raises as `open_reader` does."""
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
    return {name: one.default for name, one in parameters.items() if name not in (*given, "on_issue")}
