"""Every architecture learns four toy scenes by heart: training, targets, losses and inference fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segkit.data.toy import dataset as toy
from segkit.engine.setup import prepare_config
from tests.helpers.small_training import train

STEPS = 200
# (config, metric of the results, least value): values that a broken loss or target does not reach.
ROWS = [
    ("toy/panoptic_rcnn_R18_FPN_demo", "panoptic_seg/PQ", 75),
    ("toy/panoptic_point_rend_R18_FPN", "panoptic_seg/PQ", 75),
    ("toy/panoptic_mask_scoring_rcnn_R18_FPN", "panoptic_seg/PQ", 75),
    ("toy/panoptic_cascade_rcnn_R18_FPN", "panoptic_seg/PQ", 75),
]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "metric", "least"), ROWS)
def test_four_scenes_are_learned(config: str, metric: str, least: float, tmp_path: Path) -> None:
    folder = toy.write_dataset(tmp_path / "scenes", images=4, seed=5)
    custom = {"name": f"t_four_{config.rpartition('/')[2]}", "panoptic_json": f"{folder}/panoptic.json"}
    custom["panoptic_root"] = f"{folder}/panoptic"
    names = f"({custom['name']!r},)"
    options: dict[str, Any] = {"DATASETS.CUSTOM": [custom], "DATASETS.TRAIN": names, "DATASETS.TEST": names}
    options |= {"SOLVER.IMS_PER_BATCH": 4, "SOLVER.MAX_ITER": STEPS, "SOLVER.CHECKPOINT_PERIOD": STEPS}
    options |= {
        "INPUT.RANDOM_FLIP": "none",
        "DATALOADER.NUM_WORKERS": 0,
        "TEST.EXPORT": False,
        "OUTPUT_DIR": tmp_path / "output",
    }
    results = train(prepare_config(config, [str(word) for pair in options.items() for word in pair])).results
    assert results is not None
    group, name = metric.split("/")
    print(f"{config}: {metric} {results[group][name]:.1f}")
    assert results[group][name] >= least
