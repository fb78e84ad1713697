"""Config keys are converted to a fusion method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segkit.config import load_config
from segkit.fusion import FUSION_METHODS, HeuristicFusion
from segkit.fusion.majority_vote import MajorityVoteFusion
from segkit.modeling.fusion_config import build_fusion_from_config
from segkit.utils.errors import ConfigError


def config(*opts: str) -> Any:
    cfg = load_config("", opts)
    cfg.MODEL.PANOPTIC.THING_NAMES = ["person", "traffic light"]
    return cfg


def test_detectron2s_keys_are_defaults_and_options_override_them() -> None:
    cfg = config("MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH", "0.4", "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", "7")
    assert build_fusion_from_config(cfg) == HeuristicFusion(
        overlap_threshold=0.4, stuff_area_limit_px=7, instance_score_threshold=0.5
    )
    for opts in (
        ["MODEL.PANOPTIC.FUSION.OPTIONS", "{'overlap_threshold': 0.3, 'nms': 'mask'}"],
        ["MODEL.PANOPTIC.FUSION.OPTIONS.overlap_threshold", "0.3", "MODEL.PANOPTIC.FUSION.OPTIONS.nms", "mask"],
    ):
        assert build_fusion_from_config(config(*opts)) == HeuristicFusion(overlap_threshold=0.3, nms="mask")


def test_an_architecture_with_centers_takes_detectron2s_keys_for_centers() -> None:
    options = ["CENTER_THRESHOLD", "0.3", "NMS_KERNEL", "9", "TOP_K_INSTANCE", "5", "STUFF_AREA", "11"]
    keys = [word if i % 2 else f"MODEL.PANOPTIC_DEEPLAB.{word}" for i, word in enumerate(options)]
    keys += ["MODEL.META_ARCHITECTURE", "PanopticDeepLab"]
    expected = MajorityVoteFusion(center_threshold=0.3, nms_kernel=9, top_k=5, stuff_area_limit_px=11)
    assert build_fusion_from_config(config(*keys)) == expected
    keys += ["MODEL.PANOPTIC.FUSION.OPTIONS.nms_kernel", "3"]
    assert build_fusion_from_config(config(*keys)) == replace(expected, nms_kernel=3)


def test_classes_are_named_in_yaml(tmp_path: Path) -> None:
    options = "{class_score_thresholds: {traffic light: 0.25, person: 0.75}, stuff_area_limit_px: 1024}"
    path = tmp_path / "a.yaml"
    path.write_text(f"MODEL: {{PANOPTIC: {{FUSION: {{NAME: heuristic, OPTIONS: {options}}}}}}}\n")
    cfg = load_config(path)
    cfg.MODEL.PANOPTIC.THING_NAMES = ["person", "traffic light"]
    fusion = build_fusion_from_config(cfg)
    assert isinstance(fusion, HeuristicFusion)
    assert fusion.class_score_thresholds == {0: 0.75, 1: 0.25}
    (tmp_path / "saved.yaml").write_text(cfg.dump())  # as a training leaves it: it reads back
    assert build_fusion_from_config(load_config(tmp_path / "saved.yaml")) == fusion


@pytest.mark.parametrize("name", sorted(FUSION_METHODS))
def test_every_method_takes_the_stuff_area_limit(name: str) -> None:
    cfg = config("MODEL.PANOPTIC.FUSION.NAME", name, "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", "9")
    assert build_fusion_from_config(cfg).stuff_area_limit_px == 9


def test_unknown_methods_options_and_classes_are_rejected() -> None:
    with pytest.raises(ConfigError, match=r"FUSION: unknown fusion method 'magic'; choose one of"):
        build_fusion_from_config(config("MODEL.PANOPTIC.FUSION.NAME", "magic"))
    with pytest.raises(ConfigError, match="no option"):
        build_fusion_from_config(config("MODEL.PANOPTIC.FUSION.OPTIONS", "{'overlap': 1}"))
    for broken in ("nms", "{nms: [}"):
        with pytest.raises(ConfigError, match="expected options by name"):
            config("MODEL.PANOPTIC.FUSION.OPTIONS", broken)
    with pytest.raises(ConfigError, match="did you mean 'person'"):
        build_fusion_from_config(
            config("MODEL.PANOPTIC.FUSION.OPTIONS", "{'class_score_thresholds': {'persons': 0.5}}")
        )


def test_ids_as_keys_are_read_back_and_null_removes_an_option(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "MODEL: {PANOPTIC: {FUSION: {OPTIONS: {nms: mask, class_score_thresholds: {1: 0.3}}}}}\n"
    )
    (tmp_path / "a.yaml").write_text("_BASE_: base.yaml\nMODEL: {PANOPTIC: {FUSION: {OPTIONS: {nms: null}}}}\n")
    cfg = load_config(tmp_path / "a.yaml")
    cfg.MODEL.PANOPTIC.THING_NAMES = ["person", "traffic light"]
    assert build_fusion_from_config(cfg) == HeuristicFusion(class_score_thresholds={1: 0.3})
    (tmp_path / "saved.yaml").write_text(cfg.dump())
    assert build_fusion_from_config(load_config(tmp_path / "saved.yaml")) == HeuristicFusion(
        class_score_thresholds={1: 0.3}
    )
