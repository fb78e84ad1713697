"""`--plugin` and SEGKIT_PLUGINS: a user's dataset, head and config key in a run, and runs that miss their plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch", reason="plugins extend what trains")

CONFIG = Path("configs/toy/panoptic_rcnn_R18_FPN.yaml").absolute()
PLUGIN = """
from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY, MaskRCNNConvUpsampleHead
from segkit.data.datasets.custom import register_panoptic

register_panoptic("t_plugin_data", {folder!r} + "/panoptic.json", {folder!r} + "/panoptic")

@ROI_MASK_HEAD_REGISTRY.register()
class PluginHead(MaskRCNNConvUpsampleHead):
    pass

def add_config(cfg):
    cfg.MODEL.MINE = CfgNode({{"FACTOR": 1.0}})
"""
OPTIONS = """DATASETS.TRAIN ('t_plugin_data',) DATASETS.TEST () SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 1
    DATALOADER.NUM_WORKERS 0 MODEL.FPN.OUT_CHANNELS 16 MODEL.SEM_SEG_HEAD.CONVS_DIM 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    MODEL.ROI_MASK_HEAD.CONV_DIM 16 MODEL.ROI_MASK_HEAD.NAME PluginHead MODEL.MINE.FACTOR 2.0 MODEL.DEVICE cpu"""


def build_environment() -> dict[str, str]:
    paths = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths}


def segkit(folder: Path, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own: Detectron2's registries cannot forget a head."""
    return subprocess.run(
        [sys.executable, "-m", "segkit", *map(str, arguments)],
        cwd=folder,
        env={**build_environment(), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_plugin_brings_a_dataset_a_head_and_a_key(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t_mine.py").write_text(PLUGIN.format(folder=str(toy_folder)))
    run = tmp_path / "run"
    trained = segkit(
        tmp_path, "train", "--config-file", CONFIG, "--plugin", "t_mine", *OPTIONS.split(), "OUTPUT_DIR", run
    )
    assert trained.returncode == 0, trained.stderr
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["PLUGINS"] == ["t_mine"]
    assert config["MODEL"]["MINE"] == {"FACTOR": 2.0}
    weights = run / "model_final.pth"
    assert torch.load(weights, weights_only=True)["segkit"]["plugins"] == ["t_mine"]

    # Two spawned processes, with the plugin from the variable.
    options = [*OPTIONS.split(), "OUTPUT_DIR", tmp_path / "two", "DATASETS.TEST", "('t_plugin_data',)"]
    options = ["--eval-only", "--num-gpus", 2, "--dist-url", "auto", *options, "MODEL.WEIGHTS", weights]
    evaluated = segkit(tmp_path, "train", "--config-file", CONFIG, *options, SEGKIT_PLUGINS="t_mine.py")
    assert evaluated.returncode == 0, evaluated.stderr

    # Without the plugin, the run's config and its checkpoint are refused in one line, and nothing is imported.
    image = next((toy_folder / "images").iterdir())
    for number, config_file in enumerate((run / "config.yaml", CONFIG)):
        output = tmp_path / f"out{number}"
        arguments = ["--config-file", config_file, "--weights", weights, "--input", image, "--output", output]
        refused = segkit(tmp_path, "predict", *arguments)
        assert refused.returncode == 1
        assert "needs the plugin t_mine, which was not given; add --plugin t_mine" in refused.stderr
        assert "Traceback" not in refused.stderr
        given = segkit(tmp_path, "predict", "--plugin", "t_mine", *arguments[:2], *arguments[2:])
        assert (given.returncode == 0) == (config_file != CONFIG), given.stderr


@pytest.mark.slow
def test_a_spawned_data_loader_imports_the_plugin(toy_folder: Path, tmp_path: Path) -> None:
    """The mapper takes the plugins to a process whose registries are empty; two scripts stand for the processes."""
    (tmp_path / "t_mine.py").write_text("LOADED = True\n")
    (tmp_path / "save.py").write_text(
        "import pickle, segkit\n"
        "from segkit.data.mapper import SegkitMapper\n"
        "from segkit.utils.plugins import load_plugins\n"
        "from segkit.data.toy.dataset import CATEGORIES\n"
        "load_plugins(['t_mine.py'])\n"
        "mapper = SegkitMapper(CATEGORIES, CATEGORIES.build_semantic_space(), [])\n"
        "pickle.dump(mapper, open('mapper.pkl', 'wb'))\n"
    )
    (tmp_path / "load.py").write_text(
        "import pickle, sys\npickle.load(open('mapper.pkl', 'rb'))\nassert sys.modules['t_mine'].LOADED\n"
    )
    for script in ("save.py", "load.py"):
        ran = subprocess.run(
            [sys.executable, script], cwd=tmp_path, env=build_environment(), capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("command", ["train", "demo", "predict", "fuse save"])
def test_every_command_that_reads_a_config_takes_plugins(command: str, tmp_path: Path) -> None:
    required = {"predict": ["--input", "a.png", "--output", "out"], "fuse save": ["--output", "out"]}
    arguments = [*required.get(command, []), "--config-file", CONFIG, "--plugin", "t_absent"]
    ran = segkit(tmp_path, *command.split(), *arguments)
    assert ran.returncode == 1
    assert "there is no plugin 't_absent'" in ran.stderr
    assert "Traceback" not in ran.stderr
