"""The results of exported graphs: their names, and what they hold."""

from __future__ import annotations

SEMANTIC, INSTANCES, PANOPTIC = "semantic", "instances", "panoptic"

# Task -> the outputs of a graph, in their order, of B images that give (H, W) results:
#   semantic_ids (B, H, W) int32: channel of the semantic head, or class of the queries;
#   boxes (B, N, 4) float32: left, top, right, bottom in pixels of the result, scores (B, N) float32, classes (B, N)
#     int32: contiguous id of the thing, -1 in rows without an instance, masks (B, N, m, m) float32: probabilities,
#     spread over the box; of queries, whose masks fill the image, `IMAGE_MASKS` (B, N, H, W) bool in their place;
#   segment_ids (B, H, W) int32: 0 = void, segments (B, M, 6) float64: `segkit.structures.segment_table.COLUMNS`,
#     errors (B,) int32: sum of the keys of `INPUT_ERRORS` there.
BOX_MASKS, IMAGE_MASKS = "masks", "image_masks"
OUTPUTS = {
    SEMANTIC: ("semantic_ids",),
    INSTANCES: ("boxes", "scores", "classes", BOX_MASKS),
    PANOPTIC: ("segment_ids", "segments", "errors"),
}
METADATA, FORMAT_VERSION = "segkit", 1  # key of a file's metadata, a JSON object; its version
