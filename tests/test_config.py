"""Reading configs: invalid configs and their error messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.config import get_cfg

from segkit.config import add_segkit_config, load_config
from segkit.utils.errors import ConfigError


def test_detectron2s_defaults_are_kept_except_for_class_counts() -> None:
    theirs, ours = get_cfg(), get_cfg()
    add_segkit_config(ours)
    changed = {
        ("MODEL.ROI_HEADS.NUM_CLASSES", 80, -1),
        ("MODEL.RETINANET.NUM_CLASSES", 80, -1),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 54, -1),
    }

    def walk(a: object, b: object, path: str = "") -> set[tuple[str, object, object]]:
        if isinstance(a, dict) and isinstance(b, dict):
            return set().union(*(walk(a[k], b[k], f"{path}.{k}".strip(".")) for k in a))
        return set() if a == b else {(path, a, b)}  # type: ignore[arg-type]

    assert walk(theirs, ours) == changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL:\n  MASKS_ON: True\n", r"c\.yaml: the config key MODEL\.MASKS_ON does not exist; did you mean MODEL\."),
        ("QUITE_UNKNOWN: 1\n", r"QUITE_UNKNOWN does not exist"),
        ("MODEL:\n  MASK_ON: [1, 2]\n", r"c\.yaml: Type mismatch"),
        ("MODEL: [1\n", r"c\.yaml: expected YAML"),
        ("- 1\n- 2\n", r"c\.yaml"),
        ("_BASE_: nowhere.yaml\n", r"nowhere\.yaml"),
        ("MODEL: !!python/object/apply:os.system ['touch canary']\n", r"c\.yaml: expected YAML of plain values"),
    ],
)
def test_errors_name_the_config_file(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("path", "message"), [("nowhere.yaml", "no such config file"), (__file__, "Python configs would run code")]
)
def test_other_files_are_rejected(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.DEVICE"], "KEY VALUE pairs"),
        (["MODEL.NOPE", "1"], r"command line: the config key .*NOPE does not exist"),
        (["SOLVER.MAX_ITER", "many"], "command line: Type mismatch"),
    ],
)
def test_errors_name_the_option(opts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(opts=opts)
