"""`segkit predict`: images and videos in, overlays, COCO's and VIPSeg's files out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.cli import arguments
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import check_output_folder
from segkit.utils.text import make_printable

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from segkit.runtime.image_inputs import ListedImages
    from segkit.runtime.image_model import ImageModel

# Those of `FolderJob` and `VideoJob`, whose imports are expensive.
SAVED = ("overlays", "masks", "json")
OVERLAP_PX = 128
TRACK_IOU, TRACK_MEMORY = 0.3, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    beside = "default: the one beside the weights, as segkit.load finds it"
    arguments.add_config_file(parser, f"config that the weights were trained with ({beside})")
    beside = "default: the last one beside --config-file, otherwise MODEL.WEIGHTS"
    weights = f"checkpoint, bundle, folder of a run, or ONNX file, which needs no torch ({beside})"
    parser.add_argument("--weights", default="", metavar="FILE", help=weights)
    parser.add_argument(
        "--input",
        nargs="+",
        default=[],
        help="images, videos, folders of images or patterns; JSONs name images relative to the folder that all share",
    )
    listed = "COCO file: predict the images that it lists, below the folder --input, with their ids and file names"
    parser.add_argument("--images-json", metavar="FILE", help=listed)
    dataset = "registered dataset: predict its images, with their ids; it needs no ground truth"
    parser.add_argument("--dataset", metavar="NAME", help=dataset)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write to, without inputs in it")
    arguments.add_number(parser, "--batch-size", 1, "images of one size that the network takes at once")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: MODEL.DEVICE, and the CPU without a GPU)")
    precision = "float32, bfloat16, float16, or auto, the fastest that the device has (default: %(default)s)"
    parser.add_argument("--precision", default="float32", metavar="TYPE", help=precision)
    score = "leave out things and instances of a lower score, in overlays too (default: none; see docs/predict.md)"
    parser.add_argument("--score-threshold", type=arguments.parse_share, metavar="SCORE", help=score)
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="write these classes only")
    save = "what is written (default: all); JSONs alone are the fastest"
    parser.add_argument("--save", nargs="+", choices=SAVED, default=SAVED, help=save)
    shard = (
        "predict part I of N into a folder that all share (default: all, or a part for each rank of torchrun or Slurm)"
    )
    parser.add_argument("--shard", type=_parse_shard, metavar="I/N", help=shard)
    merge = "only write the JSONs of a folder whose shards are complete"
    parser.add_argument("--merge", type=Path, metavar="OUTPUT", help=merge)
    parser.add_argument("--overwrite", action="store_true", help="replace the results of another run in the folder")
    arguments.add_plugins(parser)
    arguments.add_drawing_options(parser)
    tiles = "cut images into tiles of this side, in pixels, so that they may be of any size; 0: do not"
    arguments.add_number(parser, "--tile", 0, tiles, minimum=0)
    overlap = "pixels that neighbouring tiles share: at least the side of most objects"
    arguments.add_number(parser, "--overlap", OVERLAP_PX, overlap, minimum=0)
    iou = "of videos: mask IoU above which a thing is the object of an earlier frame (default: %(default)s)"
    parser.add_argument("--track-iou", type=_parse_iou, default=TRACK_IOU, metavar="SHARE", help=iou)
    memory = "of videos: frames in which an object may be missing before it is forgotten"
    arguments.add_number(parser, "--track-memory", TRACK_MEMORY, memory, minimum=0)
    parser.add_argument("--no-scores", dest="scores", action="store_false", help="write no scores into overlays")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE pairs, last")


def run(args: argparse.Namespace) -> None:
    """Predict and print the written paths; images that cannot be read are reported, and the others are predicted."""
    if args.merge:
        _merge(args.merge)
        return
    if not (args.input or args.dataset) or not args.output:
        problem = "expected --input or --dataset, and --output; or --merge alone"
        raise ConfigError(problem, remedy="see segkit predict --help")
    if args.dataset and (args.input or args.images_json):
        raise ConfigError("--dataset names the images already", remedy="leave out --input and --images-json")
    arguments.load_plugins(args)
    from segkit.runtime.folder import PNG_FOLDERS, FolderJob
    from segkit.runtime.image_inputs import check_apart
    from segkit.runtime.tiling import TileGrid
    from segkit.runtime.video_folder import VideoJob

    if args.tile:
        TileGrid((1, 1), args.tile, args.overlap)  # checked before the model is loaded
    shard = _choose_shard(args)
    description, load = _choose_graph(args) if _is_graph(args) else _choose_model(args)
    images, videos, listed = _find_inputs(args)
    check_apart([*images, *videos], args.output, PNG_FOLDERS)
    if videos:
        _check_videos(args, shard)
    for folder in (args.output, *(args.output / name for name in PNG_FOLDERS)):
        check_output_folder(folder)
    drawing = {**arguments.get_drawing_options(args), "scores": args.scores}
    unreadable: list[DatasetError] = []
    options = {name: getattr(args, name) for name in ("batch_size", "overwrite", "tile", "overlap", "save")}
    chosen: dict[str, Any] = {"min_score": args.score_threshold, "classes": args.classes}
    options |= {"shard": shard, **listed}
    job = FolderJob(description, images, args.output, drawing, **options, **chosen) if images else None
    tracker = {"min_iou": args.track_iou, "max_gap": args.track_memory}
    chosen |= {"save": args.save, "overwrite": args.overwrite}
    video_job = VideoJob(description, videos, args.output, drawing, **chosen, **tracker) if videos else None
    model = load()
    written = job.run(model, unreadable.append) if job else []
    written += video_job.run(model, unreadable.append) if video_job else []
    for path in dict.fromkeys(written):
        print(path)
    for error in unreadable:
        print(make_printable(error), file=sys.stderr)
    if unreadable:
        kinds, count = "images and videos" if videos else "images", len(images) + len(videos)
        have = "have no prediction, or none from where they break off" if videos else "have no prediction"
        problem = f"{len(unreadable)} of {count} {kinds} cannot be read and {have}"
        raise DatasetError(problem, remedy="see the lines above")


def _find_inputs(args: argparse.Namespace) -> tuple[list[Path], list[Path], dict[str, Any]]:
    """The images, the videos, and as options of `FolderJob` the images' folder, and names and ids of listed ones."""
    from segkit.runtime.image_inputs import find_images, find_root, read_image_list
    from segkit.runtime.video import is_video

    if args.dataset:
        from segkit.engine import register
        from segkit.engine.inference.dataset_images import list_dataset_images

        register()
        listed, root = list_dataset_images(args.dataset)
        return listed.paths, [], {"root": root, **_describe_list(listed)}
    options: dict[str, Any] = {"root": find_root(args.input)}
    if not args.images_json:
        paths = find_images(args.input, args.output)
        return [path for path in paths if not is_video(path)], [path for path in paths if is_video(path)], options
    if len(args.input) > 1 or not os.path.isdir(args.input[0]):
        raise ConfigError("expected one folder, below which the listed images are", where="--input")
    listed = read_image_list(args.images_json, args.input[0])
    return listed.paths, [], {**options, **_describe_list(listed)}


