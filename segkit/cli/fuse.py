"""`segkit fuse`: fuse saved head outputs again, search for the best method and thresholds, explain dropped segments."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.cli import arguments
from segkit.utils import files
from segkit.utils.console import open_console
from segkit.utils.errors import ConfigError, DatasetError

SWEEP_FILES = ("sweep.json", "sweep.html", "sweep.png", "best.yaml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    commands: dict[str, arguments.Command] = {
        "save": ("run a network and save its heads' outputs, before fusion", _add_save, _save),
        "run": ("fuse saved head outputs with one method: COCO panoptic JSON and PNGs", _add_run, _run),
        "sweep": ("search methods and thresholds for the best panoptic quality", _add_sweep, _sweep),
        "draw": ("the same image fused by each method, side by side", _add_draw, _draw),
        "priors": ("count in annotations which class occludes which", _add_priors, _priors),
        "methods": ("list the methods, their options and what they need", None, _methods),
    }
    arguments.add_commands(parser, commands)


run = arguments.run_command


def _add_save(parser: argparse.ArgumentParser) -> None:
    arguments.add_config_file(parser, "config that the weights were trained with", required=True)
    arguments.add_weights(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for inference/<dataset>/head_outputs")
    parser.add_argument("--num-gpus", type=int, metavar="N", help="processes, one per GPU (default: 1)")
    arguments.add_plugins(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config KEY VALUE pairs, last: DATASETS.TEST, ...")


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_predictions(parser)
    parser.add_argument("--method", required=True, metavar="NAME", help="`segkit fuse methods` lists them")
    arguments.add_assignments(parser, "--set", "an option of the method, as YAML: overlap_threshold=0.6")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="for panoptic.json and panoptic/")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run")
    _add_ground_truth(parser, required=False)
    explain = "say why segments were dropped or shrunk, in dropped_segments.json and report.html"
    parser.add_argument("--explain", action="store_true", help=explain)
    arguments.add_work_options(parser)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    _add_predictions(parser)
    _add_ground_truth(parser, required=True)
    parser.add_argument("--methods", required=True, nargs="+", metavar="NAME", help="`segkit fuse methods` lists them")
    values = "values to try instead of the usual ones; method.option=... for one method"
    arguments.add_assignments(parser, "--set", values, "option=v1,v2")
    base = "the setting used today, to compare with; options that are not searched keep its values"
    arguments.add_assignments(parser, "--base", base)
    per_class = "then search a score threshold for each class, and keep it if it is better"
    parser.add_argument("--per-class", action="store_true", help=per_class)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help=f"for {', '.join(SWEEP_FILES)}")
    arguments.add_number(parser, "--seed", 0, "of the tuning split and the held-out split", minimum=0)
    arguments.add_work_options(parser)


def _add_draw(parser: argparse.ArgumentParser) -> None:
    _add_predictions(parser)
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="the folder of the images")
    parser.add_argument("--image", required=True, nargs="+", metavar="ID", help="image_ids, a row each")
    methods = "default: all methods that the saved outputs allow"
    parser.add_argument("--methods", nargs="+", default=[], metavar="NAME", help=methods)
    option = "an option, of every method that has it; method.option=... for one method"
    arguments.add_assignments(parser, "--set", option)
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="a PNG")


def _add_priors(parser: argparse.ArgumentParser) -> None:
    _add_ground_truth(parser, required=True)
    parser.add_argument("--instances", type=Path, metavar="FILE", help="instances JSON of the same images: whole masks")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the priors, for --set priors=FILE")
    arguments.add_work_options(parser)


def _add_predictions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--predictions", required=True, type=Path, metavar="DIR", help="written by `segkit fuse save`")


def _add_ground_truth(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("--gt", required=required, type=Path, metavar="FILE", help="ground truth: a panoptic JSON")
    parser.add_argument(
        "--gt-folder", type=Path, metavar="DIR", help="its PNGs (default: found beside it or one folder up)"
    )


def _save(args: argparse.Namespace) -> None:
    arguments.load_plugins(args)
    from segkit.engine.jobs import run_job

    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    options = ["TEST.SAVE_HEADS", "True", "TEST.EXPORT", "False", "OUTPUT_DIR", args.output]
    run_job(args.config_file, [*weights, *args.opts, *options], eval_only=True, num_gpus=args.num_gpus)
    for path in sorted(Path(args.output).glob("inference/*/head_outputs")):
        print(path)


def _run(args: argparse.Namespace) -> None:
    from segkit.formats import head_outputs
    from segkit.metrics.undefined import add_notes
    from segkit.report.fusion_tables import dropped_segments_tables, write_dropped_segments_page
    from segkit.report.tables import metrics_table
    from segkit.scoring.fusion.options import build_setting
    from segkit.scoring.fusion.run import JSON, PAGE, check_needs, run_fusion
    from segkit.scoring.fusion.sweep import SweepData
    from segkit.scoring.panoptic import score_panoptic

    if args.gt_folder and not args.gt:
        raise ConfigError("--gt-folder is given without --gt", remedy="add --gt FILE, the JSON of these PNGs")
    _check_output(args)
    saved = head_outputs.load(args.predictions)
    if args.gt:  # checks, before the work, that both have the same images
        SweepData.open(args.predictions, args.gt, args.gt_folder)
    setting = build_setting(args.method, args.set, saved.categories)
    check_needs(saved, [setting.fusion])
    with arguments.show_progress(args.method, args) as options:
        dropped_segments = run_fusion(saved, setting.fusion, args.output, explain=args.explain, **options)
    console, results = open_console(), {}
    print(args.output / JSON)
    if args.gt:
        with arguments.show_progress("panoptic quality", args) as options:
            scored = score_panoptic(args.gt, args.output / JSON, args.gt_folder, areas="recount", **options)
        results = add_notes({"panoptic_seg": scored.metric.compute(scored.image_order)}, saved.categories)
        console.print(metrics_table(results))
    if args.explain:
        page, title = args.output / PAGE, f"segkit fuse run: {args.method}"
        with files.convert_write_errors(page):
            write_dropped_segments_page(page, title, results, dropped_segments, saved.categories)
        print(page)
        console.print(dropped_segments_tables(dropped_segments))


def _check_output(args: argparse.Namespace) -> None:
    """Inputs are never overwritten; other existing files only with --overwrite."""
    from segkit.scoring.fusion.run import DROPPED_SEGMENTS, JSON, PAGE, PNGS

    outputs = [args.output / name for name in (JSON, PNGS, DROPPED_SEGMENTS, PAGE)]
    inputs = [path.resolve() for path in (args.predictions, args.gt, args.gt_folder) if path is not None]
    for output in outputs:
        if any(path.is_relative_to(output.resolve()) for path in inputs):
            problem = f"--output would overwrite an input, {output.name}"
            raise ConfigError(problem, where=args.output, remedy="name another --output")
    existing = [path.name for path in outputs if path.exists()]
    if existing and not args.overwrite:
        problem = f"the output exists already: {', '.join(existing)}"
        raise DatasetError(problem, where=args.output, remedy="name another folder, or add --overwrite")
    files.check_writable(args.output / JSON)


def _sweep(args: argparse.Namespace) -> None:
    from segkit.formats import png
    from segkit.report.sweep import describe_best, draw_sweep, format_best_as_yaml, sweep_table, write_sweep_page
    from segkit.scoring.fusion.options import build_grid
    from segkit.scoring.fusion.run import check_needs
    from segkit.scoring.fusion.sweep import SweepData
    from segkit.scoring.fusion.tuning import search
    from segkit.scoring.results import save_results

    json_path, page_path, plot_path, yaml_path = paths = [args.output / name for name in SWEEP_FILES]
    for path in paths:
        files.check_writable(path)
    data = SweepData.open(args.predictions, args.gt, args.gt_folder)
    settings = build_grid(args.methods, args.set, data.categories, args.base)
    check_needs(data.saved, [method_settings[0].fusion for method_settings in settings.values()])
    with arguments.show_progress("sweep", args) as options:
        results = search(data, settings, per_class=args.per_class, seed=args.seed, **options)
    plot = draw_sweep(results)
    save_results(json_path, results)
    with files.convert_write_errors(args.output):
        write_sweep_page(page_path, results, plot)
        png.write(plot_path, plot)
        with files.replacing(yaml_path) as temporary:
            temporary.write_text(format_best_as_yaml(results), encoding="utf-8")
    print(*paths, sep="\n")
    open_console().print(sweep_table(results))
    print(describe_best(results))


def _draw(args: argparse.Namespace) -> None:
    from segkit.formats import head_outputs, png
    from segkit.report.grids import draw_fusion_grid
    from segkit.scoring.fusion.run import fuse_images

    files.check_writable(args.output)
    saved = head_outputs.load(args.predictions)
    fused = fuse_images(saved, args.image, args.methods, args.set)
    rows = [(str(image.image_id), args.images / image.file_name, by_method) for image, by_method in fused]
    grid = draw_fusion_grid(rows, saved.categories)
    with files.convert_write_errors(args.output):
        png.write(args.output, grid)
    print(args.output)


def _priors(args: argparse.Namespace) -> None:
    from segkit.report.fusion_tables import priors_table
    from segkit.scoring.fusion.priors import count_priors
    from segkit.scoring.results import save_results

    arguments.check_output(args.output, (args.gt, args.instances))
    with arguments.show_progress("priors", args) as options:
        priors = count_priors(args.gt, args.gt_folder, args.instances, **options)
    save_results(args.output, priors.to_json())
    print(args.output)
    open_console().print(priors_table(priors))


def _methods(args: argparse.Namespace) -> None:
    from segkit.fusion import FUSION_METHODS
    from segkit.report.fusion_tables import method_table
    from segkit.scoring.fusion.options import get_defaults

    for name, method in sorted(FUSION_METHODS.items()):
        open_console().print(*method_table(name, method, get_defaults(name)), "")
