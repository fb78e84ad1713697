"""labelme, written: one JSON of polygons and masks for each picture."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import image_files
from segkit.formats.base import DatasetImage, DatasetWriter, compute_segment_areas, list_lost_keys, list_lost_scores
from segkit.formats.labelme import shapes as labelme_shapes
from segkit.formats.labelme.files import SUFFIX
from segkit.structures import (
    MAX_SEGMENT_ID,
    VOID,
    CategorySet,
    PanopticSegmentation,
    Segment,
    segmentation_to_rle,
)
from segkit.utils import files
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry
from segkit.utils.text import abbreviate

VERSION = "5.5.0"  # of labelme, whose files are written


class LabelmeWriter(DatasetWriter):
    """Writes one JSON per image, <root>/<file_name> with the ending .json, for a picture beside it (`picture_path`).

    Labels are the names of the categories, which must differ. A segment is polygons along the edges of its pixels,
    joined by group_id, or where it has holes a mask; crowds have the flag `iscrowd`. `LabelmeReader` reads back the
    same pixels; which labels are stuff it has to be told.
    """

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories)
        names = [c.name for c in categories.categories]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names:
            got = f"{abbreviate(twice)} more than once" if twice else "an empty one"
            raise DatasetError(f"expected categories of different names, got {got}", where=root, remedy="rename one")
        self._names: set[str] = set()
        self._stuff_is_told = False

    def image_path(self, image: DatasetImage) -> Path:
        """Where the image's picture is to lie, under its own name; DatasetError for a name that climbs out."""
        return image_files.build_image_path(self.root, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Writes the image's JSON; what it cannot hold, one line each.

        annotations: things' whole masks, written in place of the visible parts where, painted as they come, or as
        `coco_sources.panoptic_of_annotations` paints, and the stuff on top, they give the segmentation. Raises
        DatasetError where the name climbs out, is hidden, too long, or was written before; ValueError for a map of
        another size than the image, a category that is not in `categories` and an id in the map that no segment has.
        """
        name = image_files.get_unique_stem(image, self._names, self.root)
        areas_px = compute_segment_areas(image, segmentation, self.categories)
        empty = [s.segment_id for s in segmentation.segments if s.segment_id not in areas_px]
        losses = [f"segment {i}: a segment without pixels cannot be held" for i in empty]
        layers = _visible_layers(segmentation)
        if annotations:
            whole = _whole_layers(segmentation, annotations)
            if whole is None:
                reason = "their masks, painted in order, do not give the segmentation, whose segments are written"
                losses.append(f"annotations: {reason}")
            layers = layers if whole is None else [*whole, *(layer for layer in layers if not layer.isthing)]
        files.dump_json(self.root / f"{name}{SUFFIX}", self._content(image, layers))
        self._names.add(name)
        return [
            *losses,
            *list_lost_keys(annotations),
            *list_lost_scores(segmentation.segments),
            *self._stuff_losses(layers),
        ]

    def _stuff_losses(self, layers: Sequence[_Layer]) -> list[str]:
        """The line on the stuff, with the first image that has some."""
        if self._stuff_is_told or all(layer.isthing for layer in layers):
            return []
        self._stuff_is_told = True
        names = json.dumps([c.name for c in self.categories.stuff], ensure_ascii=False)
        return [f"which labels are stuff cannot be held; read it with --set {shlex.quote(f'stuff={names}')}"]

    def _content(self, image: DatasetImage, layers: Sequence[_Layer]) -> Entry:
        shapes = [
            entry
            for group_id, layer in enumerate(layers, 1)
            for entry in labelme_shapes.of_mask(
                layer.crop, layer.corner_xy, self.categories[layer.category_id].name, group_id, layer.iscrowd
            )
        ]
        return {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": PurePosixPath(image.file_name).name,
            "imageData": None,
            "imageHeight": image.size_hw[0],
            "imageWidth": image.size_hw[1],
        }


@dataclass(frozen=True, eq=False)
class _Layer:
    """One segment or annotation to write: the (h, w) crop of its pixels at (left, top)."""

    category_id: int
    isthing: bool
    iscrowd: bool
    crop: NDArray[np.bool_]
    corner_xy: tuple[int, int]


def _visible_layers(segmentation: PanopticSegmentation) -> list[_Layer]:
    found = segmentation.runs.extents()
    layers = []
    for segment in (s for s in segmentation.segments if s.segment_id in found):
        left, top, width, height = found[segment.segment_id].bbox_xywh
        crop = segmentation.segment_ids[top : top + height, left : left + width] == segment.segment_id
        layers.append(_Layer(segment.category_id, segment.isthing, segment.iscrowd, crop, (left, top)))
    return layers


def _whole_layers(segmentation: PanopticSegmentation, annotations: Sequence[dict[str, Any]]) -> list[_Layer] | None:
    """The annotations as layers, in the order that gives the segmentation's things; None where none does."""
    segment_ids = segmentation.segment_ids
    layers = []
    for annotation in annotations:
        rle = segmentation_to_rle(annotation["segmentation"], (segment_ids.shape[0], segment_ids.shape[1]))
        iscrowd = bool(annotation.get("iscrowd", 0))
        layers.append(_Layer(annotation["category_id"], True, iscrowd, *labelme_shapes.crop_of(rle)))
    return next((order for order in _orders(layers) if _gives(order, segmentation)), None)


def _orders(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """As they come; and crowds first, then later or small on top."""
    yield [*layers]
    yield sorted(layers, key=lambda layer: not layer.iscrowd)
    yield sorted(layers, key=lambda layer: (not layer.iscrowd, -np.count_nonzero(layer.crop)))


def _gives(layers: Sequence[_Layer], segmentation: PanopticSegmentation) -> bool:
    """Whether the layers, painted one after the other and the stuff on top, show one thing each, or nothing."""
    things = {s.segment_id: s for s in segmentation.segments if s.isthing}
    painted = np.zeros(segmentation.segment_ids.shape, dtype=np.int32)
    for number, layer in enumerate(layers, 1):
        (left, top), (height, width) = layer.corner_xy, layer.crop.shape
        painted[top : top + height, left : left + width][layer.crop] = number
    is_stuff = np.isin(segmentation.segment_ids, [s.segment_id for s in segmentation.segments if not s.isthing])
    shown, expected = (np.where(is_stuff, VOID, ids) for ids in (painted, segmentation.segment_ids))
    packed = np.unique(shown * np.int64(MAX_SEGMENT_ID + 1) + expected)
    pairs = [divmod(pair, MAX_SEGMENT_ID + 1) for pair in packed.tolist()]
    numbers, ids = zip(*pairs, strict=True)
    one_to_one = len({*numbers}) == len(pairs) == len({*ids})
    return one_to_one and all(_same(layers, things, *pair) for pair in pairs)


def _same(layers: Sequence[_Layer], things: dict[int, Segment], number: int, segment_id: int) -> bool:
    if VOID in (number, segment_id):
        return number == segment_id
    layer, segment = layers[number - 1], things[segment_id]
    return (layer.category_id, layer.iscrowd) == (segment.category_id, segment.iscrowd)
