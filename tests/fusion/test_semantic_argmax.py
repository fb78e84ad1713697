"""The argmax of enlarged and resized logits, by hand and against torch.

Channels may differ from torch's only if the two logits are within TOLERANCE of each other.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segkit.fusion.semantic_argmax import TOLERANCE, argmax_upsampled

torch = pytest.importorskip("torch", reason="compares with torch")
F = torch.nn.functional
FloatArray = NDArray[np.float32]


def detectron2(logits: FloatArray, scale: int, image_size_hw: tuple[int, int], size_hw: tuple[int, int]) -> FloatArray:
    """SemSegFPNHead.forward and sem_seg_postprocess: the (C, H, W) logits."""
    enlarged = F.interpolate(torch.from_numpy(logits)[None], scale_factor=scale, mode="bilinear", align_corners=False)[
        0
    ]
    cropped = enlarged[:, : image_size_hw[0], : image_size_hw[1]].expand(1, -1, -1, -1)
    resized: FloatArray = F.interpolate(cropped, size=size_hw, mode="bilinear", align_corners=False)[0].numpy()
    return resized


def smooth(channels: int, height: int, width: int, seed: int) -> FloatArray:
    """Logits like a trained network's: regions with one clear best channel."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(1, channels, max(1, height // 8), max(1, width // 8), generator=generator) * 5
    fine = torch.randn(channels, height, width, generator=generator) * 0.1
    logits: FloatArray = (F.interpolate(small, size=(height, width), mode="bicubic")[0] + fine).numpy()
    return logits


def test_one_row_by_hand() -> None:
    # Two channels in one row, (4, 0) and (0, 2), enlarged four times. Pixel i is at (i + 0.5) / 4 - 0.5 small pixels:
    # -0.375, -0.125, 0.125, 0.375, 0.625, 0.875, 1.125, 1.375, where those outside [0, 1] take the value at the edge.
    # Channel 0 is 4 - 4 p and channel 1 is 2 p; they are equal at p = 2/3: p = 0.625 is still channel 0's (1.5 and
    # 1.25), p = 0.875 channel 1's (0.5 and 1.75).
    logits = np.array([[[4, 0]], [[0, 2]]], dtype=np.float32)
    channels = argmax_upsampled(logits, 4, (4, 8), (4, 8))
    assert channels.dtype == np.uint8
    assert channels.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]] * 4


def test_crop_and_resize_by_hand() -> None:
    # As above, but of the eight enlarged pixels the last two are padding. Three pixels of the result are at
    # (i + 0.5) * 6 / 3 - 0.5 = 0.5, 2.5, 4.5: each is the mean of two enlarged pixels.
    # Channel 0 of the enlarged: 4, 4, 3.5, 2.5, 1.5, 0.5; channel 1: 0, 0, 0.25, 0.75, 1.25, 1.75.
    # Means of channel 0: 4, 3, 1; of channel 1: 0, 0.5, 1.5.
    logits = np.array([[[4, 0]], [[0, 2]]], dtype=np.float32)
    assert argmax_upsampled(logits, 4, (4, 6), (1, 3)).tolist() == [[0, 0, 1]]


def test_equal_logits_go_to_the_first_channel() -> None:
    # Channel 1 and 2 are equal everywhere; channel 0 meets them where p = 0.5, between pixels 1 and 2 of the result
    # (p = 0, 0.25, 0.75, 1), and for a result of three pixels in the middle one, which is then channel 0's.
    logits = np.array([[[1, 0]], [[0, 1]], [[0, 1]]], dtype=np.float32)
    assert argmax_upsampled(logits, 2, (2, 4), (1, 4)).tolist() == [[0, 0, 1, 1]]
    assert argmax_upsampled(logits, 1, (1, 2), (1, 3)).tolist() == [[0, 0, 1]]


def test_a_channel_that_is_best_everywhere_by_the_last_bit_wins() -> None:
    # In torch both channels can be equal after rounding, and then channel 0 is chosen.
    first = np.random.default_rng(0).uniform(1, 2, size=(40, 50)).astype(np.float32)
    logits = np.stack([first, np.nextafter(first, np.float32(2))])
    channels = argmax_upsampled(logits, 4, (157, 200), (231, 190))
    assert (channels == 1).all()
    assert_equal_up_to_rounding(channels, detectron2(logits, 4, (157, 200), (231, 190)))


@pytest.mark.parametrize("is_column", [False, True])
def test_a_weight_that_is_almost_zero(is_column: bool) -> None:
    # Of 74 pixels over two small ones, number 18 is at 18.5 * 2 / 74 - 0.5 = 0: channels 0 and 3 are equal there,
    # unless rounding gives the second small pixel a weight. At pixel 17 channel 0 is the best, at 19 channel 3.
    logits = np.array([[[0, -1]], [[-1, -1]], [[-1, 0]], [[0, 0]]], dtype=np.float32)
    sizes = (1, 2), (1, 74)
    if is_column:
        logits, sizes = np.ascontiguousarray(logits.transpose(0, 2, 1)), ((2, 1), (74, 1))
    channels = argmax_upsampled(logits, 1, *sizes)
    assert channels.ravel()[[17, 19]].tolist() == [0, 3]
    assert_equal_up_to_rounding(channels, detectron2(logits, 1, *sizes))


