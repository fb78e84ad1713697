"""Small networks of other packages with random weights, and what `segkit import` makes of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segkit.cli.main import main
from segkit.engine.inference.model import SegmentationModel
from segkit.engine.setup import read_config


def randomize(model: nn.Module, scale: float = 1.0) -> nn.Module:
    """Give the norms statistics and scales that differ between channels, all else what it has."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_mean"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2)
            elif name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.ndim == 1 and name.endswith("weight"):
                tensor.copy_(scale * (torch.rand(tensor.shape, generator=generator) + 0.5))
    return model.eval()


def run_import(source: Path, *options: str) -> tuple[SegmentationModel, dict[str, Any]]:
    """The imported model with the config that was written, and the report."""
    output, report = source.parent / "ours.pth", source.parent / "report.json"
    assert main(["import", str(source), "--output", str(output), "--json", str(report), *options]) == 0
    cfg = read_config(str(output.with_suffix(".yaml")), ["MODEL.DEVICE", "cpu"], train=False)
    return SegmentationModel(cfg), json.loads(report.read_text())
