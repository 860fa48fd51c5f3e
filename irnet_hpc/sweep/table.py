"""Run a matrix from Python and return its cells as a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irnet_hpc.sweep.cell_states import Ledger, read_ledger
from irnet_hpc.sweep.context import SweepOptions, open_sweep
from irnet_hpc.sweep.local import run
from irnet_hpc.sweep.status import measured

if TYPE_CHECKING:
    import pandas as pd


def run_sweep(
    matrix: str | Path | Mapping,
    *,
    results: str | Path = "results",
    pack_dir: str | Path | None = None,
    **options: Any,
) -> "pd.DataFrame":
    """Build the missing packs and train the missing or failed cells of a matrix, on this machine.

    Finished cells are not repeated. The lines that `sweep run` prints are logged (INFO).

    Args:
        matrix: A YAML file such as jobs/laptop.yaml, or its content as a mapping
            (docs/matrix.md lists its keys).
        results: The folder of results.
        pack_dir: The folder of packs; None: $IRNET_PACKS, else packs.
        options: Fields of `irnet_hpc.sweep.SweepOptions`, such as `n_ranks=2` or `stale=True`.

    Returns:
        One row for each cell: pack, property, model, recipe, protocol, seed, state, test_mae
        (in `unit`; None unless done), unit, folder and detail (why it is not done).

    Raises:
        UserError: The matrix is invalid, or may cost more than its budget. A cell that fails raises
            nothing: its state is failed.

    >>> run_sweep({"packs": ["alloys-magpie"], "properties": ["mixing_enthalpy"],
    ...            "models": ["irnet-17", "ridge"]})  # doctest: +SKIP
    """
    context = open_sweep(matrix, results, pack_dir, SweepOptions(**options))
    run(context)
    context = context.with_current_packs()
    return as_frame(read_ledger(context.matrix, context.results))


def as_frame(ledger: Ledger) -> "pd.DataFrame":
    """Return the cells of a ledger as a table, in the columns of run_sweep()."""
    import pandas as pd

    fields = ("pack", "property", "model", "recipe", "protocol", "seed")
    rows = [
        {name: getattr(status.cell.spec, name) for name in fields}
        | {"state": str(status.state)}
        | measured(status)
        | {"folder": str(status.folder), "detail": status.detail}
        for status in ledger.cells
    ]
    return pd.DataFrame(rows, columns=[*fields, "state", "test_mae", "unit", "folder", "detail"])
