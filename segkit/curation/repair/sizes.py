"""The size of an image whose masks are to be mended: that of its picture or of its entry, whichever the masks fit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segkit.curation import image_files
from segkit.curation.checks.instances import is_inside
from segkit.curation.checks.tables import is_size
from segkit.curation.repair.common import name_in
from segkit.formats.coco import drop_slivers, find_mask_fault
from segkit.formats.image_io import read_image_size
from segkit.utils.errors import DatasetError

SizeHW = tuple[int, int]


def settled_size(entry: Any, segmentations: Iterable[Any], images: Path) -> tuple[SizeHW | None, bool]:
    """(height, width) of an image, and whether that is certain: masks may be cut off, or dropped, there alone.

    Certain is the size of the picture where the entry has it, too, or where all masks that decode fit it. Else it may
    be that of the entry, where these fit that; None where they do not.

    entry: `height`, `width` and `file_name`, of any type. segmentations: of all annotations of the image.
    """
    stated = (entry["height"], entry["width"]) if is_size(entry["height"], entry["width"]) else None
    name = name_in(entry)
    found = _image_size(images / name, stated) if name else None
    if found and (found == stated or _fit(segmentations, found)):
        return found, True
    return (stated if stated and _fit(segmentations, stated) else None), False


def _image_size(path: Path, stated: SizeHW | None) -> SizeHW | None:
    """None where the picture does not decode, or EXIF turns it: masks of another size may fit it as it lies."""
    try:
        if read_image_size(path) == stated:
            return stated
    except DatasetError:
        return None
    look = image_files.inspect_image(path, path)
    return None if look.is_rotated else look.size_hw


def _fit(segmentations: Iterable[Any], size_hw: SizeHW) -> bool:
    """Whether all polygons are inside, and all run lengths of this size; those that are not sound say nothing."""
    sound = [kept for kept in map(drop_slivers, segmentations) if not find_mask_fault(kept, None)]
    return all(is_inside(kept, size_hw) and (type(kept) is list or tuple(kept["size"]) == size_hw) for kept in sound)
