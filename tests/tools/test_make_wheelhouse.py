"""tools/make_wheelhouse.py: its arguments, what it prints, and that nothing half-written stays.

The slow test collects real wheels, if an index can be reached, and installs and trains from them without one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from segkit.engine import wheelhouse
from tests.helpers.tiny_wheels import make_pip, write_wheel

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "make_wheelhouse.py"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The script in the folder tmp_path, with tiny wheels and without pip."""
    spec = importlib.util.spec_from_file_location("make_wheelhouse", SCRIPT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "build_segkit", lambda copy, target: write_wheel(copy.parent, "segkit"))
    monkeypatch.setattr(module, "write_wheel", lambda folder: write_wheel(folder, "detectron2"))
    monkeypatch.setattr(wheelhouse, "run_pip", make_pip([]))
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield module
    signal.signal(signal.SIGTERM, handler)


def list_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_wheels_are_collected_and_what_the_cluster_must_have_is_named(tool, tmp_path, capsys):
    arguments = ["--python-version", "3.12", "--extras", "train", "--without", "torch,numpy opencv", "--max-mb", "60"]
    assert tool.main(arguments) == 0
    assert list_files(tmp_path / "wheelhouse") == [
        "big_image-3.0-py3-none-any.whl",
        "detectron2-0.7.2-py3-none-any.whl",
        "helper-1.0-py3-none-any.whl",
        "logs-2.0-py3-none-any.whl",
        "segkit-0.1-py3-none-any.whl",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "Collecting what segkit[train] needs on Python 3.12 on manylinux_2_28_x86_64 ...",
        "Downloading big-image logs",
        "Downloading helper",
        "wheelhouse: 5 wheels, 0.1 MB",
        "The cluster must have: numpy<3,>=1.24, torch>=2.4",
        "In WITHOUT, but needed by nothing here: opencv",
        'To install there: pip install --no-index --find-links wheelhouse "segkit[train]" detectron2',
    ]


def test_a_folder_of_wheels_is_replaced(tool, tmp_path, capsys):
    folder = tmp_path / "new" / "wheels"
    folder.mkdir(parents=True)
    (folder / "old-1.0-py3-none-any.whl").touch()
    mode = folder.stat().st_mode
    assert tool.main(["--output", str(folder), "--alone", "logs==2.0"]) == 0
    assert [path.split("-")[0] for path in list_files(folder)] == [
        "big_image", "detectron2", "helper", "logs", "numpy", "segkit",
    ]  # fmt: skip
    assert folder.stat().st_mode == mode
    assert list_files(tmp_path / "new")[0] == "wheels"
    assert capsys.readouterr().out.splitlines()[-1].endswith("--no-deps logs==2.0")


def stop(*_: str) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt(*_: str) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("pip", "code"), [(None, 1), (stop, 143), (interrupt, 130)])
def test_nothing_half_written_stays_and_the_former_folder_does(tool, tmp_path, monkeypatch, pip, code):
    (tmp_path / "wheelhouse").mkdir()
    (tmp_path / "wheelhouse/old-1.0-py3-none-any.whl").touch()
    if pip:
        monkeypatch.setattr(wheelhouse, "run_pip", pip)
    try:
        assert tool.main(["--extras", "train", "--max-mb", "0.1"]) == code
    except SystemExit as error:
        assert error.code == code  # noqa: PT017 - only the signal raises it
    assert list_files(tmp_path) == ["wheelhouse", "wheelhouse/old-1.0-py3-none-any.whl"]


def test_too_many_megabytes_are_one_error(tool, capsys):
    assert tool.main(["--extras", "train", "--without", "numpy", "--max-mb", "0.1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("make_wheelhouse: 7 wheels take 0.6 MB, more than MAX_MB=0.1. The largest")
    assert lines[-1] == "If the cluster has them, or can do without, WITHOUT='numpy torch' leaves 0.1 MB"


def test_another_folder_is_not_replaced(tool, tmp_path, capsys):
    (tmp_path / "wheelhouse").mkdir()
    (tmp_path / "wheelhouse/thesis.tex").touch()
    assert tool.main([]) == 1
    assert capsys.readouterr().err == (
        f"make_wheelhouse: {tmp_path}/wheelhouse: expected a folder of wheels, to replace it, but it has thesis.tex; "
        "name another WHEELHOUSE\n"
    )
    (tmp_path / "file").touch()
    assert tool.main(["--output", "file"]) == 1
    assert "file: it is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--python-version", "3.9"], "PYTHON_VERSION: expected a Python >=3.10,<3.14, as in 3.12, got '3.9'"),
        (["--python-version", "python3.12"], "as in 3.12, got 'python3.12'"),
        (["--platform", "win_amd64"], "PLATFORM: expected x86_64, aarch64 or as in manylinux_2_34_x86_64"),
        (["--extras", "fast,trian"], "got ['trian']"),
        (["--without", "torch==2.4 numpy"], "WITHOUT: expected names of packages, without versions"),
        (["--without", "numpy Detectron2"], "got ['Detectron2']"),
        (["--max-mb", "60MB"], "MAX_MB: expected a number, got '60MB'"),
    ],
)
def test_arguments_are_checked(tool, capsys, arguments, message):
    with pytest.raises(SystemExit):
        tool.main(arguments)
    assert message in capsys.readouterr().err


