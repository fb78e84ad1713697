"""`segkit data view`: a dataset's ground truth over its images, as a page or as one image."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.cli import arguments
from segkit.utils import files
from segkit.utils.errors import ConfigError

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
    from segkit.report import views
    from segkit.report.page import write_page
    from segkit.report.palette import choose_colors

    suffix = args.output.suffix.lower()
    if suffix not in (*PAGE_SUFFIXES, ".png"):
        raise ConfigError(f"expected --output to end in .png or .html, got {args.output.name!r}")
    files.check_writable(args.output)
    options = arguments.get_dataset_options(args)
    reader = open_reader(args.format, options)
    selection = views.find_images(reader, args.image) if args.image else views.select_images(reader, args.count)
    is_page = suffix in PAGE_SUFFIXES
    side_px = views.PAGE_VIEW_PX if is_page else views.GRID_VIEW_PX
    colors, drawing = choose_colors(selection.segments, reader.categories), arguments.get_drawing_options(args)
    drawn = (views.read_view(reader, image, colors, side_px, **drawing) for image in selection.images)
    with files.convert_write_errors(args.output):
        if is_page:
            title = f"{args.format}: {reader.root.name}"
            write_page(args.output, title, {}, views=drawn, notes=selection.notes)
        else:
            pixels, marks_void = selection.size_px, reader.marks_void
            legend = views.build_legend(selection.segments, pixels, reader.categories, colors, marks_void)
            png.write(args.output, views.draw_view_grid([*drawn], legend))
    print(*selection.notes, args.output, sep="\n")
