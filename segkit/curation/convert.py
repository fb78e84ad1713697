"""A dataset from one layout into another, image by image, with a list of what the other cannot hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from segkit.formats import png
from segkit.formats.base import DatasetImage, DatasetReader, DatasetWriter
from segkit.utils.errors import DatasetError
from segkit.utils.files import replacing
from segkit.utils.json_fields import check_inside
from segkit.utils.text import abbreviate

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConversionLoss:
    """What the written layout cannot hold of an image."""

    image_id: int | str
    description: str


def convert(
    source: DatasetReader,
    writer: DatasetWriter,
    copy_images: bool = False,
    progress: Progress | None = None,
) -> list[ConversionLoss]:
    """Write every image of the source; the losses, in the order of the images.

    copy_images: write the images too, where the layout wants them, copied as they are; those a source makes, slices
    of volumes say, as PNG. DatasetError as source and writer raise it: then the writer's index files are not written.
    """
    losses = []
    writer.info = source.info
    with writer:
        for done, image in enumerate(source.images, 1):
            annotations = source.read_annotations(image) if source.has_overlapping_masks else None
            told = writer.add(image, source.read_segmentation(image), annotations)
            losses += [ConversionLoss(image.image_id, what) for what in told]
            if copy_images:
                copy_image(source, image, writer.image_path(image))
            if progress is not None:
                progress(done, len(source.images))
    return losses


def copy_image(source: DatasetReader, image: DatasetImage, target: Path) -> None:
    """Write the picture, whole or not at all; DatasetError where its name leads out of its folder, or the target is the
    source's own file. A file of another suffix is decoded and written as PNG where the target is one."""
    check_inside(image.file_name, "file_name", target.parent)
    origin = source.image_root / image.file_name
    if not origin.is_file() or (target.suffix != origin.suffix and target.suffix == ".png"):
        png.write(target, source.read_image(image))
        return
    if target.exists() and target.samefile(origin):
        raise DatasetError("expected another folder than the source's", where=target, remedy="name another --output")
    with replacing(target) as neighbour:
        shutil.copyfile(origin, neighbour)


def list_lost_extras(source: DatasetReader, writer: DatasetWriter) -> list[str]:
    """A line on what COCO's JSONs hold beside annotations, licences say, where the layout has no place for it."""
    keys = {key for image in source.images for key in image.extra} | {*source.info}
    if writer.writes_extras or not keys:
        return []
    return [f"keys of the dataset and its images: {abbreviate(sorted(keys))}"]


def summarize_losses(losses: Iterable[ConversionLoss], most: int = 20) -> list[str]:
    """A line for each of the first `most` losses, and one that counts the others."""
    lines = [f"image {loss.image_id!r}: {loss.description}" for loss in losses]
    more = [f"... and {len(lines) - most} more"] if len(lines) > most else []
    return [*lines[:most], *more]
