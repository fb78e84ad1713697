"""Which wheels another machine needs, and how large they are. A function in place of pip makes tiny wheels."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.engine import wheelhouse
from segkit.engine.wheelhouse import Target, Wheelhouse, WheelhouseError
from tests.helpers.tiny_wheels import PACKAGES, make_pip, write_wheel

TARGET = Target("3.12", "x86_64", 28)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments of each call of pip."""
    calls: list[list[str]] = []
    monkeypatch.setattr(wheelhouse, "run_pip", make_pip(calls))
    return calls


def build(tmp_path: Path, without: str = "", target: Target = TARGET, constraints: str = "") -> Wheelhouse:
    """An empty wheelhouse to which segkit's wheel has been added."""
    (tmp_path / "constraints.txt").write_text(constraints)
    (tmp_path / "wheels").mkdir()
    house = Wheelhouse(tmp_path / "wheels", target, without.split(), tmp_path / "constraints.txt")
    house.add(write_wheel(tmp_path, "segkit"))
    return house


def list_names(house: Wheelhouse) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in house.folder.iterdir())


def test_what_is_needed_is_followed_for_the_target_machine(calls, tmp_path):
    house = build(tmp_path)
    house.collect(["segkit[train]"])
    assert list_names(house) == ["big_image", "cuda", "helper", "logs", "numpy", "segkit", "torch"]
    assert house.measure() == 0.576  # MB: 1 + 40 + 300 + 200 + 5 + 10 + 20 kB


def test_another_machine_needs_other_packages(calls, tmp_path):
    house = build(tmp_path, target=Target("3.10", "aarch64", 34))
    house.collect(["segkit[train]"])
    assert list_names(house) == ["big_image", "helper", "logs", "numpy", "segkit", "tomli", "torch"]
    options = " ".join(calls[0])
    assert "--python-version 3.10 " in options
    assert "--platform manylinux_2_34_aarch64 --platform manylinux_2_33_aarch64" in options
    assert "x86_64" not in options
    assert "manylinux_2_35" not in options


def test_packages_and_what_only_they_need_are_left_out(calls, tmp_path):
    house = build(tmp_path, without="Torch numpy unknown")
    house.collect(["segkit[train]"])
    assert list_names(house) == ["big_image", "helper", "logs", "segkit"]  # helper: big-image needs it too
    accepted = {name: {str(part) for part in versions} for name, versions in house.left_out.items()}
    assert accepted == {"numpy": {">=1.24", ">=1.9", "<3"}, "torch": {">=2.4"}}
    assert not [word for call in calls for word in call if word.startswith(("torch", "numpy", "cuda"))]


def test_extras_that_are_not_wanted_bring_nothing(calls, tmp_path):
    house = build(tmp_path)
    house.collect(["segkit"])
    assert list_names(house) == ["big_image", "helper", "numpy", "segkit"]


def test_more_packages_come_without_what_they_need(calls, tmp_path):
    house = build(tmp_path)
    house.collect(["torch"], follow=False)
    assert list_names(house) == ["segkit", "torch"]


def test_pins_that_hold_for_the_target_are_taken(calls, tmp_path):
    pins = "# comment\nnumpy==2.2; python_version < '3.11'\nnumpy==2.4; python_version >= '3.11'  # newer\n"
    build(tmp_path, constraints=pins).collect(["segkit"])
    assert "numpy==2.4" in calls[0]


def test_versions_that_contradict_each_other_are_named(calls, tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGES, "helper", ("1.0", 5, ["numpy<2"]))
    with pytest.raises(WheelhouseError) as error:
        build(tmp_path, constraints="numpy==2.4").collect(["segkit"])
    assert str(error.value) == "helper needs numpy<2, but 2.4 is collected; change its line in constraints.txt"


def test_pure_python_sources_are_built(calls, tmp_path):
    house = build(tmp_path)
    house.collect(["pure-source"])
    assert list_names(house) == ["pure_source", "segkit"]


def test_sources_that_must_be_compiled_are_refused(calls, tmp_path):
    with pytest.raises(WheelhouseError) as error:
        build(tmp_path).collect(["compiled-source"])
    assert str(error.value) == (
        "compiled-source-1.0.tar.gz: there is no wheel for Python 3.12 on manylinux_2_28_x86_64, and the sources must "
        "be compiled; name a later glibc, as in PLATFORM=manylinux_2_34_x86_64, or leave it out by WITHOUT"
    )


def test_too_many_megabytes_are_listed_with_what_would_help(calls, tmp_path):
    """Without torch: 1 + 40 + 5 + 10 + 20 kB (helper stays, big-image needs it)."""
    house = build(tmp_path, without="unknown")
    house.collect(["segkit[train]"])
    house.check_size(0.576, always=["segkit"])
    with pytest.raises(WheelhouseError) as error:
        house.check_size(0.1, always=["segkit"])
    lines = [" ".join(line.split()) for line in str(error.value).splitlines()]
    assert lines[0] == "7 wheels take 0.6 MB, more than MAX_MB=0.1. The largest, with what only they need:"
    assert lines[1:3] == ["torch 0.5 MB", "cuda 0.2 MB"]
    assert lines[-1] == "If the cluster has them, or can do without, WITHOUT='unknown torch' leaves 0.1 MB"


def test_a_limit_that_segkit_alone_exceeds_is_said(calls, tmp_path):
    house = build(tmp_path)
    house.collect(["segkit"])
    with pytest.raises(WheelhouseError, match=r"segkit alone take 0\.0 MB: raise MAX_MB$"):
        house.check_size(0.0005, always=["segkit"])


def test_a_requirement_that_cannot_be_read_is_one_line(calls, tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGES, "helper", ("1.0", 5, ["numpy >>> 2"]))
    with pytest.raises(WheelhouseError, match=r"^helper-1\.0-py3-none-any\.whl: a requirement cannot be read"):
        build(tmp_path).collect(["segkit"])


def test_the_message_of_pip_is_shown_if_it_fails(capfd):
    with pytest.raises(WheelhouseError, match=r"^pip download failed; its message is above; if a package has no file"):
        wheelhouse.run_pip("download", "--no-such-option")
    assert "no such option: --no-such-option" in capfd.readouterr().err
