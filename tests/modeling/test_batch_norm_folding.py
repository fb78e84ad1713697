"""Batch norms in convolutions: outputs within rounding on the same proposals, the same weights afterwards."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import nn

from segkit.modeling import register_models
from segkit.modeling.backbones.timm_network import TimmBackbone
from segkit.modeling.batch_norm_folding import fold_batch_norms
from tests.helpers.small_models import images, small_config

TOLERANCE = 1e-4  # relative, of logits
NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def build_with_statistics(**values: Any) -> Any:
    """A model whose batch norms are no identities."""
    register_models()
    torch.manual_seed(0)
    model = build_model(small_config("PanopticRCNN", MODEL__RPN__POST_NMS_TOPK_TEST=10, **values)).eval()
    for module in model.modules():
        if isinstance(module, NORMS):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.running_var, 0.5, 2.0)):
                tensor.data.uniform_(low, high)
            for tensor in (module.bias, module.running_mean):
                tensor.data.uniform_(-0.5, 0.5)
    return model


def count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, NORMS) for module in model.modules())


def compute_heads(model: Any, proposals: Any) -> list[torch.Tensor]:
    """Every head's logits, on the proposals given or on the model's own, which come last."""
    batch = model.preprocess_image(images())
    features = model.backbone(batch.tensor)
    proposals = proposals or model.proposal_generator(batch, features, None)[0]
    heads = model.roi_heads
    maps, boxes = [features[name] for name in heads.box_in_features], [image.proposal_boxes for image in proposals]
    logits = [*features.values(), *heads.box_predictor(heads.box_head(heads.box_pooler(maps, boxes)))]
    logits += [heads.mask_head.layers(heads.mask_pooler(maps, boxes)), model.sem_seg_head.layers(features)]
    return [*logits, proposals]


def test_logits_are_equal_up_to_rounding_and_the_weights_come_back() -> None:
    """20 convolutions of a ResNet-18, 8 of the FPN, 3 + 2 + 1 + 1 of the semantic head."""
    expected = 20 + 8 + 7
    norms_of = {"MODEL__RESNETS__NORM": "FrozenBN", "MODEL__FPN__NORM": "BN", "MODEL__SEM_SEG_HEAD__NORM": "BN"}
    model = build_with_statistics(**norms_of)
    before, parameters, norms = copy.deepcopy(model.state_dict()), [*model.parameters()], count_norms(model)
    with torch.no_grad():
        *plain, proposals = compute_heads(model, None)
        unfold = fold_batch_norms(model)
        assert count_norms(model) == norms - expected
        *folded, _ = compute_heads(model, proposals)
    for a, b in zip(plain, folded, strict=True):
        assert (a - b).abs().max() <= TOLERANCE * a.abs().max()
    assert unfold() == expected
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert unfold() == 0
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(compute_heads(model, proposals)[:-1], plain, strict=True))


def test_graphs_are_folded() -> None:
    """A ResNet-18 has 20 batch norms."""
    x = torch.rand(1, 3, 32, 32)
    network = torch.fx.symbolic_trace(torchvision.models.resnet18()).eval()
    expected = network(x)
    unfold = fold_batch_norms(network)
    assert (network(x) - expected).abs().max() <= TOLERANCE * expected.abs().max()
    assert unfold() == 20


@pytest.mark.parametrize("norm", ["", "FrozenBN"])
@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv3_small_050", "tf_efficientnet_lite0", "resnet18"])
def test_every_batch_norm_of_timm_is_folded_and_its_activation_stays(name: str, norm: str) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(name, norm=norm).eval()
    norms = [module for module in backbone.modules() if hasattr(module, "running_var")]
    for module in norms:
        module.running_mean.uniform_(-0.5, 0.5)
        module.running_var.uniform_(0.5, 2.0)
        module.bias.data.uniform_(-0.5, 0.5)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(x)
        unfold = fold_batch_norms(backbone)
        folded = backbone(x)
        for level, feature in expected.items():
            assert (folded[level] - feature).abs().max() <= 1e-5 * feature.abs().max()
        assert unfold() == len(norms)
        assert all(torch.equal(feature, expected[level]) for level, feature in backbone(x).items())


def test_only_batch_norms_right_behind_a_convolution_are_folded() -> None:
    """With a bias, without an affine part; behind another layer; and in training mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=True), nn.BatchNorm2d(3, affine=False), nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)
    ).eval()
    model[1].running_mean.uniform_()
    x = torch.rand(1, 2, 8, 8)
    expected = model(x)
    unfold = fold_batch_norms(model)
    torch.testing.assert_close(model(x), expected)
    assert [type(layer).__name__ for layer in model] == ["Conv2d", "Identity", "ReLU", "BatchNorm2d", "Conv2d"]
    assert unfold() == 1
    assert fold_batch_norms(model.train())() == 0
