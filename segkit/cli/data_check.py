"""`segkit data check`: everything that is wrong with a dataset, before training."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from segkit.cli import arguments
from segkit.curation.issues import RULES, IssueList, RunAll, is_issues_file, write_issues
from segkit.utils import files
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.process_pool import ordered_map
from segkit.utils.progress import progress_bar

SUMMARY = "find everything that is wrong with a dataset, and repair a copy"
MAX_SHOWN = 5  # issues of one code in the terminal; --output has all
SEVERITIES = ("error", "warning", "note")
ORPHANS = ("image-orphan", "png-orphan")
PANOPTIC, INSTANCES = "coco-panoptic", "coco-instances"
SPLIT_OPTIONS = ("root", "json", "images", "split", "dataset")  # each names this split
REQUIRED_OPTIONS = {PANOPTIC: ("json", "masks", "images"), INSTANCES: ("json", "images")}
EPILOG = """\
COCO panoptic takes --json --masks --images; COCO instances --json --images; other formats --root, and most --split.
Exit code: 0 without an issue of severity error (warnings and notes do not fail), 1 with one, 2 for wrong usage."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    arguments.add_dataset_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all issues as JSON")
    against = "another split (a name, a COCO JSON or a folder of images): report images that are in both"
    parser.add_argument("--against", metavar="SPLIT", help=against)
    parser.add_argument("--fix", type=Path, metavar="DIR", help="write a repaired copy (COCO); an empty or new folder")
    arguments.add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Check, print, write, repair; 1 if there is an issue of severity error, 2 for wrong usage."""
    try:
        options = arguments.get_dataset_options(args)
        _check_usage(args, options)
        if args.output is not None:
            files.check_writable(args.output)
        with progress_bar("check") as progress:
            run_all = partial(ordered_map, workers=args.workers, progress=progress)
            issues = _check(args.format, options, args.against, run_all)
    except ConfigError as error:
        print(f"segkit data check: {error}", file=sys.stderr)
        return arguments.USAGE_ERROR
    print_issues(issues)
    if args.output is not None:
        write_issues(args.output, issues)
        print(args.output)
    if args.fix is not None:
        with progress_bar("fix") as progress:
            run_all = partial(ordered_map, workers=args.workers, progress=progress)
            review, remaining = _fix(args.format, options, args.fix, run_all)
        print(f"{args.fix}: a repaired copy. To review:", *(review or ["nothing"]), sep="\n  ")
        print_issues(remaining, is_copy=True)
    return int(issues.has_errors())


def print_rules(args: argparse.Namespace) -> None:
    """Print what is looked for, a line for each code."""
    for code, rule in RULES.items():
        print(f"{code} ({rule.severity}): {rule.meaning}; {rule.remedy}")


def _check_usage(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    from segkit.formats.registry import READERS, check_format

    check_format(args.format, READERS)
    required = REQUIRED_OPTIONS.get(args.format)
    if required is not None and sorted(options) != sorted(required):
        expected = " ".join(f"--{name}" for name in required)
        is_split = bool({"split", "val_share"} & {*options})
        remedy = "the whole JSON is checked, with both splits: leave out the split" if is_split else ""
        raise ConfigError(f"--format {args.format} takes {expected}, got {sorted(options)}", remedy=remedy)
    _check_paths(args, options)
    if args.fix is not None:
        _check_fix(args, options)


def _check_paths(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    """Paths must be paths, --output must not be a file of the dataset, --against must be another split."""
    for name in REQUIRED_OPTIONS.get(args.format, ()):
        if not isinstance(options[name], str) or "\0" in options[name]:
            raise ConfigError(f"expected --{name} to be a path, got {options[name]!r}")
    paths = {name: value for name, value in {**options, "against": args.against}.items() if isinstance(value, str)}
    for name, path in paths.items():
        if name in (*arguments.DATASET_OPTIONS, "against") and not path:
            raise ConfigError(f"--{name} is empty", remedy="name a path, or leave it out")
        if name in SPLIT_OPTIONS and args.against is not None and _is_same(args.against, path):
            remedy = "name the other split, its JSON or its folder of images"
            raise ConfigError(f"--against is --{name}, which belongs to this split", remedy=remedy)
        if args.output is not None and _is_same(args.output, path):
            raise ConfigError(f"--output is --{name}", remedy="name another file")
    if args.output is not None:
        _check_output(args.output, paths.values())


def _check_output(output: Path, dataset_paths: Iterable[str]) -> None:
    """Only an earlier output and an empty file outside the dataset may be overwritten."""
    if not os.path.lexists(output) or os.path.isdir(output) or is_issues_file(output):
        return
    is_empty = os.path.isfile(output) and not os.path.getsize(output)
    if not is_empty or any(arguments.is_within(output, path) for path in dataset_paths):
        raise ConfigError(f"--output {output} exists and is not an issues file", remedy="name another file")


def _check_fix(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    if args.format not in REQUIRED_OPTIONS:
        remedy = "convert to coco-panoptic first (`segkit data convert`)"
        raise ConfigError(f"--fix repairs {' and '.join(REQUIRED_OPTIONS)}, not {args.format}", remedy=remedy)
    if os.path.lexists(args.fix) and (not os.path.isdir(args.fix) or os.listdir(args.fix)):
        raise ConfigError(f"--fix {args.fix}: expected an empty or new folder", remedy="name another one")
    if args.output is not None and arguments.is_within(args.output, args.fix):
        raise ConfigError("--output is within --fix", remedy="name a file outside of it")
    for name in ("masks", "images"):
        if name in options and arguments.is_within(args.fix, options[name]):
            raise ConfigError(f"--fix {args.fix} is within --{name}", remedy="name a folder outside the dataset")
    files.check_output_folder(args.fix)


def _is_same(path: str | Path, other: str) -> bool:
    return "\0" not in other and os.path.realpath(path) == os.path.realpath(other)


def _check(format: str, options: Mapping[str, Any], against: str | None, run_all: RunAll) -> IssueList:
    from segkit.curation.checks.instances import check_instances
    from segkit.curation.checks.panoptic import check_panoptic

    if format not in REQUIRED_OPTIONS:
        return _check_other_format(format, options, against, run_all)
    json_path, images = Path(options["json"]), Path(options["images"])
    digests = _digest_other_split(format, options, against, images, run_all)
    if format == PANOPTIC:
        issues = check_panoptic(json_path, Path(options["masks"]), images, run_all, digests)
    else:
        issues = check_instances(json_path, images, run_all, digests)
    if against is None or not os.path.isfile(against):
        return issues
    paths = _list_named_files(Path(against), options)
    return IssueList(issue for issue in issues if issue.code not in ORPHANS or issue.place not in paths)


def _list_named_files(json_path: Path, options: Mapping[str, Any]) -> set[str]:
    """The files in the dataset's folders that the JSON of another split names: they are not orphans."""
    content = files.load_json(json_path)
    entries = [entry for table in ("images", "annotations") for entry in content.get(table, [])]
    names = {entry.get("file_name") for entry in entries if isinstance(entry, dict)}
    folders = [Path(options[name]) for name in ("images", "masks") if name in options]
    return {str(folder / name) for folder in folders for name in names if isinstance(name, str)}


