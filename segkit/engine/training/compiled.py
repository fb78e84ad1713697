"""torch.compile of parts of a model, and how many of their forward passes really ran compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch._dynamo import lookup_backend
from torch._dynamo.exc import TorchDynamoException

from segkit.engine.checkpoints.weight_files import shorten
from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

logger = logging.getLogger(__name__)

# Detectron2's names of modules whose forward pass is tensors only. ROI heads choose boxes, and break the graph.
PARTS = ("backbone", "sem_seg_head", "proposal_generator.rpn_head")


class CompiledPart:
    """Compiles a module in place, for training or for inference; the names of its weights stay.

    If it cannot be compiled, it runs as before, with a warning.

    Args:
        name: of the module.
        module: the module.
        backend: name of a backend of torch.compile.
        training: it runs compiled in training mode only; False: in evaluation mode only, by one graph for all sizes.

    Attributes:
        passes: forward passes in this mode.
        compiled_passes: those in which a compiled graph ran.
        graphs: graphs that were compiled, for new sizes too.
        runs: of compiled graphs; more than one in a pass: the graph was broken.
    """

    def __init__(self, name: str, module: torch.nn.Module, backend: str, training: bool = True) -> None:
        self.name, self.module, self.backend, self.training = name, module, lookup_backend(backend), training
        self.passes = self.compiled_passes = self.graphs = self.runs = 0
        self._plain: Callable[..., Any] = module._call_impl
        self._compiled: Callable[..., Any] | None = torch.compile(
            self._plain, backend=self._compile, dynamic=None if training else True
        )
        self._before = module._compiled_call_impl
        module._compiled_call_impl = self._call  # as nn.Module.compile does

    def remove(self) -> None:
        """Let the module run as before."""
        self.module._compiled_call_impl = self._before

    def describe(self) -> str:
        """Returns: a line for the log."""
        line = f"{self.name}: {self.compiled_passes} of {self.passes} forward passes ran compiled, {self.graphs} graphs"
        return f"{line}, {self.runs} runs of graphs"

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        in_mode = self.module.training == self.training
        if not in_mode or self._compiled is None:
            self.passes += in_mode
            return self._plain(*args, **kwargs)
        self.passes += 1
        runs = self.runs
        try:
            outputs = self._compiled(*args, **kwargs)
        except TorchDynamoException as error:
            logger.warning("%s cannot be compiled and runs as before: %s", self.name, shorten(error))
            self._compiled = None
            return self._plain(*args, **kwargs)
        self.compiled_passes += self.runs > runs
        return outputs

    def _compile(self, graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        run = self.backend(graph, [*inputs])

        def run_counted(*args: Any) -> Any:
            self.runs += 1
            return run(*args)

        return run_counted


class CompileReport(HookBase):
    """Logs, after the first period and at the end, whether the compiled parts ran compiled.

    Args:
        parts: of the model.
        period: in iterations.
    """

    def __init__(self, parts: Sequence[CompiledPart], period: int) -> None:
        self.parts, self.period = parts, period

    def after_step(self) -> None:
        """See base class."""
        if self.trainer.iter + 1 in (self.trainer.start_iter + self.period, self.trainer.max_iter):
            for part in self.parts:
                logger.info("MODEL.COMPILE: %s", part.describe())


def compile_parts(cfg: CfgNode, model: torch.nn.Module) -> list[CompiledPart]:
    """Compile the parts of a model that `PARTS` names, if MODEL.COMPILE.ENABLED.

    Args:
        cfg: config with segkit's keys.
        model: the model.

    Returns:
        The parts; empty if nothing is to be compiled.

    Raises:
        ConfigError: the backend is unknown.
    """
    return build_compiled_parts(cfg, model) if cfg.MODEL.COMPILE.ENABLED else []


def build_compiled_parts(cfg: CfgNode, model: torch.nn.Module, *, training: bool = True) -> list[CompiledPart]:
    """Compile the parts of a model that `PARTS` names.

    Args:
        cfg: config with segkit's keys, for MODEL.COMPILE.BACKEND.
        model: the model.
        training: see `CompiledPart`.

    Returns:
        The parts.

    Raises:
        ConfigError: the backend is unknown.
    """
    backends = torch._dynamo.list_backends(exclude_tags=())
    if cfg.MODEL.COMPILE.BACKEND not in backends:
        remedy = suggest(cfg.MODEL.COMPILE.BACKEND, backends, f"choose one of {', '.join(backends)}")
        raise ConfigError(f"MODEL.COMPILE.BACKEND {cfg.MODEL.COMPILE.BACKEND!r} is unknown", remedy=remedy)
    modules = dict(model.named_modules())
    if (
        cfg.MODEL.ACTIVATION_CHECKPOINTING and training
    ):  # torch cannot compile the context that keeps the running statistics
        logger.warning("MODEL.COMPILE leaves out the backbone, because of MODEL.ACTIVATION_CHECKPOINTING")
        modules.pop("backbone", None)
    found = [(name, modules[name]) for name in PARTS if name in modules]
    return [CompiledPart(name, module, cfg.MODEL.COMPILE.BACKEND, training) for name, module in found]
