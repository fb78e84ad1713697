"""PointRend against Detectron2's project: the same weights give the same masks and losses, in less memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY, build_model
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY
from detectron2.projects import point_rend
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage

from segkit.data.class_counts import resolve_for_categories
from segkit.data.map_masks import MapMasks
from segkit.data.mapper import SegkitMapper
from segkit.data.toy import dataset as toy
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.modeling import register_models
from segkit.utils.errors import ConfigError
from tests.helpers.rounding import assert_equal_panoptic, find_unsure_mask_pixels
from tests.helpers.small_models import CASCADE, SEMANTIC, STANDARD, THINGS, images, small_config, targets
from tests.helpers.small_training import build_config

FAST = {
    "TEST__DETECTIONS_PER_IMAGE": 9,
    "MODEL__RPN__POST_NMS_TOPK_TRAIN": 50,
    "MODEL__RPN__POST_NMS_TOPK_TEST": 50,
    "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 32,
    "MODEL__POINT_HEAD__SUBDIVISION_NUM_POINTS": 196,
}
MASKS = FAST | {
    "MODEL__ROI_MASK_HEAD__NAME": "PointRendMaskHead",
    "MODEL__ROI_MASK_HEAD__POOLER_TYPE": "",
    "MODEL__ROI_MASK_HEAD__POINT_HEAD_ON": True,
    "MODEL__ROI_MASK_HEAD__FC_DIM": 32,
    "MODEL__POINT_HEAD__NUM_CLASSES": THINGS,
    "MODEL__POINT_HEAD__FC_DIM": 32,
}
IMPLICIT = MASKS | {
    "MODEL__ROI_MASK_HEAD__NAME": "ImplicitPointRendMaskHead",
    "MODEL__POINT_HEAD__NAME": "ImplicitPointHead",
    "MODEL__POINT_HEAD__FC_DIM": 8,
    "MODEL__POINT_HEAD__NUM_FC": 2,
    "MODEL__POINT_HEAD__SUBDIVISION_STEPS": 3,
}
SEMANTICS = FAST | {
    "MODEL__SEM_SEG_HEAD__NAME": "PointRendSemSegHead",
    "MODEL__POINT_HEAD__NUM_CLASSES": SEMANTIC,
    "MODEL__POINT_HEAD__SUBDIVISION_STEPS": 2,
    "MODEL__POINT_HEAD__SUBDIVISION_NUM_POINTS": 256,
}
PLAIN = {"MODEL__ROI_MASK_HEAD__NAME": "MaskRCNNConvUpsampleHead", "MODEL__ROI_MASK_HEAD__POOLER_TYPE": "ROIAlignV2"}


@contextmanager
def detectron2s_heads() -> Iterator[None]:
    """Build with the heads of the project, which segkit's replace."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PointRendMaskHead", "ImplicitPointRendMaskHead"):
            patch.setitem(ROI_MASK_HEAD_REGISTRY._obj_map, name, getattr(point_rend, name))
        patch.setitem(SEM_SEG_HEADS_REGISTRY._obj_map, "PointRendSemSegHead", point_rend.PointRendSemSegHead)
        yield


def build_twins(theirs_arch: str, ours_arch: str, roi_heads: str, values: dict[str, Any]) -> tuple[Any, Any]:
    register_models()
    torch.manual_seed(3)
    with detectron2s_heads():
        theirs = build_model(small_config(theirs_arch, roi_heads, **values))
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if any(part in name for part in ("cls_score", "predict", "parameter_head.prediction")):
                weight.add_(torch.randn_like(weight) * 0.3)
    ours = build_model(small_config(ours_arch, roi_heads, **values))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


