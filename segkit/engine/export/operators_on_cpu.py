"""The operators of an ONNX file that runtimes on a GPU leave to the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Operator -> where it runs on the CPU. Of CUDA: microsoft/onnxruntime#27646 (March 2026) added RoiAlign of opset 16.
ON_CPU = {
    "NonMaxSuppression": "TensorRT's execution provider",
    "NonZero": "TensorRT's execution provider",
    "RoiAlign": "TensorRT's execution provider, and CUDA's in releases before March 2026",
    "Loop": "the conditions of a loop are read on the CPU by every provider",
}


def describe_operators(path: str | Path) -> list[str]:
    """List the operators of a file that a GPU runtime would put on the CPU.

    Args:
        path: an ONNX file.

    Returns:
        A line for each, with the number of its nodes; none if there are none.
    """
    import onnx

    counts = Counter(_list_operators(onnx.load(str(path), load_external_data=False).graph))
    return [f"{counts[name]} x {name}: on the CPU ({where})" for name, where in ON_CPU.items() if counts[name]]


def _list_operators(graph: Any) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _list_operators(attribute.g)
