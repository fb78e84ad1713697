"""Checkpoints of Detectron2's projects are recognised, and fill the models of the recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from segkit.config import load_config
from segkit.data.class_counts import resolve_for_categories
from segkit.engine.checkpoints.weight_files import read_weight_file
from segkit.engine.importers.base import find_source
from segkit.engine.importers.known_classes import load_classes
from tests.helpers.imports import run_import

RECIPES = [
    ("coco/point_rend_R50_FPN_3x", "point-rend", "coco"),
    ("cityscapes/deeplab_v3_plus_R103", "deeplab", "cityscapes_semantic"),
    ("cityscapes/panoptic_deeplab_R52", "panoptic-deeplab", "cityscapes_panoptic"),
    ("coco/panoptic_deeplab_R52_200k", "panoptic-deeplab", "coco_all"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "source", "classes"), RECIPES)
def test_every_tensor_of_a_project_is_loaded(tmp_path: Path, recipe: str, source: str, classes: str) -> None:
    cfg = load_config(recipe, ["MODEL.DEVICE", "cpu"])
    categories = load_classes(classes)
    resolve_for_categories(cfg, categories, "one" if classes == "coco" else "per_class", "of the test")
    weights = build_model(cfg).state_dict()
    old = {name.replace("mask_head.point_head", "mask_point_head"): weight for name, weight in weights.items()}
    old = {name.replace("mask_head.coarse_head.fc", "mask_coarse_head.coarse_mask_fc"): old[name] for name in old}
    old = {name.replace("mask_head.coarse_head", "mask_coarse_head"): old[name] for name in old}
    torch.save({"model": old}, tmp_path / "w.pth")  # the published files of PointRend have the old names
    predictor, report = run_import(tmp_path / "w.pth")
    assert report["source"] == source
    assert report["counts"]["loaded"] == sum(report["counts"].values()) == len(weights)
    assert predictor.categories.categories == categories.categories
    assert predictor.cfg.DATASETS.TEST == cfg.DATASETS.TEST
    written = read_weight_file(f"{tmp_path}/ours.pth")["model"]
    assert all(torch.equal(written[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("roi_heads.mask_head.point_head.fc1.weight", "point-rend"),
        ("roi_heads.mask_point_head.fc1.weight", "point-rend"),
        ("sem_seg_head.decoder.res5.project_conv.project.weight", "deeplab"),
        ("ins_embed_head.center_predictor.weight", "panoptic-deeplab"),
        ("roi_heads.box_head.fc1.weight", "detectron2"),
    ],
)
def test_sources_are_told_apart_by_their_heads(name: str, source: str) -> None:
    weights = {"backbone.bottom_up.stem.conv1.weight": torch.zeros(1), name: torch.zeros(1)}
    assert find_source(weights, {}, "", "file").name == source
