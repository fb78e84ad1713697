"""`segkit predict` and `segkit data toy`, from weights to files on disk."""

from __future__ import annotations

import json
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from pycocotools.coco import COCO

from segkit.cli.main import main
from segkit.data.class_counts import resolve_for_categories
from segkit.data.toy import dataset as toy
from segkit.engine.inference.model import SegmentationModel
from segkit.engine.setup import read_config
from segkit.formats import coco, image_files, png
from segkit.runtime.folder import predict as predict_images
from segkit.runtime.image_inputs import find_images
from segkit.runtime.output_names import choose_output_names
from segkit.utils.errors import DatasetError
from tests.engine.inference import CONFIG
from tests.helpers.full_disk import check_full_disk


def predict(weights: Path, output: Path, *inputs: Path) -> int:
    words = ["predict", "--config-file", CONFIG, "--weights", weights, "--output", output, "--input", *inputs]
    return main([str(word) for word in words])


def test_python_takes_paths_as_text(weights: Path, toy_folder: Path, tmp_path: Path) -> None:
    model = SegmentationModel(read_config(CONFIG, ["MODEL.WEIGHTS", str(weights)], train=False))
    output = str(tmp_path / "out")
    (path,) = find_images([min(map(str, (toy_folder / "images").iterdir()))], output)
    written = predict_images(model, [str(path)], output, root=str(toy_folder))
    assert tmp_path / "out/panoptic.json" in written
    (image,) = coco.read_panoptic(f"{output}/panoptic.json").records
    assert image.file_name == f"images/{path.name}"