@pytest.mark.parametrize("kind", ["smooth", "noise", "few values"])
@pytest.mark.parametrize(
    ("shape", "scale", "image_size_hw", "size_hw"),
    [
        ((54, 25, 42), 4, (100, 165), (100, 165)),
        ((54, 25, 34), 4, (100, 134), (60, 80)),  # the usual way of COCO: resized for the network and back
        ((54, 25, 34), 4, (97, 131), (240, 317)),
        ((7, 60, 90), 1, (59, 87), (59, 87)),
        ((7, 60, 90), 1, (59, 87), (100, 30)),
        ((2, 30, 31), 8, (225, 240), (300, 301)),
        ((20, 45, 45), 3, (130, 135), (131, 134)),
        ((300, 20, 20), 4, (80, 80), (70, 90)),
        ((5, 40, 40), 4, (160, 160), (13, 120)),
        ((4, 1, 40), 4, (4, 160), (150, 3)),
        ((6, 40, 1), 4, (160, 1), (1, 150)),
        ((6, 1, 1), 4, (4, 4), (100, 100)),
    ],
)
def test_equals_torch(
    kind: str,
    shape: tuple[int, int, int],
    scale: int,
    image_size_hw: tuple[int, int],
    size_hw: tuple[int, int],
) -> None:
    rng = np.random.default_rng(sum(shape))
    if kind == "smooth":
        logits = smooth(*shape, seed=1)
    elif kind == "noise":
        logits = rng.normal(size=shape).astype(np.float32)
    else:
        logits = rng.integers(0, 3, size=shape).astype(np.float32)
    channels = argmax_upsampled(logits, scale, image_size_hw, size_hw)
    assert channels.dtype == (np.uint8 if shape[0] <= 256 else np.uint16)
    expected = detectron2(logits, scale, image_size_hw, size_hw)
    assert_equal_up_to_rounding(channels, expected)
    if kind != "few values":  # which has many ties
        assert np.count_nonzero(channels != expected.argmax(axis=0)) <= 1e-3 * channels.size + 1


sizes = st.integers(1, 12)
SIZES = st.one_of(sizes, st.integers(60, 140))


@st.composite
def problems(draw: st.DrawFn) -> tuple[FloatArray, int, tuple[int, int], tuple[int, int]]:
    channels = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 9, 16, 19, 31]))
    height, width, scale = draw(sizes), draw(sizes), draw(st.sampled_from([1, 2, 3, 4, 8]))
    image_size_hw = (draw(st.integers(1, height * scale)), draw(st.integers(1, width * scale)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([1, 2, 5, 10**6]))
    logits = rng.integers(-levels, levels, size=(channels, height, width)) / draw(st.sampled_from([1, 3, 7e4]))
    return logits.astype(np.float32), scale, image_size_hw, (draw(SIZES), draw(SIZES))


@settings(max_examples=300, deadline=None)
@given(problem=problems())
def test_equals_torch_at_any_size(problem: tuple[FloatArray, int, tuple[int, int], tuple[int, int]]) -> None:
    assert_equal_up_to_rounding(argmax_upsampled(*problem), detectron2(*problem))


def test_logits_in_any_memory_order_are_accepted_and_not_modified() -> None:
    logits = smooth(9, 20, 22, seed=3)
    expected = argmax_upsampled(logits, 4, (75, 88), (75, 88))
    side_by_side = np.ascontiguousarray(logits.transpose(1, 2, 0)).transpose(2, 0, 1)
    side_by_side.setflags(write=False)
    before = logits.copy()
    assert np.array_equal(argmax_upsampled(side_by_side, 4, (75, 88), (75, 88)), expected)
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    logits = np.zeros((2, 3, 3), dtype=np.float32)
    logits[1, 2, 2] = bad
    with pytest.raises(ValueError, match="logits must be finite"):
        argmax_upsampled(logits, 4, (1, 1), (1, 1))


@pytest.mark.parametrize(
    ("logits", "scale", "image_size_hw", "size_hw", "words"),
    [
        (np.zeros((2, 3), dtype=np.float32), 4, (1, 1), (1, 1), "logits must be"),
        (np.zeros((2, 3, 3)), 4, (1, 1), (1, 1), "float64"),
        (np.zeros((0, 3, 3), dtype=np.float32), 4, (1, 1), (1, 1), "not empty"),
        (np.zeros((2, 3, 0), dtype=np.float32), 4, (1, 1), (1, 1), "not empty"),
        (np.zeros((2, 3, 3), dtype=np.float32), 0, (1, 1), (1, 1), "scale"),
        (np.zeros((2, 3, 3), dtype=np.float32), 1.5, (1, 1), (1, 1), "scale"),
        (np.zeros((2, 3, 3), dtype=np.float32), 4, (13, 12), (1, 1), r"image_size_hw .*\(12, 12\), got \(13, 12\)"),
        (np.zeros((2, 3, 3), dtype=np.float32), 4, (12, 0), (1, 1), "image_size_hw"),
        (np.zeros((2, 3, 3), dtype=np.float32), 4, (12, 12), (0, 1), "size_hw"),
    ],
)
def test_invalid_arguments_are_rejected(
    logits: FloatArray, scale: int, image_size_hw: tuple[int, int], size_hw: tuple[int, int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        argmax_upsampled(logits, scale, image_size_hw, size_hw)


def assert_equal_up_to_rounding(channels: NDArray[np.unsignedinteger], logits: FloatArray) -> None:
    """No other channel of the (C, H, W) logits is higher by more than rounding."""
    chosen = np.take_along_axis(logits, channels[None].astype(np.int64), axis=0)[0]
    assert (logits.max(axis=0) - chosen <= TOLERANCE * np.abs(logits).max()).all()
