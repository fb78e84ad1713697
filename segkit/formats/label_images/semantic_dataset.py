"""Semantic label maps: images/NAME.*, labels/NAME.png whose values are classes, classes.json with their names."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segkit.formats import png
from segkit.formats.base import (
    DatasetImage,
    DatasetReader,
    DatasetWriter,
    compute_segment_areas,
    list_empty_segments,
    list_lost_annotations,
    list_lost_scores,
)
from segkit.formats.coco import read_classes
from segkit.formats.derive import build_semantic_map
from segkit.formats.image_files import IMAGE_SUFFIX_CASES, build_image_path, get_unique_stem
from segkit.formats.label_images.pairs import find_pairs
from segkit.formats.splits import Split
from segkit.structures import IGNORE_LABEL, VOID, Category, CategorySet, IdRuns, PanopticSegmentation, Segment
from segkit.utils import files
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, describe_unused, raise_issue
from segkit.utils.json_fields import Location
from segkit.utils.text import abbreviate

IMAGES, LABELS, CLASSES = "images", "labels", "classes.json"  # below the root


class SemanticMapReader(DatasetReader):
    """Pictures and label maps, found as `map_pairs.find_pairs` has it; all classes are stuff.

    classes: their names, by label from 0 on, or a JSON as `label_maps.read_classes` has it, root/classes.json by
    default; where that lists categories with ids, these are the labels. A label is the category_id. ignore: the label
    that becomes void; a class that has it is left out. skipped: the line on that class. Raises DatasetError as
    `find_pairs` does, and where the classes are missing or none; ConfigError for options that contradict each other.
    """

    format = "semantic-maps"

    def __init__(
        self,
        root: str | Path,
        *,
        images: str = IMAGES,
        labels: str = LABELS,
        classes: str | Path | Sequence[str] | None = None,
        ignore: int = IGNORE_LABEL,
        split: Split | None = None,
        val_share: float = 0.25,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        self.root = Path(root)
        if type(ignore) is not int:
            raise ConfigError(f"expected ignore to be a label, got {ignore!r}")
        named = _categories(self.root / CLASSES if classes is None else classes)
        self.categories = CategorySet([c for c in named if c.category_id != ignore], "classes beside ignore")
        self.skipped = describe_unused(
            "classes", f"have the label {ignore}, which is void", [c.name for c in named if c.category_id == ignore]
        )
        self._pairs = find_pairs(self.root, images, labels, split, val_share, on_issue)
        self.image_root, self.images = self._pairs.image_root, self._pairs.images
        self._ignore = ignore

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """One segment for each class that has pixels, by rising label; segment_id is the label + 1.

        DatasetError where the map is damaged, coloured, of another size, or holds a label of no class that is not
        ignored.
        """
        segment_ids = self._pairs.read(image)
        segment_ids += 1
        segment_ids[segment_ids == self._ignore + 1] = VOID
        runs = IdRuns.from_map(segment_ids)
        areas_px = runs.areas_px()
        areas_px.pop(VOID, None)
        strange = [segment_id - 1 for segment_id in areas_px if segment_id - 1 not in self.categories]
        if strange:
            known = abbreviate([c.category_id for c in self.categories.categories])
            problem = f"expected labels among {known}, or {self._ignore} for void, got {abbreviate(strange)}"
            where = Location(self._pairs.maps[image.image_id], image.image_id)
            raise DatasetError(problem, where=where, remedy="name their classes, or set `ignore`")
        return PanopticSegmentation.from_runs(
            runs, tuple(Segment(segment_id, segment_id - 1, False, areas_px[segment_id]) for segment_id in areas_px)
        )


class SemanticMapWriter(DatasetWriter):
    """root/labels/NAME.png, 8-bit label maps: the place of the class among the categories, 255 for void; and
    root/classes.json with the names."""

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        """DatasetError for more classes than an 8-bit map can name."""
        super().__init__(root, categories)
        self.space = categories.build_semantic_space("per_class")
        if len(self.space.names) > IGNORE_LABEL:
            problem = f"expected at most {IGNORE_LABEL} classes, got {len(self.space.names)}"
            raise DatasetError(problem, where=root, remedy="convert to coco-panoptic")
        self._names: set[str] = set()

    def image_path(self, image: DatasetImage) -> Path:
        """Where the image's picture is to lie, as `image_files.picture_in` has it."""
        return build_image_path(self.root / IMAGES, image, IMAGE_SUFFIX_CASES)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """As `DatasetWriter` has it; told are objects that became one, crowds, segments without a pixel, scores, masks
        that overlap."""
        name = get_unique_stem(image, self._names, self.root)
        areas_px = compute_segment_areas(image, segmentation, self.categories)
        png.write_labels(self.root / LABELS / f"{name}.png", build_semantic_map(segmentation, self.space))
        self._names.add(name)
        things = [s.category_id for s in segmentation.segments if s.isthing and s.segment_id in areas_px]
        told = [f"{len(things)} objects of {len(set(things))} classes are told apart no more"] if things else []
        crowds = sum(s.iscrowd for s in segmentation.segments)
        told += [f"{crowds} crowds are their class"] if crowds else []
        told += [*list_empty_segments(segmentation.segments, areas_px), *list_lost_scores(segmentation.segments)]
        return [*told, *list_lost_annotations(annotations, image.size_hw)]

    def finish(self) -> None:
        """Write the names."""
        files.dump_json(self.root / CLASSES, [*self.space.names])


def _categories(classes: str | Path | Sequence[str]) -> list[Category]:
    found = read_classes(classes) if isinstance(classes, (str, Path)) else classes
    where = str(classes) if isinstance(classes, (str, Path)) else "classes"
    if isinstance(found, CategorySet):
        return [replace(category, isthing=False) for category in found.categories]
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"expected a file, or a list of names, got {reprlib.repr(found)}", where=where)
    entries = [{"id": label, "name": name, "isthing": 0} for label, name in enumerate(found)]
    return [*CategorySet.from_coco(entries, where).categories]
