"""Image files of a dataset in any file format: all of segkit reads them here.

Values of more than 8 bits are stretched to 8 bits between two of their own percentiles.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageSequence, UnidentifiedImageError

from segkit.formats.pixel_limit import open_pillow
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import explain_missing
from segkit.utils.links import check_guarded_link

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".png", *TIFF_SUFFIXES, ".bmp", ".jpeg", ".jpg", ".webp")
EIGHT_BIT_MODES = ("RGB", "L", "P", "RGBA", "1", "LA", "PA", "CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "La")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # one channel of 16 or 32 bits
WHOLE_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # one channel of whole numbers, which TIFFs have
DEEP_COLORS = ("RGB", "RGBA", "LA")  # modes in which Pillow gives the high bytes of 16-bit channels
TRANSPOSES = {
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
PERCENTILES = (0.5, 99.5)  # values beyond are clipped: a few hot pixels must not darken all others
BLOCK = 2**18  # values that are scaled at once, so that no whole image or volume is held as float64
LEVELS = 2**16  # of 16-bit values
WHITE = 255
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

log = logging.getLogger(__name__)


def read_image(path: str | Path, size_hw: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an image file as RGB, without transparency.

    Args:
        path: image file.
        size_hw: expected (height, width) in pixels; None accepts any.

    Returns:
        (H, W, 3) uint8 RGB, rotated as EXIF says.

    Raises:
        DatasetError: as `open_image`, or if the image has another size.
    """
    path = Path(path)
    image = open_image(path)
    pixels: NDArray[np.uint8] = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    if size_hw is not None and pixels.shape[:2] != size_hw:
        raise DatasetError(f"expected {size_hw[0]} x {size_hw[1]} pixels, got {pixels.shape[:2]}", where=path)
    return pixels


