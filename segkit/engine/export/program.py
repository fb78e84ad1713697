"""Graphs as programs of torch.export, which both ONNX files and *.pt2 files are made of."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from segkit.engine.export.graph import Graph
from segkit.utils.errors import ConfigError

EXAMPLE_BATCH = 2  # at least 2 of everything: torch takes a size of 1 for a constant
EXAMPLE_CANVAS = 120, 150  # pixels; sizes that no other part of the graph has
OLDEST_TORCH = 2, 11
CONSTANT_SIZE = re.compile(r"^[^%]* == -?[\d.]+$")  # of torch's conditions: what follows from a size is a number
OPERATOR = re.compile(r"target=(?:torch\.ops\.)?([\w.:]+)")


def export_program(graph: Graph, fixed_size: tuple[int, int] | None, name: str) -> torch.export.ExportedProgram:
    """Trace a graph with torch.export: any batch, and any height and width unless they are fixed.

    Args:
        graph: of `segkit.engine.export.graphs.build_graph`.
        fixed_size: (h, w) of all images; None: any.
        name: of the architecture, for errors.

    Returns:
        The program.

    Raises:
        ConfigError: torch cannot export a part of it, or it works for one size only.
    """
    graph.check_size(fixed_size)
    channels = graph.model.pixel_mean.shape[0]
    device = graph.model.pixel_mean.device
    images = torch.zeros((EXAMPLE_BATCH, channels, *(fixed_size or graph.example_hw)), dtype=torch.uint8, device=device)
    canvas = torch.zeros(EXAMPLE_CANVAS, dtype=torch.uint8, device=device)
    auto, static = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    of_side = static if fixed_size else auto
    shapes = {"images": {0: auto, 2: of_side, 3: of_side}, "canvas": {0: auto, 1: auto}}
    with named_errors(name), torch.no_grad():
        program = torch.export.export(graph, (images, canvas), dynamic_shapes=shapes, strict=False)
    inputs = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"}
    fixed = [
        f"{axis} {size}"
        for axis, size in zip(("batch", "channels", "height", "width"), inputs["images"], strict=True)
        if isinstance(size, int) and axis != "channels" and not (fixed_size and axis in ("height", "width"))
    ]
    if any(CONSTANT_SIZE.search(condition) for condition in getattr(program, "_guards_code", ())):
        fixed = fixed or ["the sizes of the example"]  # inputs of any size, which ONNX files compute wrongly
    if fixed:
        remedy = "give a fixed size" if fixed_size is None else "use another backbone"
        raise ConfigError(f"{name} works for {', '.join(fixed)} only, in one graph", remedy=remedy)
    return program


def require_torch() -> None:
    """Check that torch can export.

    Raises:
        ConfigError: it is too old.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise ConfigError(f"needs torch {oldest}, got {torch.__version__}", remedy="update torch")


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Turn what torch's exporters raise into one line that names the operator; hide their warnings.

    Args:
        name: of the architecture.

    Raises:
        ConfigError: torch cannot export a part of it.
    """
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
