"""`segkit compare A B`: by how much PQ, AP or mIoU of B is better than that of A, and how certain that is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from segkit.cli import arguments, label_map_arguments
from segkit.utils.console import open_console
from segkit.utils.errors import ConfigError

if TYPE_CHECKING:
    from segkit.metrics import AveragePrecision, PanopticQuality, SemanticIoU
    from segkit.structures import CategorySet

Metrics: TypeAlias = dict[str, Any]  # kind of `segkit evaluate` -> its metric
MAX_CLASSES = 10  # printed without --per-class
SAMPLES, SEED, LEVEL = 1000, 0, 0.95  # the defaults of `bootstrap.compare`, which the help does not import


class Compared(NamedTuple):
    """The comparison of a task, and how it is printed.

    task: key in the JSON. result: of `bootstrap.compare` or its like. categories: None if its classes go by name.
    names: headline metrics. of_class: metric of the classes. title: start of the table's title and of the conclusion.
    """

    task: str
    result: dict[str, Any]
    categories: CategorySet | None
    names: Sequence[str]
    of_class: str
    title: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    path = (
        "counts of `segkit evaluate --save-counts`, the folder of an evaluation in a training, a JSON of predictions"
        " (panoptic, COCO results, sem_seg_predictions.json), or a folder of label PNGs"
    )
    parser.add_argument("a", type=Path, metavar="A", help=path)
    parser.add_argument("b", type=Path, metavar="B", help="the same, to be compared with A")
    gt = "ground truth of predictions: a JSON, or a folder of label PNGs"
    parser.add_argument("--gt", type=Path, metavar="PATH", help=gt)
    parser.add_argument(
        "--gt-folder", type=Path, metavar="DIR", help="its PNGs (default: found beside it or one folder up)"
    )
    folders = "PNGs of the predictions A and B, if these are panoptic JSONs (default: found in the same way)"
    parser.add_argument("--pred-folder", nargs=2, type=Path, metavar=("DIR_A", "DIR_B"), help=folders)
    arguments.add_panoptic_rules(parser)
    label_map_arguments.add_label_map_rules(parser)
    arguments.add_work_options(parser)
    arguments.add_number(parser, "--samples", SAMPLES, "resamples")
    parser.add_argument("--level", type=_share, default=LEVEL, metavar="P", help=f"of the intervals (default: {LEVEL})")
    arguments.add_number(parser, "--seed", SEED, "of the resampling", minimum=0)
    parser.add_argument("--per-class", action="store_true", help="print every class, not only the most different")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all metrics as JSON")


def run(args: argparse.Namespace) -> None:
    """Compare and print."""
    from segkit.report.panoptic_analysis import comparison_table, describe_comparison
    from segkit.scoring.results import save_results

    if args.output:
        arguments.check_output(args.output, (args.a, args.b, args.gt))
    folders = args.pred_folder or (None, None)
    a, b = (_load_metrics(*pair, args) for pair in zip((args.a, args.b), folders, strict=True))
    compared = _compare(a, b, args)
    if args.output:
        save_results(args.output, {each.task: each.result for each in compared})
        print(args.output)
    for _, result, categories, names, of_class, title in compared:
        classes = None if args.per_class else MAX_CLASSES
        open_console().print(comparison_table(result, categories, classes, names, title, of_class))
        print(f"{title}: " * bool(title) + describe_comparison(result, names[0]))
    for path, kinds in ((args.a, a.keys() - b.keys()), (args.b, b.keys() - a.keys())):
        if kinds:
            print(f"Not compared, since only {path} has it: {', '.join(sorted(kinds))}")


def _compare(a: Metrics, b: Metrics, args: argparse.Namespace) -> list[Compared]:
    """The comparisons of all kinds that both have."""
    options = {"samples": args.samples, "seed": args.seed, "level": args.level}
    compared: list[Compared] = []
    for kind, compare in COMPARE.items():
        if kind in a and kind in b:
            compared += compare(a[kind], b[kind], args, options)
    if not compared:
        problem = f"expected A and B of one kind, got {' and '.join(a)} of A, {' and '.join(b)} of B"
        remedy = "compare two sets of predictions for one task"
        raise ConfigError(problem, where=f"{args.a} and {args.b}", remedy=remedy)
    return compared


def _compare_panoptic(
    a: PanopticQuality, b: PanopticQuality, args: argparse.Namespace, options: dict[str, Any]
) -> list[Compared]:
    import numpy as np

    from segkit.metrics.panoptic.bootstrap import compare
    from segkit.report.panoptic_analysis import OVERALL
    from segkit.scoring.results import replace_nonfinite

    _check_alike(a, b, args)
    with np.errstate(invalid="ignore", over="ignore"):  # trusted areas can make infinities
        result = replace_nonfinite(compare(a.table(), b.table(), a.categories, a.mode, **options))
    return [Compared("panoptic_seg", result, a.categories, OVERALL, OVERALL[0])]


def _compare_instances(
    a: AveragePrecision, b: AveragePrecision, args: argparse.Namespace, options: dict[str, Any]
) -> list[Compared]:
    from segkit.metrics.average_precision_comparison import NAMES, compare_average_precision

    _check_same_categories(a, b, args)
    results = compare_average_precision(a, b, **options)
    if not results:
        problem = f"expected one kind of IoU in both, got {', '.join(a.iou_types)} and {', '.join(b.iou_types)}"
        raise ConfigError(problem, where=f"{args.a} and {args.b}", remedy="score both with the same --iou-types")
    return [Compared(kind, result, a.categories, [*NAMES], "AP", kind) for kind, result in results.items()]


def _compare_semantic(
    a: SemanticIoU, b: SemanticIoU, args: argparse.Namespace, options: dict[str, Any]
) -> list[Compared]:
    from segkit.metrics.semantic_comparison import NAMES, compare_semantic_iou
    from segkit.utils.text import abbreviate

    if a.names != b.names:
        only = sorted({*a.names} ^ {*b.names})
        difference = f"only one of them has {abbreviate(only)}" if only else "they have another order"
        remedy = "score both with the same --classes or --categories"
        raise ConfigError(
            f"expected the same classes in A and B, {difference}", where=f"{args.a} and {args.b}", remedy=remedy
        )
    return [Compared("sem_seg", compare_semantic_iou(a, b, **options), None, NAMES, "IoU")]


COMPARE: Mapping[str, Callable[..., list[Compared]]] = {
    "panoptic": _compare_panoptic,
    "instances": _compare_instances,
    "semantic": _compare_semantic,
}


def _load_metrics(path: Path, folder: Path | None, args: argparse.Namespace) -> Metrics:
    """From saved counts, or from predictions, with the PNGs of a panoptic JSON in `folder`, that are scored here."""
    from segkit.scoring import counts_file

    if path.suffix.lower() == ".json":
        return _score(path, folder, args)
    if not path.is_dir():
        return dict([_load_counts(path)])
    counts = counts_file.find_in_folder(path)
    if not counts and args.gt is None:
        problem = "expected the folder of an evaluation, with panoptic_counts.npz or its like, or label PNGs with --gt"
        raise ConfigError(problem, where=path, remedy="name the folder `inference/<dataset>` of a run, or give --gt")
    metrics = dict(_load_counts(counts[kind]) for kind in COMPARE if kind in counts)
    return metrics or _score(path, folder, args)


def _load_counts(path: Path) -> tuple[str, Any]:
    """Kind and metric of a file of counts."""
    from segkit.scoring import counts_file

    counts = counts_file.load(path)
    if counts.kind not in COMPARE:
        problem = f"expected counts of panoptic quality, average precision or semantic IoU, got counts of {counts.kind}"
        raise ConfigError(problem, where=path)
    if counts.shard.count > 1:
        shard = f"{counts.shard.index}/{counts.shard.count}"
        remedy = "join all shards with `segkit evaluate merge --save-counts FILE`"
        raise ConfigError(f"expected the counts of all images, got shard {shard}", where=path, remedy=remedy)
    return counts.kind, counts.metric


def _score(path: Path, folder: Path | None, args: argparse.Namespace) -> Metrics:
    from segkit.scoring.instances import score_instances
    from segkit.scoring.panoptic import score_panoptic
    from segkit.scoring.prediction_kinds import find_prediction_kind
    from segkit.scoring.semantic import score_semantic

    if args.gt is None:
        raise ConfigError("predictions need --gt, the ground truth", where=path)
    kind = find_prediction_kind(path)
    with arguments.show_progress(path.name, args) as options:
        options["gt_folder"] = args.gt_folder
        if kind == "instances":
            return {kind: score_instances(args.gt, path, **options)}
        if kind == "semantic":
            options |= {"allow_extra": args.allow_extra, **label_map_arguments.get_label_map_rules(args)}
            return {kind: score_semantic(args.gt, path, per_image=True, **options)}
        rules = arguments.get_panoptic_rules(args)
        return {kind: score_panoptic(args.gt, path, pred_folder=folder, **rules, **options).metric}


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
