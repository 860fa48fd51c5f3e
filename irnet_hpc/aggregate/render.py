"""A Table as Markdown, as LaTeX and as lines of a tidy CSV. What is rounded here is rounded for reading only."""

from collections.abc import Iterable
from statistics import median

from irnet_hpc.aggregate.formats import Text, aligned, csv_text, latex_table
from irnet_hpc.aggregate.scores import Cell, Measured
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.spec import model_name

HOW_TO_READ = (
    "Test MAE, mean ± sd over seeds (n seeds), the best of a row in bold, and with it whatever three runs or more cannot tell "
    "from it (paired over common test rows and seeds, Holm's correction over the row); below three runs bold is the least MAE "
    "and no claim. baseline: the train median predicted for every "
    "row. irnet vs plain: by how many per cent IRNet's MAE is below plain's at that depth."
)

HOW_TO_READ_CLASSICAL = (
    "best classical: of the classical models on the same rows, the one of least MAE on val, never on test (under protocol "
    "paper, which has no val, by the val MAE of its honest cells), and its test MAE. irnet vs classical: by how many per "
    "cent IRNet's MAE is below it."
)

HOW_TO_READ_JOINT = (
    "one network for several properties: trained on the rows that report at least one, selected by the mean of the errors "
    "relative to the sd of the training targets. vs one each: by how many per cent the MAE is below that of the same model "
    "trained for the property alone, over the splits and seeds both have; of the first n training rows only where all of "
    "them report the property."
)

HOW_TO_READ_SPLITS = (
    "splits: packs that differ in the seed of their split alone stand in one table; mean ± sd is then over the runs of all "
    "splits and seeds (n runs), numbers of rows and the baseline are means over the splits. irnet vs plain is over the "
    "splits and seeds that both have, irnet vs classical over the splits. The best of a row is among what was trained on "
    "all of its splits."
)


def row_format(row: Row) -> str:
    """The format of all numbers of a row, which are there to be compared: two digits of the median sd over seeds decide
    the places behind the point, at most five digits of the least MAE, and four of it where no cell has a sd."""
    least = min(cell.mae for cell in row.cells if cell)
    sds = [cell.sd for cell in row.cells if cell and cell.sd]
    if not 1e-4 <= least < 1e6:
        return ".3e"
    return (
        f".{min(_decimals(median(sds), 2), _decimals(least, 5)) if sds else _decimals(least, 4)}f"
    )


def difference_format(differences: Iterable[float], spreads: Iterable[float | None]) -> str:
    """The format of differences of MAEs, signed: two digits of their median spread, else three of the largest."""
    known = [spread for spread in spreads if spread]
    value, digits = (median(known), 2) if known else (max(map(abs, differences)), 3)
    if value and not 1e-5 <= value < 1e6:
        return "+.1e"
    return f"+.{_decimals(value, digits) if value else 1}f"


def _decimals(value: float, digits: int) -> int:
    """Places behind the point that show `value` with so many significant digits."""
    exponent = int(
        f"{value:.{digits - 1}e}".partition("e")[2]
    )  # of the rounded value: 0.0996 is 0.10
    return max(0, digits - 1 - exponent)


def cell_text(cell: Measured, form: str) -> str:
    return spread_text(cell.mae, cell.sd, cell.n, form)


def spread_text(mean: float, sd: float | None, n: int, form: str) -> str:
    """`form` may begin with a sign, which the mean alone has."""
    spread = "" if sd is None else f" ± {sd:{form.lstrip('+')}}"
    return f"{mean:{form}}{spread} (n={n})"


