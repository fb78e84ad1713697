"""Semantic heads: U-Net and DeepLab, their losses and auxiliary heads, alone and in PanopticRCNN."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model, build_sem_seg_head
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.utils.events import EventStorage

from segkit.config import add_segkit_config, load_config
from segkit.modeling import register_models
from segkit.modeling.backbones.unet import UNetEncoder, mirror_edges
from segkit.modeling.semantic_heads import UNetHead, build_semantic_head
from segkit.utils.errors import ConfigError
from tests.helpers.small_models import SEMANTIC, images, small_config, targets

UNET = """MODEL.BACKBONE.NAME build_unet_backbone MODEL.UNET.CHANNELS 4 MODEL.UNET.DEPTH 3
    MODEL.SEM_SEG_HEAD.NAME UNetHead MODEL.SEM_SEG_HEAD.COMMON_STRIDE 1
    MODEL.SEM_SEG_HEAD.IN_FEATURES ['enc1','enc2','enc3','enc4'] MODEL.SEM_SEG_HEAD.NORM BN"""
UNET_IN_RCNN = f"""{UNET} MODEL.ANCHOR_GENERATOR.SIZES [[16,32,64]]
    MODEL.RPN.IN_FEATURES ['enc4'] MODEL.ROI_HEADS.IN_FEATURES ['enc3']"""
UNET_ON_FPN = "MODEL.SEM_SEG_HEAD.NAME UNetHead"
DEEPLAB_ON_FPN = """MODEL.SEM_SEG_HEAD.NAME DeepLabV3PlusHead MODEL.SEM_SEG_HEAD.IN_FEATURES ['p2','p4']
    MODEL.SEM_SEG_HEAD.ASPP_CHANNELS 32 MODEL.SEM_SEG_HEAD.ASPP_DILATIONS [1,2,3]
    MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS [32]"""
# A ResNet-50 of a quarter of the channels, output stride 16.
DEEPLAB = """MODEL.BACKBONE.NAME build_resnet_deeplab_backbone MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.STEM_OUT_CHANNELS 16
    MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.RESNETS.RES2_OUT_CHANNELS 32 MODEL.RESNETS.NORM BN
    MODEL.RESNETS.RES5_DILATION 2 MODEL.RESNETS.OUT_FEATURES ['res2','res5'] MODEL.SEM_SEG_HEAD.NORM BN
    MODEL.SEM_SEG_HEAD.NAME DeepLabV3PlusHead MODEL.SEM_SEG_HEAD.IN_FEATURES ['res2','res5']
    MODEL.SEM_SEG_HEAD.ASPP_CHANNELS 32 MODEL.SEM_SEG_HEAD.ASPP_DILATIONS [1,2,3]"""
DEEPLAB_IN_RCNN = f"""{DEEPLAB} MODEL.ANCHOR_GENERATOR.SIZES [[32,64,128]]
    MODEL.RPN.IN_FEATURES ['res5'] MODEL.ROI_HEADS.IN_FEATURES ['res5']"""
DEEPLAB_V3 = f"""{DEEPLAB} MODEL.SEM_SEG_HEAD.NAME DeepLabV3Head MODEL.SEM_SEG_HEAD.IN_FEATURES ['res5']
    MODEL.SEM_SEG_HEAD.COMMON_STRIDE 8 MODEL.RESNETS.RES4_DILATION 2 MODEL.RESNETS.RES5_DILATION 4"""


FEW_REGIONS = """MODEL.RPN.POST_NMS_TOPK_TRAIN 20 MODEL.RPN.POST_NMS_TOPK_TEST 5
    MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 4 TEST.DETECTIONS_PER_IMAGE 5"""


def config(architecture: str, options: str = "") -> Any:
    cfg = small_config(architecture)
    cfg.merge_from_list(f"{FEW_REGIONS} {options}".split())
    return cfg


def train_and_predict(cfg: Any) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Losses of two images, whose gradients are finite, and the outputs."""
    register_models()
    torch.manual_seed(0)
    model = build_model(cfg)
    with EventStorage():
        losses = model.train()(targets(images()))
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.sem_seg_head.parameters())
    with torch.no_grad():
        return losses, model.eval()(images())


