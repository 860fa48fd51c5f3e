"""Real processes: one of many gets a run, and one that wakes up late overwrites nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from irnet_hpc.distributed.processes import machine, process_name
from irnet_hpc.errors import UserError
from irnet_hpc.runs import lease
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.train import checkpoint

ROOT = Path(__file__).parents[2]

# All wait for one moment, try, print how it went, and hold what they got until told to end.
CONTENDER = """
import sys, time
from pathlib import Path
from irnet_hpc.runs.lease import Leases, RunIsHeld
run, leases = sys.argv[1], Leases()
print("ready", flush=True)
while not Path(run, "go").exists():
    time.sleep(0.001)
for name in sys.argv[2:]:
    try:
        print(name, "won" if leases.acquire(f"{run}/{name}") else "had it", flush=True)
    except RunIsHeld as error:
        print(name, "lost", error, flush=True)
print("end", flush=True)
sys.stdin.read()
"""

# Holds a run, and each time it is told to writes its name as the result.
OWNER = """
import sys
from pathlib import Path
from irnet_hpc.console import exit_status
from irnet_hpc.runs.lease import Leases
def main():
    run, name = Path(sys.argv[1]), sys.argv[2]
    with Leases() as leases:
        leases.acquire(run)
        print("holds", flush=True)
        for line in sys.stdin:
            leases.write_json(run / "result.json", {"by": name})
            print("written", flush=True)
