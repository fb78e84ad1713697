"""RGB PNGs of segment ids, decoded to runs of equal ids and encoded: most of the time of panoptic quality goes here.

A map of segments is flat, so that after inflating nearly every byte is 0, "as the filter predicts": the filters (PNG
specification, section 9) are undone from one change to the next, and no pixel between them is looked at.
"""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from segkit.structures import IdRuns
from segkit.utils.compiled import COMPILED, compiled

try:
    from zlib_ng.zlib_ng import compress, decompressobj  # several times as fast as the standard library's
except ImportError:
    from zlib import compress, decompressobj  # type: ignore[assignment]

AVAILABLE = COMPILED
SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEVEL = 3  # of compression: as small as Pillow's default here, in a tenth of the time
CHUNK_HEAD, CHUNK_TAIL = 8, 4  # length and name before the data of a chunk, its checksum after
PLAIN_RGB = (8, 2, 0, 0, 0)  # bit depth, colour type RGB, deflate, the one filter method, not interlaced
FIRST_CHUNK = 8  # IHDR, behind the signature
NONE, SUB, UP, AVERAGE, PAETH = range(5)
LOW7, HIGH7, HIGH1 = 0x7F7F7F, 0xFEFEFE, 0x808080  # bits of each of an id's three bytes
WORD = 8  # bytes looked at together
PIECE_BYTES = 1 << 17  # inflated at a time
MAX_RATIO = 1100  # deflate does not pack tighter: a header that claims more pixels lies
MAX_BYTES = 2**31 - 2  # places are int32


def decode(content: bytes) -> IdRuns | None:
    """The runs of ids R + 256 G + 65536 B of a whole PNG file; None where it is not plain RGB of 8 bits, or not sound:
    the general decoder then tells what is wrong."""
    packed = _image_data(content)
    if packed is None:
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", content, 16)
    size = height * (1 + 3 * width)
    if tuple(kind) != PLAIN_RGB or not 0 < size <= min(MAX_RATIO * len(packed), MAX_BYTES):
        return None
    places, values = np.empty(size + 1, dtype=np.int32), np.empty(size + 1, dtype=np.uint8)
    found = _inflate(packed, size, places, values)
    if found < 0:
        return None
    starts, ids = np.empty((2, height * width), dtype=np.int32)
    number = _runs(places, values, size, width, starts, ids)
    return IdRuns((height, width), starts[:number].copy(), ids[:number].copy()) if number >= 0 else None


def encode(segment_ids: NDArray[np.int32]) -> bytes:
    """A PNG of (H, W) int32 ids in [0, 2^24), not empty: 8-bit RGB with the filter Up, whose bytes are mostly 0."""
    height, width = segment_ids.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 0] = UP
    if AVAILABLE:
        _difference_to_above(np.ascontiguousarray(segment_ids), rows)
    else:
        planes = np.ascontiguousarray(segment_ids, dtype="<i4").view(np.uint8).reshape(height, width, 4)
        for channel in range(3):
            rows[0, 1 + channel :: 3] = planes[0, :, channel]
            np.subtract(planes[1:, :, channel], planes[:-1, :, channel], out=rows[1:, 1 + channel :: 3])
    kind = struct.pack(">IIBBBBB", width, height, *PLAIN_RGB)
    return SIGNATURE + _chunk(b"IHDR", kind) + _chunk(b"IDAT", compress(rows, LEVEL)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))


@compiled
def _difference_to_above(ids: NDArray[np.int32], rows: NDArray[np.uint8]) -> None:
    """Add to the rows of 0, behind their first byte, what differs from the row above."""
    height, width = ids.shape
    for y in range(height):
        for x in range(width):
            here, above = ids[y, x], ids[y - 1, x] if y else np.int32(0)
            if here != above:
                rows[y, 1 + 3 * x] = (here & 255) - (above & 255)
                rows[y, 2 + 3 * x] = (here >> 8 & 255) - (above >> 8 & 255)
                rows[y, 3 + 3 * x] = (here >> 16) - (above >> 16)


