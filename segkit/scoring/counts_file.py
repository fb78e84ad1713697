"""Counts of a part of an evaluation in one file, so that a scheduler can share it out; numbers and text, no code."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from segkit.metrics import AveragePrecision, CityscapesAP, PanopticQuality, SemanticIoU
from segkit.utils.errors import DatasetError
from segkit.utils.files import replacing
from segkit.utils.process_pool import Shard

Metric: TypeAlias = PanopticQuality | AveragePrecision | CityscapesAP | SemanticIoU
METRICS: Mapping[str, Any] = {
    "panoptic": PanopticQuality,
    "instances": AveragePrecision,
    "cityscapes": CityscapesAP,
    "semantic": SemanticIoU,
}
FORMAT = 1  # of the header
HEADER = "header"


@dataclass(frozen=True)
class SavedCounts:
    """metric: of the images of `shard`. image_order: all images of the evaluation in the order of the ground truth's
    file, where the metric's last digits depend on it, else None. inputs: what tells one evaluation from another, as
    `fingerprint` says it; empty where nobody will merge the counts."""

    kind: str
    metric: Metric
    image_order: tuple[int | str, ...] | None
    shard: Shard
    inputs: str = ""


def save(path: str | Path, counts: SavedCounts) -> None:
    """Write the counts as .npz, whole or not at all; the path is taken as it is. DatasetError where it cannot be
    written."""
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
    named: dict[str, Any] = {HEADER: packed, **{f"state_{name}": array for name, array in arrays.items()}}
    with convert_write_errors(Path(path)), replacing(Path(path)) as neighbour, neighbour.open("wb") as file:
        np.savez_compressed(file, **named)


def load(path: str | Path) -> SavedCounts:
    """What `save` wrote; DatasetError where the file is missing or holds something else. Nothing in it is executed."""
    path = Path(path)
    remedy = "give a file that --save-counts wrote"
    if not path.exists():
        raise DatasetError("expected saved counts, found no file", where=path, remedy="check the path")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no .npz, or cut short")
        with np.load(path, allow_pickle=False) as file:
            content = json.loads(file[HEADER].tobytes())
            arrays = {name.removeprefix("state_"): file[name] for name in file.files if name != HEADER}
        if content["format"] != FORMAT:
            raise DatasetError(f"expected counts of format {FORMAT}, got {content['format']}")
        metric = METRICS[content["kind"]].from_state(content["state"], arrays)
        counts = SavedCounts(content["kind"], metric, _image_order(content), _shard(content), str(content["inputs"]))
    except DatasetError as error:
        raise DatasetError(str(error), where=path, remedy=remedy) from None
    except Exception as error:  # numpy, zipfile and zlib have a dozen for files that are something else
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DatasetError(f"expected saved counts, got something else ({what})", where=path, remedy=remedy) from None
    return counts


def merge(paths: Sequence[str | Path]) -> SavedCounts:
    """The counts of all shards of one evaluation joined, in whatever order the files are given.

    Raises DatasetError where they are not of one evaluation (another kind, other options, images or number of shards),
    or a shard is missing or there twice.
    """
    if not paths:
        raise DatasetError("expected files of counts, got none")
    parts = {Path(path): load(path) for path in paths}
    if len(parts) != len(paths):
        raise DatasetError("expected each file of counts once", remedy="name each file once")
    (first_path, first), *others = sorted(parts.items(), key=lambda item: item[1].shard.index)
    for path, part in others:
        _check_alike(first_path, first, path, part)
    _check_complete(parts)
    for path, part in others:
        try:
            first.metric.merge(part.metric)  # type: ignore[arg-type]
        except (ValueError, DatasetError) as error:
            remedy = "score all shards with the same options"
            raise DatasetError(f"cannot be joined with {first_path}: {error}", where=path, remedy=remedy) from None
    return SavedCounts(first.kind, first.metric, first.image_order, Shard(), first.inputs)


def fingerprint(options: Mapping[str, Any]) -> str:
    """What is alike for all shards of one evaluation, wherever its files lie: options for JSON, a path standing for
    the content of its file, or the names and sizes of the PNGs in its folder. DatasetError where one cannot be read."""
    known = {name: _content(value) if isinstance(value, Path) else value for name, value in sorted(options.items())}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


@contextmanager
def convert_write_errors(path: Path) -> Iterator[None]:
    """DatasetError where the block cannot write `path`: no such place, no right to, no space left."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"cannot be written: {error.strerror or error}", where=path, remedy="name another file, or make room"
        ) from None


def check_writable(path: Path) -> None:
    """Raise now what writing `path` would raise when the work is done; makes its folder."""
    with convert_write_errors(path):
        if path.is_dir():
            raise DatasetError("expected a file to write, this is a folder", where=path, remedy="name a file in it")
        if path.exists() and not path.is_file():  # a file would take the place of the device
            raise DatasetError("expected a file to write, this is a device", where=path, remedy="name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def _image_order(content: Mapping[str, Any]) -> tuple[int | str, ...] | None:
    order = content["image_order"]
    if order is None:
        return None
    if not isinstance(order, list) or any(type(image_id) not in (int, str) for image_id in order):
        raise ValueError("image_order must be a list of image ids")
    return tuple(order)


def _shard(content: Mapping[str, Any]) -> Shard:
    index, count = content["shard"]
    if type(index) is not int or type(count) is not int:
        raise ValueError(f"shard must be two whole numbers, got {content['shard']}")
    return Shard(index, count)


def _content(path: Path) -> Any:
    try:
        if path.is_dir():
            return sorted([file.relative_to(path).as_posix(), file.stat().st_size] for file in path.rglob("*.png"))
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}", where=path) from None


def _check_alike(first_path: Path, first: SavedCounts, path: Path, part: SavedCounts) -> None:
    if part.kind != first.kind:
        raise DatasetError(f"expected counts of kind {first.kind} as in {first_path}, got {part.kind}", where=path)
    if part.shard.count != first.shard.count:
        expected, got = first.shard.count, part.shard.count
        raise DatasetError(f"expected one of {expected} shards as in {first_path}, got one of {got}", where=path)
    if part.image_order != first.image_order:
        raise DatasetError(f"expected the images of {first_path}, got others", where=path)
    if part.inputs != first.inputs:
        problem = f"expected the evaluation of {first_path}, got one of other files or options"
        raise DatasetError(problem, where=path, remedy="score all shards with the same options")


def _check_complete(parts: Mapping[Path, SavedCounts]) -> None:
    path_of: dict[int, Path] = {}
    for path, part in parts.items():
        index, count = part.shard.index, part.shard.count
        if index in path_of:
            raise DatasetError(
                f"expected each shard once, got {index}/{count} here and in {path_of[index]}", where=path
            )
        path_of[index] = path
    missing = [index for index in range(1, count + 1) if index not in path_of]
    if missing:
        listed = ", ".join(f"{index}/{count}" for index in missing)
        raise DatasetError(f"{len(missing)} shards are missing: {listed}", remedy="evaluate them, or name their files")
