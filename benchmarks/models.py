#!/usr/bin/env python3
"""Inference of each architecture against its reference implementation: images a second, peak memory, stages.

    python benchmarks/models.py [NAME ...] [--rounds 5] [--size 480 640] [--device cuda] [--compile]

Both have the same random weights and get the same image, in turns. segkit's model computes as TEST.INFERENCE says.
Stops if its outputs without these options differ from the reference by more than rounding, or if the options change
logits by more than 1e-4 of the largest. On the CPU it is one thread, and time is processor time, which other work on
the machine changes little. Memory on the CPU is the peak of a forked process above its start (Linux), in which nothing
can be compiled.

A new architecture is a row of `ROWS`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from _memory import peak_mib
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY
from detectron2.projects import panoptic_deeplab, point_rend
from detectron2.structures import Boxes

from segkit.config import load_config
from segkit.engine import register
from segkit.engine.inference_options import apply_inference_options

LOGITS_TOLERANCE = 1e-4  # of the largest logit
MASK_TOLERANCE = 1e-3  # share of pixels: of masks, those within rounding of the threshold
# Standard deviation of noise in weights, so that pixels and boxes have different classes, and scores differ.
NOISE = {"predict": 0.05, "cls_score": 0.004}
MIB = 1024**2
COMPILED = "segkit, compile"
CLASSES = {"ROI_HEADS": 80, "SEM_SEG_HEAD": 54, "POINT_HEAD": 80}
COUNTS = [word for head, count in CLASSES.items() for word in (f"MODEL.{head}.NUM_CLASSES", str(count))]
TINY_SIZES = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 50,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "TEST.DETECTIONS_PER_IMAGE": 5,
}
TINY = [str(word) for pair in TINY_SIZES.items() for word in pair]
TINY_DEEPLAB = ["MODEL.RESNETS.DEPTH", "50", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16"]
THING_IDS = [-1] * 11 + [*range(8)]  # of Cityscapes' 19 channels: stuff, then things
STUFF_IDS = [*range(1, 12)] + [0] * 8
DEEPLAB = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "19", "INPUT.CROP.ENABLED", "False"]  # its heads pool the whole image
PANOPTIC_DEEPLAB = [*DEEPLAB, "MODEL.PANOPTIC.THING_IDS", str(THING_IDS), "MODEL.PANOPTIC.STUFF_IDS", str(STUFF_IDS)]
Runner = Callable[[list[dict[str, Any]]], Any]  # inputs of Detectron2 -> its outputs of one image
# Stage -> the methods whose time it is; what no stage holds is "rest".
STAGES = {
    "backbone": ("backbone.forward",),
    "proposals": ("proposal_generator.forward",),
    "boxes": ("roi_heads._forward_box",),
    "masks": ("roi_heads.forward_with_given_boxes",),
    "semantic": ("sem_seg_head.layers",),
    "centers": ("ins_embed_head.layers",),
}


def build_detectron2(cfg: CfgNode, model: torch.nn.Module, architecture: str = "") -> torch.nn.Module:
    """Detectron2's model of the same config and weights, with its own heads."""
    cfg = cfg.clone()
    cfg.MODEL.META_ARCHITECTURE = architecture or cfg.MODEL.META_ARCHITECTURE
    heads, name = ROI_MASK_HEAD_REGISTRY._obj_map, "PointRendMaskHead"
    ours, heads[name] = heads[name], point_rend.PointRendMaskHead
    try:
        peer: torch.nn.Module = build_model(cfg)
    finally:
        heads[name] = ours
    peer.load_state_dict(model.state_dict())
    return peer.eval()


def build_panoptic_fpn(cfg: CfgNode, model: torch.nn.Module) -> torch.nn.Module:
    return build_detectron2(cfg, model, "PanopticFPN")


