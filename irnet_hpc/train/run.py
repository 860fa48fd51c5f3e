"""Define Run and TrainOptions, which most of train/ uses, without importing torch."""

import dataclasses
from typing import TYPE_CHECKING

from irnet_hpc.runs.classical_grids import Grid
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.spec import RunSpec

if TYPE_CHECKING:
    from irnet_hpc.train.warm_start import Origin

# Where features are kept while a network trains: on the device (resident) or in the pack (stream).
# The results are the same; `auto` streams what memory cannot hold.
PLACES = ("auto", "resident", "stream")
# Whether the run folder of a classical model gets the fitted estimator. `auto` keeps one whose
# arrays take at most classical_file.KEPT_BYTES of memory.
KEEPING = ("auto", "always", "never")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One training: everything that decides its numbers, and the folder of its files."""

    spec: RunSpec
    recipe: Recipe | Grid
    key: str  # as runs.spec.run_key computes it
    folder: RunFolder
    origin: "Origin | None" = None  # the finished run that the initial weights are from
    keeps_batch: bool = False  # True: the recipe states its batch, which is not fitted to the rows


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The options that decide how this machine trains. No field changes a result."""

    device: str = "auto"  # one of distributed.launch.DEVICES
    data: str = "auto"  # one of PLACES
    stage_dir: str | None = None  # the node's disk for a copy of the pack; see staging.py
    micro_batch: int | None = None  # rows of a rank that go through the network at once; None: all
    pack_dir: str | None = None  # folder of packs, to find the pack of an origin too
    force: bool = False  # replace a result of another recipe, pack or version
    stop_on_signals: bool = False  # also stop before the job's end; see stopping.py
    progress_bar: bool = False  # show a bar on a terminal
    epoch_lines: bool = True  # log a line per epoch, at most one a second
    cuda_graphs: bool = True  # record a step once and replay it
    keep_model: str = "auto"  # one of KEEPING


DEFAULT_OPTIONS = TrainOptions()
