"""The pictures of a dataset, whatever their file format: the one way in which segkit reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from segkit.formats import intensities
from segkit.utils.errors import DatasetError

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".png", *TIFF_SUFFIXES, ".bmp", ".jpeg", ".jpg", ".webp")
EIGHT_BIT_MODES = ("RGB", "L", "P", "RGBA", "1", "LA", "PA", "CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "La")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # one channel of 16 or 32 bits
WHOLE_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # one channel of whole numbers, which TIFFs have
DEEP_COLORS = ("RGB", "RGBA", "LA")  # modes in which Pillow gives the high bytes of 16-bit channels
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation
UPRIGHT, SWAPPING = 1, (5, 6, 7, 8)  # orientations that swap height and width
PNG_ORIENTATION = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}  # where Pillow finds one
SUBFILE, WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLES = 254, 256, 257, 258, 262, 339  # TIFF tags
REDUCED, MASK = 1, 4  # bits of SUBFILE: the page is a smaller copy of another, or its transparency
WHITE_IS_ZERO, UNSIGNED = 0, 1  # values of PHOTOMETRIC and SAMPLES
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BYTE_BITS = 8
# What Pillow's decoders raise on damaged files.
DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
PLAIN_KINDS = "save it as 8-bit RGB, or as greyscale of 16 bits"


def read_image(path: Path, size_hw: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image file as `open_image` gives it, transparency left out; DatasetError as there, or
    where its size is not the one expected."""
    image = open_image(path)
    pixels: NDArray[np.uint8] = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    if size_hw is not None and pixels.shape[:2] != size_hw:
        raise DatasetError(f"expected {size_hw[0]} x {size_hw[1]} pixels, got {pixels.shape[:2]}", where=path)
    return pixels


def open_image(path: Path) -> Image.Image:
    """An image file decoded, turned as its EXIF says, and of 8 bits a channel.

    8-bit pictures have the pixels and the mode that Pillow gives them, the first frame of those that move. Greyscale of
    16 or 32 bits, whole or float, becomes 8-bit greyscale, stretched between its own percentiles as
    `intensities.to_uint8` says, white being high; 16-bit RGB becomes 8-bit RGB likewise, on one scale for all channels,
    its transparency left out.
    Raises DatasetError where the file is missing, damaged, cut off, no picture or none of these, is a bomb (more pixels
    than Pillow allows), or a TIFF of several pages: which one was annotated, it does not say. Pages that are smaller
    copies of the first, or masks, do not count.
    """
    with _refusing(path, "the image does not decode"), path.open("rb") as file, Image.open(file) as image:
        # An open file, for of a path Pillow maps the memory, which of a turned TIFF gives other pixels.
        if image.format == "TIFF":
            _check_pages(image, path)
        has_deep_colors = is_deep(image) and image.mode in DEEP_COLORS
        image.load()
        turn = TURNS.get(_orientation(image))  # of a TIFF none: load() turns it
        if has_deep_colors:
            plain = _shallow_colors(_deep_colors(image, path), path)
        elif image.mode in DEEP_MODES:
            plain = _shallow_grey(image, path)
        elif image.mode in EIGHT_BIT_MODES:
            plain = image
        else:
            problem = f"expected grey, RGB, palette or CMYK pixels, got the mode {image.mode}"
            raise DatasetError(problem, where=path, remedy=PLAIN_KINDS)
        return plain if turn is None else plain.transpose(turn)


def is_deep(image: Image.Image) -> bool:
    """Whether a picture that Pillow has opened, but not decoded yet, has channels of more than 8 bits."""
    if image.mode in DEEP_MODES:
        return True
    if image.format == "TIFF":
        return bool(max(_tag(image, BITS, (1,))) > BYTE_BITS)
    return image.format == "PNG" and any(";16" in str(tile[3]) for tile in image.tile)  # type: ignore[attr-defined]


