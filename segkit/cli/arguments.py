"""What the verbs that score files have in common: the rules of panoptic quality, and the workers."""

from __future__ import annotations

import argparse
import os
from typing import Any

from segkit.utils.issues import DEFAULT_LIMIT

MOST_WORKERS = 8  # by default; reading files does not get faster without end


def add_panoptic_rules(parser: argparse.ArgumentParser) -> None:
    """Declare how panoptic files are read and counted, what `panoptic_rules` gives to `score_panoptic`."""
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
    parser.add_argument("--allow-missing", action="store_true", help="count images without prediction as all missed")
    parser.add_argument("--allow-extra", action="store_true", help="pass over predictions of other images")


def panoptic_rules(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_panoptic_rules` declared, as arguments of `score_panoptic`."""
    return {name: getattr(args, name) for name in ("mode", "areas", "allow_missing", "allow_extra")}


def add_work(parser: argparse.ArgumentParser) -> None:
    """Declare how the work is done: `--workers` and `--problems`."""
    parser.add_argument(
        "--workers", type=positive, default=default_workers(), metavar="N", help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--problems",
        type=positive,
        default=DEFAULT_LIMIT,
        metavar="N",
        help="stop at so many problems with the files, and tell them all (default: %(default)s)",
    )


def positive(text: str) -> int:
    """The whole number from 1 on that an argument is; argparse's error else."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def default_workers() -> int:
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(known, MOST_WORKERS)
