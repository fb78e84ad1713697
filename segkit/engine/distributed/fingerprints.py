"""What must be equal on all machines of a job: code, config, datasets and the output folder."""

from __future__ import annotations

import hashlib
import os
import platform
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode

import segkit
from segkit.data.catalog import load_dataset
from segkit.data.datasets.custom import list_path_options
from segkit.engine.distributed.peers import Peers
from segkit.utils.errors import ConfigError
from segkit.utils.files import convert_write_errors
from segkit.utils.plugins import get_plugin_files

# Keys that may differ by machine: paths, whose content is compared, and numbers that change no result.
MACHINE_KEYS = ("OUTPUT_DIR", "MODEL.WEIGHTS", "DATALOADER.NUM_WORKERS", "DATASETS.CUSTOM")
SHARED_FOLDER_SECONDS = 20.0  # network file systems show a file to other machines some seconds late
POLL_SECONDS = 0.2


def check_world_size(cfg: CfgNode, world_size: int) -> None:
    """Check that every rank gets the same number of images.

    Args:
        cfg: the config of a training.
        world_size: the number of ranks.

    Raises:
        ConfigError: the ranks do not divide the batch.
    """
    batch = cfg.SOLVER.IMS_PER_BATCH
    if batch % world_size:
        lower, upper = batch // world_size * world_size, (batch // world_size + 1) * world_size
        choices = f"{lower} or {upper}" if lower else str(upper)
        problem = f"SOLVER.IMS_PER_BATCH is {batch}, which {world_size} processes do not divide"
        raise ConfigError(problem, remedy=f"set it to {choices}, or change the number of processes")


def check_machines_agree(peers: Peers, cfg: CfgNode, dataset_names: Iterable[str]) -> None:
    """Compare code, config and datasets of all ranks with those of rank 0, and check that they share OUTPUT_DIR.

    Args:
        peers: the ranks.
        cfg: the config of this rank.
        dataset_names: the datasets that the job uses.

    Raises:
        ConfigError: something differs: rank 0 names the first host, the rank and the difference; or OUTPUT_DIR is
            not the same folder.
    """
    prints = peers.collect("fingerprint", compute_fingerprint(cfg, dataset_names))
    if peers.rank == 0:
        for peer, fingerprint in zip(peers.roster, prints, strict=True):
            if fingerprint != prints[0]:
                raise ConfigError(_describe_difference(prints[0], fingerprint, str(peer), str(peers.roster[0])))
    if "://" not in cfg.OUTPUT_DIR:
        _check_shared(peers, Path(cfg.OUTPUT_DIR))


def compute_fingerprint(cfg: CfgNode, dataset_names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Describe what must be equal on all machines.

    Args:
        cfg: any config with segkit's keys.
        dataset_names: names of datasets.

    Returns:
        Text by name of a part, in three groups: code, config, data.
    """
    versions = {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "torch": str(torch.__version__),
        "Detectron2": str(detectron2.__version__),
        "segkit": segkit.__version__,
        "segkit's source files": _hash_files(Path(segkit.__file__).parent),
    }
    plugins = {f"the plugin {name}": _hash_files(path) for name, path in get_plugin_files().items()}
    data = {f"the dataset {name}": _describe_dataset(name) for name in sorted(set(dataset_names))}
    return {"code": {**versions, **plugins}, "config": _flatten_config(cfg), "data": data}


def _describe_dataset(name: str) -> str:
    dataset = load_dataset(name)
    digest = hashlib.sha256()
    for record in dataset.records:
        digest.update(f"{record['image_id']}\0{os.path.basename(record['file_name'])}\n".encode())
    digest.update(repr([(c.category_id, c.name, c.isthing) for c in dataset.categories.categories]).encode())
    return f"{len(dataset.records)} images, hash of names and classes {digest.hexdigest()[:8]}"


def _hash_files(path: Path) -> str:
    """Hash of a file, or of the Python files of a folder."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return f"hash {digest.hexdigest()[:8]}"


def _flatten_config(cfg: CfgNode, prefix: str = "") -> dict[str, str]:
    values: dict[str, str] = {}
    for key, value in cfg.items():
        name = f"{prefix}{key}"
        if isinstance(value, CfgNode):
            values.update(_flatten_config(value, f"{name}."))
        elif name not in MACHINE_KEYS:
            values[name] = repr(value)
    if not prefix:
        values["MODEL.WEIGHTS"] = os.path.basename(cfg.MODEL.WEIGHTS)
        values["DATASETS.CUSTOM"] = repr([_without_folders(entry) for entry in cfg.DATASETS.CUSTOM])
    return values


def _without_folders(entry: Mapping[str, Any]) -> dict[str, Any]:
    paths = list_path_options(entry)
    return {key: os.path.basename(str(value)) if key in paths else value for key, value in entry.items()}


def _describe_difference(
    first: Mapping[str, Mapping[str, str]], other: Mapping[str, Mapping[str, str]], name: str, first_name: str
) -> str:
    for group in ("code", "config", "data"):
        for key in sorted({*first[group], *other[group]}):
            expected, got = (side[group].get(key, "missing") for side in (first, other))
            if expected != got:
                return f"{name} has other {group} than {first_name}: {key}: {got} against {expected}"
    raise AssertionError("equal fingerprints")


def _check_shared(peers: Peers, folder: Path) -> None:
    """Rank 0 writes a file that the others must find."""
    names: Sequence[str] = []
    token = folder / f".segkit-shared-{uuid.uuid4().hex}"
    if peers.rank == 0:
        with convert_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            token.touch()
    try:
        names = peers.collect("token", token.name)
        sees = _appears(folder, names[0])
        all_see = peers.collect("sees_token", [sees, str(folder.absolute())])
    finally:
        if peers.rank == 0:
            token.unlink(missing_ok=True)
    blind = [(peer, path) for peer, (sees, path) in zip(peers.roster, all_see, strict=True) if not sees]
    if blind and peers.rank == 0:
        peer, path = blind[0]
        problem = f"{peer} does not find what rank 0 (host {peers.roster[0].host}) has written into {folder.absolute()}"
        remedy = "set OUTPUT_DIR to a folder that all machines share"
        raise ConfigError(f"{problem}: there, it is {path}", where="OUTPUT_DIR", remedy=remedy)
    peers.wait_for("shared", ranks=(0,)) if peers.rank else peers.share("shared", None)


def _appears(folder: Path, name: str) -> bool:
    deadline = time.monotonic() + SHARED_FOLDER_SECONDS
    while True:
        with suppress(OSError):
            if name in os.listdir(folder):  # listing refreshes what a network file system has cached
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
