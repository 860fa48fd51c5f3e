"""Run the command `python -m irnet_hpc.sweep`."""

import sys

from irnet_hpc.console import exit_status
from irnet_hpc.sweep.cli import main

if __name__ == "__main__":
    sys.exit(exit_status(main))
