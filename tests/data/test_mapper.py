"""The dataset mapper: tensors equal the files, errors name the files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from PIL import Image

from segkit.config import load_config
from segkit.data.catalog import load_dataset, register_dataset
from segkit.data.dataset import Dataset
from segkit.data.datasets import cityscapes as cityscapes_names
from segkit.data.ground_truth import GroundTruth, read_segmentation
from segkit.data.loaders.readers import load_reader_dataset
from segkit.data.mapper import SegkitMapper, check_files
from segkit.formats import png
from segkit.formats.derive import build_semantic_map
from segkit.utils.errors import DatasetError
from tests.helpers.cityscapes_tree import write_instance_ids
from tests.helpers.coco_datasets import load_coco_instances, load_coco_panoptic

PANOPTIC_RCNN = ["MODEL.META_ARCHITECTURE", "PanopticRCNN"]


def panoptic(folder: Path, **extra: Any) -> Dataset:
    return load_coco_panoptic("toy", folder / "panoptic.json", folder / "panoptic", **extra)


def mapper(dataset: Dataset, augmentations: list[Any], **options: Any) -> SegkitMapper:
    space = dataset.categories.build_semantic_space("one")
    return SegkitMapper(dataset.categories, space, augmentations, **options)


def test_tensors_agree_with_the_png(toy_folder: Path) -> None:
    dataset = panoptic(toy_folder)
    for record in dataset.records:
        ground_truth = read_segmentation(record, dataset.categories)
        sample = mapper(dataset, [], image_format="RGB")(record)
        pixels = np.asarray(Image.open(record["file_name"]).convert("RGB"))
        assert torch.equal(sample["image"], torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
        things = [s for s in ground_truth.segments if s.isthing and not s.iscrowd]
        instances = sample["instances"]
        assert instances.gt_classes.tolist() == [dataset.categories.thing_contiguous_ids[s.category_id] for s in things]
        for mask, box, segment in zip(instances.gt_masks.tensor, instances.gt_boxes.tensor, things, strict=True):
            expected = ground_truth.segment_ids == segment.segment_id
            assert np.array_equal(mask.numpy(), expected)
            ys, xs = np.nonzero(expected)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        sem_seg = sample["sem_seg"].numpy()
        assert (sem_seg[ground_truth.segment_ids == 0] == 255).all()
        for segment in ground_truth.segments:
            channel = dataset.categories.stuff_contiguous_ids.get(segment.category_id, 0)
            assert (sem_seg[ground_truth.segment_ids == segment.segment_id] == channel).all()


def test_a_flip_moves_image_masks_and_semantics_together(toy_folder: Path) -> None:
    dataset = panoptic(toy_folder)
    plain = mapper(dataset, [])(dataset.records[0])
    flipped = mapper(dataset, [T.RandomFlip(prob=1.0)])(dataset.records[0])
    assert torch.equal(flipped["image"], plain["image"].flip(2))
    assert torch.equal(flipped["sem_seg"], plain["sem_seg"].flip(1))
    assert torch.equal(flipped["instances"].gt_masks.tensor, plain["instances"].gt_masks.tensor.flip(2))


def test_a_crop_keeps_them_aligned_and_drops_what_it_cuts_away(toy_folder: Path) -> None:
    dataset = panoptic(toy_folder)
    fixed = T.FixedSizeCrop((40, 50), pad=False)
    for record in dataset.records:
        sample = mapper(dataset, [fixed])(record)
        masks = sample["instances"].gt_masks.tensor
        assert sample["image"].shape[1:] == sample["sem_seg"].shape == masks.shape[1:] == (40, 50)
        assert (masks.flatten(1).sum(1) > 0).all()
        assert (sample["sem_seg"][masks.any(0)] == 0).all()
        assert masks.sum(0).max() <= 1


def test_evaluation_needs_only_the_image(toy_folder: Path) -> None:
    dataset = panoptic(toy_folder)
    sample = mapper(dataset, [], is_train=False)(dataset.records[0])
    assert set(sample) == {"file_name", "image_id", "height", "width", "image"}


def test_instances_json_replaces_the_derived_masks(toy_folder: Path) -> None:
    """The toy instances JSON holds the panoptic PNG's things as RLE: both ways give the same targets."""
    derived, given = panoptic(toy_folder), panoptic(toy_folder, instances_json=toy_folder / "instances.json")
    for a, b in zip(derived.records, given.records, strict=True):
        first, second = (mapper(d, [])(r)["instances"] for d, r in ((derived, a), (given, b)))
        assert torch.equal(first.gt_masks.tensor, second.gt_masks.tensor)
        assert torch.equal(first.gt_boxes.tensor, second.gt_boxes.tensor)
        assert first.gt_classes.tolist() == second.gt_classes.tolist()
        ground_truths = [GroundTruth(d).read_annotations(r) for d, r in ((derived, a), (given, b))]
        keys = ("category_id", "bbox", "area", "iscrowd", "segmentation")
        assert [[t[k] for k in keys] for t in ground_truths[0]] == [[t[k] for k in keys] for t in ground_truths[1]]


