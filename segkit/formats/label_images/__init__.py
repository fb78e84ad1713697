"""Label maps as images: instance maps and semantic maps beside the images, and Detectron2's semantic predictions."""

from segkit.formats.label_images.instance_maps import InstanceMapReader, InstanceMapWriter
from segkit.formats.label_images.semantic_maps import SemanticMapReader, SemanticMapWriter
from segkit.formats.label_images.semantic_predictions import merge_class_masks, read_semantic_predictions

__all__ = [
    "InstanceMapReader",
    "InstanceMapWriter",
    "SemanticMapReader",
    "SemanticMapWriter",
    "merge_class_masks",
    "read_semantic_predictions",
]
