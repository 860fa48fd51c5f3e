"""Once the trainings of a submission have ended: those that lacked memory or time are submitted once more, with more.

The job of SLURM's between the trainings and the tables; `python -m irnet_hpc.sweep reconcile` is its command. The tables,
which wait for this job, are made to wait for what it submits. `retry` of the matrix says how much more there may be.
"""

import dataclasses
import os
import subprocess
from pathlib import Path

from irnet_hpc import journal
from irnet_hpc.errors import UserError
from irnet_hpc.ledger import TO_DO, Entry, Ledger, read_ledger
from irnet_hpc.matrix import Matrix
from irnet_hpc.resources import with_more
from irnet_hpc.sites import Site
from irnet_hpc.submission import afterany, hand_over


def reconcile(
    matrix: Matrix,
    results: Path,
    pack_dir: Path | None,
    site: Site,
    array_size: int,
    token: str,
    over_budget: bool,
    *,
    bundle: str | int = 1,
    at_most: int | None = None,
) -> None:
    """Try again what may be, and say what and why. Nobody else may be about to submit (journal.alone).

    Of a bundle only the cells without a result come again: together where they lacked time, each alone where memory.
    """
    ledger, attempts = read_ledger(matrix, results), journal.attempts(results)
    ours = [
        entry
        for entry in ledger.entries
        if (attempt := attempts.get(("cell", entry.name))) and attempt.token == token and not attempt.again
    ]
    entries, told = to_try_again(matrix, ledger, ours)
    print("\n".join(told) or "nothing has ended for lack of memory or time", flush=True)
    asked, budget = sum(entry.cell.resources.device_hours for entry in entries), matrix.budget_device_hours
    if budget is not None and asked > budget and not over_budget:
        raise UserError(
            f"budget_device_hours of {matrix.path} must cover what is tried again, however: {budget:,g} and {asked:,.1f}"
        )
    if not entries:
        return
    _, jobs, refused = hand_over(
        matrix, ledger, entries, results, pack_dir, site, array_size, again=True, bundle=bundle, at_most=at_most
    )
    tables = journal.tables_of(results, token)
    if tables:  # it waits for us, who have not ended: it cannot have begun
        jobs += [os.environ["SLURM_JOB_ID"]] if "SLURM_JOB_ID" in os.environ else []
        command = ["scontrol", "update", f"JobId={tables}", f"Dependency={afterany(jobs)}"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if told.returncode:
            print(f"note: the tables will be made without waiting: {' '.join(told.stderr.split())}", flush=True)
    print(f"submitted {len(entries)} cells once more", flush=True)
    if refused:
        raise refused


def to_try_again(matrix: Matrix, ledger: Ledger, ours: list[Entry]) -> tuple[list[Entry], list[str]]:
    """The cells to submit, with what they now ask for, among `ours`; and a line on each that lacked something.

    What starts from such a cell went with it where that failed, and comes again with it, as it was.
    """
    entries, told, names = [], [], set()
    for entry in ours if matrix.retry else []:
        if entry.state not in TO_DO:
            continue
        before = entry.cell.resources
        resources = before if entry.origin in names else None
        if entry.cause:
            resources = with_more(before, entry.cause, matrix.retry)
            field = {"memory": "memory_gb", "time": "minutes"}[entry.cause]
            what = f"{entry.name}: {entry.detail}; {field} {getattr(before, field):g}"
            told.append(
                f"{what} -> {getattr(resources, field):g}" if resources else f"{what}, which is all it may have"
            )
        if resources:
            cell = dataclasses.replace(entry.cell, resources=resources)
            entries.append(dataclasses.replace(entry, cell=cell))
            names.add(entry.name)
    return entries, told
