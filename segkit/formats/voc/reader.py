"""Pascal VOC: images, two palette PNGs for each (of classes and of objects), and lists of image ids.

A label of SegmentationClass is 0 = background, 1.. = a class, 255 = void (borders, difficult objects). A label of
SegmentationObject is 0 = no object, 1.. = an object of the image, 255 = void.

Everingham et al. 2010, The Pascal Visual Object Classes (VOC) Challenge, and the VOC2012 development kit. Trees of
other tools, such as labelme, name other classes in class_names.txt: `_background_`, then one class per line. CVAT's
"Segmentation mask 1.1" and Datumaro write colours, with their classes in labelmap.txt, see `colors`.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.formats import image_files, png
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.voc.colors import (
    BACKGROUND,
    BACKGROUND_NAMES,
    MAX_LABEL,
    VOID_LABEL,
    Color,
    LabelMap,
    compute_color_map,
    read_class_labels,
    read_label_map,
    read_object_labels,
)
from segkit.structures import VOID, Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.files import read_bytes
from segkit.utils.issues import IssueHandler, raise_issue, report_missing, try_read
from segkit.utils.json_fields import check_inside
from segkit.utils.text import abbreviate, suggest

IMAGES, CLASS_MAPS, OBJECT_MAPS = "JPEGImages", "SegmentationClass", "SegmentationObject"  # folders
IMAGE_SETS = "ImageSets/Segmentation"
TREE = f"give the folder that holds {IMAGES}, {CLASS_MAPS}, {OBJECT_MAPS} and {IMAGE_SETS}, such as VOCdevkit/VOC2012"
NAMES_FILE = "class_names.txt"

# VOCcode/VOCinit.m: the index in this order, from 1, is the label.
CLASS_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
BACKGROUND_SEGMENT_ID = 255  # objects keep their label, 1..254, as segment_id
IMAGE_SUFFIXES = [*dict.fromkeys((".jpg", ".JPG", *image_files.IMAGE_SUFFIX_CASES))]  # VOC's own first
ONLY_CLASSES = "if there are no objects, say `objects: null` to read the classes as stuff"


class VOCReader(DatasetReader):
    """The images of one image set, in its order.

    A category_id is the label; 0 is the stuff category "background". An object is one segment, its label the
    segment_id; so is a class that is stuff. The background is segment 255. A pixel that is void in either PNG is void.
    If colours count, an image may have more than VOC's 254 objects: the further ones are segments 256, 257, ...

    Args:
        root: VOCdevkit/VOC2012, or any folder with the same four inside.
        split: Name of the image set, ImageSets/Segmentation/<split>.txt, with one image id per line: the file name of
            the image and its PNGs without suffix.
        classes: Names of the labels 1, 2, ..., all things; by default those of labelmap.txt, whose colours then count
            and not the labels, or of class_names.txt, and without these files VOC's 20.
        labels: Folder of the class PNGs, such as SegmentationClassAug of the set that the Semantic Boundaries Dataset
            extends.
        objects: Folder of the object PNGs; None if there are no objects, which makes the classes stuff.
        on_issue: Gets images of which a file is missing, unreadable or of another size, and ids that are repeated or
            leave the folder; they are then left out. Raises by default.

    Raises:
        DatasetError: A folder or the set is missing or outside root, the set is empty, or the classes are invalid.
    """

    format = "voc"
    marks_void = True

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        classes: Sequence[str] | None = None,
        *,
        labels: str = CLASS_MAPS,
        objects: str | None = OBJECT_MAPS,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        self.root = Path(root)
        self.image_root = self.root / IMAGES
        named = {key: folder for key, folder in (("labels", labels), ("objects", objects)) if folder is not None}
        for key, folder in named.items():
            check_inside(folder, key, self.root)
        self._folders = [self.root / folder for folder in named.values()]
        for path, remedy in zip((self.image_root, *self._folders), (TREE, TREE, ONLY_CLASSES), strict=False):
            image_files.check_folder(path, remedy)
        self._label_map = read_label_map(self.root) if classes is None else None
        where: object = "classes" if classes is not None else self.root / NAMES_FILE
        if self._label_map is not None:
            classes, where = [*self._label_map.colors], self._label_map.path
        names = read_names(self.root) if classes is None else classes
        self.categories = build_categories(names, objects is not None, where, self._label_map)
        set_path = get_set_path(self.root, split)
        image_ids = self._drop_incomplete(_read_set(set_path, on_issue), set_path, on_issue)
        images = (self._read_size(image_id, on_issue) for image_id in image_ids)
        self.images = tuple(image for image in images if image is not None)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class. Objects come by ascending label, then the background.

        Raises:
            DatasetError: The two PNGs contradict each other: an object of two classes or of none, a class without
                object, or a label of no class.
        """
        paths = self._get_label_paths(str(image.image_id))
        class_labels, *rest = self._read_labels(paths, image)
        object_labels = rest[0] if rest else class_labels
        count = max(256, int(object_labels.max()) + 1)
        pairs = class_labels.astype(np.int32) * count + object_labels
        areas_px = np.bincount(pairs.ravel(), minlength=256 * count).reshape(256, count)
        _check_pairs(areas_px, self.categories, " and ".join(map(str, paths)))
        return _build_segmentation(class_labels, object_labels, areas_px, self.categories)

    def _drop_incomplete(self, image_ids: Sequence[str], set_path: Path, on_issue: IssueHandler) -> list[str]:
        """The ids whose files all exist."""
        paths = {image_id: (self._find_image(image_id), *self._get_label_paths(image_id)) for image_id in image_ids}
        remedy = f"add the files, or drop the ids from {set_path}"
        columns = (
            ("image-missing", "image", remedy),
            ("png-missing", "PNG of classes", remedy),
            ("png-missing", "PNG of objects", f"{remedy}; {ONLY_CLASSES}"),
        )
        missing: set[Path] = set()
        for (code, name, column_remedy), column in zip(columns, zip(*paths.values(), strict=True), strict=False):
            missing |= report_missing(on_issue, code, name, column, column_remedy)
        return [image_id for image_id, files_of_image in paths.items() if missing.isdisjoint(files_of_image)]

    def _read_size(self, image_id: str, on_issue: IssueHandler) -> DatasetImage | None:
        path = self._find_image(image_id)
        size_hw = image_files.read_common_size(path, self._get_label_paths(image_id), on_issue)
        file_name = path.relative_to(self.image_root).as_posix()
        return DatasetImage(image_id, file_name, size_hw) if size_hw is not None else None

    def _find_image(self, image_id: str) -> Path:
        """The image with the first suffix that exists, or else with VOC's own."""
        paths = [self.image_root / f"{image_id}{suffix}" for suffix in IMAGE_SUFFIXES]
        return next((path for path in paths if os.path.isfile(path)), paths[0])

    def _read_labels(self, paths: Sequence[Path], image: DatasetImage) -> list[png.Labels]:
        """The labels of classes, and those of objects if there is a second path."""
        if self._label_map is None:
            maps = [png.read_labels(path) for path in paths]
        else:
            maps = [read_class_labels(paths[0], self._label_map), *map(read_object_labels, paths[1:])]
        for path, labels in zip(paths, maps, strict=True):
            image_files.check_sizes(self.image_root / image.file_name, image.size_hw, {path: labels.shape})
            if labels.max() > VOID_LABEL and (self._label_map is None or path == paths[0]):
                raise DatasetError(f"expected labels in 0..{VOID_LABEL}, got {labels.max()}", where=path)
        return maps

    def _get_label_paths(self, image_id: str) -> list[Path]:
        return [folder / f"{image_id}.png" for folder in self._folders]


