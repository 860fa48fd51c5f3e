"""Run the command `python -m irnet_hpc.sweep`."""

import sys

from irnet_hpc.console import exit_status
from irnet_hpc.sweep.options import parse_arguments


def main() -> int:
    """Parse the command line, then import the modules that the command needs, and run it."""
    arguments = parse_arguments(None)
    from irnet_hpc.sweep.cli import carry_out

    return carry_out(arguments)


if __name__ == "__main__":
    sys.exit(exit_status(main))
