"""Compare the speed of `magpie` features with matminer: formulas to matrix, one core each.

python benchmarks/features.py                             10,000 alloys of 3 to 5 elements
python benchmarks/features.py --source oqmd               10,000 formulas of data/oqmd.csv.xz
python benchmarks/features.py --source oqmd --rows 1000   a tenth of the time

Raw tables are those of $IRNET_DATA. Both sides begin with strings and have their tables loaded;
matminer's reads formulas by pymatgen. Each is run five times, in turn, and the median counts.
Values are compared in every column.
"""

import argparse
import os
import platform
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
from pymatgen.core import Composition

from irnet_hpc.data.loading import load_source
from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.features import magpie

RELATIVE, ABSOLUTE = 1e-5, 1e-6


def main() -> None:
    arguments = parser().parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, whatever numpy would like
    formulas = load_source(resolve_source(arguments.source), n_rows=arguments.rows).table.formula
    magpie.tables()
    magpie.featurizers()

    def ours() -> np.ndarray:
        return magpie.matrix(parse_materials(formula_table(formulas))[0])

    def matminers() -> np.ndarray:
        compositions = map(Composition, formulas)
        return np.array(
            [[v for f in magpie.featurizers() for v in f.featurize(c)] for c in compositions], float
        )

    seconds = {ours: [], matminers: []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(arguments.repeats):
            found = {side: timed(side, seconds[side]) for side in seconds}
    x, expected = found[ours], found[matminers]
    differ = ~np.isclose(x, expected, rtol=RELATIVE, atol=ABSOLUTE)
    ours_s, matminers_s = (statistics.median(seconds[side]) for side in (ours, matminers))
    print(
        f"{len(formulas):,} formulas of {arguments.source}, medians of {arguments.repeats}, "
        f"one core each, on {machine()}"
    )
    print(
        f"matminer {matminers_s:10.3f} s   {matminers_s / len(formulas) * 1e6:10.1f} µs a formula"
    )
    print(f"irnet_hpc{ours_s:10.3f} s   {ours_s / len(formulas) * 1e6:10.1f} µs a formula")
    print(f"ratio    {matminers_s / ours_s:10.0f}")
    print(
        f"values that differ by more than {RELATIVE:g} relative and {ABSOLUTE:g} absolute: "
        f"{differ.sum():,} of {x.size:,}; in float32, that differ at all: "
        f"{(x.astype('f4') != expected.astype('f4')).sum():,}"
    )


def timed(side, seconds: list[float]) -> np.ndarray:
    began = time.perf_counter()
    x = side()
    seconds.append(time.perf_counter() - began)
    return x


def machine() -> str:
    """Its name and its processor's."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{platform.node()} ({processor}), Python {platform.python_version()}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", default="alloys", help="a source's name or a path (default: %(default)s)"
    )
    parser.add_argument(
        "--rows", type=int, default=10_000, help="a fixed random sample (default: 10,000)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side (default: 5)")
    return parser


if __name__ == "__main__":
    main()
