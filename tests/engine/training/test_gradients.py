"""Gradients of one step: cut into forward passes, and of processes whose images have no objects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from segkit.engine.training.flags import FlagExchange
from segkit.engine.training.parts import distribute
from segkit.engine.training.step import TrainingStep
from tests.helpers.small_models import SEMANTIC, small_config
from tests.helpers.two_processes import run_in_two

SIZE_PX = 64


def build(arch: str) -> tuple[Any, torch.nn.Module]:
    cfg = small_config(arch)
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    torch.manual_seed(0)
    return cfg, build_model(cfg).train()


def draw_sample(seed: int, objects: int = 0) -> dict[str, Any]:
    """An image whose pixels all have a class, and squares as objects."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 255, (3, SIZE_PX, SIZE_PX), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(objects, SIZE_PX, SIZE_PX, dtype=torch.bool)
    masks[:, 8:40, 8:40] = True
    boxes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]]).repeat(objects, 1))
    fields = {"gt_boxes": boxes, "gt_classes": torch.zeros(objects, dtype=torch.int64), "gt_masks": BitMasks(masks)}
    sem_seg = torch.randint(0, SEMANTIC, (SIZE_PX, SIZE_PX), generator=generator)
    size = {"height": SIZE_PX, "width": SIZE_PX}
    return {"image": image, "sem_seg": sem_seg, "instances": Instances((SIZE_PX, SIZE_PX), **fields), **size}


def test_the_gradients_of_forward_passes_are_those_of_the_large_batch() -> None:
    samples, gradients = [draw_sample(seed) for seed in range(4)], []
    for parts in ([samples], [samples[:2], samples[2:]], [[sample] for sample in samples]):
        cfg, model = build("SemanticSegmentor")
        model.double()  # the logits stay float32
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, fused=True)
        result = TrainingStep(cfg, model, optimizer, FlagExchange(torch.device("cpu")))(0, parts)
        assert not result.is_skipped
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    whole, *others = gradients
    for each in others:
        for name, gradient in whole.items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(each[name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=name)


def compute_gradients(rank: int, static_graph: bool) -> dict[str, torch.Tensor]:
    """Three steps, the first with objects in the images of process 0 alone, the last with objects in none."""
    _, model = build("PanopticRCNN")
    distributed = distribute(model, static_graph=static_graph)
    gradients = {}
    with EventStorage():
        for step, objects in enumerate([2 - 2 * rank, 2, 0]):
            model.zero_grad()
            torch.manual_seed(step)
            losses = distributed([draw_sample(10 * step + rank, objects)])
            torch.stack([*losses.values()]).sum().backward()
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    gradients[f"{step} {name}"] = parameter.grad.clone()
    return gradients


@pytest.mark.slow
def test_every_loss_touches_every_head_as_a_static_graph_needs() -> None:
    plain, static = (run_in_two(compute_gradients, static_graph) for static_graph in (False, True))
    assert any("mask_head" in name for name in plain[0])
    for rank in range(2):
        assert [name for name, value in plain[0].items() if not torch.equal(value, static[rank][name])] == []
    assert all(value.isfinite().all() for value in plain[0].values())
