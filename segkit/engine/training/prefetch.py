"""Reads a step ahead in a thread, and copies it to the GPU while the GPU computes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Full, Queue
from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, Instances

from segkit.data.map_masks import MapMasks
from segkit.engine.training.packing import PackedMasks

POLL_S = 0.1  # how often the thread looks whether it should end
JOIN_S = 5  # how long the thread may take for it


class Prefetcher:
    """Calls a function in a thread, one call ahead.

    Args:
        read: what to call; its exceptions are raised by `next`.
    """

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read
        self._results: Queue[tuple[Any, BaseException | None]] = Queue(maxsize=1)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="segkit-prefetch", daemon=True)
        self._thread.start()

    def next(self) -> Any:
        """Wait for the next result.

        Returns:
            It.

        Raises:
            BaseException: of the function.
        """
        result, error = self._results.get()
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the thread after its current call, for which it is given some seconds."""
        self._ends.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                result, error = self._read(), None
            except BaseException as raised:  # the process that trains raises it
                result, error = None, raised
            while not self._ends.is_set():
                try:
                    self._results.put((result, error), timeout=POLL_S)
                    break
                except Full:
                    continue
            if error is not None:
                return


class DeviceCopy:
    """Copies samples to a GPU from pinned memory, on a stream of its own.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, parts: Any) -> Callable[[], Any]:
        """Start the copy.

        Args:
            parts: lists of samples.

        Returns:
            Makes the current stream wait for the copy, and gives the parts on the GPU.
        """
        self._stream = self._stream or torch.cuda.Stream(self.device)
        tensors: list[torch.Tensor] = []

        def copy(tensor: torch.Tensor) -> torch.Tensor:
            tensors.append(tensor.pin_memory().to(self.device, non_blocking=True))
            return tensors[-1]

        with torch.cuda.stream(self._stream):
            copied = map_tensors(parts, copy)
            event = torch.cuda.Event()
            event.record()

        def receive() -> Any:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(event)
            # The memory is the copying stream's: it must not be used again before this stream is done with it.
            for tensor in tensors:
                tensor.record_stream(stream)
            return copied

        return receive


def map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Replace the tensors of samples, in Detectron2's structures too.

    Args:
        value: a tensor, a structure, or lists and dicts of them.
        function: tensor -> what takes its place.

    Returns:
        Copies of the containers; other values, such as polygons, as they are.
    """
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(each, function) for each in value)
    if isinstance(value, dict):
        return {key: map_tensors(each, function) for key, each in value.items()}
    if isinstance(value, Instances):
        fields = {name: map_tensors(field, function) for name, field in value.get_fields().items()}
        return Instances(value.image_size, **fields)
    if type(value) is MapMasks:
        return MapMasks(function(value.numbers), function(value.values), function(value.rows))
    if isinstance(value, PackedMasks):
        return PackedMasks(function(value.bits), value.size_hw)
    if type(value) in (Boxes, BitMasks):
        return type(value)(function(value.tensor))
    return value
