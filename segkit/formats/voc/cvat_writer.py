"""CVAT's "Segmentation mask 1.1": a VOC tree of coloured PNGs, with the classes in labelmap.txt; and its archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.formats import png
from segkit.formats.archives import list_files, write_archive
from segkit.formats.base import DatasetImage, UnfitImageError
from segkit.formats.derive import relabel
from segkit.formats.image_files import LabelFilesWriter
from segkit.formats.voc import reader
from segkit.formats.voc.colors import (
    BACKGROUND_NAMES,
    LABEL_MAP_FILE,
    MAX_COLORS,
    VOID_LABEL,
    Color,
    compute_color_map,
)
from segkit.formats.voc.writer import check_line, write_lines
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Location

ARCHIVE = "cvat_masks.zip"
SUBSET = "default"  # CVAT's only one
HEADER = "# label:color_rgb:parts:actions"
BLACK: Color = (0, 0, 0)
MAX_CLASSES = 256


class CvatMasksWriter(LabelFilesWriter):
    """Writes SegmentationClass/, SegmentationObject/, ImageSets/ and labelmap.txt, and cvat_masks.zip, to import.

    Every segment is an object, stuff too; pixels without a segment, and of a class named background, are background. A
    class keeps its colour, unless that is black or another class has it. Images are put into JPEGImages, not into the
    archive: CVAT has them.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations.

    Raises:
        DatasetError: There are more than 256 classes, two have one name, or labelmap.txt cannot hold a name.
    """

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories, reader.IMAGES)
        names = [category.name for category in categories.categories]
        invalid = [name for name in names if ":" in name or name.startswith("#") or name != name.strip() or not name]
        invalid += [name for name in names if name.splitlines() != [name] or names.count(name) > 1]
        if invalid or len(names) > MAX_CLASSES:
            got = f"{len(names)} classes" if len(names) > MAX_CLASSES else repr(invalid[0])
            problem = f"expected up to {MAX_CLASSES} different names on one line each, without ':' and '#', got {got}"
            raise DatasetError(problem, where=root, remedy="rename the classes, or write cvat-panoptic")
        self._is_stuff_reported = False
        self._colors = _choose_colors(categories)

    def _write(
        self, image: DatasetImage, name: str, segmentation: PanopticSegmentation, areas_px: dict[int, int]
    ) -> list[str]:
        named = {c.category_id: c.name for c in self.categories.categories}
        visible = [s for s in segmentation.segments if s.segment_id in areas_px]
        objects = [s for s in visible if named[s.category_id] not in BACKGROUND_NAMES]
        if len(objects) > MAX_COLORS:
            problem = f"expected at most {MAX_COLORS} objects, got {len(objects)}"
            raise UnfitImageError(problem, where=Location(self.root, image.image_id))
        classes = {s.segment_id: 1 + index for index, s in enumerate(objects)}
        class_colors = np.array([BLACK, *(self._colors[s.category_id] for s in objects)], dtype=np.uint8)
        numbers = np.arange(len(objects) + 1)
        object_colors = compute_color_map(len(objects) + 2)[numbers + (numbers >= VOID_LABEL)]  # void has a colour
        labels: NDArray[np.int32] = relabel(segmentation.segment_ids, classes, np.int32)
        png.write(self.root / reader.CLASS_MAPS / f"{name}.png", class_colors[labels])
        png.write(self.root / reader.OBJECT_MAPS / f"{name}.png", object_colors[labels])
        losses = [f"segment {s.segment_id}: it has no pixel" for s in segmentation.segments if s not in visible]
        crowds = sum(s.iscrowd for s in objects)
        losses += [f"{crowds} crowds are objects"] if crowds else []
        if not self._is_stuff_reported and not all(s.isthing for s in objects):
            self._is_stuff_reported = True
            losses.append("which classes are stuff cannot be held, each segment of theirs is an object")
        return losses

    def finish(self) -> None:
        """Write labelmap.txt, the image set and the archive."""
        named = [(c.name, self._colors[c.category_id]) for c in self.categories.categories]
        classes = [("background", BLACK), *(entry for entry in named if entry[0] not in BACKGROUND_NAMES)]
        lines = [HEADER, *(f"{name}:{','.join(map(str, color))}::" for name, color in classes)]
        label_map, image_set = self.root / LABEL_MAP_FILE, reader.get_set_path(self.root, SUBSET)
        write_lines(label_map, lines)
        write_lines(image_set, [*self._names])
        files = {LABEL_MAP_FILE: label_map, f"{reader.IMAGE_SETS}/{SUBSET}.txt": image_set}
        for folder in (reader.CLASS_MAPS, reader.OBJECT_MAPS):
            files |= list_files(self.root / folder, f"{folder}/")
        write_archive(self.root / ARCHIVE, files)

    def _get_name(self, image: DatasetImage) -> str:
        """The image id, which must be a line of the image set."""
        name = super()._get_name(image)
        check_line(name, image, self.root)
        return name


def _choose_colors(categories: CategorySet) -> dict[int, Color]:
    """A colour for each category: its own, or VOC's next one that no other has; black is background."""
    palette = [(red, green, blue) for red, green, blue in compute_color_map(4 * MAX_CLASSES).tolist()]
    void = palette[VOID_LABEL]
    own = {category.color for category in categories.categories}
    free = iter([color for color in palette[1:] if color not in own and color != void])
    taken = {BLACK, void}
    colors: dict[int, Color] = {}
    for category in categories.categories:
        color = category.color if category.color not in taken else next(free)
        taken.add(color)
        colors[category.category_id] = color
    return colors
