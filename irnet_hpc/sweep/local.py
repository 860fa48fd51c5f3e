"""Run a matrix on this machine: the packs that are missing, then cell after cell, each in processes of its own."""

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.processes import process_name
from irnet_hpc.errors import UserError
from irnet_hpc.runs import lease
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.spec import run_folder
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.bundles import AUTO, Bundle, bundles_of, gpu_gb_here
from irnet_hpc.sweep.estimates import estimates
from irnet_hpc.sweep.jobs import outside_any_job, pack_command, train_options
from irnet_hpc.sweep.ledger import Entry, Ledger, error_of, last_words, read_ledger, result_of
from irnet_hpc.sweep.matrix.matrix import Matrix, read_matrix
from irnet_hpc.sweep.matrix.packs import MatrixPack
from irnet_hpc.sweep.progress import Cells, are_through, are_tried_again, say, shown, waited

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)  # a process's status, and a shell's or launcher's
STOP_S = 30  # for a training that is told to stop to write its checkpoint


def run_here(
    matrix: Matrix,
    ledger: Ledger,
    results: Path,
    pack_dir: Path | None,
    taken_up: Callable[[], None],
    *,
    stale: bool = False,
    n_ranks: int | None = None,
    token: str | None = None,
    bundle: str | int = AUTO,
) -> int:
    """Build what is missing and train what is missing or failed; go on after a failure. Returns the number of failures.

    `taken_up` is called as soon as the journal says what this process will do.
    """
    began = time.monotonic()
    entries = ledger.to_do(stale)
    missing = [pack for pack in matrix.packs if not pack.exists]
    if not entries and not any("all" in pack.properties for pack in missing):
        counts = ", ".join(f"{n} {state}" for state, n in ledger.counts().items() if n)
        print(f"{matrix.name}: nothing to run ({counts})\nnext: {next_step(matrix, results)}")
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    # From here on, and until this process ends, nobody else takes these cells up.
    cells = [{"cell": entry.name} for entry in entries]
    path = journal.begin(results, matrix.name, "local", process_name(os.getpid()), token, cells)
    taken_up()
    broken = _build(missing, {entry.cell.spec.pack for entry in entries})
    if missing:  # now it is known which properties they have
        matrix = read_matrix(matrix.path, pack_dir)
        with journal.alone(results):
            now = read_ledger(matrix, results, but_of=journal.token_of(path))
            ledger = dataclasses.replace(now, chosen=ledger.chosen)
            entries = ledger.to_do(stale)
            journal.note(path, [{"cell": entry.name} for entry in entries])

    failures = [
        f"failed pack {name}: status {status}; its cells were left out"
        for name, status in broken.items()
    ]
    entries, done = [entry for entry in entries if entry.cell.spec.pack not in broken], set()
    gpu_gb, pairs = gpu_gb_here(), zip(ledger.entries, estimates(matrix, ledger), strict=True)
    minutes, where = (
        {entry.name: of.minutes for entry, of in pairs},
        (n_ranks, results, pack_dir, path),
    )
    try:
        with shown([entry.name for entry in entries], minutes) as cells:
            problems = _round(bundles_of(matrix, entries, bundle, gpu_gb), done, cells, *where)
            # By now the other process may have finished it, or be gone; and the memory may be free.
            later = [
                _later(entry, problems[entry.name])
                for entry in entries
                if _look_again(entry, problems)
            ]
            if later:
                say(f"looking again at {len(later)} cells")
                names = [one.name for one in later]
                are_tried_again(cells, names)
                problems = {
                    name: problem for name, problem in problems.items() if name not in names
                }
                problems |= _round(bundles_of(matrix, later, bundle, gpu_gb), done, cells, *where)
    except KeyboardInterrupt:
        print(
            f"stopped after {len(done)} of {len(entries)} cells; the same command goes on",
            flush=True,
        )
        raise
    elsewhere = [
        f"{name}: {problem.text}" for name, problem in problems.items() if problem.elsewhere
    ]
    failures += [
        f"failed {name}: {problem.text}"
        for name, problem in problems.items()
        if not problem.elsewhere
    ]
    counts = (
        f"{len(done)} cells done, {len(failures)} failures"
        + f", {len(elsewhere)} elsewhere" * bool(elsewhere)
    )
    seconds = time.monotonic() - began
    print(
        f"{matrix.name}: {counts}, in {seconds:.0f} s; results in {results}",
        *failures,
        *elsewhere,
        sep="\n",
    )
    print(f"next: {next_step(matrix, results)}", flush=True)
    return len(failures)


