"""How a matrix stands, in words for people and in JSON for programs."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

import msgspec

from irnet_hpc.sweep.estimates import Estimate, of_cell
from irnet_hpc.sweep.ledger import STATES, Ledger
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.progress import progress


def plan_lines(
    matrix: Matrix, ledger: Ledger, of_cells: Sequence[Estimate], together: dict[str, str]
) -> list[str]:
    """A line a cell, with its estimate and the bundle that it would be in (sharing.of_bundles); one for what was dropped."""
    width, lines = max((len(entry.name) for entry in ledger.entries), default=0), []
    for entry, estimate in zip(ledger.entries, of_cells, strict=True):
        said = "; ".join(
            filter(None, (entry.detail, together.get(entry.name), of_cell(entry, estimate)))
        )
        lines.append(f"{entry.state:9} {entry.name:{width}}  {said}".rstrip())
    return lines + [
        f"dropped   {d.product}: {d.reason} ({d.n_cells} cells)" for d in matrix.dropped
    ]


def status_table(ledger: Ledger) -> list[str]:
    """Counts for each pack, property and model, then a line for each cell that runs, was preempted or has failed."""
    rows: dict[str, Counter] = {}
    for entry in ledger.entries:
        spec = entry.cell.spec
        rows.setdefault(f"{spec.pack}/{spec.property}/{spec.model}", Counter())[entry.state] += 1
    width = max(map(len, rows), default=0)
    lines = [f"{'':{width}} " + "".join(f"{state:>10}" for state in STATES)]
    lines += [
        f"{name:{width}} " + "".join(f"{n[state] or '·':>10}" for state in STATES)
        for name, n in rows.items()
    ]
    running = [entry for entry in ledger.entries if entry.state == "running"]
    ended = [
        entry
        for state in ("preempted", "failed")
        for entry in ledger.entries
        if entry.state == state
    ]
    lines += [f"running {entry.name}: {entry.detail}{progress(entry)}" for entry in running]
    return lines + [
        f"{e.state} {e.name}: {e.detail}" + (f"; log {e.log}" if e.log else "") for e in ended
    ]


def summary(matrix: Matrix, ledger: Ledger) -> list[str]:
    """Notes, counts and cost."""
    counts, n_dropped = ledger.counts(), sum(dropped.n_cells for dropped in matrix.dropped)
    parts = [f"{n} {state}" for state, n in (counts | {"dropped": n_dropped}).items() if n]
    lines = [f"note: {note}" for note in (*matrix.notes, *ledger.notes)]
    building = {name: f" (job {job})" for name, job in ledger.pack_jobs.items()}
    missing = [pack.name + building.get(pack.name, "") for pack in matrix.packs if not pack.exists]
    lines += [f"packs to build: {', '.join(missing)}"] if missing else []
    lines.append(f"{matrix.name}: {len(ledger.entries)} cells: {', '.join(parts)}")
    used = sum(entry.result.device_hours for entry in ledger.entries if entry.state == "done")
    budget = (
        ""
        if matrix.budget_device_hours is None
        else f" of a budget of {matrix.budget_device_hours:,g}"
    )
    n_open = len(ledger.entries) - counts["done"] - counts["stale"]
    lines.append(
        f"cost: {n_open} cells ask for at most {ledger.asked_hours():,.2f} device-hours{budget}; done ones took {used:,.2f}"
    )
    return lines


def as_json(matrix: Matrix, ledger: Ledger, of_cells: Sequence[Estimate]) -> str:
    """All that is known, cell by cell, with its estimate; `lease`, of a running cell, is who trains it."""
    cells = [
        {
            "folder": entry.name,
            "state": entry.state,
            "detail": entry.detail,
            "log": entry.log,
            "cause": entry.cause,
            "resumable": entry.resumable,
            "lease": entry.lease and msgspec.structs.asdict(entry.lease),
            "test_mae": entry.result.test_mae if entry.state == "done" else None,
            "unit": entry.result.unit if entry.state == "done" else None,
            "spec": dataclasses.asdict(entry.cell.spec),
            "origin": entry.origin,
            "resources": dataclasses.asdict(entry.cell.resources),
            "estimate": dataclasses.asdict(estimate),
        }
        for entry, estimate in zip(ledger.entries, of_cells, strict=True)
    ]
    value = {
        "matrix": str(matrix.path),
        "counts": ledger.counts(),
        "asked_device_hours": ledger.asked_hours(),
        "budget_device_hours": matrix.budget_device_hours,
        "packs": {pack.name: "built" if pack.exists else "missing" for pack in matrix.packs},
        "dropped": [dataclasses.asdict(dropped) for dropped in matrix.dropped],
        "notes": [*matrix.notes, *ledger.notes],
        "cells": cells,
    }
    return json.dumps(value, indent=1, ensure_ascii=False)
