"""What the cells of a matrix will cost, from the model of costs.py and from what done cells of it took; and on how many ranks.

An estimate is of a training that runs all its epochs. Where cells of the same recipe are done, theirs say how long trainings
take here against the model, and after which part of the epochs they stop; else the speed is that of the done cells of any
recipe, else the model's alone.
"""

import dataclasses
import statistics
from collections import Counter, defaultdict

from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.runs.result import RunResult
from irnet_hpc.sweep.costs import DEVICES, Ranks, Work, n_weights, proposed_ranks, training_s
from irnet_hpc.sweep.ledger import Entry, Ledger
from irnet_hpc.sweep.matrix.matrix import Cell, Matrix
from irnet_hpc.sweep.matrix.packs import MatrixPack
from irnet_hpc.sweep.matrix.resources import Resources


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one cell; what is not known is None, and `unknown` says why."""

    unknown: str = ""
    device: str | None = None  # of DEVICES
    n_weights: int | None = None
    n_rows: int | None = None  # training rows
    device_hours: float | None = None  # on the ranks that are asked for
    minutes: float | None = None  # the same
    n_done: int = 0  # cells that the speed was taken from; 0: the model's defaults
    n_ranks: int | None = None  # proposed; None: no number of them meets the limit


@dataclasses.dataclass(frozen=True)
class Speed:
    """What done cells say about others."""

    slower: float = 1.0  # seconds that a training takes, by the model's
    part: float = 1.0  # of the epochs asked for, that were trained
    n_done: int = 0


def estimates(matrix: Matrix, ledger: Ledger, device: str | None = None) -> list[Estimate]:
    """One for each entry of the ledger, in its order; `device` of DEVICES, where a site gives ranks GPUs unasked."""
    packs = {pack.name: pack for pack in matrix.packs}
    speeds, found, known = speeds_of(ledger.entries, device), [], {}
    for entry in ledger.entries:
        cell, spec = entry.cell, entry.cell.spec
        # Cells that differ in their seed cost the same, and thousands of cells are planned while somebody waits.
        alike = (
            spec.pack,
            spec.property,
            spec.model,
            spec.recipe,
            spec.protocol,
            spec.train_rows,
            cell.resources,
        )
        if alike not in known:
            known[alike] = _estimate(cell, packs[spec.pack], speeds, device)
        found.append(known[alike])
    return found


def speeds_of(
    entries: tuple[Entry, ...], device: str | None = None
) -> dict[tuple[str | None, str], Speed]:
    """(recipe, device) -> speed, medians over the cells that have a result; recipe None: over all of a device."""
    found: dict[tuple[str | None, str], list[tuple[float, float]]] = defaultdict(list)
    for entry in entries:
        if entry.state != "done":
            continue
        ranks = _ranks(entry.cell.resources, device)
        if seen := _seen(entry.cell, entry.result, ranks):
            found[entry.cell.spec.recipe, ranks.device].append(seen)
            found[None, ranks.device].append(
                (seen[0], 1.0)
            )  # when another recipe stops early says nothing
    return {
        key: Speed(*(statistics.median(values) for values in zip(*pairs, strict=True)), len(pairs))
        for key, pairs in found.items()
    }


def _seen(cell: Cell, result: RunResult, ranks: Ranks) -> tuple[float, float] | None:
    """(seconds by the model's, part of the epochs) of a done cell; None where its result does not say."""
    facts = (result.n_parameters, result.n_train, result.epochs, result.device_hours)
    last = result.attempts[-1] if isinstance(result.attempts, list) and result.attempts else None
    size = last.get("size") if isinstance(last, dict) else None
    if (
        cell.spec.is_classical
        or not all(fact and fact > 0 for fact in facts)
        or not (isinstance(size, int) and size > 0)
    ):
        return None
    work = Work(
        result.n_parameters,
        parse_layers(cell.spec.layer_string).depth,
        result.n_train,
        result.epochs,
        cell.recipe,
    )
    expected = training_s(work, dataclasses.replace(ranks, nodes=1, ranks_per_node=size))
    return result.device_hours * 3600 / (expected * size), result.epochs / cell.recipe.epochs


def _ranks(resources: Resources, device: str | None) -> Ranks:
    device = device or ("gpu" if resources.gpus_per_rank else "core")
    return Ranks(resources.nodes, resources.ranks_per_node, device, resources.cpus_per_rank)


def _estimate(
    cell: Cell, pack: MatrixPack, speeds: dict[tuple[str | None, str], Speed], device: str | None
) -> Estimate:
    spec, ranks = cell.spec, _ranks(cell.resources, device)
    if spec.is_classical:
        return Estimate("the cost of classical models is not modelled")
    if not pack.exists:
        return Estimate("their packs are not built, so the number of rows is not known")
    n_rows = _training_rows(cell, pack)
    weights = n_weights(spec.layer_string, pack.n_features, len(spec.properties))
    work = Work(
        weights, parse_layers(spec.layer_string).depth, n_rows, cell.recipe.epochs, cell.recipe
    )
    speed = speeds.get((spec.recipe, ranks.device)) or speeds.get((None, ranks.device)) or Speed()
    factor = speed.slower * speed.part
    seconds, limit_s = factor * training_s(work, ranks), 60 * cell.resources.minutes
    n_ranks = proposed_ranks(work, ranks, limit_s, factor)
    hours = seconds / 3600
    return Estimate(
        "", ranks.device, weights, n_rows, hours * ranks.size, hours * 60, speed.n_done, n_ranks
    )


def _training_rows(cell: Cell, pack: MatrixPack) -> int:
    """Rows that report the property; of several, at least one of them, of which only a bound is known: all their sum."""
    spec = cell.spec
    splits = ("train",) if spec.protocol == "honest" else ("train", "val")
    most = sum(pack.n_rows[split] for split in splits)
    n_rows = min(
        most, sum(pack.reported[name][split] for name in spec.properties for split in splits)
    )
    return n_rows if spec.train_rows is None else min(n_rows, spec.train_rows)


# --------------------------------------------------------------------------------------------------------------- in words


def of_cell(entry: Entry, estimate: Estimate) -> str:
    """What stands beside a cell of the plan: nothing where it has a result, or no estimate."""
    if estimate.unknown or entry.state in ("done", "stale"):
        return ""
    resources = entry.cell.resources
    said = f"about {short(estimate.device_hours)} of {short(resources.device_hours)} device-hours"
    return (
        f"{said}: will not end in {resources.minutes} minutes"
        if estimate.minutes > resources.minutes
        else said
    )


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def in_words(ledger: Ledger, of_cells: list[Estimate]) -> list[str]:
    """Lines of the plan about the cells that are still to be trained."""
    pairs = zip(ledger.entries, of_cells, strict=True)
    to_do = [(entry, of) for entry, of in pairs if entry.state not in ("done", "stale")]
    known = [of for _, of in to_do if not of.unknown]
    lines = []
    if known:
        kinds = sorted({of.device for of in known if not of.n_done})
        by = [
            f"if none stops early, by the default speed of a {kind}: {DEVICES[kind].source}"
            for kind in kinds
        ]
        by += ["corrected by done cells"] if any(of.n_done for of in known) else []
        total = sum(of.device_hours for of in known)
        lines += [
            f"estimate: {len(known)} cells take about {short(total)} device-hours, {'; '.join(by)}",
            _on_ranks(known),
        ]
    counts = Counter(of.unknown for _, of in to_do if of.unknown)
    return lines + [f"no estimate of {n} cells: {why}" for why, n in counts.items()]


def _on_ranks(known: list[Estimate]) -> str:
    """One line: on how many ranks cells are trained best."""
    counts = Counter(of.n_ranks for of in known)
    parts = [
        f"1 is best for {counts[1]} of {len(known)} cells, since others run beside it: the matrix is the parallelism"
    ]
    parts += [
        f"{counts[n]} need {n} to meet their minutes"
        for n in sorted(n for n in counts if n and n > 1)
    ]
    parts += [f"{counts[None]} would not meet their minutes on any"] if counts[None] else []
    return f"ranks: {'; '.join(parts)}"
