"""Compare irnet_hpc.fit with matminer and scikit-learn, on one table and the same five outer folds.

python benchmarks/rivals.py data/expt_gap.csv.xz
python benchmarks/rivals.py data/expt_gap.csv.xz --rows 1500

Each script runs in a process of its own. It is timed from its start to its end, imports included:
the wall time, and the processor time of all its threads and processes, which other programs on the
machine lengthen less.
The table is read by `pack_table` first, so that both get one clean row for each composition. The
models of irnet_hpc are chosen by val rows within the training part of each outer fold, so the outer
test rows choose nothing. A line counts as code if it is neither blank nor part of the docstring.
"""

import argparse
import ast
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev

import irnet_hpc

FOLDER = Path(__file__).parent
SCRIPTS = (
    ("matminer + random forest", "rival_matminer.py", ()),
    ("irnet_hpc.fit, extra trees only", "rival_irnet.py", ("models=extra_trees",)),
    ("irnet_hpc.fit, default", "rival_irnet.py", ()),
)


def main() -> None:
    """Print a line for each script, with its errors and times relative to the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="a table with a column band_gap")
    parser.add_argument("--rows", type=int, help="a random sample of so many rows")
    arguments = parser.parse_args()
    load = " ".join(f"{part:.1f}" for part in os.getloadavg())
    print(f"{len(os.sched_getaffinity(0))} cores of {cpu_model()}, load {load}, {platform.node()}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gaps.csv")
        print(f"{clean(arguments.table, arguments.rows, path):,} compositions")
        print(f"{'script':34} {'MAE, eV':>8} {'± sd':>7} {'of 1st':>7}", end="")
        print(f" {'wall s':>7} {'of 1st':>7} {'CPU s':>7} {'of 1st':>7} lines")
        first: tuple[float, float, float] | None = None
        for name, script, options in SCRIPTS:
            maes, wall, cpu = run(FOLDER / script, path, options)
            mae = fmean(maes)
            first = first or (mae, wall, cpu)
            print(
                f"{name:34} {mae:8.4f} {stdev(maes):7.4f} {mae / first[0]:7.3f} "
                f"{wall:7.1f} {wall / first[1]:7.2f} {cpu:7.1f} {cpu / first[2]:7.2f} "
                f"{n_lines(FOLDER / script):5}",
                flush=True,
            )


def clean(table: Path, n_rows: int | None, path: Path) -> int:
    """Write one row of each composition as formula,band_gap; return the number of rows."""
    with irnet_hpc.pack_table(
        table, properties="band_gap", features="elements", pack_dir=path.parent
    ) as pack:
        frame = pack.to_frame(features=False)[["formula", "band_gap"]]
    frame = frame.sort_values("formula")
    if n_rows:
        frame = frame.sample(n_rows, random_state=0)
    frame.to_csv(path, index=False)
    return len(frame)


def run(script: Path, table: Path, options: tuple[str, ...]) -> tuple[list[float], float, float]:
    """Run a script; return the MAE of each fold, the wall time and the processor time, in s."""
    began, used = time.monotonic(), cpu_s()
    done = subprocess.run(
        [sys.executable, script, table, *options],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(FOLDER.parent)},
    )
    wall = time.monotonic() - began
    return [float(text) for text in done.stdout.split()], wall, cpu_s() - used


def cpu_s() -> float:
    """Return the processor time of all processes that this one has started and that ended, in s."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def n_lines(script: Path) -> int:
    """Count the lines of code of a script."""
    text = script.read_text(encoding="utf-8")
    first = ast.parse(text).body[1].lineno
    return sum(bool(line.strip()) for line in text.splitlines()[first - 1 :])


def cpu_model() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?")


if __name__ == "__main__":
    main()
