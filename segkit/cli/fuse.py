"""`segkit fuse`: fuse saved predictions again; other methods and thresholds, a search for the best, the reasons."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segkit.cli.arguments import add_work, positive
from segkit.scoring import counts_file
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.progress import progress_bar

SHOWN_PAIRS = 20  # of the priors
SWEEP_FILES = ("sweep.json", "sweep.html", "sweep.png", "best.yaml")
Parser = argparse.ArgumentParser


def add_arguments(parser: Parser) -> None:
    """Declare the sub-verbs and their arguments."""
    verbs = parser.add_subparsers(dest="fuse_verb", required=True, metavar="VERB")
    for name, does, declare, work in (
        ("save", "run a network and save what its heads say, before fusion", _add_save, _save),
        ("run", "fuse saved predictions with one method: COCO panoptic JSON and PNGs", _add_run, _run),
        ("sweep", "search methods and thresholds for the best panoptic quality", _add_sweep, _sweep),
        ("draw", "the same image fused by each method, side by side", _add_draw, _draw),
        ("priors", "count in annotations which class lies on top of which", _add_priors, _priors),
        ("methods", "list the methods, their options and what they need", lambda one: None, _methods),
    ):
        one = verbs.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False)
        declare(one)
        one.set_defaults(fuse_run=work)


def run(args: argparse.Namespace) -> int:
    """Run the chosen sub-verb; 0 where all went well."""
    args.fuse_run(args)
    return 0


def _add_save(parser: Parser) -> None:
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config that the weights were trained by")
    parser.add_argument("--weights", default="", metavar="FILE", help="checkpoint (default: MODEL.WEIGHTS)")
    parser.add_argument("--output", required=True, metavar="DIR", help="gets inference/<dataset>/head_outputs")
    parser.add_argument("--num-gpus", type=positive, default=1, metavar="N", help="processes, one for each GPU")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config KEY VALUE pairs, last: DATASETS.TEST, ...")


def _add_draw(parser: Parser) -> None:
    _add_predictions(parser)
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="the folder of the images")
    parser.add_argument("--image", required=True, nargs="+", metavar="ID", help="image_ids, a row each")
    parser.add_argument(
        "--methods", nargs="+", default=[], metavar="NAME", help="default: all that the predictions allow"
    )
    _add_set(parser, "option=value", "an option, of every method that has it; method.option=... of one method")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="a PNG")


def _add_run(parser: Parser) -> None:
    _add_predictions(parser)
    parser.add_argument("--method", required=True, metavar="NAME", help="`segkit fuse methods` lists them")
    _add_set(parser, "option=value", "an option of the method, as YAML: overlap_threshold=0.6")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="gets panoptic.json and panoptic/")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote there")
    _add_truth(parser, required=False)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say why segments were dropped or shrunk; writes dropped_segments.json, report.html",
    )
    add_work(parser)


def _add_sweep(parser: Parser) -> None:
    _add_predictions(parser)
    _add_truth(parser, required=True)
    parser.add_argument("--methods", required=True, nargs="+", metavar="NAME", help="`segkit fuse methods` lists them")
    _add_set(parser, "option=v1,v2", "values to try in place of the usual ones; method.option=... for one method")
    does = "what is used today, to compare with; in all settings, where it is not searched"
    parser.add_argument("--base", nargs="+", action="extend", default=[], metavar="option=value", help=does)
    parser.add_argument(
        "--per-class", action="store_true", help="then a score threshold for each class, where that is better"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help=f"gets {', '.join(SWEEP_FILES)}")
    parser.add_argument("--seed", type=_seed, default=0, metavar="S", help="of the two splits (default: %(default)s)")
    add_work(parser)


def _add_priors(parser: Parser) -> None:
    _add_truth(parser, required=True)
    parser.add_argument("--instances", type=Path, metavar="FILE", help="instances JSON of the same images: whole masks")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the priors, for --set priors=FILE")
    add_work(parser)


def _add_predictions(parser: Parser) -> None:
    parser.add_argument(
        "--predictions",
        required=True,
        type=Path,
        metavar="DIR",
        help="what `segkit fuse save` wrote: saved head outputs",
    )


def _add_set(parser: Parser, metavar: str, what: str) -> None:
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar=metavar, help=what)


def _add_truth(parser: Parser, required: bool) -> None:
    parser.add_argument("--gt", required=required, type=Path, metavar="FILE", help="panoptic JSON of the truth")
    parser.add_argument("--gt-folder", type=Path, metavar="DIR", help="its PNGs (default: X of X.json)")


def _save(args: argparse.Namespace) -> None:
    from segkit.engine import train

    parser = Parser()
    train.add_arguments(parser)
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    ours = ["TEST.SAVE_HEADS", "True", "TEST.EXPORT", "False", "OUTPUT_DIR", args.output]
    places = ["--config-file", args.config_file, "--num-gpus", str(args.num_gpus)]
    train.run(parser.parse_args(["--eval-only", *places, *weights, *args.opts, *ours]))
    for index in sorted(Path(args.output).glob("inference/*/head_outputs")):
        print(index)


def _run(args: argparse.Namespace) -> None:
    from segkit.formats.head_outputs import folder as head_outputs
    from segkit.report.dropped_segments import dropped_segments_tables, write_dropped_segments_page
    from segkit.report.tables import metrics_table
    from segkit.scoring.fusion.options import build_setting
    from segkit.scoring.fusion.run import JSON, PAGE, check_needs, run_fusion
    from segkit.scoring.fusion.sweep import SweepData

    if args.gt_folder and not args.gt:
        raise ConfigError("--gt-folder is the folder of a truth, which --gt names", remedy="add --gt FILE")
    _check_free(args)
    saved = head_outputs.load(args.predictions)
    if args.gt:  # before the work: are they of the same images?
        SweepData.open(args.predictions, args.gt, args.gt_folder)
    setting = build_setting(args.method, args.set, saved.categories)
    check_needs(saved, [setting.fusion])
    options = {"workers": args.workers, "limit": args.problems}
    with progress_bar(args.method) as progress:
        dropped_segments = run_fusion(
            saved, setting.fusion, args.output, explain=args.explain, progress=progress, **options
        )
    console, results = Console(), {}
    print(args.output / JSON)
    if args.gt:
        from segkit.scoring.panoptic import score_panoptic

        scored = score_panoptic(args.gt, args.output / JSON, args.gt_folder, areas="recount", **options)
        results = {"panoptic_seg": scored.metric.compute(scored.image_order)}
        console.print(metrics_table(results))
    if args.explain:
        page = args.output / PAGE
        with counts_file.convert_write_errors(page):
            write_dropped_segments_page(
                page, f"segkit fuse run: {args.method}", results, dropped_segments, saved.categories
            )
        print(page)
        console.print(dropped_segments_tables(dropped_segments))


def _check_free(args: argparse.Namespace) -> None:
    """Refuse to write over what is no earlier run's, and over what is read in any case."""
    from segkit.scoring.fusion.run import DROPPED_SEGMENTS, JSON, PAGE, PNGS

    made = [args.output / name for name in (JSON, PNGS, DROPPED_SEGMENTS, PAGE)]
    read = [path.resolve() for path in (args.predictions, args.gt, args.gt_folder) if path is not None]
    if any(one.is_relative_to(path.resolve()) for path in made for one in read):
        problem = "what is read lies where the fused predictions are to go"
        raise ConfigError(problem, where=args.output, remedy="name another --output")
    there = [path.name for path in made if path.exists()]
    if there and not args.overwrite:
        problem = f"there is something already: {', '.join(there)}"
        raise DatasetError(problem, where=args.output, remedy="name another folder, or add --overwrite")
    counts_file.check_writable(args.output / JSON)


