"""Cityscapes as a Source, from its instance ids, its polygons, or the panoptic files that are made of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from segkit.formats import cityscapes, cityscapes_polygons, coco_panoptic, png
from segkit.formats import coco_tables as coco
from segkit.formats.cityscapes import CATEGORIES, IDS_SUFFIX, IMAGE_SUFFIX
from segkit.formats.cityscapes_polygons import POLYGONS_SUFFIX
from segkit.formats.coco_panoptic import PanopticRecord
from segkit.formats.source import Source, SourceImage
from segkit.structures import DatasetError, PanopticSegmentation

Annotations = Literal["instanceIds", "polygons", "panoptic"]
READERS = {
    "instanceIds": (IDS_SUFFIX, cityscapes.read_segmentation),
    "polygons": (POLYGONS_SUFFIX, cityscapes_polygons.read_segmentation),
}
PANOPTIC = "panoptic"
MAKE_PANOPTIC = "make it with cityscapesscripts' createPanopticImgs.py, without --use-train-id"


class CityscapesSource(Source):
    """A split of Cityscapes' fine annotations; image_id is the name that the files of an image share.

    root: holds leftImg8bit/<split>/<city>/ and gtFine. annotations: which files of gtFine are read:
    <split>/<city>/*_instanceIds.png, *_polygons.json beside them, or cityscapes_panoptic_<split>.json with its folder;
    all give equal segmentations. Sizes are those of the pictures. Raises DatasetError where a picture has no
    annotation, two pictures have one name, or the panoptic JSON has other images or categories; ValueError for other
    `annotations`.
    """

    layout = "cityscapes"
    categories = CATEGORIES

    def __init__(self, root: str | Path, split: str = "val", *, annotations: Annotations = "instanceIds") -> None:
        if annotations not in (*READERS, PANOPTIC):
            raise ValueError(f"annotations must be one of {[*READERS, PANOPTIC]}, got {annotations!r}")
        coco.check_inside(split, "split", root)
        self.root = Path(root)
        self.pictures = self.root / "leftImg8bit" / split
        self._annotations = annotations
        if annotations == PANOPTIC:
            self._pngs = self.root / "gtFine" / f"cityscapes_panoptic_{split}"
            self._records = _read_panoptic(self._pngs.with_name(f"{self._pngs.name}.json"))
            paths = cityscapes.find_images(self.pictures)
            _check_matched([_image_id(path) for path in paths], self._records, self.pictures)
        else:
            found = cityscapes.scan(root, split, READERS[annotations][0])
            self._truth = {record.image_id: record.ids_path for record in found}
            paths = [record.image_path for record in found]
        _check_distinct(paths)
        self.images = tuple(self._image(path) for path in paths)

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """As `cityscapes.read_segmentation`: segment_id is the value in the PNG, a thing without number is a crowd."""
        image_id = str(image.image_id)
        if self._annotations != PANOPTIC:
            return READERS[self._annotations][1](self._truth[image_id], image.size_hw)
        record = self._records[image_id]
        path = self._pngs / record.png_name
        return coco_panoptic.read_segmentation(path, record.segments_info, CATEGORIES, image.size_hw, image_id)

    def _image(self, path: Path) -> SourceImage:
        header = png.read_header(path)
        file_name = path.relative_to(self.pictures).as_posix()
        return SourceImage(_image_id(path), file_name, (header.height, header.width))


def _read_panoptic(path: Path) -> dict[str, PanopticRecord]:
    """The records of the JSON by image_id, DatasetError where its categories are not Cityscapes' label ids.

    The pictures are found by image_id, as Detectron2 does: the JSON's own names of them, *_gtFine_leftImg8bit.png, are
    names of no file.
    """
    if not path.is_file():
        raise DatasetError("expected a panoptic JSON, found none", where=path, remedy=MAKE_PANOPTIC)
    content = coco_panoptic.read(path)
    ours, got = ([(c.category_id, c.name, c.isthing) for c in x.categories] for x in (CATEGORIES, content.categories))
    if got != ours:
        strange = coco.listed(sorted({*got} ^ {*ours}))
        problem = f"expected the {len(ours)} categories of Cityscapes by label id, got others: {strange}"
        raise DatasetError(problem, where=path, remedy=MAKE_PANOPTIC)
    return {str(record.image_id): record for record in content.records}


def _check_matched(image_ids: Collection[str], records: Collection[str], folder: Path) -> None:
    if not image_ids:
        raise DatasetError("the split has no image", where=folder, remedy=f"expected <city>/*{IMAGE_SUFFIX}")
    bare, absent = sorted({*image_ids} - {*records}), sorted({*records} - {*image_ids})
    if bare:
        problem = f"{len(bare)} of {len(image_ids)} images are not in the panoptic JSON: {coco.listed(bare)}"
        raise DatasetError(problem, where=folder, remedy=MAKE_PANOPTIC)
    if absent:
        problem = f"{len(absent)} images of the panoptic JSON are missing: {coco.listed(absent)}"
        raise DatasetError(problem, where=folder, remedy="complete the download")


def _check_distinct(paths: list[Path]) -> None:
    by_id: dict[str, Path] = {}
    for path in paths:
        other = by_id.setdefault(_image_id(path), path)
        if other is not path:
            raise DatasetError(f"expected names of their own, {other} has the same", where=path, remedy="rename one")


def _image_id(path: Path) -> str:
    return path.name.removesuffix(IMAGE_SUFFIX)
