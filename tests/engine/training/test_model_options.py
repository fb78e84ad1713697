"""Options that change how a model computes, but not its losses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.modeling import build_backbone

from segkit.config import load_config
from segkit.engine.training.model_options import prepare_model, set_deterministic
from segkit.utils.errors import ConfigError

RESNET = """MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.RESNETS.NORM BN
    MODEL.BACKBONE.FREEZE_AT 0 MODEL.RESNETS.OUT_FEATURES ['res2','res5']"""


def build(options: str = "") -> torch.nn.Module:
    cfg = load_config(opts=[*RESNET.split(), *options.split()])
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.backbone = build_backbone(cfg)
    prepare_model(cfg, model)
    return model


TIMM = "MODEL.BACKBONE.NAME build_timm_backbone MODEL.TIMM.NAME"


def run(model: torch.nn.Module) -> tuple[torch.Tensor, dict[str, Any]]:
    """The loss of a step; its gradients and the buffers afterwards."""
    torch.manual_seed(1)
    features = model.backbone(torch.randn(2, 3, 64, 64))
    loss = torch.stack([f.square().mean() for f in features.values()]).sum()
    loss.backward()
    return loss, {**{n: p.grad for n, p in model.named_parameters()}, **dict(model.named_buffers())}


def test_recomputed_stages_have_the_same_losses_gradients_and_statistics() -> None:
    (loss, values), (again, recomputed) = run(build()), run(build("MODEL.ACTIVATION_CHECKPOINTING True"))
    assert torch.equal(loss, again)
    assert [name for name, value in values.items() if not torch.equal(value, recomputed[name])] == []
    assert recomputed["backbone.res2.0.conv1.norm.num_batches_tracked"] == 1


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_resnet"])
def test_timms_networks_are_recomputed_too(name: str) -> None:
    option = "MODEL.ACTIVATION_CHECKPOINTING True"
    (loss, values), (again, recomputed) = run(build(f"{TIMM} {name}")), run(build(f"{TIMM} {name} {option}"))
    assert torch.equal(loss, again)
    assert [name for name, value in values.items() if not torch.equal(value, recomputed[name])] == []


def test_recomputing_keeps_fewer_activations() -> None:
    counts = []
    for options in ("", "MODEL.ACTIVATION_CHECKPOINTING True"):
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):
            build(options).backbone(torch.randn(2, 3, 64, 64))
        counts.append(sum(saved))
    assert counts[1] < counts[0] / 2


def test_channels_last_is_reported_and_changes_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loss, _ = run(build("MODEL.CHANNELS_LAST True"))
    assert "MODEL.CHANNELS_LAST: 2 of 2 feature maps of the backbone are channels_last" in caplog.text
    torch.testing.assert_close(loss, run(build())[0])


def test_what_does_not_fit_is_said(caplog: pytest.LogCaptureFixture) -> None:
    build("MODEL.SYNC_BN True")
    assert "MODEL.SYNC_BN is not possible on the CPU" in caplog.text
    with pytest.raises(ConfigError, match="ACTIVATION_CHECKPOINTING finds no stages in the backbone"):
        prepare_model(load_config(opts=["MODEL.ACTIVATION_CHECKPOINTING", "True"]), torch.nn.Linear(2, 2))


@pytest.fixture
def _restored() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


@pytest.mark.usefixtures("_restored")
def test_the_deterministic_mode(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    set_deterministic()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert "CUBLAS_WORKSPACE_CONFIG is :0:0; cuBLAS is deterministic with :4096:8 or :16:8" in caplog.text


def test_sync_bn_becomes_batch_norm_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    """NORM "SyncBN" of a recipe: torch refuses it on a CPU as soon as processes are joined."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.SyncBatchNorm(2, eps=0.5))
    before = [(name, id(parameter)) for name, parameter in model.named_parameters()]
    with torch.no_grad():
        model[1].running_mean += 3
    with caplog.at_level(logging.WARNING, "segkit"):
        prepare_model(load_config(), model)
    assert type(model[1]) is torch.nn.BatchNorm2d
    assert model[1].running_mean.tolist() == [3, 3]
    assert model[1].eps == 0.5
    assert [(name, id(parameter)) for name, parameter in model.named_parameters()] == before
    assert "1 layers of SyncBN are not possible on the CPU" in caplog.text
