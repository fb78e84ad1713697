"""A trained model called with images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from segkit.data.class_counts import resolve_for_categories
from segkit.data.mapper import read_image
from segkit.data.toy import dataset as toy
from segkit.engine.inference.model import SegmentationModel
from segkit.engine.inference.precision import select_dtype, set_precision
from segkit.engine.setup import read_config
from segkit.evaluation.predictions import build_coco_results, get_panoptic_prediction
from segkit.utils.errors import ConfigError, DatasetError
from tests.engine.inference import CONFIG
from tests.helpers import small_queries


def build(weights: Path, *options: str, **arguments: Any) -> SegmentationModel:
    cfg = read_config(CONFIG, ["MODEL.WEIGHTS", str(weights), *options], train=False)
    return SegmentationModel(cfg, **arguments)


@pytest.fixture(scope="module")
def model(weights: Path) -> SegmentationModel:
    return build(weights)


def list_images(toy_folder: Path, count: int = 3) -> list[Path]:
    return sorted((toy_folder / "images").iterdir())[:count]


def test_a_prediction_is_the_networks_output(model: SegmentationModel, toy_folder: Path) -> None:
    """The network itself is given the pixels of training, of the size at which it was tested."""
    (path,) = list_images(toy_folder, 1)
    assert model.cfg.INPUT.FORMAT == "BGR"
    pixels = read_image({"file_name": str(path), "height": 128, "width": 128}, "BGR")
    (output,) = model.run_network([pixels])
    expected = get_panoptic_prediction(output, model.categories)
    prediction = model(path)
    assert model.categories == prediction.categories == toy.CATEGORIES
    np.testing.assert_array_equal(prediction.segment_ids, expected.segment_ids)
    assert prediction.panoptic is not None
    assert prediction.panoptic.segments == expected.segments
    content = prediction.to_coco(7)
    assert content["instances"] == build_coco_results(output, 7, (128, 128), model.categories)
    assert len(content["instances"]) > 5
    assert prediction.semantic is not None
    np.testing.assert_array_equal(prediction.semantic, output["sem_seg"].argmax(0).numpy())
    assert prediction.class_names == model.space.names
    np.testing.assert_array_equal(prediction.image, pixels[..., ::-1])
    assert prediction.file_name == path.as_posix()


def test_every_form_of_an_image_gives_the_same(model: SegmentationModel, toy_folder: Path) -> None:
    """Above all an array is RGB, though the network takes BGR."""
    (path,) = list_images(toy_folder, 1)
    expected = model(path).segment_ids
    rgb = np.asarray(Image.open(path).convert("RGB"))
    for form in (str(path), Image.open(path), rgb, torch.from_numpy(rgb.copy()).permute(2, 0, 1)):
        prediction = model(form)
        np.testing.assert_array_equal(prediction.segment_ids, expected)
        np.testing.assert_array_equal(prediction.image, rgb)
    bgr = rgb[..., ::-1]
    np.testing.assert_array_equal(model(bgr, color_order="BGR").segment_ids, expected)
    assert (model(bgr).segment_ids != expected).any()


def test_lists_and_iterators_are_predicted_in_batches(
    model: SegmentationModel, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch, images of one size go through the network together; each result is that of the image alone."""
    paths = list_images(toy_folder, 4)
    small = np.asarray(Image.open(paths[0]).convert("RGB"))[:70]
    images = [paths[0], small, *paths[1:]]
    expected = [model(image) for image in images]
    batches: list[int] = []
    network = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda inputs: batches.append(len(inputs)) or network(inputs))
    results = model(images, batch_size=3)
    assert isinstance(results, list)
    assert batches == [2, 1, 2]
    for prediction, alone in zip(results, expected, strict=True):
        assert (prediction.segment_ids == alone.segment_ids).mean() > 0.999
        assert prediction.instances is not None
        assert alone.instances is not None
        np.testing.assert_allclose(prediction.instances.scores, alone.instances.scores, atol=1e-4)
    read: list[int] = []

    def read_images() -> Iterator[Any]:
        for number, image in enumerate(images):
            read.append(number)
            yield image

    generator = model(read_images(), batch_size=2)
    assert not read
    assert next(generator).size_hw == (128, 128)
    assert read == [0, 1]
    assert [prediction.size_hw for prediction in generator] == [(70, 128), *[(128, 128)] * 3]
    assert model([]) == []


def test_the_outputs_that_are_not_wanted_are_left_out(model: SegmentationModel, toy_folder: Path) -> None:
    (path,) = list_images(toy_folder, 1)
    prediction = model(path, outputs=["instances"])
    assert prediction.panoptic is prediction.semantic is None
    assert len(prediction.segments) > 5
    assert model(path, outputs=["semantic"]).instances is None


def test_wrong_calls_are_refused(model: SegmentationModel, toy_folder: Path) -> None:
    (path,) = list_images(toy_folder, 1)
    with pytest.raises(ValueError, match="color_order must be"):
        model(path, color_order="rgb")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        model([path], batch_size=0)
    for wrong in (["boxes"], [], "semantic"):
        with pytest.raises(ValueError, match="outputs must be a list of names among panoptic, instances, semantic, "):
            model(path, outputs=wrong)
    with pytest.raises(ValueError, match="images must be an image, a list or an iterator, got int"):
        model(3)
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8, got \(8, 8, 3\) float64"):
        model(np.zeros((8, 8, 3)))
    with pytest.raises(DatasetError, match=r"got the address http://a/b\.png"):
        model("http://a/b.png")
    with pytest.raises(DatasetError, match="the image is missing"):
        model([path, "gone.png"])