def _sweep(args: argparse.Namespace) -> None:
    from segkit.formats import png
    from segkit.report.sweep_figure import draw_sweep
    from segkit.report.sweep_page import describe_best, format_best_as_yaml, sweep_table, write_sweep_page
    from segkit.scoring.fusion.options import build_grid
    from segkit.scoring.fusion.run import check_needs
    from segkit.scoring.fusion.sweep import SweepData
    from segkit.scoring.fusion.tuning import search
    from segkit.scoring.results import save_results
    from segkit.utils.files import replacing

    paths = [args.output / name for name in SWEEP_FILES]
    for path in paths:
        counts_file.check_writable(path)
    sweep_data = SweepData.open(args.predictions, args.gt, args.gt_folder)
    settings = build_grid(args.methods, args.set, sweep_data.categories, args.base)
    check_needs(sweep_data.saved, [one[0].fusion for one in settings.values()])
    with progress_bar("sweep") as progress:
        options = {"workers": args.workers, "limit": args.problems, "progress": progress}
        found = search(sweep_data, settings, per_class=args.per_class, seed=args.seed, **options)
    figure = draw_sweep(found)
    save_results(paths[0], found)
    with counts_file.convert_write_errors(args.output):
        write_sweep_page(paths[1], found, figure)
        png.write(paths[2], figure)
        with replacing(paths[3]) as neighbour:
            neighbour.write_text(format_best_as_yaml(found), encoding="utf-8")
    for path in paths:
        print(path)
    Console().print(sweep_table(found))
    print(describe_best(found))


