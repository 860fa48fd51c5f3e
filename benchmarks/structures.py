"""Compare the speed of the 126 features of crystals with matminer's, one core each.

python benchmarks/structures.py             200 structures of data/mp_structures.jsonl.xz
python benchmarks/structures.py --rows 20   a tenth of the time: matminer takes a second a structure
python benchmarks/structures.py --source my_structures.jsonl

Raw tables are those of $IRNET_DATA. Both sides begin with a structure in memory and have their
tables loaded. matminer's is its own MultipleFeaturizer of the five featurizers, as a user has it.
Each structure goes to matminer once and to ours five times in turn, of which the median counts.
Values are compared in every column. Where they differ, matminer is asked again with the same
crystal's coordinates brought between 0 and 1.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from features import machine
from matminer.featurizers.base import MultipleFeaturizer
from matminer.featurizers.structure import (
    ChemicalOrdering,
    MaximumPackingEfficiency,
    SiteStatsFingerprint,
    StructuralHeterogeneity,
)
from pymatgen.core import Structure

from irnet_hpc.data.loading import load_source
from irnet_hpc.data.resolve import data_folder, resolve_source
from irnet_hpc.data.splits import sample
from irnet_hpc.features import magpie
from irnet_hpc.features import structure as ward2017

RELATIVE, ABSOLUTE = 1e-4, 1e-5


def main() -> None:
    arguments = parser().parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, whatever numpy would like
    warnings.simplefilter("ignore")
    least, most = arguments.sites
    source = arguments.source or str(data_folder() / "mp_structures.jsonl.xz")
    table = load_source(resolve_source(source), structures=True).table
    rows = np.flatnonzero((table.crystals.n_sites >= least) & (table.crystals.n_sites <= most))
    rows = rows[sample(len(rows), min(arguments.rows, len(rows)))]
    featurizer = matminers()
    columns = [featurizer.feature_labels().index(label) for label in ward2017.LABELS]
    magpie.tables()
    ward2017.vector(table.crystals[rows[0]])

    ours_s, matminers_s, n_differ, far = [], [], 0, []
    for row in rows:
        crystal = table.crystals[row]
        structure = Structure(crystal.lattice, crystal.number, crystal.position)
        expected, seconds = timed(1, reference, featurizer, structure)
        matminers_s.append(seconds)
        found, seconds = timed(arguments.repeats, ward2017.vector, crystal)
        ours_s.append(seconds)
        expected = expected[columns]
        differ = ~np.isclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE)
        n_differ += differ.sum()
        if differ.any():
            within = Structure(crystal.lattice, crystal.number, crystal.position % 1)
            again = reference(featurizer, within)[columns]
            agrees = np.isclose(found, again, rtol=RELATIVE, atol=ABSOLUTE).all()
            far.append((table.material_id[row], len(crystal.number), differ.sum(), agrees))
    print(
        f"{len(rows)} structures of {least} to {most} sites of {Path(source).name}, "
        f"one core each, on {machine()}"
    )
    for name, seconds in (("matminer ", matminers_s), ("irnet_hpc", ours_s)):
        print(
            f"{name}{sum(seconds):10.3f} s   "
            f"{statistics.median(seconds) * 1e6:12.1f} µs a structure in the median, "
            f"{sum(seconds) / table.crystals.n_sites[rows].sum() * 1e6:10.1f} µs a site"
        )
    each = np.array(matminers_s) / np.array(ours_s)
    print(
        f"ratio {sum(matminers_s) / sum(ours_s):.0f} of the sums; of single structures "
        f"{each.min():.0f} to {each.max():.0f}, median {np.median(each):.0f}"
    )
    print(
        f"values that differ by more than {RELATIVE:g} relative and {ABSOLUTE:g} absolute: "
        f"{n_differ:,} of {len(rows) * len(columns):,}, in {len(far)} structures"
    )
    for material_id, n_sites, count, agrees in far:
        verdict = (
            "agree once the coordinates given to matminer lie between 0 and 1"
            if agrees
            else "differ still"
        )
        print(f"  {material_id}, {n_sites} sites: {count} columns, which {verdict}")


def matminers() -> MultipleFeaturizer:
    """The 128 columns of Ward 2017."""
    return MultipleFeaturizer(
        [
            SiteStatsFingerprint.from_preset("CoordinationNumber_ward-prb-2017"),
            StructuralHeterogeneity(),
            ChemicalOrdering(),
            MaximumPackingEfficiency(),
            SiteStatsFingerprint.from_preset("LocalPropertyDifference_ward-prb-2017"),
        ]
    )


def reference(featurizer: MultipleFeaturizer, structure: Structure) -> np.ndarray:
    """(128,) float64; NaN where matminer fails."""
    try:
        return np.array(featurizer.featurize(structure), float)
    except (ValueError, RuntimeError):
        return np.full(len(featurizer.feature_labels()), np.nan)


def timed(repeats: int, side: Callable, *arguments) -> tuple[np.ndarray, float]:
    """What it gives, and the median of the seconds."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = side(*arguments)
        seconds.append(time.perf_counter() - began)
    return found, statistics.median(seconds)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        help="a source's name or a path (default: mp_structures.jsonl.xz of data/ or $IRNET_DATA)",
    )
    parser.add_argument(
        "--rows", type=int, default=200, help="a fixed random sample (default: 200)"
    )
    parser.add_argument(
        "--sites",
        type=int,
        nargs=2,
        default=(2, 40),
        metavar="N",
        help="fewest and most (default: 2 40)",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="runs of ours a structure (default: 5)"
    )
    return parser


if __name__ == "__main__":
    main()
