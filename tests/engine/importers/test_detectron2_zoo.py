"""Files of Detectron2's model zoo, imported, give Detectron2's outputs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.modeling import build_model

from segkit.cli.main import main
from segkit.engine.checkpoints.weight_files import read_weight_file
from tests.helpers import small_models
from tests.helpers.imports import randomize, run_import

TOLERANCE = 1e-4


def write_zoo_file(path: Path, model: torch.nn.Module, **more: Any) -> None:
    """As the zoo's files: numpy arrays, the anchors among them."""
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    weights["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4), np.float32)
    path.write_bytes(pickle.dumps({"model": weights, "__author__": "Detectron2 Model Zoo", **more}))


def write_classes(path: Path) -> str:
    """7 things and 5 stuff classes: the counts of `small_config`."""
    names = [{"id": i, "name": f"c{i}", "isthing": int(i <= small_models.THINGS)} for i in range(1, 13)]
    path.write_text(json.dumps({"categories": names}))
    return str(path)


@pytest.mark.parametrize("roi_heads", [small_models.STANDARD, small_models.CASCADE])
def test_panoptic_fpn_gives_detectron2s_outputs(tmp_path: Path, roi_heads: str) -> None:
    theirs, _ = small_models.twins(roi_heads)
    write_zoo_file(tmp_path / "w.pkl", theirs)
    predictor, report = run_import(tmp_path / "w.pkl", "--classes", write_classes(tmp_path / "classes.json"))
    assert report["source"] == "detectron2"
    assert report["counts"] == {
        **{"loaded": len(theirs.state_dict()), "missing": 0, "unexpected": 0, "shape": 0},
        "left out": 1,  # the anchors
    }
    theirs.eval()
    for model in (theirs, predictor.model):  # no weight says these
        model.proposal_generator.pre_nms_topk = model.proposal_generator.post_nms_topk = {False: 100}
        predictors = model.roi_heads.box_predictor
        for each in predictors if isinstance(predictors, torch.nn.ModuleList) else [predictors]:
            each.test_score_thresh = 0.05
    batch = small_models.images()
    with torch.no_grad():
        expected, got = theirs.inference(batch, False), predictor.model.inference(batch, do_postprocess=False)
    for their_image, our_image in zip(expected[0], got[0], strict=True):
        assert len(our_image) == len(their_image) > 5
        # Scores within rounding of each other may change places: each detection is compared with the nearest one.
        rows = [torch.cat([x.pred_boxes.tensor, x.pred_classes[:, None]], 1) for x in (our_image, their_image)]
        distance, nearest = (rows[0][:, None] - rows[1][None]).abs().amax(2).min(1)
        assert distance.max() < TOLERANCE
        masks = our_image.pred_masks, their_image.pred_masks[nearest]
        torch.testing.assert_close(*masks, atol=TOLERANCE, rtol=TOLERANCE)
    largest = float(expected[1].abs().max())
    torch.testing.assert_close(got[1], expected[1], atol=TOLERANCE * max(largest, 1), rtol=TOLERANCE)
    assert predictor.categories.stuff[0].name == "c8"


def test_zoo_files_of_coco_have_cocos_names(tmp_path: Path) -> None:
    cfg = small_models.small_config("PanopticFPN")
    cfg.merge_from_list(["MODEL.ROI_HEADS.NUM_CLASSES", 80, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 54])
    write_zoo_file(tmp_path / "w.pkl", build_model(cfg))
    predictor, report = run_import(tmp_path / "w.pkl")
    assert len(report["classes"]) == 133
    assert predictor.cfg.DATASETS.TEST == ("segkit_coco_2017_val_panoptic",)
    assert predictor.space.names[:2] == ("things", "banner")


def write_caffe2_file(path: Path, resnet: torch.nn.Module) -> None:
    """MSRA's names, and norms of scale and bias."""
    layers = {"conv1": "branch2a", "conv2": "branch2b", "shortcut": "branch1"}
    ends = {"weight": "w", "norm.weight": "bn_s", "norm.bias": "bn_b"}
    stem = {"weight": "conv1_w", "norm.weight": "res_conv1_bn_s", "norm.bias": "res_conv1_bn_b"}
    blobs = {"fc1000_w": np.zeros((10, 8), np.float32), "fc1000_b": np.zeros(10, np.float32)}
    for name, weight in resnet.state_dict().items():
        stage, block, rest = name.split(".", 2)
        if "running" not in name and stage == "stem":
            blobs[stem[rest]] = weight.numpy()
        elif "running" not in name:
            layer, end = rest.split(".", 1)
            blobs[f"{stage}_{block}_{layers[layer]}_{ends[end]}"] = weight.numpy()
    path.write_bytes(pickle.dumps(blobs, 2))


def test_caffe2_backbones_are_a_start_of_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = small_models.small_config("GeneralizedRCNN")
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    resnet = build_model(cfg).backbone.bottom_up
    write_caffe2_file(tmp_path / "R-18.pkl", resnet)
    assert main(["import", f"{tmp_path}/R-18.pkl", "--output", f"{tmp_path}/ours.pth"]) == 0
    output = capsys.readouterr().out
    assert "left out: fc1000_w" in output
    assert f"segkit train --config-file {tmp_path}/ours.yaml" in output
    weights = read_weight_file(f"{tmp_path}/ours.pth")["model"]
    expected = {f"backbone.bottom_up.{name}": weight for name, weight in resnet.state_dict().items()}
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():  # the statistics are 0 and 1, as Detectron2 fills them in
        torch.testing.assert_close(weights[name], weight, msg=name)


def run_failing(source: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    output = source.parent / "failed.pth"
    assert main(["import", str(source), "--output", str(output), *options]) == 1
    assert not output.exists()
    assert not output.with_suffix(".yaml").exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_what_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, model = tmp_path / "w.pth", build_model(small_models.small_config("PanopticFPN"))
    torch.save(model.state_dict(), source)
    error = run_failing(source, capsys)
    assert "7 thing classes and 6 semantic channels are unknown; give --classes" in error
    error = run_failing(source, capsys, "--classes", "coco")
    assert "the weights have 7 thing classes, coco has 80" in error
    assert "did you mean 'torchvision-maskrcnn'?" in run_failing(source, capsys, "--from", "torchvison-maskrcnn")
    error = run_failing(source, capsys, "--from", "torchvision-maskrcnn")
    assert "expected weights of torchvision's maskrcnn_resnet50_fpn" in error
    assert "they look like those of detectron2" in error
    torch.save({"layer.weight": torch.ones(2)}, source)
    assert "got 'layer.weight'; load the weights by the package that has saved them" in run_failing(source, capsys)


def test_differences_from_other_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({f"encoder.blocks.{i}.norm1.weight": torch.full((4,), 0.01) for i in range(8)}, tmp_path / "w.pth")
    error = run_failing(tmp_path / "w.pth", capsys)
    assert "got differences from other weights" in error
    assert "add them to the weights that they were computed from" in error


def test_no_code_of_the_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "canary"), "w")

    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"stem.conv1.weight": Hostile()}}))
    assert "refused the global" in run_failing(tmp_path / "w.pkl", capsys)
    assert not (tmp_path / "canary").exists()


