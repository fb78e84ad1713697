"""The dataset's categories as a part of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError


class CategoriesInCheckpoint:
    """The dataset's categories as a part of checkpoints, so that weights come with the names of their classes.

    Args:
        categories: categories of the dataset.
        thing_channels: meaning of the semantic head's channels, see CategorySet.build_semantic_space.
        plugins: names of the plugins that the run needs.
    """

    def __init__(self, categories: CategorySet, thing_channels: str, plugins: Sequence[str] = ()) -> None:
        self.categories = categories
        self.thing_channels = thing_channels
        self.plugins = [*plugins]

    def state_dict(self) -> dict[str, Any]:
        """The state to write."""
        state = {"categories": self.categories.to_coco(), "thing_channels": self.thing_channels}
        return {**state, "plugins": self.plugins}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare a saved state with the dataset; ConfigError if the categories differ."""
        saved = CategorySet.from_coco(state["categories"], "checkpoint")
        if saved != self.categories:
            problem = "the checkpoint to resume from was trained on other categories than the dataset has"
            raise ConfigError(problem, remedy="start without --resume, or use the dataset of the checkpoint")
