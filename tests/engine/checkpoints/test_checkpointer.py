"""Checkpoints of networks with Detectron2's names but a few channels: matching weights load, others are rejected."""

import json
import pickle
import re

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.engine.hooks import LRScheduler, PeriodicCheckpointer
from detectron2.modeling import build_model
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn

from segkit.engine.checkpoints import checkpointer as checkpoint_module
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.checkpoints.finite import find_non_finite
from segkit.utils.errors import CheckpointError

BOTTOM_UP = "backbone.bottom_up."
C2_LAYERS = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
C2_ENDS = {"weight": "w", "norm.weight": "bn_s", "norm.bias": "bn_b"}


def mask_rcnn(depth=50, num_classes=3, norm="FrozenBN", fpn_channels=8):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = fpn_channels
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    return build_model(cfg)


def noisy_backbone(model):
    """name -> float32 array for each weight of the ResNet; no running statistics, as in MSRA's R-50."""
    generator = np.random.default_rng(0)
    names = [k.removeprefix(BOTTOM_UP) for k in model.state_dict() if k.startswith(BOTTOM_UP) and "running" not in k]
    shapes = {name: model.state_dict()[BOTTOM_UP + name].shape for name in names if "num_batches" not in name}
    return {name: generator.standard_normal(tuple(shape), np.float32) for name, shape in shapes.items()}


def c2_name(name):
    """The inverse of detectron2.checkpoint.c2_model_loading.convert_basic_c2_names for a ResNet."""
    stage, block, rest = name.split(".", 2)
    if stage == "stem":
        return {"weight": "conv1_w", "norm.weight": "res_conv1_bn_s", "norm.bias": "res_conv1_bn_b"}[rest]
    layer, end = rest.split(".", 1)
    return f"{stage}_{block}_{C2_LAYERS[layer]}_{C2_ENDS[end]}"


def msra_file(path, model):
    backbone = noisy_backbone(model)
    blobs = {c2_name(name): value for name, value in backbone.items()}
    blobs.update(fc1000_w=np.zeros((10, 8), np.float32), conv1_w_momentum=np.zeros(3, np.float32))
    path.write_bytes(pickle.dumps(blobs, 2))
    return backbone


def torchvision_file(path, model):
    """As detectron2's tools/convert-torchvision-to-d2.py writes it: the classifier is below the stem."""
    backbone = noisy_backbone(model)
    weights = {**backbone, "stem.fc.weight": np.zeros((10, 8), np.float32), "stem.fc.bias": np.zeros(10, np.float32)}
    data = {"model": weights, "__author__": "torchvision", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(data))
    return backbone


def full_file(path, model, **changes):
    weights = {**model.state_dict(), **changes}
    torch.save({"model": {k: v for k, v in weights.items() if v is not None}}, path)


