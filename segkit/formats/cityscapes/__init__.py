"""Cityscapes: its labels, its tree of images and annotations, and its instance results."""

from segkit.formats.cityscapes.label_pngs import (
    CATEGORIES,
    INSTANCE_IDS_SUFFIX,
    encode_instance_ids,
    read_segmentation,
)
from segkit.formats.cityscapes.reader import CityscapesReader, list_images
from segkit.formats.cityscapes.results import (
    ResultFiles,
    ResultLine,
    read_result_lines,
    read_result_mask,
    write_results,
)
from segkit.formats.cityscapes.submission_writer import CityscapesSubmissionWriter
from segkit.formats.cityscapes.writer import CityscapesWriter

__all__ = [
    "CATEGORIES",
    "INSTANCE_IDS_SUFFIX",
    "CityscapesReader",
    "CityscapesSubmissionWriter",
    "CityscapesWriter",
    "ResultFiles",
    "ResultLine",
    "encode_instance_ids",
    "list_images",
    "read_result_lines",
    "read_result_mask",
    "read_segmentation",
    "write_results",
]
