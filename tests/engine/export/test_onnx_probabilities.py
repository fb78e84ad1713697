"""The probabilities of masks in an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segkit.engine.export.detections import compute_probs

pytest.importorskip("onnxscript", reason="pip install 'segkit[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")


class Probabilities(torch.nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return compute_probs(logits)


def test_probabilities_are_at_most_1_and_nan_stays_nan(tmp_path: Path) -> None:
    logits = torch.linspace(-40, 40, 80_001)  # onnxruntime's own sigmoid exceeds 1 for some above 13
    logits[0] = torch.nan
    path = tmp_path / "probs.onnx"
    torch.onnx.export(Probabilities().eval(), (logits,), path, input_names=["x"], dynamo=True, verbose=False)
    (probs,) = onnxruntime.InferenceSession(path).run(None, {"x": logits.numpy()})
    assert np.isnan(probs[0])
    assert probs[1:].min() >= 0
    assert probs[1:].max() == 1
    np.testing.assert_allclose(probs[1:], logits[1:].sigmoid(), atol=1e-6)
