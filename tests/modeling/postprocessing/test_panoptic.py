"""Post-processing on tensors, compared with the CPU fusion and Detectron2's. No value is read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import detector_postprocess
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from segkit.fusion import FusionMethod, HeuristicFusion
from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.majority_vote import MajorityVoteFusion
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.fusion.paste import paste_masks
from segkit.fusion.upsnet import UPSNetFusion
from segkit.modeling.postprocessing.detections import (
    Detections,
    build_class_thresholds,
    detections_from_instances,
    scale_boxes,
    stack_detections,
)
from segkit.modeling.postprocessing.heuristic import fuse_heuristic
from segkit.modeling.postprocessing.panoptic import PanopticPostProcessor, runs_on_tensors
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, to_panoptic, to_segments
from segkit.modeling.postprocessing.paste import ROWS_PER_STEP
from segkit.modeling.postprocessing.resampling import CHANNELS_PER_STEP, Sizes, argmax_resized, find_nan_logits
from segkit.structures import HeadOutputs, PanopticSegmentation, Segment, SemanticScores
from segkit.structures.segment_table import NAN_INSTANCES, NAN_LOGITS
from segkit.utils.errors import ConfigError

CHANNELS = 5  # of the whole path's logits: 0 = things, stuff 1..4
FUSION = HeuristicFusion(stuff_area_limit_px=20, instance_score_threshold=0.3)
FUSIONS = [
    replace(FUSION, nms="box", class_score_thresholds={1: 0.5}),
    UPSNetFusion(instance_score_threshold=0.3, nms_threshold=0.8, overlap_threshold=0.5, stuff_area_limit_px=20),
    EfficientPSFusion(instance_score_threshold=0.3, overlap_threshold=0.5, stuff_area_limit_px=20),
    MaskArgmaxFusion(object_mask_threshold=0.3, overlap_threshold=0.2),
]
SIZES = Sizes((22, 30), (33, 40), 4)  # logits of 6 x 8 stand for 24 x 32 pixels, of which 22 x 30 are the image


def detections(seed: int, count: int, size_hw: tuple[int, int], cells: int = 6) -> Detections:
    """`count` rows of one image; boxes that reach out of it, a few equal scores."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    corners = rng.uniform(-3, [width, height], (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, [width, height], (count, 2))], axis=1)
    probs = 1 / (1 + np.exp(-rng.normal(1.5, 2.5, (count, cells, cells))))
    return Detections(
        torch.from_numpy(probs.astype(np.float32)),
        torch.from_numpy(boxes.astype(np.float32)),
        torch.from_numpy((rng.integers(2, 10, count) / 10).astype(np.float32)),
        torch.from_numpy(rng.integers(0, 3, count)),
        torch.ones(count, dtype=torch.bool),
    )


def build_stuff_map(seed: int, size_hw: tuple[int, int], count: int) -> torch.Tensor:
    blobs = torch.randint(0, count + 1, (1, 1, 2, 3), generator=torch.Generator().manual_seed(seed)).float()
    return F.interpolate(blobs, size=size_hw)[0, 0].long()


def fuse_one(
    detected: Detections, stuff_map: torch.Tensor, count: int, fusion: HeuristicFusion
) -> PanopticSegmentation:
    fused = fuse_heuristic(stack_detections([detected]), stuff_map[None], count, fusion, build_class_thresholds(fusion))
    return to_panoptic(fused.unbatched())[0]


def on_cpu(detected: Detections, stuff_map: torch.Tensor, fusion: HeuristicFusion) -> PanopticSegmentation:
    probs, boxes, scores, class_ids, _ = (field[detected.valid].numpy() for field in detected)
    masks = paste_masks(probs, boxes, scores, class_ids, tuple(stuff_map.shape))
    return fusion(HeadOutputs(masks, SemanticScores.from_stuff_ids(stuff_map.numpy())))


def assert_equal(first: PanopticSegmentation, second: PanopticSegmentation) -> None:
    np.testing.assert_array_equal(first.segment_ids, second.segment_ids)
    assert first.segment_ids.dtype == second.segment_ids.dtype
    assert first.segments == second.segments


