"""The share of queries whose attention is masked, which falls to 0 in the course of the training (EoMT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segkit.utils.errors import ConfigError

# Shares of the training at which the first and the last block's probability begins to fall, and has fallen to 0.
STARTS, ENDS = (1 / 6, 2 / 3), (1 / 3, 5 / 6)
POWER = 0.9


@dataclass(frozen=True)
class MaskAnnealing:
    """Kerssies et al. 2025, "Your ViT is Secretly an Image Segmentation Model", section 3.3.

    Attributes:
        starts: of each block, share of the training, in [0, 1], up to which all queries are masked.
        ends: of each block, share of the training from which no query is masked.
        power: of the fall between the two: (1 - progress) ** power.
    """

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    power: float = POWER

    def compute_probabilities(self, progress: float) -> list[float]:
        """Compute the probability of each block that a query is masked.

        Args:
            progress: iteration / all iterations, in [0, 1].

        Returns:
            A number in [0, 1] for each block.
        """
        return [self._compute(progress, start, end) for start, end in zip(self.starts, self.ends, strict=True)]

    def _compute(self, progress: float, start: float, end: float) -> float:
        if progress < start:
            return 1.0
        if progress >= end:
            return 0.0
        return float((1 - (progress - start) / (end - start)) ** self.power)


def build_annealing(blocks: int, starts: Sequence[float] = (), ends: Sequence[float] = ()) -> MaskAnnealing:
    """Check and complete the schedule.

    Args:
        blocks: number of blocks with queries.
        starts: see `MaskAnnealing`; empty: spread evenly from 1/6 to 2/3, as the authors do.
        ends: see `MaskAnnealing`; empty: spread evenly from 1/3 to 5/6.

    Returns:
        The schedule.

    Raises:
        ConfigError: the lists have other lengths, or are not in order.
    """
    chosen = [[*given] or _spread(*default, blocks) for given, default in ((starts, STARTS), (ends, ENDS))]
    for key, values in zip(("ANNEALING_STARTS", "ANNEALING_ENDS"), chosen, strict=True):
        if len(values) != blocks:
            problem = f"expected {blocks} shares of the training, one for each block with queries, got {len(values)}"
            raise ConfigError(problem, where=f"MODEL.EOMT.{key}", remedy="give as many, or an empty list")
    if any(not 0 <= start <= end <= 1 for start, end in zip(*chosen, strict=True)):
        problem = f"expected 0 <= start <= end <= 1 for each block, got starts {chosen[0]} and ends {chosen[1]}"
        raise ConfigError(problem, where="MODEL.EOMT", remedy="give shares of the training, not iterations")
    return MaskAnnealing(tuple(chosen[0]), tuple(chosen[1]))


def _spread(first: float, last: float, blocks: int) -> list[float]:
    if blocks == 1:
        return [first]
    return [first + (last - first) * block / (blocks - 1) for block in range(blocks)]
