"""Stand in for a cluster and for trainings: a place with a matrix, SLURM's commands as scripts."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

from irnet_hpc.files import write_json
from irnet_hpc.runs.spec import run_folder, run_key
from irnet_hpc.sweep import cli, journal
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.matrix.matrix import read_matrix
from tests.builders import states, write_pack, write_result
from tests.runs.test_lease import start

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
        """Run a command; `run` trains one cell after the other unless `more` says otherwise."""
        one = ["--workers", "1"] if name == "run" and "--workers" not in more else []
        return cli.main(self.command(name, *one, *more))


SBATCH = """#!/bin/sh
n=$(($(cat $D/count) + 1)); echo $n >$D/count
refused="sbatch: error: invalid partition specified: fast"
[ -e $D/refuse -o -e $D/refuse-$n ] && { echo "$refused" >&2; exit 1; }
name=$(sed -n "s/^#SBATCH --job-name=//p" "$1" | tr -d "'")
cp "$1" $D/$n.sh; env >$D/$n.env
token=$(sed -n "s/^#SBATCH --comment=//p" "$1" | tr -d "'")
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
if [ -n "$last" ]; then
  i=0
  while [ $i -le $last ]; do
    echo "${n}_$i|PENDING|Priority|$name|$token" >>$D/queue; i=$((i+1))
  done
else echo "$n|PENDING|None|$name|$token" >>$D/queue; fi
lost="sbatch: error: Batch job submission failed: Socket timed out"
[ -e $D/lose-$n ] && { echo "$lost" >&2; exit 1; }
echo "Submitted batch job $n"
"""


COMMANDS = {
    "sbatch": SBATCH,
    "squeue": '#!/bin/sh\n[ -e $D/down ] && exit 1; echo "$*" >>$D/asked; cat $D/queue',
    "sacct": '#!/bin/sh\necho "$*" >>$D/accounted; cat $D/accounts',
    "scontrol": """#!/bin/sh
[ -e $D/down ] && { echo "Unable to contact slurm controller" >&2; exit 1; }
echo "MaxArraySize = 4"
""",
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
            for job, state in how.items():
                shown = state if "|" in state else f"0:0|{state}"
                accounts.write(f"{job.strip('_')}|{shown}\n")

    def set_state(self, job: str, state: str) -> None:
        text = (self.folder / "queue").read_text()
        (self.folder / "queue").write_text(text.replace(f"{job}|PENDING", f"{job}|{state}"))


HOLD = """
import sys
from irnet_hpc.runs.lease import Leases
with Leases() as leases:
    leases.acquire(sys.argv[1])
    print("holds", flush=True)
    sys.stdin.read()
"""


SEEDS = """
packs: [alloys-magpie]
properties: [mixing_enthalpy, size_mismatch]
models: [irnet-17, plain-17]
recipes:
  - onecycle
  - {name: slow, base: onecycle, learning_rate: 1e-4}
  - {name: wide, base: onecycle, batch: 1024}
seeds: [0, 1]
resources: {minutes: 600}
"""


TINY = "{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: 2}"


def leave_checkpoint(place, model: str, key: str | None = None) -> None:
    cell, run = place.cell(model), place.run_folder(model)
    own = run_key(cell.spec, cell.recipe, place.matrix.packs[0].identity)
    write_json(
        run / "run.json", {"spec": dataclasses.asdict(cell.spec), "key": key or own, "attempts": []}
    )
    write_json(run / "checkpoint" / "a.json", {"key": key or own})


def wait_until(is_true, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.02)


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "irnet_hpc.sweep", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def fail(place, *models: str) -> list[Path]:
    paths = [place.run_folder(model) / "error.json" for model in models]
    for path in paths:
        write_json(path, {"error": "it hurts", "time": "2026-01-01T00:00:00+00:00"})
    return paths


def answers(monkeypatch, text: str) -> list[str]:
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: (asked.append(question), text)[1])
    return asked


def end_trainings(place, slurm, **how: str) -> str:
    """Let the trainings leave the queue and the job after them begin; return their token."""
    (path,) = (place.results / ".sweep").glob("*.jsonl")
    slurm.forget(*(f"101_{i}" for i in range(4)), "102_0", "102_1", **how)
    (slurm.folder / "scontrol").write_text(
        f'#!/bin/sh\necho "$*" >>{slurm.folder}/told; echo "MaxArraySize = 4"'
    )
    return journal.token_of(path)


def hold(run: Path) -> subprocess.Popen:
    """Start a process that holds the lease of a run until its input is closed."""
    process = start(HOLD, run)
    assert process.stdout.readline() == "holds\n"
    return process
