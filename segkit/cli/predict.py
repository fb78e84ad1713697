"""`segkit predict`: images and videos in, overlays, COCO's and VIPSeg's files out."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.cli import arguments
from segkit.runtime.tiling.grid import DEFAULT_OVERLAP_PX, TileGrid
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import check_output_folder
from segkit.utils.text import make_printable

if TYPE_CHECKING:
    from detectron2.config import CfgNode

SAVED = ("overlays", "masks", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    beside = "default: the one beside the weights, as segkit.load finds it"
    arguments.add_config_file(parser, f"config that the weights were trained with ({beside})")
    weights = "checkpoint, or folder of a run (default: the last one beside --config-file, otherwise MODEL.WEIGHTS)"
    parser.add_argument("--weights", default="", metavar="FILE", help=weights)
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        help="images, videos, folders of images or patterns; JSONs name images relative to the folder that all share",
    )
    listed = "COCO file: predict the images that it lists, below the folder --input, with their ids and file names"
    parser.add_argument("--images-json", metavar="FILE", help=listed)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder to write to, without inputs in it"
    )
    arguments.add_number(parser, "--batch-size", 1, "images of one size that the network takes at once")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: MODEL.DEVICE, and the CPU without a GPU)")
    precision = "float32, bfloat16, float16, or auto, the fastest that the device has (default: %(default)s)"
    parser.add_argument("--precision", default="float32", metavar="TYPE", help=precision)
    score = "leave out things and instances of a lower score (default: %(default)s, none)"
    parser.add_argument("--score-threshold", type=arguments.parse_share, default=0.0, metavar="SCORE", help=score)
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="write these classes only")
    save = "what is written (default: all); JSONs alone are the fastest"
    parser.add_argument("--save", nargs="+", choices=SAVED, default=SAVED, help=save)
    parser.add_argument("--overwrite", action="store_true", help="replace the results of another run in the folder")
    arguments.add_plugins(parser)
    arguments.add_drawing_options(parser)
    tiles = "cut images into tiles of this side, in pixels, so that they may be of any size; 0: do not"
    arguments.add_number(parser, "--tile", 0, tiles, minimum=0)
    overlap = "pixels that neighbouring tiles share: at least the side of most objects"
    arguments.add_number(parser, "--overlap", DEFAULT_OVERLAP_PX, overlap, minimum=0)
    parser.add_argument("--no-scores", dest="scores", action="store_false", help="write no scores into overlays")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE pairs, last")


def run(args: argparse.Namespace) -> None:
    """Predict and print the written paths; images that cannot be read are reported, and the others are predicted."""
    arguments.load_plugins(args)
    import torch

    from segkit.engine.inference.folder import PNG_FOLDERS, FolderJob
    from segkit.engine.inference.image_inputs import check_apart, find_images, find_root, read_image_list
    from segkit.engine.inference.model import SegmentationModel
    from segkit.engine.inference.precision import select_dtype
    from segkit.engine.inference.videos import predict_videos
    from segkit.runtime.video import check_video_extra, is_video

    if args.tile:
        TileGrid((1, 1), args.tile, args.overlap)  # checked before the model is loaded
    listed: dict[str, Any] = {}
    videos: list[Path] = []
    if args.images_json:
        if len(args.input) > 1 or not os.path.isdir(args.input[0]):
            raise ConfigError("expected one folder, below which the listed images are", where="--input")
        images, *names = read_image_list(args.images_json, args.input[0])
        listed = dict(zip(("file_names", "image_ids"), names, strict=True))
    else:
        images = find_images(args.input, args.output)
        videos, images = [path for path in images if is_video(path)], [path for path in images if not is_video(path)]
    check_apart([*images, *videos], args.output, PNG_FOLDERS)
    if videos:
        check_video_extra()
        if not {"masks", "json"} <= {*args.save}:
            problem = "the masks and the JSON of videos belong together"
            raise ConfigError(problem, where="--save", remedy="give both masks and json")
    for folder in (args.output, *(args.output / name for name in PNG_FOLDERS)):
        check_output_folder(folder)
    cfg = _read_config(args)
    select_dtype(args.precision, torch.device(cfg.MODEL.DEVICE))  # checked before the weights are read
    drawing = {**arguments.get_drawing_options(args), "scores": args.scores}
    unreadable: list[DatasetError] = []
    options = {
        name: getattr(args, name) for name in ("precision", "batch_size", "overwrite", "tile", "overlap", "save")
    }
    chosen: dict[str, Any] = {"min_score": args.score_threshold, "classes": args.classes}
    job = (
        FolderJob(cfg, images, args.output, drawing, find_root(args.input), **options, **chosen, **listed)
        if images
        else None
    )
    model = SegmentationModel(cfg, precision=args.precision)
    written = job.run(model, unreadable.append) if job else []
    if videos:
        chosen["overlays"] = "overlays" in args.save
        written += predict_videos(model, videos, args.output, drawing, unreadable.append, **chosen)
    for path in dict.fromkeys(written):
        print(path)
    for error in unreadable:
        print(make_printable(error), file=sys.stderr)
    if unreadable:
        kinds, count = "images and videos" if videos else "images", len(images) + len(videos)
        have = "have no prediction, or none from where they break off" if videos else "have no prediction"
        problem = f"{len(unreadable)} of {count} {kinds} cannot be read and {have}"
        raise DatasetError(problem, remedy="see the lines above")


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
