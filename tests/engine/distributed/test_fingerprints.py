"""Machines of a job that differ in code, config or data, and folders that are not shared."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode
from torch.distributed import PrefixStore, TCPStore

from segkit.engine.distributed import fingerprints
from segkit.engine.distributed.fingerprints import check_machines_agree, check_world_size, compute_fingerprint
from segkit.engine.distributed.launch_plan import LaunchPlan
from segkit.engine.distributed.peers import Peer, Peers
from segkit.engine.setup import read_config
from segkit.utils.errors import ConfigError
from segkit.utils.plugins import load_plugins


def build_config(scenes: Path, output: Path, *options: Any) -> CfgNode:
    custom = [{"name": "t_toy", "panoptic_json": f"{scenes}/panoptic.json", "panoptic_root": f"{scenes}/panoptic"}]
    names = ["DATASETS.TRAIN", "('t_toy',)", "DATASETS.CUSTOM", str(custom), "OUTPUT_DIR", str(output)]
    return read_config("toy/panoptic_rcnn_R18_FPN", [*names, *map(str, options)])


def build_ranks(names: str = "ab") -> list[Peers]:
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    roster = [Peer(rank, host, 10 + rank, 1, "") for rank, host in enumerate(names)]
    plans = [LaunchPlan("slurm", rank, 0, len(names), 1, "127.0.0.1", store.port) for rank in range(len(names))]
    stores = [TCPStore("127.0.0.1", store.port, None, False, wait_for_workers=False) for _ in plans]
    server = PrefixStore("server", store)  # keeps it
    ranks = [Peers(plan, roster, PrefixStore("x", each), server) for plan, each in zip(plans, stores, strict=True)]
    return ranks


def compare(configs: list[CfgNode]) -> None:
    """Every rank of a job with its own config; raises the error of rank 0, which a heartbeat brings to the others."""
    ranks = build_ranks()
    arguments = (ranks[1], configs[1], configs[1].DATASETS.TRAIN)
    other = threading.Thread(target=check_machines_agree, args=arguments, daemon=True)
    other.start()
    check_machines_agree(ranks[0], configs[0], configs[0].DATASETS.TRAIN)
    other.join(timeout=30)
    assert not other.is_alive()


def test_paths_and_workers_may_differ(toy_folder: Path, toy_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    configs = [
        build_config(toy_folder, tmp_path / "run", "MODEL.WEIGHTS", "/a/R-50.pkl", "DATALOADER.NUM_WORKERS", 2),
        build_config(toy_copy, tmp_path / "link", "MODEL.WEIGHTS", "/b/R-50.pkl", "DATALOADER.NUM_WORKERS", 3),
    ]
    compare(configs)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (("SOLVER.BASE_LR", 0.5), "config than rank 0 (host a, pid 10): SOLVER.BASE_LR: 0.5 against 0.01"),
        (("MODEL.WEIGHTS", "/a/R-101.pkl"), "config than rank 0 (host a, pid 10): MODEL.WEIGHTS: R-101.pkl against "),
    ],
)
def test_another_config_is_named(options: tuple[str, Any], difference: str, toy_folder: Path, tmp_path: Path) -> None:
    configs = [build_config(toy_folder, tmp_path / "run", *pair) for pair in (("SOLVER.BASE_LR", 0.01), options)]
    with pytest.raises(ConfigError) as caught:
        compare(configs)
    assert str(caught.value).startswith(f"rank 1 (host b, pid 11) has other {difference}")


def test_another_dataset_and_other_code_are_named(
    toy_folder: Path, toy_copy: Path, tmp_path: Path, no_plugins: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = build_config(toy_folder, tmp_path)
    first = compute_fingerprint(cfg, ["t_toy", "t_toy"])
    assert first["data"]["the dataset t_toy"].startswith("12 images, ")
    text = (toy_copy / "panoptic.json").read_text()
    (toy_copy / "panoptic.json").write_text(text.replace("000000000007", "000000000077"))
    for suffix in (".png", ".jpg"):
        for folder in ("images", "panoptic"):
            path = toy_copy / folder / f"000000000007{suffix}"
            if path.exists():
                path.rename(path.with_stem("000000000077"))
    other = compute_fingerprint(build_config(toy_copy, tmp_path), ["t_toy"])
    assert other["data"] != first["data"]
    assert other["data"]["the dataset t_toy"].startswith("12 images, ")
    assert (other["code"], other["config"]) == (first["code"], first["config"])

    (tmp_path / "t_mine.py").write_text("A = 1\n")
    load_plugins(["t_mine.py"])
    with_plugin = compute_fingerprint(cfg, [])["code"]
    (tmp_path / "t_mine.py").write_text("A = 2\n")
    changed = compute_fingerprint(cfg, [])["code"]
    assert {key for key in changed if changed[key] != with_plugin.get(key)} == {"the plugin t_mine"}


def test_a_folder_that_is_not_shared(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "SHARED_FOLDER_SECONDS", 0.3)
    configs = [build_config(toy_folder, tmp_path / name) for name in ("a", "b")]
    with pytest.raises(ConfigError) as caught:
        compare(configs)
    assert str(caught.value) == (
        f"OUTPUT_DIR: rank 1 (host b, pid 11) does not find what rank 0 (host a) has written into {tmp_path}/a: there, "
        f"it is {tmp_path}/b; set OUTPUT_DIR to a folder that all machines share"
    )
    assert list((tmp_path / "a").iterdir()) == []


def test_the_ranks_divide_the_batch(toy_folder: Path, tmp_path: Path) -> None:
    cfg = build_config(toy_folder, tmp_path, "SOLVER.IMS_PER_BATCH", 8)
    check_world_size(cfg, 4)
    with pytest.raises(
        ConfigError, match=r"SOLVER.IMS_PER_BATCH is 8, which 3 processes do not divide; set it to 6 or 9"
    ):
        check_world_size(cfg, 3)
    with pytest.raises(ConfigError, match="which 16 processes do not divide; set it to 16,"):
        check_world_size(cfg, 16)
