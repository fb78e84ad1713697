"""Pasting, compiled and in numpy: by hand and against Detectron2's function.

The masks are equal to Detectron2's, except for pixels whose probability is within ROUNDING of the threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion import paste as module
from segkit.fusion.paste import ROUNDING, compute_crop_probs, paste_masks
from segkit.structures import InstanceMasks
from segkit.utils.compiled import COMPILED

torch = pytest.importorskip("torch", reason="compares with torch")
paste_masks_in_image = pytest.importorskip("detectron2.layers", reason="compares with Detectron2").paste_masks_in_image

WAYS = [pytest.param(True, marks=pytest.mark.skipif(not COMPILED, reason="needs numba")), False]
NO_TIES = (0, 4)  # of the kinds of `many`
both_ways = pytest.mark.parametrize("way", WAYS, ids=["compiled", "numpy"])


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pasted(way: bool, probs: Any, boxes: Any, size_hw: tuple[int, int], threshold: float = 0.5) -> InstanceMasks:
    probs, boxes = np.asarray(probs, dtype=np.float32), np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    scores, class_ids = np.ones(len(probs), dtype=np.float32), np.arange(len(probs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPILED", way)
        return paste_masks(probs, boxes, scores, class_ids, size_hw, threshold)


@both_ways
def test_one_value_over_a_box_fades_out_half_a_cell_beyond_it(way: bool) -> None:
    """A mask of one value, 1, over x 2..4, y 1..3: a cell is 2 px wide and has its centre at x = 3, y = 2.

    At the pixel centre x = 2.5 the distance to it is 0.25 cells, so the weight is 0.75; x = 1.5: 0.75 cells, 0.25;
    x = 3.5 and 4.5 likewise, x = 0.5 and 5.5 are more than a cell away: 0. The same in y. At 0.5 and above are
    0.75 * 0.75 = 0.5625; below are 0.75 * 0.25 = 0.1875 and 0.25 * 0.25 = 0.0625. The window reaches one pixel beyond.
    """
    instances = pasted(way, [[[1]]], [2, 1, 4, 3], (5, 6))
    assert (instances.corners_xy.tolist(), instances.crops[0].shape) == ([[1, 0]], (4, 4))
    fading = np.array([0.25, 0.75, 0.75, 0.25])
    assert compute_crop_probs(instances, 0).tolist() == np.outer(fading, fading).tolist()
    assert instances.to_full()[0].astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


@both_ways
def test_a_grid_of_the_image_need_not_be_square(way: bool) -> None:
    """A 2 x 4 grid over an image of 2 x 4 pixels: each value is at the center of its pixel; 0.5 is at the threshold."""
    probs = [[[0.25, 0.5, 1, 0], [0.75, 0, 0.25, 0]]]
    instances = pasted(way, probs, [0, 0, 4, 2], (2, 4))
    assert compute_crop_probs(instances, 0).tolist() == probs[0]
    assert instances.to_full()[0].astype(int).tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]
    higher = pasted(way, probs, [0, 0, 4, 2], (2, 4), threshold=0.75)
    assert higher.to_full()[0].astype(int).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]


@both_ways
@pytest.mark.parametrize(
    "box",
    [[2, 1, 2, 3], [2.5, 1, 2.5, 3], [1, 2, 4, 2], [3, 3, 3, 3], [-9, -9, -4, -4], [20, 1, 30, 3], [1, 90, 3, 95]],
)
def test_a_box_without_a_side_or_outside_gives_an_empty_mask(way: bool, box: list[float]) -> None:
    instances = pasted(way, np.ones((1, 2, 2)), box, (5, 6))
    assert not instances.to_full().any()
    assert not compute_crop_probs(instances, 0).any()  # also: no NaN


@both_ways
def test_a_box_of_ends_in_the_wrong_order_is_a_mirrored_mask(way: bool) -> None:
    """The box goes from x = 4 to x = 0, so the mask is mirrored; its window goes from 3 to 1 and is empty."""
    assert not pasted(way, [[[1, 0]]], [4, 0, 0, 2], (2, 4)).to_full().any()


@both_ways
def test_no_instances_and_an_image_without_pixels(way: bool) -> None:
    none = pasted(way, np.zeros((0, 28, 28)), np.zeros((0, 4)), (4, 5))
    assert len(none) == 0
    assert none.mask_probs is not None
    assert none.to_full().shape == (0, 4, 5)
    assert pasted(way, np.ones((1, 2, 2)), [0, 0, 1, 1], (0, 0)).to_full().shape == (1, 0, 0)


def test_invalid_probabilities_and_boxes_are_rejected() -> None:
    ones, box = np.ones((1, 2, 2)), [0, 0, 1, 1]
    for value, got in ((np.nan, "nan"), (1.5, "1.5"), (-0.5, "-0.5"), (np.inf, "inf")):
        with pytest.raises(ValueError, match=rf"mask_probs must be in \[0, 1\], got .*{got}"):
            pasted(False, ones * value, box, (2, 2))
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="boxes_xyxy must be finite"):
            pasted(False, ones, [0, 0, value, 1], (2, 2))
    with pytest.raises(ValueError, match=r"boxes_xyxy \(N, 4\), got \(1, 2, 2\) and \(2, 4\)"):
        pasted(False, ones, [box, box], (2, 2))
    with pytest.raises(ValueError, match=r"mask_probs must be \(N, m, m'\)"):
        pasted(False, ones[0], box, (2, 2))
    with pytest.raises(ValueError, match="the same length"):
        paste_masks(
            ones.astype(np.float32), np.ones((1, 4), np.float32), np.ones(2, np.float32), np.zeros(1, int), (2, 2)
        )


def test_soft_crops_need_probabilities() -> None:
    masks = np.ones((1, 2, 2), dtype=bool)
    hard_masks = InstanceMasks.from_full(masks, np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, int))
    with pytest.raises(ValueError, match="mask_probs are needed"):
        compute_crop_probs(hard_masks, 0)


@both_ways
def test_results_do_not_depend_on_memory_order(way: bool) -> None:
    probs, boxes = many(3, 20)
    plain = pasted(way, probs, boxes, (31, 37))
    probs = np.asfortranarray(probs)
    probs.flags.writeable = False
    assert np.array_equal(pasted(way, probs, boxes[::-1][::-1], (31, 37)).to_full(), plain.to_full())
    assert np.array_equal(pasted(way, probs, boxes.astype(np.float64), (31, 37)).to_full(), plain.to_full())


def many(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of one size: smooth, noise, saturated, all ties at 0.5, or within rounding of it; boxes small and large."""
    rng = np.random.default_rng(seed)
    side = int(rng.choice([1, 2, 7, 14, 28]))
    noise = rng.random((count, side, side))
    disc = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])
    kinds = [
        noise,
        noise.round(),
        (2 * noise).round() / 2,
        0.5 + 4e-6 * (noise - 0.5),
        1 / (1 + np.exp(4 * disc - noise)),
    ]
    probs = np.broadcast_to(kinds[seed % 5], noise.shape).astype(np.float32)
    centres, sides = rng.random((count, 2)) * [37, 31], rng.random((count, 2)) * rng.choice([3, 12, 60])
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).clip(0, [37, 31, 37, 31])
    return probs, (boxes if seed % 2 else (boxes * 2).round() / 2).astype(np.float32)


