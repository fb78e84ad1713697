"""Mask2Former and EoMT as graphs: all queries and their fusion inside, equal to the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segkit
from segkit.engine.export import check
from segkit.engine.export.check import Check, check_graph
from segkit.engine.export.graph import Graph
from segkit.engine.export.graphs import build_graph
from segkit.engine.export.program import export_program
from segkit.engine.export.torch_file import export_torch, load_torch_program
from segkit.engine.inference.model import SegmentationModel
from segkit.engine.setup import read_config
from segkit.fusion import build_fusion
from segkit.runtime.prediction import Prediction
from segkit.structures.segment_table import NAN_LOGITS, read_segments
from segkit.utils.errors import ConfigError
from tests.helpers.exported import Source, build_images, export, run_eagerly, save_source
from tests.helpers.exported_queries import (
    ANY_SIZE,
    EOMT,
    LEARNED,
    ROTARY,
    SQUARE,
    SQUARE_PX,
    build_mask2former,
    build_source,
)

BUILDERS: dict[str, Callable[[], Source]] = {
    "mask2former": build_mask2former,
    "eomt": lambda: build_source(EOMT + ROTARY + SQUARE),
    "eomt of any size": lambda: build_source(EOMT + LEARNED + ANY_SIZE),
}
NAMES = ["semantic_ids", "boxes", "scores", "classes", "image_masks", "segment_ids", "segments", "errors"]


def assert_equal_with_several_segments(checks: list[Check]) -> None:
    assert [each.passed for each in checks] == [True] * 4
    # "panoptic: 3 of 3 segments, ...", "instances: 20 of 20 instances, ..."
    assert sum(int(each.lines[2].split()[1]) for each in checks) > 4
    assert all(int(each.lines[1].split()[1]) > 4 for each in checks)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_graph_in_torch_equals_the_model(name: str) -> None:
    source = BUILDERS[name]()
    graph = build_graph(source, None)
    assert graph.output_names == NAMES
    assert_equal_with_several_segments([*check_graph(source, graph, run_eagerly(graph))])


def test_wrong_results_are_found() -> None:
    source = build_source(EOMT + ROTARY + SQUARE)
    graph = build_graph(source, None)

    def run_wrong(images: np.ndarray, size_hw: tuple[int, int]) -> dict[str, np.ndarray]:
        results = run_eagerly(graph)(images, size_hw)
        moved = {name: np.roll(results[name], 9, axis=-1) for name in ("semantic_ids", "image_masks", "segment_ids")}
        return results | moved

    wrong = next(iter(check_graph(source, graph, run_wrong)))
    assert not wrong.passed
    assert "instances: 0 of" in wrong.lines[1]
    assert not any(", 0 beyond rounding" in line for line in wrong.lines)


def test_a_result_that_rounding_decides_is_compared_with_the_model_on_a_moved_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model stands for one with two results: of the image as it is, that of the negative."""
    source = build_source(EOMT + ROTARY + SQUARE)
    graph = build_graph(source, ["panoptic"])
    run_model = check._run_model

    def jump(graph: Graph, batch: np.ndarray, size_hw: tuple[int, int]) -> Any:
        return run_model(graph, 255 - batch if batch.dtype == np.uint8 else batch, size_hw)

    monkeypatch.setattr(check, "_run_model", jump)
    assert not next(iter(check_graph(source, graph, run_eagerly(graph)))).passed
    graph.masks_attention = True
    compared = next(iter(check_graph(source, graph, run_eagerly(graph))))
    assert compared.passed
    assert "rounding decides a mask of the attention" in compared.lines[-1]


def count_segments(results: dict[str, np.ndarray]) -> list[int]:
    rows = zip(results["segments"].tolist(), results["errors"].tolist(), strict=True)
    return [sum(segment.area_px > 0 for segment in read_segments(table, errors)) for table, errors in rows]


