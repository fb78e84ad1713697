"""Label Studio's brush RLE: the stream of bits of @thi.ng/rle-pack over the RGBA pixels of a mask.

The stream has 32 bits with the number of elements, 5 bits with the bits of an element minus 1, four times 4 bits with
the bits of a length minus 1, and then blocks. A block has 1 bit (1: the element that follows is repeated; 0: so many
elements follow), 2 bits that choose the bits of the length, the length minus 1, and elements. Zeros fill the last byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHANNELS = 4  # RGBA: each pixel is four equal elements
ELEMENT_BITS, MARKED = 8, 255
LENGTH_BITS = np.array([3, 4, 8, 16])  # label-studio-converter's
MAX_LENGTH = 2**16
HEADER = (*(format(bits - 1, "04b") for bits in LENGTH_BITS.tolist()),)


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask; only blocks of repeated elements are used.

    Args:
        mask: (H, W) bool.

    Returns:
        The bytes of the stream, as the key `rle` of a result has them.
    """
    pixels = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])[: pixels.size]
    lengths = np.diff(starts, append=pixels.size) * CHANNELS
    values = np.where(pixels[starts], MARKED, 0)
    blocks = -(-lengths // MAX_LENGTH)  # long runs are cut: all blocks of a run are full but the last
    values, last = np.repeat(values, blocks), np.cumsum(blocks) - 1
    block_lengths = np.full(len(values), MAX_LENGTH)
    block_lengths[last] = lengths - (blocks - 1) * MAX_LENGTH
    choices = np.searchsorted(2**LENGTH_BITS, block_lengths)
    bits = LENGTH_BITS[choices]
    codes = ((((0b100 | choices) << bits) | (block_lengths - 1)) << ELEMENT_BITS) | values
    header = f"{pixels.size * CHANNELS:032b}{ELEMENT_BITS - 1:05b}{''.join(HEADER)}"
    stream = np.concatenate([np.array([*header], dtype=np.uint8), _to_bits(codes, 3 + bits + ELEMENT_BITS)])
    packed: list[int] = np.packbits(stream).tolist()
    return packed


def _to_bits(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The last `widths` bits of each code, from the highest, one after the other."""
    ends = np.cumsum(widths)
    shifts = np.repeat(ends, widths) - 1 - np.arange(widths.sum())
    return (np.repeat(codes, widths) >> shifts & 1).astype(np.uint8)
