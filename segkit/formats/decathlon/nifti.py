"""NIfTI-1 and -2 volumes in one file (nifti.nimh.nih.gov): headers, voxels, slices, and label volumes written.

nibabel parses the header. Sizes are checked here, before anything is decompressed. Volumes are turned to the closest
RAS+ orientation.
"""

from __future__ import annotations

import gzip
import importlib
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from segkit.utils.errors import DatasetError
from segkit.utils.files import replacing
from segkit.utils.limits import check_unpacked_size, read_limit
from segkit.utils.links import check_guarded_link

nib: Any = importlib.import_module("nibabel")  # imported like this since few of its functions are typed

NIFTI_SUFFIXES = (".nii.gz", ".nii")
MAX_VOXELS = "SEGKIT_MAX_VOXELS"  # the environment variable
DEFAULT_VOXELS = 2**29  # of a volume: twice the largest of the Decathlon
MAX_LABEL = 2**16 - 1
GZIP_START = b"\x1f\x8b"
DEFLATE_RATIO = 1032  # largest ratio of decompressed to compressed bytes (zlib.net/zlib_tech.html)
MAX_OFFSET = 2**24  # bytes before the voxels: the header and its extensions
HEADERS = {348: (nib.Nifti1Header, 344, b"n+1\0"), 540: (nib.Nifti2Header, 4, b"n+2\0")}  # by size: offset, magic
UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # by NIfTI's code of metres, millimetres, micrometres
SPACE_CODES = 8  # the lowest bits of xyzt_units
RAS = np.array([[axis, 1] for axis in range(3)])  # orientation, as nibabel writes it
DAMAGED_REMEDY = "write or download it again"


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes:
        nifti: nibabel's header.
        shape: (X, Y, Z) voxels as stored.
        modalities: Length of the fourth axis, 1 without one.
        content_bytes: Size of the whole file, decompressed.
        affine: (4, 4) float64, voxel index to millimetres.
        orientation: (3, 2) of the stored axes, as nibabel has it.
    """

    nifti: Any
    shape: tuple[int, int, int]
    modalities: int
    content_bytes: int
    affine: NDArray[np.float64]
    orientation: NDArray[np.float64]

    @property
    def size_xyz(self) -> tuple[int, int, int]:
        """Voxels in RAS+ orientation."""
        sizes = dict(zip(self.orientation[:, 0].astype(int).tolist(), self.shape, strict=True))
        return sizes[0], sizes[1], sizes[2]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in RAS+ orientation, by the affine; in mm, whatever the header's unit is."""
        millimetres = UNITS_MM.get(int(self.nifti["xyzt_units"]) % SPACE_CODES, 1.0)
        lengths = (np.linalg.norm(self.affine[:3, :3], axis=0) * millimetres).tolist()
        spacings = dict(zip(self.orientation[:, 0].astype(int).tolist(), lengths, strict=True))
        return spacings[0], spacings[1], spacings[2]


def read_voxels(path: Path, orientation: NDArray[np.float64] | None = None) -> NDArray[Any]:
    """(X, Y, Z, modalities) in RAS+ orientation, scaled as the header says; DatasetError for a damaged file.

    orientation: of the stored axes, in place of the header's.
    """
    header = read_header(path)
    with _open(path) as file:
        content = file.read(header.content_bytes + 1)
    if len(content) != header.content_bytes:
        got = f"{len(content)}" if len(content) < header.content_bytes else "more"
        problem = f"the header speaks of {header.content_bytes} bytes, the file holds {got}"
        raise DatasetError(problem, where=path, remedy=DAMAGED_REMEDY)
    with np.errstate(over="ignore", invalid="ignore"), _raise_dataset_errors(path):
        voxels = header.nifti.data_from_fileobj(io.BytesIO(content))
    voxels = voxels.reshape(*header.shape, header.modalities)
    turned: NDArray[Any] = nib.orientations.apply_orientation(
        voxels, header.orientation if orientation is None else orientation
    )
    return turned


def read_header(path: Path) -> Header:
    """Read the header and compare its sizes with the file; no voxel is decompressed. DatasetError if they differ."""
    with _open(path) as file:
        block, is_zipped = file.read(max(HEADERS)), isinstance(file, gzip.GzipFile)
    with _raise_dataset_errors(path):
        nifti = _parse(block)
        shape, dtype, offset = nifti.get_data_shape(), nifti.get_data_dtype(), nifti.get_data_offset()
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DatasetError(f"expected x, y, z and at most one axis of modalities, got {shape}", where=path)
    max_voxels = read_limit(MAX_VOXELS, DEFAULT_VOXELS)
    if math.prod(shape) > max_voxels:
        problem = f"expected at most {max_voxels} voxels, got {' x '.join(map(str, shape))}"
        raise DatasetError(problem, where=path, remedy=f"crop it, or set {MAX_VOXELS}={math.prod(shape)}")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DatasetError(f"expected voxels that are one number of at most 64 bits, got {dtype}", where=path)
    content_bytes = offset + math.prod(shape) * dtype.itemsize
    _check_bytes(content_bytes, offset, is_zipped, path)
    with np.errstate(all="ignore"), _raise_dataset_errors(path):
        affine = np.asarray(nifti.get_best_affine(), dtype=np.float64)
        orientation = nib.io_orientation(affine) if np.isfinite(affine).all() else np.full((3, 2), np.nan)
    if not np.isfinite(orientation).all():
        remedy = "repair its sform or qform"
        raise DatasetError("expected an affine that spans three axes", where=path, remedy=remedy)
    modalities = shape[3] if len(shape) == 4 else 1
    return Header(nifti, tuple(shape[:3]), modalities, content_bytes, affine, orientation)


