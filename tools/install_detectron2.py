#!/usr/bin/env python3
"""Install Detectron2 without a compiler: `segkit doctor --install-detectron2` for a checkout that is not installed yet.

python tools/install_detectron2.py                     # keep one that can be imported, or install the PyPI file
python tools/install_detectron2.py --source official   # build the official repository, with its C++ ops
python tools/install_detectron2.py --wheel-dir DIR     # only write the repacked wheel, for another machine
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["doctor", "--install-detectron2", *sys.argv[1:]]))
