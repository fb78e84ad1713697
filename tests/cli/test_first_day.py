"""The first day of a user: the wheel in a fresh environment and an empty folder, from the recipes to a comparison.

The environment has segkit's wheel. The other packages are those of the environment of the tests: nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from segkit.utils.config_files import list_recipes
from tests.helpers.wheels import build_wheel

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "helpers/detectron2_script.py"
SMALL = """MODEL.DEVICE cpu MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16
    MODEL.SEM_SEG_HEAD.CONVS_DIM 32 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 2
    DATALOADER.NUM_WORKERS 0 SOLVER.MAX_ITER"""
PANOPTIC, INSTANCES, SEMANTIC = "PanopticRCNN", "GeneralizedRCNN", "SemanticSegmentor"
# format -> (model, options that read what `segkit data convert` writes into the folder of the same name)
FORMATS = {
    "coco-panoptic": (PANOPTIC, {"json": "panoptic.json", "masks": "panoptic", "images": "images"}),
    "coco-instances": (INSTANCES, {"json": "instances.json", "images": "images"}),
    "voc": (PANOPTIC, {"root": "."}),
    "semantic-maps": (SEMANTIC, {"root": "."}),
    "instance-maps": (PANOPTIC, {"root": "."}),
    "labelme": (PANOPTIC, {"root": ".", "stuff": ["grass", "gravel", "water", "sky"]}),
    "yolo": (INSTANCES, {"root": "."}),
    "ade20k": (PANOPTIC, {"root": "."}),
    "two-channel-png": (PANOPTIC, {"masks": "masks", "images": "images", "categories": "categories.json"}),
}
PATHS = ("root", "json", "masks", "images", "categories")


class Shell:
    """Runs programs of the fresh environment in the user's folder, as a shell does."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.programs, self.folder = environment / "bin", folder
        self.variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SEGKIT"))
        }
        self.variables |= {"PATH": f"{self.programs}:{os.environ['PATH']}", "SEGKIT_CACHE": str(folder / ".cache")}

    def __call__(self, program: str, *arguments: object, code: int = 0) -> str:
        """What the program prints; a failure if its exit code is another one or if it prints a traceback."""
        command = [str(self.programs / program), *map(str, arguments)]
        ran = subprocess.run(command, cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=300)
        output = ran.stdout + ran.stderr
        assert (ran.returncode, "Traceback" in output) == (code, False), f"{command}\n{output[-4000:]}"
        return output


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and with the other packages of the tests' environment behind it."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, build_wheel(folder / "wheel")], check=True)
    specs = [find_spec(name) for name in ("torch", "detectron2", "numpy")]
    packages = {Path(str(spec.origin)).parents[1] for spec in specs if spec} | {Path(sysconfig.get_path("purelib"))}
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    Path(site, "packages_of_the_tests.pth").write_text("".join(f"{path}\n" for path in sorted(packages)))
    return folder / "venv"


