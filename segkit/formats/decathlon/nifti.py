"""NIfTI-1 and -2 volumes in one file (nifti.nimh.nih.gov): what the header says is checked before anything is unpacked.

nibabel knows the header; sizes are bounded here.
"""

from __future__ import annotations

import gzip
import importlib
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from segkit.utils.errors import ConfigError, DatasetError

MAX_VOXELS = 2**29  # of a volume: twice the largest of the Decathlon; raise it for larger ones
GZIP_START = b"\x1f\x8b"
DEFLATE_RATIO = 1032  # deflate makes of one byte at most so many (zlib.net/zlib_tech.html)
MAX_OFFSET = 2**24  # bytes before the voxels: the header and its extensions
HEADERS = {348: ("Nifti1Header", 344, b"n+1\0"), 540: ("Nifti2Header", 4, b"n+2\0")}  # by size; place of the magic
LARGEST_HEADER = max(HEADERS)


@dataclass(frozen=True)
class Header:
    """shape: as stored. affine: (4, 4), index to millimetres. orientation: (3, 2), nibabel's, of the stored axes."""

    nifti: Any
    shape: tuple[int, int, int]
    modalities: int
    content_bytes: int  # of the whole file, decompressed
    affine: NDArray[np.float64]
    orientation: NDArray[np.float64]

    @property
    def size_xyz(self) -> tuple[int, int, int]:
        sizes = dict(zip(self.orientation[:, 0].astype(int).tolist(), self.shape, strict=True))
        return sizes[0], sizes[1], sizes[2]

    def encode(self, voxels: NDArray[Any]) -> bytes:
        """The file that holds these RAS+ voxels with this header."""
        nib = _nibabel()
        canonical = np.array([[axis, 1] for axis in range(3)])
        stored = nib.orientations.apply_orientation(
            voxels, nib.orientations.ornt_transform(canonical, self.orientation)
        )
        kind = nib.Nifti2Image if isinstance(self.nifti, nib.Nifti2Header) else nib.Nifti1Image
        image = kind(stored, self.affine, self.nifti, dtype=stored.dtype)
        content: bytes = image.to_bytes()
        return content


def read_voxels(path: Path) -> NDArray[Any]:
    """(X, Y, Z, modalities), scaled as the header says, RAS+."""
    nib, header = _nibabel(), read_header(path)
    with _opened(path) as file:
        content = file.read(header.content_bytes + 1)
    if len(content) != header.content_bytes:
        got = f"{len(content)}" if len(content) < header.content_bytes else "more"
        problem = f"the header speaks of {header.content_bytes} bytes, the file holds {got}"
        raise DatasetError(problem, where=path, remedy="write or fetch it again")
    with np.errstate(over="ignore", invalid="ignore"), _told(path):
        voxels = header.nifti.data_from_fileobj(io.BytesIO(content))
    voxels = voxels.reshape(*header.shape, header.modalities)
    turned: NDArray[Any] = nib.orientations.apply_orientation(voxels, header.orientation)
    return turned


def read_header(path: Path) -> Header:
    """The header, with what it says of the size held against the file; no voxel is decompressed."""
    nib = _nibabel()
    with _opened(path) as file:
        block = file.read(LARGEST_HEADER)
    with _told(path):
        nifti = _parse(block, nib)
        shape, dtype, offset = nifti.get_data_shape(), nifti.get_data_dtype(), nifti.get_data_offset()
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DatasetError(f"expected x, y, z and at most one axis of modalities, got {shape}", where=path)
    if math.prod(shape) > MAX_VOXELS:
        problem = f"expected at most {MAX_VOXELS} voxels, got {' x '.join(map(str, shape))}"
        raise DatasetError(problem, where=path, remedy="crop it, or raise segkit.formats.decathlon.nifti.MAX_VOXELS")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DatasetError(f"expected voxels that are one number of at most 64 bits, got {dtype}", where=path)
    content_bytes = offset + math.prod(shape) * dtype.itemsize
    _check_bytes(content_bytes, offset, path)
    affine, orientation = _grid(nifti, nib, path)
    modalities = shape[3] if len(shape) == 4 else 1
    return Header(nifti, tuple(shape[:3]), modalities, content_bytes, affine, orientation)


def _parse(block: bytes, nib: Any) -> Any:
    for size, (name, place, magic) in HEADERS.items():
        if len(block) >= size and block[place : place + len(magic)] == magic:
            return getattr(nib, name)(block[:size], check=False)
    raise ValueError("expected a NIfTI in one file (n+1 or n+2), the file does not begin as one")


def _check_bytes(content_bytes: int, offset: int, path: Path) -> None:
    if not min(HEADERS) <= offset <= MAX_OFFSET:
        raise DatasetError(f"expected voxels from byte 352 to {MAX_OFFSET} on, got {offset}", where=path)
    with path.open("rb") as file:
        zipped = file.read(len(GZIP_START)) == GZIP_START
    file_bytes = path.stat().st_size
    if content_bytes > file_bytes * (DEFLATE_RATIO if zipped else 1):
        problem = f"the header speaks of {content_bytes} bytes, which a file of {file_bytes} bytes cannot hold"
        raise DatasetError(problem, where=path, remedy="write or fetch it again")


def _grid(nifti: Any, nib: Any, path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with np.errstate(all="ignore"), _told(path):
        affine = np.asarray(nifti.get_best_affine(), dtype=np.float64)
        orientation = nib.io_orientation(affine) if np.isfinite(affine).all() else np.full((3, 2), np.nan)
    if not np.isfinite(orientation).all():
        remedy = "repair its sform or qform"
        raise DatasetError("expected an affine that spans three axes", where=path, remedy=remedy)
    return affine, orientation


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """The file, decompressed as it is read; DatasetError where it is missing, damaged or cut off."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(len(GZIP_START)) == GZIP_START
            raw.seek(0)
            if not zipped:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as unzipped:
                yield unzipped
    except FileNotFoundError:
        raise DatasetError("expected a NIfTI, found nothing", where=path, remedy="check the path") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        problem = f"the file cannot be read: {error}"
        raise DatasetError(problem, where=path, remedy="write or fetch it again") from None


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What nibabel says of a damaged header, as a DatasetError."""
    kinds = (_nibabel().spatialimages.HeaderDataError, ValueError, KeyError, ArithmeticError)
    try:
        yield
    except kinds as error:
        problem = f"the NIfTI cannot be read: {' '.join(str(error).split())}"
        raise DatasetError(problem, where=path, remedy="write or fetch it again") from None


def _nibabel() -> Any:
    try:
        return importlib.import_module("nibabel")
    except ImportError:
        problem = "volumes in NIfTI files need nibabel, which is not installed"
        raise ConfigError(problem, remedy="pip install nibabel") from None
