"""A model as a program of torch.export, *.pt2: any batch, height and width, for programs with torch alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segkit.engine.export import operators  # noqa: F401  # programs with detectors use what it registers
from segkit.engine.export.graph import Graph
from segkit.engine.export.graphs import build_graph
from segkit.engine.export.program import export_program, require_torch
from segkit.engine.export.source import describe_graph
from segkit.structures.graph_outputs import METADATA
from segkit.utils.errors import CheckpointError, ConfigError
from segkit.utils.files import replacing

METADATA_FILE = f"{METADATA}.json"  # in the archive


def export_torch(
    source: Any, path: str | Path, *, tasks: Sequence[str] | None = None, fixed_size: tuple[int, int] | None = None
) -> Graph:
    """Write a model as a program of torch.export, with fusion inside.

    The inputs are `images` (B, C, h, w) uint8, resized, in RGB if there are three channels, and `canvas` (H, W) uint8
    of any values, whose size is that of the results. The outputs are those of
    `segkit.structures.graph_outputs.OUTPUTS`.

    Args:
        source: a loaded model: its `model`, `cfg`, `categories` and `space`.
        path: file to write.
        tasks: "semantic", "instances", "panoptic"; None: all that the model gives.
        fixed_size: (h, w) of all images; None: any.

    Returns:
        The graph that was exported, as a module.

    Raises:
        ConfigError: torch is too old, the model does not give a task, or a part of it cannot be exported.
        OutputError: the file cannot be written.
    """
    require_torch()
    graph = build_graph(source, tasks)
    program = export_program(graph, fixed_size, source.cfg.MODEL.META_ARCHITECTURE)
    extra = {METADATA_FILE: json.dumps(describe_graph(source, graph), ensure_ascii=False)}
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file, extra_files=extra)
    return graph


def load_torch_program(path: str | Path) -> Callable[[NDArray[np.uint8], tuple[int, int]], dict[str, NDArray[Any]]]:
    """Read a file of `export_torch`. torch's reader may run code of a file: read your own files only.

    Args:
        path: the file.

    Returns:
        (B, C, h, w) uint8 images, (H, W) of the results -> the outputs by name. It raises ConfigError for images of a
        size that the program does not take.

    Raises:
        CheckpointError: the file is missing, damaged, or not of `segkit export torch`.
    """
    extra = {METADATA_FILE: ""}
    try:
        with Path(path).open("rb") as file:
            program: Any = torch.export.load(file, extra_files=extra).module()
        names = json.loads(extra[METADATA_FILE])["outputs"]
    except Exception as error:  # torch has no common class for damaged files
        cause = " ".join(str(error).split())[:160]
        problem = f"expected a file of `segkit export torch`, torch cannot load it ({cause})"
        raise CheckpointError(problem, where=path, remedy="export the model again") from error

    @torch.no_grad()
    def run(images: NDArray[np.uint8], size_hw: tuple[int, int]) -> dict[str, NDArray[Any]]:
        try:
            results = program(torch.from_numpy(images.copy()), torch.zeros(size_hw, dtype=torch.uint8))
        except AssertionError as error:  # of a condition on the sizes
            height, width = images.shape[2:]
            remedy = "export with this --fixed-size, or resize the images"
            raise ConfigError(f"it takes no images of {height} x {width} pixels", where=path, remedy=remedy) from error
        return {name: result.numpy() for name, result in zip(names, results, strict=True)}

    return run
