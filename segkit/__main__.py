"""`python -m segkit`: the console command, if its script is not installed."""

import sys

from segkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
