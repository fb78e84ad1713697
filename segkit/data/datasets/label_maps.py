"""Images with instance label maps, as in microscopy: nuclei, and any folder of this form.

Below root/nuclei, or root/label_maps/<name>: images/ and labels/, files of equal names; 0 is background, 1..N objects.
"""

from __future__ import annotations

import logging
from pathlib import Path

from segkit.data.catalog import DATASET_NAME, register_files

logger = logging.getLogger(__name__)

VAL_SHARE = 0.3  # by the hash of the names, so only roughly: 40 of 160 nuclei images of 256 pixels
FOLDER = "label_maps"


def register(root: str | Path) -> None:
    """Register segkit_nuclei_{train,val} (Data Science Bowl 2018) and segkit_label_maps_<name>_{train,val}.

    Args:
        root: folder that holds nuclei/ and label_maps/<name>/.
    """
    root = Path(root)
    _register("segkit_nuclei", root / "nuclei", "nucleus")
    for folder in sorted(labels.parent for labels in (root / FOLDER).glob("*/labels")):
        if DATASET_NAME.fullmatch(folder.name):
            _register(f"segkit_label_maps_{folder.name}", folder, "object")
        else:
            logger.warning("%s is left out: a dataset's name may have letters, digits and _ . - only", folder)


def _register(stem: str, folder: Path, thing: str) -> None:
    for split in ("train", "val"):
        options = {"root": str(folder), "thing": thing, "split": split, "val_share": VAL_SHARE}
        register_files(f"{stem}_{split}", "instance-maps", options)
