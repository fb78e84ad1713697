"""`segkit compare A B`: by how much PQ or AP of B is better than that of A, and how certain that is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.cli import arguments
from segkit.utils.console import open_console
from segkit.utils.errors import ConfigError

if TYPE_CHECKING:
    from segkit.metrics import AveragePrecision, PanopticQuality

MAX_CLASSES = 10  # printed without --per-class
SAMPLES, SEED, LEVEL = 1000, 0, 0.95  # the defaults of `bootstrap.compare`, which the help does not import


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    path = (
        "counts of `segkit evaluate --save-counts` (panoptic or instances) or of a training, or a JSON of predictions"
    )
    parser.add_argument("a", type=Path, metavar="A", help=path)
    parser.add_argument("b", type=Path, metavar="B", help="the same, to be compared with A")
    parser.add_argument("--gt", type=Path, metavar="FILE", help="ground truth: a JSON, if A or B is a JSON")
    parser.add_argument(
        "--gt-folder", type=Path, metavar="DIR", help="its PNGs (default: found beside it or one folder up)"
    )
    folders = "PNGs of the predictions A and B, if these are panoptic JSONs (default: found in the same way)"
    parser.add_argument("--pred-folder", nargs=2, type=Path, metavar=("DIR_A", "DIR_B"), help=folders)
    arguments.add_panoptic_rules(parser)
    arguments.add_work_options(parser)
    arguments.add_number(parser, "--samples", SAMPLES, "resamples")
    parser.add_argument("--level", type=_share, default=LEVEL, metavar="P", help=f"of the intervals (default: {LEVEL})")
    arguments.add_number(parser, "--seed", SEED, "of the resampling", minimum=0)
    parser.add_argument("--per-class", action="store_true", help="print every class, not only the most different")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all metrics as JSON")


def run(args: argparse.Namespace) -> None:
    """Compare and print."""
    from segkit.metrics import AveragePrecision, PanopticQuality

    if args.output:
        arguments.check_output(args.output, (args.a, args.b, args.gt))
    folders = args.pred_folder or (None, None)
    a, b = (_load_metric(*pair, args) for pair in zip((args.a, args.b), folders, strict=True))
    options = {"samples": args.samples, "seed": args.seed, "level": args.level}
    if isinstance(a, PanopticQuality) and isinstance(b, PanopticQuality):
        _compare_panoptic(a, b, args, options)
    elif isinstance(a, AveragePrecision) and isinstance(b, AveragePrecision):
        _compare_instances(a, b, args, options)
    else:
        problem = "expected A and B of one kind, got panoptic quality and average precision"
        raise ConfigError(problem, where=f"{args.a} and {args.b}")


def _compare_panoptic(
    a: PanopticQuality, b: PanopticQuality, args: argparse.Namespace, options: dict[str, Any]
) -> None:
    import numpy as np

    from segkit.metrics.panoptic.bootstrap import compare
    from segkit.report.panoptic_analysis import comparison_table, describe_comparison
    from segkit.scoring.results import replace_nonfinite

    _check_alike(a, b, args)
    with np.errstate(invalid="ignore", over="ignore"):  # trusted areas can make infinities
        compared = replace_nonfinite(compare(a.table(), b.table(), a.categories, a.mode, **options))
    _save(compared, args)
    open_console().print(comparison_table(compared, a.categories, None if args.per_class else MAX_CLASSES))
    print(describe_comparison(compared))


def _compare_instances(
    a: AveragePrecision, b: AveragePrecision, args: argparse.Namespace, options: dict[str, Any]
) -> None:
    from segkit.metrics.average_precision_comparison import NAMES, compare_average_precision
    from segkit.report.panoptic_analysis import comparison_table, describe_comparison

    _check_same_categories(a, b, args)
    compared = compare_average_precision(a, b, **options)
    if not compared:
        problem = f"expected one kind of IoU in both, got {', '.join(a.iou_types)} and {', '.join(b.iou_types)}"
        raise ConfigError(problem, where=f"{args.a} and {args.b}", remedy="score both with the same --iou-types")
    _save(compared, args)
    for kind, result in compared.items():
        classes = None if args.per_class else MAX_CLASSES
        open_console().print(comparison_table(result, a.categories, classes, [*NAMES], kind))
        print(f"{kind}: {describe_comparison(result, 'AP')}")


def _save(compared: dict[str, Any], args: argparse.Namespace) -> None:
    from segkit.scoring.results import save_results

    if args.output:
        save_results(args.output, compared)
        print(args.output)


def _load_metric(path: Path, folder: Path | None, args: argparse.Namespace) -> PanopticQuality | AveragePrecision:
    """From saved counts, or from a JSON, with its PNGs in `folder`, that is scored here."""
    from segkit.metrics import AveragePrecision, PanopticQuality
    from segkit.scoring import counts_file

    if path.suffix.lower() == ".json":
        return _score_json(path, folder, args)
    counts = counts_file.load(path)
    if not isinstance(counts.metric, PanopticQuality | AveragePrecision):
        problem = f"expected counts of panoptic quality or average precision, got counts of {counts.kind}"
        raise ConfigError(problem, where=path)
    if counts.shard.count > 1:
        shard = f"{counts.shard.index}/{counts.shard.count}"
        remedy = "join all shards with `segkit evaluate merge --save-counts FILE`"
        raise ConfigError(f"expected the counts of all images, got shard {shard}", where=path, remedy=remedy)
    return counts.metric


def _score_json(path: Path, folder: Path | None, args: argparse.Namespace) -> PanopticQuality | AveragePrecision:
    from segkit.scoring.instances import score_instances
    from segkit.scoring.panoptic import score_panoptic
    from segkit.utils.files import read_bytes

    if args.gt is None:
        raise ConfigError("a JSON of predictions needs --gt, the ground truth's JSON", where=path)
    with arguments.show_progress(path.name, args) as options:
        if read_bytes(path, 64).lstrip().startswith(b"["):  # COCO's list of results
            return score_instances(args.gt, path, gt_folder=args.gt_folder, **options)
        rules = arguments.get_panoptic_rules(args)
        return score_panoptic(args.gt, path, args.gt_folder, folder, **rules, **options).metric


def _check_alike(first: PanopticQuality, second: PanopticQuality, args: argparse.Namespace) -> None:
    both = f"{args.a} and {args.b}"
    if first.mode != second.mode:
        problem = f"expected one mode, got {first.mode} and {second.mode}"
        raise ConfigError(problem, where=both, remedy="score both with the same --mode")
    if (first.areas == "trust") != (second.areas == "trust"):
        trusting = args.a if first.areas == "trust" else args.b
        problem = "only one of A and B trusts the ground truth's areas"
        raise ConfigError(problem, where=trusting, remedy="score both with --trust-areas, or neither")
    _check_same_categories(first, second, args)


def _check_same_categories(
    first: PanopticQuality | AveragePrecision, second: PanopticQuality | AveragePrecision, args: argparse.Namespace
) -> None:
    if first.categories != second.categories:
        problem = "expected the same categories in A and B, but they differ"
        remedy = "score both against the same ground truth"
        raise ConfigError(problem, where=f"{args.a} and {args.b}", remedy=remedy)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, as in 0.95, got {text!r}")
    return share
