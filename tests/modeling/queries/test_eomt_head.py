"""EoMT's network: masked attention against a slow version and transformers, sizes, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segkit.engine.importers.eomt_names import from_hugging_face
from segkit.modeling.backbones.plain_vit import PlainViT
from segkit.modeling.queries.eomt_head import EoMTHead
from segkit.utils.errors import ConfigError
from tests.helpers.hugging_face_eomt import LAST_BLOCKS, PEERS, QUERIES, SIZE_PX, Parts, build_ours, build_peer
from tests.helpers.tiny_vits import CHANNELS, HEADS

IMAGES = torch.rand(2, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
PREFIX = 5  # class token and registers


@pytest.mark.parametrize("name", PEERS)
def test_masked_attention_is_that_of_transformers(name: str) -> None:
    peer, ours = build_peer(name), build_ours(name)
    peer.attn_mask_probs.fill_(1)
    ours.load(from_hugging_face(peer.state_dict()).weights)
    with torch.no_grad():
        outputs = ours.forward(IMAGES, [1.0] * LAST_BLOCKS)
        (unmasked,) = ours.forward(IMAGES)
        expected = peer(IMAGES)
    assert len(outputs) == LAST_BLOCKS + 1
    torch.testing.assert_close(outputs[-1].class_logits, expected.class_queries_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs[-1].mask_logits, expected.masks_queries_logits, rtol=1e-4, atol=1e-4)
    assert (outputs[-1].class_logits - unmasked.class_logits).abs().max() > 0.01


def test_masked_attention_is_that_of_a_loop_over_tokens() -> None:
    parts = build_ours("tiny_vit_dinov2")
    with torch.no_grad():
        outputs = parts.forward(IMAGES, [1.0] * LAST_BLOCKS)
        for image in range(len(IMAGES)):
            expected = run_slowly(parts, IMAGES[image])
            torch.testing.assert_close(outputs[-1].class_logits[image], expected, rtol=1e-4, atol=1e-4)


def run_slowly(parts: Parts, image: torch.Tensor) -> torch.Tensor:
    """Class logits (Q, K + 1): every token attends by a softmax over the list of tokens that it sees."""
    vit, head = parts.backbone.network, parts.head
    values, _, grid_hw = parts.backbone(image[None])
    tokens = torch.cat([head.q.weight, values[0]])
    for block in vit.blocks[-LAST_BLOCKS:]:
        normed = vit.norm(tokens)
        patches = normed[QUERIES + PREFIX :].T.reshape(1, CHANNELS, *grid_hw)
        masks = torch.einsum("qc,chw->qhw", head.mask_head(normed[:QUERIES]), head.upscale(patches)[0])
        # A patch has 4 x 4 mask pixels; bilinear sampling at its centre is the mean of the 4 in the middle.
        middle = masks.reshape(QUERIES, grid_hw[0], 4, grid_hw[1], 4)[:, :, 1:3, :, 1:3].mean((2, 4)).flatten(1)
        visible = [
            [
                other
                for other in range(len(tokens))
                if token >= QUERIES or other < QUERIES + PREFIX or middle[token, other - QUERIES - PREFIX] > 0
            ]
            for token in range(len(tokens))
        ]
        queries, keys, contents = block.attn.qkv(block.norm1(tokens)).chunk(3, dim=1)
        attended = torch.zeros_like(tokens)
        for head_number in range(HEADS):
            own = slice(head_number * CHANNELS // HEADS, (head_number + 1) * CHANNELS // HEADS)
            for token, seen in enumerate(visible):
                scores = keys[seen, own] @ queries[token, own] / (CHANNELS // HEADS) ** 0.5
                attended[token, own] = scores.softmax(0) @ contents[seen, own]
        tokens = tokens + block.ls1(block.attn.proj(attended))
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return head.class_head(vit.norm(tokens)[:QUERIES])  # type: ignore[no-any-return]


def test_a_probability_frees_whole_queries() -> None:
    parts = build_ours("tiny_vit_dinov2")
    nothing = torch.full((400, QUERIES, 16, 16), -1.0)  # no query's mask covers a patch
    torch.manual_seed(0)
    mask = parts.head.build_mask(nothing, (4, 4), 0.25)
    assert mask is not None
    assert mask.shape == (400, 1, QUERIES + PREFIX + 16, QUERIES + PREFIX + 16)
    to_patches = mask[:, 0, :QUERIES, QUERIES + PREFIX :]
    freed = to_patches.all(2)
    assert torch.equal(freed, to_patches.any(2))
    # 2000 draws with probability 0.75: the share's standard deviation is 0.0097.
    assert freed.float().mean().item() == pytest.approx(0.75, abs=0.04)
    mask[:, 0, :QUERIES, QUERIES + PREFIX :] = True
    assert mask.all()
    assert parts.head.build_mask(nothing, (4, 4), 0.0) is None


def test_the_mask_of_a_query_is_no_path_for_gradients() -> None:
    parts = build_ours("tiny_vit_dinov3")
    first, *_, last = parts.forward(IMAGES, [1.0] * LAST_BLOCKS)
    last.class_logits.sum().backward()
    assert parts.head.mask_head[0].weight.grad is None
    assert first.mask_logits.requires_grad


@pytest.mark.parametrize("name", ["tiny_vit_dinov2", "tiny_vit_dinov3"])
def test_without_an_image_size_any_multiple_of_the_patch_is_taken(name: str) -> None:
    parts = build(name, patch_size=16)
    (outputs,) = parts.forward(torch.rand(1, 3, 48, 80))
    assert outputs.mask_logits.shape == (1, QUERIES, 12, 20)
    with pytest.raises(ConfigError, match="expects images of multiples of 16 pixels, got 48 x 72"):
        parts.forward(torch.rand(1, 3, 48, 72))


def test_small_patches_are_enlarged_less() -> None:
    (outputs,) = build("tiny_vit_dinov2", patch_size=8, image_size=32).forward(torch.rand(1, 3, 32, 32))
    assert outputs.mask_logits.shape == (1, QUERIES, 8, 8)  # stride 4


def test_bgr_images_are_turned() -> None:
    rgb = build("tiny_vit_dinov3")
    bgr = build("tiny_vit_dinov3", image_format="BGR")
    bgr.load(rgb.state_dict())
    torch.testing.assert_close(bgr.forward(IMAGES.flip(1))[0].class_logits, rgb.forward(IMAGES)[0].class_logits)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tiny_vit_dinov2", {"image_size": 64}, "expected a multiple of tiny_vit_dinov2's patch of 14 pixels, got 64"),
        ("tiny_vit_dinov2", {"last_blocks": 5}, "expected at most 4 last blocks, .*, got 5"),
        ("tiny_vit_dinov2", {"rope_rescale": 2.0}, "cannot be built with .*rope_rescale_coords=2.0"),
        ("resnet18", {}, "resnet18 cannot be built|expected a plain ViT"),
        ("vit_base_patch14_reg5_dinov2", {}, "timm .* knows no network .*did you mean"),
    ],
)
def test_networks_that_do_not_fit_are_clear_errors(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PlainViT(name, **options)


def test_an_image_that_is_not_the_square_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="expects images of 64 x 64 pixels, got 64 x 96"):
        build("tiny_vit_dinov3", image_size=64).forward(torch.rand(1, 3, 64, 96))


def build(name: str, **options: Any) -> Parts:
    torch.manual_seed(0)
    vit = PlainViT(name, last_blocks=2, queries=QUERIES, **options).eval()
    return Parts(vit, EoMTHead(vit, blocks=2, queries=QUERIES, classes=3).eval())
