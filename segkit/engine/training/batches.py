"""Which images each step of a training sees: a stream that depends on the seed, the data and the batch size alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.engine.training.seeds import ORDER, build_generator


class Draw(NamedTuple):
    """One image of the stream.

    Attributes:
        epoch: which pass over the images, from 0.
        image: its number.
        repetition: how often the image occurs before this draw in the epoch's list, which is then shuffled.
    """

    epoch: int
    image: int
    repetition: int


class BatchStream:
    """The endless stream of batches, the same for every number of processes and workers.

    Each epoch is a new order of all images. Images wait in a bucket for each group until the bucket holds a batch, so
    that a batch has images of one group; what an epoch leaves in the buckets begins the next epoch's batches. All
    processes take their share of the same batch: none waits for another one's larger images.

    Args:
        groups: (N,) integers, the group of each image; all equal: no grouping.
        batch_size: images of a step, over all processes.
        seed: of the run.
        shuffle: False: the images' own order.
        repeats: (N,) float, how often each image occurs in an epoch; a fraction is drawn at random in each epoch (Gupta
            et al. 2019, LVIS); None: once.

    Raises:
        ValueError: there is no image, or none is ever drawn.
    """

    def __init__(
        self,
        groups: NDArray[np.integer],
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        repeats: NDArray[np.floating] | None = None,
    ) -> None:
        if not len(groups) or (repeats is not None and not np.any(repeats > 0)):
            raise ValueError("expected images to draw from, got none")
        self.groups, self.batch_size, self.seed, self.shuffle, self.repeats = groups, batch_size, seed, shuffle, repeats

    def generate(self, first: int = 0) -> Iterator[list[Draw]]:
        """Generate the batches.

        Args:
            first: number of batches that are left out. They are generated too, which takes about a second per million
                images, since the buckets follow from them.

        Yields:
            `batch_size` draws.
        """
        buckets: dict[int, list[Draw]] = {}
        epoch, count = 0, 0
        while True:
            for draw, group in self._generate_epoch(epoch):
                bucket = buckets.setdefault(group, [])
                bucket.append(draw)
                if len(bucket) == self.batch_size:
                    if count >= first:
                        yield bucket.copy()
                    bucket.clear()
                    count += 1
            epoch += 1

    def _generate_epoch(self, epoch: int) -> Iterator[tuple[Draw, int]]:
        generator = build_generator(self.seed, ORDER, epoch)
        indices: NDArray[np.integer] = np.arange(len(self.groups))
        repetitions: NDArray[np.integer] = np.zeros_like(indices)
        if self.repeats is not None:
            whole = np.floor(self.repeats)
            counts = (whole + (generator.random(len(indices)) < self.repeats - whole)).astype(int)
            indices = np.repeat(indices, counts)
            repetitions = np.arange(len(indices)) - np.repeat(np.cumsum(counts) - counts, counts)
        if self.shuffle:
            order = generator.permutation(len(indices))
            indices, repetitions = indices[order], repetitions[order]
        groups = self.groups[indices].tolist()
        for index, repetition, group in zip(indices.tolist(), repetitions.tolist(), groups, strict=True):
            yield Draw(epoch, index, repetition), group
