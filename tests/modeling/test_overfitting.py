"""Every semantic architecture can learn four toy scenes by heart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segkit.cli.main import main

LEAST_MIOU = 90.0


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "steps"), [("toy/unet", 200), ("toy/deeplab_v3_plus_R50", 400)])
def test_four_scenes_are_learned_by_heart(recipe: str, steps: int, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    assert main(["data", "toy", "--images", "4", "--output", str(scenes)]) == 0
    custom = [{"name": "t_four", "panoptic_json": f"{scenes}/panoptic.json", "panoptic_root": f"{scenes}/panoptic"}]
    options = f"""SOLVER.IMS_PER_BATCH 4 SOLVER.MAX_ITER {steps} INPUT.RANDOM_FLIP none DATALOADER.NUM_WORKERS 0
        OUTPUT_DIR {tmp_path / "run"}""".split()
    names = ["DATASETS.TRAIN", "('t_four',)", "DATASETS.TEST", "('t_four',)", "DATASETS.CUSTOM", str(custom)]
    assert main(["train", "--config-file", recipe, *names, *options]) == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text())["sem_seg"]["mIoU"] > LEAST_MIOU
