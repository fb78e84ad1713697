"""Slices written as NIfTI volumes again, on the grids of the volumes that they were cut from."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.formats import base
from segkit.formats.base import DatasetImage, DatasetWriter, UnfitImageError
from segkit.formats.decathlon.files import TREE, list_niftis
from segkit.formats.decathlon.nifti import MAX_LABEL, Header, read_header, write_prediction
from segkit.formats.derive import relabel
from segkit.formats.image_files import build_image_path
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.issues import raise_issue
from segkit.utils.json_fields import Location
from segkit.utils.text import abbreviate, suggest

SLICE_NAME = re.compile(r"(.+)_(\d+)")  # as `DecathlonReader` names the slices of a volume
FIRST_CHANNEL = "_0000"  # of nnU-Net's images
Slices = dict[int, NDArray[np.uint16]]  # by index in the volume


class _Volume(NamedTuple):
    """path: the NIfTI that the slices were cut from."""

    name: str
    path: Path
    header: Header


class DecathlonWriter(DatasetWriter):
    """Writes root/VOLUME.nii.gz from the slices VOLUME_INDEX.*, as soon as a volume is complete.

    A voxel is the category_id; pixels without a segment are 0. Affine, units and descriptions are those of the image.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations, with ids in 0..65535.
        volumes: Folder of the volumes that the slices were cut from, imagesTr of a task for example.
        axis: 0, 1 or 2, the axis in RAS+ orientation along which they were cut.
        fill: Whether slices that are missing at the end are 0; otherwise they are an error.

    Raises:
        DatasetError: The folder has no volumes, or a category has another id.
        ValueError: `axis` has another value.
    """

    def __init__(
        self, root: str | Path, categories: CategorySet, *, volumes: str, axis: int = 2, fill: bool = False
    ) -> None:
        super().__init__(root, categories)
        if axis not in (0, 1, 2):
            raise ValueError(f"axis must be 0, 1 or 2, got {axis!r}")
        invalid = [c.category_id for c in categories.categories if not 0 <= c.category_id <= MAX_LABEL]
        if invalid:
            raise DatasetError(f"expected category ids in 0..{MAX_LABEL}, got {abbreviate(invalid)}", where=root)
        self._paths = list_niftis(Path(volumes), TREE, raise_issue)
        self._axis, self._fill = axis, fill
        self._volume: _Volume | None = None  # the last one: the slices of a volume follow each other
        self._slices: dict[str, Slices] = {}  # of volumes that are not complete
        self._written: set[str] = set()

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return build_image_path(self.root / "images", image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class; lost are objects of one class, which become one, void, scores and overlaps."""
        volume, index = self._locate(image)
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        slices = self._slices.setdefault(volume.name, {})
        if index in slices or volume.name in self._written:
            problem = f"slice {index} of {volume.name} was added before"
            raise UnfitImageError(problem, where=Location(self.root, image.image_id))
        values = {s.segment_id: s.category_id for s in segmentation.segments}
        slices[index] = relabel(segmentation.segment_ids, values, np.uint16)
        if len(slices) == volume.header.size_xyz[self._axis]:
            self._write(volume)
        things = [s.category_id for s in segmentation.segments if s.isthing and s.segment_id in areas_px]
        losses = [f"{len(things)} objects of {len({*things})} classes are not told apart"] if things else []
        void_px = segmentation.segment_ids.size - sum(area for i, area in areas_px.items() if i)
        losses += [f"void: {void_px} pixels become label 0"] if void_px else []
        losses += base.list_empty_segments(segmentation.segments, areas_px)
        losses += base.list_lost_scores(segmentation.segments)
        return [*losses, *base.list_lost_annotations(annotations, segmentation)]

    def finish(self) -> None:
        """Write the volumes that lack slices, or raise DatasetError."""
        lacking = sorted(name for name, slices in self._slices.items() if slices)
        if lacking and not self._fill:
            remedy = "give all slices, or write 0 in their place (--to-set fill=true)"
            raise DatasetError(
                f"{len(lacking)} volumes lack slices: {abbreviate(lacking)}", where=self.root, remedy=remedy
            )
        for name in lacking:
            self._write(self._open(name, self._paths[self._find(name)]))

    def _locate(self, image: DatasetImage) -> tuple[_Volume, int]:
        """The volume, and the index of the slice; UnfitImageError if there is none."""
        where = Location(self.root, image.image_id)
        match = SLICE_NAME.fullmatch(PurePosixPath(image.file_name).stem)
        if match is None:
            raise UnfitImageError(f"expected a file named VOLUME_INDEX, got {image.file_name!r}", where=where)
        name, index = match[1], int(match[2])
        if (key := self._find(name)) not in self._paths:
            problem = f"expected the slice of a volume, got one of {name!r}"
            raise UnfitImageError(problem, where=where, remedy=suggest(name, self._paths))
        volume = self._open(name, self._paths[key])
        width, height = (size for axis, size in enumerate(volume.header.size_xyz) if axis != self._axis)
        count = volume.header.size_xyz[self._axis]
        if tuple(image.size_hw) != (height, width) or index >= count:
            expected = f"one of {count} slices of {height} x {width} pixels (height x width)"
            got = f"slice {index} of {image.size_hw[0]} x {image.size_hw[1]}"
            raise UnfitImageError(
                f"expected {expected}, as {volume.path} has along axis {self._axis}, got {got}", where=where
            )
        return volume, index

    def _find(self, name: str) -> str:
        """The volume's key: its name, or that of nnU-Net's first channel."""
        return name if name in self._paths else f"{name}{FIRST_CHANNEL}"

    def _open(self, name: str, path: Path) -> _Volume:
        if self._volume is None or self._volume.name != name:
            self._volume = _Volume(name, path, read_header(path))
        return self._volume

    def _write(self, volume: _Volume) -> None:
        slices = self._slices.pop(volume.name)
        empty = np.zeros_like(next(iter(slices.values())))
        labels = [slices.get(index, empty) for index in range(volume.header.size_xyz[self._axis])]
        write_prediction(self.root / f"{volume.name}.nii.gz", labels, like=volume.path, axis=self._axis)
        self._written.add(volume.name)
