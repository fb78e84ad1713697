"""`segkit bench`: images a second of a model, the time of each stage, and the peak of the memory."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.cli import arguments
from segkit.utils.errors import ConfigError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from segkit.engine.inference.speed import Speed

COLUMNS = (
    *("device", "precision", "batch", "model\nimages/s", "predict\nimages/s"),
    *("reading\nms", "network\nms", "fusion\nms", "writing\nms", "peak\nMiB"),
)
QUALITY = 90  # of generated JPEGs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    model = "weights, the folder of a run, the config of a run, or a bundle"
    parser.add_argument("model", metavar="MODEL", help=model)
    arguments.add_config_file(parser, "config that the weights were trained with (default: beside them)")
    images = "images, folders or patterns (default: generated scenes of --size); the number of objects counts"
    parser.add_argument("--input", nargs="+", default=[], help=images)
    size = "height and width of generated images (default: 480 640)"
    parser.add_argument("--size", nargs=2, type=int, default=(480, 640), metavar=("HEIGHT", "WIDTH"), help=size)
    arguments.add_number(parser, "--images", 16, "images that are predicted in each setting; fewer ones are repeated")
    batches = "images that the network takes at once (default: 1)"
    parser.add_argument("--batch-size", nargs="+", type=arguments.parse_number, default=[1], metavar="N", help=batches)
    devices = "cpu, cuda or cuda:N (default: MODEL.DEVICE, and the CPU without a GPU)"
    parser.add_argument("--device", nargs="+", default=[None], metavar="DEVICE", help=devices)
    precision = "float32, bfloat16, float16 or auto (default: float32)"
    parser.add_argument("--precision", nargs="+", default=["float32"], metavar="TYPE", help=precision)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON too")
    arguments.add_plugins(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE pairs, last")


def run(args: argparse.Namespace) -> int:
    """Measure every setting and print a table; 1 if one does not fit the memory of its GPU."""
    if args.model.lower().endswith(".onnx"):
        remedy = "give the weights that it was exported from; benchmarks/export.py measures exported files"
        raise ConfigError("segkit bench runs no ONNX files", where=args.model, remedy=remedy)
    if args.output is not None:
        arguments.check_output(args.output, [Path(args.model)])
    arguments.load_plugins(args)
    from segkit.utils.files import dump_json

    settings = _read_settings(args)
    with tempfile.TemporaryDirectory(prefix="segkit_bench_") as name:
        paths = _find_images(args, Path(name))
        speeds = [*_measure(settings, args.batch_size, paths, Path(name))]
    _print_table(speeds, len(paths))
    if args.output is not None:
        dump_json(args.output, {"images": len(paths), "speeds": [_describe(speed) for speed in speeds]})
    return int(len(speeds) < len(settings) * len(args.batch_size))


def _read_settings(args: argparse.Namespace) -> list[tuple[CfgNode, str]]:
    """The config and the precision of each model; both are checked."""
    import torch

    from segkit.engine.inference.loading import check_device, find_model
    from segkit.engine.inference.precision import select_dtype
    from segkit.engine.setup import read_config

    weights, config_file = find_model(args.model, args.config_file)
    named = ["MODEL.WEIGHTS", weights] if weights else []
    cfgs = []
    for device in args.device:
        options = [] if device is None else ["MODEL.DEVICE", check_device(device)]
        cfgs.append(read_config(config_file, [*args.opts, *named, *options], train=False))
    settings = [(cfg, precision) for cfg in cfgs for precision in args.precision]
    for cfg, precision in settings:
        select_dtype(precision, torch.device(cfg.MODEL.DEVICE))
    return settings


def _measure(
    settings: list[tuple[CfgNode, str]], batch_sizes: list[int], paths: list[Path], folder: Path
) -> Iterator[Speed]:
    import torch

    from segkit.engine.inference.model import SegmentationModel
    from segkit.engine.inference.speed import measure_speed
    from segkit.utils.progress import track

    for number, (cfg, precision) in enumerate(track(settings, "measuring")):
        model = SegmentationModel(cfg, precision=precision)
        for batch_size in batch_sizes:
            try:
                yield measure_speed(model, paths, folder / f"{number}_{batch_size}", batch_size=batch_size)
            except torch.cuda.OutOfMemoryError:
                print(f"{cfg.MODEL.DEVICE}, {precision}: batches of {batch_size} do not fit the memory of the GPU")
                torch.cuda.empty_cache()


def _find_images(args: argparse.Namespace, folder: Path) -> list[Path]:
    """As many paths as images are predicted."""
    if args.input:
        from segkit.runtime.image_inputs import find_images
        from segkit.runtime.video import is_video

        paths = [path for path in find_images(args.input) if not is_video(path)]
        if not paths:
            raise ConfigError("expected images, got videos alone", where="--input")
        return [*islice(cycle(paths), args.images)]
    from PIL import Image

    from segkit.data.toy.scenes import MIN_SIZE_PX, draw_scene

    if min(args.size) < MIN_SIZE_PX:
        raise ConfigError(f"expected sides of at least {MIN_SIZE_PX} pixels, got {args.size}", where="--size")
    paths = [folder / f"{index}.jpg" for index in range(args.images)]
    for index, path in enumerate(paths):
        Image.fromarray(draw_scene(0, index, tuple(args.size))[0]).save(path, quality=QUALITY)
    return paths


def _describe(speed: Speed) -> dict[str, Any]:
    """JSON has no NaN."""
    return {**asdict(speed), "peak_mib": None if math.isnan(speed.peak_mib) else speed.peak_mib}


def _print_table(speeds: list[Speed], images: int) -> None:
    import torch
    from rich import box
    from rich.table import Column, Table

    from segkit.utils.console import open_console

    columns = [Column(title, justify="right", no_wrap=True) for title in COLUMNS]
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for speed in speeds:
        total_s = sum(speed.stage_s.values())
        stages = (f"{seconds * 1000:.1f}\n{seconds / total_s:.0%}" for seconds in speed.stage_s.values())
        rates = f"{speed.model_images_per_s:.2f}", f"{speed.predict_images_per_s:.2f}"
        peak = "-" if math.isnan(speed.peak_mib) else f"{speed.peak_mib:.0f}"
        table.add_row(speed.device, speed.precision, str(speed.batch_size), *rates, *stages, peak)
    open_console().print(table)
    print(f"{images} images in each setting, {torch.get_num_threads()} threads of torch")
    print("model: network and fusion alone; predict: from files to files, stages overlapped; ms: one after the other")
