"""The formats that segkit reads and writes, by name. A new format needs its file and a line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.formats import (
    ade20k,
    cityscapes,
    coco,
    decathlon,
    geojson,
    label_images,
    label_studio,
    labelme,
    runs,
    vipseg,
    voc,
    yolo,
)
from segkit.formats.base import DatasetReader, DatasetWriter
from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, raise_issue
from segkit.utils.text import suggest

READERS: dict[str, type[DatasetReader]] = {
    reader.format: reader
    for reader in (
        coco.CocoPanopticReader,
        coco.CocoInstancesReader,
        coco.TwoChannelReader,
        cityscapes.CityscapesReader,
        ade20k.ADE20KReader,
        decathlon.DecathlonReader,
        decathlon.NnunetReader,
        voc.VOCReader,
        label_images.InstanceMapReader,
        label_images.SemanticMapReader,
        labelme.LabelmeReader,
        yolo.YoloReader,
        coco.CocoResultsReader,
        coco.PanopticPredictionsReader,
        runs.RunReader,
        vipseg.VipsegReader,
    )
}
WRITERS: dict[str, Callable[..., DatasetWriter]] = {
    "coco-panoptic": coco.CocoPanopticWriter,
    "coco-instances": coco.CocoInstancesWriter,
    "two-channel-png": coco.TwoChannelWriter,
    "semantic-maps": label_images.SemanticMapWriter,
    "voc": voc.VOCWriter,
    "instance-maps": label_images.InstanceMapWriter,
    "labelme": labelme.LabelmeWriter,
    "yolo": yolo.YoloWriter,
    "cityscapes": cityscapes.CityscapesWriter,
    "ade20k": ade20k.ADE20KWriter,
    "coco-results": coco.CocoResultsWriter,
    "panoptic-predictions": coco.PanopticPredictionsWriter,
    "coco-submission": coco.CocoSubmissionWriter,
    "geojson": geojson.GeoJsonWriter,
    "cvat-panoptic": coco.CvatPanopticWriter,
    "cvat-masks": voc.CvatMasksWriter,
    "cityscapes-submission": cityscapes.CityscapesSubmissionWriter,
    "decathlon": decathlon.DecathlonWriter,
    "label-studio": label_studio.LabelStudioWriter,
    "vipseg": vipseg.VipsegWriter,
}

REQUIRED = inspect.Parameter.empty  # the default of an option that has none
WRITER_ARGUMENTS = ("root", "categories")  # parameters of writers that are not options


def open_reader(
    format_name: str,
    options: Mapping[str, Any],
    on_issue: IssueHandler = raise_issue,
    readers: Mapping[str, type[DatasetReader]] = READERS,
) -> DatasetReader:
    """Open a dataset.

    Args:
        format_name: key of `readers`.
        options: parameters of the reader by name, paths as text or Path.
        on_issue: gets the errors of single images, which are then left out; by default they are raised.
        readers: the readers to choose from.

    Returns:
        The reader of the dataset.

    Raises:
        ConfigError: the format is unknown; an option is unknown, missing or has a wrong value.
        DatasetError: the files are missing, damaged or contradict each other.
    """
    check_format(format_name, readers)
    check_options(format_name, options, readers[format_name])
    build: Callable[..., DatasetReader] = readers[format_name]
    handler = {"on_issue": on_issue} if "on_issue" in inspect.signature(build).parameters else {}
    try:
        return build(**options, **handler)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"format {format_name!r}: {error}") from error
    except OSError as error:
        raise DatasetError(f"the dataset cannot be read: {error}", where=f"format {format_name!r}") from None


def open_writer(
    format_name: str, root: str | Path, categories: CategorySet, options: Mapping[str, Any]
) -> DatasetWriter:
    """Make a writer.

    Args:
        format_name: key of WRITERS.
        root: folder to write to.
        categories: the categories of the segmentations.
        options: further parameters of the writer, by name.

    Returns:
        The writer, to be used in a `with` block.

    Raises:
        ConfigError: the format is unknown; an option is unknown, missing or has a wrong value.
    """
    check_writer(format_name)
    check_options(format_name, options, WRITERS[format_name], WRITER_ARGUMENTS)
    try:
        return WRITERS[format_name](root, categories, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"format {format_name!r}: {error}") from error


def add_prediction_options(format_name: str, options: Mapping[str, Any], writer_name: str) -> dict[str, Any]:
    """Add the options of a reader of predictions that suit the format to write.

    Args:
        format_name: key of READERS.
        options: options of the reader that the user chose.
        writer_name: key of WRITERS.

    Returns:
        The options, and those of `DatasetWriter.prediction_options` that the reader has and the user did not choose.
    """
    known = get_options(READERS[format_name]) if format_name in READERS else {}
    suitable = getattr(WRITERS[writer_name], "prediction_options", {})
    return {**{name: value for name, value in suitable.items() if name in known}, **options}


def check_format(format_name: object, formats: Mapping[str, object], owner: str = "") -> None:
    """Check the name of a format.

    Args:
        format_name: what the user named.
        formats: the readers or writers by name.
        owner: the dataset whose format it is, for the message.

    Raises:
        ConfigError: the format is unknown; the message has the most similar one, or all.
    """
    if not isinstance(format_name, str) or format_name not in formats:
        of_owner = f" of {owner!r}" if owner else ""
        remedy = suggest(format_name, formats, f"choose one of {', '.join(sorted(formats))}")
        raise ConfigError(f"unknown format {format_name!r}{of_owner}", remedy=remedy)


def check_writer(format_name: str) -> None:
    """Check that a format can be written.

    Args:
        format_name: what the user named.

    Raises:
        ConfigError: the format is unknown, or only read.
    """
    if format_name in READERS and format_name not in WRITERS:
        problem = f"the format {format_name!r} is only read"
        raise ConfigError(problem, remedy=f"write one of {', '.join(sorted(WRITERS))}")
    check_format(format_name, WRITERS)


def check_options(
    format_name: str, options: Mapping[str, Any], function: Callable[..., Any], arguments: Sequence[str] = ()
) -> None:
    """Check the names of options.

    Args:
        format_name: the format, for the message.
        options: options by name.
        function: the reader or writer that takes them.
        arguments: its parameters that are not options.

    Raises:
        ConfigError: an option is unknown, or a required one is missing.
    """
    defaults = get_options(function, arguments)
    required = [name for name, default in defaults.items() if default is REQUIRED]
    unknown = sorted(set(options) - set(defaults))
    if unknown or set(required) - set(options):
        problem = f"the format {format_name!r} takes {[*defaults]}, needs {required}"
        similar = [f"{suggest(name, set(defaults) - set(options))[:-1]} for {name!r}?" for name in unknown]
        hints = " ".join(hint for hint in similar if hint.startswith("did"))
        raise ConfigError(f"{problem}, got {sorted(options)}", remedy=hints or "add or leave out the others")


def get_options(function: Callable[..., Any], arguments: Sequence[str] = ()) -> dict[str, Any]:
    """List the options of a reader or writer.

    Args:
        function: the reader or writer.
        arguments: its parameters that are not options.

    Returns:
        option -> default, `REQUIRED` if it has none.
    """
    parameters = inspect.signature(function).parameters
    return {name: option.default for name, option in parameters.items() if name not in (*arguments, "on_issue")}
