#!/usr/bin/env python3
"""Compare all post-processing with Detectron2: the same head outputs, equal results, time and memory.

    python benchmarks/postprocessing.py [--rounds 5]

Post-processing is pasting, semantic upsampling and argmax of 54 channels, and fusion. Results may differ only at pixels
where a mask probability is within rounding of the threshold, or two logits are within rounding of each other. Both run
in turns on one thread. Memory is the peak of a forked process above its start (Linux).
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
from paste_and_fusion import OVERLAP, SCORE, STUFF_AREA_PX, check_equal, find_unsure_pixels, scene, seconds
from torch.nn import functional as F

from segkit.fusion import HeuristicFusion
from segkit.fusion.semantic_argmax import TOLERANCE
from segkit.modeling.postprocessing.head_outputs import SemanticLogits, build_semantic_scores, scale_instances
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.structures import HeadOutputs

CHANNELS, STRIDE = 54, 4
# (network's image, output), instances. The network gets images of COCO's usual size enlarged.
CASES = [((800, 1067), (480, 640), count) for count in (20, 100)] + [((800, 1333), (800, 1333), 100)]
TINY = (64, 96), (48, 72), 2


def make_head_outputs(case: Any) -> tuple[Instances, torch.Tensor, Any, Any]:
    """The instances in pixels of the network's image, the coarse logits of a padded image, and both sizes."""
    image_size, size_hw, count = case
    probs, boxes, scores, classes, _ = scene(image_size, count, seed=count)
    instances = Instances(image_size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)
    instances.pred_masks = probs[:, None]
    padded = [-(-side // 32) * 32 // STRIDE for side in image_size]
    generator = torch.Generator().manual_seed(count)
    blobs = torch.randn((1, CHANNELS, 9, 12), generator=generator) * 4
    logits = F.interpolate(blobs, size=padded, mode="bicubic", align_corners=False)
    coarse = logits[0] + torch.randn((CHANNELS, *padded), generator=generator) * 0.05
    return instances, coarse, image_size, size_hw


def copy_instances(instances: Instances) -> Instances:
    """Detectron2 scales boxes in place."""
    fields = {**instances.get_fields(), "pred_boxes": Boxes(instances.pred_boxes.tensor.clone())}
    return Instances(instances.image_size, **fields)


def detectron2(given: Instances, coarse: torch.Tensor, image_size: Any, size_hw: Any) -> Any:
    """The end of SemSegFPNHead.forward, and of PanopticFPN.inference."""
    logits = F.interpolate(coarse[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
    sem_seg = sem_seg_postprocess(logits, image_size, *size_hw)
    instances = detector_postprocess(copy_instances(given), *size_hw)
    return combine_semantic_and_instance_outputs(instances, sem_seg.argmax(dim=0), OVERLAP, STUFF_AREA_PX, SCORE)


def ours(given: Instances, coarse: torch.Tensor, image_size: Any, size_hw: Any) -> Any:
    """Run the post-processing of PanopticRCNN."""
    masks = scale_instances(given, size_hw).masks
    logits = SemanticLogits(coarse, Sizes(image_size, size_hw, STRIDE))
    scores = build_semantic_scores(logits, None, None, with_logits=False)
    return HeuristicFusion(
        overlap_threshold=OVERLAP, stuff_area_limit_px=STUFF_AREA_PX, instance_score_threshold=SCORE
    )(HeadOutputs(masks, scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for run in (detectron2, ours):  # the first call compiles and loads
        run(*make_head_outputs(TINY))
    print(f"{'network':>10} {'output':>9} {'instances':>9} {'Detectron2':>18} {'segkit':>16} {'time':>6} {'memory':>7}")
    for case in CASES:
        image_size, size_hw, count = case
        inputs = make_head_outputs(case)
        memory = [peak_mib(run, inputs, make_head_outputs(TINY)) for run in (detectron2, ours)]
        (ids, info), fused = detectron2(*inputs), ours(*inputs)
        instances, coarse, *_ = inputs
        highest = SemanticLogits(coarse, Sizes(image_size, size_hw, STRIDE)).resize().topk(2, dim=0).values.numpy()
        unsure = highest[0] - highest[1] <= TOLERANCE * float(coarse.abs().max())
        check_equal(fused, ids, info, unsure | find_unsure_pixels(scale_instances(instances, size_hw).masks))
        pairs = [(seconds(lambda i=inputs: detectron2(*i)), seconds(lambda i=inputs: ours(*i))) for _ in range(rounds)]
        theirs, mine = (statistics.median(times) for times in zip(*pairs, strict=True))
        sizes = ["x".join(map(str, size)) for size in (image_size, size_hw)]
        print(
            f"{sizes[0]:>10} {sizes[1]:>9} {count:>9} {1e3 * theirs:>7.0f} ms {memory[0]:>4.0f} MiB "
            f"{1e3 * mine:>5.0f} ms {memory[1]:>4.0f} MiB {theirs / mine:>5.1f}x {memory[0] / max(memory[1], 1):>6.1f}x"
        )


if __name__ == "__main__":
    main()
