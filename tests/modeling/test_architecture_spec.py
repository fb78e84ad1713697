"""The registry of architecture specs, and the specs of the architectures that segkit trains."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from segkit.config import load_config
from segkit.data.catalog import load_dataset
from segkit.data.class_counts import resolve_for_categories
from segkit.data.datasets.custom import register_by_format, register_panoptic
from segkit.data.mapper import SegkitMapper
from segkit.data.toy import dataset as toy
from segkit.engine.setup import prepare_config, read_config
from segkit.evaluation import (
    HeadOutputsEvaluator,
    InstanceEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
    build_evaluators,
)
from segkit.modeling import register_models
from segkit.modeling.meta_arch.detectron2 import SPECS
from segkit.structures.architecture_spec import (
    ArchitectureSpec,
    get_architecture_spec,
    register_architecture,
)
from segkit.utils.errors import ConfigError


def test_every_architecture_of_the_registry_has_a_spec_whose_config_keys_exist() -> None:
    register_models()
    keys = load_config().dump()
    for name, _ in META_ARCH_REGISTRY:
        spec = get_architecture_spec(name)
        assert spec.name == name
        assert all(key.rsplit(".", 2)[1] in keys for key in spec.class_counts)
    assert {spec.name for spec in SPECS} <= {name for name, _ in META_ARCH_REGISTRY}


def test_panoptic_rcnn_needs_semantic_labels_and_is_fused() -> None:
    spec = get_architecture_spec("PanopticRCNN")
    assert set(spec.targets) == {"instances", "semantic"}
    assert "head_outputs" in spec.outputs
    assert spec.postprocessing == "fusion"


def test_a_registered_spec_is_found_and_an_unknown_name_is_an_error() -> None:
    spec = ArchitectureSpec("t_mine", targets=("semantic",), outputs=("sem_seg",))
    register_architecture(spec)
    assert get_architecture_spec("t_mine") is spec
    with pytest.raises(ConfigError, match="'t_other' is unknown; choose one of ClassicalSegmentor"):
        read_config(opts=["MODEL.META_ARCHITECTURE", "t_other"])


@pytest.fixture
def own_architecture(monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's meta-architecture that only Detectron2's registry knows."""
    monkeypatch.setitem(META_ARCH_REGISTRY._obj_map, "OwnNet", nn.Module)
    return "OwnNet"


def test_an_architecture_without_a_spec_gets_every_target_and_evaluator(
    own_architecture: str, toy_folder: Path, tmp_path: Path
) -> None:
    register_panoptic("t_own", toy_folder / "panoptic.json", toy_folder / "panoptic")
    names = ["DATASETS.TRAIN", "('t_own',)", "DATASETS.TEST", "('t_own',)", "TEST.SAVE_HEADS", "True"]
    opts = ["MODEL.META_ARCHITECTURE", own_architecture, *names, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "133"]
    cfg = prepare_config(opts=opts)
    heads = cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert heads == (len(toy.CATEGORIES.things), 133)  # the semantic head is the user's
    dataset = load_dataset("t_own")
    sample = SegkitMapper.from_config(cfg, dataset, is_train=True)(dataset.records[0])
    assert sample is not None
    assert {"image", "instances", "sem_seg"} <= sample.keys()
    evaluators = build_evaluators(cfg, dataset, tmp_path)._evaluators
    assert [type(evaluator) for evaluator in evaluators] == [
        PanopticEvaluator,
        InstanceEvaluator,
        SemanticEvaluator,
        HeadOutputsEvaluator,
    ]
    with pytest.raises(ConfigError, match=r"MODEL\.ROI_HEADS\.NUM_CLASSES is 80, but the dataset t_own needs"):
        prepare_config(opts=[*opts, "MODEL.ROI_HEADS.NUM_CLASSES", "80"])


def test_an_architecture_without_a_spec_trains_without_semantic_labels(own_architecture: str, toy_folder: Path) -> None:
    register_by_format(
        "t_own_instances", "coco-instances", json=toy_folder / "instances.json", images=toy_folder / "images"
    )
    names = ["DATASETS.TRAIN", "('t_own_instances',)", "DATASETS.TEST", "()"]
    cfg = prepare_config(opts=["MODEL.META_ARCHITECTURE", own_architecture, *names])
    dataset = load_dataset("t_own_instances")
    sample = SegkitMapper.from_config(cfg, dataset, is_train=True)(dataset.records[0])
    assert sample is not None
    assert "instances" in sample
    assert "sem_seg" not in sample


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("GeneralizedRCNN", {"ROI_HEADS"}),
        ("ProposalNetwork", {"ROI_HEADS"}),
        ("RetinaNet", {"ROI_HEADS", "RETINANET"}),
        ("PanopticFPN", {"ROI_HEADS", "SEM_SEG_HEAD"}),
        ("PanopticDeepLab", {"SEM_SEG_HEAD"}),
        ("SemanticSegmentor", {"SEM_SEG_HEAD"}),
    ],
)
def test_counts_that_must_agree_with_the_dataset(name: str, keys: set[str]) -> None:
    for key in ("ROI_HEADS", "RETINANET", "SEM_SEG_HEAD"):
        cfg = load_config(opts=["MODEL.META_ARCHITECTURE", name, f"MODEL.{key}.NUM_CLASSES", "80"])
        with pytest.raises(ConfigError, match=f"{key}.NUM_CLASSES is 80") if key in keys else nullcontext():
            resolve_for_categories(cfg, toy.CATEGORIES, "one", "toy")
