"""The outputs of a mask transformer as segments, instances and semantic scores.

The rules are those of `panoptic_inference`, `instance_inference` and `semantic_inference` in
mask2former/maskformer_model.py (Cheng et al. 2022). Values of a GPU are read back a fixed number of times, whatever the
number of queries, and no masks of all queries exist at the size of the output: see `ResizedMasks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from segkit.fusion.mask_argmax import OWN_PROB, MaskArgmaxFusion
from segkit.modeling.postprocessing.detections import Detections
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors, count_labels
from segkit.modeling.postprocessing.query_masks import QueryImage, cut_masks
from segkit.modeling.postprocessing.resized_masks import ResizedMasks
from segkit.modeling.transfers import copy_to_device
from segkit.structures import NO_THING, THING_CHANNEL, HeadOutputs, InstanceMasks, QueryLogits, SemanticScores
from segkit.structures.segment_table import INPUT_ERRORS, NAN_LOGITS


class QueryPostProcessor:
    """Turns the predictions of queries into the outputs of a model.

    Args:
        fusion: the thresholds of the panoptic map.
        stuff_ids: (K,) stuff contiguous id of each class, 0 for things.
        thing_ids: (K,) thing contiguous id of each class, -1 for stuff.
        most_instances: TEST.DETECTIONS_PER_IMAGE, pairs of a query and a class that become instances.
    """

    def __init__(
        self,
        fusion: MaskArgmaxFusion,
        stuff_ids: Sequence[int],
        thing_ids: Sequence[int],
        most_instances: int = 100,
    ) -> None:
        self.fusion, self.most_instances = fusion, most_instances
        self.stuff_ids, self.thing_ids = np.array(stuff_ids, dtype=np.int64), np.array(thing_ids, dtype=np.int64)

    def fuse(self, images: Sequence[QueryImage]) -> list[FusedTensors]:
        """Build panoptic maps by the rules of `MaskArgmaxFusion`, with masks that fill the image.

        Values are read back once for all images, to know which queries take part; `to_panoptic` reads the results.

        Args:
            images: with equal numbers of queries.

        Returns:
            The fused images. Ids are things by falling score, then stuff by rising id; instance ids count the things
            among the queries whose best class is not "no object".

        Raises:
            ValueError: a class logit is NaN. Mask logits that are not finite are reported by the tables.
        """
        candidates = self._rank([image.class_logits for image in images], self.fusion.object_mask_threshold)
        return [self._fuse_image(image, *of_image) for image, of_image in zip(images, candidates, strict=True)]

    def find_instances(self, image: QueryImage) -> InstanceMasks:
        """Find the pairs of a query and a class with the highest probabilities, and keep those of things.

        The mask of a pair is the pixels with a positive logit. Its score is the probability of the class times the
        mean probability of these pixels. Instances without a pixel are left out.

        Args:
            image: the predictions.

        Returns:
            The instances by falling score; boxes enclose the pixels.

        Raises:
            ValueError: a logit is NaN.
        """
        probs = image.class_logits.float().softmax(1)[:, :-1]
        best = probs.flatten().topk(min(self.most_instances, probs.numel()))
        scores, flat = torch.stack([best.values.double(), best.indices.double()]).cpu().numpy()
        queries, classes = np.divmod(flat.astype(np.int64), probs.shape[1])
        is_thing = self.thing_ids[classes] != NO_THING
        return cut_masks(image, queries[is_thing], self.thing_ids[classes[is_thing]], scores[is_thing], scored=True)

    def compute_semantic(self, *views: QueryImage) -> torch.Tensor:
        """Sum the masks of the queries, weighted by their class probabilities.

        Args:
            *views: the predictions, or those for several views of the image, with equal numbers of queries.

        Returns:
            (K, H, W) float32 scores, at least 0: the mean of the views.
        """
        image = views[0]
        scores = image.mask_logits.new_empty((image.class_logits.shape[1] - 1, *image.sizes.size_hw)).float()
        for rows, band in _compute_semantic_bands(views):
            scores[:, rows] = band
        return scores

    def argmax_semantic(self, *views: QueryImage) -> torch.Tensor:
        """Find the class with the highest score of `compute_semantic` at each pixel, without K x H x W of them.

        Args:
            *views: as for `compute_semantic`.

        Returns:
            (H, W) int64 classes, 0..K-1, the first of equal ones.
        """
        classes = torch.empty(views[0].sizes.size_hw, dtype=torch.int64, device=views[0].mask_logits.device)
        for rows, band in _compute_semantic_bands(views):
            classes[rows] = band.max(0).indices
        return classes

    def build_head_outputs(self, image: QueryImage, views: Sequence[QueryImage] = ()) -> HeadOutputs:
        """Build the input of the fusion methods: all queries whose best class is not "no object".

        Args:
            image: the predictions.
            views: from which the semantic classes are computed; none: from the image.

        Returns:
            Instances and stuff masks in the order of the queries, their logits, and the best semantic class of each
            pixel, on the CPU.

        Raises:
            ValueError: a logit is NaN.
        """
        ((stuff, things),) = self._rank([image.class_logits], -1.0)
        groups = [things.in_query_order(), stuff.in_query_order()]
        instances, stuff_masks = (
            cut_masks(image, group.queries, group.class_ids, group.scores, scored=False) for group in groups
        )
        queries = np.concatenate([group.queries for group in groups])
        logits = image.mask_logits.index_select(0, copy_to_device(queries, image.mask_logits.device))
        semantic = SemanticScores(self.argmax_semantic(*views or [image]).cpu().numpy(), self.stuff_ids, self.thing_ids)
        return HeadOutputs(
            instances,
            semantic,
            stuff_masks,
            queries=QueryLogits(logits.float().cpu().numpy(), image.sizes.image_size, image.sizes.scale),
        )

    def _rank(self, class_logits: Sequence[torch.Tensor], threshold: float) -> list[tuple[_Ranked, _Ranked]]:
        """The stuff and the things among the queries of each image with scores above a threshold, in one transfer."""
        no_object = class_logits[0].shape[1] - 1
        best = torch.stack([*class_logits]).float().softmax(2).max(2)
        ranked = []
        for scores, classes in torch.stack([best.values, best.indices.float()], dim=1).cpu().numpy():
            if np.isnan(scores).any():
                raise ValueError(INPUT_ERRORS[NAN_LOGITS])
            classes = classes.astype(np.int64)
            objects = np.flatnonzero(classes != no_object)
            stuff_ids, thing_ids = self.stuff_ids[classes[objects]], self.thing_ids[classes[objects]]
            kinds = []
            for ids, is_kind in ((stuff_ids, stuff_ids != THING_CHANNEL), (thing_ids, thing_ids != NO_THING)):
                queries = objects[is_kind]
                order = np.argsort(-scores[queries], kind="stable")
                order = order[scores[queries][order] > np.float32(threshold)]
                kinds.append(_Ranked(queries[order], scores[queries][order], ids[is_kind][order], order))
            ranked.append((kinds[0], kinds[1]))
        return ranked

    def _fuse_image(self, image: QueryImage, stuff: _Ranked, things: _Ranked) -> FusedTensors:
        device = image.mask_logits.device
        queries, scores = (
            np.concatenate(pair) for pair in ((stuff.queries, things.queries), (stuff.scores, things.scores))
        )
        total, stuff_count = len(things.queries), int(self.stuff_ids.max(initial=0))
        names = np.concatenate([total + stuff.class_ids, np.arange(total)])  # owners of `build_fused_tensors`
        packed = copy_to_device(np.stack([queries, names, np.append(things.rows, 0 * stuff.rows)]), device)
        logits = image.mask_logits.index_select(0, packed[0])
        weights = copy_to_device(scores, device)
        owners, is_own, own_px = _find_owners(ResizedMasks(logits, image.sizes), weights)
        won_px = count_labels(owners[None], max(len(queries), 1))[0, : len(queries)]
        dropped = (own_px > 0) & (won_px.double() / own_px.double() < self.fusion.overlap_threshold)
        named = packed[1].masked_fill(dropped, total)
        if len(queries):
            owners = named[owners]
        owners = owners.masked_fill(~is_own, total).int()
        ranked = Detections(
            logits.new_zeros((1, total, 0, 0)),
            logits.new_zeros((1, total, 4)),
            weights[None, len(stuff.queries) :],
            copy_to_device(things.class_ids, device)[None],
            torch.ones((1, total), dtype=torch.bool, device=device),
        )
        errors = (~logits.isfinite()).any()[None] * NAN_LOGITS
        limit = max(self.fusion.stuff_area_limit_px, 1)
        fused = build_fused_tensors(ranked, packed[2][None, :total], owners[None], None, stuff_count, limit, errors)
        return fused.unbatched()[0]


class _Ranked(NamedTuple):
    """Queries of one kind, things or stuff, by falling score.

    Attributes:
        queries: (n,) int64.
        scores: (n,) float32.
        class_ids: (n,) int64, contiguous ids of the kind.
        rows: (n,) int64, the row of each among all queries of the kind, in the order of the queries.
    """

    queries: NDArray[np.int64]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    rows: NDArray[np.int64]

    def in_query_order(self) -> _Ranked:
        order = np.argsort(self.rows)
        return _Ranked(self.queries[order], self.scores[order], self.class_ids[order], self.rows[order])


def _find_owners(masks: ResizedMasks, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The (H, W) row with the highest score times probability, whether its probability is at least 0.5, and own pixels.

    Without rows: zeros, False and no pixels.
    """
    device, own_px = scores.device, torch.zeros_like(scores, dtype=torch.int64)
    owners = torch.zeros(masks.size_hw, dtype=torch.int64, device=device)
    is_own = torch.zeros(masks.size_hw, dtype=torch.bool, device=device)
    for rows, logits in masks.bands() if len(scores) else ():
        probs = logits.sigmoid_()
        own = probs >= float(OWN_PROB)
        own_px += own.sum((1, 2))
        best = probs.mul_(scores[:, None, None]).max(0).indices
        owners[rows], is_own[rows] = best, own.gather(0, best[None])[0]
    return owners, is_own, own_px


def _compute_semantic_bands(views: Sequence[QueryImage]) -> Iterator[tuple[slice, torch.Tensor]]:
    """Rows of the output, and their (K, rows, W) semantic scores, the mean of the views."""
    weights = [view.class_logits.float().softmax(1)[:, :-1].T / len(views) for view in views]
    for bands in zip(*(ResizedMasks(view.mask_logits, view.sizes).bands() for view in views), strict=True):
        with torch.autocast(weights[0].device.type, enabled=False):  # which would round scores to half precision
            products = (w @ logits.sigmoid_().flatten(1) for w, (_, logits) in zip(weights, bands, strict=True))
            scores = reduce(torch.add, products)
        rows, logits = bands[0]
        yield rows, scores.unflatten(1, logits.shape[1:])
