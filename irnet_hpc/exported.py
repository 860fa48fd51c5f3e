"""Everything that is found as one JSON object, in full precision: the same records that the other forms are made of."""

from collections.abc import Sequence

from irnet_hpc.cells import BestClassical, Cell, Measured
from irnet_hpc.document import Note
from irnet_hpc.published import published_of
from irnet_hpc.runs import model_name
from irnet_hpc.tables import Row, Table
from irnet_hpc.typeset import Section

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
