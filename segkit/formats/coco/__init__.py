"""COCO's formats: instances, panoptic, results lists, and predictions in these."""

from segkit.formats.coco.columns import ImageEntries, read_annotation_columns, read_result_columns
from segkit.formats.coco.cvat_writer import CvatPanopticWriter
from segkit.formats.coco.instances import InstancesFile, read_instances, read_results, write_instances
from segkit.formats.coco.mask_forms import recognize_mask_form, to_coco_form
from segkit.formats.coco.masks import RELATIVE, are_relative, drop_slivers, find_mask_fault
from segkit.formats.coco.panoptic import (
    PanopticFile,
    PanopticPrediction,
    PanopticRecord,
    build_segmentation,
    read_panoptic,
    read_panoptic_predictions,
    read_segmentation,
)
from segkit.formats.coco.panoptic_writer import (
    PanopticWriter,
    build_panoptic_annotation,
    choose_png_names,
    write_panoptic,
)
from segkit.formats.coco.places import find_image_root, list_places
from segkit.formats.coco.prediction_readers import CocoResultsReader, PanopticPredictionsReader
from segkit.formats.coco.readers import (
    OVERLAPS,
    UNREAD,
    UNWRITABLE,
    CocoInstancesReader,
    CocoPanopticReader,
    PanopticPngReader,
    build_images,
    paint_annotations,
    report_relative_coordinates,
)
from segkit.formats.coco.result_writers import CocoResultsWriter, CocoSubmissionWriter, PanopticPredictionsWriter
from segkit.formats.coco.tables import read_categories, read_classes, read_images
from segkit.formats.coco.two_channel import TwoChannelReader, TwoChannelWriter
from segkit.formats.coco.validation import ImageEntry
from segkit.formats.coco.writers import CocoInstancesWriter, CocoPanopticWriter, PanopticFilesWriter
from segkit.formats.png import read_id_runs
from segkit.formats.png import write_ids as write_png

__all__ = [
    "OVERLAPS",
    "RELATIVE",
    "UNREAD",
    "UNWRITABLE",
    "CocoInstancesReader",
    "CocoInstancesWriter",
    "CocoPanopticReader",
    "CocoPanopticWriter",
    "CocoResultsReader",
    "CocoResultsWriter",
    "CocoSubmissionWriter",
    "CvatPanopticWriter",
    "ImageEntries",
    "ImageEntry",
    "InstancesFile",
    "PanopticFile",
    "PanopticFilesWriter",
    "PanopticPngReader",
    "PanopticPrediction",
    "PanopticPredictionsReader",
    "PanopticPredictionsWriter",
    "PanopticRecord",
    "PanopticWriter",
    "TwoChannelReader",
    "TwoChannelWriter",
    "are_relative",
    "build_images",
    "build_panoptic_annotation",
    "build_segmentation",
    "choose_png_names",
    "drop_slivers",
    "find_image_root",
    "find_mask_fault",
    "list_places",
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
    "recognize_mask_form",
    "report_relative_coordinates",
    "to_coco_form",
    "write_instances",
    "write_panoptic",
    "write_png",
]
