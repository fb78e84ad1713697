"""`segkit data view`: a dataset's ground truth drawn over its images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segkit.cli.arguments import positive
from segkit.cli.data_convert import add_dataset_arguments, get_dataset_options
from segkit.utils.errors import ConfigError

if TYPE_CHECKING:
    from segkit.formats.base import DatasetImage

PAGES = (".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--format", required=True, metavar="FORMAT", help="of the dataset")
    parser.add_argument("--image", nargs="+", metavar="ID", help="image_ids (default: some, spread over the dataset)")
    parser.add_argument("--count", type=positive, default=12, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="a .png, or an .html page")
    add_dataset_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Draw the images and print the path."""
    from segkit.formats import png
    from segkit.formats.registry import open_reader
    from segkit.report.grids import draw_image_grid
    from segkit.report.overlay import draw_panoptic
    from segkit.report.page import write_page
    from segkit.scoring import counts_file

    suffix = args.output.suffix.lower()
    if suffix not in (*PAGES, ".png"):
        raise ConfigError(f"expected --output to end in .png or .html, got {args.output.name!r}")
    counts_file.check_writable(args.output)
    reader = open_reader(args.format, get_dataset_options(args))
    names, rows = [], []
    for image in _choose_images(reader.images, args.image, args.count):
        pixels = reader.read_image(image)
        names.append(str(image.image_id))
        rows.append([pixels, draw_panoptic(pixels, reader.read_segmentation(image), reader.categories)])
    with counts_file.convert_write_errors(args.output):
        if suffix in PAGES:
            titles = [title for name in names for title in (name, f"{name}: ground truth")]
            images = list(zip(titles, (image for row in rows for image in row), strict=True))
            write_page(args.output, f"{args.format}: {reader.root.name}", {}, images, categories=reader.categories)
        else:
            png.write(args.output, draw_image_grid(rows, ["image", "ground truth"], names))
    print(args.output)


def _choose_images(images: Sequence[DatasetImage], image_ids: list[str] | None, count: int) -> list[DatasetImage]:
    """The images with these ids; without ids, `count` images at equal steps."""
    if image_ids is None:
        return list(images[:: max(1, len(images) // count)][:count])
    by_id = {str(image.image_id): image for image in images}
    if unknown := [image_id for image_id in image_ids if image_id not in by_id]:
        raise ConfigError(f"the dataset has no image {unknown[0]!r}", remedy=f"its ids are {[*by_id][:5]}, ...")
    return [by_id[image_id] for image_id in image_ids]