@pytest.mark.parametrize(
    ("roi_heads", "values"),
    [
        ("PointRendROIHeads", MASKS),
        (CASCADE, MASKS | {"MODEL__POINT_HEAD__CLS_AGNOSTIC_MASK": True}),
        (STANDARD, IMPLICIT),
        (STANDARD, SEMANTICS),
    ],
)
def test_the_same_weights_give_detectron2s_outputs_and_losses(roi_heads: str, values: dict[str, Any]) -> None:
    theirs, ours = build_twins("PanopticFPN", "PanopticRCNN", roi_heads, values)
    losses = []
    for model in (theirs.train(), ours.train()):
        torch.manual_seed(0)
        with EventStorage():
            losses.append(model(targets(images())))
    assert losses[0].keys() >= {"loss_sem_seg_point"} if values is SEMANTICS else {"loss_mask_point"}
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=0)
    with torch.no_grad():
        expected, got = theirs.eval()(images()), ours.eval()(images())
    for a, b in zip(expected, got, strict=True):
        assert len(a["instances"]) > 5
        assert b["instance_masks"].mask_probs.shape[1:] == (
            (28, 28) if values is SEMANTICS else (112, 112) if values is IMPLICIT else (224, 224)
        )
        differs = (a["instances"].pred_masks != b["instances"].pred_masks).numpy()
        assert not (differs & ~find_unsure_mask_pixels(b["instance_masks"])).any()
        torch.testing.assert_close(b["sem_seg"], a["sem_seg"], rtol=1e-5, atol=1e-4)
        assert_equal_panoptic(a, b, ours=b)


def test_mask_rcnn_with_point_rend_equals_detectron2s_without_detections_too() -> None:
    theirs, ours = build_twins("GeneralizedRCNN", "GeneralizedRCNN", "PointRendROIHeads", MASKS)
    for threshold in (0.0, 2.0):
        for model in (theirs, ours):
            model.eval().roi_heads.box_predictor.test_score_thresh = threshold
        with torch.no_grad():
            ((expected, got),) = zip(theirs(images(1)), ours(images(1)), strict=True)
        assert len(expected["instances"]) == len(got["instances"])
        assert (len(expected["instances"]) == 0) == (threshold == 2.0)
        assert torch.equal(expected["instances"].pred_masks, got["instances"].pred_masks)


def test_map_masks_give_the_losses_of_bitmasks_and_the_weight_of_instances_scales_them() -> None:
    """Masks of `targets` without their overlap, as a map of numbers and as bitmasks; the weight is 0.5."""
    _, ours = build_twins("PanopticFPN", "PanopticRCNN", "PointRendROIHeads", MASKS)
    halved = build_model(
        small_config("PanopticRCNN", "PointRendROIHeads", **MASKS, MODEL__PANOPTIC_FPN__INSTANCE_LOSS_WEIGHT=0.5)
    )
    halved.load_state_dict(ours.state_dict())
    results = []
    for model, as_map in ((ours, False), (ours, True), (halved, True)):
        batch = targets(images())
        for sample in batch:
            masks = sample["instances"].gt_masks.tensor
            masks[1] &= ~masks[0]
            numbers = (masks * torch.tensor([1, 2])[:, None, None]).sum(0).to(torch.uint8)
            if as_map:
                sample["instances"].gt_masks = MapMasks(numbers, torch.tensor([1, 2], dtype=torch.uint8))
        torch.manual_seed(0)
        with EventStorage():
            results.append(model.train()(batch))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    for name in ("loss_mask", "loss_mask_point", "loss_box_reg"):
        torch.testing.assert_close(results[2][name], results[1][name] * 0.5)


def test_the_loss_of_points_is_zero_if_none_has_a_label() -> None:
    """A single pixel has a label, and no sampled point meets it."""
    theirs, ours = build_twins("PanopticFPN", "PanopticRCNN", STANDARD, SEMANTICS)
    losses = []
    for model in (theirs, ours):
        batch = targets(images(1))
        batch[0]["sem_seg"][:] = 255
        batch[0]["sem_seg"][0, 0] = 3
        torch.manual_seed(0)
        with EventStorage():
            losses.append(model.train()(batch))
    assert losses[0]["loss_sem_seg_point"].isnan()
    assert losses[1]["loss_sem_seg_point"] == 0
    torch.testing.assert_close(losses[1]["loss_sem_seg"], losses[0]["loss_sem_seg"])
    sum(losses[1].values()).backward()
    assert all(weight.grad.isfinite().all() for weight in ours.parameters() if weight.grad is not None)
    assert ours.sem_seg_head.point_head.predictor.weight.grad.abs().sum() == 0


