"""Learning rates and frozen weights, by the names of the parameters."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from timm.optim import param_groups_layer_decay

from segkit.config import load_config
from segkit.engine.training.freezing import freeze_layers
from segkit.engine.training.layer_decay import compute_layer_factors
from segkit.engine.training.optimizers import build_optimizer
from segkit.utils.errors import ConfigError


class Model(torch.nn.Module):
    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Linear(2, 2)


def build_vit() -> torch.nn.Module:
    """The weights of a ViT by Detectron2's names; its own blocks need timm."""
    names = [
        "patch_embed",
        *(f"blocks.{i}.{part}" for i in range(3) for part in ("mlp", "residual", "norm1")),
        "simfp_2",
    ]
    vit = torch.nn.Module()
    vit.pos_embed = torch.nn.Parameter(torch.zeros(2))
    for name in names:
        parent = vit
        for part in name.split("."):
            child = torch.nn.LayerNorm(2) if part == "norm1" else torch.nn.Linear(2, 2)
            if part not in dict(parent.named_children()):
                parent.add_module(part, child if name.endswith(part) else torch.nn.Module())
            parent = parent.get_submodule(part)
    return vit


def get_rates(model: torch.nn.Module, options: str) -> dict[str, float]:
    """Name -> learning rate of all weights that are trained; BASE_LR is 1."""
    optimizer = build_optimizer(load_config(opts=["SOLVER.BASE_LR", "1.0", *options.split()]), model)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: rates[p] for name, p in model.named_parameters() if p in rates}


def test_the_decay_of_detectron2s_names_is_detectron2s() -> None:
    names = [name for name, _ in Model(build_vit()).named_parameters()]
    expected = {name: get_vit_lr_decay_rate(name, lr_decay_rate=0.5, num_layers=3) for name in names}
    assert compute_layer_factors(names, 0.5) == expected
    assert {0.0625, 0.125, 0.25, 0.5, 1.0} == {*expected.values()}


def test_the_decay_of_timms_names() -> None:
    names = ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.1.attn.qkv.weight"]
    names += ["norm.weight", "reg_token"]
    factors = compute_layer_factors([f"backbone.{name}" for name in names], 0.5)
    assert [*factors.values()] == [1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 2, 1, 1 / 8]


def test_swins_blocks_are_numbered_through_its_stages() -> None:
    names = ["backbone.patch_embed.w", "backbone.layers.0.blocks.0.w", "backbone.layers.0.blocks.1.w"]
    names += ["backbone.layers.0.downsample.w", "backbone.layers.1.blocks.0.w", "backbone.norm1.w", "head.blocks.0.w"]
    assert [*compute_layer_factors(names, 0.5).values()] == [1 / 16, 1 / 8, 1 / 4, 1 / 4, 1 / 2, 1, 1]


@pytest.mark.parametrize(
    ("full_blocks", "expected"),
    [
        (0, [1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 2, 1, 1, 1]),  # of 4 blocks, block i has 0.5 ** (3 - i)
        (2, [1 / 8, 1 / 8, 1 / 8, 1 / 4, 1, 1, 1, 1]),  # the last two have the whole learning rate
    ],
)
def test_the_last_block_may_have_the_whole_learning_rate(full_blocks: int, expected: list[float]) -> None:
    """The rule of EoMT's official code, with `llrd_l2_enabled` and without."""
    names = ["backbone.network.pos_embed", "backbone.network.patch_embed.proj.weight"]
    names += [f"backbone.network.blocks.{i}.norm1.weight" for i in range(4)]
    names += ["backbone.network.norm.weight", "head.q.weight"]
    assert [*compute_layer_factors(names, 0.5, "block", full_blocks).values()] == expected


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_timms_networks_have_the_factors_of_timm(name: str) -> None:
    """But for timm's last layer, the head, which a backbone lacks: its factor is 1, the last block's the decay."""
    network = timm.create_model(name, num_classes=0)
    groups = param_groups_layer_decay(network, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    theirs = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    ours = compute_layer_factors([f"backbone.network.{name}" for name in theirs], 0.5)
    ratios = {name: ours[f"backbone.network.{name}"] / factor for name, factor in theirs.items() if "norm." not in name}
    assert len({*ratios.values()}) == 1, ratios


def test_the_groups_are_few_and_have_the_factors() -> None:
    model = Model(build_vit())
    rates = get_rates(model, "SOLVER.LAYER_DECAY 0.5 SOLVER.BACKBONE_MULTIPLIER 0.1 SOLVER.OPTIMIZER ADAMW")
    assert rates["backbone.blocks.2.mlp.weight"] == pytest.approx(0.05)
    assert rates["backbone.pos_embed"] == pytest.approx(0.1 / 16)
    assert rates["head.weight"] == 1.0
    options = ["SOLVER.LAYER_DECAY", "0.5", "SOLVER.WEIGHT_DECAY_NORM", "0.0"]
    # Three blocks with and without weight decay; residual layers, what follows the blocks, and the head; embeddings.
    assert len(build_optimizer(load_config(opts=options), model).param_groups) == 2 * 3 + 1 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("SOLVER.LAYER_DECAY 0.5", r"LAYER_DECAY 0\.5 needs a transformer .*; set it to 1\.0"),
        ("SOLVER.LAYER_DECAY_TOP head", "LAYER_DECAY_TOP 'head' is unknown; choose one of norm, block"),
        ("SOLVER.LAYER_DECAY 1.5", r"expected SOLVER\.LAYER_DECAY in \(0, 1\], got 1\.5"),
        ("SOLVER.BACKBONE_MULTIPLIER 0.1 SOLVER.BIAS_LR_FACTOR 2.0", "BIAS_LR_FACTOR cannot be combined"),
    ],
)
def test_wrong_learning_rates_are_clear_errors(options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_rates(Model(torch.nn.Linear(2, 2)), f"SOLVER.BACKBONE_MULTIPLIER 0.5 {options}")


def test_more_full_blocks_than_blocks_are_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="FULL_BLOCKS from 0 to the 3 blocks of the backbone, got 4"):
        get_rates(Model(build_vit()), "SOLVER.LAYER_DECAY 0.5 SOLVER.LAYER_DECAY_FULL_BLOCKS 4")


def build_small() -> Any:
    stem = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    return Model(torch.nn.ModuleDict({"stem": stem, "stem2": torch.nn.BatchNorm2d(4)}))


def test_frozen_layers_are_not_trained_and_keep_their_statistics() -> None:
    model = build_small()
    freeze_layers(model, ["backbone.stem"])
    assert [*get_rates(model, "")] == ["backbone.stem2.weight", "backbone.stem2.bias", "head.weight", "head.bias"]
    model.train()
    assert not model.backbone["stem"][1].training
    assert model.backbone["stem2"].training


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [
        (["backbone.stm"], r"'backbone\.stm' is not in the model; did you mean 'backbone\.stem'\?"),
        (["nothing"], "'nothing' is not in the model; the model begins with backbone, head"),
        (["backbone", "head"], "leaves no weight to train"),
    ],
)
def test_wrong_prefixes_are_clear_errors(prefixes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze_layers(build_small(), prefixes)
