"""Checkpoints of Mask2Former and of transformers' Mask2Former are recognised by names, and fill the recipes' models."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segkit.cli.main import main
from segkit.engine.checkpoints.weight_files import read_weight_file
from segkit.engine.importers.base import find_source
from segkit.engine.importers.importing import import_weights
from segkit.utils.errors import CheckpointError
from tests.helpers.imports import run_import
from tests.helpers.mask2former import to_transformers

PIXEL, PREDICTOR = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."
C = 64  # channels of the heads; 256 in the published files
HEADS, FEEDFORWARD, QUERIES, CLASSES = 4, 96, 5, 19
WIDTHS = {"res2": 64, "res3": 128, "res4": 256, "res5": 512}  # of R-18


def layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def resnet() -> dict[str, tuple[int, ...]]:
    """R-18 with frozen norms, in Detectron2's names."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        ends = "weight", "bias", "running_mean", "running_var"
        shapes.update({f"{name}.norm.{end}": shape[:1] for end in ends})

    convolution("backbone.stem.conv1", 64, 3, 7, 7)
    before = 64
    for level, width in WIDTHS.items():
        for block in (0, 1):
            if block == 0 and before != width:
                convolution(f"backbone.{level}.0.shortcut", width, before, 1, 1)
            convolution(f"backbone.{level}.{block}.conv1", width, before, 3, 3)
            convolution(f"backbone.{level}.{block}.conv2", width, width, 3, 3)
            before = width
    return shapes