def next_step(matrix: Matrix, results: Path) -> str:
    """The tables of what is done; of what is not, they say why."""
    return shlex.join(
        ["python", "-m", "irnet_hpc.aggregate", str(results), "--matrix", str(matrix.path)]
    )


class Problem(NamedTuple):
    """Why a cell is not done."""

    text: str
    elsewhere: bool = False  # another process trains it
    killed: bool = False  # by signal 9, as Linux does to what takes too much memory

    @property
    def look_again(self) -> bool:
        return self.elsewhere or self.killed


def _look_again(entry: Entry, problems: dict[str, Problem]) -> bool:
    """Whether a cell that is not done, or the one that it starts from, may do better when the others are through."""
    problem = problems.get(entry.name)
    origin = problems.get(entry.origin) if entry.origin else None
    return problem is not None and (
        problem.look_again or (origin is not None and origin.look_again)
    )


def _later(entry: Entry, problem: Problem) -> Entry:
    """A cell as it is looked at again: what was killed for its memory shares it with no other (sharing.py)."""
    return dataclasses.replace(entry, cause="memory") if problem.killed else entry


def _round(
    bundles: list[Bundle],
    done: set[str],
    cells: Cells,
    n_ranks: int | None,
    results: Path,
    pack_dir: Path | None,
    path: Path,
) -> dict[str, Problem]:
    """Train one bundle after the other, and add to `done` the cells that are. Returns the problems of the others."""
    problems: dict[str, Problem] = {}
    for i, bundle in enumerate(bundles):
        where, (entry, *_), began = f"[{i + 1}/{len(bundles)}]", bundle, time.monotonic()
        if text := _without_origin(
            entry, {one.name for before in bundles[:i] for one in before} - done, results
        ):
            say(f"{where} {entry.name} left out: {text}")
            journal.note(path, [{"cell": entry.name, "ended": "left out"}])
            found = {entry.name: Problem(text)}
        else:
            found = {}
            for one in bundle:
                if who := _trained_elsewhere(one.folder):
                    say(f"{where} {one.name} is being trained elsewhere, by {who}")
                    found[one.name] = Problem(
                        f"is being trained elsewhere, by {who}", elsewhere=True
                    )
            if here := tuple(one for one in bundle if one.name not in found):
                found |= _train(here, cells, n_ranks, where, results, pack_dir, path)
        are_through(cells, [one.name for one in bundle], time.monotonic() - began)
        done |= {one.name for one in bundle} - found.keys()
        problems |= found
    return problems


def _trained_elsewhere(folder: Path) -> str | None:
    """Who trains a run now."""
    seen = lease.read_lease(folder)
    is_live = seen and not lease.is_expired(seen, lease.file_server_time(folder))
    return str(seen.lease) if is_live else None


def _build(packs: Iterable[MatrixPack], wanted: set[str]) -> dict[str, int]:
    """Build the packs that have cells, or whose properties are still unknown. Returns pack -> status where it failed."""
    broken = {}
    for pack in packs:
        if pack.name in wanted or "all" in pack.properties:
            print(f"pack {pack.name}: {' '.join(pack_command(pack)[1:])}", flush=True)
            with _started(pack_command(pack)) as process:
                if status := process.wait():
                    broken[pack.name] = status
    return broken


def _without_origin(entry: Entry, not_done: set[str], results: Path) -> str | None:
    """Why a cell cannot start: the one that it starts from is among those that were tried and are not done, or has not
    been trained. None where nothing is in its way."""
    origin = entry.cell.origin
    lacking = origin and (
        entry.origin in not_done or not (run_folder(results, origin.spec) / "result.json").exists()
    )
    return f"its origin {entry.origin} is not done" if lacking else None


