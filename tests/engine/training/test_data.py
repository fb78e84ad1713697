"""Repeat-factor sampling of datasets that list no objects, and memory that worker processes share."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.config import load_config
from segkit.data.datasets.custom import register_by_format
from segkit.engine.training.data import build_train_loader
from segkit.engine.training.loader import TrainingLoader
from segkit.utils.errors import ConfigError, DatasetError

MIB = 1024**2


def write_images(folder: Path, maps: list[list[int]]) -> None:
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number, pixels in enumerate(maps):
        Image.fromarray(np.array([pixels], dtype=np.uint8)).save(folder / f"labels/{number}.png")
        Image.new("RGB", (len(pixels), 1)).save(folder / f"images/{number}.png")


def build_repeats(name: str, architecture: str, sampler: str = "RepeatFactorTrainingSampler", *options: str) -> Any:
    fixed = ["MODEL.META_ARCHITECTURE", architecture, "DATALOADER.NUM_WORKERS", "0"]
    cfg = load_config("", [*fixed, "DATALOADER.SAMPLER_TRAIN", sampler, *options])
    cfg.DATASETS.TRAIN = (name,)
    cfg.DATALOADER.REPEAT_THRESHOLD, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = 0.5, False
    return build_train_loader(cfg, seed=1).stream.repeats


def test_rare_classes_of_label_maps_are_repeated(tmp_path: Path) -> None:
    """Class 1 is in one of 8 images: sqrt(0.5 / (1 / 8)) = 2; class 2 in two: sqrt(0.5 / (2 / 8)); class 0 in all."""
    write_images(tmp_path, [[0, 1], [0, 2], [2, 0], *[[0, 255]] * 5])
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    register_by_format("t_repeated_classes", "semantic-maps", root=tmp_path)
    repeats = build_repeats("t_repeated_classes", "SemanticSegmentor")
    np.testing.assert_allclose(repeats, [2, 2**0.5, 2**0.5, *[1] * 5])


def test_images_without_objects_are_drawn_once(tmp_path: Path) -> None:
    """The only class is in one of 8 images."""
    write_images(tmp_path, [[0, 3, 7], *[[0, 0, 0]] * 7])
    register_by_format("t_repeated_objects", "instance-maps", root=tmp_path)
    np.testing.assert_allclose(build_repeats("t_repeated_objects", "GeneralizedRCNN"), [2, *[1] * 7])


def test_samplers_that_draw_a_subset_or_weighted_datasets_have_their_keys(tmp_path: Path) -> None:
    write_images(tmp_path, [[0, 1]] * 8)
    register_by_format("t_sampled", "instance-maps", root=tmp_path)
    arguments = "t_sampled", "GeneralizedRCNN"
    subset = "RandomSubsetTrainingSampler", "DATALOADER.RANDOM_SUBSET_RATIO"
    assert sorted(build_repeats(*arguments, *subset, "0.25")) == [0] * 6 + [1] * 2
    assert build_repeats(*arguments, subset[0]).tolist() == [1] * 8
    weighted = "WeightedTrainingSampler", "DATASETS.TRAIN_REPEAT_FACTOR"
    assert build_repeats(*arguments, *weighted, "[('t_sampled', 1.5)]").tolist() == [1.5] * 8
    for options, message in [
        ((*subset, "0.0"), r"RANDOM_SUBSET_RATIO: expected a number in \(0, 1\], got 0.0"),
        ((*weighted, "['t_sampled']"), r"TRAIN_REPEAT_FACTOR: expected \[\(dataset, number\), ...\], got"),
        ((*weighted, "[('t_sampled', -1)]"), r"expected finite numbers above 0, got \[-1.0\]"),
        ((*weighted, "[('other', 2)]"), r"expected names of DATASETS.TRAIN, got \['other'\]"),
    ]:
        with pytest.raises(ConfigError, match=message):
            build_repeats(*arguments, *options)


def test_a_damaged_map_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, [[0, 1], [0, 0]])
    (tmp_path / "labels/1.png").write_bytes(b"no image")
    register_by_format("t_damaged", "instance-maps", root=tmp_path)
    with pytest.raises(DatasetError, match=r"1\.png"):
        build_repeats("t_damaged", "GeneralizedRCNN")


def read_private_mib(pid: int) -> float:
    """Memory that no other process shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def add_up(record: dict[str, Any]) -> dict[str, Any]:
    return {"id": record["image_id"], "sum": sum(sum(a["bbox"]) for a in record["annotations"])}


def measure_workers(objects: int) -> float:
    """Private memory in MiB of 4 workers together, after they have read each record of 2000."""
    boxes = np.arange(4.0 * objects).reshape(-1, 4).tolist()
    records = [
        {"image_id": i, "file_name": f"{i}", "width": 2, "height": 1, "annotations": [{"bbox": [*b]} for b in boxes]}
        for i in range(2000)
    ]
    loader = TrainingLoader(records, add_up, batch_size=50, seed=1, workers=4)
    del records
    try:
        seen = {sample["id"] for _ in range(40) for part in loader.next_step() for sample in part}
        assert len(seen) == 2000
        return sum(read_private_mib(process.pid or 0) for process in multiprocessing.active_children())
    finally:
        loader.close()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux only")
def test_workers_share_the_annotations() -> None:
    """2000 records of 200 objects of 60 bytes are more than 20 MiB; a list would become a copy in each worker."""
    # In a process of its own: what the tests before have left in this one would be copied too.
    code = f"from {__name__} import measure_workers as measure; print(measure(1), measure(200))"
    root = Path(__file__).parents[3]
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    few, many = map(float, printed.split())
    assert many - few < 15
