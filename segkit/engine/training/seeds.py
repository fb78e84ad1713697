"""Random numbers that depend on a seed and a place in the training alone: no generator's state has to be saved."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# The global generators are those that Detectron2's transforms and samplers use.
# The first number of a key: what the random numbers are for.
STEP, SAMPLE, ORDER, RETRY, RUN = range(5)


def seed_generators(seed: int, *key: int) -> None:
    """Seed Python's, numpy's and torch's global generators, those of CUDA devices too.

    Args:
        seed: of the run, not negative.
        *key: numbers that name the place, not negative.
    """
    words = _generate_words(seed, key)
    random.seed(words.tobytes())
    np.random.seed(words)  # noqa: NPY002
    torch.manual_seed(_as_integer(words))


@contextmanager
def seeded_generators(seed: int, *key: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's CPU generators for the block; afterwards they are as before.

    Args:
        seed: of the run, not negative.
        *key: numbers that name the place, not negative.

    Yields:
        Nothing.
    """
    words = _generate_words(seed, key)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(words.tobytes())
    np.random.seed(words)  # noqa: NPY002
    torch.default_generator.manual_seed(_as_integer(words))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def build_generator(seed: int, *key: int) -> np.random.Generator:
    """Build a generator of its own.

    Args:
        seed: of the run, not negative.
        *key: numbers that name the place, not negative.

    Returns:
        The generator.
    """
    return np.random.default_rng([seed, *key])


def _generate_words(seed: int, key: tuple[int, ...]) -> np.ndarray:
    return np.random.SeedSequence([seed, *key]).generate_state(4)


def _as_integer(words: np.ndarray) -> int:
    return int(words[0]) << 32 | int(words[1])
