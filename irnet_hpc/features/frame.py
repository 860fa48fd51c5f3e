"""Compute the features of formulas as a pandas DataFrame, without a pack."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from irnet_hpc.data.formulas import formula_text
from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.features.sets import (
    FEATURE_SETS,
    block_rows,
    describe,
    feature_labels,
    parse_feature_sets,
    unknown_elements,
)

if TYPE_CHECKING:
    import pandas

MAX_LISTED = 5  # formulas in a message


def featurize(
    formulas: Iterable[Any], features: str = "magpie", errors: str = "raise"
) -> "pandas.DataFrame":
    """Compute the features of formulas.

    Args:
        formulas: n_rows formulas, such as a list or a column of a DataFrame; each is text or
            pymatgen's Composition.
        features: a feature set of formulas (magpie, elements, ordered, classes) or a sum of them.
        errors: `raise` refuses formulas without features; `nan` gives them rows of NaN.

    Returns:
        (n_rows, n_features) float32, identical to the features in a pack, bit for bit. The index
        is the formulas, and the columns are the labels of the features.

    Raises:
        UserError: if formulas are unreadable (the message lists them), or if a feature set needs
            structures or a table's own columns.
    """
    import pandas

    check_choice("value of errors", errors, ("raise", "nan"))
    names = parse_formula_sets(features)
    if isinstance(formulas, str):
        raise UserError(f"formulas must be a list or a column, got the text {formulas!r}")
    if isinstance(formulas, pandas.DataFrame):
        raise UserError("formulas must be a list or a column, e.g. table['formula'], got a table")
    if not isinstance(formulas, Iterable):
        raise UserError(f"formulas must be a list or a column, got {formulas!r:.80}")
    index = list(formulas)
    x, problems = describe_formulas(index, names)
    if problems and errors == "raise":
        raise UserError(_refusal(index, problems))
    labels = feature_labels(names, parse_materials(formula_table([]))[0])
    return pandas.DataFrame(x, pandas.Index(index, dtype=object, name="formula"), labels)


def parse_formula_sets(text: str) -> tuple[str, ...]:
    """Parse a sum of feature sets. Raises UserError if a set needs more than formulas."""
    names = parse_feature_sets(text)
    known = [name for name, features in FEATURE_SETS.items() if features.of_formula]
    for name in names:
        if name not in known:
            raise UserError(
                f"features of formulas must be {', '.join(known)}, or a sum with +, got {name}"
            )
    return names


def describe_formulas(
    formulas: list[Any], names: tuple[str, ...]
) -> tuple[np.ndarray, dict[int, str]]:
    """Compute the features of formulas, and the reasons why some rows have none.

    Returns:
        The features (n_rows, n_features) float32, NaN in rows without features, and row -> reason
        for those rows.
    """
    table = formula_table([formula_text(formula) for formula in formulas])
    materials, rejected = parse_materials(table, named=False)
    problems = {row.line: ": ".join(filter(None, (row.reason, row.detail))) for row in rejected}
    unknown = unknown_elements(names, materials)
    for row, symbols in unknown.items():
        problems[int(materials.line[row])] = f"element unknown to {'+'.join(names)}: {symbols}"
    materials = materials.take(np.setdiff1d(np.arange(len(materials)), list(unknown)))
    x = np.full((len(formulas), len(feature_labels(names, materials))), np.nan, np.float32)
    size = block_rows(names)
    for start in range(0, len(materials), size):
        block = materials.take(np.arange(start, min(start + size, len(materials))))
        described = describe(names, block)
        x[block.line] = described.x
        for row, (reason, _) in described.unsuited.items():
            x[block.line[row]] = np.nan
            problems[int(block.line[row])] = reason
    return x, problems


def _refusal(formulas: list[Any], problems: dict[int, str]) -> str:
    listed = [f"{formulas[row]!r} ({problems[row]})" for row in sorted(problems)[:MAX_LISTED]]
    more = f" and {len(problems) - MAX_LISTED:,} more" if len(problems) > MAX_LISTED else ""
    return (
        f"every formula must have features, got {', '.join(listed)}{more}; "
        "with errors='nan' such rows become NaN"
    )
