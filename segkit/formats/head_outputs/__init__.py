"""Saved head outputs: what the heads of a network gave for each image, to be fused without the network."""

from segkit.formats.head_outputs.folder import (
    INDEX,
    SavedHeadOutputs,
    SavedImage,
    check_ids,
    load,
    round_head_outputs,
    write_image,
    write_index,
)

__all__ = [
    "INDEX",
    "SavedHeadOutputs",
    "SavedImage",
    "check_ids",
    "load",
    "round_head_outputs",
    "write_image",
    "write_index",
]
