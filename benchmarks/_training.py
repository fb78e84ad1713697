"""segkit's training loop and Detectron2's on the same scenes, config and weights, for the benchmarks of training."""

from __future__ import annotations

import gc
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, BoxMode
from detectron2.utils.events import EventStorage
from PIL import Image

from segkit.engine.setup import prepare_config
from segkit.engine.training.synchronisations import count_synchronisations
from segkit.engine.training.trainer import Trainer
from segkit.formats import png
from segkit.formats.coco import PanopticWriter
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment

THINGS, STUFF = 80, 53  # as many categories as COCO has
OBJECTS, REGIONS = 12, 5  # of an image
CATEGORIES = CategorySet([Category(i + 1, f"c{i}", i < THINGS, (i, i, i)) for i in range(THINGS + STUFF)])
OURS, THEIRS = "benchmark_segkit", "benchmark_detectron2"
MIB = 1024**2
MOST_DIFFERENCE = 1e-2  # relative, of the losses of the first steps: on a GPU another proposal may be sampled
TINY_NETWORK = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
}


@dataclass(frozen=True)
class Result:
    """One round of one loop.

    Attributes:
        images_s: images a second.
        data_ms: waiting for data, a step.
        peak_mib: peak of the GPU's memory, or of this process on the CPU, without the loader's.
        waits: synchronisations of a step that logs nothing of segkit, and any of Detectron2.
        loss: mean total loss.
        cpu_s: processor time of this process, a step, which other work on the machine changes little.
    """

    images_s: float
    data_ms: float
    peak_mib: float
    waits: float
    loss: float
    cpu_s: float

    def __str__(self) -> str:
        numbers = f"{self.images_s:6.2f} images/s, {self.data_ms:5.0f} ms waiting for data, {self.peak_mib:6.0f} MiB"
        numbers += f", {self.cpu_s:5.2f} s of processor time"
        return f"{numbers}, {self.waits:4.0f} synchronisations a step, loss {self.loss:.3f}"


