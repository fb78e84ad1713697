"""`segkit.load` of an ONNX file, in a process that has no torch and no Detectron2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import segkit
from segkit.cli.main import main
from segkit.structures.graph_outputs import FORMAT_VERSION, METADATA
from segkit.utils.errors import CheckpointError, ConfigError

CATEGORIES = [{"id": 5, "name": "dark", "isthing": 0}, {"id": 9, "name": "bright", "isthing": 0}]
# Prints the classes of four pixels, whose red values are 0, 127, 128 and 255.
CODE = """
import sys
sys.modules.update(dict.fromkeys(("torch", "torchvision", "detectron2", "fvcore", "iopath", "yacs")))
import numpy as np, segkit
pixels = np.zeros((2, 2, 3), dtype=np.uint8)
pixels[..., 0] = [[0, 127], [128, 255]]
prediction = segkit.load(sys.argv[1])(pixels)
print(prediction.semantic.tolist(), *(segment.category_id for segment in prediction.segments))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A network that takes pixels of a red value above 127 for bright."""
    onnx = pytest.importorskip("onnx", reason="pip install 'segkit[onnx]'")
    pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["values", "zero"], ["red"], axis=1),
        helper.make_node("Greater", ["red", "limit"], ["is_bright"]),
        helper.make_node("Cast", ["is_bright"], ["semantic_ids"], to=TensorProto.INT32),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("limit", TensorProto.FLOAT, [], [127.0]),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 3, "h", "w"]),
        helper.make_tensor_value_info("output_size", TensorProto.INT64, [2]),
    ]
    outputs = [helper.make_tensor_value_info("semantic_ids", TensorProto.INT32, ["B", "H", "W"])]
    graph = helper.make_graph(nodes, "bright", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    content = {
        "version": FORMAT_VERSION,
        "tasks": ["semantic"],
        "input": {"format": "RGB", "channels": 3, "min_size": 0, "max_size": 0},
        "categories": CATEGORIES,
        "thing_channels": "per_class",
    }
    helper.set_model_props(model, {METADATA: json.dumps(content)})
    onnx.save(model, str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def test_it_predicts_without_torch(file: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", CODE, str(file)], capture_output=True, text=True)
    assert ran.stdout == "[[0, 0], [1, 1]] 5 9\n", ran.stderr


def test_what_does_not_fit_an_onnx_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")
    path = str(tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="no such file"):
        segkit.load(path)
    with pytest.raises(ConfigError, match="has its config and precision inside"):
        segkit.load(path, precision="bfloat16")
    assert main(["predict", "--weights", path, "--input", "x.png", "--output", str(tmp_path / "out")]) == 1
    assert "segkit predict runs no ONNX files" in capsys.readouterr().err
