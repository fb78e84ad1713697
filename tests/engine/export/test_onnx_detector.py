"""Detectors and panoptic models as ONNX files: chosen numbers of objects, sizes and batches that were not exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.exported import Source, build_images, detector_config, export, run_eagerly

pytest.importorskip("onnxscript", reason="pip install 'segkit[onnx]'")
pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")

from segkit.engine.export.check import check_graph
from segkit.engine.export.graph import Graph
from segkit.engine.export.graphs import build_graph
from segkit.engine.export.onnx_file import export_onnx
from segkit.engine.export.operators_on_cpu import describe_operators
from segkit.structures.segment_table import read_segments
from segkit.utils.errors import ConfigError

SIZES = [(96, 128), (70, 101)]
STANDARD, CASCADE = "StandardROIHeads", "CascadeROIHeads"
TIMM = {"BACKBONE__NAME": "build_timm_fpn_backbone"}
FEW = {"TEST__DETECTIONS_PER_IMAGE": 10}  # a graph has the operators of some fusions once for each instance
# Name: (architecture, ROI heads, config keys below MODEL).
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mask_rcnn": ("GeneralizedRCNN", STANDARD, {}),
    "cascade": ("PanopticRCNN", CASCADE, {}),
    "mask_scoring": ("PanopticRCNN", STANDARD, {"ROI_MASK_HEAD__NAME": "MaskScoringHead"}),
    "timm": ("PanopticRCNN", STANDARD, {**TIMM, "TIMM__NAME": "mobilenetv3_small_050"}),
    "upsnet": ("PanopticRCNN", STANDARD, {"PANOPTIC__FUSION__NAME": "upsnet"}),
    "efficientps": ("PanopticRCNN", STANDARD, {"PANOPTIC__FUSION__NAME": "efficientps"}),
    "mask_argmax": ("PanopticRCNN", STANDARD, {"PANOPTIC__FUSION__NAME": "mask_argmax"}),
}


def build(arch: str, roi_heads: str = STANDARD, **values: Any) -> tuple[Source, Graph]:
    source = Source(detector_config(arch, roi_heads=roi_heads, **values))
    return source, build_graph(source, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "roi_heads"),
    [("PanopticRCNN", STANDARD), ("PanopticFPN", CASCADE)],
)
def test_the_graph_in_torch_equals_the_model(arch: str, roi_heads: str) -> None:
    source, graph = build(arch, roi_heads)
    checks = [*check_graph(source, graph, run_eagerly(graph))]
    assert [check.passed for check in checks] == [True] * 4
    assert all("0 of" in line for check in checks for line in check.lines if line.startswith("semantic"))


def test_parts_that_cannot_be_exported_are_named() -> None:
    cases = {"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIPool", "MODEL.MASK_ON": False, "TEST.DETECTIONS_PER_IMAGE": -1}
    for key, value in cases.items():
        with pytest.raises(ConfigError, match=key.split(".")[-1]):
            build("GeneralizedRCNN", **{key.replace(".", "__"): value})


def test_padding_that_follows_the_size_needs_a_fixed_size(tmp_path: Path) -> None:
    names = {f"MODEL__{key}": value for key, value in {**TIMM, "TIMM__NAME": "tf_efficientnet_lite0"}.items()}
    with pytest.raises(ConfigError, match=r'padding "same" of any size.*; give a --fixed-size'):
        export_onnx(Source(detector_config("PanopticRCNN", **names)), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A panoptic model with all outputs: the model, its graph, the loaded file and its path."""
    path = tmp_path_factory.mktemp("onnx") / "panoptic.onnx"
    source = Source(detector_config("PanopticRCNN"))
    return source, *export(source, path), path


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_files_of_other_parts_equal_the_model(name: str, tmp_path: Path) -> None:
    arch, roi_heads, values = VARIANTS[name]
    values = {f"MODEL__{key}": value for key, value in values.items()}
    source = Source(detector_config(arch, roi_heads=roi_heads, **values, **FEW))
    graph, file = export(source, tmp_path / "model.onnx")
    checks = [*check_graph(source, graph, file.run)]
    assert [check.passed for check in checks] == [True] * 4, checks
    assert any("10 of 10 instances" in line for line in checks[0].lines)


def find_equal_boxes(boxes: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The row of each expected box: rows whose scores are equal but for rounding come in any order."""
    distances = np.abs(boxes[None] - expected[:, None]).max(2)
    order = distances.argmin(1)
    assert distances.min(1).max() < 1e-2
    assert sorted(order) == [*range(len(boxes))]
    return order


@pytest.mark.slow
def test_the_file_equals_the_model(exported: Any) -> None:
    source, graph, file, _ = exported
    checks = [*check_graph(source, graph, file.run)]
    assert [check.passed for check in checks] == [True] * 4, checks
    assert all("100 of 100 instances" in check.lines[1] for check in checks)


@pytest.mark.slow
@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("count", [1, 3])
def test_instances_equal_those_of_the_graph_in_torch(exported: Any, size_hw: tuple[int, int], count: int) -> None:
    _, graph, file, _ = exported
    images, output_hw = build_images(count, size_hw, seed=count), (size_hw[0] + 11, size_hw[1] - 7)
    results, expected = file.run(images, output_hw), run_eagerly(graph)(images, output_hw)
    assert (results["classes"] >= 0).sum(1).tolist() == [100] * count
    for row in range(count):
        order = find_equal_boxes(results["boxes"][row], expected["boxes"][row])
        np.testing.assert_array_equal(results["classes"][row][order], expected["classes"][row])
        np.testing.assert_allclose(results["scores"][row][order], expected["scores"][row], atol=1e-4)
        differences = np.abs(results["masks"][row][order] - expected["masks"][row])
        assert (differences > 1e-3).mean() < 1e-3  # pixels whose large random logits differ by rounding
        assert differences.max() < 0.05
    assert not results["errors"].any()


@pytest.mark.slow
@pytest.mark.parametrize("objects", [0, 1, 2])
def test_few_objects(exported: Any, objects: int) -> None:
    """Of the noise that makes 100 objects, pictures with so few are those of which the scores of all others are lost.

    The file has its score thresholds inside, so a graph of the same weights with a higher one is exported for each.
    """
    source, _, file, path = exported
    images = build_images(1, SIZES[0])
    scores = np.sort(file.run(images, SIZES[0])["scores"][0])[::-1]
    threshold = 1.0 if objects == 0 else float(scores[objects - 1] + scores[objects]) / 2
    predictor = source.model.roi_heads.box_predictor
    before, predictor.test_score_thresh = predictor.test_score_thresh, threshold
    try:
        few = path.with_name(f"{objects}.onnx")
        graph, fewer = export(source, few)
        for count in (1, 3):
            results = fewer.run(np.repeat(images, count, axis=0), SIZES[0])
            assert (results["classes"] >= 0).sum(1).tolist() == [objects] * count
            expected = run_eagerly(graph)(images, SIZES[0])
            np.testing.assert_array_equal(results["segment_ids"][-1], expected["segment_ids"][0])
            segments = read_segments(results["segments"][0].tolist(), int(results["errors"][0]))
            assert sum(segment.isthing for segment in segments) <= objects
    finally:
        predictor.test_score_thresh = before


@pytest.mark.slow
def test_operators_that_stay_on_the_cpu_are_listed(exported: Any) -> None:
    lines = describe_operators(exported[3])
    assert [line.split()[2].rstrip(":") for line in lines] == ["NonMaxSuppression", "NonZero", "RoiAlign", "Loop"]
