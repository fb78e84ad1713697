"""Zip archives that servers and annotation tools take."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from segkit.utils.files import replacing

STORED_SUFFIXES = (".png",)  # compressed already
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # zip's first: the same files give the same bytes


def write_archive(path: str | Path, files: Mapping[str, Path]) -> None:
    """Write a zip archive, whole or not at all; the same files give the same bytes.

    Args:
        path: archive to write.
        files: name in the archive, with "/" -> file.

    Raises:
        DatasetError: the archive cannot be written.
    """
    with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, FIRST_DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(STORED_SUFFIXES) else zipfile.ZIP_DEFLATED
            with files[name].open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)


def list_files(folder: Path, prefix: str = "") -> dict[str, Path]:
    """List the files below a folder for an archive.

    Args:
        folder: any folder; it may be missing.
        prefix: before each name, with "/" at its end.

    Returns:
        prefix + path in the folder, with "/" -> file.
    """
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return {f"{prefix}{path.relative_to(folder).as_posix()}": path for path in paths}
