"""Label maps as images: instance maps and semantic maps beside the images, and Detectron2's semantic predictions."""

from segkit.formats.label_images.instance_reader import InstanceMapReader
from segkit.formats.label_images.instance_writer import InstanceMapWriter
from segkit.formats.label_images.semantic_dataset import SemanticMapReader, SemanticMapWriter
from segkit.formats.label_images.semantic_predictions import build_semantic_map, read_semantic_predictions

__all__ = [
    "InstanceMapReader",
    "InstanceMapWriter",
    "SemanticMapReader",
    "SemanticMapWriter",
    "build_semantic_map",
    "read_semantic_predictions",
]
