"""Convert a dataset to another format and list what that cannot hold; write the semantic PNGs that Detectron2 needs."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from segkit.curation.image_files import check_sizes, inspect_image
from segkit.curation.issues import RULES, IssueList
from segkit.formats import coco, png
from segkit.formats.bands import RGB
from segkit.formats.base import DatasetImage, DatasetReader, DatasetWriter, UnfitImageError
from segkit.formats.derive import build_semantic_map
from segkit.formats.image_io import read_image_size
from segkit.structures import IGNORE_LABEL, CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.files import replacing
from segkit.utils.issues import ErrorCollector, IssueHandler
from segkit.utils.json_fields import check_inside
from segkit.utils.links import check_guarded_link, check_link
from segkit.utils.process_pool import Progress, map_and_collect_errors
from segkit.utils.text import abbreviate

SIZE_REMEDY = (
    "`segkit data check --fix` gives COCO's entries the size of the image if their masks fit; else export again"
)
REFUSED = ("coordinates-relative",)  # codes of issues whose masks are wrong, not only doubtful


@dataclass(frozen=True)
class ConversionLoss:
    """Something about an image that the written format cannot hold.

    Attributes:
        image_id: Id of the image in the dataset that was read.
        description: What is lost, in words.
        is_left_out: Whether the image is not written at all.
    """

    image_id: int | str
    description: str
    is_left_out: bool = False


def convert(
    reader: DatasetReader,
    writer: DatasetWriter,
    copy_images: bool = False,
    progress: Progress | None = None,
    on_issue: IssueHandler | None = None,
) -> list[ConversionLoss]:
    """Write all images of a dataset in another format; those that it cannot hold are left out and reported.

    Args:
        reader: The dataset.
        writer: Writer of the other format; this function opens and closes it.
        copy_images: Whether to copy the image files to where the other format expects them. Images that the reader
            computes, such as slices of volumes, are written as PNG.
        progress: Called with (images done, images in all).
        on_issue: Gets what `DatasetReader.check_annotation` reports of each image; None does not check. Issues with the
            codes of `REFUSED` are raised instead.

    Returns:
        What the other format cannot hold, in the order of the images.

    Raises:
        DatasetError: An image file has another size than the annotations, and nothing was written; or reader or writer
            failed, no image can be held, or there are issues of `REFUSED`, and the writer's index files were not
            written.
    """
    check_image_sizes(reader)
    losses = []
    refused = ErrorCollector(sys.maxsize)

    def report(code: str, error: DatasetError) -> None:
        if code in REFUSED:
            refused.add(DatasetError(error.problem, where=error.where, remedy=RULES[code].remedy))
        elif on_issue is not None:
            on_issue(code, error)

    writer.info = reader.info
    with writer:
        for done, image in enumerate(reader.images, 1):
            losses += _convert_image(reader, writer, image, copy_images)
            if on_issue is not None:
                reader.check_annotation(image, report)
            if progress is not None:
                progress(done, len(reader.images))
        refused.check()
        if losses and sum(loss.is_left_out for loss in losses) == len(reader.images):
            problem = f"none of the {len(reader.images)} images can be held, {losses[0].description}"
            raise DatasetError(problem, where=reader.root, remedy="convert to another format")
    return losses


def check_image_sizes(reader: DatasetReader) -> None:
    """Check that the image files of a dataset have the sizes that its annotations state.

    Only the headers of the files are read. Images that are missing or computed, and unreadable files, are passed over:
    they are an error where their pixels are needed.

    Args:
        reader: The dataset.

    Raises:
        DatasetError: Sizes differ; the message has their number and the first images.
    """
    errors = ErrorCollector(len(reader.images) + 1)
    for image in reader.images:
        path = reader.image_root / image.file_name
        size_hw = None
        with contextlib.suppress(DatasetError):
            size_hw = read_image_size(path) if os.path.isfile(path) else None
        if size_hw not in (None, image.size_hw):
            issues = IssueList()
            sizes = {"the annotation": image.size_hw, "the image": size_hw}
            check_sizes(sizes, inspect_image(path, path).is_rotated, path, issues)
            errors.add(DatasetError(issues[0].message, where=path, remedy=SIZE_REMEDY, code=issues[0].code))
    errors.check()


def list_lost_extras(reader: DatasetReader, writer: DatasetWriter) -> list[str]:
    """List the keys of COCO's JSON besides annotations, e.g. licences, and channels, that the other format cannot hold.

    Args:
        reader: The dataset.
        writer: Writer of the other format.

    Returns:
        A line for each, or none if nothing is lost.
    """
    shown = f"{reader.channels - RGB} of the {reader.channels} channels of images that are written as PNG"
    losses = [shown] if reader.channels > RGB else []
    keys = {key for image in reader.images for key in image.extra} | {*reader.info}
    if writer.writes_extras or not keys:
        return losses
    return [*losses, f"keys of the dataset and its images: {abbreviate(sorted(keys))}"]


def summarize_losses(losses: Iterable[ConversionLoss], limit: int = 20) -> list[str]:
    """Print the first losses and count the remaining ones.

    Args:
        losses: As `convert` returns them.
        limit: Most losses that are printed.

    Returns:
        A line for each printed loss, and one with the number of the remaining losses if there are any.
    """
    lines = [f"image {loss.image_id!r}: {loss.description}" for loss in losses]
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return [*lines[:limit], *more]


def write_panoptic_stuff(
    json_path: str | Path,
    png_folder: str | Path,
    output: str | Path,
    workers: int = 1,
    progress: Progress | None = None,
) -> int:
    """Write panoptic_stuff_*: one (H, W) uint8 PNG per image of a COCO panoptic dataset, named as the panoptic PNG.

    Each pixel is 0 for things, 1..S for stuff in the order of the category ids, 255 for void, as in
    datasets/prepare_panoptic_fpn.py of Detectron2.

    Args:
        json_path: the panoptic JSON.
        png_folder: the folder of its PNGs.
        output: the folder to write to, which must be another one.
        workers: processes.
        progress: gets (images done, images in all).

    Returns:
        The number of PNGs.

    Raises:
        DatasetError: invalid data, more than 254 stuff categories, or `output` is `png_folder`.
    """
    json_path, png_folder, output = Path(json_path), Path(png_folder), Path(output)
    if output.resolve() == png_folder.resolve():
        raise DatasetError("the output would overwrite the panoptic PNGs", where=output, remedy="name another folder")
    dataset = coco.read_panoptic(json_path)
    if len(dataset.categories.stuff) >= IGNORE_LABEL:
        problem = f"expected fewer than {IGNORE_LABEL} stuff categories ({IGNORE_LABEL} is void)"
        raise DatasetError(f"{problem}, got {len(dataset.categories.stuff)}", where=json_path)
    convert = partial(_write_stuff_png, categories=dataset.categories, png_folder=png_folder, output=output)
    return len([*map_and_collect_errors(convert, dataset.records, ErrorCollector(), workers, progress)])


def _convert_image(
    reader: DatasetReader, writer: DatasetWriter, image: DatasetImage, copies_image: bool
) -> list[ConversionLoss]:
    annotations = reader.read_annotations(image) if reader.has_overlapping_masks else None
    written = image
    if copies_image and reader.channels != RGB:  # other formats do not read these files
        written = replace(image, file_name=PurePosixPath(image.file_name).with_suffix(".png").as_posix())
    try:
        target = writer.image_path(written)
        descriptions = writer.add(written, reader.read_segmentation(image), annotations)
    except UnfitImageError as error:
        return [ConversionLoss(image.image_id, error.problem, is_left_out=True)]
    if copies_image:
        _copy_image(reader, image, target)
    return [ConversionLoss(image.image_id, description) for description in descriptions]


def _copy_image(reader: DatasetReader, image: DatasetImage, target: Path) -> None:
    """Copy the image file, whole or not at all; decode it if the target is a PNG and the file is not."""
    check_inside(image.file_name, "file_name", target.parent)
    source = reader.image_root / image.file_name
    if not source.is_file() or (target.suffix != source.suffix and target.suffix == ".png"):
        png.write(target, reader.read_image(image))
        return
    check_guarded_link(source)
    if target.exists() and target.samefile(source):
        problem = "the output would overwrite an image of the dataset"
        raise DatasetError(problem, where=target, remedy="name another --output")
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _write_stuff_png(record: coco.PanopticRecord, categories: CategorySet, png_folder: Path, output: Path) -> None:
    check_link(png_folder / record.png_name, [png_folder], "replace the link by the file")
    segmentation = coco.read_segmentation(
        png_folder / record.png_name,
        record.segments_info,
        categories,
        (record.height, record.width),
        record.image_id,
    )
    png.write(output / record.png_name, build_semantic_map(segmentation, categories.build_semantic_space()))