def read_image_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture turned as its EXIF says, from its header; DatasetError where it has none."""
    problem = "expected an image, got none that can be opened"
    with _refusing(path, problem), path.open("rb") as file, Image.open(file) as image:
        width, height = image.size
        if image.format == "TIFF":
            width, height = _tag(image, WIDTH, width), _tag(image, HEIGHT, height)  # Pillow may have swapped its own
        # Of a PNG, getexif() decodes the pixels first.
        looks = image.format != "PNG" or PNG_ORIENTATION & image.info.keys()
        return (width, height) if looks and _orientation(image) in SWAPPING else (height, width)


def read_label_tiff(path: Path) -> NDArray[np.int64]:
    """(H, W) int64 values of a TIFF of whole numbers in one channel, a label map, turned as its orientation says.

    Raises DatasetError where the file is missing, damaged, or something else, white of 0 too, of which Pillow inverts
    some, and several pages: of which smaller copies of the first, or masks, do not count.
    """
    with (
        _refusing(path, "the TIFF does not decode"),
        path.open("rb") as file,  # see `open_image`
        Image.open(file, formats=["TIFF"]) as image,
    ):
        _check_pages(image, path)
        is_inverted = _tag(image, PHOTOMETRIC, None) == WHITE_IS_ZERO
        if image.mode not in WHOLE_MODES or is_inverted:
            got = f"the mode {image.mode}{', white being 0' if is_inverted else ''}"
            problem = f"expected whole numbers in one channel, got {got}"
            raise DatasetError(problem, where=path, remedy="save it as 16-bit greyscale PNG")
        return np.asarray(image).astype(np.int64)


def is_tiff(path: Path) -> bool:
    """Whether the file starts as TIFFs do, be they of a kind that is read or not."""
    with path.open("rb") as file:
        return file.read(4) in TIFF_MAGIC


@contextmanager
def _refusing(path: Path, problem: str) -> Iterator[None]:
    """Turns what opening and decoding raise into a DatasetError; a pipe or device is not even opened."""
    try:
        if not path.is_file() and path.exists():
            raise DatasetError(f"{problem}: this is a folder, a pipe or a device", where=path, remedy="give a file")
        yield
    except FileNotFoundError:
        raise DatasetError("the image is missing", where=path, remedy="complete the download") from None
    except Image.DecompressionBombError as error:
        raise DatasetError(f"{problem}: {error}", where=path, remedy="replace the file, or cut it into tiles") from None
    except UnidentifiedImageError:
        if is_tiff(path):
            kind = "a TIFF with channels, bits or a compression that are not read"
            raise DatasetError(f"{problem}: {kind}", where=path, remedy=PLAIN_KINDS) from None
        raise DatasetError(f"{problem}: no format that is known", where=path, remedy="replace the file") from None
    except DAMAGED as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{problem}: {text}", where=path, remedy="replace the file") from None


def _check_pages(image: Image.Image, path: Path) -> None:
    page = 0
    while True:
        try:
            image.seek(page + 1)
        except EOFError:
            break
        page += 1
        if not _tag(image, SUBFILE, 0) & (REDUCED | MASK):
            problem = "expected one picture, got a TIFF of several pages"
            remedy = "save the page (or the projection) that was annotated as a file of its own"
            raise DatasetError(problem, where=path, remedy=remedy)
    if page:
        image.seek(0)


def _orientation(image: Image.Image) -> int:
    """1, upright, where EXIF says nothing or is damaged: the pixels may well be whole."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, UPRIGHT))
    except DAMAGED:
        return UPRIGHT


def _shallow_colors(colors: NDArray[np.uint16], path: Path) -> Image.Image:
    """Grey colours as the greyscale picture that they are: of one channel, percentiles are the same."""
    is_grey = np.array_equal(colors[..., 0], colors[..., 1]) and np.array_equal(colors[..., 0], colors[..., 2])
    return _shallow(np.ascontiguousarray(colors[..., 0]) if is_grey else colors, path)


def _shallow(values: NDArray[Any], path: Path) -> Image.Image:
    return Image.fromarray(intensities.to_uint8(values, where=path))


def _shallow_grey(image: Image.Image, path: Path) -> Image.Image:
    values = np.asarray(image)
    if image.format == "TIFF" and image.mode == "I" and _tag(image, SAMPLES, (UNSIGNED,))[0] == UNSIGNED:
        values = values.view(np.uint32)  # Pillow's mode is signed
    plain = _shallow(values, path)
    if image.format == "TIFF" and _tag(image, PHOTOMETRIC, None) == WHITE_IS_ZERO:
        return plain.point([intensities.WHITE - level for level in range(intensities.WHITE + 1)])
    return plain


def _deep_colors(image: Image.Image, path: Path) -> NDArray[np.uint16]:
    """(H, W, 3) uint16 RGB, in full what `image` has the high bytes of, as both must agree."""
    try:
        found = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        found = None
    high = np.asarray(image.convert("RGB"))
    if found is not None and found.dtype == np.uint16 and found.ndim == high.ndim:
        colors: NDArray[np.uint16] = np.ascontiguousarray(found[..., 2::-1])
        if np.array_equal(colors >> BYTE_BITS, high):
            return colors
    raise DatasetError("its 16-bit colours are laid out in a way that is not read", where=path, remedy=PLAIN_KINDS)


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    return tags.get(number, default)
