"""Estimate the cost of the cells of a matrix, and the number of ranks that suits each cell.

costs.py computes how long a training of all epochs takes. Done cells of the same recipe correct
this in two ways: by the ratio of measured to computed time, and by the fraction of the epochs after
which they stopped. If no cell of the recipe is done, the ratio comes from done cells of any recipe.
If no cell at all is done, nothing is corrected.
"""

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.runs.recipes import Recipe, fitted_to
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep.cell_states import CellStatus, Ledger
from irnet_hpc.sweep.costs import (
    DEVICES,
    Allocation,
    Work,
    n_weights,
    proposed_ranks,
    training_s,
)
from irnet_hpc.sweep.matrix.matrix import Cell, Matrix
from irnet_hpc.sweep.matrix.packs import MatrixPack
from irnet_hpc.sweep.matrix.resources import Resources

FINISHED = (CellState.DONE, CellState.STALE)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The estimated cost of one cell. Unknown fields are None, and `unknown` says why."""

    unknown: str = ""
    # A key of costs.DEVICES.
    device: str | None = None
    n_weights: int | None = None
    # The number of training rows.
    n_rows: int | None = None
    # The estimate for the requested number of ranks.
    device_hours: float | None = None
    minutes: float | None = None
    # The number of done cells that the speed was taken from; 0: the model's defaults are used.
    n_done: int = 0
    # The proposed number of ranks; None: no number meets the time limit.
    n_ranks: int | None = None


@dataclasses.dataclass(frozen=True)
class Speed:
    """The corrections that done cells give for the estimates of other cells."""

    # The measured seconds of a training per second that the model estimates.
    slowness: float = 1.0
    # The part of the epochs after which the training stopped.
    part: float = 1.0
    n_done: int = 0


Speeds = dict[tuple[str | None, str], Speed]


def estimates(matrix: Matrix, ledger: Ledger, device: str | None = None) -> list[Estimate]:
    """Estimate the cost of every cell.

    Args:
        matrix: The matrix.
        ledger: The state of its cells.
        device: A key of DEVICES, for a site whose ranks get GPUs that the matrix does not request.

    Returns:
        One estimate for each cell of the ledger, in its order.
    """
    packs = {pack.name: pack for pack in matrix.packs}
    speeds, hours = speeds_of(ledger.cells, device), _hours_of_classical(ledger, packs)
    estimated, known = [], {}
    for status in ledger.cells:
        cell, spec = status.cell, status.cell.spec
        # Cells that differ only in their seed cost the same, and there may be thousands.
        alike = (
            *(spec.pack, spec.property, spec.model, spec.recipe),
            *(spec.protocol, spec.train_rows, cell.resources),
        )
        if alike not in known:
            known[alike] = (
                _estimate(cell, packs[spec.pack], speeds, device)
                if isinstance(cell.recipe, Recipe)
                else _estimate_of_classical(hours[_of_classical(cell, packs)])
            )
        estimated.append(known[alike])
    return estimated


def _of_classical(cell: Cell, packs: Mapping[str, MatrixPack]) -> tuple:
    """Return what a classical cell shares with the cells that cost about the same."""
    spec = cell.spec
    base = packs[spec.pack].base
    return base, spec.property, spec.model, spec.protocol, spec.train_rows, cell.resources


def _hours_of_classical(
    ledger: Ledger, packs: Mapping[str, MatrixPack]
) -> defaultdict[tuple, list[float]]:
    """Collect the device-hours of the done classical cells."""
    hours = defaultdict(list)
    for status in ledger.cells:
        is_classical = not isinstance(status.cell.recipe, Recipe)
        if is_classical and status.state == CellState.DONE and status.result:
            hours[_of_classical(status.cell, packs)].append(status.result.device_hours)
    return hours


def _estimate_of_classical(hours: Sequence[float]) -> Estimate:
    if not hours:
        return Estimate("the cost of a classical model is known once one of its cells is done")
    median = statistics.median(hours)
    # A classical model is fitted by one rank.
    return Estimate(device_hours=median, minutes=60 * median, n_done=len(hours), n_ranks=1)


def minutes_of_cells(matrix: Matrix, ledger: Ledger) -> dict[str, float | None]:
    """Estimate how many minutes each cell takes; None: unknown."""
    pairs = zip(ledger.cells, estimates(matrix, ledger), strict=True)
    return {status.name: estimate.minutes for status, estimate in pairs}


def speeds_of(statuses: Sequence[CellStatus], device: str | None = None) -> Speeds:
    """Compute from the done cells how the estimates of the other cells must be corrected.

    Args:
        statuses: The cells of the matrix.
        device: A key of DEVICES, if the ranks get devices that the matrix does not request.

    Returns:
        (recipe, device) -> medians over the done cells. The recipe None means all cells on the
        device.
    """
    pairs: dict[tuple[str | None, str], list[tuple[float, float]]] = defaultdict(list)
    for status in statuses:
        if status.state != CellState.DONE or status.result is None:
            continue
        allocation = _allocation(status.cell.resources, device)
        if measured := _measured(status.cell, status.result, allocation):
            pairs[status.cell.spec.recipe, allocation.device].append(measured)
            # The epochs at which cells of other recipes stop say nothing about this recipe.
            pairs[None, allocation.device].append((measured[0], 1.0))
    return {
        key: Speed(
            statistics.median(slowness for slowness, _ in values),
            statistics.median(part for _, part in values),
            len(values),
        )
        for key, values in pairs.items()
    }


def _measured(cell: Cell, result: RunResult, allocation: Allocation) -> tuple[float, float] | None:
    """Compare a done cell with its estimate.

    Returns:
        (measured time / estimated time, epochs trained / epochs of the recipe); None if the result
        lacks the numbers for this.
    """
    last = result.attempts[-1] if isinstance(result.attempts, list) and result.attempts else None
    n_ranks = last.get("size") if isinstance(last, dict) else None
    facts = (result.n_parameters, result.n_train, result.epochs, result.device_hours)
    if (
        not isinstance(cell.recipe, Recipe)
        or not all(fact and fact > 0 for fact in facts)
        or not (isinstance(n_ranks, int) and n_ranks > 0)
    ):
        return None
    depth, epochs = parse_layers(cell.spec.layer_string).depth, result.epochs or 0
    was_fitted = result.fitted_recipe is not None
    recipe = fitted_to(cell.recipe, result.n_train) if was_fitted else cell.recipe
    work = Work(result.n_parameters or 0, depth, result.n_train, epochs, recipe)
    here = dataclasses.replace(allocation, nodes=1, ranks_per_node=n_ranks)
    expected = training_s(work, here) * n_ranks
    return result.device_hours * 3600 / expected, epochs / cell.recipe.epochs


def _allocation(resources: Resources, device: str | None) -> Allocation:
    device = device or ("gpu" if resources.gpus_per_rank else "core")
    return Allocation(resources.nodes, resources.ranks_per_node, device, resources.cpus_per_rank)


def _estimate(cell: Cell, pack: MatrixPack, speeds: Speeds, device: str | None) -> Estimate:
    spec, allocation = cell.spec, _allocation(cell.resources, device)
    assert isinstance(cell.recipe, Recipe)
    if not pack.exists:
        return Estimate("their packs are not built, so the number of rows is not known")
    n_rows = _training_rows(cell, pack)
    weights = n_weights(spec.layer_string, pack.n_features, len(spec.properties))
    # With fewer rows than a batch, the recipe is fitted to them.
    is_fitted = n_rows < cell.recipe.batch
    recipe = fitted_to(cell.recipe, n_rows) if is_fitted else cell.recipe
    work = Work(weights, parse_layers(spec.layer_string).depth, n_rows, recipe.epochs, recipe)
    keys = ((spec.recipe, allocation.device), (None, allocation.device))
    speed = next((speeds[key] for key in keys if key in speeds), Speed())
    factor = speed.slowness * speed.part
    hours = factor * training_s(work, allocation) / 3600
    return Estimate(
        device=allocation.device,
        n_weights=weights,
        n_rows=n_rows,
        device_hours=hours * allocation.n_ranks,
        minutes=hours * 60,
        n_done=speed.n_done,
        n_ranks=proposed_ranks(work, allocation, 60 * cell.resources.minutes, factor),
    )


def _training_rows(cell: Cell, pack: MatrixPack) -> int:
    """Count the training rows that report the property.

    For several properties trained together, the rows that report at least one of them count; only
    an upper bound is known, the sum over the properties.
    """
    spec = cell.spec
    parts = ("train",) if spec.protocol == "honest" else ("train", "val")
    all_rows = sum(pack.n_rows[part] for part in parts)
    reported = sum(pack.reported[name][part] for name in spec.properties for part in parts)
    n_rows = min(all_rows, reported)
    return n_rows if spec.train_rows is None else min(n_rows, spec.train_rows)


# A matrix that takes no longer is run here rather than submitted, even if SLURM is here.
HERE_HOURS = 8.0


def fits_here(ledger: Ledger, estimated: Sequence[Estimate]) -> bool:
    """Return True if the cells without a result take few hours of a core each, and nothing else.

    A cell without an estimate, such as a classical model, counts as the hours that it may take.
    """
    hours = 0.0
    for status, estimate in zip(ledger.cells, estimated, strict=True):
        if status.state in FINISHED:
            continue
        resources = status.cell.resources
        if resources.gpus_per_rank or resources.nodes * resources.ranks_per_node > 1:
            return False
        known = estimate.device_hours
        hours += resources.device_hours if known is None else min(known, resources.device_hours)
    return hours <= HERE_HOURS


# --------------------------------------------------------------------------------------- in words


def estimate_text(status: CellStatus, estimate: Estimate) -> str:
    """Describe the cost of a cell in the plan; "" if it has a result or no estimate."""
    if estimate.device_hours is None or estimate.minutes is None or status.state in FINISHED:
        return ""
    resources = status.cell.resources
    hours, limit = short(estimate.device_hours), short(resources.device_hours)
    text = f"about {hours} of {limit} device-hours"
    if estimate.minutes > resources.minutes:
        return f"{text}: will not end in {resources.minutes} minutes"
    return text


def short(value: float) -> str:
    """Format hours with two significant digits, or as a whole number."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def estimate_lines(ledger: Ledger, estimated: Sequence[Estimate]) -> list[str]:
    """Summarise, for the plan, the estimates of the cells that are still to be trained."""
    pairs = list(zip(ledger.cells, estimated, strict=True))
    to_do = [(status, e) for status, e in pairs if status.state not in FINISHED]
    known = [(status, e) for status, e in to_do if not e.unknown]
    lines = []
    if known:
        unproven = sorted({e.device for _, e in known if e.device and not e.n_done})
        reasons = [
            f"if none stops early, at the default speed of a {kind}: {DEVICES[kind].source}"
            for kind in unproven
        ]
        reasons += ["corrected by done cells"] if any(e.n_done for _, e in known) else []
        if any(_leaves_out_allreduce(status, e) for status, e in known):
            reasons.append("without the time that several ranks take to sum their gradients")
        total = short(sum(e.device_hours or 0.0 for _, e in known))
        what = f"{len(known)} cells take about {total} device-hours"
        lines += [f"estimate: {what}, {'; '.join(reasons)}", _ranks_line([e for _, e in known])]
    counts = Counter(e.unknown for _, e in to_do if e.unknown)
    return lines + [f"no estimate of {n} cells: {why}" for why, n in counts.items()]


def _leaves_out_allreduce(status: CellStatus, estimate: Estimate) -> bool:
    """Return True if a cell will have several ranks but their link was never measured."""
    allocation = _allocation(status.cell.resources, estimate.device)
    return allocation.n_ranks > 1 and allocation.link is None


def _ranks_line(known: Sequence[Estimate]) -> str:
    """Say in one line how many cells should be trained on one rank, and how many on more."""
    counts = Counter(estimate.n_ranks for estimate in known)
    parts = [
        f"1 is best for {counts[1]} of {len(known)} cells, since other cells run at the same time"
    ]
    for n in sorted(n for n in counts if n and n > 1):
        parts.append(f"{counts[n]} need {n} to end within their time limit")
    if counts[None]:
        parts.append(
            f"{counts[None]} would exceed their time limit on any number of ranks that can be "
            "estimated"
        )
    return f"ranks: {'; '.join(parts)}"
