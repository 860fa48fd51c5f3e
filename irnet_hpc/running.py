"""Run a matrix on this machine: the packs that are missing, then cell after cell, each in processes of its own."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from irnet_hpc import journal
from irnet_hpc.errors import UserError
from irnet_hpc.jobs import outside_any_job, pack_command, train_options
from irnet_hpc.ledger import Entry, Ledger, error_of, read_ledger
from irnet_hpc.matrix import Matrix, read_matrix
from irnet_hpc.matrix_packs import MatrixPack
from irnet_hpc.runs import read_result, run_folder

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
) -> int:
    """Build what is missing and train what is missing or failed; go on after a failure. Returns the number of failures.

    `taken_up` is called as soon as the journal says what this process will do.
    """
    began = time.monotonic()
    entries = ledger.to_do(stale)
    missing = [pack for pack in matrix.packs if not pack.exists]
    if not entries and not any("all" in pack.properties for pack in missing):
        counts = ", ".join(f"{n} {state}" for state, n in ledger.counts().items() if n)
        print(f"{matrix.name}: nothing to run ({counts}); next: python -m irnet_hpc.aggregate {results}")
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    # From here on, and until this process ends, nobody else takes these cells up.
    cells = [{"cell": entry.name} for entry in entries]
    path = journal.begin(results, matrix.name, "local", journal.process_name(os.getpid()), token, cells)
    taken_up()
    broken = _build(missing, {entry.cell.spec.pack for entry in entries})
    if missing:  # now it is known which properties they have
        matrix = read_matrix(matrix.path, pack_dir)
        with journal.alone(results):
            entries = read_ledger(matrix, results, but_of=journal.token_of(path)).to_do(stale)
            journal.note(path, [{"cell": entry.name} for entry in entries])

    failures = [f"failed pack {name}: status {status}; its cells were left out" for name, status in broken.items()]
    entries, done = [entry for entry in entries if entry.cell.spec.pack not in broken], set()
    try:
        for i, entry in enumerate(entries):
            where = f"[{i + 1}/{len(entries)}]"
            problem = _without_origin(entry, {one.name for one in entries[:i]} - done, results)
            if problem:
                print(f"{where} {entry.name} left out: {problem}", flush=True)
                journal.note(path, [{"cell": entry.name, "ended": "left out"}])
            else:
                problem = _train(entry, n_ranks, where, results, pack_dir, path)
            done |= set() if problem else {entry.name}
            failures += [f"failed {entry.name}: {problem}"] if problem else []
    except KeyboardInterrupt:
        print(f"stopped after {len(done)} of {len(entries)} cells; the same command goes on", flush=True)
        raise
    seconds = time.monotonic() - began
    print(f"{matrix.name}: {len(done)} cells done, {len(failures)} failures, in {seconds:.0f} s", *failures, sep="\n")
    print(f"next: python -m irnet_hpc.aggregate {results}", flush=True)
    return len(failures)


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
    lacking = origin and (entry.origin in not_done or not (run_folder(results, origin.spec) / "result.json").exists())
    return f"its origin {entry.origin} is not done" if lacking else None


def train_command(entry: Entry, n_ranks: int, results: Path, pack_dir: Path | None) -> list[str]:
    """The command of a cell on this machine: one process, or horovodrun over Gloo, which needs neither MPI nor ssh."""
    command = [sys.executable, "-u", "-m", "irnet_hpc.train", *train_options(entry, results, pack_dir)]
    return command if n_ranks == 1 else [*horovodrun(n_ranks), *command]


def horovodrun(n_ranks: int) -> list[str]:
    """What starts a command on several ranks of this machine."""
    beside = Path(sys.executable).with_name("horovodrun")  # of this environment, whether or not it is activated
    launcher = str(beside) if beside.exists() else shutil.which("horovodrun")
    if not launcher:
        raise UserError(f"{n_ranks} ranks need horovodrun, which is not here; run env/setup.sh, or use --ranks 1")
    return [launcher, "--gloo", "-np", str(n_ranks)]


def _train(
    entry: Entry, n_ranks: int | None, where: str, results: Path, pack_dir: Path | None, path: Path
) -> str | None:
    """Train one cell, a line before and a line after. Returns what went wrong, None if it is done."""
    n_ranks, began, log = n_ranks or entry.cell.resources.n_ranks, time.monotonic(), entry.folder / "train.log"
    n_ranks = 1 if entry.cell.spec.is_classical else n_ranks  # whatever --ranks says for the networks beside it
    print(f"{where} {entry.name} on {n_ranks} rank{'s'[: n_ranks > 1]}; log {log}", flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    already = log.stat().st_size if log.exists() else 0  # of earlier attempts
    command, ended = train_command(entry, n_ranks, results, pack_dir), "interrupted"
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with _started(command, log, entry.cell.resources.cpus_per_rank) as process:
            name = journal.process_name(process.pid)
            journal.note(path, [{"cell": entry.name, "process": name, "ended": None, "log": str(log)}])
            status = process.wait()
        ended = f"ended with status {status}"
    finally:
        journal.note(path, [{"cell": entry.name, "ended": ended}])
    if status:
        problem = _why(entry.folder, started, status, log.read_bytes()[already:].decode(errors="replace"))
        print(f"{where} failed: {problem}", flush=True)
        return f"{problem}; log {log}"
    result = read_result(entry.folder / "result.json")
    print(f"{where} MAE {result.test_mae:.4g} {result.unit} in {time.monotonic() - began:.0f} s", flush=True)
    return None


def _why(folder: Path, started: str, status: int, said: str) -> str:
    """The sentence that a training left which failed since `started`, else the last line that it said and not horovodrun."""
    if error := error_of(folder, started):
        return str(error.get("error"))
    lines = [line for line in said.splitlines() if line.strip()]
    of_ranks = [line.partition(">:")[2] for line in lines if re.match(r"\[\d+\]<std(out|err)>:.*\S", line)]
    return f"status {status}: {([''] + (of_ranks or lines))[-1].strip()[:300] or 'it said nothing'}"


@contextlib.contextmanager
def _started(command: list[str], log: Path | None = None, n_threads: int | None = None) -> Iterator[subprocess.Popen]:
    """A command in a session of its own, so that Ctrl-C comes to us alone: then it may write its checkpoint and must end."""
    threads = {"OMP_NUM_THREADS": str(n_threads)} if n_threads and "OMP_NUM_THREADS" not in os.environ else {}
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
