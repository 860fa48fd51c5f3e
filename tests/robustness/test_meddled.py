"""Meddle with trainings while they run: nothing that is kept is wrong, and errors are sentences.

All processes are real. IRNET_FUZZ=1 tries each fault on one rank and on two.
"""

import contextlib
import csv
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.processes import process_name
from irnet_hpc.files import read_json
from irnet_hpc.runs import lease
from irnet_hpc.sweep.cell_process import horovodrun
from tests.robustness.test_guards import UNSHARE, can_mount
from tests.robustness.test_killed import QUICK, ROOT, ended, kill_all, same_run, train_command

pytestmark = pytest.mark.slow
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "HOROVOD_STALL_CHECK_DISABLE": "1",
}
RANKS = ("one rank", "two ranks")
MORE = bool(os.environ.get("IRNET_FUZZ"))


def launcher(ranks: str) -> list[str]:
    if ranks == "one rank":
        return []
    pytest.importorskip("horovod")
    return horovodrun(2)


def started(command: list, **environment: object) -> subprocess.Popen:
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env=ENVIRONMENT | {name: str(value) for name, value in environment.items()},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(holds: Callable[[], object], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def n_epochs(results: Path) -> int:
    """Epochs in the history of the one run that is there."""
    with contextlib.suppress(FileNotFoundError):
        for path in results.rglob("history.csv"):
            return len(path.read_text().splitlines()) - 1
    return 0


def errors_of(said: str) -> list[str]:
    """List the error sentences of an output; horovodrun may add a traceback of its own."""
    assert "<stderr>:Traceback" not in said and (
        "Traceback" not in said or "bin/horovodrun" in said
    ), said
    return [line.partition("error: ")[2] for line in said.splitlines() if "error: " in line]


def endless(pack: Path, results: Path) -> list:
    command = train_command(pack, str(results))
    return [
        part.replace("epochs: 40", "epochs: 100000") if part == QUICK else part for part in command
    ]


@pytest.mark.parametrize("ranks", RANKS if MORE else RANKS[:1])
def test_a_training_whose_folder_is_taken_away_says_so_and_makes_no_new_one(
    ranks, alloys_pack, tmp_path
):
    results = tmp_path / "results"
    process = started([*launcher(ranks), *endless(alloys_pack, results)])
    wait_until(lambda: n_epochs(results) >= 3)
    run = next(results.rglob("history.csv")).parent
    run.rename(tmp_path / "elsewhere")
    said, _ = process.communicate(timeout=600)
    assert (
        process.returncode
        and not run.exists()
        and (ranks == "two ranks" or process.returncode == 2)
    )
    assert (
        f"{run} no longer exists: somebody has removed or renamed it; the training stops"
        in errors_of(said)[0]
    )
    run.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "elsewhere").rename(run)  # and back: it goes on
    process = started([*launcher(ranks), *endless(alloys_pack, results)])
    wait_until(lambda: n_epochs(results) >= 6)
    process.terminate()
    assert "resuming at epoch" in process.communicate(timeout=600)[0]


ON_A_DISK = """mount -t tmpfs -o size=6m tmpfs $D || exit 99
"$@" >$LOG 2>&1 &
until [ $(cat $(find $D -name history.csv) /dev/null | wc -l) -gt 4 ]; do sleep 0.05; done
$FAULT
wait $!; first=$?
$REPAIR
"$@" >>$LOG.again 2>&1; second=$?
rm -rf $KEPT; cp -r $D $KEPT
exit $((first * 10 + second))
"""
FAULTS = {  # while it trains -> what is done then, and what is said
    "full": (
        "head -c 6000000 /dev/zero >$D/filler 2>/dev/null",
        "rm $D/filler",
        "No space left on device|cannot write",
    ),
    "read-only": (
        "until mount -o remount,ro $D 2>/dev/null; do :; done",
        "mount -o remount,rw $D",
        "Read-only file system",
    ),
}


PAIRS = [(fault, ranks) for fault in FAULTS for ranks in RANKS]


