"""`segkit doctor`: its checks of complete and broken environments, its exit code, and the commands it prints."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from segkit.cli import doctor as doctor_module
from segkit.cli.main import main
from segkit.engine import environment
from segkit.engine.environment import (
    REQUIREMENTS,
    ROOT,
    Check,
    check_package,
    describe_machine,
    get_python_command,
    load_requirements,
)

# The light half is checked without torch and Detectron2, see `make test-light`.
TRAIN_IS_INSTALLED = importlib.util.find_spec("torch") is not None
needs_train = pytest.mark.skipif(not TRAIN_IS_INSTALLED, reason="needs torch and Detectron2")


def doctor(capsys, *arguments):
    code = main(["doctor", *arguments])
    return code, capsys.readouterr().out


def by_name(checks):
    return {check.name: check for check in checks}


def fake_module(folder, name, source):
    (folder / f"{name}.py").write_text(source)


@pytest.fixture
def modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_complete_environment_passes(capsys):
    code, out = doctor(capsys)
    assert code == 0, out
    assert "All needed packages work." in out
    for name in ("Python", "torch", "torchvision", "numpy", "opencv-python-headless", "DETECTRON2_DATASETS"):
        assert name in out
    assert ("detectron2" in out) is TRAIN_IS_INSTALLED


@pytest.mark.skipif(TRAIN_IS_INSTALLED, reason="needs an environment without torch")
def test_the_light_half_is_complete_without_torch_unless_training_is_asked_for(capsys):
    code, out = doctor(capsys)
    assert (code, "(missing)" in out) == (0, True)
    code, out = doctor(capsys, "--train")
    assert code == 1
    assert '"torch>=2.4"' in out
    assert "-m segkit doctor --install-detectron2" in out


def test_users_are_not_asked_for_what_only_developers_need(capsys):
    for option, is_checked in ((), False), (("--dev",), True):
        names = {check["name"] for check in json.loads(doctor(capsys, "--json", *option)[1])["checks"]}
        assert "onnx" in names
        assert ("mypy" in names) is ("hotcoco" in names) is is_checked


@needs_train
def test_nothing_is_printed_as_optional_that_segkit_never_uses(capsys):
    assert "--source official" not in doctor(capsys)[1].partition("DETECTRON2_DATASETS")[2]


@pytest.mark.parametrize("folder", ["bin", "bin/..//bin", "other/../bin"])
def test_the_python_command_is_one_path_however_python_is_called(tmp_path, monkeypatch, folder):
    for name in ("bin", "other"):
        (tmp_path / name).mkdir()
    python = tmp_path / "bin/python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / folder / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert get_python_command() == str(python)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert get_python_command() == "python"


def test_json_is_one_object_with_the_same_result(capsys):
    code, out = doctor(capsys, "--json")
    content = json.loads(out)
    assert code == 0
    assert content["ok"] is True
    assert {"Python", "segkit", "torch", "numpy"} <= {check["name"] for check in content["checks"]}
    assert set(content["checks"][0]) == {"name", "version", "status", "needed", "note", "fix"}
    assert content["machine"]["cpus"] >= 1


def test_the_version_ranges_equal_those_of_the_installed_package():
    distribution = find_distribution_of_this_checkout()
    if distribution is None:
        pytest.skip("no metadata of this checkout is installed that is as recent as its requirements")
    requirements = load_requirements()
    extras = requirements["extras"]
    assert "numpy>=1.24" in requirements["light"]
    assert "torch>=2.4" in extras["train"]
    assert not [line for line in requirements["light"] if line.startswith("torch")]
    packaging = pytest.importorskip("packaging.requirements", reason="parses the metadata")
    expected = [*requirements["light"], *(line for lines in extras.values() for line in lines)]
    expected_ranges = {(parsed.name, parsed.specifier) for parsed in map(packaging.Requirement, expected)}
    installed = map(packaging.Requirement, distribution.requires)
    assert {(parsed.name, parsed.specifier) for parsed in installed} == expected_ranges


def find_distribution_of_this_checkout():
    """The installed metadata that was built from `ROOT`, after its requirements were last changed."""
    for distribution in metadata.Distribution.discover(name="segkit"):
        origin = json.loads(distribution.read_text("direct_url.json") or "{}").get("url")
        is_beside = Path(str(distribution.locate_file("segkit"))).resolve() == ROOT / "segkit"
        written_at = Path(str(distribution._path)).stat().st_mtime
        if (is_beside or origin == ROOT.as_uri()) and written_at >= REQUIREMENTS.stat().st_mtime:
            return distribution
    return None


def without(*hidden, then):
    """Run `then` in a new interpreter that cannot import `hidden`; this process keeps no half-imported package."""
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden!r})); from segkit.cli.main import main; {then}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("hidden", "command"),
    [
        pytest.param("torch", 'pip install "torch>=2.4"', marks=needs_train),
        pytest.param("detectron2", "-m segkit doctor --install-detectron2", marks=[needs_train, pytest.mark.slow]),
        ("rich", 'pip install "rich>=13"'),
        pytest.param("yacs", 'pip install "yacs>=0.1.8"', marks=[needs_train, pytest.mark.slow]),
    ],
)
def test_a_missing_package_fails_with_the_command_that_installs_it(hidden, command):
    ran = without(hidden, then="sys.exit(main(['doctor']))")
    assert ran.returncode == 1
    assert "missing" in ran.stdout
    assert command in ran.stdout
    assert "Needed packages are missing or broken" in ran.stdout
    assert ran.stderr == ""


def test_the_note_of_a_package_that_breaks_on_import_is_the_last_line(modules):
    fake_module(modules, "broken_pkg", "raise RuntimeError('first line\\nundefined symbol: _ZN2at')")
    check = check_package("broken-pkg>=1")
    assert (check.status, check.needed, check.fails) == ("broken", True, True)
    assert check.note == "RuntimeError: undefined symbol: _ZN2at"
    assert check.fix == f'{get_python_command()} -m pip install --force-reinstall --no-deps "broken-pkg>=1"'


def test_a_package_that_exits_on_import_does_not_end_the_doctor(modules):
    fake_module(modules, "exiting_pkg", "raise SystemExit(3)")
    assert check_package("exiting-pkg").status == "broken"


def test_the_remedy_for_a_package_that_lacks_another_is_the_other(modules):
    fake_module(modules, "needy_pkg", "import a_package_that_is_not_there.inner")
    check = check_package("needy-pkg")
    assert check.status == "broken"
    assert check.fix == f'{get_python_command()} -m pip install "a_package_that_is_not_there"'


@pytest.mark.parametrize(
    ("wanted", "version", "status"),
    [
        (">=2.4", "2.3.1", "too old"),
        (">=2.4", "2.4.0+cu124", "ok"),
        (">=2.4", "2.4.0rc1", "too old"),  # a candidate comes before its release
        (">=2.4", "2.16.0.dev2", "ok"),
        ("<81", "82.0.1", "too new"),
        (">=2.1,<2.4", "2.4.0", "too new"),
        (">=2.1,<2.4", "2.0.6", "too old"),
        ("", "0.0.1", "ok"),
    ],
)
def test_versions_out_of_range(modules, wanted, version, status):
    fake_module(modules, "versioned_pkg", f"__version__ = {version!r}")
    sys.modules.pop("versioned_pkg", None)
    check = check_package(f"versioned-pkg{wanted}")
    assert (check.version, check.status) == (version, status)
    assert bool(check.fix) is (status != "ok")


def test_extras_are_looked_up_but_not_imported(modules):
    check = check_package("a-package-that-is-not-there>=1", extra="onnx")
    assert (check.status, check.needed, check.fails) == ("missing", False, False)
    assert "ONNX" in check.note
    assert check_package("pytest>=8", extra="test").status == "ok"
    assert check_package("pytest>=10000", extra="test").status == "too old"


def test_a_broken_detectron2_is_repaired_by_its_installer(modules, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    fake_module(modules, "detectron2", "raise RuntimeError('half of it is gone')")
    (check,) = environment.check_detectron2()
    assert (check.status, check.note) == ("broken", "RuntimeError: half of it is gone")
    assert check.fix == f"{get_python_command()} -m segkit doctor --install-detectron2 --force"


@needs_train
def test_cpp_ops_are_never_needed():
    checks = by_name(environment.check_detectron2())
    assert checks["detectron2"].status == "ok"
    assert not checks["detectron2 C++ ops"].needed
    if checks["detectron2 C++ ops"].status != "ok":
        assert "rotated boxes and deformable convolutions" in checks["detectron2 C++ ops"].note


def test_without_packaging_the_copy_of_pip_is_used():
    code = "from segkit.engine.environment import check_environment as check; "
    names = code + "print([c.name for c in check() if c.status == 'ok'][:3])"
    assert without("packaging", then=names).stdout == "['Python', 'segkit', 'Jinja2']\n"
    alone = Check("packaging", "", "missing", note="needed to compare versions")
    alone = dataclasses.replace(alone, fix=f"{get_python_command()} -m pip install packaging")
    assert without("packaging", "pip", then=code + "print(check())").stdout == f"{[alone]}\n"


def test_setuptools_works_if_the_copy_of_pip_stands_in_for_packaging(tmp_path):
    """As in a new virtual environment, where pip and setuptools are all there is."""
    for name in ("pip", "setuptools", "_distutils_hack", "distutils-precedence.pth", "pkg_resources"):
        source = Path(sysconfig.get_path("purelib"), name)
        if not source.exists() and name != "pkg_resources":  # only setuptools before 82 has it
            pytest.skip(f"needs {name} in the environment")
        (tmp_path / name).symlink_to(source)
    code = (
        f"import site; site.addsitedir({str(tmp_path)!r})\n"
        "from segkit.engine.environment import check_environment\n"
        "print([check.status for check in check_environment(True) if check.name == 'setuptools'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment)
    assert "broken" not in ran.stdout, ran.stderr


def test_a_package_is_named_once_in_the_commands(monkeypatch, capsys):
    install = f'{get_python_command()} -m pip install "'
    fixes = [f'{install}numpy>=1.24"', f'{install}numpy"', f'{install}tabulate"']
    checks = [Check(str(number), "", "missing", fix=fix) for number, fix in enumerate(fixes)]
    monkeypatch.setattr(doctor_module, "check_environment", lambda train, dev: checks)
    assert doctor(capsys)[1].partition("Needed:\n")[2].startswith(f'    {install}numpy>=1.24" "tabulate"\n')


def test_the_datasets_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (tmp_path / "cityscapes").mkdir()
    machine = describe_machine()
    assert (machine["datasets"], machine["datasets_exists"], machine["coco"], machine["cityscapes"]) == (
        str(tmp_path),
        True,
        False,
        True,
    )
    assert machine["free_gb"] > 0
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "deep" / "absent"))
    assert describe_machine()["datasets_exists"] is False
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)
    assert describe_machine()["datasets"] == str(tmp_path / "datasets")


def test_nothing_heavy_is_imported_at_module_level():
    code = "import sys, segkit.cli.doctor; print([m for m in ('torch', 'numpy', 'detectron2') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "[]\n", ran.stderr


def test_doctor_runs_on_a_bare_interpreter():
    """-S: no site-packages at all, so everything is missing, even rich and numpy."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from segkit.cli.main import main; sys.exit(main(['doctor']))"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-S", "-c", code, str(ROOT)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert ran.returncode == 1, ran.stderr
    assert "packaging" in ran.stdout
    assert "missing" in ran.stdout
    assert "Traceback" not in ran.stderr
