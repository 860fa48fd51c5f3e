"""Open a sweep: the matrix, its folders and the options that every operation needs."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.sweep.bundles import AUTO
from irnet_hpc.sweep.cell_states import Ledger, read_ledger
from irnet_hpc.sweep.matrix.matrix import Matrix, read_matrix
from irnet_hpc.sweep.matrix.sites import Site, read_site

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """The options of a sweep, with the same defaults as on the command line."""

    # Also train cells whose result was made with another recipe, pack or version.
    stale: bool = False
    # The names of the cells to take up (`retry`; the reasons of their failures are removed);
    # None: all cells that are not done.
    only: frozenset[str] | None = None
    # The most cells that are trained together as one network; AUTO: as many as fit on a GPU, one
    # on a CPU.
    bundle: str | int = AUTO
    # The ranks of each cell instead of those in the matrix; only for training on this machine.
    n_ranks: int | None = None
    # The workers on this machine, each of which trains one cell at a time; AUTO: one a GPU, or as
    # many as the cores allow; None: AUTO, but for `work` the process itself, undivided.
    workers: int | str | None = None
    # Start even if the cells may cost more than the matrix's budget_device_hours.
    over_budget: bool = False
    # The name or the file of a site; None: $IRNET_SITE.
    site: str | None = None
    # slurm | local; None: slurm where it answers.
    cluster: str | None = None
    # The most SLURM jobs that train at the same time, or nodes that jobs of workers hold; None: as
    # many as SLURM allows.
    max_jobs: int | None = None
    # The nodes of each job of workers; None: 1 if the site gives whole nodes, else a job a cell.
    pack_nodes: int | None = None
    # The kind of device for the estimates (costs.DEVICES); None: the one that resources ask for.
    device: str | None = None
    # The token of the journal, if another process started this one; for `work`, that of the
    # submission whose cells it takes; else None.
    token: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers. Raises UserError for one that no command line would take."""
        for name in ("bundle", "workers", "n_ranks", "max_jobs", "pack_nodes"):
            value = getattr(self, name)
            may_be_auto, may_be_none = name in ("bundle", "workers"), name != "bundle"
            is_number = type(value) is int and value >= 1
            if not (
                is_number or (may_be_auto and value == AUTO) or (may_be_none and value is None)
            ):
                kinds = [f"{AUTO!r}"] * may_be_auto + ["None"] * may_be_none
                raise UserError(
                    f"{name} must be a whole number from 1 or {' or '.join(kinds)}, got {value!r}"
                )


@dataclasses.dataclass(frozen=True)
class SweepContext:
    """A matrix, its folders of results and packs, and the options of the operation."""

    matrix: Matrix
    results: Path
    pack_dir: Path | None = None
    options: SweepOptions = SweepOptions()

    @functools.cached_property
    def site(self) -> Site:
        """The site of options.site, read when it is first needed."""
        return read_site(self.options.site)

    def with_current_packs(self) -> "SweepContext":
        """Read the matrix again, since its packs may have been built meanwhile."""
        return dataclasses.replace(self, matrix=self.matrix.read_again(self.pack_dir))

    def ledger(self) -> Ledger:
        """Read the state of every cell, limited to options.only."""
        ledger = read_ledger(self.matrix, self.results)
        return dataclasses.replace(ledger, chosen=self.options.only)


def open_sweep(
    matrix: str | Path | Mapping,
    results: str | Path = "results",
    pack_dir: str | Path | None = None,
    options: SweepOptions = SweepOptions(),
) -> SweepContext:
    """Read a matrix and set the folders of its results and packs.

    Args:
        matrix: A YAML file, or its content as a mapping.
        results: The folder of results.
        pack_dir: The folder of packs; None: $IRNET_PACKS, else packs.
        options: Options of the operation.

    Returns:
        The context that `plan`, `run` and `submit` take.

    Raises:
        UserError: The matrix is invalid; the message names the file, the key and the choices.
    """
    folder = Path(pack_dir) if pack_dir else None
    return SweepContext(read_matrix(matrix, folder), Path(results), folder, options)


def take_up(context: SweepContext) -> Ledger:
    """Read the ledger, check the budget, and prepare to start the cells.

    The caller holds the lock `journal.alone`, so no other sweep starts the same cells.

    Raises:
        UserError: The unfinished cells may cost more than the budget of the matrix.
    """
    ledger = context.ledger()
    check_budget(context, ledger)
    if context.options.only is not None:
        for status in ledger.to_do():
            (status.folder / "error.json").unlink(missing_ok=True)
    return ledger


def check_budget(context: SweepContext, ledger: Ledger) -> None:
    """Raise UserError if the unfinished cells may cost more than the budget of the matrix."""
    matrix = context.matrix
    asked_hours, budget = ledger.asked_hours(), matrix.budget_device_hours
    if budget is not None and asked_hours > budget and not context.options.over_budget:
        raise UserError(
            f"the unfinished cells may need {asked_hours:,.1f} device-hours, but "
            f"budget_device_hours of {matrix.path} is {budget:,g}; raise it, or use --over-budget"
        )
