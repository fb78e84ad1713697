"""`segkit data view`: a dataset's ground truth over its images, as a page or as one image."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.cli import arguments
from segkit.utils import files
from segkit.utils.errors import ConfigError

if TYPE_CHECKING:
    from segkit.formats.base import DatasetImage

SUMMARY = "draw a dataset's ground truth over its images, in a page or a grid"
PAGE_SUFFIXES = (".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add_dataset_arguments(parser)
    parser.add_argument(
        "--image", nargs="+", metavar="ID", help="image_ids (default: some with labels, spread over the dataset)"
    )
    arguments.add_number(parser, "--count", 12, "how many")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="a .png, or an .html page")
    arguments.add_drawing_options(parser)


def run(args: argparse.Namespace) -> None:
    """Draw the images and print the written path."""
    from segkit.formats import png
    from segkit.formats.registry import open_reader
    from segkit.report.page import write_page
    from segkit.report.palette import choose_colors
    from segkit.report.views import (
        GRID_VIEW_PX,
        PAGE_VIEW_PX,
        Selection,
        build_legend,
        draw_view,
        draw_view_grid,
        select_images,
    )

    suffix = args.output.suffix.lower()
    if suffix not in (*PAGE_SUFFIXES, ".png"):
        raise ConfigError(f"expected --output to end in .png or .html, got {args.output.name!r}")
    files.check_writable(args.output)
    reader = open_reader(args.format, arguments.get_dataset_options(args))
    if args.image is None:
        selection = select_images(reader, args.count)
    else:
        images = _find_images(reader.images, args.image)
        selection = Selection([(image, reader.read_segmentation(image)) for image in images], 0)
    is_page = suffix in PAGE_SUFFIXES
    options: dict[str, Any] = {"side_px": PAGE_VIEW_PX if is_page else GRID_VIEW_PX, "hatch_void": reader.marks_void}
    options |= arguments.get_drawing_options(args)
    segmentations = [segmentation for _, segmentation in selection.images]
    colors = choose_colors(segmentations, reader.categories)
    views = [
        draw_view(str(image.image_id), reader.read_image(image), segmentation, reader.categories, colors, **options)
        for image, segmentation in selection.images
    ]
    notes = [f"{selection.left_out} images without a label are left out; --image shows them."] * (
        selection.left_out > 0
    )
    with files.convert_write_errors(args.output):
        if is_page:
            write_page(args.output, f"{args.format}: {reader.root.name}", {}, views=views, notes=notes)
        else:
            legend = build_legend(segmentations, reader.categories, colors)
            png.write(args.output, draw_view_grid(views, legend))
    print(*notes, args.output, sep="\n")


def _find_images(images: Sequence[DatasetImage], image_ids: Sequence[str]) -> list[DatasetImage]:
    by_id = {str(image.image_id): image for image in images}
    if unknown := [image_id for image_id in image_ids if image_id not in by_id]:
        raise ConfigError(f"the dataset has no image {unknown[0]!r}", remedy=f"its ids are {[*by_id][:5]}, ...")
    return [by_id[image_id] for image_id in image_ids]
