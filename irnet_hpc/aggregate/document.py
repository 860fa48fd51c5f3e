"""Everything that is found as one Markdown text: tables, sections, and the footer that says what is missing and why."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.aggregate.formats import Section, one_line, section_markdown
from irnet_hpc.aggregate.groups import content_hash, splits_of_one, with_changed_origin
from irnet_hpc.aggregate.published import published_markdown, published_of
from irnet_hpc.aggregate.render import (
    HOW_TO_READ,
    HOW_TO_READ_CLASSICAL,
    HOW_TO_READ_JOINT,
    HOW_TO_READ_SPLITS,
    markdown,
)
from irnet_hpc.aggregate.scores import BestClassical, Cell, Measured
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.collect import FinishedRun, Gap
from irnet_hpc.runs.spec import model_name


class Note(NamedTuple):
    """A part of the footer: a heading, and the cells or names that it is about."""

    heading: str
    lines: tuple[str, ...] = ()


def footer(gaps: dict[Path, Gap]) -> list[Note]:
    """What is missing and why, by state, in the order of the folders."""
    by_state = defaultdict(list)
    for folder, gap in sorted(gaps.items()):
        by_state[gap.state].append(one_line(f"{folder}: {gap.why}" if gap.why else str(folder)))
    return [Note(state, tuple(by_state[state])) for state in sorted(by_state)]


def legend(runs: Sequence[FinishedRun], tables: Iterable[Table]) -> list[Note]:
    """What names in the tables stand for, where they do not say it themselves."""
    custom = {f"{run.spec.model}: {run.spec.layers}" for run in runs if run.spec.layers}
    stale = {table.recipe for table in tables if table.recipe.endswith("(stale)")}
    recipes = defaultdict(list)  # name -> contents
    fewer = set()
    for run in runs:
        spec, result = run.spec, run.result
        if spec.is_classical:  # each has a grid of its own
            if (result.fitted_rows or result.n_train) < result.n_train:
                rows = f"the first {result.fitted_rows:,} of {result.n_train:,} training rows"
                fewer.add(f"{spec.model} on {spec.pack}, {spec.property}: {rows}")
        elif result.recipe not in recipes[spec.recipe]:
            recipes[spec.recipe].append(result.recipe)
    several = {
        f"{name}#{content_hash(recipe)}: {_differences(recipe, contents)}"
        for name, contents in recipes.items()
        for recipe in contents
        if len(contents) > 1
    }
    unknown = sorted(
        {
            str(run.folder)
            for run in runs
            if run.spec.start_from and (run.result.origin or {}).get("n_shared_test") is None
        }
    )
    changed = {str(run.folder) for run in with_changed_origin(runs)}
    unlike = [
        f"{', '.join(splits.packs)}: {', '.join(splits.differing)}"
        for splits in splits_of_one(runs)
        if splits.differing
    ]
    notes = (
        Note("layer strings", tuple(sorted(custom))),
        Note(
            "recipes of one name and different content, each in a table of its own",
            tuple(sorted(several)),
        ),
        Note(
            "fitted on fewer rows, all that the model can take in reasonable time",
            tuple(sorted(fewer)),
        ),
        Note(
            "packs named as splits of one that differ in more than the seed, so not merged",
            tuple(unlike),
        ),
        Note(
            "started from a run of which it is not known whether it has seen test formulas",
            tuple(unknown),
        ),
        Note("started from a run that has since been trained otherwise", tuple(sorted(changed))),
        Note(
            "stale: trained with a recipe or a trainer that has since changed", tuple(sorted(stale))
        ),
    )
    return [note for note in notes if note.lines]


def unread(problems: dict[Path, str]) -> list[Note]:
    """The runs whose predictions or history were wanted."""
    lines = tuple(one_line(problems[path]) for path in sorted(problems))
    return (
        [Note("predictions or histories left out of what is made of them", lines)] if lines else []
    )


def _differences(recipe: dict, contents: Sequence[dict]) -> str:
    """The fields of a recipe that are not the same in all of `contents`."""
    fields = [name for name in recipe if any(other.get(name) != recipe[name] for other in contents)]
    return ", ".join(f"{name} {recipe[name]}" for name in fields)


def document(
    tables: Sequence[Table],
    notes: Sequence[Note],
    width: int | None = None,
    most: int | None = None,
    sections: Sequence[Section] = (),
) -> str:
    """All tables, sections and the footer as Markdown; at most `most` lines of a note."""
    parts = []
    for table in tables:
        parts.append(f"## {table.title}\n\n{markdown(table, width)}")
        parts += [text] if (text := published_markdown(table, width)) else []
    parts += how_to_read(tables)
    parts += [section_markdown(section, width) for section in sections]
    parts += ["## Notes"] if sections and notes else []
    for note in notes:
        lines = [f"- {line}" for line in note.lines[:most]]
        lines += (
            [f"- and {len(note.lines) - most} more, all in mae.md"]
            if most and len(note.lines) > most
            else []
        )
        parts.append(
            "\n".join(
                [f"{note.heading} ({len(note.lines)}):", "", *lines]
                if lines
                else [f"{note.heading}."]
            )
        )
    return "\n\n".join(parts) + "\n"


def how_to_read(tables: Sequence[Table]) -> list[str]:
    """What the tables' columns mean, of those that are there."""
    parts = [HOW_TO_READ]
    parts += [HOW_TO_READ_CLASSICAL] if any(table.has_classical for table in tables) else []
    parts += [HOW_TO_READ_JOINT] if any(table.joint for table in tables) else []
    parts += [HOW_TO_READ_SPLITS] if any(len(table.splits) > 1 for table in tables) else []
    return parts


