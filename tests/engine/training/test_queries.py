"""Mask transformers with the options of a training: parts of a batch, mixed precision, compiling, recomputing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage

from segkit.engine.training.compiled import compile_parts
from segkit.engine.training.flags import FlagExchange
from segkit.engine.training.model_options import prepare_model
from segkit.engine.training.step import TrainingStep
from tests.helpers.same_points import SamePoints
from tests.helpers.small_queries import ARCHITECTURES, build, build_config, draw_sample

CPU = torch.device("cpu")
COMPILED = {"Mask2Former": ["backbone", "sem_seg_head"], "EoMT": ["backbone"]}
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def run(model: Any, dtype: torch.dtype | None = None) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The losses and the gradients of a step."""
    torch.manual_seed(0)
    with EventStorage(0), torch.autocast("cpu", dtype, enabled=dtype is not None):
        losses = model.train()([draw_sample(64, 48), draw_sample(48, 64, seed=1)])
    torch.stack([*losses.values()]).sum().backward()
    return losses, {name: weight.grad for name, weight in model.named_parameters()}


@each_architecture
def test_the_gradients_of_parts_are_those_of_the_batch_if_each_part_has_as_many_objects(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image has a thing and a class of stuff; the points are the same for all images and objects."""
    samples, gradients = [draw_sample(seed=seed) for seed in range(4)], []
    for parts in ([samples], [samples[:2], samples[2:]]):
        cfg, model = build_config(architecture), build(architecture, "MODEL.SWIN.DROP_PATH", 0.0).train()
        monkeypatch.setattr(torch, "rand", lambda n, *shape, device: SamePoints()(1, *shape).repeat(n, 1, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, fused=True)
        with EventStorage(0):
            assert not TrainingStep(cfg, model, optimizer, FlagExchange(CPU))(0, parts).is_skipped
        monkeypatch.undo()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in gradients[0].items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-4 * scale + 1e-6, msg=name)


@each_architecture
def test_losses_of_mixed_precision_are_near_those_of_float32(architecture: str) -> None:
    """bfloat16 has 8 bits; the losses are computed in float32."""
    (expected, _), (losses, gradients) = run(build(architecture)), run(build(architecture), torch.bfloat16)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=0.03, atol=0.03, msg=name)


@each_architecture
def test_recomputed_blocks_have_the_same_losses_and_gradients(architecture: str) -> None:
    model = build(architecture)
    prepare_model(build_config(architecture, "MODEL.ACTIVATION_CHECKPOINTING", True), model)
    (expected, gradients), (losses, recomputed) = run(build(architecture)), run(model)
    assert [name for name, loss in expected.items() if not torch.equal(loss, losses[name])] == []
    assert [name for name, value in gradients.items() if not torch.equal(value, recomputed[name])] == []


@pytest.mark.parametrize("architecture", [pytest.param("Mask2Former", marks=pytest.mark.slow), "EoMT"])
def test_compiled_parts_have_the_same_losses_and_gradients(architecture: str) -> None:
    torch._dynamo.reset()
    model = build(architecture)
    options = ["MODEL.COMPILE.ENABLED", True, "MODEL.COMPILE.BACKEND", "eager"]
    parts = compile_parts(build_config(architecture, *options), model)
    (expected, gradients), (losses, compiled) = run(build(architecture)), run(model)
    assert [part.name for part in parts] == COMPILED[architecture]
    for part in parts:
        assert (part.passes, part.compiled_passes) == (1, 1), part.describe()
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