def pixels(rows: list[list[int]], score: float, class_id: int = 0) -> Detections:
    """One instance whose mask's cells are the pixels of a 4 x 4 image."""
    fields = (
        torch.tensor([rows]).float(),
        torch.tensor([[0.0, 0, 4, 4]]),
        torch.tensor([score]),
        torch.tensor([class_id]),
    )
    return Detections(*fields, torch.tensor([True]))


def joined(*rows: Detections) -> Detections:
    return Detections(*(torch.cat(fields) for fields in zip(*rows, strict=True)))


LEFT = pixels([[1, 1, 0, 0]] * 4, 0.9, 2)
MIDDLE = pixels([[0, 1, 1, 0]] * 4, 0.8, 1)
TOP = pixels([[1, 1, 1, 1], *[[0] * 4] * 3], 0.7)
STUFF = torch.tensor([[0, 0, 0, 2]] * 3 + [[0, 0, 0, 1]])


def test_by_hand() -> None:
    # LEFT takes columns 0 and 1. Of MIDDLE's 8 pixels 4 are taken, no more than half: it gets column 2. Of TOP's 4
    # pixels 3 are taken: dropped. Column 3 is stuff: three pixels of 2, one of 1, which is below the limit of 2.
    fusion = HeuristicFusion(stuff_area_limit_px=2)
    fused = fuse_one(joined(TOP, MIDDLE, LEFT), STUFF, 2, fusion)
    assert fused.segment_ids.tolist() == [[1, 1, 2, 3]] * 3 + [[1, 1, 2, 0]]
    assert fused.segments == (
        Segment(1, 2, True, 8, score=float(np.float32(0.9)), instance_id=2),
        Segment(2, 1, True, 4, score=float(np.float32(0.8)), instance_id=1),
        Segment(3, 2, False, 3),
    )


def test_of_equal_scores_the_earlier_row_is_better() -> None:
    left, middle = (row._replace(scores=torch.tensor([0.8])) for row in (LEFT, MIDDLE))
    assert fuse_one(joined(left, middle), STUFF * 0, 0, FUSION).segment_ids[0].tolist() == [1, 1, 2, 0]
    assert fuse_one(joined(middle, left), STUFF * 0, 0, FUSION).segment_ids[0].tolist() == [2, 1, 1, 0]