def train_command(
    entry: Entry, n_ranks: int, results: Path, pack_dir: Path | None, *others: Entry
) -> list[str]:
    """The command of a cell, and others together with it, on this machine: one process, or horovodrun over Gloo, which needs
    neither MPI nor ssh."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "irnet_hpc.train",
        *train_options(entry, results, pack_dir, *others),
    ]
    return command if n_ranks == 1 else [*horovodrun(n_ranks), *command]


def horovodrun(n_ranks: int) -> list[str]:
    """What starts a command on several ranks of this machine."""
    beside = Path(sys.executable).with_name(
        "horovodrun"
    )  # of this environment, whether or not it is activated
    launcher = str(beside) if beside.exists() else shutil.which("horovodrun")
    if not launcher:
        raise UserError(
            f"{n_ranks} ranks need horovodrun, which is not here; run env/setup.sh, or use --ranks 1"
        )
    return [launcher, "--gloo", "-np", str(n_ranks)]


def _train(
    bundle: Bundle,
    cells: Cells,
    n_ranks: int | None,
    where: str,
    results: Path,
    pack_dir: Path | None,
    path: Path,
) -> dict[str, Problem]:
    """Train the cells of a bundle, a line before and a line after each. Returns cell -> what went wrong with it."""
    entry, *others = bundle
    n_ranks, began, log = (
        n_ranks or entry.cell.resources.n_ranks,
        time.monotonic(),
        entry.folder / "train.log",
    )
    n_ranks = (
        1 if entry.cell.spec.is_classical else n_ranks
    )  # whatever --ranks says for the networks beside it
    for one in bundle:
        beside = "" if one is entry else ", together with the one before"
        say(f"{where} {one.name} on {n_ranks} rank{'s'[: n_ranks > 1]}{beside}; log {log}")
    log.parent.mkdir(parents=True, exist_ok=True)
    already = log.stat().st_size if log.exists() else 0  # of earlier attempts
    command, ended = train_command(entry, n_ranks, results, pack_dir, *others), "interrupted"
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with _started(command, log, entry.cell.resources.cpus_per_rank) as process:
            name = process_name(process.pid)
            event = {"process": name, "ended": None, "log": str(log), "bundle": len(bundle)}
            journal.note(path, [{"cell": one.name} | event for one in bundle])
            status = waited(cells, process, entry)
        ended = f"ended with status {status}"
    finally:
        journal.note(path, [{"cell": one.name, "ended": ended} for one in bundle])
    said, problems = log.read_bytes()[already:].decode(errors="replace"), {}
    for one in bundle:
        if status and not (
            others and _has_new_result(one)
        ):  # with others it may be done though they are not
            problem = _problem(one, started, status, said)
            say(f"{where} {'' if problem.elsewhere else 'failed: '}{problem.text}")
            problems[one.name] = (
                problem
                if problem.elsewhere
                else problem._replace(text=f"{problem.text}; log {log}")
            )
            continue
        result = read_result(one.folder / "result.json")
        say(f"{where} MAE {result.test_mae:.4g} {result.unit} in {time.monotonic() - began:.0f} s")
    return problems


def _has_new_result(entry: Entry) -> bool:
    """Whether a result is there, and not the one because of which the cell was stale."""
    result, _ = result_of(entry.folder / "result.json")
    return result is not None and not (entry.result and entry.result.key == result.key)


def _problem(entry: Entry, started: str, status: int, said: str) -> Problem:
    """Why a training that `said` so much, and ended with this status, has not done a cell."""
    if who := _trained_elsewhere(
        entry.folder
    ):  # taken up a moment before us, or taken over from us
        return Problem(f"is being trained elsewhere, by {who}", elsewhere=True)
    if _status_of_ranks(status, said) == ExitStatus.HELD and not error_of(entry.folder, started):
        return Problem("was being trained elsewhere, and has no result", elsewhere=True)
    return Problem(_why(entry.folder, started, status, said), killed=status in KILLED)


def _status_of_ranks(status: int, log: str) -> int:
    """Return the exit status of a training.

    horovodrun itself ends with 1, and prints the status of the first rank that failed.
    """
    first = re.search(r"^Exit code: (\d+)$", log, re.MULTILINE) if status == 1 else None
    return int(first[1]) if first else status


def _why(folder: Path, started: str, status: int, said: str) -> str:
    """The sentence that a training left which failed since `started`, else its last words."""
    if error := error_of(folder, started):
        return str(error.get("error"))
    return f"status {status}: {last_words(said) or 'it said nothing'}"


@contextlib.contextmanager
def _started(
    command: list[str], log: Path | None = None, n_threads: int | None = None
) -> Iterator[subprocess.Popen]:
    """A command in a session of its own, so that Ctrl-C comes to us alone: then it may write its checkpoint and must end."""
    threads = (
        {"OMP_NUM_THREADS": str(n_threads)}
        if n_threads and "OMP_NUM_THREADS" not in os.environ
        else {}
    )
    with outside_any_job(), log.open("ab") if log else contextlib.nullcontext() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            env=os.environ | threads,
            start_new_session=True,
        )
    try:
        yield process
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired, ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(STOP_S)
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