def _draw(args: argparse.Namespace) -> None:
    from segkit.formats import png
    from segkit.formats.head_outputs import folder as head_outputs
    from segkit.report.grids import draw_fusion_grid
    from segkit.scoring.fusion.run import fuse_images

    counts_file.check_writable(args.output)
    saved = head_outputs.load(args.predictions)
    found = fuse_images(saved, args.image, args.methods, args.set)
    rows = [(str(image.image_id), args.images / image.file_name, made) for image, made in found]
    grid = draw_fusion_grid(rows, saved.categories)
    with counts_file.convert_write_errors(args.output):
        png.write(args.output, grid)
    print(args.output)


def _priors(args: argparse.Namespace) -> None:
    from segkit.scoring.fusion.priors import count_priors
    from segkit.scoring.results import save_results

    counts_file.check_writable(args.output)
    with progress_bar("priors") as progress:
        options = {"workers": args.workers, "limit": args.problems, "progress": progress}
        table = count_priors(args.gt, args.gt_folder, args.instances, **options)
    save_results(args.output, table.to_json())
    print(args.output)
    names = dict(table.things)
    rows = [(table.occlusion_probability(*pair), wins, pair) for pair, wins in table.counts.items() if wins]
    rows.sort(key=lambda row: (-row[0], -row[1], row[2]))
    shown = Table("on top", "below", title="The surest pairs")
    for column in ("times", "the other way", "precedence"):
        shown.add_column(column, justify="right")
    for precedence, wins, (over, under) in rows[:SHOWN_PAIRS]:
        losses = table.counts.get((under, over), 0)
        shown.add_row(Text(names[over]), Text(names[under]), str(wins), str(losses), f"{precedence:.2f}")
    if rows:
        Console().print(shown)
    else:
        print("No two objects of different classes overlap: there is nothing to learn.")


def _methods(args: argparse.Namespace) -> None:
    from segkit.fusion import FUSION_METHODS
    from segkit.scoring.fusion.options import get_defaults

    console = Console()
    for name, method in sorted(FUSION_METHODS.items()):
        does = " ".join((method.__doc__ or "").split("\n\n")[0].split())
        needs = ", ".join(sorted(method.needs)) or "crops and the best semantic channel of each pixel"
        table = Table("option", "type", "default", title=Text(name, style="bold"), title_justify="left")
        for field in fields(method):  # type: ignore[arg-type]
            table.add_row(Text(field.name), Text(_type_name(field.type)), Text(repr(get_defaults(name)[field.name])))
        console.print(table, Text(f"{does} Needs {needs}."), "")


def _type_name(declared: Any) -> str:
    return declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)
