"""`segkit compare A B`: by how much B's panoptic quality is better than A's, and how sure that is."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from segkit.formats.files import dump_json
from segkit.metrics import PanopticQuality
from segkit.metrics.panoptic.bootstrap import compare
from segkit.metrics.resampling import LEVEL, SAMPLES, SEED
from segkit.report.analysis_tables import comparison_table
from segkit.scoring import counts_file
from segkit.structures import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    what = "counts of `segkit evaluate panoptic --save-counts` or of a training, or a panoptic JSON of predictions"
    parser.add_argument("a", type=Path, metavar="A", help=what)
    parser.add_argument("b", type=Path, metavar="B", help="the same, to be compared with A")
    parser.add_argument("--gt", type=Path, metavar="FILE", help="panoptic JSON of the truth, where A or B is a JSON")
    parser.add_argument("--gt-folder", type=Path, metavar="DIR", help="its PNGs (default: X of X.json)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=SAMPLES, metavar="N", help="resamples (default: %(default)s)")
    parser.add_argument("--level", type=float, default=LEVEL, help="of the intervals (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, metavar="S", help="default: %(default)s")
    parser.add_argument("--per-class", action="store_true", help="print every class, not only the most different")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    if args.samples < 1 or args.workers < 1 or not 0 < args.level < 1:
        raise ConfigError("expected --samples and --workers from 1 on, and --level between 0 and 1")
    first, second = (_panoptic(path, args) for path in (args.a, args.b))
    if first.categories != second.categories or first.mode != second.mode:
        raise ConfigError(f"{args.a} and {args.b} were scored with different categories or modes")
    compared = compare(
        first.table(),
        second.table(),
        first.categories,
        first.mode,
        samples=args.samples,
        seed=args.seed,
        level=args.level,
    )
    Console().print(comparison_table(compared, first.categories, None if args.per_class else 10))
    if compared["reason"]:
        print(compared["reason"])
    if args.output:
        dump_json(args.output, compared)
        print(args.output)
    return 0


def _panoptic(path: Path, args: argparse.Namespace) -> PanopticQuality:
    if path.suffix == ".json":
        if args.gt is None:
            raise ConfigError("a JSON of predictions needs --gt, the truth's JSON", where=path)
        from segkit.scoring.panoptic import score_panoptic

        return score_panoptic(args.gt, path, args.gt_folder, workers=args.workers).metric
    metric = counts_file.load(path).metric
    if not isinstance(metric, PanopticQuality):
        raise ConfigError(f"expected counts of panoptic quality, got {type(metric).__name__}'s", where=path)
    return metric
