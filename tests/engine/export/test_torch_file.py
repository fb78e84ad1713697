"""`segkit export torch`: a semantic network as a program, equal to the model at sizes that were not exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segkit.cli.main import main
from segkit.engine.export.program import OLDEST_TORCH
from segkit.engine.export.torch_file import load_torch_program
from segkit.utils.errors import CheckpointError, ConfigError
from tests.helpers.exported import Source, build_images, save_source, unet_config

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH, reason="needs a later torch"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, model.pt2 that was exported from it, and an image."""
    folder = save_source(Source(unet_config()), tmp_path_factory.mktemp("torch") / "run")
    Image.fromarray(build_images(1, (45, 63), seed=1)[0].transpose(1, 2, 0)).save(folder / "image.png")
    return folder


def run_eagerly(source: Source, image: np.ndarray, size_hw: tuple[int, int]) -> Any:
    """(H, W) ids, and (channels, H, W) logits."""
    with torch.no_grad():
        bgr = torch.from_numpy(image[::-1].copy())
        logits = source.model([{"image": bgr, "height": size_hw[0], "width": size_hw[1]}])[0]["sem_seg"]
    return logits.argmax(0).numpy(), logits.numpy()


def test_the_command_writes_a_program_that_equals_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "model.pt2"
    words = ["export", "torch", folder, "--output", path, "--check", folder / "image.png"]
    assert main([str(word) for word in words]) == 0
    output = capsys.readouterr().out
    assert f"{path}\nimage.png (45 x 63" in output
    assert output.endswith("equal to the model, but for rounding\n")
    source, run = Source(unet_config()), load_torch_program(path)
    for count, size_hw, output_hw in ((3, (37, 90), (50, 61)), (1, (64, 48), (64, 48))):
        images = build_images(count, size_hw)
        ids = run(images, output_hw)["semantic_ids"]
        assert (ids.shape, ids.dtype) == ((count, *output_hw), np.int32)
        for image, own in zip(images, ids, strict=True):
            expected, logits = run_eagerly(source, image, output_hw)
            assert len(np.unique(expected)) > 1
            highest = np.take_along_axis(logits, own[None].astype(np.int64), axis=0)[0]
            assert (logits.max(0) - highest <= 1e-4 * np.abs(logits).max()).all()
    with pytest.raises(ConfigError, match="takes no images of 1 x 64 pixels"):
        run(build_images(1, (1, 64)), (8, 8))


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pt2"
    damaged.write_bytes(b"PK\x03\x04")
    for path in (damaged, tmp_path / "no.pt2"):
        with pytest.raises(CheckpointError, match="expected a file of `segkit export torch`"):
            load_torch_program(path)


def test_other_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "torch", str(tmp_path), "--output", str(tmp_path / "model.pth")]) == 1
    assert "expected a name that ends in .pt2" in capsys.readouterr().err


def test_images_of_the_check_are_read_before_the_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, path = folder / "bad.png", folder / "unchecked.pt2"
    bad.write_bytes(b"")
    assert main([str(word) for word in ("export", "torch", folder, "--output", path, "--check", bad)]) == 1
    assert str(bad) in capsys.readouterr().err
    assert not path.exists()
