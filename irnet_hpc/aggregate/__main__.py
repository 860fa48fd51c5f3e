"""Run the command `python -m irnet_hpc.aggregate`."""

import sys

from irnet_hpc.aggregate.cli import main
from irnet_hpc.console import exit_status

if __name__ == "__main__":
    sys.exit(exit_status(main))
