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
    source.format: source
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

REQUIRED = inspect.Parameter.empty  # the default of an option that has none
WRITER_ARGUMENTS = ("root", "categories")  # what they take, and no user gives


def open_reader(
    format_name: str,
    options: Mapping[str, Any],
    on_issue: IssueHandler = raise_issue,
    readers: Mapping[str, type[DatasetReader]] = READERS,
) -> DatasetReader:
    """The dataset in this layout.

    tell: gets what is wrong with single images, which are then left out; by default it is raised. Raises ConfigError
    for an unknown layout, an option that it does not have, one that is missing or has a wrong value, DatasetError for
    what is wrong with the files.
    """
    if format_name not in readers:
        raise ConfigError(f"unknown format {format_name!r}", remedy=f"choose one of {sorted(readers)}")
    check_options(format_name, options, readers[format_name])
    make: Callable[..., DatasetReader] = readers[format_name]
    telling = {"on_issue": on_issue} if "on_issue" in inspect.signature(make).parameters else {}
    try:
        return make(**options, **telling)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"format {format_name!r}: {error}") from error
    except OSError as error:
        raise DatasetError(f"the dataset cannot be read: {error}", where=f"format {format_name!r}") from None


def open_writer(format_name: str, root: Path, categories: CategorySet, options: Mapping[str, Any]) -> DatasetWriter:
    """A writer of this layout below `root`; raises as `open_reader` does."""
    if format_name not in WRITERS:
        raise ConfigError(f"nothing writes the format {format_name!r}", remedy=f"choose one of {sorted(WRITERS)}")
    check_options(format_name, options, WRITERS[format_name], WRITER_ARGUMENTS)
    try:
        return WRITERS[format_name](root, categories, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"format {format_name!r}: {error}") from error


def check_options(
    format_name: str, options: Mapping[str, Any], takes: Callable[..., Any], given: Sequence[str] = ()
) -> None:
    """ConfigError where `takes` has no such option, or needs one that is not there; `given` are not the user's."""
    known = get_options(takes, given)
    needed = [name for name, default in known.items() if default is REQUIRED]
    if set(options) - set(known) or set(needed) - set(options):
        problem = f"the format {format_name!r} takes {[*known]}, needs {needed}"
        raise ConfigError(f"{problem}, got {sorted(options)}", remedy="add or leave out the others")


def get_options(takes: Callable[..., Any], given: Sequence[str] = ()) -> dict[str, Any]:
    """The options that a source or writer takes, and their defaults, `NEEDED` where there is none; without `given`."""
    parameters = inspect.signature(takes).parameters
    return {name: one.default for name, one in parameters.items() if name not in (*given, "on_issue")}
