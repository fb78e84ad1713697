"""labelme: one JSON of shapes beside each picture (github.com/wkentaro/labelme)."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.formats import coco_tables as coco
from segkit.formats import files, labelme_shapes
from segkit.formats.coco_tables import Entry
from segkit.formats.instance_maps import PICTURE_SUFFIXES, checked_areas, picture_size, score_losses
from segkit.formats.labelme_shapes import Shape
from segkit.formats.source import Source, SourceImage
from segkit.structures import (
    MAX_SEGMENT_ID,
    VOID,
    CategorySet,
    ConfigError,
    DatasetError,
    PanopticSegmentation,
    Segment,
    extents_of_runs,
    segmentation_to_rle,
)

SUFFIX = ".json"
VERSION = "5.5.0"  # of labelme, whose files are written
MAX_BYTES = 2**29  # of a JSON, whose largest part by far is a picture in base64
NOT_LABELME = "expected labelme's object with `shapes`"
IGNORED = ("ignored",)  # the key of shapes that become void


class LabelmeSource(Source):
    """Every JSON below root is one image, its path without suffix the image_id; hidden files are passed over.

    A picture is where imagePath says, seen from its JSON, inside root; imageData is not looked at. things, stuff,
    ignore: labels; things of None are all other labels. Categories are the things and the stuff, sorted by name, with
    ids from 1: name both where several folders are to agree. A thing's shapes of one label and group_id are one object,
    every other shape of a thing is one; the shapes of one stuff label are one segment; ignored shapes are void. Later
    shapes lie on top of earlier ones, as labelme draws them. A shape's flag `iscrowd` makes a crowd.
    skipped: one line each on what is not read, which are points and lines, and pictures without JSON.
    Raises DatasetError where a JSON is malformed, a picture is missing, of another size or has two JSONs, or a label is
    none of things, stuff and ignore; ConfigError where a label is in two of them.
    """

    layout = "labelme"
    overlaps = True

    def __init__(
        self,
        root: str | Path,
        *,
        things: Sequence[str] | None = None,
        stuff: Sequence[str] = (),
        ignore: Sequence[str] = (),
    ) -> None:
        _check_options(things, stuff, ignore)
        self.root = self.pictures = Path(root)
        json_names, picture_names = _find(self.root)
        skipped: list[str] = []
        drawings = {name: _read(self.root, name, skipped) for name in json_names}
        _check_distinct(drawings, self.root)
        self.images = tuple(self._image(name, drawing) for name, drawing in drawings.items())
        self._shapes = {name.removesuffix(SUFFIX): drawing.shapes for name, drawing in drawings.items()}
        bare = sorted({*picture_names} - {drawing.file_name for drawing in drawings.values()})
        if bare:
            skipped.append(f"{self.root}: {len(bare)} pictures have no JSON: {coco.listed(bare)}")
        self.skipped = tuple(skipped)
        labels = {shape.label for drawing in drawings.values() for shape in drawing.shapes}
        self._ignore = {*ignore}
        named = {*stuff, *ignore}
        self.categories = _categories(labels - named if things is None else things, stuff, self.root)
        self._category_ids = {c.name: c.category_id for c in self.categories.categories}
        self._check_labels()

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """Segments are numbered from 1 in the order of their first shapes; those that others hide have no segment.

        DatasetError where a mask is damaged.
        """
        segment_ids = np.zeros(image.size_hw, dtype=np.int32)
        numbers: dict[tuple[object, ...], int] = {}
        found: dict[int, Shape] = {}
        crowds: set[int] = set()
        for key, shape, rle in self._painted(image):
            segment_id = VOID if key == IGNORED else numbers.setdefault(key, len(numbers) + 1)
            crop, (left, top) = _crop(rle)
            segment_ids[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = segment_id
            found.setdefault(segment_id, shape)
            crowds |= {segment_id} if shape.iscrowd else set()
        areas_px = np.bincount(segment_ids.ravel(), minlength=len(numbers) + 1).tolist()
        segments = []
        for segment_id in (i for i in numbers.values() if areas_px[i]):
            category = self.categories[self._category_ids[found[segment_id].label]]
            iscrowd = category.isthing and segment_id in crowds
            segments.append(Segment(segment_id, category.category_id, category.isthing, areas_px[segment_id], iscrowd))
        return PanopticSegmentation(segment_ids, tuple(segments))

    def annotations(self, image: SourceImage) -> list[dict[str, Any]]:
        """COCO annotations of the things' whole masks, whatever lies on top, in the order of their first shapes."""
        parts: dict[tuple[object, ...], tuple[list[Shape], list[dict[str, Any]]]] = {}
        for key, shape, rle in self._painted(image):
            if key != IGNORED and self.categories[self._category_ids[shape.label]].isthing:
                shapes, rles = parts.setdefault(key, ([], []))
                shapes.append(shape)
                rles.append(rle)
        made = (self._annotation(image, *part) for part in parts.values())
        return [annotation for annotation in made if annotation["area"]]

    def _painted(self, image: SourceImage) -> Iterator[tuple[tuple[object, ...], Shape, dict[str, Any]]]:
        """Every shape in its order, with the key of the segment that it belongs to and its pixels as RLE."""
        for index, shape in enumerate(self._shapes[str(image.image_id)]):
            if shape.label in self._ignore:
                key: tuple[object, ...] = IGNORED
            elif not self.categories[self._category_ids[shape.label]].isthing:
                key = ("stuff", shape.label)
            else:
                key = ("single", index) if shape.group_id is None else ("group", shape.label, shape.group_id)
            yield key, shape, labelme_shapes.to_rle(shape, image.size_hw)

    def _annotation(self, image: SourceImage, shapes: list[Shape], rles: list[dict[str, Any]]) -> dict[str, Any]:
        rle = coco_mask.merge(rles)
        return {
            "image_id": image.image_id,
            "category_id": self._category_ids[shapes[0].label],
            "iscrowd": int(any(shape.iscrowd for shape in shapes)),
            "area": int(coco_mask.area(rle)),
            "bbox": [int(number) for number in coco_mask.toBbox(rle).tolist()],
            "segmentation": {"size": [*image.size_hw], "counts": rle["counts"].decode("ascii")},
        }

    def _image(self, name: str, drawing: _Drawing) -> SourceImage:
        size_hw = picture_size(self.root / drawing.file_name)
        for key, got, expected in zip(("imageHeight", "imageWidth"), drawing.size_hw, size_hw, strict=True):
            if got not in (None, expected):
                problem = f"expected `{key}` to be {expected} pixels, as of {drawing.file_name}, got {got!r}"
                raise DatasetError(problem, where=self.root / name, remedy="is it the JSON of this picture?")
        return SourceImage(name.removesuffix(SUFFIX), drawing.file_name, size_hw)

    def _check_labels(self) -> None:
        for shape in (shape for shapes in self._shapes.values() for shape in shapes):
            if shape.label not in self._category_ids and shape.label not in self._ignore:
                known = coco.listed([*self._category_ids, *sorted(self._ignore)])
                problem = f"expected a label among {known}, got {shape.label!r}"
                raise DatasetError(problem, where=shape.where, remedy="name it in things, stuff or ignore")


