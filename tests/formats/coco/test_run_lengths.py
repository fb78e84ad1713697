"""Areas of compressed run lengths, with and without compiled code, against pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from segkit.formats.coco import run_lengths
from segkit.formats.coco.run_lengths import compute_areas

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@pytest.fixture(params=[True, False], ids=["compiled", "arrays"])
def implementation(request, monkeypatch):
    monkeypatch.setattr(run_lengths, "COMPILED", request.param and run_lengths.COMPILED)


def encode_counts(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


def compute_both_ways(counts):
    """Returns the columns of both implementations, which must be equal; None for invalid counts."""
    chars = np.frombuffer("".join(counts).encode(), dtype=np.uint8) - np.uint8(48)
    stops = np.cumsum([len(text) for text in counts])
    loop = np.zeros_like(stops), np.zeros_like(stops)
    is_valid = run_lengths._by_loop(chars, stops, *loop)
    try:
        arrays = run_lengths._by_arrays(chars, stops)
    except ValueError:
        assert not is_valid
        return None
    assert is_valid
    np.testing.assert_array_equal(arrays, loop)
    return arrays


@settings(deadline=None)  # the first call may compile
@given(st.lists(MASKS, min_size=1, max_size=6))
def test_areas_equal_pycocotools(masks):
    columns = compute_both_ways([encode_counts(mask) for mask in masks])
    assert columns.total_px.tolist() == [mask.size for mask in masks]
    assert columns.area_px.tolist() == [mask.sum() for mask in masks]


@given(st.lists(st.text([chr(48 + i) for i in range(64)], min_size=1, max_size=12), min_size=1, max_size=4))
def test_both_implementations_agree_on_any_text(texts):
    # `compute_areas` checks first that the last character ends a run.
    compute_both_ways([text + "1" for text in texts])


@pytest.mark.usefixtures("implementation")
def test_many_masks_are_decoded_in_several_batches(monkeypatch):
    monkeypatch.setattr(run_lengths, "CHARS_AT_ONCE", 50)
    rng = np.random.default_rng(0)
    masks = [rng.random((9, rng.integers(1, 30))) < 0.5 for _ in range(60)]
    columns = compute_areas([encode_counts(mask) for mask in masks])
    assert columns.total_px.tolist() == [mask.size for mask in masks]
    assert columns.area_px.tolist() == [mask.sum() for mask in masks]


@pytest.mark.usefixtures("implementation")
def test_an_empty_list_and_long_runs():
    assert [column.tolist() for column in compute_areas([])] == [[], []]
    mask = np.zeros((3000, 2000), dtype=bool)
    mask[-1, -1] = True
    assert [int(column[0]) for column in compute_areas([encode_counts(mask)])] == [6_000_000, 1]


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "empty"),
        ("0P", "cut off"),
        ("\x00~", "other characters"),
        ("é", "codec"),
        ("0O1", "negative run"),
        ("PPPPPPP0", "beyond 32 bits"),
    ],
)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_malformed_counts_raise_an_error(counts, message, index):
    several = ["05", "12"]
    several.insert(index, counts)
    with pytest.raises(ValueError, match=message):
        compute_areas(several)