def _image_data(content: bytes) -> bytes | None:
    """The joined IDAT chunks; None where another chunk's checksum is wrong, or the chunks do not end with IEND."""
    parts, place = [], FIRST_CHUNK
    while place + CHUNK_HEAD <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        name = content[place + 4 : place + CHUNK_HEAD]
        end = place + CHUNK_HEAD + length
        if end + CHUNK_TAIL > len(content):
            return None
        if name == b"IDAT":
            parts.append(content[place + CHUNK_HEAD : end])
        elif crc32(content[place + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            return None
        elif name == b"IEND":
            return parts[0] if len(parts) == 1 else b"".join(parts)
        place = end + CHUNK_TAIL
    return None


def _inflate(packed: bytes, size: int, places: NDArray[np.int32], values: NDArray[np.uint8]) -> int:
    """Note the bytes that are not 0 of the inflated data, `size` bytes, and an end behind them; how many, or -1 where
    the data is not sound or not of this size. The data itself is never held whole: its pieces stay in the cache."""
    inflater = decompressobj()
    done = found = 0
    try:
        while not inflater.eof:
            piece = inflater.decompress(packed, PIECE_BYTES)
            packed = inflater.unconsumed_tail
            if (not piece and not packed and not inflater.eof) or done + len(piece) > size:
                return -1
            data = np.frombuffer(piece, dtype=np.uint8)
            words = data[: len(piece) // WORD * WORD].view(np.uint64)
            found = _note_changes(data, words, done, places, values, found)
            done += len(piece)
    except Exception:  # zlib.error or zlib_ng's: two classes of no common name
        return -1
    places[found], values[found] = size, 0
    return found if done == size else -1


@compiled
def _note_changes(
    data: NDArray[np.uint8],
    words: NDArray[np.uint64],
    first: int,
    places: NDArray[np.int32],
    values: NDArray[np.uint8],
    found: int,
) -> int:
    """Append the bytes that are not 0 to the `found` ones; `first`: the place of the first byte."""
    for index in range(words.size):
        if words[index]:
            for place in range(WORD * index, WORD * index + WORD):
                places[found], values[found] = first + place, data[place]
                found += data[place] != 0  # written to anyway and counted if so: a branch would be mispredicted
    for place in range(WORD * words.size, data.size):
        places[found], values[found] = first + place, data[place]
        found += data[place] != 0
    return found


@compiled
def _runs(
    places: NDArray[np.int32],
    values: NDArray[np.uint8],
    size: int,
    width: int,
    starts: NDArray[np.int32],
    ids: NDArray[np.int32],
) -> int:
    """Fill in the runs of `size` filtered bytes, of which those at `places` are not 0; how many, or -1 for a filter
    that is none. Every row begins a run.

    While the bytes are 0 and the row above goes on with one id, each pixel follows from its left neighbour by one rule:
    once that gives the neighbour's id again, it does so to the end of the stretch.
    """
    stride = 1 + 3 * width
    number = found = 0
    row_above = end_above = 0  # the runs of the row above
    for y in range(size // stride):
        line, first = y * stride + 1, y * width
        kind = NONE
        if places[found] == line - 1:
            kind = np.int64(values[found])
            found += 1
        if kind > PAETH:
            return -1
        row = number
        run, above, next_above = row_above, np.int32(0), width
        if y:
            above = ids[run]
            next_above = starts[run + 1] - first + width if run + 1 < end_above else width
        left = upper_left = np.int32(0)
        other = min((places[found] - line) // 3, width)  # the next pixel with a byte that is not 0
        x = 0
        while x < width:
            if x == next_above:
                run += 1
                above = ids[run]
                next_above = starts[run + 1] - first + width if run + 1 < end_above else width
            value = _predicted(kind, left, above, upper_left)
            if x == other:
                difference = np.int32(0)
                while places[found] < line + 3 * x + 3:
                    difference |= np.int32(values[found]) << 8 * (places[found] - line - 3 * x)
                    found += 1
                value = _add(difference, value)
                other = min((places[found] - line) // 3, width)
            if x == 0 or value != left:
                starts[number], ids[number] = first + x, value
                number += 1
            left, upper_left = value, above
            x += 1
            if x < next_above and x < other and _predicted(kind, value, above, above) == value:
                x = min(next_above, other)
        row_above, end_above = row, number
    return number


@compiled
def _predicted(kind: int, left: Any, above: Any, upper_left: Any) -> Any:
    """The filter's prediction of a pixel's id, byte by byte."""
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


@compiled
def _add(first: Any, second: Any) -> Any:
    """Byte by byte, each modulo 256."""
    return np.int32(((first & LOW7) + (second & LOW7)) ^ ((first ^ second) & HIGH1))