FORMAT = "irnet-tables/1"


def exported(tables: Sequence[Table], sections: Sequence[Section], notes: Sequence[Note]) -> dict:
    """MAEs in the property's unit, improvements in per cent, null where nothing is known; a cell without a number has
    `missing`, why."""
    return {
        "format": FORMAT,
        "tables": [_table(table) for table in tables],
        "sections": {section.name: section.records for section in sections if section.records},
        "notes": [{"heading": note.heading, "lines": list(note.lines)} for note in notes],
    }


def _table(table: Table) -> dict:
    return {
        "title": table.title,
        **table.settings,
        "source": table.source,
        "joint": table.joint,
        "splits": list(table.splits),
        "rows": [_row(table, row) for row in table.rows],
        "published": [
            line._asdict() | {"our_test_mae_mean": ours and ours.mae, "our_n_train": row.n_train}
            for line, row, ours in published_of(table)
        ],
    }


def _row(table: Table, row: Row) -> dict:
    return {
        "property": row.property,
        "unit": row.unit,
        "n_train": row.n_train,
        "n_val": row.n_val,
        "n_test": row.n_test,
        "baseline_mae": row.baseline,
        "baseline_best": row.baseline_best,
        "best_classical": row.best_classical and _best_classical(row.best_classical),
        "cells": [
            {"model": model_name(*model), "architecture": model[0], "depth": model[1]}
            | (_cell(cell) if cell else {"missing": table.why_missing(row, *model)})
            for model, cell in zip(table.models, row.cells, strict=True)
        ],
    }


def _measured(cell: Measured) -> dict:
    return {
        "test_mae_mean": cell.mae,
        "test_mae_sd": cell.sd,
        "n_runs": cell.n,
        "seeds": list(cell.seeds),
        "splits": list(cell.splits),
        "interval": cell.interval and list(cell.interval),
        "best": cell.best,
        "p_against_best": cell.p_against_best,
    }


def _best_classical(cell: BestClassical) -> dict:
    return {"model": cell.model} | _measured(cell)


def _cell(cell: Cell) -> dict:
    return _measured(cell) | {
        "ensemble_mae": cell.ensemble_mae,
        "improvement_over_plain": cell.improvement,
        "improvement_over_classical": cell.improvement_over_classical,
        "improvement_over_single": cell.improvement_over_single,
        "n_parameters": cell.n_parameters,
        "device_hours": cell.device_hours,
    }
