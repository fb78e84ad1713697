"""`segkit evaluate`: score saved predictions, without a model; share the work out and join the counts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segkit.formats.files import dump_json
from segkit.report import analysis_tables, metrics_table
from segkit.report.metric_values import format_value
from segkit.report.table import per_class_tables
from segkit.scoring import counts_file
from segkit.scoring.counts_file import SavedCounts
from segkit.scoring.problems import DEFAULT_LIMIT
from segkit.scoring.results import WORST_IMAGES, results_of
from segkit.scoring.workers import Shard
from segkit.structures import CategorySet, ConfigError

MOST_WORKERS = 8  # by default; reading files does not get faster without end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs and their arguments."""
    verbs = parser.add_subparsers(dest="evaluate_verb", required=True, metavar="KIND")
    for name, does, declare, score in (
        ("panoptic", "panoptic quality of COCO panoptic JSON and PNGs", _add_panoptic, _score_panoptic),
        ("instances", "box, mask and boundary AP of COCO results; Cityscapes' AP", _add_instances, _score_instances),
        ("semantic", "mIoU, Dice and accuracy of label maps", _add_semantic, _score_semantic),
    ):
        one = verbs.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False)
        declare(one)
        _add_common(one)
        one.set_defaults(evaluate_run=_evaluate, score=score)
    joined = verbs.add_parser("merge", help="join the counts of shards into the result", allow_abbrev=False)
    joined.add_argument("counts", nargs="+", type=Path, metavar="FILE", help="what --save-counts wrote, one per shard")
    _add_output(joined)
    joined.set_defaults(evaluate_run=lambda args: _tell(counts_file.merge(args.counts), args))


def run(args: argparse.Namespace) -> int:
    """Score and print; 0 where all went well."""
    args.evaluate_run(args)
    return 0


def _add_panoptic(parser: argparse.ArgumentParser) -> None:
    _add_files(parser, "panoptic JSON of the truth", "panoptic JSON of the predictions")
    parser.add_argument(
        "--pred-folder", "--pred_folder", type=Path, metavar="DIR", help="its PNGs (default: X of X.json)"
    )
    parser.add_argument(
        "--mode",
        choices=("reference", "corrected"),
        default="reference",
        help="panopticapi's rules to the bit (default), or all crowds counted and areas recounted",
    )
    areas = parser.add_mutually_exclusive_group()
    areas.add_argument(
        "--recount-areas",
        dest="areas",
        action="store_const",
        const="recount",
        help="count the truth's areas in its PNGs instead of refusing a JSON that contradicts them",
    )
    areas.add_argument(
        "--trust-areas",
        dest="areas",
        action="store_const",
        const="trust",
        help="take the truth's areas from its JSON, right or wrong, as panopticapi does",
    )
    parser.add_argument("--boundary", action="store_true", help="boundary PQ too")
    parser.add_argument("--dagger", action="store_true", help="PQ-dagger too")
    parser.add_argument("--allow-missing", action="store_true", help="count images without prediction as all missed")
    parser.add_argument("--allow-extra", action="store_true", help="pass over predictions of other images")


def _score_panoptic(args: argparse.Namespace, **options: Any) -> SavedCounts:
    from segkit.scoring.panoptic import score_panoptic

    scored = score_panoptic(
        args.gt,
        args.pred,
        args.gt_folder,
        args.pred_folder,
        mode=args.mode,
        areas=args.areas,
        boundary=args.boundary,
        dagger=args.dagger,
        allow_missing=args.allow_missing,
        allow_extra=args.allow_extra,
        **options,
    )
    return SavedCounts("panoptic", scored.metric, scored.image_order, args.shard)


def _add_instances(parser: argparse.ArgumentParser) -> None:
    _add_files(
        parser,
        "instances JSON, or panoptic JSON (with --gt-folder), or gtFine/<split> (cityscapes)",
        "COCO results JSON, or a folder of Cityscapes results",
    )
    parser.add_argument(
        "--iou-types",
        nargs="+",
        choices=("bbox", "segm", "boundary"),
        default=["bbox", "segm"],
        help="default: bbox segm",
    )
    parser.add_argument(
        "--protocol", choices=("coco", "cityscapes"), default="coco", help="whose rules (default: %(default)s)"
    )


def _score_instances(args: argparse.Namespace, **options: Any) -> SavedCounts:
    if args.protocol == "cityscapes":
        from segkit.scoring.cityscapes_instances import score_cityscapes_instances

        found = score_cityscapes_instances(args.gt, args.pred, **options)
        return SavedCounts("cityscapes", found, None, args.shard)
    from segkit.scoring.instances import score_instances

    metric = score_instances(args.gt, args.pred, gt_folder=args.gt_folder, iou_types=args.iou_types, **options)
    return SavedCounts("instances", metric, None, args.shard)


