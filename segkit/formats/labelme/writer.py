"""labelme's JSON files, written: one JSON of polygons and masks for each image."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import base, image_files
from segkit.formats.base import DatasetImage, DatasetWriter
from segkit.formats.labelme import shapes as labelme_shapes
from segkit.formats.labelme.shapes import JSON_SUFFIX
from segkit.structures import MAX_SEGMENT_ID, VOID, CategorySet, PanopticSegmentation, segmentation_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.files import dump_json
from segkit.utils.json_fields import Entry
from segkit.utils.text import abbreviate

VERSION = "5.5.0"  # of labelme, whose files are written


class LabelmeWriter(DatasetWriter):
    """Writes one JSON per image, <root>/<file_name> with the ending .json, for an image beside it.

    Labels are the names of the categories. A segment is polygons along the edges of its pixels, joined by group_id, or
    a mask if it has holes. Crowds have the flag `iscrowd`. `LabelmeReader` reads the same pixels again if its option
    names the labels that are stuff.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations.

    Raises:
        DatasetError: Two categories have the same name, or one has none.
    """

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories)
        names = [c.name for c in categories.categories]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated or "" in names:
            got = f"{abbreviate(repeated)} more than once" if repeated else "an empty one"
            raise DatasetError(f"expected categories of different names, got {got}", where=root, remedy="rename one")
        self._names: set[str] = set()
        self._stuff_is_reported = False

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return image_files.build_image_path(self.root, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class.

        The whole masks of `annotations` are written in place of the visible parts if they give the segmentation when
        they are painted in their order, or as `coco.paint_annotations` does, with the stuff on top.
        """
        name = image_files.get_unique_stem(image, self._names, self.root)
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        losses = base.list_empty_segments(segmentation.segments, areas_px)
        layers = _build_visible_layers(segmentation)
        if annotations:
            whole = _build_whole_layers(segmentation, annotations)
            if whole is None:
                reason = "their masks, painted in order, do not give the segmentation, whose segments are written"
                losses.append(f"annotations: {reason}")
            layers = layers if whole is None else [*whole, *(layer for layer in layers if not layer.isthing)]
        dump_json(self.root / f"{name}{JSON_SUFFIX}", self._build_content(image, layers))
        self._names.add(name)
        losses += [*base.list_lost_keys(annotations), *base.list_lost_scores(segmentation.segments)]
        if not self._stuff_is_reported and not all(layer.isthing for layer in layers):
            self._stuff_is_reported = True
            names = json.dumps([c.name for c in self.categories.stuff], ensure_ascii=False)
            option = shlex.quote(f"stuff={names}")
            losses.append(f"which labels are stuff cannot be held; read it with --set {option}")
        return losses

    def _build_content(self, image: DatasetImage, layers: Sequence[_Layer]) -> Entry:
        shapes = []
        for group_id, layer in enumerate(layers, 1):
            label = self.categories[layer.category_id].name
            shapes += labelme_shapes.build_entries(layer.crop, layer.corner_xy, label, group_id, layer.iscrowd)
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


def _build_visible_layers(segmentation: PanopticSegmentation) -> list[_Layer]:
    extents = segmentation.runs.extents()
    layers = []
    for segment in (s for s in segmentation.segments if s.segment_id in extents):
        left, top, width, height = extents[segment.segment_id].bbox_xywh
        crop = segmentation.segment_ids[top : top + height, left : left + width] == segment.segment_id
        layers.append(_Layer(segment.category_id, segment.isthing, segment.iscrowd, crop, (left, top)))
    return layers


def _build_whole_layers(
    segmentation: PanopticSegmentation, annotations: Sequence[dict[str, Any]]
) -> list[_Layer] | None:
    """The annotations as layers, in the first order that gives the segmentation's things; None if none does."""
    height, width = segmentation.segment_ids.shape
    layers = []
    for annotation in annotations:
        crop, corner_xy = labelme_shapes.decode_crop(segmentation_to_rle(annotation["segmentation"], (height, width)))
        iscrowd = bool(annotation.get("iscrowd", 0))
        layers.append(_Layer(annotation["category_id"], True, iscrowd, crop, corner_xy))
    crowds_first = sorted(layers, key=lambda layer: not layer.iscrowd)
    large_first = sorted(layers, key=lambda layer: (not layer.iscrowd, -np.count_nonzero(layer.crop)))
    orders = (layers, crowds_first, large_first)
    return next((order for order in orders if _give_segmentation(order, segmentation)), None)


def _give_segmentation(layers: Sequence[_Layer], segmentation: PanopticSegmentation) -> bool:
    """Whether the layers, painted in this order with the stuff on top, show one thing each, or nothing."""
    painted = np.zeros(segmentation.segment_ids.shape, dtype=np.int32)
    for number, layer in enumerate(layers, 1):
        (left, top), (height, width) = layer.corner_xy, layer.crop.shape
        painted[top : top + height, left : left + width][layer.crop] = number
    is_stuff = np.isin(segmentation.segment_ids, [s.segment_id for s in segmentation.segments if not s.isthing])
    numbers, segment_ids = (np.where(is_stuff, VOID, ids) for ids in (painted, segmentation.segment_ids))
    packed = np.unique(numbers * np.int64(MAX_SEGMENT_ID + 1) + segment_ids)
    pairs = [divmod(pair, MAX_SEGMENT_ID + 1) for pair in packed.tolist()]
    is_one_to_one = all(len({*column}) == len(pairs) for column in zip(*pairs, strict=True))
    shown = {VOID: None} | {number: (x.category_id, x.iscrowd) for number, x in enumerate(layers, 1)}
    things = {VOID: None} | {s.segment_id: (s.category_id, s.iscrowd) for s in segmentation.segments if s.isthing}
    return is_one_to_one and all(shown[number] == things[segment_id] for number, segment_id in pairs)
