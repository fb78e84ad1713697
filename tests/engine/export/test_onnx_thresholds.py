"""The score thresholds of the fusion in an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segkit.fusion import HeuristicFusion
from segkit.modeling.postprocessing.detections import Detections, build_class_thresholds, select_candidate_rows

pytest.importorskip("onnxscript", reason="pip install 'segkit[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")


class Selection(torch.nn.Module):
    def __init__(self, fusion: HeuristicFusion) -> None:
        super().__init__()
        self.threshold, self.class_thresholds = fusion.instance_score_threshold, build_class_thresholds(fusion)

    def forward(self, scores: torch.Tensor, class_ids: torch.Tensor) -> torch.Tensor:
        boxes, masks = torch.zeros(*scores.shape, 4), torch.zeros(*scores.shape, 2, 2)
        rows = Detections(masks, boxes, scores, class_ids, torch.ones_like(scores, dtype=torch.bool))
        return select_candidate_rows(rows, self.threshold, self.class_thresholds)


@pytest.mark.parametrize(
    ("class_thresholds", "selected"),
    [({}, [True, True, False, False]), ({1: 0.1}, [True, True, True, False]), ({0: 0.95}, [False, True, False, False])],
)
def test_rows_below_the_threshold_of_their_class_are_left_out(
    tmp_path: Path, class_thresholds: dict[int, float], selected: list[bool]
) -> None:
    fusion = HeuristicFusion(instance_score_threshold=0.5, class_score_thresholds=class_thresholds)
    inputs = torch.tensor([[0.9, 0.6, 0.4, 0.05]]), torch.tensor([[0, 1, 1, 1]])
    assert Selection(fusion)(*inputs).tolist() == [selected]
    torch.onnx.export(Selection(fusion).eval(), inputs, tmp_path / "selection.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "selection.onnx")
    names = [each.name for each in session.get_inputs()]
    (result,) = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    np.testing.assert_array_equal(result, [selected])