sys.exit(exit_status(main))
"""


def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def owner(tmp_path):
    """Starts a process that holds the run of tmp_path."""
    started = []

    def hold(name: str, **environment: str) -> subprocess.Popen:
        process = start(OWNER, tmp_path / "run", name, **environment)
        started.append(process)
        assert process.stdout.readline() == "holds\n", process.stderr.read()
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def leases():
    with lease.Leases() as leases:
        yield leases


def write(process: subprocess.Popen) -> str:
    process.stdin.write("write\n")
    process.stdin.flush()
    return process.stdout.readline()


def lose(path: Path, age_s: float = 0.0, **changes: object) -> lease.Lease:
    """Leave the lease of a process that is gone."""
    child = subprocess.Popen(["true"])
    name = process_name(child.pid)
    child.wait()
    fields = {
        "token": "old",
        "host": "here",
        "machine": machine(),
        "process": name,
        "job": None,
        "restart": 0,
    }
    lost = lease.Lease(**(fields | {"started": "2026-01-01T00:00:00+00:00"} | changes))
    path.mkdir(parents=True, exist_ok=True)
    (path / lease.LEASE_FILE).write_text(json.dumps(msgspec.structs.asdict(lost)))
    os.utime(path / lease.LEASE_FILE, (time.time() - age_s,) * 2)
    return lost


def test_one_of_twenty_contenders_gets_each_run(tmp_path):
    runs = [f"{kind}{i}" for i in range(10) for kind in ("free", "lost", "expired")]
    for run in runs:
        if run.startswith("lost"):
            lose(tmp_path / run)
        if run.startswith("expired"):
            lose(tmp_path / run, age_s=1e6, machine="another")
    contenders = [start(CONTENDER, tmp_path, *runs) for _ in range(20)]
    assert [process.stdout.readline() for process in contenders] == ["ready\n"] * 20
    (tmp_path / "go").touch()
    said = [list(iter(process.stdout.readline, "end\n")) for process in contenders]
    won = sorted(line.split()[0] for lines in said for line in lines if line.split()[1] == "won")
    lost = [line for lines in said for line in lines if line.split()[1] == "lost"]
    tokens = {run: lease.read_lease(tmp_path / run).lease.token for run in runs}
    for process in contenders:
        process.communicate()
    assert won == sorted(runs)
    assert len(lost) == 19 * len(runs) and all(
        "is being trained by process" in line for line in lost
    )
    assert len(set(tokens.values()) - {"old"}) == len(runs)
    assert [path.name for run in runs for path in (tmp_path / run).iterdir()] == [
        lease.LEASE_FILE
    ] * len(runs)


def test_a_held_run_is_refused_and_its_holder_named(tmp_path, owner, leases):
    first = owner("first", SLURM_JOB_ID="17")
    with pytest.raises(lease.RunIsHeld) as error:
        leases.acquire(tmp_path / "run")
    assert str(error.value).startswith(
        f"{tmp_path}/run is being trained by process {first.pid} on "
    )
    assert "(job 17)" in str(error.value)
    assert write(first) == "written\n"
    first.communicate()
    assert first.returncode == 0
    assert [path.name for path in (tmp_path / "run").iterdir()] == [
        "result.json"
    ]  # it was released


def test_the_lease_of_a_killed_process_expires_at_once(tmp_path, owner):
    first = owner("first")
    first.kill()
    first.wait()
    second = owner("second")
    assert write(second) == "written\n"
    assert json.loads((tmp_path / "run/result.json").read_text()) == {"by": "second"}


def test_an_owner_that_wakes_up_late_overwrites_nothing(tmp_path, owner):
    first = owner("first", IRNET_LEASE_S="1")
    assert write(first) == "written\n"
    os.kill(first.pid, signal.SIGSTOP)
    time.sleep(1.5)
    second = owner("second", IRNET_LEASE_S="1")
    assert write(second) == "written\n"
    os.kill(first.pid, signal.SIGCONT)
    _, said = first.communicate("write\n")
    assert first.returncode == 2
    assert (
        said.startswith(f"error: process {second.pid} on ")
        and f"has taken over {tmp_path}/run" in said
    )
    assert len(said.splitlines()) == 1
    assert json.loads((tmp_path / "run/result.json").read_text()) == {"by": "second"}
    time.sleep(
        1.2
    )  # longer than the second's lease lasts: it lives by its own beat, and not by the first one's
    assert write(second) == "written\n"
    assert lease.read_lease(tmp_path / "run").lease.process.startswith(f"{second.pid}@")


def test_an_owner_on_another_machine_holds_its_run_while_it_beats(
    tmp_path, owner, monkeypatch, leases
):
    monkeypatch.setenv("IRNET_LEASE_S", "1.2")
    monkeypatch.setattr(
        lease, "machine", lambda: "another"
    )  # ours, to which the other's processes say nothing
    first = owner("first", IRNET_LEASE_S="1.2")
    with pytest.raises(lease.RunIsHeld):
        leases.acquire(tmp_path / "run")
    first.kill()
    first.wait()
    assert not lease.is_expired(
        lease.read_lease(tmp_path / "run"), lease.file_server_time(tmp_path)
    )
    assert leases.acquire(tmp_path / "run")
    leases.release(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_restarted_slurm_job_takes_over_from_its_earlier_self(tmp_path, monkeypatch, leases):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    lose(tmp_path / "run", machine="another", job="17")
    assert leases.acquire(tmp_path / "run")
    leases.release(tmp_path / "run")
    for other in ({"job": "18"}, {"job": "17", "restart": 1}):
        assert not lease.is_expired(
            lease.SeenLease(lose(tmp_path / "run", machine="another", **other), 5.0),
            6.0,
            lease.new_lease(),
        )


def test_the_clock_is_the_file_servers(tmp_path, monkeypatch):
    lost = lose(tmp_path / "run", machine="another")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    found = lease.read_lease(tmp_path / "run")
    assert found.lease == lost
    assert abs(lease.file_server_time(tmp_path) - found.touched) < 30
    assert not lease.is_expired(found, lease.file_server_time(tmp_path))
    assert lease.is_expired(found, found.touched + 121) and not lease.is_expired(
        found, found.touched + 119
    )
    assert not lease.is_expired(found, None)


def test_a_live_local_owner_keeps_its_run_when_the_clock_jumps_forward(tmp_path, owner, leases):
    """As after a night's sleep: the lease is hours old, and its owner beats again in a moment."""
    first, path = owner("first", IRNET_LEASE_S="6"), tmp_path / "run" / lease.LEASE_FILE
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRNET_LEASE_S", "6")
        os.utime(path, (time.time() - 1e5,) * 2)
        assert lease.is_expired(lease.read_lease(path.parent), lease.file_server_time(path.parent))
        with pytest.raises(lease.RunIsHeld, match=f"is being trained by process {first.pid} on "):
            leases.acquire(path.parent)
    assert write(first) == "written\n"


