#!/usr/bin/env python3
"""Time an exported file in onnxruntime against its model in torch, on the CPU, with fusion in both: equal results.

    segkit export onnx MODEL --output model.onnx
    python benchmarks/onnx_models.py MODEL model.onnx IMAGE... [--rounds 5] [--threads 1]

Both take the resized pixels of the same images, one at a time, in turns; the model in torch is as `segkit predict` runs
it (batch norms folded, channels_last), up to its map, instances and classes. Time is that of the processor: others may
use the machine, and a ratio counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import segkit
from segkit.engine.export.check import check_graph
from segkit.engine.export.graphs import build_graph
from segkit.engine.export.source import load_source
from segkit.runtime.onnx_model import OnnxModel


def measure(rounds: int, functions: list[Callable[[], Any]]) -> list[list[float]]:
    """Seconds of the processor of each function in each round; the order changes from round to round."""
    seconds: list[list[float]] = [[] for _ in functions]
    for number in range(rounds):
        for index in np.roll(np.arange(len(functions)), number).tolist():
            start = time.process_time()
            functions[index]()
            seconds[index].append(time.process_time() - start)
    return seconds


def main() -> None:
    """Check the results, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("file")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--config-file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    exported = OnnxModel(args.file, threads=args.threads)
    source = load_source(args.model, args.config_file)
    for check in check_graph(source, build_graph(source, exported.graph.tasks), exported.graph.run, args.images):
        print(check.title, *check.lines, sep="\n  ")
        assert check.passed
    model: Any = segkit.load(args.model, args.config_file, device="cpu")
    pixels = [model.input.read(path) for path in args.images]
    outputs = exported.graph.tasks
    functions = [
        lambda: [model.compute_results([each], outputs) for each in pixels],
        lambda: [exported.compute_results([each], outputs) for each in pixels],
    ]
    measure(1, functions)  # onnxruntime plans its memory, oneDNN chooses its kernels
    torch_s, onnx_s = measure(args.rounds, functions)
    ratios = [before / after for before, after in zip(torch_s, onnx_s, strict=True)]
    ratio = statistics.median(torch_s) / statistics.median(onnx_s)
    per_image = [statistics.median(seconds) / len(pixels) * 1e3 for seconds in (torch_s, onnx_s)]
    print(f"{', '.join(outputs)}: {ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})", end="; ")
    print(f"torch {per_image[0]:.0f} ms, onnxruntime {per_image[1]:.0f} ms an image")


if __name__ == "__main__":
    main()
