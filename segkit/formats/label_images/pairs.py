"""Pictures and the label maps that belong to them: images/NAME.* and labels/NAME.png, paired by their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.formats import image_files, png
from segkit.formats.base import DatasetImage
from segkit.formats.image_io import IMAGE_SUFFIXES, TIFF_SUFFIXES, read_label_tiff
from segkit.formats.splits import Split, check_split, select_split
from segkit.structures import MAX_SEGMENT_ID, ImageId
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, report_unpaired
from segkit.utils.json_fields import check_inside

LABEL_SUFFIXES = (".png", *TIFF_SUFFIXES)
PAIRING = "expected images/NAME.* and labels/NAME.png (or .tif), one label map per image"


@dataclass(frozen=True, eq=False)
class MapPairs:
    """image_root: folder. images: those of the split, by name. maps: the label map of every image, by image_id."""

    image_root: Path
    images: tuple[DatasetImage, ...]
    maps: Mapping[ImageId, Path]

    def read(self, image: DatasetImage) -> NDArray[np.int32]:
        """(H, W) int32 values in 0..MAX_SEGMENT_ID - 1 of the image's map, a TIFF turned as its orientation says.

        DatasetError where the map is missing, damaged, coloured, of another size, or holds other values.
        """
        path = self.maps[image.image_id]
        values = read_label_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else png.read_labels(path)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= MAX_SEGMENT_ID:
            raise DatasetError(f"expected values in 0..{MAX_SEGMENT_ID - 1}, got {low}..{high}", where=path)
        image_files.check_sizes(self.image_root / image.file_name, image.size_hw, {path: values.shape})
        return values.astype(np.int32)


def find_pairs(
    root: Path, images: str, labels: str, split: Split | None, val_share: float, on_issue: IssueHandler
) -> MapPairs:
    """Pictures and label maps in two folders below root, paired by their paths without suffix, which is the image_id.

    Sub-folders are searched, hidden files passed over. A map is a greyscale or palette PNG, or a TIFF, of whole numbers
    (a palette's indices count). split: None for all images; else "train" or "val", val_share of the names by their hash
    (`segkit.formats.splits`). tell: gets images and maps of either split that have no partner, or two, and images
    whose files cannot be opened or differ in size. Raises DatasetError where a folder is missing, empty or outside
    root; ConfigError for options that contradict each other.
    """
    check_split(split, val_share)
    for key, folder in (("images", images), ("labels", labels)):
        check_inside(folder, key, root)
    images_folder, labels_folder = root / images, root / labels
    if images_folder.resolve() == labels_folder.resolve():
        raise ConfigError(f"expected two folders, got {images!r} for the images and the labels", where=root)
    image_paths = image_files.find_by_stem(images_folder, IMAGE_SUFFIXES, PAIRING, "image-id-twice", on_issue)
    maps = image_files.find_by_stem(labels_folder, LABEL_SUFFIXES, PAIRING, "annotation-twice", on_issue)
    report_unpaired(
        on_issue, "image-without-annotation", "no label map has the image's name", image_paths, maps, PAIRING
    )
    report_unpaired(on_issue, "image-missing", "no image has the label map's name", maps, image_paths, PAIRING)
    found = []
    for name in (name for name in select_split(split, val_share, image_paths, root) if name in maps):
        size_hw = image_files.read_common_size(image_paths[name], [maps[name]], on_issue)
        if size_hw is not None:
            found.append(DatasetImage(name, image_paths[name].relative_to(images_folder).as_posix(), size_hw))
    return MapPairs(images_folder, tuple(found), {image.image_id: maps[str(image.image_id)] for image in found})
