"""PNG files: headers, segment ids and label maps, with errors that name the file."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.formats import png_runs
from segkit.formats.pixel_limit import check_pixels, open_pillow
from segkit.structures import MAX_SEGMENT_ID, IdRuns, rgb_to_ids
from segkit.utils.compiled import COMPILED
from segkit.utils.errors import DatasetError
from segkit.utils.files import read_bytes, replacing

HEADER_BYTES = 26  # signature, length and name of IHDR, width, height, bit depth, colour type (PNG, section 11.2.2)
HEADER_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
KINDS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGBA"}
CHANNEL = 256  # values of a channel: an id is R + CHANNEL * G + CHANNEL**2 * B
LABEL_KINDS, LABEL_BITS = {"greyscale", "palette"}, (1, 2, 4, 8, 16)
GREY_STEP = {2: 85, 4: 17}  # by bit depth: what Pillow multiplies grey values by, to fill 0..255
DAMAGED_REMEDY = "write or fetch it again"
PHOTO_OPTIONS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
WRITABLE = {((), "uint8"), ((), "uint16"), ((3,), "uint8")}  # channels, dtype

Labels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Header:
    """Header of a PNG.

    Attributes:
        size_hw: (height, width) in pixels.
        bit_depth: bits of a channel or of a palette index.
        kind: value of `KINDS`.
    """

    size_hw: tuple[int, int]
    bit_depth: int
    kind: str


def read_header(path: str | Path) -> Header:
    """Read the header without decoding the pixels.

    Args:
        path: PNG file.

    Returns:
        The header.

    Raises:
        DatasetError: the file is missing or no PNG.
    """
    path = Path(path)
    return _parse_header(read_bytes(path, HEADER_BYTES), path)


def read_id_runs(path: str | Path, size_hw: tuple[int, int] | None = None) -> IdRuns:
    """Read segment ids, R + 256 G + 65536 B, from an 8-bit colour PNG. A palette is looked up, alpha is dropped.

    Args:
        path: PNG file.
        size_hw: expected (height, width) in pixels; None accepts any.

    Returns:
        The runs of equal ids.

    Raises:
        DatasetError: the file is missing, damaged, cut off, no PNG, greyscale, of 16 bits or of another size.
    """
    path = Path(path)
    content = read_bytes(path)
    header = _parse_header(content, path)
    _check_size(header, size_hw, path)
    check_pixels(header.size_hw, path)
    runs = png_runs.decode(content) if COMPILED else None
    if runs is None:
        image = _decode(content, size_hw, {"RGB", "RGBA", "palette"}, (1, 2, 4, 8), path)
        return IdRuns.from_map(rgb_to_ids(np.asarray(image.convert("RGB"))))
    _check_checksums(content, path)
    return runs


def read_grey16(path: str | Path, size_hw: tuple[int, int] | None = None) -> NDArray[np.int32]:
    """Read a 16-bit greyscale PNG.

    Args:
        path: PNG file.
        size_hw: expected (height, width) in pixels; None accepts any.

    Returns:
        (H, W) int32 in 0..65535.

    Raises:
        DatasetError: as `read_id_runs`.
    """
    path = Path(path)
    return np.asarray(open_image(path, size_hw, {"greyscale"}, (16,))).astype(np.int32)


def open_image(
    path: str | Path, size_hw: tuple[int, int] | None, kinds: set[str], bit_depths: tuple[int, ...]
) -> Image.Image:
    """Decode a PNG, checksums included.

    Args:
        path: PNG file.
        size_hw: expected (height, width) in pixels; None accepts any.
        kinds: accepted values of `KINDS`.
        bit_depths: accepted bits of a channel or palette index.

    Returns:
        The decoded image.

    Raises:
        DatasetError: as `read_id_runs`.
    """
    path = Path(path)
    return _decode(read_bytes(path), size_hw, kinds, bit_depths, path)


def read_labels(path: str | Path, size_hw: tuple[int, int] | None = None) -> Labels:
    """Read a label map: the values of a greyscale PNG, or the indices of a palette PNG.

    Args:
        path: PNG of one channel, of any bit depth.
        size_hw: Expected height and width in pixels; None accepts any size.

    Returns:
        (H, W) uint8 labels, or uint16 labels of a 16-bit file.

    Raises:
        DatasetError: The file is missing, truncated, not a PNG, of another size, or has colours or transparency in
            place of labels.
    """
    path = Path(path)
    header = read_header(path)
    if header.kind not in LABEL_KINDS:
        expected, got = "a greyscale or palette PNG whose values are labels", f"{header.bit_depth}-bit {header.kind}"
        remedy = "turn colours into labels; panoptic PNGs are read together with their JSON"
        raise DatasetError(f"expected {expected}, got {got}", where=path, remedy=remedy)
    labels = np.array(open_image(path, size_hw, LABEL_KINDS, LABEL_BITS))
    if labels.dtype.itemsize > 1:
        return labels.astype(np.uint16)
    grey_step = GREY_STEP.get(header.bit_depth, 1) if header.kind == "greyscale" else 1
    return labels.astype(np.uint8) // np.uint8(grey_step) if grey_step > 1 else labels.astype(np.uint8, copy=False)


def write_ids(path: str | Path, segment_ids: NDArray[np.integer[Any]]) -> None:
    """Write segment ids as 8-bit RGB, R + 256 G + 65536 B, whole or not at all.

    Args:
        path: PNG file to write.
        segment_ids: (H, W) integers in [0, MAX_SEGMENT_ID], at least one.

    Raises:
        ValueError: an id is outside the range, or there is no pixel.
    """
    path = Path(path)
    if segment_ids.ndim != 2 or not segment_ids.size:
        raise ValueError(f"segment_ids must be (H, W), not empty, got {segment_ids.shape}")
    if segment_ids.min() < 0 or segment_ids.max() > MAX_SEGMENT_ID:
        got = f"{segment_ids.min()}..{segment_ids.max()}"
        raise ValueError(f"segment ids must be in [0, {MAX_SEGMENT_ID}], got {got}")
    with replacing(path) as neighbour:
        neighbour.write_bytes(png_runs.encode(segment_ids.astype(np.int32, copy=False)))


def write_photo(path: str | Path, pixels: NDArray[np.uint8]) -> None:
    """Write a photograph as a PNG, whole or not at all: three times as fast as `write`, files as large within a tenth.

    Args:
        path: PNG file to write.
        pixels: (H, W, 3) uint8 RGB, at least one pixel.

    Raises:
        ValueError: another shape or dtype, or no pixel.
    """
    if pixels.ndim < 2 or not pixels.size or (pixels.shape[2:], str(pixels.dtype)) != ((3,), "uint8"):
        raise ValueError(f"pixels must be (H, W, 3) uint8, not empty, got {pixels.shape} {pixels.dtype}")
    bgr = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".png", bgr, PHOTO_OPTIONS)
    with replacing(Path(path)) as neighbour:
        neighbour.write_bytes(content.data)


def write(path: str | Path, pixels: NDArray[Any]) -> None:
    """Write pixels as a PNG, whole or not at all.

    Args:
        path: PNG file to write.
        pixels: (H, W) uint8, (H, W) uint16 or (H, W, 3) uint8 RGB, at least one pixel.

    Raises:
        ValueError: another shape or dtype, or no pixel.
    """
    path = Path(path)
    kind = (pixels.shape[2:], str(pixels.dtype))
    if pixels.ndim < 2 or not pixels.size or kind not in WRITABLE:
        expected = "(H, W) uint8 or uint16 or (H, W, 3) uint8, not empty"
        raise ValueError(f"pixels must be {expected}, got {pixels.shape} {pixels.dtype}")
    with replacing(path) as neighbour:
        Image.fromarray(np.ascontiguousarray(pixels)).save(neighbour, "PNG")


def write_labels(path: str | Path, labels: NDArray[np.integer[Any]]) -> None:
    """Write a label map as greyscale PNG of 8 bits, or of 16 if a label needs them, whole or not at all.

    Args:
        path: PNG file to write.
        labels: (H, W) integers in 0..65535, at least one.

    Raises:
        ValueError: a label is outside the range, or there is no pixel.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"labels must be in 0..{np.iinfo(np.uint16).max}, got {low}..{high}")
    write(Path(path), labels.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16))