def test_the_platform_can_name_a_glibc(tool):
    args = tool.parse_arguments(["--python-version", "3.13.1", "--platform", "manylinux_2_34_aarch64"])
    assert args.target == ("3.13.1", "aarch64", 34)
    assert tool.parse_arguments(["--platform", "aarch64", "--python-version", "3.10"]).target == ("3.10", "aarch64", 28)


def test_make_passes_its_variables_on():
    variables = ["PYTHON_VERSION=3.12", "WITHOUT=torch numpy", "MAX_MB=60", "TESTS=1", "EXTRAS=train"]
    ran = subprocess.run(["make", "-n", "wheelhouse", *variables], cwd=ROOT, capture_output=True, text=True)
    command = " ".join(ran.stdout.replace("\\\n", " ").split())
    assert 'tools/make_wheelhouse.py --output "wheelhouse" --python-version "3.12" --platform "x86_64"' in command
    assert '--extras "train" --without "torch numpy" --max-mb "60" --extras test --alone' in command


PRESENT = ("torch", "torchvision", "numpy")
SMALL = """MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16
    MODEL.SEM_SEG_HEAD.CONVS_DIM 16 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 DATALOADER.NUM_WORKERS 0"""


@pytest.mark.slow
def test_a_cluster_without_internet_installs_and_trains(tmp_path):
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "yacs==0.1.8", "-d", tmp_path / "probe"]
    probe = subprocess.run(pip, capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no package index can be reached: {probe.stderr.strip().splitlines()[-1]}")
    house = tmp_path / "wheelhouse"
    make = ["make", "wheelhouse", f"PYTHON={sys.executable}", f"WITHOUT={' '.join(PRESENT)}", f"WHEELHOUSE={house}"]
    made = subprocess.run(make, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr

    venv = make_environment(tmp_path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1"}

    def run(*command: object) -> str:
        command = (venv / "bin" / str(command[0]), *command[1:])
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    run("python", "-m", "pip", "install", "-q", "--no-index", "--find-links", house, "segkit[fast,train]", "detectron2")
    modules = "import segkit, detectron2, fvcore, numba, torch; print(segkit.__file__, fvcore.__file__, torch.__file__)"
    places = run("python", "-c", modules).split()
    assert [Path(place).is_relative_to(venv) for place in places] == [True, True, False]
    run("python", "-m", "pip", "check")
    assert "All needed packages work" in run("segkit", "doctor", "--train")
    run("segkit", "demo", "--output", "demo", *SMALL.split())
    assert (tmp_path / "demo/model_final.pth").is_file()


def make_environment(folder: Path) -> Path:
    """An environment that has torch, torchvision, numpy and what they need, as links to those of the tests."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    links = folder / "cluster"
    links.mkdir()
    pending, seen = [Requirement(name) for name in PRESENT], set()
    while pending:
        requirement = pending.pop()
        if str(requirement) in seen or not list(importlib.metadata.distributions(name=requirement.name)):
            continue
        seen.add(str(requirement))
        distribution = importlib.metadata.distribution(requirement.name)
        for path in {Path(file.parts[0]) for file in distribution.files or () if file.parts[0] != ".."}:
            if not (links / path).exists():
                (links / path).symlink_to(distribution.locate_file(path))
        needed = [Requirement(line) for line in distribution.requires or ()]
        extras = [{"extra": extra} for extra in ("", *requirement.extras)]
        pending += [r for r in needed if r.marker is None or any(r.marker.evaluate(extra) for extra in extras)]
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    (site / "cluster.pth").write_text(f"{links}\n")
    return folder / "venv"
