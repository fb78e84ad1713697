"""PanopticRCNN's path for a GPU, run on the CPU: its output equals the CPU path's.

Maps may differ only at pixels where a mask probability is within rounding of the threshold, or two logits are within
rounding of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes

from segkit.evaluation.head_outputs import fusing_saved_values
from segkit.fusion import FusionMethod, HeuristicFusion
from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.fusion.upsnet import UPSNetFusion
from segkit.modeling.meta_arch import panoptic_rcnn
from segkit.modeling.postprocessing import head_outputs as head_outputs_module
from segkit.modeling.postprocessing.panoptic import runs_on_tensors
from tests.helpers.rounding import assert_equal_panoptic, find_unsure_channels
from tests.helpers.small_models import images, twins

PLAIN = HeuristicFusion(overlap_threshold=0.5, stuff_area_limit_px=100, instance_score_threshold=0.05)
FUSIONS = [
    PLAIN,
    HeuristicFusion(
        overlap_threshold=0.5,
        stuff_area_limit_px=100,
        instance_score_threshold=0.05,
        class_score_thresholds={1: 0.2, 3: 0.9},
        nms="box",
        nms_threshold=0.4,
    ),
    HeuristicFusion(overlap_threshold=1.0, stuff_area_limit_px=0, instance_score_threshold=0.0),
    UPSNetFusion(instance_score_threshold=0.05, nms_threshold=0.8, overlap_threshold=0.5, stuff_area_limit_px=100),
    EfficientPSFusion(instance_score_threshold=0.05, overlap_threshold=0.5, stuff_area_limit_px=100),
    MaskArgmaxFusion(object_mask_threshold=0.05, overlap_threshold=0.2),
]
# Classes of the semantic channels: as in Detectron2, or one each for the things 0..2, the last for all others.
SPACES = {
    "one": (None, None),
    "per_class": (torch.tensor([1, 0, 0, 2, 0, 0]), torch.tensor([-1, 0, 1, -1, 2, -1])),
}
every_fusion = pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: type(fusion).__name__)


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    """Detectron2's model and ours with the same weights."""
    theirs, ours = twins()
    return theirs.eval(), ours.eval()


@pytest.fixture
def ours(both: tuple[Any, Any]) -> Any:
    model = both[1]
    model.fusion, model.rounding, model.with_logits = PLAIN, None, False
    model.stuff_ids, model.thing_ids = SPACES["one"]
    return model