@pytest.fixture(scope="module")
def shell(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(environment, tmp_path_factory.mktemp("empty"))


def test_the_first_day(shell: Shell) -> None:
    look_around(shell)
    run_the_demo(shell)
    run_a_detectron2_script(shell)
    for name in FORMATS:
        train_on_a_format(shell, name)
    use_a_trained_model(shell)


def look_around(shell: Shell) -> None:
    place = shell("python", "-c", "import segkit; print(segkit.__file__)")
    assert Path(place).is_relative_to(shell.programs.parent), "the wheel is tested, not the checkout"
    assert [line.split()[0] for line in shell("segkit", "configs").splitlines()] == [*list_recipes()]
    assert "list the recipes" in shell("segkit", "--help")
    assert "All needed packages work" in shell("segkit", "doctor")
    assert "detectron2 is already installed" in shell("segkit", "doctor", "--install-detectron2")
    assert "did you mean coco/panoptic_rcnn_R50_FPN_3x?" in shell(
        "segkit", "train", "--config-file", "coco/panoptic_rcnn_R50_FPN_x3", code=1
    )
    missing = shell("segkit", "train", "--config-file", "coco/mask_rcnn_R50_FPN_1x", code=1)
    assert "instances_train2017.json: expected a file, found nothing" in missing


def run_the_demo(shell: Shell) -> None:
    printed = shell("segkit", "demo", *SMALL.split(), 3)
    for path in ("output/demo/report.html", "output/demo/grid.png", "output/demo/model_final.pth"):
        assert path in printed.replace("\n", "")
        assert (shell.folder / path).is_file()
    metrics = json.loads((shell.folder / "output/demo/metrics.json").read_text())
    assert set(metrics) - {"notes"} == {"panoptic_seg", "bbox", "segm", "sem_seg"}


def run_a_detectron2_script(shell: Shell) -> None:
    shell("segkit", "data", "toy", "--output", "scenes", "--images", 8, "--seed", 3)
    shutil.copy(SCRIPT, shell.folder / "script.py")
    (shell.folder / "script").mkdir()
    printed = shell("python", "script.py", "scenes", "script")
    assert "PanopticRCNN" in printed
    assert "predicted 128 128" in printed


def train_on_a_format(shell: Shell, name: str) -> None:
    """Convert the scenes, check them, and train one iteration with a recipe as the base of the user's config."""
    model, options = FORMATS[name]
    scenes = ["--json", "scenes/panoptic.json", "--masks", "scenes/panoptic", "--images", "scenes/images"]
    split = ["--to-set", "split=train"] if name in ("voc", "yolo", "ade20k") else []
    shell("segkit", "data", "convert", "--from", "coco-panoptic", *scenes, "--to", name, *split, "--output", name)
    entry = {key: os.path.join(name, value) if key in PATHS else value for key, value in options.items()}
    entry |= {"split": "train"} if split else {}
    flags = [word for key in PATHS if key in entry for word in (f"--{key}", entry[key])]
    settings = [f"{key}={json.dumps(value)}" for key, value in entry.items() if key not in PATHS]
    shell("segkit", "data", "check", "--format", name, *flags, *(["--set", *settings] if settings else []))
    datasets = {"CUSTOM": [{"name": "mine", "format": name, **entry}], "TRAIN": ["mine"], "TEST": ["mine"]}
    config = {"_BASE_": "toy/panoptic_rcnn_R18_FPN", "DATASETS": datasets, "OUTPUT_DIR": f"runs/{name}"}
    config |= {"MODEL": {"META_ARCHITECTURE": model}}
    (shell.folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    printed = shell("segkit", "train", "--config-file", name, *SMALL.split(), 1)
    assert f"runs/{name}/report.html" in printed
    tasks = {PANOPTIC: {"panoptic_seg", "bbox", "segm", "sem_seg"}, INSTANCES: {"bbox", "segm"}, SEMANTIC: {"sem_seg"}}
    assert set(json.loads((shell.folder / f"runs/{name}/metrics.json").read_text())) - {"notes"} == tasks[model]


def use_a_trained_model(shell: Shell) -> None:
    """Predict, evaluate, compare with the ground truth, and convert the predictions."""
    run = "runs/coco-panoptic"
    shell(
        "segkit", "predict", "--config-file", f"{run}/config.yaml", "--input", "scenes/images", "--output", "predicted"
    )
    for name, prediction in (("model", "predicted/panoptic.json"), ("truth", "scenes/panoptic.json")):
        counts = ["--save-counts", f"{name}.npz"]
        shell("segkit", "evaluate", "panoptic", "--gt", "scenes/panoptic.json", "--pred", prediction, *counts)
    assert "better" in shell("segkit", "compare", "model.npz", "truth.npz")
    predictions = ["--json", "predicted/panoptic.json", "--masks", "predicted/panoptic", "--images", "scenes/images"]
    to = ["--to", "coco-panoptic", "--output", "converted"]
    shell("segkit", "data", "convert", "--from", "panoptic-predictions", *predictions, *to)
    assert (shell.folder / "converted/panoptic.json").is_file()
    shell("segkit", "completion", "bash")
