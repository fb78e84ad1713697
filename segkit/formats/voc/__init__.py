"""Pascal VOC: two palette PNGs for each image, of classes and of objects, and lists of image ids."""

from segkit.formats.voc.colors import compute_color_map
from segkit.formats.voc.cvat_writer import CvatMasksWriter
from segkit.formats.voc.reader import CLASS_NAMES, VOCReader
from segkit.formats.voc.writer import VOCWriter

__all__ = ["CLASS_NAMES", "CvatMasksWriter", "VOCReader", "VOCWriter", "compute_color_map"]
