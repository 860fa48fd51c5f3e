"""The ledger and the sweep: states from disk and queue, and that nothing done, queued or running is started again.

SLURM's commands are stood in for by scripts on PATH, and trainings by commands that leave what a training leaves; the real
ones of both are in test_slurm.py and at the end of this file.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.spec import run_folder
from irnet_hpc.sweep import bundles as sharing
from irnet_hpc.sweep import cli as sweep
from irnet_hpc.sweep import journal
from irnet_hpc.sweep import local as running
from irnet_hpc.sweep.jobs import train_options
from irnet_hpc.sweep.ledger import read_ledger
from irnet_hpc.sweep.matrix import sites
from irnet_hpc.sweep.matrix.matrix import read_matrix
from tests.builders import states, write_pack, write_result

ROOT = Path(__file__).parents[2]

SMALL = """
packs: [alloys-magpie]
properties: [mixing_enthalpy]
models: [{architectures: [plain, irnet], depths: [10, 17, 24]}]
resources: {minutes: 30}
budget_device_hours: 3
"""
LAST = ["irnet:reconcile:mine", "irnet:tables:mine"]  # jobs of each submission, after its trainings
MODELS = ["plain-10", "plain-17", "plain-24", "irnet-10", "irnet-17", "irnet-24"]


class Place:
    """A folder with a matrix, its packs and its results."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results, self.packs = folder, folder / "results", folder / "packs"
        self.results.mkdir()
        self.path = folder / "mine.yaml"
        self.path.write_text(SMALL)

    def pack(self, **identity) -> None:
        write_pack(self.packs, "alloys-magpie", {"mixing_enthalpy": "eV/atom"}, **identity)

    def pack_of_two(self) -> None:
        (self.packs / "alloys-magpie.h5").unlink()
        write_pack(
            self.packs, "alloys-magpie", {"mixing_enthalpy": "eV/atom", "size_mismatch": "%"}
        )

    @property
    def matrix(self):
        return read_matrix(self.path, self.packs)

    def cell(self, model: str):
        (cell,) = (cell for cell in self.matrix.cells if cell.spec.model == model)
        return cell

    def run_folder(self, model: str) -> Path:
        return run_folder(self.results, self.cell(model).spec)

    def finish(self, *models: str, **changes) -> None:
        for model in models:
            write_result(self.matrix, self.cell(model), self.results, **changes)

    def states(self) -> dict[str, str]:
        return states(self.matrix, self.results)

    def details(self) -> dict[str, str]:
        entries = read_ledger(self.matrix, self.results).cells
        return {entry.cell.spec.model: entry.detail for entry in entries}

    def command(self, name: str, *more: str) -> list[str]:
        return [
            name,
            str(self.path),
            "--results",
            str(self.results),
            "--pack-dir",
            str(self.packs),
            *more,
        ]

    def sweep(self, name: str, *more: str) -> int:
        return sweep.main(self.command(name, *more))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("IRNET_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("IRNET_SITE", raising=False)
    place = Place(tmp_path)
    place.pack()
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)
    }  # `run` takes them over
    yield place
    for number, handler in before.items():
        signal.signal(number, handler)


SBATCH = """#!/bin/sh
n=$(($(cat $D/count) + 1)); echo $n >$D/count
[ -e $D/refuse -o -e $D/refuse-$n ] && { echo "sbatch: error: invalid partition specified: fast" >&2; exit 1; }
name=$(sed -n "s/^#SBATCH --job-name=//p" "$1" | tr -d "'")
cp "$1" $D/$n.sh; env >$D/$n.env
token=$(sed -n "s/^#SBATCH --comment=//p" "$1" | tr -d "'")
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
if [ -n "$last" ]; then
  i=0; while [ $i -le $last ]; do echo "${n}_$i|PENDING|Priority|$name|$token" >>$D/queue; i=$((i+1)); done
else echo "$n|PENDING|None|$name|$token" >>$D/queue; fi
[ -e $D/lose-$n ] && { echo "sbatch: error: Batch job submission failed: Socket timed out" >&2; exit 1; }
echo "Submitted batch job $n"
"""
COMMANDS = {
    "sbatch": SBATCH,
    "squeue": '#!/bin/sh\n[ -e $D/down ] && exit 1; echo "$*" >>$D/asked; cat $D/queue',
    "sacct": '#!/bin/sh\necho "$*" >>$D/accounted; cat $D/accounts',
    "scontrol": '#!/bin/sh\n[ -e $D/down ] && { echo "Unable to contact slurm controller" >&2; exit 1; }; echo "MaxArraySize = 4"',
    "srun": "#!/bin/sh\nexit 1",
}