def _check_pairs(areas_px: NDArray[np.int64], categories: CategorySet, where: str) -> None:
    """DatasetError if the PNGs contradict each other; areas_px: (256, N) by class label and object label."""
    unknown = np.flatnonzero(areas_px[len(categories) : VOID_LABEL].any(axis=1)) + len(categories)
    if unknown.size:
        expected = f"class labels in 0..{len(categories) - 1} or {VOID_LABEL}"
        remedy = "give the dataset's own classes"
        raise DatasetError(f"expected {expected}, got {abbreviate(unknown.tolist())}", where=where, remedy=remedy)
    without_object = np.flatnonzero(areas_px[1:VOID_LABEL, 0]) + 1
    if without_object.size:
        label = int(without_object[0])
        got = f"none for {areas_px[label, 0]} pixels of class {label} ({categories[label].name})"
        raise DatasetError(f"expected an object for every pixel of a class, got {got}", where=where)
    for object_label in _list_objects(areas_px):
        class_labels = np.flatnonzero(areas_px[:VOID_LABEL, object_label]).tolist()
        if len(class_labels) > 1 or class_labels == [BACKGROUND]:
            got = " and ".join(f"{label} ({categories[label].name})" for label in class_labels)
            raise DatasetError(f"expected one class of object {object_label}, got {got}", where=where)


