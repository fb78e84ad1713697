"""Mask2Former as an architecture: losses, outputs, and configs that do not fit."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from detectron2.modeling import build_backbone

from segkit.config import load_config
from segkit.engine.inference_options import apply_inference_options
from segkit.engine.training.optimizers import build_optimizer
from segkit.modeling import register_models
from segkit.utils.errors import ConfigError
from tests.helpers import small_queries
from tests.helpers.small_queries import build_config, draw_sample

RESNET = ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.NORM", "BN"]
build = partial(small_queries.build, "Mask2Former")


def test_losses_of_each_layer_are_finite_and_reach_every_weight() -> None:
    model = build().train()
    losses = model([draw_sample(48, 40), draw_sample(30, 64)])
    names = ["loss_class", "loss_mask", "loss_dice"]
    assert sorted(losses) == sorted(f"{name}{end}" for name in names for end in ("", "_0", "_1"))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_outputs_have_the_size_that_is_asked_for() -> None:
    """Images smaller than the coarsest stride are padded."""
    model = build().eval()
    with torch.no_grad():
        first, second = model([{**draw_sample(48, 40), "height": 96, "width": 80}, draw_sample(7, 9)])
    ids, segments = first["panoptic_seg"]
    assert ids.shape == (96, 80)
    assert {info["id"] for info in segments} == set(ids.unique().tolist()) - {0}
    assert first["instances"].pred_masks.shape[1:] == (96, 80)
    assert first["sem_seg"].shape == (3, 96, 80)
    assert second["sem_seg"].shape == (3, 7, 9)


def test_evaluation_computes_the_same_with_its_inference_options() -> None:
    """Batch norms are folded, and feature maps have their channels last."""
    model, inputs = build(*RESNET).eval(), [draw_sample(48, 40)]
    with torch.no_grad():
        expected = model(inputs)[0]["sem_seg"]
        undo = apply_inference_options(build_config("Mask2Former"), model)
        got = model(inputs)[0]["sem_seg"]
    undo()
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("left_out", "keys"),
    [
        ("PANOPTIC_ON", {"instances", "instance_masks", "sem_seg", "head_outputs"}),
        ("INSTANCE_ON", {"panoptic_seg", "sem_seg", "head_outputs"}),
        ("SEMANTIC_ON", {"panoptic_seg", "instances", "instance_masks", "head_outputs"}),
    ],
)
def test_only_the_outputs_that_are_on_are_given(left_out: str, keys: set[str]) -> None:
    model = build(f"MODEL.QUERIES.TEST.{left_out}", False).eval()
    with torch.no_grad():
        (output,) = model([draw_sample(32, 32)])
    assert {*output} == keys


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("MODEL.MASK2FORMER.IN_FEATURES ['res2','res3','res4','res6']", "the levels res2, res3, res4, res5, got res6"),
        ("MODEL.MASK2FORMER.IN_FEATURES ['res3','res4','res5']", "expected 4 levels"),
        ("MODEL.MASK2FORMER.CHANNELS 48", "a multiple of 32 and of MODEL.MASK2FORMER.HEADS 4, got 48"),
        ("MODEL.QUERIES.NUM_CLASSES 4", "NUM_CLASSES is 4, but the dataset has 3 classes"),
        ("MODEL.QUERIES.NUM_CLASSES -1", "no dataset has set it"),
        ("MODEL.QUERIES.NUM_QUERIES 0", "NUM_QUERIES: expected at least 1, got 0"),
        ("MODEL.QUERIES.NUM_POINTS 0", "NUM_POINTS: expected at least 1, got 0"),
        ("MODEL.QUERIES.OVERSAMPLE_RATIO 0.5", "OVERSAMPLE_RATIO: expected at least 1, got 0.5"),
        ("MODEL.QUERIES.IMPORTANCE_SAMPLE_RATIO 2.0", "IMPORTANCE_SAMPLE_RATIO: expected 0 to 1, got 2.0"),
    ],
)
def test_configs_that_do_not_fit_are_refused(options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(*options.split(" ", 1))


def test_one_image_smaller_than_the_stride_is_too_little_for_batch_norm() -> None:
    model = build(*RESNET).train()
    sample = draw_sample(7, 5)
    with pytest.raises(ConfigError, match=r"BatchNorm needs more than one image of up to 32 x 32 pixels .*FrozenBN"):
        model([sample])
    assert all(loss.isfinite() for loss in model([sample, draw_sample(1, 9)]).values())


def test_norms_and_embeddings_have_no_weight_decay() -> None:
    """Learning rate and decay make three groups: the backbone's weights, other weights, and norms with embeddings."""
    cfg = build_config("Mask2Former", "SOLVER.BACKBONE_MULTIPLIER", 0.1)
    model = build(*RESNET)
    groups = build_optimizer(cfg, model).param_groups
    names = {id(weight): name for name, weight in model.named_parameters()}
    decays = {names[id(weight)]: group["weight_decay"] for group in groups for weight in group["params"]}
    rates = {names[id(weight)]: group["lr"] for group in groups for weight in group["params"]}
    assert len(groups) == 4  # the backbone has norms too
    assert decays["sem_seg_head.predictor.query_feat.weight"] == 0
    assert decays["sem_seg_head.predictor.level_embed.weight"] == 0
    assert decays["sem_seg_head.predictor.decoder_norm.weight"] == 0
    assert decays["sem_seg_head.predictor.class_embed.weight"] == 0.05
    assert decays["sem_seg_head.pixel_decoder.transformer.level_embed"] == 0.05  # no Embedding, as in the reference
    assert rates["backbone.res2.0.conv1.weight"] == pytest.approx(1e-4)
    assert rates["sem_seg_head.predictor.class_embed.bias"] == pytest.approx(1e-3)


def test_swin_is_a_backbone_of_four_levels() -> None:
    register_models()
    options = "MODEL.BACKBONE.NAME build_swin_backbone MODEL.SWIN.EMBED_DIM 12 MODEL.SWIN.DEPTHS [1,1,1,1]"
    cfg = load_config(opts=[*options.split(), "MODEL.SWIN.NUM_HEADS", "[1,1,2,2]"])
    backbone = build_backbone(cfg).eval()
    features = backbone(torch.rand(1, 3, 70, 64))  # 70 is no multiple of 32
    assert {name: feature.shape[1:] for name, feature in features.items()} == {
        "res2": (12, 18, 16),
        "res3": (24, 9, 8),
        "res4": (48, 5, 4),
        "res5": (96, 3, 2),
    }
    assert {name: shape.stride for name, shape in backbone.output_shape().items()} == {
        "res2": 4,
        "res3": 8,
        "res4": 16,
        "res5": 32,
    }
