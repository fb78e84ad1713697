"""A model as an ONNX file: any batch, height and width, and what a runtime must know in its metadata."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from segkit import __version__
from segkit.engine.export.graphs import Graph, choose_tasks
from segkit.engine.export.source import describe_source
from segkit.structures.graph_outputs import FORMAT_VERSION, METADATA
from segkit.utils.errors import ConfigError
from segkit.utils.files import replacing

OPSET = 18  # above, torch converts grid_sample outside of loops alone; RoiAlign needs 16
EXAMPLE_BATCH, EXAMPLE_CELLS = 2, (3, 4)  # at least 2 of everything: torch takes a size of 1 for a constant
EXAMPLE_SIDE, EXAMPLE_CANVAS = 96, (120, 150)  # pixels; sizes that no other part of the graph has
OLDEST_TORCH = 2, 11
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "pip install 'segkit[onnx]'"
OPERATOR = re.compile(r"target=(?:torch\.ops\.)?([\w.:]+)")


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
    with _named_errors(source.cfg.MODEL.META_ARCHITECTURE):
        onnx_program = torch.onnx.export(program, dynamo=True, verbose=False, **options)
    assert onnx_program is not None
    _take_output_size(onnx_program.model)
    metadata = {**describe_source(source), "version": FORMAT_VERSION, "tasks": graph.tasks}
    onnx_program.model.metadata_props[METADATA] = json.dumps(metadata, ensure_ascii=False)
    onnx_program.model.producer_name, onnx_program.model.producer_version = "segkit", __version__
    with replacing(Path(path)) as temporary:
        onnx_program.save(temporary)
    return graph


def build_graph(source: Any, tasks: Sequence[str] | None) -> Graph:
    """Build the module that is exported.

    Args:
        source: see `export_onnx`.
        tasks: see `export_onnx`.

    Returns:
        The module, in evaluation mode.

    Raises:
        ConfigError: the model does not give a task, or a part of it cannot be exported.
    """
    chosen = choose_tasks(source.model, tasks)
    swap_channels = source.cfg.INPUT.FORMAT == "BGR"
    return Graph(source.model, chosen, swap_channels, len(source.space.names)).eval()


def export_program(graph: Graph, fixed_size: tuple[int, int] | None, name: str) -> torch.export.ExportedProgram:
    """Trace a graph with torch.export: any batch, and any height and width unless they are fixed.

    Args:
        graph: of `build_graph`.
        fixed_size: (h, w) of all images; None: any.
        name: of the architecture, for errors.

    Returns:
        The program.

    Raises:
        ConfigError: torch cannot export a part of it, or it works for one size only.
    """
    side = [
        max(-(-EXAMPLE_SIDE // step), cells) * step
        for step, cells in zip(graph.multiple_hw, EXAMPLE_CELLS, strict=True)
    ]
    channels = graph.model.pixel_mean.shape[0]
    device = graph.model.pixel_mean.device
    images = torch.zeros((EXAMPLE_BATCH, channels, *(fixed_size or side)), dtype=torch.uint8, device=device)
    canvas = torch.zeros(EXAMPLE_CANVAS, dtype=torch.uint8, device=device)
    auto, static = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    of_side = static if fixed_size else auto
    shapes = {"images": {0: auto, 2: of_side, 3: of_side}, "canvas": {0: auto, 1: auto}}
    with _named_errors(name), torch.no_grad():
        program = torch.export.export(graph, (images, canvas), dynamic_shapes=shapes, strict=False)
    inputs = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"}
    fixed = [
        f"{axis} {size}"
        for axis, size in zip(("batch", "channels", "height", "width"), inputs["images"], strict=True)
        if isinstance(size, int) and axis != "channels" and not (fixed_size and axis in ("height", "width"))
    ]
    if fixed:
        remedy = "give a fixed size" if fixed_size is None else "use another backbone"
        raise ConfigError(f"{name} works for {', '.join(fixed)} only, in one graph", remedy=remedy)
    return program


def require_packages() -> None:
    """Check that the packages of the extra `onnx` are installed, and that torch can export.

    Raises:
        ConfigError: one is missing, or torch is too old.
    """
    from importlib.util import find_spec

    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise ConfigError(f"needs the extra 'onnx' ({', '.join(missing)} not installed)", remedy=INSTALL)
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise ConfigError(f"needs torch {oldest}, got {torch.__version__}", remedy="update torch")


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn what torch's exporters raise into one line that names the operator; hide their warnings."""
    levels = [(logging.getLogger(logger), logging.getLogger(logger).level) for logger in ("torch.onnx", "torch.fx")]
    try:
        for logger, _ in levels:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        text = str(error)
        operator = OPERATOR.search(text)
        cause = f"the operator {operator[1]}" if operator else " ".join(text.split())[:160]
        problem = f"torch {torch.__version__} cannot export {name} as one graph, because of {cause}"
        raise ConfigError(problem, remedy="docs/export.md lists what can be exported") from error
    finally:
        for logger, level in levels:
            logger.setLevel(level)


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
