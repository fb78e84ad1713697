"""Images in labelme's JSON files: `imageData`, the bytes of a PNG or JPEG in base64."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.formats.image_io import DEEP_MODES, stretch_to_uint8
from segkit.formats.labelme.shapes import decode_base64
from segkit.formats.pixel_limit import open_pillow
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.files import load_json
from segkit.utils.json_fields import Entry


def read_embedded_size(content: Entry, path: Path) -> tuple[int, int]:
    """(height, width) of the image in a JSON's content; DatasetError if there is none that can be opened."""
    with _open(content, path) as image:
        return image.height, image.width


def read_embedded_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of the image in a JSON. Pixels are not rotated: labelme stores them as it shows them.

    DatasetError if there is no image, or it does not decode.
    """
    content = load_json(path)
    with _open(content if isinstance(content, dict) else {}, path) as image:
        if image.mode in DEEP_MODES:
            return np.repeat(stretch_to_uint8(np.asarray(image), where=path)[..., None], 3, axis=-1)
        rgb: NDArray[np.uint8] = np.array(image.convert("RGB"))
        return rgb


@contextmanager
def _open(content: Entry, path: Path) -> Iterator[Image.Image]:
    remedy = "save the image beside the JSON, under its imagePath"
    try:
        data = decode_base64(json_fields.get_field(content, "imageData", json_fields.TEXT, path))
        with open_pillow(BytesIO(data), path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        problem = f"`imageData` is no image in base64: {' '.join(str(error).split())}"
        raise DatasetError(problem, where=path, remedy=remedy) from None
