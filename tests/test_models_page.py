"""docs/models.md: its recipes, parameters and multiply-adds are those of configs/.

Models are built on torch's meta device, which has shapes and no values. FLOPs are counted for a fixed number of boxes:
RPN.POST_NMS_TOPK_TEST proposals, of which TEST.DETECTIONS_PER_IMAGE become instances.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segkit.config import load_config
from segkit.data.class_counts import choose_thing_channels, resolve_for_categories
from segkit.data.datasets.coco import CATEGORIES as COCO
from segkit.data.toy.dataset import CATEGORIES as TOY
from segkit.engine import register
from segkit.formats.cityscapes import CATEGORIES as CITYSCAPES
from segkit.structures import Category, CategorySet
from segkit.structures.categories import default_color
from segkit.utils.config_files import list_recipes

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
# | `recipe` | architecture | H × W | parameters in millions | GMACs | ...
ROW = re.compile(r"^\| `([a-z0-9]+/\w+)` \| [^|]+ \| (?:(\d+) × (\d+)|any) \| ([\d.]+) \| ([\d.]+|–) \|", re.MULTILINE)
POOLER = "detectron2.modeling.poolers.ROIPooler.forward"
PROPOSALS = "detectron2.modeling.proposal_generator.rpn.find_top_rpn_proposals"
DETECTIONS = [f"detectron2.modeling.roi_heads.{module}.fast_rcnn_inference" for module in ("fast_rcnn", "cascade_rcnn")]


class Row(NamedTuple):
    """A row of the page; `gflops` and `size_hw` are None for models without a network."""

    recipe: str
    size_hw: tuple[int, int] | None
    millions: str
    gflops: str


def read_rows() -> dict[str, Row]:
    rows = {}
    for recipe, height, width, millions, gflops in ROW.findall(PAGE.read_text(encoding="utf-8")):
        assert recipe not in rows, f"{recipe} has two rows"
        rows[recipe] = Row(recipe, (int(height), int(width)) if height else None, millions, gflops)
    return rows


ROWS = read_rows()
NETWORKS = [row for row in ROWS.values() if row.size_hw]
# FLOPs of the toy scenes' models are counted in every run of the tests.
SOME_NETWORKS = [row if "toy/" in row.recipe else pytest.param(row, marks=pytest.mark.slow) for row in NETWORKS]


def build_categories(things: int, stuff: int) -> CategorySet:
    return CategorySet(Category(i, f"class {i}", i <= things, default_color(i)) for i in range(1, things + stuff + 1))


CATEGORIES = {
    "coco": COCO,
    "cityscapes": CITYSCAPES,
    "voc": build_categories(20, 1),
    "nuclei": build_categories(1, 1),
    "ade20k": build_categories(100, 50),
    "medical": build_categories(0, 3),  # the hippocampus: anterior, posterior and the background
    "toy": TOY,
}


@cache
def build(recipe: str, device: str = "meta") -> tuple[Any, nn.Module]:
    register()
    cfg = load_config(recipe, ["MODEL.DEVICE", device, "MODEL.WEIGHTS", ""])
    folder = recipe.partition("/")[0]
    is_semantic = folder == "medical" or "_sem_seg_" in cfg.DATASETS.TRAIN[0]
    channels = choose_thing_channels(cfg, "per_class" if is_semantic else "one")
    categories = CATEGORIES[folder]
    if cfg.DATASETS.TRAIN[0] == "segkit_coco_2017_train":  # without stuff
        categories = CategorySet(categories.things)
    resolve_for_categories(cfg, categories, channels, recipe)
    linspace = partial(torch.linspace, device="cpu")  # Detectron2's Swin reads its values
    with torch.device(device), patch("torch.linspace", linspace):
        return cfg, build_model(cfg).eval()


@contextmanager
def fixed_boxes(cfg: Any, size_hw: tuple[int, int]) -> Iterator[None]:
    """What depends on values gives a fixed number of boxes."""

    def build_instances(count: int, **fields: str) -> Instances:
        boxes, numbers = Boxes(torch.zeros(count, 4, device="meta")), torch.zeros(count, device="meta")
        values = {"boxes": boxes, "scores": numbers, "classes": numbers.long()}
        return Instances(size_hw, **{name: values[kind] for name, kind in fields.items()})

    def propose(*_args: Any, **_options: Any) -> list[Instances]:
        return [build_instances(cfg.MODEL.RPN.POST_NMS_TOPK_TEST, proposal_boxes="boxes", objectness_logits="scores")]

    def detect(*_args: Any, **_options: Any) -> tuple[list[Instances], list[None]]:
        fields = {"pred_boxes": "boxes", "scores": "scores", "pred_classes": "classes"}
        return [build_instances(cfg.TEST.DETECTIONS_PER_IMAGE, **fields)], [None]

    def pool(pooler: Any, features: list[torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        return features[0].new_zeros(sum(map(len, boxes)), features[0].shape[1], *pooler.output_size)

    replaced = {PROPOSALS: propose, POOLER: pool, "detectron2.structures.Boxes.clip": lambda *_: None}
    with ExitStack() as stack:
        for name, function in {**replaced, **dict.fromkeys(DETECTIONS, detect)}.items():
            stack.enter_context(patch(name, function))
        yield


class Layers(nn.Module):
    """The layers of a model without region proposals."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        heads = [model.sem_seg_head, getattr(model, "ins_embed_head", None)]
        self.backbone, self.heads = model.backbone, nn.ModuleList(head for head in heads if head is not None)

    def forward(self, images: torch.Tensor) -> list[Any]:
        features = self.backbone(images)
        return [head.layers(features) for head in self.heads]


