"""Pixels of results that rounding decides, so that two runtimes may differ there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segkit.engine.export.box_graph import BoxGraph
from segkit.engine.export.center_graph import CenterGraph
from segkit.engine.export.detections import detect, propose
from segkit.engine.export.graph import Graph
from segkit.engine.export.query_graph import QueryGraph
from segkit.fusion.mask_argmax import OWN_PROB
from segkit.fusion.paste import MASK_THRESHOLD
from segkit.modeling.postprocessing.detections import scale_boxes
from segkit.modeling.postprocessing.majority_vote import Centers, compute_distances, find_centers, resize_centers
from segkit.modeling.postprocessing.paste import paste_each
from segkit.modeling.postprocessing.resampling import Sizes, resize_logits
from segkit.modeling.semantic_heads.build import compute_coarse_logits
from segkit.structures.graph_outputs import INSTANCES, PANOPTIC, SEMANTIC

ROUNDING = 1e-3  # of probabilities, and of logits as a share of the largest: more than two runtimes differ by
EQUAL_SCORES = 1e-5
EQUAL_HEATS = 1e-4  # as a share of the largest
EQUAL_DISTANCES_PX = 0.01  # from two centers
SEED = 0


@torch.no_grad()
def find_ties(graph: Graph, batch: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Find pixels of equal logits, instances, centers or queries, or on the edge of a mask.

    Args:
        graph: of the model.
        batch: (B, C, h, w) uint8 or float32 images as the graph takes them.
        size_hw: (H, W) of the results.

    Returns:
        (B, H, W).
    """
    images = torch.from_numpy(batch.copy()).to(graph.model.pixel_mean.device)
    sizes = Sizes((images.shape[2], images.shape[3]), size_hw)
    return FINDERS[type(graph)](graph, graph.preprocess(images), sizes).cpu().numpy()


def _find_box_ties(graph: BoxGraph, pixels: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    features = graph.model.backbone(pixels)
    ties = torch.zeros((len(pixels), *sizes.size_hw), dtype=torch.bool, device=pixels.device)
    if hasattr(graph.model, "sem_seg_head"):
        ties |= _find_equal_logits(*compute_coarse_logits(graph.model.sem_seg_head, features), sizes)
    if INSTANCES not in graph.tasks and PANOPTIC not in graph.tasks:
        return ties
    proposals = propose(graph.model.proposal_generator, features, sizes.image_size)
    detections = detect(graph.model.roi_heads, features, *proposals, sizes.image_size)
    boxes, _ = scale_boxes(detections.boxes_xyxy, *sizes[:2])
    scores, before = detections.scores, torch.zeros_like(ties)
    for row, probs, mask, _ in paste_each(detections._replace(boxes_xyxy=boxes), sizes.size_hw):
        ties |= (probs - MASK_THRESHOLD).abs() <= ROUNDING
        if row:  # of equal scores either may be first in the fusion
            ties |= ((scores[:, row - 1] - scores[:, row]) <= EQUAL_SCORES)[:, None, None] & (mask | before)
        before = mask
    return ties


def _find_center_ties(graph: CenterGraph, pixels: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    features, fusion = graph.model.backbone(pixels), graph.model.fusion
    ties = _find_equal_logits(*graph.compute_logits(features), sizes)
    heat, offsets_yx, center_sizes = graph.compute_centers(features, sizes)
    heatmap, points_yx = resize_centers(heat, offsets_yx, center_sizes)
    distances, owners = _find_nearest_centers(points_yx, find_centers(heatmap, fusion))
    ties |= (distances[:, 1] - distances[:, 0]) <= EQUAL_DISTANCES_PX
    # Of peaks that are equally high but for rounding, either may suppress the other, or be the last of the top k.
    noise = torch.from_numpy(np.random.default_rng(SEED).random(heatmap.shape, dtype=np.float32)).to(heatmap)
    for shift in (noise, -noise):
        shifted = heatmap + EQUAL_HEATS * heatmap.amax() * shift
        ties |= _find_nearest_centers(points_yx, find_centers(shifted, fusion))[1] != owners
    return ties


def _find_query_ties(graph: QueryGraph, pixels: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    outputs = graph.model.predict(pixels)[-1]
    sizes = sizes._replace(scale=pixels.shape[2] // outputs.mask_logits.shape[2])
    images = zip(outputs.class_logits.softmax(2), outputs.mask_logits, strict=True)
    return torch.stack([_find_ties_of_image(graph, *image, sizes) for image in images])


def _find_ties_of_image(
    graph: QueryGraph, class_probs: torch.Tensor, mask_logits: torch.Tensor, sizes: Sizes
) -> torch.Tensor:
    """(H, W): on the edge of a mask, of two best queries or classes, or of a query that rounding keeps or drops."""
    probs = resize_logits(mask_logits[None], sizes)[0].sigmoid()
    on_edge = (probs - float(OWN_PROB)).abs() <= ROUNDING
    ties = on_edge.any(0)
    if SEMANTIC in graph.tasks:
        best = torch.einsum("qk,qhw->khw", class_probs[:, :-1], probs).topk(min(2, class_probs.shape[1] - 1), dim=0)
        ties |= best.values[0] - best.values[-1] <= ROUNDING
    if PANOPTIC not in graph.tasks:
        return ties
    fusion = graph.model.fusion
    scores, classes = class_probs.max(1)
    is_object = classes != class_probs.shape[1] - 1
    is_near = is_object & ((scores - fusion.object_mask_threshold).abs() <= EQUAL_SCORES)
    rivals = class_probs.topk(2, dim=1).values
    is_near |= rivals[:, 0] - rivals[:, 1] <= EQUAL_SCORES
    takes_part = (is_object & (scores > fusion.object_mask_threshold)) | is_near
    values = torch.where(takes_part[:, None, None], probs * scores[:, None, None], -1.0)
    best = values.topk(min(2, len(values)), dim=0)
    is_level = (best.values[0] - best.values[-1] <= ROUNDING) & (best.values[0] > 0)
    ties |= is_level
    owners = best.indices[0]
    for query in takes_part.nonzero()[:, 0].tolist():
        own_px, edge_px = int((probs[query] >= float(OWN_PROB)).sum()), int(on_edge[query].sum())
        won_px = int((owners == query).sum())
        level_px = int((is_level & (best.indices == query).any(0)).sum())
        least, most = (won_px - level_px) / max(own_px + edge_px, 1), (won_px + level_px) / max(own_px - edge_px, 1)
        if is_near[query] or least < fusion.overlap_threshold <= most:
            ties |= owners == query
    return ties


def _find_equal_logits(coarse: torch.Tensor, scale: int, sizes: Sizes) -> torch.Tensor:
    """(B, H, W): pixels whose two best logits are equal."""
    logits = resize_logits(coarse, sizes._replace(scale=scale))
    best = logits.topk(min(2, logits.shape[1]), dim=1).values
    return (best[:, 0] - best[:, -1]) <= ROUNDING * logits.abs().amax()


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


FINDERS: dict[type[Graph], Callable[..., torch.Tensor]] = {
    BoxGraph: _find_box_ties,
    CenterGraph: _find_center_ties,
    QueryGraph: _find_query_ties,
}
