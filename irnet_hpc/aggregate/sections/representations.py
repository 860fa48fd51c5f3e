"""What a compound is described by: one model and recipe with each representation of the same dataset."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.render import cell_text, row_format
from irnet_hpc.aggregate.sections.tasks import Entry, Task

SAID = (
    "Test MAE of one model and recipe with each representation of the same dataset; the least of a row is in bold. Where a set "
    "of features rejects rows that another has, the numbers of test rows differ, and are shown."
)


def representations_section(tasks: Sequence[Task]) -> Section:
    """Where a model was trained alike on several representations of one dataset: a block a task, a column a representation."""
    blocks, records = [], []
    for number, task in enumerate(tasks):
        alike = defaultdict(dict)
        for entry in task.entries:
            how = (
                entry.model,
                entry.table.recipe,
                entry.table.train_rows,
                entry.table.start_from,
                entry.table.joint,
            )
            alike[how].setdefault(entry.features, entry)
        lines = {how: found for how, found in alike.items() if len(found) > 1}
        if lines:
            features = sorted({name for found in lines.values() for name in found})
            title = f"{task.name} ({task.unit})"
            blocks.append(Block(title, f"task{number}", _representations(lines.values(), features)))
            records += [
                _representation(task, entry) for found in lines.values() for entry in found.values()
            ]
    return Section("representations", "Representations", SAID, tuple(blocks), records)


def _representations(
    lines: Iterable[dict[str, Entry]], features: Sequence[str]
) -> list[list[Text]]:
    grid = [[Text(text) for text in ("model", "recipe", "training rows", "test rows", *features)]]
    for found in lines:
        first = next(iter(found.values()))
        least = min(entry.cell.mae for entry in found.values())
        train = sorted({entry.row.n_train for entry in found.values()})
        test = sorted({entry.row.n_test for entry in found.values()})
        line = [Text(first.name), Text(first.how), Text(_range(train)), Text(_range(test))]
        for name in features:
            entry = found.get(name)
            shown = entry and cell_text(entry.cell, row_format(first.row))
            line.append(Text(shown, entry.cell.mae == least) if entry else Text("not run"))
        grid.append(line)
    return grid


def _range(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


def _representation(task: Task, entry: Entry) -> dict:
    return {
        "dataset": task.dataset,
        "property": task.property,
        "unit": task.unit,
        "features": entry.features,
        "pack": entry.table.pack,
        "model": entry.name,
        "recipe": entry.table.recipe,
        "train_rows": entry.table.train_rows,
        "start_from": entry.table.start_from,
        "joint": entry.table.joint,
        "n_train": entry.row.n_train,
        "n_test": entry.row.n_test,
        "test_mae_mean": entry.cell.mae,
        "test_mae_sd": entry.cell.sd,
        "n_runs": entry.cell.n,
    }
