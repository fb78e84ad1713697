"""Compiled parts of a model: what ran compiled is counted, names and losses stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segkit.config import load_config
from segkit.engine.training.compiled import compile_parts
from segkit.utils.errors import ConfigError


class Model(torch.nn.Module):
    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


class Linear(torch.nn.Linear):
    """torch 2.4 compiles no module whose code is all its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


class Broken(torch.nn.Linear):
    """Its graph is broken once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        torch._dynamo.graph_break()
        return x * 2


def compile_model(model: torch.nn.Module, backend: str = "eager") -> Any:
    torch._dynamo.reset()
    options = ["MODEL.COMPILE.ENABLED", "True", "MODEL.COMPILE.BACKEND", backend]
    return compile_parts(load_config(opts=options), model)


def test_passes_graphs_and_runs_are_counted() -> None:
    model = Model(Linear(2, 2))
    names, expected = [*model.state_dict()], model.backbone(torch.ones(3, 2))
    (part,) = compile_model(model)
    for _ in range(2):
        assert torch.equal(model.backbone(torch.ones(3, 2)), expected)
    model.eval()
    model.backbone(torch.ones(5, 2))
    assert part.describe() == "backbone: 2 of 2 forward passes ran compiled, 1 graphs, 2 runs of graphs"
    assert [*model.state_dict()] == names


def test_a_broken_graph_runs_in_pieces() -> None:
    model = Model(Broken(2, 2))
    (part,) = compile_model(model)
    model.backbone(torch.ones(3, 2))
    assert (part.compiled_passes, part.graphs, part.runs) == (1, 2, 2)


def test_after_too_many_sizes_the_line_shows_that_nothing_is_compiled() -> None:
    model = Model(Linear(2, 2))
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"  # torch 2.4
    with torch._dynamo.config.patch({limit: 1, "automatic_dynamic_shapes": False}):
        (part,) = compile_model(model)
        for size in (3, 4, 5):
            model.backbone(torch.ones(size, 2))
    assert part.describe().startswith("backbone: 1 of 3 forward passes ran compiled, 1 graphs")


def test_what_cannot_be_compiled_runs_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_graph: Any, _inputs: Any) -> Any:
        raise ValueError("no compiler")

    model = Model(Linear(2, 2))
    (part,) = compile_model(model)
    part.backend = fail
    assert model.backbone(torch.ones(3, 2)).shape == (3, 2)
    assert "backbone cannot be compiled and runs as before: " in caplog.text
    assert "no compiler" in caplog.text
    assert (part.passes, part.compiled_passes) == (1, 0)


def test_an_unknown_backend_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"COMPILE\.BACKEND 'inducter' is unknown; did you mean 'inductor'\?"):
        compile_model(Model(Linear(2, 2)), "inducter")
