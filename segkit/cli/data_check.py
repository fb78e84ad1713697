"""`segkit data check`: everything that is wrong with a dataset, before it costs a night of training."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.cli.data_convert import add_source_arguments, source_options
from segkit.cli.scoring_arguments import default_workers, positive, progress_bar
from segkit.structures import ConfigError, DatasetError

if TYPE_CHECKING:
    from segkit.curation.findings import Findings, RunAll

USAGE_ERROR = 2
MOST_SHOWN = 5  # findings of one code in the terminal; the file has all
SEVERITIES = ("error", "warning", "note")
PANOPTIC, INSTANCES = "coco-panoptic", "coco-instances"
NEEDED = {PANOPTIC: ("json", "masks", "images"), INSTANCES: ("json", "images")}
EPILOG = """\
COCO panoptic takes --json --masks --images; COCO instances --json --images; other formats --root, and most --split.
Exit code: 0 without a finding of severity error (warnings and notes do not fail), 1 with one, 2 for wrong usage."""


class _ListRules(argparse.Action):
    """Print what is looked for, and stop, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *ignored: Any) -> None:
        from segkit.curation.findings import RULES

        for code, rule in RULES.items():
            print(f"{code} ({rule.severity}): {rule.meaning}; {rule.remedy}")
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--rules", nargs=0, action=_ListRules, help="list all that is looked for, and stop")
    parser.add_argument("--format", dest="layout", required=True, metavar="FORMAT", help="of the dataset")
    parser.add_argument("--output", type=Path, metavar="FILE", help="gets all findings, as JSON")
    parser.add_argument(
        "--against", metavar="SPLIT", help="another split, a folder of images, a COCO JSON or its name: is one in both?"
    )
    parser.add_argument("--fix", type=Path, metavar="DIR", help="gets a repaired copy (COCO); an empty or new folder")
    parser.add_argument("--workers", type=positive, default=default_workers(), metavar="N", help="processes")
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check, print, write, repair; 1 where there is a finding of severity error, 2 for wrong usage."""
    from segkit.curation.findings import write_findings
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
            findings = _check(args.layout, options, args.against, run_all)
        except ConfigError as error:
            print(f"segkit data check: {error}", file=sys.stderr)
            return USAGE_ERROR
    _print(findings)
    if args.output is not None:
        write_findings(args.output, findings)
        print(args.output)
    if args.fix is not None:
        with progress_bar("fix") as progress:
            left = _fix(args.layout, options, args.fix, _runner(args.workers, progress))
        print(f"{args.fix}: a repaired copy; of it:")
        _print(left)
    return int(findings.has_errors())


def _check_usage(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    from segkit.formats.registry import SOURCES

    if args.layout not in SOURCES:
        raise ConfigError(f"unknown format {args.layout!r}", remedy=f"choose one of {sorted(SOURCES)}")
    needed = NEEDED.get(args.layout)
    if needed is not None and sorted(options) != sorted(needed):
        expected = " ".join(f"--{name}" for name in needed)
        raise ConfigError(f"--format {args.layout} takes {expected}, got {sorted(options)}")
    if args.output is not None and "json" in options and _same(args.output, options["json"]):
        raise ConfigError("--output is the dataset's JSON", remedy="name another file")
    if args.fix is None:
        return
    if needed is None:
        remedy = "convert to coco-panoptic first (`segkit data convert`)"
        raise ConfigError(f"--fix repairs {' and '.join(NEEDED)}, not {args.layout}", remedy=remedy)
    if os.path.lexists(args.fix) and (not args.fix.is_dir() or any(args.fix.iterdir())):
        raise ConfigError(f"--fix {args.fix}: expected an empty or new folder", remedy="name another one")
    if args.output is not None and _is_within(args.output, args.fix):
        raise ConfigError("--output is within --fix", remedy="name a file outside of it")
    for name in ("masks", "images"):
        if name in options and _is_within(args.fix, options[name]):
            raise ConfigError(f"--fix {args.fix} is within --{name}", remedy="name a folder outside the dataset")


def _same(path: Path, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _is_within(path: Path, folder: str | Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _runner(workers: int, progress: Callable[[int, int], None]) -> RunAll:
    from segkit.scoring.workers import ordered_map

    def run_all(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        for done, result in enumerate(ordered_map(work, items, workers), 1):
            progress(done, len(items))
            yield result

    return run_all


def _check(layout: str, options: Mapping[str, Any], against: str | None, run_all: RunAll) -> Findings:
    from segkit.curation import pictures
    from segkit.curation.check_instances import check_instances
    from segkit.curation.check_panoptic import check_panoptic

    if layout not in NEEDED:
        return _check_source(layout, options, against, run_all)
    json_path, images = Path(options["json"]), Path(options["images"])
    others = pictures.digests_of(Path(against), images, run_all) if against is not None else {}
    if layout == PANOPTIC:
        return check_panoptic(json_path, Path(options["masks"]), images, run_all, others)
    return check_instances(json_path, images, run_all, others)


def _check_source(layout: str, options: Mapping[str, Any], against: str | None, run_all: RunAll) -> Findings:
    from segkit.curation import pictures
    from segkit.curation.check_source import check_source, digests_of_source
    from segkit.curation.findings import Findings
    from segkit.formats.registry import open_source

    findings = Findings()

    def tell(code: str, error: DatasetError) -> None:
        findings.tell(code, error.where or layout, error.problem)

    try:
        source = open_source(layout, options, tell)
    except DatasetError as error:
        findings.tell("dataset-unreadable", options.get("root", options.get("json", layout)), str(error))
        return findings
    others: Mapping[bytes, str] = {}
    if against is not None and os.path.exists(against):
        others = pictures.digests_of(Path(against), source.pictures, run_all)
    elif against is not None:
        others = digests_of_source(open_source(layout, {**options, "split": against}), run_all)
    return findings + check_source(source, run_all, others)


def _fix(layout: str, options: Mapping[str, Any], output: Path, run_all: RunAll) -> Findings:
    """Repair into `output`, and what is wrong with the copy."""
    from segkit.curation.repair_instances import repair_instances
    from segkit.curation.repair_panoptic import repair_panoptic

    json_path, images = Path(options["json"]), Path(options["images"])
    if layout == PANOPTIC:
        copy, masks = repair_panoptic(json_path, Path(options["masks"]), images, output, run_all)
        return _check(layout, {**options, "json": copy, "masks": masks}, None, run_all)
    return _check(layout, {**options, "json": repair_instances(json_path, output, run_all)}, None, run_all)


def _print(findings: Findings) -> None:
    """The findings by code, errors first, a few of each, and how many there are."""
    from segkit.curation.findings import RULES

    def order(finding: Any) -> tuple[int, str]:
        return SEVERITIES.index(finding.severity), finding.code

    for code, group in groupby(sorted(findings, key=order), key=lambda finding: finding.code):
        found, rule = [*group], RULES[code]
        print(f"{rule.severity} {code} ({len(found)}): {rule.meaning}; {rule.remedy}")
        for finding in found[:MOST_SHOWN]:
            print(f"  {finding.place}: {finding.message}")
        if len(found) > MOST_SHOWN:
            print(f"  ... and {len(found) - MOST_SHOWN} more, see --output")
    counts = {s: sum(finding.severity == s for finding in findings) for s in SEVERITIES}
    told = [f"{number} {severity}{'s' if number > 1 else ''}" for severity, number in counts.items() if number]
    print(", ".join(told) if told else "no finding: all is well")
