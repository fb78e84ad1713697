"""Whether an exported file gives the results of the model: pixel by pixel, with the pixels that rounding decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segkit.engine.export.detections import detect, propose
from segkit.engine.export.graphs import Graph
from segkit.fusion.paste import MASK_THRESHOLD
from segkit.modeling.postprocessing.detections import scale_boxes
from segkit.modeling.postprocessing.majority_vote import Centers, compute_distances, find_centers, resize_centers
from segkit.modeling.postprocessing.paste import paste_each
from segkit.modeling.postprocessing.resampling import Sizes, resize_logits
from segkit.runtime.resizing import resize_short_side
from segkit.structures.graph_outputs import INSTANCES, PANOPTIC, SEMANTIC
from segkit.structures.segment_table import read_segments
from segkit.utils.errors import ConfigError

ROUNDING = 1e-3  # of probabilities, and of logits as a share of the largest: more than two runtimes differ by
EQUAL_SCORES = 1e-5
EQUAL_HEATS = 1e-4  # as a share of the largest
EQUAL_DISTANCES_PX = 0.01  # from two centers
MAX_BOX_PX, MAX_SCORE = 0.1, 1e-3  # largest difference of equal boxes and scores
GENERATED = (((160, 224), (160, 224), 1), ((139, 203), (180, 260), 3))  # sizes of images and results, and the batch
SEED = 0

Run = Callable[[NDArray[np.uint8], tuple[int, int]], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Check:
    """The comparison of one image.

    Attributes:
        title: the image and its size.
        lines: what was compared, with numbers.
        passed: whether all differences are within rounding.
    """

    title: str
    lines: tuple[str, ...]
    passed: bool


def check_graph(
    source: Any, graph: Graph, run: Run, images: Sequence[str | Path] = (), fixed_size: tuple[int, int] | None = None
) -> Iterator[Check]:
    """Compare an exported file with the model.

    Args:
        source: the loaded model, see `export_onnx`; its `input` too if there are images.
        graph: that was exported.
        run: runs the file: (B, C, h, w) uint8 images, (H, W) of the results -> the outputs by name.
        images: image files; without any, generated images of two sizes that were not used for the export, in batches
            of 1 and 3.
        fixed_size: (h, w) of all images, if the file takes no other.

    Yields:
        A comparison for each image.
    """
    for title, batch, size_hw in (
        _read_batches(source, images, fixed_size) if images else _generate_batches(graph, fixed_size)
    ):
        started = time.perf_counter()
        results = run(batch, size_hw)
        ran = time.perf_counter()
        expected = _run_model(graph, batch, size_hw)
        seconds = (
            f"{(ran - started) / len(batch):.2f} s exported, {(time.perf_counter() - ran) / len(batch):.2f} s torch"
        )
        ties = _find_ties(graph, batch, size_hw)
        for row, (output, tied) in enumerate(zip(expected, ties, strict=True)):
            own = {name: values[row] for name, values in results.items()}
            lines, passed = [], True
            for task in graph.tasks:
                line, is_equal = COMPARISONS[task](own, output, tied)
                lines.append(f"{task}: {line}")
                passed = passed and is_equal
            name = f"{title}, {row + 1} of {len(batch)}" if len(batch) > 1 else title
            yield Check(f"{name} ({size_hw[0]} x {size_hw[1]}, {seconds})", tuple(lines), passed)


def _generate_batches(
    graph: Graph, fixed_size: tuple[int, int] | None
) -> Iterator[tuple[str, NDArray[np.uint8], tuple[int, int]]]:
    random = np.random.default_rng(SEED)
    channels = graph.model.pixel_mean.shape[0]
    for free_size, size_hw, count in GENERATED:
        height, width = fixed_size or free_size
        coarse = torch.from_numpy(random.random((count, channels, 5, 7), dtype=np.float32))
        blobs = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").numpy()
        noise = random.random(blobs.shape, dtype=np.float32)
        yield "generated", ((0.8 * blobs + 0.2 * noise) * 255).astype(np.uint8), size_hw


def _read_batches(
    source: Any, images: Sequence[str | Path], fixed_size: tuple[int, int] | None
) -> Iterator[tuple[str, NDArray[np.uint8], tuple[int, int]]]:
    for path in images:
        pixels = source.input.read(path)
        resized = resize_short_side(pixels, source.cfg.INPUT.MIN_SIZE_TEST, source.cfg.INPUT.MAX_SIZE_TEST)
        if fixed_size and resized.shape[:2] != fixed_size:
            got, wanted = (" x ".join(map(str, size)) for size in (resized.shape[:2], fixed_size))
            raise ConfigError(f"it is {got} pixels after the resizing, but the file takes {wanted}", where=path)
        if source.cfg.INPUT.FORMAT == "BGR":
            resized = resized[..., ::-1]
        yield (
            Path(path).name,
            np.ascontiguousarray(resized.transpose(2, 0, 1))[None],
            (pixels.shape[0], pixels.shape[1]),
        )


@torch.no_grad()
def _run_model(graph: Graph, batch: NDArray[np.uint8], size_hw: tuple[int, int]) -> list[Any]:
    """What the model itself gives, each image by itself."""
    tensors = torch.from_numpy(batch.copy()).flip(1) if graph.swap_channels else torch.from_numpy(batch.copy())
    return [graph.model([{"image": each, "height": size_hw[0], "width": size_hw[1]}])[0] for each in tensors]


@torch.no_grad()
def _find_ties(graph: Graph, batch: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """(B, H, W): pixels that rounding decides: of equal logits, instances or centers, or on the edge of a mask."""
    images = torch.from_numpy(batch.copy()).to(graph.model.pixel_mean.device)
    features = graph.model.backbone(graph.preprocess(images))
    image_size = images.shape[2], images.shape[3]
    ties = torch.zeros((len(images), *size_hw), dtype=torch.bool, device=images.device)
    if hasattr(graph.model, "sem_seg_head"):
        coarse, scale = graph.compute_logits(features)
        logits = resize_logits(coarse, Sizes(image_size, size_hw, scale))
        best = logits.topk(min(2, logits.shape[1]), dim=1).values
        ties |= (best[:, 0] - best[:, -1]) <= ROUNDING * logits.abs().amax()
    if graph.has_centers:
        heat, offsets_yx, center_sizes = graph.compute_centers(features, Sizes(image_size, size_hw))
        heatmap, points_yx = resize_centers(heat, offsets_yx, center_sizes)
        distances, owners = _find_nearest_centers(points_yx, find_centers(heatmap, graph.model.fusion))
        ties |= (distances[:, 1] - distances[:, 0]) <= EQUAL_DISTANCES_PX
        # Of peaks that are equally high but for rounding, either may suppress the other, or be the last of the top k.
        noise = torch.from_numpy(np.random.default_rng(SEED).random(heatmap.shape, dtype=np.float32)).to(heatmap)
        for shift in (noise, -noise):
            shifted = heatmap + EQUAL_HEATS * heatmap.amax() * shift
            ties |= _find_nearest_centers(points_yx, find_centers(shifted, graph.model.fusion))[1] != owners
    elif INSTANCES in graph.tasks or PANOPTIC in graph.tasks:
        proposals = propose(graph.model.proposal_generator, features, image_size)
        detections = detect(graph.model.roi_heads, features, *proposals, image_size)
        boxes, _ = scale_boxes(detections.boxes_xyxy, image_size, size_hw)
        scores, before = detections.scores, torch.zeros_like(ties)
        for row, probs, mask, _ in paste_each(detections._replace(boxes_xyxy=boxes), size_hw):
            ties |= (probs - MASK_THRESHOLD).abs() <= ROUNDING
            if row:  # of equal scores either may be first in the fusion
                ties |= ((scores[:, row - 1] - scores[:, row]) <= EQUAL_SCORES)[:, None, None] & (mask | before)
            before = mask
    return ties.cpu().numpy()


def _find_nearest_centers(
    points_yx: tuple[torch.Tensor, torch.Tensor], centers: Centers
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each pixel the (B, 2, H, W) distances of the two nearest centers, and the (B, H, W) position of one."""
    count, height, width = len(centers.positions), *points_yx[0].shape[1:]
    nearest = torch.full((count, 2, height, width), torch.inf, device=centers.positions.device)
    rows = torch.zeros_like(nearest, dtype=torch.int64)
    done = 0
    for step in compute_distances(points_yx, centers):
        numbers = torch.arange(done, done + step.shape[1], device=rows.device)[:, None, None].expand_as(step)
        nearest, best = torch.cat([nearest, step], dim=1).topk(2, dim=1, largest=False)
        rows, done = torch.cat([rows, numbers], dim=1).gather(1, best), done + step.shape[1]
    first = rows[:, 0]
    return nearest, centers.positions.gather(1, first.flatten(1)).view_as(first)