def test_segments_without_a_pixel_as_in_detectron2() -> None:
    # At overlap_threshold 1 the second LEFT, all taken, is kept with 0 pixels; at a limit of 0 so is stuff 1, which
    # is only under LEFT; stuff 2 is not in the map.
    fusion = HeuristicFusion(overlap_threshold=1.0, stuff_area_limit_px=0, instance_score_threshold=0.5)
    fused = fuse_one(joined(LEFT, LEFT), torch.tensor([[1, 1, 0, 0]] * 4), 2, fusion)
    assert [(s.segment_id, s.isthing, s.area_px) for s in fused.segments] == [(1, True, 8), (2, True, 0), (3, False, 0)]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size_hw=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    valid=st.lists(st.booleans(), max_size=2 * ROWS_PER_STEP + 1),
    stuff=st.integers(0, 4),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    limit=st.sampled_from([0, 5, 30.5]),
    limits_of=st.dictionaries(st.integers(0, 4), st.sampled_from([0.2, 0.5, 0.8]), max_size=2),
    nms=st.sampled_from(["none", "box"]),
)
def test_equals_the_fusion_on_the_cpu(
    seed: int,
    size_hw: tuple[int, int],
    valid: list[bool],
    stuff: int,
    overlap: float,
    limit: float,
    limits_of: dict[int, float],
    nms: str,
) -> None:
    fusion = HeuristicFusion(
        overlap_threshold=overlap,
        stuff_area_limit_px=limit,
        instance_score_threshold=0.35,
        class_score_thresholds=limits_of,
        nms=nms,
        nms_threshold=0.4,
    )
    detected = detections(seed, len(valid), size_hw)._replace(valid=torch.tensor(valid, dtype=torch.bool))
    stuff_map = build_stuff_map(seed, size_hw, stuff)
    expected = on_cpu(detected, stuff_map, fusion)
    for row in [i for i, ok in enumerate(valid) if not ok]:  # padding may hold anything
        detected.mask_probs[row], detected.boxes_xyxy[row], detected.scores[row] = torch.nan, torch.inf, torch.nan
        detected.class_ids[row] = -7
    assert_equal(fuse_one(detected, stuff_map, stuff, fusion), expected)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size_hw=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    count=st.integers(0, 2 * ROWS_PER_STEP + 1),
    overlap=st.sampled_from([0.1, 0.5, 0.9]),
    limit=st.sampled_from([0, 30]),
    unknown_class=st.booleans(),
    space=st.sampled_from([([0, 1, 2, 3], [-1] * 4), ([1, 0, 0, 2, 0], [-1, 0, 1, -1, 2]), ([0, 0], [-1, 1])]),
)
def test_logit_fusions_equal_those_on_the_cpu(
    seed: int,
    size_hw: tuple[int, int],
    count: int,
    overlap: float,
    limit: float,
    unknown_class: bool,
    space: tuple[list[int], list[int]],
) -> None:
    stuff_ids, thing_ids = (torch.tensor(ids) for ids in space)
    detected = detections(seed, count, size_hw)
    boxes, valid = scale_boxes(detected.boxes_xyxy[None], size_hw, size_hw)
    detected = detected._replace(boxes_xyxy=boxes[0], valid=valid[0])
    logits = torch.randn((len(stuff_ids), *size_hw), generator=torch.Generator().manual_seed(seed)) * 3
    semantic = SemanticScores(
        channels=logits.argmax(0).numpy(),
        stuff_ids=stuff_ids.numpy(),
        thing_ids=thing_ids.numpy(),
        logits=logits.numpy(),
    )
    probs, boxes_xyxy, scores, class_ids, _ = (field[detected.valid].numpy() for field in detected)
    outputs = HeadOutputs(paste_masks(probs, boxes_xyxy, scores, class_ids, size_hw), semantic)
    for fusion in (
        UPSNetFusion(
            instance_score_threshold=0.3,
            nms_threshold=0.8,
            overlap_threshold=overlap,
            stuff_area_limit_px=limit,
            unknown_class=unknown_class,
        ),
        EfficientPSFusion(instance_score_threshold=0.3, overlap_threshold=overlap, stuff_area_limit_px=limit),
        MaskArgmaxFusion(object_mask_threshold=0.3, overlap_threshold=overlap, stuff_area_limit_px=limit),
    ):
        post_processor = PanopticPostProcessor(fusion, len(stuff_ids), stuff_ids, thing_ids)
        (fused,) = to_panoptic(
            post_processor(stack_detections([detected]), logits[None], Sizes(size_hw, size_hw)).unbatched()
        )
        assert_equal(fused, fusion(outputs))


def test_more_competing_instances_than_bits_of_a_word() -> None:
    # 70 rows of one mask: only the first is not covered by a better one. In UPSNet only instances of one class suppress
    # each other: of the two alternating classes two rows are kept; the second, with equal values, gets no pixel.
    rows = [LEFT._replace(scores=torch.tensor([0.99 - i / 500]), class_ids=torch.tensor([i % 2])) for i in range(70)]
    detected, logits = stack_detections([joined(*rows)]), torch.zeros(1, 2, 4, 4)
    for fusion in (
        EfficientPSFusion(instance_score_threshold=0.3, overlap_threshold=0.5, stuff_area_limit_px=0),
        UPSNetFusion(
            instance_score_threshold=0.3,
            nms_threshold=1.0,
            overlap_threshold=0.5,
            stuff_area_limit_px=0,
            unknown_class=False,
        ),
    ):
        (fused,) = to_panoptic(PanopticPostProcessor(fusion, 2)(detected, logits, Sizes((4, 4), (4, 4))).unbatched())
        assert [(s.isthing, s.instance_id, s.area_px) for s in fused.segments if s.isthing] == [(True, 0, 8)]