def _describe_list(listed: ListedImages) -> dict[str, Any]:
    """The options of `FolderJob` for listed images."""
    return {name: getattr(listed, name) for name in ("file_names", "image_ids", "sizes_hw")}


def _choose_shard(args: argparse.Namespace) -> tuple[int, int]:
    """The shard of this process: its rank of Slurm; `--shard`, divided among torchrun's ranks.

    A rank takes the GPU of its local rank.
    """
    from segkit.engine.distributed.launch_plan import SLURM, LaunchPlan, plan_launch

    variables = {name: value for name, value in os.environ.items() if not (args.shard and name.startswith("SLURM"))}
    plan = plan_launch(environment=variables) if {"LOCAL_RANK", "SLURM_PROCID"} & variables.keys() else LaunchPlan()
    if plan.launcher == SLURM and plan.hint:  # a batch script has the variables of a rank without being one
        plan = LaunchPlan()
    shard, shards = args.shard or (1, 1)
    if plan.world_size > 1 and args.device is None and not _is_graph(args):
        import torch

        if torch.cuda.is_available():
            args.device = f"cuda:{plan.local_rank % torch.cuda.device_count()}"
    return (shard - 1) * plan.world_size + plan.rank + 1, shards * plan.world_size


def _check_videos(args: argparse.Namespace, shard: tuple[int, int]) -> None:
    from segkit.runtime.video import check_video_extra

    check_video_extra()
    if shard[1] > 1:
        raise ConfigError("videos have one JSON, which shards cannot share", remedy="predict videos in one process")


def _merge(folder: Path) -> None:
    """Write the JSONs of shards and print them; images that could not be read are reported."""
    from segkit.runtime.records import merge_shards

    tables, errors = merge_shards(folder)
    for path in tables:
        print(path)
    for error in errors:
        print(make_printable(error), file=sys.stderr)
    if errors:
        raise DatasetError(f"{len(errors)} images could not be read", where=folder, remedy="see the lines above")


def _parse_iou(text: str) -> float:
    share = arguments.parse_share(text)
    if share == 1:
        raise argparse.ArgumentTypeError("expected a number below 1: no IoU is above 1")
    return share


def _parse_shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, got {text!r}")
    return int(index), int(count)


def _is_graph(args: argparse.Namespace) -> bool:
    """Whether the model is a file of `segkit export onnx`, which is predicted without torch."""
    return bool(args.weights.lower().endswith(".onnx"))


def _choose_graph(args: argparse.Namespace) -> tuple[dict[str, Any], Callable[[], ImageModel]]:
    """What describes a graph, and what loads it."""
    from segkit.engine.inference.loading import load
    from segkit.runtime.run_description import describe_weights

    if args.opts:
        raise ConfigError("an ONNX file has its config inside", where=args.weights, remedy="leave out --opts")
    config_file = args.config_file or None
    options = {"device": args.device, "precision": args.precision}
    return describe_weights(args.weights), lambda: load(args.weights, config_file, **options)


def _choose_model(args: argparse.Namespace) -> tuple[dict[str, Any], Callable[[], ImageModel]]:
    """What describes a model in torch, and what loads it."""
    import torch

    from segkit.engine.inference.model import SegmentationModel
    from segkit.engine.inference.model_description import describe_model
    from segkit.engine.inference.precision import select_dtype

    cfg = _read_config(args)
    select_dtype(args.precision, torch.device(cfg.MODEL.DEVICE))  # checked before the weights are read
    return describe_model(cfg, args.precision), lambda: SegmentationModel(cfg, precision=args.precision)


def _read_config(args: argparse.Namespace) -> CfgNode:
    """The config with the weights and the device that the arguments name."""
    from segkit.engine.inference.loading import check_device, find_model
    from segkit.engine.setup import read_config

    weights, config_file = args.weights, args.config_file
    if not weights and not config_file:
        remedy = "give --weights, a checkpoint or the folder of a run, or --config-file"
        raise ConfigError("expected a model, got none", remedy=remedy)
    if not config_file or os.path.isdir(weights):
        weights, config_file = find_model(weights, config_file)
    device = [] if args.device is None else ["MODEL.DEVICE", check_device(args.device)]
    named = ["MODEL.WEIGHTS", weights] if weights else []
    return read_config(config_file, [*args.opts, *named, *device], train=False)
