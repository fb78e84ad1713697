"""PanopticDeepLab from a config on toy scenes: training, evaluation, saved heads, prediction, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.data.datasets.custom import register_by_format
from segkit.data.toy import dataset as toy
from segkit.engine.setup import prepare_config, read_config
from segkit.utils.errors import ConfigError

CONFIG = "configs/toy/panoptic_deeplab_R18.yaml"


def build_options(folder: Path, output: Path, **values: Any) -> list[str]:
    """KEY VALUE pairs; "__" in a name of `values` stands for a dot."""
    name = f"t_deeplab_{folder.parent.name}".replace("-", "_")
    custom = {"name": name, "panoptic_json": f"{folder}/panoptic.json", "panoptic_root": f"{folder}/panoptic"}
    options = {
        "DATASETS.CUSTOM": [custom],
        "DATASETS.TRAIN": (name,),
        "DATASETS.TEST": (name,),
        "DATALOADER.NUM_WORKERS": 0,
        "OUTPUT_DIR": output,
    }
    options |= {key.replace("__", "."): value for key, value in values.items()}
    return [str(word) for pair in options.items() for word in pair]


def test_train_save_heads_fuse_again_and_predict(tmp_path: Path) -> None:
    scenes, run = tmp_path / "scenes", tmp_path / "run"
    toy.write_dataset(scenes, images=2, seed=5)
    small = {"INPUT__MIN_SIZE_TRAIN": (64,), "INPUT__MIN_SIZE_TEST": 64, "SOLVER__IMS_PER_BATCH": 2}
    small |= {"MODEL__SEM_SEG_HEAD__CONVS_DIM": 16, "MODEL__INS_EMBED_HEAD__CONVS_DIM": 16}
    small |= {"MODEL__PANOPTIC_DEEPLAB__CENTER_THRESHOLD": 0.0, "MODEL__PANOPTIC_DEEPLAB__STUFF_AREA": 5}
    options = build_options(scenes, run, SOLVER__MAX_ITER=2, TEST__SAVE_HEADS=True, **small)
    assert main(["train", "--config-file", CONFIG, *options]) == 0
    assert {*json.loads((run / "metrics.json").read_text())} - {"notes"} == {"panoptic_seg", "bbox", "segm", "sem_seg"}
    (exports,) = (run / "inference").iterdir()
    fuse = ["fuse", "run", "--predictions", str(exports / "head_outputs"), "--method", "majority_vote"]
    fuse += ["--set", "center_threshold=0.0", "stuff_area_limit_px=5", "--output", str(tmp_path / "fused")]
    assert main([*fuse, "--explain", "--workers", "1"]) == 0
    predicted = ["predict", "--config-file", str(run / "config.yaml"), "--weights", str(run / "model_final.pth")]
    images = sorted((scenes / "images").iterdir())
    assert main([*predicted, "--output", str(tmp_path / "predicted"), "--input", *map(str, images)]) == 0
    pngs = [sorted((folder / "panoptic").iterdir()) for folder in (exports, tmp_path / "fused")]
    for evaluated, fused in zip(*pngs, strict=True):
        assert np.array_equal(np.asarray(Image.open(evaluated)), np.asarray(Image.open(fused)))
    things = {c.category_id for c in toy.CATEGORIES.things}
    panoptic = json.loads((tmp_path / "predicted/panoptic.json").read_text())["annotations"]
    instances = json.loads((tmp_path / "predicted/instances.json").read_text())["annotations"]
    count = sum(info["category_id"] in things for entry in panoptic for info in entry["segments_info"])
    assert len(instances) == count > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MODEL__SEM_SEG_HEAD__THING_CHANNELS": "one"}, "THING_CHANNELS: PanopticDeepLab needs per_class, got one"),
        ({"MODEL__SEM_SEG_HEAD__NUM_CLASSES": 133}, r"NUM_CLASSES is 133, but the dataset .*one channel per class"),
    ],
)
def test_channels_follow_from_the_dataset(
    values: dict[str, Any], message: str, toy_folder: Path, tmp_path: Path
) -> None:
    cfg = prepare_config(CONFIG, build_options(toy_folder, tmp_path), check=False)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == len(toy.CATEGORIES) == len(cfg.MODEL.PANOPTIC.THING_IDS)
    with pytest.raises(ConfigError, match=message):
        prepare_config(CONFIG, build_options(toy_folder, tmp_path, **values), check=False)


def test_a_dataset_without_a_panoptic_map_is_a_clear_error(toy_folder: Path, tmp_path: Path) -> None:
    name = "t_deeplab_instances"
    register_by_format(name, "coco-instances", json=toy_folder / "instances.json", images=toy_folder / "images")
    options = build_options(toy_folder, tmp_path, DATASETS__TRAIN=(name,), DATASETS__TEST=())
    with pytest.raises(ConfigError, match=rf"dataset {name} has no semantic labels, which PanopticDeepLab needs"):
        prepare_config(CONFIG, options)


def test_a_dataset_without_things_is_a_clear_error(toy_copy: Path, tmp_path: Path) -> None:
    content = json.loads((toy_copy / "panoptic.json").read_text())
    for category in content["categories"]:
        category["isthing"] = 0
    (toy_copy / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="has no things, whose centers PanopticDeepLab needs"):
        prepare_config(CONFIG, build_options(toy_copy, tmp_path))


def test_detectron2s_config_of_the_project_is_read(tmp_path: Path) -> None:
    head = "SEM_SEG_HEAD: {NUM_CLASSES: 19, LOSS_TOP_K: 0.2}, INS_EMBED_HEAD: {CENTER_LOSS_WEIGHT: 200.0}"
    model = f"{{META_ARCHITECTURE: PanopticDeepLab, {head}, PANOPTIC_DEEPLAB: {{TOP_K_INSTANCE: 100}}}}"
    text = f"MODEL: {model}\nSOLVER: {{OPTIMIZER: ADAM, LR_SCHEDULER_NAME: WarmupPolyLR}}\n"
    (tmp_path / "project.yaml").write_text(text)
    assert read_config(tmp_path / "project.yaml").MODEL.PANOPTIC_DEEPLAB.TOP_K_INSTANCE == 100
