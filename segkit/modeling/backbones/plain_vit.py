"""A plain ViT of timm whose last blocks are left to another module, which adds tokens of its own to them."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from segkit.normalization import find_timm_config
from segkit.utils.errors import ConfigError

NAME_KEY, SIZE_KEY = "MODEL.TIMM.NAME", "MODEL.TIMM.IMAGE_SIZE"
EXAMPLES = "vit_base_patch14_reg4_dinov2, vit_base_patch16_dinov3_qkvb"


class ViTTokens(NamedTuple):
    """Images as the tokens of a ViT.

    Attributes:
        values: (N, P + h * w, C) float: P prefix tokens (class, registers), then the patches row by row.
        rope: rotary positions of the patches, as timm's blocks take them; None: the network has learned ones.
        grid_hw: patches of a column and of a row, (h, w).
    """

    values: torch.Tensor
    rope: torch.Tensor | None
    grid_hw: tuple[int, int]


class PlainViT(nn.Module):
    """A VisionTransformer or Eva of timm, as DINOv2 and DINOv3, with timm's names of the weights below `network.`.

    Learned positions belong to a grid of patches. With an image size, that is the grid of the square of this size, to
    which all images are padded, as EoMT does. Without one, any multiple of the patch is taken: rotary positions follow
    the image, learned ones are interpolated by timm.

    Args:
        name: of the network in timm, with or without the tag of its weights.
        last_blocks: blocks that `forward` leaves out.
        queries: tokens that stand before the prefix tokens in the last blocks, and have no position.
        channels: of the images.
        image_format: INPUT.FORMAT; BGR images are turned to RGB, which timm's weights expect.
        patch_size: in pixels; 0: the network's own.
        image_size: side of the square in pixels; 0: any size.
        drop_path: share of images for which the last block is skipped in training; earlier ones less.
        rope_rescale: in training, rotary positions are scaled by a random factor from 1 / rope_rescale to
            rope_rescale; 0: they are not. DINOv3 is trained with 2.

    Attributes:
        channels_out: C of the tokens.
        patch_px: side of a patch in pixels.
        prefix_tokens: P.

    Raises:
        ConfigError: timm does not know the name, the network is no plain ViT, lacks an option, has no so many blocks,
            or the image size is no multiple of the patch.
    """

    def __init__(
        self,
        name: str,
        *,
        last_blocks: int = 0,
        queries: int = 0,
        channels: int = 3,
        image_format: str = "RGB",
        patch_size: int = 0,
        image_size: int = 0,
        drop_path: float = 0.0,
        rope_rescale: float = 0.0,
    ) -> None:
        super().__init__()
        self.name, self.channels, self.square_size = name, channels, image_size
        self._flips = image_format == "BGR" and channels == 3
        given = {"patch_size": patch_size, "img_size": image_size, "drop_path_rate": drop_path}
        given["rope_rescale_coords"] = rope_rescale
        self._options: dict[str, Any] = {"in_chans": channels, "dynamic_img_size": not image_size}
        self._options |= {option: value for option, value in given.items() if value}
        find_timm_config(name)  # raises if it is unknown
        self.network = self._build()
        self.channels_out: int = self.network.embed_dim
        self.patch_px: int = self.network.patch_embed.patch_size[0]
        self.prefix_tokens: int = self.network.num_prefix_tokens
        self._check(last_blocks)
        self._first = len(self.network.blocks) - last_blocks
        for block in self.last_blocks:
            if hasattr(block.attn, "num_prefix_tokens"):  # of attention with rotary positions
                block.attn.num_prefix_tokens += queries

    def build_whole_network(self) -> Any:
        """Build the network with random weights as `timm.create_model` does, without the classifier.

        Returns:
            The network.
        """
        return timm.create_model(self.name, num_classes=0, global_pool="", **self._options)

    @property
    def size_divisibility(self) -> int:
        """Pixels of which the sides of an image must be multiples."""
        return self.square_size or self.patch_px

    @property
    def padding_constraints(self) -> dict[str, int]:
        """What `detectron2.structures.ImageList` must keep."""
        return {"size_divisibility": self.size_divisibility, "square_size": self.square_size}

    @property
    def last_blocks(self) -> list[Any]:
        """The blocks that `forward` leaves out."""
        return [*self.network.blocks[self._first :]]

    def forward(self, images: torch.Tensor) -> ViTTokens:
        """Run all blocks but the last ones.

        Args:
            images: (N, channels, H, W) float, normalized; H and W multiples of the patch, or both `square_size`.

        Returns:
            The tokens.

        Raises:
            ConfigError: the network does not take this size.
        """
        height, width = images.shape[-2:]
        side = self.square_size
        if (side and (height, width) != (side, side)) or height % self.patch_px or width % self.patch_px:
            expected = f"{side} x {side} pixels" if side else f"multiples of {self.patch_px} pixels"
            problem = f"{self.name} expects images of {expected}, got {height} x {width}"
            raise ConfigError(problem, where=SIZE_KEY, remedy="set INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST to its size")
        tokens = self.network._pos_embed(self.network.patch_embed(images.flip(1) if self._flips else images))
        values, rope = tokens if isinstance(tokens, tuple) else (tokens, None)
        values = self.network.norm_pre(values)
        for index in range(self._first):
            values = self._run(index, values, rope, None)
        return ViTTokens(values, rope, (height // self.patch_px, width // self.patch_px))

    def run_last_block(
        self, number: int, values: torch.Tensor, rope: torch.Tensor | None, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Run one of the last blocks.

        Args:
            number: of the block, from 0 for the first of the last blocks.
            values: (N, queries + P + h * w, C) float.
            rope: of `ViTTokens`.
            mask: (N, 1, L, L) bool of L tokens, True where the second token is visible to the first; None: all are.

        Returns:
            (N, queries + P + h * w, C) float.
        """
        return self._run(self._first + number, values, rope, mask)

    def _run(
        self, index: int, values: torch.Tensor, rope: torch.Tensor | None, mask: torch.Tensor | None
    ) -> torch.Tensor:
        block = self.network.blocks[index]
        if rope is None:
            return block(values, attn_mask=mask)
        rope = rope[index] if getattr(self.network, "rope_mixed", False) else rope
        return block(values, rope=rope, attn_mask=mask)

    def _build(self) -> Any:
        try:
            network = self.build_whole_network()
        except (TypeError, AssertionError, NotImplementedError, ValueError) as error:
            stated = ", ".join(f"{option}={value}" for option, value in self._options.items())
            problem = f"timm's {self.name} cannot be built with {stated} ({error})"
            remedy = f"leave out the key of MODEL.TIMM that it lacks, or choose a plain ViT, as {EXAMPLES}"
            raise ConfigError(problem, where=NAME_KEY, remedy=remedy) from error
        takes_mask = isinstance(network, (VisionTransformer, Eva)) and all(
            "attn_mask" in inspect.signature(block.forward).parameters for block in network.blocks
        )
        if not takes_mask:
            problem = f"expected a plain ViT whose blocks take a mask, got {type(network).__name__} {self.name}"
            remedy = f"choose another one, as {EXAMPLES}; timm {timm.__version__} may be too old"
            raise ConfigError(problem, where=NAME_KEY, remedy=remedy)
        return network

    def _check(self, last_blocks: int) -> None:
        blocks = len(self.network.blocks)
        if not 0 <= last_blocks <= blocks:
            problem = f"expected at most {blocks} last blocks, which {self.name} has, got {last_blocks}"
            raise ConfigError(problem, where="MODEL.EOMT.NUM_BLOCKS")
        if self.square_size % self.patch_px:
            problem = f"expected a multiple of {self.name}'s patch of {self.patch_px} pixels, got {self.square_size}"
            remedy = "set it to one, or MODEL.TIMM.PATCH_SIZE to a divisor, as 16"
            raise ConfigError(problem, where=SIZE_KEY, remedy=remedy)
