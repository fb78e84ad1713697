"""`segkit.load` of an ONNX file, in a process that has no torch and no Detectron2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segkit
from segkit.cli.main import main
from segkit.structures.graph_outputs import FORMAT_VERSION, METADATA
from segkit.utils.errors import CheckpointError, ConfigError

CATEGORIES = [{"id": 5, "name": "dark", "isthing": 0}, {"id": 9, "name": "bright", "isthing": 0}]
WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "torchvision", "detectron2", "fvcore", "iopath", "yacs")))
"""
# Prints the classes of four pixels, whose red values are 0, 127, 128 and 255.
CODE = """
import numpy as np, segkit
pixels = np.zeros((2, 2, 3), dtype=np.uint8)
pixels[..., 0] = [[0, 127], [128, 255]]
prediction = segkit.load(sys.argv[1])(pixels)
print(prediction.semantic.tolist(), *(segment.category_id for segment in prediction.segments))
"""


def run_without_torch(code: str, *words: Any) -> subprocess.CompletedProcess[str]:
    """Run Python in a process where nothing of torch and Detectron2 can be imported."""
    command = [sys.executable, "-c", WITHOUT_TORCH + code, *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran


def save_graph(path: Path, nodes: list[Any], outputs: dict[str, Any], constants: list[Any], task: str) -> Path:
    """Write a file as `segkit export onnx` does; outputs: name -> (type, shape)."""
    import onnx
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 3, "h", "w"]),
        helper.make_tensor_value_info("output_size", TensorProto.INT64, [2]),
    ]
    named = [helper.make_tensor_value_info(name, *output) for name, output in outputs.items()]
    graph = helper.make_graph(nodes, "graph", inputs, named, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    content = {
        "version": FORMAT_VERSION,
        "tasks": [task],
        "input": {"format": "RGB", "channels": 3, "min_size": 0, "max_size": 0, "largest": 60},
        "categories": CATEGORIES,
        "thing_channels": "per_class",
    }
    helper.set_model_props(model, {METADATA: json.dumps(content)})
    onnx.save(model, str(path))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A network that takes pixels of a red value above 127 for bright."""
    pytest.importorskip("onnx", reason="pip install 'segkit[onnx]'")
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
    outputs = {"semantic_ids": (TensorProto.INT32, ["B", "H", "W"])}
    return save_graph(tmp_path / "model.onnx", nodes, outputs, constants, "semantic")


def test_it_predicts_without_torch(file: Path) -> None:
    assert run_without_torch(CODE, file).stdout == "[[0, 0], [1, 1]] 5 9\n"


def test_the_command_predicts_a_folder_without_torch(file: Path, tmp_path: Path) -> None:
    """Images of two sizes in batches, and one that is broken."""
    for name, size, red in (("a", (3, 2), 255), ("b/b", (3, 2), 0), ("c", (1, 1), 200)):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", size, (red, 0, 0)).save(tmp_path / f"in/{name}.png")
    (tmp_path / "in/broken.png").write_text("no image")
    words = ["predict", "--weights", file, "--input", tmp_path / "in", "--output", tmp_path / "out", "--batch-size", 4]
    ran = run_without_torch("from segkit.cli.main import main; sys.exit(main(sys.argv[1:]))", *words)
    assert ran.returncode == 1
    assert "broken.png" in ran.stderr
    assert "1 of 4 images cannot be read and have no prediction" in ran.stderr
    labels = {name: np.asarray(Image.open(tmp_path / f"out/labels/{name}.png")) for name in ("a", "b/b", "c")}
    assert {name: (ids.shape, np.unique(ids).tolist()) for name, ids in labels.items()} == {
        "a": ((2, 3), [1]),
        "b/b": ((2, 3), [0]),
        "c": ((1, 1), [1]),
    }
    assert Image.open(tmp_path / "out/overlays/b/b.png").size == (3, 2)
    assert json.loads((tmp_path / "out/labels/classes.json").read_text()) == ["dark", "bright"]


# Prints the box, the score, the class and the pixels of each instance.
INSTANCES = """
import numpy as np, segkit
found = segkit.load(sys.argv[1])(np.zeros((2, 3, 3), dtype=np.uint8)).instances
print(*found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), found.to_full().astype(int).tolist())
"""


def test_masks_that_fill_the_image_are_read(file: Path) -> None:
    """Two rows of three have an instance."""
    from onnx import TensorProto, helper

    masks = [[[1, 0, 0], [1, 1, 0]], [[1, 1, 1], [1, 1, 1]], [[0, 0, 1], [0, 0, 0]]]
    values = {
        "boxes": (TensorProto.FLOAT, [1, 3, 4], [0, 0, 2, 2, 0, 0, 0, 0, 2, 0, 3, 1]),
        "scores": (TensorProto.FLOAT, [1, 3], [0.75, 0, 0.5]),
        "classes": (TensorProto.INT32, [1, 3], [1, -1, 0]),
        "image_masks": (TensorProto.BOOL, [1, 3, 2, 3], np.ravel(masks).tolist()),
    }
    nodes = [helper.make_node("Identity", [f"{name}_"], [name]) for name in values]
    constants = [helper.make_tensor(f"{name}_", *value) for name, value in values.items()]
    outputs = {name: value[:2] for name, value in values.items()}
    path = save_graph(file.with_name("queries.onnx"), nodes, outputs, constants, "instances")
    expected = f"[0.0, 0.0, 2.0, 2.0] [2.0, 0.0, 3.0, 1.0] [0.75, 0.5] [1, 0] {[masks[0], masks[2]]}\n"
    assert run_without_torch(INSTANCES, path).stdout == expected


def test_images_that_are_too_large_are_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes images of at most 60 x 60 pixels, got 8 x 61; .* tile size"):
        segkit.load(file)(np.zeros((8, 61, 3), dtype=np.uint8))


def test_lists_iterators_and_tiles_are_taken_as_by_a_model_in_torch(file: Path) -> None:
    model = segkit.load(file)
    images = [
        np.full(shape, red, dtype=np.uint8) for shape, red in (((2, 3, 3), 9), ((4, 4, 3), 200), ((2, 3, 3), 255))
    ]
    for predictions in (model(images, batch_size=3), [*model(iter(images), batch_size=2)]):
        assert [(each.semantic.shape, each.segments[0].name) for each in predictions] == [
            ((2, 3), "dark"),
            ((4, 4), "bright"),
            ((2, 3), "bright"),
        ]
    assert next(iter(model(iter([images[0], "no image"])))).segments[0].name == "dark"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(model(pixels, tile=16, overlap=4).semantic, pixels[..., 0] > 127)
    with pytest.raises(ConfigError, match="the model gives no panoptic"):
        model(pixels, outputs=["panoptic"])


def test_what_does_not_fit_an_onnx_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")
    path = str(tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="no such file"):
        segkit.load(path)
    with pytest.raises(ConfigError, match="has its config and precision inside"):
        segkit.load(path, precision="bfloat16")
    words = ["predict", "--weights", path, "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    Image.new("RGB", (2, 2)).save(tmp_path / "image.png")
    for options, message in (
        ([], "no such file"),
        (["--precision", "bfloat16"], "has its config and precision inside"),
        (["--device", "cuda:1"], "runs on cpu or cuda"),
        (["--opts", "INPUT.MIN_SIZE_TEST", "0"], "leave out --opts"),
    ):
        assert main([*words, *options]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
