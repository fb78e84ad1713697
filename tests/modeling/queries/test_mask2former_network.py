"""Mask2Former's network: its levels, masks and names, and the numbers of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec

from segkit.engine.importers.base import find_source
from segkit.modeling.backbones.swin import SwinBackbone
from segkit.modeling.queries.masked_decoder import MaskedAttentionDecoder
from segkit.modeling.queries.pixel_decoder import DeformablePixelDecoder
from segkit.utils.errors import ConfigError
from tests.helpers.mask2former import Mask2FormerNetwork, to_transformers

SMALL = {"embed_dim": 12, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 3}
SWIN_T = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}


def build(swin: dict[str, Any], classes: int = 3, queries: int = 5, channels: int = 32, heads: int = 4) -> Any:
    torch.manual_seed(0)
    return Mask2FormerNetwork(SwinBackbone(**swin), classes, queries, channels, heads).eval()


def test_outputs_are_those_of_each_layer_in_training_and_of_the_last_one_otherwise() -> None:
    """Nine layers and the start; masks have a quarter of the image's sides."""
    network = build({**SMALL, "drop_path_rate": 0.0})
    images = torch.randn(2, 3, 64, 96)
    (last,) = network(images)
    assert last.class_logits.shape == (2, 5, 4)
    assert last.mask_logits.shape == (2, 5, 16, 24)
    outputs = network.train()(images)
    assert len(outputs) == 10
    torch.testing.assert_close(outputs[-1].mask_logits, last.mask_logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outputs[-1].class_logits, last.class_logits, atol=1e-5, rtol=1e-4)


def test_every_weight_gets_a_gradient() -> None:
    network = build({**SMALL, "drop_path_rate": 0.0}).train()
    outputs = network(torch.randn(1, 3, 64, 64))
    sum(output.class_logits.square().sum() + output.mask_logits.square().sum() for output in outputs).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_images_of_one_cell_of_the_coarsest_level() -> None:
    """32 pixels are one pixel of res5, which attends to itself."""
    (outputs,) = build(SMALL, channels=64)(torch.randn(1, 3, 32, 32))
    assert outputs.mask_logits.shape == (1, 5, 8, 8)
    assert outputs.mask_logits.isfinite().all()


def test_queries_see_only_their_mask_and_everything_if_it_is_empty() -> None:
    """Layers do nothing but attend: the values are the pixel's number, all keys are equal.

    The first query's mask is pixels 0 and 1 of the level, 4 pixels high and wide, the other one's mask is empty. Their
    means are 0.5 and 7.5.
    """
    torch.manual_seed(0)
    decoder = MaskedAttentionDecoder(1, 2, 32, layers=1, heads=1).eval()
    cross = decoder.transformer_cross_attention_layers[0]
    seen: list[torch.Tensor] = []
    cross.multihead_attn.out_proj.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        decoder.decoder_norm.bias[0] = 1
        decoder.query_feat.weight[0, 1], decoder.decoder_norm.weight[1] = 1, 1
        for layer in decoder.mask_embed.layers:
            layer.weight.copy_(torch.eye(32))
        cross.multihead_attn.in_proj_weight[64:].copy_(torch.eye(32))
        features = torch.full((1, 32, 4, 4), -0.1)
        features[:, 0], features[0, 1, 0, :2] = -1.0, 1.0  # only the first query has channel 1: sqrt(31), above 1
        level = torch.zeros(1, 32, 4, 4)
        level[0, 5] = torch.arange(16.0).view(4, 4)
        decoder([level] * 3, features)
    torch.testing.assert_close(seen[0][0, :, 5], torch.tensor([0.5, 7.5]))


def test_a_network_on_r50_has_the_official_names() -> None:
    """The pixel decoder has 117 tensors, the decoder 175, and R-50 265."""
    strides = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
    shapes = {name: ShapeSpec(channels=64 * stride, stride=stride) for name, stride in strides.items()}
    pixel_decoder = DeformablePixelDecoder(shapes).state_dict()
    assert len(pixel_decoder) == 117
    assert pixel_decoder["input_proj.0.0.weight"].shape == (256, 2048, 1, 1)
    assert pixel_decoder["transformer.encoder.layers.5.self_attn.sampling_offsets.weight"].shape == (192, 256)
    assert pixel_decoder["transformer.level_embed"].shape == (3, 256)
    assert pixel_decoder["adapter_1.weight"].shape == (256, 256, 1, 1)
    assert "adapter_1.bias" not in pixel_decoder
    decoder = MaskedAttentionDecoder(133).state_dict()
    assert len(decoder) == 175
    assert decoder["transformer_cross_attention_layers.8.multihead_attn.in_proj_weight"].shape == (768, 256)
    assert decoder["mask_embed.layers.2.weight"].shape == (256, 256)
    assert decoder["class_embed.weight"].shape == (134, 256)


def test_levels_whose_strides_do_not_double_are_refused() -> None:
    shapes = {"res2": ShapeSpec(channels=8, stride=4), "res4": ShapeSpec(channels=8, stride=16)}
    with pytest.raises(ConfigError, match=r"4 levels.*res4 \(stride 16\)"):
        DeformablePixelDecoder(shapes)


@pytest.mark.parametrize(
    "sizes", [("small", 64, 96), pytest.param(("Swin-T", 256, 320), marks=pytest.mark.slow)], ids=lambda sizes: sizes[0]
)
@pytest.mark.parametrize("direction", ["from", "to"])
def test_logits_are_those_of_transformers(sizes: tuple[str, int, int], direction: str) -> None:
    """The same random weights, converted from transformers' names or to them."""
    transformers = pytest.importorskip("transformers", reason="needs the extra oracle, on Python 3.11 or later")
    name, height, width = sizes
    is_small = name == "small"
    swin, channels, heads, queries, classes = (SMALL, 32, 4, 5, 3) if is_small else (SWIN_T, 256, 8, 100, 133)
    backbone = transformers.SwinConfig(**swin, image_size=64, out_features=[f"stage{stage}" for stage in (1, 2, 3, 4)])
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        num_labels=classes,
        num_queries=queries,
        feature_size=channels,
        mask_feature_size=channels,
        hidden_dim=channels,
        num_attention_heads=heads,
    )
    ours = build(swin, classes, queries, channels, heads)
    theirs = transformers.Mask2FormerForUniversalSegmentation(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (theirs if direction == "from" else ours).parameters():
            weight += (0.1 if is_small else 0.02) * torch.randn(weight.shape, generator=generator)
    if direction == "from":
        weights = theirs.state_dict()
        converted = find_source(weights, {}, "", "").convert(weights, {})
        missing, unexpected = ours.load_state_dict(converted.weights, strict=False)
        assert [*filter(lambda name: not name.endswith("relative_position_index"), missing)] == []
        assert unexpected == ["criterion.empty_weight"]
    else:
        weights = {name: weight for name, weight in ours.state_dict().items() if "position_index" not in name}
        missing, unexpected = theirs.load_state_dict(to_transformers(weights), strict=False)
        unused = [f"model.pixel_level_module.encoder.swin.layernorm.{end}" for end in ("weight", "bias")]
        assert [*missing] == [*unused, "criterion.empty_weight"]
        assert [*unexpected] == []
    images = torch.randn(1, 3, height, width, generator=generator)
    with torch.no_grad():
        expected, (got,) = theirs(pixel_values=images), ours(images)
    assert expected.masks_queries_logits.std() > 0.1
    torch.testing.assert_close(got.class_logits, expected.class_queries_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(got.mask_logits, expected.masks_queries_logits, atol=1e-4, rtol=0)
