"""Label Studio's tasks with predictions: brush masks or polygons."""

from segkit.formats.label_studio.brush import encode_brush
from segkit.formats.label_studio.writer import LabelStudioWriter

__all__ = ["LabelStudioWriter", "encode_brush"]