def test_detectron2s_mapper_gives_the_same_tensors(toy_folder: Path, tmp_path: Path) -> None:
    """It gets the same ground truth in the form of its panoptic datasets: RLE and a semantic PNG."""
    dataset = panoptic(toy_folder, instances_json=toy_folder / "instances.json")
    augmentations = [T.ResizeShortestEdge((90, 200), sample_style="range"), T.RandomFlip()]
    ours = mapper(panoptic(toy_folder), augmentations)
    detectron2_mapper = DatasetMapper(
        True,
        augmentations=augmentations,
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format="bitmask",
        recompute_boxes=True,
    )
    for record in dataset.records:
        path = tmp_path / f"{record['image_id']}.png"
        png.write_labels(path, build_semantic_map(read_segmentation(record, dataset.categories), ours.space))
        np.random.seed(record["image_id"])  # noqa: NPY002  # what Detectron2's augmentations draw from
        expected = detectron2_mapper({**record, "sem_seg_file_name": str(path)})
        np.random.seed(record["image_id"])  # noqa: NPY002
        got = ours({key: value for key, value in record.items() if key != "annotations"})
        assert torch.equal(got["image"], expected["image"])
        assert torch.equal(got["sem_seg"], expected["sem_seg"])
        first, second = got["instances"], expected["instances"]
        assert torch.equal(first.gt_masks.tensor, second.gt_masks.tensor)
        assert torch.equal(first.gt_boxes.tensor, second.gt_boxes.tensor)
        assert torch.equal(first.gt_classes, second.gt_classes)


def test_an_instances_dataset_has_masks_and_no_semantics(toy_folder: Path) -> None:
    dataset = load_coco_instances("toy", toy_folder / "instances.json", toy_folder / "images")
    sample = mapper(dataset, [])(dataset.records[0])
    assert "sem_seg" not in sample
    assert len(sample["instances"]) == sum(not a["iscrowd"] for a in dataset.records[0]["annotations"])


def test_from_config_takes_detectron2s_augmentations(toy_folder: Path) -> None:
    cfg = load_config(
        opts=[
            *PANOPTIC_RCNN,
            "INPUT.MIN_SIZE_TRAIN",
            "(64,)",
            "INPUT.CROP.ENABLED",
            "True",
            "INPUT.CROP.SIZE",
            "[.5,.5]",
        ]
    )
    dataset = panoptic(toy_folder)
    sample = SegkitMapper.from_config(cfg, dataset, is_train=True)(dataset.records[0])
    assert min(sample["image"].shape[1:]) == 64


def broken(folder: Path, name: str, content: bytes | None) -> Dataset:
    dataset = panoptic(folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    return dataset


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images/000000000001.png", None, r"000000000001\.png: the image is missing"),
        ("images/000000000001.png", b"no image", r"000000000001\.png: the image does not decode"),
        ("panoptic/000000000001.png", None, r"panoptic/000000000001\.png"),
        ("panoptic/000000000001.png", b"\x89PNG\r\n\x1a\n", r"panoptic/000000000001\.png"),
    ],
)
def test_unreadable_files_are_named(toy_copy: Path, name: str, content: bytes | None, message: str) -> None:
    dataset = broken(toy_copy, name, content)
    with pytest.raises(DatasetError, match=message):
        mapper(dataset, [])(dataset.records[0])
    with pytest.raises(DatasetError, match=message):
        check_files(dataset, -1)


def test_a_png_of_another_image_is_found_before_training(toy_copy: Path) -> None:
    dataset = panoptic(toy_copy)
    shutil.copy(toy_copy / "panoptic/000000000002.png", toy_copy / "panoptic/000000000012.png")
    with pytest.raises(DatasetError, match=r"000000000012\.png.*segment ids"):
        check_files(dataset, 2)  # the first and the last
    assert check_files(dataset, 1)[:2] == (1, 1)
    assert check_files(dataset, 0)[:2] == (0, 0)


