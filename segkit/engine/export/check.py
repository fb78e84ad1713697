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

from segkit.engine.export.graph import Graph
from segkit.engine.export.ties import SEED, find_ties
from segkit.runtime.resizing import resize_short_side
from segkit.structures.graph_outputs import IMAGE_MASKS, INSTANCES, PANOPTIC, SEMANTIC
from segkit.structures.segment_table import read_segments
from segkit.utils.errors import ConfigError

MAX_BOX_PX, MAX_SCORE = 0.1, 1e-3  # largest difference of equal boxes and scores
MOVES, MOVED = 8, 1e-3  # attempts, and the largest change of a pixel of 0..255
GENERATED = (((160, 224), (160, 224), 1), ((139, 203), (180, 260), 3))  # sizes of images and results, and the batch

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
        read_batches(source, images, fixed_size) if images else _generate_batches(graph, fixed_size)
    ):
        started = time.perf_counter()
        results = run(batch, size_hw)
        ran = time.perf_counter()
        expected = _run_model(graph, batch, size_hw)
        seconds = (
            f"{(ran - started) / len(batch):.2f} s exported, {(time.perf_counter() - ran) / len(batch):.2f} s torch"
        )
        ties = find_ties(graph, batch, size_hw)
        for row, (output, tied) in enumerate(zip(expected, ties, strict=True)):
            own = {name: values[row] for name, values in results.items()}
            lines, passed = _compare(graph, own, output, tied)
            if not passed and graph.masks_attention:
                lines, passed = _compare_moved(graph, own, batch[row], size_hw) or (lines, passed)
            name = f"{title}, {row + 1} of {len(batch)}" if len(batch) > 1 else title
            yield Check(f"{name} ({size_hw[0]} x {size_hw[1]}, {seconds})", tuple(lines), passed)


def _compare(graph: Graph, own: dict[str, Any], output: Any, ties: NDArray[np.bool_]) -> tuple[list[str], bool]:
    """A line for each task, and whether all are equal."""
    compared = {task: COMPARISONS[task](own, output, ties) for task in graph.tasks}
    return [f"{task}: {line}" for task, (line, _) in compared.items()], all(equal for _, equal in compared.values())


def _compare_moved(
    graph: Graph, own: dict[str, Any], image: NDArray[np.uint8], size_hw: tuple[int, int]
) -> tuple[list[str], bool] | None:
    """Compare with the model on images that are moved by less than is seen, until one is equal.

    If the logit of a mask of the attention is 0 but for rounding, the model has two results, far from each other.
    """
    for seed in range(MOVES):
        noise = np.random.default_rng(seed).uniform(-MOVED, MOVED, image.shape).astype(np.float32)
        moved = (image + noise)[None]
        (output,), (ties,) = _run_model(graph, moved, size_hw), find_ties(graph, moved, size_hw)
        lines, passed = _compare(graph, own, output, ties)
        if passed:
            note = f"rounding decides a mask of the attention: this is the model's result if the image moves by {MOVED}"
            return [*lines, note], True
    return None


def _generate_batches(
    graph: Graph, fixed_size: tuple[int, int] | None
) -> Iterator[tuple[str, NDArray[np.uint8], tuple[int, int]]]:
    random = np.random.default_rng(SEED)
    channels = graph.model.pixel_mean.shape[0]
    for free_size, size_hw, count in GENERATED:
        most = graph.square_size or max(free_size)
        height, width = fixed_size or (min(free_size[0], most), min(free_size[1], most))
        coarse = torch.from_numpy(random.random((count, channels, 5, 7), dtype=np.float32))
        blobs = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").numpy()
        noise = random.random(blobs.shape, dtype=np.float32)
        yield "generated", ((0.8 * blobs + 0.2 * noise) * 255).astype(np.uint8), size_hw


def read_batches(
    source: Any, images: Sequence[str | Path], fixed_size: tuple[int, int] | None
) -> Iterator[tuple[str, NDArray[np.uint8], tuple[int, int]]]:
    """Read images as an exported file takes them.

    Args:
        source: see `check_graph`.
        images: see `check_graph`.
        fixed_size: see `check_graph`.

    Yields:
        The name, a batch of one image (1, C, h, w) uint8, and its (height, width) before the resizing.

    Raises:
        DatasetError: an image cannot be read.
        ConfigError: the file takes no images of its size.
    """
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
def _run_model(graph: Graph, batch: NDArray[Any], size_hw: tuple[int, int]) -> list[Any]:
    """What the model itself gives, each image by itself."""
    tensors = torch.from_numpy(batch.copy()).flip(1) if graph.swap_channels else torch.from_numpy(batch.copy())
    return [graph.model([{"image": each, "height": size_hw[0], "width": size_hw[1]}])[0] for each in tensors]


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
    if IMAGE_MASKS in own:
        return _compare_image_masks(own, instances, ties)
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


def _compare_image_masks(own: dict[str, Any], instances: Any, ties: NDArray[np.bool_]) -> tuple[str, bool]:
    """An instance is equal to one of its class and score whose mask differs in tied pixels only."""
    fields = instances.pred_masks, instances.scores, instances.pred_classes
    masks, scores, classes = (field.detach().cpu().numpy() for field in fields)
    free = np.flatnonzero(own["classes"] >= 0).tolist()
    lost, differ_px = 0, 0
    for mask, score, class_id in zip(masks, scores, classes, strict=True):
        alike = [
            row for row in free if own["classes"][row] == class_id and abs(own["scores"][row] - score) <= MAX_SCORE
        ]
        differences = {row: mask ^ own[IMAGE_MASKS][row] for row in alike}
        nearest = min(alike, key=lambda row: int(differences[row].sum()), default=None)
        if nearest is None or (differences[nearest] & ~ties).any():
            lost += bool((mask & ~ties).any())
            continue
        free.remove(nearest)
        differ_px += int(differences[nearest].sum())
    more = sum(bool((own[IMAGE_MASKS][row] & ~ties).any()) for row in free)
    text = f"{len(masks) - lost} of {len(masks)} instances, {more} more; {differ_px} pixels of them differ by rounding"
    return text, lost == 0 and more == 0


def _describe_pixels(different: NDArray[np.bool_], ties: NDArray[np.bool_]) -> tuple[str, bool]:
    count, unexplained = int(different.sum()), int((different & ~ties).sum())
    return f"{count} of {different.size} pixels differ, {unexplained} beyond rounding", unexplained == 0


COMPARISONS: dict[str, Callable[[dict[str, Any], Any, NDArray[np.bool_]], tuple[str, bool]]] = {
    SEMANTIC: _compare_semantic,
    INSTANCES: _compare_instances,
    PANOPTIC: _compare_panoptic,
}