@pytest.fixture
def run(ours: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    def run_model(batch: list[dict[str, Any]], on_device: bool) -> list[dict[str, Any]]:
        monkeypatch.setattr(panoptic_rcnn, "fuses_on_device", lambda fusion, _: on_device and runs_on_tensors(fusion))
        with torch.no_grad():
            outputs: list[dict[str, Any]] = ours(batch)
        return outputs

    return run_model


def batch_of_four() -> list[dict[str, Any]]:
    """Network sizes in pairs; outputs enlarged, shrunk and squeezed."""
    batch = [*images(), *images(seed=5)]
    batch[3]["height"], batch[3]["width"] = 211, 57
    return batch


def assert_equal(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert set(first) == set(second)
    assert_equal_panoptic(first, second, ours=first)
    assert torch.equal(first["sem_seg"], second["sem_seg"])
    fields = [detected["instances"].get_fields() for detected in (first, second)]
    assert set(fields[0]) == set(fields[1])
    for name, value in fields[0].items():
        values = [v.tensor if isinstance(v, Boxes) else v for v in (value, fields[1][name])]
        assert torch.equal(*values), name
    heads = [detected["head_outputs"] for detected in (first, second)]
    for masks in (
        [detected["instance_masks"] for detected in (first, second)],
        [detected.instances for detected in heads],
    ):
        np.testing.assert_array_equal(masks[0].to_full(), masks[1].to_full())
        np.testing.assert_array_equal(masks[0].mask_probs, masks[1].mask_probs)
    differs = heads[0].semantic.channels != heads[1].semantic.channels
    assert not (differs & ~find_unsure_channels(first["sem_seg"])).any()
    assert (heads[0].semantic.logits is None) == (heads[1].semantic.logits is None)


@pytest.mark.parametrize("space", SPACES)
@every_fusion
def test_the_whole_output_equals_that_of_the_cpu(fusion: FusionMethod, space: str, ours: Any, run: Any) -> None:
    ours.fusion = fusion
    ours.stuff_ids, ours.thing_ids = SPACES[space]
    expected, got = run(batch_of_four(), on_device=False), run(batch_of_four(), on_device=True)
    assert len({first["panoptic_seg"][0].shape for first in got}) == 3
    for first, second in zip(expected, got, strict=True):
        assert len(first["instances"]) > 20
        assert {segment["isthing"] for segment in first["panoptic_seg"][1]} == {True, False}
        assert_equal(first, second)


@every_fusion
def test_images_without_detections(fusion: FusionMethod, ours: Any, run: Any, monkeypatch: Any) -> None:
    ours.fusion = fusion
    monkeypatch.setattr(ours.roi_heads.box_predictor, "test_score_thresh", 2.0)
    for first, second in zip(run(images(), on_device=False), run(images(), on_device=True), strict=True):
        assert not any(segment["isthing"] for segment in second["panoptic_seg"][1])
        assert_equal(first, second)


def test_the_output_equals_detectron2s(both: tuple[Any, Any], run: Any) -> None:
    with torch.no_grad():
        expected = both[0](batch_of_four())
    for first, second in zip(expected, run(batch_of_four(), on_device=True), strict=True):
        assert_equal_panoptic(first, second, ours=second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fusion", [PLAIN, FUSIONS[3]], ids=lambda fusion: type(fusion).__name__)
def test_in_mixed_precision(fusion: FusionMethod, dtype: torch.dtype, ours: Any, run: Any) -> None:
    ours.fusion = fusion
    with torch.autocast("cpu", dtype=dtype):
        expected, got = run(images(1), on_device=False), run(images(1), on_device=True)
    assert got[0]["sem_seg"].dtype == dtype
    assert_equal(expected[0], got[0])


def test_another_fusion_or_other_channels_replace_the_post_processor(ours: Any, run: Any) -> None:
    for fusion, space in (
        (PLAIN, "one"),
        (UPSNetFusion(instance_score_threshold=0.05), "one"),
        (PLAIN, "per_class"),
        (PLAIN, "one"),
    ):
        ours.fusion = fusion
        ours.stuff_ids, ours.thing_ids = SPACES[space]
        assert_equal(run(images(1), on_device=False)[0], run(images(1), on_device=True)[0])


def test_rounded_head_outputs_are_fused_on_the_cpu(ours: Any, run: Any) -> None:
    # Rounded logits: the way for a GPU, which takes them as they are, would not give what the files give.
    ours.fusion = EfficientPSFusion(instance_score_threshold=0.05, overlap_threshold=0.5, stuff_area_limit_px=100)
    with fusing_saved_values(ours, keep_logits=2):
        (output,) = run(images(1), on_device=True)
    assert output["head_outputs"].semantic.logits.shape[0] == 2
    np.testing.assert_array_equal(output["panoptic_seg"][0].numpy(), ours.fusion(output["head_outputs"]).segment_ids)


def test_no_full_logits_for_files_without_logits(ours: Any, run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(head_outputs_module, "COMPILED", True)
    monkeypatch.setattr(
        head_outputs_module, "argmax_upsampled", lambda logits, scale, _, size_hw: np.zeros(size_hw, dtype=np.uint8)
    )
    monkeypatch.setattr(
        head_outputs_module.SemanticLogits, "resize", lambda _: pytest.fail("full-size logits were made")
    )
    with fusing_saved_values(ours, keep_logits=0):
        assert run(images(1), on_device=False)[0]["head_outputs"].semantic.logits is None


ways = pytest.mark.parametrize(
    ("on_device", "compiled"),
    [(True, True), (False, head_outputs_module.COMPILED), (False, False)],
    ids=["device", "cpu", "plain"],
)


@ways
@pytest.mark.parametrize(
    "fusion", [PLAIN, UPSNetFusion(instance_score_threshold=0.05)], ids=lambda fusion: type(fusion).__name__
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_logits_are_an_error(
    value: float, fusion: FusionMethod, on_device: bool, compiled: bool, ours: Any, run: Any, monkeypatch: Any
) -> None:
    layers = ours.sem_seg_head.layers

    def broken(features: Any) -> torch.Tensor:
        logits: torch.Tensor = layers(features).clone()
        logits[1, 2, 5, 5] = value
        return logits

    ours.fusion = fusion
    monkeypatch.setattr(head_outputs_module, "COMPILED", compiled)
    monkeypatch.setattr(ours.sem_seg_head, "layers", broken)
    with pytest.raises(ValueError, match="logits must be finite"):
        run(images(), on_device)


@ways
@pytest.mark.parametrize(
    ("field", "value"),
    [(name, bad) for name in ("scores", "pred_boxes", "pred_masks") for bad in (torch.nan, torch.inf)]
    + [("pred_masks", -0.5), ("pred_masks", 1.5)],
)
def test_broken_instances_are_an_error(
    field: str, value: float, on_device: bool, compiled: bool, ours: Any, run: Any, monkeypatch: Any
) -> None:
    roi_heads = type(ours.roi_heads).forward

    def broken(*args: Any) -> Any:
        detected, losses = roi_heads(ours.roi_heads, *args)
        values = detected[1].get(field)
        (values.tensor if isinstance(values, Boxes) else values)[3].view(-1)[0] = value
        return detected, losses

    monkeypatch.setattr(head_outputs_module, "COMPILED", compiled)
    monkeypatch.setattr(ours.roi_heads, "forward", broken)
    with pytest.raises(ValueError, match=r"must be finite|must be in \[0, 1\]"):
        run(images(), on_device)


@pytest.mark.parametrize("on_device", [False, True])
@every_fusion
def test_instances_without_a_channel_of_things_are_an_error(
    fusion: FusionMethod, on_device: bool, ours: Any, run: Any, monkeypatch: Any
) -> None:
    ours.fusion = fusion
    ours.stuff_ids, ours.thing_ids = torch.arange(1, 7), torch.full((6,), -1)
    with pytest.raises(ValueError, match="the semantic map has no channel of things, but there are instances"):
        run(images(1), on_device)
    monkeypatch.setattr(ours.roi_heads.box_predictor, "test_score_thresh", 2.0)
    assert not any(segment["isthing"] for segment in run(images(1), on_device)[0]["panoptic_seg"][1])


def test_gradients_and_inference_mode_do_not_matter(ours: Any) -> None:
    (with_gradients,) = ours(images(1))
    with torch.inference_mode():
        (without,) = ours(images(1))
    assert_equal(with_gradients, without)  # lazy values are computed outside of the mode
