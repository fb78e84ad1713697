"""EoMT's own checkpoints and those of transformers, imported; differences from DINOv3 need their base."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from segkit.cli.main import main
from segkit.engine.importers import eomt
from segkit.engine.importers.eomt_names import to_hugging_face
from segkit.modeling.backbones.plain_vit import PlainViT
from segkit.modeling.queries.eomt_head import EoMTHead
from tests.helpers.imports import run_import
from tests.helpers.tiny_vits import BLOCKS, CHANNELS

QUERIES, CLASSES, LAST, SIZE_PX, PATCHES = 5, 133, 2, 64, 16
BACKBONE = "network.encoder.backbone."
Weights = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(eomt.NETWORKS, (False, CHANNELS, BLOCKS, False), ("tiny_vit_dinov2", LAST))
    monkeypatch.setitem(eomt.NETWORKS, (True, CHANNELS, BLOCKS, False), ("tiny_vit_dinov3", LAST))
    monkeypatch.setattr(eomt, "DEFAULT_SIZE", SIZE_PX)


def draw(shapes: dict[str, tuple[int, ...]]) -> Weights:
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {
        name: 1 + weight if ".norm" in name and name.endswith("weight") else weight for name, weight in weights.items()
    }


def list_heads() -> dict[str, tuple[int, ...]]:
    """Names and shapes outside of the ViT, as in the official file."""
    c = CHANNELS
    shapes: dict[str, tuple[int, ...]] = {
        "network.attn_mask_probs": (LAST,),
        "network.encoder.pixel_mean": (1, 3, 1, 1),
        "network.encoder.pixel_std": (1, 3, 1, 1),
        "network.q.weight": (QUERIES, c),
        "network.class_head.weight": (CLASSES + 1, c),
        "network.class_head.bias": (CLASSES + 1,),
        "criterion.empty_weight": (CLASSES + 1,),
    }
    for layer in (0, 2, 4):
        shapes |= {f"network.mask_head.{layer}.weight": (c, c), f"network.mask_head.{layer}.bias": (c,)}
    for block in (0, 1):
        prefix = f"network.upscale.{block}"
        shapes |= {f"{prefix}.conv1.weight": (c, c, 2, 2), f"{prefix}.conv1.bias": (c,)}
        shapes |= {f"{prefix}.conv2.weight": (c, 1, 3, 3)}
        shapes |= {f"{prefix}.norm.weight": (c,), f"{prefix}.norm.bias": (c,)}
    return shapes


def list_dinov2() -> dict[str, tuple[int, ...]]:
    c = CHANNELS
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, c),
        "reg_token": (1, 4, c),
        "pos_embed": (1, PATCHES, c),
        "patch_embed.proj.weight": (c, 3, 16, 16),
        "patch_embed.proj.bias": (c,),
        "norm.weight": (c,),
        "norm.bias": (c,),
    }
    for i in range(BLOCKS):
        shapes |= {f"blocks.{i}.{part}": (c,) for part in ("ls1.gamma", "ls2.gamma", "norm1.bias", "norm2.bias")}
        shapes |= {f"blocks.{i}.norm1.weight": (c,), f"blocks.{i}.norm2.weight": (c,)}
        shapes |= {f"blocks.{i}.attn.qkv.weight": (3 * c, c), f"blocks.{i}.attn.qkv.bias": (3 * c,)}
        shapes |= {f"blocks.{i}.attn.proj.weight": (c, c), f"blocks.{i}.attn.proj.bias": (c,)}
        shapes |= {f"blocks.{i}.mlp.fc1.weight": (4 * c, c), f"blocks.{i}.mlp.fc1.bias": (4 * c,)}
        shapes |= {f"blocks.{i}.mlp.fc2.weight": (c, 4 * c), f"blocks.{i}.mlp.fc2.bias": (c,)}
    return {BACKBONE + name: shape for name, shape in shapes.items()} | list_heads()


def list_dinov3(embeddings: str, layers: str, norm: str) -> dict[str, tuple[int, ...]]:
    """The ViT, with the beginnings of the names in a file."""
    c = CHANNELS
    shapes: dict[str, tuple[int, ...]] = {
        f"{embeddings}cls_token": (1, 1, c),
        f"{embeddings}register_tokens": (1, 4, c),
        f"{embeddings}patch_embeddings.weight": (c, 3, 16, 16),
        f"{embeddings}patch_embeddings.bias": (c,),
        f"{norm}weight": (c,),
        f"{norm}bias": (c,),
    }
    for i in range(BLOCKS):
        block = f"{layers}{i}."
        shapes |= {f"{block}{part}": (c,) for part in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")}
        shapes |= {f"{block}layer_scale{n}.lambda1": (c,) for n in (1, 2)}
        shapes |= {f"{block}attention.{letter}_proj.weight": (c, c) for letter in "qkvo"}
        shapes |= {f"{block}attention.{letter}_proj.bias": (c,) for letter in "qvo"}
        shapes |= {f"{block}mlp.up_proj.weight": (4 * c, c), f"{block}mlp.up_proj.bias": (4 * c,)}
        shapes |= {f"{block}mlp.down_proj.weight": (c, 4 * c), f"{block}mlp.down_proj.bias": (c,)}
    return shapes


OFFICIAL_V3 = f"{BACKBONE}patch_embed.", f"{BACKBONE}blocks.", f"{BACKBONE}norm."
FACEBOOK = "embeddings.", "layer.", "norm."


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def read(model: torch.nn.Module, name: str) -> torch.Tensor:
    return model.state_dict()[name]


def test_the_official_names_and_shapes_are_imported_strictly(tmp_path: Path) -> None:
    weights = draw(list_dinov2())
    predictor, report = run_import(save(tmp_path / "w.bin", weights))
    counts = report["counts"]
    constants = 3  # mean, standard deviation, probabilities
    assert (counts["loaded"], counts["left out"]) == (len(weights) - constants, constants)
    assert counts["missing"] == counts["unexpected"] == counts["shape"] == 0
    for ours, theirs in {
        "backbone.network.blocks.1.attn.qkv.weight": f"{BACKBONE}blocks.1.attn.qkv.weight",
        "backbone.network.pos_embed": f"{BACKBONE}pos_embed",
        "head.upscale.1.norm.weight": "network.upscale.1.norm.weight",
        "head.q.weight": "network.q.weight",
    }.items():
        assert torch.equal(read(predictor.model, ours), weights[theirs])
    cfg = predictor.cfg
    assert (cfg.MODEL.TIMM.IMAGE_SIZE, cfg.MODEL.TIMM.PATCH_SIZE, cfg.INPUT.MIN_SIZE_TEST) == (SIZE_PX, 16, SIZE_PX)
    assert (cfg.MODEL.QUERIES.NUM_QUERIES, cfg.MODEL.EOMT.NUM_BLOCKS) == (QUERIES, LAST)
    assert len(report["classes"]) == CLASSES


def test_a_file_of_lightning_with_compiled_names_is_the_same(tmp_path: Path) -> None:
    weights = {name.replace("network.", "network._orig_mod."): w for name, w in draw(list_dinov2()).items()}
    _, report = run_import(save(tmp_path / "w.ckpt", {"state_dict": weights, "epoch": 3}))
    assert report["counts"]["missing"] == report["counts"]["unexpected"] == 0


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("network.q.weight", "reshape", r"1 of another shape: .*head\.q\.weight.* \(file \(5, 33\), model \(5, 3"),
        ("network.q.weight", "drop", r"1 missing: .*head\.q\.weight"),
        (f"{BACKBONE}blocks.3.norm1.weight", "scalar", r"1 of another shape: .*blocks\.3\.norm1\.weight.* \(file \(\)"),
        (f"{BACKBONE}blocks.2.norm1.bias", "drop", r"1 missing: .*blocks\.2\.norm1\.bias"),
        ("network.upscale.0.conv2.weight", "rename", r"1 missing: .*conv2\.weight.*; 1 unexpected: .*conv3\.weight"),
    ],
)
def test_a_tensor_that_is_missing_renamed_or_reshaped_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, change: str, message: str
) -> None:
    weights = draw(list_dinov2())
    weight = weights.pop(name)
    if change == "rename":
        weights[name.replace("conv2", "conv3")] = weight
    elif change == "scalar":
        weights[name] = torch.tensor(1.0)
    elif change == "reshape":
        weights[name] = torch.nn.functional.pad(weight, (0, 1))
    assert re.search(message, find_problem(save(tmp_path / "w.pth", weights), capsys))


def find_problem(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The line of the error, without line breaks."""
    assert main(["import", str(path), "--output", str(path.parent / "ours.pth"), *options]) == 1
    return " ".join(capsys.readouterr().err.split())


