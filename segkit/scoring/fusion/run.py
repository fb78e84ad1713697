"""Fuse saved head outputs with one method: panoptic predictions as files, and why segments were dropped or shrunk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segkit.formats import coco
from segkit.formats.head_outputs import SavedHeadOutputs, SavedImage
from segkit.fusion import FUSION_METHODS, DroppedSegment, FusionMethod
from segkit.scoring.counts_file import convert_write_errors
from segkit.scoring.fusion.options import build_grid
from segkit.structures import CategorySet, HeadOutputs, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import dump_json
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import Progress, ordered_map

JSON, PNGS, DROPPED_SEGMENTS = "panoptic.json", "panoptic", "dropped_segments.json"
PAGE = "report.html"  # of the fates: made by the caller


def fuse_to_dataset(
    fusion: FusionMethod,
    outputs: HeadOutputs,
    categories: CategorySet,
    dropped_segments: list[DroppedSegment] | None = None,
    *,
    where: object = "",
) -> PanopticSegmentation:
    """One image fused, its segments with the dataset's category ids, without those that have no pixel.

    fates: see `FusionMethod`; theirs are contiguous ids. where: of the outputs, for messages. ConfigError where they
    lack what the method needs, DatasetError for a class that the categories lack.
    """
    try:
        fused = fusion(outputs, dropped_segments)
    except ConfigError as error:
        raise ConfigError(str(error), where=where) from None
    try:
        segments = tuple(
            replace(segment, category_id=categories.category_id(segment.category_id, segment.isthing))
            for segment in fused.segments
            if segment.area_px
        )
    except IndexError as error:
        raise DatasetError(f"expected classes of the saved categories: {error}", where=where) from None
    return PanopticSegmentation(fused.segment_ids, segments)


def check_needs(saved: SavedHeadOutputs, fusions: Iterable[FusionMethod]) -> None:
    """ConfigError naming every method that needs what the saved predictions do not hold; of the images those are read
    up to the first with an instance."""
    told: dict[str, None] = {}
    if saved.images:
        outputs = _telling(saved)
        for fusion in fusions:
            try:
                fusion(outputs)
            except ConfigError as error:
                told[str(error)] = None
    if told:
        raise ConfigError(". ".join(told))


def _telling(saved: SavedHeadOutputs) -> HeadOutputs:
    """The first image with an instance, else the last: without instances nothing of theirs is missing."""
    for image in saved.images:
        outputs = saved.read(image)
        if len(outputs.instances):
            break
    return outputs


def fuse_images(
    saved: SavedHeadOutputs, image_ids: Sequence[str], names: Sequence[str], assignments: Sequence[str]
) -> list[tuple[SavedImage, dict[str, PanopticSegmentation]]]:
    """Each image with its segmentation by each method, category ids of the dataset.

    image_ids: as text. names: methods; none for all that the saved predictions allow. assignments: `option=value`.
    ConfigError for an unknown image, method or option, and a named method that needs what was not saved.
    """
    by_id = {str(image.image_id): image for image in saved.images}
    if unknown := [image_id for image_id in image_ids if image_id not in by_id]:
        raise ConfigError(
            f"there is no image {unknown[0]!r}", where=saved.folder, remedy=f"ids are {[*by_id][:5]}, ..."
        )
    settings = build_grid(names or [*FUSION_METHODS], (), saved.categories, assignments)
    fusions = {name: of_method[0].fusion for name, of_method in settings.items()}
    if names:
        check_needs(saved, fusions.values())
    found = []
    for image_id in image_ids:
        outputs, made = saved.read(by_id[image_id]), {}
        for name, fusion in fusions.items():
            try:
                made[name] = fuse_to_dataset(fusion, outputs, saved.categories)
            except ConfigError:
                if names:
                    raise
        found.append((by_id[image_id], made))
    return found


def run_fusion(
    saved: SavedHeadOutputs,
    fusion: FusionMethod,
    output: Path,
    *,
    explain: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> list[dict[str, Any]]:
    """Write `panoptic.json` and `panoptic/*.png` into the folder, COCO's format, each instance's score kept; with
    `explain` also `dropped_segments.json`, whose content is returned (else an empty list).

    {image_id, file_name, dropped_segments: a dict for each, with category_id of the dataset, `category` its name,
    and taken_by: [{segment_id, category_id, category (None for void), pixels}]} of every image.
    All or nothing appears, in place of what an earlier run left. DatasetError that tells all that is wrong with the
    saved images, up to `limit` problems, and where the folder cannot be written.
    """
    names = coco.choose_png_names([(image.image_id, image.file_name) for image in saved.images])
    problems, annotations, explained = ErrorCollector(limit), [], []
    with convert_write_errors(output), _appearing(output) as stage:
        fuse = _Fusing(saved, fusion, stage / PNGS, names, explain).fuse
        images = [*saved.images]
        for done, found in enumerate(ordered_map(fuse, images, workers), 1):
            if isinstance(found, DatasetError):
                problems.add(found)
            else:
                annotations.append(found[0])
                explained += [found[1]] if explain else []
            if progress is not None:
                progress(done, len(images))
        problems.check()
        entries = [_entry(image) for image in images]
        coco.write_panoptic(stage / JSON, entries, annotations, saved.categories)
        if explain:
            dump_json(stage / DROPPED_SEGMENTS, explained)
    return explained


@dataclass(frozen=True)
class _Fusing:
    """Fuses and writes one image at a time, in any process."""

    saved: SavedHeadOutputs
    fusion: FusionMethod
    folder: Path
    png_names: dict[int | str, str]
    explain: bool

    def fuse(self, image: SavedImage) -> tuple[dict[str, Any], dict[str, Any]] | DatasetError:
        """The image's annotation and what is told of it."""
        categories, dropped_segments = self.saved.categories, []  # type: tuple[CategorySet, list[DroppedSegment]]
        try:
            outputs, where = self.saved.read(image), self.saved.get_location(image)
            fused = fuse_to_dataset(
                self.fusion, outputs, categories, dropped_segments if self.explain else None, where=where
            )
        except DatasetError as error:
            return error
        png_name = self.png_names[image.image_id]
        coco.write_png(self.folder / png_name, fused.segment_ids)
        told = [_told(fate, fused.segments, categories) for fate in dropped_segments]
        annotation = coco.build_panoptic_annotation(image.image_id, png_name, fused)
        return annotation, {"image_id": image.image_id, "file_name": image.file_name, "dropped_segments": told}