def test_the_mapper_gives_bitmasks_and_the_class_count_follows_from_the_dataset(
    toy_folder: Path, tmp_path: Path
) -> None:
    values = {name: value for name, value in MASKS.items() if "NUM_CLASSES" not in name}
    cfg = build_config(toy_folder, tmp_path, **values, INPUT__LSJ__ENABLED=False, INPUT__COPY_PASTE__PROBABILITY=0.0)
    assert len(toy.CATEGORIES.things) == cfg.MODEL.POINT_HEAD.NUM_CLASSES
    record = {"file_name": str(next((toy_folder / "images").iterdir())), "image_id": 1, "height": 128, "width": 128}
    square = {"bbox": [8, 8, 16, 16], "bbox_mode": 1, "category_id": 0, "segmentation": [[8, 8, 24, 8, 24, 24, 8, 24]]}
    space = toy.CATEGORIES.build_semantic_space("one")
    for is_bitmask in (False, True):
        mapper = SegkitMapper(toy.CATEGORIES, space, [], bitmasks=is_bitmask)
        sample = mapper({**record, "annotations": [square]})
        assert sample is not None
        assert isinstance(sample["instances"].gt_masks, BitMasks) == is_bitmask


def test_weights_of_older_names_fill_the_whole_model(tmp_path: Path) -> None:
    """Detectron2's zoo has PointRend's weights under names of 2020."""
    _, ours = build_twins("GeneralizedRCNN", "GeneralizedRCNN", "PointRendROIHeads", MASKS)
    renamed = {"mask_head.point_head": "mask_point_head", "mask_head.coarse_head.fc": "mask_coarse_head.coarse_mask_fc"}
    renamed |= {"mask_head.coarse_head": "mask_coarse_head"}
    weights = {}
    for name, weight in ours.state_dict().items():
        for current, older in renamed.items():
            name = name.replace(current, older)
        weights[name] = weight
    assert len(weights.keys() - ours.state_dict().keys()) > 10
    torch.save({"model": weights}, tmp_path / "older.pth")
    other = build_model(small_config("GeneralizedRCNN", "PointRendROIHeads", **MASKS))
    SafeCheckpointer(other).load_for_inference(str(tmp_path / "older.pth"))
    torch.testing.assert_close(other.state_dict(), ours.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MODEL__ROI_MASK_HEAD__POOLER_TYPE": "ROIAlignV2"}, 'set MODEL.ROI_MASK_HEAD.POOLER_TYPE ""'),
        ({"MODEL__ROI_MASK_HEAD__POINT_HEAD_ON": False}, "POINT_HEAD_ON is False"),
        (SEMANTICS, "choose another mask head or another semantic head"),
        ({**SEMANTICS, **PLAIN, "MODEL__POINT_HEAD__SUBDIVISION_STEPS": 5}, "32 times, not 4 times; set it to 2"),
        ({**SEMANTICS, **PLAIN, "MODEL__POINT_HEAD__IN_FEATURES": ("p2", "p3")}, "expected one feature map"),
    ],
)
def test_configs_that_do_not_fit_are_one_line(values: dict[str, Any], message: str) -> None:
    register_models()
    with pytest.raises(ConfigError, match=message):
        build_model(small_config("PanopticRCNN", **MASKS | values))


def test_a_count_of_another_dataset_is_refused() -> None:
    register_models()
    cfg = small_config("PanopticRCNN", **MASKS)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = -1
    things = len(toy.CATEGORIES.things)
    with pytest.raises(ConfigError, match=f"POINT_HEAD.NUM_CLASSES is {THINGS}, but the dataset toy needs {things}"):
        resolve_for_categories(cfg, toy.CATEGORIES, "one", "toy")
