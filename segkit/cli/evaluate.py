"""`segkit evaluate`: score saved predictions, without a model; share the work out and join the counts."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from segkit.cli.arguments import add_panoptic_rules, add_work, panoptic_rules, positive
from segkit.report import metrics_table
from segkit.report.panoptic_analysis import analysis_tables
from segkit.report.tables import per_class_tables
from segkit.scoring import counts_file
from segkit.scoring.counts_file import SavedCounts
from segkit.scoring.results import WORST_IMAGES, build_results, save_results
from segkit.utils.errors import ConfigError
from segkit.utils.process_pool import Shard
from segkit.utils.progress import progress_bar

# Arguments that change what is told of an evaluation or how it runs, not what is counted.
NO_OPTIONS = ("workers", "shard", "save_counts", "problems", "output", "per_class", "worst", "evaluate_run", "score")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs and their arguments."""
    verbs = parser.add_subparsers(dest="evaluate_verb", required=True, metavar="KIND")
    for name, does, declare, score in (
        ("panoptic", "panoptic quality of COCO panoptic JSON and PNGs", _add_panoptic, _score_panoptic),
        ("instances", "box, mask and boundary AP of COCO results; Cityscapes' AP", _add_instances, _score_instances),
        ("semantic", "semantic IoU, Dice and accuracy of label maps", _add_semantic, _score_semantic),
    ):
        one = verbs.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False)
        declare(one)
        _add_common(one)
        one.set_defaults(evaluate_run=_evaluate, score=score)
    does = "join the counts of shards: the result is that of one pass"
    joined = verbs.add_parser("merge", help=does, description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False)
    joined.add_argument("counts", nargs="+", type=Path, metavar="FILE", help="what --save-counts wrote, one per shard")
    joined.add_argument("--save-counts", type=Path, metavar="FILE", help="write the joined counts, for `compare`")
    _add_output(joined)
    _add_worst(joined)
    joined.set_defaults(evaluate_run=_merge)


def run(args: argparse.Namespace) -> int:
    """Score and print; 0 where all went well."""
    for path in (args.save_counts, args.output):
        if path is not None:
            counts_file.check_writable(path)
    args.evaluate_run(args)
    return 0


def _add_panoptic(parser: argparse.ArgumentParser) -> None:
    _add_files(parser, "panoptic JSON of the truth", "panoptic JSON of the predictions")
    parser.add_argument(
        "--pred-folder", "--pred_folder", type=Path, metavar="DIR", help="its PNGs (default: X of X.json)"
    )
    parser.add_argument("--boundary", action="store_true", help="boundary PQ too")
    parser.add_argument("--dagger", action="store_true", help="PQ-dagger too")
    add_panoptic_rules(parser)
    _add_worst(parser)


def _score_panoptic(args: argparse.Namespace, **options: Any) -> SavedCounts:
    from segkit.scoring.panoptic import score_panoptic

    scored = score_panoptic(
        args.gt,
        args.pred,
        args.gt_folder,
        args.pred_folder,
        boundary=args.boundary,
        dagger=args.dagger,
        **panoptic_rules(args),
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
        help="default: bbox segm",
    )
    parser.add_argument(
        "--protocol", choices=("coco", "cityscapes"), default="coco", help="whose rules (default: %(default)s)"
    )


def _score_instances(args: argparse.Namespace, **options: Any) -> SavedCounts:
    if args.protocol == "cityscapes":
        if args.iou_types or args.gt_folder:
            remedy = "leave them out, or --protocol cityscapes"
            raise ConfigError("--iou-types and --gt-folder are of the coco protocol", remedy=remedy)
        from segkit.scoring.cityscapes_instances import score_cityscapes_instances

        found = score_cityscapes_instances(args.gt, args.pred, **options)
        return SavedCounts("cityscapes", found, None, args.shard)
    from segkit.scoring.instances import score_instances

    iou_types = args.iou_types or ("bbox", "segm")
    metric = score_instances(args.gt, args.pred, gt_folder=args.gt_folder, iou_types=iou_types, **options)
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
    from segkit.formats.coco import read_classes
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
    add_work(parser)
    parser.add_argument("--shard", type=_shard, default=Shard(), metavar="I/N", help="score the I-th of N parts alone")
    parser.add_argument("--save-counts", type=Path, metavar="FILE", help="write the counts for `merge` and `compare`")
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all numbers as JSON")
    parser.add_argument("--per-class", action="store_true", help="print every class")


def _add_worst(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--worst",
        type=positive,
        default=WORST_IMAGES,
        metavar="N",
        help="worst images in --output (default: %(default)s)",
    )


def _evaluate(args: argparse.Namespace) -> None:
    alone = args.shard.count == 1
    if not alone and not args.save_counts:
        raise ConfigError("--shard scores a part, which --save-counts FILE must keep", remedy="add --save-counts FILE")
    if not alone and args.output:
        raise ConfigError("--shard gives counts, no results", remedy="give --output to `segkit evaluate merge`")
    inputs = counts_file.fingerprint(_options(args)) if args.save_counts else ""
    with progress_bar(args.evaluate_verb) as progress:
        counts = args.score(args, workers=args.workers, shard=args.shard, progress=progress, limit=args.problems)
    _keep(replace(counts, inputs=inputs), args)
    if alone:
        _tell(counts, args)


def _merge(args: argparse.Namespace) -> None:
    counts = counts_file.merge(args.counts)
    _keep(counts, args)
    _tell(counts, args)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name not in NO_OPTIONS}


def _keep(counts: SavedCounts, args: argparse.Namespace) -> None:
    if args.save_counts:
        counts_file.save(args.save_counts, counts)
        print(args.save_counts)


def _tell(counts: SavedCounts, args: argparse.Namespace) -> None:
    """Write the numbers where asked to, and print them; in this order, since a reader may leave."""
    results = build_results(counts, getattr(args, "worst", WORST_IMAGES))
    if args.output:
        save_results(args.output, results)
        print(args.output)
    console = Console()
    analysis = results.pop("analysis", None)
    categories = getattr(counts.metric, "categories", None)
    console.print(metrics_table(results))
    if args.per_class:
        console.print(per_class_tables(results, categories))
    if analysis:
        console.print(analysis_tables(results["panoptic_seg"], analysis, categories))


def _shard(text: str) -> Shard:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, as in 1/4, got {text!r}")
    return Shard(int(index), int(count))
