"""Refuse SLURM jobs that were submitted before the package had folders.

submitit pickled such a job as `irnet_hpc.jobs.Training` (or `Commands`). When it is unpickled,
Python looks for the class in this module, which then exits with one sentence and status 2 instead
of a traceback.
"""

import sys

OLD_NAMES = ("Training", "Commands")


def __getattr__(name: str) -> object:
    if name in OLD_NAMES:
        # Not an exception: submitit would turn it into a traceback.
        print(
            "error: this job was submitted by an older version of irnet_hpc and cannot run with "
            "this one; submit the matrix again",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(2)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