def write_scenes(folder: Path, images: int, size_hw: tuple[int, int]) -> None:
    """Write JPEG files with a panoptic PNG and JSON, and register the same scenes for Detectron2."""
    rng, records = np.random.default_rng(0), []
    (folder / "images").mkdir(parents=True)
    with PanopticWriter(folder / "panoptic.json", folder / "panoptic", CATEGORIES) as writer:
        for image_id in range(images):
            segmentation = _paint(rng, size_hw)
            noise = rng.integers(0, 256, (size_hw[0] // 8, size_hw[1] // 8, 3), dtype=np.uint8)
            pixels = cv2.resize(noise, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
            pixels[..., 0] = pixels[..., 0] // 2 + 7 * segmentation.segment_ids.astype(np.uint8)
            path = folder / f"images/{image_id}.jpg"
            Image.fromarray(pixels).save(path, quality=90)
            writer.add(image_id, path.name, segmentation)
            records.append(_build_record(folder, path, image_id, segmentation))
    DatasetCatalog.register(THEIRS, lambda: records)
    things, stuff = [c.name for c in CATEGORIES.things], ["things", *(c.name for c in CATEGORIES.stuff)]
    MetadataCatalog.get(THEIRS).set(thing_classes=things, stuff_classes=stuff)


def build_config(folder: Path, recipe: str, options: dict[str, Any]) -> CfgNode:
    """The config of segkit's loop over the scenes, with random weights that keep activations small."""
    custom = {"name": OURS, "panoptic_json": f"{folder}/panoptic.json", "panoptic_root": f"{folder}/panoptic"}
    custom["image_root"] = f"{folder}/images"
    every = {"DATASETS.TRAIN": f"('{OURS}',)", "DATASETS.TEST": "()", "DATASETS.CUSTOM": str([custom])}
    every |= {"DATASETS.CHECK_IMAGES": 2, "SEED": 1, "SOLVER.BASE_LR": 1e-4, "SOLVER.MAX_ITER": 10**6, "VIS_PERIOD": 0}
    every |= {"MODEL.WEIGHTS": "", "OUTPUT_DIR": str(folder / "output"), **options}
    cfg = prepare_config(recipe, [str(word) for pair in every.items() for word in pair])
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, weight in model.state_dict().items():
        if name.endswith(("conv3.norm.weight", "conv2.norm.weight")):
            weight.mul_(0.5)  # frozen norms do not keep the activations of random weights small
    torch.save({"model": model.state_dict()}, folder / "weights.pth")
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(folder / "weights.pth")
    return cfg


def build_peer_config(cfg: CfgNode) -> CfgNode:
    """The same config for Detectron2: its PanopticFPN and its dataset."""
    cfg = cfg.clone()
    cfg.MODEL.META_ARCHITECTURE, cfg.DATASETS.TRAIN = "PanopticFPN", (THEIRS,)
    cfg.OUTPUT_DIR += "_detectron2"
    return cfg


def run_round(cfg: CfgNode, steps: int, warm_up: int) -> Result:
    """Build the loop of a config, take steps, and end it.

    Args:
        cfg: of `build_config` or `build_peer_config`.
        steps: that are timed.
        warm_up: steps before them.

    Returns:
        The measurements.
    """
    is_ours = cfg.DATASETS.TRAIN == (OURS,)
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    trainer: Any = Trainer(cfg) if is_ours else DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    device = torch.device(cfg.MODEL.DEVICE)
    waiting: list[float] = []
    _time_data(trainer, is_ours, waiting)
    try:
        with EventStorage(0) as trainer.storage:
            trainer.iter = 0
            trainer.before_train()
            _take(trainer, warm_up)
            _synchronise(device)
            _reset_peak(device)
            waiting.clear()
            begin, cpu_begin = time.perf_counter(), time.process_time()
            _take(trainer, steps)
            _synchronise(device)
            seconds, cpu_s = time.perf_counter() - begin, (time.process_time() - cpu_begin) / steps
            peak = _read_peak(device)
            if is_ours and (trainer.iter + 1) % cfg.SOLVER.LOG_PERIOD == 0:
                _take(trainer, 1)
            with count_synchronisations(device) as counts:
                _take(trainer, 1)
            loss = (
                trainer.losses.read() if is_ours else {"total_loss": trainer.storage.history("total_loss").avg(steps)}
            )
    finally:
        _end(trainer, is_ours)
    images, data_ms = steps * cfg.SOLVER.IMS_PER_BATCH, 1e3 * sum(waiting[:steps]) / steps
    return Result(images / seconds, data_ms, peak, sum(counts.values()), loss.get("total_loss", float("nan")), cpu_s)


def check_losses(cfg: CfgNode, steps: int) -> None:
    """Train both loops on the same batches with the same random numbers; end the program if their losses differ."""
    pairs = _compare_losses(cfg, steps)
    if not all(abs(ours - theirs) <= MOST_DIFFERENCE * abs(theirs) for ours, theirs in pairs):
        raise SystemExit(f"the losses of the same batches differ: {pairs}")
    text = ", ".join(f"{ours:.5f} / {theirs:.5f}" for ours, theirs in pairs)
    print(f"losses of the same batches, segkit / Detectron2, float32: {text}", flush=True)


def _compare_losses(cfg: CfgNode, steps: int) -> list[tuple[float, float]]:
    """(segkit's, Detectron2's) total loss of each step."""
    trainer = Trainer(cfg)
    batches = [trainer.loader.next_step()[0] for _ in range(steps)]
    trainer.loader.close()
    trainer.resume_or_load(resume=False)
    peer = DefaultTrainer(build_peer_config(cfg))
    peer.resume_or_load(resume=False)
    peer._trainer._data_loader_iter_obj = iter([_with_bitmasks(batch) for batch in batches])
    pairs = []
    for step, batch in enumerate(batches):
        with EventStorage(step) as storage:
            torch.manual_seed(step)
            losses = trainer.step(step, [batch]).losses
            torch.manual_seed(step)
            peer._trainer.iter = step
            peer._trainer.run_step()
            pairs.append((sum(loss.item() for loss in losses.values()), storage.latest()["total_loss"][0]))
    _end(trainer, True)
    _end(peer, False)
    return pairs


def summarise(results: dict[str, list[Result]]) -> dict[str, float]:
    """The median images a second of each loop."""
    return {name: statistics.median(r.images_s for r in rounds) for name, rounds in results.items() if rounds}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and the log of both."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def _paint(rng: np.random.Generator, size_hw: tuple[int, int]) -> PanopticSegmentation:
    """Stuff in bands, things as ellipses over it."""
    height, width = size_hw
    ids = np.repeat(np.arange(REGIONS) + OBJECTS + 1, -(-height // REGIONS))[:height, None].repeat(width, axis=1)
    ids = ids.astype(np.int32)
    for segment_id in range(1, OBJECTS + 1):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(width // 40 + 2, width // 6)), int(rng.integers(height // 40 + 2, height // 6)))
        cv2.ellipse(ids, centre, axes, float(rng.integers(180)), 0, 360, segment_id, cv2.FILLED)
    visible, areas = np.unique(ids, return_counts=True)
    segments = []
    for segment_id, area in zip(visible.tolist(), areas.tolist(), strict=True):
        isthing = segment_id <= OBJECTS
        category = int(rng.integers(THINGS)) if isthing else THINGS + 10 * (segment_id - OBJECTS - 1)
        segments.append(Segment(segment_id, category + 1, isthing, area))
    return PanopticSegmentation(ids, tuple(segments))


def _build_record(folder: Path, path: Path, image_id: int, segmentation: PanopticSegmentation) -> dict[str, Any]:
    """As Detectron2's "panoptic separated" datasets have it: polygons, and a semantic PNG."""
    channels = np.zeros(segmentation.segment_ids.shape, dtype=np.uint8)
    annotations = []
    for segment in segmentation.segments:
        mask = segmentation.segment_ids == segment.segment_id
        if not segment.isthing:
            channels[mask] = segment.category_id - THINGS
            continue
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        polygons = [(contour.reshape(-1) + 0.5).tolist() for contour in contours if len(contour) > 2]
        box = cv2.boundingRect(mask.astype(np.uint8))
        if polygons:
            entry = {"bbox": list(box), "bbox_mode": BoxMode.XYWH_ABS, "category_id": segment.category_id - 1}
            annotations.append({**entry, "iscrowd": 0, "segmentation": polygons})
    png.write_labels(folder / f"semantic/{image_id}.png", channels)
    height, width = channels.shape
    sizes = {"height": height, "width": width, "sem_seg_file_name": str(folder / f"semantic/{image_id}.png")}
    return {"file_name": str(path), "image_id": image_id, **sizes, "annotations": annotations}


def _take(trainer: Any, steps: int) -> None:
    for _ in range(steps):
        trainer.before_step()
        trainer.run_step()
        trainer.after_step()
        trainer.iter += 1
        trainer.storage.iter = trainer.iter


def _time_data(trainer: Any, is_ours: bool, waiting: list[float]) -> None:
    """Record how long each step waits for its images."""

    def timed(read: Callable[[], Any]) -> Callable[[], Any]:
        def read_timed() -> Any:
            begin = time.perf_counter()
            batch = read()
            waiting.append(time.perf_counter() - begin)
            return batch

        return read_timed

    if is_ours:
        trainer.loader.next_step = timed(trainer.loader.next_step)
    else:
        iterator = iter(trainer._trainer.data_loader)
        trainer._trainer._data_loader_iter_obj = iter(timed(lambda: next(iterator)), object())


def _end(trainer: Any, is_ours: bool) -> None:
    """End the loader's processes and free the memory."""
    if is_ours:
        trainer.loader.close()
    else:
        trainer._trainer._data_loader_iter_obj = trainer._trainer.data_loader = None
    trainer.__dict__.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _with_bitmasks(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    samples = []
    for sample in batch:
        instances = sample["instances"][torch.arange(len(sample["instances"]))]
        instances.gt_masks = BitMasks(instances.gt_masks.tensor)
        samples.append({**sample, "instances": instances})
    return samples


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:  # Linux: the peak is what the process uses now
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _read_peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    with suppress(OSError):
        [line] = [x for x in Path("/proc/self/status").read_text("ascii").splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return float("nan")
