"""tools/test_matrix.py runs `make test` with each Python that it finds, and goes on after failures."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "test_matrix.py"
# 3.10 comes from PATH, 3.11 is a shim that fails, 3.12 has two pyenv versions, 3.13 is missing.
MAKE = """#!/bin/sh
echo "$@" >> made.txt
for argument in "$@"; do case $argument in VENV=*) /bin/mkdir -p ${argument#VENV=};; esac; done
case "$*" in
*python3.10*CONSTRAINTS*) echo "========== 7 passed, 1 skipped in 3.21s =========="; exit 0;;
*python3.10*) echo "make: *** [Makefile:64: lint] Error 1"; exit 2;;
*) echo "=== 1 failed, 4 passed in 1.00s ==="; echo "=== 5 passed in 2.00s ==="; exit 0;;
esac
"""


def write_command(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The script for a checkout in tmp_path, where `make` and every Python are shell scripts."""
    spec = importlib.util.spec_from_file_location("matrix", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    commands, versions = tmp_path / "bin", tmp_path / "pyenv" / "versions"
    write_command(commands / "make", MAKE)
    write_command(commands / "python3.10", "#!/bin/sh\necho 3.10\n")
    write_command(commands / "python3.11", "#!/bin/sh\necho 'pyenv: python3.11: command not found' >&2\nexit 127\n")
    for version in ("3.12.9", "3.12.10"):
        write_command(versions / version / "bin" / "python", "#!/bin/sh\necho 3.12\n")
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.setenv("PYENV_ROOT", str(versions.parent))
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "constraints.txt").write_text("numpy==2.4.6\ntorch==2.15.0\ntorchvision==0.29.2\ntriton==3.9.0\n")
    return module


def test_every_python_has_an_environment_of_its_own_and_failures_stop_nothing(matrix, tmp_path, capsys):
    matrix.REQUIREMENTS["extras"]["train"] = ["torch>=2.4", "torchvision>=0.19", "tqdm>4.29.0"]
    assert matrix.main([]) == 1
    made = (tmp_path / "made.txt").read_text().splitlines()
    assert made == [
        f"test PYTHON={tmp_path}/bin/python3.10 VENV=.venv-3.10",
        f"test PYTHON={tmp_path}/pyenv/versions/3.12.10/bin/python VENV=.venv-3.12",
        f"test PYTHON={tmp_path}/bin/python3.10 VENV=.venv-oldest-torch CONSTRAINTS=output/test-matrix/constraints.txt",
    ]
    constraints = (tmp_path / "output/test-matrix/constraints.txt").read_text()
    assert constraints == "numpy==2.4.6\ntorch==2.4\ntorchvision==0.19\n"
    table = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[-5:]]
    assert table == [
        "3.10 failed 0.0 min make: *** [Makefile:64: lint] Error 1 (output/test-matrix/3.10.log)",
        "3.11 not found neither on PATH nor in pyenv",
        "3.12 passed 0.0 min 1 failed, 4 passed; 5 passed (output/test-matrix/3.12.log)",
        "3.13 not found neither on PATH nor in pyenv",
        "oldest-torch passed 0.0 min 7 passed, 1 skipped (output/test-matrix/oldest-torch.log)",
    ]
    assert (tmp_path / ".venv-3.10").exists()


def test_an_environment_is_removed_if_asked(matrix, tmp_path):
    assert matrix.main(["3.12", "--remove"]) == 0
    assert not (tmp_path / ".venv-3.12").exists()


def test_the_constraints_stay_untouched_if_they_are_the_same(matrix):
    """make would install everything again."""
    (matrix.ROOT / matrix.LOGS).mkdir(parents=True)
    path = matrix.ROOT / matrix.write_constraints()
    written = path.stat().st_mtime_ns
    matrix.write_constraints()
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize(("runs", "code"), [(["3.13"], 1), (["3.12", "3.13"], 0)])
def test_a_missing_python_is_no_failure_but_nothing_passed_is(matrix, runs, code):
    assert matrix.main(runs) == code


def test_unknown_runs_are_refused(matrix, capsys):
    with pytest.raises(SystemExit):
        matrix.main(["3.9"])
    assert "expected runs of ['3.10', '3.11', '3.12', '3.13', 'oldest-torch'], got ['3.9']" in capsys.readouterr().err


def test_the_oldest_torch_is_named_by_the_requirements():
    """Both have a lower bound, which `make test-matrix` installs."""
    train = json.loads((ROOT / "segkit/requirements.json").read_text())["extras"]["train"]
    assert len([line for line in train if line.startswith(("torch>=", "torchvision>="))]) == 2


def test_make_test_matrix_runs_it():
    ran = subprocess.run(["make", "-n", "test-matrix", "VENV=none"], cwd=ROOT, capture_output=True, text=True)
    assert "tools/test_matrix.py" in ran.stdout


def test_the_readme_names_the_oldest_torch():
    train = json.loads((ROOT / "segkit/requirements.json").read_text())["extras"]["train"]
    (oldest,) = (line.removeprefix("torch>=") for line in train if line.startswith("torch>="))
    for page in ("README.md", "CHANGELOG.md"):
        assert f"torch {oldest} and later" in " ".join((ROOT / page).read_text(encoding="utf-8").split())
