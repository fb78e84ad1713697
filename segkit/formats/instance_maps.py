"""Instance label maps, as microscopy uses them: images/NAME.png and labels/NAME.png, 0 = background, 1..N = objects."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from segkit.formats import coco_tables as coco
from segkit.formats import label_maps, png
from segkit.formats.derive import relabel
from segkit.formats.source import Source, SourceImage
from segkit.structures import (
    MAX_SEGMENT_ID,
    VOID,
    Category,
    CategorySet,
    ConfigError,
    DatasetError,
    PanopticSegmentation,
    Segment,
    extents_of_runs,
    rle_to_mask,
    segmentation_to_rle,
)
from segkit.structures.categories import default_color

THING_ID, BACKGROUND_ID = 1, 2  # category ids
TIFF_SUFFIXES = (".tif", ".tiff")
LABEL_SUFFIXES = (".png", *TIFF_SUFFIXES)
PICTURE_SUFFIXES = (*LABEL_SUFFIXES, ".bmp", ".jpeg", ".jpg", ".webp")
TIFF_MODES = {"1", "L", "P", "I", "I;16", "I;16B"}  # Pillow's, of whole numbers in one channel
WHITE_IS_ZERO = 0  # TIFF 6.0, PhotometricInterpretation: Pillow inverts some of these values, and others not
TURNED = range(5, 9)  # EXIF orientations that swap height and width
PNG_ORIENTATION = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}  # where Pillow finds one
MAX_OBJECTS = np.iinfo(np.uint16).max
HASH_BYTES = 8
PAIRING = "expected images/NAME.* and labels/NAME.png (or .tif), one label map per image"


class InstanceMapSource(Source):
    """Pictures and label maps that are paired by their paths without suffix, which is the image_id.

    root: holds the folders `images` and `labels`; sub-folders are searched, hidden files passed over. A map is a
    greyscale or palette PNG, or a TIFF, of whole numbers (a palette's indices count): 0 is background, every other
    value one object, whatever its gaps and pieces, and its segment_id. thing, background: names of category 1 and
    category 2; a background of None is void. split: None for all images; else "train" or "val", val_share of the names
    by their hash: a name's half does not depend on the other files, so that the share is met only roughly.
    Raises DatasetError where a folder is missing or empty, a picture or a map has no partner, or their sizes differ;
    ConfigError for options that contradict each other.
    """

    layout = "instance-maps"

    def __init__(
        self,
        root: str | Path,
        *,
        images: str = "images",
        labels: str = "labels",
        thing: str = "object",
        background: str | None = "background",
        split: Literal["train", "val"] | None = None,
        val_share: float = 0.25,
    ) -> None:
        _check_options(thing, background, split, val_share)
        self.root = Path(root)
        self.pictures, labels_folder = self.root / images, self.root / labels
        if self.pictures.resolve() == labels_folder.resolve():
            raise ConfigError(f"expected two folders, got {images!r} for the images and the labels", where=root)
        self.categories = _categories(thing, background)
        self._background = background is not None
        pictures, maps = _by_name(self.pictures, PICTURE_SUFFIXES), _by_name(labels_folder, LABEL_SUFFIXES)
        for found, partners, folder in ((pictures, maps, labels_folder), (maps, pictures, self.pictures)):
            _check_partners(found, partners, folder)
        names = [name for name in pictures if split is None or (split == "val") == is_validation(name, val_share)]
        if not names:
            problem = f"expected images in the split {split}, got none of {len(pictures)}"
            raise DatasetError(problem, where=root, remedy="change val_share, or add images")
        self._maps = {name: maps[name] for name in names}
        self.images = tuple(self._image(name, pictures[name]) for name in names)

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """Objects by rising value, segment_id being the value; then the background, with the id after the last.

        DatasetError where the map is damaged, coloured, of another size, or holds no whole numbers of 0 or more.
        """
        path = self._maps[str(image.image_id)]
        values = read_values(path)
        if values.shape != image.size_hw:
            _refuse_size((values.shape[0], values.shape[1]), image.size_hw, path)
        found, areas_px = np.unique(values, return_counts=True)
        area_of = dict(zip(found.tolist(), areas_px.tolist(), strict=True))
        background_px = area_of.pop(0, 0)
        segments = [Segment(value, THING_ID, True, area_px) for value, area_px in area_of.items()]
        if self._background and background_px:
            background_id = max(area_of, default=0) + 1
            values[values == 0] = background_id
            segments.append(Segment(background_id, BACKGROUND_ID, False, background_px))
        return PanopticSegmentation(values, tuple(segments))

    def _image(self, name: str, path: Path) -> SourceImage:
        size_hw, label_path = picture_size(path), self._maps[name]
        label_hw = _label_size(label_path)
        if label_hw != size_hw:
            _refuse_size(label_hw, size_hw, label_path)
        return SourceImage(name, path.relative_to(self.pictures).as_posix(), size_hw)


class InstanceMapWriter:
    """Writes <root>/<labels>/NAME.png, image by image: 8-bit greyscale up to 255 objects, else 16-bit.

    categories: those of the segmentations, with different names. thing: name of the objects' category, by default the
    first thing's; objects of other things lose their class. background: name of the stuff category that 0 stands for;
    where the categories have none of that name, 0 stands for void. Where a picture belongs says `picture_path`.
    """

    def __init__(
        self,
        root: str | Path,
        categories: CategorySet,
        *,
        images: str = "images",
        labels: str = "labels",
        thing: str | None = None,
        background: str = "background",
    ) -> None:
        self.root = Path(root)
        self.categories = categories
        self._pictures, self._labels = self.root / images, self.root / labels
        things = {c.name: c.category_id for c in categories.things}
        if not things or (thing is not None and thing not in things):
            got = coco.listed(things) or "none"
            raise DatasetError(f"expected a thing category{f' {thing!r}' if thing else ''}, got {got}", where=root)
        self._thing_id = categories.things[0].category_id if thing is None else things[thing]
        self._background_id = {c.name: c.category_id for c in categories.stuff}.get(background)
        self._names: set[str] = set()

    def __enter__(self) -> InstanceMapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The layout has no index: what was added is there, whatever happened since."""

    def picture_path(self, image: SourceImage) -> Path:
        """Where the image's picture is to lie, under its own name; DatasetError for a name that climbs out."""
        coco.check_inside(image.file_name, "file_name", coco.Place(self.root, image.image_id))
        return self._pictures / image.file_name

    def add(
        self, image: SourceImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Writes the image's map, objects 1..N in the order of the segments; what it cannot hold, one line each.

        Crowds and stuff become 0. annotations: only looked at for masks that overlap. Raises DatasetError where the
        name climbs out or was written before, and for more than 65535 objects; ValueError for a map of another size
        than the image, a category that is not in `categories` and an id in the map that no segment has.
        """
        where = coco.Place(self.root, image.image_id)
        coco.check_inside(image.file_name, "file_name", where)
        name = PurePosixPath(image.file_name).with_suffix("").as_posix()
        if name in self._names:
            raise DatasetError(f"an image named {name} was added before", where=where, remedy="rename it")
        areas_px = checked_areas(image, segmentation, self.categories)
        objects = [s for s in segmentation.segments if s.isthing and not s.iscrowd and s.segment_id in areas_px]
        if len(objects) > MAX_OBJECTS:
            raise DatasetError(f"expected at most {MAX_OBJECTS} objects, got {len(objects)}", where=where)
        values = {s.segment_id: value for value, s in enumerate(objects, 1)}
        label_maps.write(self._labels / f"{name}.png", relabel(segmentation.segment_ids, values, np.uint16))
        self._names.add(name)
        return [*self._losses(segmentation, areas_px), *_overlaps(annotations or [], image.size_hw)]

    def _losses(self, segmentation: PanopticSegmentation, areas_px: dict[int, int]) -> list[str]:
        lines = [line for s in segmentation.segments if (line := self._loss(s, areas_px))]
        void_px = segmentation.segment_ids.size - sum(areas_px.values())
        if void_px and self._background_id is not None:
            lines.append(f"void: {void_px} pixels become background")
        return lines + score_losses(segmentation.segments)

    def _loss(self, segment: Segment, areas_px: dict[int, int]) -> str:
        name = self.categories[segment.category_id].name
        if segment.segment_id not in areas_px:
            return f"segment {segment.segment_id}: a segment without pixels cannot be held"
        if segment.iscrowd:
            return f"segment {segment.segment_id}: crowds cannot be held"
        if segment.isthing and segment.category_id != self._thing_id:
            return f"segment {segment.segment_id}: its class {name} cannot be held, objects have one class"
        if not segment.isthing and segment.category_id != self._background_id:
            return f"segment {segment.segment_id}: the stuff {name} cannot be held"
        return ""


def is_validation(name: str, share: float) -> bool:
    """Whether an image belongs to the validation half: the name's SHA-256, as a fraction of 1, is below `share`."""
    normal = unicodedata.normalize("NFC", name)  # file systems differ in how they spell an accent
    digest = hashlib.sha256(normal.encode("utf-8", "surrogateescape")).digest()[:HASH_BYTES]
    return bool(int.from_bytes(digest, "big") < share * 256**HASH_BYTES)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture turned as its EXIF says, from its header; DatasetError where it has none."""
    try:
        with Image.open(path) as image:
            # Of a PNG, getexif() decodes the pixels first.
            exif = image.getexif() if image.format != "PNG" or PNG_ORIENTATION & image.info.keys() else {}
            turned = exif.get(0x0112) in TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except FileNotFoundError:
        raise DatasetError("the image is missing", where=path, remedy="complete the download") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        problem = f"expected an image, got none that can be opened: {' '.join(str(error).split())}"
        raise DatasetError(problem, where=path, remedy="replace the file") from None


def read_values(path: Path) -> NDArray[np.int32]:
    """(H, W) int32 values, from 0, of a label PNG or TIFF; DatasetError where it is missing, damaged or no map."""
    values = _read_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else label_maps.read(path)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= MAX_SEGMENT_ID:
        raise DatasetError(f"expected values in 0..{MAX_SEGMENT_ID - 1}, got {low}..{high}", where=path)
    return values.astype(np.int32)


def checked_areas(image: SourceImage, segmentation: PanopticSegmentation, categories: CategorySet) -> dict[int, int]:
    """Pixels by segment_id, void left out; ValueError where the map and the image, the segments or the categories
    contradict each other."""
    size_hw, segments = segmentation.segment_ids.shape, segmentation.segments
    if size_hw != tuple(image.size_hw):
        raise ValueError(f"segment_ids must be of the image's size {image.size_hw}, got {size_hw}")
    unknown = {s.category_id for s in segments if s.category_id not in categories}
    if unknown:
        raise ValueError(f"segments must have category ids of the dataset, got {sorted(unknown)}")
    areas_px = {i: extent.area_px for i, extent in extents_of_runs(segmentation.runs).items()}
    strange = areas_px.keys() - {VOID, *(s.segment_id for s in segments)}
    if strange:
        raise ValueError(f"segment_ids must hold ids of segments only, got {coco.listed(sorted(strange))}")
    return areas_px


def score_losses(segments: Sequence[Segment]) -> list[str]:
    """The line on segments that have scores, which truth has not; none where no segment has."""
    scored = sum(s.score is not None for s in segments)
    return [f"scores cannot be held: {scored} segments have one"] if scored else []


def _check_options(thing: str, background: str | None, split: str | None, val_share: float) -> None:
    if not thing or thing == background or background == "":
        raise ConfigError(f"expected two names for thing and background, got {thing!r} and {background!r}")
    if split not in (None, "train", "val"):
        raise ConfigError(f"expected split to be 'train', 'val' or nothing, got {split!r}")
    if not 0 <= val_share <= 1:
        raise ConfigError(f"expected val_share to be in [0, 1], got {val_share!r}")


def _categories(thing: str, background: str | None) -> CategorySet:
    things = [Category(THING_ID, thing, True, default_color(THING_ID))]
    return CategorySet(
        things if background is None else [*things, Category(BACKGROUND_ID, background, False, (64, 64, 64))]
    )


def _by_name(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files with such a suffix, in any case, by their path in the folder without it, sorted.

    A link is taken as a file even where it leads nowhere: opening it then says so.
    """
    if not folder.is_dir():
        raise DatasetError("no such folder", where=folder, remedy=PAIRING)
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in files if not name.startswith(".")):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if path.suffix.lower() not in suffixes:
                continue
            if name in found:
                got = f"{found[name].name} and {path.name}"
                raise DatasetError(f"expected one file of a name, got {got}", where=path, remedy=PAIRING)
            found[name] = path
    if not found:
        raise DatasetError(f"expected files named *{', *'.join(suffixes)}, found none", where=folder, remedy=PAIRING)
    return dict(sorted(found.items()))


def _check_partners(found: dict[str, Path], partners: dict[str, Path], folder: Path) -> None:
    alone = [path.name for name, path in found.items() if name not in partners]
    if alone:
        problem = f"{len(alone)} of {len(found)} files have no partner here: {coco.listed(alone)}"
        raise DatasetError(problem, where=folder, remedy=PAIRING)


def _label_size(path: Path) -> tuple[int, int]:
    if path.suffix.lower() in TIFF_SUFFIXES:
        return picture_size(path)
    header = png.read_header(path)
    return header.height, header.width


def _refuse_size(got_hw: tuple[int, int], expected_hw: tuple[int, int], path: Path) -> None:
    expected, got = f"{expected_hw[0]} x {expected_hw[1]}", f"{got_hw[0]} x {got_hw[1]}"
    raise DatasetError(f"expected {expected} pixels (height x width) as the image has, got {got}", where=path)


def _read_tiff(path: Path) -> NDArray[Any]:
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            frames, photometric = getattr(image, "n_frames", 1), _photometric(image)
            if image.mode not in TIFF_MODES or frames > 1 or photometric == WHITE_IS_ZERO:
                white = ", white being 0" if photometric == WHITE_IS_ZERO else ""
                problem = f"expected one page of whole numbers, got {frames} of mode {image.mode}{white}"
                raise DatasetError(problem, where=path, remedy="save it as 16-bit greyscale PNG")
            return np.asarray(image).astype(np.int64)
    except FileNotFoundError:
        raise DatasetError("expected a file, found nothing", where=path, remedy="check the path") from None
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, Image.DecompressionBombError) as error:
        problem = f"the TIFF cannot be decoded: {' '.join(str(error).split())}"
        raise DatasetError(problem, where=path, remedy="write or fetch it again") from None


def _photometric(image: Image.Image) -> object:
    return image.tag_v2.get(262) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def _overlaps(annotations: Sequence[dict[str, Any]], size_hw: tuple[int, int]) -> list[str]:
    """The line on masks that overlap, which a map cannot hold; none where no two of them do."""
    count = np.zeros(size_hw, dtype=np.int32)
    for annotation in annotations:
        count += rle_to_mask(segmentation_to_rle(annotation["segmentation"], size_hw))
    hidden_px = int(np.maximum(count - 1, 0).sum())
    return [f"annotations: {hidden_px} pixels under other masks cannot be held"] if hidden_px else []
