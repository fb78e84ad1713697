"""Write COCO's panoptic format image by image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import numpy as np

from segkit.formats import png
from segkit.structures import CategorySet, Extent, ImageId, PanopticSegmentation, Segment
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.files import FinishOnExit
from segkit.utils.json_fields import Entry, Location
from segkit.utils.text import abbreviate


class PanopticWriter(FinishOnExit):
    """Writes a dataset, or predictions, one image at a time: each PNG at once, the JSON at the end of the `with` block.

    On an exception no JSON is written, and the JSON of an earlier run stays unchanged. Set `info`, further tables of
    the JSON by key, before the end of the block.

    Args:
        json_path: the JSON.
        png_folder: the folder of PNGs.
        categories: of the dataset.
    """

    info: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, json_path: str | Path, png_folder: str | Path, categories: CategorySet) -> None:
        self.json_path = Path(json_path)
        self.png_folder = Path(png_folder)
        self.categories = categories
        self._images: dict[ImageId, Entry] = {}
        self._annotations: dict[str, Entry] = {}  # by png_name

    def add(
        self,
        image_id: ImageId,
        file_name: str,
        segmentation: PanopticSegmentation,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the PNG of an image and remember its annotation.

        Args:
            image_id: id of the image.
            file_name: path in the image folder; the PNG is named by `choose_png_name`.
            segmentation: with category ids of the dataset.
            extra: further keys of the image in the JSON.

        Raises:
            DatasetError: the image was added before, or its name leads out of the folder.
            ValueError: a category is unknown, no segment has an id of the map, or a score is not finite.
        """
        unknown = {s.category_id for s in segmentation.segments if s.category_id not in self.categories}
        if unknown:
            raise ValueError(f"segments must have category ids of the dataset, got {sorted(unknown)}")
        where = Location(self.json_path, image_id)
        json_fields.check_inside(file_name, "file_name", where)
        if image_id in self._images:
            raise DatasetError("an image with this id was added before", where=where)
        png_name = choose_png_name(file_name, self._annotations)
        annotation = build_panoptic_annotation(image_id, png_name, segmentation)
        png.write_ids(self.png_folder / png_name, segmentation.segment_ids)
        height, width = segmentation.segment_ids.shape
        own = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        self._images[image_id] = {**(extra or {}), **own}
        self._annotations[png_name] = annotation

    def finish(self) -> None:
        """See base class."""
        images, annotations = [*self._images.values()], [*self._annotations.values()]
        write_panoptic(self.json_path, images, annotations, self.categories, self.info)


def choose_png_names(images: Iterable[tuple[ImageId, str]]) -> dict[ImageId, str]:
    """Choose distinct names of PNGs, as `PanopticWriter` does.

    Args:
        images: (image_id, file_name) of each image.

    Returns:
        The name of the PNG by image_id.
    """
    names: dict[ImageId, str] = {}
    taken: set[str] = set()
    for image_id, file_name in images:
        names[image_id] = choose_png_name(file_name, taken)
        taken.add(names[image_id])
    return names


def choose_png_name(file_name: str, taken: Collection[str]) -> str:
    """Choose the name of a PNG: the image's stem; if it is taken, with folders, then suffix, then a number.

    Args:
        file_name: path of the image.
        taken: names of other PNGs.

    Returns:
        A name that is not taken; parts are joined by "_".
    """
    pure = PurePath(file_name)
    folders = pure.relative_to(pure.anchor).parent.parts
    whole = "_".join([*folders, pure.name])
    numbered = (f"{whole}_{number}" for number in count(len(taken)))
    names = chain((pure.stem, "_".join([*folders, pure.stem]), whole), numbered)
    return next(f"{name}.png" for name in names if f"{name}.png" not in taken)


def build_panoptic_annotation(image_id: ImageId, png_name: str, segmentation: PanopticSegmentation) -> Entry:
    """Build the JSON annotation of one image; areas and boxes are counted in the map.

    Args:
        image_id: id of the image.
        png_name: path in the folder of PNGs.
        segmentation: with category ids of the dataset; segments without pixels are left out.

    Returns:
        The annotation.

    Raises:
        ValueError: no segment has an id of the map (panopticapi evaluation.py refuses ids that only the PNG or only
            the JSON has), a score is not finite, or the image_id is neither int nor str.
    """
    if type(image_id) not in json_fields.IMAGE_ID:
        raise ValueError(f"image_id must be an int or a str, got {type(image_id).__name__}")
    extents = segmentation.runs.extents()
    unexpected = extents.keys() - {s.segment_id for s in segmentation.segments}
    if unexpected:
        raise ValueError(f"segment_ids must hold ids of segments only, got {abbreviate(sorted(unexpected))}")
    segments_info = [_build_info(s, extents[s.segment_id]) for s in segmentation.segments if s.segment_id in extents]
    return {"image_id": image_id, "file_name": png_name, "segments_info": segments_info}


def write_panoptic(
    json_path: str | Path,
    images: Sequence[Entry],
    annotations: Sequence[Entry],
    categories: CategorySet,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a panoptic JSON, atomically.

    Args:
        json_path: the JSON.
        images: `{id, file_name, height, width}` each.
        annotations: see `build_panoptic_annotation`.
        categories: of the dataset.
        info: other tables of the file, by key.
    """
    tables = {"images": [*images], "annotations": [*annotations], "categories": categories.to_coco()}
    files.dump_json(Path(json_path), {**(info or {}), **tables})


def _build_info(segment: Segment, extent: Extent) -> Entry:
    info: Entry = {
        "id": int(segment.segment_id),
        "category_id": int(segment.category_id),
        "isthing": int(segment.isthing),
        "iscrowd": int(segment.iscrowd),
        "area": extent.area_px,
        "bbox": [*extent.bbox_xywh],
    }
    if segment.score is None:
        return info
    if not np.isfinite(segment.score):
        raise ValueError(f"score must be finite, got {segment.score} for segment {segment.segment_id}")
    return {**info, "score": float(segment.score)}
