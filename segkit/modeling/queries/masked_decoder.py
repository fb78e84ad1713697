"""The transformer decoder of Mask2Former: queries that look only at the pixels of their own mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from segkit.modeling.queries.attention import MultiheadAttention
from segkit.modeling.queries.outputs import QueryOutputs
from segkit.modeling.queries.positions import build_sine_positions

LEVELS = 3


class MaskedAttentionDecoder(nn.Module):
    """Layers of cross-attention, self-attention and two linear layers (Cheng et al. 2022, section 3.2.1).

    Layer i attends to level i mod 3, coarsest first, where the mask that the layers before it predict is at least 0.5.
    Names, arithmetic and start values are those of Mask2Former's MultiScaleMaskedTransformerDecoder
    (mask2former/modeling/transformer_decoder/mask2former_transformer_decoder.py). One thing is computed otherwise, with
    the same result up to rounding: the mask of an attention is predicted from mask features that are resized to its
    level, instead of resizing the predicted mask of each query, as both steps are linear.

    Args:
        classes: without "no object".
        queries: their number.
        channels: of levels and mask features.
        layers: their number.
        heads: of each attention.
        feedforward: channels of the hidden layer of each layer.
    """

    def __init__(
        self,
        classes: int,
        queries: int = 100,
        channels: int = 256,
        *,
        layers: int = 9,
        heads: int = 8,
        feedforward: int = 2048,
    ) -> None:
        super().__init__()
        self.transformer_self_attention_layers = nn.ModuleList(
            AttentionLayer("self_attn", channels, heads) for _ in range(layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            AttentionLayer("multihead_attn", channels, heads) for _ in range(layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(channels, feedforward) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(channels)
        self.query_feat = nn.Embedding(queries, channels)
        self.query_embed = nn.Embedding(queries, channels)
        self.level_embed = nn.Embedding(LEVELS, channels)
        self.class_embed = nn.Linear(channels, classes + 1)
        self.mask_embed = MultilayerPerceptron(channels, LEVELS)

    def forward(self, levels: Sequence[torch.Tensor], mask_features: torch.Tensor) -> list[QueryOutputs]:
        """Decode.

        Args:
            levels: (N, C, h, w) of the three levels, coarsest first.
            mask_features: (N, C, h, w).

        Returns:
            Classes and masks of the size of the mask features: in training those of the start and of each layer, in
            order, otherwise those of the last layer.
        """
        images, channels = mask_features.shape[:2]
        keys, values, features = [], [], []
        for level, embedding in zip(levels, self.level_embed.weight, strict=True):
            size_hw = (level.shape[2], level.shape[3])
            value = level.flatten(2).transpose(1, 2) + embedding
            values.append(value)
            keys.append(value + build_sine_positions(size_hw, channels, value).flatten(0, 1))
            resized = F.interpolate(mask_features.detach(), size=size_hw, mode="bilinear", align_corners=False)
            features.append(resized.flatten(2))
        queries = self.query_feat.weight.expand(images, -1, -1)
        position = self.query_embed.weight
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        outputs = []
        for number, (cross_attention, self_attention, feed_forward) in enumerate(layers):
            index = number % LEVELS
            normed = self.decoder_norm(queries)
            embeddings = self.mask_embed(normed)
            if self.training:
                outputs.append(self._predict(normed, embeddings, mask_features))
            seen = _find_seen_pixels(embeddings.detach(), features[index])
            queries = cross_attention(queries, queries + position, keys[index], values[index], seen)
            placed = queries + position
            queries = feed_forward(self_attention(queries, placed, placed, queries))
        normed = self.decoder_norm(queries)
        return [*outputs, self._predict(normed, self.mask_embed(normed), mask_features)]

    def _predict(self, normed: torch.Tensor, embeddings: torch.Tensor, mask_features: torch.Tensor) -> QueryOutputs:
        masks = torch.bmm(embeddings, mask_features.flatten(2).to(embeddings.dtype))
        return QueryOutputs(self.class_embed(normed), masks.unflatten(2, mask_features.shape[-2:]))


class AttentionLayer(nn.Module):
    """Attention, added to its queries, and a norm.

    Args:
        name: of the attention among the weights.
        channels: of the queries.
        heads: of the attention.
    """

    def __init__(self, name: str, channels: int, heads: int) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, MultiheadAttention(channels, heads))
        self.norm = nn.LayerNorm(channels)

    def forward(
        self,
        queries: torch.Tensor,
        placed: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend.

        Args:
            queries: (N, Q, C).
            placed: (N, Q, C), the queries with their positions.
            keys: (N, K, C).
            values: (N, K, C).
            mask: as of `MultiheadAttention`.

        Returns:
            (N, Q, C).
        """
        return self.norm(queries + self.get_submodule(self._name)(placed, keys, values, mask))


class FeedForwardLayer(nn.Module):
    """Two linear layers, added to their input, and a norm.

    Args:
        channels: of the input.
        feedforward: channels of the hidden layer.
    """

    def __init__(self, channels: int, feedforward: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, feedforward)
        self.linear2 = nn.Linear(feedforward, channels)
        self.norm = nn.LayerNorm(channels)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute norm(x + W2 relu(W1 x)).

        Args:
            x: (N, Q, C).

        Returns:
            (N, Q, C).
        """
        return self.norm(x + self.linear2(F.relu(self.linear1(x))))


class MultilayerPerceptron(nn.Module):
    """Linear layers of one width with ReLU between them.

    Args:
        channels: of input, hidden layers and output.
        depth: number of layers.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(channels, channels) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layers.

        Args:
            x: (..., channels).

        Returns:
            (..., channels).
        """
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def _find_seen_pixels(embeddings: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """(N, Q, K) bool: where each query's mask is at least 0.5; everywhere if it is empty."""
    seen = torch.bmm(embeddings, features.to(embeddings.dtype)) >= 0
    return seen | ~seen.any(dim=2, keepdim=True)
