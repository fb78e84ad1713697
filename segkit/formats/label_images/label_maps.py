"""Images and the label maps that belong to them: images/NAME.* and labels/NAME.png, paired by name."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.formats import image_files, png
from segkit.formats.bands import BAND_SUFFIXES, RGB, read_bands, read_bands_size, to_rgb
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.image_io import IMAGE_SUFFIXES, TIFF_SUFFIXES, read_image_size, read_label_tiff
from segkit.formats.splits import Split, check_split, select_split
from segkit.structures import MAX_SEGMENT_ID
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, report_unpaired
from segkit.utils.json_fields import check_inside

IMAGES, LABELS = "images", "labels"  # folders below the root
LABEL_SUFFIXES = (".png", *TIFF_SUFFIXES)
PAIRING = "expected images/NAME.* and labels/NAME.png (or .tif), one label map per image"


class LabelMapReader(DatasetReader, ABC):
    """Images and label maps in two folders. The path without suffix is the image_id and pairs them.

    Subfolders are searched, hidden files passed over. A map is a greyscale or palette PNG, or a TIFF, of whole numbers;
    of a palette the indices count.

    Args:
        root: Folder that holds both.
        images: Folder of the images below root.
        labels: Folder of the label maps below root.
        split: None for all images; "train" or "val" for a part of them, chosen by the hash of their names
            (`splits.is_validation`).
        val_share: Share of the names in "val", 0..1.
        channels: Of the images, see `read_bands`; 3 for images of any format, which are read as RGB.
        on_issue: Gets images and maps of either split that have no or two partners, and images whose files cannot be
            opened or differ in size.

    Raises:
        DatasetError: A folder is missing, empty or outside root.
        ConfigError: The options contradict each other.
    """

    def __init__(
        self,
        root: Path,
        images: str,
        labels: str,
        split: Split | None,
        val_share: float,
        channels: int,
        on_issue: IssueHandler,
    ) -> None:
        check_split(split, val_share)
        if type(channels) is not int or channels < 1:
            raise ConfigError(f"expected `channels` to be a whole number from 1, got {channels!r}")
        self.root, self.channels = root, channels
        suffixes: tuple[str, ...] = IMAGE_SUFFIXES
        read_size: Callable[[Path], tuple[int, int]] = read_image_size
        if channels != RGB:
            suffixes, read_size = BAND_SUFFIXES, partial(read_bands_size, channels=channels)
        self.image_root, label_root = resolve_folders(root, images, labels)
        image_paths = image_files.find_by_stem(self.image_root, suffixes, PAIRING, "image-id-twice", on_issue)
        maps = image_files.find_by_stem(label_root, LABEL_SUFFIXES, PAIRING, "annotation-twice", on_issue)
        problem = "no label map has the image's name"
        report_unpaired(on_issue, "image-without-annotation", problem, image_paths, maps, PAIRING)
        report_unpaired(on_issue, "image-missing", "no image has the label map's name", maps, image_paths, PAIRING)
        valid_images = []
        for name in select_split(split, val_share, image_paths, root):
            if name in maps:
                size_hw = image_files.read_common_size(image_paths[name], [maps[name]], on_issue, read_size)
                if size_hw is not None:
                    file_name = image_paths[name].relative_to(self.image_root).as_posix()
                    valid_images.append(DatasetImage(name, file_name, size_hw))
        self.images = tuple(valid_images)
        self._maps = maps

    def read_image(self, image: DatasetImage) -> NDArray[np.uint8]:
        """See base class."""
        return super().read_image(image) if self.channels == RGB else to_rgb(self.read_channels(image))

    def read_channels(self, image: DatasetImage) -> NDArray[np.uint8]:
        """See base class."""
        if self.channels == RGB:
            return self.read_image(image)
        return read_bands(self.image_root / image.file_name, self.channels, image.size_hw)

    def _read_map(self, image: DatasetImage) -> NDArray[np.int32]:
        """(H, W) int32 values in 0..MAX_SEGMENT_ID - 1 of the image's map, a TIFF turned as its orientation says.

        DatasetError if the map is missing, damaged, coloured, of another size, or holds other values.
        """
        path = self._maps[str(image.image_id)]
        values = read_label_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else png.read_labels(path)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= MAX_SEGMENT_ID:
            raise DatasetError(f"expected values in 0..{MAX_SEGMENT_ID - 1}, got {low}..{high}", where=path)
        image_files.check_sizes(self.image_root / image.file_name, image.size_hw, {path: values.shape})
        return values.astype(np.int32)


def resolve_folders(root: Path, images: str, labels: str) -> tuple[Path, Path]:
    """The two folders below root; DatasetError if one leaves root, ConfigError if they are the same."""
    for key, folder in (("images", images), ("labels", labels)):
        check_inside(folder, key, root)
    if (root / images).resolve() == (root / labels).resolve():
        raise ConfigError(f"expected two folders, got {images!r} for the images and the labels", where=root)
    return root / images, root / labels
