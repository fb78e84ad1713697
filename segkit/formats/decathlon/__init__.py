"""Medical Segmentation Decathlon: NIfTI volumes, read slice by slice, and predictions written as volumes."""

from segkit.formats.decathlon.files import Volume
from segkit.formats.decathlon.nifti import write_prediction
from segkit.formats.decathlon.reader import DecathlonReader

__all__ = ["DecathlonReader", "Volume", "write_prediction"]
