"""Medical Segmentation Decathlon and nnU-Net: NIfTI volumes, read slice by slice; predictions written as volumes."""

from segkit.formats.decathlon.files import Volume
from segkit.formats.decathlon.label_volumes import LabelTask, list_label_volumes, read_label_task, read_label_volume
from segkit.formats.decathlon.nifti import MAX_LABEL, write_prediction
from segkit.formats.decathlon.reader import DecathlonReader, Labels, NnunetReader
from segkit.formats.decathlon.writer import DecathlonWriter

__all__ = [
    "MAX_LABEL",
    "DecathlonReader",
    "DecathlonWriter",
    "LabelTask",
    "Labels",
    "NnunetReader",
    "Volume",
    "list_label_volumes",
    "read_label_task",
    "read_label_volume",
    "write_prediction",
]
