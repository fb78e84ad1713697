"""The outputs of a mask transformer for a batch of images of one size, with as many rows for each of them.

The rules are those of queries.py, and results equal its results up to rounding. But all queries are resized, a few at a
time, and those that take no part never own a pixel: so no shape depends on a value, which an exported graph needs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch

from segkit.fusion.mask_argmax import OWN_PROB, MaskArgmaxFusion
from segkit.modeling.postprocessing.detections import Detections, sort_stably
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors, count_labels
from segkit.modeling.postprocessing.query_masks import MIN_PX
from segkit.modeling.postprocessing.resampling import Sizes, resize_logits
from segkit.structures import NO_THING, THING_CHANNEL
from segkit.structures.graph_outputs import INSTANCES, PANOPTIC, SEMANTIC
from segkit.structures.segment_table import NAN_LOGITS

QUERIES_PER_STEP = 16  # resized at once, to the padded image and to the output, 4 bytes a pixel each


class QueryInstances(NamedTuple):
    """N rows for each of B images: instances by falling score, then rows without one.

    Attributes:
        boxes_xyxy: (B, N, 4) float32, pixels of the output, around the pixels of the mask.
        scores: (B, N) float32, 0 in rows without an instance; NaN if a logit of the image is not finite.
        class_ids: (B, N) int64, thing contiguous ids; -1 in rows without an instance.
        masks: (B, N, H, W) bool; any values in rows without an instance.
    """

    boxes_xyxy: torch.Tensor
    scores: torch.Tensor
    class_ids: torch.Tensor
    masks: torch.Tensor


class QueryResults(NamedTuple):
    """What was asked for.

    Attributes:
        semantic: (B, H, W) int64, the class with the highest score, 0..K-1.
        instances: the pairs of a query and a class.
        panoptic: the fused images.
    """

    semantic: torch.Tensor | None
    instances: QueryInstances | None
    panoptic: FusedTensors | None


def process_queries(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    sizes: Sizes,
    *,
    fusion: MaskArgmaxFusion,
    stuff_ids: Sequence[int],
    thing_ids: Sequence[int],
    most_instances: int,
    tasks: Collection[str],
) -> QueryResults:
    """Compute results of B images of one size.

    Args:
        class_logits: (B, Q, K + 1) float, the last channel is "no object".
        mask_logits: (B, Q, h, w) float, of the padded images.
        sizes: of the images.
        fusion: the thresholds of the panoptic map.
        stuff_ids: (K,) stuff contiguous id of each class, 0 for things.
        thing_ids: (K,) thing contiguous id of each class, -1 for stuff.
        most_instances: pairs of a query and a class that may become instances.
        tasks: "semantic", "instances", "panoptic".

    Returns:
        The results of the tasks, and None for the others.
    """
    device = class_logits.device
    stuff, things = (torch.tensor([*ids], device=device) for ids in (stuff_ids, thing_ids))
    ranked = _rank(class_logits.float(), mask_logits, stuff, things, fusion)
    semantic = _Semantic(ranked) if SEMANTIC in tasks else None
    instances = _Instances(ranked) if INSTANCES in tasks else None
    panoptic = _Panoptic(ranked) if PANOPTIC in tasks else None
    for start, logits in _resize(ranked.mask_logits, sizes):
        probs = logits.sigmoid()
        for part in (semantic, instances, panoptic):
            if part is not None:
                part.add(start, logits, probs)
    return QueryResults(
        semantic.finish() if semantic else None,
        instances.finish(things, most_instances) if instances else None,
        panoptic.finish(max(stuff_ids), fusion) if panoptic else None,
    )


class _Ranked(NamedTuple):
    """The queries of B images, those that take part in the fusion first: stuff, then things, each by falling score.

    Attributes:
        probs: (B, Q, K) float32, of the classes.
        mask_logits: (B, Q, h, w) float32.
        scores: (B, Q) float32, of the best class.
        stuff_ids: (B, Q) int64, 0 if the query is no stuff that takes part.
        thing_ids: (B, Q) int64, -1 if the query is no thing that takes part.
        rows: (B, Q) int64, the row of each thing among all things, in the order of the queries.
        nan: (B,) bool, whether a class logit is NaN or infinite.
    """

    probs: torch.Tensor
    mask_logits: torch.Tensor
    scores: torch.Tensor
    stuff_ids: torch.Tensor
    thing_ids: torch.Tensor
    rows: torch.Tensor
    nan: torch.Tensor

    @property
    def takes_part(self) -> torch.Tensor:
        return (self.stuff_ids != THING_CHANNEL) | (self.thing_ids != NO_THING)


def _rank(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    stuff: torch.Tensor,
    things: torch.Tensor,
    fusion: MaskArgmaxFusion,
) -> _Ranked:
    probs = class_logits.softmax(2)
    scores, classes = probs.max(2)
    no_object = class_logits.shape[2] - 1
    is_object = classes != no_object
    classes = classes.clamp(max=no_object - 1)
    is_above = is_object & (scores > fusion.object_mask_threshold)
    rows = (is_object & (things[classes] != NO_THING)).long().cumsum(1) - 1
    stuff_ids = torch.where(is_above, stuff[classes], THING_CHANNEL)
    thing_ids = torch.where(is_above, things[classes], NO_THING)
    # Above 2 for stuff, in 0..1 for things. Doubles: no two scores become equal.
    keys = torch.where(thing_ids != NO_THING, scores.double(), -1.0)
    keys = torch.where(stuff_ids != THING_CHANNEL, scores.double() + 2.0, keys)
    order = sort_stably(keys)
    scores, stuff_ids, thing_ids, rows = (each.gather(1, order) for each in (scores, stuff_ids, thing_ids, rows))
    nan = (~class_logits.isfinite()).flatten(1).any(1)
    masks = _select_rows(mask_logits.float(), order)
    return _Ranked(_select_rows(probs, order)[:, :, :-1], masks, scores, stuff_ids, thing_ids, rows, nan)


def _select_rows(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(B, N, ...): of (B, Q, ...) the rows (B, N), without an index for each number."""
    firsts = torch.arange(values.shape[0], device=rows.device)[:, None] * values.shape[1]
    return values.flatten(0, 1).index_select(0, (rows + firsts).flatten()).unflatten(0, rows.shape)


