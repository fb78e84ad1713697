"""RGB PNGs of segment ids, decoded to runs of equal ids and encoded: panoptic quality spends most of its time here.

Segments are flat, so nearly every inflated byte is 0: the pixel is as its filter predicts. The filters (PNG
specification, section 9) are undone from one change to the next, and pixels between changes are skipped. Without numba
Pillow decodes: 2.7 times slower.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures import IdRuns
from segkit.utils.compiled import compiled

try:
    from zlib_ng.zlib_ng import compressobj, decompressobj  # several times as fast as the standard library's
except ImportError:
    from zlib import compressobj, decompressobj  # type: ignore[assignment]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEVEL = 3  # of compression: files are as small as with Pillow's default, in a tenth of the time
BAND_PX = 2**20  # pixels that are filtered at once: large maps take no copy
CHUNK_HEAD, CHECKSUM_BYTES = 8, 4  # bytes before the data of a chunk (length, name) and after it
PLAIN_RGB = (8, 2, 0, 0, 0)  # bit depth, colour type RGB, deflate, filter method 0, not interlaced
NONE, SUB, UP, AVERAGE, PAETH = range(5)
LOW7, HIGH7, HIGH1 = 0x7F7F7F, 0xFEFEFE, 0x808080  # bits of each of an id's three bytes
WORD = 8  # bytes that are compared with 0 at once
PIECE_BYTES = 1 << 17  # inflated at a time
MAX_RATIO = 1100  # deflate does not pack tighter: a header that claims more pixels is wrong
MAX_BYTES = 2**31 - 2  # positions are int32

ByteArray = NDArray[np.uint8]
IntArray = NDArray[np.int32]


def decode(content: bytes) -> IdRuns | None:
    """Decode a PNG of segment ids, R + 256 G + 65536 B.

    Args:
        content: the whole file.

    Returns:
        The runs of equal ids; None if it is not plain RGB of 8 bits, or damaged: then use a general decoder, which says
        what is wrong.
    """
    try:
        packed = b"".join(content[start:end] for name, start, end in iterate_chunks(content) if name == b"IDAT")
    except ValueError:
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", content, 16)
    size = height * (1 + 3 * width)
    if tuple(kind) != PLAIN_RGB or not 0 < size <= min(MAX_RATIO * len(packed), MAX_BYTES):
        return None
    positions, values = np.empty(size + 1, dtype=np.int32), np.empty(size + 1, dtype=np.uint8)
    if _inflate(packed, size, positions, values) < 0:
        return None
    starts, ids = np.empty((2, height * width), dtype=np.int32)
    number = _undo_filters(positions, values, size, width, starts, ids)
    return IdRuns((height, width), starts[:number].copy(), ids[:number].copy()) if number >= 0 else None


def encode(segment_ids: NDArray[np.int32]) -> bytes:
    """Encode segment ids as 8-bit RGB with the filter Up, whose bytes are mostly 0.

    Args:
        segment_ids: (H, W) int32 in [0, 2^24), not empty.

    Returns:
        The file.
    """
    height, width = segment_ids.shape
    packer, packed, above = compressobj(LEVEL), [], np.zeros(3 * width, dtype=np.uint8)
    step = max(BAND_PX // width, 1)
    for top in range(0, height, step):
        band = np.ascontiguousarray(segment_ids[top : top + step], dtype="<i4")
        id_bytes = band.view(np.uint8).reshape(-1, width, 4)
        rgb = cv2.cvtColor(id_bytes, cv2.COLOR_RGBA2RGB).reshape(-1, 3 * width)
        rows = np.empty((len(rgb), 1 + 3 * width), dtype=np.uint8)
        rows[:, 0] = UP
        np.subtract(rgb[0], above, out=rows[0, 1:])
        np.subtract(rgb[1:], rgb[:-1], out=rows[1:, 1:])
        packed.append(packer.compress(rows))
        above = rgb[-1]
    packed.append(packer.flush())
    kind = struct.pack(">IIBBBBB", width, height, *PLAIN_RGB)
    return SIGNATURE + _chunk(b"IHDR", kind) + _chunk(b"IDAT", b"".join(packed)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))


def iterate_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Find the chunks of a PNG.

    Args:
        content: the whole file.

    Yields:
        Name of each chunk up to IEND, and where its data begins and ends. The 4 bytes of the checksum follow.

    Raises:
        ValueError: the file ends before IEND.
    """
    name, end = b"", len(SIGNATURE) - CHECKSUM_BYTES
    while name != b"IEND":
        head = end + CHECKSUM_BYTES
        start = head + CHUNK_HEAD
        length = int.from_bytes(content[head : head + 4], "big")
        name, end = content[head + 4 : start], start + length
        if end + CHECKSUM_BYTES > len(content):
            raise ValueError("it is cut off")
        yield name, start, end


