"""Bundles of `segkit export bundle`: a zip archive of a config, weights and what a program must know of the model.

The parts are stored as they are, so that the archive is as large as its content, and nothing in them can run.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.utils.errors import CheckpointError
from segkit.utils.file_names import explain_missing
from segkit.utils.files import replacing
from segkit.utils.text import abbreviate

SUFFIX = ".segkit"
CONFIG, DESCRIPTION, WEIGHTS = PARTS = ("config.yaml", "model.json", "weights.safetensors")
VERSION = 1  # of the format, in the description
MAX_TEXT_BYTES = 10_000_000  # of a part that is no weights; those of 1,000 classes have 100,000
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # zip's first: the same parts give the same bytes
UNIX, MODE, ENCRYPTED = 3, 0o644 << 16, 0x1
DAMAGED = "it is incomplete, damaged or of another format: fetch or copy it again"


def is_bundle(path: str | Path) -> bool:
    """Whether a path has the name of a bundle.

    Args:
        path: any path.

    Returns:
        Whether it ends in `SUFFIX`.
    """
    return os.fspath(path).lower().endswith(SUFFIX)


def write_bundle(path: str | Path, parts: Mapping[str, bytes]) -> None:
    """Write a bundle, whole or not at all; the same parts give the same bytes.

    Args:
        path: file to write.
        parts: content of each of `PARTS`.

    Raises:
        DatasetError: the file cannot be written.
    """
    with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in PARTS:
            entry = zipfile.ZipInfo(name, FIRST_DATE)
            entry.create_system, entry.external_attr = UNIX, MODE
            archive.writestr(entry, parts[name], zipfile.ZIP_STORED)


def read_part(path: str | Path, name: str) -> bytes:
    """Read a part of a bundle.

    Args:
        path: the bundle.
        name: one of `PARTS`.

    Returns:
        The content; its checksum is right.

    Raises:
        CheckpointError: the file is missing, damaged or no bundle.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"expected a bundle, found no file{explain_missing(Path(path))}", where=path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_parts(archive.infolist(), path)
            return archive.read(name)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile has a dozen kinds for damaged archives
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise CheckpointError(f"not a readable bundle ({cause})", where=path, remedy=DAMAGED) from error


def read_description(path: str | Path) -> dict[str, Any]:
    """Read what a bundle says of its model.

    Args:
        path: the bundle.

    Returns:
        The JSON object that `segkit export bundle` wrote.

    Raises:
        CheckpointError: the file is missing, damaged or no bundle, or of another version.
    """
    try:
        description = json.loads(read_part(path, DESCRIPTION))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{DESCRIPTION} in it is no JSON", where=path, remedy=DAMAGED) from error
    version = description.get("version") if isinstance(description, dict) else None
    if version != VERSION:
        problem = f"expected a bundle of version {VERSION}, got version {str(version)[:40]}"
        raise CheckpointError(problem, where=path, remedy="export the model again")
    return dict(description)


def _check_parts(parts: Sequence[zipfile.ZipInfo], path: str | Path) -> None:
    """The names, the sizes and how they are stored, before anything is read."""
    if sorted(part.filename for part in parts) != sorted(PARTS):
        names = abbreviate(part.filename[:80] for part in parts) or "nothing"
        problem = f"expected a bundle of `segkit export bundle`, got a zip archive with {names}"
        raise CheckpointError(problem, where=path, remedy="give a bundle, or name weights with their own suffix")
    for part in parts:
        is_plain = part.compress_type == zipfile.ZIP_STORED and not part.flag_bits & ENCRYPTED
        if not is_plain or part.compress_size != part.file_size:
            problem = f"{part.filename} in it is compressed or encrypted, which `segkit export bundle` does not write"
            raise CheckpointError(problem, where=path, remedy="export the model again")
        if part.filename != WEIGHTS and part.file_size > MAX_TEXT_BYTES:
            problem = f"expected at most {MAX_TEXT_BYTES} bytes of {part.filename} in it, got {part.file_size}"
            raise CheckpointError(problem, where=path)
    total, size = sum(part.file_size for part in parts), Path(path).stat().st_size
    if total > size:
        raise CheckpointError(f"claims to hold {total} bytes, in a file of {size}", where=path, remedy=DAMAGED)
