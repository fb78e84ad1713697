"""Counts of a part of an evaluation in one file, so that a cluster can share the work; data only, no code."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from segkit.metrics import (
    AveragePrecision,
    CityscapesAP,
    PanopticQuality,
    SemanticIoU,
    VideoPanopticQuality,
    VolumeScores,
)
from segkit.structures import ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.files import convert_write_errors, replacing
from segkit.utils.limits import check_unpacked_size
from segkit.utils.process_pool import Shard
from segkit.utils.text import abbreviate

Metric: TypeAlias = (
    PanopticQuality | AveragePrecision | CityscapesAP | SemanticIoU | VolumeScores | VideoPanopticQuality
)
METRICS: Mapping[str, Any] = {
    "panoptic": PanopticQuality,
    "instances": AveragePrecision,
    "cityscapes": CityscapesAP,
    "semantic": SemanticIoU,
    "volumes": VolumeScores,
    "video": VideoPanopticQuality,
}
FORMAT = 2  # of the header and the arrays
HEADER = "header"
LISTED = (".png", ".nii", ".nii.gz")  # what a fingerprint lists of a folder
FILE_NAMES = {kind: f"{kind}_counts.npz" for kind in METRICS}  # in the folder of an evaluation
SAME_OPTIONS = "score all shards with the same options"


@dataclass(frozen=True)
class SavedCounts:
    """The counts of a shard.

    Attributes:
        kind: Key of `METRICS`.
        metric: The counts of the images of `shard`.
        image_order: All images of the evaluation in the order of the ground truth's file, if the last digits of the
            metric depend on it, else None.
        shard: The part of the images.
        inputs: `fingerprint` of the evaluation, "" if the counts will not be merged.
    """

    kind: str
    metric: Metric
    image_order: tuple[ImageId, ...] | None
    shard: Shard
    inputs: str = ""


def save(path: str | Path, counts: SavedCounts) -> None:
    """Write counts as .npz, whole or not at all.

    Args:
        path: The file; no suffix is added.
        counts: The counts.

    Raises:
        DatasetError: The file cannot be written.
    """
    header, arrays = counts.metric.state()
    content = {
        "format": FORMAT,
        "kind": counts.kind,
        "shard": [counts.shard.index, counts.shard.count],
        "image_order": None if counts.image_order is None else [*counts.image_order],
        "inputs": counts.inputs,
        "state": header,
    }
    packed = np.frombuffer(json.dumps(content, allow_nan=False).encode(), dtype=np.uint8)
    entries: dict[str, Any] = {HEADER: packed, **{f"state_{name}": array for name, array in arrays.items()}}
    with convert_write_errors(Path(path)), replacing(Path(path)) as neighbour, neighbour.open("wb") as file:
        np.savez_compressed(file, **entries)


def save_evaluation(
    folder: str | Path, kind: str, metric: Metric, image_order: tuple[ImageId, ...] | None = None
) -> None:
    """Write the counts of a whole evaluation into its folder, where `find_in_folder` finds them.

    Args:
        folder: The folder.
        kind: Key of `METRICS`.
        metric: The counts of all images.
        image_order: As in `SavedCounts`.

    Raises:
        DatasetError: The file cannot be written.
    """
    save(Path(folder) / FILE_NAMES[kind], SavedCounts(kind, metric, image_order, Shard()))


def find_in_folder(folder: str | Path) -> dict[str, Path]:
    """Find the counts that an evaluation during training wrote.

    Args:
        folder: The folder of the evaluation, `<run>/inference/<dataset>`, or of the run, if it has one such folder.

    Returns:
        Key of `METRICS` -> file, of the kinds that are there; empty if none is.

    Raises:
        DatasetError: The run has counts of several datasets.
    """
    folder = Path(folder)
    by_place = {
        place: {kind: place / name for kind, name in FILE_NAMES.items() if (place / name).is_file()}
        for place in (folder, *sorted(folder.glob("inference/*")))
    }
    evaluations = [place for place, paths in by_place.items() if paths]
    if folder not in evaluations and len(evaluations) > 1:
        problem = f"expected the counts of one dataset, got those of {abbreviate(place.name for place in evaluations)}"
        raise DatasetError(problem, where=folder, remedy=f"name one of its folders, such as {evaluations[0]}")
    return by_place[evaluations[0]] if evaluations else {}


def load(path: str | Path) -> SavedCounts:
    """Read what `save` wrote; nothing in the file is executed.

    Args:
        path: The file.

    Returns:
        The counts.

    Raises:
        DatasetError: The file is missing or has other content.
    """
    path = Path(path)
    remedy = "give a file that --save-counts wrote"
    if not path.exists():
        raise DatasetError("expected saved counts, found no file", where=path, remedy="check the path")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no .npz, or cut short")
        with zipfile.ZipFile(path) as archive:
            check_unpacked_size(sum(part.file_size for part in archive.infolist()), path.stat().st_size)
        with np.load(path, allow_pickle=False) as file:
            content = json.loads(file[HEADER].tobytes())
            arrays = {name.removeprefix("state_"): file[name] for name in file.files if name != HEADER}
        if content["format"] != FORMAT:
            problem = f"expected counts of format {FORMAT}, got {content['format']}, of another version of segkit"
            raise DatasetError(problem, remedy="evaluate again")
        metric = METRICS[content["kind"]].from_state(content["state"], arrays)
        order, shard = content["image_order"], content["shard"]
        if order is not None and (type(order) is not list or not {*map(type, order)} <= {int, str}):
            raise ValueError("image_order must be a list of image ids")
        if [*map(type, shard)] != [int, int]:
            raise ValueError(f"shard must be two whole numbers, got {shard}")
        image_order = None if order is None else tuple(order)
        return SavedCounts(content["kind"], metric, image_order, Shard(*shard), str(content["inputs"]))
    except DatasetError as error:
        problem = f"{error.where}: {error.problem}" if error.where else error.problem
        raise DatasetError(problem, where=path, remedy=error.remedy or remedy) from None
    except Exception as error:  # numpy, zipfile and zlib have a dozen for other files
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DatasetError(f"expected saved counts, got something else ({reason})", where=path, remedy=remedy) from None


def merge(paths: Sequence[str | Path]) -> SavedCounts:
    """Join the counts of all shards of one evaluation.

    Args:
        paths: The files, in any order.

    Returns:
        The counts of all images.

    Raises:
        DatasetError: The files are not of one evaluation (another kind, other options, images or number of shards), or
            a shard is missing or occurs twice.
    """
    if not paths:
        raise DatasetError("expected files of counts, got none")
    parts = {Path(path): load(path) for path in paths}
    if len(parts) != len(paths):
        raise DatasetError("expected each file of counts once", remedy="name each file once")
    (first_path, first), *others = sorted(parts.items(), key=lambda item: item[1].shard.index)
    for path, part in others:
        _check_same_evaluation(first_path, first, path, part)
    _check_complete(parts)
    for path, part in others:
        try:
            first.metric.merge(part.metric)  # type: ignore[arg-type]
        except (ValueError, DatasetError) as error:
            problem = f"cannot be joined with {first_path}: {error}"
            raise DatasetError(problem, where=path, remedy=SAME_OPTIONS) from None
    return SavedCounts(first.kind, first.metric, first.image_order, Shard(), first.inputs)


def fingerprint(options: Mapping[str, Any]) -> str:
    """Identify an evaluation by its options and inputs, independently of where the files are.

    Args:
        options: Values for JSON. A path stands for the content of its file, or for the names and sizes of the PNGs and
            NIfTIs in its folder.

    Returns:
        A hash that is equal for all shards of one evaluation.

    Raises:
        DatasetError: A path cannot be read.
    """
    contents = {name: _hash(value) if isinstance(value, Path) else value for name, value in sorted(options.items())}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> Any:
    try:
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.name.endswith(LISTED))
            return sorted([file.relative_to(path).as_posix(), file.stat().st_size] for file in files)
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}", where=path) from None


def _check_same_evaluation(first_path: Path, first: SavedCounts, path: Path, part: SavedCounts) -> None:
    if part.kind != first.kind:
        raise DatasetError(f"expected counts of kind {first.kind} as in {first_path}, got {part.kind}", where=path)
    if part.shard.count != first.shard.count:
        expected, got = first.shard.count, part.shard.count
        raise DatasetError(f"expected one of {expected} shards as in {first_path}, got one of {got}", where=path)
    if part.image_order != first.image_order:
        raise DatasetError(f"expected the images of {first_path}, got others", where=path)
    if part.inputs != first.inputs:
        problem = f"expected the evaluation of {first_path}, got one of other files or options"
        raise DatasetError(problem, where=path, remedy=SAME_OPTIONS)


def _check_complete(parts: Mapping[Path, SavedCounts]) -> None:
    path_by_index: dict[int, Path] = {}
    for path, part in parts.items():
        index, count = part.shard.index, part.shard.count
        if index in path_by_index:
            problem = f"expected each shard once, got {index}/{count} here and in {path_by_index[index]}"
            raise DatasetError(problem, where=path)
        path_by_index[index] = path
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in path_by_index]
    if missing:
        problem = f"{len(missing)} shards are missing: {', '.join(missing)}"
        raise DatasetError(problem, remedy="evaluate them, or name their files")
