"""`python -m segkit`: the console command where no script is installed."""

import sys

from segkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