def same_weights(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def get_load_error(checkpointer, load, path):
    with pytest.raises(CheckpointError) as caught:
        getattr(checkpointer, load)(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("write", [msra_file, torchvision_file])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_imagenet_backbones_are_loaded_for_training(tmp_path, write, norm):
    model = mask_rcnn(norm=norm)
    backbone = write(tmp_path / "R-50.pkl", model)
    SafeCheckpointer(model).load(str(tmp_path / "R-50.pkl"), checkpointables=[])
    state = model.state_dict()
    for name, value in backbone.items():
        np.testing.assert_array_equal(state[BOTTOM_UP + name].numpy(), value)
    message = get_load_error(SafeCheckpointer(model), "load_for_inference", tmp_path / "R-50.pkl")
    assert "missing: " in message
    assert "use the config" in message


def test_deformable_offsets_may_start_from_scratch(tmp_path):
    model = mask_rcnn()
    backbone = msra_file(tmp_path / "R-50.pkl", model)
    model.backbone.bottom_up.res5[0].conv2_offset = nn.Conv2d(4, 18, 3)  # as DeformBottleneckBlock names it
    SafeCheckpointer(model).load(str(tmp_path / "R-50.pkl"))
    name = "res5.0.conv2.weight"
    np.testing.assert_array_equal(model.state_dict()[BOTTOM_UP + name].numpy(), backbone[name])


@pytest.mark.parametrize("write", [msra_file, torchvision_file, full_file])
@pytest.mark.parametrize(("of", "into"), [(50, 101), (101, 50)])
def test_a_backbone_of_another_depth_is_rejected(tmp_path, write, of, into):
    path = tmp_path / ("w.pth" if write is full_file else "w.pkl")
    write(path, mask_rcnn(of))
    message = get_load_error(SafeCheckpointer(mask_rcnn(into)), "load", path)
    # 1 + 33 * 3 + 4 convolutions, each with a norm: 208 weights. 17 blocks more than R-50: 17 * 3 * 2 = 102.
    assert "weights of another backbone" in message
    assert ("102 of 208 weights not in the file" if into == 101 else "102 in the file that it lacks") in message
    assert re.search(r"res4\.(6|10)\.", message)
    assert "MODEL.RESNETS.DEPTH" in message


@pytest.mark.parametrize("write", [msra_file, torchvision_file, full_file])
def test_a_backbone_of_other_shapes_is_rejected(tmp_path, write):
    path = tmp_path / ("w.pth" if write is full_file else "w.pkl")
    wide = mask_rcnn()
    wide.backbone.bottom_up.stem.conv1.weight = nn.Parameter(torch.zeros(8, 4, 7, 7))
    write(path, wide)
    message = get_load_error(SafeCheckpointer(mask_rcnn()), "load", path)
    assert "1 of another shape: 'backbone.bottom_up.stem.conv1.weight' (file (8, 4, 7, 7), model (8," in message


def test_another_fpn_width_is_rejected(tmp_path):
    full_file(tmp_path / "w.pth", mask_rcnn(fpn_channels=16))
    assert "backbone.fpn_" in get_load_error(SafeCheckpointer(mask_rcnn()), "load", tmp_path / "w.pth")


def test_one_missing_backbone_tensor_is_rejected(tmp_path):
    name = BOTTOM_UP + "res3.1.conv2.weight"
    full_file(tmp_path / "w.pth", mask_rcnn(), **{name: None})
    message = get_load_error(SafeCheckpointer(mask_rcnn()), "load", tmp_path / "w.pth")
    assert f"1 of 106 weights not in the file: {name!r};" in message


def test_heads_of_another_class_count_train_but_do_not_infer(tmp_path, caplog):
    trained, model = mask_rcnn(num_classes=3), mask_rcnn(num_classes=5)
    full_file(tmp_path / "w.pth", trained)
    SafeCheckpointer(model).load(str(tmp_path / "w.pth"), checkpointables=[])
    assert torch.equal(model.roi_heads.box_head.fc1.weight, trained.roi_heads.box_head.fc1.weight)
    assert "roi_heads.box_predictor.cls_score.weight" in caplog.text
    message = get_load_error(SafeCheckpointer(model), "load_for_inference", tmp_path / "w.pth")
    assert "weights of another dataset: they have 3 thing classes (the model 5); use the dataset that" in message


def test_inference_needs_every_weight_and_only_logs_extra_ones(tmp_path):
    trained, model = mask_rcnn(), mask_rcnn()
    full_file(tmp_path / "w.pth", trained, extra=torch.ones(1))
    assert not same_weights(trained, model)
    SafeCheckpointer(model).load_for_inference(str(tmp_path / "w.pth"))
    assert same_weights(trained, model)
    full_file(tmp_path / "w.pth", trained, **{"roi_heads.box_head.fc1.bias": None})
    message = get_load_error(SafeCheckpointer(model), "load_for_inference", tmp_path / "w.pth")
    assert "1 missing: 'roi_heads.box_head.fc1.bias'" in message


def test_files_without_matching_weights_are_rejected(tmp_path):
    torch.save({"layer1.0.conv1.weight": torch.ones(2), "num_batches_tracked": torch.ones(1)}, tmp_path / "w.pth")
    for load in ("load", "load_for_inference"):
        message = get_load_error(SafeCheckpointer(mask_rcnn()), load, tmp_path / "w.pth")
        assert "no tensor matches the model: the file has 'layer1.0.conv1.weight'" in message
        assert "?matching_heuristics=True" in message
    torch.save({"model": {}}, tmp_path / "empty.pth")
    assert "the file has no tensors" in get_load_error(SafeCheckpointer(mask_rcnn()), "load", tmp_path / "empty.pth")


def test_the_matching_heuristics_query_works_without_prefixes(tmp_path):
    trained, model = mask_rcnn(), mask_rcnn()
    torch.save({k.removeprefix(BOTTOM_UP): v for k, v in trained.state_dict().items()}, tmp_path / "w.pth")
    SafeCheckpointer(model).load_for_inference(f"{tmp_path}/w.pth?matching_heuristics=True")
    assert same_weights(trained, model)
    checkpointer = SafeCheckpointer(model)
    with pytest.raises(CheckpointError, match="Unsupported query"):
        checkpointer.load(f"{tmp_path}/w.pth?other=1")
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    checkpointer.load(f"{tmp_path}/w.pth")  # the failure before left no state in the checkpointer


def test_pycls_files_load(tmp_path):
    trained, model = mask_rcnn(), mask_rcnn()
    torch.save({"model_state": trained.state_dict()}, tmp_path / "w.pyth")
    SafeCheckpointer(model).load_for_inference(str(tmp_path / "w.pyth"))
    assert same_weights(trained, model)
    torch.save({"state": {}}, tmp_path / "w.pyth")
    assert "'model_state'" in get_load_error(SafeCheckpointer(model), "load", tmp_path / "w.pyth")


def test_detectron2_pickles_of_whole_models_load(tmp_path):
    trained, model = mask_rcnn(), mask_rcnn()
    weights = {name: value.numpy() for name, value in trained.state_dict().items()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": weights, "__author__": "Detectron2 Model Zoo"}))
    SafeCheckpointer(model).load_for_inference(str(tmp_path / "w.pkl"))
    assert same_weights(trained, model)


def test_files_without_a_dict_of_tensors_are_rejected(tmp_path):
    torch.save({"weights": {"w": torch.ones(1)}, "epoch": 3}, tmp_path / "w.pth")
    message = get_load_error(SafeCheckpointer(nn.Linear(1, 1)), "load", tmp_path / "w.pth")
    assert "got 2 other entries: 'weights (dict)', 'epoch (int)'" in message
    torch.save({"model": {3: torch.ones(1)}}, tmp_path / "w.pth")
    assert "3 (a key)" in get_load_error(SafeCheckpointer(nn.Linear(1, 1)), "load", tmp_path / "w.pth")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"blobs": 3}))
    get_load_error(SafeCheckpointer(nn.Linear(1, 1)), "load", tmp_path / "w.pkl")


