"""Semantic PNGs (panoptic_stuff_*) of a COCO panoptic dataset, which Detectron2's own panoptic names need."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.formats import coco, png
from segkit.formats.derive import build_semantic_map
from segkit.structures import IGNORE_LABEL, CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.issues import ErrorCollector
from segkit.utils.process_pool import Progress, map_and_collect_errors


def write_panoptic_stuff(
    json_path: Path, png_folder: Path, output: Path, workers: int = 1, progress: Progress | None = None
) -> int:
    """Write one (H, W) uint8 PNG per image, named as the panoptic PNG.

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
    if output.resolve() == png_folder.resolve():
        raise DatasetError("the output would overwrite the panoptic PNGs", where=output, remedy="name another folder")
    dataset = coco.read_panoptic(json_path)
    if len(dataset.categories.stuff) >= IGNORE_LABEL:
        problem = f"expected fewer than {IGNORE_LABEL} stuff categories ({IGNORE_LABEL} is void)"
        raise DatasetError(f"{problem}, got {len(dataset.categories.stuff)}", where=json_path)
    convert = partial(_convert, categories=dataset.categories, png_folder=png_folder, output=output)
    return len([*map_and_collect_errors(convert, dataset.records, ErrorCollector(), workers, progress)])


def _convert(record: coco.PanopticRecord, categories: CategorySet, png_folder: Path, output: Path) -> None:
    segmentation = coco.read_segmentation(
        png_folder / record.png_name,
        record.segments_info,
        categories,
        (record.height, record.width),
        record.image_id,
    )
    png.write(output / record.png_name, build_semantic_map(segmentation, categories.build_semantic_space()))
