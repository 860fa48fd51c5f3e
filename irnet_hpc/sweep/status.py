"""Show the state of a matrix: lines for people, JSON for programs."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep.at_work import AtWork, Progress
from irnet_hpc.sweep.cell_states import CellStatus, Ledger
from irnet_hpc.sweep.estimates import Estimate, estimate_text
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.progress import progress
from irnet_hpc.sweep.whole_nodes import NodePlan


def plan_lines(
    matrix: Matrix, ledger: Ledger, estimated: Sequence[Estimate], bundles: dict[str, str]
) -> list[str]:
    """Write one line for each cell and for each product that was dropped.

    Args:
        matrix: The matrix.
        ledger: The state of its cells.
        estimated: The estimate of each cell, in the ledger's order.
        bundles: The label of each cell's bundle (bundles.bundle_labels).
    """
    width = max((len(status.name) for status in ledger.cells), default=0)
    lines = []
    for status, estimate in zip(ledger.cells, estimated, strict=True):
        notes = (status.detail, bundles.get(status.name), estimate_text(status, estimate))
        text = "; ".join(note for note in notes if note)
        lines.append(f"{status.state:9} {status.name:{width}}  {text}".rstrip())
    dropped = [f"dropped   {d.product}: {d.reason} ({d.n_cells} cells)" for d in matrix.dropped]
    return lines + dropped


def status_table(ledger: Ledger, now: Progress | None = None) -> list[str]:
    """Count the states for each pack, property and model.

    A line follows for each cell that is running, was preempted or has failed.

    Args:
        ledger: The states of the cells.
        now: Who is at work on the cells; None: unknown.
    """
    at_work = now.at_work if now else ()
    notes = {name: at_work_text(process) for process in at_work for name in process.cells}
    rows: dict[str, Counter] = {}
    for status in ledger.cells:
        spec = status.cell.spec
        row = f"{spec.pack}/{spec.property}/{spec.model}"
        rows.setdefault(row, Counter())[status.state] += 1
    width = max(map(len, rows), default=0)
    lines = [f"{'':{width}} " + "".join(f"{state:>10}" for state in CellState)]
    for name, counts in rows.items():
        lines.append(f"{name:{width}} " + "".join(f"{counts[s] or '·':>10}" for s in CellState))
    for status in _in_state(ledger, CellState.RUNNING):
        note = notes.get(status.name, "")
        lines.append(f"running {status.name}: {status.detail}{progress(status)}{note}")
    for state in (CellState.PREEMPTED, CellState.FAILED):
        for status in _in_state(ledger, state):
            log = f"; log {status.log}" if status.log else ""
            lines.append(f"{state} {status.name}: {status.detail}{log}")
    idle = [process for process in at_work if not process.cells]
    lines += [f"worker without a cell: process {p.process} on {p.host}" for p in idle]
    if now and now.minutes_left is not None:
        n_busy = len(at_work) - len(idle)
        lines.append(f"time left: {duration(now.minutes_left)}, at {n_busy} cells at a time")
    return lines + [f"left alone: {line}" for line in (now.left_alone if now else ())]


def at_work_text(process: AtWork) -> str:
    """Continue the line of a running cell: the device, since when, and the rows a second."""
    parts = [process.device] if process.device else []
    parts += [f"since {clock_time(process.since)}"] if process.since is not None else []
    if process.rows_per_s is not None:
        shared = f" for {len(process.cells)} cells together" if len(process.cells) > 1 else ""
        parts.append(f"{process.rows_per_s:,.0f} rows/s{shared}")
    return "".join(f", {part}" for part in parts)


def clock_time(seconds: float) -> str:
    """Format a time in s since 1970 as the local time of day; the date is added if it is not today.

    A time that no clock shows is given as ?.
    """
    try:
        time = datetime.fromtimestamp(seconds)
    except (OverflowError, OSError, ValueError):
        return "?"
    return f"{time:%H:%M}" if time.date() == datetime.now().date() else f"{time:%Y-%m-%d %H:%M}"


def duration(minutes: float) -> str:
    """Format a duration.

    >>> [duration(minutes) for minutes in (0.4, 12.3, 200, 3000)]
    ['1 min', '13 min', '3 h 20 min', '2 d 2 h']
    """
    whole = math.ceil(minutes)
    if whole < 60:
        return f"{max(1, whole)} min"
    if whole < 1440:
        return f"{whole // 60} h {whole % 60} min"
    return f"{whole // 1440} d {whole % 1440 // 60} h"


def _in_state(ledger: Ledger, state: CellState) -> list[CellStatus]:
    return [status for status in ledger.cells if status.state == state]


def summary(matrix: Matrix, ledger: Ledger) -> list[str]:
    """Write the notes, the counts and the cost of a matrix, a line each."""
    counts, n_dropped = ledger.counts(), sum(dropped.n_cells for dropped in matrix.dropped)
    parts = [f"{n} {state}" for state, n in counts.items() if n]
    parts[-1:] = [f"{parts[-1]} (not trained yet)"] if counts[CellState.MISSING] else parts[-1:]
    lines = [f"note: {note}" for note in (*matrix.notes, *ledger.notes)]
    building = {name: f" (job {job})" for name, job in ledger.pack_jobs.items()}
    missing = [pack.name + building.get(pack.name, "") for pack in matrix.packs if not pack.exists]
    lines += [f"packs to build: {', '.join(missing)}"] if missing else []
    lines += [f"cells: {contents(matrix)}"] if matrix.cells else []
    if n_dropped:
        lines.append(f"dropped: {n_dropped} more that cannot exist, for the reasons in the plan")
    lines.append(f"{matrix.name}: {len(ledger.cells)} cells: {', '.join(parts)}")
    done = [s.result for s in _in_state(ledger, CellState.DONE) if s.result]
    used = sum(result.device_hours for result in done)
    budget = matrix.budget_device_hours
    limit = "" if budget is None else f" of a budget of {budget:,g}"
    n_open = len(ledger.cells) - counts[CellState.DONE] - counts[CellState.STALE]
    lines += [f"done: {counts[CellState.DONE]} cells took {used:,.2f} device-hours"] if used else []
    if not n_open:
        return [*lines, _nothing_left(counts[CellState.STALE])]
    asked = f"{ledger.asked_hours():,.2f} device-hours{limit}"
    bound = f"{n_open} cells may take {asked} before they are stopped (a bound, not an estimate)"
    return [*lines, f"limits: {bound}"]


def _nothing_left(n_stale: int) -> str:
    """Say that every cell has a result, and how many of these are outdated."""
    if not n_stale:
        return "nothing is left to do: every cell has a result"
    return (
        f"nothing is left to do, unless the {n_stale} stale results shall be replaced, which "
        "`run --stale` does"
    )


def contents(matrix: Matrix) -> str:
    """Say what the cells of a matrix train, e.g. `2 of networks (irnet-17; recipe onecycle)`."""
    parts = []
    for noun, is_classical in (("networks", False), ("classical models", True)):
        specs = [cell.spec for cell in matrix.cells if cell.spec.is_classical == is_classical]
        if specs:
            models = named(spec.model for spec in specs)
            recipes = named(spec.recipe for spec in specs)
            parts.append(f"{len(specs):,} of {noun} ({models}; recipe {recipes})")
    specs = [cell.spec for cell in matrix.cells]
    axes = {"pack": "packs", "property": "properties", "protocol": "protocols", "seed": "seeds"}
    numbers = {noun: len({getattr(spec, axis) for spec in specs}) for axis, noun in axes.items()}
    return "; ".join([", ".join(parts), *(f"{n} {noun}" for noun, n in numbers.items() if n > 1)])


def named(names: Iterable[str], limit: int = 6) -> str:
    """List names, each once; only the first ones if there are many."""
    known = list(dict.fromkeys(names))
    more = [f"and {len(known) - limit} more"] if len(known) > limit else []
    return ", ".join([*known[:limit], *more])


def as_json(
    matrix: Matrix,
    ledger: Ledger,
    estimated: Sequence[Estimate],
    nodes: NodePlan | None = None,
    now: Progress | None = None,
) -> str:
    """Write everything that is known about each cell as JSON.

    For a running cell, `lease` names the process that trains it.

    Args:
        matrix: The matrix.
        ledger: The state of its cells.
        estimated: The estimate of each cell, in the ledger's order.
        nodes: The jobs of workers that `submit` would submit; None if it would submit none.
        now: The processes that train cells, and the workers that look for one; None: unknown.
    """
    cells = [
        {
            "folder": status.name,
            "state": status.state,
            "detail": status.detail,
            "log": status.log,
            "cause": status.cause,
            "resumable": status.resumable,
            "lease": msgspec.structs.asdict(status.lease) if status.lease else None,
            **measured(status),
            "spec": dataclasses.asdict(status.cell.spec),
            "origin": status.origin,
            "resources": dataclasses.asdict(status.cell.resources),
            "estimate": dataclasses.asdict(estimate),
        }
        for status, estimate in zip(ledger.cells, estimated, strict=True)
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
    if nodes:
        value["whole_nodes"] = nodes.facts()
    if now:
        value["workers"] = [dataclasses.asdict(process) for process in now.at_work]
        value["minutes_left"] = now.minutes_left
        value["left_alone"] = now.left_alone
    return json.dumps(value, indent=1, ensure_ascii=False)


def measured(status: CellStatus) -> dict:
    """Return the test MAE of a done cell and its unit; None for other cells."""
    is_done = status.state == CellState.DONE and status.result is not None
    return {
        "test_mae": status.result.test_mae if is_done and status.result else None,
        "unit": status.result.unit if is_done and status.result else None,
    }
