"""Checkpoints of Detectron2's projects are recognised, and fill the models of the recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config

from segkit.config import load_config
from segkit.data.class_counts import resolve_for_categories
from segkit.engine.checkpoints.weight_files import read_weight_file
from segkit.engine.importers.base import find_source
from segkit.engine.importers.known_classes import load_classes
from tests.helpers.imports import randomize, run_import

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


@pytest.mark.slow
def test_deeplab_v3_gives_detectron2s_logits(tmp_path: Path) -> None:
    """R-52 at output stride 16, as Detectron2's project builds it from its own config."""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    keys = """MODEL.DEVICE cpu MODEL.META_ARCHITECTURE SemanticSegmentor MODEL.BACKBONE.FREEZE_AT 0
    MODEL.BACKBONE.NAME build_resnet_deeplab_backbone MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.NORM BN
    MODEL.RESNETS.OUT_FEATURES ['res5'] MODEL.RESNETS.RES5_DILATION 2 MODEL.RESNETS.RES5_MULTI_GRID (1,2,4)
    MODEL.RESNETS.STEM_TYPE deeplab
    MODEL.RESNETS.STEM_OUT_CHANNELS 128 MODEL.RESNETS.STRIDE_IN_1X1 False MODEL.SEM_SEG_HEAD.NAME DeepLabV3Head
    MODEL.SEM_SEG_HEAD.IN_FEATURES ['res5'] MODEL.SEM_SEG_HEAD.COMMON_STRIDE 16 MODEL.SEM_SEG_HEAD.CONVS_DIM 256
    MODEL.SEM_SEG_HEAD.NUM_CLASSES 19 MODEL.SEM_SEG_HEAD.NORM BN INPUT.CROP.ENABLED True INPUT.CROP.TYPE absolute
    INPUT.CROP.SIZE [512,1024]"""
    cfg.merge_from_list(keys.split())
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    torch.manual_seed(0)
    theirs = randomize(build_model(cfg), 0.5)
    for name, statistic in theirs.named_buffers():
        if name.endswith("running_mean"):
            statistic.neg_()  # so that no ReLU gives 0 everywhere
    theirs.sem_seg_head.predictor.weight.data.mul_(100)  # drawn with a deviation of 0.001
    torch.save({"model": theirs.state_dict()}, tmp_path / "w.pth")
    predictor, report = run_import(tmp_path / "w.pth")
    assert report["source"] == "deeplab"
    assert report["counts"]["loaded"] == sum(report["counts"].values())
    image = torch.rand((3, 512, 1024), generator=torch.Generator().manual_seed(0)) * 255  # a multiple of the crop
    with torch.no_grad():
        expected, got = (model([{"image": image}])[0]["sem_seg"] for model in (theirs, predictor.model))
    assert expected.std() > 0.01
    torch.testing.assert_close(got, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("roi_heads.mask_head.point_head.fc1.weight", "point-rend"),
        ("roi_heads.mask_point_head.fc1.weight", "point-rend"),
        ("sem_seg_head.decoder.res5.project_conv.project.weight", "deeplab"),
        ("sem_seg_head.aspp.project.weight", "deeplab"),
        ("ins_embed_head.center_predictor.weight", "panoptic-deeplab"),
        ("roi_heads.box_head.fc1.weight", "detectron2"),
    ],
)
def test_sources_are_told_apart_by_their_heads(name: str, source: str) -> None:
    weights = {"backbone.bottom_up.stem.conv1.weight": torch.zeros(1), name: torch.zeros(1)}
    assert find_source(weights, {}, "", "file").name == source
