"""The loader of a training: reads the images of `BatchStream` in worker processes and knows its place in the stream."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np
import torch
from detectron2.data.common import DatasetFromList
from torch.utils.data import DataLoader, Dataset

from segkit.engine.training.batches import BatchStream, Draw
from segkit.engine.training.packing import pack_sample, unpack_sample
from segkit.engine.training.prefetch import Prefetcher
from segkit.engine.training.seeds import RETRY, SAMPLE, build_generator, seeded_generators
from segkit.utils.errors import ConfigError, DatasetError, SegkitError, TrainingError
from segkit.utils.text import abbreviate

logger = logging.getLogger(__name__)

UNREADABLE = "unreadable"  # key of a sample: what was skipped before it
TRIES = 100  # of drawing another image in place of one that is skipped


class TrainingLoader:
    """This process's share of each step's images, mapped.

    Which images come, and their random augmentations, depend on the seed, the data and the batch size: not on the
    number of processes or workers, and not on what else draws random numbers.

    Args:
        records: the images; (N,) Detectron2 dataset dicts with `width` and `height`.
        mapper: record -> sample; None for a record that is skipped, for which another one is drawn.
        batch_size: images of a step, over all processes.
        seed: of the run.
        parts: into how many forward passes a step is cut.
        rank: of this process.
        world_size: number of processes.
        workers: number of worker processes; 0: this process reads.
        groups_by_shape: wide and high images are never in one batch.
        shuffle: False: the records' own order.
        repeats: see `BatchStream`.
        max_unreadable: above 0: a DatasetError of the mapper is recorded, and another image drawn; 0: it is raised.
        timeout_s: how long a worker may take for its images.
        to_device: with workers, a step ahead is read and given to this function by a thread; `next_step` calls what it
            returns, see `DeviceCopy`. None: samples stay in the host's memory.

    Attributes:
        batches: number of steps that `next_step` has given.
        unreadable: what was skipped since the start, a line each.

    Raises:
        ConfigError: the batch size cannot be divided by `world_size * parts`.
    """

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], dict[str, Any] | None],
        *,
        batch_size: int,
        seed: int,
        parts: int = 1,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        groups_by_shape: bool = True,
        shuffle: bool = True,
        repeats: np.ndarray | None = None,
        max_unreadable: int = 0,
        timeout_s: float = 0,
        to_device: Callable[[Any], Callable[[], Any]] | None = None,
    ) -> None:
        if batch_size % (world_size * parts):
            problem = f"SOLVER.IMS_PER_BATCH is {batch_size}, expected a multiple of {world_size * parts}"
            raise ConfigError(f"{problem}: {world_size} processes with {parts} forward passes in a step")
        self.parts, self.rank, self.world_size, self.workers, self.timeout_s = (
            parts,
            rank,
            world_size,
            workers,
            timeout_s,
        )
        wide = np.array([groups_by_shape and record["width"] > record["height"] for record in records], dtype=int)
        self.stream = BatchStream(wide, batch_size, seed=seed, shuffle=shuffle, repeats=repeats)
        self.fingerprint = compute_fingerprint(records)
        self.to_device = to_device if workers else None  # reading here sets the generators of the whole process
        mapper = _PackingMapper(mapper) if workers else mapper
        self.dataset = SeededDataset(records, mapper, seed=seed, skips_unreadable=max_unreadable > 0)
        self.max_unreadable = max_unreadable
        self.batches = 0
        self.unreadable: list[str] = []
        self._iterator: Iterator[Any] | None = None
        self._prefetcher: Prefetcher | None = None
        self._processes: list[multiprocessing.process.BaseProcess] = []

    def next_step(self) -> list[list[dict[str, Any]]]:
        """Read the images of the next step.

        Returns:
            `parts` lists of samples, one for each forward pass.

        Raises:
            SegkitError: of the mapper.
            TrainingError: a worker was killed, stopped or is too slow.
        """
        if self._iterator is None:
            self._start()
        try:
            receive, unreadable = self._prefetcher.next() if self._prefetcher else self._read_step()
            samples: list[list[dict[str, Any]]] = receive()
        except RuntimeError as error:
            if (problem := self.explain(error)) is None:
                raise
            raise problem from error
        self.batches += 1
        self.unreadable += unreadable
        return samples

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Read step by step, for Detectron2's hooks that take a loader, such as `PreciseBN`.

        Yields:
            The samples of a step.
        """
        while True:
            yield [sample for part in self.next_step() for sample in part]

    def close(self) -> None:
        """End the workers; those that do not end by themselves in seconds, being stopped for example, are killed."""
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None
        # torch would do it whenever the iterator is collected, and takes a worker that ends before for one that failed.
        getattr(self._iterator, "_shutdown_workers", lambda: None)()
        for process in self._processes:
            if process.is_alive():
                process.kill()
        self._iterator, self._processes = None, []

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream.

        Returns:
            Numbers and texts.
        """
        size = {"batch_size": self.stream.batch_size, "images": len(self.dataset)}
        return {"batches": self.batches, "seed": self.stream.seed, "fingerprint": self.fingerprint, **size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader was, with its seed. Other data or another batch size are noted in the log.

        Args:
            state: of `state_dict`; empty: the place is not known.
        """
        self.close()
        if not state:
            logger.warning("the checkpoint has no place in the images: they begin again")
            return
        self.stream.seed = self.dataset.seed = state["seed"]
        self.batches = state["batches"]
        if state["fingerprint"] != self.fingerprint:
            text = "the training images are not those of the checkpoint (%d, now %d): their order is another one"
            logger.warning(text, state["images"], len(self.dataset))
        if state["batch_size"] != self.stream.batch_size:
            self.batches = self.batches * state["batch_size"] // self.stream.batch_size
            text = "SOLVER.IMS_PER_BATCH was %d and is %d: the order of the images is another one"
            logger.warning(text, state["batch_size"], self.stream.batch_size)

    def _start(self) -> None:
        before = {process.pid for process in multiprocessing.active_children()}
        self._iterator = iter(
            DataLoader(
                self.dataset,
                batch_sampler=_RankBatches(self),
                num_workers=self.workers,
                collate_fn=_return_same,
                worker_init_fn=_start_worker,
                generator=torch.Generator(),  # otherwise the loader would draw from the global one
                timeout=self.timeout_s if self.workers else 0,
                pin_memory=False,
            )
        )
        self._processes = [process for process in multiprocessing.active_children() if process.pid not in before]
        if self.to_device is not None:  # after the workers: torch reports their end to the thread that starts them
            self._prefetcher = Prefetcher(self._read_step)

    def _read_step(self) -> tuple[Callable[[], list[list[dict[str, Any]]]], list[str]]:
        """What gives the samples of the next step, and what was skipped."""
        parts = [self._read_part() for _ in range(self.parts)]
        unreadable = [line for part in parts for sample in part for line in sample.pop(UNREADABLE, ())]
        receive = self.to_device(parts) if self.to_device else lambda: parts
        return lambda: [[unpack_sample(sample) for sample in part] for part in receive()], unreadable

    def _read_part(self) -> list[dict[str, Any]]:
        samples: list[dict[str, Any]] = next(cast("Iterator[Any]", self._iterator))
        for sample in samples:
            if isinstance(sample, SegkitError):
                raise sample
        return samples

    def explain(self, error: RuntimeError) -> TrainingError | None:
        """Explain an error of torch, which may raise in any line if a worker process has ended.

        Args:
            error: of torch.

        Returns:
            What has become of the workers; None if this is not an error of theirs.
        """
        ended = [f"{process.pid} (exit code {process.exitcode})" for process in self._processes if process.exitcode]
        if ended:
            remedy = "look for a lack of memory or of /dev/shm, or lower DATALOADER.NUM_WORKERS"
            return TrainingError(f"a loader's worker process has ended: {', '.join(ended)}", remedy=remedy)
        if "DataLoader timed out" in str(error):
            pids = [process.pid for process in self._processes]
            problem = f"the loader's worker processes {pids} have given no images for {self.timeout_s:g} s"
            remedy = "look at the disk, or whether one is stopped; DATALOADER.TIMEOUT_S allows more"
            return TrainingError(problem, remedy=remedy)
        return None


