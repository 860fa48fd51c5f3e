"""Sweeps: a matrix of trainings, of which only what is missing or failed is run.

    python -m irnet_hpc.sweep plan jobs/smoke.yaml      the cells, their states and what they will cost; starts nothing
    python -m irnet_hpc.sweep run jobs/smoke.yaml       missing packs, then cell after cell, here and now
    python -m irnet_hpc.sweep submit jobs/smoke.yaml    the same through SLURM, or in the background where there is none
    python -m irnet_hpc.sweep status jobs/smoke.yaml    how it goes; --watch to look again

Every command may be killed and repeated. Exit status: 0, 1 if a cell failed in `run`, 2 for a user's mistake.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from irnet_hpc import journal
from irnet_hpc.costs import DEVICES
from irnet_hpc.errors import UserError, exit_status
from irnet_hpc.estimates import estimates, in_words, of_cell
from irnet_hpc.ledger import STATES, Entry, Ledger, read_ledger
from irnet_hpc.matrix import Matrix, read_matrix
from irnet_hpc.running import run_here
from irnet_hpc.sharing import AUTO, bundles_of, gpu_gb_here, of_bundles
from irnet_hpc.submission import gpu_gb, max_array_size, read_site, to_background, to_slurm


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    results = Path(arguments.results)
    pack_dir = Path(arguments.pack_dir) if arguments.pack_dir else None
    matrix = read_matrix(arguments.matrix, pack_dir)
    if arguments.command == "plan":
        return plan(matrix, results, arguments)
    if arguments.command == "status":
        return status(matrix, results, pack_dir, arguments.watch, arguments.json)
    if arguments.command == "submit":  # jobs may start elsewhere
        results, pack_dir = results.resolve(), pack_dir and pack_dir.resolve()
    is_run = arguments.command == "run"
    with contextlib.ExitStack() as lock:
        if not (is_run and arguments.token):  # else the `submit` that started this holds it until we have begun
            lock.enter_context(journal.alone(results))
        ledger = read_ledger(matrix, results)
        check_budget(matrix, ledger, arguments.over_budget)
        if is_run:
            options = {"stale": arguments.stale, "n_ranks": arguments.ranks, "token": arguments.token}
            options["bundle"] = arguments.bundle
            return min(1, run_here(matrix, ledger, results, pack_dir, lock.close, **options))
        return submit(matrix, ledger, results, pack_dir, arguments)


def check_budget(matrix: Matrix, ledger: Ledger, over_budget: bool) -> None:
    """Raise UserError where the cells that are not done may cost more than the matrix allows."""
    asked, budget = ledger.asked_hours(), matrix.budget_device_hours
    if budget is not None and asked > budget and not over_budget:
        raise UserError(
            f"budget_device_hours of {matrix.path} must cover the cells that are not done, "
            f"however: {budget:,g} and {asked:,.1f}; raise it, or use --over-budget"
        )


def submit(matrix: Matrix, ledger: Ledger, results: Path, pack_dir: Path | None, arguments: argparse.Namespace) -> int:
    """Hand what is missing or failed, and not queued, to SLURM or to a process in the background."""
    print("\n".join(summary(matrix, ledger)), flush=True)
    entries = ledger.to_do(arguments.stale)
    unknown = [pack.name for pack in matrix.packs if not pack.exists and "all" in pack.properties]
    if not entries and not unknown:
        print(f"nothing to submit; the tables: python -m irnet_hpc.aggregate {results}")
        return 0
    array_size = max_array_size() if arguments.cluster in (None, "slurm") else None
    if array_size is None and arguments.cluster == "slurm":
        raise UserError("--cluster slurm needs SLURM's commands on PATH and a cluster that they know")
    if array_size is None:
        options = ["--results", str(results), *(["--pack-dir", str(pack_dir)] if pack_dir else [])]
        options += ["--stale"] * arguments.stale + ["--over-budget"] * arguments.over_budget
        options += ["--bundle", str(arguments.bundle)]
        log, process = to_background(matrix, results, options)
        print(f"started {len(entries)} cells in the background, one after the other; to stop: kill {process}")
    elif unknown:
        raise UserError(
            f"properties: all needs the pack first, however: {', '.join(unknown)} is not built; "
            "name the properties, or build it with python -m irnet_hpc.pack"
        )
    else:
        site = read_site(arguments.site)
        log = to_slurm(matrix, ledger, entries, results, pack_dir, site, array_size, arguments.bundle)
        print(f"submitted {len(entries)} cells to SLURM")
    where = "".join(f" --{name} {value}" for name, value in given(arguments).items())
    print(f"watch: python -m irnet_hpc.sweep status {matrix.path}{where} --watch\nthe tables will be in {log}")
    return 0


def given(arguments: argparse.Namespace) -> dict[str, str]:
    """The options that say where things are, for a command to type next."""
    places = {"results": arguments.results, "pack-dir": arguments.pack_dir}
    return {name: value for name, value in places.items() if value not in (None, "results")}


# ------------------------------------------------------------------------------------------------------ plan and status


def plan(matrix: Matrix, results: Path, arguments: argparse.Namespace) -> int:
    """What `run` would do here; of `submit`, which asks a site, --site says what it would."""
    ledger = read_ledger(matrix, results)
    if arguments.json:
        print(as_json(matrix, ledger, arguments.device))
        return 0
    entries, site = ledger.to_do(), read_site(arguments.site)
    memory_gb = gpu_gb(site, entries) if site.gpu_gb else gpu_gb_here()
    together = of_bundles(bundles_of(matrix, entries, arguments.bundle, memory_gb))
    width = max((len(entry.name) for entry in ledger.entries), default=0)
    of_cells, lines = estimates(matrix, ledger, arguments.device), []
    for entry, estimate in zip(ledger.entries, of_cells, strict=True):
        details = (entry.detail, together.get(entry.name), of_cell(entry, estimate))
        said = "; ".join(filter(None, details))
        lines.append(f"{entry.state:8} {entry.name:{width}}  {said}".rstrip())
    lines += [f"dropped  {d.product}: {d.reason} ({d.n_cells} cells)" for d in matrix.dropped]
    print("\n".join([*lines, *summary(matrix, ledger), *in_words(ledger, of_cells)]))
    return 0


def status(matrix: Matrix, results: Path, pack_dir: Path | None, watch_s: float | None, json_wanted: bool) -> int:
    ends: dict[str, str] = {}
    while True:
        ledger = read_ledger(matrix, results, ends)
        if json_wanted:
            print(as_json(matrix, ledger), flush=True)
        else:
            clear = "\033[H\033[2J" if watch_s and sys.stdout.isatty() else ""
            print(clear + "\n".join([*status_table(ledger), *summary(matrix, ledger)]), flush=True)
        if not watch_s or not any(entry.state in ("queued", "running") for entry in ledger.entries):
            return 0
        time.sleep(watch_s)
        matrix = read_matrix(matrix.path, pack_dir)  # its packs may have been built by now


def status_table(ledger: Ledger) -> list[str]:
    """Counts for each pack, property and model, then a line for each cell that runs or has failed."""
    rows: dict[str, Counter] = {}
    for entry in ledger.entries:
        spec = entry.cell.spec
        rows.setdefault(f"{spec.pack}/{spec.property}/{spec.model}", Counter())[entry.state] += 1
    width = max(map(len, rows), default=0)
    lines = [f"{'':{width}} " + "".join(f"{state:>9}" for state in STATES)]
    lines += [f"{name:{width}} " + "".join(f"{n[state] or '·':>9}" for state in STATES) for name, n in rows.items()]
    running = [entry for entry in ledger.entries if entry.state == "running"]
    failed = [entry for entry in ledger.entries if entry.state == "failed"]
    lines += [f"running {entry.name}: {entry.detail}{progress(entry)}" for entry in running]
    lines += [f"failed {e.name}: {e.detail}" + (f"; log {e.log}" if e.log else "") for e in failed]
    return lines


def progress(entry: Entry) -> str:
    """Where a running cell is, from the last line of its history."""
    try:
        epoch, *_, mae, _seconds = (entry.folder / "history.csv").read_text().splitlines()[-1].split(",")
        return f", epoch {int(epoch) + 1} of at most {entry.cell.recipe.epochs}, MAE {float(mae):.4g}"
    except (OSError, ValueError, IndexError):
        return ""


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
    budget = "" if matrix.budget_device_hours is None else f" of a budget of {matrix.budget_device_hours:,g}"
    n_open = len(ledger.entries) - counts["done"] - counts["stale"]
    lines.append(
        f"cost: {n_open} cells ask for at most {ledger.asked_hours():,.2f} device-hours{budget}; done ones took {used:,.2f}"
    )
    return lines


def as_json(matrix: Matrix, ledger: Ledger, device: str | None = None) -> str:
    cells = [
        {
            "folder": entry.name,
            "state": entry.state,
            "detail": entry.detail,
            "log": entry.log,
            "test_mae": entry.result.test_mae if entry.state == "done" else None,
            "unit": entry.result.unit if entry.state == "done" else None,
            "spec": dataclasses.asdict(entry.cell.spec),
            "origin": entry.origin,
            "resources": dataclasses.asdict(entry.cell.resources),
            "estimate": dataclasses.asdict(estimate),
        }
        for entry, estimate in zip(ledger.entries, estimates(matrix, ledger, device), strict=True)
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


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, however: {text!r}")
    return int(text)


def bundle(text: str) -> str | int:
    return AUTO if text == AUTO else at_least_one(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:  # nor is nan
        raise argparse.ArgumentTypeError(f"must be seconds above 0, a day at most, however: {text!r}")
    return value


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    return parser().parse_args(argv)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m irnet_hpc.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="plan|run|submit|status")
    for name in ("plan", "run", "submit", "status"):
        command = commands.add_parser(name)
        add = command.add_argument
        add("matrix", metavar="MATRIX", help="a YAML file, e.g. jobs/smoke.yaml")
        add("--results", default="results", help="default: %(default)s")
        add("--pack-dir", help="default: $IRNET_PACKS, else packs")
        if name in ("plan", "status"):
            add("--json", action="store_true", help="for a program to read")
        if name == "plan":
            add("--device", choices=DEVICES, help="of a rank, for the estimates; default: gpu where one is asked for")
        if name == "status":
            add(
                "--watch", type=seconds, nargs="?", const=10, metavar="SECONDS", help="look again until nothing is left"
            )
        if name != "status":
            text = (
                "cells trained together at most, as one network, or auto: what a GPU holds, on a CPU 1 (default: auto)"
            )
            add("--bundle", type=bundle, default=AUTO, metavar="K|auto", help=text)
        if name in ("run", "submit"):
            add("--stale", action="store_true", help="also what has a result of another recipe, pack or version")
            add("--over-budget", action="store_true", help="even if it may cost more than budget_device_hours")
        if name == "run":
            add("--ranks", type=at_least_one, help="of each cell, instead of the matrix's; the results are the same")
            add("--token", help=argparse.SUPPRESS)  # names the journal for the `submit` that started this
        if name == "submit":
            add("--cluster", choices=("slurm", "local"), help="default: slurm where it answers, else local")
        if name in ("plan", "submit"):
            add("--site", help="a name in env/sites or a YAML file; default: $IRNET_SITE")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main))
