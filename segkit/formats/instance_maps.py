"""Instance label maps, as microscopy uses them: images/NAME.png and labels/NAME.png, 0 = background, 1..N = objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from segkit.formats import image_files, label_maps
from segkit.formats.coco_tables import check_inside
from segkit.formats.pictures import PICTURE_SUFFIXES, TIFF_SUFFIXES
from segkit.formats.source import Source, SourceImage, Tell, refuse
from segkit.formats.splits import Split, check_split, names_of
from segkit.formats.telling import alone
from segkit.structures import (
    MAX_SEGMENT_ID,
    Category,
    CategorySet,
    ConfigError,
    DatasetError,
    PanopticSegmentation,
    Segment,
)
from segkit.structures.categories import default_color

THING_ID, BACKGROUND_ID = 1, 2  # category ids
LABEL_SUFFIXES = (".png", *TIFF_SUFFIXES)
TIFF_MODES = {"1", "L", "P", "I", "I;16", "I;16B"}  # Pillow's, of whole numbers in one channel
WHITE_IS_ZERO = 0  # TIFF 6.0, PhotometricInterpretation: Pillow inverts some of these values, and others not
PAIRING = "expected images/NAME.* and labels/NAME.png (or .tif), one label map per image"


class InstanceMapSource(Source):
    """Pictures and label maps that are paired by their paths without suffix, which is the image_id.

    root: holds the folders `images` and `labels`; sub-folders are searched, hidden files passed over. A map is a
    greyscale or palette PNG, or a TIFF, of whole numbers (a palette's indices count): 0 is background, every other
    value one object, whatever its gaps and pieces, and its segment_id. thing, background: names of category 1 and
    category 2; a background of None is void. split: None for all images; else "train" or "val", val_share of the names
    by their hash (`segkit.formats.splits`). tell: gets pictures and maps of either split that have no partner, or two,
    and images whose files cannot be opened or differ in size. Raises DatasetError where a folder is missing, empty
    or outside root; ConfigError for options that contradict each other.
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
        split: Split | None = None,
        val_share: float = 0.25,
        tell: Tell = refuse,
    ) -> None:
        names = [thing] if background is None else [thing, background]
        if not all(isinstance(name, str) and name for name in names) or thing == background:
            raise ConfigError(f"expected two names for thing and background, got {thing!r} and {background!r}")
        check_split(split, val_share)
        self.root = Path(root)
        for key, folder in (("images", images), ("labels", labels)):
            check_inside(folder, key, self.root)
        self.pictures, labels_folder = self.root / images, self.root / labels
        if self.pictures.resolve() == labels_folder.resolve():
            raise ConfigError(f"expected two folders, got {images!r} for the images and the labels", where=root)
        self.categories = _categories(thing, background)
        self._background = background is not None
        pictures = image_files.by_name(self.pictures, PICTURE_SUFFIXES, PAIRING, "image-id-twice", tell)
        self._maps = image_files.by_name(labels_folder, LABEL_SUFFIXES, PAIRING, "annotation-twice", tell)
        code, problem = "image-without-annotation", "no label map has the image's name"
        alone(tell, code, problem, pictures, self._maps, PAIRING)
        alone(tell, "image-missing", "no image has the label map's name", self._maps, pictures, PAIRING)
        paired = [name for name in names_of(split, val_share, pictures, root) if name in self._maps]
        found = (self._image(name, pictures[name], tell) for name in paired)
        self.images = tuple(image for image in found if image is not None)

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """Objects by rising value, segment_id being the value; then the background, with the id after the last.

        DatasetError where the map is damaged, coloured, of another size, or holds no whole numbers of 0 or more.
        """
        path = self._maps[str(image.image_id)]
        values = read_values(path)
        image_files.check_sizes(self.pictures / image.file_name, image.size_hw, {path: values.shape})
        found, areas_px = np.unique(values, return_counts=True)
        area_of = dict(zip(found.tolist(), areas_px.tolist(), strict=True))
        background_px = area_of.pop(0, 0)
        segments = [Segment(value, THING_ID, True, area_px) for value, area_px in area_of.items()]
        if self._background and background_px:
            background_id = max(area_of, default=0) + 1
            values[values == 0] = background_id
            segments.append(Segment(background_id, BACKGROUND_ID, False, background_px))
        return PanopticSegmentation(values, tuple(segments))

    def _image(self, name: str, picture: Path, tell: Tell) -> SourceImage | None:
        size_hw = image_files.measure(picture, [self._maps[name]], tell)
        file_name = picture.relative_to(self.pictures).as_posix()
        return SourceImage(name, file_name, size_hw) if size_hw is not None else None


def read_values(path: Path) -> NDArray[np.int32]:
    """(H, W) int32 values, from 0, of a label PNG, or of a TIFF turned as its orientation says; DatasetError where it
    is missing, damaged or no map."""
    values = _read_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else label_maps.read(path)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= MAX_SEGMENT_ID:
        raise DatasetError(f"expected values in 0..{MAX_SEGMENT_ID - 1}, got {low}..{high}", where=path)
    return values.astype(np.int32)


def _categories(thing: str, background: str | None) -> CategorySet:
    things = [Category(THING_ID, thing, True, default_color(THING_ID))]
    return CategorySet(
        things if background is None else [*things, Category(BACKGROUND_ID, background, False, (64, 64, 64))]
    )


def _read_tiff(path: Path) -> NDArray[Any]:
    try:
        # An open file, for of a path Pillow maps the memory, which of a turned TIFF gives other pixels.
        with path.open("rb") as file, Image.open(file, formats=["TIFF"]) as image:
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