class SeededDataset(Dataset[Any]):
    """Maps records, each with random numbers of its own.

    Args:
        records: see `TrainingLoader`. They are serialised into one array, which worker processes share.
        mapper: see `TrainingLoader`.
        seed: of the run.
        skips_unreadable: replace images that cannot be read.
    """

    def __init__(
        self, records: Sequence[Any], mapper: Callable[[Any], Any], *, seed: int, skips_unreadable: bool
    ) -> None:
        self.records = DatasetFromList(list(records), copy=False)
        self.mapper, self.seed, self.skips_unreadable = mapper, seed, skips_unreadable

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> dict[str, Any] | SegkitError:
        """Map the record of a draw, or of another one drawn in its place.

        Args:
            draw: of the stream.

        Returns:
            The sample; the error, which is raised in the process that trains, if there is one.
        """
        image, unreadable = draw.image, []
        for attempt in range(TRIES):
            with seeded_generators(self.seed, SAMPLE, draw.epoch, image, draw.repetition):
                try:
                    sample = self.mapper(self.records[image])
                except DatasetError as error:
                    if not self.skips_unreadable:
                        return error
                    unreadable.append(str(error))
                    sample = None
                except SegkitError as error:
                    return error
            if sample is not None:
                return {**sample, UNREADABLE: unreadable} if unreadable else sample
            image = int(build_generator(self.seed, RETRY, *draw, attempt).integers(len(self.records)))
        return TrainingError(f"{TRIES} images in a row were skipped: {abbreviate(unreadable) or 'none has objects'}")


