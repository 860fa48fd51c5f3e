"""Start the command `python -m irnet_hpc.predict`."""

import sys

from irnet_hpc.console import exit_status
from irnet_hpc.predict.cli import main

if __name__ == "__main__":
    sys.exit(exit_status(main))