def to_slices(voxels: NDArray[Any], axis: int) -> NDArray[Any]:
    """(X, Y, Z, ...) -> (slices, H, W, ...), a view; the first of the other axes runs right, the second upwards."""
    return np.rot90(np.moveaxis(voxels, axis, 0), axes=(1, 2))


def write_prediction(
    path: str | Path, slices: Sequence[NDArray[np.integer[Any]]], like: str | Path, axis: int = 2
) -> None:
    """Write the labels of all slices of a volume as one NIfTI on the grid of another, whole or not at all.

    The type is uint8, or uint16 if a label needs it.

    Args:
        path: File to write; one that ends in .gz is compressed.
        slices: (H, W) integers in 0..65535 each, in the order and orientation of `DecathlonReader` with this `axis`.
        like: Image or label volume of the same grid, whose affine, units and descriptions are taken over.
        axis: 0, 1 or 2, the axis of the volume in RAS+ orientation along which it was cut.

    Raises:
        ValueError: The slices do not fill the volume, or hold something else.
        DatasetError: `like` cannot be read.
    """
    path, header = Path(path), read_header(Path(like))
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise ValueError(f"path must end in {' or '.join(NIFTI_SUFFIXES)}, got {path.name!r}")
    expected = to_slices(np.broadcast_to(np.uint8(0), header.size_xyz), axis).shape
    shapes = {np.shape(labels) for labels in slices}
    stacked = np.asarray(slices) if len(shapes) == 1 else np.zeros(0)
    if stacked.shape != expected or stacked.dtype.kind not in "iu":
        got = f"{len(slices)} of {sorted(shapes)[:3]} {stacked.dtype}"
        raise ValueError(f"slices must be {expected[0]} maps of {expected[1:]} integers, got {got}")
    if stacked.min() < 0 or stacked.max() > MAX_LABEL:
        raise ValueError(f"labels must be in 0..{MAX_LABEL}, got {stacked.min()}..{stacked.max()}")
    labels = stacked.astype(np.min_scalar_type(stacked.max()), copy=False)
    voxels = np.moveaxis(np.rot90(labels, -1, axes=(1, 2)), 0, axis)  # the inverse of `to_slices`
    stored = nib.orientations.apply_orientation(voxels, nib.orientations.ornt_transform(RAS, header.orientation))
    image_type = nib.Nifti2Image if isinstance(header.nifti, nib.Nifti2Header) else nib.Nifti1Image
    content = image_type(stored, header.affine, header.nifti, dtype=stored.dtype).to_bytes()
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)


def _parse(block: bytes) -> Any:
    for size, (header_type, offset, magic) in HEADERS.items():
        if len(block) >= size and block[offset : offset + len(magic)] == magic:
            return header_type(block[:size], check=False)
    raise ValueError("expected a NIfTI in one file (n+1 or n+2), the file does not begin as one")


def _check_bytes(content_bytes: int, offset: int, is_zipped: bool, path: Path) -> None:
    if not min(HEADERS) <= offset <= MAX_OFFSET:
        raise DatasetError(f"expected voxels from byte 352 to {MAX_OFFSET} on, got {offset}", where=path)
    file_bytes = path.stat().st_size
    if content_bytes > file_bytes * (DEFLATE_RATIO if is_zipped else 1):
        problem = f"the header speaks of {content_bytes} bytes, which a file of {file_bytes} bytes cannot hold"
        raise DatasetError(problem, where=path, remedy=DAMAGED_REMEDY)
    check_unpacked_size(content_bytes, file_bytes, path)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """The file, decompressed as it is read; DatasetError if it is missing, damaged or cut off."""
    check_guarded_link(path)
    try:
        with path.open("rb") as file:
            is_zipped = file.peek(len(GZIP_START)).startswith(GZIP_START)
            yield gzip.GzipFile(fileobj=file) if is_zipped else file
    except FileNotFoundError:
        raise DatasetError("expected a NIfTI, found nothing", where=path, remedy="check the path") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        problem = f"the file cannot be read: {error}"
        raise DatasetError(problem, where=path, remedy=DAMAGED_REMEDY) from None


@contextmanager
def _raise_dataset_errors(path: Path) -> Iterator[None]:
    """Turn nibabel's errors about a damaged header into DatasetErrors."""
    try:
        yield
    except (nib.spatialimages.HeaderDataError, ValueError, KeyError, ArithmeticError) as error:
        problem = f"the NIfTI cannot be read: {' '.join(str(error).split())}"
        raise DatasetError(problem, where=path, remedy=DAMAGED_REMEDY) from None