def _told(fate: DroppedSegment, segments: Sequence[Segment], categories: CategorySet) -> dict[str, Any]:
    category_of = {segment.segment_id: segment.category_id for segment in segments}
    category_id = categories.category_id(fate.category_id, fate.isthing)
    takers = []
    for segment_id, pixels in fate.overlapped_by:
        taker = category_of.get(segment_id)
        name = None if taker is None else categories[taker].name
        takers.append({"segment_id": segment_id, "category_id": taker, "category": name, "pixels": pixels})
    own = {"category_id": category_id, "category": categories[category_id].name, "overlapped_by": takers}
    return {**vars(fate), **own}


def _entry(image: SavedImage) -> dict[str, Any]:
    height, width = image.size_hw
    return {"id": image.image_id, "file_name": image.file_name, "height": height, "width": width}


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """A folder whose content takes its place in `output` at the end of the block, and is removed on an error."""
    output.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".fusing-", dir=output))
    try:
        (stage / PNGS).mkdir()
        yield stage
        for name in (
            JSON,
            PNGS,
            DROPPED_SEGMENTS,
            PAGE,
        ):  # what is old goes first: a JSON must never describe other PNGs
            _remove(output / name)
        for made in (PNGS, DROPPED_SEGMENTS, JSON):
            if (stage / made).exists():
                os.replace(stage / made, output / made)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
