"""Medical Segmentation Decathlon and nnU-Net: NIfTI volumes, read slice by slice; predictions written as volumes."""

from segkit.formats.decathlon.files import Volume
from segkit.formats.decathlon.nifti import write_prediction
from segkit.formats.decathlon.reader import DecathlonReader, NnunetReader

__all__ = ["DecathlonReader", "NnunetReader", "Volume", "write_prediction"]