def test_a_lease_from_the_future_expires_once_watched_for_its_lifetime(
    tmp_path, monkeypatch, leases
):
    """The clock has jumped back: by its age the lease of a dead owner would last for a day."""
    monkeypatch.setenv("IRNET_LEASE_S", "0.6")
    lose(tmp_path / "run", age_s=-86_400, machine="another")
    began = time.monotonic()
    assert leases.acquire(tmp_path / "run")
    assert time.monotonic() - began > 0.6
    leases.release(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_without_hard_links_the_lease_is_made_exclusively(tmp_path, monkeypatch, leases):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    lose(tmp_path / "run")
    assert leases.acquire(tmp_path / "run")
    found = lease.read_lease(tmp_path / "run").lease
    assert found.process == process_name(os.getpid())
    leases.release(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_claim_of_a_killed_process_blocks_nobody(tmp_path, leases):
    lost = lose(tmp_path / "run")
    (tmp_path / "run/.lease-old.claim").write_text(json.dumps(msgspec.structs.asdict(lost)))
    assert leases.acquire(tmp_path / "run")
    leases.release(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


class OneRank:
    rank, size, name = 0, 1, "none"


def test_a_process_that_has_lost_a_run_writes_and_removes_nothing_of_it(tmp_path):
    """Model, predictions and result are written like checkpoints, history and errors."""
    run = tmp_path / "run"
    folder = RunFolder(run)
    folder.leases.acquire(run)
    folder.write_history([[0] * 6])
    checkpoint.save(folder, "key", {}, checkpoint.State(), OneRank())
    lose(run, token="another's")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for act in (
        lambda: folder.write_history([]),
        lambda: folder.append_history([1]),
        lambda: checkpoint.save(folder, "key", {}, checkpoint.State(step=1), OneRank()),
        lambda: folder.remove_checkpoints(),
        lambda: folder.write_json(folder.result_json, {}),
    ):
        with pytest.raises(lease.LeaseLost):
            act()
    folder.write_error("it hurts")  # nor is this the one to say how it went
    folder.release()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_lost_between_writing_and_renaming_is_not_replaced(tmp_path, leases):
    leases.acquire(tmp_path / "run")
    with (
        pytest.raises(lease.LeaseLost),
        leases.replacing(tmp_path / "run/model.safetensors") as temporary,
    ):
        temporary.write_text("long in the making")
        lose(tmp_path / "run", token="another's")
    leases.release(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [lease.LEASE_FILE]


@pytest.mark.parametrize(
    "change", [{"token": "../../x"}, {"token": 7}, {"process": 7}, {"job": []}, {"restart": "1"}]
)
def test_an_unreadable_lease_counts_until_it_is_old(tmp_path, change, leases):
    run = tmp_path / "run"
    lose(run, **change)
    seen = lease.read_lease(run)
    assert seen.lease.host == "an unknown host" and not lease.is_expired(
        seen, lease.file_server_time(run), lease.new_lease()
    )
    os.utime(run / lease.LEASE_FILE, (0, 0))
    assert leases.acquire(run)
    leases.release(run)
    assert list(tmp_path.rglob("*")) == [run]


def test_a_removed_lease_and_a_removed_folder_end_the_training(tmp_path, leases):
    run = tmp_path / "run"
    for take_away, reason in (
        (lambda: (run / lease.LEASE_FILE).unlink(), "gone"),
        (lambda: run.rename(tmp_path / "elsewhere"), "no longer exists"),
    ):
        leases.acquire(run)
        take_away()
        with pytest.raises(lease.LeaseLost, match=reason):
            leases.write_json(run / "result.json", {})
        leases.release(run)
    assert not run.exists()  # nor is it made again


def test_a_run_finished_meanwhile_is_not_acquired(tmp_path, monkeypatch):
    """Another process may finish a run between the look at it and the lease."""
    answers = iter([False, True])
    monkeypatch.setattr(RunFolder, "is_done", lambda *_: next(answers))
    assert not RunFolder(tmp_path / "run").claim("key")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon"])
def test_the_lifetime_of_a_lease_must_be_seconds_within_bounds(monkeypatch, text):
    monkeypatch.setenv("IRNET_LEASE_S", text)
    with pytest.raises(UserError, match=f"'{text}'"):
        lease.expiry_s()
