"""Results -> tables: one computation whose outcome is a plain frozen Table, which rendering.py and report.py show.

A table holds only what is comparable: one pack, recipe, protocol, number of training rows and start. Its rows are
properties, its columns architecture x depth, its cells the mean over seeds of the test MAE in the property's unit. The
classical models of a pack have a table of their own; of theirs, the others have the best as a column. So do networks of
several properties, which are compared with one network for each.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from irnet_hpc.errors import UserError
from irnet_hpc.grids import GRIDS
from irnet_hpc.properties import PROPERTIES
from irnet_hpc.recipes import RECIPES
from irnet_hpc.runs import ARCHITECTURES, PROTOCOLS, RunResult, RunSpec, read_recipe, run_id, run_key


class Run(NamedTuple):
    folder: Path
    spec: RunSpec
    result: RunResult
    joint: str | None = None  # all properties of the network, of which this is one

    @property
    def trained(self) -> RunSpec:
        """The specification of the training itself."""
        return dataclasses.replace(self.spec, property=self.joint) if self.joint else self.spec


@dataclasses.dataclass(frozen=True)
class BestClassical:
    """The classical model of least MAE on val, which no test row has chosen, and its test MAE under the table's protocol."""

    model: str
    mae: float  # mean over the seeds, on the test rows
    sd: float | None
    seeds: tuple[int, ...]
    best: bool = False  # of its row, the networks and the baseline included


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model on one property. Errors in the property's unit, on the test rows."""

    mae: float  # mean over the seeds
    sd: float | None  # standard deviation over the seeds, ddof = 1; None where there is one
    seeds: tuple[int, ...]
    improvement: float | None  # per cent by which the MAE is below plain's at the same depth, over the seeds both have
    best: bool  # of its row, the baseline included
    n_parameters: int | None
    device_hours: float  # over all seeds
    improvement_over_classical: float | None = (
        None  # per cent by which the MAE is below that of the row's best classical
    )
    improvement_over_single: float | None = None  # of a joint table: below that of a network for this property alone


@dataclasses.dataclass(frozen=True)
class Row:
    property: str
    unit: str
    n_train: int
    n_val: int
    n_test: int
    baseline: float  # MAE of predicting the train median for every test row
    baseline_best: bool
    cells: tuple[Cell | None, ...]  # one a model of the table
    best_classical: BestClassical | None = None  # None: no result, or a table of classical models


@dataclasses.dataclass(frozen=True)
class Table:
    pack: str
    recipe: str
    protocol: str
    selected_on: str  # val | test
    train_rows: int | None
    start_from: str | None  # in words
    models: tuple[tuple[str, int | None], ...]  # (architecture, depth), in the order of the columns
    rows: tuple[Row, ...]
    source: str | None = None  # of the pack, e.g. oqmd
    joint: str | None = None  # the properties that each network has together; None: one

    @property
    def title(self) -> str:
        parts = [self.pack, f"recipe {self.recipe}", f"protocol {self.protocol}"]
        parts += [f"first {self.train_rows:,} training rows"] if self.train_rows else []
        parts += [f"started from {self.start_from}"] if self.start_from else []
        parts += [f"one network for {self.joint.replace(',', ', ')}"] if self.joint else []
        # A number that was selected on the rows it is measured on is optimistic, and says so wherever it appears.
        return ", ".join(parts) + (" (selected on test)" if self.selected_on == "test" else "")

    @property
    def name(self) -> str:
        """What tells this table from the others, as a file's name and a label: letters, digits and _.+=-"""
        parts = [self.pack, self.recipe, self.protocol, self.train_rows and f"n{self.train_rows}", self.start_from]
        short = self.joint and len(self.joint) <= 80  # a file's name has room for a few properties
        parts += [f"joint-{self.joint if short else content_hash({'joint': self.joint})}"] if self.joint else []
        return "_".join(re.sub(r"[^A-Za-z0-9_.+=-]+", "-", str(part)).strip("-") for part in parts if part)

    @property
    def compared_depths(self) -> tuple[int, ...]:
        """Depths at which a row holds both plain and irnet: the papers' headline comparison."""
        return tuple(
            depth
            for depth in sorted({depth for _, depth in self.models})
            if any(self.cell(row, "plain", depth) and self.cell(row, "irnet", depth) for row in self.rows)
        )

    @property
    def has_classical(self) -> bool:
        """Whether a row has a best classical model to compare with."""
        return any(row.best_classical for row in self.rows)

    @property
    def compared_with_single(self) -> tuple[tuple[str, int | None], ...]:
        """Models of a joint table that were also trained for one of its properties alone."""
        columns = zip(self.models, zip(*(row.cells for row in self.rows), strict=True), strict=True)
        return tuple(
            model
            for model, cells in columns
            if any(cell and cell.improvement_over_single is not None for cell in cells)
        )

    def cell(self, row: Row, architecture: str, depth: int | None) -> Cell | None:
        model = (architecture, depth)
        return row.cells[self.models.index(model)] if model in self.models else None