def build_panoptic_deeplab(cfg: CfgNode, model: torch.nn.Module) -> torch.nn.Module:
    """The class of Detectron2's project, which takes the ids of things from the dataset's metadata."""
    cfg = cfg.clone()
    cfg.DATASETS.TRAIN = ("panoptic_deeplab_benchmark",)
    things = {channel: channel for channel, thing_id in enumerate(cfg.MODEL.PANOPTIC.THING_IDS) if thing_id >= 0}
    MetadataCatalog.get(*cfg.DATASETS.TRAIN).set(thing_dataset_id_to_contiguous_id=things, label_divisor=1000)
    peer = panoptic_deeplab.PanopticDeepLab(cfg)
    peer.load_state_dict(model.state_dict())
    return peer.eval()


@dataclass(frozen=True)
class Row:
    """An architecture.

    Attributes:
        recipe: of configs/.
        peer: name of the reference implementation.
        build_peer: (config, segkit's model) -> the reference with the same weights, in evaluation mode, called with
            Detectron2's inputs; it returns outputs with the keys that are compared.
        options: KEY VALUE pairs.
        tiny: KEY VALUE pairs of a size at which nothing is measured.
    """

    recipe: str
    peer: str
    build_peer: Callable[[CfgNode, torch.nn.Module], torch.nn.Module]
    options: list[str] = field(default_factory=lambda: COUNTS)
    tiny: list[str] = field(default_factory=lambda: TINY)