def test_predict_writes_overlays_and_json_for_a_folder(
    weights: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(weights, tmp_path / "out", toy_folder / "images") == 0
    assert str(tmp_path / "out" / "panoptic.json") in capsys.readouterr().out
    panoptic = coco.read_panoptic(tmp_path / "out/panoptic.json")
    assert len(panoptic.records) == 12
    for record in panoptic.records:
        path = tmp_path / "out/panoptic" / record.png_name
        ids = coco.read_segmentation(path, record.segments_info, panoptic.categories, (128, 128)).segment_ids
        assert all(info["area"] == (ids == info["id"]).sum() for info in record.segments_info)
        overlay = Image.open(tmp_path / "out/overlays" / record.png_name)
        assert overlay.size == (128, 128)
        assert not np.array_equal(overlay, Image.open(toy_folder / "images" / record.file_name))
    assert coco.read_instances(tmp_path / "out/instances.json").annotations
    assert COCO(str(tmp_path / "out/instances.json")).anns


def test_safetensors_predict_the_same(weights: Path, toy_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    converted, image = tmp_path / "model.safetensors", min((toy_folder / "images").iterdir())
    assert main(["weights", str(weights), str(converted)]) == 0
    for number, path in enumerate((weights, converted)):
        assert predict(path, tmp_path / str(number), image) == 0
    first, second = ((tmp_path / str(number) / "panoptic.json").read_bytes() for number in range(2))
    assert first == second


def test_images_of_the_same_name_get_different_outputs(weights: Path, toy_folder: Path, tmp_path: Path) -> None:
    image = Image.open(toy_folder / "images/000000000001.png")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "x.png")
    assert predict(weights, tmp_path / "out", tmp_path / "a" / "x.png", tmp_path / "b") == 0
    overlays = tmp_path / "out/overlays"
    assert {path.relative_to(overlays).as_posix() for path in overlays.rglob("*.png")} == {"a/x.png", "b/x.png"}


def test_overlays_are_drawn_as_the_options_say(weights: Path, toy_folder: Path, tmp_path: Path) -> None:
    drawings = {}
    for number, options in enumerate(([], ["--alpha", "0.9"], ["--no-names", "--no-scores"])):
        output, image = tmp_path / str(number), tmp_path / "x.png"
        Image.open(toy_folder / "images/000000000001.png").resize((256, 256)).save(image)
        words = ["predict", "--config-file", CONFIG, "--weights", weights, "--output", output, "--input", image]
        assert main([*map(str, words), *options]) == 0
        drawings[number] = np.asarray(Image.open(output / "overlays/x.png"))
    assert (drawings[0] != drawings[1]).mean() > 0.1
    assert 0 < (drawings[0] != drawings[2]).mean() < 0.3


def test_a_run_that_was_ended_goes_on_with_the_others(
    weights: Path, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batches; results of another run in the folder are refused."""
    model = SegmentationModel(read_config(CONFIG, ["MODEL.WEIGHTS", str(weights)], train=False))
    images = sorted((toy_folder / "images").iterdir())[:5]
    images.insert(2, tmp_path / "broken.png")
    images[2].write_text("no image")
    unreadable: list[DatasetError] = []
    whole, output = tmp_path / "whole", tmp_path / "out"
    predict_images(model, images, whole, on_unreadable=unreadable.append)
    passes: list[int] = []
    run_network = model.run_network

    def count_and_run(pixels: list[np.ndarray]) -> list[Any]:
        passes.append(len(pixels))
        if len(passes) == 2:
            raise KeyboardInterrupt
        return run_network(pixels)

    monkeypatch.setattr(model, "run_network", count_and_run)
    for _ in range(2):
        with suppress(KeyboardInterrupt):
            predict_images(model, images, output, on_unreadable=unreadable.append, batch_size=3)
    predict_images(model, images, output, on_unreadable=unreadable.append, batch_size=3)
    assert passes in ([3, 2, 3, 2], [3, 2, 2])  # images of the first batch may have been on their way
    assert {Path(error.where).name for error in unreadable} == {"broken.png"}
    files = {path.relative_to(output): path for path in output.rglob("*") if path.is_file()}
    assert {*files} == {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    entries = [json.loads((folder / "panoptic.json").read_text())["images"] for folder in (whole, output)]
    assert entries[0] == entries[1]
    assert [entry["id"] for entry in entries[0]] == [1, 2, 4, 5, 6]
    with pytest.raises(DatasetError, match="has results of another run: other drawing; name another output folder"):
        predict_images(model, images, output, {"alpha": 0.1})
    with pytest.raises(DatasetError, match="other images"):
        predict_images(model, images[:2], output)


def test_names_of_outputs() -> None:
    names = ["a/x.png", "a/x.jpg", "a/X_2.gif", "b/x.png", "../c.png", "d"]
    assert choose_output_names(names) == ["a/x.png", "a/x_2.png", "a/X_2_2.png", "b/x.png", "_/c.png", "d.png"]


@pytest.mark.parametrize(
    "names", [["x/a", "y/a", "z/a_2"], ["x/a", "x/A", "x/a_2", "x/A_2", "a"], ["x/é", "x/e\u0301"]]
)
def test_output_names_never_meet(
    names: list[str], weights: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor on a file system without upper and lower case; the JSONs find each image again."""
    image = Image.open(toy_folder / "images/000000000001.png").crop((0, 0, 64, 64))
    for index, name in enumerate(names):
        path = tmp_path / "in" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.rotate(90 * index).save(path)
    output = tmp_path / "out"
    assert predict(weights, output, tmp_path / "in") == 0
    pngs = [unicodedata.normalize("NFC", str(path)).casefold() for path in (output / "overlays").rglob("*.png")]
    assert len(set(pngs)) == len(names)
    for table in ("panoptic.json", "instances.json"):
        images = json.loads((output / table).read_text())["images"]
        assert {entry["file_name"] for entry in images} == {f"{name}.png" for name in names}
    capsys.readouterr()
    words = ["--from", "panoptic-predictions", "--json", output / "panoptic.json", "--masks", output / "panoptic"]
    words += ["--images", tmp_path / "in", "--to", "coco-panoptic", "--output", tmp_path / "converted"]
    assert main(["data", "convert", *map(str, words)]) == 0, capsys.readouterr().err
    assert len(coco.read_panoptic(tmp_path / "converted/panoptic.json").records) == len(names)


def test_unreadable_images_are_reported_and_the_others_predicted(
    weights: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image = Image.open(toy_folder / "images/000000000001.png")
    for name in ("a.png", "e.png"):
        image.save(folder / name)
    (folder / "._a.png").write_bytes(b"\0\5\26\7")
    (folder / "b.png").write_text("no image")
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "d.png").symlink_to(tmp_path / "nowhere")
    assert predict(weights, tmp_path / "out", folder) == 1
    captured = capsys.readouterr()
    assert "3 of 5 images cannot be read" in captured.err.splitlines()[-1]
    assert all(f"{name}.png: " in captured.err for name in "bcd")
    assert "Traceback" not in captured.err
    assert str(tmp_path / "out" / "panoptic.json") in captured.out
    entries = json.loads((tmp_path / "out/panoptic.json").read_text())["images"]
    assert [(entry["id"], entry["file_name"]) for entry in entries] == [(1, "a.png"), (5, "e.png")]
    for name in ("a.png", "e.png"):
        (folder / name).unlink()
    assert predict(weights, tmp_path / "none", folder) == 1
    assert "expected images that can be read, got none among 3" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["a file", "overlays is a file", "holds the inputs"])
def test_bad_outputs_are_refused_before_the_model_loads(
    kind: str, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, inputs = tmp_path / "out", toy_folder / "images"
    if kind == "a file":
        output.write_text("mine")
    elif kind == "overlays is a file":
        output.mkdir()
        (output / "overlays").write_text("mine")
    else:
        output = toy_folder
    before = (toy_folder / "panoptic.json").read_bytes()
    assert predict(tmp_path / "no_weights.pth", output, inputs) == 1
    error = capsys.readouterr().err
    assert "name another" in error
    assert error.count("\n") == 1
    assert (toy_folder / "panoptic.json").read_bytes() == before


@pytest.mark.parametrize(
    "kind", ["missing.pth", "missing.pkl", "folder.pth", "text.pth", "empty.pth", "image.pth", "text"]
)
def test_weights_that_are_none_are_one_line(
    kind: str, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / kind
    if kind == "folder.pth":
        path.mkdir()
    elif kind.startswith("text"):
        path.write_text("no weights")
    elif kind == "empty.pth":
        path.touch()
    elif kind == "image.pth":
        path.write_bytes((toy_folder / "images/000000000001.png").read_bytes())
    assert predict(path, tmp_path / "out", toy_folder / "images") == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert kind in error[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page (HTML or XML), not a weight file; open it"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page (HTML or XML)"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 177867103\n",
            "a git LFS pointer to a file of 177867103 bytes, not a weight file; fetch the file itself, as with `git",
        ),
    ],
)
def test_files_that_stand_in_the_place_of_weights_are_named(
    content: bytes, message: str, suffix: str, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(content)
    assert predict(path, tmp_path / "out", toy_folder / "images") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"segkit predict: {path}: {message}")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_weights_are_one_line(
    share: float, weights: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, path = weights.read_bytes(), tmp_path / "model.pth"
    path.write_bytes(content[: int(share * len(content))])
    assert predict(path, tmp_path / "out", toy_folder / "images") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"segkit predict: {path}: the file is damaged: its end is missing or changed; ")
    assert line.endswith("fetch or copy it again")


def test_animations_and_extreme_sizes_are_predicted_and_viewed(
    weights: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an animation, the first frame is taken: its result is that of the frame as a PNG."""
    frames = [Image.open(toy_folder / f"images/00000000000{i}.png") for i in (1, 2)]
    (tmp_path / "in").mkdir()
    for name, options in (("gif.gif", {}), ("webp.webp", {"lossless": True}), ("apng.png", {})):
        frames[0].save(tmp_path / "in" / name, save_all=True, append_images=frames[1:], **options)
        with Image.open(tmp_path / "in" / name) as animation:
            assert animation.n_frames == 2
    frames[0].save(tmp_path / "in/still.png")
    sizes_wh = {"dot": (1, 1), "wide": (20_000, 2), "tall": (2, 20_000)}
    for name, size_wh in sizes_wh.items():
        Image.new("RGB", size_wh, (9, 99, 9)).save(tmp_path / f"in/{name}.png")
    out = tmp_path / "out"
    assert predict(weights, out, tmp_path / "in") == 0
    ids = {path.stem: np.asarray(Image.open(path)) for path in (out / "panoptic").iterdir()}
    assert {*ids} == {"gif", "webp", "apng", "still", *sizes_wh}
    assert all(np.array_equal(ids[name], ids["still"]) for name in ("webp", "apng"))  # a GIF has 256 colours
    assert all(ids[name].shape[1::-1] == size_wh for name, size_wh in sizes_wh.items())
    capsys.readouterr()
    image_ids = [str(entry["id"]) for entry in json.loads((out / "panoptic.json").read_text())["images"]]
    dataset = ["--format", "panoptic-predictions", "--json", out / "panoptic.json", "--masks", out / "panoptic"]
    words = [*dataset, "--images", tmp_path / "in", "--image", *image_ids, "--output", tmp_path / "view.html"]
    assert main(["data", "view", *map(str, words)]) == 0, capsys.readouterr().err
    assert (tmp_path / "view.html").read_text().count('<div class="pair">') == len(ids)


@pytest.mark.parametrize(("content", "message"), [(None, "no images found"), (b"x", "does not decode")])
def test_bad_inputs_are_one_line_errors_and_write_nothing(
    content: bytes | None, message: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    assert predict(weights, tmp_path / "out", tmp_path / "bad.png") == 1
    error = capsys.readouterr().err
    assert message in error
    assert "bad.png" in error
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network_are_rejected(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.pth")
    assert predict(tmp_path / "other.pth", tmp_path / "out", toy_folder / "images") == 1
    assert "other.pth" in capsys.readouterr().err
    assert main(["predict", "--config-file", CONFIG, "--output", "x", "--input", str(toy_folder)]) == 1
    assert "no weights" in capsys.readouterr().err


def test_data_toy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "toy", "--output", str(tmp_path / "d"), "--images", "3", "--seed", "9"]
    assert main(words) == 0
    assert len(json.loads((tmp_path / "d/panoptic.json").read_text())["images"]) == 3
    assert main(words) == 1
    assert "overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert main(["data", "toy", "--output", str(tmp_path / "e"), "--images", "0"]) == 2
    assert main(["data", "toy", "--output", str(tmp_path / "e"), "--seed", "-1"]) == 2
    assert not (tmp_path / "e").exists()


def test_a_disk_that_gets_full_leaves_whole_files(
    weights: Path,
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = toy_folder / "images"
    command = ["predict", "--config-file", CONFIG, "--weights", weights, "--input", images]
    left = check_full_disk(command, tmp_path, capsys, monkeypatch)
    assert not {"instances.json", "panoptic.json"} & left  # records.jsonl is the largest
    assert {"predict.json", "records.jsonl", "panoptic/000000000012.png", "overlays/000000000012.png"} <= left


HOSTILE = "\x1b[31m\u202e\nsegkit: forged$x_{$\udcff"


def test_hostile_names_are_shown_and_not_obeyed(
    weights: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(weights, weights_only=True)
    for category in state["segkit"]["categories"]:
        category["name"] += HOSTILE.replace("\udcff", "")
    torch.save(state, tmp_path / "model.pth")
    (tmp_path / "in").mkdir()
    image = (toy_folder / "images/000000000001.png").read_bytes()
    (tmp_path / "in" / f"a{HOSTILE}.png").write_bytes(image)
    (tmp_path / "in" / f"b{HOSTILE}.png").write_bytes(image[:100])
    assert predict(tmp_path / "model.pth", tmp_path / "out", tmp_path / "in") == 1
    shown = "".join(capsys.readouterr())
    assert "1 of 2 images cannot be read" in shown
    assert r"\x1b[31m\u202e\nsegkit: forged$x_{$\xff" in shown
    assert not {"\x1b", "\u202e", "\udcff"} & {*shown}
    assert "\nsegkit: forged" not in shown
    assert json.loads((tmp_path / "out/panoptic.json").read_text())["categories"][0]["name"].endswith("$x_{$")


def test_a_model_with_a_semantic_output_only(toy_folder: Path, tmp_path: Path) -> None:
    """The weights have a channel per class; the outputs are label maps and overlays."""
    torch.manual_seed(0)
    semantic = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor"]
    cfg = read_config(CONFIG, semantic)
    resolve_for_categories(cfg, toy.CATEGORIES, "per_class", "toy")
    saved = {"categories": toy.CATEGORIES.to_coco(), "thing_channels": "per_class"}
    torch.save({"model": build_model(cfg).state_dict(), "segkit": saved}, tmp_path / "model.pth")
    arguments = ["--weights", tmp_path / "model.pth", "--output", tmp_path / "out", "--input", toy_folder / "images"]
    assert main([str(word) for word in ["predict", "--config-file", CONFIG, *arguments, "--opts", *semantic]]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("labels", "overlays", "predict.json", "records.jsonl", "semantic.json")
    }
    names = [category.name for category in toy.CATEGORIES.categories]
    assert json.loads((tmp_path / "out" / "labels" / "classes.json").read_text()) == names
    maps = image_files.find_by_suffix(tmp_path / "out" / "labels")
    assert len(maps) == 12
    assert all(png.read_labels(path).max() < len(names) for path in maps.values())


def test_tiles_are_checked_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiles = ["--tile", "64", "--overlap", "33"]
    words = ["predict", "--config-file", CONFIG, "--weights", "no.pth", "--output", str(tmp_path / "out")]
    assert main([*words, *tiles, "--input", str(tmp_path)]) == 1
    assert "overlap: expected 0 to 32 pixels, half a tile, got 33" in capsys.readouterr().err


def test_large_images_are_predicted_in_tiles(
    weights: Path, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = min((toy_folder / "images").iterdir())
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "10000")
    words = ["predict", "--config-file", CONFIG, "--weights", weights, "--output", tmp_path / "out", "--input", path]
    assert main([str(word) for word in words]) == 1
    assert main([str(word) for word in [*words, "--tile", 72, "--overlap", 16]]) == 0
    monkeypatch.delenv("SEGKIT_MAX_PIXELS")  # reading predictions has the limit of images
    (record,) = coco.read_panoptic(tmp_path / "out/panoptic.json").records
    assert Image.open(tmp_path / "out/panoptic" / record.png_name).size == (128, 128)
    assert Image.open(tmp_path / "out/overlays" / record.png_name).size == (128, 128)
    monkeypatch.setattr("segkit.runtime.folder.MAX_OVERLAY_PX", 128 * 128 - 1)
    monkeypatch.setattr("segkit.runtime.folder.REDUCED_OVERLAY_PX", 64 * 64)
    words = [*words[:5], "--output", tmp_path / "small", "--input", path, "--tile", 72, "--overlap", 16]
    assert main([str(word) for word in words]) == 0
    assert Image.open(tmp_path / "small/overlays" / record.png_name).size == (64, 64)
