"""Kill each command at random moments and start it again: the outcome is the undisturbed one.

Nothing is lost and nothing is there twice. All processes are real.

    python -m pytest tests/robustness/test_killed.py                     two kills a command
    IRNET_KILLS=20 python -m pytest tests/robustness/test_killed.py -s   20, and when they came

A moment is drawn evenly from the time that the undisturbed command took, its start included. Kills
that came too late do not count.
"""

import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import safetensors.torch
import torch

from irnet_hpc.files import read_json
from irnet_hpc.pack import store
from irnet_hpc.sweep.cell_process import horovodrun

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
N = int(os.environ.get("IRNET_KILLS", "2"))
A_RUN = 5  # kills of one run before it may end: a training goes on from checkpoint to checkpoint
QUICK = "{name: quick, base: onecycle, epochs: 40, batch: 64, norm_group: 32, precision: fp32}"
LAYERS = "64BARx2-32BAx2R-1"
TIMES = {
    "wall_time_s",
    "device_hours",
    "samples_per_s",
    "peak_memory_gb",
    "attempts",
    "commit",
}  # of a result: not its numbers


def start(command: list, folder: Path) -> subprocess.Popen:
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HOROVOD_STALL_CHECK_DISABLE": "1"}
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env=os.environ | threads,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def ended(command: list, folder: Path) -> float:
    """Run a command, which must succeed, and return the seconds it took."""
    began, process = time.monotonic(), start(command, folder)
    assert process.wait(600) == 0, (folder.parent / f"{folder.name}.log").read_text()[-3000:]
    return time.monotonic() - began


def kill_all(process: subprocess.Popen, chance: random.Random) -> None:
    """Kill all processes, as a power failure or a scheduler's last signal does."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    assert not psutil.wait_procs(family[1:], 600)[1]


def kill_one_rank(process: subprocess.Popen, chance: random.Random) -> None:
    """Kill a rank as the kernel does when memory runs out; the others must end by themselves."""
    family = psutil.Process(process.pid).children(recursive=True)
    ranks = [
        one
        for one in family
        if [Path(part).name for part in cmdline(one)[:2]][-1:] == ["train_often.py"]
    ]
    if not ranks:  # it is too early for one
        return kill_all(process, chance)
    with contextlib.suppress(psutil.NoSuchProcess):
        chance.choice(ranks).kill()
    assert not psutil.wait_procs(family, 600)[1]
    return None


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def survive(
    command: list,
    place: Path,
    seconds: float,
    check: Callable[[Path], None],
    kill: Callable[[subprocess.Popen, random.Random], None] = kill_all,
    a_run: int = A_RUN,
    whole: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Kill a command N times, at most `a_run` times in each folder, before it may end there.

    A command that ends before its moment was not killed, does not count, and is the last in its
    folder.

    Args:
        command: The command, in which FOLDER stands for the folder.
        place: Where the folders are made.
        seconds: The time that the undisturbed command takes.
        check: Called with each folder in which the command has ended.
        kill: Kills the command.
        a_run: The most kills in one folder.
        whole: Called with the folder after each kill.
    """
    killed, over, number = [], 0, 0
    while len(killed) < N:
        folder, chance = place / f"run{number}", random.Random(number)
        this = [str(part).replace("FOLDER", str(folder)) for part in command]
        for turn in range(min(a_run, N - len(killed))):
            began, process, moment = (
                time.monotonic(),
                start(this, folder),
                chance.uniform(0, seconds),
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            is_killed = process.poll() is None
            if is_killed:
                kill(process, chance)
                is_killed = (
                    process.wait(600) != 0
                )  # 0: it ended by itself, between the look and the kill
            whole(folder)
            if not is_killed:
                assert process.returncode == 0
                over += 1
                if turn == 0:  # the machine has less to do than before
                    seconds = min(seconds, time.monotonic() - began)
                break
            killed.append(f"{moment:.2f}")
        ended(this, folder)
        check(folder)
        number += 1
        assert over < 10 + 3 * N
    print(
        f"\n{N} kills, at {', '.join(killed)} of {seconds:.1f} s, in {number} folders; "
        f"{over} more came after the end"
    )


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_pack(tmp_path):
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        rows = [(f"Fe{n}O{m}", n / m) for n in range(1, 60) for m in range(1, 60)] + [
            ("Xx", 1),
            ("", 2),
        ]
        csv.writer(file).writerows([("formula", "band_gap"), *rows])
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.pack",
        "--source",
        table,
        "--workers",
        2,
        "--name",
        "p",
        "--pack-dir",
        "FOLDER",
    ]
    quiet = tmp_path / "quiet"
    seconds = ended([str(part).replace("FOLDER", str(quiet)) for part in command], quiet)

    def check(folder: Path) -> None:
        lists = ["p.rejected.csv", "p.values.csv"]
        assert names_in(folder) == names_in(quiet) == ["p.h5", *lists]
        assert store.verify(folder / "p.h5") == store.verify(quiet / "p.h5")
        for name in lists:
            assert (folder / name).read_bytes() == (quiet / name).read_bytes()

    def whole(folder: Path) -> None:
        if (folder / "p.h5").exists():
            store.verify(folder / "p.h5")

    survive(command, tmp_path, seconds, check, a_run=2, whole=whole)


def visible(run: Path) -> list[str]:
    """List a run folder without its lease and the temporary files that `sweep prune` removes."""
    return sorted(
        path.name
        for path in run.iterdir()
        if not path.name.startswith(".") and path.name != "lease.json"
    )


