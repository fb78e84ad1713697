"""PanopticRCNN against Detectron2's PanopticFPN, in one process, on random weights that make many instances."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2 import model_zoo
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from segkit.data.catalog import get_categories
from segkit.data.class_counts import resolve_for_categories
from segkit.engine.setup import read_config
from segkit.fusion import HeuristicFusion
from segkit.modeling import register_models
from segkit.modeling.meta_arch import PanopticRCNN
from segkit.utils.errors import ConfigError
from tests.helpers.rounding import assert_equal_panoptic, find_unsure_mask_pixels
from tests.helpers.small_models import CASCADE, STANDARD, images, small_config, targets, twins


@pytest.mark.parametrize("roi_heads", [STANDARD, CASCADE])
def test_the_same_weights_and_images_give_detectron2s_outputs(roi_heads: str) -> None:
    theirs, ours = (model.eval() for model in twins(roi_heads))
    with torch.no_grad():
        expected, got = theirs(images()), ours(images())
    for a, b in zip(expected, got, strict=True):
        assert len(a["instances"]) > 20
        assert set(a["instances"].get_fields()) == set(b["instances"].get_fields())
        for field, value in a["instances"].get_fields().items():
            mine = b["instances"].get(field)
            value, mine = (v.tensor if isinstance(v, Boxes) else v for v in (value, mine))
            assert value.dtype == mine.dtype
            if field == "pred_masks":
                assert not ((value != mine).numpy() & ~find_unsure_mask_pixels(b["instance_masks"])).any()
            else:
                assert torch.equal(value, mine), field
        assert torch.equal(a["sem_seg"], b["sem_seg"])
        assert_equal_panoptic(a, b, ours=b)
        assert {s["isthing"] for s in b["panoptic_seg"][1]} == {True, False}
        assert torch.equal(torch.from_numpy(b["instance_masks"].to_full()), b["instances"].pred_masks)


@pytest.mark.parametrize("roi_heads", [STANDARD, CASCADE])
def test_the_same_weights_and_targets_give_detectron2s_losses(roi_heads: str) -> None:
    theirs, ours = (model.train() for model in twins(roi_heads))
    losses = []
    for model in (theirs, ours):
        torch.manual_seed(0)  # the proposals and regions are sampled
        with EventStorage():
            losses.append(model(targets(images())))
    assert list(losses[0]) == list(losses[1])
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_heads_outputs_without_postprocessing() -> None:
    theirs, ours = (model.eval() for model in twins())
    with torch.no_grad():
        expected, got = (m.inference(images(), do_postprocess=False) for m in (theirs, ours))
    assert torch.equal(expected[1], got[1])
    assert torch.equal(expected[0][0].pred_masks, got[0][0].pred_masks)


def test_without_detections_only_stuff_remains() -> None:
    _, ours = twins()
    ours.eval().roi_heads.box_predictor.test_score_thresh = 2.0
    with torch.no_grad():
        (output,) = ours(images(1))
    assert len(output["instances"]) == 0
    assert output["instances"].pred_masks.shape == (0, 144, 192)
    assert not any(s["isthing"] for s in output["panoptic_seg"][1])


def test_a_channel_per_class_gives_the_same_panoptic_map_as_its_stuff() -> None:
    """Channels 0..5 in another order given by stuff_ids: the fused map does not change."""
    _, ours = twins()
    with torch.no_grad():
        before = ours.eval()(images(1))[0]["panoptic_seg"]
        order = [3, 0, 5, 1, 4, 2]
        ours.stuff_ids = torch.tensor(order)
        predictor = ours.sem_seg_head.predictor
        predictor.weight.copy_(predictor.weight[order].clone())
        predictor.bias.copy_(predictor.bias[order].clone())
        after = ours(images(1))[0]["panoptic_seg"]
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]


def test_built_from_parts_without_a_config() -> None:
    _, parts = twins()
    model = PanopticRCNN(
        backbone=parts.backbone,
        proposal_generator=parts.proposal_generator,
        roi_heads=parts.roi_heads,
        sem_seg_head=parts.sem_seg_head,
        fusion=HeuristicFusion(stuff_area_limit_px=100, instance_score_threshold=0.05),
        pixel_mean=(103.53, 116.28, 123.675),
        pixel_std=(1.0, 1.0, 1.0),
    ).eval()
    with torch.no_grad():
        expected, got = parts.eval()(images(1))[0], model(images(1))[0]
    assert torch.equal(expected["panoptic_seg"][0], got["panoptic_seg"][0])


def test_an_all_void_batch_gives_no_semantic_gradient() -> None:
    _, ours = twins()
    batch = targets(images())
    for item in batch:
        item["sem_seg"][:] = 255
    with EventStorage():
        losses = ours.train()(batch)
    assert losses["loss_sem_seg"] == 0
    sum(losses.values()).backward()
    gradients = [weight.grad for weight in ours.sem_seg_head.parameters()]  # there, for processes that wait for them
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_an_image_without_semantic_ground_truth_is_named_in_the_error() -> None:
    _, ours = twins()
    batch = targets(images())
    del batch[1]["sem_seg"]
    batch[1]["file_name"] = "b.png"
    with pytest.raises(ConfigError, match=r"b\.png has no semantic labels"):
        ours.train()(batch)


def test_a_config_without_masks_is_rejected() -> None:
    register_models()
    cfg = small_config("PanopticRCNN")
    cfg.MODEL.MASK_ON = False
    with pytest.raises(ConfigError, match="MASK_ON"):
        build_model(cfg)


def test_instance_loss_weight_scales_box_and_mask_losses() -> None:
    theirs_cfg = small_config("PanopticFPN")
    theirs_cfg.MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT = 0.5
    ours_cfg = copy.deepcopy(theirs_cfg)
    ours_cfg.MODEL.META_ARCHITECTURE = "PanopticRCNN"
    register_models()
    theirs, ours = build_model(theirs_cfg), build_model(ours_cfg)
    assert theirs.roi_heads.box_predictor.loss_weight == ours.roi_heads.box_predictor.loss_weight
    assert theirs.roi_heads.mask_head.loss_weight == ours.roi_heads.mask_head.loss_weight == 0.5


def test_detectron2s_panoptic_fpn_configs_run_by_changing_the_architecture() -> None:
    """Its R50 config, read by Detectron2 and by us: the same parameters, so that its zoo weights load strictly."""
    name = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"
    theirs_cfg = model_zoo.get_config(name)
    ours_cfg = read_config(model_zoo.get_config_file(name), ["MODEL.META_ARCHITECTURE", "PanopticRCNN"])
    resolve_for_categories(ours_cfg, get_categories(ours_cfg.DATASETS.TRAIN[0]), "one", "COCO")
    for cfg in (theirs_cfg, ours_cfg):
        cfg.MODEL.DEVICE = "cpu"
    theirs, ours = build_model(theirs_cfg).state_dict(), build_model(ours_cfg).state_dict()
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}
