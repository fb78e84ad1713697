"""The labels of all slices of a volume as one NIfTI, on the grid of another."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats.decathlon.files import SUFFIXES
from segkit.formats.decathlon.nifti import read_header
from segkit.formats.decathlon.slices import MAX_LABEL, cut, uncut
from segkit.utils.files import replacing


def write_prediction(
    path: str | Path, slices: Sequence[NDArray[np.integer[Any]]], like: str | Path, axis: int = 2
) -> None:
    """Writes the labels of all slices of a volume as one NIfTI on the grid of `like`, whole or not at all.

    slices: (H, W) integers in 0..65535 each, in the order and orientation in which `DecathlonReader` with this `axis`
    gives them. like: the image or label volume they belong to, whose header (affine, units, descriptions) is taken.
    The type is uint8, or uint16 where a label needs it; a path that ends in .gz is compressed. Raises ValueError where
    the slices do not fill the volume or hold something else, DatasetError where `like` cannot be read.
    """
    path, header = Path(path), read_header(Path(like))
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"path must end in {' or '.join(SUFFIXES)}, got {path.name!r}")
    expected = cut(np.broadcast_to(np.uint8(0), header.size_xyz), axis).shape
    stacked = np.asarray(slices) if len({np.shape(labels) for labels in slices}) == 1 else np.zeros(0)
    if stacked.shape != expected or stacked.dtype.kind not in "iu":
        got = f"{len(slices)} of {sorted({np.shape(labels) for labels in slices})[:3]} {stacked.dtype}"
        raise ValueError(f"slices must be {expected[0]} maps of {expected[1:]} integers, got {got}")
    if stacked.min() < 0 or stacked.max() > MAX_LABEL:
        raise ValueError(f"labels must be in 0..{MAX_LABEL}, got {stacked.min()}..{stacked.max()}")
    voxels = uncut(stacked.astype(np.min_scalar_type(stacked.max()), copy=False), axis)
    content = header.encode(voxels)
    with replacing(path) as neighbour:
        neighbour.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)
