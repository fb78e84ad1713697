"""Fuse saved head outputs into panoptic predictions, with reasons for segments that were dropped or shrunk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segkit.formats import coco
from segkit.formats.head_outputs import SavedHeadOutputs, SavedImage
from segkit.fusion import FUSION_METHODS, DroppedSegment, FusionMethod
from segkit.scoring.fusion.options import build_grid
from segkit.structures import CategorySet, HeadOutputs, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import convert_write_errors, dump_json, renaming
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.leftovers import temporary_path
from segkit.utils.process_pool import Progress, map_and_collect_errors

JSON, PNGS, DROPPED_SEGMENTS = "panoptic.json", "panoptic", "dropped_segments.json"
PAGE = "report.html"  # on dropped segments, written by the caller


def fuse_to_dataset(
    fusion: FusionMethod,
    outputs: HeadOutputs,
    categories: CategorySet,
    dropped_segments: list[DroppedSegment] | None = None,
    *,
    where: object = "",
) -> PanopticSegmentation:
    """Fuse an image, and give its segments the category ids of the dataset. Segments without pixels are left out.

    Args:
        fusion: the method.
        outputs: head outputs of the image.
        categories: categories of the dataset.
        dropped_segments: gets the segments that were dropped or shrunk, with contiguous ids; see `FusionMethod`.
        where: the outputs, for messages.

    Returns:
        The fused map and segments.

    Raises:
        ConfigError: the outputs lack what the method needs.
        DatasetError: the categories lack a class of the outputs.
    """
    try:
        fused = fusion(outputs, dropped_segments)
    except ConfigError as error:
        raise ConfigError(str(error), where=where) from None
    try:
        segments = tuple(
            _set_category(segment, categories.category_id(segment.category_id, segment.isthing))
            for segment in fused.segments
            if segment.area_px
        )
    except IndexError as error:
        raise DatasetError(f"expected classes of the saved categories: {error}", where=where) from None
    return PanopticSegmentation(fused.segment_ids, segments)


def _set_category(s: Segment, category_id: int) -> Segment:
    """dataclasses.replace takes three times as long, which a sweep notices."""
    return Segment(s.segment_id, category_id, s.isthing, s.area_px, s.iscrowd, s.score, s.instance_id)


def check_needs(saved: SavedHeadOutputs, fusions: Iterable[FusionMethod]) -> None:
    """Check that the saved outputs hold what the methods need. Images are read up to the first one with an instance.

    Args:
        saved: saved head outputs.
        fusions: the methods.

    Raises:
        ConfigError: names every method that needs what was not saved.
    """
    if not saved.images:
        return
    for image in saved.images:
        outputs = saved.read(image)
        if len(outputs.instances):
            break  # else the last image: without an instance nothing that instances need is missing
    problems: dict[str, None] = {}
    for fusion in fusions:
        try:
            fusion(outputs)
        except ConfigError as error:
            problems[str(error)] = None
    if problems:
        raise ConfigError(". ".join(problems))


def fuse_images(
    saved: SavedHeadOutputs, image_ids: Sequence[str], names: Sequence[str], assignments: Sequence[str]
) -> list[tuple[SavedImage, dict[str, PanopticSegmentation]]]:
    """Fuse some images by several methods, to compare them.

    Args:
        saved: saved head outputs.
        image_ids: image ids as text.
        names: methods; none for all methods that the saved outputs allow.
        assignments: `option=value` texts.

    Returns:
        (image, method -> segmentation with category ids of the dataset) for each image.

    Raises:
        ConfigError: an image, method or option is unknown, or a named method needs what was not saved.
    """
    by_id = {str(image.image_id): image for image in saved.images}
    if unknown := [image_id for image_id in image_ids if image_id not in by_id]:
        raise ConfigError(f"unknown image {unknown[0]!r}", where=saved.folder, remedy=f"ids are {[*by_id][:5]}, ...")
    settings = build_grid(names or [*FUSION_METHODS], (), saved.categories, assignments)
    fusions = {name: choices[0].fusion for name, choices in settings.items()}
    if names:
        check_needs(saved, fusions.values())
    fused = []
    for image_id in image_ids:
        outputs = saved.read(by_id[image_id])
        segmentations: dict[str, PanopticSegmentation] = {}
        for name, fusion in fusions.items():
            try:
                segmentations[name] = fuse_to_dataset(fusion, outputs, saved.categories)
            except ConfigError:
                if names:
                    raise
        fused.append((by_id[image_id], segmentations))
    return fused


def run_fusion(
    saved: SavedHeadOutputs,
    fusion: FusionMethod,
    output: str | Path,
    *,
    explain: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> list[dict[str, Any]]:
    """Fuse all images, and write `panoptic.json` and `panoptic/*.png` in COCO's format; instances keep their scores.

    With `explain` also `dropped_segments.json` is written, a list of {image_id, file_name, dropped_segments} for each
    image. A dropped segment has the keys of `DroppedSegment`, but category_id is that of the dataset, `category` its
    name, and overlapped_by a list of {segment_id, category_id, category (None for void), pixels}. All files appear
    together, or none, and replace those of an earlier run.

    Args:
        saved: saved head outputs.
        fusion: the method.
        output: folder to write to.
        explain: whether to write why segments were dropped or shrunk.
        workers: number of processes.
        progress: called with (images done, images in all).
        limit: stop at so many errors.

    Returns:
        The content of `dropped_segments.json`; empty without `explain`.

    Raises:
        DatasetError: the folder cannot be written; or it lists what is wrong with the saved images, up to `limit`
            errors.
    """
    output = Path(output)
    names = coco.choose_png_names([(image.image_id, image.file_name) for image in saved.images])
    with convert_write_errors(output), _replace_outputs(output) as stage:

        def fuse(image: SavedImage) -> tuple[dict[str, Any], dict[str, Any]]:
            dropped: list[DroppedSegment] = []
            outputs, where = saved.read(image), saved.get_location(image)
            fused = fuse_to_dataset(fusion, outputs, saved.categories, dropped if explain else None, where=where)
            png_name = names[image.image_id]
            coco.write_png(stage / PNGS / png_name, fused.segment_ids)
            described = [_describe_dropped(segment, fused.segments, saved.categories) for segment in dropped]
            explanation = {"image_id": image.image_id, "file_name": image.file_name, "dropped_segments": described}
            return coco.build_panoptic_annotation(image.image_id, png_name, fused), explanation

        results = [*map_and_collect_errors(fuse, [*saved.images], ErrorCollector(limit), workers, progress)]
        entries = [_build_entry(image) for image in saved.images]
        coco.write_panoptic(stage / JSON, entries, [annotation for _, (annotation, _) in results], saved.categories)
        explained = [explanation for _, (_, explanation) in results] if explain else []
        if explain:
            dump_json(stage / DROPPED_SEGMENTS, explained)
    return explained


def _describe_dropped(dropped: DroppedSegment, segments: Sequence[Segment], categories: CategorySet) -> dict[str, Any]:
    category_ids = {segment.segment_id: segment.category_id for segment in segments}
    category_id = categories.category_id(dropped.category_id, dropped.isthing)
    overlapped_by = []
    for segment_id, pixels in dropped.overlapped_by:
        other_id = category_ids.get(segment_id)
        name = None if other_id is None else categories[other_id].name
        overlapped_by.append({"segment_id": segment_id, "category_id": other_id, "category": name, "pixels": pixels})
    own = {"category_id": category_id, "category": categories[category_id].name, "overlapped_by": overlapped_by}
    return {**vars(dropped), **own}


def _build_entry(image: SavedImage) -> dict[str, Any]:
    height, width = image.size_hw
    return {"id": image.image_id, "file_name": image.file_name, "height": height, "width": width}


@contextmanager
def _replace_outputs(output: Path) -> Iterator[Path]:
    """A folder whose content is moved into `output` at the end of the block; it is removed on an error."""
    with temporary_path(output) as stage:
        (stage / PNGS).mkdir(parents=True)
        with renaming(stage, output):
            yield stage
        for name in (JSON, PNGS, DROPPED_SEGMENTS, PAGE):  # the old JSON first: it must never describe other PNGs
            _remove(output / name)
        for name in (PNGS, DROPPED_SEGMENTS, JSON):
            if (stage / name).exists():
                os.replace(stage / name, output / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
