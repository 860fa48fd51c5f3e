"""Compute the features of crystal structures as a pandas DataFrame, without a pack or a run."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irnet_hpc.data.structures.frames import structure_column
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.features.sets import (
    check_installed,
    describe,
    feature_labels,
    parse_feature_sets,
)
from irnet_hpc.predict.candidates import Candidates, frame_candidates, open_table
from irnet_hpc.predict.members import NO_ROWS
from irnet_hpc.predict.screening import FeatureLayout, readable_rows

if TYPE_CHECKING:
    import pandas

MAX_LISTED = 5  # structures in a message


def featurize_structures(
    structures: "str | Path | Iterable[Any]",
    features: str = "magpie+structure",
    errors: str = "raise",
) -> "pandas.DataFrame":
    """Compute the features of structures.

    Args:
        structures: A folder or archive of files of structures, as packing reads it; or n_rows
            structures of pymatgen, ASE or JARVIS, in a list or a column.
        features: A feature set, or a sum of them; not `columns`, which is a user's own table.
        errors: `raise` refuses structures without features; `nan` gives them rows of NaN.

    Returns:
        (n_rows, n_features) float32, identical to the features in a pack, bit for bit. The index
        is the names of the structures, or for a list their places; the columns are the labels of
        the features.

    Raises:
        UserError: If structures are unreadable (the message lists them) or there are none.
    """
    import pandas

    check_choice("value of errors", errors, ("raise", "nan"))
    names = parse_feature_sets(features)
    if "columns" in names:
        raise UserError(f"features of structures cannot have a table's columns, got {features!r}")
    check_installed(names)
    layout = FeatureLayout(names, (), ())
    parts: list[np.ndarray] = []
    index: list[Any] = []
    problems: dict[int, str] = {}
    labels = feature_labels(names, NO_ROWS)
    with _opened(structures) as candidates:
        for batch in candidates.batches:
            start = len(index)
            materials, unread = readable_rows(layout, batch, candidates.has_formula)
            # In this process, since a script without a guard of its main part starts no worker.
            described = describe(names, materials)
            x = np.full((len(batch.fields), len(labels)), np.nan, np.float32)
            x[materials.line] = described.x
            for place, (reason, detail) in described.unsuited.items():
                unread[int(materials.line[place])] = f"{reason}: {detail}" if detail else reason
            x[list(unread)] = np.nan
            parts.append(x)
            index += [
                fields[0] if fields else start + row for row, fields in enumerate(batch.fields)
            ]
            problems |= {start + row: problem for row, problem in unread.items()}
    if problems and errors == "raise":
        listed = [f"{index[row]} ({problems[row]})" for row in sorted(problems)[:MAX_LISTED]]
        more = f" and {len(problems) - MAX_LISTED:,} more" if len(problems) > MAX_LISTED else ""
        raise UserError(
            f"every structure must have features, got {', '.join(listed)}{more}; "
            "with errors='nan' such rows become NaN"
        )
    x = np.concatenate(parts) if parts else np.empty((0, len(labels)), np.float32)
    return pandas.DataFrame(x, pandas.Index(index, name="structure"), labels)


@contextlib.contextmanager
def _opened(structures: "str | Path | Iterable[Any]") -> Iterator[Candidates]:
    """Open structures as candidates."""
    import pandas

    if isinstance(structures, str | Path):
        if not Path(structures).exists():
            raise UserError(f"there is no folder or file {structures}")
        with open_table(str(structures), (), True) as candidates:
            if not candidates.has_structures:
                raise UserError(
                    "structures must be a folder or archive of them, or JSON lines, got "
                    f"{structures}"
                )
            yield candidates
        return
    if isinstance(structures, pandas.DataFrame) or not isinstance(structures, Iterable):
        raise UserError(
            f"structures must be a folder, a list or a column, got {type(structures).__name__}"
        )
    frame = pandas.DataFrame({"structure": pandas.Series(list(structures), dtype=object)})
    if len(frame) and not structure_column(frame):
        raise UserError("structures must be those of pymatgen, ASE or JARVIS, got other objects")
    yield frame_candidates(frame, (), True)