def swin() -> dict[str, tuple[int, ...]]:
    """A Swin of one block a stage with windows of 3 pixels."""
    shapes = {**layer("backbone.patch_embed.proj", 12, 3, 4, 4), **layer("backbone.patch_embed.norm", 12)}
    for stage, heads in enumerate((1, 1, 2, 2)):
        width, block = 12 << stage, f"backbone.layers.{stage}.blocks.0."
        shapes |= {**layer(f"{block}norm1", width), **layer(f"{block}norm2", width)}
        shapes |= {f"{block}attn.relative_position_bias_table": (25, heads)}
        shapes |= {**layer(f"{block}attn.qkv", 3 * width, width), **layer(f"{block}attn.proj", width, width)}
        shapes |= {**layer(f"{block}mlp.fc1", 4 * width, width), **layer(f"{block}mlp.fc2", width, 4 * width)}
        shapes |= layer(f"backbone.norm{stage}", width)
        if stage < 3:
            shapes[f"backbone.layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
            shapes |= layer(f"backbone.layers.{stage}.downsample.norm", 4 * width)
    return shapes


def heads(widths: list[int]) -> dict[str, tuple[int, ...]]:
    """The tree of names of the official checkpoints, with two layers each."""
    shapes = {f"{PIXEL}transformer.level_embed": (3, C), "criterion.empty_weight": (CLASSES + 1,)}
    for index, width in enumerate(reversed(widths[1:])):
        shapes |= {**layer(f"{PIXEL}input_proj.{index}.0", C, width, 1, 1), **layer(f"{PIXEL}input_proj.{index}.1", C)}
    for index in (0, 1):
        name = f"{PIXEL}transformer.encoder.layers.{index}."
        points = HEADS * 3 * 4
        shapes |= {**layer(f"{name}self_attn.sampling_offsets", 2 * points, C), **layer(f"{name}norm1", C)}
        shapes |= {**layer(f"{name}self_attn.attention_weights", points, C), **layer(f"{name}norm2", C)}
        shapes |= {**layer(f"{name}self_attn.value_proj", C, C), **layer(f"{name}self_attn.output_proj", C, C)}
        shapes |= {**layer(f"{name}linear1", FEEDFORWARD, C), **layer(f"{name}linear2", C, FEEDFORWARD)}
        for kind, attention in (("self", "self_attn"), ("cross", "multihead_attn")):
            name = f"{PREDICTOR}transformer_{kind}_attention_layers.{index}."
            shapes |= {f"{name}{attention}.in_proj_weight": (3 * C, C), f"{name}{attention}.in_proj_bias": (3 * C,)}
            shapes |= {**layer(f"{name}{attention}.out_proj", C, C), **layer(f"{name}norm", C)}
        name = f"{PREDICTOR}transformer_ffn_layers.{index}."
        shapes |= {**layer(f"{name}linear1", FEEDFORWARD, C), **layer(f"{name}linear2", C, FEEDFORWARD)}
        shapes |= layer(f"{name}norm", C)
    shapes |= {**layer(f"{PIXEL}mask_features", C, C, 1, 1), **layer(f"{PREDICTOR}decoder_norm", C)}
    shapes |= {f"{PIXEL}adapter_1.weight": (C, widths[0], 1, 1), f"{PIXEL}layer_1.weight": (C, C, 3, 3)}
    shapes |= {**layer(f"{PIXEL}adapter_1.norm", C), **layer(f"{PIXEL}layer_1.norm", C)}
    for name in ("query_feat", "query_embed"):
        shapes[f"{PREDICTOR}{name}.weight"] = (QUERIES, C)
    shapes[f"{PREDICTOR}level_embed.weight"] = (3, C)
    for index in range(3):
        shapes |= layer(f"{PREDICTOR}mask_embed.layers.{index}", C, C)
    return shapes | layer(f"{PREDICTOR}class_embed", CLASSES + 1, C)


def draw(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Random values; scales and variances of norms around 1."""
    generator = torch.Generator().manual_seed(0)
    ends = ("running_var", "norm.weight", "norm1.weight", "norm2.weight")
    return {
        name: 0.1 * torch.randn(shape, generator=generator) + (name.endswith(ends) or "empty_weight" in name)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    return draw(resnet() | heads([*WIDTHS.values()]))


@pytest.fixture(scope="module")
def official_swin() -> dict[str, torch.Tensor]:
    return draw(swin() | heads([12, 24, 48, 96]))


def check_loaded(tmp_path: Path, file: Path, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """All tensors fill the model; `weights` are under our names."""
    _, report = run_import(file)
    assert report["source"] == source
    counts = {status: count for status, count in report["counts"].items() if count}
    assert counts.pop("loaded") == len(weights)
    assert counts.keys() <= {"left out"}
    got = read_weight_file(f"{tmp_path}/ours.pth")["model"]
    assert all(torch.equal(got[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("queries", ["static_query", "query_feat"])
def test_a_pickle_of_the_zoo_fills_the_model(tmp_path: Path, official: dict[str, torch.Tensor], queries: str) -> None:
    """As the published files: arrays, an OrderedDict with `_metadata`, and the older name of the queries."""
    arrays = OrderedDict((name.replace("query_feat", queries), w.numpy()) for name, w in official.items())
    arrays._metadata = {"sem_seg_head": {"version": 2}}  # type: ignore[attr-defined]
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party"}))
    check_loaded(tmp_path, tmp_path / "w.pkl", official, "mask2former")


@pytest.mark.parametrize("prefix", ["sem_seg_head.", "sem_seg_head.pixel_decoder.pixel_decoder."])
def test_names_alone_decide_where_the_pixel_decoder_is(
    tmp_path: Path, official: dict[str, torch.Tensor], prefix: str
) -> None:
    """Files of the first version lack its prefix; copies without `_metadata` that were saved again have it twice."""
    weights = {name.replace(PIXEL, prefix): weight for name, weight in official.items()}
    torch.save(weights, tmp_path / "w.pth")
    check_loaded(tmp_path, tmp_path / "w.pth", official, "mask2former")


@pytest.mark.parametrize("generation", ["old", "new"])
def test_files_of_transformers_fill_the_model(
    tmp_path: Path, official_swin: dict[str, torch.Tensor], generation: str
) -> None:
    """With the names of the Swin that files keep, and with those that transformers 5 has in memory."""
    weights = to_transformers(official_swin)
    if generation == "old":
        replaced = {
            "encoder.swin.": "encoder.",
            "attention.q_proj": "attention.self.query",
            "attention.k_proj": "attention.self.key",
            "attention.v_proj": "attention.self.value",
            "attention.relative_position_bias.": "attention.self.",
            "attention.o_proj": "attention.output.dense",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
        }
        for new, old in replaced.items():
            weights = {name.replace(new, old): weight for name, weight in weights.items()}
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(weights, tmp_path / "w.safetensors")
    check_loaded(tmp_path, tmp_path / "w.safetensors", official_swin, "mask2former-transformers")


def test_what_can_be_computed_again_may_be_missing(tmp_path: Path, official_swin: dict[str, torch.Tensor]) -> None:
    """The weights of classes in the loss, and the indices of relative positions."""
    weights = {name: weight for name, weight in official_swin.items() if name != "criterion.empty_weight"}
    torch.save(weights, tmp_path / "w.pth")
    check_loaded(tmp_path, tmp_path / "w.pth", weights, "mask2former")


def test_small_scales_of_norms_are_no_reason_to_refuse(tmp_path: Path, official: dict[str, torch.Tensor]) -> None:
    """Differences from other weights are published for DINOv3 alone."""
    weights = {name: 0.02 * torch.rand_like(weight) for name, weight in official.items()}
    torch.save(weights, tmp_path / "w.pth")
    assert len(import_weights(str(tmp_path / "w.pth"), tmp_path / "ours.pth").loaded) == len(weights)


DECIDING = [  # from these the network is found
    f"{PREDICTOR}query_feat.weight",
    f"{PREDICTOR}class_embed.weight",
    f"{PREDICTOR}transformer_ffn_layers.1.norm.weight",
    "backbone.stem.conv1.weight",
    "backbone.stem.conv1.norm.running_mean",
    "backbone.res5.1.conv1.weight",
]
DECIDING_SWIN = ["patch_embed.proj.weight", "layers.3.blocks.0.norm1.weight"]


@pytest.mark.parametrize("name", [*DECIDING, *(f"backbone.{name}" for name in DECIDING_SWIN)])
def test_a_tensor_that_the_network_is_found_from_is_named_too(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    official: dict[str, torch.Tensor],
    official_swin: dict[str, torch.Tensor],
    name: str,
) -> None:
    """Missing, or without its shape; the report is printed and written, the weights are not."""
    weights = dict(official if name in official else official_swin)
    for change, status in ((weights.pop, "missing"), (lambda key: weights.update({key: torch.tensor(1.0)}), "shape")):
        change(name)
        torch.save(weights, tmp_path / "w.pth")
        options = "--output", str(tmp_path / "ours.pth"), "--json", str(tmp_path / "report.json")
        assert main(["import", str(tmp_path / "w.pth"), *options]) == 1
        printed = capsys.readouterr()
        assert f"{status}: {name}" in printed.out
        assert name in " ".join(printed.err.split())
        assert json.loads((tmp_path / "report.json").read_text())["counts"][status] == 1
        assert {path.name for path in tmp_path.iterdir()} == {"w.pth", "report.json"}


def test_two_names_of_one_tensor_are_refused(tmp_path: Path, official: dict[str, torch.Tensor]) -> None:
    weights = {**official, f"{PREDICTOR}static_query.weight": torch.zeros(QUERIES, C)}
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"query_feat\.weight and .*static_query\.weight are both"):
        import_weights(str(tmp_path / "w.pth"), tmp_path / "ours.pth")


FAULTS = {
    "renamed": f"{PREDICTOR}decoder_norm.weight",
    "missing": f"{PIXEL}transformer.encoder.layers.0.norm1.bias",
    "reshaped": f"{PREDICTOR}mask_embed.layers.1.weight",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_wrong_tensor_is_named(tmp_path: Path, official: dict[str, torch.Tensor], fault: str) -> None:
    name, weights = FAULTS[fault], dict(official)
    weight = weights.pop(name)
    if fault == "renamed":
        weights[f"{name}_old"] = weight
    elif fault == "reshaped":
        weights[name] = torch.zeros(C, C + 1)
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as error:
        import_weights(str(tmp_path / "w.pth"), tmp_path / "ours.pth")
    assert name in str(error.value)
    if fault == "renamed":
        assert f"1 unexpected: '{name}_old'" in str(error.value)
    if fault == "reshaped":
        assert f"file ({C}, {C + 1}), model ({C}, {C})" in str(error.value)


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_a_missing_part_of_an_attention_is_named(
    tmp_path: Path, official_swin: dict[str, torch.Tensor], part: str
) -> None:
    weights = to_transformers(official_swin)
    del weights[f"model.transformer_module.decoder.layers.1.self_attn.{part}_proj.weight"]
    torch.save({name: weight.clone() for name, weight in weights.items()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"1 missing: .*attention_layers\.1\.self_attn\.in_proj_weight"):
        import_weights(str(tmp_path / "w.pth"), tmp_path / "ours.pth")


def test_mask2former_is_not_taken_for_a_detector(official: dict[str, torch.Tensor]) -> None:
    assert find_source(official, {}, "", "file").name == "mask2former"
    arrays = {
        name: torch.from_numpy(np.array(weight))
        for name, weight in to_transformers(
            {k: v for k, v in official.items() if not k.startswith("backbone.")}
        ).items()
    }
    assert find_source(arrays, {}, "", "file").name == "mask2former-transformers"