def grid(table: Table) -> list[list[Text]]:
    """The table as text, header first: property, baseline, a column a model, a column a compared depth."""
    depths = table.compared_depths
    irnets = [
        depth
        for architecture, depth in table.models
        if architecture == "irnet" and table.has_classical
    ]
    header = ["property", "baseline"] + (["best classical"] if table.has_classical else [])
    header += [model_name(*model) for model in table.models]
    header += [f"irnet vs plain, {depth}" for depth in depths]
    header += [f"irnet vs classical, {depth}" for depth in irnets]
    header += [f"{model_name(*model)} vs one each" for model in table.compared_with_single]
    lines = [[Text(text) for text in header]]
    for row in table.rows:
        form = row_format(row)
        line = [
            Text(f"{row.property} ({row.unit})"),
            Text(f"{row.baseline:{form}}", row.baseline_best),
        ]
        if table.has_classical:
            theirs = row.best_classical
            line.append(
                Text(f"{theirs.model} {cell_text(theirs, form)}", theirs.best)
                if theirs
                else Text("not run")
            )
        for model, cell in zip(table.models, row.cells, strict=True):
            line.append(
                Text(cell_text(cell, form), cell.best)
                if cell
                else Text(table.why_missing(row, *model))
            )
        for depth in depths:
            plain, irnet = table.cell(row, "plain", depth), table.cell(row, "irnet", depth)
            line.append(_percent("irnet", irnet, irnet and irnet.improvement, "plain", plain))
        for depth in irnets:
            irnet = table.cell(row, "irnet", depth)
            theirs = row.best_classical
            line.append(
                _percent(
                    "irnet", irnet, irnet and irnet.improvement_over_classical, "classical", theirs
                )
            )
        for model in table.compared_with_single:
            cell = table.cell(row, *model)
            line.append(
                _percent(
                    model_name(*model),
                    cell,
                    cell and cell.improvement_over_single,
                    "own network",
                    None,
                )
            )
        lines.append(line)
    return lines


def _percent(
    ours: str, cell: Cell | None, percent: float | None, theirs: str, other: Measured | None
) -> Text:
    """By how many per cent a MAE is lower, or what it lacks for that."""
    if percent is not None:
        return Text(f"{percent:+.1f} %")
    absent = ours if cell is None else theirs if other is None else "common seed"
    return Text(f"no {absent}")


def markdown(table: Table, width: int | None = None) -> str:
    """The table as aligned Markdown; where a `width` in letters is given, columns that go beyond it follow below."""
    return aligned(grid(table), width)


def latex(table: Table) -> str:
    r"""The table in booktabs' style, in blocks of columns below each other; the preamble needs `\usepackage{booktabs}`."""
    return latex_table(f"Test MAE. {table.title}.", table.name, grid(table))


def tidy_csv(tables: Iterable[Table]) -> str:
    """All tables as one CSV, a line a cell, numbers in full precision; errors in `unit`, improvement in per cent."""
    tables = list(tables)
    with_classical, with_joint = (
        any(table.has_classical for table in tables),
        any(table.joint for table in tables),
    )
    lines = [
        {
            "pack": table.pack,
            "property": row.property,
            "model": model_name(architecture, depth),
            "architecture": architecture,
            "depth": depth,
            "recipe": table.recipe,
            "protocol": table.protocol,
            "selected_on": table.selected_on,
            "train_rows": table.train_rows,
            "start_from": table.start_from,
            "n_train": row.n_train,
            "n_val": row.n_val,
            "n_test": row.n_test,
            "unit": row.unit,
            "test_mae_mean": cell.mae,
            "test_mae_sd": cell.sd,
            "n_seeds": len(cell.seeds),
            "seeds": " ".join(map(str, cell.seeds)),
            "n_runs": cell.n,
            "splits": " ".join(map(str, cell.splits)),
            "test_mae_low": cell.interval and cell.interval[0],
            "test_mae_high": cell.interval and cell.interval[1],
            "p_against_best": cell.p_against_best,
            "ensemble_mae": cell.ensemble_mae,
            "baseline_mae": row.baseline,
            "improvement_over_plain": cell.improvement,
            "best": int(cell.best),
            "n_parameters": cell.n_parameters,
            "device_hours": cell.device_hours,
        }
        | (_classical_columns(row, cell) if with_classical else {})
        | (
            {"joint": table.joint, "improvement_over_single": cell.improvement_over_single}
            if with_joint
            else {}
        )
        for table in tables
        for row in table.rows
        for (architecture, depth), cell in zip(table.models, row.cells, strict=True)
        if cell
    ]
    return csv_text(lines)


def _classical_columns(row: Row, cell: Cell) -> dict:
    theirs = row.best_classical
    return {
        "best_classical": theirs and theirs.model,
        "best_classical_mae": theirs and theirs.mae,
        "improvement_over_classical": cell.improvement_over_classical,
    }
