"""Pascal VOC: pictures, two palette PNGs per picture (of classes and of objects) and lists of image ids.

A label of SegmentationClass is 0 = background, 1.. = a class, 255 = void (borders, difficult objects); one of
SegmentationObject is 0 = no object, 1.. = an object of the picture, 255 = void. `segkit.formats.voc.labels` has the
reference and the rest of the tree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.formats import image_files, png
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.voc.labels import (
    BACKGROUND,
    CLASSES,
    IMAGES,
    NAMES_FILE,
    OBJECTS,
    TREE,
    VOID_LABEL,
    Labels,
    build_categories,
    read_names,
    read_set,
    set_path,
)
from segkit.structures import CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, report_missing
from segkit.utils.json_fields import check_inside
from segkit.utils.text import abbreviate

BACKGROUND_SEGMENT_ID = 255  # objects keep their label, 1..254, as segment_id
SUFFIXES = [*dict.fromkeys((".jpg", ".JPG", *image_files.IMAGE_SUFFIX_CASES))]  # VOC's own first
CLASSES_ALONE = "where there are no objects, say `objects: null` to read the classes as stuff"


class VOCReader(DatasetReader):
    """The images of one image set, in its order.

    root: VOCdevkit/VOC2012 or any folder with the same four inside. split: ImageSets/Segmentation/<split>.txt, an
    image id a line: the names, without suffix, of picture and PNGs. classes: names of the labels 1, 2, ..., all things;
    by default those of class_names.txt, and without one VOC's 20. category_id is the label; 0 is the stuff category
    "background". labels, objects: the folders of the two PNGs, such as SegmentationClassAug of the set that the
    Semantic Boundaries Dataset extends; objects of None: there are no objects, and the classes are stuff.

    An object is one segment, its label the segment_id, as is a class's that is stuff; the background is segment 255. A
    pixel that either PNG calls void is void. tell: gets images of which a file is missing, cannot be read or differs in
    size from the others, and ids that come again or climb out. Raises DatasetError for folders or a set that are
    missing or outside root, a set that is empty, and classes that are none.
    """

    format = "voc"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        classes: Sequence[str] | None = None,
        *,
        labels: str = CLASSES,
        objects: str | None = OBJECTS,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        self.root = Path(root)
        self.image_root = self.root / IMAGES
        named = {key: folder for key, folder in (("labels", labels), ("objects", objects)) if folder is not None}
        for key, folder in named.items():
            check_inside(folder, key, self.root)
        self._folders = [self.root / folder for folder in named.values()]
        for place, remedy in zip((self.image_root, *self._folders), (TREE, TREE, CLASSES_ALONE), strict=False):
            if not os.path.isdir(place):  # Path.is_dir raises for a name that is too long
                raise DatasetError("no such folder", where=place, remedy=remedy)
        names = read_names(self.root) if classes is None else classes
        where = "classes" if classes is not None else self.root / NAMES_FILE
        self.categories = build_categories(names, objects is not None, where)
        path = set_path(self.root, split)
        found = (self._image(image_id, on_issue) for image_id in self._whole(read_set(path, on_issue), path, on_issue))
        self.images = tuple(image for image in found if image is not None)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """The objects by rising label, then the background; DatasetError, naming both PNGs, where they contradict each
        other: an object of two classes or of none, a class without object, or a label of no class."""
        paths = self._label_paths(str(image.image_id))
        class_labels, *rest = (_read_labels(path, image.size_hw, self.image_root / image.file_name) for path in paths)
        object_labels = rest[0] if rest else class_labels
        pairs = class_labels.astype(np.int32) << 8 | object_labels
        areas = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
        _check_pairs(areas, self.categories, " and ".join(map(str, paths)))
        return _segmentation(class_labels, object_labels, areas, self.categories)

    def _whole(self, image_ids: Sequence[str], path: Path, on_issue: IssueHandler) -> list[str]:
        """The ids of which all files are there."""
        files = {image_id: (self._find_image(image_id), *self._label_paths(image_id)) for image_id in image_ids}
        remedy = f"add the files, or drop the ids from {path}"
        columns = [[paths[index] for paths in files.values()] for index in range(1 + len(self._folders))]
        gone = report_missing(on_issue, "image-missing", "picture", columns[0], remedy)
        gone |= report_missing(on_issue, "png-missing", "PNG of classes", columns[1], remedy)
        for column in columns[2:]:
            gone |= report_missing(on_issue, "png-missing", "PNG of objects", column, f"{remedy}; {CLASSES_ALONE}")
        return [image_id for image_id, paths in files.items() if gone.isdisjoint(paths)]

    def _image(self, image_id: str, on_issue: IssueHandler) -> DatasetImage | None:
        image_path = self._find_image(image_id)
        size_hw = image_files.read_common_size(image_path, self._label_paths(image_id), on_issue)
        file_name = image_path.relative_to(self.image_root).as_posix()
        return DatasetImage(image_id, file_name, size_hw) if size_hw is not None else None

    def _find_image(self, image_id: str) -> Path:
        """By the first suffix that exists, or else VOC's own."""
        paths = [self.image_root / f"{image_id}{suffix}" for suffix in SUFFIXES]
        return next((path for path in paths if os.path.isfile(path)), paths[0])

    def _label_paths(self, image_id: str) -> list[Path]:
        return [folder / f"{image_id}.png" for folder in self._folders]


