"""Pascal VOC: pictures, two palette PNGs per picture (of classes and of objects) and lists of image ids.

Everingham et al. 2010, The Pascal Visual Object Classes (VOC) Challenge, and the VOC2012 development kit. A label of
SegmentationClass is 0 = background, 1.. = a class, 255 = void (borders, difficult objects); one of SegmentationObject
is 0 = no object, 1.. = an object of the picture, 255 = void. labelme's and other tools' trees of other classes name
these in class_names.txt: `_background_`, then a class a line.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from segkit.formats import label_maps, png
from segkit.formats.coco_tables import Place, check_inside, listed
from segkit.formats.derive import relabel
from segkit.formats.files import read_bytes, replacing
from segkit.formats.instance_maps import checked_areas, picture_size, score_losses
from segkit.formats.source import Source, SourceImage
from segkit.structures import Category, CategorySet, DatasetError, PanopticSegmentation, Segment

PICTURES, CLASSES, OBJECTS, SETS = "JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"
TREE = f"give the folder that holds {PICTURES}, {CLASSES}, {OBJECTS} and {SETS}, such as VOCdevkit/VOC2012"
NAMES_FILE = "class_names.txt"
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG", ".bmp", ".tif", ".tiff", ".webp")
BACKGROUND_NAMES = ("_background_", "background")

# VOCcode/VOCinit.m: the index in this order, from 1, is the label.
NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
BACKGROUND, VOID_LABEL = 0, 255
MAX_LABEL = VOID_LABEL - 1
BACKGROUND_SEGMENT_ID = 255  # objects keep their label, 1..254, as segment_id

Labels = NDArray[np.uint8]


def color_map() -> NDArray[np.uint8]:
    """(256, 3) uint8 RGB of the labels: VOCcode/VOClabelcolormap.m, the label's bits from the lowest go to red, green,
    blue, red, ..., from their highest bit down."""
    labels = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colors[:, bit % 3] |= ((labels >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colors


class VOCSource(Source):
    """The images of one image set, in its order.

    root: VOCdevkit/VOC2012 or any folder with the same four inside. split: ImageSets/Segmentation/<split>.txt, an
    image id a line: the names, without suffix, of picture and PNGs. classes: names of the labels 1, 2, ..., all things;
    by default those of class_names.txt, and without one VOC's 20. category_id is the label; 0 is the stuff category
    "background".

    An object is one segment, its label the segment_id; the background is segment 255. A pixel that either PNG calls
    void is void. Raises DatasetError where a file is missing, cannot be read or differs in size from the others of its
    image, and for a set that is empty or names an image twice.
    """

    layout = "voc"

    def __init__(self, root: str | Path, split: str = "train", classes: Sequence[str] | None = None) -> None:
        self.root = Path(root)
        self.pictures = self.root / PICTURES
        for folder in (self.pictures, self.root / CLASSES, self.root / OBJECTS):
            if not folder.is_dir():
                raise DatasetError("no such folder", where=folder, remedy=TREE)
        names = _names_of(self.root) if classes is None else classes
        self.categories = _categories(names, "classes" if classes is not None else self.root / NAMES_FILE)
        set_path = _set_path(self.root, split)
        paths_of = {image_id: _paths(self.root, image_id) for image_id in _read_set(set_path)}
        _check_present(paths_of, set_path)
        self.images = tuple(self._image(image_id, paths) for image_id, paths in paths_of.items())

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """The objects by rising label, then the background; DatasetError, naming both PNGs, where they contradict each
        other: an object of two classes or of none, a class without object, or a label of no class."""
        class_path, object_path = _label_paths(self.root, str(image.image_id))
        class_labels, object_labels = _read_labels(class_path, image.size_hw), _read_labels(object_path, image.size_hw)
        pairs = class_labels.astype(np.int32) << 8 | object_labels
        areas = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
        _check_pairs(areas, self.categories, f"{class_path} and {object_path}")
        return _segmentation(class_labels, object_labels, areas)

    def _image(self, image_id: str, paths: tuple[Path, Path, Path]) -> SourceImage:
        picture_path, *label_paths = paths
        sizes = [picture_size(picture_path), *map(_label_map_size, label_paths)]
        if len({*sizes}) > 1:
            expected, *got = (f"{height} x {width}" for height, width in sizes)
            problem = f"expected {expected} pixels (height x width) as {picture_path} has, got {' and '.join(got)}"
            raise DatasetError(problem, where=" and ".join(map(str, label_paths)))
        return SourceImage(image_id, picture_path.relative_to(self.pictures).as_posix(), sizes[0])


class VOCWriter:
    """Writes one image set: the PNGs of each image at once, the list of ids and class_names.txt at the end of the
    `with` block. On an exception these are not written, and those of an earlier run stay as they were.

    The things of `categories`, by rising category_id, become the labels 1, 2, ...; stuff becomes background, as VOC
    means by it whatever is in no class; crowds and unlabelled pixels become void. Pictures are not copied: the image
    id is their file_name without suffix, so that their folder is a ready JPEGImages (`picture_path`). border_px: pixels
    within this distance (the larger of rows and columns) of another label become void; 2 is nearly VOC's own border.
    Raises DatasetError for no or more than 254 things, for names that class_names.txt cannot hold, and for a folder
    with labels of other classes.
    """

    def __init__(self, root: str | Path, categories: CategorySet, split: str = "train", border_px: int = 0) -> None:
        if border_px < 0:
            raise ValueError(f"border_px must be at least 0, got {border_px}")
        self.root = Path(root)
        self.categories = categories
        self.border_px = border_px
        self._set_path = _set_path(self.root, split)
        self._names = tuple(c.name for c in _categories([c.name for c in categories.things], "categories").things)
        if (self.root / CLASSES).is_dir() and _names_of(self.root) != self._names:
            remedy = "write to another folder"
            raise DatasetError("the folder holds labels of other classes", where=self.root, remedy=remedy)
        self._image_ids: dict[str, None] = {}  # in order

    def __enter__(self) -> VOCWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            _write_lines(self.root / NAMES_FILE, [BACKGROUND_NAMES[0], *self._names])
            _write_lines(self._set_path, [*self._image_ids])

    def add(
        self, image: SourceImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Writes the image's two PNGs; what VOC cannot hold of it, a line each.

        Segment ids in 1..254 of all objects are kept; otherwise objects are numbered in their order. annotations:
        unused, a pixel of VOC has one object, as in the segmentation.
        Raises DatasetError for a file_name that climbs out, cannot be a line of the set or was added before; ValueError
        for a category that is none of the writer's, an id in the map that no segment has, or another size.
        """
        image_id = self._image_id(image)
        areas_px = checked_areas(image, segmentation, self.categories)
        if not segmentation.segment_ids.size:
            raise ValueError(f"segment_ids must not be empty, got {segmentation.segment_ids.shape}")
        object_of, lost = _place(segmentation.segments, areas_px, self.categories)
        object_labels = self._object_labels(segmentation, object_of)
        left = np.unique(object_labels)
        lost += [f"segment {i}: the border covers it" for i, label in object_of.items() if label not in left]
        class_of = np.zeros(256, dtype=np.uint8)
        class_of[VOID_LABEL] = VOID_LABEL
        for segment in segmentation.segments:
            if segment.segment_id in object_of:
                label = self.categories.thing_contiguous_ids[segment.category_id] + 1
                class_of[object_of[segment.segment_id]] = label
        class_path, object_path = _label_paths(self.root, image_id)
        _write_palette_png(class_path, class_of.take(object_labels))
        _write_palette_png(object_path, object_labels)
        self._image_ids[image_id] = None
        return lost

    def picture_path(self, image: SourceImage) -> Path:
        """Where the image's picture is to lie, under its own name; DatasetError for a name that climbs out."""
        check_inside(image.file_name, "file_name", Place(self.root, image.image_id))
        return self.root / PICTURES / image.file_name

    def _image_id(self, image: SourceImage) -> str:
        where = Place(self.root, image.image_id)
        check_inside(image.file_name, "file_name", where)
        image_id = os.path.splitext(PurePosixPath(image.file_name).as_posix())[0]
        if _lines(image_id) != [image_id] or not _is_encodable(image_id):
            expected = "a file_name that can be a line of an image set"
            raise DatasetError(f"expected {expected}, got {image.file_name!r}", where=where, remedy="rename the image")
        if image_id in self._image_ids:
            problem = f"the PNGs of {image.file_name} would take the place of another image's"
            raise DatasetError(problem, where=where, remedy="rename the image")
        return image_id

    def _object_labels(self, segmentation: PanopticSegmentation, object_of: dict[int, int]) -> Labels:
        stuff = [s.segment_id for s in segmentation.segments if not self.categories.isthing_of[s.category_id]]
        # One more than the label: 0, what void gets, then wraps around to VOID_LABEL.
        values = {i: label + 1 for i, label in (object_of | dict.fromkeys(stuff, BACKGROUND)).items()}
        labels: Labels = relabel(segmentation.segment_ids, values, np.uint8)
        np.subtract(labels, 1, out=labels)
        if self.border_px:
            labels[_border(labels, self.border_px)] = VOID_LABEL
        return labels


