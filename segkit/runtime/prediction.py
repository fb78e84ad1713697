"""Prediction: what a model finds in one image, with the ids and names of the dataset it was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.formats import coco, png
from segkit.report.legend import add_legend
from segkit.report.overlay import ALPHA
from segkit.runtime import conversion, drawing
from segkit.runtime.segments import PredictedSegment
from segkit.structures import (
    CategorySet,
    IdRuns,
    ImageId,
    InstanceMasks,
    PanopticSegmentation,
    Segment,
    SemanticSpace,
)
from segkit.utils.errors import OutputError
from segkit.utils.files import dump_json

OVERLAYS, PANOPTIC, LABELS, JSON = "overlays", "panoptic", "labels", "json"  # folders of saved predictions
NO_NAME = "image"  # of the files of an image that has no name
MAX_NAMES = 8  # of classes in the text of a prediction
MAX_SHOWN_PX = 1600  # side of the image in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a model finds in one image. What the model does not give is None; nothing found is empty, not None.

    Attributes:
        size_hw: (height, width) of the image in pixels.
        categories: the classes of the dataset that the model was trained on.
        panoptic: the panoptic map and its segments, with category ids of the dataset.
        instances: masks, which may overlap; class_ids are contiguous ids of things, boxes are those of the box head.
        semantic: (H, W) integers, the class of each pixel as a channel of `space`.
        space: the channels of `semantic`.
        file_name: of the image; "" for an array.
        load_image: gives the image, (H, W, 3) uint8 RGB, when it is drawn; None: it is drawn as black.
    """

    size_hw: tuple[int, int]
    categories: CategorySet
    panoptic: PanopticSegmentation | None = None
    instances: InstanceMasks | None = None
    semantic: NDArray[np.integer[Any]] | None = None
    space: SemanticSpace | None = None
    file_name: str = ""
    load_image: Callable[[], NDArray[np.uint8]] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the channels of `semantic`; empty if the model gives none."""
        return self.space.names if self.space is not None and self.semantic is not None else ()

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB; an image from a file is read again."""
        return np.zeros((*self.size_hw, 3), dtype=np.uint8) if self.load_image is None else self.load_image()

    @property
    def segment_ids(self) -> NDArray[np.int32]:
        """(H, W) int32, the segment of each pixel, 0 = void.

        Of a model that gives instances alone, the instance of the highest score; of one that gives classes alone, the
        channel + 1.
        """
        return self._segmentation.segment_ids

    @cached_property
    def segments(self) -> tuple[PredictedSegment, ...]:
        """The segments of the panoptic map.

        Of a model that gives instances alone, these, by falling score, as far as they have a pixel; of one that gives
        classes alone, a segment for each class in the image.
        """
        if self.panoptic is None and self.instances is not None:
            return self._list_instances(self.instances)
        ids, extents = self.segment_ids, self._segmentation.runs.extents()
        segments = []
        for segment in self._segmentation.segments:
            if segment.segment_id in extents:
                area_px, (left, top, width, height) = extents[segment.segment_id]
                mask = ids[top : top + height, left : left + width] == segment.segment_id
                box = left, top, width, height
                segments.append(self._build_segment(segment, area_px, box, mask))
        return tuple(segments)

    def to_coco(self, image_id: ImageId = 1) -> dict[str, Any]:
        """Build COCO's entries of the image.

        Args:
            image_id: id of the image in them.

        Returns:
            `image` ({id, file_name, height, width}); `categories`; if the model gives instances, `instances`: COCO
            results ({image_id, category_id, bbox [x, y, w, h], score, segmentation: RLE} each); if it gives a panoptic
            map, `panoptic`: the annotation ({image_id, file_name of the PNG, segments_info}).
        """
        height, width = self.size_hw
        entry = {"id": image_id, "file_name": self.file_name, "height": height, "width": width}
        content: dict[str, Any] = {"image": entry, "categories": self.categories.to_coco()}
        if self.instances is not None:
            content["instances"] = conversion.build_instance_results(self.instances, image_id, self.categories)
        if self.panoptic is not None:
            png_name = f"{get_stem(self.file_name)}.png"
            content["panoptic"] = coco.build_panoptic_annotation(image_id, png_name, self.panoptic)
        return content

    def to_supervision(self) -> Any:
        """Convert `segments` to a `supervision.Detections`.

        Returns:
            xyxy, mask, class_id (category_id) and confidence (NaN for stuff) of each segment; in `data` also
            class_name, segment_id and isthing.

        Raises:
            ImportError: the package supervision is not installed.
        """
        return conversion.build_supervision_detections(self.segments, self.size_hw)

    def save(self, folder: str | Path, name: str | None = None) -> list[Path]:
        """Write overlays/NAME.png, json/NAME.json and, if the model gives them, panoptic/NAME.png, labels/NAME.png.

        The JSON is that of `to_coco`. panoptic/ has COCO's panoptic PNG, labels/ the map `semantic`. Files of the same
        names are replaced; each is written whole or not at all.

        Args:
            folder: folder to write to, made if it is missing.
            name: of the files; None: the image's, without folders and suffix.

        Returns:
            The files that were written.

        Raises:
            DatasetError: a file cannot be written, or `name` leads out of the folder.
        """
        name = get_stem(self.file_name) if name is None else name
        if name in ("", ".", "..") or PureWindowsPath(name).name != name:
            raise OutputError(f"expected the name of a file, got {name!r}", where=folder, remedy="name no folder in it")
        paths = {part: Path(folder, part, f"{name}.png") for part in (OVERLAYS, PANOPTIC, LABELS)}
        paths[JSON] = Path(folder, JSON, f"{name}.json")
        content = self.to_coco()
        png.write_photo(paths[OVERLAYS], np.asarray(self.plot()))
        if self.panoptic is None:
            del paths[PANOPTIC]
        else:
            content["panoptic"]["file_name"] = paths[PANOPTIC].name
            coco.write_png(paths[PANOPTIC], self.panoptic.segment_ids)
        if self.semantic is None:
            del paths[LABELS]
        else:
            png.write_labels(paths[LABELS], self.semantic)
            content["classes"] = [*self.class_names]
        dump_json(paths[JSON], content)
        return [*paths.values()]

    def plot(
        self,
        *,
        names: bool = True,
        scores: bool = True,
        alpha: float = ALPHA,
        legend: bool = False,
        min_score: float = drawing.MIN_SCORE,
    ) -> Image.Image:
        """Draw the prediction over its image.

        Args:
            names: whether to write the classes into the segments, on images of at least 200 pixels width.
            scores: whether to write the scores after them.
            alpha: weight of the colours, 0..1.
            legend: whether to write the classes with their colours beside the image.
            min_score: of a model that gives instances alone, those of a lower score are not drawn, [0, 1].

        Returns:
            RGB: the panoptic map, else the instances, else the classes.

        Raises:
            DatasetError: the file of the image cannot be read any more.
            ValueError: `alpha` is out of range, or the image has another size by now.
        """
        drawable = self._drawable
        options: dict[str, Any] = {"names": names, "scores": scores, "alpha": alpha, "min_score": min_score}
        pixels = drawing.draw(self.image, drawable, self.categories, **options)
        if legend:
            pixels = add_legend(pixels, drawing.list_legend(drawable, self.categories, min_score))
        return Image.fromarray(pixels)

    def _repr_png_(self) -> bytes:
        """The plot with a legend, as a notebook shows it; large images are reduced."""
        image = self.plot(legend=True)
        image.thumbnail((MAX_SHOWN_PX, MAX_SHOWN_PX))
        file = BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    def __repr__(self) -> str:
        counts = Counter(segment.name for segment in self.segments)
        parts = [f"{count} {name}" if count > 1 else name for name, count in counts.items()]
        name = f"{Path(self.file_name).name!r}, " if self.file_name else ""
        more = ", ..." if len(parts) > MAX_NAMES else ""
        found = f": {', '.join(parts[:MAX_NAMES])}{more}" if parts else ""
        return f"Prediction({name}{self.size_hw[0]} x {self.size_hw[1]}, {len(self.segments)} segments{found})"

    @property
    def _drawable(self) -> drawing.Drawable:
        return self._segmentation if self.panoptic is not None or self.instances is None else self.instances

    @cached_property
    def _segmentation(self) -> PanopticSegmentation:
        if self.panoptic is not None:
            return self.panoptic
        if self.instances is not None:
            return conversion.paint_instances(self.instances, self.categories)
        if self.semantic is not None and self.space is not None:
            return conversion.segment_classes(self.semantic, self.categories, self.space)
        return PanopticSegmentation.from_runs(IdRuns.from_map(np.zeros(self.size_hw, dtype=np.int32)), ())

    def _list_instances(self, instances: InstanceMasks) -> tuple[PredictedSegment, ...]:
        segments = []
        for row in conversion.order_by_score(instances):
            crop = instances.crops[row]
            extent = IdRuns.from_map(crop.astype(np.int32)).extents().get(1)
            if extent is not None:
                area_px, (x, y, width, height) = extent
                left, top = instances.corners_xy[row].tolist()
                segment = conversion.build_instance_segment(instances, row, area_px, self.categories)
                mask = crop[y : y + height, x : x + width]
                segments.append(self._build_segment(segment, area_px, (left + x, top + y, width, height), mask))
        return tuple(segments)

    def _build_segment(
        self, segment: Segment, area_px: int, box_xywh: tuple[int, int, int, int], mask: NDArray[np.bool_]
    ) -> PredictedSegment:
        name = self.categories[segment.category_id].name
        score = segment.score if segment.isthing else None
        return PredictedSegment(
            segment.segment_id, segment.category_id, name, segment.isthing, score, area_px, box_xywh, mask
        )


def get_stem(file_name: str) -> str:
    """Get the name of an image's files: its own without folders and suffix.

    Args:
        file_name: of the image; "" for none.

    Returns:
        The name, not empty.
    """
    return Path(file_name).stem or NO_NAME
