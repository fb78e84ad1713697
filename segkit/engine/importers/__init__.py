"""Weights of other packages as segkit's, one file for each source; importing this package registers the sources."""

from segkit.engine.importers import (
    detectron2_projects,
    detectron2_zoo,
    eomt,
    mask2former,
    torchvision_deeplab,
    torchvision_mask_rcnn,
)
from segkit.engine.importers.base import WeightSource, get_sources
from segkit.engine.importers.importing import import_weights

__all__ = [
    "WeightSource",
    "detectron2_projects",
    "detectron2_zoo",
    "eomt",
    "get_sources",
    "import_weights",
    "mask2former",
    "torchvision_deeplab",
    "torchvision_mask_rcnn",
]
