"""Batches larger than the memory: a rank's rows taken in pieces, whose gradients add up to those of all rows at once.

Rows are normalised in fixed groups and the loss of a batch is a sum over rows, so whatever is computed for whole groups of
rows can be added up: the gradient of the pieces is that of the slice but for rounding. It is no field of a recipe, since it
does not change the experiment, and no part of a run's key.
"""

from irnet_hpc.errors import UserError
from irnet_hpc.normalisation import Groups


def pieces(groups: Groups, rows: slice, most: int | None) -> list[slice]:
    """A rank's `rows` of the global batch as consecutive slices of at most `most` rows, each of whole groups; None: one.

    Raises UserError where a group has more rows than that, or lies on several ranks: its sums need all of its rows at once.
    """
    n_rows = rows.stop - rows.start
    if most is None or n_rows <= most:
        return [rows]
    if groups.index is not None:
        raise UserError(
            f"--micro-batch needs groups of rows that lie on one rank, however: norm_group {groups.group} and {n_rows} rows "
            "a rank; use fewer ranks"
        )
    if most < groups.group:
        raise UserError(f"--micro-batch must be at least the recipe's norm_group of {groups.group}, however: {most}")
    step = most // groups.group * groups.group
    return [slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)]