def test_no_object_one_and_several() -> None:
    source = build_source(EOMT + ROTARY + SQUARE)
    images = build_images(3, (90, 120))
    scores = best_scores(source, images[:1])
    for objects, threshold in ((0, 1.0), (1, float(scores[0] + scores[1]) / 2), (len(scores), 0.0)):
        source.model.fusion = replace(source.model.fusion, object_mask_threshold=threshold, overlap_threshold=0.0)
        results = run_eagerly(build_graph(source, ["panoptic"]))(images, (90, 120))
        expected = source.model([{"image": torch.from_numpy(image)} for image in images])
        for row, (ids, infos) in enumerate(output["panoptic_seg"] for output in expected):
            np.testing.assert_array_equal(results["segment_ids"][row], ids.numpy())
            assert count_segments(results)[row] == len(infos)
        assert count_segments(results)[0] == objects if objects < 2 else count_segments(results)[0] > 2


@torch.no_grad()
def best_scores(source: Source, images: np.ndarray) -> torch.Tensor:
    """Of the queries of an image that are no "no object", the highest first."""
    graph = build_graph(source, ["panoptic"])
    probs = source.model.predict(graph.preprocess(torch.from_numpy(images)))[-1].class_logits[0].softmax(1)
    values, classes = probs.max(1)
    return values[classes < probs.shape[1] - 1].sort(descending=True).values


def test_a_diverged_network_is_reported() -> None:
    source = build_source(EOMT + ROTARY + SQUARE)
    with torch.no_grad():
        source.model.head.class_head.bias[0] = torch.nan
    results = run_eagerly(build_graph(source, None))(build_images(2, (64, 64)), (64, 64))
    assert results["errors"].tolist() == [NAN_LOGITS] * 2
    assert np.isnan(results["scores"]).all()


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (ANY_SIZE, {"fusion": build_fusion("heuristic")}, r"the fusion HeuristicFusion of queries \(MODEL.PANOPTIC.FU"),
        (SQUARE, {"outputs": ["sem_seg"], "windows": True}, r"the mean of windows \(MODEL.EOMT.WINDOWS\) cannot be"),
    ],
)
def test_parts_that_cannot_be_exported_are_named(options: str, change: dict[str, Any], message: str) -> None:
    source = build_source(EOMT + ROTARY + options)
    for name, value in change.items():
        setattr(source.model, name, value)
    with pytest.raises(ConfigError, match=message):
        build_graph(source, None)


def test_sizes_that_do_not_fit_are_named() -> None:
    graph = build_graph(build_source(EOMT + ROTARY + ANY_SIZE), None)
    with pytest.raises(ConfigError, match=r"rotary positions of any size .* cannot be exported.*; give a --fixed-size"):
        export_program(graph, None, "EoMT")
    square = build_graph(build_source(EOMT + ROTARY + SQUARE), None)
    with pytest.raises(ConfigError, match=f"--fixed-size: expected sides of at most {SQUARE_PX} pixels.*, got 96 x 16"):
        export_program(square, (96, SQUARE_PX + 1), "EoMT")