def _read_labels(path: Path, size_hw: tuple[int, int], image_path: Path) -> Labels:
    labels = png.read_labels(path)
    image_files.check_sizes(image_path, size_hw, {path: labels.shape})
    if labels.max() > VOID_LABEL:
        raise DatasetError(f"expected labels in 0..{VOID_LABEL}, got {labels.max()}", where=path)
    return labels.astype(np.uint8, copy=False)


def _check_pairs(areas: NDArray[np.int64], categories: CategorySet, where: str) -> None:
    """areas: (256, 256) pixels by class label and object label."""
    beyond = np.flatnonzero(areas[len(categories) : VOID_LABEL].any(axis=1)) + len(categories)
    if beyond.size:
        expected = f"class labels in 0..{len(categories) - 1} or {VOID_LABEL}"
        remedy = "give the dataset's own classes"
        raise DatasetError(f"expected {expected}, got {abbreviate(beyond.tolist())}", where=where, remedy=remedy)
    bare = np.flatnonzero(areas[1:VOID_LABEL, 0]) + 1
    if bare.size:
        class_label = int(bare[0])
        got = f"none for {areas[class_label, 0]} pixels of class {class_label} ({categories[class_label].name})"
        raise DatasetError(f"expected an object for every pixel of a class, got {got}", where=where)
    for object_label in range(1, VOID_LABEL):
        class_labels = np.flatnonzero(areas[:VOID_LABEL, object_label]).tolist()
        if len(class_labels) > 1 or class_labels == [BACKGROUND]:
            got = " and ".join(f"{label} ({categories[label].name})" for label in class_labels)
            raise DatasetError(f"expected one class of object {object_label}, got {got}", where=where)


def _segmentation(
    class_labels: Labels, object_labels: Labels, areas: NDArray[np.int64], categories: CategorySet
) -> PanopticSegmentation:
    areas = areas[:VOID_LABEL, :VOID_LABEL]  # of what is not void
    area_of, class_of = areas.sum(axis=0).tolist(), areas.argmax(axis=0).tolist()
    segments = [
        Segment(label, class_of[label], categories.isthing_by_id[class_of[label]], area_of[label])
        for label in range(1, VOID_LABEL)
        if area_of[label]
    ]
    if area_of[BACKGROUND]:
        segments.append(Segment(BACKGROUND_SEGMENT_ID, BACKGROUND, False, area_of[BACKGROUND]))
    ids = np.arange(256, dtype=np.int32)
    ids[[BACKGROUND, VOID_LABEL]] = BACKGROUND_SEGMENT_ID, 0
    segment_ids = ids.take(object_labels)
    segment_ids[class_labels == VOID_LABEL] = 0
    return PanopticSegmentation(segment_ids, tuple(segments))