def _resize(mask_logits: torch.Tensor, sizes: Sizes) -> Iterator[tuple[int, torch.Tensor]]:
    """The first row of each step, and its logits, (B, step, H, W)."""
    for start in range(0, mask_logits.shape[1], QUERIES_PER_STEP):
        yield start, resize_logits(mask_logits[:, start : start + QUERIES_PER_STEP], sizes)


class _Semantic:
    """The sum of masks, weighted by their class probabilities; (B, K, H, W) of them are in memory."""

    def __init__(self, ranked: _Ranked) -> None:
        self.weights = ranked.probs.transpose(1, 2)
        self.scores = torch.zeros((), device=self.weights.device)

    def add(self, start: int, _: torch.Tensor, probs: torch.Tensor) -> None:
        weights = self.weights[:, :, start : start + probs.shape[1]]
        self.scores = self.scores + (weights @ probs.flatten(2)).unflatten(2, probs.shape[2:])

    def finish(self) -> torch.Tensor:
        return self.scores.max(1).indices


class _Panoptic:
    """The owner of each pixel so far."""

    def __init__(self, ranked: _Ranked) -> None:
        self.ranked, self.takes_part = ranked, ranked.takes_part
        self.own_px: list[torch.Tensor] = []
        device = ranked.scores.device
        self.values, self.owners, self.is_own = (torch.tensor(start, device=device) for start in (-torch.inf, 0, False))

    def add(self, start: int, _: torch.Tensor, probs: torch.Tensor) -> None:
        rows = slice(start, start + probs.shape[1])
        is_own = probs >= float(OWN_PROB)
        self.own_px.append(is_own.sum((2, 3), dtype=torch.int32))
        takes_part, scores = self.takes_part[:, rows, None, None], self.ranked.scores[:, rows, None, None]
        values, owners = torch.where(takes_part, probs * scores, -1.0).max(1)
        is_own = is_own.gather(1, owners[:, None])[:, 0]
        higher = values > self.values
        self.values = torch.where(higher, values, self.values)
        self.owners = torch.where(higher, owners + start, self.owners)
        self.is_own = (higher & is_own) | (~higher & self.is_own)  # ONNX runtimes have no Where of booleans

    def finish(self, stuff_count: int, fusion: MaskArgmaxFusion) -> FusedTensors:
        ranked, total = self.ranked, self.ranked.scores.shape[1]
        own_px, won_px = torch.cat(self.own_px, dim=1), count_labels(self.owners, total)
        dropped = (own_px > 0) & (won_px.double() / own_px.double() < fusion.overlap_threshold)
        is_thing = ranked.thing_ids != NO_THING
        numbers = torch.arange(total, device=own_px.device)
        stuff_rows = (ranked.stuff_ids != THING_CHANNEL).sum(1, keepdim=True)
        names = torch.where(is_thing, numbers - stuff_rows, total + ranked.stuff_ids)  # of `build_fused_tensors`
        names = torch.where(dropped | ~self.takes_part, total, names)
        owners = names.gather(1, self.owners.flatten(1)).reshape(self.owners.shape)
        owners = torch.where(self.is_own, owners, total).int()
        things_first = (numbers + stuff_rows) % total
        scores, class_ids, instance_ids, valid = (
            each.gather(1, things_first) for each in (ranked.scores, ranked.thing_ids, ranked.rows, is_thing)
        )
        boxes = scores[:, :, None].expand(-1, -1, 4)  # not read
        things = Detections(boxes, boxes, scores, class_ids, valid)
        is_nan = (~ranked.mask_logits.isfinite()).flatten(2).any(2) & self.takes_part
        errors = (ranked.nan | is_nan.any(1)) * NAN_LOGITS
        limit = max(fusion.stuff_area_limit_px, 1)
        return build_fused_tensors(things, instance_ids, owners, None, stuff_count, limit, errors)


