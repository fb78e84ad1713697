"""TEST.INFERENCE: the same outputs, and a model that is as before afterwards."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model

from segkit.engine.inference_options import faster_inference
from segkit.modeling import register_models
from tests.helpers.small_models import images, small_config


def build(**values: Any) -> tuple[Any, Any]:
    register_models()
    torch.manual_seed(0)
    cfg = small_config("PanopticRCNN", MODEL__RESNETS__NORM="BN", MODEL__RPN__POST_NMS_TOPK_TEST=10, **values)
    return cfg, build_model(cfg).train()


@pytest.mark.parametrize(
    "options",
    [{}, {"CHANNELS_LAST": False}, {"FOLD_BATCH_NORMS": False, "COMPILE": True}],
    ids=["defaults", "folded only", "compile"],
)
def test_the_outputs_are_the_same_and_so_is_the_model_afterwards(options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    values = {f"TEST__INFERENCE__{name}": value for name, value in options.items()}
    cfg, model = build(MODEL__COMPILE__BACKEND="eager", **values)
    parameters = [
        (name, parameter, parameter.clone(), parameter.stride()) for name, parameter in model.named_parameters()
    ]
    with torch.no_grad():
        expected = model.eval()(images(1))[0]["sem_seg"]
        with faster_inference(cfg, model.train()):
            assert not model.training
            got = model(images(1))[0]["sem_seg"]
            folded = not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
            assert folded == cfg.TEST.INFERENCE.FOLD_BATCH_NORMS
            weight = model.sem_seg_head.predictor.weight
            assert weight.is_contiguous(memory_format=torch.channels_last) or not cfg.TEST.INFERENCE.CHANNELS_LAST
            assert (model.backbone._compiled_call_impl is not None) == cfg.TEST.INFERENCE.COMPILE
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert model.training
    assert model.backbone._compiled_call_impl is None
    for (name, parameter, value, stride), (other_name, other) in zip(parameters, model.named_parameters(), strict=True):
        assert (name, stride) == (other_name, other.stride())
        assert parameter is other
        assert torch.equal(other, value)


def test_the_model_is_as_before_after_an_error() -> None:
    cfg, model = build()
    names = [*model.state_dict()]
    with suppress(KeyboardInterrupt), faster_inference(cfg, model):
        assert [*model.state_dict()] != names
        raise KeyboardInterrupt
    assert [*model.state_dict()] == names
