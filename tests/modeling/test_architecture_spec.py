"""The registry of architecture specs, and the specs of the architectures that segkit trains."""

from __future__ import annotations

import pytest
from detectron2.modeling import META_ARCH_REGISTRY

from segkit.config import load_config
from segkit.modeling.meta_arch.detectron2 import SPECS
from segkit.structures.architecture_spec import ArchitectureSpec, get_architecture_spec, register_architecture
from segkit.utils.errors import ConfigError


def test_every_architecture_of_the_registry_has_a_spec_whose_config_keys_exist() -> None:
    keys = load_config().dump()
    for name, _ in META_ARCH_REGISTRY:
        spec = get_architecture_spec(name)
        assert spec.name == name
        assert all(key.rsplit(".", 2)[1] in keys for key in spec.class_counts)
    assert {spec.name for spec in SPECS} - {name for name, _ in META_ARCH_REGISTRY} == {"PanopticDeepLab"}


def test_panoptic_rcnn_needs_semantic_labels_and_is_fused() -> None:
    spec = get_architecture_spec("PanopticRCNN")
    assert set(spec.targets) == {"instances", "semantic"}
    assert "head_outputs" in spec.outputs
    assert spec.postprocessing == "fusion"


def test_a_registered_spec_is_found_and_an_unknown_name_is_an_error() -> None:
    spec = ArchitectureSpec("t_mine", targets=("semantic",), outputs=("sem_seg",))
    register_architecture(spec)
    assert get_architecture_spec("t_mine") is spec
    with pytest.raises(ConfigError, match="'t_other' is unknown; choose one of GeneralizedRCNN"):
        get_architecture_spec("t_other")