class Slurm:
    """A stand-in for SLURM: what was submitted is in N.sh and N.env, what is queued in `queue`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("queue", "accounts", "asked", "accounted"):
            (folder / name).touch()
        (folder / "count").write_text("100\n")
        for name, text in COMMANDS.items():
            (folder / name).write_text(text.replace("$D", str(folder)))
            (folder / name).chmod(0o755)

    def scripts(self) -> list[str]:
        return [path.read_text() for path in sorted(self.folder.glob("[0-9]*.sh"))]

    def names(self) -> list[str]:
        return [
            text.partition("--job-name=")[2].partition("\n")[0].strip("'")
            for text in self.scripts()
        ]

    def forget(self, *jobs: str, **how: str) -> None:
        """The jobs leave the queue; accounting remembers how."""
        lines = [
            line
            for line in (self.folder / "queue").read_text().splitlines()
            if line.split("|")[0] not in jobs
        ]
        (self.folder / "queue").write_text("".join(f"{line}\n" for line in lines))
        with (self.folder / "accounts").open("a") as accounts:
            accounts.writelines(f"{job.strip('_')}|{state}\n" for job, state in how.items())

    def set_state(self, job: str, state: str) -> None:
        text = (self.folder / "queue").read_text()
        (self.folder / "queue").write_text(text.replace(f"{job}|PENDING", f"{job}|{state}"))


@pytest.fixture
def slurm(place, tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Slurm(folder)


# --------------------------------------------------------------------------------------------------------------- states


def test_states_are_what_the_disk_says(place):
    place.finish("plain-10")
    place.finish("plain-17", key="of something else")
    write_json(
        place.run_folder("plain-24") / "error.json",
        {"error": "it hurts", "time": "2026-01-01T00:00:00+00:00"},
    )
    (place.run_folder("irnet-10") / "result.json").parent.mkdir(parents=True)
    (place.run_folder("irnet-10") / "result.json").write_text("{")
    assert place.states() == {
        "plain-10": "done",
        "plain-17": "stale",
        "plain-24": "failed",
        "irnet-10": "stale",
        "irnet-17": "missing",
        "irnet-24": "missing",
    }
    details = place.details()
    assert details["plain-10"] == "MAE 0.125 eV/atom"
    assert details["plain-24"] == "it hurts"
    assert "is not JSON" in details["irnet-10"]


def test_a_result_that_cannot_be_read_is_stale_and_replaced_when_asked(place, stand_in):
    place.finish("plain-10")
    path = place.run_folder("plain-10") / "result.json"
    whole = json.loads(path.read_text())
    for damaged, why in (
        (path.read_text()[:50], "is not JSON"),
        (json.dumps({"mae": 1}), "is not a result of this version"),
        (json.dumps(whole | {"recipe": 5}), "recipe and pack_identity must be of type dict"),
        (
            json.dumps(whole | {"test_mae": "0.1"}),
            "test_mae must be of type float, or null, however: '0.1'",
        ),
        (json.dumps(whole | {"test_mae": None}), "test_mae and device_hours must be numbers"),
        (
            json.dumps(whole | {"device_hours": 1e300}),
            "device_hours must be a number of at most 1e+100",
        ),
    ):
        path.write_text(damaged)
        assert place.states()["plain-10"] == "stale"
        assert why in place.details()["plain-10"]
    (entry, *_) = read_ledger(place.matrix, place.results).to_do(stale=True)
    assert entry.folder == path.parent and "--force" in train_options(entry, place.results, None)
    assert place.sweep("run") == 0 and place.states()["plain-10"] == "stale"
    assert place.sweep("run", "--stale", "--yes") == 0 and place.states()["plain-10"] == "done"


def test_a_stale_result_says_what_has_changed(place):
    place.finish("plain-10")
    place.pack(source_sha256="1" * 64)
    assert place.details()["plain-10"] == "of another pack: source_sha256"
    recipe = dataclasses.asdict(RECIPES["onecycle"]) | {"batch": 7, "ema": 0.5}
    place.finish("plain-17", recipe=recipe, key="other")
    assert place.details()["plain-17"] == "of another recipe: batch, ema"
    place.finish("plain-24", key="other")
    assert place.details()["plain-24"].startswith("of another version")
    assert [state for state in place.states().values() if state != "missing"] == ["stale"] * 3


def test_a_result_outlives_its_pack(place):
    place.finish("plain-10")
    (place.packs / "alloys-magpie.h5").unlink()
    assert place.states()["plain-10"] == "done"


def test_a_journal_cut_short_by_a_kill_is_read_as_far_as_it_goes(place):
    path = journal.begin(place.results, "mine", "local", process_name(os.getpid()))
    place_name = str(place.run_folder("plain-10").relative_to(place.results))
    journal.note(path, [{"cell": place_name}])
    with path.open("a") as file:
        file.write('{"cell": "some')
    assert place.states()["plain-10"] == "queued"
    assert place.states()["plain-17"] == "missing"


def test_the_last_submission_is_the_last_also_where_the_clock_was_set_back_in_between(place, slurm):
    name = str(place.run_folder("plain-10").relative_to(place.results))
    first = journal.begin(
        place.results, "mine", "slurm", token="feed", events=[{"cell": name, "job": "1"}]
    )
    first.rename(first.with_name("29990101T000000.000000-feed.jsonl"))
    journal.begin(place.results, "mine", "slurm", token="beef", events=[{"cell": name, "job": "2"}])
    (slurm.folder / "queue").write_text("2|PENDING|Priority|irnet:mine|beef\n")
    assert (
        place.details()["plain-10"] == "job 2 (Priority)" and place.states()["plain-10"] == "queued"
    )


ODD_LINES = (
    '"cell"',
    "7",
    "[" * 3000,
    '{"cell": ["x"], "job": "1"}',
    '{"cell": "NAME", "process": 7}',
    '{"cell": "NAME", "log": []}',
)


@pytest.mark.parametrize("line", ODD_LINES)
def test_a_line_of_a_journal_that_is_not_ours_says_nothing(place, line):
    path = journal.begin(place.results, "mine", "local", process_name(os.getpid()))
    name = str(place.run_folder("plain-10").relative_to(place.results))
    with path.open("a") as file:
        file.write(
            line.replace("NAME", str(place.run_folder("plain-17").relative_to(place.results)))
            + "\n"
        )
    journal.note(path, [{"cell": name}])
    assert place.states()["plain-10"] == "queued" and place.states()["plain-17"] == "missing"
    head = {"cluster": "local", "host": socket.gethostname(), "driver": [line]}
    path.with_name("20260101T000000.000000-odd.jsonl").write_text(json.dumps(head))
    assert place.sweep("prune", "--yes") == 0


def test_a_process_counts_while_it_lives_and_its_number_is_not_enough(place):
    name = str(place.run_folder("plain-10").relative_to(place.results))
    child = subprocess.Popen(["sleep", "60"])
    path = journal.begin(place.results, "mine", "local", "999999999@1")
    journal.note(path, [{"cell": name}])
    assert place.states()["plain-10"] == "missing"  # never started, and the driver is dead
    journal.note(path, [{"cell": name, "process": process_name(child.pid)}])
    assert place.states()["plain-10"] == "running"  # it has outlived its driver
    child.kill()
    child.wait()
    assert place.states()["plain-10"] == "failed"
    assert place.details()["plain-10"] == "killed, without a result"
    journal.note(path, [{"cell": name, "process": f"{os.getpid()}@1"}])
    assert place.states()["plain-10"] == "failed"  # the number lives on, as another process
    place.finish("plain-10")
    assert place.states()["plain-10"] == "done"


def test_a_sweep_on_another_host_is_believed_while_it_is_heard_of(place, monkeypatch):
    name = str(place.run_folder("plain-10").relative_to(place.results))
    path = journal.begin(place.results, "mine", "local", "999999999@1")
    journal.note(path, [{"cell": name}])
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert place.states()["plain-10"] == "queued"
    assert place.details()["plain-10"].startswith("process 999999999 on ")
    os.utime(path, (time.time() - 200,) * 2)
    assert place.states()["plain-10"] == "missing"


def test_the_plan_shows_states_drops_and_cost(place, capsys):
    place.finish("plain-10")
    place.path.write_text(SMALL.replace("[mixing_enthalpy]", "[mixing_enthalpy, band_gap]"))
    assert place.sweep("plan") == 0
    shown = capsys.readouterr().out
    assert (
        "done      alloys-magpie/mixing_enthalpy/plain-10/onecycle/honest/seed0  MAE 0.125 eV/atom"
        in shown
    )
    assert "dropped   alloys-magpie × band_gap: the pack has mixing_enthalpy (6 cells)" in shown
    assert "mine: 6 cells: 1 done, 5 missing, 6 dropped" in shown
    assert (
        "5 cells ask for at most 2.50 device-hours of a budget of 3; done ones took 0.50" in shown
    )
    assert place.sweep("plan", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {
        "done": 1,
        "running": 0,
        "queued": 0,
        "stale": 0,
        "preempted": 0,
        "failed": 0,
        "missing": 5,
    }
    assert [cell["test_mae"] for cell in told["cells"]] == [0.125] + [None] * 5
    assert told["asked_device_hours"] == 2.5


# --------------------------------------------------------------------------------------------------------------- submit


def test_packs_come_first_then_arrays_below_the_limit_then_the_tables_come_what_may(
    place, slurm, capsys
):
    (place.packs / "alloys-magpie.h5").unlink()
    assert place.sweep("submit") == 0
    pack, four, two, again, tables = slurm.scripts()
    assert slurm.names() == ["irnet:pack:alloys-magpie", "irnet:mine", "irnet:mine", *LAST]
    assert "#SBATCH --array=0-3%4\n" in four and "#SBATCH --array=0-1%2\n" in two
    assert "--dependency" not in pack and "--array" not in pack
    assert (
        "#SBATCH --dependency=afterok:101\n" in four and "#SBATCH --dependency=afterok:101\n" in two
    )
    assert "#SBATCH --dependency=afterany:101:102:103\n" in again
    assert "#SBATCH --dependency=afterany:104\n" in tables
    assert all("#SBATCH --kill-on-invalid-dep=yes\n" in text for text in slurm.scripts())
    assert "srun" in four and "--kill-on-bad-exit=1" in four and "srun" not in tables
    log = capsys.readouterr().out.partition("the tables will be in ")[2].split()[0]
    assert Path(log).parent == place.results / ".sweep"


def test_what_is_queued_or_done_is_not_submitted_again(place, slurm, capsys):
    place.finish("plain-10")
    place.finish("plain-17", key="stale")
    assert place.sweep("submit") == 0
    assert slurm.names() == ["irnet:mine", *LAST]
    assert place.states() == {"plain-10": "done", "plain-17": "stale"} | dict.fromkeys(
        MODELS[2:], "queued"
    )
    assert place.sweep("submit") == 0
    assert len(slurm.scripts()) == 3
    assert "nothing to submit" in capsys.readouterr().out
    assert place.sweep("submit", "--stale", "--yes") == 0
    assert slurm.names()[3:] == ["irnet:mine", *LAST]
    assert "--array" not in slurm.scripts()[3]
    assert (
        "#SBATCH --dependency=afterany:101:104\n" in slurm.scripts()[4]
    )  # one table of all that is under way


def test_a_job_that_left_without_a_result_has_failed_and_is_alone_submitted_again(place, slurm):
    place.sweep("submit")
    slurm.set_state("101_1", "RUNNING")
    slurm.forget("101_0", "101_2", **{"101_0": "CANCELLED by 0", "101_[2-3]": "TIMEOUT"})
    found = place.states()
    assert [found[model] for model in MODELS] == [
        "failed",
        "running",
        "failed",
        "queued",
        "queued",
        "queued",
    ]
    assert place.details()["plain-10"] == "job 101_0 CANCELLED by 0, without a result"
    assert place.details()["plain-24"] == "job 101_2 TIMEOUT, without a result"
    assert place.details()["irnet-10"] == "job 101_3 (Priority)"
    assert place.sweep("submit") == 0
    assert "#SBATCH --array=0-1%2\n" in slurm.scripts()[-3]


def test_what_training_said_is_the_reason_unless_it_is_older_than_the_job(place, slurm):
    folder = place.run_folder("plain-10")
    write_json(folder / "error.json", {"error": "old", "time": "2020-01-01T00:00:00+00:00"})
    place.sweep("submit")
    slurm.forget("101_0", **{"101_0": "NODE_FAIL"})
    assert place.details()["plain-10"] == "job 101_0 NODE_FAIL, without a result"
    write_json(folder / "error.json", {"error": "new", "time": "2100-01-01T00:00:00+00:00"})
    assert place.details()["plain-10"] == "new"


def test_cells_whose_pack_could_not_be_built_say_so(place, slurm):
    (place.packs / "alloys-magpie.h5").unlink()
    place.sweep("submit")
    assert read_ledger(place.matrix, place.results).pack_jobs == {"alloys-magpie": "101"}
    (slurm.folder / "queue").write_text("")
    (slurm.folder / "accounts").write_text("101|FAILED\n102_[0-3]|CANCELLED\n")
    assert place.details()["plain-10"] == "its pack alloys-magpie was not built: job 101 FAILED"
    assert place.sweep("submit") == 0
    assert slurm.names()[5:6] == ["irnet:pack:alloys-magpie"]


def test_cells_wait_for_a_pack_that_an_earlier_submission_is_building(place, slurm):
    (place.packs / "alloys-magpie.h5").unlink()
    place.sweep("submit")
    slurm.forget("102_0", **{"102_0": "CANCELLED by 0"})
    assert place.sweep("submit") == 0
    assert slurm.names()[5:] == ["irnet:mine", *LAST]
    assert "#SBATCH --dependency=afterok:101\n" in slurm.scripts()[5]


def test_a_submission_that_is_killed_halfway_is_not_repeated_while_its_jobs_live(place, slurm):
    place.sweep("submit")
    (path,) = (place.results / ".sweep").glob("*.jsonl")
    head, *lines = path.read_text().splitlines()
    cut = json.dumps(json.loads(head) | {"driver": "999999999@1"})
    path.write_text(
        "\n".join([cut, *lines[:6], *lines[6:8]]) + "\n"
    )  # 6 cells meant, of which 2 have their number
    assert set(place.states().values()) == {"queued"}
    (slurm.folder / "queue").write_text("")
    found = place.states()
    assert [found[model] for model in MODELS] == ["failed", "failed", *["missing"] * 4]


@pytest.mark.parametrize("command", ["plan", "status", "submit"])
def test_the_queue_is_asked_once_however_many_cells(place, slurm, command):
    place.sweep("submit")
    (slurm.folder / "asked").write_text("")
    place.sweep(command)
    assert len((slurm.folder / "asked").read_text().splitlines()) == 1


def test_a_job_of_the_same_number_on_a_new_cluster_is_not_ours(place, slurm):
    place.sweep("submit")
    text = (slurm.folder / "queue").read_text()
    token = text.splitlines()[0].rpartition("|")[2]
    (slurm.folder / "queue").write_text(text.replace(token, "another"))
    assert set(place.states().values()) == {"failed"}


def test_while_slurm_is_silent_nothing_is_taken_for_lost(place, slurm):
    place.sweep("submit")
    (slurm.folder / "down").touch()
    assert set(place.states().values()) == {"queued"}
    assert "SLURM does not answer" in read_ledger(place.matrix, place.results).notes[0]
    place.path.write_text(SMALL + "seeds: [0, 1]\nprotocols: [honest]\n".replace("3", "30"))
    with pytest.raises(UserError, match="SLURM does not answer"):
        place.sweep("submit", "--over-budget")


def test_what_slurm_refuses_is_one_sentence(place, slurm):
    (slurm.folder / "refuse").touch()
    with pytest.raises(UserError) as error:
        place.sweep("submit")
    assert (
        str(error.value)
        == "SLURM refused irnet:mine: sbatch: error: invalid partition specified: fast"
    )
    assert set(place.states().values()) == {"missing"}


def test_what_slurm_took_before_it_refused_has_its_tables(place, slurm):
    (slurm.folder / "refuse-102").touch()
    with pytest.raises(UserError, match="SLURM refused irnet:mine"):
        place.sweep("submit")
    assert list(place.states().values()) == ["queued"] * 4 + ["missing"] * 2
    assert slurm.names() == ["irnet:mine", *LAST]
    assert "#SBATCH --dependency=afterany:101\n" in slurm.scripts()[1]


def test_a_job_that_slurm_took_though_its_answer_was_lost_is_not_submitted_again(
    place, slurm, capsys
):
    (slurm.folder / "lose-102").touch()
    with pytest.raises(UserError, match="Socket timed out"):
        place.sweep("submit")
    assert list(place.states().values()) == ["queued"] * 6
    assert place.sweep("submit") == 0
    assert "nothing to submit" in capsys.readouterr().out
    slurm.forget("102_0", "102_1")  # the tables, of the same submission, are still in the queue
    assert list(place.states().values()) == ["queued"] * 4 + ["missing"] * 2


def test_a_job_submitted_from_a_job_inherits_nothing_of_it_but_the_cluster(
    place, slurm, monkeypatch
):
    inherited = {
        "SLURM_NTASKS": "8",
        "SLURM_JOB_ID": "5",
        "PMIX_RANK": "1",
        "RANK": "1",
        "CUDA_VISIBLE_DEVICES": "3",
    }
    for name, value in (
        inherited.items() | {"SLURM_CONF": "/somewhere/slurm.conf", "IRNET_DATA": "/data"}.items()
    ):
        monkeypatch.setenv(name, value)
    place.sweep("submit")
    environment = (slurm.folder / "101.env").read_text()
    assert not [name for name in inherited if f"\n{name}=" in f"\n{environment}"]
    assert "SLURM_CONF=/somewhere/slurm.conf" in environment and "IRNET_DATA=/data" in environment
    assert os.environ["SLURM_NTASKS"] == "8"


ACTIVATE = """
set -eu
cd {}
unset IRNET_VENV
IRNET_SITE=here{}
source env/activate.sh
echo "$- $HERE $(command -v tool)"
echo $UNSET
"""


def activate(folder: Path, more: str = "") -> subprocess.CompletedProcess:
    """What a script with `set -eu` sees after env/activate.sh, with the repository at `folder`."""
    (folder / "env/sites").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "env/activate.sh", folder / "env")
    script = ACTIVATE.format(folder, more)
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )


def test_a_sites_shell_lines_may_fail_and_read_what_is_unset_in_a_script_that_may_not(tmp_path):
    (tmp_path / "env/sites").mkdir(parents=True)
    (tmp_path / "env/sites/here.sh").write_text("x=$UNSET; false; export HERE=there\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text("PATH=$IRNET_VENV/bin:$PATH\n")
    (tmp_path / ".venv/bin/tool").write_text("")
    (tmp_path / ".venv/bin/tool").chmod(0o755)
    done = activate(tmp_path)
    options, site, tool = done.stdout.split()
    assert {"e", "u"} <= set(options) and "UNSET: unbound variable" in done.stderr
    assert (site, tool) == ("there", str(tmp_path / ".venv/bin/tool"))


def test_a_conda_prefix_is_an_environment_and_an_empty_folder_is_none(tmp_path):
    (tmp_path / "conda/bin").mkdir(parents=True)
    assert (
        "error: no environment at " in activate(tmp_path, f"; IRNET_VENV={tmp_path}/conda").stderr
    )
    for name in ("python", "tool"):
        (tmp_path / "conda/bin" / name).write_text("")
        (tmp_path / "conda/bin" / name).chmod(0o755)
    done = activate(tmp_path, f"; HERE=; IRNET_VENV={tmp_path}/conda")
    assert done.stdout.split()[1:] == [str(tmp_path / "conda/bin/tool")]


def test_a_site_says_what_the_cluster_wants(place, slurm, tmp_path):
    site = tmp_path / "here.yaml"
    site.write_text("""