def tabulate(runs: Sequence[Run]) -> tuple[Table, ...]:
    """All the tables that `runs` give. Raises UserError, naming two folders, where one name stands for two contents."""
    _refuse_two_packs_of_one_name(runs)
    recipes = _recipe_labels(runs)
    origins = _origins(runs)
    tables, folders, starts = defaultdict(list), {}, {}
    for run in sorted(
        (one for run in runs for one in _one_a_property(run)), key=lambda run: (run.spec.seed, run.folder)
    ):
        spec, recipe, start_from = run.spec, recipes[_training(run)], _origin(run, origins)
        other = folders.setdefault((spec, recipe, run.joint), run)
        twin = starts.setdefault((dataclasses.replace(spec, start_from=None), recipe, run.joint, start_from), run)
        if twin.spec.start_from != spec.start_from:
            raise UserError(
                f"{twin.folder} and {run.folder} started from different runs, both of which are called {start_from!r}; "
                "move one of them elsewhere"
            )
        if other is run:
            tables[spec.pack, recipe, spec.protocol, spec.train_rows, start_from, run.joint].append(run)
        elif other.result != run.result:
            raise UserError(
                f"{other.folder} and {run.folder} hold the same cell with different numbers; keep one of them"
            )
    classical = [run for run in runs if run.spec.is_classical and not is_stale(run)]
    single = {group: tables.get((*group[:-1], None), []) if group[-1] else [] for group in tables}
    return tuple(_table(*group, tables[group], classical, single[group]) for group in sorted(tables, key=_table_order))


def _one_a_property(run: Run) -> list[Run]:
    """A run of several properties as one a property, each with its own errors and its share of the device-hours."""
    names, result = run.spec.properties, run.result
    if len(names) == 1:
        return [run]
    shared = {"optimism": None, "per_property": None, "device_hours": result.device_hours / len(names)}
    return [
        Run(
            run.folder,
            dataclasses.replace(run.spec, property=name),
            dataclasses.replace(result, **result.per_property[name] | shared),
            run.spec.property,
        )
        for name in names
    ]


def _table_order(group: tuple) -> tuple:
    pack, recipe, protocol, train_rows, start_from, joint = group
    return pack, PROTOCOLS.index(protocol), recipe, -(train_rows or math.inf), start_from or "", joint or ""


def _refuse_two_packs_of_one_name(runs: Sequence[Run]) -> None:
    """The content hash is left out, as in a run's key: features may differ in the last bit between machines."""
    first = {}
    for run in runs:
        other = first.setdefault(run.spec.pack, run)
        ours, theirs = run.result.pack_identity, other.result.pack_identity
        differing = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
        differing = [key for key in differing if key != "content_sha256"]
        if differing:
            raise UserError(
                f"{other.folder} and {run.folder} were trained on two packs named {run.spec.pack!r} of different content "
                f"({', '.join(differing)}); rename one pack, or move one set of results elsewhere"
            )


def is_stale(run: Run) -> bool:
    """Whether the same specification would now be trained otherwise: another recipe of this name, or other numerics."""
    spec, result = run.trained, run.result
    known = GRIDS[spec.architecture] if spec.is_classical else RECIPES.get(spec.recipe)
    try:
        recipe = read_recipe(spec, result.recipe)
        origin_key = (result.origin or {}).get("key")
        return (known or recipe) != recipe or result.key != run_key(spec, recipe, result.pack_identity, origin_key)
    except (TypeError, UserError):  # a field that recipes no longer have
        return True


