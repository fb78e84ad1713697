"""Every trained architecture learns four toy scenes by heart: training, targets, losses and inference fit together.

docs/benchmarks.md has the results and the processor time of each row.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from segkit.data.toy import dataset as toy
from segkit.engine.setup import prepare_config
from tests.helpers.small_training import train

DEMO = "toy/panoptic_rcnn_R18_FPN"
PQ, AP, MIOU = "panoptic_seg/PQ", "segm/AP", "sem_seg/mIoU"
TIMM = {"MODEL.BACKBONE.NAME": "build_timm_fpn_backbone", "MODEL.TIMM.NAME": "tf_efficientnet_lite0"}
# Name: (recipe, its changes, steps, metric of the results, least value that a broken loss or target does not reach).
ROWS: dict[str, tuple[str, dict[str, str], int, str, float]] = {
    "Panoptic FPN": (DEMO, {}, 200, PQ, 80),
    "Mask R-CNN": (DEMO, {"MODEL.META_ARCHITECTURE": "GeneralizedRCNN"}, 200, AP, 60),
    "Cascade R-CNN": ("toy/panoptic_cascade_rcnn_R18_FPN", {}, 200, PQ, 80),
    "PointRend": ("toy/panoptic_point_rend_R18_FPN", {}, 200, PQ, 75),
    "Mask Scoring R-CNN": ("toy/panoptic_mask_scoring_rcnn_R18_FPN", {}, 200, PQ, 75),
    "Panoptic FPN, EfficientNet-Lite0 of timm": (DEMO, TIMM, 200, PQ, 80),
    "Panoptic-DeepLab": ("toy/panoptic_deeplab_R18", {}, 500, PQ, 85),
    "Mask2Former": ("toy/mask2former_R18", {}, 200, PQ, 90),
    "EoMT": ("toy/eomt_tiny", {}, 200, PQ, 90),
    "semantic FPN": (DEMO, {"MODEL.META_ARCHITECTURE": "SemanticSegmentor"}, 200, MIOU, 90),
    "U-Net": ("toy/unet", {}, 200, MIOU, 90),
    "DeepLabV3+": ("toy/deeplab_v3_plus_R50", {}, 400, MIOU, 90),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_four_scenes_are_learned(name: str, tmp_path: Path) -> None:
    recipe, changes, steps, metric, least = ROWS[name]
    folder = toy.write_dataset(tmp_path / "scenes", images=4, seed=5)
    dataset = "t_four_" + "".join(c if c.isalnum() else "_" for c in name)
    custom = {"name": dataset, "panoptic_json": f"{folder}/panoptic.json", "panoptic_root": f"{folder}/panoptic"}
    options: dict[str, Any] = {
        "DATASETS.CUSTOM": [custom],
        "DATASETS.TRAIN": (dataset,),
        "DATASETS.TEST": (dataset,),
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.MAX_ITER": steps,
        "SOLVER.CHECKPOINT_PERIOD": steps,
        "INPUT.RANDOM_FLIP": "none",
        "DATALOADER.NUM_WORKERS": 0,
        "TEST.EXPORT": False,
        "OUTPUT_DIR": tmp_path / "output",
        **changes,
    }
    begin = time.process_time()
    results = train(prepare_config(recipe, [str(word) for pair in options.items() for word in pair])).results
    seconds = time.process_time() - begin
    assert results is not None
    group, key = metric.split("/")
    print(f"| {name} | {steps} | {seconds:.0f} | {key} {results[group][key]:.1f} |")
    assert results[group][key] >= least
