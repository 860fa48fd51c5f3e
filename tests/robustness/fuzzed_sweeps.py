"""Spoil what sweeps read: matrices, sites, the states of runs and the journals."""

import contextlib
import dataclasses
import io
import json
import os
from pathlib import Path

import msgspec
import yaml

from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.lease import Leases
from tests import builders
from tests.robustness import mutants
from tests.robustness.fuzzed_packs import make_pack
from tests.robustness.fuzzed_runs import make_checkpoint
from tests.robustness.kinds import Kind, keep_sound, make_nothing, spoil_bytes

MATRIX_OF_STATES = """
packs: [alloys-elements]
properties: [band_gap]
models: [plain-10, plain-17, irnet-10, irnet-17, ridge]
recipes: [paper, grid]
"""
STATE_FILES = (
    *(
        "run0/result.json",
        "run1/run.json",
        "run1/history.csv",
        "run2/error.json",
        "run3/lease.json",
    ),
    *("journal0", "journal1"),
)


def make_states(folder: Path) -> None:
    """Write runs in every state, and the journals of two sweeps.

    One run is done, one has a checkpoint, one failed, one lost its process, one was SLURM's.
    """
    from irnet_hpc.runs import lease
    from irnet_hpc.runs.spec import run_folder
    from irnet_hpc.sweep import journal
    from irnet_hpc.sweep.matrix.matrix import read_matrix

    make_pack(folder)
    (folder / "matrix.yaml").write_text(MATRIX_OF_STATES)
    matrix, results = read_matrix(folder / "matrix.yaml", folder), folder / "results"
    runs = [run_folder(results, cell.spec) for cell in matrix.cells]
    for place, run in enumerate(runs):
        run.mkdir(parents=True)
        (folder / f"run{place}").symlink_to(run)
    done, stopped, *_ = matrix.cells
    result = json.loads(builders.write_result(matrix, done, results).read_text())
    begun = {"spec": dataclasses.asdict(stopped.spec), "recipe": dataclasses.asdict(stopped.recipe)}
    begun |= {
        "pack_identity": result["pack_identity"],
        "origin": None,
        "key": key_of(stopped, matrix),
    }
    begun["attempts"] = [
        {"started": "2026-01-01T00:00:00+00:00", "size": 1, "engine": "none", "data": "resident"}
    ]
    (runs[1] / "run.json").write_text(json.dumps(begun))
    (runs[1] / "history.csv").write_text(
        "epoch,step,lr,train_mae,val_mae,seconds\n0,8,0.0001,0.5,0.4,1.0\n"
    )
    make_checkpoint(runs[1])
    error = {"error": "it hurts", "time": "2026-01-01T00:00:00+00:00", "log": None}
    (runs[2] / "error.json").write_text(json.dumps(error))
    (runs[3] / "lease.json").write_text(
        json.dumps(msgspec.structs.asdict(lease.new_lease()) | {"process": KILLED})
    )
    names = [str(run.relative_to(results)) for run in runs]
    journals = (
        journal.begin(
            results, "matrix", "local", KILLED, "feed0001", [{"cell": name} for name in names]
        ),
        journal.begin(results, "matrix", "slurm", KILLED, "feed0002", [{"cell": names[4]}]),
    )
    journal.note(
        journals[0],
        [{"cell": names[3], "process": KILLED, "ended": None, "log": "train.log", "bundle": 1}],
    )
    journal.note(
        journals[1], [{"cell": names[4], "job": "17_3", "log": "17.log"}, {"tables": "18"}]
    )
    for number, path in enumerate(journals):
        (folder / f"journal{number}").symlink_to(path)
    keep_sound(folder, *STATE_FILES)


def key_of(cell: object, matrix: object) -> str:
    from irnet_hpc.runs.spec import run_key

    return run_key(cell.spec, cell.recipe, matrix.packs[0].identity)


KILLED = "4194300@1"  # a process, as process_name() has it, that there is none of