def count_multiply_adds(cfg: Any, model: Any, size_hw: tuple[int, int]) -> int:
    """Multiply-adds of convolutions, linear layers and matrix products for one image."""
    image = torch.zeros(3, *size_hw, device="meta")
    model.requires_grad_(False)
    without_autocast = patch("torch.autocast", lambda *_, **__: nullcontext())  # the meta device has none
    with fixed_boxes(cfg, size_hw), torch.no_grad(), without_autocast, FlopCounterMode(display=False) as counter:
        if hasattr(model, "roi_heads"):
            model.inference([{"image": image}], do_postprocess=False)
        elif hasattr(model, "predict"):  # of a mask transformer
            model.predict(image[None])
        else:
            Layers(model)(image[None])
    return counter.get_total_flops() // 2  # torch counts multiplications and additions


def test_every_recipe_has_one_row() -> None:
    assert sorted(ROWS) == sorted(list_recipes())


@pytest.mark.parametrize("row", NETWORKS, ids=lambda row: row.recipe)
def test_parameters_are_those_of_the_recipe(row: Row) -> None:
    _, model = build(row.recipe)
    assert f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}" == row.millions


@pytest.mark.parametrize("row", SOME_NETWORKS, ids=lambda row: row.recipe)
def test_flops_are_those_of_the_recipe(row: Row) -> None:
    assert row.size_hw is not None
    gflops = count_multiply_adds(*build(row.recipe), row.size_hw) / 1e9
    assert (f"{gflops:.0f}" if gflops >= 100 else f"{gflops:.3g}") == row.gflops


@pytest.mark.parametrize("row", NETWORKS, ids=lambda row: row.recipe)
def test_the_image_has_the_size_of_the_recipes_evaluation(row: Row) -> None:
    assert row.size_hw is not None
    inputs = load_config(row.recipe).INPUT
    short, long = sorted(row.size_hw)
    assert short == inputs.MIN_SIZE_TEST
    assert long <= inputs.MAX_SIZE_TEST + 31  # padded to a multiple of 32


def test_models_without_a_network_have_no_parameters() -> None:
    for row in ROWS.values():
        if row.size_hw is None:
            assert load_config(row.recipe).MODEL.META_ARCHITECTURE == "ClassicalSegmentor"
            assert (row.millions, row.gflops) == ("0", "–")


def test_flops_are_those_of_fvcore() -> None:
    """fvcore also counts normalization and resizing, which are left out here."""
    analysis = FlopCountAnalysis(Layers(build("toy/unet", "cpu")[1]), torch.zeros(1, 3, 64, 64))
    operators = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    assert count_multiply_adds(*build("toy/unet"), (64, 64)) == operators["conv"]
