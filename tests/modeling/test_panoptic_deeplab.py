"""PanopticDeepLab against the class of Detectron2's project, in one process, on equal random weights."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.projects.panoptic_deeplab import PanopticDeepLab as TheirModel

from segkit.config import load_config
from segkit.fusion import explanations
from segkit.modeling import center_heads, register_models
from segkit.modeling.center_heads import PROJECT
from segkit.modeling.meta_arch import PanopticDeepLab
from segkit.modeling.postprocessing import centers as center_outputs
from segkit.modeling.postprocessing.view_merging import merge_views
from segkit.utils.errors import ConfigError

STUFF_IDS, THING_IDS = [1, 0, 2, 0, 3], [-1, 0, -1, 1, -1]
THING_CHANNELS, DIVISOR, VOID = [1, 3], 1000, -1
META = "t_panoptic_deeplab"


def small_config(**values: Any) -> Any:
    """R-18 with three levels; "__" in a name of `values` stands for a dot."""
    register_models()
    cfg = load_config()
    options = """MODEL.DEVICE cpu MODEL.META_ARCHITECTURE PanopticDeepLab MODEL.BACKBONE.NAME build_resnet_backbone
        MODEL.BACKBONE.FREEZE_AT 0 MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.RESNETS.NORM GN
        MODEL.SEM_SEG_HEAD.NAME PanopticDeepLabSemSegHead MODEL.SEM_SEG_HEAD.NUM_CLASSES 5 MODEL.SEM_SEG_HEAD.NORM GN
        MODEL.SEM_SEG_HEAD.CONVS_DIM 32 MODEL.SEM_SEG_HEAD.ASPP_CHANNELS 32 MODEL.SEM_SEG_HEAD.HEAD_CHANNELS 32
        MODEL.SEM_SEG_HEAD.ASPP_DROPOUT 0.0 MODEL.INS_EMBED_HEAD.ASPP_DROPOUT 0.0 MODEL.INS_EMBED_HEAD.NORM GN
        MODEL.INS_EMBED_HEAD.CONVS_DIM 32 MODEL.INS_EMBED_HEAD.ASPP_CHANNELS 32 MODEL.INS_EMBED_HEAD.HEAD_CHANNELS 32
        MODEL.PANOPTIC_DEEPLAB.STUFF_AREA 100 MODEL.PANOPTIC_DEEPLAB.NMS_KERNEL 13"""
    cfg.merge_from_list(options.split())
    for node in (cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.INS_EMBED_HEAD):
        node.IN_FEATURES, node.PROJECT_CHANNELS, node.ASPP_DILATIONS = ["res2", "res3", "res4"], [32, 32], [1, 2, 3]
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4"]
    cfg.MODEL.PANOPTIC.STUFF_IDS, cfg.MODEL.PANOPTIC.THING_IDS = STUFF_IDS, THING_IDS
    cfg.DATASETS.TRAIN = (META,)
    cfg.merge_from_list([word for key, value in values.items() for word in (key.replace("__", "."), value)])
    meta = MetadataCatalog.get(META)
    meta.thing_dataset_id_to_contiguous_id, meta.label_divisor = {i: i for i in THING_CHANNELS}, DIVISOR
    return cfg


def twins(**values: Any) -> tuple[Any, Any]:
    """The model of Detectron2's project and ours, with equal weights that make many centers."""
    cfg = small_config(**values)
    torch.manual_seed(3)
    theirs, ours = TheirModel(cfg), build_model(cfg)
    assert type(ours) is PanopticDeepLab
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "predictor" in name:
                weight.normal_(0, 3.0 if "offset" in name else 0.5)
    assert ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def images(sizes_hw: tuple[tuple[int, int], ...] = ((64, 96), (80, 64)), scale: float = 1.0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand((3, *size), generator=generator) * 255,
            "height": int(size[0] * scale),
            "width": int(size[1] * scale),
        }
        for size in sizes_hw
    ]


