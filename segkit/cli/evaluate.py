"""`segkit evaluate`: score saved predictions without a model. Shards can be scored apart and their counts merged."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from segkit.cli import arguments, label_map_arguments
from segkit.utils.console import open_console
from segkit.utils.errors import ConfigError
from segkit.utils.process_pool import Shard

if TYPE_CHECKING:
    from segkit.scoring.counts_file import SavedCounts

Scored: TypeAlias = tuple[str, Any, Any]  # kind of the metric, metric, ids of the images in their order or None
WORST_IMAGES = 50  # by default
# Arguments that change what is printed or how the work is done, but not what is counted.
NOT_COUNTED = ("workers", "shard", "save_counts", "problems", "output", "per_class", "worst", "run_command", "score")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    commands: dict[str, arguments.Command] = {
        "panoptic": ("panoptic quality of COCO panoptic JSON and PNGs", _add_panoptic, _evaluate),
        "instances": ("box, mask and boundary AP of COCO results; Cityscapes' AP", _add_instances, _evaluate),
        "semantic": ("semantic IoU, Dice and accuracy of label maps", _add_semantic, _evaluate),
        "video": ("video panoptic quality (VPQ) and STQ of VIPSeg's JSON and PNGs", _add_video, _evaluate),
        "volumes": ("Dice and NSD of label volumes (NIfTI)", _add_volumes, _evaluate),
        "merge": ("join the counts of shards: the result is that of one pass", _add_merge, _merge),
    }
    arguments.add_commands(parser, commands)


def run(args: argparse.Namespace) -> int:
    """Score and print; 0 if all went well."""
    inputs = [getattr(args, name, None) for name in ("gt", "pred", "categories")] + getattr(args, "counts", [])
    for path in (args.save_counts, args.output):
        if path is not None:
            arguments.check_output(path, inputs)
    return arguments.run_command(args)


def _add_panoptic(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(score=_score_panoptic)
    _add_files(parser, gt="a panoptic JSON", pred="a panoptic JSON")
    folder = "PNGs of the predictions (default: found beside the JSON or one folder up)"
    parser.add_argument("--pred-folder", "--pred_folder", type=Path, metavar="DIR", help=folder)
    parser.add_argument("--boundary", action="store_true", help="boundary PQ too")
    parser.add_argument("--dagger", action="store_true", help="PQ-dagger too")
    arguments.add_panoptic_rules(parser)
    arguments.add_number(parser, "--worst", WORST_IMAGES, "worst images in --output")


def _add_instances(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(score=_score_instances)
    gt = "an instances JSON, or a panoptic JSON, or gtFine/<split> (cityscapes)"
    _add_files(parser, gt=gt, pred="a COCO results JSON, or a folder of Cityscapes results")
    parser.add_argument("--iou-types", nargs="+", choices=("bbox", "segm", "boundary"), help="default: bbox segm")
    rules = "whose rules (default: %(default)s)"
    parser.add_argument("--protocol", choices=("coco", "cityscapes"), default="coco", help=rules)


def _add_semantic(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(score=_score_semantic)
    pngs = "a folder of label PNGs, or"
    _add_files(parser, gt=f"{pngs} a panoptic JSON", pred=f"{pngs} sem_seg_predictions.json")
    label_map_arguments.add_label_map_rules(parser)
    parser.add_argument("--boundary", action="store_true", help="boundary IoU too")
    parser.add_argument("--allow-extra", action="store_true", help="ignore predictions of other images")


def _add_video(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(score=_score_video)
    gt = "panoptic_gt_VIPSeg_<split>.json; its PNGs are in panomasksRGB beside it"
    _add_files(parser, gt=gt, pred="pred.json; its PNGs are in pan_pred beside it", has_pngs=False)
    for kind, option in (("ground truth", "--gt-folder"), ("predictions", "--pred-folder")):
        parser.add_argument(option, type=Path, metavar="DIR", help=f"PNGs of the {kind}, if they are elsewhere")
    windows = "lengths of the windows in frames, ascending (default: 1 2 3 4, which VIPSeg calls k = 0, 5, 10, 15)"
    parser.add_argument("--windows", nargs="+", type=int, default=[1, 2, 3, 4], metavar="N", help=windows)
    modes = "reference: of several crowds of a class the last counts, as in VIPSeg's script (default); corrected: all"
    parser.add_argument("--mode", choices=("reference", "corrected"), default="reference", help=modes)
    parser.add_argument("--allow-missing", action="store_true", help="count frames without prediction as all missed")
    parser.add_argument("--allow-extra", action="store_true", help="ignore predictions of other videos and frames")


def _add_volumes(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(score=_score_volumes)
    gt = "a folder of NIfTIs, or of a task (Task04_Hippocampus)"
    _add_files(parser, gt=gt, pred="a folder of NIfTIs of the same names", has_pngs=False)
    label_map_arguments.add_classes(parser)
    tolerance = "tolerance of NSD (default: the Decathlon's, by the name of the task's folder)"
    parser.add_argument("--tolerance-mm", type=float, metavar="MM", help=tolerance)
    ignored = "ground truth labels that are not scored (default: nnU-Net's label `ignore`)"
    parser.add_argument("--ignore-label", nargs="+", type=int, metavar="N", help=ignored)
    parser.add_argument("--allow-missing", action="store_true", help="leave out volumes without a prediction")
    parser.add_argument("--allow-extra", action="store_true", help="ignore predictions of other volumes")


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("counts", nargs="+", type=Path, metavar="FILE", help="counts of --save-counts, one per shard")
    _add_output(parser)
    arguments.add_number(parser, "--worst", WORST_IMAGES, "worst images in --output")


def _add_files(parser: argparse.ArgumentParser, gt: str, pred: str, has_pngs: bool = True) -> None:
    """The arguments of all kinds; the paths also under panopticapi's names."""
    gt_names, pred_names = ((f"--{kind}", f"--{kind}-json-file", f"--{kind}_json_file") for kind in ("gt", "pred"))
    parser.add_argument(*gt_names, required=True, type=Path, metavar="PATH", help=f"ground truth: {gt}")
    parser.add_argument(*pred_names, required=True, type=Path, metavar="PATH", help=f"predictions: {pred}")
    folder = "PNGs of a panoptic JSON (default: found beside it or one folder up)"
    if has_pngs:
        parser.add_argument("--gt-folder", "--gt_folder", type=Path, metavar="DIR", help=folder)
    arguments.add_work_options(parser)
    parser.add_argument("--shard", type=_shard, default=Shard(), metavar="I/N", help="score part I of N only")
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--save-counts", type=Path, metavar="FILE", help="write the counts, for `merge` and `compare`")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all metrics as JSON")
    parser.add_argument("--per-class", action="store_true", help="print every class")


