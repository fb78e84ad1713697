"""Tensors of any float type become box crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segkit.modeling.postprocessing.paste import paste_crops


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_tensors_become_crops(dtype: torch.dtype) -> None:
    """One value, 1, over x 0..2, y 1..3 of 4 x 4 pixels: each pixel of the box is 0.25 cells from its centre in both
    directions, 0.75 * 0.75 >= 0.5; those around it are not (0.75 * 0.25).
    """
    probs = torch.ones(1, 1, 1, dtype=dtype, requires_grad=True)
    boxes = torch.tensor([[0, 1, 2, 3]], dtype=dtype)
    masks = paste_crops(probs, boxes, torch.tensor([0.5], dtype=dtype), torch.tensor([7], dtype=torch.int32), (4, 4))
    assert masks.to_full()[0].astype(int).tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert (masks.scores.tolist(), masks.class_ids.tolist(), masks.size_hw) == ([0.5], [7], (4, 4))
    assert (masks.scores.dtype, masks.boxes_xyxy.dtype, masks.class_ids.dtype) == (np.float32, np.float32, np.int64)
    assert masks.mask_probs is not None
    assert masks.mask_probs.tolist() == [[[1.0]]]


def test_the_given_threshold_is_used() -> None:
    inputs = torch.full((1, 2, 2), 0.75), torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.ones(1), torch.zeros(1)
    assert paste_crops(*inputs, (2, 2), threshold=0.75).to_full().all()
    assert not paste_crops(*inputs, (2, 2), threshold=0.76).to_full().any()


def test_no_instances() -> None:
    none = paste_crops(torch.zeros(0, 28, 28), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), (4, 5))
    assert none.to_full().shape == (0, 4, 5)


def test_nan_is_rejected() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    with pytest.raises(ValueError, match=r"mask_probs must be in \[0, 1\], got nan"):
        paste_crops(torch.full((1, 2, 2), torch.nan), boxes, torch.ones(1), torch.zeros(1), (2, 2))
