"""Write all findings as one Markdown text or one JSON object."""

from collections.abc import Sequence

from irnet_hpc.aggregate.all_models import AllModels
from irnet_hpc.aggregate.formats import Section, section_markdown
from irnet_hpc.aggregate.mae_table import (
    HOW_TO_READ,
    HOW_TO_READ_CLASSICAL,
    HOW_TO_READ_JOINT,
    HOW_TO_READ_SPLITS,
    markdown,
)
from irnet_hpc.aggregate.model_table import TEXT as MODELS_TEXT
from irnet_hpc.aggregate.model_table import model_markdown, records_of
from irnet_hpc.aggregate.notes import Note
from irnet_hpc.aggregate.published import published_beside, published_markdown
from irnet_hpc.aggregate.scores import ModelScore, Score
from irnet_hpc.aggregate.tables import Row, Table

FORMAT = "irnet-tables/1"


def document(
    tables: Sequence[Table],
    sections: Sequence[Section],
    notes: Sequence[Note],
    width: int | None = None,
    max_lines: int | None = None,
    models: Sequence[AllModels] = (),
) -> str:
    """Write tables, sections and notes as Markdown.

    Args:
        tables: all tables.
        sections: the sections that have something to show.
        notes: the notes, shown at the end.
        width: the number of characters to which tables are wrapped; None: do not wrap.
        max_lines: show at most this many lines of each note; None: all.
        models: the tables of all models, which come first.
    """
    parts = [model_markdown(table, width) for table in models]
    parts += [MODELS_TEXT] if models else []
    for table in tables:
        parts.append(f"## {table.title}\n\n{markdown(table, width)}")
        parts += [text] if (text := published_markdown(table, width)) else []
    parts += how_to_read(tables)
    parts += [section_markdown(section, width) for section in sections]
    parts += ["## Notes"] if sections and notes else []
    parts += [_note_markdown(note, max_lines) for note in notes]
    return "\n\n".join(parts) + "\n"


def _note_markdown(note: Note, max_lines: int | None) -> str:
    if not note.lines:
        return f"{note.heading}."
    lines = [f"- {line}" for line in note.lines[:max_lines]]
    if len(lines) < len(note.lines):
        lines.append(f"- and {len(note.lines) - len(lines)} more, all in mae.md")
    return "\n".join([f"{note.heading} ({len(note.lines)}):", "", *lines])


def how_to_read(tables: Sequence[Table]) -> list[str]:
    """Explain the columns that the tables have."""
    parts = [HOW_TO_READ]
    parts += [HOW_TO_READ_CLASSICAL] if any(table.has_classical for table in tables) else []
    parts += [HOW_TO_READ_JOINT] if any(table.joint for table in tables) else []
    parts += [HOW_TO_READ_SPLITS] if any(len(table.splits) > 1 for table in tables) else []
    return parts


def exported(
    tables: Sequence[Table],
    sections: Sequence[Section],
    notes: Sequence[Note],
    models: Sequence[AllModels] = (),
) -> dict:
    """Return all tables, sections and notes as one object for mae.json.

    MAEs are in the property's unit, improvements in per cent, and null means unknown. In a cell
    without a score, `missing` is the reason.
    """
    return {
        "format": FORMAT,
        "all_models": list(records_of(models)),
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
            line._asdict() | {"our_test_mae_mean": score and score.mae, "our_n_train": row.n_train}
            for line, row, score in published_beside(table)
        ],
    }


def _row(table: Table, row: Row) -> dict:
    best = row.best_classical
    return {
        "property": row.property,
        "unit": row.unit,
        "n_train": row.n_train,
        "n_val": row.n_val,
        "n_test": row.n_test,
        "baseline_mae": row.baseline,
        "baseline_best": row.baseline_best,
        "best_classical": best and {"model": best.model} | _score(best),
        "cells": [
            {"model": str(model), "architecture": model.architecture, "depth": model.depth}
            | (_model_score(score) if score else {"missing": table.missing(row, model)})
            for model, score in zip(table.models, row.scores, strict=True)
        ],
    }


def _score(score: Score) -> dict:
    return {
        "test_mae_mean": score.mae,
        "test_mae_sd": score.sd,
        "n_runs": score.n,
        "seeds": list(score.seeds),
        "uses_seed": score.uses_seed,
        "splits": list(score.splits),
        "interval": score.interval and list(score.interval),
        "best": score.best,
        "p_against_best": score.p_against_best,
        "n_rows_of_half": score.half and score.half.n,
        "test_mae_without_them": score.half and score.half.mae_without,
        "n_far_above_baseline": len(score.far_above_baseline),
    }


def _model_score(score: ModelScore) -> dict:
    return _score(score) | {
        "ensemble_mae": score.ensemble_mae,
        "improvement_over_plain": score.improvement_over_plain,
        "improvement_over_classical": score.improvement_over_classical,
        "improvement_over_single": score.improvement_over_single,
        "n_parameters": score.n_parameters,
        "device_hours": score.device_hours,
    }