@pytest.mark.parametrize("options", [UNET, UNET_ON_FPN, DEEPLAB, DEEPLAB_V3], ids=["unet", "fpn", "v3+", "v3 os8"])
def test_alone_in_both_modes(options: str) -> None:
    losses, outputs = train_and_predict(config("SemanticSegmentor", options))
    assert set(losses) == {"loss_sem_seg"}
    assert [tuple(output["sem_seg"].shape) for output in outputs] == [(SEMANTIC, 144, 192), (SEMANTIC, 100, 75)]


@pytest.mark.parametrize("options", [UNET_IN_RCNN, UNET_ON_FPN, DEEPLAB_IN_RCNN, DEEPLAB_ON_FPN])
def test_in_panoptic_rcnn_in_both_modes(options: str) -> None:
    losses, outputs = train_and_predict(config("PanopticRCNN", options))
    assert {"loss_sem_seg", "loss_mask", "loss_rpn_cls"} <= set(losses)
    assert [tuple(output["panoptic_seg"][0].shape) for output in outputs] == [(144, 192), (100, 75)]
    assert [tuple(output["sem_seg"].shape) for output in outputs] == [(SEMANTIC, 144, 192), (SEMANTIC, 100, 75)]


@pytest.mark.parametrize("architecture", ["PanopticRCNN", "PanopticFPN"])
def test_losses_and_auxiliary_heads_of_the_config(architecture: str) -> None:
    options = "MODEL.SEM_SEG_HEAD.LOSSES ['focal','lovasz'] MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURES ['p4']"
    losses, _ = train_and_predict(config(architecture, options))
    semantic = {name for name in losses if name.startswith("loss_sem_seg")}
    assert semantic == {"loss_sem_seg_focal", "loss_sem_seg_lovasz", "loss_sem_seg_aux_p4"}


def test_point_rend_takes_losses_for_its_coarse_logits_and_keeps_those_of_its_points() -> None:
    options = f"""MODEL.SEM_SEG_HEAD.NAME PointRendSemSegHead MODEL.POINT_HEAD.NUM_CLASSES {SEMANTIC}
        MODEL.POINT_HEAD.SUBDIVISION_STEPS 2 MODEL.POINT_HEAD.FC_DIM 16
        MODEL.SEM_SEG_HEAD.LOSSES ['cross_entropy','dice']"""
    losses, outputs = train_and_predict(config("SemanticSegmentor", options))
    assert set(losses) == {"loss_sem_seg", "loss_sem_seg_dice", "loss_sem_seg_point"}
    assert tuple(outputs[0]["sem_seg"].shape) == (SEMANTIC, 144, 192)


