"""Parsed COCO annotations, kept on disk between starts."""

from segkit.formats.cache.annotations import AnnotatedImages, ImageRow, get_folder, read_instances, read_panoptic

__all__ = ["AnnotatedImages", "ImageRow", "get_folder", "read_instances", "read_panoptic"]