@pytest.mark.parametrize(("fault", "ranks"), PAIRS if MORE else PAIRS[::3])
def test_a_disk_that_fails_during_a_training_costs_nothing_once_repaired(
    fault, ranks, alloys_pack, tmp_path
):
    if not can_mount:
        pytest.skip("no file system can be mounted here")
    broken, repaired, sentence = FAULTS[fault]
    disk, kept, log, quiet = (tmp_path / name for name in ("disk", "kept", "log", "quiet"))
    disk.mkdir()
    ended([*launcher(ranks), *train_command(alloys_pack, str(quiet))], quiet)
    script = ON_A_DISK.replace("$FAULT", broken).replace("$REPAIR", repaired)
    variables = {"D": disk, "KEPT": kept, "LOG": log}
    command = [*launcher(ranks), *train_command(alloys_pack, str(disk / "results"))]
    process = started([*UNSHARE, "bash", "-c", script, "bash", *command], **variables)
    status = process.wait(600)  # of both attempts; horovodrun's own is 1
    assert status == (20 if ranks == "one rank" else 10), (
        log.read_text() + log.with_name("log.again").read_text()
    )
    said = errors_of(log.read_text())
    assert said and re.search(sentence, said[0])
    assert "resuming at epoch" in log.with_name("log.again").read_text()
    same_run(kept / "results", quiet)


def killed_at(epoch: int, command: list, results: Path) -> None:
    """Start a training and kill all of it once its history has `epoch` epochs."""
    process = started(command)
    wait_until(lambda: n_epochs(results) >= epoch)
    kill_all(process, random.Random())
    process.communicate(timeout=600)


def test_a_training_resumed_with_other_ranks_is_that_of_one_but_for_rounding(alloys_pack, tmp_path):
    """1 rank, 2 ranks, 1 rank, in float64, whose rounding 1e-9 is far above."""
    pytest.importorskip("horovod")
    exact = QUICK.replace("fp32", "fp64").replace("epochs: 40", "epochs: 60")
    quiet, results = tmp_path / "quiet", tmp_path / "results"
    command, undisturbed = (
        [exact if part == QUICK else part for part in train_command(alloys_pack, str(where))]
        for where in (results, quiet)
    )
    ended(undisturbed, quiet)
    killed_at(5, command, results)
    killed_at(20, [*horovodrun(2), *command], results)
    ended(command, results)
    ours, theirs = (read_json(next(where.rglob("result.json"))) for where in (results, quiet))
    assert [attempt["size"] for attempt in ours["attempts"]] == [1, 2, 1]
    histories = [
        list(csv.reader(next(where.rglob("history.csv")).open())) for where in (results, quiet)
    ]
    numbers = [np.array([row[:5] for row in history[1:]], float) for history in histories]
    np.testing.assert_allclose(numbers[0], numbers[1], rtol=1e-9)
    assert (
        numbers[0][:, 0].tolist() == list(range(60)) and ours["best_epoch"] == theirs["best_epoch"]
    )
    np.testing.assert_allclose(ours["test_mae"], theirs["test_mae"], rtol=1e-9)


def test_two_ranks_suspended_beyond_their_lease_leave_the_run_to_its_new_owner(
    alloys_pack, tmp_path
):
    results, short = tmp_path / "results", {"IRNET_LEASE_S": 2}
    command = endless(alloys_pack, results)
    late = started([*launcher("two ranks"), *command], **short)
    wait_until(lambda: n_epochs(results) >= 3)
    family = psutil.Process(late.pid).children(recursive=True)
    for one in family:
        one.suspend()
    time.sleep(2.5)
    new = started(command, **short)
    run = next(results.rglob("history.csv")).parent
    wait_until(lambda: lease.read_lease(run).lease.process == process_name(new.pid))
    before = n_epochs(results)
    wait_until(lambda: n_epochs(results) >= before + 3)
    for one in family:
        one.resume()
    said, _ = late.communicate(timeout=600)
    assert (
        late.returncode
        and f"error: process {new.pid} on " in said
        and "has taken over" in errors_of(said)[0]
    )
    new.terminate()
    assert new.wait(600) == ExitStatus.PREEMPTED
    with (run / "history.csv").open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file)]
    assert epochs == list(range(len(epochs))) and not (run / "error.json").exists()


def test_three_aggregates_at_once_leave_the_files_of_one(tmp_path):
    from tests.aggregate.results import write_run

    for seed in range(3):
        for model, mae in (("plain", 0.3), ("irnet", 0.2)):
            write_run(tmp_path / "results", mae + seed / 100, f"{model}-17", seed=seed)
    aggregate = [sys.executable, "-m", "irnet_hpc.aggregate", tmp_path / "results", "--tables"]
    ended([*aggregate, tmp_path / "quiet"], tmp_path / "quiet")
    three = [started([*aggregate, tmp_path / "same"]) for _ in range(3)]
    said = [process.communicate(timeout=600)[0] for process in three]
    assert [process.returncode for process in three] == [0, 0, 0], said
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("quiet", "same")
    )
    assert {"mae.md", "mae.csv", "mae.json", "mae.tex"} <= one.keys() and one == other
