"""Build runs and tables of candidates for the tests of prediction."""

import contextlib
import io
import math
from pathlib import Path

import numpy as np

from irnet_hpc.console import exit_status
from irnet_hpc.pack import store
from irnet_hpc.pack.writer import create_pack
from irnet_hpc.train import cli as train

ROOT = Path(__file__).parents[2]
# Normalised layers with both kinds of shortcut, and branches.
LAYERS = "48BARx2-32BAx2R-16L0.1x1+1-1"
QUICK = (
    "{name: quick, base: onecycle, epochs: 8, batch: 64, norm_group: 32, precision: fp32, ema: 0.9}"
)
CENSORED = QUICK.replace("quick", "cut").replace("ema", "floor: censored, ema")


def train_one(pack_file: Path, results: Path, **changes) -> Path:
    """Train a small network by the command; return the folder of the run."""
    options = {
        "pack": pack_file,
        "property": "mixing_enthalpy",
        "layers": LAYERS,
        "recipe": QUICK,
    } | changes
    flags = [
        part
        for name, value in options.items()
        if value
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    before = set(results.rglob("result.json"))
    with contextlib.redirect_stdout(io.StringIO()):
        assert exit_status(lambda: train.main([*flags, "--results", str(results)])) == 0
    (path,) = set(results.rglob("result.json")) - before
    return path.parent


def table(path: Path, formulas) -> Path:
    """Write a CSV of formulas."""
    path.write_text("\n".join(["formula", *formulas]) + "\n", encoding="utf-8")
    return path


def numbers(rows: list[dict[str, str]], name: str) -> np.ndarray:
    """Return a column of the list, (n_rows,), NaN where it is empty."""
    return np.array([float(row[name]) if row[name] else math.nan for row in rows])


def stored(run: Path) -> dict[str, np.ndarray]:
    """Read the predictions that a run stored for its test rows."""
    with np.load(run / "test_predictions.npz", allow_pickle=False) as file:
        return dict(file)


def held_out(pack_file: Path, role: str) -> tuple[list[str], np.ndarray]:
    """Read formulas and values of the val or the test rows of a pack."""
    with store.open_pack(pack_file) as opened:
        return opened.formulas(opened.rows(role)), opened.y("mixing_enthalpy", opened.rows(role))


def deal_to_folds(pack_file: Path, folder: Path, n_folds: int) -> list[Path]:
    """Write a pack for each fold of a pack's rows, with 40 val rows each; return their paths."""
    with store.open_pack(pack_file) as pack:
        rows = slice(0, pack.n_rows)
        x, y = pack.x(rows), pack.y("mixing_enthalpy", rows)
        formulas, ids = pack.formulas(rows), pack.material_ids(rows)
        labels, identity = pack.feature_labels, pack.identity
    made, fold = [], np.arange(len(y)) % n_folds
    for number in range(n_folds):
        test, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        order = np.concatenate([others, test])
        counts = {"train": len(others) - 40, "val": 40, "test": len(test)}
        split = {"by": "folds", "n_folds": n_folds, "seed": number}
        path = folder / f"alloys-folds{n_folds}-fold{number}.h5"
        own = identity | {"split": split, "properties": {"mixing_enthalpy": "eV/atom"}}
        with create_pack(path, labels, len(y)) as writer:
            writer.append(x[order])
            writer.finish(
                [formulas[row] for row in order],
                [ids[row] for row in order],
                {"mixing_enthalpy": y[order]},
                counts,
                own,
                {},
            )
        made.append(path)
    return made