def assert_equal_up_to_rounding(instances: InstanceMasks, expected: np.ndarray, threshold: float) -> int:
    """The number of pixels that differ. All of them must have a probability within ROUNDING of the threshold."""
    differs = instances.to_full() != expected
    for row in np.flatnonzero(differs.any(axis=(1, 2))).tolist():
        window = instances.window(row)
        probs = compute_crop_probs(instances, row)[differs[row][window]]
        assert np.count_nonzero(differs[row]) == probs.size
        assert (np.abs(probs - threshold) < ROUNDING).all()
    return int(np.count_nonzero(differs))


@both_ways
def test_ten_thousand_masks_equal_detectron2s_up_to_rounding(way: bool) -> None:
    for seed in range(105):
        probs, boxes = many(seed, 100)
        theirs = paste_masks_in_image(torch.from_numpy(probs), torch.from_numpy(boxes), (31, 37)).numpy()
        differing_px = assert_equal_up_to_rounding(pasted(way, probs, boxes, (31, 37)), theirs, 0.5)
        assert differing_px <= (1e-4 * theirs.size if seed % 5 in NO_TIES else 0.2 * theirs.size), seed


@both_ways
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.999, 1.0]))
@settings(max_examples=25, deadline=None)
def test_masks_at_other_thresholds_equal_detectron2s(way: bool, seed: int, threshold: float) -> None:
    probs, boxes = many(seed, 5)
    boxes[:, 2:] += 0.25  # no box without a side: at threshold 0 Detectron2 compares NaN there
    theirs = paste_masks_in_image(torch.from_numpy(probs), torch.from_numpy(boxes), (31, 37), threshold)
    assert_equal_up_to_rounding(pasted(way, probs, boxes, (31, 37), threshold), theirs.numpy(), threshold)


@both_ways
@pytest.mark.parametrize("seed", range(10))
def test_compiled_and_numpy_pasting_are_equal(way: bool, seed: int) -> None:
    probs, boxes = many(seed, 50)
    for row, crop in enumerate((instances := pasted(way, probs, boxes, (31, 37))).crops):
        assert np.array_equal(crop, compute_crop_probs(instances, row) >= np.float32(0.5))


def test_crop_probabilities_equal_grid_sample() -> None:
    for seed in range(40):
        probs, boxes = many(seed, 5)
        instances = pasted(False, probs, boxes, (31, 37))
        for row in range(len(instances)):
            window = instances.window(row)
            theirs = grid_sampled(torch.from_numpy(probs[row]), torch.from_numpy(boxes[row]), window)
            np.testing.assert_allclose(compute_crop_probs(instances, row), theirs.nan_to_num(0), rtol=0, atol=ROUNDING)


def grid_sampled(probs: torch.Tensor, box: torch.Tensor, window: tuple[slice, slice]) -> torch.Tensor:
    """`_do_paste_mask` in detectron2/layers/mask_ops.py, for the pixels of a window."""
    rows, columns = (torch.arange(side.start, side.stop, dtype=torch.float32) + 0.5 for side in window)
    x = (columns - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (rows - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=2)
    return torch.nn.functional.grid_sample(probs[None, None], grid[None], align_corners=False)[0, 0]
