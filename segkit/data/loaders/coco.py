"""COCO's two formats for training: readers over the annotation cache, so that large JSON files are parsed once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from segkit.data.dataset import PANOPTIC_METRICS
from segkit.formats import cache as annotation_cache
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.cache import AnnotatedImages
from segkit.formats.coco import (
    OVERLAPS,
    find_image_root,
    paint_annotations,
    read_segmentation,
    report_relative_coordinates,
)
from segkit.formats.splits import VAL_SHARE, Split, select_images
from segkit.structures import CategorySet, PanopticSegmentation, segmentation_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames, explain_missing
from segkit.utils.issues import IssueHandler
from segkit.utils.json_fields import Entry

LISTED = 5  # names that an error about many files shows
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class CocoImage(DatasetImage):
    """One image of a COCO JSON with its entries, which the cache reads at each use.

    Attributes:
        png_name: the PNG's name in the folder of PNGs; "" in an instances JSON.
        segments_info: the segments of a panoptic JSON, as in the file.
        annotations: the COCO annotations, as in the file.
    """

    png_name: str = ""
    segments_info: Sequence[Entry] = ()
    annotations: Sequence[Entry] = ()


class _CachedReader(DatasetReader):
    """What both readers share: the images of a JSON, with their entries."""

    masks: Path | None = None  # folder of the PNGs
    images: tuple[CocoImage, ...]
    metadata: Mapping[str, str] = NOTHING
    _has_instances = False  # whether the annotations are entries of a JSON

    def _set_file(
        self,
        file: AnnotatedImages,
        image_root: Path,
        annotations: Sequence[Sequence[Entry]],
        split: Split | None,
        val_share: float,
    ) -> None:
        self.root, self.image_root = file.path.parent, image_root
        self.categories, self._json = file.categories, file.path
        segments: Sequence[Sequence[Entry]] = file.annotations if self.masks else [()] * len(file.images)
        resolve = FolderNames(image_root).resolve
        resolve_png = FolderNames(self.masks or image_root).resolve
        all_images = [
            CocoImage(
                i["id"],
                resolve(i["file_name"]),
                (i["height"], i["width"]),
                NOTHING,
                resolve_png(i["png_name"]) if self.masks else "",
                infos,
                entries,
            )
            for i, infos, entries in zip(file.images, segments, annotations, strict=True)
        ]
        self.images = select_images(split, val_share, all_images, file.path)

    def check_files(self) -> None:
        """See base class."""
        _check_files_exist(self.image_root, [image.file_name for image in self.images], "image", self._json)
        if self.masks:
            _check_files_exist(self.masks, [image.png_name for image in self.images], "panoptic PNG", self._json)

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """See base class."""
        if not self._has_instances:
            return super().read_annotations(image)
        return [
            {**entry, "segmentation": segmentation_to_rle(entry["segmentation"], image.size_hw)}
            for entry in get_entries(image).annotations
        ]

    def read_stored_annotations(self, image: DatasetImage) -> Sequence[Mapping[str, Any]]:
        """See base class."""
        if not self._has_instances:
            return super().read_stored_annotations(image)
        return get_entries(image).annotations

    def check_annotation(self, image: DatasetImage, on_issue: IssueHandler) -> None:
        """See base class: polygons whose coordinates are no pixels."""
        report_relative_coordinates(get_entries(image).annotations, self._json, image.image_id, on_issue)


class CachedInstancesReader(_CachedReader):
    """An instances JSON and the folder of its images.

    Args:
        json: path of the JSON.
        images: folder of the images.
        overlap: one of `segkit.formats.coco.OVERLAPS`, to train on the panoptic map that `paint_annotations` makes
            too; None: train on the annotations only.
        split: "train" or "val", by the hash of the images' file names; None for all images.
        val_share: share of the images in "val", 0..1.

    Raises:
        DatasetError: the JSON is missing or contradicts itself, or the split is empty.
        ConfigError: `split` or `val_share` is invalid.
        ValueError: `overlap` is none of these.
    """

    format = "coco-instances"
    has_overlapping_masks = True

    def __init__(
        self,
        json: str | Path,
        images: str | Path,
        overlap: str | None = None,
        *,
        split: Split | None = None,
        val_share: float = VAL_SHARE,
    ) -> None:
        if overlap not in (None, *OVERLAPS):
            raise ValueError(f"overlap must be one of {OVERLAPS}, got {overlap!r}")
        file = annotation_cache.read_instances(json)
        self.has_map, self._overlap, self._has_instances = overlap is not None, overlap, True
        self._set_file(file, Path(images), file.annotations, split, val_share)
        if split is None:  # evaluators that read the file would miss the images of the other split
            self.instances_json, self.metadata = file.path, {"json_file": str(json)}

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class."""
        return paint_annotations(self.read_annotations(image), image.size_hw, self._overlap or OVERLAPS[0])