def test_an_auxiliary_loss_is_weighted() -> None:
    register_models()
    shapes = {"p2": ShapeSpec(channels=32, stride=4), "p4": ShapeSpec(channels=32, stride=16)}
    features = {level: torch.randn(1, 32, 64 // s.stride, 64 // s.stride) for level, s in shapes.items()}
    values = []
    for weight in (1.0, 0.25):
        cfg = config("SemanticSegmentor", f"MODEL.SEM_SEG_HEAD.AUXILIARY.LOSS_WEIGHT {weight}")
        cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES, cfg.MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURES = ["p2"], ["p4"]
        torch.manual_seed(0)
        head = build_semantic_head(cfg, shapes).train()
        values.append(head(features, torch.full((1, 64, 64), 3))[1]["loss_sem_seg_aux_p4"].item())
    assert values[1] == pytest.approx(values[0] / 4)
    assert "auxiliary.p4.predictor.weight" in head.state_dict()


@pytest.mark.parametrize("options", ["", UNET, DEEPLAB, "MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURES ['p3']"])
def test_a_batch_without_labels_gives_no_gradient(options: str) -> None:
    register_models()
    model = build_model(config("SemanticSegmentor", options)).train()
    batch = targets(images())
    for item in batch:
        item["sem_seg"][:] = 255
    losses = model(batch)
    sum(losses.values()).backward()
    assert all(loss.item() == 0 for loss in losses.values())
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_losses_move_and_are_copied_with_the_model() -> None:
    register_models()
    cfg = config("SemanticSegmentor")
    cfg.MODEL.SEM_SEG_HEAD.LOSSES = [{"name": "cross_entropy", "class_weights": [1.0] * SEMANTIC}]
    model = build_model(cfg)
    twin = copy.deepcopy(model).double().train()
    assert twin.sem_seg_head.losses is twin.sem_seg_head.loss_terms
    assert twin.sem_seg_head.losses.terms["loss_sem_seg"].weights.dtype == torch.float64
    with torch.no_grad():
        twin.sem_seg_head.predictor.weight.zero_()
        twin.sem_seg_head.predictor.bias.zero_()
    assert twin.float()(targets(images()))["loss_sem_seg"].item() == pytest.approx(torch.tensor(6.0).log().item())
    assert model.sem_seg_head.predictor.weight.any()


def deeplab_twins(head: str) -> tuple[Any, Any]:
    """The head as Detectron2 builds it, from its own config, and ours, with equal random weights."""
    register_models()
    v3 = head == "DeepLabV3Head"
    levels, stride = (["res5"], 16) if v3 else (["res2", "res5"], 4)
    options = f"""MODEL.SEM_SEG_HEAD.NAME {head} MODEL.SEM_SEG_HEAD.NUM_CLASSES 5 MODEL.SEM_SEG_HEAD.NORM BN
        MODEL.SEM_SEG_HEAD.CONVS_DIM 16 MODEL.SEM_SEG_HEAD.ASPP_CHANNELS 16 MODEL.SEM_SEG_HEAD.ASPP_DROPOUT 0.0
        MODEL.SEM_SEG_HEAD.COMMON_STRIDE {stride} MODEL.SEM_SEG_HEAD.LOSS_WEIGHT 0.5""".split()
    heads = []
    for add_keys, build in ((add_deeplab_config, build_sem_seg_head), (add_segkit_config, build_semantic_head)):
        cfg = get_cfg()
        add_keys(cfg)
        cfg.merge_from_list(options)
        cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = levels
        shapes = {"res2": ShapeSpec(channels=8, stride=4), "res5": ShapeSpec(channels=12, stride=16)}
        heads.append(build(cfg, {level: shapes[level] for level in levels}))
    theirs, ours = heads
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.copy_(torch.randn_like(weight) * 0.3)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


@pytest.mark.parametrize("head", ["DeepLabV3Head", "DeepLabV3PlusHead"])
def test_deeplab_heads_give_detectron2s_logits_and_losses(head: str) -> None:
    theirs, ours = deeplab_twins(head)
    features = {"res2": torch.randn(2, 8, 16, 24), "res5": torch.randn(2, 12, 4, 6)}
    labels = torch.randint(0, 5, (2, 64, 96)).where(torch.rand(2, 64, 96) > 0.1, 255)
    expected, got = (twin.train()(features, labels)[1] for twin in (theirs, ours))
    assert torch.equal(expected["loss_sem_seg"], got["loss_sem_seg"])
    with torch.no_grad():
        expected, got = (twin.eval()(features)[0] for twin in (theirs, ours))
    assert torch.equal(expected, got)
    assert tuple(got.shape) == (2, 5, 64, 96)


def test_detectron2s_deeplab_config_gives_its_parameters() -> None:
    """Its keys of Cityscapes' DeepLabV3+ with ResNet-103, read by Detectron2 and by us: its weights load strictly."""
    text = """MODEL.META_ARCHITECTURE SemanticSegmentor MODEL.BACKBONE.NAME build_resnet_deeplab_backbone
        MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.NORM BN MODEL.RESNETS.OUT_FEATURES ['res2','res5']
        MODEL.RESNETS.RES5_DILATION 2 MODEL.RESNETS.RES5_MULTI_GRID [1,2,4] MODEL.RESNETS.STEM_TYPE deeplab
        MODEL.RESNETS.STEM_OUT_CHANNELS 128 MODEL.RESNETS.STRIDE_IN_1X1 False MODEL.SEM_SEG_HEAD.NUM_CLASSES 19
        MODEL.SEM_SEG_HEAD.NAME DeepLabV3PlusHead MODEL.SEM_SEG_HEAD.IN_FEATURES ['res2','res5']
        MODEL.SEM_SEG_HEAD.PROJECT_FEATURES ['res2'] MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS [48]
        MODEL.SEM_SEG_HEAD.CONVS_DIM 256 MODEL.SEM_SEG_HEAD.NORM BN INPUT.CROP.ENABLED True INPUT.CROP.TYPE absolute
        INPUT.CROP.SIZE (512,1024) INPUT.CROP.SINGLE_CATEGORY_MAX_AREA 1.0 SOLVER.LR_SCHEDULER_NAME WarmupPolyLR
        SOLVER.POLY_LR_CONSTANT_ENDING 0.0"""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    cfg.merge_from_list(text.split())
    backbone = build_backbone(cfg)
    expected = {f"backbone.{k}": v.shape for k, v in backbone.state_dict().items()}
    head = build_sem_seg_head(cfg, backbone.output_shape()).state_dict()
    expected |= {f"sem_seg_head.{k}": v.shape for k, v in head.items()}
    ours = build_model(load_config(opts=text.split())).state_dict()
    assert {k: v.shape for k, v in ours.items()} == expected


def test_the_network_of_2015_has_its_parameters() -> None:
    """Ronneberger et al. 2015, figure 1, for one channel and two classes.

    3x3 convolutions from a to b channels have 9 a b + b parameters, 2x2 up-convolutions 4 a b + b: downwards 640 +
    36,928 + 73,856 + 147,584 + 295,168 + 590,080 + 1,180,160 + 2,359,808 + 4,719,616 + 9,438,208 = 18,842,048.
    """
    encoder = UNetEncoder(in_channels=1)
    head = UNetHead(encoder.output_shape(), num_classes=2)

    def double(a: int, b: int) -> int:
        return 9 * a * b + b + 9 * b * b + b

    down = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    assert sum(p.numel() for p in encoder.parameters()) == sum(double(a, b) for a, b in down) == 18_842_048
    up = [512, 256, 128, 64]  # each from twice as many channels, of which half are the skip connection
    count = sum(4 * 2 * b * b + b + double(2 * b, b) for b in up) + 64 * 2 + 2
    assert sum(p.numel() for p in head.parameters()) == count
    assert set(head.state_dict()) == {
        *(
            f"decoder.enc{n}.{layer}.{kind}"
            for n in (1, 2, 3, 4)
            for layer in ("up", "convs.0", "convs.1")
            for kind in ("weight", "bias")
        ),
        "predictor.weight",
        "predictor.bias",
    }


def test_same_padding_takes_any_size_without_padding_the_image() -> None:
    """Levels are rounded up: 13 and 30 pixels become 7 and 15, 4 and 8, 2 and 4, 1 and 2."""
    encoder = UNetEncoder(in_channels=1, channels=1)
    head = UNetHead(encoder.output_shape(), num_classes=2).eval()
    assert encoder.size_divisibility == 0
    with torch.no_grad():
        features = encoder(torch.rand(1, 1, 13, 30))
        sizes = [tuple(features[f"enc{n}"].shape[2:]) for n in (1, 2, 3, 4, 5)]
        assert sizes == [(13, 30), (7, 15), (4, 8), (2, 4), (1, 2)]
        assert tuple(head(features)[0].shape) == (1, 2, 13, 30)


def test_valid_padding_has_the_sizes_of_2015() -> None:
    """Figure 1: 388 pixels need 572; the levels have 568, 280, 136, 64 and 28 pixels, the output 388."""
    encoder = UNetEncoder(in_channels=1, channels=1, padding="valid")
    head = UNetHead(encoder.output_shape(), num_classes=2, padding="valid").eval()
    with torch.no_grad():
        features = encoder(torch.rand(1, 1, 388, 388))
        assert [features[f"enc{n}"].shape[2] for n in (1, 2, 3, 4, 5)] == [568, 280, 136, 64, 28]
        assert tuple(head(features)[0].shape) == (1, 2, 388, 388)
        # The outputs have 16 c - 60 pixels: at least as many as the image, up to 15 more, right and below.
        assert tuple(head(encoder(torch.rand(1, 1, 380, 375)))[0].shape) == (1, 2, 388, 388)
        assert tuple(head(encoder(torch.rand(1, 1, 30, 1)))[0].shape) == (1, 2, 36, 4)


def test_images_are_mirrored_as_often_as_needed() -> None:
    """Depth 1: 12 * 2 - 8 = 16 pixels, 8 on each side; 3 pixels give outputs of 2 c - 4 = 4, 1 more."""
    row = mirror_edges(torch.tensor([0.0, 1, 2]).expand(1, 1, 3, 3), depth=1)[0, 0, 0]
    assert row.tolist() == [0, 1, 2, 1] * 5
    assert row[8:11].tolist() == [0, 1, 2]


def test_valid_padding_keeps_the_pixels_in_place() -> None:
    """Each map is averaged with weights of 1: the output is bright around the one bright pixel, and symmetric."""
    encoder = UNetEncoder(in_channels=1, channels=1, depth=1, padding="valid")
    head = UNetHead(encoder.output_shape(), num_classes=1, padding="valid").eval()
    with torch.no_grad():
        for part in (encoder, head):
            for name, weight in part.named_parameters():
                weight.fill_(float("weight" in name))
        head.decoder["enc1"].up.weight.zero_()  # the skip connection alone: four 3x3 sums, 9 pixels wide
        image = torch.zeros(1, 1, 20, 20)
        image[0, 0, 12, 6] = 1
        logits = head(encoder(image))[0][0, 0]
    rows, columns = (logits > 0).nonzero(as_tuple=True)
    assert (rows.min().item(), rows.max().item()) == (8, 16)
    assert (columns.min().item(), columns.max().item()) == (2, 10)
    assert logits.argmax().item() == 12 * logits.shape[1] + 6


def test_valid_padding_alone_in_both_modes() -> None:
    losses, outputs = train_and_predict(config("SemanticSegmentor", f"{UNET} MODEL.UNET.PADDING valid"))
    assert losses["loss_sem_seg"].isfinite()
    assert [tuple(output["sem_seg"].shape) for output in outputs] == [(SEMANTIC, 144, 192), (SEMANTIC, 100, 75)]


def test_a_decoder_reaches_below_the_finest_level() -> None:
    shapes = {"a": ShapeSpec(channels=64, stride=4), "b": ShapeSpec(channels=8, stride=16)}
    head = UNetHead(shapes, num_classes=3, common_stride=1, channels=[40]).eval()
    assert {name: tuple(stage.up.weight.shape) for name, stage in head.decoder.items()} == {
        "a": (8, 40, 4, 4),
        "stride2": (40, 20, 2, 2),
        "stride1": (20, 16, 2, 2),
    }
    features = {"a": torch.rand(1, 64, 5, 7), "b": torch.rand(1, 8, 2, 2)}  # rounded up: 18 x 26 pixels
    assert tuple(head(features)[0].shape) == (1, 3, 20, 28)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("MODEL.SEM_SEG_HEAD.NAME UnetHead", "the semantic head 'UnetHead' is unknown; did you mean 'UNetHead'"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES ['p2','p9']", "IN_FEATURES: expected levels of the backbone, got 'p9'"),
        ("MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURES ['res4']", "AUXILIARY.IN_FEATURES: expected levels"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES []", "got none"),
        ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE 8", "COMMON_STRIDE: expected at most 4, got 8"),
        ("INPUT.MIN_SIZE_TRAIN (16,)", "MIN_SIZE_TRAIN: expected at least the stride 32 .* got 16"),
        ("INPUT.MIN_SIZE_TEST 24", "MIN_SIZE_TEST: expected at least the stride 32"),
        ("INPUT.LSJ.ENABLED True INPUT.LSJ.SIZE 16", "LSJ.SIZE: expected at least the stride 32"),
        (f"{UNET_ON_FPN} MODEL.SEM_SEG_HEAD.COMMON_STRIDE 3", "COMMON_STRIDE: expected the stride 4 of the finest"),
        (f"{UNET_ON_FPN} MODEL.UNET.DECODER_CHANNELS [8]", "expected 3 numbers, one for each level but the coarsest"),
        (f"{UNET_ON_FPN} MODEL.UNET.PADDING valid", "valid needs MODEL.BACKBONE.NAME build_unet_backbone"),
        (f"{UNET} MODEL.UNET.PADDING full", "MODEL.UNET.PADDING: expected same or valid, got 'full'"),
        (f"{UNET} MODEL.UNET.DEPTH 0", "MODEL.UNET.DEPTH: expected a whole number above 0"),
        (f"{UNET} MODEL.UNET.NORM GN", "MODEL.UNET.NORM 'GN' is not possible with 4 channels"),
        (f"{UNET} MODEL.SEM_SEG_HEAD.NORM GN", "UNetHead cannot be built: num_channels"),
        (f"{DEEPLAB_ON_FPN} MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS [8,8]", "PROJECT_CHANNELS: expected 1 numbers"),
        (f"{DEEPLAB_ON_FPN} MODEL.SEM_SEG_HEAD.COMMON_STRIDE 2", "COMMON_STRIDE: expected 4, the finest, got 2"),
        (f"{DEEPLAB_ON_FPN} MODEL.SEM_SEG_HEAD.ASPP_DILATIONS [6]", "ASPP_DILATIONS: expected three numbers"),
        (f"{DEEPLAB_ON_FPN} MODEL.SEM_SEG_HEAD.LOSS_TYPE focal", "LOSS_TYPE: expected cross_entropy or hard"),
        (f"{DEEPLAB_ON_FPN} INPUT.CROP.ENABLED True", "INPUT.CROP: expected absolute sides"),
        (f"{DEEPLAB_V3} MODEL.SEM_SEG_HEAD.CONVS_DIM 16", "CONVS_DIM: expected ASPP_CHANNELS, 32, got 16"),
        (f"{DEEPLAB_V3} MODEL.SEM_SEG_HEAD.IN_FEATURES ['res2','res5']", "IN_FEATURES: expected levels"),
        (f"{DEEPLAB} MODEL.RESNETS.DEPTH 18", "MODEL.RESNETS.DEPTH: .* expects one of 50, 101, 152, got 18"),
        (f"{DEEPLAB} MODEL.RESNETS.RES4_DILATION 2", "RES4_DILATION and RES5_DILATION"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_training(options: str, message: str) -> None:
    register_models()
    if options.startswith(DEEPLAB_V3) and "res2" in options:
        options = f"{options} MODEL.RESNETS.OUT_FEATURES ['res5']"
    with pytest.raises(ConfigError, match=message):
        build_model(config("SemanticSegmentor", options))


def test_valid_padding_is_refused_in_panoptic_rcnn() -> None:
    register_models()
    with pytest.raises(ConfigError, match=r"valid needs MODEL\.META_ARCHITECTURE SemanticSegmentor, got PanopticRCNN"):
        build_model(config("PanopticRCNN", f"{UNET_IN_RCNN} MODEL.UNET.PADDING valid"))
