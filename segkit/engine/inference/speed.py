"""The speed of a model: images a second, the time of each stage, and the peak of the memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from segkit.engine.inference.model import SegmentationModel
from segkit.engine.inference.precision import find_parts
from segkit.runtime.folder import SAVED, FolderJob, choose_outputs
from segkit.utils import memory

STAGES = ("reading", "network", "fusion", "writing")
MIB = 2**20


@dataclass(frozen=True)
class Speed:
    """The speed of a model in one setting.

    Attributes:
        device: of the model.
        precision: as it was given.
        batch_size: images that the network takes at once.
        model_images_per_s: of network and fusion alone.
        predict_images_per_s: of `segkit predict`, from files to files: its stages overlap.
        stage_s: stage -> seconds for an image, if the stages run one after the other. The network ends with its last
            layer; what makes segments, masks and classes of its outputs is the fusion.
        peak_mib: peak of the memory in MiB, with the weights: on a GPU what torch has allocated there, otherwise the
            resident memory of the process (NaN elsewhere than on Linux).
    """

    device: str
    precision: str
    batch_size: int
    model_images_per_s: float
    predict_images_per_s: float
    stage_s: dict[str, float]
    peak_mib: float


def measure_speed(model: SegmentationModel, paths: Sequence[Path], folder: Path, *, batch_size: int = 1) -> Speed:
    """Predict images twice, stage by stage and as `segkit predict` does, after a batch that is not measured.

    Args:
        model: the model.
        paths: image files.
        folder: empty folder for results.
        batch_size: images that the network takes at once, as far as their sizes are equal.

    Returns:
        The speed, of all outputs: overlays, masks and JSON.

    Raises:
        DatasetError: an image cannot be read, or a result cannot be written.
        torch.cuda.OutOfMemoryError: the batch does not fit the memory of the GPU.
    """
    device = torch.device(model.cfg.MODEL.DEVICE)
    _run_stages(model, paths[:batch_size], folder / "first", batch_size)
    _reset_peak(device)
    seconds = _run_stages(model, paths, folder / "stages", batch_size)
    job = FolderJob(model.description, paths, folder / "overlapped", batch_size=batch_size)
    started = time.perf_counter()
    job.run(model)
    overlapped_s = time.perf_counter() - started
    count = len(paths)
    return Speed(
        str(device),
        model.precision,
        batch_size,
        count / (seconds["network"] + seconds["fusion"]),
        count / overlapped_s,
        {stage: seconds[stage] / count for stage in STAGES},
        _read_peak_mib(device),
    )


def _run_stages(model: SegmentationModel, paths: Sequence[Path], folder: Path, batch_size: int) -> dict[str, float]:
    """Seconds of each stage for all images."""
    seconds, outputs = dict.fromkeys(STAGES, 0.0), choose_outputs(model.outputs, SAVED)
    with _NetworkClock(model) as clock:
        for first in range(0, len(paths), batch_size):
            batch = paths[first : first + batch_size]
            times = [time.perf_counter()]
            pixels = [model.input.read(path) for path in batch]
            times.append(time.perf_counter())
            clock.start()
            predictions = model.predict_pixels(batch, pixels, outputs)
            network_s = clock.read_s()
            times.append(time.perf_counter())
            for number, prediction in enumerate(predictions, first):
                prediction.save(folder, str(number))
            times.append(time.perf_counter())
            reading_s, model_s, writing_s = (end - start for start, end in pairwise(times))
            for stage, part_s in zip(STAGES, (reading_s, network_s, model_s - network_s, writing_s), strict=True):
                seconds[stage] += part_s
    return seconds


class _NetworkClock:
    """Measures from the start of a pass to the end of the last layer of the network, within a block."""

    def __init__(self, model: SegmentationModel) -> None:
        self._network: torch.nn.Module = getattr(model.model, "module", model.model)
        self._is_on_gpu = torch.device(model.cfg.MODEL.DEVICE).type == "cuda"
        self._undo = ExitStack()
        self._start = self._end = self._record()

    def __enter__(self) -> _NetworkClock:
        for part, method in find_parts(self._network):
            compute = getattr(part, method)
            if method in vars(part):  # set_precision has put it there
                self._undo.callback(setattr, part, method, compute)
            else:
                self._undo.callback(delattr, part, method)
            setattr(part, method, self._followed(compute))
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def start(self) -> None:
        """Begin a pass."""
        self._start = self._end = self._record()

    def read_s(self) -> float:
        """Seconds of the network in the pass, whose results are complete."""
        if not self._is_on_gpu:
            return float(self._end - self._start)
        torch.cuda.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1000  # from ms

    def _record(self) -> Any:
        if not self._is_on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _followed(self, compute: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            result = compute(*args, **kwargs)
            self._end = self._record()
            return result

        return run


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        memory.reset_peak()


def _read_peak_mib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else memory.read_peak_mib()