def _decode(
    content: bytes, size_hw: tuple[int, int] | None, kinds: set[str], bit_depths: tuple[int, ...], path: Path
) -> Image.Image:
    header = _parse_header(content, path)
    if header.kind not in kinds or header.bit_depth not in bit_depths:
        expected = f"{bit_depths[-1]}-bit {' or '.join(sorted(kinds))}"
        raise DatasetError(f"expected a PNG of {expected}, got {header.bit_depth}-bit {header.kind}", where=path)
    _check_size(header, size_hw, path)
    _check_checksums(content, path)
    try:
        image = open_pillow(BytesIO(content), path, ["PNG"])
        image.load()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise DatasetError(f"the PNG cannot be decoded: {error}", where=path, remedy=DAMAGED_REMEDY) from None
    return image


def _check_size(header: Header, size_hw: tuple[int, int] | None, path: Path) -> None:
    if size_hw is not None and header.size_hw != tuple(size_hw):
        expected, got = f"{size_hw[0]} x {size_hw[1]}", f"{header.size_hw[0]} x {header.size_hw[1]}"
        raise DatasetError(f"expected {expected} pixels (height x width), got {got}", where=path)


def _check_checksums(content: bytes, path: Path) -> None:
    """DatasetError if a chunk is cut off or its checksum is wrong: Pillow decodes damaged pixels silently."""
    view = memoryview(content)
    try:
        for name, start, end in png_runs.iterate_chunks(content):
            checksum = zlib.crc32(view[start - len(name) : end])
            if content[end : end + png_runs.CHECKSUM_BYTES] != struct.pack(">I", checksum):
                raise ValueError(f"the checksum of its {name.decode('ascii', 'replace')} is wrong")
    except ValueError as error:
        problem = f"the PNG cannot be decoded: {error}"
        raise DatasetError(problem, where=path, remedy=DAMAGED_REMEDY) from None


def _parse_header(content: bytes, path: Path) -> Header:
    if len(content) < HEADER_BYTES or not content.startswith(HEADER_START):
        raise DatasetError("expected a PNG, the file does not begin as one", where=path)
    width, height, bit_depth, color_type = struct.unpack(">IIBB", content[len(HEADER_START) : HEADER_BYTES])
    return Header((height, width), bit_depth, KINDS.get(color_type, f"colour type {color_type}"))