def spoil_states(folder: Path, number: int) -> None:
    """Spoil the bytes of a file, or, at odd numbers, its values."""
    spoil_bytes(*STATE_FILES)(folder, number // 2)
    name = STATE_FILES[number // 2 % len(STATE_FILES)]
    if number % 2 and not name.endswith(".csv"):
        text = (folder / f"{name}.sound").read_text()
        values = [
            json.loads(line)
            for line in (text.splitlines() if name.startswith("journal") else [text])
        ]
        spoiled = mutants.spoil_tree(values, number)
        lines = spoiled if isinstance(spoiled, list) else [spoiled]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(folder / "run3/lease.json", (0, 0))  # else its next owner would wait for it


def read_states(folder: Path) -> object:
    """Run `sweep plan`, `status` and `prune`, and take up two runs, in no other folder."""
    from irnet_hpc.distributed import slurm_commands
    from irnet_hpc.sweep import cli as sweep
    from irnet_hpc.sweep.cell_states import read_ledger
    from irnet_hpc.sweep.matrix.matrix import read_matrix
    from irnet_hpc.sweep.prune import prune
    from irnet_hpc.sweep.status import status_table

    slurm_commands._run = lambda *command, **_: (
        ""
    )  # SLURM, which knows nothing of what was submitted
    matrix, results, said = folder / "matrix.yaml", folder / "results", io.StringIO()
    places = ["--results", str(results), "--pack-dir", str(folder)]
    with contextlib.redirect_stdout(said):
        sweep.main(["plan", str(matrix), *places])
        said.truncate(0)
        said.seek(0)
        sweep.main(["status", str(matrix), *places, "--json"])
    cells = json.loads(said.getvalue())["cells"]
    assert len(cells) == 5 and cells[0]["state"] in ("done", "stale"), cells[0]
    read = read_matrix(matrix, folder)
    cell, ledger = read.cells[1], read_ledger(read, results)
    status_table(ledger)
    prune(results, [read])
    with Leases() as leases:
        key = key_of(cell, read)
        attempts = RunFolder(folder / "run1", leases).begin({"key": key}, {"size": 1})
        assert 1 <= len(attempts) <= 3
        leases.acquire(folder / "run3")
    assert {path.name for path in folder.iterdir()} >= {"results", "run0", "run3"}
    return None


MATRIX = """
packs:
  - alloys-elements
  - {name: mine, source: mine.csv, features: magpie, properties: [band_gap], split_seeds: [0, 1]}
properties: [band_gap, "band_gap,density"]
models:
  - irnet-17
  - 64BARx2-1
  - {architectures: [plain, srnet, random_forest], depths: [10, 48]}
  - ridge
recipes: [paper, {name: mine, base: paper, batch: 64, learning_rate: 1e-3}, grid]
protocols: [honest, paper]
seeds: [0, 1, 2]
splits: [random, element:O]
train_rows: [1000, all]
init: [null, {pack: alloys-elements, property: band_gap, recipe: paper}]
resources:
  - {nodes: 1, ranks_per_node: 2, cpus_per_rank: 1, gpus_per_rank: 0, memory_gb: 8, minutes: 60}
  - {for: {recipe: grid}, ranks_per_node: 1}
  - {for: {depth: 48, pack: [mine]}, minutes: 240, stage_dir: auto}
pack_resources: {cpus_per_rank: 4, memory_gb: 16, minutes: 120}
budget_device_hours: 100
"""


def spoil_yaml(text: str, number: int) -> bytes:
    """Spoil the values of a YAML text at odd numbers, its bytes at even ones."""
    if number % 2:
        with contextlib.suppress(RecursionError):
            return yaml.safe_dump(mutants.spoil_tree(yaml.safe_load(text), number)).encode()
    return mutants.spoil_text(text, number)


def spoil_matrix(folder: Path, number: int) -> None:
    (folder / "matrix.yaml").write_bytes(spoil_yaml(MATRIX, number))


def read_matrix(folder: Path) -> object:
    from irnet_hpc.runs.spec import run_folder
    from irnet_hpc.sweep.matrix.matrix import read_matrix

    inside = (folder / "results").resolve()
    for cell in read_matrix(folder / "matrix.yaml", folder).cells:
        assert (folder / "results" / run_folder("", cell.spec)).resolve().is_relative_to(inside), (
            cell
        )
        json.dumps(dataclasses.asdict(cell.spec))
    return None


SITE = """
account: mine
partition: gpu
modules: [gcc/12, cuda]
setup: ["export A=1", "ulimit -c 0"]
srun_args: [--mpi=pmix, --cpu-bind=cores]
sbatch: {reservation: x, exclusive: true, nice: 10}
gpus_per_task: 1
gpu_gb: 80
"""


def spoil_site(folder: Path, number: int) -> None:
    (folder / "site.yaml").write_bytes(spoil_yaml(SITE, number))


def read_site(folder: Path) -> object:
    from irnet_hpc.sweep.matrix.sites import read_site

    return (
        json.dumps(dataclasses.asdict(read_site(str(folder / "site.yaml"))), default=str) and None
    )


KINDS = {
    "matrix": Kind(make_pack, spoil_matrix, read_matrix, False),
    "site": Kind(make_nothing, spoil_site, read_site, False),
    "states": Kind(make_states, spoil_states, read_states, False),
}
