"""Semantic IoU from logits: channels equal argmax, counts equal on every device and in Detectron2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from segkit.evaluation import semantic
from segkit.evaluation.semantic import argmax_channels, count_logits, count_on_device
from segkit.metrics import SemanticIoU
from segkit.utils.compiled import COMPILED
from segkit.utils.errors import DatasetError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
NAMES = [f"class {i}" for i in range(5)]


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not COMPILED, reason="needs numba"))])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "COMPILED", request.param)


def some_image(seed: int, shape: tuple[int, int] = (40, 70)) -> tuple[np.ndarray, torch.Tensor]:
    """(H, W) uint8 ground truth with ignored pixels, and logits that mostly agree with it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (shape[0] // 8 + 1, shape[1] // 8 + 1))  # the fifth class is never true
    ground_truth = np.kron(coarse, np.ones((8, 8), int))[: shape[0], : shape[1]].astype(np.uint8)
    logits = torch.from_numpy(rng.normal(size=(5, *shape)).astype(np.float32))
    logits += 2 * torch.nn.functional.one_hot(torch.from_numpy(ground_truth).long(), 5).permute(2, 0, 1)
    ground_truth[rng.random(shape) < 0.1] = 255
    return ground_truth, logits


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_channels_are_those_of_argmax(either_way: None, dtype: torch.dtype, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 3, 3), (2, 0, 4), (3, 1, 1), (7, 50, 90), (4, 2048, 3)):
        # Few values: most pixels have ties, some have several NaN or infinities.
        values = torch.tensor([0.0, -0.0, 1.0, 1.0, -torch.inf, torch.inf, torch.nan])
        logits = values[torch.randint(len(values), shape, generator=generator)].to(dtype).to(device)
        expected = logits.float().argmax(dim=0)
        assert torch.equal(argmax_channels(logits).long(), expected)
        transposed = logits.transpose(1, 2)
        assert torch.equal(argmax_channels(transposed).long(), expected.T)
    assert torch.equal(argmax_channels(torch.ones(2, 3, 3, requires_grad=True)).long(), torch.zeros(3, 3).long())


def test_other_shapes_are_rejected() -> None:
    for shape in ((3, 4), (0, 3, 4), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"logits must have the shape \(C, H, W\), C at least 1, got"):
            argmax_channels(torch.zeros(shape))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("boundary", [False, True])
def test_a_device_counts_what_numpy_counts(boundary: bool, device: str) -> None:
    there, here = SemanticIoU(NAMES, boundary=boundary), SemanticIoU(NAMES, boundary=boundary)
    for seed, shape in enumerate([(40, 70), (2, 9), (1, 1), (0, 4), (150, 160)]):
        ground_truth, logits = some_image(seed, shape)
        assert count_on_device(there, ground_truth, argmax_channels(logits.to(device)), seed)
        here.update(ground_truth, argmax_channels(logits).numpy(), image_id=seed)
    np.testing.assert_array_equal(there.confusion, here.confusion)
    np.testing.assert_array_equal(there.boundary_px, here.boundary_px)
    for (_, rows_there), (_, rows_here) in zip(there.images.in_order(), here.images.in_order(), strict=True):
        assert rows_there.tolist() == rows_here.tolist()
    assert here.confusion.sum() > 10_000
    assert here.boundary_px.any() == boundary


@pytest.mark.parametrize("device", DEVICES)
def test_invalid_labels_on_a_device_are_reported_and_not_counted(device: str) -> None:
    metric = SemanticIoU(NAMES, ignore_label=-1)
    labels = torch.tensor([[0, 1]], device=device)
    assert not count_on_device(metric, np.array([[0, 5]]), labels)
    assert not count_on_device(metric, np.array([[0, -2]]), labels)
    assert not count_on_device(metric, np.array([[0], [1]]), labels)
    assert not count_on_device(metric, np.array([[0, -1]]), torch.tensor([[0, 5]], device=device))
    with pytest.raises(DatasetError, match=r"^image 3: expected ground truth labels 0\.\.4 or -1 \(ignored\), got 5"):
        count_logits(metric, np.array([[0, 5]]), torch.zeros(5, 1, 2, device=device), "image 3")
    size_problem = r"^image 3: expected ground truth and prediction of one size, got 1 x 2 and 2 x 1"
    with pytest.raises(DatasetError, match=size_problem):
        count_logits(metric, np.array([[0, 0]]), torch.zeros(5, 2, 1, device=device), "image 3")
    assert not metric.confusion.any()


@pytest.mark.parametrize("device", DEVICES)
def test_equals_detectron2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    def read(path: str, dtype: type) -> np.ndarray:  # Detectron2's own, np.array(..., copy=False), fails on numpy 2
        return np.array(Image.open(path), dtype=dtype)

    records, outputs = [], []
    metric = SemanticIoU(NAMES)
    for seed in range(3):
        ground_truth, logits = some_image(seed)
        png = tmp_path / f"{seed}.png"
        Image.fromarray(ground_truth).save(png)
        records.append({"file_name": f"{seed}.jpg", "sem_seg_file_name": str(png)})
        outputs.append({"sem_seg": logits.to(device)})
        count_logits(metric, ground_truth, logits.to(device))
    name = f"segkit_test_{tmp_path.name}_{device}"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(stuff_classes=NAMES, ignore_label=255)
    peer = SemSegEvaluator(name, distributed=False, sem_seg_loading_fn=read)
    peer.reset()
    peer.process(records, outputs)
    expected: dict[str, Any] = peer.evaluate()["sem_seg"]
    results = metric.compute()
    assert results["IoU-class 4"] is None
    common = [key for key in expected if "B-Iou" not in key and "Boundary" not in key]
    assert len(common) == 4 + 2 * len(NAMES)
    for key in common:
        assert results[key] == (None if np.isnan(expected[key]) else expected[key]), key
