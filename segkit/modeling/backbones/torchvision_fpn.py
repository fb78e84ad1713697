"""Any torchvision classification network under a feature pyramid (Lin et al. 2017, FPN)."""

from __future__ import annotations

import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from segkit.config import with_segkit_keys
from segkit.utils.errors import ConfigError

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}  # Detectron2's names of the four stages
PROBE_PX = 64  # side of the image that is used to find the last node of each stride


class TorchvisionBackbone(Backbone):
    """The last feature map of strides 4, 8, 16 and 32 of a torchvision network, named res2 to res5.

    Detectron2 normalizes the inputs (MODEL.PIXEL_MEAN, PIXEL_STD). The weights of torchvision expect RGB with
    mean (123.675, 116.28, 103.53) and std (58.395, 57.12, 57.375).

    Args:
        name: Name of a network in torchvision.models.
        weights: Name in its weights enum, "" for random weights.

    Raises:
        ConfigError: The name or the weights are unknown, or the network lacks a stride.
    """

    def __init__(self, name: str, weights: str = "") -> None:
        super().__init__()
        network = _build_network(name, weights)
        nodes = _find_last_nodes(network, name)
        self.body = create_feature_extractor(network, {node: level for level, (node, _) in nodes.items()})
        self._out_feature_strides = dict(STRIDES)
        self._out_feature_channels = {level: channels for level, (_, channels) in nodes.items()}
        self._out_features = list(STRIDES)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the feature maps.

        Args:
            x: (B, 3, H, W) float, H and W multiples of 32.

        Returns:
            Level -> (B, C, H / stride, W / stride).
        """
        return self.body(x)


@BACKBONE_REGISTRY.register()
def build_torchvision_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the network of MODEL.TORCHVISION under Detectron2's FPN, with p2 to p6."""
    cfg = with_segkit_keys(cfg)
    return FPN(
        bottom_up=TorchvisionBackbone(cfg.MODEL.TORCHVISION.NAME, cfg.MODEL.TORCHVISION.WEIGHTS),
        in_features=list(STRIDES),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _build_network(name: str, weights: str) -> torch.nn.Module:
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise ConfigError(f"MODEL.TORCHVISION.NAME {name!r} is unknown", remedy=f"choose one of {', '.join(names)}")
    try:
        return torchvision.models.get_model(name, weights=weights or None)
    except (KeyError, ValueError) as error:
        offered = [w.name for w in torchvision.models.get_model_weights(name)]
        raise ConfigError(
            f"MODEL.TORCHVISION.WEIGHTS {weights!r} is not the name of weights of {name}",
            remedy=f"choose one of {offered}",
        ) from error


def _find_last_nodes(network: torch.nn.Module, name: str) -> dict[str, tuple[str, int]]:
    """{level: (node, channels)} of the last node of each stride. Runs a small image once."""
    network.eval()
    nodes = get_graph_node_names(network)[1]
    with torch.no_grad():
        outputs = create_feature_extractor(network, nodes)(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
    network.train()  # as it was built
    last_nodes = {}
    for level, stride in STRIDES.items():
        side = PROBE_PX // stride
        maps = [n for n in nodes if isinstance(outputs[n], torch.Tensor) and outputs[n].shape[2:] == (side, side)]
        if not maps:
            raise ConfigError(
                f"MODEL.TORCHVISION.NAME {name!r} has no feature map of stride {stride}",
                remedy="choose a convolutional network with strides 4, 8, 16 and 32",
            )
        last_nodes[level] = (maps[-1], int(outputs[maps[-1]].shape[1]))
    return last_nodes
