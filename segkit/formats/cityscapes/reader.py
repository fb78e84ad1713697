"""Cityscapes as a Source, from its instance ids, polygons, panoptic files, label ids or train ids."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segkit.formats import coco, png
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.cityscapes import files as cityscapes
from segkit.formats.cityscapes import panoptic as cityscapes_panoptic
from segkit.formats.cityscapes import polygons as cityscapes_polygons
from segkit.formats.cityscapes.files import CATEGORIES, IMAGE_SUFFIX, INSTANCE_IDS_SUFFIX
from segkit.formats.cityscapes.label_ids import (
    LABEL_IDS_SUFFIX,
    TRAIN_IDS_SUFFIX,
    read_label_id_segmentation,
    read_train_id_segmentation,
)
from segkit.formats.cityscapes.polygons import POLYGONS_SUFFIX
from segkit.formats.coco import PanopticRecord
from segkit.formats.image_files import describe_unused_images
from segkit.structures import PanopticSegmentation
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, try_read

Annotations = Literal["instanceIds", "polygons", "panoptic", "labelIds", "trainIds"]
READERS = {
    "instanceIds": (INSTANCE_IDS_SUFFIX, cityscapes.read_segmentation),
    "polygons": (POLYGONS_SUFFIX, cityscapes_polygons.read_polygon_segmentation),
    "labelIds": (LABEL_IDS_SUFFIX, read_label_id_segmentation),
    "trainIds": (TRAIN_IDS_SUFFIX, read_train_id_segmentation),
}
PANOPTIC = "panoptic"


class CityscapesReader(DatasetReader):
    """A split of Cityscapes' fine annotations; image_id is the name that the files of an image share.

    root: holds leftImg8bit/<split>/<city>/ and gtFine. annotations: which files of gtFine are read:
    <split>/<city>/*_instanceIds.png, *_polygons.json beside them, or cityscapes_panoptic_<split>.json with its folder,
    or where that is not there cityscapes_panoptic_<split>_trainId.json; these give equal segmentations. Of
    *_labelIds.png and *_labelTrainIds.png all things are crowds, one for each class. Sizes are those of the pictures.
    tell: gets what is wrong with single images, which are then left out: without annotation or picture, two of one
    name. skipped: the line on PNGs that the panoptic JSON does not name. Raises DatasetError where there is no image,
    or the panoptic JSON has other categories; ValueError for other `annotations`.
    """

    format = "cityscapes"
    categories = CATEGORIES

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        *,
        annotations: Annotations = "instanceIds",
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        if annotations not in (*READERS, PANOPTIC):
            raise ValueError(f"annotations must be one of {[*READERS, PANOPTIC]}, got {annotations!r}")
        json_fields.check_inside(split, "split", root)
        self.root = Path(root)
        self.image_root = self.root / "leftImg8bit" / split
        self._annotations = annotations
        self.metrics = ("cityscapes_ap",) if annotations == "instanceIds" else ()
        if annotations == PANOPTIC:
            json_path = cityscapes_panoptic.find_panoptic_json(self.root / "gtFine", split)
            self._pngs, self._records = (
                json_path.with_suffix(""),
                cityscapes_panoptic.read_panoptic_records(json_path, on_issue),
            )
            image_paths = [*cityscapes.find_city_files(self.image_root).values()]
            paths = _matched(image_paths, self._records, self.image_root, json_path, on_issue)
            used = {record.png_name for record in self._records.values()}
            self.skipped = describe_unused_images(self._pngs, used, "PNGs are of no annotation that is read")
        else:
            found = cityscapes.find_records(root, split, READERS[annotations][0], on_issue)
            self._truth = {record.image_path: record.ground_truth_path for record in found}
            paths = [*self._truth]
        images = [try_read(on_issue, "image-unreadable", self._image, path) for path in _distinct(paths, on_issue)]
        self.images = tuple(image for image in images if image is not None)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """As `cityscapes.read_segmentation`: segment_id is the value in the PNG, a thing without number is a crowd."""
        if self._annotations != PANOPTIC:
            return READERS[self._annotations][1](self._truth[self.image_root / image.file_name], image.size_hw)
        record = self._records[str(image.image_id)]
        path = self._pngs / record.png_name
        return coco.read_segmentation(path, record.segments_info, CATEGORIES, image.size_hw, image.image_id)

    def find_instance_ids(self, image: DatasetImage) -> Path:
        """Find the file *_instanceIds.png of an image, if these files are read.

        Args:
            image: one of `images`.

        Returns:
            Its path.
        """
        return self._truth[self.image_root / image.file_name]

    def _image(self, path: Path) -> DatasetImage:
        header = png.read_header(path)
        file_name = path.relative_to(self.image_root).as_posix()
        return DatasetImage(_image_id(path), file_name, (header.height, header.width))


def _matched(
    paths: list[Path], records: dict[str, PanopticRecord], folder: Path, json_path: Path, on_issue: IssueHandler
) -> list[Path]:
    """The pictures that have a record; those without, and records without picture, are told."""
    if not paths:
        raise DatasetError("the split has no image", where=folder, remedy=f"expected <city>/*{IMAGE_SUFFIX}")
    bare = [path for path in paths if _image_id(path) not in records]
    for path in bare:
        problem = f"the picture has no sound annotation in {json_path.name} ({len(bare)} of {len(paths)} have none)"
        remedy = cityscapes_panoptic.MAKE
        on_issue("image-without-annotation", DatasetError(problem, where=path, remedy=remedy))
    absent = sorted({*records} - {_image_id(path) for path in paths})
    for image_id in absent:
        problem = f"the picture is missing below {folder} ({len(absent)} of {len(records)} are)"
        on_issue(
            "image-missing",
            DatasetError(problem, where=json_fields.Location(json_path, image_id), remedy="complete the download"),
        )
    return [path for path in paths if _image_id(path) in records]


def _distinct(paths: list[Path], on_issue: IssueHandler) -> list[Path]:
    """The first picture of every image_id; the others are told."""
    by_id: dict[str, Path] = {}
    for path in paths:
        other = by_id.setdefault(_image_id(path), path)
        if other is not path:
            problem = f"expected names of their own, {other} has the same"
            on_issue("image-id-twice", DatasetError(problem, where=path, remedy="rename one"))
    return [*by_id.values()]


def _image_id(path: Path) -> str:
    return path.name.removesuffix(IMAGE_SUFFIX)
