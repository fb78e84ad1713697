"""The ten tasks of the Medical Segmentation Decathlon, as axial slices of their volumes.

Below root/Task04_Hippocampus and so on, as they unpack: imagesTr, labelsTr (dataset.json is not needed). A fifth of the
volumes is held out. For other options, such as another axis, use DATASETS.CUSTOM with `format: decathlon`.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from segkit.data.catalog import register_files

# Folder: names of the labels 1, 2, ..., as each dataset.json has them.
TASKS = {
    "Task01_BrainTumour": ("edema", "non-enhancing tumor", "enhancing tumour"),
    "Task02_Heart": ("left atrium",),
    "Task03_Liver": ("liver", "cancer"),
    "Task04_Hippocampus": ("Anterior", "Posterior"),
    "Task05_Prostate": ("PZ", "TZ"),
    "Task06_Lung": ("cancer",),
    "Task07_Pancreas": ("pancreas", "cancer"),
    "Task08_HepaticVessel": ("Vessel", "Tumour"),
    "Task09_Spleen": ("spleen",),
    "Task10_Colon": ("colon cancer primaries",),
}
VAL_SHARE = 0.2
TWO_PER_PATIENT = "Task04_Hippocampus"  # volumes 2 n - 1 and 2 n may be the two sides of one patient


def register(root: str | Path) -> None:
    """Register segkit_decathlon_<task>_{train,val}, <task> in small letters without number: hippocampus, ...

    Args:
        root: folder that holds the tasks' folders.
    """
    root = Path(root)
    for folder in TASKS:
        for split in ("train", "val"):
            name = f"segkit_decathlon_{folder.split('_')[1].lower()}_{split}"
            register_files(name, "decathlon", partial(_find_options, root / folder, split))


def _find_options(root: Path, split: str) -> dict[str, Any]:
    labels = dict(enumerate(TASKS[root.name], 1))
    options: dict[str, Any] = {"root": str(root), "split": split, "labels": labels, "val_share": VAL_SHARE}
    if root.name == TWO_PER_PATIENT:
        options["held_out"] = _held_out_patients(root / "labelsTr")
    return options


def _held_out_patients(folder: Path) -> tuple[str, ...]:
    """The volumes of `VAL_SHARE` of all patients: those whose numbers have the lowest hashes."""
    patients: dict[str, list[str]] = {}
    for path in sorted(folder.glob("[!.]*_*.nii*")):
        volume = path.name.split(".")[0]
        number = volume.rpartition("_")[2]
        patients.setdefault(str((int(number) + 1) // 2) if number.isdecimal() else volume, []).append(volume)
    ordered = sorted(patients, key=lambda patient: hashlib.sha256(patient.encode()).digest())
    chosen = ordered[: max(round(VAL_SHARE * len(ordered)), 1)] if len(ordered) > 1 else []
    return tuple(volume for patient in sorted(chosen) for volume in patients[patient])
