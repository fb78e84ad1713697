"""Panoptic-DeepLab as a graph: centers, grouping and votes inside, equal to the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segkit.config import load_config
from segkit.engine.export.check import check_graph
from segkit.engine.export.graphs import build_graph, choose_tasks
from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError
from tests.helpers.exported import Source, export, run_eagerly

CATEGORIES = CategorySet.from_coco(
    [{"id": number, "name": f"class {number}", "isthing": int(number < 4)} for number in range(1, 6)], "categories"
)


def build_source(**values: Any) -> Source:
    """R-18 with three levels and random weights that make many centers."""
    cfg = load_config()
    options = """MODEL.DEVICE cpu MODEL.META_ARCHITECTURE PanopticDeepLab MODEL.BACKBONE.NAME build_resnet_backbone
        MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.RESNETS.NORM GN MODEL.BACKBONE.FREEZE_AT 0
        MODEL.SEM_SEG_HEAD.NAME PanopticDeepLabSemSegHead MODEL.SEM_SEG_HEAD.NUM_CLASSES 5 MODEL.SEM_SEG_HEAD.NORM GN
        MODEL.SEM_SEG_HEAD.CONVS_DIM 32 MODEL.SEM_SEG_HEAD.ASPP_CHANNELS 32 MODEL.SEM_SEG_HEAD.HEAD_CHANNELS 32
        MODEL.INS_EMBED_HEAD.NORM GN MODEL.INS_EMBED_HEAD.CONVS_DIM 32 MODEL.INS_EMBED_HEAD.ASPP_CHANNELS 32
        MODEL.INS_EMBED_HEAD.HEAD_CHANNELS 32 MODEL.PANOPTIC_DEEPLAB.STUFF_AREA 100
        MODEL.PANOPTIC_DEEPLAB.TOP_K_INSTANCE 40 MODEL.PANOPTIC_DEEPLAB.NMS_KERNEL 13"""
    cfg.merge_from_list(options.split())
    for node in (cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.INS_EMBED_HEAD):
        node.IN_FEATURES, node.PROJECT_CHANNELS, node.ASPP_DILATIONS = ["res2", "res3", "res4"], [32, 32], [1, 2, 3]
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4"]
    cfg.MODEL.PANOPTIC.STUFF_IDS, cfg.MODEL.PANOPTIC.THING_IDS = [0, 0, 0, 1, 2], [0, 1, 2, -1, -1]
    cfg.merge_from_list([word for key, value in values.items() for word in (key.replace("__", "."), value)])
    source = Source(cfg, CATEGORIES, thing_channels="per_class")
    with torch.no_grad():
        for name, weight in source.model.named_parameters():
            if "predictor" in name:
                weight.normal_(0, 3.0 if "offset" in name else 0.5)
    return source


def count_things(line: str) -> int:
    """Of a line of the check: "panoptic: 12 of 12 segments, ..."."""
    return int(line.split()[1])


def test_the_graph_in_torch_equals_the_model() -> None:
    source = build_source()
    graph = build_graph(source, None)
    assert graph.output_names == ["semantic_ids", "segment_ids", "segments", "errors"]
    checks = [*check_graph(source, graph, run_eagerly(graph))]
    assert [check.passed for check in checks] == [True] * 4
    assert all(count_things(check.lines[1]) > 3 for check in checks)


def test_parts_that_cannot_be_exported_are_named() -> None:
    with pytest.raises(ConfigError, match="PanopticDeepLab gives no instances output; choose semantic, panoptic"):
        choose_tasks(build_source().model, ["instances"])


@pytest.mark.slow
def test_the_file_equals_the_model(tmp_path: Any) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'segkit[onnx]'")
    pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")
    source = build_source()
    graph, file = export(source, tmp_path / "model.onnx")
    checks = [*check_graph(source, graph, file.run)]
    assert [check.passed for check in checks] == [True] * 4
    assert all(count_things(check.lines[1]) > 3 for check in checks)
