"""`segkit predict`: images and videos in, overlays, COCO's and VIPSeg's files out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from segkit.cli import arguments
from segkit.runtime.tiling.grid import DEFAULT_OVERLAP_PX, TileGrid
from segkit.utils.errors import DatasetError
from segkit.utils.files import check_output_folder
from segkit.utils.text import make_printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add_config_file(parser, "config that the weights were trained with", required=True)
    arguments.add_weights(parser)
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        help="images, videos, folders of images or patterns; JSONs name images relative to the folder that all share",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder to write to, without inputs in it"
    )
    arguments.add_number(parser, "--batch-size", 1, "images of one size that the network takes at once")
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
    from segkit.engine.inference.folder import PNG_FOLDERS, predict
    from segkit.engine.inference.image_inputs import check_apart, find_images, find_root
    from segkit.engine.inference.model import SegmentationModel
    from segkit.engine.inference.videos import predict_videos
    from segkit.engine.setup import read_config
    from segkit.runtime.video import check_video_extra, is_video

    if args.tile:
        TileGrid((1, 1), args.tile, args.overlap)  # checked before the model is loaded
    images = find_images(args.input, args.output)
    check_apart(images, args.output, PNG_FOLDERS)
    videos, images = [path for path in images if is_video(path)], [path for path in images if not is_video(path)]
    if videos:
        check_video_extra()
    for folder in (args.output, *(args.output / name for name in PNG_FOLDERS)):
        check_output_folder(folder)
    cfg = read_config(args.config_file, args.opts, train=False)
    cfg.MODEL.WEIGHTS = args.weights or cfg.MODEL.WEIGHTS
    drawing = {**arguments.get_drawing_options(args), "scores": args.scores}
    unreadable: list[DatasetError] = []
    model, root = SegmentationModel(cfg), find_root(args.input)
    options = {name: getattr(args, name) for name in ("batch_size", "overwrite", "tile", "overlap")}
    written = predict(model, images, args.output, drawing, root, unreadable.append, **options) if images else []
    written += predict_videos(model, videos, args.output, drawing, unreadable.append) if videos else []
    for path in dict.fromkeys(written):
        print(path)
    for error in unreadable:
        print(make_printable(error), file=sys.stderr)
    if unreadable:
        kinds, count = "images and videos" if videos else "images", len(images) + len(videos)
        have = "have no prediction, or none from where they break off" if videos else "have no prediction"
        problem = f"{len(unreadable)} of {count} {kinds} cannot be read and {have}"
        raise DatasetError(problem, remedy="see the lines above")