class LabelmeWriter:
    """Writes one JSON per image, <root>/<file_name> with the ending .json, for a picture beside it (`picture_path`).

    Labels are the names of the categories, which must differ. A segment is polygons along the edges of its pixels,
    joined by group_id, or where it has holes a mask; crowds have the flag `iscrowd`. `LabelmeSource` reads back the
    same pixels; which labels are stuff it has to be told.
    """

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        self.root = Path(root)
        self.categories = categories
        names = [c.name for c in categories.categories]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names:
            got = f"{coco.listed(twice)} more than once" if twice else "an empty one"
            raise DatasetError(f"expected categories of different names, got {got}", where=root, remedy="rename one")
        self._names: set[str] = set()

    def __enter__(self) -> LabelmeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The layout has no index: what was added is there, whatever happened since."""

    def picture_path(self, image: SourceImage) -> Path:
        """Where the image's picture is to lie, under its own name; DatasetError for a name that climbs out."""
        coco.check_inside(image.file_name, "file_name", coco.Place(self.root, image.image_id))
        return self.root / image.file_name

    def add(
        self, image: SourceImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Writes the image's JSON; what it cannot hold, one line each.

        annotations: things' whole masks, written in place of the visible parts where, painted one after the other
        and the stuff on top, they give the segmentation. Raises DatasetError where the name climbs out or was written
        before; ValueError for a map of another size than the image, a category that is not in `categories` and an id
        in the map that no segment has.
        """
        path = self.picture_path(image).with_suffix(SUFFIX)
        name = path.relative_to(self.root).as_posix()
        if name in self._names:
            where = coco.Place(self.root, image.image_id)
            raise DatasetError(f"an image with the JSON {name} was added before", where=where, remedy="rename it")
        areas_px = checked_areas(image, segmentation, self.categories)
        empty = [s.segment_id for s in segmentation.segments if s.segment_id not in areas_px]
        losses = [f"segment {i}: a segment without pixels cannot be held" for i in empty]
        layers = _visible_layers(segmentation)
        if annotations:
            whole = _whole_layers(segmentation, annotations)
            if whole is None:
                reason = "their masks, painted in order, do not give the segmentation, whose segments are written"
                losses.append(f"annotations: {reason}")
            layers = layers if whole is None else [*whole, *(layer for layer in layers if not layer.isthing)]
        files.dump_json(path, self._content(image, layers))
        self._names.add(name)
        return losses + score_losses(segmentation.segments)

    def _content(self, image: SourceImage, layers: Sequence[_Layer]) -> Entry:
        shapes = [
            entry
            for group_id, layer in enumerate(layers, 1)
            for entry in labelme_shapes.of_mask(
                layer.crop, layer.corner_xy, self.categories[layer.category_id].name, group_id, layer.iscrowd
            )
        ]
        return {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": PurePosixPath(image.file_name).name,
            "imageData": None,
            "imageHeight": image.size_hw[0],
            "imageWidth": image.size_hw[1],
        }


@dataclass(frozen=True, eq=False)
class _Drawing:
    """One JSON. file_name: of the picture in root. size_hw: as the JSON has it, unchecked."""

    file_name: str
    size_hw: tuple[object, object]
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, eq=False)
class _Layer:
    """One segment or annotation to write: the (h, w) crop of its pixels at (left, top)."""

    category_id: int
    isthing: bool
    iscrowd: bool
    crop: NDArray[np.bool_]
    corner_xy: tuple[int, int]


def _check_options(things: Sequence[str] | None, stuff: Sequence[str], ignore: Sequence[str]) -> None:
    seen: set[str] = set()
    for key, labels in (("things", things or ()), ("stuff", stuff), ("ignore", ignore)):
        if isinstance(labels, str) or not all(isinstance(label, str) and label for label in labels):
            raise ConfigError(f"expected {key} to be a list of labels, got {labels!r}")
        if seen & {*labels}:
            got = coco.listed(sorted(seen & {*labels}))
            raise ConfigError(f"expected a label in one of things, stuff and ignore, got {got} in two")
        seen |= {*labels}


def _find(root: Path) -> tuple[list[str], list[str]]:
    """The JSONs and the pictures below root, by their paths in it, sorted; linked folders are not entered."""
    if not root.is_dir():
        raise DatasetError("no such folder", where=root, remedy="give the folder of labelme's JSON files")
    names = []
    for place, folders, found in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [(Path(place) / name).relative_to(root).as_posix() for name in found if not name.startswith(".")]
    json_names = sorted(name for name in names if name.endswith(SUFFIX))
    if not json_names:
        raise DatasetError("expected labelme's JSON files, found none", where=root, remedy="check the folder")
    return json_names, [name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]


def _read(root: Path, name: str, skipped: list[str]) -> _Drawing:
    path = root / name
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        problem = f"expected at most {MAX_BYTES >> 20} MiB of JSON, got {path.stat().st_size >> 20}"
        raise DatasetError(problem, where=path, remedy="save it without imageData")
    content = files.load_json(path)
    if type(content) is not dict or "shapes" not in content:
        got = f"one with {coco.listed(content)}" if type(content) is dict else f"a {type(content).__name__}"
        raise DatasetError(f"{NOT_LABELME}, got {got}", where=path, remedy="move other files elsewhere")
    shapes = []
    for index, entry in enumerate(coco.table(content, "shapes", path)):
        where = f"{path}, shape {index}"
        if labelme_shapes.has_area(entry, where):
            shapes.append(labelme_shapes.parse(entry, where))
        else:
            skipped.append(f"{where}: a {entry['shape_type']} has no area, {entry.get('label')!r} is not read")
    size_hw = content.get("imageHeight"), content.get("imageWidth")
    return _Drawing(_picture_name(content, name, path), size_hw, tuple(shapes))


def _picture_name(content: Entry, json_name: str, path: Path) -> str:
    """The picture's path in root; imagePath is seen from the JSON, and written on Windows has backslashes."""
    image_path: str = coco.field(content, "imagePath", coco.TEXT, path)
    seen = posixpath.join(posixpath.dirname(json_name), image_path.replace("\\", "/"))
    name = posixpath.normpath(seen) if image_path else ""
    coco.check_inside(name, "imagePath", path)
    return name


def _check_distinct(drawings: dict[str, _Drawing], root: Path) -> None:
    owner: dict[str, str] = {}
    for name, drawing in drawings.items():
        other = owner.setdefault(drawing.file_name, name)
        if other != name:
            problem = f"expected one JSON of a picture, got {other} and {name} of {drawing.file_name}"
            raise DatasetError(problem, where=root, remedy="remove one, or correct its imagePath")


def _categories(things: Collection[str], stuff: Collection[str], root: Path) -> CategorySet:
    names = sorted({*things, *stuff})
    return CategorySet.from_coco(
        [{"id": i, "name": n, "isthing": n not in stuff} for i, n in enumerate(names, 1)], root
    )


def _visible_layers(segmentation: PanopticSegmentation) -> list[_Layer]:
    found = extents_of_runs(segmentation.runs)
    layers = []
    for segment in (s for s in segmentation.segments if s.segment_id in found):
        left, top, width, height = found[segment.segment_id].bbox_xywh
        crop = segmentation.segment_ids[top : top + height, left : left + width] == segment.segment_id
        layers.append(_Layer(segment.category_id, segment.isthing, segment.iscrowd, crop, (left, top)))
    return layers


def _whole_layers(segmentation: PanopticSegmentation, annotations: Sequence[dict[str, Any]]) -> list[_Layer] | None:
    """The annotations as layers, None where they do not give the segmentation's things."""
    thing_ids = {s.segment_id: s for s in segmentation.segments if s.isthing}
    stuff_ids = [s.segment_id for s in segmentation.segments if not s.isthing]
    segment_ids = segmentation.segment_ids
    painted = np.zeros(segment_ids.shape, dtype=np.int32)
    layers = []
    for number, annotation in enumerate(annotations, 1):
        rle = segmentation_to_rle(annotation["segmentation"], (segment_ids.shape[0], segment_ids.shape[1]))
        crop, (left, top) = _crop(rle)
        painted[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = number
        iscrowd = bool(annotation.get("iscrowd", 0))
        layers.append(_Layer(annotation["category_id"], True, iscrowd, crop, (left, top)))
    painted[np.isin(segment_ids, stuff_ids)] = VOID
    things = np.where(np.isin(segment_ids, stuff_ids), VOID, segment_ids)
    packed = np.unique(painted * np.int64(MAX_SEGMENT_ID + 1) + things)
    pairs = [divmod(pair, MAX_SEGMENT_ID + 1) for pair in packed.tolist()]
    numbers, ids = zip(*pairs, strict=True)
    one_to_one = len({*numbers}) == len(pairs) == len({*ids})
    return layers if one_to_one and all(_same(layers, thing_ids, *pair) for pair in pairs) else None


def _crop(rle: dict[str, Any]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The mask in its tight box, (h, w) at (left, top): far fewer pixels to paint; (0, 0) of an empty mask."""
    left, top, width, height = (int(number) for number in coco_mask.toBbox(rle).tolist())
    whole: NDArray[np.uint8] = coco_mask.decode(rle)
    return whole[top : top + height, left : left + width].astype(np.bool_), (left, top)


def _same(layers: Sequence[_Layer], things: dict[int, Segment], number: int, segment_id: int) -> bool:
    if VOID in (number, segment_id):
        return number == segment_id
    layer, segment = layers[number - 1], things[segment_id]
    return (layer.category_id, layer.iscrowd) == (segment.category_id, segment.iscrowd)
