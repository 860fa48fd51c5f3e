"""Show that no behaviour depends on the wording of a message: garble them all, and compare.

Each scenario runs the commands once as they are and once with `reworded/sitecustomize.py`, which
garbles what the package raises, logs and prints. States, causes and exit statuses must be the same.

    python -m pytest tests/robustness/test_reworded.py -m slow
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from irnet_hpc.console import ExitStatus
from irnet_hpc.runs.state_names import Cause

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
REWORDED = Path(__file__).with_name("reworded")
LAYERS = "64BARx2-32BAx2R-1"
QUICK = "{name: quick, base: onecycle, epochs: 2, batch: 64, norm_group: 32, precision: fp32}"
ENDLESS = QUICK.replace("epochs: 2", "epochs: 100000")


class Place:
    """A folder with a matrix and its results, and the commands as they are or garbled."""

    def __init__(self, folder: Path, pack: Path, is_reworded: bool) -> None:
        folder.mkdir()
        self.folder, self.pack, self.results = folder, pack, folder / "results"
        paths = [str(REWORDED)] * is_reworded + [str(ROOT)]
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "IRNET_STATE": str(folder / "state"),
        }
        self.started: list[subprocess.Popen] = []

    def write_matrix(self, **changes: object) -> None:
        matrix = {
            "packs": [self.pack.stem],
            "properties": ["mixing_enthalpy"],
            "models": [LAYERS],
            "recipes": [QUICK],
        } | changes
        lines = [f"{key}: [{', '.join(map(quoted, values))}]\n" for key, values in matrix.items()]
        (self.folder / "matrix.yaml").write_text("".join(lines))

    def start(self, command: str, *arguments: object, **variables: str) -> subprocess.Popen:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"irnet_hpc.{command}", *map(str, arguments)],
                cwd=self.folder,
                env=self.environment | variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def run(self, command: str, *arguments: object, **variables: str) -> int:
        return self.start(command, *arguments, **variables).wait(600)

    def sweep(self, verb: str, *options: object) -> int:
        return self.run(*self.sweep_call(verb, *options))

    def sweep_call(self, verb: str, *options: object) -> tuple:
        places = ("--results", self.results, "--pack-dir", self.pack.parent)
        return ("sweep", verb, self.folder / "matrix.yaml", *places, *options)

    def train_call(self, recipe: str = ENDLESS, *options: object) -> tuple:
        data = ("--pack", self.pack, "--property", "mixing_enthalpy", "--results", self.results)
        return ("train", *data, "--layers", LAYERS, "--recipe", recipe, *options)

    def status(self) -> list[tuple[str, str]]:
        """Return the state and the cause of each cell, in the matrix's order."""
        command, *arguments = self.sweep_call("status", "--json")
        done = subprocess.run(
            [sys.executable, "-m", f"irnet_hpc.{command}", *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return [(c["state"], c.get("cause") or "") for c in json.loads(done.stdout)["cells"]]

    def error(self) -> dict:
        """Read the only error.json."""
        (path,) = self.results.rglob("error.json")
        return json.loads(path.read_text())

    def wait_until_trained(self, n_epochs: int = 3) -> None:
        wait_until(lambda: any(n_lines(p) > n_epochs for p in self.results.rglob("history.csv")))

    def kill_all(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(600)


def quoted(value: object) -> str:
    text = str(value)
    return text if not isinstance(value, str) or text.startswith("{") else json.dumps(text)


def n_lines(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return len(path.read_text().splitlines())
    return 0


def wait_until(holds: Callable[[], object], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def trainings_of(process: subprocess.Popen) -> list[psutil.Process]:
    """List the processes that train for a sweep."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if {"irnet_hpc.train", "irnet_hpc.train.trainer"} & {*child.cmdline()}:
                    found.append(child)
    return found


# Each scenario acts in a place and returns what must not depend on wording.


def a_cell_fails_and_another_is_done(place: Place) -> object:
    """Of 20 training rows no batch can be made."""
    place.write_matrix(train_rows=[20, "all"])
    status = place.sweep("run")
    first = place.status()
    # What has failed for no lack of memory or time is not tried again by itself.
    again = place.sweep("run")
    return status, first, again, place.status(), place.error().get("cause", "")


def a_training_is_stopped_by_a_signal(place: Place) -> object:
    place.write_matrix(recipes=[ENDLESS])
    sweep = place.start(*place.sweep_call("run"))
    place.wait_until_trained()
    os.killpg(sweep.pid, signal.SIGTERM)
    status = sweep.wait(600)
    wait_until(lambda: not list(place.results.rglob("lease.json")))
    stopped = place.status()
    (history,) = place.results.rglob("history.csv")
    n_before = n_lines(history)
    alone = place.start(*place.train_call())
    wait_until(lambda: n_lines(history) > n_before)
    running = place.status()
    alone.terminate()
    return status, stopped, running, alone.wait(600)


def another_process_trains_the_run(place: Place) -> object:
    place.write_matrix(recipes=[ENDLESS])
    place.start(*place.train_call())
    wait_until(lambda: list(place.results.rglob("lease.json")))
    late = place.run(*place.train_call())
    return late, place.sweep("run"), place.status()


def a_training_is_killed_for_its_memory(place: Place) -> object:
    """By signal 9, as Linux does; a sweep tries it once more, and it is killed again."""
    place.write_matrix(recipes=[ENDLESS])
    sweep = place.start(*place.sweep_call("run"))
    killed: set[int] = set()
    while sweep.poll() is None:
        for training in trainings_of(sweep):
            killed.add(training.pid)
            with contextlib.suppress(psutil.Error):
                training.kill()
        time.sleep(0.05)
    return len(killed), sweep.returncode, place.status()


def the_job_ends_before_the_training(place: Place) -> object:
    place.write_matrix(recipes=[ENDLESS])
    soon = {"SLURM_JOB_END_TIME": str(time.time() + 4)}
    status = place.run(*place.train_call(), **soon)
    return status, place.error().get("cause", ""), place.status()


def a_rank_is_killed(place: Place) -> object:
    place.write_matrix(recipes=[ENDLESS])
    ranks = []
    for rank in (0, 1):
        variables = {
            "SUBMITIT_LOCAL_GLOBALID": str(rank),
            "SUBMITIT_LOCAL_LOCALID": str(rank),
            "SUBMITIT_LOCAL_NTASKS": "2",
            "SUBMITIT_LOCAL_JOB_ID": f"{place.folder.name}{os.getpid()}",
        }
        ranks.append(place.start(*place.train_call(ENDLESS, "--engine", "torch"), **variables))
    place.wait_until_trained(1)
    ranks[1].kill()
    return ranks[0].wait(600), place.error().get("cause", ""), place.status()


def a_result_is_of_another_recipe(place: Place) -> object:
    """It is stale, and left alone unless asked for; tables keep it apart."""
    place.write_matrix()
    assert place.sweep("run") == 0
    place.write_matrix(recipes=[QUICK.replace("batch: 64", "batch: 32")])
    before, status = place.status(), place.sweep("run")
    return before, status, place.status(), place.sweep("run", "--stale", "--yes"), place.status()


def a_run_belongs_to_no_cell_any_more(place: Place) -> object:
    place.write_matrix(seeds=[0, 1])
    status = place.sweep("run")
    place.write_matrix()
    pruned = place.sweep("prune", "--yes")
    left = sorted(str(p.relative_to(place.results)) for p in place.results.rglob("result.json"))
    return status, pruned, left


FAILED_AND_DONE = [("failed", ""), ("done", "")]
LEFT = "alloys-small/mixing_enthalpy/custom-60d39dee-5/quick/honest/seed0/result.json"
# Scenario -> what it returns, with any wording.
SCENARIOS = {
    a_cell_fails_and_another_is_done: (1, FAILED_AND_DONE, 1, FAILED_AND_DONE, ""),
    a_training_is_stopped_by_a_signal: (
        ExitStatus.INTERRUPTED,
        [("preempted", "")],
        [("running", "")],
        ExitStatus.PREEMPTED,
    ),
    another_process_trains_the_run: (ExitStatus.HELD, 0, [("running", "")]),
    a_training_is_killed_for_its_memory: (2, 1, [("failed", Cause.MEMORY)]),
    the_job_ends_before_the_training: (
        ExitStatus.PREEMPTED,
        Cause.TIME,
        [("preempted", Cause.TIME)],
    ),
    a_rank_is_killed: (ExitStatus.FAILED, Cause.PEER_LOST, [("failed", Cause.PEER_LOST)]),
    a_result_is_of_another_recipe: ([("stale", "")], 0, [("stale", "")], 0, [("done", "")]),
    a_run_belongs_to_no_cell_any_more: (0, 0, [LEFT]),
}


@pytest.fixture
def make_place(alloys_pack: Path, tmp_path: Path) -> Iterator[Callable[[bool], Place]]:
    places = []

    def make(is_reworded: bool) -> Place:
        name = "reworded" if is_reworded else "plain"
        places.append(Place(tmp_path / name, alloys_pack, is_reworded))
        return places[-1]

    yield make
    for place in places:
        place.kill_all()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_states_causes_and_statuses_do_not_depend_on_wording(scenario, make_place):
    places = [make_place(False), make_place(True)]
    # Both at once: their processes start for longer than they train.
    with ThreadPoolExecutor(2) as threads:
        plain, reworded = threads.map(scenario, places)
    assert plain == SCENARIOS[scenario]
    assert reworded == SCENARIOS[scenario]


def test_the_messages_are_really_garbled(make_place):
    plain, reworded = make_place(False), make_place(True)
    for place in (plain, reworded):
        place.write_matrix(train_rows=[20])
        assert place.run(*place.train_call(QUICK, "--train-rows", 20)) == ExitStatus.USER_ERROR
    assert plain.error()["error"] != reworded.error()["error"]
    assert "batch" in plain.error()["error"] and "batch" not in reworded.error()["error"]
    assert "batch" not in (reworded.folder / "log").read_text()
