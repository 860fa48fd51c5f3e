"""Compare the speed of `predict` with matminer's features and a random forest, process by process.

python benchmarks/predict.py RUN --source oqmd        300,000 formulas of data/oqmd.csv.xz
python benchmarks/predict.py RUN --source oqmd --rival-rows 10000   scale the rival's time up

RUN is a finished network on the feature set magpie, whose pack is available. Both sides are whole
processes, from the start of Python to the written file, on one core each: a CSV of formulas to a
CSV of predictions. The rival computes the same 145 features by matminer, row by row without the
cost of a data frame, and asks a forest of 500 trees that was fitted before and is loaded from a
file. Ours also computes intervals, from the pack, and flags. The measure is processor time, since
on a shared machine wall time depends on the others.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from features import machine

N_TREES = 500


def main() -> None:
    arguments = parser().parse_args()
    if arguments.rival:
        rival(*arguments.rival)
        return
    from irnet_hpc.data.loading import load_source
    from irnet_hpc.data.resolve import resolve_source

    folder = Path(arguments.keep or tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    forest = folder / "forest.joblib"
    if not forest.exists():
        fit(forest, Path(arguments.run), arguments.forest_rows)
    formulas = load_source(resolve_source(arguments.source), n_rows=arguments.rows).table.formula
    some = formulas if arguments.rival_rows is None else formulas[: arguments.rival_rows]
    write(folder / "all.csv", formulas)
    write(folder / "some.csv", some)
    us = timed(
        "irnet_hpc.predict", "-m", arguments.run, folder / "all.csv", "-o", folder / "ours.csv"
    )
    them = timed(__file__, "", "--rival", forest, folder / "some.csv", folder / "theirs.csv")
    start = (
        them
        if len(some) == len(formulas)
        else timed(
            __file__, "", "--rival", forest, write(folder / "1.csv", some[:1]), folder / "1o.csv"
        )
    )
    print(f"{len(formulas):,} formulas of {arguments.source}, one core each, on {machine()}")
    if len(some) < len(formulas):  # the start is paid once, the rest for every row
        them = tuple(
            s + (t - s) * len(formulas) / len(some) for s, t in zip(start, them, strict=True)
        )
        print(
            f"the rival's time is scaled up from {len(some):,} formulas, "
            f"without its start ({start[0]:.1f} s)"
        )
    for name, (processor, wall) in (("matminer + forest", them), ("irnet_hpc", us)):
        print(
            f"{name:18} processor {processor:8.1f} s  wall {wall:8.1f} s  "
            f"{processor / len(formulas) * 1e6:8.1f} µs a formula"
        )
    print(f"{'ratio':18} processor {them[0] / us[0]:8.1f}    wall {them[1] / us[1]:8.1f}")


def fit(path: Path, run: Path, n_rows: int) -> None:
    """A forest on the first training rows of the run's pack. Its time does not count."""
    import joblib
    from sklearn.ensemble import RandomForestRegressor

    from irnet_hpc.pack.store import open_pack, pack_path
    from irnet_hpc.runs.result import read_result

    spec = read_result(run / "result.json").spec
    with open_pack(pack_path(spec["pack"])) as pack:
        y = pack.y(spec["property"], slice(0, n_rows))
        x = pack.x(slice(0, n_rows))[~np.isnan(y)]
    forest = RandomForestRegressor(N_TREES, max_features="sqrt", random_state=0, n_jobs=-1).fit(
        x, y[~np.isnan(y)]
    )
    joblib.dump(forest.set_params(n_jobs=1), path)


def rival(forest: str, table: str, output: str) -> None:
    """What a user of matminer and scikit-learn does."""
    import joblib
    from matminer.featurizers.base import MultipleFeaturizer
    from matminer.featurizers.composition import (
        ElementProperty,
        IonProperty,
        Stoichiometry,
        ValenceOrbital,
    )
    from pymatgen.core import Composition

    warnings.simplefilter("ignore")
    model = joblib.load(forest)
    featurizer = MultipleFeaturizer(
        [
            Stoichiometry(),
            ElementProperty.from_preset("magpie", impute_nan=True),
            ValenceOrbital(props=["avg"], impute_nan=True),
            IonProperty(fast=True, impute_nan=True),
        ]
    )
    with Path(table).open(encoding="utf-8", newline="") as file:
        formulas = [row["formula"] for row in csv.DictReader(file)]
    x = np.array([featurizer.featurize(Composition(formula)) for formula in formulas], np.float32)
    features_s = time.process_time()
    prediction = model.predict(x)
    forest_s = time.process_time() - features_s
    print(
        f"rival: {features_s:.1f} s to the features, {forest_s:.1f} s for the forest",
        flush=True,
    )
    with Path(output).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("formula", "prediction"), *zip(formulas, prediction, strict=True)]
        )


def write(path: Path, formulas: list[str]) -> Path:
    path.write_text("\n".join(["formula", *formulas]) + "\n", encoding="utf-8")
    return path


def timed(program: str, module: str, *arguments: object) -> tuple[float, float]:
    """Processor and wall seconds of a Python process on one core."""
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, *([module] if module else []), program, *map(str, arguments)]
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
    )
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", help="folder of a finished run")
    parser.add_argument(
        "--source", default="alloys", help="a source's name or a path (default: %(default)s)"
    )
    parser.add_argument(
        "--rows", type=int, default=300_000, help="a fixed random sample (default: 300,000)"
    )
    parser.add_argument(
        "--rival-rows", type=int, help="of them that the rival predicts (default: all)"
    )
    parser.add_argument(
        "--forest-rows",
        type=int,
        default=10_000,
        help="training rows of the forest (default: 10,000)",
    )
    parser.add_argument(
        "--keep", help="folder for the forest and the tables, which a second call takes up"
    )
    parser.add_argument("--rival", nargs=3, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