def test_dinov3_is_the_sum_of_the_file_and_its_base(tmp_path: Path) -> None:
    base = draw(list_dinov3(*FACEBOOK)) | {"embeddings.mask_token": torch.zeros(1, 1, CHANNELS)}
    deltas = {name: weight * 0.01 for name, weight in draw(list_dinov3(*OFFICIAL_V3)).items()}
    save_file(base, tmp_path / "base.safetensors")
    weights = {**deltas, **draw(list_heads())}
    path = save(tmp_path / "w.bin", weights)
    predictor, report = run_import(path, "--base", str(tmp_path / "base.safetensors"))
    assert report["counts"]["missing"] == report["counts"]["unexpected"] == 0
    expected = torch.cat(
        [
            base[f"layer.0.attention.{letter}_proj.weight"]
            + deltas[f"{BACKBONE}blocks.0.attention.{letter}_proj.weight"]
            for letter in "qkv"
        ]
    )
    assert torch.equal(read(predictor.model, "backbone.network.blocks.0.attn.qkv.weight"), expected)
    norm = base["norm.weight"] + deltas[f"{BACKBONE}norm.weight"]
    assert torch.equal(read(predictor.model, "backbone.network.norm.weight"), norm)
    assert torch.equal(read(predictor.model, "head.q.weight"), weights["network.q.weight"])
    assert predictor.cfg.MODEL.EOMT.ROPE_RESCALE == 2.0
    assert any("size of the images" in note for note in report["notes"])


