"""Hold what every operation on a sweep needs: the matrix, its folders, and the options."""

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
    """The options of a sweep, each with the default of the command."""

    # Also train cells whose result is of another recipe, pack or version.
    stale: bool = False
    # The names of the only cells to take up, whose reasons of failure are removed; None: all.
    only: frozenset[str] | None = None
    # Cells trained together at most, as one network; AUTO: as many as a GPU holds, on a CPU 1.
    bundle: str | int = AUTO
    # Ranks of each cell instead of those in the matrix; only for cells that are trained here.
    n_ranks: int | None = None
    # Start even if the cells may cost more than the matrix's budget_device_hours.
    over_budget: bool = False
    # The name or the file of a site; None: $IRNET_SITE.
    site: str | None = None
    # slurm | local; None: slurm where it answers.
    cluster: str | None = None
    # SLURM jobs that train at once; None: as many as SLURM allows.
    max_jobs: int | None = None
    # The kind of device for estimates (costs.DEVICES); None: as the resources ask.
    device: str | None = None
    # Names the journal, for a process that another one has started.
    token: str | None = None


@dataclasses.dataclass(frozen=True)
class SweepContext:
    """A matrix, the folders it is about, and the options of the operation."""

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
    """Read a matrix and say where its results and packs are.

    Args:
        matrix: A YAML file, or its content as a mapping.
        results: The folder of results.
        pack_dir: The folder of packs; None: $IRNET_PACKS, else packs.
        options: Options of the operation.

    Returns:
        What `plan`, `run`, `submit` and `status` take.

    Raises:
        UserError: The matrix is invalid; the message names the file, the key and the choices.
    """
    folder = Path(pack_dir) if pack_dir else None
    return SweepContext(read_matrix(matrix, folder), Path(results), folder, options)


def take_up(context: SweepContext) -> Ledger:
    """Read the ledger of cells to start now, while no other sweep does (journal.alone).

    Raises:
        UserError: The cells that are not done may cost more than the matrix allows.
    """
    ledger, matrix = context.ledger(), context.matrix
    asked_hours, budget = ledger.asked_hours(), matrix.budget_device_hours
    if budget is not None and asked_hours > budget and not context.options.over_budget:
        raise UserError(
            f"budget_device_hours of {matrix.path} must cover the cells that are not done, "
            f"got {budget:,g} for {asked_hours:,.1f}; raise it, or use --over-budget"
        )
    if context.options.only is not None:
        for status in ledger.to_do():
            (status.folder / "error.json").unlink(missing_ok=True)
    return ledger
