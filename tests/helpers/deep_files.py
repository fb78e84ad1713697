"""Writers of TIFFs and 16-bit PNGs that Pillow itself cannot write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = {"u": 1, "i": 2, "f": 3}  # TIFF's SampleFormat by numpy's kind
SHORT, LONG = 3, 4
GREY_ALPHA, RGB, RGBA = 4, 2, 6  # colour types of PNG
# 0, 10 ... 2000 in 3 rows: of 201 values the 0.5th percentile is the second, 10, and the 99.5th the last but one, 1990.
RAMP = np.arange(0, 2010, 10).reshape(3, 67)
STRETCHED_RAMP = np.array([round(255 * min(max(value - 10, 0), 1980) / 1980) for value in range(0, 2010, 10)]).reshape(
    3, 67
)


def write_tiff(
    path: Path, *pages: NDArray[Any], big_endian: bool = False, planar: bool = False, **tags: int | list[int]
) -> Path:
    """Writes uncompressed pages of one strip (or plane) each; tags: t<number>=value, or a list of a value per page."""
    order = ">" if big_endian else "<"
    content = bytearray((b"MM\0*" if big_endian else b"II*\0") + bytes(4))
    link = 4
    for index, pixels in enumerate(pages):
        page = pixels[..., None] if pixels.ndim == 2 else pixels
        height, width, channels = page.shape
        data = page.astype(page.dtype.newbyteorder(order))
        strips = [data[..., c].tobytes() for c in range(channels)] if planar else [data.tobytes()]
        offsets = []
        for strip in strips:
            offsets.append(len(content))
            content += strip + bytes(len(strip) % 2)
        entries: dict[int, tuple[int, list[int]]] = {
            256: (LONG, [width]),
            257: (LONG, [height]),
            258: (SHORT, [page.dtype.itemsize * 8] * channels),
            259: (SHORT, [1]),
            262: (SHORT, [2 if channels >= 3 else 1]),
            273: (LONG, offsets),
            277: (SHORT, [channels]),
            278: (LONG, [height]),
            279: (LONG, [len(strip) for strip in strips]),
            284: (SHORT, [2 if planar else 1]),
            339: (SHORT, [KINDS[page.dtype.kind]] * channels),
        }
        if channels > 3:
            entries[338] = (SHORT, [0] * (channels - 3))
        for name, value in tags.items():
            entries[int(name[1:])] = (SHORT, [value[index] if isinstance(value, list) else value])
        table = b""
        for number, (kind, values) in sorted(entries.items()):
            body = struct.pack(order + ("H" if kind == SHORT else "I") * len(values), *values)
            if len(body) > 4:
                content += bytes(len(content) % 2)
                offset = struct.pack(order + "I", len(content))
                content += body
                body = offset
            table += struct.pack(order + "HHI", number, kind, len(values)) + body.ljust(4, b"\0")
        content += bytes(len(content) % 2)
        struct.pack_into(order + "I", content, link, len(content))
        content += struct.pack(order + "H", len(entries)) + table
        link = len(content)
        content += bytes(4)
    path.write_bytes(content)
    return path


def write_png16(path: Path, pixels: NDArray[np.uint16], color: int) -> Path:
    """(H, W, channels of the colour type) as a 16-bit PNG."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    return path


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
