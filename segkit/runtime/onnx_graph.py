"""A file of `segkit export onnx` in onnxruntime: tensors in, tensors out. Nothing here needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.structures import CategorySet, SemanticSpace
from segkit.structures.graph_outputs import FORMAT_VERSION, METADATA
from segkit.utils.errors import CheckpointError, ConfigError

INSTALL = "pip install 'segkit[onnx]'"
WARNING = 3  # of onnxruntime's log levels: errors only


class OnnxGraph:
    """An exported file, loaded.

    Args:
        path: the file.
        providers: execution providers of onnxruntime, the best first; None: the CPU.
        threads: of one image; 0: as many as onnxruntime chooses.

    Attributes:
        path: as it was given.
        metadata: what `describe_graph` of segkit/engine/export wrote.
        tasks: what the graph gives, keys of `segkit.structures.graph_outputs.OUTPUTS`.
        categories: the classes, with their ids in the dataset.
        space: the channels of the semantic head.

    Raises:
        CheckpointError: the file is missing, damaged, or not of `segkit export onnx`.
        ConfigError: onnxruntime is not installed, or has no such provider.
    """

    def __init__(self, path: str | Path, providers: list[str] | None = None, threads: int = 0) -> None:
        runtime = _import_runtime()
        if not Path(path).is_file():
            raise CheckpointError("no such file", where=path)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, WARNING
        if missing := {*(providers or ())} - {*runtime.get_available_providers()}:
            raise ConfigError(f"onnxruntime has no {', '.join(sorted(missing))}", remedy="install onnxruntime-gpu")
        try:
            self.session = runtime.InferenceSession(str(path), options, providers or ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has its own errors, without a common class
            cause = " ".join(str(error).split())[:160]
            raise CheckpointError(
                f"onnxruntime cannot load it ({cause})", where=path, remedy="export it again"
            ) from error
        self.path = path
        self.metadata = _read_metadata(self.session, path)
        self.tasks: list[str] = self.metadata["tasks"]
        self.categories = CategorySet.from_coco(self.metadata["categories"], path)
        self.space: SemanticSpace = self.categories.build_semantic_space(self.metadata["thing_channels"])
        self.output_names = [output.name for output in self.session.get_outputs()]

    def run(self, images: NDArray[np.uint8], size_hw: tuple[int, int]) -> dict[str, NDArray[Any]]:
        """Run the graph.

        Args:
            images: (B, C, h, w), resized, in RGB if there are three channels.
            size_hw: (height, width) of the results.

        Returns:
            The outputs by name, see `segkit.structures.graph_outputs.OUTPUTS`.

        Raises:
            ConfigError: the images are larger than the square to which the graph pads them.
        """
        height, width = images.shape[2:]
        largest = self.metadata["input"].get("largest", 0)
        if largest and max(height, width) > largest:
            problem = f"it takes images of at most {largest} x {largest} pixels, got {height} x {width}"
            raise ConfigError(problem, where=self.path, remedy="resize the images, or give a tile size")
        inputs = {"images": np.ascontiguousarray(images), "output_size": np.array(size_hw, dtype=np.int64)}
        return dict(zip(self.output_names, self.session.run(self.output_names, inputs), strict=True))


def _import_runtime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigError("needs the extra 'onnx' (onnxruntime is not installed)", remedy=INSTALL) from error
    return onnxruntime


def _read_metadata(session: Any, path: str | Path) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    try:
        metadata: dict[str, Any] = json.loads(text or "{}")
    except ValueError:
        metadata = {}
    version = metadata.get("version")
    if version != FORMAT_VERSION:
        problem = f"expected a file of `segkit export onnx`, version {FORMAT_VERSION}, got version {version}"
        raise CheckpointError(problem, where=path, remedy="export the model again")
    return metadata