def _categories(names: Sequence[str], where: object) -> CategorySet:
    """Things 1, 2, ... of these names beside the background."""
    sound = isinstance(names, (list, tuple)) and all(isinstance(n, str) and _lines(n) == [n] for n in names)
    if not sound:
        raise DatasetError(f"expected a list of class names, each one line, got {reprlib.repr(names)}", where=where)
    if not 1 <= len(names) <= MAX_LABEL:
        raise DatasetError(f"expected 1 to {MAX_LABEL} classes, got {len(names)}", where=where)
    if len(set(names)) < len(names) or set(names) & set(BACKGROUND_NAMES):
        remedy = "the background is label 0, without being named"
        raise DatasetError(
            f"expected distinct names, and no background, got {listed(names)}", where=where, remedy=remedy
        )
    colors = [(red, green, blue) for red, green, blue in color_map().tolist()]
    things = [Category(label, name, True, colors[label]) for label, name in enumerate(names, 1)]
    return CategorySet([Category(BACKGROUND, "background", False, colors[BACKGROUND]), *things], where)


def _names_of(root: Path) -> tuple[str, ...]:
    path = root / NAMES_FILE
    if not os.path.lexists(path):
        return NAMES
    first, *names = _lines(_read_text(path)) or [""]
    if first not in BACKGROUND_NAMES:
        expected = f"{BACKGROUND_NAMES[0]!r} in the first line"
        raise DatasetError(f"expected {expected}, got {first!r}", where=path, remedy="or give the classes yourself")
    return tuple(names)


