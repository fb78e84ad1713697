"""The table of segments that a fusion on tensors gives beside its map, and the errors that it reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from segkit.structures.id_runs import VOID
from segkit.structures.panoptic import Segment

COLUMNS = ("segment_id", "isthing", "category_id", "score", "instance_id", "area_px")

# Bits of what is wrong with the inputs of an image, and their messages.
NAN_INSTANCES, NAN_LOGITS, STUFF_RANGE, NEGATIVE_CLASS, NO_CHANNEL, NO_THINGS = (2**i for i in range(6))
INPUT_ERRORS = {
    NAN_INSTANCES: "boxes and scores must be finite, mask_probs in [0, 1], got others: did the training diverge?",
    NAN_LOGITS: "logits must be finite, got NaN or infinity: did the training diverge?",
    STUFF_RANGE: "stuff_map must be in 0..stuff_count, got an id outside",
    NEGATIVE_CLASS: "class_ids of instances must not be negative, got a negative id",
    NO_THINGS: "the semantic map has no channel of things, but there are instances",
    NO_CHANNEL: "the semantic map has no channel for the class of an instance, nor one for all things",
}


def read_segments(rows: Iterable[Sequence[float]], errors: int) -> tuple[Segment, ...]:
    """Read the table of an image.

    Args:
        rows: the values of `COLUMNS` each; segment_id is 0 in rows without a segment.
        errors: sum of the keys of `INPUT_ERRORS` that apply.

    Returns:
        The segments in the order of the rows, with contiguous category ids.

    Raises:
        ValueError: an error applies.
    """
    for bit, message in INPUT_ERRORS.items():
        if errors & bit:
            raise ValueError(message)
    segments = []
    for segment_id, isthing, category_id, score, instance_id, area_px in rows:
        row = None if instance_id < 0 else int(instance_id)
        if segment_id != VOID:
            segment = Segment(int(segment_id), int(category_id), bool(isthing), int(area_px))
            segments.append(replace(segment, score=score, instance_id=row) if isthing else segment)
    return tuple(segments)
