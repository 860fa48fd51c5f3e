"""Group the cells of a sweep into bundles; each bundle is trained by one process or SLURM job.

On a GPU a bundle is one network with a replica for each cell; the GPU's memory limits the number
of replicas. On a CPU one cell keeps the cores busy, and a bundle of four is a quarter slower
(docs/performance.md), so AUTO means 1 on a CPU.
"""

import os
import subprocess
from collections.abc import Iterable, Sequence

from irnet_hpc.models.architectures import n_weights, parse_layers
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.spec import RunSpec, shape_of
from irnet_hpc.runs.state_names import Cause, CellState
from irnet_hpc.sweep.cell_states import CellStatus
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.matrix.sites import Site

# How many numbers of a weight's width a replica keeps per weight: the weight, its gradient,
# average, best value and two moments, and a copy of the weight during the evaluation of others.
COPIES = 7
# How many numbers a row keeps per output of a layer: those that the gradient needs (inputs before
# and after normalisation and ReLU), and temporaries. This has not been measured on a GPU yet; if
# it is too low, a bundle that does not fit is halved.
ACTIVATIONS = 6
# The rows that each replica evaluates at once. Evaluation computes no gradients, so that only a
# few layers are in memory.
EVALUATED_ROWS = 4096
# The device's own context, the rows, and the allocator's slack.
RESERVED_GB = 2.0
# More replicas do not make a GPU busier, but more work is lost if the bundle is killed.
MAX_REPLICAS = 16
# Precision -> bytes of a weight, bytes of an output.
BYTES = {"fp32": (4, 4), "bf16": (4, 2), "fp64": (8, 8)}


def replica_gb(spec: RunSpec, recipe: Recipe, n_features: int, n_ranks: int = 1) -> float:
    """Estimate an upper bound of the memory (GiB) that a replica adds on each rank's device."""
    layers = parse_layers(spec.layer_string)._replace(n_outputs=len(spec.properties))
    weight_bytes, output_bytes = BYTES[recipe.precision]
    widths = [stack.width for stack in layers.stacks for _ in range(sum(stack.branches))]
    trained = recipe.batch // n_ranks * sum(widths) * ACTIVATIONS * output_bytes
    evaluated = EVALUATED_ROWS * (n_features + max(widths)) * ACTIVATIONS * weight_bytes
    weights = n_weights(layers, n_features) * COPIES * weight_bytes
    return (weights + max(trained, evaluated)) / 2**30


def n_that_fit(
    spec: RunSpec, recipe: Recipe, n_features: int, memory_gb: float, n_ranks: int = 1
) -> int:
    """Return how many replicas fit on a device with `memory_gb`, between 1 and MAX_REPLICAS."""
    free = memory_gb - RESERVED_GB
    return max(1, min(MAX_REPLICAS, int(free / replica_gb(spec, recipe, n_features, n_ranks))))


AUTO = "auto"
# The longest job: most partitions allow it, and losing its work is acceptable.
MAX_BUNDLE_MIN = 24 * 60
# The number of features assumed for a pack that is not built. Only the feature set `classes` has
# more.
UNKNOWN_FEATURES = 1024

Bundle = tuple[CellStatus, ...]


