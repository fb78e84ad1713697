"""Semantic networks as ONNX files: the classes of the model for any batch and size, and what users get told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.exported import Source, build_images, export, unet_config

pytest.importorskip("onnxscript", reason="pip install 'segkit[onnx]'")
pytest.importorskip("onnxruntime", reason="pip install 'segkit[onnx]'")

from segkit.data.augmentations.resize import SafeResize
from segkit.engine.export.check import check_graph
from segkit.engine.export.graphs import choose_tasks
from segkit.runtime.onnx_graph import OnnxGraph
from segkit.runtime.onnx_model import OnnxModel
from segkit.runtime.resizing import resize_short_side
from segkit.utils.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model, its graph, the loaded file and its path."""
    path = tmp_path_factory.mktemp("onnx") / "semantic.onnx"
    source = Source(unet_config())
    return source, *export(source, path), path


@pytest.mark.parametrize(("count", "size_hw", "output_hw"), [(1, (64, 48), (64, 48)), (3, (37, 90), (50, 61))])
def test_the_classes_are_those_of_the_model(
    exported: Any, count: int, size_hw: tuple[int, int], output_hw: tuple[int, int]
) -> None:
    source, _, file, _ = exported
    images = build_images(count, size_hw)
    ids = file.run(images, output_hw)["semantic_ids"]
    assert (ids.shape, ids.dtype) == ((count, *output_hw), np.int32)
    for image, own in zip(images, ids, strict=True):
        bgr = torch.from_numpy(image[::-1].copy())
        with torch.no_grad():
            output = source.model([{"image": bgr, "height": output_hw[0], "width": output_hw[1]}])[0]
        logits = output["sem_seg"].numpy()
        chosen = np.take_along_axis(logits, own[None].astype(np.int64), axis=0)[0]
        assert (logits.max(0) - chosen <= 1e-4 * np.abs(logits).max()).all()
    assert len(np.unique(ids)) > 1


def test_the_file_says_what_a_runtime_must_know(exported: Any) -> None:
    source, _, file, _ = exported
    assert file.tasks == ["semantic"]
    assert file.metadata["input"] == {
        "format": "BGR",
        "channels": 3,
        "min_size": source.cfg.INPUT.MIN_SIZE_TEST,
        "max_size": source.cfg.INPUT.MAX_SIZE_TEST,
        "mean": source.cfg.MODEL.PIXEL_MEAN,
        "std": source.cfg.MODEL.PIXEL_STD,
    }
    assert file.categories.to_coco() == source.categories.to_coco()
    assert file.space.names == source.space.names
    shapes = {entry.name: entry.shape for entry in file.session.get_inputs()}
    assert shapes["output_size"] == [2]
    assert [isinstance(side, str) for side in shapes["images"]] == [True, False, True, True]


def test_the_check_passes_and_finds_a_wrong_file(exported: Any) -> None:
    source, graph, file, _ = exported
    checks = [*check_graph(source, graph, file.run)]
    assert [check.passed for check in checks] == [True] * 4
    assert "0 beyond rounding" in checks[0].lines[0]

    def run_wrong(images: np.ndarray, size_hw: tuple[int, int]) -> dict[str, np.ndarray]:
        results = file.run(images, size_hw)
        results["semantic_ids"][:, :20] += 1
        return results

    assert not any(check.passed for check in check_graph(source, graph, run_wrong))


def test_a_task_that_the_model_does_not_give_is_refused(exported: Any) -> None:
    source = exported[0]
    with pytest.raises(ConfigError, match=r"SemanticSegmentor gives no instances and no panoptic output; .* semantic"):
        choose_tasks(source.model, ["panoptic", "instances"])
    with pytest.raises(ConfigError, match="Identity cannot be exported as one graph"):
        choose_tasks(torch.nn.Identity(), None)


def test_files_that_are_none_of_ours(exported: Any, tmp_path: Path) -> None:
    import onnx

    damaged, foreign = tmp_path / "damaged.onnx", tmp_path / "foreign.onnx"
    damaged.write_bytes(exported[3].read_bytes()[:1000])
    model = onnx.load(str(exported[3]))
    del model.metadata_props[:]
    onnx.save(model, str(foreign))
    for path, message in ((damaged, "cannot load"), (foreign, "segkit export onnx"), (tmp_path / "no.onnx", "no such")):
        with pytest.raises(CheckpointError, match=message):
            OnnxGraph(path)


@pytest.mark.parametrize("size_hw", [(40, 60), (200, 31), (3, 2000), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_resized_as_before_the_network(size_hw: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, channels), dtype=np.uint8)
    expected = SafeResize([48, 48], 80).get_transform(pixels).apply_image(pixels)
    np.testing.assert_array_equal(resize_short_side(pixels, 48, 80), expected.reshape(*expected.shape[:2], channels))
    assert resize_short_side(pixels, 0, 80) is pixels


def test_a_file_predicts_images_as_the_model_does(exported: Any, tmp_path: Path) -> None:
    source = exported[0]
    pixels = build_images(1, (50, 70))[0].transpose(1, 2, 0)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    model = OnnxModel(exported[3], threads=1)
    from_file, from_array = model(tmp_path / "image.png"), model(pixels[..., ::-1], color_order="BGR")
    resize = SafeResize([source.cfg.INPUT.MIN_SIZE_TEST] * 2, source.cfg.INPUT.MAX_SIZE_TEST)
    resized = np.ascontiguousarray(resize.get_transform(pixels).apply_image(pixels)[..., ::-1].transpose(2, 0, 1))
    with torch.no_grad():
        expected = source.model([{"image": torch.from_numpy(resized), "height": 50, "width": 70}])[0]["sem_seg"].argmax(
            0
        )
    for prediction in (from_file, from_array):
        assert prediction.semantic is not None
        assert (prediction.semantic != expected.numpy()).mean() < 0.01
    assert from_file.file_name.endswith("image.png")
    assert from_file.class_names == source.space.names
    assert np.asarray(from_file.plot()).shape == (50, 70, 3)
