"""Weights in and out of .safetensors, and `segkit weights`."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segkit.cli.main import main
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer, load_saved_classes
from segkit.engine.checkpoints.newest import has_checkpoints
from segkit.engine.checkpoints.weight_files import read_weight_file
from segkit.structures import CategorySet
from segkit.utils.errors import CheckpointError, ConfigError, SegkitError

safetensors = pytest.importorskip("safetensors.torch")

CATEGORIES = [{"id": 3, "name": "cell", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}]


class Classes:
    """The classes in a checkpoint, as segkit's training writes them."""

    def __init__(self, plugins: list[str]) -> None:
        self.plugins = plugins

    def state_dict(self) -> dict[str, Any]:
        return {"categories": CATEGORIES, "thing_channels": "per_class", "plugins": self.plugins}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["categories"] == CATEGORIES


def write_checkpoint(folder: Path, plugins: list[str] | None = None) -> nn.Module:
    """`model.pth` of a network with 2 * 3 + 2 numbers in a and 2 * 2 in b, which b uses twice."""
    torch.manual_seed(0)
    model = nn.Module()
    model.a = nn.Linear(3, 2)
    model.b = nn.Linear(2, 2, bias=False)
    model.b.weight = nn.Parameter(torch.arange(4.0).reshape(2, 2).t())  # not contiguous
    model.c = model.b
    SafeCheckpointer(model, str(folder), segkit=Classes(plugins or [])).save("model", iteration=41)
    return model


def build_empty(like: nn.Module) -> nn.Module:
    other = nn.Module()
    other.a, other.b = nn.Linear(3, 2), nn.Linear(2, 2, bias=False)
    other.c = other.b
    assert not torch.equal(other.a.weight, like.a.weight)
    return other


