"""Every code block of the pages is run on toy data: Python, commands and configs.

Trainings are not run, since they need real data: their options, recipes and keys are checked.
"""

from __future__ import annotations

import inspect
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from torch.distributed.run import get_args_parser

from segkit.cli.main import main
from segkit.config import load_config
from segkit.data import catalog
from segkit.data.catalog import load_dataset
from segkit.data.datasets.custom import register_custom
from segkit.engine import register
from segkit.structures import architecture_spec
from segkit.utils import plugins
from segkit.utils.config_files import find_config_file
from segkit.utils.errors import ConfigError
from segkit.utils.signals import SIGNAL_BASE
from tests.helpers import docs_workspace, saved_heads
from tests.helpers.code_blocks import ROOT, Block, Command, expand, list_pages, parse_segkit, parse_shell, read_blocks

BLOCKS = [block for page in list_pages() for block in read_blocks(page)]
PYTHON, YAML, SHELL, TREE = "python", "yaml", "", "text"
# Fragments show what is special about a file: the other names are those of the examples that docs/extending.md names.
EXAMPLES = {
    "segkit/data/datasets/mine.py": ["segkit.data.datasets.voc"],
    "segkit/formats/mine.py": ["segkit.formats.base", "segkit.formats.voc.reader", "segkit.formats.voc.writer"],
    "segkit/fusion/mine.py": ["segkit.fusion.heuristic", "segkit.fusion"],
    "segkit/modeling/meta_arch/mine.py": ["segkit.modeling.meta_arch.panoptic_rcnn"],
}
JOBS = 16  # that README.md starts
PLUGIN = "my_plugin.py"  # a block of docs/extending.md
OTHER_PLUGINS = ("other_plugin.py", "path/to/my_heads.py")


def select(language: str) -> Any:
    chosen = [block for block in BLOCKS if block.language == language]
    return pytest.mark.parametrize("block", chosen, ids=str)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        docs_workspace.build(folder)
        plugin = next(block.code for block in BLOCKS if block.code.startswith(f"# {PLUGIN}\n"))
        (folder / PLUGIN).write_text(plugin, encoding="utf-8")
        for name in OTHER_PLUGINS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    return folder


@pytest.fixture
def folder(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a block; what the block registers is forgotten after it."""
    docs_workspace.link(workspace, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    with forgetting():
        yield


@contextmanager
def forgetting() -> Iterator[None]:
    """What is registered or imported as a plugin in the block is forgotten after it, as if a process had ended."""
    register()  # what a process registers once stays
    datasets, modules = set(DatasetCatalog), set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_plugins", {})
        patch.delenv(plugins.ENVIRONMENT, raising=False)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(META_ARCH_REGISTRY, "_obj_map", dict(META_ARCH_REGISTRY._obj_map))
        patch.setattr(architecture_spec, "_specs", dict(architecture_spec._specs))
        for name in ("_loaders", "_loaded", "_known_categories"):
            patch.setattr(catalog, name, dict(getattr(catalog, name)))
        yield
    for name in set(DatasetCatalog) - datasets:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name, None)
    for name in {Path(name).stem for name in (PLUGIN, *OTHER_PLUGINS)} - modules:
        sys.modules.pop(name, None)


def test_commands_are_read_as_a_shell_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "# a comment\nA=1,2 segkit data \\\n  check [--fix DIR] [--all] 'a b' # more\n\nmake test\n"
    assert parse_shell(code) == [
        Command({"A": "1,2"}, "segkit", ["data", "check", "--fix", "DIR", "--all", "a b"]),
        Command({}, "make", ["test"]),
    ]
    monkeypatch.chdir(tmp_path)
    for name in ("b.npz", "a.npz"):
        (tmp_path / name).touch()
    assert expand(["*.npz", "*.json"], 2) == [["a.npz", "b.npz", "*.json"]]
    assert expand(["$I/2"], 2) == [["1/2"], ["2/2"]]


@pytest.mark.parametrize(
    "code",
    [
        "segkit trian --config-file configs/toy/panoptic_rcnn_R18_FPN.yaml",
        "segkit train --num-gpu 8 --config-file configs/toy/panoptic_rcnn_R18_FPN.yaml",
        "segkit train --config-file configs/toy/gone.yaml",
        "segkit train --config-file configs/toy/panoptic_rcnn_R18_FPN.yaml SOLVER.MAX_ITERS 3",
        "segkit train --config-file configs/toy/panoptic_rcnn_R18_FPN.yaml OUTPUT_DIR",
        "segkit fuse priors --gt J.json",
        "segkit fuse methods --all",
        "make tests",
        "make test PYTHON_VERSIONS=3.12",
        "pip install '.[training]'",
        "python tools/gone.py",
    ],
)
def test_wrong_commands_fail(code: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = parse_shell(code)
    with pytest.raises((AssertionError, ConfigError, pytest.fail.Exception)):
        CHECKS[command.program](command, capsys)


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert BLOCKS
    for block in BLOCKS:
        assert block.language in (PYTHON, YAML, SHELL, TREE), block
    fences = sum(
        len(re.findall(r"^\s*(?:```|~~~)", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in list_pages()
    )
    assert fences == 2 * len(BLOCKS)


@select(TREE)
def test_trees_of_files_hold_nothing_else(block: Block) -> None:
    for line in block.code.splitlines():
        words = line.partition(" #")[0].split()
        assert words
        assert all(re.search(r"[/.]", word) for word in words), line


@select(PYTHON)
def test_python_blocks_run(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=Executor))
    names: dict[str, Any] = {"__name__": "example"}
    title = re.match(r"# (segkit/\S+)\n", block.code)
    for module in EXAMPLES[title[1]] if title else ():
        names.update(vars(import_module(module)), __name__="example")
    if "head_outputs" in block.code:
        names["head_outputs"] = saved_heads.outputs(0)
    registered = set(DatasetCatalog)
    exec(compile(block.code, str(block), "exec", dont_inherit=True), names)
    for name in set(DatasetCatalog) - registered:
        if "[...]" in block.code:  # the reader's own dicts
            assert DatasetCatalog.get(name) == [...]
        else:
            assert load_dataset(name).records
    if title and "register" in names and "def register(" in block.code:
        names["register"](folder)
        assert set(DatasetCatalog) > registered


class Executor:
    """In place of submitit's, which needs Slurm: checks what it would run."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def update_parameters(self, **parameters: int) -> None:
        assert parameters["tasks_per_node"] == parameters["gpus_per_node"]

    def submit(self, function: Any, *arguments: Any, **keywords: Any) -> None:
        bound = inspect.signature(function).bind(*arguments, **keywords).arguments
        load_config(find_config_file(bound["config_file"]), bound["opts"])


@select(YAML)
def test_configs_are_read(block: Block, folder: Path) -> None:
    (folder / "my.yaml").write_text(block.code, encoding="utf-8")
    content = yaml.safe_load(block.code)
    cfg = load_config(folder / "my.yaml")
    custom = content.get("DATASETS", {}).get("CUSTOM", [])
    register_custom(cfg.DATASETS.CUSTOM)
    for entry in custom:
        assert load_dataset(entry["name"]).records
    if custom and "TRAIN" in content["DATASETS"]:
        assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} == {entry["name"] for entry in custom}