def test_an_empty_path_trains_from_scratch_and_infers_nothing(tmp_path):
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    assert SafeCheckpointer(model).load("") == {}
    assert SafeCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True) == {}
    assert torch.equal(model.weight, before)
    with pytest.raises(CheckpointError, match=r"no weights: pass --weights or MODEL\.WEIGHTS"):
        SafeCheckpointer(model).load_for_inference("")


def test_missing_files_and_unknown_hosts(tmp_path):
    assert "no such weight file" in get_load_error(SafeCheckpointer(nn.Linear(1, 1)), "load", tmp_path / "absent.pth")
    assert "no such weight file" in get_load_error(SafeCheckpointer(nn.Linear(1, 1)), "load", tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    with pytest.raises(CheckpointError, match=r"last_checkpoint: names 'model_0000009\.pth', but there is no such"):
        SafeCheckpointer(nn.Linear(1, 1), str(tmp_path)).resume_or_load("", resume=True)


@pytest.mark.parametrize("name", ["w.pkl", "w.pth", "w.pyth", "w.pth?matching_heuristics=True"])
def test_loading_never_runs_code_of_the_file(tmp_path, name):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return eval, (f"open({str(canary)!r}, 'w')",)

    payload = {"model": {"weight": torch.ones(1)}, "model_state": {}, "x": Evil()}
    path = tmp_path / name.partition("?")[0]
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": {}, "__author__": Evil()}))
    else:
        torch.save(payload, path)
    with pytest.raises(CheckpointError, match="refused the global"):
        SafeCheckpointer(nn.Linear(1, 1)).load(str(tmp_path / name))
    assert not canary.exists()


def test_data_parallel_models_and_their_prefixes(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(nn.Linear(2, 3))
        SafeCheckpointer(parallel, str(tmp_path)).save("inner")
        torch.save(parallel.state_dict(), tmp_path / "outer.pth")  # module.weight, module.bias
        for name in ("inner", "outer"):
            other = nn.parallel.DistributedDataParallel(nn.Linear(2, 3))
            SafeCheckpointer(other).load_for_inference(f"{tmp_path}/{name}.pth")
            assert same_weights(parallel, other)
    finally:
        torch.distributed.destroy_process_group()


class Trainer(AMPTrainer):
    """Detectron2's mixed-precision trainer with its scaler, but with steps that a CPU can take."""

    def __init__(self, folder, iterations):
        torch.manual_seed(iterations)
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        model.forward = lambda batch: {
            "loss": nn.Sequential.forward(model, batch).square().mean() + model[0].weight.sum()
        }
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        batches = [torch.arange(8.0).reshape(4, 2)] * 100
        super().__init__(model, batches, optimizer, grad_scaler=torch.amp.GradScaler("cpu", init_scale=64.0))
        self.checkpointer = SafeCheckpointer(model, str(folder), trainer=self)
        schedule = LRMultiplier(optimizer, LinearParamScheduler(1.0, 0.0), max_iter=100)
        self.register_hooks([LRScheduler(optimizer, schedule), PeriodicCheckpointer(self.checkpointer, 3)])
        self.schedule, self.iterations = schedule, iterations

    def run_step(self):
        SimpleTrainer.run_step(self)

    def go(self):
        self.train(self.start_iter, self.iterations)
        return self


def test_training_resumes_where_it_stopped(tmp_path):
    """Six steps at once, and 3 + 3 steps with a resume between, give the same weights and optimizer state."""
    whole = Trainer(tmp_path / "whole", 6).go()
    Trainer(tmp_path / "parts", 6).iterations = 3
    first = Trainer(tmp_path / "parts", 6)
    first.iterations = 3
    first.go()
    second = Trainer(tmp_path / "parts", 6)
    with torch.no_grad():
        second.model[0].weight.zero_()
    second.checkpointer.resume_or_load("", resume=True)
    second.start_iter = second.iter + 1
    assert second.start_iter == 3
    assert second.grad_scaler.get_scale() == 64.0
    second.go()
    assert same_weights(whole.model, second.model)
    assert second.schedule.last_epoch == whole.schedule.last_epoch == 6
    expected, got = (trainer.optimizer.state_dict() for trainer in (whole, second))
    assert got["param_groups"] == expected["param_groups"]
    for key, state in expected["state"].items():
        assert all(torch.equal(value, got["state"][key][name]) for name, value in state.items())
    assert (tmp_path / "parts" / "last_checkpoint").read_text() == "model_final.pth"


def test_resuming_another_network_is_rejected(tmp_path):
    SafeCheckpointer(nn.Linear(2, 2), str(tmp_path)).save("model_final")
    model = nn.Linear(2, 2)
    model.extra = nn.Parameter(torch.ones(1))
    with pytest.raises(CheckpointError, match=r"model_final\.pth: of the model's 3 tensors, 1 missing: 'extra'"):
        SafeCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True)


def test_weights_without_a_state_are_not_resumed_from(tmp_path, caplog):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.save(model.state_dict(), tmp_path / "model_final.pth")
    with pytest.raises(
        CheckpointError, match=r"model_final\.pth: has weights, but no state of a training \(optimizer\)"
    ):
        SafeCheckpointer(model, str(tmp_path), optimizer=optimizer).resume_or_load("", resume=True)
    SafeCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_final")
    SafeCheckpointer(model, str(tmp_path), optimizer=optimizer, ema=optimizer).resume_or_load("", resume=True)
    assert "has no state of 'ema', which starts from the beginning" in caplog.text


def test_an_optimizer_that_does_not_match_is_rejected(tmp_path):
    model = nn.Linear(2, 2)
    SafeCheckpointer(model, str(tmp_path), optimizer=torch.optim.SGD([model.weight], 0.1)).save("w")
    other = SafeCheckpointer(model, str(tmp_path), optimizer=torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(CheckpointError, match=r"w\.pth: cannot be loaded into this model \(ValueError: loaded state"):
        other.resume_or_load("", resume=True)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("disk full"), OSError(28, "No space left")])
