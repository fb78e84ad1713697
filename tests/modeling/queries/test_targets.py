"""From training samples to the classes and masks of queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.structures import Instances, PolygonMasks

from segkit.data.ground_truth import read_segmentation
from segkit.data.mapper import SegkitMapper
from segkit.modeling.queries.targets import QueryTargetBuilder
from segkit.utils.errors import ConfigError
from tests.helpers.coco_datasets import load_coco_panoptic

# Things and stuff alternate: grass (stuff 1), square (thing 0), sky (stuff 2), disk (thing 1).
STUFF_IDS, THING_IDS = [1, 0, 2, 0], [-1, 0, -1, 1]
GRASS, SQUARE, SKY, DISK = range(4)
CPU = torch.device("cpu")


def draw_sample() -> dict[str, Any]:
    """A disk and a square as polygons in 3 x 6 pixels, over a row of sky, and a row of grass with void on its right."""
    instances = Instances((3, 6))
    instances.gt_classes = torch.tensor([1, 0])
    instances.gt_masks = PolygonMasks([[[0.0, 1, 2, 1, 2, 2, 0, 2]], [[4.0, 0, 6, 0, 6, 2, 4, 2]]])
    sem_seg = torch.tensor([[SKY, SKY, SKY, SKY, SQUARE, SQUARE], [DISK, DISK, SKY, SKY, SQUARE, SQUARE]])
    bottom = torch.tensor([[GRASS, GRASS, GRASS, GRASS, 255, 255]])
    return {"file_name": "a.png", "instances": instances, "sem_seg": torch.cat([sem_seg, bottom])}


def build(sample: dict[str, Any], kind: str = "auto") -> list[tuple[int, int]]:
    """Class and pixels of each target in a padded image of 4 x 8 pixels."""
    builder = QueryTargetBuilder(STUFF_IDS, THING_IDS, kind)  # type: ignore[arg-type]
    (targets,) = builder([sample], (4, 8), CPU)
    assert targets.masks.shape == (len(targets.class_ids), 4, 8)
    assert (targets.masks.dtype, targets.class_ids.dtype) == (torch.bool, torch.int64)
    return list(zip(targets.class_ids.tolist(), targets.masks.sum((1, 2)).tolist(), strict=True))


def test_each_kind_has_its_targets() -> None:
    sample = draw_sample()
    panoptic = [(DISK, 2), (SQUARE, 4), (GRASS, 4), (SKY, 6)]
    assert build(sample) == build(sample, "panoptic") == panoptic
    assert build(sample, "instance") == [(DISK, 2), (SQUARE, 4)]
    assert build(sample, "semantic") == [(GRASS, 4), (SQUARE, 4), (SKY, 6), (DISK, 2)]
    del sample["instances"]
    assert build(sample) == [(GRASS, 4), (SQUARE, 4), (SKY, 6), (DISK, 2)]


def test_an_image_without_objects_has_no_targets() -> None:
    sample = draw_sample()
    assert build({"instances": sample["instances"][:0]}) == []
    assert build({"sem_seg": torch.full((3, 6), 255)}) == []


def test_classes_that_the_model_lacks_are_named() -> None:
    sample = draw_sample()
    sample["sem_seg"][0, 0] = 4
    with pytest.raises(ConfigError, match=r"NUM_CLASSES: a\.png has semantic labels of the classes 4, but .* 0 to 3"):
        build(sample)
    sample["instances"].gt_classes[0] = 2
    with pytest.raises(
        ConfigError, match=r"a\.png has instances of the classes 2, but the model has the classes 0 to 1"
    ):
        build(sample)


def test_a_sample_without_its_targets_is_named() -> None:
    sample = draw_sample()
    del sample["sem_seg"]
    with pytest.raises(ConfigError, match=r"a\.png has no semantic labels .*queries for panoptic targets need"):
        build(sample, "panoptic")
    with pytest.raises(ConfigError, match=r"expected one of .*'semantic'.*got 'boxes'"):
        build(sample, "boxes")


def test_the_targets_of_a_map_are_its_segments(toy_folder: Path) -> None:
    dataset = load_coco_panoptic("toy", toy_folder / "panoptic.json", toy_folder / "panoptic")
    space = dataset.categories.build_semantic_space("per_class")
    builder = QueryTargetBuilder(space.stuff_ids.tolist(), space.thing_ids.tolist())
    mapper = SegkitMapper(dataset.categories, space, [])
    for record in dataset.records:
        ground_truth = read_segmentation(record, dataset.categories)
        (targets,) = builder([mapper(record)], ground_truth.segment_ids.shape, CPU)
        expected = sorted(
            (space.channel_by_category[s.category_id], s.area_px)
            for s in ground_truth.segments
            if not (s.isthing and s.iscrowd)
        )
        assert sorted(zip(targets.class_ids.tolist(), targets.masks.sum((1, 2)).tolist(), strict=True)) == expected