def test_an_image_of_another_size_is_found_before_training(toy_copy: Path) -> None:
    dataset = panoptic(toy_copy)
    Image.new("RGB", (64, 32)).save(toy_copy / "images/000000000001.png")
    with pytest.raises(DatasetError, match=r"expected 128 x 128 pixels .* got 32 x 64"):
        check_files(dataset, -1)


@pytest.mark.parametrize(
    ("task", "metrics", "channels"),
    [
        ("panoptic", ("panoptic_quality", "mask_ap", "semantic_iou", "cityscapes_ap"), [[1, 0], [0, 255]]),
        ("instance_seg", ("mask_ap", "cityscapes_ap"), None),
        ("sem_seg", ("semantic_iou",), [[0, 11], [13, 255]]),
    ],
)
def test_cityscapes_tasks_from_the_downloaded_tree(
    tmp_path: Path, task: str, metrics: tuple[str, ...], channels: list[list[int]] | None
) -> None:
    """channels: of the pixels (0, 0), (0, 2), (2, 0), (3, 0): road, person group, car, void.

    One thing channel: road is the first stuff class (1), things are 0. Per class (train ids): 0, 11, 13.
    """
    write_instance_ids(tmp_path)
    cityscapes_names.register(tmp_path)
    dataset = load_dataset(f"segkit_cityscapes_fine_{task}_train")
    assert dataset.metrics == metrics
    assert [r["image_id"] for r in dataset.records] == ["aachen_000000_000019", "aachen_000001_000019"]
    assert check_files(dataset, -1)[:2] == (2, 2)
    cfg = load_config(opts=[*PANOPTIC_RCNN, "INPUT.MIN_SIZE_TRAIN", "(4,)", "INPUT.RANDOM_FLIP", "none"])
    sample = SegkitMapper.from_config(cfg, dataset, is_train=True)(dataset.records[0])
    assert len(sample["instances"]) == 1  # the group is a crowd
    if channels is not None:
        sem_seg = sample["sem_seg"]
        assert [[sem_seg[0, 0], sem_seg[0, 2]], [sem_seg[2, 0], sem_seg[3, 0]]] == channels


def test_registering_a_name_again_replaces_it(toy_folder: Path) -> None:
    register_dataset("t_again", lambda: panoptic(toy_folder))
    first = load_dataset("t_again")
    register_dataset("t_again", lambda: panoptic(toy_folder))
    assert load_dataset("t_again") is not first


def test_images_without_objects_are_skipped_and_only_such_images_are_an_error(tmp_path: Path) -> None:
    for name, labels in (("none", np.zeros((2, 3))), ("one", np.eye(2, 3))):
        for folder, pixels in (("images", np.full((2, 3), 9)), ("labels", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
    dataset = load_reader_dataset("t_some", "instance-maps", {"root": str(tmp_path)})
    cfg = load_config(opts=PANOPTIC_RCNN)
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    without, with_one = dataset.records
    maps = SegkitMapper.from_config(cfg, dataset, True)  # FILTER_EMPTY_ANNOTATIONS is True by default
    assert maps(without) is None
    assert len(maps(with_one)["instances"]) == 1
    assert maps(without) is None
    with pytest.raises(DatasetError, match="expected images with objects, got 2 without in a row"):
        maps(without)
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert not len(SegkitMapper.from_config(cfg, dataset, True)(without)["instances"])
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, cfg.MODEL.META_ARCHITECTURE = True, "SemanticSegmentor"
    assert SegkitMapper.from_config(cfg, dataset, True)(without) is not None
    assert SegkitMapper.from_config(cfg, dataset, False)(without) is not None


@pytest.mark.parametrize(
    ("architecture", "keys"),
    [
        ("GeneralizedRCNN", {"instances"}),
        ("SemanticSegmentor", {"sem_seg"}),
        ("PanopticRCNN", {"instances", "sem_seg"}),
    ],
)
def test_a_sample_holds_the_targets_of_the_architecture(toy_folder: Path, architecture: str, keys: set[str]) -> None:
    dataset = panoptic(toy_folder)
    cfg = load_config(opts=["MODEL.META_ARCHITECTURE", architecture, "INPUT.MIN_SIZE_TRAIN", "(64,)"])
    sample = SegkitMapper.from_config(cfg, dataset, is_train=True)(dataset.records[0])
    assert sample.keys() & {"instances", "sem_seg"} == keys
