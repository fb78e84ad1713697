"""Random weights of a small model with confident predictions, saved as in segkit's training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.modeling import build_model

from segkit.data.class_counts import resolve_for_categories
from segkit.engine.setup import read_config
from segkit.structures import CategorySet

CONFIG = "configs/toy/panoptic_rcnn_R18_FPN.yaml"


def save_random_weights(
    path: Path, categories: CategorySet, opts: Sequence[str] = (), thing_channels: str = "one", confidence: float = 300
) -> None:
    torch.manual_seed(0)
    cfg = read_config(CONFIG, opts)
    resolve_for_categories(cfg, categories, thing_channels, "the test")
    model = build_model(cfg)
    if hasattr(model, "roi_heads"):
        with torch.no_grad():
            model.roi_heads.box_predictor.cls_score.weight.mul_(confidence)
    saved = {"categories": categories.to_coco(), "thing_channels": thing_channels}
    torch.save({"model": model.state_dict(), "segkit": saved}, path)
