"""EoMT of transformers with random weights, and ours of the same size."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from segkit.modeling.backbones.plain_vit import PlainViT
from segkit.modeling.queries.eomt_head import EoMTHead
from tests.helpers.tiny_vits import BLOCKS, CHANNELS, HEADS

QUERIES, CLASSES, LAST_BLOCKS, PATCH_PX, SIZE_PX = 5, 3, 2, 16, 64
REASON = "transformers is not installed: pip install 'segkit[oracle]', which needs Python 3.11"
# Our network -> (class of transformers, options of its config)
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny_vit_dinov2": ("Eomt", {}),
    "tiny_vit_dinov2_swiglu": ("Eomt", {"use_swiglu_ffn": True}),
    "tiny_vit_dinov3": ("EomtDinov3", {"intermediate_size": 4 * CHANNELS, "layer_norm_eps": 1e-5}),
    "tiny_vit_dinov3_gated": (
        "EomtDinov3",
        {"intermediate_size": 4 * CHANNELS, "layer_norm_eps": 1e-5, "use_gated_mlp": True, "hidden_act": "silu"},
    ),
}


class Parts(NamedTuple):
    """Our network, with the names of the model's tensors."""

    backbone: PlainViT
    head: EoMTHead

    def forward(self, images: torch.Tensor, probabilities: Any = ()) -> Any:
        return self.head(self.backbone, images, probabilities)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {f"{part}.{name}": w for part in self._fields for name, w in getattr(self, part).state_dict().items()}

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        for part in self._fields:
            own = {name.removeprefix(f"{part}."): w for name, w in weights.items() if name.startswith(f"{part}.")}
            getattr(self, part).load_state_dict(own)


def build_ours(name: str) -> Parts:
    """Random weights that all have an effect: layer scales and biases are not small."""
    backbone = PlainViT(name, last_blocks=LAST_BLOCKS, queries=QUERIES, patch_size=PATCH_PX, image_size=SIZE_PX)
    parts = Parts(backbone.eval(), EoMTHead(backbone, blocks=LAST_BLOCKS, queries=QUERIES, classes=CLASSES).eval())
    _randomize(backbone)
    _randomize(parts.head)
    return parts


def build_peer(name: str) -> Any:
    """transformers' model in evaluation mode, without masked attention; random weights."""
    transformers = pytest.importorskip("transformers", reason=REASON)
    kind, options = PEERS[name]
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=CHANNELS,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        image_size=SIZE_PX,
        patch_size=PATCH_PX,
        num_blocks=LAST_BLOCKS,
        num_queries=QUERIES,
        num_labels=CLASSES,
        **options,
    )
    model = getattr(transformers, f"{kind}ForUniversalSegmentation")(config).eval()
    for head in (model.mask_head, *model.upscale_block.block):
        head.activation = torch.nn.GELU()  # as in the official code; transformers takes the activation of the blocks
    _randomize(model)
    model.attn_mask_probs.zero_()  # as trained models have it; a new one masks in evaluation too
    return model


def _randomize(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.2 if parameter.dim() > 1 else 0.5
        centre = 1.0 if name.endswith("weight") and parameter.dim() == 1 else 0.0
        parameter.data = centre + scale * noise
