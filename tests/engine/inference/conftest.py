"""A model with random weights, shared by the tests of prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from segkit.data.class_counts import resolve_for_categories
from segkit.data.toy import dataset as toy
from segkit.engine.setup import read_config
from tests.engine.inference import CONFIG


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with confident predictions, saved as in segkit's training."""
    torch.manual_seed(0)
    cfg = read_config(CONFIG)
    resolve_for_categories(cfg, toy.CATEGORIES, "one", "toy")
    model = build_model(cfg)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(300)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": model.state_dict(), "segkit": {"categories": toy.CATEGORIES.to_coco()}}, path)
    return path
