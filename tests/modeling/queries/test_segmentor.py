"""The model around a network of queries: training, outputs, and the same map from saved head outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances

from segkit.config import load_config
from segkit.formats.head_outputs import SavedHeadOutputs, SavedImage, round_head_outputs, write_image
from segkit.fusion import DroppedSegment, build_fusion
from segkit.modeling.fusion_config import build_fusion_from_config
from segkit.modeling.queries import QueryCriterion, QueryOutputs
from segkit.modeling.queries.segmentor import QuerySegmentor
from segkit.structures import Category, CategorySet, architecture_spec
from segkit.structures.architecture_spec import PANOPTIC, QUERIES, ArchitectureSpec, Target
from segkit.utils.errors import ConfigError

NAMES = {1: ("sky", False), 2: ("cat", True), 3: ("road", False), 4: ("dog", True)}
CATEGORIES = CategorySet(Category(i, name, isthing, (0, 0, 0)) for i, (name, isthing) in NAMES.items())
SPACE = CATEGORIES.build_semantic_space("per_class")
STUFF_IDS, THING_IDS = [1, 0, 2, 0], [-1, 0, -1, 1]  # of the same classes
CLASSES, TOTAL = 4, 9


class BlobSegmentor(QuerySegmentor):
    """Queries with fixed round masks in an image of 64 x 96 pixels, some of them sure of their class."""

    def __init__(self, **options: Any) -> None:
        criterion = QueryCriterion(num_classes=CLASSES, num_points=50)
        common = {"pixel_mean": [0.0] * 3, "pixel_std": [255.0] * 3, "stuff_ids": STUFF_IDS, "thing_ids": THING_IDS}
        super().__init__(criterion=criterion, **{**common, **options})
        generator = torch.Generator().manual_seed(0)
        ys, xs = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
        centers = torch.rand(TOTAL, 2, generator=generator) * torch.tensor([16.0, 24.0])
        distances = (ys - centers[:, :1, None]) ** 2 + (xs - centers[:, 1:, None]) ** 2
        self.masks = torch.nn.Parameter(3 - distances / 5)
        classes = torch.arange(TOTAL) % (CLASSES + 1)
        self.classes = torch.nn.Parameter(torch.eye(CLASSES + 1)[classes] * torch.linspace(2, 9, TOTAL)[:, None])

    def predict(self, images: torch.Tensor) -> list[QueryOutputs]:
        masks = self.masks * images.mean((1, 2, 3))[:, None, None, None]
        outputs = QueryOutputs(self.classes.expand(len(images), -1, -1), masks)
        return [outputs, outputs] if self.training else [outputs]


def draw_inputs() -> list[dict[str, Any]]:
    """Two images of 60 x 90 pixels, the second one at another output size."""
    image = torch.full((3, 60, 90), 255.0)
    return [{"image": image, "height": 60, "width": 90}, {"image": image * 0.8, "height": 45, "width": 120}]


def test_in_training_it_gives_the_losses_of_all_layers() -> None:
    samples = draw_inputs()
    for sample in samples:
        sample["instances"] = Instances((60, 90))
        sample["instances"].gt_classes = torch.tensor([1])
        sample["instances"].gt_masks = BitMasks(torch.ones(1, 60, 90, dtype=torch.bool))
        sample["sem_seg"] = torch.zeros(60, 90, dtype=torch.int64)
    model = BlobSegmentor().train()
    losses = model(samples)
    assert {*losses} == {f"loss_{name}{suffix}" for name in ("class", "mask", "dice") for suffix in ("", "_0")}
    sum(losses.values()).backward()
    assert model.masks.grad is not None
    assert list(model.state_dict()) == ["masks", "classes", "criterion.empty_weight"]


def test_the_outputs_are_those_of_detectron2() -> None:
    for output, sample in zip(BlobSegmentor().eval()(draw_inputs()), draw_inputs(), strict=True):
        size_hw = sample["height"], sample["width"]
        ids, infos = output["panoptic_seg"]
        assert (ids.shape, ids.dtype) == (size_hw, torch.int32)
        assert {*ids.unique().tolist()} - {0} == {info["id"] for info in infos}
        assert {(info["isthing"], info["category_id"]) for info in infos} >= {(True, 1), (False, 2)}
        assert output["sem_seg"].shape == (CLASSES, *size_hw)
        instances, masks = output["instances"], output["instance_masks"]
        assert instances.pred_masks.sum((1, 2)).tolist() == masks.areas_px.tolist()
        assert {*instances.pred_classes.tolist()} == {0, 1}


@torch.no_grad()
def test_outputs_that_are_switched_off_are_not_there() -> None:
    (output, _) = BlobSegmentor(outputs=["sem_seg"]).eval()(draw_inputs())
    assert {*output} == {"sem_seg", "head_outputs"}
    (output, _) = BlobSegmentor(stuff_ids=[1, 2, 3, 4], thing_ids=[-1] * 4).eval()(draw_inputs())
    assert {*output} == {"panoptic_seg", "sem_seg", "head_outputs"}  # no class is a thing


@torch.no_grad()
@pytest.mark.parametrize("name", ["mask_argmax", "heuristic"])
def test_saved_head_outputs_give_the_map_of_the_model(name: str, tmp_path: Path) -> None:
    model = BlobSegmentor(fusion=build_fusion(name)).eval()
    plain = model(draw_inputs())
    model.rounding = lambda outputs: round_head_outputs(outputs, 0)
    for number, (output, unrounded) in enumerate(zip(model(draw_inputs()), plain, strict=True)):
        head_outputs = output["head_outputs"]
        write_image(tmp_path, f"{number}.npz", head_outputs, 0)
        image = SavedImage(number, "a.png", head_outputs.semantic.size_hw, f"{number}.npz")
        saved = SavedHeadOutputs(tmp_path, CATEGORIES, SPACE.names, SPACE.stuff_ids, SPACE.thing_ids, (image,))
        dropped: list[DroppedSegment] = []
        fused = model.fusion(saved.read(image), dropped)
        ids = output["panoptic_seg"][0].numpy()
        assert np.array_equal(fused.segment_ids, ids)
        # Logits of half precision move few pixels; the device's rules are those of the CPU.
        assert (unrounded["panoptic_seg"][0].numpy() != ids).mean() < 0.01
        assert unrounded["panoptic_seg"][1] == output["panoptic_seg"][1]
        assert {d.reason for d in dropped} & {"score", "overlap"}


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """KEY VALUE pairs of a registered architecture with four classes."""
    targets: tuple[Target, ...] = ("instances", "semantic")
    spec = ArchitectureSpec("BlobSegmentor", targets, PANOPTIC, QUERIES, postprocessing="fusion", fusion="mask_argmax")
    monkeypatch.setitem(architecture_spec._specs, spec.name, spec)
    return ["MODEL.META_ARCHITECTURE", "BlobSegmentor", "MODEL.QUERIES.NUM_CLASSES", "4"]


def test_thresholds_come_from_the_config(options: list[str]) -> None:
    cfg = load_config(opts=[*options, "MODEL.QUERIES.TEST.OBJECT_THRESHOLD", "0.6"])
    assert build_fusion_from_config(cfg) == build_fusion("mask_argmax", object_mask_threshold=0.6)
    cfg.MODEL.PANOPTIC.FUSION.OPTIONS.overlap_threshold = 0.7
    expected = build_fusion("mask_argmax", object_mask_threshold=0.6, overlap_threshold=0.7)
    assert build_fusion_from_config(cfg) == expected
    cfg.MODEL.PANOPTIC.FUSION.OPTIONS.clear()
    cfg.MODEL.PANOPTIC.FUSION.NAME = "heuristic"
    assert build_fusion_from_config(cfg) == build_fusion("heuristic")


def test_a_class_count_that_does_not_fit_is_named(options: list[str]) -> None:
    cfg = load_config(opts=options)
    arguments = QuerySegmentor.from_config(cfg)
    assert (arguments["stuff_ids"], arguments["thing_ids"]) == ([0, 0, 0, 0], [0, 1, 2, 3])
    cfg.MODEL.PANOPTIC.STUFF_IDS, cfg.MODEL.PANOPTIC.THING_IDS = [0, 1], [0, -1]
    with pytest.raises(ConfigError, match=r"NUM_CLASSES is 4, but the dataset has 2 classes"):
        QuerySegmentor.from_config(cfg)
