"""A model as an ONNX file: any batch, height and width, and what a runtime must know in its metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segkit import __version__
from segkit.engine.export.graph import Graph
from segkit.engine.export.graphs import build_graph
from segkit.engine.export.program import export_program, named_errors, require_torch
from segkit.engine.export.source import describe_graph
from segkit.structures.graph_outputs import METADATA
from segkit.utils.errors import ConfigError
from segkit.utils.files import replacing

OPSET = 18  # above, torch converts grid_sample outside of loops alone; RoiAlign needs 16
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "pip install 'segkit[onnx]'"


def export_onnx(
    source: Any, path: str | Path, *, tasks: Sequence[str] | None = None, fixed_size: tuple[int, int] | None = None
) -> Graph:
    """Write a model as one ONNX graph, with fusion inside.

    The inputs are `images` (B, C, h, w) uint8, resized, in RGB if there are three channels, and `output_size` (2,)
    int64, height and width of the results. The outputs are those of `segkit.structures.graph_outputs.OUTPUTS`.

    Args:
        source: a loaded model: its `model`, `cfg`, `categories` and `space`.
        path: file to write.
        tasks: "semantic", "instances", "panoptic"; None: all that the model gives.
        fixed_size: (h, w) of all images, for runtimes that need it; None: any.

    Returns:
        The graph that was exported, as a module.

    Raises:
        ConfigError: a package is missing, the model does not give a task, or a part of it cannot be exported.
        OutputError: the file cannot be written.
    """
    require_packages()
    from segkit.engine.export.onnx_operators import TRANSLATIONS

    graph = build_graph(source, tasks)
    program = export_program(graph, fixed_size, source.cfg.MODEL.META_ARCHITECTURE)
    options: dict[str, Any] = {
        "opset_version": OPSET,
        "output_names": graph.output_names,
        "custom_translation_table": TRANSLATIONS,
    }
    with named_errors(source.cfg.MODEL.META_ARCHITECTURE):
        onnx_program = torch.onnx.export(program, dynamo=True, verbose=False, **options)
    assert onnx_program is not None
    _take_output_size(onnx_program.model)
    onnx_program.model.metadata_props[METADATA] = json.dumps(describe_graph(source, graph), ensure_ascii=False)
    onnx_program.model.producer_name, onnx_program.model.producer_version = "segkit", __version__
    with replacing(Path(path)) as temporary:
        onnx_program.save(temporary)
    return graph


def require_packages() -> None:
    """Check that the packages of the extra `onnx` are installed, and that torch can export.

    Raises:
        ConfigError: one is missing, or torch is too old.
    """
    from importlib.util import find_spec

    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise ConfigError(f"needs the extra 'onnx' ({', '.join(missing)} not installed)", remedy=INSTALL)
    require_torch()


def _take_output_size(model: Any) -> None:
    """Replace the input `canvas`, of which only the size is used, by that size."""
    import onnx_ir as ir

    canvas = next(value for value in model.graph.inputs if value.name == "canvas")
    size = ir.Value(name="output_size", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([2]))
    for node, _ in [*canvas.uses()]:
        assert node.op_type == "Shape", node.op_type
        ends = [
            node.attributes[name].as_int() if name in node.attributes else value
            for name, value in (("start", 0), ("end", 2))
        ]
        constants = [ir.node("Constant", [], {"value_ints": [end]}) for end in ends]
        part = ir.node("Slice", [size, *(constant.outputs[0] for constant in constants)])
        node.graph.insert_before(node, [*constants, part])
        ir.convenience.replace_all_uses_with(node.outputs[0], part.outputs[0])
        node.graph.remove(node, safe=True)
    model.graph.inputs[model.graph.inputs.index(canvas)] = size
