"""Reads spoiled files, one after another, as the commands do; run by test_fuzz.py in a process of its own, which may die.

    python tests/fuzzed.py KIND FOLDER              # writes the sound files
    python tests/fuzzed.py KIND FOLDER FIRST N      # spoils and reads them, by the numbers from FIRST on

The second prints a line of JSON a file: its number, what came of it (same, read, refused, or the traceback), and, at the end, by how much
the memory grew. A file that takes longer than LIMIT_S ends the process with the traceback of where it hangs.
"""

import contextlib
import dataclasses
import faulthandler
import gzip
import hashlib
import io
import json
import lzma
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from irnet_hpc.errors import UserError
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.lease import Leases
from tests import builders
from tests.robustness import mutants

LIMIT_S = 30
ROOM = 2**30  # bytes of address space, above what the process has when it begins
PROPERTIES = {"band_gap": "eV", "density": "g/cm³"}


class Kind(NamedTuple):
    """`make(folder)` writes sound files, `spoil(folder, number)` all of them anew, with one spoiled, and `read(folder)` reads
    them: what it returns can be compared."""

    make: Callable[[Path], None]
    spoil: Callable[[Path, int], None]
    read: Callable[[Path], object]
    exact: bool  # what is read must be what was written: the files have checksums


def bytes_of(*names: str) -> Callable[[Path, int], None]:
    """Spoils the bytes of one of these files, of which sound copies are kept as NAME.sound."""

    def spoil(folder: Path, number: int) -> None:
        for name in names:
            (folder / name).write_bytes((folder / f"{name}.sound").read_bytes())
        name = names[number % len(names)]
        (folder / name).write_bytes(
            mutants.of_bytes((folder / f"{name}.sound").read_bytes(), number)
        )

    return spoil


