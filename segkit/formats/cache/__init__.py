"""Parsed COCO annotations, kept on disk between starts."""

from segkit.formats.cache.annotations import AnnotatedImages, read_instances, read_panoptic

__all__ = ["AnnotatedImages", "read_instances", "read_panoptic"]
