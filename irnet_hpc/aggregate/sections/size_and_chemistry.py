"""Show MAEs against the number of training rows, and on held-out chemistry."""

from collections.abc import Iterable, Iterator

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of
from irnet_hpc.aggregate.mae_table import BEST, classical_cell, row_format, score_cell
from irnet_hpc.aggregate.scores import Score
from irnet_hpc.aggregate.series import Point, Series

SIZE_TEXT = (
    "The same test rows, and the first n of the training rows. The best classical model is chosen "
    "by val anew for each n. Bold as in the tables."
)
CHEMISTRY_TEXT = (
    "random: a hash of the formula decides which rows are test rows, so test formulas resemble "
    "training ones. element, family: every material that contains the element, or an element of "
    "the family, is a test row, and training has none. The rows of this table have different test "
    "rows: compare a MAE with the baseline and the other models of its own row."
)


def size_section(findings: Findings) -> Section:
    """Make the section of MAE against training rows, with one block for each series."""
    return _section("size", "MAE against training rows", SIZE_TEXT, findings.sizes)


def chemistry_section(findings: Findings) -> Section:
    """Make the section of MAE on held-out chemistry, with one block for each series."""
    return _section("chemistry", "Held-out chemistry", CHEMISTRY_TEXT, findings.chemistry)


def _section(name: str, heading: str, text: str, series: Iterable[Series]) -> Section:
    blocks = [TableBlock(item.title, item.name, _grid(item)) for item in series]
    records = [line for item in series for line in _records(item)]
    return Section(name, heading, text, blocks, records, BEST)


def _grid(series: Series) -> list[Line]:
    """Write a line for each point: numbers of rows, baseline, best classical model, each model."""
    is_chemistry = any(point.test for point in series.points)
    header = ["test", "training rows", "test rows"] if is_chemistry else ["training rows"]
    header += [f"baseline ({series.unit})"] + (["best classical"] if series.has_classical else [])
    lines = [line_of(*header, *map(str, series.models))]
    for point in series.points:
        table, row = point.table, point.row
        n_train, n_test = f"{row.n_train:,}", f"{row.n_test:,}"
        cells = line_of(*((point.test or "", n_train, n_test) if is_chemistry else (n_train,)))
        cells.append(Text(f"{row.baseline:{row_format(row)}}", row.baseline_best))
        cells += [classical_cell(row)] if series.has_classical else []
        lines.append(cells + [score_cell(table, row, model) for model in series.models])
    return lines


def _scores(series: Series, point: Point) -> Iterator[tuple[str, Score, bool]]:
    """Yield the models of a point, with their score and True for the row's best classical model."""
    for model in series.models:
        if score := point.score(model):
            yield str(model), score, False
    if best := point.row.best_classical:
        yield best.model, best, True


def _records(series: Series) -> list[dict]:
    table = series.table
    return [
        {
            "pack": point.table.pack,
            "property": series.property,
            "model": name,
            "best_classical": int(is_best_classical),
            "recipe": table.recipe_label,
            "protocol": table.protocol,
            "selected_on": table.selected_on,
            "train_rows": point.table.train_rows,
            "start_from": table.start_from,
            "joint": table.joint,
            "test": point.test,
            "n_train": point.row.n_train,
            "n_test": point.row.n_test,
            "unit": series.unit,
            "test_mae_mean": score.mae,
            "test_mae_sd": score.sd,
            "n_runs": score.n,
            "baseline_mae": point.row.baseline,
        }
        for point in series.points
        for name, score, is_best_classical in _scores(series, point)
    ]
