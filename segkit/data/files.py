"""Whether the files that annotations name are there: one look per folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from segkit.utils.errors import DatasetError

LISTED = 5  # names that an error about many files shows


def check_files_exist(root: Path, names: Sequence[str], kind: str, why: str) -> None:
    """DatasetError that counts and names the files that are missing below `root`; a folder is listed once."""
    if not root.is_dir():
        raise DatasetError(f"no such folder of {kind}s ({why})", where=root, remedy="check the path")
    listings: dict[str, set[str]] = {}
    missing = []
    for name in names:
        folder, leaf = os.path.split(name)
        if folder not in listings:
            path = root / folder
            listings[folder] = {e.name for e in os.scandir(path) if e.is_file()} if path.is_dir() else set()
        if leaf not in listings[folder]:
            missing.append(name)
    if missing:
        shown = ", ".join(missing[:LISTED]) + (", ..." if len(missing) > LISTED else "")
        raise DatasetError(
            f"{len(missing)} of {len(names)} {kind}s are missing ({why}): {shown}",
            where=root,
            remedy="complete the download, or remove them from the JSON",
        )