def write_safetensors(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("suffixes", [[".safetensors"], [".pth"], [".safetensors", ".pth", ".safetensors"]])
def test_weights_and_classes_survive_every_format(
    tmp_path: Path, suffixes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_checkpoint(tmp_path)
    path = tmp_path / "model.pth"
    for number, suffix in enumerate(suffixes):
        converted = tmp_path / f"out/{number}{suffix}"
        assert main(["weights", str(path), str(converted)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(converted)
        path = converted
    other = build_empty(model)
    SafeCheckpointer(other).load_for_inference(str(path))
    assert all(torch.equal(other.state_dict()[name], value) for name, value in model.state_dict().items())
    assert load_saved_classes(str(path)) == (CategorySet.from_coco(CATEGORIES, ""), "per_class")
    assert read_weight_file(str(path))["iteration"] == 41
    assert not has_checkpoints(tmp_path / "out"), "weights alone are nothing to resume from"


def test_the_command_says_what_a_file_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path, ["my_heads"])
    assert main(["weights", str(tmp_path / "model.pth")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "all       4 tensors             16 numbers  (4 float32)",
        "a         2 tensors              8 numbers",
        "b         1 tensors              4 numbers",
        "c         1 tensors              4 numbers",
        "classes: 2: 'cell', 'sky'",
        "semantic channels of things: per_class",
        "plugins: ['my_heads']",
        "iteration: 41",
    ]


def test_safetensors_of_other_tools_load(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    safetensors.save_file(nn.Linear(3, 2).state_dict(), tmp_path / "w.safetensors", {"format": "pt"})
    SafeCheckpointer(model).load_for_inference(str(tmp_path / "w.safetensors"))
    assert torch.equal(model.weight, safetensors.load_file(tmp_path / "w.safetensors")["weight"])
    assert load_saved_classes(str(tmp_path / "w.safetensors")) == (None, "one")
    assert SafeCheckpointer(model).resume_or_load(str(tmp_path / "w.safetensors"), resume=False) == {}


def test_names_of_a_zoo_file_are_still_matched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blobs = {"conv1_w": np.ones((2, 3, 1, 1), np.float32), "conv1_w_momentum": np.zeros(1, np.float32)}
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(blobs, 2))
    assert main(["weights", str(tmp_path / "R.pkl"), str(tmp_path / "R.safetensors")]) == 0
    assert "names of Caffe2, matched by their ends" in capsys.readouterr().out
    model = nn.Module()
    model.stem = nn.Module()
    model.stem.conv1 = nn.Conv2d(3, 2, 1, bias=False)
    for name in ("R.pkl", "R.safetensors"):
        nn.init.zeros_(model.stem.conv1.weight)
        SafeCheckpointer(model).load(str(tmp_path / name), checkpointables=[])
        assert model.stem.conv1.weight.sum() == 6, name


def test_a_plugin_of_the_training_is_asked_for(tmp_path: Path, no_plugins: None) -> None:
    write_checkpoint(tmp_path, ["my_heads"])
    assert main(["weights", str(tmp_path / "model.pth"), str(tmp_path / "w.safetensors")]) == 0
    with pytest.raises(ConfigError, match="needs the plugin my_heads"):
        load_saved_classes(str(tmp_path / "w.safetensors"))


FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"\xff" * 9,
        b"[" * 100_000,
        [],
        {"a": FLOATS, "b": FLOATS},  # overlapping
        {"a": {**FLOATS, "data_offsets": [0, 80]}},
        {"a": {**FLOATS, "data_offsets": [-8, 0]}},
        {"a": {**FLOATS, "shape": [2**62, 4]}},
        {"a": {**FLOATS, "shape": [-2]}},
        {"a": {**FLOATS, "dtype": "OBJECT"}},
        {"a": FLOATS, "__metadata__": {"segkit": "{"}},
        {"a": FLOATS, "__metadata__": {"segkit": "[" * 100_000}},
        {"a": FLOATS, "__metadata__": {"segkit": "[1]"}},
        {"a": FLOATS, "__metadata__": {"segkit": 5}},
    ],
)
def test_hostile_headers_are_one_line(tmp_path: Path, header: Any) -> None:
    path = write_safetensors(tmp_path / "w.safetensors", header, bytes(8))
    with pytest.raises(CheckpointError) as caught:
        SafeCheckpointer(nn.Linear(1, 1)).load(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_lengths_that_lie_truncated_and_missing_files_are_one_line(tmp_path: Path) -> None:
    safetensors.save_file({"a": torch.ones(5)}, path := tmp_path / "w.safetensors")
    whole = path.read_bytes()
    contents = [b"", whole[:7], whole[:20], whole[:-1], whole + b"x", struct.pack("<Q", 2**63) + whole[8:]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"w\.safetensors: not a readable \.safetensors file \(.*damaged"):
            read_weight_file(str(path))
    for other in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="no such weight file"):
            SafeCheckpointer(nn.Linear(1, 1)).load(str(other))


@pytest.mark.parametrize(
    "entry",
    [
        {"categories": 5},
        {"categories": [5]},
        {"categories": CATEGORIES, "plugins": 3},
        {"categories": CATEGORIES, "thing_channels": []},
    ],
)
def test_classes_that_are_no_classes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: dict[str, Any]
) -> None:
    metadata = {"segkit": json.dumps({"segkit": entry, "iteration": {}})}
    path = write_safetensors(tmp_path / "w.safetensors", {"a": FLOATS, "__metadata__": metadata}, bytes(8))
    with pytest.raises(SegkitError) as caught:
        load_saved_classes(str(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert main(["weights", str(path)]) in (0, 1)
    assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("w.onnx", "expected a name that ends in .safetensors or .pth"),
        ("model.pth", "the output would overwrite an input"),
        ("model.pth/w.pth", "cannot be written"),
    ],
)
def test_wrong_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, message: str) -> None:
    write_checkpoint(tmp_path)
    assert main(["weights", str(tmp_path / "model.pth"), str(tmp_path / output)]) == 1
    printed, error = capsys.readouterr()
    assert printed == ""
    assert message in error
    assert main(["weights", str(tmp_path / "absent.pth")]) == 1
    assert "no such weight file" in capsys.readouterr().err


def test_weights_with_nan_are_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": torch.tensor(float("nan"))}, tmp_path / "w.pth")
    assert main(["weights", str(tmp_path / "w.pth"), str(tmp_path / "w.safetensors")]) == 1
    assert "because of NaN values in 1 tensors: 'a'" in capsys.readouterr().err
    assert not (tmp_path / "w.safetensors").exists()
