"""Cityscapes as a DatasetReader: instance ids, polygons, panoptic files, label ids or train ids."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segkit.formats import coco, png
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.cityscapes import files, label_pngs
from segkit.formats.cityscapes.files import IMAGE_SUFFIX
from segkit.formats.cityscapes.labels import CATEGORIES
from segkit.formats.cityscapes.polygons import POLYGONS_SUFFIX, read_polygon_segmentation
from segkit.formats.image_files import describe_unused_images
from segkit.structures import PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, try_read
from segkit.utils.json_fields import check_inside

Annotations = Literal["instanceIds", "polygons", "panoptic", "labelIds", "trainIds"]
READERS = {
    "instanceIds": (label_pngs.INSTANCE_IDS_SUFFIX, label_pngs.read_segmentation),
    "polygons": (POLYGONS_SUFFIX, read_polygon_segmentation),
    "labelIds": (label_pngs.LABEL_IDS_SUFFIX, label_pngs.read_label_id_segmentation),
    "trainIds": (label_pngs.TRAIN_IDS_SUFFIX, label_pngs.read_train_id_segmentation),
}
PANOPTIC = "panoptic"


class CityscapesReader(DatasetReader):
    """A split of Cityscapes' fine annotations; image_id is the stem that the files of an image share.

    "instanceIds", "polygons" and "panoptic" give equal segmentations. "labelIds" and "trainIds" hold no instances: all
    things are crowds, one per class. Image sizes are those of the image files.

    Args:
        root: Folder that holds leftImg8bit/<split>/<city>/ and gtFine/.
        split: Name of the split's folders, such as "val".
        annotations: Files of gtFine to read: <split>/<city>/*_instanceIds.png, *_polygons.json, *_labelIds.png,
            *_labelTrainIds.png, or cityscapes_panoptic_<split>.json with its folder of PNGs; if that JSON does not
            exist, cityscapes_panoptic_<split>_trainId.json.
        on_issue: Gets images without annotation, annotations without image and second images of one name, which are
            then left out. Raises by default.

    Raises:
        DatasetError: The split has no image, or the panoptic JSON has other categories.
        ValueError: `annotations` is none of the above.
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
        check_inside(split, "split", root)
        self.root = Path(root)
        self.image_root = self.root / "leftImg8bit" / split
        self._annotations = annotations
        self.metrics = ("cityscapes_ap",) if annotations == "instanceIds" else ()
        if annotations == PANOPTIC:
            images = self._find_panoptic(split, on_issue)
        else:
            self._gt_paths = files.find_annotations(self.root, split, READERS[annotations][0], on_issue)
            images = files.index_by_image_id(self._gt_paths, on_issue)
        readable = [try_read(on_issue, "image-unreadable", self._read_size, *item) for item in images.items()]
        self.images = tuple(image for image in readable if image is not None)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class. segment_id is the value in *_instanceIds.png, as `cityscapes.read_segmentation` gives it."""
        if self._annotations != PANOPTIC:
            return READERS[self._annotations][1](self._gt_paths[self.image_root / image.file_name], image.size_hw)
        record = self._records[str(image.image_id)]
        path = self._pngs / record.png_name
        return coco.read_segmentation(path, record.segments_info, CATEGORIES, image.size_hw, image.image_id)

    def find_instance_ids(self, image: DatasetImage) -> Path:
        """Find the *_instanceIds.png of an image, if these files are read.

        Args:
            image: One of `images`.

        Returns:
            The path of the PNG.
        """
        return self._gt_paths[self.image_root / image.file_name]

    def _find_panoptic(self, split: str, on_issue: IssueHandler) -> dict[str, Path]:
        """Set the records, the folder of PNGs and `skipped` from the panoptic JSON; image_id -> path of the images."""
        json_path = files.find_panoptic_json(self.root / "gtFine", split)
        self._pngs, self._records = json_path.with_suffix(""), files.read_panoptic_records(json_path, on_issue)
        paths = [*files.find_city_files(self.image_root, IMAGE_SUFFIX).values()]
        if not paths:
            remedy = f"expected <city>/*{IMAGE_SUFFIX}"
            raise DatasetError("the split has no image", where=self.image_root, remedy=remedy)
        png_names = {record.png_name for record in self._records.values()}
        self.skipped = describe_unused_images(self._pngs, png_names, "PNGs are of no annotation that is read")
        return files.match_panoptic(files.index_by_image_id(paths, on_issue), self._records, json_path, on_issue)

    def _read_size(self, image_id: str, path: Path) -> DatasetImage:
        header = png.read_header(path)
        return DatasetImage(image_id, path.relative_to(self.image_root).as_posix(), (header.height, header.width))
