"""The newest whole checkpoint of a folder, whatever was damaged, lost or copied there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from segkit.engine.checkpoints.footer import DamagedFileError, check_whole, read_footer
from segkit.engine.checkpoints.safe_load import load_torch
from segkit.utils.errors import CheckpointError
from segkit.utils.files import read_bytes

FINAL_WEIGHTS, LAST_CHECKPOINT = "model_final.pth", "last_checkpoint"  # Detectron2's names
BEST_WEIGHTS = "model_best.pth"  # weights alone, nothing to resume from
MAX_NAME_BYTES = 4096
MAX_FAULTS = 3  # damaged files that a message names
REMEDY = "restore a checkpoint from a copy, or start without --resume in another OUTPUT_DIR"

logger = logging.getLogger(__name__)


class _Candidate(NamedTuple):
    """A checkpoint; a newer one is larger. Of checkpoints of one iteration, the last that was written is newer."""

    started: str
    iteration: int
    is_last: bool
    is_final: bool
    path: Path


def has_checkpoints(folder: str | Path) -> bool:
    """Whether a training has written checkpoints into a folder, whole or not.

    Args:
        folder: OUTPUT_DIR of the training; it may be missing.

    Returns:
        True if there is a checkpoint, or the file that names the last one.
    """
    candidates, unreadable = _list_candidates(Path(folder))
    return bool(candidates or unreadable) or Path(folder, LAST_CHECKPOINT).is_file()


def find_newest_checkpoint(folder: str | Path) -> str:
    """Find the checkpoint to go on from.

    These are the `*.pth` files with an iteration, and those that `last_checkpoint` or the name model_final.pth mark.
    The newest is that of the training that started last, with the most iterations. Damaged files are skipped with a
    warning. `last_checkpoint` only decides between files of one iteration, and never names a file of another folder.

    Args:
        folder: OUTPUT_DIR of the training; it may be missing.

    Returns:
        Path of the file; "" if no training has written one.

    Raises:
        CheckpointError: every file is damaged, the files that `last_checkpoint` names are lost, or the newest file is
            of a later version of segkit.
    """
    candidates, problems = _list_candidates(Path(folder))
    for candidate in sorted(candidates, reverse=True):
        try:
            check_whole(candidate.path)
        except DamagedFileError as error:
            problems.append(error)
            continue
        for skipped in problems:
            logger.warning("%s; skipped, %s is used", skipped, candidate.path.name)
        return str(candidate.path)
    if problems:
        faults = [f"{Path(error.where).name}: {error.problem}" for error in problems[:MAX_FAULTS]]
        problem = f"none of {len(problems)} checkpoints can be used: {'; '.join(faults)}"
        raise CheckpointError(problem, where=folder, remedy=REMEDY)
    if Path(folder, LAST_CHECKPOINT).is_file():
        name = _read_last_name(Path(folder))
        text = f"names {name!r}, but there is no such weight file in the folder, nor another checkpoint"
        raise CheckpointError(text, where=Path(folder, LAST_CHECKPOINT), remedy=REMEDY)
    return ""


def _list_candidates(folder: Path) -> tuple[list[_Candidate], list[CheckpointError]]:
    """The checkpoints, untested, and the errors of the files that cannot be read."""
    last = _read_last_name(folder)
    candidates, problems = [], []
    for path in sorted(path for path in folder.glob("*.pth") if path.is_file()):
        marks = path.name == last, path.name == FINAL_WEIGHTS
        try:
            footer = read_footer(path)
            iteration = _load_iteration(path) if footer is None else footer.iteration
        except CheckpointError as error:
            problems.append(error)
            continue
        if iteration is not None or any(marks):
            started = "" if footer is None else footer.started
            candidates.append(_Candidate(started, -1 if iteration is None else iteration, *marks, path))
    return candidates, problems


def _load_iteration(path: Path) -> int | None:
    """The iteration of a file without a footer."""
    iteration = load_torch(path, check=False, mmap=True).get("iteration")
    return iteration if isinstance(iteration, int) else None


def _read_last_name(folder: Path) -> str:
    path = folder / LAST_CHECKPOINT
    return read_bytes(path, MAX_NAME_BYTES).decode("utf-8", "replace").strip() if path.is_file() else ""