def _training(run: Run) -> tuple[str, str, bool]:
    """What runs of one table must have in common about their training: the recipe's name and content, stale or not. Each
    classical model has a grid of its own, and they share a table all the same."""
    content = "" if run.spec.is_classical else content_hash(run.result.recipe)
    return run.spec.recipe, content, is_stale(run)


def content_hash(recipe: dict) -> str:
    """What tells recipes of one name apart: six hexadecimal digits."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:6]


def _recipe_labels(runs: Iterable[Run]) -> dict[tuple[str, str, bool], str]:
    """Training -> its label: the recipe's name, and where one name stands for several contents, a hash of each."""
    contents = defaultdict(set)
    trainings = {_training(run) for run in runs}
    for name, content, _ in trainings:
        contents[name].add(content)
    return {
        (name, content, stale): name
        + (f"#{content}" if len(contents[name]) > 1 else "")
        + (" (stale)" if stale else "")
        for name, content, stale in trainings
    }


def _origins(runs: Iterable[Run]) -> dict[str, RunSpec]:
    """What `start_from` of another run would call each run -> its specification."""
    found = {}
    for run in runs:
        with contextlib.suppress(UserError):  # of fields that recipes no longer have; no run starts from it by this id
            found[run_id(run.spec, read_recipe(run.spec, run.result.recipe))] = run.spec
    return found


SPLIT_SEED = re.compile(r"-split\d+(?=-|$)")  # in the name of a pack, where it is not 0
ORIGIN = ("pack", "property", "model", "recipe", "protocol")  # what an origin is called by


def _origin(run: Run, origins: dict[str, RunSpec]) -> str | None:
    """Where the weights came from, in words that are the same for every seed and split; only what differs from the run
    itself. They are the same, too, whether or not the origin is among the results, since each says what it started from."""
    spec = run.trained
    if spec.start_from is None:
        return None
    if origin := origins.get(spec.start_from):
        theirs = {name: getattr(origin, name) for name in (*ORIGIN, "train_rows")}
    elif run.result.origin:
        theirs = {name: run.result.origin.get(name) for name in (*ORIGIN, "train_rows")}
    else:
        return f"run {spec.start_from[:8]}"
    ours = {name: getattr(spec, name) for name in ORIGIN}
    if found := SPLIT_SEED.search(spec.pack):  # that of the origin's pack is the same
        for side in (ours, theirs):
            side["pack"] = str(side["pack"]).replace(found[0], "", 1)
    words = [str(theirs[name]) for name in ORIGIN if theirs[name] not in (None, ours[name])]
    if theirs["train_rows"]:
        words.append(f"n{theirs['train_rows']}")
    return " ".join(words) or "itself"


def _model_order(model: tuple[str, int | None]) -> tuple:
    """plain, srnet, irnet, the classical ones, custom and what else there is, each by depth."""
    architecture, depth = model
    known = ARCHITECTURES.index(architecture) if architecture in ARCHITECTURES else len(ARCHITECTURES)
    return known, architecture, depth or 0


def _table(
    pack: str,
    recipe: str,
    protocol: str,
    train_rows: int | None,
    start_from: str | None,
    joint: str | None,
    runs: list[Run],
    classical: list[Run],
    single: list[Run],
) -> Table:
    models = tuple(sorted({(run.spec.architecture, run.spec.depth) for run in runs}, key=_model_order))
    by_property = defaultdict(list)
    for run in runs:
        by_property[run.spec.property].append(run)
    known = list(PROPERTIES)
    names = sorted(by_property, key=lambda name: (known.index(name) if name in known else len(known), name))
    selected_on = "test" if protocol == "paper" or any(run.result.selected_on == "test" for run in runs) else "val"
    theirs = [] if runs[0].spec.is_classical else classical  # in their own table nothing is compared with them
    theirs = [run for run in theirs if (run.spec.pack, run.spec.train_rows) == (pack, train_rows)]
    rows = tuple(
        _row(name, models, by_property[name], _best_classical(theirs, name, protocol), single) for name in names
    )
    source = runs[0].result.pack_identity.get("source")
    return Table(pack, recipe, protocol, selected_on, train_rows, start_from, models, rows, source, joint)