def _compare_semantic(own: dict[str, Any], output: Any, ties: NDArray[np.bool_]) -> tuple[str, bool]:
    different = own["semantic_ids"] != output["sem_seg"].argmax(0).cpu().numpy()
    return _describe_pixels(different, ties)


def _compare_panoptic(own: dict[str, Any], output: Any, ties: NDArray[np.bool_]) -> tuple[str, bool]:
    ids, infos = output["panoptic_seg"]
    ids = ids.cpu().numpy()
    expected = {info["id"]: (info["isthing"], info["category_id"]) for info in infos}
    segments = read_segments(own["segments"].tolist(), int(own["errors"]))
    given = {segment.segment_id: (segment.isthing, segment.category_id) for segment in segments}
    # An id is that of the segment with which it shares most pixels: a segment more or less changes those after it.
    own_ids = own["segment_ids"]
    renamed = np.zeros(max(expected, default=0) + 1, dtype=np.int64)
    for segment_id in expected:
        inside = own_ids[ids == segment_id]
        renamed[segment_id] = np.bincount(inside).argmax() if inside.size else 0
    different = renamed[ids] != own_ids
    untied = np.unique(ids[(renamed[ids] > 0) & ~ties]).tolist()
    wrong = sum(given.get(int(renamed[segment_id])) != expected.get(segment_id) for segment_id in untied)
    text, passed = _describe_pixels(different, ties)
    return f"{len(given)} of {len(expected)} segments, {wrong} of another class; {text}", passed and not wrong


