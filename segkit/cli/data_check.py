"""`segkit data check`: everything that is wrong with a dataset, before it costs a night of training."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.cli.arguments import default_workers, positive
from segkit.cli.data_convert import PLACES, add_source_arguments, is_within, source_options
from segkit.utils import files
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.progress import progress_bar

if TYPE_CHECKING:
    from segkit.curation.issues import IssueList, RunAll

USAGE_ERROR = 2
MOST_SHOWN = 5  # findings of one code in the terminal; the file has all
SEVERITIES = ("error", "warning", "note")
ORPHANS = ("image-orphan", "png-orphan")
PANOPTIC, INSTANCES = "coco-panoptic", "coco-instances"
OF_THE_SPLIT = ("root", "json", "images", "split", "dataset")
NEEDED = {PANOPTIC: ("json", "masks", "images"), INSTANCES: ("json", "images")}
EPILOG = """\
COCO panoptic takes --json --masks --images; COCO instances --json --images; other formats --root, and most --split.
Exit code: 0 without a finding of severity error (warnings and notes do not fail), 1 with one, 2 for wrong usage."""


class _ListRules(argparse.Action):
    """Print what is looked for, and stop, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *ignored: Any) -> None:
        from segkit.curation.issues import RULES

        for code, rule in RULES.items():
            print(f"{code} ({rule.severity}): {rule.meaning}; {rule.remedy}")
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--rules", nargs=0, action=_ListRules, help="list all that is looked for, and stop")
    parser.add_argument("--format", dest="format", required=True, metavar="FORMAT", help="of the dataset")
    parser.add_argument("--output", type=Path, metavar="FILE", help="gets all findings, as JSON")
    parser.add_argument(
        "--against", metavar="SPLIT", help="another split, a folder of images, a COCO JSON or its name: is one in both?"
    )
    parser.add_argument("--fix", type=Path, metavar="DIR", help="gets a repaired copy (COCO); an empty or new folder")
    parser.add_argument("--workers", type=positive, default=default_workers(), metavar="N", help="processes")
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check, print, write, repair; 1 where there is a finding of severity error, 2 for wrong usage."""
    from segkit.curation.issues import write_issues
    from segkit.scoring import counts_file

    try:
        options = source_options(args)
        _check_usage(args, options)
    except ConfigError as error:
        print(f"segkit data check: {error}", file=sys.stderr)
        return USAGE_ERROR
    if args.output is not None:
        counts_file.check_writable(args.output)
    with progress_bar("check") as progress:
        run_all = _runner(args.workers, progress)
        try:
            issues = _check(args.format, options, args.against, run_all)
        except ConfigError as error:
            print(f"segkit data check: {error}", file=sys.stderr)
            return USAGE_ERROR
    _print(issues)
    if args.output is not None:
        write_issues(args.output, issues)
        print(args.output)
    if args.fix is not None:
        with progress_bar("fix") as progress:
            lines, left = _fix(args.format, options, args.fix, _runner(args.workers, progress))
        print(f"{args.fix}: a repaired copy; of it:", *(lines or ["nothing was lost"]), sep="\n  ")
        _print(left, fixed=True)
    return int(issues.has_errors())


def _check_usage(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    from segkit.formats.registry import READERS

    if args.format not in READERS:
        raise ConfigError(f"unknown format {args.format!r}", remedy=f"choose one of {sorted(READERS)}")
    needed = NEEDED.get(args.format)
    if needed is not None and sorted(options) != sorted(needed):
        expected = " ".join(f"--{name}" for name in needed)
        raise ConfigError(f"--format {args.format} takes {expected}, got {sorted(options)}")
    _check_places(args, options)
    if args.fix is not None:
        _check_fix(args, options)


def _check_places(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    """Paths are paths; the output is no file of the dataset, and another split is another one."""
    for name in NEEDED.get(args.format, ()):
        if not isinstance(options[name], str) or "\0" in options[name]:
            raise ConfigError(f"expected --{name} to be a path, got {options[name]!r}")
    given = {name: value for name, value in {**options, "against": args.against}.items() if isinstance(value, str)}
    for name, value in given.items():
        if name in (*PLACES, "against") and not value:
            raise ConfigError(f"--{name} is empty", remedy="name a path, or leave it out")
        if name in OF_THE_SPLIT and args.against is not None and _same(args.against, value):
            remedy = "name the other split, its JSON or its folder of images"
            raise ConfigError(f"--against is --{name}, of this split itself", remedy=remedy)
        if args.output is not None and _same(args.output, value):
            raise ConfigError(f"--output is --{name}", remedy="name another file")
    if args.output is not None:
        _check_output(args.output, given.values())


def _check_output(path: Path, places: Iterable[str]) -> None:
    """What is there already may be an earlier output, or an empty file outside the dataset: nobody will miss it."""
    from segkit.curation.issues import is_issues_file

    if not os.path.lexists(path) or os.path.isdir(path) or is_issues_file(path):
        return
    empty = os.path.isfile(path) and not os.path.getsize(path)
    if not empty or any(is_within(path, place) for place in places):
        raise ConfigError(f"--output {path} is there, and no list of findings", remedy="name another file")


def _check_fix(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    if args.format not in NEEDED:
        remedy = "convert to coco-panoptic first (`segkit data convert`)"
        raise ConfigError(f"--fix repairs {' and '.join(NEEDED)}, not {args.format}", remedy=remedy)
    if os.path.lexists(args.fix) and (not os.path.isdir(args.fix) or os.listdir(args.fix)):
        raise ConfigError(f"--fix {args.fix}: expected an empty or new folder", remedy="name another one")
    if args.output is not None and is_within(args.output, args.fix):
        raise ConfigError("--output is within --fix", remedy="name a file outside of it")
    for name in ("masks", "images"):
        if name in options and is_within(args.fix, options[name]):
            raise ConfigError(f"--fix {args.fix} is within --{name}", remedy="name a folder outside the dataset")


def _same(path: str | Path, other: str) -> bool:
    return "\0" not in other and os.path.realpath(path) == os.path.realpath(other)


def _runner(workers: int, progress: Callable[[int, int], None]) -> RunAll:
    from segkit.utils.process_pool import ordered_map

    def run_all(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        for done, result in enumerate(ordered_map(work, items, workers), 1):
            progress(done, len(items))
            yield result

    return run_all


def _check(format_name: str, options: Mapping[str, Any], against: str | None, run_all: RunAll) -> IssueList:
    from segkit.curation.checks.instances import check_instances
    from segkit.curation.checks.panoptic import check_panoptic
    from segkit.curation.issues import IssueList

    if format_name not in NEEDED:
        return _check_source(format_name, options, against, run_all)
    json_path, images = Path(options["json"]), Path(options["images"])
    others = _others(format_name, options, against, images, run_all)
    if format_name == PANOPTIC:
        issues = check_panoptic(json_path, Path(options["masks"]), images, run_all, others)
    else:
        issues = check_instances(json_path, images, run_all, others)
    if against is None or not os.path.isfile(against):
        return issues
    named = _named_by(Path(against), [Path(options[name]) for name in ("images", "masks") if name in options])
    return IssueList(one for one in issues if one.code not in ORPHANS or one.place not in named)


def _named_by(json_path: Path, folders: Sequence[Path]) -> set[str]:
    """The files in the folders that the JSON of another split names: there they are no orphans."""
    content = files.load_json(json_path)
    entries = [entry for table in ("images", "annotations") for entry in content.get(table, [])]
    names = {entry.get("file_name") for entry in entries if isinstance(entry, dict)}
    return {str(folder / name) for folder in folders for name in names if isinstance(name, str)}


def _check_source(format_name: str, options: Mapping[str, Any], against: str | None, run_all: RunAll) -> IssueList:
    from segkit.curation.checks.other_formats import check_dataset
    from segkit.curation.issues import IssueList
    from segkit.formats.registry import open_reader

    issues = IssueList()

    def on_issue(code: str, error: DatasetError) -> None:
        issues.add(code, error.where or format_name, error.problem)

    try:
        source = open_reader(format_name, options, on_issue)
    except DatasetError as error:
        issues.add("dataset-unreadable", options.get("root", options.get("json", format_name)), str(error))
        return issues
    others = _others(format_name, options, against, source.image_root, run_all)
    return issues + check_dataset(source, run_all, others)


def _others(
    format_name: str, options: Mapping[str, Any], against: str | None, images: Path, run_all: RunAll
) -> Mapping[bytes, str]:
    """The pictures of another split, by digest; ConfigError, before the work, where there is no such split."""
    from segkit.curation import image_files
    from segkit.curation.checks.other_formats import compute_dataset_digests
    from segkit.formats.registry import READERS, get_options, open_reader

    if against is None:
        return {}
    try:
        named = (
            format_name not in NEEDED and "split" in get_options(READERS[format_name]) and not os.path.dirname(against)
        )
        if format_name in NEEDED or (os.path.exists(against) and not named):
            return image_files.digest_split(Path(against), images, run_all)
        split = {**options, "split": against}
        return compute_dataset_digests(open_reader(format_name, split, lambda _code, _error: None), run_all)
    except (ConfigError, DatasetError) as error:
        raise ConfigError(f"--against: {error}") from None


def _fix(format_name: str, options: Mapping[str, Any], output: Path, run_all: RunAll) -> tuple[list[str], IssueList]:
    """Repair into `output`: lines on what was lost, and what is wrong with the copy."""
    from segkit.curation.repair.instances import repair_instances
    from segkit.curation.repair.panoptic import repair_panoptic

    json_path, images = Path(options["json"]), Path(options["images"])
    if format_name == PANOPTIC:
        copy, masks, lines = repair_panoptic(json_path, Path(options["masks"]), images, output, run_all)
        return lines, _check(format_name, {**options, "json": copy, "masks": masks}, None, run_all)
    copy, lines = repair_instances(json_path, images, output, run_all)
    return lines, _check(format_name, {**options, "json": copy}, None, run_all)


def _print(issues: IssueList, fixed: bool = False) -> None:
    """The findings by code, errors first, a few of each, and how many there are; fixed: by --fix, as far as it can."""
    from segkit.curation.issues import RULES

    def order(issue: Any) -> tuple[int, str]:
        return SEVERITIES.index(issue.severity), issue.code

    for code, group in groupby(sorted(issues, key=order), key=lambda issue: issue.code):
        found, rule = [*group], RULES[code]
        remedies = [part for part in rule.remedy.split("; ") if not fixed or "--fix" not in part]
        print(f"{rule.severity} {code} ({len(found)}): {rule.meaning}; {'; '.join(remedies) or 'left for you'}")
        for issue in found[:MOST_SHOWN]:
            print(f"  {issue.place}: {issue.message}")
        if len(found) > MOST_SHOWN:
            print(f"  ... and {len(found) - MOST_SHOWN} more, see --output")
    counts = {s: sum(issue.severity == s for issue in issues) for s in SEVERITIES}
    told = [f"{number} {severity}{'s' if number > 1 else ''}" for severity, number in counts.items() if number]
    print(", ".join(told) if told else "no finding: all is well")
