"""Which architectures have a graph, of which family, and what it can give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from segkit.engine.export.box_graph import GIVEN, BoxGraph
from segkit.engine.export.center_graph import CenterGraph
from segkit.engine.export.graph import Graph
from segkit.engine.export.query_graph import QueryGraph
from segkit.modeling.meta_arch import EoMT, Mask2Former, PanopticDeepLab
from segkit.structures.graph_outputs import OUTPUTS
from segkit.utils.errors import ConfigError

FAMILIES: dict[type[nn.Module], type[Graph]] = {
    **dict.fromkeys(GIVEN, BoxGraph),
    PanopticDeepLab: CenterGraph,
    Mask2Former: QueryGraph,
    EoMT: QueryGraph,
}


def build_graph(source: Any, tasks: Sequence[str] | None) -> Graph:
    """Build the module that is exported.

    Args:
        source: see `segkit.engine.export.onnx_file.export_onnx`.
        tasks: see `segkit.engine.export.onnx_file.export_onnx`.

    Returns:
        The module, in evaluation mode.

    Raises:
        ConfigError: the model does not give a task, or a part of it cannot be exported.
    """
    chosen = choose_tasks(source.model, tasks)
    swap_channels = source.cfg.INPUT.FORMAT == "BGR"
    return FAMILIES[type(source.model)](source.model, chosen, swap_channels, len(source.space.names)).eval()


def choose_tasks(model: nn.Module, tasks: Sequence[str] | None) -> list[str]:
    """Choose what a graph gives, and check that the model's parts can be exported.

    Args:
        model: a model.
        tasks: keys of `OUTPUTS`; None: all that the model gives.

    Returns:
        The tasks in the order of `OUTPUTS`.

    Raises:
        ConfigError: the architecture does not give a task, or a part of it cannot be exported.
    """
    name, family = type(model).__name__, FAMILIES.get(type(model))
    if family is None:
        known = ", ".join(each.__name__ for each in FAMILIES)
        raise ConfigError(f"{name} cannot be exported as one graph", remedy=f"docs/export.md lists what can: {known}")
    given = family.list_tasks(model)
    chosen = [task for task in OUTPUTS if task in (given if tasks is None else tasks)]
    if missing := [task for task in chosen if task not in given]:
        raise ConfigError(f"{name} gives no {' and no '.join(missing)} output", remedy=f"choose {', '.join(given)}")
    if obstacle := family.find_obstacle(model, chosen):
        raise ConfigError(f"{obstacle} cannot be exported as one graph", remedy="docs/export.md lists what can")
    return chosen
