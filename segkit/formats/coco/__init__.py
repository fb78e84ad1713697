"""COCO's formats: instances, panoptic, results lists, and predictions in these."""

from segkit.formats.coco.columns import ImageEntries, read_annotation_columns, read_result_columns
from segkit.formats.coco.instances import (
    InstancesFile,
    read_instances,
    read_results,
    write_instances,
)
from segkit.formats.coco.masks import MAX_COORDINATE, MAX_OUTLINE_PX, drop_slivers, find_mask_fault, is_too_long
from segkit.formats.coco.panoptic import (
    PanopticFile,
    PanopticPrediction,
    PanopticRecord,
    read_id_runs,
    read_panoptic,
    read_panoptic_predictions,
    read_segmentation,
)
from segkit.formats.coco.panoptic_writer import (
    PanopticWriter,
    build_panoptic_annotation,
    choose_png_name,
    choose_png_names,
    write_panoptic,
    write_png,
)
from segkit.formats.coco.prediction_readers import CocoResultsReader, PanopticPredictionsReader
from segkit.formats.coco.readers import OVERLAPS, CocoInstancesReader, CocoPanopticReader, paint_annotations
from segkit.formats.coco.tables import read_categories, read_classes, read_images
from segkit.formats.coco.two_channel import TwoChannelReader, TwoChannelWriter
from segkit.formats.coco.validation import (
    BOX_NUMBERS,
    ImageEntry,
    get_file_name,
    get_image_id,
    get_segment_id,
    is_box_inside,
    is_size,
    try_field,
    validate_annotation,
    validate_image,
    validate_segment,
)
from segkit.formats.coco.writers import CocoInstancesWriter, CocoPanopticWriter, PanopticFilesWriter

__all__ = [
    "BOX_NUMBERS",
    "MAX_COORDINATE",
    "MAX_OUTLINE_PX",
    "OVERLAPS",
    "CocoInstancesReader",
    "CocoInstancesWriter",
    "CocoPanopticReader",
    "CocoPanopticWriter",
    "CocoResultsReader",
    "ImageEntries",
    "ImageEntry",
    "InstancesFile",
    "PanopticFile",
    "PanopticFilesWriter",
    "PanopticPrediction",
    "PanopticPredictionsReader",
    "PanopticRecord",
    "PanopticWriter",
    "TwoChannelReader",
    "TwoChannelWriter",
    "build_panoptic_annotation",
    "choose_png_name",
    "choose_png_names",
    "drop_slivers",
    "find_mask_fault",
    "get_file_name",
    "get_image_id",
    "get_segment_id",
    "is_box_inside",
    "is_size",
    "is_too_long",
    "paint_annotations",
    "read_annotation_columns",
    "read_categories",
    "read_classes",
    "read_id_runs",
    "read_images",
    "read_instances",
    "read_panoptic",
    "read_panoptic_predictions",
    "read_result_columns",
    "read_results",
    "read_segmentation",
    "try_field",
    "validate_annotation",
    "validate_image",
    "validate_segment",
    "write_instances",
    "write_panoptic",
    "write_png",
]
