"""Writes the semantic PNGs (panoptic_stuff_*) that Detectron2's own `*_panoptic_separated` names need.

Each pixel is 0 for things, 1..S for stuff in the order of the category ids, 255 for void, as
datasets/prepare_panoptic_fpn.py of Detectron2 writes them. segkit's own dataset names need none of these files.

    python datasets/prepare_panoptic_stuff.py --json coco/annotations/panoptic_val2017.json \
        --png-folder coco/panoptic_val2017 --output coco/panoptic_stuff_val2017
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from rich.progress import track

from segkit.formats import coco, png
from segkit.formats.derive import build_semantic_map
from segkit.structures import IGNORE_LABEL, CategorySet
from segkit.utils.errors import DatasetError

CHUNK = 16  # images that a worker takes at a time


def main(arguments: list[str] | None = None) -> int:
    """0 when all is written, 1 when the data has a fault, which is told in one line."""
    args = _parse(arguments)
    try:
        count = write_stuff(args.json, args.png_folder, args.output, args.workers)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {count} PNGs to {args.output}")
    return 0


def write_stuff(json_path: Path, png_folder: Path, output: Path, workers: int = 1) -> int:
    """Writes one (H, W) uint8 PNG per image into `output`, named as the panoptic PNG, and returns how many.

    Raises DatasetError for a fault in the data, and where `output` is the folder that is read.
    """
    if output.resolve() == png_folder.resolve():
        raise DatasetError("expected another folder than the panoptic PNGs', which would be lost", where=output)
    dataset = coco.read_panoptic(json_path)
    if len(dataset.categories.stuff) >= IGNORE_LABEL:
        limit = f"expected fewer than {IGNORE_LABEL} stuff categories: {IGNORE_LABEL} is void"
        raise DatasetError(f"{limit}, got {len(dataset.categories.stuff)}", where=json_path)
    convert = partial(_convert, categories=dataset.categories, png_folder=png_folder, output=output)
    for _ in track(_each(convert, dataset.records, workers), "Converting", total=len(dataset.records)):
        pass
    return len(dataset.records)


def _each(convert: partial[None], records: tuple[coco.PanopticRecord, ...], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(convert, records)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(convert, records, chunksize=CHUNK)


def _convert(record: coco.PanopticRecord, categories: CategorySet, png_folder: Path, output: Path) -> None:
    segmentation = coco.read_segmentation(
        png_folder / record.png_name,
        record.segments_info,
        categories,
        (record.height, record.width),
        record.image_id,
    )
    png.write(output / record.png_name, build_semantic_map(segmentation, categories.build_semantic_space()))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Semantic PNGs from a COCO panoptic dataset, for Detectron2's names.")
    parser.add_argument("--json", type=Path, required=True, help="the panoptic JSON")
    parser.add_argument("--png-folder", type=Path, required=True, help="the folder of its PNGs")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    args = parser.parse_args(arguments)
    if args.workers < 1:
        parser.error(f"--workers must be at least 1, got {args.workers}")
    return args


if __name__ == "__main__":
    sys.exit(main())