def _check_other_format(format: str, options: Mapping[str, Any], against: str | None, run_all: RunAll) -> IssueList:
    from segkit.curation.checks.other_formats import check_dataset
    from segkit.formats.registry import open_reader

    issues = IssueList()

    def on_issue(code: str, error: DatasetError) -> None:
        issues.add(code, error.where or format, error.problem)

    try:
        reader = open_reader(format, options, on_issue)
    except DatasetError as error:
        issues.add("dataset-unreadable", options.get("root", options.get("json", format)), str(error))
        return issues
    digests = _digest_other_split(format, options, against, reader.image_root, run_all)
    later = check_dataset(reader, run_all, digests)
    if issues.has_errors():  # which say why there are no images
        later = IssueList(issue for issue in later if issue.code != "dataset-empty")
    return issues + later


def _digest_other_split(
    format: str, options: Mapping[str, Any], against: str | None, images: Path, run_all: RunAll
) -> Mapping[bytes, str]:
    """Digest -> path of the images of another split; ConfigError, before the work, if that split does not exist."""
    from segkit.curation import image_files
    from segkit.curation.checks.other_formats import compute_dataset_digests
    from segkit.formats.registry import READERS, get_options, open_reader

    if against is None:
        return {}
    is_coco = format in REQUIRED_OPTIONS
    try:
        is_name = not is_coco and "split" in get_options(READERS[format]) and not os.path.dirname(against)
        if is_coco or (os.path.exists(against) and not is_name):
            return image_files.digest_split(Path(against), images, run_all)
        reader = open_reader(format, {**options, "split": against}, lambda _code, _error: None)
        return compute_dataset_digests(reader, run_all)
    except (ConfigError, DatasetError) as error:
        raise ConfigError(f"--against: {error}") from None


def _fix(format: str, options: Mapping[str, Any], output: Path, run_all: RunAll) -> tuple[list[str], IssueList]:
    """Repair into `output`: lines on what was dropped, corrected or left unchanged, and the issues of the copy."""
    from segkit.curation.repair import repair_instances, repair_panoptic

    json_path, images = Path(options["json"]), Path(options["images"])
    if format == PANOPTIC:
        copy, masks, lines = repair_panoptic(json_path, Path(options["masks"]), images, output, run_all)
        options = {**options, "masks": masks}
    else:
        copy, lines = repair_instances(json_path, images, output, run_all)
    return lines, _check(format, {**options, "json": copy}, None, run_all)


def print_issues(issues: IssueList, is_copy: bool = False) -> None:
    """Print the issues by code, errors first, at most `MAX_SHOWN` of each, and how many there are.

    Args:
        issues: the issues.
        is_copy: whether they are of the copy that --fix wrote, so that --fix is not the remedy.
    """
    by_code = sorted(issues, key=lambda issue: (SEVERITIES.index(issue.severity), issue.code))
    for code, group in groupby(by_code, key=lambda issue: issue.code):
        same_code, rule = [*group], RULES[code]
        remedies = [part for part in rule.remedy.split("; ") if not is_copy or "--fix" not in part]
        remedy = "; ".join(remedies) or "repair it by hand"
        print(f"{rule.severity} {code} ({len(same_code)}): {rule.meaning}; {remedy}")
        for issue in same_code[:MAX_SHOWN]:
            print(f"  {issue.place}: {issue.message}")
        if len(same_code) > MAX_SHOWN:
            print(f"  ... and {len(same_code) - MAX_SHOWN} more, see --output")
    counts = {severity: sum(issue.severity == severity for issue in issues) for severity in SEVERITIES}
    parts = [f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count]
    print(", ".join(parts) if parts else "no issues")
