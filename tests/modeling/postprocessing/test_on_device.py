"""PanopticRCNN's way for a GPU, taken on the CPU: the same output as by its way for the CPU, whatever the inputs."""

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
from segkit.modeling.postprocessing import head_outputs as door
from segkit.modeling.postprocessing.panoptic import runs_on_tensors
from tests.modeling.test_panoptic_rcnn import images, twins

PLAIN = HeuristicFusion(0.5, 100, 0.05)
RULES = [
    PLAIN,
    HeuristicFusion(0.5, 100, 0.05, {1: 0.2, 3: 0.9}, "box", 0.4),
    HeuristicFusion(1.0, 0, 0.0),
    UPSNetFusion(0.05, 0.8, 0.5, 100),
    EfficientPSFusion(0.05, 0.5, 100),
    MaskArgmaxFusion(0.05, 0.2),
]
# What the semantic channels mean: as in Detectron2; or things 0..2 have one each, and the others share the last.
SPACES = {
    "one": (None, None),
    "per_class": (torch.tensor([1, 0, 0, 2, 0, 0]), torch.tensor([-1, 0, 1, -1, 2, -1])),
}
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    """Detectron2's model and ours, of the same weights."""
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
    def of(batch: list[dict[str, Any]], on_device: bool) -> list[dict[str, Any]]:
        monkeypatch.setattr(panoptic_rcnn, "fuses_on_device", lambda fusion, _: on_device and runs_on_tensors(fusion))
        with torch.no_grad():
            outputs: list[dict[str, Any]] = ours(batch)
        return outputs

    return of


def batch_of_four() -> list[dict[str, Any]]:
    """Network sizes in pairs; outputs enlarged, shrunk and squeezed."""
    batch = [*images(), *images(seed=5)]
    batch[3]["height"], batch[3]["width"] = 211, 57
    return batch


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert set(one) == set(other)
    ids, info = one["panoptic_seg"]
    assert ids.dtype == other["panoptic_seg"][0].dtype
    assert torch.equal(ids, other["panoptic_seg"][0])
    assert repr(info) == repr(other["panoptic_seg"][1])  # the types too: it may go into JSON
    assert torch.equal(one["sem_seg"], other["sem_seg"])
    fields = [found["instances"].get_fields() for found in (one, other)]
    assert set(fields[0]) == set(fields[1])
    for name, value in fields[0].items():
        values = [v.tensor if isinstance(v, Boxes) else v for v in (value, fields[1][name])]
        assert torch.equal(*values), name
    heads = [found["head_outputs"] for found in (one, other)]
    for masks in ([found["instance_masks"] for found in (one, other)], [found.instances for found in heads]):
        np.testing.assert_array_equal(masks[0].to_full(), masks[1].to_full())
        np.testing.assert_array_equal(masks[0].mask_probs, masks[1].mask_probs)
    np.testing.assert_array_equal(heads[0].semantic.channels, heads[1].semantic.channels)
    assert (heads[0].semantic.logits is None) == (heads[1].semantic.logits is None)


@pytest.mark.parametrize("space", SPACES)
@every_rule
def test_the_whole_output_is_that_of_the_way_for_the_cpu(rule: FusionMethod, space: str, ours: Any, run: Any) -> None:
    ours.fusion = rule
    ours.stuff_ids, ours.thing_ids = SPACES[space]
    expected, got = run(batch_of_four(), on_device=False), run(batch_of_four(), on_device=True)
    assert len({one["panoptic_seg"][0].shape for one in got}) == 3
    for one, other in zip(expected, got, strict=True):
        assert len(one["instances"]) > 20
        assert {segment["isthing"] for segment in one["panoptic_seg"][1]} == {True, False}
        assert_equal(one, other)


@every_rule
def test_nothing_detected_in_any_image(rule: FusionMethod, ours: Any, run: Any, monkeypatch: Any) -> None:
    ours.fusion = rule
    monkeypatch.setattr(ours.roi_heads.box_predictor, "test_score_thresh", 2.0)
    for one, other in zip(run(images(), on_device=False), run(images(), on_device=True), strict=True):
        assert not any(segment["isthing"] for segment in other["panoptic_seg"][1])
        assert_equal(one, other)