def _compare_instances(own: dict[str, Any], output: Any, ties: NDArray[np.bool_]) -> tuple[str, bool]:
    instances = output["instances"]
    fields = instances.pred_boxes.tensor, instances.scores, instances.pred_classes
    boxes, scores, classes = (field.detach().cpu().numpy() for field in fields)
    is_row = own["classes"] >= 0
    own_boxes, own_scores, own_classes = own["boxes"][is_row], own["scores"][is_row], own["classes"][is_row]
    free = np.ones(len(own_boxes), dtype=np.bool_)
    lost, box_px, score_difference = 0, 0.0, 0.0
    for box, score, class_id in zip(boxes, scores, classes, strict=True):
        distances = np.where(free & (own_classes == class_id), np.abs(own_boxes - box).max(1), np.inf)
        nearest = int(distances.argmin()) if len(distances) else -1
        if nearest < 0 or distances[nearest] > MAX_BOX_PX:
            lost += 1
            continue
        free[nearest] = False
        box_px = max(box_px, float(distances[nearest]))
        score_difference = max(score_difference, float(abs(own_scores[nearest] - score)))
    numbers = f"boxes differ by at most {box_px:.1g} px, scores by {score_difference:.1g}"
    text = f"{len(boxes) - lost} of {len(boxes)} instances, {int(free.sum())} more; {numbers}"
    return text, lost == 0 and not free.any() and score_difference <= MAX_SCORE


def _describe_pixels(different: NDArray[np.bool_], ties: NDArray[np.bool_]) -> tuple[str, bool]:
    count, unexplained = int(different.sum()), int((different & ~ties).sum())
    return f"{count} of {different.size} pixels differ, {unexplained} beyond rounding", unexplained == 0


COMPARISONS: dict[str, Callable[[dict[str, Any], Any, NDArray[np.bool_]], tuple[str, bool]]] = {
    SEMANTIC: _compare_semantic,
    INSTANCES: _compare_instances,
    PANOPTIC: _compare_panoptic,
}