def _add_semantic(parser: argparse.ArgumentParser) -> None:
    _add_files(parser, "folder of label PNGs, or panoptic JSON", "folder of label PNGs, or sem_seg_predictions.json")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument("--classes", nargs="+", metavar="NAME", help="names of the labels 0, 1, ...")
    classes.add_argument("--categories", type=Path, metavar="FILE", help="JSON with categories; labels are their ids")
    parser.add_argument(
        "--ignore-label",
        nargs="+",
        type=int,
        metavar="N",
        help="true labels left out (default: 255, if it is no class)",
    )
    parser.add_argument("--gt-suffix", default="", metavar="TEXT", help="end of the truth's file names")
    parser.add_argument("--pred-suffix", default="", metavar="TEXT", help="end of the predictions' file names")
    parser.add_argument(
        "--thing-channels", choices=("per_class", "one"), default="per_class", help="one: all things are one class"
    )
    parser.add_argument(
        "--png-values", choices=("category_id", "channel"), default="category_id", help="what a PNG's values are"
    )
    parser.add_argument("--boundary", action="store_true", help="boundary IoU too")
    parser.add_argument("--allow-extra", action="store_true", help="pass over predictions of other images")


def _score_semantic(args: argparse.Namespace, **options: Any) -> SavedCounts:
    from segkit.formats.label_maps import read_classes
    from segkit.scoring.semantic import score_semantic

    metric = score_semantic(
        args.gt,
        args.pred,
        gt_folder=args.gt_folder,
        classes=read_classes(args.categories) if args.categories else args.classes,
        ignore_label=args.ignore_label,
        gt_suffix=args.gt_suffix,
        pred_suffix=args.pred_suffix,
        thing_channels=args.thing_channels,
        png_values=args.png_values,
        boundary=args.boundary,
        allow_extra=args.allow_extra,
        **options,
    )
    return SavedCounts("semantic", metric, None, args.shard)


def _add_files(parser: argparse.ArgumentParser, gt: str, pred: str) -> None:
    parser.add_argument("--gt", "--gt-json-file", "--gt_json_file", required=True, type=Path, metavar="PATH", help=gt)
    parser.add_argument(
        "--pred", "--pred-json-file", "--pred_json_file", required=True, type=Path, metavar="PATH", help=pred
    )
    parser.add_argument(
        "--gt-folder",
        "--gt_folder",
        type=Path,
        metavar="DIR",
        help="the truth's PNGs (default: X of a panoptic X.json)",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=_positive, default=_workers(), metavar="N", help="threads (default: %(default)s)"
    )
    parser.add_argument("--shard", type=_shard, default=Shard(), metavar="I/N", help="score the I-th of N parts alone")
    parser.add_argument("--save-counts", type=Path, metavar="FILE", help="write the counts for `merge` and `compare`")
    parser.add_argument(
        "--problems",
        type=_positive,
        default=DEFAULT_LIMIT,
        metavar="N",
        help="tell so many at once (default: %(default)s)",
    )
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all numbers as JSON")
    parser.add_argument("--per-class", action="store_true", help="print every class")
    parser.add_argument(
        "--worst", type=_positive, default=WORST_IMAGES, metavar="N", help="worst images listed (default: %(default)s)"
    )


def _evaluate(args: argparse.Namespace) -> None:
    if args.shard.count > 1 and not args.save_counts:
        raise ConfigError("--shard scores a part, which --save-counts FILE must keep", remedy="add --save-counts FILE")
    with _progress(args.evaluate_verb) as progress:
        counts = args.score(args, workers=args.workers, shard=args.shard, progress=progress, limit=args.problems)
    if args.save_counts:
        counts_file.save(args.save_counts, counts)
        print(args.save_counts)
    if args.shard.count == 1:
        _tell(counts, args)


def _tell(counts: SavedCounts, args: argparse.Namespace) -> None:
    """Print the numbers, and write them where asked to."""
    console = Console()
    results = results_of(counts, args.worst)
    analysis = results.pop("analysis", None)
    categories = getattr(counts.metric, "categories", None)
    console.print(metrics_table(results))
    if args.per_class:
        console.print(per_class_tables(results, categories))
    if analysis:
        _print_analysis(console, results["panoptic_seg"], analysis, categories)
        results["analysis"] = analysis
    if args.output:
        dump_json(args.output, results)
        print(args.output)


def _print_analysis(
    console: Console, found: dict[str, Any], analysis: dict[str, Any], categories: CategorySet | None
) -> None:
    console.print(analysis_tables.intervals_table(analysis["intervals"]))
    console.print(analysis_tables.budget_table(analysis["error_budget"]))
    if analysis["confusion"]["top"]:
        console.print(analysis_tables.confusion_table(analysis["confusion"], categories))
    if analysis["worst_images"]:
        console.print(analysis_tables.worst_table(analysis["worst_images"]))
    if "other_mode" in found:
        other = found["other_mode"]
        console.print(
            f"By the {other['mode']} rules PQ is {format_value(other['PQ'])} instead of {format_value(found['PQ'])}: "
            f"{'; '.join(other['because'])}."
        )


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _workers() -> int:
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(known, MOST_WORKERS)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _shard(text: str) -> Shard:
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, as in 1/4, got {text!r}")
    return Shard(int(index), int(count))
