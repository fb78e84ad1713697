from __future__ import annotations

import numpy as np
import pytest

from segkit.formats import voc


def test_color_map_equals_the_development_kit() -> None:
    # VOClabelcolormap.m's table, as the development kit prints it.
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    expected |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    colors = voc.compute_color_map()
    assert {label: tuple(colors[label].tolist()) for label in expected} == expected
    assert colors.dtype == np.uint8
    assert len({tuple(color) for color in colors.tolist()}) == 256


def test_classes_equal_detectron2() -> None:
    pascal_voc = pytest.importorskip("detectron2.data.datasets.pascal_voc", reason="Detectron2 is not installed")
    assert voc.CLASS_NAMES == pascal_voc.CLASS_NAMES