def test_an_interrupted_save_leaves_the_last_checkpoint_complete(tmp_path, monkeypatch, failure):
    model = nn.Linear(2, 2)
    checkpointer = SafeCheckpointer(model, str(tmp_path))
    checkpointer.save("good", iteration=np.int64(3))
    good = (tmp_path / "good.pth").read_bytes()

    def half(data, file):
        file.write(good[:50])
        raise failure

    monkeypatch.setattr(checkpoint_module.torch, "save", half)
    for name in ("good", "next"):
        expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else CheckpointError
        with pytest.raises(expected):
            checkpointer.save(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.pth", "last_checkpoint"]
    assert (tmp_path / "good.pth").read_bytes() == good
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 3}


def test_the_last_checkpoint_is_recorded_after_it_is_complete(tmp_path, monkeypatch):
    exists = []
    monkeypatch.setattr(
        SafeCheckpointer, "tag_last_checkpoint", lambda self, name: exists.append((tmp_path / name).exists())
    )
    SafeCheckpointer(nn.Linear(1, 1), str(tmp_path)).save("w")
    assert exists == [True]


@pytest.mark.parametrize("state", [{"classes": {1, 2}}, {"array": np.ones(2)}, {"path": json}])
def test_unreadable_states_are_not_written(tmp_path, state):
    with pytest.raises(CheckpointError, match=r"not saved, because it could not be read back: refused .* at "):
        SafeCheckpointer(nn.Linear(1, 1), str(tmp_path)).save("w", **state)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_without_a_folder_or_by_other_ranks(tmp_path):
    SafeCheckpointer(nn.Linear(1, 1)).save("w")
    SafeCheckpointer(nn.Linear(1, 1), str(tmp_path), save_to_disk=False).save("w")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, value):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    SafeCheckpointer(model, str(tmp_path)).save("good", iteration=1)
    with torch.no_grad():
        model[0].weight[0, 1] = model[1].bias[0] = value
    for save_to_disk in (True, False):  # every rank raises
        with pytest.raises(CheckpointError, match=r"2 tensors have NaN .*: 'model\.0\.weight', 'model\.1\.bias'; ear"):
            SafeCheckpointer(model, str(tmp_path), save_to_disk=save_to_disk).save("bad", iteration=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.pth", "last_checkpoint"]


def test_infinity_is_allowed_in_masks_and_nan_nowhere(tmp_path):
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, -float("inf")]))
    checkpointer = SafeCheckpointer(model, str(tmp_path))
    checkpointer.save("good", history=[torch.tensor([1])])
    with pytest.raises(CheckpointError, match=r"1 tensors have NaN .*: 'ema\.history\[1\]'"):
        checkpointer.save("bad", ema={"history": [torch.ones(1), torch.tensor(float("nan"))]})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e5m2])
def test_values_of_every_type_are_tested(dtype):
    good = {
        "none": torch.zeros(0).to(dtype),
        "number": torch.tensor([1.0, -2.0]).to(dtype),
        "count": torch.tensor(3),
    }
    assert find_non_finite(good, good) == []
    limit, nan = (torch.tensor([1.0, value, -2.0]).to(dtype) for value in (-float("inf"), float("nan")))
    state = {**good, "limit": limit, "weight": limit, "nan": [nan]}
    assert find_non_finite(state, ["weight"]) == ["weight", "nan[0]"]