@select(SHELL)
def test_commands_run(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "my.yaml").write_text("_BASE_: coco/panoptic_rcnn_R50_FPN_1x\n", encoding="utf-8")
    commands = parse_shell(block.code)
    assert commands
    for command in commands:
        with forgetting(), monkeypatch.context() as patch:
            for name, value in command.variables.items():
                patch.setenv(name, value)
            CHECKS[command.program](command, capsys)


def check_segkit(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in expand(command.arguments, JOBS):
        try:
            args = parse_segkit(arguments)
        except SystemExit:
            pytest.fail(f"segkit {' '.join(arguments)}: {capsys.readouterr().err}")
        if arguments[0] == "train":
            plugins.load_plugins([*plugins.get_environment_plugins(), *args.plugins])
            assert args.config_file
            cfg = load_config(args.config_file, args.opts)
            assert cfg.MODEL.META_ARCHITECTURE in META_ARCH_REGISTRY
        else:
            code = main(arguments)
            assert code == 0, (arguments, capsys.readouterr())


def check_make(command: Command, _: Any) -> None:
    """Targets, and variables as in NAME=VALUE."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = {word.partition("=")[0] for word in command.arguments if "=" in word}
    assert variables <= set(re.findall(r"^(\w+) \?=", makefile, re.MULTILINE)), command
    targets = {word for word in command.arguments if "=" not in word}
    assert targets
    assert targets <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE)), command


def check_pip(command: Command, _: Any) -> None:
    """`pip install .` or `pip install ".[EXTRA,...]"`, or the same from what `make wheelhouse` collects."""
    assert command.arguments[0] == "install"
    packages = command.arguments[1:]
    if packages[:3] == ["--no-index", "--find-links", "wheelhouse"]:
        packages = [name for name in packages[3:] if name != "detectron2"]
    assert packages
    extras = json.loads((ROOT / "segkit/requirements.json").read_text(encoding="utf-8"))["extras"]
    for package in packages:
        match = re.fullmatch(r"(?:\.|segkit)(?:\[([\w,]+)\])?", package)
        assert match, package
        assert set((match[1] or "").split(",")) - {""} <= set(extras), package


def check_python(command: Command, _: Any) -> None:
    assert (ROOT / command.arguments[0]).is_file(), command


def check_torchrun(command: Command, capsys: Any) -> None:
    """Its own options, then those of the training."""
    args = get_args_parser().parse_args(command.arguments)
    assert args.training_script == "tools/train_net.py"
    check_segkit(Command({}, "segkit", ["train", *args.training_script_args]), capsys)


def check_sbatch(command: Command, capsys: Any) -> None:
    script = ROOT / command.arguments[0]
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert re.search(r"^srun .* python tools/train_net.py --resume \"\$@\"$", text, re.MULTILINE)
    assert f'"$code" -eq {SIGNAL_BASE + signal.SIGUSR2}' in text
    check_segkit(Command({}, "segkit", ["train", "--resume", *command.arguments[1:]]), capsys)


CHECKS = {"segkit": check_segkit, "make": check_make, "pip": check_pip, "python": check_python}
CHECKS |= {"torchrun": check_torchrun, "sbatch": check_sbatch}
