"""Scripts written for Detectron2 work with one import and one call of segkit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.config import LazyCall as L
from detectron2.modeling import build_model

import segkit
from segkit.fusion import HeuristicFusion
from segkit.modeling.meta_arch import PanopticRCNN
from segkit.utils.errors import ConfigError
from tests.helpers import detectron2_script


def zoo_config(name: str) -> CfgNode:
    cfg = get_cfg()
    segkit.add_segkit_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(name))
    cfg.merge_from_list([*detectron2_script.SMALL.split(), "MODEL.WEIGHTS", ""])
    return cfg


def test_a_script_builds_trains_predicts_and_reads_lazy_configs(toy_folder: Path, tmp_path: Path) -> None:
    script = [sys.executable, detectron2_script.__file__, str(toy_folder), str(tmp_path)]
    ran = subprocess.run(script, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    last = [line for line in ran.stdout.splitlines() if line.startswith(("PanopticRCNN ", "predicted "))]
    assert last[0] == "PanopticRCNN 54 32 1 1"
    assert last[1].startswith("predicted 128 128 ")
    assert last[2] == "PanopticRCNN from a LazyConfig"


def test_a_plain_mask_rcnn_of_the_zoo_keeps_its_80_classes() -> None:
    cfg = zoo_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    assert build_model(cfg).roi_heads.box_predictor.cls_score.out_features == 81


def test_the_names_of_the_package_are_public() -> None:
    assert {"add_segkit_config", "prepare_config", "register", "load", "Prediction", "Trainer"} <= set(dir(segkit))
    assert all(getattr(segkit, name) for name in segkit.PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = segkit.nothing


def test_panoptic_rcnn_is_built_from_a_config_without_segkits_keys() -> None:
    segkit.register()
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(detectron2_script.ZOO_CONFIG))
    cfg.merge_from_list([*detectron2_script.SMALL.split(), "MODEL.META_ARCHITECTURE", "PanopticRCNN"])
    cfg.MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH = 0.25
    cfg.MODEL.ROI_MASK_HEAD.NAME = "DiceMaskHead"
    cfg.freeze()
    model = build_model(cfg)
    assert model.fusion.overlap_threshold == 0.25
    assert "PANOPTIC" not in cfg.MODEL
    assert model.roi_heads.mask_head.dice_weight == 1.0


def test_a_lazy_config_calls_our_architecture_and_fusion() -> None:
    config = model_zoo.get_config("common/models/panoptic_fpn.py").model
    parts = {key: value for key, value in config.items() if key != "_target_"}
    lazy = L(PanopticRCNN)(
        **parts, fusion=L(HeuristicFusion)(overlap_threshold=0.6), thing_ids=[-1, 0], stuff_ids=[1, 0]
    )
    model = instantiate(lazy)
    assert type(model) is PanopticRCNN
    assert model.fusion == HeuristicFusion(overlap_threshold=0.6)
    assert torch.equal(model.thing_ids, torch.tensor([-1, 0]))


def test_training_samples_of_another_mapper_are_a_clear_error() -> None:
    cfg = zoo_config(detectron2_script.ZOO_CONFIG)
    cfg.MODEL.META_ARCHITECTURE = "PanopticRCNN"
    model = build_model(cfg)
    sample: dict[str, Any] = {"image": torch.zeros(3, 64, 64), "file_name": "a.png"}
    for extra, missing in (({}, "semantic labels"), ({"sem_seg": torch.zeros(64, 64, dtype=torch.long)}, "instances")):
        with pytest.raises(ConfigError, match=rf"a\.png has no {missing}.*segkit\.Trainer"):
            model([{**sample, **extra}])