class _Instances:
    """The masks of the queries, their boxes and mean probabilities."""

    def __init__(self, ranked: _Ranked) -> None:
        self.ranked = ranked
        self.masks: list[torch.Tensor] = []
        self.boxes: list[torch.Tensor] = []
        self.areas_px: list[torch.Tensor] = []
        self.qualities: list[torch.Tensor] = []

    def add(self, _: int, logits: torch.Tensor, probs: torch.Tensor) -> None:
        masks = logits > 0
        area_px = masks.sum((2, 3), dtype=torch.int32)
        self.masks.append(masks)
        self.areas_px.append(area_px)
        self.qualities.append((probs * masks).sum((2, 3)) / (area_px + MIN_PX))
        (left, right), (top, bottom) = (_find_ends(masks.any(dim)) for dim in (2, 3))
        self.boxes.append(torch.stack([left, top, right, bottom], dim=2))

    def finish(self, things: torch.Tensor, most: int) -> QueryInstances:
        probs = self.ranked.probs
        best, flat = probs.flatten(1).topk(min(most, probs.shape[1] * probs.shape[2]))
        queries = flat // probs.shape[2]
        class_ids = things[flat - queries * probs.shape[2]]
        fields = (self.boxes, self.qualities, self.areas_px)
        boxes, qualities, areas_px = (_select_rows(torch.cat(field, dim=1), queries) for field in fields)
        is_instance = (class_ids != NO_THING) & (areas_px > 0)
        scores = best * qualities
        order = sort_stably(torch.where(is_instance, scores, -1.0))
        queries, class_ids, scores, is_instance = (
            each.gather(1, order) for each in (queries, class_ids, scores, is_instance)
        )
        nan = (self.ranked.nan | (~self.ranked.mask_logits.isfinite()).flatten(1).any(1))[:, None]
        scores = torch.where(nan, torch.nan, torch.where(is_instance, scores, 0.0))
        class_ids = torch.where(nan, 0, torch.where(is_instance, class_ids, NO_THING))
        masks = _select_rows(torch.cat(self.masks, dim=1), queries)
        boxes = torch.where(is_instance[:, :, None], _select_rows(boxes, order), 0.0)
        return QueryInstances(boxes, scores, class_ids, masks)


def _find_ends(lines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N) float32: of (B, N, L) bool the first True, and the place after the last."""
    places = torch.arange(lines.shape[2], device=lines.device).float()
    return torch.where(lines, places, torch.inf).amin(2), torch.where(lines, places + 1, 0.0).amax(2)
