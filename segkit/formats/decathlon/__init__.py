"""Medical Segmentation Decathlon: NIfTI volumes, read slice by slice and written again as volumes."""

from segkit.formats.decathlon.prediction import write_prediction
from segkit.formats.decathlon.reader import DecathlonReader, Volume

__all__ = ["DecathlonReader", "Volume", "write_prediction"]