class CachedPanopticReader(_CachedReader):
    """A panoptic JSON, the folder of its PNGs, the folder of its images.

    Args:
        json: path of the panoptic JSON.
        masks: folder of the PNGs.
        images: folder of the images; None: looked for beside the PNGs, see `find_image_root`.
        instances_json: COCO instances of the same images, whose masks may overlap, for training and evaluation of
            boxes and masks; None: instances are derived from the PNGs.
        split: "train" or "val", by the hash of the images' file names; None for all images.
        val_share: share of the images in "val", 0..1.

    Raises:
        DatasetError: a JSON is missing or contradicts itself, the images are not found, or the split is empty.
        ConfigError: `split` or `val_share` is invalid.
    """

    format = "coco-panoptic"
    metrics = PANOPTIC_METRICS
    masks: Path

    def __init__(
        self,
        json: str | Path,
        masks: str | Path,
        images: str | Path | None = None,
        instances_json: str | Path | None = None,
        *,
        split: Split | None = None,
        val_share: float = VAL_SHARE,
    ) -> None:
        file = annotation_cache.read_panoptic(json)
        self.masks = Path(masks)
        names = [image["file_name"] for image in file.images]
        image_root = Path(images) if images else find_image_root(file.path, names, self.masks)
        annotations: Mapping[Any, Sequence[Entry]] = {}
        if instances_json is not None:
            self.has_overlapping_masks = self._has_instances = True
            annotations = _read_instances(Path(instances_json), file.categories)
        entries = [annotations.get(image["id"], ()) for image in file.images]
        self._set_file(file, image_root, entries, split, val_share)
        if split is None:  # evaluators that read the files would miss the images of the other split
            self.instances_json = None if instances_json is None else Path(instances_json)
            self.metadata = {"panoptic_json": str(json), "panoptic_root": str(masks)}

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class."""
        entries = get_entries(image)
        path = self.masks / entries.png_name
        return read_segmentation(path, entries.segments_info, self.categories, image.size_hw, image.image_id)


def get_entries(image: DatasetImage) -> CocoImage:
    """Get the entries of an image of one of these readers.

    Args:
        image: one of the reader's `images`.

    Returns:
        The image itself.
    """
    assert isinstance(image, CocoImage)
    return image


def _read_instances(path: Path, categories: CategorySet) -> dict[Any, Sequence[Entry]]:
    """The annotations by image_id; DatasetError if one is of no thing of the dataset."""
    file = annotation_cache.read_instances(path)
    if unknown := sorted(file.category_ids - set(categories.thing_contiguous_ids)):
        problem = f"expected annotations of the dataset's things, got the category ids {unknown[:LISTED]}"
        raise DatasetError(problem, where=path)
    return dict(zip((image["id"] for image in file.images), file.annotations, strict=True))


def _check_files_exist(root: Path, names: Sequence[str], kind: str, json_path: Path) -> None:
    """Raise DatasetError if files are missing below `root`; every folder is listed only once."""
    why = f"listed in {json_path}"
    if not root.is_dir():
        raise DatasetError(f"no such folder of {kind}s ({why})", where=root, remedy="check the path")
    listings: dict[str, set[str]] = {}
    missing = []
    for name in names:
        folder, leaf = os.path.split(name)
        if folder not in listings:
            path = root / folder
            listings[folder] = {e.name for e in os.scandir(path) if e.is_file()} if path.is_dir() else set()
        if leaf not in listings[folder]:
            missing.append(name)
    if missing:
        shown = ", ".join(missing[:LISTED]) + (", ..." if len(missing) > LISTED else "")
        shown += explain_missing(root / missing[0])
        raise DatasetError(
            f"{len(missing)} of {len(names)} {kind}s are missing ({why}): {shown}",
            where=root,
            remedy="complete the download, or remove them from the JSON",
        )