def test_a_class_without_a_channel_is_an_error() -> None:
    post_processor = PanopticPostProcessor(EfficientPSFusion(), 2, torch.tensor([1, 0]), torch.tensor([-1, 5]))
    fused = post_processor(stack_detections([LEFT]), torch.zeros(1, 2, 4, 4), Sizes((4, 4), (4, 4)))
    with pytest.raises(ValueError, match="no channel for the class"):
        to_panoptic(fused.unbatched())


def detectron2(detected: Detections, logits: torch.Tensor, sizes: Sizes, fusion: HeuristicFusion) -> Any:
    """Detectron2's own path, on logits before its head's interpolation."""
    instances = Instances(sizes.image_size, scores=detected.scores, pred_classes=detected.class_ids)
    instances.pred_boxes, instances.pred_masks = Boxes(detected.boxes_xyxy.clone()), detected.mask_probs[:, None]
    full = F.interpolate(logits[None], scale_factor=sizes.scale, mode="bilinear", align_corners=False)[0]
    semantic = sem_seg_postprocess(full, sizes.image_size, *sizes.size_hw).argmax(0)
    limits = fusion.overlap_threshold, fusion.stuff_area_limit_px, fusion.instance_score_threshold
    return combine_semantic_and_instance_outputs(detector_postprocess(instances, *sizes.size_hw), semantic, *limits)


def inputs(counts: list[int], seed: int = 0) -> tuple[list[Detections], torch.Tensor]:
    """Detections in the network's pixels, of distinct scores, and logits, of images of `SIZES`."""
    detected = [detections(seed + i, count, SIZES.image_size, cells=14) for i, count in enumerate(counts)]
    detected = [first._replace(scores=first.scores + torch.arange(len(first.scores)) / 999) for first in detected]
    return detected, torch.randn((len(counts), CHANNELS, 6, 8), generator=torch.Generator().manual_seed(seed))


def assert_as_detectron2(fused: FusedTensors, ids: torch.Tensor, info: list[dict[str, Any]]) -> None:
    (ours,) = to_panoptic([fused])
    np.testing.assert_array_equal(ours.segment_ids, ids.numpy())
    listed = [(s.segment_id, s.isthing, s.category_id, s.instance_id, s.score) for s in ours.segments]
    assert listed == [(s["id"], s["isthing"], s["category_id"], s.get("instance_id"), s.get("score")) for s in info]
    assert all(s["area"] == ours.segments[s["id"] - 1].area_px for s in info if not s["isthing"])


def test_the_whole_path_equals_detectron2_for_images_of_several_sizes() -> None:
    detected, logits = inputs([9, 5, 0, 7])
    detected[1].boxes_xyxy[2] = torch.tensor([31.0, 3, 40, 9])  # right of the image: no area, no instance
    second = Sizes((24, 20), (17, 45), 4)
    sizes = [SIZES, second, SIZES, second]
    fused = PanopticPostProcessor(FUSION, CHANNELS).process_images(detected, [*logits], sizes)
    many = 0
    for first, tensors, scores, size in zip(fused, detected, logits, sizes, strict=True):
        ids, info = detectron2(tensors, scores, size, FUSION)
        many += len(info)
        assert_as_detectron2(first, ids, info)
    assert many >= 16
    together = to_panoptic(fused)
    assert [first.segment_ids.shape for first in together] == [size.size_hw for size in sizes]
    assert to_segments(fused) == [first.segments for first in together]


def test_detections_of_detectron2s_instances_and_no_image_at_all() -> None:
    detected = detections(1, 3, (22, 30))
    instances = Instances((22, 30), scores=detected.scores, pred_classes=detected.class_ids)
    instances.pred_boxes, instances.pred_masks = Boxes(detected.boxes_xyxy), detected.mask_probs[:, None]
    assert all(torch.equal(a, b) for a, b in zip(detections_from_instances(instances), detected, strict=True))
    assert (
        PanopticPostProcessor(FUSION, CHANNELS).process_images([], [], []) == to_panoptic([]) == to_segments([]) == []
    )


