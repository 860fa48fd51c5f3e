"""Show which features the best models rely on."""

from collections.abc import Iterable, Iterator

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, missing
from irnet_hpc.aggregate.importance import ModelImportance
from irnet_hpc.aggregate.words import model_words, property_words

N_SHOWN = 15  # groups and features in a table; importance.csv has all
N_OF_ELEMENT = 3  # groups of each element
TEXT = (
    "By how much the test MAE rises if a feature, or a group of features together, is shuffled "
    "among the rows: the mean of {n} shuffles (seed {seed}) ± their standard deviation, on at most "
    "{rows} rows. val: the same on val rows; if the two differ much, there are too few rows to "
    "say. Measured are the best network and the best classical model by val of each task, each on "
    "the first of its runs. Importance says what this model uses, not what causes the property: of "
    "two features that say the same, either may seem to be of no use, so look at the groups first."
)


def section(findings: Findings) -> Section:
    """Make up to three blocks for each model: by group, by feature and by element."""
    text = ""
    if findings.importance:
        from irnet_hpc.predict import N_SHUFFLES, SHUFFLE_SEED, SHUFFLED_ROWS

        text = TEXT.format(n=N_SHUFFLES, seed=SHUFFLE_SEED, rows=SHUFFLED_ROWS)
    blocks = [block for one in findings.importance for block in _blocks(one)]
    records = [record for one in findings.importance for record in _records(one)]
    return Section("importance", "Importance of features", text, blocks, records)


def _blocks(model: ModelImportance) -> Iterator[TableBlock]:
    task = model.task
    label = f"{property_words(task.property)} ({task.unit}), {task.dataset}"
    name = f"{label}: {model_words(model.result.model)}"
    place = f"{model.task.property}-{model.result.table.pack}-{model.result.model}"
    for kind in ("group", "feature"):
        lines = _grid(model, kind)
        yield TableBlock(f"{name}, by {kind}", f"{kind}-{place}", lines)
    if lines := _element_grid(model):
        yield TableBlock(f"{name}, by element", f"element-{place}", lines)


def rises(
    model: ModelImportance, kind: str, role: str, element: str | None = None
) -> list[tuple[str, float, float]]:
    """Return (name, rise, sd) of the sets of one kind, the most important first."""
    found = [
        (one.name, one.rise, one.sd)
        for one in model.found
        if (one.kind, one.role, one.element) == (kind, role, element)
    ]
    return sorted(found, key=lambda item: -item[1])


def _grid(model: ModelImportance, kind: str) -> list[Line]:
    unit = model.task.unit
    on_val = {name: (rise, sd) for name, rise, sd in rises(model, kind, "val")}
    lines = [line_of(kind, f"rise of the test MAE ({unit})", "% of the MAE", f"val ({unit})")]
    maes = [one.mae for one in model.found if one.role == "test" and one.element is None]
    for name, rise, sd in rises(model, kind, "test")[:N_SHOWN]:
        share = f"{100 * rise / maes[0]:+.1f} %" if maes[0] else missing("MAE is 0")
        val = _text(*on_val[name]) if name in on_val else missing("no val rows")
        lines.append(line_of(name, _text(rise, sd), share, val))
    return lines


def _element_grid(model: ModelImportance) -> list[Line]:
    """List the elements of the test rows, each with the groups that matter most on its rows."""
    elements = {
        one.element: (one.n_rows, one.mae)
        for one in model.found
        if one.role == "test" and one.element is not None
    }
    if not elements:
        return []
    unit = model.task.unit
    places = ("first", "second", "third")[:N_OF_ELEMENT]
    lines = [line_of("rows with", "test rows", f"MAE ({unit})", *places)]
    for element, (n_rows, mae) in sorted(elements.items(), key=lambda item: -item[1][0]):
        top = rises(model, "group", "test", element)[:N_OF_ELEMENT]
        cells: list[str | Text] = [f"{name} {rise:+.2g}" for name, rise, _ in top]
        cells += [missing("no other group")] * (len(places) - len(cells))
        lines.append(line_of(str(element), f"{n_rows:,}", f"{mae:.3g}", *cells))
    return lines


def _text(rise: float, sd: float) -> str:
    return f"{rise:+.3g} ± {sd:.2g}"


def _records(model: ModelImportance) -> Iterable[dict]:
    from irnet_hpc.predict import N_SHUFFLES, SHUFFLE_SEED

    run = model.result.score.runs[0]
    for one in model.found:
        yield {
            "dataset": model.task.dataset,
            "property": model.task.property,
            "unit": model.task.unit,
            "model": str(model.result.model),
            "pack": run.spec.pack,
            "recipe": model.result.table.recipe_label,
            "seed": run.spec.seed,
            "role": one.role,
            "kind": one.kind,
            "name": one.name,
            "element": one.element,
            "n_rows": one.n_rows,
            "mae": one.mae,
            "mae_rise_mean": one.rise,
            "mae_rise_sd": one.sd,
            "n_shuffles": N_SHUFFLES,
            "shuffle_seed": SHUFFLE_SEED,
        }
