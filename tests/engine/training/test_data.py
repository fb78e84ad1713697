"""How many worker processes read the images of a training."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from segkit.engine.training import data
from tests.helpers.small_training import build_config

LIMITED = "1 worker processes read the images, instead of DATALOADER.NUM_WORKERS 3"


@pytest.mark.parametrize(
    ("usable", "processes", "message"),
    [
        (16, 1, "3 worker processes read the images"),
        (1, 1, f"{LIMITED}: 1 of 16 processors may be used by affinity or control group"),
        (
            16,
            8,
            "2 worker processes read the images for each of the 8 processes of this machine, instead of "
            "DATALOADER.NUM_WORKERS 3: 16 processors may be used",
        ),
    ],
)
def test_the_log_says_how_many_and_why_fewer_than_asked_for(
    toy_folder: Path,
    tmp_path: Path,
    usable: int,
    processes: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cfg = build_config(toy_folder, tmp_path, DATALOADER__NUM_WORKERS=3)
    caplog.set_level(logging.INFO, "segkit")
    monkeypatch.setattr(data.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(data, "count_usable_cpus", lambda: usable)
    monkeypatch.setattr(data.comm, "get_local_size", lambda: processes)
    data.build_train_loader(cfg, seed=0).close()
    assert message in caplog.messages
