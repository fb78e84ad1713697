"""torchvision's Mask R-CNN, imported, gives torchvision's boxes, scores and masks."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import ResNet
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from segkit.cli.main import main
from tests.helpers.imports import randomize, run_import

TOLERANCE = 1e-4
CHANNELS, PROPOSALS = 32, 40
SIZE = 96, 160  # not a multiple of 64: torchvision's stride of the last level is 96 // 2 = 48 there


def build_mask_rcnn(variant: str, classes: int, norm: Any = nn.BatchNorm2d) -> MaskRCNN:
    """`maskrcnn_resnet50_fpn` or `_v2` as torchvision builds them, with fewer channels."""
    torch.manual_seed(0)
    is_v2 = variant == "v2"
    body = ResNet(Bottleneck, [3, 4, 6, 3], width_per_group=4, norm_layer=norm)
    levels, channels = {f"layer{i + 1}": str(i) for i in range(4)}, [256, 512, 1024, 2048]
    backbone = BackboneWithFPN(body, levels, channels, CHANNELS, norm_layer=nn.BatchNorm2d if is_v2 else None)
    if is_v2:
        parts = {
            "rpn_head": RPNHead(CHANNELS, 3, conv_depth=2),
            "box_head": FastRCNNConvFCHead((CHANNELS, 7, 7), [16, 16], [32], norm_layer=nn.BatchNorm2d),
            "mask_head": MaskRCNNHeads(CHANNELS, [16, 16], 1, norm_layer=nn.BatchNorm2d),
        }
    else:
        parts = {"box_head": TwoMLPHead(CHANNELS * 7 * 7, 32), "mask_head": MaskRCNNHeads(CHANNELS, [16, 16], 1)}
    parts |= {"box_predictor": FastRCNNPredictor(32, classes), "mask_predictor": MaskRCNNPredictor(16, 16, classes)}
    sizes = {"min_size": SIZE[0], "max_size": SIZE[1], "rpn_post_nms_top_n_test": PROPOSALS}
    model = MaskRCNN(backbone, **sizes, **parts)
    with torch.no_grad():  # detections that are not all alike
        model.roi_heads.box_predictor.cls_score.weight.mul_(5)
        model.rpn.head.cls_logits.weight.mul_(30)
        model.rpn.head.bbox_pred.weight.mul_(10)
    return randomize(model, 0.4)


@torch.no_grad()
def compare(theirs: MaskRCNN, ours: nn.Module) -> None:
    image = torch.rand((3, *SIZE), generator=torch.Generator().manual_seed(5))
    ours.proposal_generator.post_nms_topk = {False: PROPOSALS}
    features, masks = [], []
    theirs.roi_heads.mask_predictor.register_forward_hook(lambda *call: masks.append(call[-1]))
    for model in (theirs, ours):
        model.backbone.register_forward_hook(lambda *call: features.append([*call[-1].values()]))
    expected = theirs([image])[0]
    got = ours.inference([{"image": image * 255}], do_postprocess=False)[0]
    for level in range(5):
        torch.testing.assert_close(features[0][level], features[1][level], atol=TOLERANCE, rtol=TOLERANCE)
    assert len(expected["boxes"]) == len(got) > 10
    torch.testing.assert_close(got.pred_boxes.tensor, expected["boxes"], atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(got.scores, expected["scores"], atol=TOLERANCE, rtol=TOLERANCE)
    assert torch.equal(got.pred_classes, expected["labels"] - 1)  # torchvision's class 0 is the background
    probabilities = masks[0].sigmoid()[torch.arange(len(got)), expected["labels"]]
    torch.testing.assert_close(got.pred_masks[:, 0], probabilities, atol=TOLERANCE, rtol=TOLERANCE)


def with_old_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Until torchvision 0.13 the convolutions of FPN, RPN and mask head had one level of modules less."""
    old = {}
    for name, weight in weights.items():
        name = re.sub(r"^(backbone\.fpn\.\w+\.\d)\.0\.", r"\1.", name)
        name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        name = re.sub(r"mask_head\.(\d)\.0\.", lambda match: f"mask_head.mask_fcn{int(match[1]) + 1}.", name)
        old[name] = weight
    assert old.keys() != weights.keys()
    return old


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_boxes_scores_and_masks_are_those_of_torchvision(tmp_path: Path, variant: str) -> None:
    theirs = build_mask_rcnn(variant, classes=4)
    weights = theirs.state_dict()
    torch.save(with_old_names(weights) if variant == "v1" else weights, tmp_path / "w.pth")
    predictor, report = run_import(tmp_path / "w.pth")
    compare(theirs, predictor.model)
    assert report["source"] == "torchvision-maskrcnn"
    assert report["counts"]["loaded"] == sum(report["counts"].values()) == len(weights)
    assert [c.name for c in predictor.categories.things] == ["class 1", "class 2", "class 3"]


