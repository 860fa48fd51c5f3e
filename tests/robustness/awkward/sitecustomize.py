"""Add two feature sets whose rows are slow, hang or crash, for tests.

`awkward` reports at which row it is, `silent` does not. A row takes AWKWARD_S seconds, and the file
AWKWARD_LOG gets a line for each row that is computed. Formulas with noble gases misbehave.
"""

import ctypes
import os
import signal
import time
from pathlib import Path

import numpy as np

from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.distributed import worker_pool as workers
from irnet_hpc.features import sets as features


def hang() -> None:
    # It holds Python's lock all the time, against other threads and signal handlers.
    ctypes.PyDLL(None).sleep(1000)


def exhaust() -> None:
    raise MemoryError


MISCHIEF = {
    "Xe": hang,
    "Kr": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "Ar": lambda: os.kill(os.getpid(), signal.SIGKILL),  # as the kernel does for want of memory
    "Ne": exhaust,
}


def describe(materials, announce: bool) -> features.Described:
    x = np.zeros((len(materials), 2))
    for row, formula in enumerate(materials.formula):
        if announce:
            workers.at(row)
        with Path(os.environ["AWKWARD_LOG"]).open("a") as log:
            log.write(f"{formula}\n")
        time.sleep(float(os.environ.get("AWKWARD_S", "0")))
        numbers = materials.number[materials.start[row] : materials.start[row + 1]]
        for number in numbers:
            MISCHIEF.get(SYMBOLS[number - 1], lambda: None)()
        x[row] = (
            numbers.sum(),
            materials.amount[materials.start[row] : materials.start[row + 1]].sum(),
        )
    return features.Described(x, {})


for name, announce in (("awkward", True), ("silent", False)):
    features.FEATURE_SETS[name] = features.FeatureSet(
        1,
        lambda _: ["number", "amount"],
        lambda materials, announce=announce: describe(materials, announce),
        of_formula=True,
        row_s=0.5,  # so that a block has 6 rows
        limit_s=1.0 if announce else None,
    )
