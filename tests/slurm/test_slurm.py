"""Run sweeps on a real SLURM of two hosts.

    sudo bash env/local_slurm.sh up; eval "$(bash env/local_slurm.sh env)"
    IRNET_TEST_SLURM=1 python -m pytest tests/slurm

What the commands of SLURM are told is tested in tests/sweep; here is what happens then.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.pack.store import verify

ROOT = Path(__file__).parents[2]


def absent() -> str:
    """Why these tests cannot run; empty if they can."""
    if os.environ.get("IRNET_TEST_SLURM") != "1":
        return "IRNET_TEST_SLURM is not 1"
    if (
        not shutil.which("sinfo")
        or subprocess.run(["sinfo"], capture_output=True, timeout=600).returncode
    ):
        return 'no SLURM answers: bash env/local_slurm.sh up; eval "$(bash env/local_slurm.sh env)"'
    return ""


pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(absent()), reason=absent() or "-")]

# Every cell runs over both hosts. Networks are tiny: what takes time is starting.
MATRIX = """
packs: [{name: alloys-tiny, source: alloys, features: elements, rows: 600}]
properties: [mixing_enthalpy]
models: [64BARx2-1, 32BAx2-1, 32BARx3-1]
recipes: [{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: %d}]
resources: {nodes: 2, ranks_per_node: 1, memory_gb: 1, minutes: 10}
pack_resources: {memory_gb: 1, minutes: 10}
"""


NAMES = ("irnet:pack:alloys-tiny", "irnet:real", "irnet:reconcile:real", "irnet:tables:real")


class Place:
    """A matrix with results and packs of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "real.yaml"
        self.options = ("--results", folder / "results", "--pack-dir", folder / "packs")

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def have(self, pack: Path) -> None:
        """Have a pack, so that no job builds it."""
        (self.folder / "packs").mkdir()
        shutil.copy(pack, self.folder / "packs")

    def sweep(self, command: str, *more: str) -> str:
        return ask(
            sys.executable, "-m", "irnet_hpc.sweep", command, self.path, *self.options, *more
        )

    def cells(self) -> dict[str, dict]:
        """Layers -> what the plan says of the cell."""
        return {
            cell["spec"]["layers"]: cell
            for cell in json.loads(self.sweep("plan", "--json"))["cells"]
        }

    def states(self) -> dict[str, str]:
        return {layers: cell["state"] for layers, cell in self.cells().items()}

    def jobs(self) -> list[str]:
        """The trainings that were submitted, from the journals."""
        lines = [
            line
            for path in self.folder.glob("results/.sweep/*.jsonl")
            for line in path.read_text().splitlines()
        ]
        return [
            event["job"] for event in map(json.loads, lines) if "cell" in event and "job" in event
        ]


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory) -> Path:
    """Make the pack of MATRIX, as a job of its own would."""
    folder = tmp_path_factory.mktemp("tiny")
    options = ("--source", "alloys", "--features", "elements", "--rows", "600")
    named = ("--name", "alloys-tiny", "--pack-dir", folder)
    ask(sys.executable, "-m", "irnet_hpc.pack", *options, *named)
    return folder / "alloys-tiny.h5"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("IRNET_STATE", str(tmp_path / "state"))
    yield Place(tmp_path)
    for name in NAMES:  # several at once are one name to it
        subprocess.run(["scancel", "--me", f"--name={name}"], check=False)
    wait_for(lambda: not queue())


