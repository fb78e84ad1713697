"""ViTDet's simple feature pyramid (Li et al. 2022) over any plain ViT."""

from __future__ import annotations

from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid

from segkit.utils.errors import ConfigError

STRIDE = 16
SCALES = (4.0, 2.0, 1.0, 0.5)  # of ViTDet: from stride 16 to the strides 4, 8, 16 and 32


class SimplePyramid(SimpleFeaturePyramid):
    """Detectron2's SimpleFeaturePyramid with p2 to p6, and its names of the weights: simfp_2 to simfp_5, net.

    Detectron2's own has a misspelt padding constraint, so that images are not padded to multiples of 32.

    Args:
        net: a backbone with one feature map, of stride 16.
        out_channels: of all levels.
        norm: of the convolutions, see `detectron2.layers.get_norm`.
        square_pad: side in pixels to which images are padded; 0: multiples of 32.

    Raises:
        ConfigError: the backbone has other feature maps.
    """

    def __init__(self, net: Backbone, out_channels: int, norm: str = "LN", square_pad: int = 0) -> None:
        strides = {name: shape.stride for name, shape in net.output_shape().items()}
        if [*strides.values()] != [STRIDE]:
            problem = f"the simple pyramid needs a plain ViT with patches of {STRIDE} pixels, got the strides {strides}"
            remedy = "set MODEL.TIMM.PATCH_SIZE 16 for a ViT, or choose build_timm_fpn_backbone"
            raise ConfigError(problem, where="MODEL.BACKBONE.NAME", remedy=remedy)
        super().__init__(net, next(iter(strides)), out_channels, SCALES, LastLevelMaxPool(), norm, square_pad)

    @property
    def size_divisibility(self) -> int:
        """Pixels of which the sides of an image must be multiples."""
        return int(self._size_divisibility)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """See base class."""
        return {"size_divisibility": self.size_divisibility, "square_size": self._square_pad}