def same_run(folder: Path, quiet: Path) -> None:
    """Compare weights, predictions and numbers, bit for bit; no checkpoint may be left."""
    one, two = (next(place.rglob("result.json")).parent for place in (folder, quiet))
    assert visible(one) == visible(two)
    weights, undisturbed = (
        safetensors.torch.load_file(path / "model.safetensors") for path in (one, two)
    )
    assert weights.keys() == undisturbed.keys()
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)
    with (
        np.load(one / "test_predictions.npz") as ours,
        np.load(two / "test_predictions.npz") as theirs,
    ):
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs.files)
    ours, theirs = (read_json(path / "result.json") for path in (one, two))
    assert {name for name in theirs if ours[name] != theirs[name]} <= TIMES
    histories = [
        [line.rpartition(",")[0] for line in (path / "history.csv").open()] for path in (one, two)
    ]
    assert histories[0] == histories[1] and len(histories[0]) == 41  # every epoch once


def train_command(pack: Path, results: str = "FOLDER") -> list:
    options = (
        f"--property mixing_enthalpy --layers {LAYERS} --pack {pack} --results {results}".split()
    )
    return [sys.executable, Path(__file__).with_name("train_often.py"), *options, "--recipe", QUICK]


def test_train(alloys_pack, tmp_path):
    command, quiet = train_command(alloys_pack), tmp_path / "quiet"
    seconds = ended(train_command(alloys_pack, str(quiet)), quiet)
    survive(command, tmp_path, seconds, lambda folder: same_run(folder, quiet))
    if N >= 20:
        logs = "".join(path.read_text() for path in tmp_path.glob("run*.log"))
        assert "resuming at epoch" in logs


@pytest.mark.parametrize("kill", [kill_all, kill_one_rank])
def test_train_on_two_ranks(kill, alloys_pack, tmp_path):
    pytest.importorskip("horovod")
    launcher, quiet = horovodrun(2), tmp_path / "quiet"
    seconds = ended([*launcher, *train_command(alloys_pack, str(quiet))], quiet)
    command = [*launcher, *train_command(alloys_pack)]
    survive(command, tmp_path, seconds, lambda folder: same_run(folder, quiet), kill)


MATRIX = f"""
packs: [{{name: small, source: alloys, features: elements, rows: 600}}]
properties: [mixing_enthalpy]
models: ["{LAYERS}", ridge]
recipes: [{QUICK}, grid]
seeds: [0, 1]
"""


def test_sweep(tmp_path):
    """Kill the sweep alone: what it has started may live on, and must not be started twice."""
    matrix = tmp_path / "tiny.yaml"
    matrix.write_text(MATRIX)
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.sweep",
        "run",
        matrix,
        "--results",
        "FOLDER/results",
        "--pack-dir",
        "FOLDER/packs",
    ]
    quiet = tmp_path / "quiet"
    seconds = ended([str(part).replace("FOLDER", str(quiet)) for part in command], quiet)
    assert len(list(quiet.rglob("result.json"))) == 3  # ridge uses no seed, and is fitted once

    def kill(process: subprocess.Popen, chance: random.Random) -> None:
        os.kill(process.pid, signal.SIGKILL)

    def check(folder: Path) -> None:
        again = [str(part).replace("FOLDER", str(folder)) for part in command]
        until, n_cells = time.monotonic() + 600, len(list(quiet.rglob("result.json")))
        while len(done := list((folder / "results").rglob("result.json"))) < n_cells:
            assert time.monotonic() < until
            time.sleep(0.2)  # for a training that outlived its sweep
            ended(again, folder)
        before = {path: path.stat().st_mtime_ns for path in done}
        ended(again, folder)
        assert {
            path: path.stat().st_mtime_ns for path in (folder / "results").rglob("result.json")
        } == before
        for path in done:
            ours, theirs = read_json(path), read_json(quiet / path.relative_to(folder))
            assert ours["test_mae"] == theirs["test_mae"] and ours["key"] == theirs["key"]
        assert sorted(p.relative_to(folder) for p in done) == sorted(
            p.relative_to(quiet) for p in quiet.rglob("result.json")
        )
        assert store.verify(folder / "packs" / "small.h5") == store.verify(
            quiet / "packs" / "small.h5"
        )

    survive(command, tmp_path, seconds, check, kill, a_run=3)


def test_aggregate(tmp_path):
    from tests.aggregate.results import write_run

    results = tmp_path / "results"
    for seed in range(3):
        for depth in (10, 17, 48):
            for model, mae in (("plain", 0.3), ("irnet", 0.2)):
                write_run(results, mae + seed / 100 + depth / 1000, f"{model}-{depth}", seed=seed)
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.aggregate",
        results,
        "--tables",
        "FOLDER/tables",
        "--html",
        "FOLDER/page.html",
    ]
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    seconds = ended([str(part).replace("FOLDER", str(quiet)) for part in command], quiet)
    sound = {
        str(path.relative_to(quiet)): path.read_bytes()
        for path in quiet.rglob("*")
        if path.is_file()
    }
    dated = {"page.html"}  # says when it was written

    def whole(folder: Path) -> None:
        there = [
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        ]
        assert all(name in dated or (folder / name).read_bytes() == sound[name] for name in there)

    def check(folder: Path) -> None:
        whole(folder)
        assert all((folder / name).exists() for name in sound)

    survive(command, tmp_path, seconds, check, whole=whole)