def test_stuff_ids_of_channels() -> None:
    # Channel 0 is stuff 2, channel 1 a thing, channel 2 stuff 1: the best channel is 0 on the left, 2 on the right.
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0, :, :2], logits[:, 2, :, 2:] = 1, 1
    post_processor = PanopticPostProcessor(HeuristicFusion(stuff_area_limit_px=1), 3, torch.tensor([2, 0, 1]))
    nothing = stack_detections([LEFT._replace(valid=torch.tensor([False]))])
    (fused,) = to_panoptic(post_processor(nothing, logits, Sizes((4, 4), (4, 4))).unbatched())
    assert fused.segment_ids[0].tolist() == [2, 2, 1, 1]
    assert [s.category_id for s in fused.segments] == [1, 2]
    with pytest.raises(ValueError, match="one per channel"):
        PanopticPostProcessor(FUSION, 4, torch.tensor([2, 0, 1]))


def test_argmax_resized_is_detectron2s_first_of_equal_ones_included() -> None:
    channels = CHANNELS_PER_STEP + 5
    ties = torch.randint(0, 3, (2, channels, 7, 9), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(argmax_resized(ties, Sizes((7, 9), (7, 9))), ties.argmax(1))
    logits = torch.randn((1, channels, 7, 9), generator=torch.Generator().manual_seed(1))
    assert torch.equal(
        argmax_resized(logits, Sizes((6, 8), (11, 5)))[0], sem_seg_postprocess(logits[0], (6, 8), 11, 5).argmax(0)
    )


def test_boxes_as_detectron2_scales_them() -> None:
    detected = detections(4, 6, (22, 30))
    boxes, valid = scale_boxes(detected.boxes_xyxy[None], (22, 30), (33, 40))
    instances = Instances((22, 30), pred_boxes=Boxes(detected.boxes_xyxy.clone()))
    expected = detector_postprocess(instances, 33, 40).pred_boxes.tensor
    assert torch.equal(boxes[0][valid[0]], expected)


@pytest.mark.parametrize("field", ["mask_probs", "boxes_xyxy", "scores"])
def test_nan_of_an_instance_is_an_error(field: str) -> None:
    detected, logits = inputs([3, 3])
    getattr(detected[1], field)[2] = torch.nan
    fused = PanopticPostProcessor(FUSION, CHANNELS)(stack_detections(detected), logits, SIZES).unbatched()
    assert to_panoptic(fused[:1])
    for read in (to_panoptic, to_segments):
        with pytest.raises(ValueError, match="must be finite"):
            read(fused)


def test_nan_logits_are_an_error_if_they_lie_in_the_image() -> None:
    detected, logits = inputs([3])
    logits[0, CHANNELS - 1, 3, 3] = torch.nan
    post_processor = PanopticPostProcessor(FUSION, CHANNELS)
    with pytest.raises(ValueError, match="logits must be finite"):
        to_panoptic(post_processor(stack_detections(detected), logits, SIZES).unbatched())
    # The last row of logits stands for lines 20..23; of the image's 16 lines none is made of it.
    logits = inputs([3])[1]
    logits[0, 0, -1] = torch.nan
    assert to_panoptic(
        post_processor(stack_detections(detected), logits, SIZES._replace(image_size=(16, 30))).unbatched()
    )


@pytest.mark.parametrize("value", [-0.01, 1.01, torch.inf])
def test_a_probability_outside_its_range_is_an_error(value: float) -> None:
    detected, logits = inputs([3, 3])
    detected[1].mask_probs[2, 1, 1] = value
    fused = PanopticPostProcessor(FUSION, CHANNELS)(stack_detections(detected), logits, SIZES).unbatched()
    assert to_panoptic(fused[:1])
    with pytest.raises(ValueError, match=r"mask_probs in \[0, 1\]"):
        to_panoptic(fused)


def test_infinite_logits_are_an_error() -> None:
    detected, logits = inputs([3])
    for value in (torch.inf, -torch.inf):
        logits[0, 1, 3, 3] = value
        with pytest.raises(ValueError, match="logits must be finite"):
            to_panoptic(PanopticPostProcessor(FUSION, CHANNELS)(stack_detections(detected), logits, SIZES).unbatched())


@pytest.mark.parametrize("length", [1, 2, 5, 14, 15, 16, 17, 18, 19, 23, 24])
def test_only_logits_used_for_the_image_are_checked_for_nan(length: int) -> None:
    for row in range(6):
        logits = torch.zeros(1, 1, 6, 8)
        logits[0, 0, row] = torch.nan
        full = F.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)
        assert find_nan_logits(logits, Sizes((length, 32), (9, 9), 4)).item() == full[:, :, :length].isnan().any()
        assert find_nan_logits(full, Sizes((length, 32), (9, 9))).item() == full[:, :, :length].isnan().any()