def open_image(path: str | Path, least_hw: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image file to 8 bits a channel, rotated as its EXIF orientation says.

    8-bit images keep the pixels and the mode that Pillow gives them; of an animation the first frame is taken.
    Greyscale of 16 or 32 bits, integer or float, becomes 8-bit greyscale by `stretch_to_uint8`, white being high.
    16-bit RGB becomes 8-bit RGB in the same way, on one scale for all channels, without its transparency.

    Args:
        path: image file.
        least_hw: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if it is still as high and wide as this, in pixels,
            which is much faster; None: at its size.

    Returns:
        The decoded image.

    Raises:
        DatasetError: the file is missing, damaged, cut off, no image or of none of these kinds; it has more pixels than
            Pillow allows; or it is a TIFF of several pages, which does not say which page was annotated. Pages that are
            smaller copies of the first one, or masks, do not count.
    """
    path = Path(path)
    check_guarded_link(path)
    with _convert_errors(path, "the image does not decode"), path.open("rb") as file, open_pillow(file, path) as image:
        # Given a path, Pillow maps the file into memory, and then a rotated TIFF has other pixels.
        if image.format == "TIFF":
            _check_pages(image, path)
        has_deep_colors = is_deep(image) and image.mode in DEEP_COLORS
        if least_hw is not None and image.format == "JPEG":
            image.draft(None, least_hw if _orientation(image) in SWAPPING else least_hw[::-1])
        image.load()
        return _to_plain(image, path, has_deep_colors)


def convert_image(image: Image.Image) -> Image.Image:
    """Do with an image that Pillow has opened what `open_image` does with a file.

    Of an animation or of pages, the current one is taken. 16-bit RGB of which Pillow has decoded the high bytes keeps
    these.

    Args:
        image: of any kind; it may be decoded.

    Returns:
        8-bit image, rotated as its EXIF orientation says.

    Raises:
        DatasetError: as `open_image`.
    """
    path = Path(getattr(image, "filename", "") or "the image")
    if getattr(image, "tile", None) and is_deep(image) and image.mode in DEEP_COLORS and path.is_file():
        return open_image(path)  # Pillow would decode the high bytes only
    with _convert_decoding_errors(path, "the image does not decode"):
        image.load()
        return _to_plain(image, path, has_deep_colors=False)


def is_deep(image: Image.Image) -> bool:
    """Whether the channels have more than 8 bits.

    Args:
        image: opened by Pillow, but not decoded yet.

    Returns:
        True for channels of 16 or 32 bits.
    """
    if image.mode in DEEP_MODES:
        return True
    if image.format == "TIFF":
        return bool(max(_tag(image, BITS, (1,))) > BYTE_BITS)
    return image.format == "PNG" and any(";16" in str(tile[3]) for tile in image.tile)  # type: ignore[attr-defined]


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Read the size of an image from its header.

    Args:
        path: image file.

    Returns:
        (height, width) in pixels, after the rotation that EXIF asks for.

    Raises:
        DatasetError: the file has no image header.
    """
    path = Path(path)
    problem = "expected an image, got none that can be opened"
    with _convert_errors(path, problem), path.open("rb") as file, open_pillow(file, path) as image:
        width, height = image.size
        if image.format == "TIFF":
            width, height = _tag(image, WIDTH, width), _tag(image, HEIGHT, height)  # Pillow may have swapped image.size
        # getexif() of a PNG decodes the pixels first.
        may_rotate = image.format != "PNG" or PNG_ORIENTATION & image.info.keys()
        return (width, height) if may_rotate and _orientation(image) in SWAPPING else (height, width)


def read_label_tiff(path: str | Path) -> NDArray[np.int64]:
    """Read a label map from a TIFF of integers in one channel, rotated as its orientation says.

    Args:
        path: TIFF file.

    Returns:
        (H, W) int64 labels.

    Raises:
        DatasetError: the file is missing, damaged or something else; white is 0, since Pillow inverts some of these; or
            it has several pages. Smaller copies of the first page, and masks, do not count.
    """
    path = Path(path)
    check_guarded_link(path)
    with (
        _convert_errors(path, "the TIFF does not decode"),
        path.open("rb") as file,  # see `open_image`
        open_pillow(file, path, ["TIFF"]) as image,
    ):
        _check_pages(image, path)
        is_inverted = _tag(image, PHOTOMETRIC, None) == WHITE_IS_ZERO
        if image.mode not in WHOLE_MODES or is_inverted:
            got = f"the mode {image.mode}{', white being 0' if is_inverted else ''}"
            problem = f"expected integers in one channel, got {got}"
            raise DatasetError(problem, where=path, remedy="save it as 16-bit greyscale PNG")
        return np.asarray(image).astype(np.int64)


def is_tiff(path: str | Path) -> bool:
    """Whether the file starts as TIFFs do, readable or not.

    Args:
        path: any file.

    Returns:
        True for a TIFF.
    """
    path = Path(path)
    with path.open("rb") as file:
        return file.read(4) in TIFF_MAGIC


def stretch_to_uint8(
    values: NDArray[Any], percentiles: Sequence[float] = PERCENTILES, where: object = ""
) -> NDArray[np.uint8]:
    """Scale values linearly to 0..255 between two percentiles of the finite ones, rounded and clipped.

    NaN and infinite values become 0, with a warning in the log. If both percentiles are equal, values up to them become
    0 and values above 255, so that a constant image becomes 0.

    Args:
        values: integers or floats of one axis or more, all on one scale.
        percentiles: two numbers in 0..100; they become 0 and 255.
        where: named in the warning, the file for example.

    Returns:
        uint8, of the shape of `values`.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    stretched = np.zeros(values.shape, dtype=np.uint8)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if finite.size < values.size:
        log.warning("%s: %d values are NaN or infinite and become 0", where, values.size - finite.size)
    if not finite.size:
        return stretched
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.percentile(finite, percentiles).astype(np.float64)
    if not np.isfinite([low, high]).all():  # numpy interpolates in the type of the values, which may overflow
        low, high = np.percentile(finite, percentiles, method="nearest").astype(np.float64)
    if values.dtype == np.uint16 and values.size > LEVELS:
        table = _scale(np.arange(LEVELS), low, high)
        table.take(values, out=stretched, mode="clip")  # mode: the default makes a copy, and every value has a level
        return stretched
    step = max(1, BLOCK // values[0].size)
    for start in range(0, len(values), step):
        stretched[start : start + step] = _scale(values[start : start + step], low, high)
    return stretched


@contextmanager
def _convert_errors(path: Path, problem: str) -> Iterator[None]:
    """Turn exceptions of opening and decoding into a DatasetError; pipes and devices are not even opened."""
    with _convert_decoding_errors(path, problem):
        if not path.is_file() and path.exists():
            raise DatasetError(f"{problem}: this is a folder, a pipe or a device", where=path, remedy="give a file")
        yield


@contextmanager
def _convert_decoding_errors(path: Path, problem: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        problem = f"the image is missing{explain_missing(path)}"
        raise DatasetError(problem, where=path, remedy="complete the download") from None
    except Image.DecompressionBombError as error:
        raise DatasetError(f"{problem}: {error}", where=path, remedy="replace the file, or cut it into tiles") from None
    except UnidentifiedImageError:
        kind, remedy = "unknown file format", "replace the file"
        if is_tiff(path):
            kind, remedy = "a TIFF with channels, bits or a compression that are not read", PLAIN_KINDS
        raise DatasetError(f"{problem}: {kind}", where=path, remedy=remedy) from None
    except DAMAGED as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{problem}: {text}", where=path, remedy="replace the file") from None


def _to_plain(image: Image.Image, path: Path, has_deep_colors: bool) -> Image.Image:
    """A decoded image with 8 bits a channel, rotated as EXIF says."""
    transpose = TRANSPOSES.get(_orientation(image))  # None for a TIFF: load() rotates it
    if has_deep_colors:
        plain = _stretch_colors(image, path)
    elif image.mode in DEEP_MODES:
        plain = _stretch_grey(image, path)
    elif image.mode in EIGHT_BIT_MODES:
        plain = image
    else:
        problem = f"expected grey, RGB, palette or CMYK pixels, got the mode {image.mode}"
        raise DatasetError(problem, where=path, remedy=PLAIN_KINDS)
    return plain if transpose is None else plain.transpose(transpose)


def _check_pages(image: Image.Image, path: Path) -> None:
    for page, _ in enumerate(ImageSequence.Iterator(image)):
        if page and not _tag(image, SUBFILE, 0) & (REDUCED | MASK):
            problem = "expected one image, got a TIFF of several pages"
            remedy = "save the page (or the projection) that was annotated as a file of its own"
            remedy += "; if the pages are channels, set `channels` of the dataset"
            raise DatasetError(problem, where=path, remedy=remedy)
    image.seek(0)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; UPRIGHT if EXIF says nothing or is damaged, since the pixels may be whole."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, UPRIGHT))
    except DAMAGED:
        return UPRIGHT


def _stretch_grey(image: Image.Image, path: Path) -> Image.Image:
    values = np.asarray(image)
    if image.format == "TIFF" and image.mode == "I" and _tag(image, SAMPLES, (UNSIGNED,))[0] == UNSIGNED:
        values = values.view(np.uint32)  # Pillow's mode is signed
    plain = Image.fromarray(stretch_to_uint8(values, where=path))
    if image.format == "TIFF" and _tag(image, PHOTOMETRIC, None) == WHITE_IS_ZERO:
        return plain.point([WHITE - level for level in range(WHITE + 1)])
    return plain


def _stretch_colors(image: Image.Image, path: Path) -> Image.Image:
    """RGB as 8 bits, by OpenCV; its high bytes must equal the 8-bit RGB that Pillow decodes.

    Grey RGB becomes greyscale, whose percentiles are the same.
    """
    try:
        decoded = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    high = np.asarray(image.convert("RGB"))
    if decoded is not None and decoded.dtype == np.uint16 and decoded.ndim == high.ndim:
        colors: NDArray[np.uint16] = np.ascontiguousarray(decoded[..., 2::-1])
        if np.array_equal(colors >> BYTE_BITS, high):
            is_grey = (colors == colors[..., :1]).all()
            values = np.ascontiguousarray(colors[..., 0]) if is_grey else colors
            return Image.fromarray(stretch_to_uint8(values, where=path))
    raise DatasetError("the order of its 16-bit channels is not supported", where=path, remedy=PLAIN_KINDS)


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    return tags.get(number, default)


def _scale(values: NDArray[Any], low: np.float64, high: np.float64) -> NDArray[np.uint8]:
    wide = values.astype(np.float64)
    wide[~np.isfinite(wide)] = low
    above, span = wide / 2 - low / 2, high / 2 - low / 2  # halves: the difference does not overflow
    share = np.clip(above, 0, span) / span if span > 0 else above > 0
    return np.rint(WHITE * share).astype(np.uint8)
