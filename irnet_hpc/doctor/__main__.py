"""Start the doctor: python -m irnet_hpc.doctor."""

import sys

from irnet_hpc.console import exit_status
from irnet_hpc.doctor.cli import main

if __name__ == "__main__":
    sys.exit(exit_status(main))