def test_differences_without_their_base_are_refused_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deltas = {name: weight * 0.01 for name, weight in draw(list_dinov3(*OFFICIAL_V3)).items()}
    path = save(tmp_path / "w.pth", {**deltas, **draw(list_heads())})
    message = r"differences from other weights.*give the weights of DINOv3, such as .*dinov3-vitl16.*, by --base"
    assert re.search(message, find_problem(path, capsys))
    part = draw(list_dinov3(*FACEBOOK))
    part.pop("layer.3.norm2.weight")
    base = "--base", str(save(tmp_path / "base.pth", part))
    message = r"--base: .*1 tensors are missing: .*blocks\.3\.norm2\.weight"
    assert re.search(message, find_problem(path, capsys, *base))
    whole = save(tmp_path / "whole.pth", draw(list_dinov2()))
    message = "expected differences from other weights, got whole weights of EoMT; leave out --base"
    assert message in find_problem(whole, capsys, *base)


@pytest.mark.parametrize("name", ["tiny_vit_dinov2", "tiny_vit_dinov3"])
def test_a_safetensors_file_of_transformers_is_imported(tmp_path: Path, name: str) -> None:
    vit = PlainViT(name, last_blocks=LAST, queries=QUERIES, patch_size=16, image_size=SIZE_PX)
    head = EoMTHead(vit, blocks=LAST, queries=QUERIES, classes=CLASSES)
    ours = {f"backbone.{key}": w for key, w in vit.state_dict().items()}
    ours |= {f"head.{key}": w for key, w in head.state_dict().items()}
    theirs = {key: w.contiguous().clone() for key, w in to_hugging_face(ours).items()}
    save_file({**theirs, "attn_mask_probs": torch.zeros(LAST)}, tmp_path / "w.safetensors")
    predictor, report = run_import(tmp_path / "w.safetensors")
    assert report["counts"]["missing"] == report["counts"]["unexpected"] == 0
    loaded = predictor.model.state_dict()
    assert all(torch.equal(loaded[key], weight) for key, weight in ours.items())


def test_an_unknown_network_needs_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(eomt.NETWORKS, (False, CHANNELS, BLOCKS, False))
    message = "EoMT over a ViT of DINOv2 or DINOv3, got 4 blocks of 32 channels; give the config"
    assert message in find_problem(save(tmp_path / "w.pth", draw(list_dinov2())), capsys)