def _build_segmentation(
    class_labels: png.Labels, object_labels: png.Labels, areas_px: NDArray[np.int64], categories: CategorySet
) -> PanopticSegmentation:
    areas_px = areas_px[:VOID_LABEL]  # without void
    object_areas, object_classes = areas_px.sum(axis=0).tolist(), areas_px.argmax(axis=0).tolist()
    segments = [
        Segment(label, object_classes[label], categories.isthing_by_id[object_classes[label]], object_areas[label])
        for label in _list_objects(areas_px)
        if object_areas[label]
    ]
    if object_areas[BACKGROUND]:
        segments.append(Segment(BACKGROUND_SEGMENT_ID, BACKGROUND, False, object_areas[BACKGROUND]))
    ids = np.arange(areas_px.shape[1], dtype=np.int32)
    ids[[BACKGROUND, VOID_LABEL]] = BACKGROUND_SEGMENT_ID, VOID
    segment_ids = ids.take(object_labels)
    segment_ids[class_labels == VOID_LABEL] = VOID
    return PanopticSegmentation(segment_ids, tuple(segments))


def _list_objects(areas_px: NDArray[np.int64]) -> list[int]:
    """The object labels of the columns, without background and void."""
    return [label for label in range(1, areas_px.shape[1]) if label != VOID_LABEL]


def build_categories(
    names: Sequence[str], isthing: bool, where: object, label_map: LabelMap | None = None
) -> CategorySet:
    """Categories 1, 2, ... of these names, all things or all stuff, and the stuff category 0, "background".

    Colours are those of `label_map`, or else VOC's.

    DatasetError for no or more than 254 names, repeated names, a background among them, or a name that is not one line.
    """
    is_list = isinstance(names, (list, tuple)) and all(isinstance(n, str) and split_lines(n) == [n] for n in names)
    if not is_list:
        raise DatasetError(f"expected a list of class names, each one line, got {reprlib.repr(names)}", where=where)
    if not 1 <= len(names) <= MAX_LABEL:
        raise DatasetError(f"expected 1 to {MAX_LABEL} classes, got {len(names)}", where=where)
    if len({*names}) < len(names) or {*names} & {*BACKGROUND_NAMES}:
        problem = f"expected distinct names, and no background, got {abbreviate(names)}"
        raise DatasetError(problem, where=where, remedy="leave the background out: it is always label 0")
    colors: list[Color] = [(red, green, blue) for red, green, blue in compute_color_map().tolist()]
    colors[1 : len(names) + 1] = label_map.colors.values() if label_map else colors[1 : len(names) + 1]
    classes = [Category(label, name, isthing, colors[label]) for label, name in enumerate(names, 1)]
    return CategorySet([Category(BACKGROUND, "background", False, colors[BACKGROUND]), *classes], where)


def read_names(root: Path) -> tuple[str, ...]:
    """The class names in class_names.txt, from label 1 on; VOC's own names without that file."""
    path = root / NAMES_FILE
    if not os.path.lexists(path):
        return CLASS_NAMES
    first, *names = split_lines(_read_text(path)) or [""]
    if first not in BACKGROUND_NAMES:
        expected = f"{BACKGROUND_NAMES[0]!r} in the first line"
        raise DatasetError(f"expected {expected}, got {first!r}", where=path, remedy="or give the classes yourself")
    return tuple(names)


def get_set_path(root: Path, split: str) -> Path:
    """The path of the image set; DatasetError for a name that leaves the folder."""
    check_inside(str(split), "split", root / IMAGE_SETS)  # YAML may give a number
    return root / IMAGE_SETS / f"{split}.txt"


def split_lines(text: str) -> list[str]:
    """The lines, whatever ends them, stripped of blanks; blank lines are left out."""
    return [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]


def _read_set(path: Path, on_issue: IssueHandler) -> list[str]:
    """The image ids in an image set, in its order.

    Repeated ids, and ids that leave the folder, are reported and left out. DatasetError if the set is missing or empty.
    """
    if not os.path.isfile(path):
        sets = sorted(other.stem for other in path.parent.glob("*.txt"))
        known = f"the sets are {', '.join(sets)}" if sets else TREE
        remedy = suggest(path.stem, sets, known)
        raise DatasetError("no such image set", where=path, remedy=remedy)
    lines = split_lines(_read_text(path))
    if not lines:
        raise DatasetError("expected one image id per line, got none", where=path)
    image_ids: dict[str, None] = {}
    for image_id in lines:
        if image_id in image_ids:
            on_issue("image-id-twice", DatasetError(f"expected distinct image ids, got {image_id!r} twice", where=path))
        elif try_read(on_issue, "name-outside", check_inside, image_id, "image id", path) is not None:
            image_ids[image_id] = None
    return [*image_ids]


def _read_text(path: Path) -> str:
    return read_bytes(path).decode("utf-8-sig", "surrogateescape")  # as Python decodes the names of files
