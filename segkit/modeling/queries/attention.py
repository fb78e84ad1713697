"""Multi-head attention with the names of `torch.nn.MultiheadAttention`, over `scaled_dot_product_attention`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class MultiheadAttention(nn.Module):
    """Attention that can be exported with a mask for each image, which `torch.nn.MultiheadAttention` cannot.

    Args:
        channels: of queries, keys and values.
        heads: their number, a divisor of the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attend.

        Args:
            query: (N, Q, C).
            key: (N, K, C).
            value: (N, K, C).
            mask: (N, Q, K) bool, True where a query sees a key: at least one in each row; None: everywhere.

        Returns:
            (N, Q, C).
        """
        inputs = (query, key, value)
        projections = zip(inputs, self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        query, key, value = (
            F.linear(*projection).unflatten(2, (self.heads, -1)).transpose(1, 2) for projection in projections
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=None if mask is None else mask[:, None])
        return self.out_proj(attended.transpose(1, 2).flatten(2))
