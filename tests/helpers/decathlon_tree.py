"""Decathlon tasks of tiny volumes, written by nibabel or byte by byte."""

import json
import struct

import numpy as np

from segkit.utils.errors import DatasetError

LABELS = {0: "background", 1: "anterior", 2: "posterior"}
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save(nib, path, voxels, affine=AFFINE, kind="Nifti1Image"):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(getattr(nib, kind)(voxels, affine), path)


def add_volume(nib, root, name="v", image=None, label=None, affine=AFFINE):
    label = np.zeros((2, 3, 4), np.uint8) if label is None else label
    image = np.arange(label.size, dtype=np.int16).reshape(label.shape) if image is None else image
    save(nib, root / f"imagesTr/{name}.nii.gz", image, affine)
    save(nib, root / f"labelsTr/{name}.nii.gz", label, affine)


def write_table(root, names, **changes):
    table = {
        "labels": {str(label): name for label, name in LABELS.items()},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps({**table, **changes}))


def build_header(shape, datatype=2, bitpix=8, **fields):
    """Returns the bytes of a NIfTI-1 header (nifti1.h): by default uint8 voxels, spacing 1 mm."""
    block = bytearray(352)
    struct.pack_into("<i", block, 0, 348)
    struct.pack_into("<8h", block, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", block, 70, datatype, bitpix)
    struct.pack_into("<8f", block, 76, *[1.0] * 8)
    struct.pack_into("<f", block, 108, fields.get("vox_offset", 352))
    struct.pack_into("<2f", block, 112, fields.get("slope", 0), fields.get("inter", 0))
    struct.pack_into("<2h", block, 252, 0, fields.get("sform_code", 1))
    struct.pack_into("<12f", block, 280, *fields.get("sform", (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)))
    block[344:348] = fields.get("magic", b"n+1\0")
    return bytes(block)


def read_all(reader):
    for image in reader.images:
        assert reader.read_image(image).shape == (*image.size_hw, 3)
        assert reader.read_segmentation(image).segment_ids.shape == image.size_hw


def get_error(action):
    """Returns the message of the DatasetError that the action raises, or None."""
    try:
        action()
    except DatasetError as error:
        return str(error)
    return None