def test_frozen_norms_have_no_epsilon(tmp_path: Path) -> None:
    """As torchvision runs its COCO weights; the variances are small enough that 1e-5 shows."""
    theirs = build_mask_rcnn("v1", 4, partial(FrozenBatchNorm2d, eps=0.0))
    overwrite_eps(theirs, 0.0)
    for name, variance in theirs.named_buffers():
        if name.endswith("running_var"):
            variance.mul_(1e-3)
        if name.endswith("norm.weight") or re.search(r"(bn\d|downsample\.1)\.weight", name):
            variance.mul_(0.03)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    predictor, report = run_import(tmp_path / "w.pth")
    compare(theirs, predictor.model)
    assert any("without an epsilon" in note for note in report["notes"])


def test_coco_weights_predict_at_once_with_cocos_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(build_mask_rcnn("v1", 91).state_dict(), tmp_path / "w.pth")
    predictor, _ = run_import(tmp_path / "w.pth")
    state = predictor.model.state_dict()
    scores = torch.load(tmp_path / "w.pth", weights_only=True)["roi_heads.box_predictor.cls_score.bias"]
    # 90 is the id of toothbrush, the 80th class; 12 and others have no class; the background comes last
    assert torch.equal(state["roi_heads.box_predictor.cls_score.bias"][[0, 79, 80]], scores[[1, 90, 0]])
    assert state["roi_heads.mask_head.predictor.weight"].shape[0] == 80
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "image.png")
    command = ["predict", "--config-file", f"{tmp_path}/ours.yaml", "--input", f"{tmp_path}/image.png"]
    assert main([*command, "--output", f"{tmp_path}/out", "--opts", "INPUT.MIN_SIZE_TEST", "48"]) == 0
    assert '"name":"toothbrush"' in (tmp_path / "out/instances.json").read_text().replace('": "', '":"')


def test_v2_weights_do_not_fit_the_config_of_v1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(build_mask_rcnn("v1", 4).state_dict(), tmp_path / "v1.pth")
    torch.save(build_mask_rcnn("v2", 4).state_dict(), tmp_path / "v2.pth")
    assert main(["import", f"{tmp_path}/v1.pth", "--output", f"{tmp_path}/ours.pth"]) == 0
    capsys.readouterr()
    options = ["--output", f"{tmp_path}/x.pth", "--config-file", f"{tmp_path}/ours.yaml"]
    assert main(["import", f"{tmp_path}/v2.pth", *options]) == 1
    error = capsys.readouterr().err
    assert "weights of another variant than the model of" in error
    # FPN: 8 biases; RPN: 1 convolution; box head: fc2; mask head: 2 biases
    assert "14 missing: 'backbone.fpn_lateral2.bias'" in error
    assert "unexpected: 'backbone.fpn_lateral2.norm.weight'" in error
    assert "leave out --config-file" in error
    assert not (tmp_path / "x.pth").exists()
