#!/usr/bin/env python3
"""All that follows the network's heads, against Detectron2: the same head outputs, equal results, time and memory.

    python benchmarks/postprocessing.py [--rounds 5]

Pasting, semantic upsampling and argmax, fusion; 54 semantic channels. One thread each, in turns. Memory is the peak of
a forked process above its start (Linux).
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from _memory import peak_mib
from detectron2.modeling import detector_postprocess
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from paste_and_fusion import OVERLAP, SCORE, STUFF_AREA_PX, scene, seconds
from torch.nn import functional as F

from segkit.fusion import HeuristicFusion
from segkit.modeling.meta_arch.panoptic_rcnn import detectron2_segments_info
from segkit.modeling.postprocessing.head_outputs import SemanticLogits, scale_instances, semantic_scores
from segkit.structures import HeadOutputs

CHANNELS, STRIDE = 54, 4
# (network's image, output), instances: an image of COCO's usual size is made larger for the network.
CASES = [((800, 1067), (480, 640), count) for count in (20, 100)] + [((800, 1333), (800, 1333), 100)]
TINY = (64, 96), (48, 72), 2


def heads_of(case: Any) -> tuple[Instances, torch.Tensor, Any, Any]:
    """ROI heads' instances in the network's pixels, the semantic head's coarse logits, padded to 32 pixels; both
    sizes."""
    image_size, size_hw, count = case
    probs, boxes, scores, classes, _ = scene(image_size, count, seed=count)
    found = Instances(image_size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)
    found.pred_masks = probs[:, None]
    padded = [-(-side // 32) * 32 // STRIDE for side in image_size]
    generator = torch.Generator().manual_seed(count)
    blobs = torch.randn((1, CHANNELS, 9, 12), generator=generator) * 4
    logits = F.interpolate(blobs, size=padded, mode="bicubic", align_corners=False)
    coarse = logits[0] + torch.randn((CHANNELS, *padded), generator=generator) * 0.05
    return found, coarse, image_size, size_hw


def copied(found: Instances) -> Instances:
    """Detectron2 scales boxes in place."""
    fields = {**found.get_fields(), "pred_boxes": Boxes(found.pred_boxes.tensor.clone())}
    return Instances(found.image_size, **fields)


def detectron2(found: Instances, coarse: torch.Tensor, image_size: Any, size_hw: Any) -> Any:
    """The end of SemSegFPNHead.forward, and of PanopticFPN.inference."""
    logits = F.interpolate(coarse[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
    sem_seg = sem_seg_postprocess(logits, image_size, *size_hw)
    instances = detector_postprocess(copied(found), *size_hw)
    return combine_semantic_and_instance_outputs(instances, sem_seg.argmax(dim=0), OVERLAP, STUFF_AREA_PX, SCORE)


def ours(found: Instances, coarse: torch.Tensor, image_size: Any, size_hw: Any) -> Any:
    """What PanopticRCNN does with its heads' outputs."""
    masks = scale_instances(found, size_hw).masks
    scores = semantic_scores(SemanticLogits(coarse, STRIDE, image_size, size_hw), None, None, with_logits=False)
    return HeuristicFusion(OVERLAP, STUFF_AREA_PX, SCORE)(HeadOutputs(masks, scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for run in (detectron2, ours):  # compiles, and loads what is loaded at a first call
        run(*heads_of(TINY))
    print(f"{'network':>10} {'output':>9} {'instances':>9} {'Detectron2':>18} {'segkit':>16} {'time':>6} {'memory':>7}")
    for case in CASES:
        image_size, size_hw, count = case
        inputs = heads_of(case)
        memory = [peak_mib(run, inputs, heads_of(TINY)) for run in (detectron2, ours)]
        (ids, info), fused = detectron2(*inputs), ours(*inputs)
        if fused.segment_ids.tolist() != ids.tolist() or detectron2_segments_info(fused.segments) != info:
            raise SystemExit(f"results differ at {size_hw}, {count} instances")
        pairs = [(seconds(lambda i=inputs: detectron2(*i)), seconds(lambda i=inputs: ours(*i))) for _ in range(rounds)]
        theirs, mine = (statistics.median(times) for times in zip(*pairs, strict=True))
        sizes = ["x".join(map(str, size)) for size in (image_size, size_hw)]
        print(
            f"{sizes[0]:>10} {sizes[1]:>9} {count:>9} {1e3 * theirs:>7.0f} ms {memory[0]:>4.0f} MiB "
            f"{1e3 * mine:>5.0f} ms {memory[1]:>4.0f} MiB {theirs / mine:>5.1f}x {memory[0] / max(memory[1], 1):>6.1f}x"
        )


if __name__ == "__main__":
    main()
