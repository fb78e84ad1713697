"""RGB PNGs of segment ids, decoded straight to ids: most of the time of panoptic quality is spent here.

A map of segments is flat, so that after inflating nearly every byte is 0, "as the filter predicts": the undoing of the
filters (PNG specification, section 9) jumps from one other pixel to the next and copies what lies between.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.structures.compiled import COMPILED, compiled

try:
    from zlib_ng.zlib_ng import decompress  # several times as fast as the standard library's
except ImportError:
    from zlib import decompress

AVAILABLE = COMPILED
CHUNK_HEAD, CHUNK_TAIL = 8, 4  # length and name before the data of a chunk, its checksum after
PLAIN_RGB = (8, 2, 0, 0, 0)  # bit depth, colour type RGB, deflate, the one filter method, not interlaced
FIRST_CHUNK = 33  # behind the signature and IHDR
NONE, SUB, UP, AVERAGE, PAETH = range(5)
LOW7, HIGH1 = 0x7F7F7F, 0x808080  # of each of an id's three bytes
WORD = 8  # bytes looked at together
MAX_RATIO = 1100  # deflate does not pack tighter: a header that claims more pixels lies
MAX_BYTES = 2**31 - 2  # places are int32


def decode(content: bytes) -> NDArray[np.int32] | None:
    """(H, W) int32 ids R + 256 G + 65536 B of a whole PNG file; None where it is not plain RGB of 8 bits, or not sound:
    the general decoder then tells what is wrong."""
    width, height, *kind = struct.unpack_from(">IIBBBBB", content, 16)
    if tuple(kind) != PLAIN_RGB or not width or not height:
        return None
    stride = 1 + 3 * width
    size = height * stride
    packed = _image_data(content)
    if packed is None or size > min(MAX_RATIO * len(packed), MAX_BYTES):
        return None
    try:
        filtered = decompress(packed, bufsize=size)
    except Exception:  # zlib.error or zlib_ng's: two classes of no common name
        return None
    if len(filtered) != size:
        return None
    ids = np.empty((height, width), dtype=np.int32)
    data = np.frombuffer(filtered, dtype=np.uint8)
    whole = data[: size - size % WORD].view(np.uint64)
    return ids if _unfilter(data, _nonzero(data, whole), ids) else None


def _image_data(content: bytes) -> bytes | None:
    """The joined IDAT chunks; None where the chunks do not end with IEND."""
    parts, place = [], FIRST_CHUNK
    while place + CHUNK_HEAD <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        name = content[place + 4 : place + CHUNK_HEAD]
        end = place + CHUNK_HEAD + length
        if end + CHUNK_TAIL > len(content):
            return None
        if name == b"IDAT":
            parts.append(content[place + CHUNK_HEAD : end])
        elif name == b"IEND":
            return parts[0] if len(parts) == 1 else b"".join(parts)
        place = end + CHUNK_TAIL
    return None


@compiled
def _nonzero(data: NDArray[np.uint8], words: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Places of the bytes that are not 0, ascending, and the length of the data as a sentinel."""
    places = np.empty(data.size + 1, dtype=np.int32)  # only what is written to takes memory
    found = 0
    for index in range(words.size):
        if words[index]:
            for place in range(WORD * index, WORD * index + WORD):
                if data[place]:
                    places[found] = place
                    found += 1
    for place in range(WORD * words.size, data.size):
        if data[place]:
            places[found] = place
            found += 1
    places[found] = data.size
    return places[: found + 1]


@compiled
def _unfilter(data: NDArray[np.uint8], places: NDArray[np.int32], ids: NDArray[np.int32]) -> bool:
    """Fill `ids` (H, W) from the filtered bytes, `places` being those that are not 0; False for an unknown filter."""
    height, width = ids.shape
    stride = 1 + 3 * width
    above = np.zeros(width, dtype=np.int32)
    found = 0
    for y in range(height):
        start = y * stride
        kind = data[start]
        if places[found] == start:
            found += 1
        row = ids[y]
        if kind == UP:
            row[:] = above
            while places[found] < start + stride:
                x = (places[found] - start - 1) // 3
                found = _next_pixel(places, found, start + 4 + 3 * x)
                row[x] = _add(_difference(data, start + 1 + 3 * x), row[x])
        elif kind in (NONE, SUB):
            left = np.int32(0)
            x = 0
            while places[found] < start + stride:
                other = (places[found] - start - 1) // 3
                found = _next_pixel(places, found, start + 4 + 3 * other)
                row[x:other] = left if kind == SUB else 0
                left = _add(_difference(data, start + 1 + 3 * other), left if kind == SUB else np.int32(0))
                row[other] = left
                x = other + 1
            row[x:] = left if kind == SUB else 0
        elif kind == PAETH:
            found = _paeth_row(data, places, found, start, above, row)
        elif kind == AVERAGE:
            left = np.int32(0)
            for x in range(width):
                half = (left & above[x]) + (((left ^ above[x]) & 0xFEFEFE) >> 1)
                left = _add(_difference(data, start + 1 + 3 * x), half)
                row[x] = left
            found = _next_pixel(places, found, start + stride)
        else:
            return False
        above = row
    return True


@compiled
def _next_pixel(places: NDArray[np.int32], found: int, end: int) -> int:
    while places[found] < end:
        found += 1
    return found


@compiled
def _difference(data: NDArray[np.uint8], place: int) -> Any:
    return np.int32(np.int32(data[place]) | np.int32(data[place + 1]) << 8 | np.int32(data[place + 2]) << 16)


@compiled
def _add(first: Any, second: Any) -> Any:
    """Byte by byte, each modulo 256."""
    return np.int32(((first & LOW7) + (second & LOW7)) ^ ((first ^ second) & HIGH1))


@compiled
def _paeth_row(
    data: NDArray[np.uint8],
    places: NDArray[np.int32],
    found: int,
    start: int,
    above: NDArray[np.int32],
    row: NDArray[np.int32],
) -> int:
    """Where left and upper left agree, what is above is predicted, and goes on being so to the next other pixel."""
    width = row.size
    x = 0
    left = upper_left = np.int32(0)
    while x < width:
        other = min((places[found] - start - 1) // 3, width)
        if left == upper_left and x < other:
            row[x:other] = above[x:other]
            x = other
            left = upper_left = above[x - 1]
            continue
        if left == upper_left:
            value = above[x]
        elif above[x] == upper_left:
            value = left
        else:
            value = np.int32(0)
            for shift in (0, 8, 16):
                value |= _paeth((left >> shift) & 255, (above[x] >> shift) & 255, (upper_left >> shift) & 255) << shift
        if x == other:
            value = _add(_difference(data, start + 1 + 3 * x), value)
            found = _next_pixel(places, found, start + 4 + 3 * x)
        row[x] = value
        left, upper_left = value, above[x]
        x += 1
    return found


@compiled
def _paeth(left: np.int32, above: np.int32, upper_left: np.int32) -> Any:
    estimate = left + above - upper_left
    to_left, to_above, to_upper_left = abs(estimate - left), abs(estimate - above), abs(estimate - upper_left)
    if to_left <= to_above and to_left <= to_upper_left:
        return left
    return above if to_above <= to_upper_left else upper_left