def _score_panoptic(args: argparse.Namespace, **options: Any) -> Scored:
    from segkit.scoring.panoptic import score_panoptic

    options |= {**arguments.get_panoptic_rules(args), "boundary": args.boundary, "dagger": args.dagger}
    scored = score_panoptic(args.gt, args.pred, args.gt_folder, args.pred_folder, **options)
    return "panoptic", scored.metric, scored.image_order


def _score_instances(args: argparse.Namespace, **options: Any) -> Scored:
    from segkit.scoring.cityscapes_instances import score_cityscapes_instances
    from segkit.scoring.instances import score_instances

    if args.protocol == "coco":
        iou_types = args.iou_types or ("bbox", "segm")
        metric = score_instances(args.gt, args.pred, gt_folder=args.gt_folder, iou_types=iou_types, **options)
        return "instances", metric, None
    if args.iou_types or args.gt_folder:
        problem = "--iou-types and --gt-folder belong to --protocol coco"
        raise ConfigError(problem, remedy="leave them out, or leave out --protocol cityscapes")
    return "cityscapes", score_cityscapes_instances(args.gt, args.pred, **options), None


def _score_semantic(args: argparse.Namespace, **options: Any) -> Scored:
    from segkit.scoring.semantic import score_semantic

    options |= {**label_map_arguments.get_label_map_rules(args), "gt_folder": args.gt_folder}
    options |= {"boundary": args.boundary, "allow_extra": args.allow_extra, "per_image": args.save_counts is not None}
    return "semantic", score_semantic(args.gt, args.pred, **options), None


def _score_video(args: argparse.Namespace, **options: Any) -> Scored:
    from segkit.scoring.videos import score_videos

    if min(args.windows) < 1 or args.windows != sorted({*args.windows}):
        problem = f"expected ascending numbers of frames from 1, got {args.windows}"
        raise ConfigError(problem, where="--windows", remedy="such as --windows 1 2 3 4")
    options |= {name: getattr(args, name) for name in ("windows", "mode", "allow_missing", "allow_extra")}
    return "video", score_videos(args.gt, args.pred, args.gt_folder, args.pred_folder, **options), None


def _score_volumes(args: argparse.Namespace, **options: Any) -> Scored:
    from segkit.scoring.volumes import score_volumes

    options |= {name: getattr(args, name) for name in ("tolerance_mm", "ignore_label", "allow_missing", "allow_extra")}
    classes = label_map_arguments.parse_classes(args.classes)
    names: Any = dict(enumerate(classes)) if isinstance(classes, list) else classes
    return "volumes", score_volumes(args.gt, args.pred, classes=names, **options), None


def _evaluate(args: argparse.Namespace) -> None:
    from segkit.scoring import counts_file

    is_part = args.shard.count > 1
    if is_part and not args.save_counts:
        raise ConfigError("--shard scores a part, which --save-counts FILE must keep", remedy="add --save-counts FILE")
    if is_part and args.output:
        raise ConfigError("--shard gives counts, no metrics", remedy="give --output to `segkit evaluate merge`")
    options = {name: value for name, value in vars(args).items() if name not in NOT_COUNTED}
    inputs = counts_file.fingerprint(options) if args.save_counts else ""
    with arguments.show_progress(args.command, args) as work_options:
        scored: Scored = args.score(args, shard=args.shard, **work_options)
    _report(counts_file.SavedCounts(*scored, args.shard, inputs), args)


def _merge(args: argparse.Namespace) -> None:
    from segkit.scoring import counts_file

    _report(counts_file.merge(args.counts), args)


def _report(counts: SavedCounts, args: argparse.Namespace) -> None:
    """Write counts and metrics, then print the metrics: in this order, since a closed pipe ends the command."""
    from segkit.metrics import SemanticIoU
    from segkit.report import metrics_table
    from segkit.report.panoptic_analysis import analysis_tables
    from segkit.report.tables import per_class_tables
    from segkit.scoring import counts_file
    from segkit.scoring.results import build_results, save_results
    from segkit.scoring.semantic import describe_void_label

    if args.save_counts:
        counts_file.save(args.save_counts, counts)
        print(args.save_counts)
    if counts.shard.count > 1:
        return
    notes = []
    if isinstance(counts.metric, SemanticIoU) and "gt" in args:  # `merge` has no files
        rules = label_map_arguments.get_label_map_rules(args)
        del rules["pred_suffix"]
        notes = describe_void_label(counts.metric, args.gt, **rules)
    results = build_results(counts, getattr(args, "worst", WORST_IMAGES), notes)
    if args.output:
        save_results(args.output, results)
        print(args.output)
    console = open_console()
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