def keep(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.sound").write_bytes((folder / name).read_bytes())


# ------------------------------------------------------------------------------------------------------------------ packs


def make_pack(folder: Path) -> None:
    builders.write_pack(
        folder, "alloys-elements", PROPERTIES, rows=40, feature_versions={"elements": 1}
    )
    keep(folder, "alloys-elements.h5")


def spoil_pack(folder: Path, number: int) -> None:
    """Every other one under sound checksums, as another program would write it."""
    path = folder / "alloys-elements.h5"
    bytes_of(path.name)(folder, number)
    if number % 2:
        path.write_bytes((folder / f"{path.name}.sound").read_bytes())
        rewrite_pack(path, number)


def rewrite_pack(path: Path, number: int) -> None:
    import random

    import h5py
    import numpy as np

    chance = random.Random(number)
    with h5py.File(path, "r+") as file:
        names = [
            "x",
            "formula",
            "material_id",
            "feature_label",
            "y",
            *(f"y/{name}" for name in PROPERTIES),
        ]
        name = chance.choice(names)
        change = chance.randrange(6)
        if change == 0:
            del file[name]
        elif change == 1:
            del file[name]
            shape = chance.choice(
                ((), (0,), (40,), (39,), (40, 2), (10**12,), (10**9, 10**3), (3, 3, 3))
            )
            kind = chance.choice(
                ("f4", "f8", "i8", "S9", h5py.string_dtype(), "S2000000", [("a", "f4")])
            )
            chunks = tuple(min(n, 64) for n in shape) if shape and all(shape) else None
            file.create_dataset(name, shape, kind, chunks=chunks)
        elif change == 2 and name != "y":
            data = file[name][...].copy()
            data[chance.randrange(len(data))] = data[chance.randrange(len(data))]
            if data.dtype.kind == "f":
                data[chance.randrange(len(data))] += 1
            file[name][...] = data
        else:
            key = chance.choice(list(file.attrs))
            odd = chance.choice(mutants.ODD)
            if change == 3:
                del file.attrs[key]
            elif change == 4:
                file.attrs[key] = (
                    json.dumps(odd)[:60000]
                    if not isinstance(odd, str)
                    else odd[:60000].replace("\0", "")
                )
            else:
                file.attrs[key] = chance.choice(
                    (
                        1,
                        2.5,
                        np.arange(3),
                        np.bytes_(b"\xff\xfe"),
                        np.bytes_(b"{}"),
                        np.bytes_(b"[]"),
                    )
                )


def read_pack(folder: Path) -> object:
    from irnet_hpc.pack import store
    from irnet_hpc.pack.summary import describe

    path = folder / "alloys-elements.h5"
    with store.open_pack(path) as pack:
        rows = slice(0, pack.n_rows)
        read = [pack.x(rows).tobytes(), *(pack.y(name, rows).tobytes() for name in pack.units)]
        read += [pack.formulas(rows), pack.material_ids(rows), pack.feature_labels, pack.identity]
        with contextlib.suppress(
            KeyError, TypeError, AttributeError, ValueError
        ):  # attributes that only describe
            describe(pack)
    return [store.verify(path), hashlib.sha256(repr(read).encode()).hexdigest()]


# ------------------------------------------------------------------------------------------------------------- run folders


def make_run(folder: Path) -> None:
    """A run of a small network, trained by the command itself, and checkpoints as it writes them."""
    from irnet_hpc.features.sets import FEATURE_SETS
    from irnet_hpc.train import cli as train

    version = {"elements": FEATURE_SETS["elements"].version}
    builders.write_pack(folder, "alloys-elements", PROPERTIES, rows=40, feature_versions=version)
    recipe = "{name: t, base: paper, batch: 8, norm_group: 8, epochs: 2}"
    command = f"--property band_gap --layers 4BARx2-1 --engine none --pack {folder / 'alloys-elements.h5'}"
    with contextlib.redirect_stdout(io.StringIO()):
        assert (
            train.main([*command.split(), "--recipe", recipe, "--results", str(folder / "runs")])
            == 0
        )
    (made,) = (folder / "runs").rglob("result.json")
    for name in ("result.json", "model.safetensors", "test_predictions.npz"):
        (folder / name).write_bytes((made.parent / name).read_bytes())
    keep(folder, "result.json", "model.safetensors", "test_predictions.npz")


def spoil_run(folder: Path, number: int) -> None:
    """Of three one has a spoiled model, one a spoiled result, one a result of other values."""
    bytes_of("model.safetensors", "result.json", "test_predictions.npz")(
        folder, number - number % 3 + (0, 1, 1)[number % 3]
    )
    if number % 3 == 2:
        result = json.loads((folder / "result.json.sound").read_text())
        (folder / "result.json").write_text(json.dumps(mutants.of_tree(result, number)))


def read_run(folder: Path) -> object:
    from irnet_hpc.predict.members import read_member
    from irnet_hpc.train.warm_start import read_origin

    origin, member = read_origin(folder), read_member(folder)
    digest = hashlib.sha256(repr([member.feature_labels, origin.feature_labels]).encode())
    for tensors in (origin.tensors, member.network.state_dict()):
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    scaling = [
        member.scaling.feature_mean.tolist(),
        member.scaling.target_scale.tolist(),
        member.units,
    ]
    return [digest.hexdigest(), repr(scaling)]


def read_predictions(folder: Path) -> object:
    from irnet_hpc.runs.collect import FinishedRun
    from irnet_hpc.runs.predictions import read_predictions
    from irnet_hpc.runs.result import read_result
    from irnet_hpc.runs.spec import read_spec

    result = read_result(folder / "result.json.sound")
    found = read_predictions(FinishedRun(folder, read_spec(result.spec), result))
    return hashlib.sha256(b"".join(array.tobytes() for array in found.values())).hexdigest()


def make_checkpoint(folder: Path) -> None:
    import torch

    from irnet_hpc.distributed.engines import Alone
    from irnet_hpc.train import checkpoint

    for step in (8, 16):
        tensors = {"w": torch.full((50,), float(step)), "b": torch.full((2, 3), -float(step))}
        state = checkpoint.State(epoch=step // 8, step=step, history=[[0, 8, 1e-4, 0.5, 0.4, 1.0]])
        checkpoint.save(RunFolder(folder), "0" * 64, tensors, state, Alone())
    for path in list((folder / "checkpoint").iterdir()):
        keep(path.parent, path.name)


def spoil_checkpoint(folder: Path, number: int) -> None:
    names = [f"{slot}{suffix}" for slot in "ab" for suffix in (".json", ".safetensors")]
    bytes_of(*names)(folder / "checkpoint", number)
    if number % 3 == 0:
        name = names[number % 4 // 2 * 2]
        whole = json.loads((folder / "checkpoint" / f"{name}.sound").read_text())
        (folder / "checkpoint" / name).write_text(json.dumps(mutants.of_tree(whole, number)))


def read_checkpoint(folder: Path) -> object:
    """One of the two that were written, or a fresh start: nothing else may come of it."""
    import torch

    from irnet_hpc.distributed.engines import Alone
    from irnet_hpc.train import checkpoint

    tensors = {"w": torch.zeros(50), "b": torch.zeros(2, 3)}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        state = checkpoint.resume(RunFolder(folder), "0" * 64, tensors, Alone())
        assert checkpoint.resume_point(RunFolder(folder), "0" * 64, Alone()) == (
            state.epoch,
            state.step,
        )
    values = {float(x) for x in tensors["w"]} | {-float(x) for x in tensors["b"].flatten()}
    assert (
        values == {float(state.step)}
        and state.step in (0, 8, 16)
        and state.epoch == state.step // 8
    )
    assert state == checkpoint.State() or state.history == [[0, 8, 1e-4, 0.5, 0.4, 1.0]]
    return None


SEARCH = {
    "tried": [{"point": {"alpha": 0.1 * n}, "mae": 0.5 - n / 10, "seconds": 1.0} for n in range(3)]
}


def make_grid(folder: Path) -> None:
    """How far a grid has come, as a classical cell notes it at each point."""
    from irnet_hpc.train import classical

    found = dataclasses.asdict(classical.Search(**SEARCH))
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/grid.json").write_text(
        json.dumps({"sha256": classical._digest(found), "key": "0" * 64, "search": found}, indent=1)
    )
    keep(folder, "checkpoint/grid.json")


def spoil_grid(folder: Path, number: int) -> None:
    bytes_of("checkpoint/grid.json")(folder, number)
    if number % 2:
        whole = json.loads((folder / "checkpoint/grid.json.sound").read_text())
        (folder / "checkpoint/grid.json").write_text(json.dumps(mutants.of_tree(whole, number)))


def read_grid(folder: Path) -> object:
    """All that was tried, or nothing of it."""
    from irnet_hpc.train import classical

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = classical._resume(builders.run_of(None, None, folder, "0" * 64))
    assert found in (classical.Search(), classical.Search(**SEARCH)), found
    return None


# ----------------------------------------------------------------------------------------------------------------- tables


def make_results(folder: Path) -> None:
    """Results of two networks and a classical model; the last of them is the one that is spoiled."""
    from tests.aggregate.results import write_run

    for seed in (0, 1):
        for model, mae in (("plain-17", 0.3), ("irnet-17", 0.2), ("ridge", 0.25)):
            last = write_run(folder / "results", mae, model, seed=seed)
    (folder / "last").symlink_to(last)
    keep(folder, "last/result.json")


def spoil_result(folder: Path, number: int) -> None:
    if number % 2:
        whole = json.loads((folder / "last/result.json.sound").read_text())
        (folder / "last/result.json").write_text(json.dumps(mutants.of_tree(whole, number)))
    else:
        bytes_of("last/result.json")(folder, number)


def read_results(folder: Path) -> object:
    """Write the tables, all but the figures."""
    from irnet_hpc.aggregate.report import make_tables

    make_tables(folder / "results").write_tables(folder / "tables")
    return None


# -------------------------------------------------------------------------------------------------- how a matrix stands

STANDING = """
packs: [alloys-elements]
properties: [band_gap]
models: [plain-10, plain-17, irnet-10, irnet-17, ridge]
recipes: [paper, grid]
"""
STATES_OF = (
    *(
        "run0/result.json",
        "run1/run.json",
        "run1/history.csv",
        "run2/error.json",
        "run3/lease.json",
    ),
    *("journal0", "journal1"),
)


def make_standing(folder: Path) -> None:
    """Runs as trainings leave them: one that is done, one with a checkpoint, one that has failed, one whose process was killed
    and one that SLURM had; and the journals of the two sweeps."""
    from irnet_hpc.runs import lease
    from irnet_hpc.runs.spec import run_folder
    from irnet_hpc.sweep import journal
    from irnet_hpc.sweep.matrix.matrix import read_matrix

    make_pack(folder)
    (folder / "matrix.yaml").write_text(STANDING)
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
    keep(folder, *STATES_OF)


def key_of(cell: object, matrix: object) -> str:
    from irnet_hpc.runs.spec import run_key

    return run_key(cell.spec, cell.recipe, matrix.packs[0].identity)


KILLED = "4194300@1"  # a process, as process_name() has it, that there is none of


def spoil_standing(folder: Path, number: int) -> None:
    """Every other one by its values."""
    bytes_of(*STATES_OF)(folder, number // 2)
    name = STATES_OF[number // 2 % len(STATES_OF)]
    if number % 2 and not name.endswith(".csv"):
        text = (folder / f"{name}.sound").read_text()
        values = [
            json.loads(line)
            for line in (text.splitlines() if name.startswith("journal") else [text])
        ]
        spoiled = mutants.of_tree(values, number)
        lines = spoiled if isinstance(spoiled, list) else [spoiled]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(folder / "run3/lease.json", (0, 0))  # else its next owner would wait for it


def read_standing(folder: Path) -> object:
    """By `sweep plan`, `status` and `prune`, and by who takes a run up. Nothing is said of, or written to, any other folder."""
    from irnet_hpc.distributed import slurm
    from irnet_hpc.sweep import cli as sweep
    from irnet_hpc.sweep.ledger import read_ledger
    from irnet_hpc.sweep.matrix.matrix import read_matrix
    from irnet_hpc.sweep.prune import prune
    from irnet_hpc.sweep.status import status_table

    slurm._run = lambda *command, **_: ""  # SLURM, which knows nothing of what was submitted
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


# ------------------------------------------------------------------------------------------------------ what people write

MATRIX = """
packs: [alloys-elements, {name: mine, source: mine.csv, features: magpie, properties: [band_gap], split_seeds: [0, 1]}]
properties: [band_gap, "band_gap,density"]
models: [irnet-17, 64BARx2-1, {architectures: [plain, srnet, random_forest], depths: [10, 48]}, ridge]
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


def spoiled_yaml(text: str, number: int) -> bytes:
    """Of odd numbers the values, of even ones the bytes."""
    if number % 2:
        with contextlib.suppress(RecursionError):
            return yaml.safe_dump(mutants.of_tree(yaml.safe_load(text), number)).encode()
    return mutants.of_text(text, number)


def spoil_matrix(folder: Path, number: int) -> None:
    (folder / "matrix.yaml").write_bytes(spoiled_yaml(MATRIX, number))


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


TABLE = "material_id,formula,band_gap,density,note,mine\n" + "".join(
    f'id-{n},{formula},{n / 7},{"" if n % 3 else n},"a, ""word""",{n}\n'
    for n, formula in enumerate(("NaN", "Fe2O3", "MgO", "Ag(AuS)2", "C", "Si", "GaAs", "H2O"))
)
LINES = "".join(
    json.dumps(
        {"material_id": f"m{n}", "lattice": [[4, 0, 0], [0, 4, 0], [0, 0, n + 2.5]], "species": ["Na", {"Cl": 0.5, "Br": 0.5}][: n % 2 + 1],
         "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]][: n % 2 + 1], "targets": {"band_gap": n / 3}, "mine": n, "split": "train"}
    ) + "\n"
    for n in range(6)
)  # fmt: skip
TABLES = {
    "t.csv": (TABLE, lambda text: text),
    "t.jsonl": (LINES, lambda text: text),
    "t.csv.gz": (TABLE, lambda text: gzip.compress(text, mtime=0)),
    "t.csv.xz": (TABLE, lzma.compress),
    "t.jsonl.xz": (LINES, lzma.compress),
}


def spoil_table(folder: Path, number: int) -> None:
    """The text, or the packed bytes, of a table of each kind in turn."""
    for name in TABLES:
        (folder / name).unlink(missing_ok=True)
    name = list(TABLES)[number % len(TABLES)]
    text, packed = TABLES[name]
    if number % 2:
        (folder / name).write_bytes(packed(mutants.of_text(text, number)))
    else:
        (folder / name).write_bytes(mutants.of_bytes(packed(text.encode()), number))


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
    (folder / "site.yaml").write_bytes(spoiled_yaml(SITE, number))


def read_site(folder: Path) -> object:
    from irnet_hpc.sweep.matrix.sites import read_site

    return (
        json.dumps(dataclasses.asdict(read_site(str(folder / "site.yaml"))), default=str) and None
    )


def read_table(folder: Path) -> object:
    for path in (folder / name for name in TABLES):
        if path.exists():
            builders.load_table(str(path), columns=True, structures=path.name.startswith("t.jsonl"))
    return None


def nothing(folder: Path) -> None:
    pass


KINDS = {
    "pack": Kind(make_pack, spoil_pack, read_pack, True),
    "checkpoint": Kind(make_checkpoint, spoil_checkpoint, read_checkpoint, False),
    "grid": Kind(make_grid, spoil_grid, read_grid, False),
    "result": Kind(make_results, spoil_result, read_results, False),
    "matrix": Kind(make_pack, spoil_matrix, read_matrix, False),
    "site": Kind(nothing, spoil_site, read_site, False),
    "standing": Kind(make_standing, spoil_standing, read_standing, False),
    "table": Kind(nothing, spoil_table, read_table, False),
    "model": Kind(make_run, spoil_run, read_run, True),
    "predictions": Kind(make_run, bytes_of("test_predictions.npz"), read_predictions, True),
}


def outcome(kind: Kind, folder: Path, sound: object) -> dict:
    try:
        read = kind.read(folder)
    except UserError as error:
        said = str(error)
        return (
            {"is": "refused", "said": said}
            if said and "\n" not in said
            else {"is": "no sentence", "said": said}
        )
    except OSError as error:
        return {"is": "refused" if error.strerror else "broken", "said": str(error)}
    except BaseException:
        return {"is": "broken", "said": traceback.format_exc()[-3000:]}
    if kind.exact and read != sound:
        return {"is": "wrong", "said": f"{read} instead of {sound}"[:500]}
    return {"is": "same" if kind.exact else "read", "said": ""}


def main() -> None:
    kind, folder = KINDS[sys.argv[1]], Path(sys.argv[2])
    if len(sys.argv) == 3:
        kind.make(folder)
        return
    first, n = map(int, sys.argv[3:])
    for path in folder.rglob("*.sound"):  # another process may have died with one of them spoiled
        path.with_suffix("").write_bytes(path.read_bytes())
    sound = kind.read(folder) if kind.exact else None
    outcome(kind, folder, sound)  # whatever is imported is imported now
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, first + n):
        print(json.dumps({"number": number}), flush=True)
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        kind.spoil(folder, number)
        print(json.dumps({"number": number} | outcome(kind, folder, sound)), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(
        json.dumps(
            {"grown_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
