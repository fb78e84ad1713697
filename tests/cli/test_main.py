"""The command line itself: verbs, help, exit codes, and errors as one line."""

import subprocess
import sys
import types

import pytest
import torch

from segkit import __version__
from segkit.cli import main as main_module
from segkit.cli.main import VERBS, main
from segkit.utils.errors import ConfigError, DatasetError


def with_verb(monkeypatch, run):
    """A verb `fake` of which `run(args)` is given."""
    module = types.ModuleType("fake_verb")
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=0)
    module.run = run
    monkeypatch.setitem(sys.modules, "fake_verb", module)
    monkeypatch.setitem(VERBS, "fake", ("fake_verb", "does nothing to COCO"))


def raising(error):
    def run(args):
        raise error

    return run


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_every_verb(capsys, arguments):
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb, (_module, does) in VERBS.items():
        assert f"  {verb:<{max(map(len, VERBS))}}  {does}" in lines


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"segkit {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "segkit train"), ("PREDICT", "segkit predict"), ("--json", None)]
)
def test_unknown_verbs_get_a_suggestion(capsys, typed, meant):
    assert main([typed]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert repr(typed) in captured.err
    assert f"did you mean `{meant}`" in captured.err if meant else "did you mean" not in captured.err


def test_a_verb_gets_its_arguments_and_gives_the_exit_code(monkeypatch, capsys):
    with_verb(monkeypatch, lambda args: args.number)
    assert main(["fake", "--number", "7"]) == 7
    assert main(["fake"]) == 0
    assert main(["fake", "--help"]) == 0
    assert "usage: segkit fake" in (help_text := capsys.readouterr().out)
    assert "Does nothing to COCO." in help_text
    assert main(["fake", "--numbre", "7"]) == 2
    assert main(["fake", "--num", "7"]) == 2, "abbreviations would change their meaning with each added option"
    assert "segkit fake: error: unrecognized arguments: --num 7" in capsys.readouterr().err


def test_arguments_come_from_the_command_line(monkeypatch):
    with_verb(monkeypatch, lambda args: args.number)
    monkeypatch.setattr(sys, "argv", ["segkit", "fake", "--number", "3"])
    assert main() == 3


def test_errors_of_users_are_one_line(monkeypatch, capsys):
    monkeypatch.delenv("SEGKIT_DEBUG", raising=False)
    with_verb(monkeypatch, raising(DatasetError("two\nlines", where="a.json", remedy="mend it")))
    assert main(["fake"]) == 1
    assert capsys.readouterr().err == "segkit fake: a.json: two lines; mend it\n"


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_debug_adds_the_traceback(monkeypatch, capsys, value, shown):
    monkeypatch.setenv("SEGKIT_DEBUG", value)
    with_verb(monkeypatch, raising(ConfigError("no such key")))
    assert main(["fake"]) == 1
    error = capsys.readouterr().err
    assert ("Traceback" in error) is shown
    assert error.endswith("segkit fake: no such key\n")


def test_faults_of_the_program_keep_their_traceback(monkeypatch):
    for fault in (ZeroDivisionError("x"), ImportError("cannot import name 'x'", name="segkit.data")):
        with_verb(monkeypatch, raising(fault))
        with pytest.raises(type(fault)):
            main(["fake"])


def test_a_missing_package_points_to_the_doctor(monkeypatch, capsys):
    with_verb(monkeypatch, raising(ModuleNotFoundError("No module named 'detectron2'", name="detectron2.config")))
    assert main(["fake"]) == 1
    assert capsys.readouterr().err == "segkit fake: detectron2 is not installed; `segkit doctor` says how to mend it\n"
    with_verb(monkeypatch, raising(ImportError("Cannot import 'detectron2._C'")))
    assert main(["fake"]) == 1
    assert "Cannot import 'detectron2._C'; `segkit doctor`" in capsys.readouterr().err


def test_the_verb_may_fail_on_import(monkeypatch, capsys):
    monkeypatch.setitem(VERBS, "fake", ("a_package_that_is_not_there.verb", "nothing"))
    assert main(["fake"]) == 1
    assert "a_package_that_is_not_there is not installed" in capsys.readouterr().err


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise DatasetError(f"image {index} is cut short", where="a.png")


def test_errors_in_a_data_loader_worker_are_the_same_line(monkeypatch, capsys):
    with_verb(monkeypatch, lambda args: list(torch.utils.data.DataLoader(Broken(), num_workers=1)))
    assert main(["fake"]) == 1
    assert capsys.readouterr().err == "segkit fake: a.png: image 0 is cut short\n"


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
    m.VERBS["fake"] = ("spawning", "does nothing")
    sys.exit(m.main(["fake"]))
"""


def test_errors_in_a_spawned_process_are_the_same_line(tmp_path):
    (tmp_path / "spawning.py").write_text(SPAWN)
    ran = python("spawning.py", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "segkit fake: a.json: rank 0 found nothing"
    assert "Traceback" not in ran.stderr


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    with_verb(monkeypatch, raising(KeyboardInterrupt()))
    assert main(["fake"]) == 130
    assert capsys.readouterr().err == "segkit fake: interrupted\n"


def test_a_reader_who_leaves_is_no_error(tmp_path):
    (tmp_path / "loud.py").write_text(
        "from segkit.cli import main as m\nimport sys\n"
        "def add_arguments(parser): pass\n"
        "def run(args):\n    for i in range(100_000): print('line', i)\n    return 0\n"
        "m.VERBS['fake'] = ('loud', 'loud')\n"
        "if __name__ == '__main__': sys.exit(m.main(['fake']))\n"
    )
    command = f"{sys.executable} loud.py 2>errors | head -n 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout == "line 0\n141\n"
    assert (tmp_path / "errors").read_text() == ""


def test_only_the_chosen_verb_is_imported():
    code = (
        "import sys; from segkit.cli.main import main; main(['--help']); "
        "print([m for m in ('torch', 'numpy', 'rich', 'detectron2', 'segkit.cli.train') if m in sys.modules])"
    )
    assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_the_package_runs_as_a_module():
    ran = python("-m", "segkit", "--version")
    assert (ran.returncode, ran.stdout) == (0, f"segkit {__version__}\n")


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_explains_itself(capsys, verb):
    assert main([verb, "--help"]) == 0
    assert f"usage: segkit {verb}" in capsys.readouterr().out


def test_every_verb_has_a_module():
    assert {module for module, _does in VERBS.values()} == {f"{main_module.__package__}.{verb}" for verb in VERBS}
