"""Which cells of a sweep share a device: cells -> bundles, each of them one process, or one job of SLURM's.

On a GPU a bundle is one network with as many replicas; how many are put together follows from the GPU's memory. On a CPU a cell
alone keeps the cores busy, and a bundle of four is a quarter slower (docs/performance.md): there `auto` is 1.
"""

import os
import subprocess
from collections.abc import Iterable, Sequence

import numpy as np

from irnet_hpc.models.architectures import n_weights, parse_layers
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.spec import RunSpec, shape_of
from irnet_hpc.sweep.ledger import Entry
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.matrix.sites import Site

# Of a replica, in numbers as wide as a weight: the weights, their gradients, average, best and two moments, and once more the
# weights while others are evaluated.
COPIES = 7
# Of a row and an output of a layer: what the layer keeps for its gradient (its input, what was normalised, what was cut), and
# what is at hand while it is computed. Not measured on a GPU yet; where it is too little, the bundle is halved.
ACTIVATIONS = 6
EVALUATED_ROWS = 4096  # at once, of every replica; without gradients, so that only a few layers' outputs are there together
RESERVED_GB = 2.0  # the device's own context, the rows, the allocator's slack
MOST = 16  # beyond so many a GPU is busy anyway, and a bundle that is killed loses more


def replica_gb(spec: RunSpec, recipe: Recipe, n_features: int, n_ranks: int = 1) -> float:
    """Memory that one replica more takes on each rank's device, estimated from above."""
    layers = parse_layers(spec.layer_string)._replace(n_outputs=len(spec.properties))
    wide, narrow = {"fp32": (4, 4), "bf16": (4, 2), "fp64": (8, 8)}[
        recipe.precision
    ]  # bytes of a weight, an output
    widths = [stack.width for stack in layers.stacks for _ in range(sum(stack.branches))]
    of_rows = recipe.batch // n_ranks * sum(widths) * ACTIVATIONS * narrow
    evaluated = EVALUATED_ROWS * (n_features + max(widths)) * ACTIVATIONS * wide
    return (n_weights(layers, n_features) * COPIES * wide + max(of_rows, evaluated)) / 2**30


def n_that_fit(
    spec: RunSpec, recipe: Recipe, n_features: int, memory_gb: float, n_ranks: int = 1
) -> int:
    """How many replicas a device of so much memory is given; one at least, MOST at most."""
    free = memory_gb - RESERVED_GB
    return max(1, min(MOST, int(free / replica_gb(spec, recipe, n_features, n_ranks))))


AUTO = "auto"
LONGEST_MIN = 24 * 60  # of one job: what most partitions allow, and not too much to lose
UNKNOWN_FEATURES = 1024  # of a pack that is not built: more than any set has but `classes`

Bundle = tuple[Entry, ...]


def bundles_of(
    matrix: Matrix, entries: Sequence[Entry], wanted: str | int, gpu_gb: float | None
) -> list[Bundle]:
    """Cells in the order of their first one's. `wanted`: cells together at most, or AUTO; `gpu_gb`: a GPU's memory, None for a CPU.

    Together are cells of one shape and of the same resources, that report the same rows, as far as that is known. A cell that
    starts from another stays alone, for it waits for it; so do a classical one, which has no network, and one that has run out
    of memory, for it may have been too much for all of them together.
    """
    if wanted == 1 or (wanted == AUTO and gpu_gb is None):
        return [(entry,) for entry in entries]
    reports, features = _of_packs(matrix, {entry.cell.spec.pack for entry in entries})
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        spec, recipe = entry.cell.spec, entry.cell.recipe
        key: object = entry.name
        if not spec.is_classical and entry.origin is None and entry.cause != "memory":
            rows = reports.get((spec.pack, spec.property), spec.property)
            key = (shape_of(spec, recipe), rows, entry.cell.resources, entry.state == "stale")
        groups.setdefault(key, []).append(entry)
    found = []
    for group in groups.values():
        cell, most = group[0].cell, wanted
        if wanted == AUTO and len(group) > 1:
            n_features, n_ranks = (
                features.get(cell.spec.pack, UNKNOWN_FEATURES),
                cell.resources.n_ranks,
            )
            on_gpu = not cell.resources.cpu_only
            most = n_that_fit(cell.spec, cell.recipe, n_features, gpu_gb, n_ranks) if on_gpu else 1
        most = 1 if len(group) == 1 else max(1, min(most, LONGEST_MIN // cell.resources.minutes))
        found += [tuple(group[start : start + most]) for start in range(0, len(group), most)]
    place = {entry.name: i for i, entry in enumerate(entries)}
    return sorted(found, key=lambda bundle: place[bundle[0].name])


def _of_packs(
    matrix: Matrix, names: Iterable[str]
) -> tuple[dict[tuple[str, str], object], dict[str, int]]:
    """(pack, property) -> which rows report it, hashed; pack -> number of features. Of packs that are there."""
    reports, features = {}, {}
    for one in matrix.packs:
        if one.name in names and one.exists:
            with open_pack(one.path) as pack:
                features[one.name] = pack.n_features
                for name in pack.units:
                    reported = ~np.isnan(pack.y(name, slice(0, pack.n_rows)))
                    reports[one.name, name] = hash(reported.tobytes())
    return reports, features


def gpu_gb_here() -> float | None:
    """Memory of the smallest GPU that trainings started here may use; None where there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
        return min(float(line) for line in shown.splitlines()) / 1024  # MiB
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def of_bundles(bundles: Sequence[Bundle]) -> dict[str, str]:
    """Cell -> what is said of the bundle that it is in; nothing of cells alone."""
    several = [bundle for bundle in bundles if len(bundle) > 1]
    return {
        entry.name: f"bundle {i} of {len(bundle)} cells"
        for i, bundle in enumerate(several, 1)
        for entry in bundle
    }


def minutes_of(bundle: Bundle) -> int:
    """What a job of the bundle asks for: as long as its cells one after the other. Together they take less, but how much less
    depends on the device, and a bundle that does not fit in its memory is halved until its cells do go one after the other."""
    return sum(entry.cell.resources.minutes for entry in bundle)


def gpu_gb(site: Site, entries: Sequence[Entry]) -> float | None:
    """Memory of the GPU that the site gives a training; None where it gives none, or does not say."""
    has_gpus = site.gpus_per_task or any(entry.cell.resources.gpus_per_rank for entry in entries)
    return float(site.gpu_gb) if site.gpu_gb and has_gpus else None
