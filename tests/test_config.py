"""Reading configs: invalid configs and their error messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from segkit.config import add_segkit_config, load_config
from segkit.utils.errors import ConfigError


def changed_keys(theirs: Any, ours: Any, path: str = "") -> set[tuple[str, Any, Any]]:
    """(key, their value, our value) of each of Detectron2's keys that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return set().union(*(changed_keys(theirs[k], ours[k], f"{path}.{k}".strip(".")) for k in theirs))
    return set() if theirs == ours else {(path, theirs, ours)}


def test_detectron2s_defaults_are_kept_for_scripts() -> None:
    cfg = get_cfg()
    add_segkit_config(cfg)
    assert changed_keys(get_cfg(), cfg) == set()


def test_class_counts_are_open_in_configs_that_segkit_reads() -> None:
    assert changed_keys(get_cfg(), load_config()) == {
        ("MODEL.ROI_HEADS.NUM_CLASSES", 80, -1),
        ("MODEL.RETINANET.NUM_CLASSES", 80, -1),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 54, -1),
    }


def test_a_second_call_keeps_what_was_set() -> None:
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "ADAMW"  # of another package that has this key
    add_segkit_config(cfg)
    cfg.TEST.BOUNDARY = True
    add_segkit_config(cfg)
    assert cfg.TEST.BOUNDARY
    assert cfg.SOLVER.OPTIMIZER == "ADAMW"


def test_a_frozen_config_and_a_lazy_one_are_clear_errors() -> None:
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(ConfigError, match=r"the config is frozen; call add_segkit_config before cfg\.freeze"):
        add_segkit_config(cfg)
    with pytest.raises(
        ConfigError, match=r"expected a config of get_cfg\(\), got dict; call segkit\.register\(\) alone"
    ):
        add_segkit_config({})


@pytest.mark.parametrize("name", ["PanopticRCNN", "GeneralizedRCNN", "RetinaNet", "SemanticSegmentor", "PanopticFPN"])
def test_an_open_class_count_is_one_clear_error_when_the_model_is_built(name: str) -> None:
    cfg = load_config(opts=["MODEL.META_ARCHITECTURE", name, "MODEL.DEVICE", "cpu", "MODEL.MASK_ON", "True"])
    with pytest.raises(ConfigError, match=r"NUM_CLASSES is -1, to be taken from a dataset.*segkit\.prepare_config"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL:\n  MASKS_ON: True\n", r"c\.yaml: the config key MODEL\.MASKS_ON does not exist; did you mean MODEL\."),
        ("QUITE_UNKNOWN: 1\n", r"QUITE_UNKNOWN does not exist"),
        (
            "MODEL:\n  MASK_ON: [1, 2]\n",
            r"c\.yaml: expected MODEL.MASK_ON of type bool, such as False, got \[1, 2\] of type list",
        ),
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
        (
            ["SOLVER.MAX_ITER", "many"],
            "command line: expected SOLVER.MAX_ITER of type int, such as 40000, got many of type str",
        ),
        (["SOLVER.EMA.DECAY", "0"], "SOLVER.EMA.DECAY of type float, such as 0.9998, got 0 of type int; write 0.0"),
        (["SOLVER.MAX_ITER", "3", "--eval-only"], "the option --eval-only stands after the KEY VALUE pairs"),
    ],
)
def test_errors_name_the_option(opts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(opts=opts)