def _inflate(packed: bytes, size: int, positions: IntArray, values: ByteArray) -> int:
    """Inflate `size` bytes, and write position and value of those that are not 0, then an end mark at `size`.

    The data is never held whole, so that its pieces stay in the processor's cache. Returns how many bytes are not 0; -1
    if the data is damaged or of another size.
    """
    inflater = decompressobj()
    done = count = 0
    try:
        while not inflater.eof:
            piece = inflater.decompress(packed, PIECE_BYTES)
            packed = inflater.unconsumed_tail
            if (not piece and not packed and not inflater.eof) or done + len(piece) > size:
                return -1
            data = np.frombuffer(piece, dtype=np.uint8)
            words = data[: len(piece) // WORD * WORD].view(np.uint64)
            count = _append_nonzero(data, words, done, positions, values, count)
            done += len(piece)
    except Exception:  # zlib.error, or that of zlib_ng: classes without a common base
        return -1
    positions[count], values[count] = size, 0
    return count if done == size else -1


@compiled
def _append_nonzero(
    data: ByteArray, words: NDArray[np.uint64], first: int, positions: IntArray, values: ByteArray, count: int
) -> int:
    """Append position and value of the bytes that are not 0 to the first `count` ones; `first`: position of data[0]."""
    for index in range(words.size):
        if words[index]:
            for position in range(WORD * index, WORD * index + WORD):
                positions[count], values[count] = first + position, data[position]
                count += data[position] != 0  # always written, counted if not 0: a branch would be mispredicted
    for position in range(WORD * words.size, data.size):
        positions[count], values[count] = first + position, data[position]
        count += data[position] != 0
    return count


@compiled
def _undo_filters(
    positions: IntArray, values: ByteArray, size: int, width: int, starts: IntArray, ids: IntArray
) -> int:
    """Write the runs of ids of `size` filtered bytes; those at `positions` are not 0. Every row begins a run.

    While the bytes are 0 and the id in the row above stays the same, each pixel follows from its left neighbour by one
    rule. Once this rule gives the neighbour's id again, it does so to the end of the stretch. Returns the number of
    runs, or -1 for an unknown filter.
    """
    stride = 1 + 3 * width
    number = next_nonzero = 0
    row_above = end_above = 0  # first and last run of the row above
    for y in range(size // stride):
        line, first = y * stride + 1, y * width
        kind = NONE
        if positions[next_nonzero] == line - 1:
            kind = int(values[next_nonzero])
            next_nonzero += 1
        if kind > PAETH:
            return -1
        row = number
        run, next_above = row_above - 1, 0 if y else width  # before the first run of the row above
        above = left = upper_left = np.int32(0)
        changed = min((positions[next_nonzero] - line) // 3, width)  # the next pixel with a byte that is not 0
        x = 0
        while x < width:
            if x == next_above:
                run += 1
                above = ids[run]
                next_above = starts[run + 1] - first + width if run + 1 < end_above else width
            value = _predict(kind, left, above, upper_left)
            if x == changed:
                difference = np.int32(0)
                while positions[next_nonzero] < line + 3 * x + 3:
                    difference |= np.int32(values[next_nonzero]) << 8 * (positions[next_nonzero] - line - 3 * x)
                    next_nonzero += 1
                value = np.int32(
                    ((difference & LOW7) + (value & LOW7)) ^ ((difference ^ value) & HIGH1)
                )  # sum of bytes
                changed = min((positions[next_nonzero] - line) // 3, width)
            if x == 0 or value != left:
                starts[number], ids[number] = first + x, value
                number += 1
            left, upper_left = value, above
            x += 1
            if x < next_above and x < changed and _predict(kind, value, above, above) == value:
                x = min(next_above, changed)
        row_above, end_above = row, number
    return number


@compiled
def _predict(kind: int, left: Any, above: Any, upper_left: Any) -> Any:
    """The id that the filter predicts, byte by byte."""
    if kind == UP:
        return above
    if kind == SUB:
        return left
    if kind == NONE:
        return np.int32(0)
    if kind == AVERAGE:
        return np.int32((left & above) + (((left ^ above) & HIGH7) >> 1))
    if left == upper_left:
        return above
    if above == upper_left:
        return left
    value = np.int32(0)
    for shift in (0, 8, 16):
        value |= _paeth((left >> shift) & 255, (above >> shift) & 255, (upper_left >> shift) & 255) << shift
    return np.int32(value)


@compiled
def _paeth(left: Any, above: Any, upper_left: Any) -> Any:
    estimate = left + above - upper_left
    to_left, to_above, to_upper_left = abs(estimate - left), abs(estimate - above), abs(estimate - upper_left)
    if to_left <= to_above and to_left <= to_upper_left:
        return left
    return above if to_above <= to_upper_left else upper_left