def _set_path(root: Path, split: str) -> Path:
    check_inside(str(split), "split", root / SETS)  # a number in YAML is one
    return root / SETS / f"{split}.txt"


def _read_set(path: Path) -> list[str]:
    if not os.path.isfile(path):
        sets = sorted(other.stem for other in path.parent.glob("*.txt"))
        remedy = f"the sets are {', '.join(sets)}" if sets else TREE
        raise DatasetError("no such image set", where=path, remedy=remedy)
    image_ids = _lines(_read_text(path))
    if not image_ids:
        raise DatasetError("expected an image id a line, got none", where=path)
    seen: set[str] = set()
    for image_id in image_ids:
        check_inside(image_id, "image id", path)
        if image_id in seen:
            raise DatasetError(f"expected distinct image ids, got {image_id!r} twice", where=path)
        seen.add(image_id)
    return image_ids


def _read_text(path: Path) -> str:
    return read_bytes(path).decode("utf-8-sig", "surrogateescape")  # as Python decodes the names of files


def _lines(text: str) -> list[str]:
    """The lines, however they end, without the blanks around them; blank lines are passed over."""
    return [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]


def _is_encodable(text: str) -> bool:
    try:
        return bool(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _write_lines(path: Path, lines: list[str]) -> None:
    with replacing(path) as neighbour:
        neighbour.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def _paths(root: Path, image_id: str) -> tuple[Path, Path, Path]:
    """The picture, by the first suffix that exists or else VOC's own, and the two PNGs."""
    pictures = [root / PICTURES / f"{image_id}{suffix}" for suffix in PICTURE_SUFFIXES]
    return next((path for path in pictures if os.path.isfile(path)), pictures[0]), *_label_paths(root, image_id)


def _label_paths(root: Path, image_id: str) -> tuple[Path, Path]:
    return root / CLASSES / f"{image_id}.png", root / OBJECTS / f"{image_id}.png"


def _check_present(paths_of: dict[str, tuple[Path, Path, Path]], set_path: Path) -> None:
    for index, folder in enumerate((PICTURES, CLASSES, OBJECTS)):
        bare = [image_id for image_id, paths in paths_of.items() if not os.path.isfile(paths[index])]
        if bare:
            problem = f"{len(bare)} of {len(paths_of)} images of {set_path} have no file in {folder}: {listed(bare)}"
            remedy = "add the files, or drop the ids from the set"
            raise DatasetError(problem, where=paths_of[bare[0]][index], remedy=remedy)


def _label_map_size(path: Path) -> tuple[int, int]:
    header = png.read_header(path)
    return header.height, header.width


def _read_labels(path: Path, size_hw: tuple[int, int]) -> Labels:
    labels = label_maps.read(path)
    if labels.shape != size_hw:
        raise DatasetError(f"expected {size_hw[0]} x {size_hw[1]} pixels, got {labels.shape}", where=path)
    if labels.max() > VOID_LABEL:
        raise DatasetError(f"expected labels in 0..{VOID_LABEL}, got {labels.max()}", where=path)
    return labels.astype(np.uint8, copy=False)


def _check_pairs(areas: NDArray[np.int64], categories: CategorySet, where: str) -> None:
    """areas: (256, 256) pixels by class label and object label."""
    beyond = np.flatnonzero(areas[len(categories) : VOID_LABEL].any(axis=1)) + len(categories)
    if beyond.size:
        expected = f"class labels in 0..{len(categories) - 1} or {VOID_LABEL}"
        remedy = "give the dataset's own classes"
        raise DatasetError(f"expected {expected}, got {listed(beyond.tolist())}", where=where, remedy=remedy)
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


def _segmentation(class_labels: Labels, object_labels: Labels, areas: NDArray[np.int64]) -> PanopticSegmentation:
    areas = areas[:VOID_LABEL, :VOID_LABEL]  # of what is not void
    area_of, class_of = areas.sum(axis=0), areas.argmax(axis=0)
    segments = [
        Segment(label, int(class_of[label]), True, int(area_of[label]))
        for label in np.flatnonzero(area_of).tolist()
        if label
    ]
    if area_of[BACKGROUND]:
        segments.append(Segment(BACKGROUND_SEGMENT_ID, BACKGROUND, False, int(area_of[BACKGROUND])))
    ids = np.arange(256, dtype=np.int32)
    ids[[BACKGROUND, VOID_LABEL]] = BACKGROUND_SEGMENT_ID, 0
    segment_ids = ids.take(object_labels)
    segment_ids[class_labels == VOID_LABEL] = 0
    return PanopticSegmentation(segment_ids, tuple(segments))


def _place(
    segments: tuple[Segment, ...], areas_px: dict[int, int], categories: CategorySet
) -> tuple[dict[int, int], list[str]]:
    """The object label of every segment that becomes an object, and what is lost of the others."""
    objects = [
        s for s in segments if s.segment_id in areas_px and categories.isthing_of[s.category_id] and not s.iscrowd
    ]
    by_size = sorted(objects, key=lambda s: -areas_px[s.segment_id])  # equal: the earlier
    too_many = {s.segment_id for s in by_size[MAX_LABEL:]}
    kept = [s.segment_id for s in objects if s.segment_id not in too_many]
    stuff = [s for s in segments if s.segment_id in areas_px and not categories.isthing_of[s.category_id]]
    backgrounds = [s.segment_id for s in stuff if categories[s.category_id].name in BACKGROUND_NAMES]
    lost = []
    for segment in segments:
        category, segment_id, loss = categories[segment.category_id], segment.segment_id, ""
        if segment_id not in areas_px:
            loss = "it has no pixel"
        elif not category.isthing and segment_id not in backgrounds[:1]:
            loss = f"{category.name} is held as background, without a segment of its own"
        elif category.isthing and segment.iscrowd:
            loss = "crowds cannot be held, its pixels are void"
        elif segment_id in too_many:
            loss = f"an image has at most {MAX_LABEL} objects, its pixels are void"
        lost += [f"segment {segment_id}: {loss}"] if loss else []
    lost += score_losses(segments)
    kept_ids = all(segment_id <= MAX_LABEL for segment_id in kept)
    return {segment_id: segment_id if kept_ids else label for label, segment_id in enumerate(kept, 1)}, lost


def _border(labels: Labels, reach_px: int) -> NDArray[np.bool_]:
    """Pixels that have another label within reach_px rows and columns."""
    lowest = highest = np.pad(labels, reach_px, mode="edge")
    for axis in (0, 1):
        lowest = sliding_window_view(lowest, 2 * reach_px + 1, axis=axis).min(axis=-1)
        highest = sliding_window_view(highest, 2 * reach_px + 1, axis=axis).max(axis=-1)
    return np.not_equal(lowest, highest)


def _write_palette_png(path: Path, labels: Labels) -> None:
    with replacing(path) as neighbour:
        image = Image.fromarray(labels)
        image.putpalette(color_map().tobytes())
        image.save(neighbour, "PNG")
