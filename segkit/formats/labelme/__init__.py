"""labelme: one JSON of polygons and masks for each image."""

from segkit.formats.labelme.reader import LabelmeReader
from segkit.formats.labelme.writer import LabelmeWriter

__all__ = ["LabelmeReader", "LabelmeWriter"]
