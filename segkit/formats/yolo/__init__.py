"""Ultralytics' YOLO segmentation format: data.yaml, and a text file of polygons for each image."""

from segkit.formats.yolo.reader import YoloReader
from segkit.formats.yolo.writer import YoloWriter

__all__ = ["YoloReader", "YoloWriter"]