class _PackingMapper:
    def __init__(self, mapper: Callable[[Any], Any]) -> None:
        self.mapper = mapper

    def __call__(self, record: Any) -> Any:
        sample = self.mapper(record)
        return sample if sample is None else pack_sample(sample)


class _RankBatches:
    """The draws of one process: of each batch, and of each of its parts, an equal share."""

    def __init__(self, loader: TrainingLoader) -> None:
        self.stream, self.first = loader.stream, loader.batches
        self.rank, self.world_size, self.parts = loader.rank, loader.world_size, loader.parts

    def __iter__(self) -> Iterator[list[Draw]]:
        share = self.stream.batch_size // (self.world_size * self.parts)
        for batch in self.stream.generate(self.first):
            for part in range(self.parts):
                begin = (part * self.world_size + self.rank) * share
                yield batch[begin : begin + share]


def compute_fingerprint(records: Sequence[Mapping[str, Any]]) -> str:
    """Identify a list of images by their ids, sizes and file names; folders do not count.

    Args:
        records: Detectron2 dataset dicts.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for record in records:
        name = os.path.basename(str(record.get("file_name", "")))
        digest.update(repr((record.get("image_id"), name, record.get("height"), record.get("width"))).encode())
    return digest.hexdigest()[:16]


def count_usable_cpus() -> int:
    """Count the processors that this process may use.

    Returns:
        The smaller of its CPU affinity and of the quota of its control group (versions 1 and 2), at least 1.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [float("inf")]
    with suppress(OSError, ValueError):
        quota, period = _read("/sys/fs/cgroup/cpu.max").split()
        quotas.append(float(quota) / float(period))  # "max": no number
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        if float(quota) > 0:
            quotas.append(float(quota) / float(_read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")))
    return max(1, int(min(affinity, *quotas)))


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _return_same(samples: list[Any]) -> list[Any]:
    return samples


def _start_worker(_worker: int) -> None:
    """Let the process that trains decide: Slurm sends the signals of a pre-emption to every process of a job."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