ROWS = {
    "panoptic_rcnn_R50": Row("coco/panoptic_rcnn_R50_FPN_1x", "Detectron2 PanopticFPN", build_panoptic_fpn),
    "panoptic_cascade_R50": Row("coco/panoptic_cascade_rcnn_R50_FPN_3x", "Detectron2 PanopticFPN", build_panoptic_fpn),
    "mask_rcnn_R50": Row("coco/mask_rcnn_R50_FPN_1x", "Detectron2 GeneralizedRCNN", build_detectron2),
    "point_rend_R50": Row("coco/point_rend_R50_FPN_3x", "Detectron2 PointRend", build_detectron2),
    "semantic_fpn_R50": Row("cityscapes/semantic_fpn_R50", "Detectron2 SemanticSegmentor", build_detectron2),
    "deeplab_v3_plus_R103": Row(
        "cityscapes/deeplab_v3_plus_R103", "Detectron2 DeepLabV3+", build_detectron2, DEEPLAB, TINY_DEEPLAB
    ),
    "panoptic_deeplab_R52": Row(
        "cityscapes/panoptic_deeplab_R52",
        "Detectron2 Panoptic-DeepLab",
        build_panoptic_deeplab,
        PANOPTIC_DEEPLAB,
        TINY_DEEPLAB,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"rows: {', '.join(ROWS)}; none: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="image in pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too, which takes minutes to start")
    parser.add_argument("--tiny", action="store_true", help="small images and networks, one round: shows that it works")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in ROWS]:
        parser.error(f"unknown rows: {', '.join(unknown)}; choose among {', '.join(ROWS)}")
    torch.set_num_threads(1)
    register()
    with quiet(), torch.inference_mode():
        for name in options.names or ROWS:
            compare(name, ROWS[name], options)


def compare(name: str, row: Row, options: Any) -> None:
    """Check, time and print one architecture."""
    device = torch.device(options.device)
    extra = row.tiny if options.tiny else []
    cfg = load_config(row.recipe, ["MODEL.DEVICE", str(device), "MODEL.WEIGHTS", "", *row.options, *extra])
    size_hw = (64, 96) if options.tiny else options.size
    generator = torch.Generator().manual_seed(0)
    inputs = [
        {"image": torch.rand((3, *size_hw), generator=generator) * 255, "height": size_hw[0], "width": size_hw[1]}
    ]
    plain = build_random(cfg)
    peer = row.build_peer(cfg, plain)
    expected = read(peer, inputs)
    check_equal(name, read(plain, inputs), expected)
    models = {row.peer: peer, "segkit": build_inference(cfg, plain)}
    models["segkit, folded only"] = build_inference(cfg, plain, CHANNELS_LAST=False)
    if options.compile:
        models[COMPILED] = build_inference(cfg, plain, COMPILE=True)
    errors = {each: measure_logits(model, plain, inputs) for each, model in models.items() if model is not peer}
    if max(errors.values()) > LOGITS_TOLERANCE:
        raise SystemExit(f"{name}: logits differ by {errors} of the largest")
    rounds = 1 if options.tiny else options.rounds
    results: dict[str, list[dict[str, float]]] = {each: [] for each in models}
    for _ in range(rounds + 1):  # the first one loads and compiles
        for each, model in models.items():
            results[each].append(run_round(model, inputs, device))
    memory = {
        each: math.nan if each == COMPILED and device.type == "cpu" else measure_memory(model, inputs, device)
        for each, model in models.items()
    }
    print(f"{name}, {size_hw[0]} x {size_hw[1]}, {device}, {describe(expected)}")
    for each, runs in results.items():
        report(each, runs[1:], results[row.peer][1:], memory[each], errors.get(each, 0.0))
    gc.collect()


def build_random(cfg: CfgNode) -> torch.nn.Module:
    """A model with random weights that keep activations small and detect many objects."""
    torch.manual_seed(0)
    model: torch.nn.Module = build_model(cfg).eval()
    for name, weight in model.state_dict().items():
        if name.endswith(("conv2.norm.weight", "conv3.norm.weight")):
            weight.mul_(0.5)  # frozen norms do not keep the activations of random weights small
        elif name.endswith("norm.running_mean"):
            weight.uniform_(-0.1, 0.1)
        for part, deviation in NOISE.items():
            if part in name.replace("box_predictor", ""):
                weight.add_(torch.randn_like(weight) * deviation)
    return model


def build_inference(cfg: CfgNode, plain: torch.nn.Module, **values: bool) -> torch.nn.Module:
    """A copy of the model with TEST.INFERENCE, some of it replaced."""
    cfg = cfg.clone()
    cfg.TEST.INFERENCE.update(values)
    model: torch.nn.Module = build_model(cfg).eval()
    model.load_state_dict(plain.state_dict())
    apply_inference_options(cfg, model)
    return model


def read(run: Runner, inputs: list[dict[str, Any]]) -> Any:
    """The outputs of one image. Of PanopticRCNN's, which are computed when they are read, the map and the crops."""
    [output] = run(inputs)
    for key in ("panoptic_seg", "instance_masks" if "instance_masks" in output else "instances", "sem_seg"):
        if key in output and not (key == "sem_seg" and "instance_masks" in output):
            output[key]
    return output


def check_equal(name: str, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """End the program if an output differs by more than rounding."""
    if "panoptic_seg" in expected:
        maps = (rank_ids(output["panoptic_seg"][0]) for output in (got, expected))
        _check(name, "panoptic_seg", torch.ne(*maps))
    if "sem_seg" in expected:
        _check(name, "sem_seg", got["sem_seg"].argmax(0) != expected["sem_seg"].argmax(0))
    for key, value in expected["instances"].get_fields().items() if "instances" in expected else ():
        mine = got["instances"].get(key)
        value, mine = (each.tensor if isinstance(each, Boxes) else each for each in (value, mine))
        is_mask = value.dtype == torch.bool
        _check(name, key, mine != value if is_mask else ~torch.isclose(mine, value, rtol=1e-4, atol=1e-4))


def rank_ids(segment_ids: torch.Tensor) -> torch.Tensor:
    """Number the segments in the order of their first pixels: references differ in their ids."""
    ids, firsts, places = np.unique(segment_ids.cpu().numpy(), return_index=True, return_inverse=True)
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[np.argsort(firsts)] = np.arange(len(ids))
    return torch.from_numpy(ranks[places].reshape(segment_ids.shape))


def _check(name: str, key: str, differs: torch.Tensor) -> None:
    if differs.numel() and differs.float().mean().item() > MASK_TOLERANCE:
        raise SystemExit(f"{name}: {key} differs from the reference")


def measure_logits(model: Any, plain: Any, inputs: list[dict[str, Any]]) -> float:
    """The largest difference of logits to the model without options, of the largest, on the same proposals."""
    if not hasattr(plain, "proposal_generator"):
        return _compute_difference(read(model, inputs)["sem_seg"], read(plain, inputs)["sem_seg"])
    batch = plain.preprocess_image(inputs)
    proposals = plain.proposal_generator(batch, plain.backbone(batch.tensor), None)[0]
    logits = []
    for each in (model, plain):
        features = each.backbone(batch.tensor)
        heads, maps = each.roi_heads, [features[level] for level in each.roi_heads.box_in_features]
        pooled = heads.box_pooler(maps, [image.proposal_boxes for image in proposals])
        box_head = heads.box_head[0] if isinstance(heads.box_head, torch.nn.ModuleList) else heads.box_head
        predictor = heads.box_predictor
        predictor = predictor[0] if isinstance(predictor, torch.nn.ModuleList) else predictor
        logits.append([*features.values(), *predictor(box_head(pooled))])
        if hasattr(each, "sem_seg_head"):
            logits[-1].append(each.sem_seg_head.layers(features))
    return max(_compute_difference(a, b) for a, b in zip(*logits, strict=True))


def _compute_difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


def run_round(model: Any, inputs: list[dict[str, Any]], device: torch.device) -> dict[str, float]:
    """Seconds of an image: in all, and of each stage."""
    seconds = dict.fromkeys(STAGES, 0.0)
    with _timing(model, seconds, device):
        begin = _now(device)
        read(model, inputs)
        seconds["all"] = _now(device) - begin
    return seconds


@contextmanager
def _timing(model: Any, seconds: dict[str, float], device: torch.device) -> Iterator[None]:
    """Add the time of the methods in `STAGES` to `seconds`."""
    wrapped = []
    for stage, paths in STAGES.items():
        for path in paths:
            owner, _, method = path.rpartition(".")
            module = getattr(model, owner, None)
            if isinstance(module, torch.nn.Module) and hasattr(module, method):
                module.__dict__[method] = _timed(getattr(module, method), seconds, stage, device)
                wrapped.append((module, method))
    try:
        yield
    finally:
        for module, method in wrapped:
            del module.__dict__[method]


def _timed(function: Any, seconds: dict[str, float], stage: str, device: torch.device) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        begin = _now(device)
        try:
            return function(*args, **kwargs)
        finally:
            seconds[stage] += _now(device) - begin

    return run


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure_memory(model: Any, inputs: list[dict[str, Any]], device: torch.device) -> float:
    """MiB beyond the weights."""
    if device.type == "cpu":
        small = [{"image": torch.zeros(3, 64, 64), "height": 64, "width": 64}]
        return peak_mib(read, (model, inputs), (model, small))
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    read(model, inputs)
    return (torch.cuda.max_memory_allocated(device) - before) / MIB


def describe(output: Mapping[str, Any]) -> str:
    parts = [f"{len(output['instances'])} instances"] if "instances" in output else []
    parts += [f"{len(output['panoptic_seg'][0].unique())} segment ids"] if "panoptic_seg" in output else []
    return ", ".join(parts) or f"{len(output['sem_seg'])} channels"


def report(
    name: str, runs: list[dict[str, float]], peer: list[dict[str, float]], memory_mib: float, error: float
) -> None:
    medians = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
    ratios = [theirs["all"] / ours["all"] for ours, theirs in zip(runs, peer, strict=True)]
    medians["rest"] = medians["all"] - sum(medians[stage] for stage in STAGES)
    stages = ", ".join(f"{stage} {1e3 * medians[stage]:.0f}" for stage in (*STAGES, "rest") if medians[stage] > 0)
    text = f"  {name:28} {1 / medians['all']:6.2f} images/s, {statistics.median(ratios):5.2f}x"
    text += f" ({min(ratios):.2f} to {max(ratios):.2f}), {memory_mib:6.0f} MiB, logits within {error:.0e}"
    print(f"{text}; ms: {stages}", flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and logs of both."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


if __name__ == "__main__":
    main()
