#!/usr/bin/env python3
"""Compare the path from semantic logits to class ids with Detectron2: equal ids, ratio of times, memory.

    python benchmarks/semantic_path.py [--rounds 5]

Detectron2 runs SemSegFPNHead.forward, sem_seg_postprocess and argmax. Ids may differ only if the two best logits are
within TOLERANCE. Both run in turns on one thread: the ratio counts, since times depend on the machine. "Regions" are
smooth logits with one clear best channel in most places, as a trained network gives them. "Noise" is the worst case: no
two neighbours are alike.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics

import cv2
import numpy as np
import torch
from _memory import peak_mib
from detectron2.modeling.postprocessing import sem_seg_postprocess
from numpy.typing import NDArray
from paste_and_fusion import seconds
from torch.nn import functional as F

from segkit.fusion.semantic_argmax import TOLERANCE, argmax_upsampled

CHANNELS, STRIDE, PADDED_TO = 54, 4, 32  # Panoptic FPN on COCO
CASES = [  # network's image, output
    ((800, 1333), (800, 1333)),
    ((480, 640), (480, 640)),
    ((800, 1067), (480, 640)),
]
BLUR_PX, CONTRAST, GRAIN = 32, 4.0, 0.2  # of "regions"


def logits(kind: str, image_size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """(C, h, w) float32 at the head's stride, padding included."""
    rng = np.random.default_rng(0)
    height, width = (-(-size // PADDED_TO) * PADDED_TO // STRIDE for size in image_size_hw)
    noise = rng.standard_normal((CHANNELS, height, width), dtype=np.float32)
    if kind == "noise":
        return noise
    blurred = np.stack([cv2.GaussianBlur(channel, (0, 0), BLUR_PX / STRIDE) for channel in noise])
    grain = rng.standard_normal(blurred.shape, dtype=np.float32)
    return blurred * np.float32(CONTRAST) / blurred.std() + grain * np.float32(GRAIN)


def detectron2(
    head_logits: NDArray[np.float32], image_size_hw: tuple[int, int], size_hw: tuple[int, int]
) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = resize(head_logits, image_size_hw, size_hw).argmax(dim=0).numpy()
    return ids


def resize(head_logits: NDArray[np.float32], image_size_hw: tuple[int, int], size_hw: tuple[int, int]) -> torch.Tensor:
    logits = torch.from_numpy(head_logits)[None]
    enlarged = F.interpolate(logits, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    full: torch.Tensor = sem_seg_postprocess(enlarged[0], image_size_hw, *size_hw)
    return full


def ours(
    head_logits: NDArray[np.float32], image_size_hw: tuple[int, int], size_hw: tuple[int, int]
) -> NDArray[np.unsignedinteger]:
    return argmax_upsampled(head_logits, STRIDE, image_size_hw, size_hw)


def compare(kind: str, image_size_hw: tuple[int, int], size_hw: tuple[int, int], rounds: int) -> None:
    inputs = logits(kind, image_size_hw), image_size_hw, size_hw
    tiny = inputs[0][:, :4, :4], (16, 16), (16, 16)
    full, ids = resize(*inputs), ours(*inputs)
    chosen = full.gather(0, torch.from_numpy(ids.astype(np.int64))[None])[0]
    if (full.amax(0) - chosen > TOLERANCE * np.abs(inputs[0]).max()).any():
        raise SystemExit(f"ids differ: {kind}, {image_size_hw} to {size_hw}")
    del full, chosen
    pairs = [(seconds(lambda: detectron2(*inputs)), seconds(lambda: ours(*inputs))) for _ in range(rounds)]
    peaks = [peak_mib(way, inputs, tiny) for way in (detectron2, ours)]
    ratios = sorted(peer / own for peer, own in pairs)
    peer_ms, own_ms = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    sizes = f"{image_size_hw[0]}x{image_size_hw[1]} -> {size_hw[0]}x{size_hw[1]}"
    print(
        f"{kind:>8} {sizes:>20} {peer_ms:>8.1f} ms {own_ms:>5.1f} ms {statistics.median(ratios):>6.1f}x "
        f"({ratios[0]:.1f} to {ratios[-1]:.1f}) {peaks[0]:>8.1f} MiB {peaks[1]:>4.1f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print("  logits        network -> image  Detectron2   segkit   ratio               peak memory of both")
    for kind in ("regions", "noise"):
        for image_size_hw, size_hw in CASES:
            compare(kind, image_size_hw, size_hw, rounds)


if __name__ == "__main__":
    main()
