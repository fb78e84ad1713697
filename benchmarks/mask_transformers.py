#!/usr/bin/env python3
"""Compare Mask2Former and EoMT with Hugging Face's transformers: forward pass, the same weights and logits, on the CPU.

    python benchmarks/mask_transformers.py [mask2former eomt_dinov2 eomt_dinov3] [--rounds 5]

Mask2Former is Swin-T with 100 queries at 480 x 640, EoMT is ViT-S with 200 queries at 640 x 640; 133 classes, computed
as TEST.INFERENCE says. Stops if logits differ by more than 1e-4 in float64. In float32 a pixel whose mask is within
rounding of 0.5 is seen by a query of Mask2Former or not, which changes more. Both run in turns on one thread; times are
processor time, which other work on the machine changes little. Memory is the peak of a pass in a process of its own,
beyond the weights (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from _memory import peak_mib
from detectron2.modeling import build_model

from segkit.config import load_config
from segkit.engine import register
from segkit.engine.importers.base import find_source
from segkit.engine.inference_options import apply_inference_options

CLASSES, TOLERANCE, NOISE = 133, 1e-4, 0.02


class Network(NamedTuple):
    """A network and its peer.

    Attributes:
        recipe: of segkit.
        build: transformers' network.
        size_hw: of the image in pixels.
    """

    recipe: str
    build: Callable[[Any], Any]
    size_hw: tuple[int, int]


def build_mask2former(transformers: Any) -> Any:
    names = [f"stage{stage}" for stage in (1, 2, 3, 4)]
    swin = transformers.SwinConfig(depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], out_features=names)
    config = transformers.Mask2FormerConfig(backbone_config=swin, num_labels=CLASSES)
    return transformers.Mask2FormerForUniversalSegmentation(config)


def build_eomt(transformers: Any, kind: str, **options: Any) -> Any:
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "num_blocks": 3}
    config = getattr(transformers, f"{kind}Config")(**sizes, num_labels=CLASSES, **options)
    network = getattr(transformers, f"{kind}ForUniversalSegmentation")(config)
    network.attn_mask_probs.zero_()  # as in trained models: no attention is masked in evaluation
    return network


NETWORKS = {
    "mask2former": Network("coco/mask2former_SwinT_panoptic_50ep", build_mask2former, (480, 640)),
    "eomt_dinov2": Network("coco/eomt_S_dinov2_640_2x", lambda peer: build_eomt(peer, "Eomt"), (640, 640)),
    "eomt_dinov3": Network(
        "coco/eomt_S_dinov3_640_2x",
        lambda peer: build_eomt(peer, "EomtDinov3", intermediate_size=1536, layer_norm_eps=1e-5),
        (640, 640),
    ),
}


def build_theirs(name: str) -> Any:
    """transformers' network; noise in the weights lets queries differ."""
    import transformers

    torch.manual_seed(0)
    network = NETWORKS[name].build(transformers).eval()
    for weight in network.parameters():
        weight.add_(torch.randn_like(weight), alpha=NOISE)
    return network


def build_ours(recipe: str, weights: dict[str, torch.Tensor]) -> Any:
    """segkit's network with the weights of transformers, as segkit evaluates."""
    register()
    cfg = load_config(recipe, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.QUERIES.NUM_CLASSES", str(CLASSES)])
    network = build_model(cfg).eval()
    converted = find_source(weights, {}, "", recipe).convert(weights, {})
    missing, unexpected = network.load_state_dict(converted.weights, strict=False)
    assert not unexpected
    assert all(name.endswith("relative_position_index") for name in missing)
    apply_inference_options(cfg, network)
    return network


def check_equal(ours: Any, theirs: Any, image: torch.Tensor) -> None:
    """Compare the logits in float64."""
    (outputs,), expected = ours.double().predict(image.double()), theirs.double()(pixel_values=image.double())
    for got, wanted in (
        (outputs.class_logits, expected.class_queries_logits),
        (outputs.mask_logits, expected.masks_queries_logits),
    ):
        difference = float((got - wanted).abs().max())
        assert difference <= TOLERANCE, f"logits differ by {difference}"


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


def compare(name: str, rounds: int) -> None:
    """Compare logits, then times and memory."""
    network = NETWORKS[name]
    theirs = build_theirs(name)
    ours = build_ours(network.recipe, theirs.state_dict())
    image = torch.randn(1, 3, *network.size_hw)
    runs: tuple[Callable[[torch.Tensor], Any], ...] = (ours.predict, lambda x: theirs(pixel_values=x))
    memory = [peak_mib(run, (image,), (image,)) for run in runs]  # first, while the heap has no holes
    check_equal(ours, theirs, image)
    ours.float()
    theirs.float()
    times = measure(rounds, lambda: runs[0](image), lambda: runs[1](image))
    ratios = [peer / own for own, peer in zip(*times, strict=True)]
    medians = [statistics.median(seconds) for seconds in times]
    print(f"{name} {network.size_hw[0]} x {network.size_hw[1]}: {medians[1] / medians[0]:.2f}x", end=" ")
    print(f"({min(ratios):.2f} to {max(ratios):.2f}), {medians[1]:.2f} s / {medians[0]:.2f} s;", end=" ")
    print(f"peak {memory[1]:.0f} MiB / {memory[0]:.0f} MiB", flush=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="measurements")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        import transformers  # noqa: F401
    except ImportError:
        sys.exit("not measured: transformers is missing, which the extra oracle installs")
    if len(args.networks) == 1:
        compare(args.networks[0], args.rounds)
        return
    for name in args.networks or NETWORKS:  # the memory of each in a process whose heap the others have not used
        subprocess.run([sys.executable, __file__, name, "--rounds", str(args.rounds)], check=True)


if __name__ == "__main__":
    main()