def test_ids_out_of_range_are_errors() -> None:
    for stuff_map in (STUFF + 1, STUFF - 1):
        with pytest.raises(ValueError, match="stuff_map must be in 0"):
            fuse_one(LEFT, stuff_map, 2, FUSION)
    with pytest.raises(ValueError, match="class_ids of instances must not be negative"):
        fuse_one(LEFT._replace(class_ids=torch.tensor([-1])), STUFF, 2, FUSION)


def test_cpu_only_options_are_rejected() -> None:
    by_masks = replace(FUSION, nms="mask")
    for fusion in (by_masks, MajorityVoteFusion()):
        assert not runs_on_tensors(fusion)
        with pytest.raises(ConfigError, match="does not run on tensors"):
            PanopticPostProcessor(fusion, CHANNELS)
    with pytest.raises(ConfigError, match="nms must be one of"):
        fuse_one(LEFT, STUFF, 2, by_masks)


every_fusion = pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: type(fusion).__name__)
every_fusion_but_some_slow = pytest.mark.parametrize(
    "fusion",
    [FUSIONS[0], *(pytest.param(fusion, marks=pytest.mark.slow) for fusion in FUSIONS[1:])],
    ids=[type(fusion).__name__ for fusion in FUSIONS],
)


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for first in results if isinstance(results, tuple | list) else [results]:
            if isinstance(first, torch.Tensor) and first.untyped_storage().nbytes():
                self.elements = max(self.elements, first.untyped_storage().nbytes() // first.element_size())
        return results


@every_fusion
def test_no_tensor_grows_with_instances_times_pixels(fusion: FusionMethod) -> None:
    count, channels, size_hw = 40, 30, (30, 40)
    detected, logits = detections(0, count, size_hw), torch.randn(1, channels, *size_hw)
    post_processor = PanopticPostProcessor(fusion, channels)
    with LargestTensor() as largest:
        post_processor(stack_detections([detected]), logits, Sizes(size_hw, (60, 80)))
    at_once = CHANNELS_PER_STEP if isinstance(fusion, HeuristicFusion) else channels  # all other methods compare logits
    assert largest.elements == max(2 * ROWS_PER_STEP, at_once) * 60 * 80  # 2: x and y of where to sample


@every_fusion
def test_no_value_is_read_back_from_the_device(fusion: FusionMethod) -> None:
    detected, logits = inputs([5, 3])
    post_processor = PanopticPostProcessor(fusion, CHANNELS)
    batch = stack_detections(detected)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # raises where a value or a shape depends on data
        fake = Detections(*(mode.from_tensor(field) for field in batch))
        fused = post_processor(fake, mode.from_tensor(logits), SIZES)
        with pytest.raises(Exception, match="local_scalar_dense"):
            int(fused.ids.max())
    assert tuple(fused.ids.shape) == (2, *SIZES.size_hw)


needs_recent_torch = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11), reason="compiles and exports from torch 2.11 on"
)


def compiled_equals_eager(fusion: FusionMethod, backend: str) -> None:
    detected, logits = inputs([5, 3])
    post_processor = PanopticPostProcessor(fusion, CHANNELS)
    eager = post_processor(stack_detections(detected), logits, SIZES)
    fused = torch.compile(post_processor, fullgraph=True, backend=backend)(stack_detections(detected), logits, SIZES)
    assert torch.equal(fused.ids, eager.ids)
    assert torch.equal(fused.table, eager.table)


@needs_recent_torch
@every_fusion_but_some_slow
def test_compiled_in_one_graph(fusion: FusionMethod) -> None:
    compiled_equals_eager(fusion, "aot_eager")


