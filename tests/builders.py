"""Build small packs, results and trainings for tests, in the formats of the real ones."""

import dataclasses
from pathlib import Path

import numpy as np

from irnet_hpc.data.loading import Loaded, load_source
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.files import write_json
from irnet_hpc.pack.writer import create_pack
from irnet_hpc.runs.classical_grids import GRIDS
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import run_folder, run_key
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.matrix.matrix import Cell, Matrix
from irnet_hpc.train import loop
from irnet_hpc.train.run import Run
from irnet_hpc.train.stack import Replica
from irnet_hpc.train.stopping import NeverStop


def load_table(source: str, data_dir: Path | str | None = None, **options) -> Loaded:
    """Resolve and load a source."""
    return load_source(resolve_source(source, data_dir), **options)


def write_pack(
    folder: Path, name: str, properties: dict[str, str], rows: int = 10, **identity
) -> Path:
    """A finished pack with `properties` (name -> unit) and one feature."""
    path = folder / f"{name}.h5"
    described = {
        "source": "alloys",
        "source_sha256": "0" * 64,
        "rules": 1,
        "n_source_rows": rows,
        "properties": properties,
        "features": name.rpartition("-")[2],
        "feature_versions": {},
        "filters": [],
        "split": {"by": "reduced formula", "seed": 0},
    } | identity
    with create_pack(path, ["feature"], rows) as writer:
        writer.append(np.arange(rows, dtype=np.float32)[:, None])
        counts = {"train": rows - 4, "val": 2, "test": 2}
        targets = {name: np.linspace(0, 1, rows) for name in properties}
        reported = dict.fromkeys(properties, counts)
        formulas = [f"Al{n}Ni" for n in range(1, rows + 1)]
        writer.finish(
            formulas,
            [str(n) for n in range(rows)],
            targets,
            counts,
            described,
            {"reported": reported},
        )
    return path


def write_result(matrix: Matrix, cell: Cell, results: Path, **changes) -> Path:
    """The result.json of a cell, as training would leave it."""
    identities = {pack.name: pack.identity for pack in matrix.packs}
    identity, origin = identities[cell.spec.pack], cell.origin
    origin_key = origin and run_key(origin.spec, origin.recipe, identities[origin.spec.pack])
    known = {
        "spec": dataclasses.asdict(cell.spec),
        "recipe": dataclasses.asdict(cell.recipe),
        "pack_identity": identity,
        "unit": "eV/atom",
        "test_mae": 0.125,
        "device_hours": 0.5,
        "key": run_key(cell.spec, cell.recipe, identity, origin_key),
        "origin": cell.origin and {"key": origin_key},
    } | changes
    result = {field.name: known.get(field.name) for field in dataclasses.fields(RunResult)}
    path = run_folder(results, cell.spec) / "result.json"
    write_json(path, result)
    return path


def make_grids_small(monkeypatch) -> None:
    """Let the costly models of GRIDS have fewer trees and epochs."""
    changes = {
        "boosted_trees": {"max_iter": 20},
        "tabm": {"epochs": 2},
        "adaboost": {"n_estimators": 5},
    }
    changes |= {name: {"n_estimators": 10} for name in ("bagging", "extra_trees", "random_forest")}
    for name, fields in changes.items():
        grid = GRIDS[name]
        smaller = dataclasses.replace(grid, fixed=grid.fixed | fields)
        monkeypatch.setitem(GRIDS, name, smaller)


def states(matrix: Matrix, results: Path) -> dict[str, str]:
    """A cell's model -> its state."""
    return {entry.cell.spec.model: entry.state for entry in read_ledger(matrix, results).cells}


def run_of(spec, recipe, path, key="key", origin=None) -> Run:
    """A run in the folder `path`."""
    return Run(spec, recipe, key, RunFolder(path), origin)


def train(spec, recipe, key, data, path, comm, device, origin=None):
    """(network, state), or None where it was stopped. Raises UserError if the training fails."""
    replica = Replica(run_of(spec, recipe, path, key, origin), data)
    ended = list(loop.train([replica], comm, device, NeverStop()))
    if ended and ended[0].error:
        raise ended[0].error
    return (ended[0].network, ended[0].state) if ended else None


class StopAfter:
    """Stands for a signal that arrives in a given step."""

    is_late = False

    def __init__(self, n_steps: int) -> None:
        self.left = n_steps

    @property
    def asked(self) -> bool:
        self.left -= 1
        return self.left <= 0
