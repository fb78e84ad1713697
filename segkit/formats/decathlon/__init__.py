"""Medical Segmentation Decathlon and nnU-Net: NIfTI volumes, read slice by slice; predictions written as volumes."""

from segkit.formats.decathlon.files import Volume
from segkit.formats.decathlon.label_volumes import LabelTask, list_label_volumes, read_label_task, read_label_volume
from segkit.formats.decathlon.nifti import MAX_LABEL, write_prediction
from segkit.formats.decathlon.reader import DecathlonReader, Labels, NnunetReader

__all__ = [
    "MAX_LABEL",
    "DecathlonReader",
    "LabelTask",
    "Labels",
    "NnunetReader",
    "Volume",
    "list_label_volumes",
    "read_label_task",
    "read_label_volume",
    "write_prediction",
]