def test_outputs_that_are_off_are_not_given() -> None:
    source = build_source(f"{EOMT}{ROTARY}{SQUARE} MODEL.QUERIES.TEST.PANOPTIC_ON False")
    assert build_graph(source, None).tasks == ["semantic", "instances"]
    source.model.thing_ids = [-1] * len(source.model.thing_ids)
    with pytest.raises(ConfigError, match="EoMT gives no instances output; choose semantic"):
        build_graph(source, ["instances"])


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_the_file_equals_the_model(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'segkit[onnx]'")
    pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")
    source = BUILDERS[name]()
    graph, file = export(source, tmp_path / "model.onnx")
    assert_equal_with_several_segments([*check_graph(source, graph, file.run)])
    model = load_saved(source, tmp_path / "run")
    assert_equal_predictions(segkit.load(tmp_path / "model.onnx"), model, tmp_path / "image.png")
    if name == "eomt":
        with pytest.raises(ConfigError, match=f"images of at most {SQUARE_PX} x {SQUARE_PX} pixels, got 64 x 161"):
            file.run(build_images(1, (64, SQUARE_PX + 1)), (64, 64))


def load_saved(source: Source, folder: Path) -> SegmentationModel:
    """The same model, from the files of a run."""
    save_source(source, folder)
    return SegmentationModel(
        read_config(folder / "config.yaml", ["MODEL.WEIGHTS", str(folder / "model_best.pth")], train=False)
    )


def assert_equal_predictions(exported: Any, model: Any, path: Path) -> None:
    """But for pixels that rounding decides."""
    coarse = Image.fromarray(build_images(1, (6, 8))[0].transpose(1, 2, 0))
    coarse.resize((100, 75), Image.Resampling.BICUBIC).save(path)
    own, expected = exported(path), model(path)
    assert isinstance(own, Prediction)
    assert (own.semantic != expected.semantic).mean() < 1e-3
    assert (own.panoptic.segment_ids != expected.panoptic.segment_ids).mean() < 1e-3
    assert [s.category_id for s in own.panoptic.segments] == [s.category_id for s in expected.panoptic.segments]
    assert len(own.instances) == len(expected.instances) > 0
    np.testing.assert_allclose(own.instances.scores, expected.instances.scores, atol=1e-4)
    areas_px, expected_px = (np.sort(each.instances.areas_px) for each in (own, expected))
    np.testing.assert_allclose(areas_px, expected_px, atol=8)


@pytest.mark.slow
def test_a_program_of_torch_equals_the_model(tmp_path: Path) -> None:
    source = build_source(EOMT + ROTARY + SQUARE)
    graph: Graph = export_torch(source, tmp_path / "model.pt2")
    run = load_torch_program(tmp_path / "model.pt2")
    assert_equal_with_several_segments([*check_graph(source, graph, run)])
    with pytest.raises(ConfigError, match="takes no images of 64 x 161 pixels"):
        run(build_images(1, (64, SQUARE_PX + 1)), (64, 64))


@pytest.mark.slow
def test_a_file_of_one_size_has_rotary_positions_too(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'segkit[onnx]'")
    pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")
    source = build_source(EOMT + ROTARY + ANY_SIZE)
    graph, file = export(source, tmp_path / "model.onnx", fixed_size=(90, 120))
    assert_equal_with_several_segments([*check_graph(source, graph, file.run, fixed_size=(90, 120))])


class FixedInside(torch.nn.Module):
    """Takes any size, but computes with that of the example."""

    multiple_hw = (1, 1)
    example_hw = (8, 9)

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Module()
        self.model.pixel_mean = torch.zeros(3, 1, 1)

    def check_size(self, fixed_size: Any) -> None:
        pass

    def forward(self, images: torch.Tensor, canvas: torch.Tensor) -> torch.Tensor:
        return images.float() * int(images.shape[2] // 2) + canvas.shape[0]


def test_sizes_that_are_constants_inside_are_found() -> None:
    with pytest.raises(ConfigError, match="works for the sizes of the example only, in one graph; give a fixed size"):
        export_program(FixedInside(), None, "FixedInside")
    export_program(FixedInside(), (8, 9), "FixedInside")


SWIN = """MODEL.BACKBONE.NAME build_swin_backbone MODEL.SWIN.EMBED_DIM 12 MODEL.SWIN.DEPTHS [1,1,2,1]
    MODEL.SWIN.NUM_HEADS [1,1,2,2] MODEL.SWIN.WINDOW_SIZE 5"""


@pytest.mark.slow
def test_windows_of_swin_follow_the_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'segkit[onnx]'")
    pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")
    source = build_mask2former(SWIN)
    graph, file = export(source, tmp_path / "model.onnx", tasks=["instances", "panoptic"])
    checks = [*check_graph(source, graph, file.run)]
    assert [each.passed for each in checks] == [True] * 4
    assert all(int(each.lines[0].split()[1]) > 4 for each in checks)  # "instances: 12 of 12 instances, ..."
