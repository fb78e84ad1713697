"""The demo from its command line, with few scenes and two iterations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.engine import demo


def test_demo_writes_all_paths_that_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "SPLITS", {"train": (4, 1), "val": (4, 2)})
    output = tmp_path / "demo"
    options = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
    assert main(["demo", "--output", str(output), *options]) == 0
    results = json.loads((output / "metrics.json").read_text())
    for task, name in (("panoptic_seg", "PQ"), ("bbox", "AP"), ("segm", "AP"), ("sem_seg", "mIoU")):
        assert 0 <= results[task][name] <= 100
    printed = capsys.readouterr().out
    exports = [f"inference/demo_val/{name}" for name in ("coco_instances_results.json", "panoptic.json", "panoptic")]
    results = ["report.html", "grid.png", "metrics.json"]
    for path in (output / name for name in ("data", "log.txt", "config.yaml", "model_final.pth", *exports, *results)):
        assert path.exists()
        assert str(path) in printed.replace("\n", "")
    assert Image.open(output / "grid.png").width > Image.open(output / "grid.png").height  # two scenes a row
    assert "panoptic_seg" in (output / "report.html").read_text()
    assert main(["demo", "--output", str(output), *options]) == 0  # a second run overwrites the first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config-file", "toy/panoptic_rcnn_R18_FP"], "did you mean toy/panoptic_rcnn_R18_FPN?"),
        (["SOLVER.MAX_ITERS", "2"], "did you mean SOLVER.MAX_ITER?"),
        (["MODEL.META_ARCHITECTURE", "PanopticRCN"], "'PanopticRCN' is unknown"),
        (["MODEL.WEIGHTS", "gone.pth"], "gone.pth: no such weight file"),
        (["DATASETS.TEST", "('gone_val',)"], "gone_val"),
    ],
)
def test_everything_is_checked_before_scenes_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    output = tmp_path / "demo"
    assert main(["demo", "--output", str(output), *options]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()
