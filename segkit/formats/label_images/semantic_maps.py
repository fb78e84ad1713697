"""Semantic label maps: images/NAME.*, labels/NAME.png whose values are classes, classes.json with their names."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from segkit.formats import png
from segkit.formats.bands import RGB
from segkit.formats.base import DatasetImage, list_empty_segments
from segkit.formats.coco import read_classes
from segkit.formats.derive import build_semantic_map
from segkit.formats.image_files import LabelFilesWriter
from segkit.formats.label_images.label_maps import IMAGES, LABELS, LabelMapReader
from segkit.formats.splits import VAL_SHARE, Split
from segkit.structures import IGNORE_LABEL, VOID, Category, CategorySet, IdRuns, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import dump_json
from segkit.utils.issues import IssueHandler, describe_unused, raise_issue
from segkit.utils.json_fields import Location
from segkit.utils.text import abbreviate

CLASSES = "classes.json"  # below the root
NO_LABEL = -1  # no pixel has it
Classes: TypeAlias = str | Path | Sequence[str] | Mapping[int | str, str]


class SemanticMapReader(LabelMapReader):
    """Images and maps of classes, all stuff; a label is the category_id.

    `skipped` has the line on a class whose label is `ignore`.

    Args:
        root: Folder that holds the images and the label maps.
        images: Folder of the images below root.
        labels: Folder of the label maps below root, greyscale or palette PNGs or TIFFs.
        classes: Names by label from 0 on, or a JSON for `coco.read_classes`, by default root/classes.json. If it lists
            categories with ids, the ids are the labels. Or label -> name, as for masks of 0 and 255.
        ignore: Label that becomes void; a class that has it is left out. 255 is no void if `classes` names it by label.
        split: "train" or "val", by the hash of the names; None for all images.
        val_share: Share of the names in "val", 0..1.
        channels: Of the images: 3 for RGB; others for .npy arrays and TIFFs of so many bands or pages.
        on_issue: Gets images without map, maps without image, and files that cannot be opened or differ in size. Raises
            by default.

    Raises:
        DatasetError: A folder is missing, empty or outside root, or the classes are missing or invalid.
        ConfigError: The options contradict each other.
    """

    format = "semantic-maps"
    marks_void = True

    def __init__(
        self,
        root: str | Path,
        *,
        images: str = IMAGES,
        labels: str = LABELS,
        classes: Classes | None = None,
        ignore: int = IGNORE_LABEL,
        split: Split | None = None,
        val_share: float = VAL_SHARE,
        channels: int = RGB,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        if type(ignore) is not int:
            raise ConfigError(f"expected ignore to be a label, got {ignore!r}")
        named = _read_categories(Path(root, CLASSES) if classes is None else classes)
        if isinstance(classes, Mapping) and ignore == IGNORE_LABEL and any(c.category_id == ignore for c in named):
            ignore = NO_LABEL
        if ignore == IGNORE_LABEL:
            self.void_remedy = (
                f"if {ignore} is a class, name the labels: --set 'classes={{0: background, {ignore}: NAME}}'"
            )
        self.categories = CategorySet([c for c in named if c.category_id != ignore], "classes beside ignore")
        ignored = [c.name for c in named if c.category_id == ignore]
        self.skipped = describe_unused("classes", f"have the label {ignore}, which is void", ignored)
        self._ignore = ignore
        super().__init__(Path(root), images, labels, split, val_share, channels, on_issue)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class. One segment per class that has pixels, by ascending label; segment_id is the label + 1."""
        segment_ids = self._read_map(image)
        segment_ids += 1
        segment_ids[segment_ids == self._ignore + 1] = VOID
        runs = IdRuns.from_map(segment_ids)
        areas_px = runs.areas_px()
        areas_px.pop(VOID, None)
        unexpected = [segment_id - 1 for segment_id in areas_px if segment_id - 1 not in self.categories]
        if unexpected:
            known = abbreviate([c.category_id for c in self.categories.categories])
            problem = f"expected labels among {known}, or {self._ignore} for void, got {abbreviate(unexpected)}"
            where = Location(self._maps[str(image.image_id)], image.image_id)
            raise DatasetError(problem, where=where, remedy="name their classes, or set `ignore`")
        segments = tuple(Segment(i, i - 1, False, area_px) for i, area_px in areas_px.items())
        return PanopticSegmentation.from_runs(runs, segments)


class SemanticMapWriter(LabelFilesWriter):
    """Writes root/labels/NAME.png, 8-bit label maps, and root/classes.json with the names.

    A label is the index of the class among the categories, from 0; 255 is void.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations.

    Raises:
        DatasetError: There are more classes than an 8-bit map can name.
    """

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories, IMAGES)
        self.space = categories.build_semantic_space("per_class")
        if len(self.space.names) > IGNORE_LABEL:
            problem = f"expected at most {IGNORE_LABEL} classes, got {len(self.space.names)}"
            raise DatasetError(problem, where=root, remedy="convert to coco-panoptic")

    def _write(
        self, image: DatasetImage, name: str, segmentation: PanopticSegmentation, areas_px: dict[int, int]
    ) -> list[str]:
        png.write_labels(self.root / LABELS / f"{name}.png", build_semantic_map(segmentation, self.space))
        things = [s.category_id for s in segmentation.segments if s.isthing and s.segment_id in areas_px]
        crowds = sum(s.iscrowd for s in segmentation.segments)
        losses = [f"{len(things)} objects of {len({*things})} classes are not told apart"] if things else []
        losses += [f"{crowds} crowds are their class"] if crowds else []
        return losses + list_empty_segments(segmentation.segments, areas_px)

    def finish(self) -> None:
        """Write the names."""
        dump_json(self.root / CLASSES, [*self.space.names])


def _read_categories(classes: Classes) -> list[Category]:
    names = read_classes(classes) if isinstance(classes, (str, Path)) else classes
    where = str(classes) if isinstance(classes, (str, Path)) else "classes"
    if isinstance(names, CategorySet):
        return [replace(category, isthing=False) for category in names.categories]
    by_label = _read_labels(names, where) if isinstance(names, Mapping) else None
    if by_label is None and isinstance(names, (list, tuple)):
        by_label = dict(enumerate(names))
    if not by_label or not all(isinstance(name, str) for name in by_label.values()):
        problem = f"expected a file, a list of names or {{label: name}}, got {reprlib.repr(names)}"
        raise ConfigError(problem, where=where)
    entries = [{"id": label, "name": name, "isthing": 0} for label, name in by_label.items()]
    return [*CategorySet.from_coco(entries, where).categories]


def _read_labels(names: Mapping[Any, Any], where: str) -> dict[int, Any]:
    """The names by label; labels are text if the options were stored as JSON."""
    by_label: dict[int, Any] = {}
    for key, name in names.items():
        if not re.fullmatch("[0-9]{1,5}", str(key), re.ASCII) or int(key) in by_label:
            raise ConfigError(f"expected a different label from 0 for each name, got {reprlib.repr(key)}", where=where)
        by_label[int(key)] = name
    return by_label
