"""Repaired copies of COCO datasets.

All repairs follow the same rules:
- The original is only read.
- A value that other data determine is corrected: areas and boxes by the masks, sizes by the image files.
- An entry is dropped only if it is certain that nothing can use it.
- Everything that would be a guess stays unchanged and is reported.
"""

from segkit.curation.repair.instances import repair_instances
from segkit.curation.repair.panoptic import repair_panoptic

__all__ = ["repair_instances", "repair_panoptic"]
