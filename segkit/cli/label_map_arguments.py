"""Arguments that say what the values of semantic label maps mean, of the commands that score such maps."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from segkit.utils.errors import ConfigError

MAX_LABEL = 2**16 - 1  # of a label PNG


def add_label_map_rules(parser: argparse.ArgumentParser) -> None:
    """Declare how label maps are read; `get_label_map_rules` reads the values."""
    classes = parser.add_mutually_exclusive_group()
    add_classes(classes)
    classes.add_argument("--categories", type=Path, metavar="FILE", help="JSON with categories; labels are their ids")
    ignored = "ground truth labels that are not counted (default: 255, if it is no class)"
    parser.add_argument("--ignore-label", nargs="+", type=int, metavar="N", help=ignored)
    parser.add_argument("--gt-suffix", default="", metavar="TEXT", help="end of the ground truth's file names")
    parser.add_argument("--pred-suffix", default="", metavar="TEXT", help="end of the predictions' file names")
    things = "one: all things are one class"
    parser.add_argument("--thing-channels", choices=("per_class", "one"), default="per_class", help=things)
    values = "meaning of a PNG's values"
    parser.add_argument("--png-values", choices=("category_id", "channel"), default="category_id", help=values)


def add_classes(parser: Any) -> None:
    """Declare `--classes` on a parser or a group; `parse_classes` reads the value."""
    help = "names of the labels 0, 1, ..., or 0=NAME 255=NAME"
    parser.add_argument("--classes", nargs="+", metavar="NAME", help=help)


def get_label_map_rules(args: argparse.Namespace) -> dict[str, Any]:
    """The values of `add_label_map_rules` as keyword arguments of `score_semantic`; reads the file of categories."""
    from segkit.formats.coco import read_classes

    names = "ignore_label", "gt_suffix", "pred_suffix", "thing_channels", "png_values"
    classes = read_classes(args.categories) if args.categories else parse_classes(args.classes)
    return {"classes": classes, **{name: getattr(args, name) for name in names}}


def parse_classes(texts: list[str] | None) -> list[str] | dict[int, str] | None:
    """Names, or names by label if every text is N=NAME."""
    pairs = [text.partition("=") for text in texts or ()]
    if not pairs or not all(label.isascii() and label.isdecimal() and name for label, _, name in pairs):
        return texts
    classes = {int(label): name for label, _, name in pairs}
    if len(classes) < len(pairs) or max(classes) > MAX_LABEL:
        raise ConfigError(f"expected --classes to name different labels in 0..{MAX_LABEL}, got {texts}")
    return classes
