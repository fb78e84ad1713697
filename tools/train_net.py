#!/usr/bin/env python3
"""Train and evaluate a model, with Detectron2's arguments: the same as `segkit train`."""

import sys

from segkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
