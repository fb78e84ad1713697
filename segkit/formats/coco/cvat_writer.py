"""CVAT's COCO panoptic archive: annotations/panoptic_default.json and its folder of PNGs, without images."""

from __future__ import annotations

from pathlib import Path

from segkit.formats.archives import list_files, write_archive
from segkit.formats.coco.writers import IMAGES, PanopticFilesWriter
from segkit.structures import CategorySet

ANNOTATIONS = "annotations"
NAME = f"{ANNOTATIONS}/panoptic_default"  # panoptic_<subset>
ARCHIVE = "cvat_panoptic.zip"


class CvatPanopticWriter(PanopticFilesWriter):
    """Writes annotations/panoptic_default.json and its PNGs, and cvat_panoptic.zip, to import into CVAT.

    Args:
        root: the folder to write to.
        categories: of the dataset.
    """

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories, NAME, IMAGES)

    def finish(self) -> None:
        """See base class."""
        super().finish()
        write_archive(self.root / ARCHIVE, list_files(self.root / ANNOTATIONS, f"{ANNOTATIONS}/"))
