"""The model that is exported, from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segkit import __version__
from segkit.engine.export.graph import Graph
from segkit.engine.inference.loading import find_model
from segkit.engine.inference.model import SegmentationModel
from segkit.engine.setup import read_config
from segkit.structures.graph_outputs import FORMAT_VERSION

# The weights in their own layout on the CPU, where nothing is compiled.
PLAIN = ("MODEL.DEVICE", "cpu", "TEST.INFERENCE.COMPILE", "False", "TEST.INFERENCE.CHANNELS_LAST", "False")


def load_source(
    source: str | Path, config_file: str | Path | None = None, options: Sequence[str] = ()
) -> SegmentationModel:
    """Load a model as it can be exported.

    Args:
        source: weights, the folder of a run, or a config, see `segkit.load`.
        config_file: YAML file, or the name of a recipe; None: that beside the weights.
        options: KEY VALUE pairs of the config.

    Returns:
        The model, on the CPU.

    Raises:
        CheckpointError: there are no weights, or they do not belong to the model.
        ConfigError: there is no config, or it cannot be read.
    """
    weights, config = find_model(source, config_file)
    chosen = [*options, *PLAIN, *(["MODEL.WEIGHTS", weights] if weights else [])]
    return SegmentationModel(read_config(config, chosen, train=False))


def describe_source(source: Any) -> dict[str, Any]:
    """Collect what a program that runs a model must know of it: its input and its classes.

    Args:
        source: a loaded model: its `cfg` and `categories`.

    Returns:
        A JSON object.
    """
    cfg = source.cfg
    return {
        "segkit": __version__,
        "architecture": cfg.MODEL.META_ARCHITECTURE,
        "input": {
            "format": cfg.INPUT.FORMAT,
            "channels": len(cfg.MODEL.PIXEL_MEAN),
            "min_size": cfg.INPUT.MIN_SIZE_TEST,
            "max_size": cfg.INPUT.MAX_SIZE_TEST,
            "mean": [*cfg.MODEL.PIXEL_MEAN],
            "std": [*cfg.MODEL.PIXEL_STD],
        },
        "categories": source.categories.to_coco(),
        "thing_channels": cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS,
    }


def describe_graph(source: Any, graph: Graph) -> dict[str, Any]:
    """Collect what a program that runs an exported graph must know of it.

    Args:
        source: a loaded model, see `describe_source`.
        graph: of the model.

    Returns:
        A JSON object: that of `describe_source`, with the largest side of an image if there is one.
    """
    description = describe_source(source)
    if graph.square_size:
        description["input"]["largest"] = graph.square_size
    return {**description, "version": FORMAT_VERSION, "tasks": graph.tasks, "outputs": graph.output_names}