def _best_classical(runs: list[Run], name: str, protocol: str) -> BestClassical | None:
    """Chosen by val, whatever the protocol: under `paper`, which trains on val, by the same model's honest cells."""
    val, test = defaultdict(list), defaultdict(list)
    for run in runs:
        if run.spec.property == name and run.spec.protocol == "honest" and run.result.val_mae is not None:
            val[run.spec.model].append(run.result.val_mae)
        if run.spec.property == name and run.spec.protocol == protocol:
            test[run.spec.model, run.spec.seed] = run.result.test_mae  # a copied run counts once
    known = [model for model in val if any(model == other for other, _ in test)]
    if not known:
        return None
    model = min(sorted(known), key=lambda model: fmean(val[model]))
    maes = {seed: mae for (other, seed), mae in sorted(test.items()) if other == model}
    return BestClassical(model, fmean(maes.values()), stdev(maes.values()) if len(maes) > 1 else None, tuple(maes))


def _row(
    name: str,
    models: Sequence[tuple[str, int | None]],
    runs: list[Run],
    classical: BestClassical | None,
    single: list[Run],
) -> Row:
    first = runs[0].result
    for run in runs:
        for field in ("unit", "n_train", "n_val", "n_test", "baseline_mae"):
            ours, theirs = getattr(run.result, field), getattr(first, field)
            same = math.isclose(ours, theirs, rel_tol=1e-6) if field == "baseline_mae" else ours == theirs
            if not same:  # the baseline depends on the targets alone; ranks may sum it in another order
                raise UserError(
                    f"{runs[0].folder} and {run.folder} are cells of one row, but their {field} differs: {theirs} and {ours}"
                )
    of_model = {model: [run for run in runs if _model(run) == model] for model in models}
    mae = {model: fmean(run.result.test_mae for run in found) for model, found in of_model.items() if found}
    least = min(first.baseline_mae, *mae.values(), *([classical.mae] if classical else []))
    alone = {model: [run for run in single if _model(run) == model and run.spec.property == name] for model in models}
    cells = tuple(
        _cell(found, of_model.get(("plain", model[1]), []), mae[model], mae[model] == least, classical, alone[model])
        if found
        else None
        for model, found in of_model.items()
    )
    return Row(
        property=name,
        unit=first.unit,
        n_train=first.n_train,
        n_val=first.n_val,
        n_test=first.n_test,
        baseline=first.baseline_mae,
        baseline_best=first.baseline_mae == least,
        cells=cells,
        best_classical=classical and dataclasses.replace(classical, best=classical.mae == least),
    )


def _model(run: Run) -> tuple[str, int | None]:
    return run.spec.architecture, run.spec.depth


def _cell(
    runs: list[Run], plain: list[Run], mae: float, best: bool, classical: BestClassical | None, single: list[Run]
) -> Cell:
    return Cell(
        mae=mae,
        sd=stdev(run.result.test_mae for run in runs) if len(runs) > 1 else None,
        seeds=tuple(run.spec.seed for run in runs),
        improvement=_improvement(runs, plain) if runs[0].spec.architecture != "plain" else None,
        improvement_over_single=_improvement(runs, single),
        improvement_over_classical=100 * (classical.mae - mae) / classical.mae if classical and classical.mae else None,
        best=best,
        n_parameters=runs[0].result.n_parameters,
        device_hours=math.fsum(run.result.device_hours for run in runs),
    )


def _improvement(runs: list[Run], others: list[Run]) -> float | None:
    """Per cent by which the MAE is below the others' over the seeds both have; None where they share none."""
    common = {run.spec.seed for run in runs} & {run.spec.seed for run in others}
    if not common:
        return None
    ours, theirs = (fmean(run.result.test_mae for run in side if run.spec.seed in common) for side in (runs, others))
    return 100 * (theirs - ours) / theirs if theirs else None
