"""Counts of a part of an evaluation in one file, so that a scheduler can share it out; numbers and text, no code."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from segkit.formats.files import replacing
from segkit.metrics import AveragePrecision, CityscapesAP, PanopticQuality, SemanticIoU
from segkit.scoring.workers import Shard
from segkit.structures import DatasetError

Metric: TypeAlias = PanopticQuality | AveragePrecision | CityscapesAP | SemanticIoU
KINDS: Mapping[str, Any] = {
    "panoptic": PanopticQuality,
    "instances": AveragePrecision,
    "cityscapes": CityscapesAP,
    "semantic": SemanticIoU,
}
FORMAT = 1  # of the header
HEADER = "header"


@dataclass(frozen=True)
class SavedCounts:
    """metric: of the images of `shard`. image_order: all images of the evaluation in the order of the truth's file,
    where the metric's last digits depend on it, else None."""

    kind: str
    metric: Metric
    image_order: tuple[int | str, ...] | None
    shard: Shard


def save(path: str | Path, counts: SavedCounts) -> None:
    """Write the counts as .npz, whole or not at all; the path is taken as it is."""
    header, arrays = counts.metric.state()
    content = {
        "format": FORMAT,
        "kind": counts.kind,
        "shard": [counts.shard.index, counts.shard.count],
        "image_order": None if counts.image_order is None else [*counts.image_order],
        "state": header,
    }
    packed = np.frombuffer(json.dumps(content, allow_nan=False).encode(), dtype=np.uint8)
    with replacing(Path(path)) as neighbour, neighbour.open("wb") as file:
        named: dict[str, Any] = {HEADER: packed, **{f"state_{name}": array for name, array in arrays.items()}}
        np.savez_compressed(file, **named)


def load(path: str | Path) -> SavedCounts:
    """What `save` wrote; DatasetError where the file is missing or holds something else. Nothing in it is executed."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            content = json.loads(file[HEADER].tobytes())
            arrays = {name.removeprefix("state_"): file[name] for name in file.files if name != HEADER}
        if content["format"] != FORMAT:
            raise DatasetError(f"expected counts of format {FORMAT}, got {content['format']}", where=path)
        metric = KINDS[content["kind"]].from_state(content["state"], arrays)
        order = content["image_order"]
        shard = Shard(*content["shard"])
    except FileNotFoundError:
        raise DatasetError("expected saved counts, found no file", where=path, remedy="check the path") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        remedy = "give a file that --save-counts wrote"
        raise DatasetError(f"expected saved counts, got something else ({error})", where=path, remedy=remedy) from None
    except DatasetError as error:
        raise DatasetError(str(error), where=path) from None
    return SavedCounts(content["kind"], metric, None if order is None else tuple(order), shard)


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
            raise DatasetError(f"cannot be joined with {first_path}: {error}", where=path) from None
    return SavedCounts(first.kind, first.metric, first.image_order, Shard())


def _check_alike(first_path: Path, first: SavedCounts, path: Path, part: SavedCounts) -> None:
    if part.kind != first.kind:
        raise DatasetError(f"expected counts of kind {first.kind} as in {first_path}, got {part.kind}", where=path)
    if part.shard.count != first.shard.count:
        expected, got = first.shard.count, part.shard.count
        raise DatasetError(f"expected one of {expected} shards as in {first_path}, got one of {got}", where=path)
    if part.image_order != first.image_order:
        raise DatasetError(f"expected the images of {first_path}, got others", where=path)


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
