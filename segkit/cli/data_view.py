"""`segkit data view`: a dataset's truth drawn over its images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from segkit.cli.arguments import positive
from segkit.cli.data_convert import add_source_arguments, source_options
from segkit.formats.base import DatasetImage
from segkit.scoring import counts_file
from segkit.utils.errors import ConfigError

PAGES = (".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--format", dest="format", required=True, metavar="FORMAT", help="of the dataset")
    parser.add_argument("--image", nargs="+", metavar="ID", help="image_ids (default: some, spread over the dataset)")
    parser.add_argument("--count", type=positive, default=12, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="a .png, or an .html page")
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draw and say where; 0 where all could be read."""
    from segkit.formats import png
    from segkit.formats.registry import open_reader
    from segkit.report.grids import draw_image_grid
    from segkit.report.overlay import draw_panoptic
    from segkit.report.page import write_page

    if args.output.suffix.lower() not in (*PAGES, ".png"):
        raise ConfigError(f"expected a file that ends in .png or .html, got {args.output.name!r}")
    counts_file.check_writable(args.output)
    source = open_reader(args.format, source_options(args))
    chosen = _chosen(source.images, args.image, args.count)
    images = []
    for image in chosen:
        pixels = source.read_image(image)
        ground_truth = draw_panoptic(pixels, source.read_segmentation(image), source.categories)
        images.append((str(image.image_id), pixels, ground_truth))
    with counts_file.convert_write_errors(args.output):
        if args.output.suffix.lower() in PAGES:
            shown = [
                pair
                for name, image, ground_truth in images
                for pair in ((name, image), (f"{name}: truth", ground_truth))
            ]
            write_page(args.output, f"{args.format}: {source.root.name}", {}, shown, categories=source.categories)
        else:
            rows = [[image, ground_truth] for _, image, ground_truth in images]
            png.write(args.output, draw_image_grid(rows, ["image", "ground truth"], [name for name, *_ in images]))
    print(args.output)
    return 0


def _chosen(images: Sequence[DatasetImage], asked: list[str] | None, count: int) -> list[DatasetImage]:
    by_id = {str(image.image_id): image for image in images}
    if asked is None:
        step = max(1, len(images) // count)
        return list(images[::step][:count])
    if unknown := [image_id for image_id in asked if image_id not in by_id]:
        raise ConfigError(f"there is no image {unknown[0]!r}", remedy=f"ids are {[*by_id][:5]}, ...")
    return [by_id[image_id] for image_id in asked]