def test_a_config_of_something_else_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("MODEL: {}\n")
    torch.save({}, tmp_path / "w.pth")
    assert main(["import", f"{tmp_path}/w.pth", "--output", f"{tmp_path}/config.pth"]) == 1
    assert "config.yaml: the config to write exists already" in capsys.readouterr().err


NARROW = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
}


@pytest.mark.parametrize(
    "config",
    [
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x.yaml",
        "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    ],
)
def test_networks_without_fpn_and_retinanet_give_detectron2s_outputs(tmp_path: Path, config: str) -> None:
    cfg = model_zoo.get_config(config)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *(item for pair in NARROW.items() for item in pair)])
    torch.manual_seed(0)
    theirs = build_model(cfg)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():  # as drawn, all scores are equal
            if any(part in name for part in ("cls_score", "bbox_pred", "mask_head.predictor", "objectness_logits")):
                weight.add_(torch.randn_like(weight) * 0.05)
    randomize(theirs, 0.5)
    write_zoo_file(tmp_path / "w.pkl", theirs)
    predictor, report = run_import(tmp_path / "w.pkl")
    counts = report["counts"]
    assert (counts["loaded"], counts["missing"], counts["unexpected"]) == (len(theirs.state_dict()), 0, 0)
    assert len(predictor.categories.things) == 80
    heads = ("RETINANET", "FPN") if "retinanet" in config else ("RPN", "ROI_HEADS")
    for key in (*heads, "ANCHOR_GENERATOR", "RESNETS"):
        mine, expected = predictor.cfg.MODEL[key], cfg.MODEL[key]
        assert {name: mine[name] for name in expected if mine[name] != expected[name]} == {}, key
    for model in (theirs, predictor.model):
        (model if hasattr(model, "head") else model.roi_heads.box_predictor).test_score_thresh = 0.0
    batch = small_models.images(1)
    with torch.no_grad():
        expected, got = (compute_raw_outputs(model, batch) for model in (theirs, predictor.model))
    assert len(got) == len(expected) > 3
    for ours, values in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, values, atol=TOLERANCE * max(float(values.abs().max()), 1), rtol=TOLERANCE)


def compute_raw_outputs(model: Any, batch: list[dict[str, Any]]) -> list[torch.Tensor]:
    """Before what rounds or sorts: the fields of R-CNN's instances without pasting, or the maps of RetinaNet's head."""
    if not hasattr(model, "roi_heads"):
        features = model.backbone(model.preprocess_image(batch).tensor)
        return [level for maps in model.head([features[name] for name in model.head_in_features]) for level in maps]
    fields = model.inference(batch, do_postprocess=False)[0].get_fields()
    assert len(fields["scores"]) > 5
    return [value.tensor if name == "pred_boxes" else value for name, value in fields.items()]


def test_other_networks_need_their_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without region proposals: Detectron2's Fast R-CNN takes precomputed ones."""
    values = {"MODEL__PROPOSAL_GENERATOR__NAME": "PrecomputedProposals", "MODEL__LOAD_PROPOSALS": True}
    cfg = small_models.small_config("GeneralizedRCNN", **values)
    torch.save(build_model(cfg).state_dict(), tmp_path / "w.pth")
    error = run_failing(tmp_path / "w.pth", capsys)
    assert "w.pth: expected an RPN with 3 anchors at each pixel of a level, got 0; give the config" in error
    (tmp_path / "own.yaml").write_text(cfg.dump())
    options = ["--config-file", f"{tmp_path}/own.yaml"]
    assert main(["import", f"{tmp_path}/w.pth", "--output", f"{tmp_path}/ours.pth", *options]) == 0
    assert read_weight_file(f"{tmp_path}/ours.pth")["model"].keys() == build_model(cfg).state_dict().keys()