def bundles_of(
    matrix: Matrix,
    statuses: Sequence[CellStatus],
    wanted: str | int,
    gpu_gb: float | None,
    n_gpus: int = 1,
) -> list[Bundle]:
    """Group cells into bundles.

    The cells of a bundle have the same shape and resources, and the same rows report their
    properties (this cannot be checked before the pack is built). Three kinds of cell are never
    bundled: a cell that starts from another one, since it waits for that one; a classical cell,
    since it has no network; and a cell that ran out of memory, since a bundle may need even more.

    Args:
        matrix: The matrix.
        statuses: The cells to train.
        wanted: The largest number of cells in a bundle; AUTO means as many as fit into the GPU's
            memory.
        gpu_gb: The memory of a GPU in GiB; None if the cells are trained on a CPU.
        n_gpus: How many GPUs train at the same time. With AUTO, bundles are small enough that none
            of them is without work.

    Returns:
        The bundles in the order of their first cells.
    """
    if wanted == 1 or (wanted == AUTO and gpu_gb is None):
        return [(status,) for status in statuses]
    reports, features = _facts_of_packs(matrix, {status.cell.spec.pack for status in statuses})
    share = -(-len(statuses) // n_gpus) if wanted == AUTO else len(statuses)
    groups: dict[object, list[CellStatus]] = {}
    for status in statuses:
        spec, recipe = status.cell.spec, status.cell.recipe
        key: object = status.name
        if isinstance(recipe, Recipe) and not status.origin and status.cause != Cause.MEMORY:
            rows = reports.get((spec.pack, spec.property), spec.property)
            is_stale = status.state == CellState.STALE
            key = (shape_of(spec, recipe), rows, status.cell.resources, is_stale)
        groups.setdefault(key, []).append(status)
    bundles: list[Bundle] = []
    for group in groups.values():
        n_features = features.get(group[0].cell.spec.pack, UNKNOWN_FEATURES)
        size = min(_bundle_size(group, wanted, n_features, gpu_gb), share)
        bundles += [tuple(group[start : start + size]) for start in range(0, len(group), size)]
    place = {status.name: i for i, status in enumerate(statuses)}
    return sorted(bundles, key=lambda bundle: place[bundle[0].name])


def _bundle_size(
    group: Sequence[CellStatus], wanted: str | int, n_features: int, gpu_gb: float | None
) -> int:
    """Return the largest number of cells of a group that are trained together."""
    cell = group[0].cell
    if len(group) == 1:
        return 1
    if wanted != AUTO:
        size = int(wanted)
    elif cell.resources.cpu_only or gpu_gb is None or not isinstance(cell.recipe, Recipe):
        size = 1
    else:
        size = n_that_fit(cell.spec, cell.recipe, n_features, gpu_gb, cell.resources.n_ranks)
    return max(1, min(size, MAX_BUNDLE_MIN // cell.resources.minutes))


def _facts_of_packs(
    matrix: Matrix, names: Iterable[str]
) -> tuple[dict[tuple[str, str], object], dict[str, int]]:
    """Read from the existing packs which rows report a property, and the number of features.

    Returns:
        (pack, property) -> a hash of the rows that report the property; and pack -> number of
        features.
    """
    import numpy as np

    reports: dict[tuple[str, str], object] = {}
    features: dict[str, int] = {}
    for matrix_pack in matrix.packs:
        name = matrix_pack.name
        if name in names and matrix_pack.exists:
            with open_pack(matrix_pack.path) as pack:
                features[name] = pack.n_features
                for property_name in pack.units:
                    reported = ~np.isnan(pack.y(property_name, slice(0, pack.n_rows)))
                    reports[name, property_name] = hash(reported.tobytes())
    return reports, features


def bundle_labels(bundles: Sequence[Bundle]) -> dict[str, str]:
    """Map each bundled cell to a label such as "bundle 2 of 4 cells"."""
    several = [bundle for bundle in bundles if len(bundle) > 1]
    return {
        status.name: f"bundle {i} of {len(bundle)} cells"
        for i, bundle in enumerate(several, 1)
        for status in bundle
    }


def minutes_of(bundle: Bundle) -> int:
    """Return the time limit of a bundle's job in minutes: the sum of its cells' time limits.

    Cells that are trained together usually take less time, but how much less depends on the device.
    If a bundle does not fit into memory, it is halved; in the worst case its cells are trained one
    after the other.
    """
    return sum(status.cell.resources.minutes for status in bundle)


def gpu_gb_here() -> float | None:
    """Return the memory (GiB) of this machine's smallest GPU; None if it has no GPU."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
        # nvidia-smi prints MiB.
        return min(float(line) for line in done.stdout.splitlines()) / 1024
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def gpu_gb(site: Site, statuses: Sequence[CellStatus]) -> float | None:
    """Return the memory (GiB) of a site's GPU; None if it has none or the size is not stated."""
    asked = any(status.cell.resources.gpus_per_rank for status in statuses)
    return float(site.gpu_gb) if site.gpu_gb and (site.gpus_per_task or asked) else None