def targets(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    for item in batch:
        height, width = item["image"].shape[1:]
        item["sem_seg"] = torch.randint(0, 6, (height, width), generator=generator)
        item["sem_seg"][item["sem_seg"] == 5] = 255
        shapes = {"sem_seg_weights": (), "center": (), "center_weights": (1,), "offset": (2,), "offset_weights": (1,)}
        for name, first in shapes.items():
            item[name] = torch.rand((*first, height, width), generator=generator)
    return batch


def assert_same_segments(ours: Any, theirs: torch.Tensor) -> None:
    """Segment ids correspond one to one, and corresponding segments have the same class."""
    ids, infos = ours["panoptic_seg"]
    pairs = {*zip(ids.flatten().tolist(), theirs.flatten().tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert {i for i, _ in pairs} - {0} == {info["id"] for info in infos}
    by_id = {info["id"]: info for info in infos}
    for segment_id, label in pairs:
        if segment_id == 0:
            assert label == VOID
            continue
        channel, info = label // DIVISOR, by_id[segment_id]
        assert info["isthing"] == (channel in THING_CHANNELS)
        assert info["category_id"] == (THING_IDS if info["isthing"] else STUFF_IDS)[channel]


def test_equal_views_are_merged_to_what_the_model_gives() -> None:
    model = twins()[1].eval()
    with torch.no_grad():
        (expected,) = model(images()[:1])
        heads = model.compute_heads(images()[:1])
        (alone,) = map(model.fuse_heads, heads)
        merged = model.fuse_heads(merge_views(heads * 2, -1))
    assert len(expected["instances"]) > 3
    for output in (alone, merged):
        assert torch.equal(output["panoptic_seg"][0], expected["panoptic_seg"][0])
        torch.testing.assert_close(output["instances"].scores, expected["instances"].scores)
        torch.testing.assert_close(output["sem_seg"].softmax(0), expected["sem_seg"].softmax(0))


def test_the_same_weights_and_images_give_detectron2s_outputs() -> None:
    theirs, ours = (model.eval() for model in twins())
    with torch.no_grad():
        expected, got = theirs(images()), ours(images())
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a["sem_seg"], b["sem_seg"])
        assert_same_segments(b, a["panoptic_seg"][0])
        assert len(a["instances"]) == len(b["instances"]) > 3
        rows = [  # of theirs for each of ours, which are in another order
            (a["instances"].pred_masks == mask).flatten(1).all(1).nonzero().item() for mask in b["instances"].pred_masks
        ]
        assert {*rows} == {*range(len(a["instances"]))}
        assert torch.equal(a["instances"].pred_boxes.tensor[rows], b["instances"].pred_boxes.tensor)
        torch.testing.assert_close(a["instances"].scores[rows], b["instances"].scores)
        classes = [THING_IDS[channel] for channel in a["instances"].pred_classes[rows].tolist()]
        assert b["instances"].pred_classes.tolist() == classes
        assert np.array_equal(b["instance_masks"].to_full(), b["instances"].pred_masks.numpy())
        assert b["instance_masks"].scores.tolist() == b["instances"].scores.tolist()


def test_the_same_weights_and_targets_give_detectron2s_losses_and_gradients() -> None:
    theirs, ours = (model.train() for model in twins())
    losses = [model(targets(images())) for model in (theirs, ours)]
    assert list(losses[0]) == list(losses[1]) == ["loss_sem_seg", "loss_center", "loss_offset"]
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    for each in losses:
        sum(each.values()).backward()
    gradients = dict(theirs.named_parameters())
    assert all(torch.equal(weight.grad, gradients[name].grad) for name, weight in ours.named_parameters())


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_offsets_are_scaled_to_the_output(scale: float) -> None:
    """Detectron2's post-processing gives our map for scaled offsets; its model leaves them in pixels of the image."""
    _, ours = twins()
    with torch.no_grad():
        (output,) = ours.eval()(images(((64, 96),), scale))
        (plain,) = ours(images(((64, 96),)))
    centers = output["head_outputs"].centers
    small = torch.from_numpy(plain["head_outputs"].centers.offsets_yx)[None] * scale
    size_hw = centers.heatmap.shape
    expected = torch.nn.functional.interpolate(small, size=size_hw, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(centers.offsets_yx, expected.numpy(), atol=1e-4)
    reference, _ = PROJECT.post_processing.get_panoptic_segmentation(
        output["sem_seg"].argmax(0, keepdim=True),
        torch.from_numpy(centers.heatmap)[None],
        torch.from_numpy(centers.offsets_yx),
        THING_CHANNELS,
        DIVISOR,
        100,
        VOID,
        nms_kernel=13,
    )
    assert_same_segments(output, reference[0])


def test_images_are_padded_to_the_crop_that_the_heads_pool() -> None:
    """A crop of 64 x 96: Detectron2's heads refuse other sizes than multiples of it."""
    theirs, ours = twins(INPUT__CROP__ENABLED=True, INPUT__CROP__TYPE="absolute", INPUT__CROP__SIZE=[64, 96])
    with torch.no_grad():
        expected = theirs.eval()(images(((64, 96),)))[0]
        got = ours.eval()(images(((64, 96),)))[0]
        assert_same_segments(got, expected["panoptic_seg"][0])
        with pytest.raises(ValueError, match="pool_kernel_size"):
            theirs(images(((70, 50),)))
        assert ours(images(((70, 50),)))[0]["sem_seg"].shape == (5, 70, 50)
    assert ours.train()(targets(images(((70, 50),))))["loss_center"] > 0


def test_without_centers_only_stuff_remains() -> None:
    _, ours = twins()
    with torch.no_grad():
        ours.ins_embed_head.center_predictor.weight.zero_()
        (output,) = ours.eval()(images(((64, 96),)))
    assert len(output["instances"]) == len(output["instance_masks"]) == 0
    assert output["instances"].pred_masks.shape == (0, 64, 96)
    infos = output["panoptic_seg"][1]
    assert infos
    assert not any(info["isthing"] for info in infos)


def test_instances_can_be_left_out() -> None:
    _, ours = twins(MODEL__PANOPTIC_DEEPLAB__PREDICT_INSTANCES=False)
    with torch.no_grad():
        assert {*ours.eval()(images())[0]} == {"sem_seg", "panoptic_seg", "head_outputs"}


def test_dropped_stuff_is_explained() -> None:
    _, ours = twins(MODEL__PANOPTIC_DEEPLAB__STUFF_AREA=10**6)
    with torch.no_grad():
        (output,) = ours.eval()(images(((64, 96),)))
    dropped: list[explanations.DroppedSegment] = []
    ours.fusion(output["head_outputs"], dropped)
    assert {segment.reason for segment in dropped} == {"area"}


def test_a_sample_without_targets_is_named_in_the_error() -> None:
    _, ours = twins()
    batch = targets(images())
    del batch[1]["offset"]
    batch[1]["file_name"] = "b.png"
    with pytest.raises(ConfigError, match=r"b\.png has no offset, which PanopticDeepLab needs"):
        ours.train()(batch)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MODEL__SEM_SEG_HEAD__NUM_CLASSES": 4}, r"THING_IDS: the meaning of the 4 semantic channels .* is unknown"),
        ({"MODEL__PANOPTIC__FUSION__NAME": "heuristic"}, "FUSION.NAME: PanopticDeepLab has centers and no masks"),
        ({"MODEL__SEM_SEG_HEAD__LOSS_TYPE": "cross_entropy"}, "set .*LOSS_TYPE hard_pixel_mining and LOSS_TOP_K 1.0"),
        (
            {"MODEL__SEM_SEG_HEAD__NAME": "SemSegFPNHead"},
            "needs a semantic head that weights pixels, got SemSegFPNHead",
        ),
        ({"INPUT__CROP__ENABLED": True}, r"INPUT\.CROP\.TYPE: expected absolute"),
        ({"MODEL__PANOPTIC_DEEPLAB__USE_DEPTHWISE_SEPARABLE_CONV": True}, "to be equal in both heads"),
        ({"MODEL__SEM_SEG_HEAD__LOSSES": ["dice"]}, "PanopticDeepLab has a semantic loss of its own"),
        ({"MODEL__SEM_SEG_HEAD__PROJECT_CHANNELS": [32]}, "heads do not fit .*: Expected 2 project_channels, got 1"),
    ],
)
def test_keys_that_contradict_each_other_are_clear_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(small_config(**values))


def test_nan_weights_are_a_clear_error() -> None:
    _, ours = twins()
    with torch.no_grad():
        ours.ins_embed_head.center_predictor.bias.fill_(torch.nan)
        with pytest.raises(ValueError, match="did the training diverge"):
            ours.eval()(images())


def test_head_outputs_hold_no_instances() -> None:
    none = center_outputs.build_no_instances((3, 4))
    assert len(none) == 0
    assert none.size_hw == (3, 4)


def test_detectron2s_heads_are_imported_without_panopticapi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mapper, in the same package, imports a function of panopticapi, which is not required."""

    def import_module(name: str) -> Any:
        assert name == "detectron2.projects.panoptic_deeplab"
        return sys.modules["panopticapi.utils"].rgb2id

    for name in ("panopticapi", "panopticapi.utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        patch.setattr(importlib, "import_module", import_module)
        convert = center_heads._import_project()
    assert convert(np.array([[[1, 2, 3]]], dtype=np.uint8)).tolist() == [[1 + 2 * 256 + 3 * 256**2]]
    assert not {"panopticapi", "panopticapi.utils"} & {*sys.modules}
