"""Run `python -m irnet_hpc.train`."""

import sys

from irnet_hpc.console import exit_status
from irnet_hpc.distributed.processes import ignore_termination_signals, wait_quietly
from irnet_hpc.train.cli import main

if __name__ == "__main__":
    wait_quietly()
    status = exit_status(main)
    ignore_termination_signals()
    sys.exit(status)