account: proj42
partition: gpu
qos: long
constraint: a100
gpus_per_task: 1
modules: [gcc/12]
setup: [export X=1]
srun_args: [--mpi=pmix]
sbatch: {reservation: us, exclusive: true, comment: theirs}
""")
    place.path.write_text(
        SMALL.replace("{minutes: 30}", "{minutes: 30, nodes: 2, ranks_per_node: 4, memory_gb: 1.5}")
    )
    assert place.sweep("submit", "--site", str(site), "--over-budget") == 0
    training, tables = slurm.scripts()[0], slurm.scripts()[-1]
    for line in (
        *(
            "account=proj42",
            "partition=gpu",
            "qos=long",
            "constraint=a100",
            "reservation=us",
            "exclusive",
            "requeue",
        ),
        *(
            "nodes=2",
            "ntasks-per-node=4",
            "cpus-per-task=1",
            "gpus-per-node=4",
            "mem=1536M",
            "time=30",
            "signal=USR2@120",
        ),
    ):
        assert f"#SBATCH --{line}\n" in training
    assert (
        training.index("module load gcc/12")
        < training.index("export X=1")
        < training.index("srun ")
    )
    assert "--mpi=pmix" in training
    assert "gpus" not in tables and "#SBATCH --account=proj42\n" in tables
    assert set(place.states().values()) == {"queued"}  # though the site has a comment of its own


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("acount: x", "unknown key 'acount' (did you mean 'account'?); known: account, constraint"),
        ("modules: gcc", "modules must be of type list, however: 'gcc'"),
        ("gpus_per_task: true", "gpus_per_task must be of type int, however: True"),
    ],
)
def test_a_site_that_is_wrong_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "here.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        sites.read_site(str(tmp_path / "here.yaml"))
    assert sentence in str(error.value) and "here.yaml" in str(error.value)


def test_sites_go_by_name_and_by_variable(monkeypatch):
    assert sites.read_site("local_slurm").partition == "main"
    monkeypatch.setenv("IRNET_SITE", "local_slurm")
    assert sites.read_site(None).partition == "main"
    with pytest.raises(UserError, match=r"unknown site 'nowhere'; known: .*local_slurm"):
        sites.read_site("nowhere")


def test_pickles_are_in_a_private_folder_and_never_in_the_results(place, slurm, tmp_path):
    place.sweep("submit")
    assert not list(place.results.rglob("*.pkl"))
    assert list((tmp_path / "state").rglob("*.pkl"))
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_the_budget_stops_a_matrix_before_anything_starts(place, slurm):
    place.path.write_text(SMALL.replace("budget_device_hours: 3", "budget_device_hours: 2"))
    with pytest.raises(
        UserError, match=r"must cover the cells that are not done, however: 2 and 3\.0"
    ):
        place.sweep("submit")
    assert not slurm.scripts()
    place.finish("plain-10", "plain-17")
    assert place.sweep("submit") == 0


# ------------------------------------------------------------------------------------------------------------------ run


@pytest.fixture
def stand_in(place, monkeypatch, tmp_path):
    """Trainings are commands that leave a prepared result, or whatever `stand_in[model]` says to the shell."""
    commands = {}

    def train_command(entry, n_ranks, results, pack_dir):
        prepared = write_result(place.matrix, entry.cell, tmp_path / "prepared")
        return ["sh", "-c", commands.get(entry.cell.spec.model, f"cp {prepared} {entry.folder}")]

    monkeypatch.setattr(running, "train_command", train_command)
    return commands


def test_run_goes_on_after_a_failed_cell_and_runs_only_that_one_again(place, stand_in, capsys):
    error = place.run_folder("plain-17") / "error.json"
    stand_in["plain-17"] = f'echo \'{{"error": "it hurts"}}\' >{error}; exit 1'
    stand_in["irnet-10"] = "echo several; echo words; exit 3"
    stand_in["irnet-24"] = (
        "echo '[1]<stderr>:the reason'; echo '[0]<stdout>:'; echo RuntimeError: horovodrun; exit 1"
    )
    assert place.sweep("run") == 1
    shown = capsys.readouterr().out
    assert (
        "[1/6] alloys-magpie/mixing_enthalpy/plain-10/onecycle/honest/seed0 on 1 rank; log "
        in shown
    )
    assert "[1/6] MAE 0.125 eV/atom in " in shown
    assert "[2/6] failed: it hurts" in shown
    assert "[4/6] failed: status 3: words" in shown
    assert "[6/6] failed: status 1: the reason" in shown
    assert "mine: 3 cells done, 3 failures" in shown
    assert (place.run_folder("irnet-10") / "train.log").read_text() == "several\nwords\n"
    assert [m for m, state in place.states().items() if state == "failed"] == [
        "plain-17",
        "irnet-10",
        "irnet-24",
    ]
    stand_in.clear()
    error.unlink()
    assert place.sweep("run") == 0
    shown = capsys.readouterr().out
    assert "[3/3]" in shown and "plain-10" not in shown
    assert set(place.states().values()) == {"done"}


SEEDS = """
packs: [alloys-magpie]
properties: [mixing_enthalpy, size_mismatch]
models: [irnet-17, plain-17]
recipes: [onecycle, {name: slow, base: onecycle, learning_rate: 1e-4}, {name: wide, base: onecycle, batch: 1024}]
seeds: [0, 1]
resources: {minutes: 600}
"""


def test_cells_of_one_shape_share_a_device_and_those_that_report_other_rows_do_not(
    place, capsys, monkeypatch
):
    place.pack_of_two()
    place.path.write_text(SEEDS)
    entries = read_ledger(place.matrix, place.results).cells
    assert len(entries) == 24

    def together(wanted, gpu_gb=None) -> list[int]:
        bundles = sharing.bundles_of(place.matrix, entries, wanted, gpu_gb)
        assert sorted(e.name for bundle in bundles for e in bundle) == sorted(
            e.name for e in entries
        )
        return [len(bundle) for bundle in bundles]

    # A model has 8 cells of recipes that differ in the rate alone (2 properties x 2 seeds x 2), and 4 of the wide batch; of 600
    # minutes each, 2 are 20 hours, within a day.
    assert together(1) == together("auto") == [1] * 24
    assert sorted(together(16)) == [2] * 12
    monkeypatch.setattr(sharing, "LONGEST_MIN", 10**6)
    assert sorted(together(16)) == [4, 4, 8, 8] == sorted(together("auto", 80.0))
    assert sorted(together(3)) == [1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert max(together("auto", 2.5)) < 4
    assert place.sweep("plan", "--bundle", "16") == 0
    shown = capsys.readouterr().out
    assert shown.count("bundle 1 of 8 cells") == 8 and "onecycle/honest/seed1" in shown
    with pytest.raises(SystemExit):
        place.sweep("plan", "--bundle", "0")


def test_the_cells_of_a_bundle_are_done_and_failed_each_by_itself(place, monkeypatch, capsys):
    place.path.write_text(SEEDS.replace("[mixing_enthalpy, size_mismatch]", "[mixing_enthalpy]"))
    commands = []

    def train_command(entry, n_ranks, results, pack_dir, *others):
        """Of the cells of a bundle all but the second are done; it leaves its reason while the others go on."""
        commands.append(train_options(entry, results, pack_dir, *others))
        lines = []
        for i, one in enumerate((entry, *others)):
            prepared = write_result(place.matrix, one.cell, place.folder / "prepared")
            error = f'echo \'{{"error": "it hurts", "time": "2100-01-01T00:00:00+00:00"}}\' >{one.folder}/error.json'
            lines.append(
                f"mkdir -p {one.folder}; " + (error if i == 1 else f"cp {prepared} {one.folder}")
            )
        return ["sh", "-c", "; ".join([*lines, "exit 2" if others else "exit 0"])]

    monkeypatch.setattr(running, "train_command", train_command)
    assert place.sweep("run", "--bundle", "2") == 1
    states = [entry.state for entry in read_ledger(place.matrix, place.results).cells]
    assert states.count("done") == 6 and states.count("failed") == 6
    shown = capsys.readouterr().out
    assert shown.count("failed: it hurts") == 6 and "6 cells done, 6 failures" in shown
    cells = [
        cell for options in commands for cell in json.loads(options[options.index("--bundle") + 1])
    ]
    assert len(commands) == 6 and len(cells) == 12
    slow = {"name": "slow", "base": "onecycle", "learning_rate": "1e-4"}  # as YAML reads it
    assert {"property": "mixing_enthalpy", "recipe": slow, "seed": 1} in cells


def test_a_cell_of_a_bundle_that_runs_has_failed_once_it_says_so(place):
    place.path.write_text(SEEDS.replace("[mixing_enthalpy, size_mismatch]", "[mixing_enthalpy]"))
    names = [entry.name for entry in read_ledger(place.matrix, place.results).cells][:3]
    path = journal.begin(place.results, "mine", "local", process_name(os.getpid()))
    event = {"process": process_name(os.getpid()), "ended": None, "bundle": 3, "log": "log"}
    journal.note(path, [{"cell": name} | event for name in names])
    write_result(place.matrix, place.matrix.cells[0], place.results)
    write_json(
        place.results / names[1] / "error.json",
        {"error": "it hurts", "time": "2100-01-01T00:00:00+00:00"},
    )
    entries = read_ledger(place.matrix, place.results).cells[:3]
    assert [(entry.state, entry.log) for entry in entries] == [
        ("done", "log"),
        ("failed", "log"),
        ("running", "log"),
    ]


def test_a_job_of_a_bundle_asks_for_the_time_of_its_cells_one_after_the_other(place, slurm, capsys):
    place.path.write_text(SEEDS.replace("[mixing_enthalpy, size_mismatch]", "[mixing_enthalpy]"))
    assert place.sweep("submit", "--bundle", "2") == 0
    first = slurm.scripts()[0]
    assert (
        "#SBATCH --time=1200" in first and "#SBATCH --array=0-3" in first
    )  # of 6 jobs; MaxArraySize is 4
    assert {entry.state for entry in read_ledger(place.matrix, place.results).cells} == {"queued"}
    assert (
        len(
            [
                line
                for line in (slurm.folder / "queue").read_text().splitlines()
                if "irnet:mine" in line
            ]
        )
        == 6
    )


def test_a_site_says_how_much_memory_its_gpus_have(place, slurm, tmp_path):
    place.path.write_text(SEEDS.replace("minutes: 600", "minutes: 10"))
    place.pack_of_two()
    site = tmp_path / "site.yaml"
    site.write_text("gpus_per_task: 1\ngpu_gb: 80\n")
    assert place.sweep("submit", "--site", str(site)) == 0
    times = sorted(
        line for text in slurm.scripts() for line in text.splitlines() if "--time=" in line
    )
    minutes = [30, 30, 40, 80]  # the second try, the tables; 4 and 8 cells
    assert times == [f"#SBATCH --time={n}" for n in minutes]


def test_run_leaves_what_is_stale_until_asked(place, stand_in):
    place.finish("plain-10", key="other")
    assert place.sweep("run") == 0
    assert place.states()["plain-10"] == "stale"
    assert place.sweep("run", "--stale", "--yes") == 0
    assert place.states()["plain-10"] == "done"


def test_run_takes_up_nothing_that_another_run_has(place, stand_in, capsys):
    path = journal.begin(place.results, "mine", "local", process_name(os.getpid()))
    taken = [str(place.run_folder(model).relative_to(place.results)) for model in MODELS[1:]]
    journal.note(path, [{"cell": name} for name in taken])
    assert place.sweep("run") == 0
    assert "[1/1]" in capsys.readouterr().out


def test_a_run_that_died_without_a_word_is_not_given_the_reason_of_an_earlier_one(
    place, stand_in, capsys
):
    error = place.run_folder("plain-10") / "error.json"
    write_json(error, {"error": "old", "time": "2020-01-01T00:00:00+00:00"})
    stand_in["plain-10"] = "echo words; exit 3"
    assert place.sweep("run") == 1
    assert "[1/6] failed: status 3: words" in capsys.readouterr().out
    write_json(error, {"error": "new", "time": "2100-01-01T00:00:00+00:00"})
    assert place.sweep("run") == 1
    assert "[1/1] failed: new" in capsys.readouterr().out


TWO_AT_ONCE = """
import sys, time
from irnet_hpc.sweep import local as running
from irnet_hpc.sweep import cli as sweep
from irnet_hpc.console import exit_status
check = sweep.check_budget
sweep.check_budget = lambda *arguments: (check(*arguments), time.sleep(2))  # long enough for the other to read the same
running.train_command = lambda entry, *_: ["sh", "-c", f"echo trained; cp {PREPARED}/{entry.name}/result.json {entry.folder}"]
sys.exit(exit_status(sweep.main))
"""


def test_of_two_runs_started_together_each_cell_is_trained_by_one(place, tmp_path):
    for cell in place.matrix.cells:
        write_result(place.matrix, cell, tmp_path / "prepared")
    code = TWO_AT_ONCE.replace("{PREPARED}", str(tmp_path / "prepared"))
    command = [sys.executable, "-c", code, *place.command("run")]
    two = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    shown = [process.communicate(timeout=600)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], shown
    logs = [(place.run_folder(model) / "train.log").read_text() for model in MODELS]
    assert logs == ["trained\n"] * 6
    assert set(place.states().values()) == {"done"}


def test_run_builds_missing_packs_and_then_knows_their_properties(
    place, stand_in, monkeypatch, capsys
):
    (place.packs / "alloys-magpie.h5").rename(place.folder / "built.h5")
    place.path.write_text(
        SMALL.replace("[alloys-magpie]", "[alloys-magpie, alloys-elements]").replace(
            "s: [mix", "s: all #"
        )
    )
    built = {
        "alloys-magpie": [
            "cp",
            str(place.folder / "built.h5"),
            str(place.packs / "alloys-magpie.h5"),
        ]
    }
    monkeypatch.setattr(running, "pack_command", lambda pack: built.get(pack.name, ["false"]))
    assert not place.matrix.cells
    assert place.sweep("run") == 1  # one of the packs could not be built
    assert set(place.states().values()) == {"done"} and len(place.states()) == 6
    assert (
        "failed pack alloys-elements: status 1; its cells were left out" in capsys.readouterr().out
    )


STOPPABLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
from irnet_hpc.sweep import local as running
from irnet_hpc.sweep import cli as sweep
from irnet_hpc.console import exit_status
running.train_command = lambda *_: ["sh", "-c", "trap 'echo saved; exit 75' TERM; echo $$ up; while :; do sleep 0.05; done"]
sys.exit(exit_status(sweep.main))
"""