def test_it_is_detectron2s_output(both: tuple[Any, Any], run: Any) -> None:
    with torch.no_grad():
        expected = both[0](batch_of_four())
    for one, other in zip(expected, run(batch_of_four(), on_device=True), strict=True):
        assert torch.equal(one["panoptic_seg"][0], other["panoptic_seg"][0])
        assert one["panoptic_seg"][1] == other["panoptic_seg"][1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", [PLAIN, RULES[3]], ids=lambda rule: type(rule).__name__)
def test_in_mixed_precision(rule: FusionMethod, dtype: torch.dtype, ours: Any, run: Any) -> None:
    ours.fusion = rule
    with torch.autocast("cpu", dtype=dtype):
        expected, got = run(images(1), on_device=False), run(images(1), on_device=True)
    assert got[0]["sem_seg"].dtype == dtype
    assert_equal(expected[0], got[0])


def test_another_fusion_or_other_channels_are_taken_from_then_on(ours: Any, run: Any) -> None:
    for rule, space in ((PLAIN, "one"), (UPSNetFusion(0.05), "one"), (PLAIN, "per_class"), (PLAIN, "one")):
        ours.fusion = rule
        ours.stuff_ids, ours.thing_ids = SPACES[space]
        assert_equal(run(images(1), on_device=False)[0], run(images(1), on_device=True)[0])


def test_what_saved_files_hold_is_fused_on_the_cpu(ours: Any, run: Any) -> None:
    # Rounded logits: the way for a GPU, which takes them as they are, would not give what the files give.
    ours.fusion = EfficientPSFusion(0.05, 0.5, 100)
    with fusing_saved_values(ours, keep_logits=2):
        (output,) = run(images(1), on_device=True)
    assert output["head_outputs"].semantic.logits.shape[0] == 2
    np.testing.assert_array_equal(output["panoptic_seg"][0].numpy(), ours.fusion(output["head_outputs"]).segment_ids)


def test_no_full_logits_for_files_without_logits(ours: Any, run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(door, "COMPILED", True)
    monkeypatch.setattr(door, "argmax_upsampled", lambda logits, scale, _, size_hw: np.zeros(size_hw, dtype=np.uint8))
    monkeypatch.setattr(door.SemanticLogits, "resize", lambda _: pytest.fail("full-size logits were made"))
    with fusing_saved_values(ours, keep_logits=0):
        assert run(images(1), on_device=False)[0]["head_outputs"].semantic.logits is None


ways = pytest.mark.parametrize(
    ("on_device", "compiled"), [(True, True), (False, door.COMPILED), (False, False)], ids=["device", "cpu", "plain"]
)


@ways
@pytest.mark.parametrize("rule", [PLAIN, UPSNetFusion(0.05)], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_logits_are_an_error(
    value: float, rule: FusionMethod, on_device: bool, compiled: bool, ours: Any, run: Any, monkeypatch: Any
) -> None:
    layers = ours.sem_seg_head.layers

    def broken(features: Any) -> torch.Tensor:
        logits: torch.Tensor = layers(features).clone()
        logits[1, 2, 5, 5] = value
        return logits

    ours.fusion = rule
    monkeypatch.setattr(door, "COMPILED", compiled)
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
        found, losses = roi_heads(ours.roi_heads, *args)
        values = found[1].get(field)
        (values.tensor if isinstance(values, Boxes) else values)[3].view(-1)[0] = value
        return found, losses

    monkeypatch.setattr(door, "COMPILED", compiled)
    monkeypatch.setattr(ours.roi_heads, "forward", broken)
    with pytest.raises(ValueError, match=r"must be finite|must be in \[0, 1\]"):
        run(images(), on_device)


@pytest.mark.parametrize("on_device", [False, True])
@every_rule
def test_instances_without_a_channel_of_things_are_an_error(
    rule: FusionMethod, on_device: bool, ours: Any, run: Any, monkeypatch: Any
) -> None:
    ours.fusion = rule
    ours.stuff_ids, ours.thing_ids = torch.arange(1, 7), torch.full((6,), -1)
    with pytest.raises(ValueError, match="the semantic map has no channel of things, but there are instances"):
        run(images(1), on_device)
    monkeypatch.setattr(ours.roi_heads.box_predictor, "test_score_thresh", 2.0)
    assert not any(segment["isthing"] for segment in run(images(1), on_device)[0]["panoptic_seg"][1])


def test_gradients_and_inference_mode_do_not_matter(ours: Any) -> None:
    (with_gradients,) = ours(images(1))
    with torch.inference_mode():
        (without,) = ours(images(1))
    assert_equal(with_gradients, without)  # the lazy ones are made outside of the mode
