"""Segmentation without training: an image -> a map of regions; one file per family of methods.

A method is a `ClassicalMethod` (method.py): a frozen dataclass of its options that is called with an image. It needs
its file and one line here. Methods share: components.py (label maps), brightness.py (grey values, bright objects).
color_classes.py gives the regions classes, by the colours of each class in training images.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from segkit.classical.clustering import KMeans, MeanShift, SlicMerging
from segkit.classical.color_classes import ColorClasses
from segkit.classical.edges import CannyContours
from segkit.classical.method import ClassicalMethod
from segkit.classical.regions import Felzenszwalb, FloodFill, Watershed
from segkit.classical.thresholding import AdaptiveThreshold, MultiOtsu, Otsu, Sauvola
from segkit.utils.errors import ConfigError
from segkit.utils.options import convert_options
from segkit.utils.text import suggest

CLASSICAL_METHODS: dict[str, type[ClassicalMethod]] = {
    "otsu": Otsu,
    "multi_otsu": MultiOtsu,
    "adaptive": AdaptiveThreshold,
    "sauvola": Sauvola,
    "canny": CannyContours,
    "watershed": Watershed,
    "felzenszwalb": Felzenszwalb,
    "flood_fill": FloodFill,
    "kmeans": KMeans,
    "slic": SlicMerging,
    "mean_shift": MeanShift,
}


def build_classical(name: str, **options: Any) -> ClassicalMethod:
    """Build a method.

    Args:
        name: Key of CLASSICAL_METHODS.
        **options: Options of the method, by name.

    Returns:
        The method.

    Raises:
        ConfigError: The method or an option is unknown, a value is invalid, or the method needs scikit-image, which is
            not installed.
    """
    if name not in CLASSICAL_METHODS:
        remedy = suggest(name, CLASSICAL_METHODS, f"choose one of {sorted(CLASSICAL_METHODS)}")
        raise ConfigError(f"unknown classical method {name!r}", remedy=remedy)
    method = CLASSICAL_METHODS[name]
    if method.needs_scikit_image and find_spec("skimage") is None:
        problem = f"the classical method {name!r} needs the extra 'classical' (scikit-image is not installed)"
        raise ConfigError(problem, remedy="pip install 'segkit[classical]'")
    return method(**convert_options(f"classical method {name!r}", method, options))


__all__ = ["CLASSICAL_METHODS", "ClassicalMethod", "ColorClasses", "build_classical"]
