#!/usr/bin/env python3
"""Compare pasting and heuristic fusion on a GPU with Detectron2: equal results, times, synchronisations, memory.

    python benchmarks/postprocessing_gpu.py [--rounds 20] [--device cpu] [--graph]

Both start with the outputs of the mask head on the device. Both end with the map on the device and the segments on the
CPU. segkit is also timed on four images at once, and with --graph as a replayed CUDA graph. Without a GPU nothing is
measured. --device cpu only shows that it works: on the CPU segkit runs other code (paste_and_fusion.py).
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Boxes, Instances

from segkit.fusion import HeuristicFusion
from segkit.modeling.postprocessing.detections import Detections, build_class_thresholds
from segkit.modeling.postprocessing.heuristic import fuse_heuristic
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, to_segments

CASES = [(size_hw, count) for size_hw in ((800, 1333), (480, 640)) for count in (20, 50, 100)]
FUSION = HeuristicFusion(overlap_threshold=0.5, stuff_area_limit_px=4096, instance_score_threshold=0.5)
STUFF, BATCH = 53, 4
MIB = 1024**2


def scene(size_hw: tuple[int, int], count: int, device: str) -> tuple[Detections, torch.Tensor]:
    """Make a batch of one COCO-like image: discs of 28 x 28 in boxes of many sizes, and a coarse semantic map."""
    generator = torch.Generator().manual_seed(count)
    height, width = size_hw
    grid = torch.linspace(-1, 1, 28)
    radius = torch.rand(count, 1, 1, generator=generator) * 0.5 + 0.5
    probs = (2 * (radius - (grid[:, None] ** 2 + grid**2).sqrt())).sigmoid()
    sides = torch.rand(count, 2, generator=generator) ** 2 * 0.5 + 0.04
    centres = torch.rand(count, 2, generator=generator)
    corners = torch.cat([centres - sides / 2, centres + sides / 2], 1).clamp(0, 1)
    scores = torch.rand(count, generator=generator) * 0.6 + 0.4
    class_ids = torch.randint(0, 80, (count,), generator=generator)
    blobs = torch.randint(0, STUFF + 1, (1, 1, 6, 8), generator=generator).float()
    semantic = torch.nn.functional.interpolate(blobs, size=size_hw, mode="nearest")[0].long()
    boxes = corners * torch.tensor([width, height, width, height])
    fields = (probs, boxes, scores, class_ids, torch.ones(count, dtype=torch.bool))
    return Detections(*(field[None].to(device) for field in fields)), semantic.to(device)


def detectron2(detections: Detections, semantic: torch.Tensor) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Run Detectron2: all full-size masks, then one instance after the other."""
    size_hw = tuple(semantic.shape[1:])
    instances = Instances(size_hw)
    instances.pred_masks = paste_masks_in_image(detections.mask_probs[0], Boxes(detections.boxes_xyxy[0]), size_hw)
    instances.scores, instances.pred_classes = detections.scores[0], detections.class_ids[0]
    limits = FUSION.overlap_threshold, FUSION.stuff_area_limit_px, FUSION.instance_score_threshold
    return combine_semantic_and_instance_outputs(instances, semantic[0], *limits)


def check_equal(fused: FusedTensors, ids: torch.Tensor, info: list[dict[str, Any]]) -> None:
    """End the program if the results differ."""
    (segments,) = to_segments(fused.unbatched())
    ours = [(s.segment_id, s.isthing, s.category_id, s.score, s.instance_id) for s in segments]
    theirs = [(s["id"], s["isthing"], s["category_id"], s.get("score"), s.get("instance_id")) for s in info]
    if ours != theirs or not torch.equal(fused.ids[0], ids):
        raise SystemExit(f"results differ: {len(ours)} and {len(theirs)} segments")


def milliseconds(run: Callable[[], Any], device: str, rounds: int) -> float:
    """The median time of a call that starts and ends with an idle device."""
    times = []
    for _ in range(rounds + 2):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[2:])  # the first two warm up


def cost(run: Callable[[], Any], device: str) -> str:
    """Synchronisations, and the peak memory above the inputs; a dash without a GPU."""
    if device == "cpu":
        return f"{'-':>6} {'-':>9}"
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in caught)
    return f"{waits:>6} {(torch.cuda.max_memory_allocated() - before) / MIB:>5.0f} MiB"


def graphed(run: Callable[[], FusedTensors]) -> Callable[[], Any]:
    """The call as a CUDA graph. It is recorded once, which works because nothing is read back, and then replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fused = run()

    def replay() -> Any:
        graph.replay()
        return to_segments(fused.unbatched())

    return replay


def compare(size_hw: tuple[int, int], count: int, device: str, rounds: int, graph: bool) -> str:
    """One line of the table."""
    detections, semantic = scene(size_hw, count, device)
    limits = build_class_thresholds(FUSION).to(device)
    several = Detections(*(field.repeat(BATCH, *[1] * (field.ndim - 1)) for field in detections))
    maps = semantic.repeat(BATCH, 1, 1)

    def fuse(rows: Detections, stuff_map: torch.Tensor) -> FusedTensors:
        return fuse_heuristic(rows, stuff_map, STUFF, FUSION, limits)

    check_equal(fuse(detections, semantic), *detectron2(detections, semantic))
    theirs, ours = (
        (lambda: detectron2(detections, semantic)),
        (lambda: to_segments(fuse(detections, semantic).unbatched())),
    )
    their_ms, our_ms = milliseconds(theirs, device, rounds), milliseconds(ours, device, rounds)
    batch_ms = milliseconds(lambda: to_segments(fuse(several, maps).unbatched()), device, rounds) / BATCH
    line = f"{size_hw[0]:>4}x{size_hw[1]:<4} {count:>9} {their_ms:>7.1f} ms {cost(theirs, device)}"
    line += f" | {our_ms:>6.1f} ms {cost(ours, device)} {their_ms / our_ms:>5.1f}x {their_ms / batch_ms:>6.1f}x"
    if graph:
        graph_ms = milliseconds(graphed(lambda: fuse(detections, semantic)), device, rounds)
        line += f" {their_ms / graph_ms:>5.1f}x"
    return line


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--graph", action="store_true", help="also time ours as a CUDA graph")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured (--device cpu runs the same on the CPU)")
        return
    graph = arguments.graph and arguments.device == "cuda"
    print(f"{'':>20}{'Detectron2':>11} {'syncs':>5} {'memory':>9} | {'segkit':>9} {'syncs':>6} {'memory':>9}", end=" ")
    print(f"{'ratio':>6} {f'of {BATCH}':>7}{' graph' if graph else ''}")
    for size_hw, count in CASES:
        print(compare(size_hw, count, arguments.device, arguments.rounds, graph))


if __name__ == "__main__":
    main()
