from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from segkit.report.pixels import check_rgb, encode_data_uri


def decoded(uri: str) -> np.ndarray:
    content = np.frombuffer(base64.b64decode(uri.split(",", 1)[1]), dtype=np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]


def test_small_images_are_kept_exactly():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    uri = encode_data_uri(image)
    assert uri.startswith("data:image/png;base64,")
    assert (decoded(uri) == image).all()


def test_large_images_become_jpegs_with_red_still_red():
    image = np.zeros((257, 256, 3), dtype=np.uint8)
    image[..., 0] = 200
    uri = encode_data_uri(image)
    assert uri.startswith("data:image/jpeg;base64,")
    assert np.abs(decoded(uri).astype(int) - image).max() <= 3


def test_invalid_arguments_are_rejected():
    with pytest.raises(ValueError, match=r"image must not be empty, got \(0, 3, 3\)"):
        encode_data_uri(np.zeros((0, 3, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"truth must be \(H, W, 3\) uint8 RGB, got \(2, 2, 4\) uint8"):
        check_rgb(np.zeros((2, 2, 4), dtype=np.uint8), "ground_truth")