@needs_recent_torch
@pytest.mark.slow
@every_fusion
def test_compiled_by_inductor(fusion: FusionMethod) -> None:
    compiled_equals_eager(fusion, "inductor")


class ForOnnx(torch.nn.Module):
    """The path with flat inputs and fixed sizes."""

    def __init__(self, post_processor: PanopticPostProcessor) -> None:
        super().__init__()
        self.post_processor = post_processor

    def forward(self, probs: Any, boxes: Any, scores: Any, class_ids: Any, valid: Any, logits: Any) -> Any:
        return tuple(self.post_processor(Detections(probs, boxes, scores, class_ids, valid), logits, SIZES))


@needs_recent_torch
@every_fusion_but_some_slow
def test_onnx_gives_the_same_result(fusion: FusionMethod, tmp_path: Path) -> None:
    reason = "pip install onnx onnxscript onnxruntime to export and run"
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=reason)
    runtime = pytest.importorskip("onnxruntime", reason=reason)
    post_processor, (detected, logits) = PanopticPostProcessor(fusion, CHANNELS), inputs([6, 4])
    traced = (*stack_detections(detected), logits)
    from segkit.engine.export.onnx_operators import TRANSLATIONS

    options = {
        "dynamo": True,
        "custom_translation_table": TRANSLATIONS,
        "verbose": False,
        "opset_version": 18,
    }  # above, grid_sample in a loop is not converted
    torch.onnx.export(ForOnnx(post_processor).eval(), traced, **options).save(tmp_path / "postprocessing.onnx")
    session = runtime.InferenceSession(tmp_path / "postprocessing.onnx")
    names = [given.name for given in session.get_inputs()]
    for seed in range(4):  # other values, and other rows that are padding
        detected, logits = inputs([6, 3 + seed % 3], seed=10 * seed)
        given = (*stack_detections(detected), logits)
        eager = post_processor(Detections(*given[:-1]), logits, SIZES)
        outputs = session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})
        np.testing.assert_array_equal(outputs[0], eager.ids.numpy())
        np.testing.assert_array_equal(outputs[1], eager.table.numpy())
        assert len(to_panoptic(eager.unbatched())[0].segments) > 3
    given[0][1, 0, 3, 3] = given[-1][0, 2, 1, 1] = torch.nan  # a mask of the second image, a logit of the first
    table = session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})[1]
    assert table[:, -1, 0].tolist() == [NAN_LOGITS, NAN_INSTANCES]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_fusion
def test_cuda_needs_no_synchronization_and_equals_the_cpu(fusion: FusionMethod) -> None:
    detected, logits = inputs([9, 5])
    post_processor = PanopticPostProcessor(fusion, CHANNELS)
    expected = to_panoptic(post_processor(stack_detections(detected), logits, SIZES).unbatched())
    post_processor, batch, logits = (
        post_processor.cuda(),
        Detections(*(field.cuda() for field in stack_detections(detected))),
        logits.cuda(),
    )
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        fused = post_processor(batch, logits, SIZES).unbatched()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for first, second in zip(to_panoptic(fused), expected, strict=True):
        assert_equal(first, second)


@pytest.mark.parametrize("count", [1, ROWS_PER_STEP, ROWS_PER_STEP + 1])
def test_pasted_pixels_equal_detectron2s(count: int) -> None:
    detected, size_hw = detections(count, count, (40, 50), cells=14), (40, 50)
    masks = paste_masks_in_image(detected.mask_probs, Boxes(detected.boxes_xyxy), size_hw)
    order = torch.argsort(-detected.scores, stable=True)
    fusion = HeuristicFusion(overlap_threshold=0.999, stuff_area_limit_px=4096, instance_score_threshold=0.0)
    fused = fuse_one(detected, torch.zeros(size_hw, dtype=torch.long), 0, fusion)
    covered = torch.from_numpy(fused.segment_ids > 0)
    placed = [s.instance_id for s in fused.segments]
    assert torch.equal(covered, masks[placed].any(0))
    assert [i for i in order.tolist() if i in placed] == placed
