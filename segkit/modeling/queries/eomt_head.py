"""EoMT: queries that run through the last blocks of a plain ViT (Kerssies et al. 2025, CVPR)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from torch import nn
from torch.nn import functional as F

from segkit.modeling.backbones.plain_vit import PlainViT
from segkit.modeling.queries.outputs import QueryOutputs

MASK_STRIDE = 4  # pixels of the image for a pixel of the mask logits, if patches have 8 or more


class UpscaleBlock(nn.Sequential):
    """Doubles the sides of a feature map: transposed convolution, GELU, depthwise convolution, LayerNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False)
        self.norm = LayerNorm2d(channels)


class EoMTHead(nn.Module):
    """Runs the last blocks of a ViT with queries before its tokens, and predicts classes and masks from them.

    In training, each block also predicts before it runs, and a query attends only to the patches that its predicted
    mask covers, with the block's probability; the other queries attend to all. Otherwise nothing is masked.

    The names of the weights are those of the official network: `q`, `class_head`, `mask_head`, `upscale`.

    Args:
        backbone: the ViT, built with as many `queries`. Its weights are not this module's.
        blocks: `last_blocks` of the backbone.
        queries: Q.
        classes: K, without "no object".
    """

    def __init__(self, backbone: PlainViT, *, blocks: int, queries: int, classes: int) -> None:
        super().__init__()
        channels = backbone.channels_out
        self.blocks, self.prefix = blocks, queries + backbone.prefix_tokens
        self.q = nn.Embedding(queries, channels)
        self.class_head = nn.Linear(channels, classes + 1)
        linear = [nn.Linear(channels, channels) for _ in range(3)]
        self.mask_head = nn.Sequential(linear[0], nn.GELU(), linear[1], nn.GELU(), linear[2])
        doublings = max(1, int(math.log2(backbone.patch_px)) - int(math.log2(MASK_STRIDE)))
        self.upscale = nn.Sequential(*(UpscaleBlock(channels) for _ in range(doublings)))

    def forward(
        self, backbone: PlainViT, images: torch.Tensor, probabilities: Sequence[float] = ()
    ) -> list[QueryOutputs]:
        """Predict.

        Args:
            backbone: the ViT.
            images: (N, channels, H, W) float, as the ViT takes them.
            probabilities: of each last block, that a query is masked; empty: no query is, and nothing is predicted
                before the end.

        Returns:
            The predictions before each block and, as the last one, after all. Mask logits have stride `MASK_STRIDE`.
        """
        values, rope, grid_hw = backbone(images)
        values = torch.cat([self.q.weight.expand(values.shape[0], -1, -1).to(values.dtype), values], dim=1)
        outputs = []
        for number in range(self.blocks):
            mask = None
            if probabilities:
                outputs.append(self.predict(backbone.network.norm(values), grid_hw))
                mask = self.build_mask(outputs[-1].mask_logits, grid_hw, probabilities[number])
            values = backbone.run_last_block(number, values, rope, mask)
        return [*outputs, self.predict(backbone.network.norm(values), grid_hw)]

    def predict(self, values: torch.Tensor, grid_hw: tuple[int, int]) -> QueryOutputs:
        """Predict classes and masks from tokens.

        Args:
            values: (N, Q + P + h * w, C) float, after the ViT's last norm.
            grid_hw: (h, w).

        Returns:
            The predictions.
        """
        queries = values[:, : self.q.num_embeddings]
        features = values[:, self.prefix :].transpose(1, 2).unflatten(2, grid_hw)
        masks = torch.einsum("nqc,nchw->nqhw", self.mask_head(queries), self.upscale(features))
        return QueryOutputs(self.class_head(queries), masks)

    def build_mask(
        self, mask_logits: torch.Tensor, grid_hw: tuple[int, int], probability: float
    ) -> torch.Tensor | None:
        """Decide what each token sees in the next block.

        Args:
            mask_logits: (N, Q, H / 4, W / 4) float.
            grid_hw: (h, w) of the patches.
            probability: in [0, 1], that a query is masked.

        Returns:
            (N, 1, L, L) bool, L = Q + P + h * w; only entries of queries for patches may be False. None: all are True.
        """
        if probability <= 0:
            return None
        images, queries = mask_logits.shape[:2]
        resized = F.interpolate(mask_logits.detach().float(), grid_hw, mode="bilinear")
        visible = resized.flatten(2) > 0
        if probability < 1:
            freed = torch.rand(images, queries, 1, device=visible.device) > probability
            visible = visible | freed
        length = self.prefix + visible.shape[2]
        mask = visible.new_ones(images, 1, length, length)
        mask[:, 0, :queries, self.prefix :] = visible
        return mask
