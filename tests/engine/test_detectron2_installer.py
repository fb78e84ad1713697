"""The Detectron2 installer: what it repacks, keeps and rejects. Local files replace pip's downloads."""

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from segkit.cli.main import main
from segkit.engine import detectron2_installer

ROOT = Path(__file__).parents[2]
ORIGINAL = {
    "detectron2/__init__.py": b"__version__ = '0.6'\n",
    "detectron2/modeling/__init__.py": b"",
    "detectron2/model_zoo/configs/a.yaml": b"MODEL: {}\n",
    "detectron2/_C.cpython-310-x86_64-linux-gnu.so": b"\x7fELF",
    "tools/__init__.py": b"raise SystemExit('stray')\n",
    "sal_detectron2-0.7.2.dist-info/LICENSE": b"Apache License\n",
    "sal_detectron2-0.7.2.dist-info/METADATA": b"Name: sal-detectron2\nRequires-Dist: numpy<2\n",
    "sal_detectron2-0.7.2.dist-info/RECORD": b"",
}


@pytest.fixture
def installer():
    return detectron2_installer


def run_installer(*arguments):
    return main(["doctor", "--install-detectron2", *arguments])


def fake_pip(installer, monkeypatch, trusted=True, files=1):
    """pip that downloads a small wheel of the right shape; returns the list of its calls."""
    calls = []

    def pip(*arguments):
        calls.append(arguments)
        if arguments[0] == "download":
            folder = Path(arguments[arguments.index("--dest") + 1])
            for number in range(files):
                path = folder / f"sal_detectron2-0.7.{2 + number}-cp310-none-any.whl"
                with zipfile.ZipFile(path, "w") as wheel:
                    for name, data in ORIGINAL.items():
                        wheel.writestr(zipfile.ZipInfo(name), data)
                if trusted:
                    monkeypatch.setattr(installer, "PYPI_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
        else:
            assert Path(arguments[-1]).is_file() or "git+" in arguments[-1]

    monkeypatch.setattr(installer, "pip", pip)
    return calls


def absent(installer, monkeypatch):
    monkeypatch.setattr(installer, "find_installed", lambda: "")


def test_only_the_package_is_repacked(installer, monkeypatch, tmp_path, capsys):
    fake_pip(installer, monkeypatch)
    assert run_installer("--wheel-dir", str(tmp_path / "new" / "folder")) == 0
    (path,) = (tmp_path / "new" / "folder").iterdir()
    assert capsys.readouterr().out == f"{path}\n"
    assert path.name == "detectron2-0.7.2-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        content = {name: wheel.read(name) for name in wheel.namelist()}
    expected = {
        name: data for name, data in ORIGINAL.items() if name.startswith("detectron2/") and not name.endswith(".so")
    }
    assert {name: data for name, data in content.items() if name.startswith("detectron2/")} == expected
    info = "detectron2-0.7.2.dist-info/"
    assert {name.removeprefix(info) for name in content if name not in expected} == {
        "LICENSE",
        "METADATA",
        "WHEEL",
        "RECORD",
    }
    assert b"numpy" not in content[f"{info}METADATA"]
    for line in content[f"{info}RECORD"].decode().splitlines():
        name, digest, size = line.rsplit(",", 2)
        if not name.endswith("RECORD"):
            raw = hashlib.sha256(content[name]).digest()
            assert digest == "sha256=" + base64.urlsafe_b64encode(raw).decode().rstrip("=")
            assert int(size) == len(content[name])


def test_the_same_input_gives_the_same_bytes(installer, monkeypatch, tmp_path):
    fake_pip(installer, monkeypatch)
    first, second = (installer.write_wheel(tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second


def test_files_of_the_user_in_the_folder_stay(installer, monkeypatch, tmp_path):
    fake_pip(installer, monkeypatch)
    own = tmp_path / "sal_detectron2-0.7.2-cp310-none-any.whl"
    own.write_bytes(b"mine")
    assert run_installer("--wheel-dir", str(tmp_path)) == 0
    assert own.read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_pip_installs_the_repacked_wheel(installer, monkeypatch, tmp_path):
    fake_pip(installer, monkeypatch)
    wheel = installer.write_wheel(tmp_path / "wheels")
    target = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in target.iterdir()} == {"detectron2", "detectron2-0.7.2.dist-info"}
    assert (target / "detectron2/model_zoo/configs/a.yaml").read_bytes() == b"MODEL: {}\n"


def test_the_installer_downloads_checks_and_installs(installer, monkeypatch, capsys):
    absent(installer, monkeypatch)
    calls = fake_pip(installer, monkeypatch)
    assert run_installer() == 0
    (download, install) = calls
    assert download[-1] == "sal-detectron2==0.7.2"
    assert {"--no-deps", "--only-binary=:all:"} <= set(download)
    assert install[:3] == ("install", "--no-deps", "--force-reinstall")
    assert install[3].endswith("detectron2-0.7.2-py3-none-any.whl")
    assert "is installed" in capsys.readouterr().out


def test_a_changed_file_is_rejected(installer, monkeypatch, capsys, tmp_path):
    absent(installer, monkeypatch)
    calls = fake_pip(installer, monkeypatch, trusted=False)
    assert run_installer() == 1
    assert len(calls) == 1, "nothing was installed"
    assert "expected sha256 491af0c7" in capsys.readouterr().err
    assert run_installer("--wheel-dir", str(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("files", [0, 2])
def test_another_number_of_files_is_rejected(installer, monkeypatch, capsys, files):
    absent(installer, monkeypatch)
    fake_pip(installer, monkeypatch, files=files)
    assert run_installer() == 1
    assert "expected one file of sal-detectron2==0.7.2" in capsys.readouterr().err


def test_a_working_installation_is_kept_unless_forced(installer, monkeypatch, capsys):
    calls = fake_pip(installer, monkeypatch)
    monkeypatch.setattr(installer, "find_installed", lambda: "/somewhere/detectron2/__init__.py")
    assert run_installer() == 0
    assert run_installer("--source", "official") == 0
    assert calls == []
    assert "detectron2 is already installed: /somewhere/detectron2/__init__.py" in capsys.readouterr().out
    assert run_installer("--force") == 0
    assert len(calls) == 2


def test_the_official_source_needs_torch(installer, monkeypatch, capsys):
    absent(installer, monkeypatch)
    calls = fake_pip(installer, monkeypatch)
    assert run_installer("--source", "official", "--commit", "abc") == 0
    assert calls[0][-1] == "detectron2 @ git+https://github.com/facebookresearch/detectron2.git@abc"
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda name: None)
    assert run_installer("--source", "official") == 1
    assert "needs torch" in capsys.readouterr().err
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("files", "outcome", "message"),
    [
        ({}, False, ""),
        ({"detectron2/notes.txt": ""}, False, ""),  # a folder that only has the name
        ({"detectron2/__init__.py": "", "detectron2/modeling.py": ""}, True, ""),
        (
            {"detectron2/__init__.py": "", "detectron2/modeling.py": "import absent_package"},
            True,
            "lacks another package",
        ),
        ({"detectron2/__init__.py": ""}, None, "is incomplete"),
        (
            {"detectron2/__init__.py": "raise RuntimeError('undefined symbol')"},
            None,
            "is broken (RuntimeError: undefined",
        ),
    ],
)
def test_installed_versions_are_detected(tmp_path, files, outcome, message):
    """In an interpreter of its own, which sees only `files` and the standard library."""
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    code = (
        f"import sys; sys.path[:0] = {[str(tmp_path), str(ROOT)]}\n"
        "from segkit.engine import detectron2_installer as installer\n"
        "try: print(repr(installer.find_installed()))\n"
        "except installer.InstallError as error: print(repr(None)); print(error, file=sys.stderr)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-S", "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    expected = {False: "", True: str(tmp_path / "detectron2" / "__init__.py"), None: None}[outcome]
    assert ran.stdout == f"{expected!r}\n", ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_error_of_a_failing_pip_names_its_command(installer, monkeypatch, capfd):
    absent(installer, monkeypatch)
    monkeypatch.setattr(installer.sys, "executable", "/bin/false")
    assert run_installer() == 1
    assert "segkit doctor: `/bin/false -m pip" in capfd.readouterr().err


def test_options_of_the_installation_need_it(capsys):
    for option in (["--force"], ["--wheel-dir", "wheels"], ["--source", "official"]):
        assert main(["doctor", *option]) == 1
        assert "are options of --install-detectron2; add it" in capsys.readouterr().err
