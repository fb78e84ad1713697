#!/usr/bin/env python3
"""Compare the forward pass of Mask2Former with Hugging Face's transformers: the same weights and logits, on the CPU.

    python benchmarks/mask2former.py [--rounds 5] [--size 480 640]

Swin-T with 100 queries and 133 classes, computed as TEST.INFERENCE says. Stops if logits differ by more than 1e-4 in
float64. In float32 a pixel whose mask is within rounding of 0.5 is seen by a query or not, which changes more. Both run
in turns on one thread; times are processor time, which other work on the machine changes little. Memory is the peak of
a pass in a process of its own, beyond the weights (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from _memory import peak_mib
from detectron2.modeling import build_model

from segkit.config import load_config
from segkit.engine import register
from segkit.engine.importers.base import find_source
from segkit.engine.inference_options import apply_inference_options

RECIPE = "coco/mask2former_SwinT_panoptic_50ep"
CLASSES, TOLERANCE, NOISE = 133, 1e-4, 0.02
SMALL = (64, 64)


def build_theirs() -> Any:
    """transformers' network; noise in the weights lets queries differ."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    names = [f"stage{stage}" for stage in (1, 2, 3, 4)]
    swin = SwinConfig(depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], out_features=names)
    network = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=swin, num_labels=CLASSES)).eval()
    for weight in network.parameters():
        weight.add_(torch.randn_like(weight), alpha=NOISE)
    return network


def build_ours(weights: dict[str, torch.Tensor]) -> Any:
    """segkit's network with the weights of transformers, as segkit evaluates."""
    register()
    cfg = load_config(RECIPE, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.QUERIES.NUM_CLASSES", str(CLASSES)])
    network = build_model(cfg).eval()
    converted = find_source(weights, {}, "", RECIPE).convert(weights, {})
    missing, unexpected = network.load_state_dict(converted.weights, strict=False)
    assert not unexpected
    assert all(name.endswith("relative_position_index") for name in missing)
    apply_inference_options(cfg, network)
    return network


def measure(rounds: int, *functions: Callable[[], Any]) -> list[list[float]]:
    """Processor seconds of each function in each round; the order changes from round to round."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(rounds):
        for index in range(len(functions)):
            index = (index + number) % len(functions)
            start = time.process_time()
            functions[index]()
            times[index].append(time.process_time() - start)
    return times


@torch.no_grad()
def main() -> None:
    """Compare logits, then times and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="height and width of the image in pixels")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        theirs = build_theirs()
    except ImportError:
        sys.exit(print("not measured: transformers is missing, which the extra oracle installs"))
    ours = build_ours(theirs.state_dict())
    image, tiny = torch.randn(1, 3, *args.size), torch.randn(1, 3, *SMALL)
    networks: tuple[Callable[[torch.Tensor], Any], ...] = (ours.predict, lambda x: theirs(pixel_values=x))
    for network in (ours, theirs):
        network.double()
    (outputs,), expected = networks[0](image.double()), networks[1](image.double())
    for got, wanted in (
        (outputs.class_logits, expected.class_queries_logits),
        (outputs.mask_logits, expected.masks_queries_logits),
    ):
        difference = float((got - wanted).abs().max())
        assert difference <= TOLERANCE, f"logits differ by {difference}"
    for network in (ours, theirs):
        network.float()
    times = measure(args.rounds, lambda: networks[0](image), lambda: networks[1](image))
    ratios = [peer / own for own, peer in zip(*times, strict=True)]
    medians = [statistics.median(seconds) for seconds in times]
    memory = [peak_mib(network, (image,), (tiny,)) for network in networks]
    print(f"Mask2Former, Swin-T, {args.size[0]} x {args.size[1]}: {medians[1] / medians[0]:.2f}x", end=" ")
    print(f"({min(ratios):.2f} to {max(ratios):.2f}), {medians[1]:.2f} s / {medians[0]:.2f} s;", end=" ")
    print(f"peak {memory[1]:.0f} MiB / {memory[0]:.0f} MiB")


if __name__ == "__main__":
    main()