@pytest.fixture
def stoppable(place):
    """A run whose first training has started and goes on until it is told to stop."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, *place.command("run")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # only it is told, as by `kill`; the training must hear of it from us
    )
    log = place.run_folder("plain-10") / "train.log"
    try:
        wait_until(lambda: log.exists() and "up" in log.read_text())
        wait_until(
            lambda: place.states()["plain-10"] == "running"
        )  # the journal has its process, too
        yield process, log
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(ProcessLookupError, ValueError, FileNotFoundError):
            os.killpg(int(log.read_text().partition(" ")[0]), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_run_lets_the_training_save_and_leaves_nothing_behind(place, stoppable, number):
    process, log = stoppable
    assert place.states() == {"plain-10": "running"} | dict.fromkeys(MODELS[1:], "queued")
    process.send_signal(number)
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "stopped after 0 of 6 cells; the same command goes on" in shown
    assert "Traceback" not in shown
    pid, _, said = log.read_text().partition(" ")
    assert said.startswith("up\n") and said.endswith("saved\n")
    assert process_name(int(pid)) is None
    assert place.states() == {"plain-10": "failed"} | dict.fromkeys(MODELS[1:], "missing")
    assert "interrupted" in place.details()["plain-10"]


def test_a_training_that_outlives_a_killed_run_is_not_started_twice(place, stoppable):
    process, log = stoppable
    process.kill()
    process.wait()
    assert place.states() == {"plain-10": "running"} | dict.fromkeys(MODELS[1:], "missing")
    os.killpg(int(log.read_text().partition(" ")[0]), signal.SIGKILL)
    wait_until(lambda: place.states()["plain-10"] == "failed")


def wait_until(is_true, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------- the command, for real


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "irnet_hpc.sweep", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_status_looks_again_after_some_time_or_says_that_it_cannot(place, capsys, text):
    with pytest.raises(SystemExit) as stopped:
        place.sweep("status", f"--watch={text}")
    assert stopped.value.code == 2
    sentence = f"error: argument --watch: must be seconds above 0, a day at most, however: {text!r}"
    assert capsys.readouterr().err.splitlines()[-1].endswith(sentence)


@pytest.mark.parametrize("text", ["sedes: [0]", "packs: [a", "models: [resnet-17]"])
def test_bad_input_is_one_sentence_and_status_2(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(SMALL + text)
    done = command("plan", tmp_path / "bad.yaml")
    assert done.returncode == 2
    assert (
        done.stderr.startswith(f"error: {tmp_path}/bad.yaml: ")
        and len(done.stderr.splitlines()) == 1
    )


def test_a_matrix_that_is_not_there_is_one_sentence_and_status_2(tmp_path):
    done = command("plan", tmp_path / "none.yaml")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {tmp_path}/none.yaml: No such file or directory\n",
    )


REAL = """
packs: [alloys-small]
properties: [mixing_enthalpy]
models: [64BARx2-1, 32BAx2-1]
recipes: [{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: 2}]
resources: {ranks_per_node: %d, minutes: 1}
"""


@pytest.mark.slow
def test_two_real_ranks_train_a_matrix(tmp_path, alloys_pack):
    (tmp_path / "real.yaml").write_text(REAL % 2)
    places = ("--results", tmp_path / "results", "--pack-dir", alloys_pack.parent)
    done = command("run", tmp_path / "real.yaml", *places)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" MAE ") == 2 and "eV/atom in" in done.stdout
    told = json.loads(command("plan", tmp_path / "real.yaml", *places, "--json").stdout)
    assert told["counts"]["done"] == 2
    result = json.loads(
        (tmp_path / "results" / told["cells"][0]["folder"] / "result.json").read_text()
    )
    assert [attempt["size"] for attempt in result["attempts"]] == [2]


@pytest.mark.slow
def test_without_slurm_a_process_in_the_background_does_the_same(tmp_path, alloys_pack):
    (tmp_path / "real.yaml").write_text(REAL % 1)
    places = ("--results", tmp_path / "results", "--pack-dir", alloys_pack.parent)
    state = {"IRNET_STATE": str(tmp_path / "state")}
    done = command("submit", tmp_path / "real.yaml", *places, "--cluster", "local", **state)
    assert done.returncode == 0, done.stdout + done.stderr
    again = command("submit", tmp_path / "real.yaml", *places, "--cluster", "local", **state)
    assert "nothing to submit" in again.stdout
    log = Path(done.stdout.partition("the tables will be in ")[2].split()[0])
    wait_until(lambda: "2 of 2 cells are done" in log.read_text())
    assert "mixing_enthalpy (eV/atom)" in log.read_text()
