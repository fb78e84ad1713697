"""torchvision's DeepLabV3, imported, gives torchvision's logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import get_model

from tests.helpers.imports import randomize, run_import


@pytest.mark.parametrize(
    "name", [pytest.param("deeplabv3_resnet50", marks=pytest.mark.slow), "deeplabv3_mobilenet_v3_large"]
)
def test_logits_are_those_of_torchvision(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    randomize(theirs, 0.5 if "resnet" in name else 1.0)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    predictor, report = run_import(tmp_path / "w.pth")
    assert (report["counts"]["missing"], report["counts"]["unexpected"]) == (0, 0)
    assert predictor.space.names[0] == "background"
    image = torch.rand((3, 64, 96), generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).reshape(2, 3, 1, 1)
    with torch.no_grad():
        expected = theirs(((image - mean) / std)[None])["out"][0]
        got = predictor.model([{"image": image * 255}])[0]["sem_seg"]
    assert expected.std() > 1e-3
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