@torch.no_grad()
@pytest.mark.parametrize("architecture", small_queries.ARCHITECTURES)
def test_mixed_precision_of_queries_changes_little(architecture: str) -> None:
    network = small_queries.build(architecture).eval()
    sample = small_queries.draw_sample()
    (expected,) = network([sample])
    set_precision(network, torch.bfloat16, torch.device("cpu"))
    assert network.predict_images([sample])[0].mask_logits.dtype == torch.float32
    (got,) = network([sample])
    difference = (got["sem_seg"] - expected["sem_seg"]).abs().max()
    assert 0 < difference < 0.05 * expected["sem_seg"].abs().max()


def test_mixed_precision_changes_little(weights: Path, model: SegmentationModel, toy_folder: Path) -> None:
    (path,) = list_images(toy_folder, 1)
    pixels = model.input.read(path)
    (expected,), (got,) = (m.run_network([pixels]) for m in (model, build(weights, precision="bfloat16")))
    difference = (got["sem_seg"] - expected["sem_seg"]).abs().max()
    assert got["sem_seg"].dtype == torch.float32
    assert 0 < difference < 0.05 * expected["sem_seg"].abs().max()  # bfloat16 has 8 bits
    cpu = torch.device("cpu")
    assert select_dtype("float32", cpu) is select_dtype("auto", cpu) is None
    with pytest.raises(ConfigError, match="float16 needs a GPU, got the device cpu; choose float32 or bfloat16"):
        build(weights, precision="float16")
    with pytest.raises(ConfigError, match="the precision 'half' is unknown; choose one of float32"):
        build(weights, precision="half")


def test_a_model_of_boxes_alone_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    options = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.MASK_ON", "False"]
    cfg = read_config(CONFIG, options, train=False)
    resolve_for_categories(cfg, toy.CATEGORIES, "one", "toy")
    saved = {"model": build_model(cfg).state_dict(), "segkit": {"categories": toy.CATEGORIES.to_coco()}}
    torch.save(saved, tmp_path / "boxes.pth")
    with pytest.raises(ConfigError, match="expected a model with a panoptic map, masks or semantic classes, got none"):
        build(tmp_path / "boxes.pth", *options)(list_images(toy_folder, 1)[0])


def test_tiles_that_hold_the_whole_image_change_nothing(model: SegmentationModel, toy_folder: Path) -> None:
    (path,) = list_images(toy_folder, 1)
    expected, tiled = model(path), model(path, tile=128, overlap=0)
    np.testing.assert_array_equal(tiled.segment_ids, expected.segment_ids)
    assert tiled.to_coco() == expected.to_coco()


def test_an_image_is_predicted_tile_by_tile(
    model: SegmentationModel, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, run, seen = list_images(toy_folder, 2), model.run_network, []

    def spy(images: Any) -> Any:
        seen.extend(image.shape for image in images)
        return run(images)

    monkeypatch.setattr(model, "run_network", spy)
    for prediction in model(iter(paths), tile=72, overlap=16):
        assert prediction.panoptic is not None
        assert prediction.semantic is not None
        assert prediction.size_hw == prediction.segment_ids.shape == prediction.semantic.shape == (128, 128)
        ids, areas_px = np.unique(prediction.segment_ids[prediction.segment_ids > 0], return_counts=True)
        segments = prediction.panoptic.segments
        assert [(s.segment_id, s.area_px) for s in segments] == [*zip(ids, areas_px, strict=True)]
        assert {s.category_id for s in segments} <= {c.category_id for c in model.categories.categories}
        assert prediction.image.shape == (128, 128, 3)
    assert seen == [(72, 72, 3)] * 8  # ceil((128 - 16) / (72 - 16)) = 2 rows and columns
    with pytest.raises(ConfigError, match="overlap: expected 0 to 36 pixels"):
        model(paths[0], tile=72, overlap=40)


def test_tiles_raise_the_pixel_limit_for_their_image_alone(
    model: SegmentationModel, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = list_images(toy_folder, 1)
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "10000")
    before = Image.MAX_IMAGE_PIXELS
    assert model(path, tile=128, overlap=0).plot().size == (128, 128)
    assert before == Image.MAX_IMAGE_PIXELS
    with pytest.raises(DatasetError, match="10000 pixels, got 128 x 128"):
        model(path)


def test_an_only_view_of_test_time_augmentation_changes_nothing(
    model: SegmentationModel, weights: Path, toy_folder: Path
) -> None:
    (path,) = list_images(toy_folder, 1)
    inputs = model.cfg.INPUT
    views = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", f"({inputs.MIN_SIZE_TEST},)"]
    views += ["TEST.AUG.MAX_SIZE", str(inputs.MAX_SIZE_TEST)]
    augmented = build(weights, *views, "TEST.AUG.FLIP", "False")
    assert augmented(path).to_coco() == model(path).to_coco()
    mirrored = build(weights, *views)
    assert mirrored(path).size_hw == (128, 128)
    assert mirrored(path).to_coco() != model(path).to_coco()