def ask(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(look, seconds: float = 600):
    """What `look` gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, (
            f"it has not happened in {seconds} s; the queue:\n{ask('squeue')}"
        )
        time.sleep(0.3)
    return found


def end_of(job: str) -> str:
    """The state in which a job has ended; the accounting learns it a moment after the queue."""

    def state() -> str:
        found = ask("sacct", "-X", "-n", "-P", "--format=State", "-j", job).strip()
        return "" if found in ("PENDING", "RUNNING", "COMPLETING") else found

    return wait_for(state)


def queue() -> list[list[str]]:
    """(job, name, state) of all of ours that is queued or running."""
    lines = ask(
        "squeue", "--me", "-h", "-r", f"--name={','.join(NAMES)}", "-o", "%i|%j|%T"
    ).splitlines()
    return [line.split("|") for line in lines]


def running(name: str) -> list[str]:
    return [job for job, called, state in queue() if called == name and state == "RUNNING"]


def table_of(shown: str) -> str:
    return Path(shown.partition("the tables will be in ")[2].split()[0]).read_text()


def test_one_command_runs_a_matrix_and_again_only_the_cancelled_cell(place):
    place.write(MATRIX % 3)
    log = place.folder / "sweep.log"
    ask("sbatch", f"--output={log}", ROOT / "slurm" / "sweep_all.sh", place.path, *place.options)
    cancelled = wait_for(lambda: running("irnet:real"))[0]
    ask("scancel", cancelled)
    wait_for(lambda: not queue())

    shown = log.read_text()
    assert "limits: 3 cells may take 1.00 device-hours" in shown
    assert "| mixing_enthalpy (eV/atom) |" in table_of(shown)
    # scancel asks before it kills: a training that has begun by then leaves a checkpoint.
    (left,) = (cell for cell in place.cells().values() if cell["state"] != "done")
    assert left["state"] in ("failed", "preempted")
    assert (
        left["state"] == "preempted"
        or left["detail"] == f"job {cancelled} CANCELLED by {os.getuid()}, without a result"
    )
    results = place.folder.rglob("result.json")
    assert {len(json.loads(path.read_text())["attempts"]) for path in results} == {1}
    done = {path: path.stat().st_mtime_ns for path in place.folder.rglob("result.json")}

    again = place.sweep("submit")
    assert "submitted 1 cells to SLURM" in again
    assert sorted(name for _, name, _ in queue()) == [
        "irnet:real",
        "irnet:reconcile:real",
        "irnet:tables:real",
    ]
    wait_for(lambda: not queue())
    assert "3 of 3 cells are done" in table_of(again)
    assert {path: path.stat().st_mtime_ns for path in done} == done  # the others were left alone
    assert "nothing to submit" in place.sweep("submit")
    assert not queue()


def test_a_cell_that_is_preempted_or_requeued_saves_and_resumes(place, tiny_pack):
    place.have(tiny_pack)
    place.write(
        MATRIX.replace("models: [64BARx2-1, 32BAx2-1, 32BARx3-1]", "models: [64BARx2-1]") % 4000
    )
    place.sweep("submit")
    job = wait_for(lambda: running("irnet:real"))[0]
    history = wait_for(lambda: list(place.folder.rglob("history.csv")))[0]
    wait_for(lambda: len(history.read_text().splitlines()) > 3)
    for n_attempts, end in enumerate((["scancel", "--signal=USR2"], ["scontrol", "requeue"]), 2):
        ask(*end, job)
        wait_for(lambda: [state for one, _, state in queue() if one == job] == ["PENDING"])
        assert place.states() == {"64BARx2-1": "queued"}
        saved = [
            json.loads(path.read_text())["state"]
            for path in history.parent.glob("checkpoint/*.json")
        ]
        epochs = len(history.read_text().splitlines())
        assert (
            max(state["epoch"] for state in saved) == epochs - 1
        )  # all of it but the one that was under way
        wait_for(lambda epochs=epochs: len(history.read_text().splitlines()) > epochs + 3)
        run = json.loads((history.parent / "run.json").read_text())
        assert len(run["attempts"]) == n_attempts
        numbers = [int(line.split(",")[0]) for line in history.read_text().splitlines()[1:]]
        assert numbers == list(range(len(numbers)))  # no epoch twice, none left out
    ask("scancel", job)


def test_a_cell_that_runs_out_of_time_is_submitted_once_more_with_twice_as_much(place, tiny_pack):
    place.have(tiny_pack)
    text = (
        MATRIX.replace("models: [64BARx2-1, 32BAx2-1, 32BARx3-1]", "models: [64BARx2-1]") % 100_000
    )
    place.write(
        text.replace(
            "resources: {nodes: 2, ranks_per_node: 1, memory_gb: 1, minutes: 10}",
            "resources: {minutes: 1}",
        )
    )
    shown = place.sweep("submit")
    first = wait_for(lambda: place.jobs())[0]
    second = wait_for(lambda: set(place.jobs()) - {first}).pop()  # it goes on while it is true
    job = ask("scontrol", "show", "job", second)
    assert "TimeLimit=00:02:00" in job
    (tables,) = (job for job, name, _ in queue() if name == "irnet:tables:real")
    wait_for(lambda: f"afterany:{second}" in ask("scontrol", "show", "job", tables))
    run = wait_for(
        lambda: [
            path
            for path in place.folder.rglob("run.json")
            if path.read_text().count("started") == 2
        ]
    )[0]
    assert place.states() == {"64BARx2-1": "running"}
    assert json.loads((run.parent / "lease.json").read_text())["job"] == second
    ask("scancel", "--signal=TERM", second)
    wait_for(lambda: not queue())
    assert place.states() == {"64BARx2-1": "preempted"}
    assert "0 of 1 cells are done" in table_of(shown) or "no finished run" in table_of(shown)


def test_two_sweeps_of_bundles_at_once_train_each_cell_once_within_their_limit(place, tiny_pack):
    """Of the two hosts' processors two jobs could train at once."""
    place.have(tiny_pack)
    models = "models: [64BARx2-1, 32BAx2-1]\nseeds: [0, 1]"
    place.write(MATRIX.replace("models: [64BARx2-1, 32BAx2-1, 32BARx3-1]", models) % 30)
    submit = [
        sys.executable,
        "-m",
        "irnet_hpc.sweep",
        "submit",
        place.path,
        *place.options,
        "--bundle",
        "2",
        "--at-most",
        "1",
    ]
    two = [
        subprocess.Popen(
            [str(part) for part in submit], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in "ab"
    ]
    shown = "".join(process.communicate(timeout=600)[0] for process in two)
    assert shown.count("submitted 4 cells to SLURM") == 1 and shown.count("nothing to submit") == 1
    assert len(place.jobs()) == 4 and len(set(place.jobs())) == 2
    most = []
    wait_for(lambda: most.append(len(running("irnet:real"))) or not queue())
    assert max(most) == 1
    results = [json.loads(path.read_text()) for path in place.folder.rglob("result.json")]
    assert [(len(one["attempts"]), one["bundle_size"]) for one in results] == [(1, 2)] * 4
    assert not list(place.folder.rglob("lease.json"))


def test_a_training_that_fails_is_a_failed_job_with_its_reason(place, tiny_pack):
    place.have(tiny_pack)
    place.write(
        MATRIX.replace("packs: ", "train_rows: [10]\npacks: ").replace("64BARx2-1, 32BAx2-1, ", "")
        % 3
    )
    shown = place.sweep("submit")
    wait_for(lambda: not queue())
    (cell,) = place.cells().values()
    assert cell["state"] == "failed" and "batch" in cell["detail"]
    assert "0 of 1 cells are done" in table_of(shown) or "no finished run" in table_of(shown)
    (job,) = place.jobs()
    assert end_of(job) == "FAILED"


def test_what_starts_from_another_cell_waits_for_it_and_goes_with_it_where_it_fails(
    place, tiny_pack
):
    """One of two origins wants more rows than there are and fails; nothing waits for it."""
    place.have(tiny_pack)
    recipe = "{name: big, base: onecycle, batch: 64, norm_group: 32, epochs: 3}"
    origin = f"{{pack: alloys-tiny, property: size_mismatch, recipe: {recipe}%s}}"
    inits = f"init: [{origin % ''}, {origin % ', train_rows: 5000'}]\n"
    place.write(inits + MATRIX.replace("64BARx2-1, 32BAx2-1, ", "") % 3)
    shown = place.sweep("submit")
    wait_for(lambda: not queue())
    cells = json.loads(place.sweep("plan", "--json"))["cells"]
    found = {
        (cell["spec"]["property"], "n5000" in (cell["origin"] or cell["folder"])): cell
        for cell in cells
    }
    assert {what: cell["state"] for what, cell in found.items()} == {
        ("size_mismatch", False): "done", ("mixing_enthalpy", False): "done",
        ("size_mismatch", True): "failed", ("mixing_enthalpy", True): "failed",
    }  # fmt: skip
    failed = found["size_mismatch", True]
    assert (
        found["mixing_enthalpy", True]["detail"]
        == f"its origin {failed['folder']} failed: {failed['detail']}"
    )
    assert "started from size_mismatch big" in table_of(shown)


def test_cells_of_a_pack_that_cannot_be_built_do_not_wait_for_ever(place):
    place.write(MATRIX.replace("source: alloys", f"source: {place.folder}/none.csv") % 3)
    place.sweep("submit")
    wait_for(lambda: not queue())
    assert set(place.states().values()) == {"failed"}
    assert all("was not built: job" in cell["detail"] for cell in place.cells().values())


def pack(folder: Path, *options: object, submit: tuple[object, ...] = ()) -> list[str]:
    """Return the command that packs 58 oxides, with `submit` in four tasks on two hosts."""
    ranks = (
        "sbatch",
        "--job-name=irnet:pack:ranks",
        "--nodes=2",
        "--ntasks-per-node=2",
        "--cpus-per-task=1",
        *submit,
    )
    how = (
        (*ranks, ROOT / "slurm" / "pack.sh") if submit else (sys.executable, "-m", "irnet_hpc.pack")
    )
    return [
        *how,
        "--source",
        folder / "oxides.csv",
        "--features",
        "awkward",
        "--pack-dir",
        folder,
        *options,
    ]


def test_a_pack_by_ranks_on_two_hosts_survives_a_kill_and_is_that_of_one_process(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests/robustness/awkward'}:{ROOT}")
    monkeypatch.setenv("AWKWARD_LOG", str(tmp_path / "computed"))
    metals = SYMBOLS[20:35] + SYMBOLS[36:53] + SYMBOLS[54:80]
    (tmp_path / "oxides.csv").write_text(
        "formula,density\n" + "".join(f"{metal}O,5\n" for metal in metals)
    )
    log, parts = tmp_path / "log", tmp_path / ".ranks.parts"
    submitted = pack(tmp_path, "--name", "ranks", submit=("--parsable", f"--output={log}"))

    monkeypatch.setenv("AWKWARD_S", "1")  # a row: the job lives long enough to be killed
    job = ask(*submitted).strip()
    wait_for(lambda: len(list(parts.glob("[0-9]*.part"))) >= 4)
    (rank,) = (
        process
        # With names, process_iter gives None where a process has just ended.
        for process in psutil.process_iter(["cmdline", "environ"])
        if "irnet_hpc.pack" in (command := " ".join(process.info["cmdline"] or []))
        and "srun" not in command
        if (process.info["environ"] or {}).get("SLURM_JOB_ID") == job
        and process.info["environ"].get("SLURM_PROCID") == "3"
        if process.parent().name() == "slurmstepd"
    )
    rank.kill()
    wait_for(
        lambda: (
            not ask("squeue", "-h", "-j", job, "--states=all", "-o", "%T").startswith(
                ("RUN", "COMP", "PEND")
            )
        )
    )
    assert end_of(job) == "FAILED"
    n_parts = len(list(parts.glob("[0-9]*.part")))
    assert 4 <= n_parts < 10

    monkeypatch.setenv("AWKWARD_S", "0")
    ask(submitted[0], "--wait", *submitted[1:])
    assert f"resuming: {n_parts} of 10 blocks are finished" in log.read_text()
    assert "on each of 4 ranks" in log.read_text()
    ask(*pack(tmp_path, "--name", "one"))
    assert verify(tmp_path / "ranks.h5") == verify(tmp_path / "one.h5")
    assert not parts.exists()
