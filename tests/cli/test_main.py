"""The command line itself: commands, help, exit codes, imports, and errors as one line."""

import argparse
import inspect
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from segkit import __version__
from segkit.cli import compare, train
from segkit.cli import main as main_module
from segkit.cli.main import COMMANDS, TRAIN_PACKAGES, main
from segkit.engine.environment import get_module_name, load_requirements
from segkit.metrics.panoptic import bootstrap
from segkit.utils.errors import ConfigError, DatasetError


def fake_command(monkeypatch, run):
    """Add a command `fake` with this function `run(args)`."""
    module = types.ModuleType("fake_module")
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=0)
    module.run = run
    monkeypatch.setitem(sys.modules, "fake_module", module)
    monkeypatch.setitem(COMMANDS, "fake", ("fake_module", "does nothing to COCO"))


def raising(error):
    def run(args):
        raise error

    return run


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_every_command(capsys, arguments):
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for command, (_module, summary) in COMMANDS.items():
        assert f"  {command:<{max(map(len, COMMANDS))}}  {summary}" in lines


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"segkit {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "segkit train"), ("PREDICT", "segkit predict"), ("--json", None)]
)
def test_unknown_commands_get_a_suggestion(capsys, typed, meant):
    assert main([typed]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert repr(typed) in captured.err
    assert f"did you mean `{meant}`" in captured.err if meant else "did you mean" not in captured.err


def test_a_command_gets_its_arguments_and_gives_the_exit_code(monkeypatch, capsys):
    fake_command(monkeypatch, lambda args: args.number)
    assert main(["fake", "--number", "7"]) == 7
    assert main(["fake"]) == 0
    assert main(["fake", "--help"]) == 0
    assert "usage: segkit fake" in (help_text := capsys.readouterr().out)
    assert "Does nothing to COCO." in help_text
    assert main(["fake", "--numbre", "7"]) == 2
    assert main(["fake", "--num", "7"]) == 2, "abbreviations would change their meaning with each added option"
    assert "segkit fake: error: unrecognized arguments: --num 7" in capsys.readouterr().err


def test_arguments_come_from_the_command_line(monkeypatch):
    fake_command(monkeypatch, lambda args: args.number)
    monkeypatch.setattr(sys, "argv", ["segkit", "fake", "--number", "3"])
    assert main() == 3


def test_errors_of_users_are_one_line(monkeypatch, capsys):
    monkeypatch.delenv("SEGKIT_DEBUG", raising=False)
    fake_command(monkeypatch, raising(DatasetError("two\nlines", where="a.json", remedy="repair it")))
    assert main(["fake"]) == 1
    assert capsys.readouterr().err == "segkit fake: a.json: two lines; repair it\n"


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_debug_adds_the_traceback(monkeypatch, capsys, value, shown):
    monkeypatch.setenv("SEGKIT_DEBUG", value)
    fake_command(monkeypatch, raising(ConfigError("no such key")))
    assert main(["fake"]) == 1
    error = capsys.readouterr().err
    assert ("Traceback" in error) is shown
    assert error.endswith("segkit fake: no such key\n")


def test_program_errors_keep_their_traceback(monkeypatch):
    for program_error in (ZeroDivisionError("x"), ImportError("cannot import name 'x'", name="segkit.data")):
        fake_command(monkeypatch, raising(program_error))
        with pytest.raises(type(program_error)):
            main(["fake"])


@pytest.mark.parametrize(
    ("module", "has_torch", "install"),
    [
        ("torch", False, "pip install 'segkit[train]', then segkit doctor --install-detectron2"),
        ("yacs.config", True, "pip install 'segkit[train]', then segkit doctor --install-detectron2"),
        ("detectron2.config", False, "pip install 'segkit[train]', then segkit doctor --install-detectron2"),
        ("detectron2.config", True, "segkit doctor --install-detectron2"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(monkeypatch, capsys, module, has_torch, install):
    fake_command(monkeypatch, raising(ModuleNotFoundError(f"No module named {module!r}", name=module)))
    monkeypatch.setattr(main_module.importlib.util, "find_spec", lambda name: has_torch or None)
    assert main(["fake"]) == 1
    package = module.partition(".")[0]
    expected = f"segkit fake: needs the extra 'train' ({package} is not installed): {install}\n"
    assert capsys.readouterr().err == expected


def test_every_package_of_an_extra_maps_to_the_extra():
    """The mapping uses import names. setuptools and packaging are left out: most environments have them."""
    names = {re.split(r"[<>=]", line)[0] for line in load_requirements()["extras"]["train"]}
    modules = {get_module_name(name) for name in names - {"packaging", "setuptools"}}
    assert modules <= TRAIN_PACKAGES


def test_a_missing_package_points_to_the_doctor(monkeypatch, capsys):
    fake_command(monkeypatch, raising(ModuleNotFoundError("No module named 'cv2'", name="cv2")))
    assert main(["fake"]) == 1
    expected = "segkit fake: cv2 is not installed; `segkit doctor` prints the command that repairs it\n"
    assert capsys.readouterr().err == expected
    fake_command(monkeypatch, raising(ImportError("Cannot import 'detectron2._C'")))
    assert main(["fake"]) == 1
    assert "Cannot import 'detectron2._C'; `segkit doctor`" in capsys.readouterr().err


def test_the_import_of_a_command_may_fail(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "fake", ("a_package_that_is_not_there.command", "nothing"))
    assert main(["fake"]) == 1
    assert "a_package_that_is_not_there is not installed" in capsys.readouterr().err


class Broken:
    """A dataset that cannot read its images."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise DatasetError(f"image {index} is incomplete", where="a.png")


def test_errors_in_a_data_loader_worker_are_the_same_line(monkeypatch, capsys):
    torch = pytest.importorskip("torch", reason="needs torch's data loader")
    fake_command(monkeypatch, lambda args: list(torch.utils.data.DataLoader(Broken(), num_workers=1)))
    assert main(["fake"]) == 1
    assert capsys.readouterr().err == "segkit fake: a.png: image 0 is incomplete\n"


SPAWN = """
import sys
from segkit.cli import main as m
from segkit.utils.errors import DatasetError

def add_arguments(parser): pass

def run(args):
    import torch.multiprocessing as mp
    mp.spawn(work, nprocs=1)

def work(rank):
    raise DatasetError("rank %d found nothing" % rank, where="a.json") from ValueError("inner")

if __name__ == "__main__":
    m.COMMANDS["fake"] = ("spawning", "does nothing")
    sys.exit(m.main(["fake"]))
"""


def test_errors_in_a_spawned_process_are_the_same_line(tmp_path):
    pytest.importorskip("torch", reason="needs torch's processes")
    (tmp_path / "spawning.py").write_text(SPAWN)
    ran = python("spawning.py", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "segkit fake: a.json: rank 0 found nothing"
    assert "Traceback" not in ran.stderr


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    fake_command(monkeypatch, raising(KeyboardInterrupt()))
    assert main(["fake"]) == 130
    assert capsys.readouterr().err == "segkit fake: interrupted\n"


LOUD = """
import logging, sys
from segkit.cli import main as m
def add_arguments(parser): pass
def run(args):
    for i in range(100_000):
        write(i)
    return 0
def write(i): print('line', i)
m.COMMANDS['fake'] = ('loud', 'loud')
"""
LOGGING = """
handler = logging.StreamHandler(sys.stdout)
def write(i): handler.handle(logging.makeLogRecord({'msg': 'line'}))
"""
RUN = "if __name__ == '__main__': sys.exit(m.main(['fake']))\n"


@pytest.mark.parametrize(
    ("source", "printed"),
    [
        (LOUD + RUN, ["line 0\n141\n"]),
        (LOUD + LOGGING + RUN, ["line\n141\n", "line\n0\n"]),  # 0: lines of a log are left out
    ],
)
def test_a_closed_stdout_is_not_an_error(tmp_path, source, printed):
    (tmp_path / "loud.py").write_text(source)
    command = f"{sys.executable} loud.py 2>errors | head -n 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout in printed
    assert (tmp_path / "errors").read_text() == ""


def run_redirected(arguments, redirections, unbuffered=""):
    """The exit code of `segkit ARGUMENTS REDIRECTIONS`, and what is written to the streams that are left.

    `| true` reads nothing, so that writing into the pipe fails.
    """
    segkit = f"{sys.executable} -m segkit {arguments}"
    code = f"{{ {segkit} {redirections}; echo code ${{PIPESTATUS[0]}}; }} 2>&1"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    output = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment).stdout
    assert "Traceback" not in output
    assert "Exception ignored" not in output
    text, _, number = output.rpartition("code ")
    return int(number), text


@pytest.mark.parametrize(
    ("redirections", "unbuffered", "code"),
    [("| true", "", 141), ("| true", "1", 141), ("2>&1 | true", "", 141), (">&-", "", 0), (">&- 2>&-", "", 0)],
)
@pytest.mark.parametrize("arguments", ["--help", "--version", "configs", "data check --help", "fuse methods"])
def test_a_closed_stdout_is_not_an_error_of_any_command(arguments, redirections, unbuffered, code):
    if (arguments, unbuffered) == ("data check --help", "1"):
        code = 0  # argparse does not say that it could not write its help
    assert run_redirected(arguments, redirections, unbuffered) == (code, "")


@pytest.mark.parametrize("redirections", ["2>&1 | true", "2>&-", ">&- 2>&-", "2>/dev/full"])
@pytest.mark.parametrize(("arguments", "code"), [("trian", 2), ("train --resum", 2), ("configs --copy gone", 1)])
def test_errors_keep_their_exit_code_if_stderr_is_closed(arguments, redirections, code):
    if "full" in redirections and not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    assert run_redirected(arguments, redirections) == (code, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["--help", "--version", "configs", "data check --help"])
def test_a_full_disk_behind_stdout_is_one_line(arguments):
    code, output = run_redirected(arguments, ">/dev/full")
    assert (code, output.count("\n")) == (1, 1)
    assert output.startswith("segkit")
    assert "No space left on device; check" in output


def imported_modules(*arguments):
    """The modules that `segkit ARGUMENTS` imports, measured in a new interpreter."""
    code = f"import sys; from segkit.cli.main import main; main({[*arguments]!r}); print(*sys.modules)"
    return set(python("-c", code).stdout.splitlines()[-1].split())


def test_the_help_imports_no_other_package():
    modules = imported_modules("--help")
    assert "segkit.cli.main" in modules
    assert not modules & {"torch", "numpy", "rich", "detectron2", "numba", "cv2"}
    own = {module for module in modules if module.startswith("segkit")}
    assert own == {"segkit", "segkit.cli", "segkit.cli.main"}


@pytest.mark.parametrize("kind", [(), ("panoptic",), ("instances",), ("semantic",), ("merge",)])
def test_the_help_of_evaluate_is_cheap(kind):
    assert not imported_modules("evaluate", *kind, "--help") & {"torch", "detectron2", "numba", "cv2", "numpy"}


@pytest.mark.parametrize(
    "command", [["fuse"], ["fuse", "sweep"], ["data"], ["data", "check"], ["predict"], ["demo"], ["compare"]]
)
def test_the_help_of_other_commands_is_cheap(command):
    assert not imported_modules(*command, "--help") & {"torch", "detectron2", "numba", "cv2"}


def test_the_help_of_compare_shows_the_defaults_of_the_bootstrap():
    parameters = inspect.signature(bootstrap.compare).parameters
    defaults = [parameters[name].default for name in ("samples", "seed", "level")]
    assert defaults == [compare.SAMPLES, compare.SEED, compare.LEVEL]


def test_the_help_of_train_imports_no_detectron2():
    assert not imported_modules("train", "--help") & {"torch", "detectron2", "fvcore", "numpy"}


LAUNCH_ARGUMENTS = ("num_gpus", "num_machines", "machine_rank", "dist_url")  # None, if they are not given


def test_train_has_detectron2s_arguments():
    engine = pytest.importorskip("detectron2.engine", reason="compares with Detectron2")
    ours = argparse.ArgumentParser()
    train.add_arguments(ours)
    for words in (
        [],
        [
            "--config-file",
            "a.yaml",
            "--eval-only",
            "--num-gpus",
            "2",
            "--num-machines",
            "3",
            "--machine-rank",
            "1",
            "--dist-url",
            "auto",
        ],
        ["--resume", "MODEL.WEIGHTS", "w.pth"],
    ):
        parsed = vars(ours.parse_args(words))
        assert (parsed.pop("plugins"), parsed.pop("replay")) == ([], None)  # segkit's own
        theirs = vars(engine.default_argument_parser().parse_args(words))
        assert parsed == (theirs if "--num-gpus" in words else {**theirs, **dict.fromkeys(LAUNCH_ARGUMENTS)})


@pytest.mark.parametrize("command", ["doctor", "configs"])
def test_commands_that_help_to_install_need_no_package(command):
    """-S: no site-packages."""
    code = f"import sys; from segkit.cli.main import main; sys.exit(main([{command!r}, '--help']))"
    environment = {**os.environ, "PYTHONPATH": str(Path(main_module.__file__).parents[2])}
    ran = python("-S", "-c", code, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_package_runs_as_a_module():
    ran = python("-m", "segkit", "--version")
    assert (ran.returncode, ran.stdout) == (0, f"segkit {__version__}\n")


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_a_description(capsys, command):
    assert main([command, "--help"]) == 0
    assert f"usage: segkit {command}" in capsys.readouterr().out


def test_every_command_has_a_module():
    modules = {module for module, _summary in COMMANDS.values()}
    names = {"import": "import_weights"}  # a word of Python
    assert modules == {f"{main_module.__package__}.{names.get(command, command)}" for command in COMMANDS}
